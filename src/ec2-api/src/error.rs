//! AWS errors: the code and message as AWS sent them, and the classes that Karpenter tells apart.

/// Result of an AWS call.
pub type Result<T> = std::result::Result<T, Ec2Error>;

/// Code of [`Ec2Error::timeout`]: no answer came, so that the action may or may not have happened.
pub const NO_RESPONSE: &str = "NoResponse";

/// A refused or lost AWS call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Ec2Error {
    /// AWS error code, such as `RequestLimitExceeded`.
    pub code: String,
    /// AWS error message.
    pub message: String,
    /// Whether AWS blames itself (HTTP 5xx).
    pub server_fault: bool,
}

/// What a failure means to the caller. Some codes are of two kinds (`VcpuLimitExceeded` is a quota and, in a fleet,
/// a lack of capacity); the fleet's view is [`is_unfulfillable_code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorClass {
    /// The thing named is not there.
    NotFound,
    /// The thing named is there already.
    AlreadyExists,
    /// The launch template named is not there (also a `NotFound`).
    LaunchTemplateNotFound,
    /// A dry run that would have worked.
    DryRunOk,
    /// Not allowed.
    Unauthorized,
    /// Too many requests; says nothing about capacity.
    RateLimited,
    /// The instance profile is too new to be seen by EC2.
    ProfileNotVisible,
    /// User data is over its limit.
    UserDataTooLarge,
    /// No answer: the outcome is not known.
    NoResponse,
    /// AWS' own fault.
    Server,
    /// Anything else.
    Other,
}

impl Ec2Error {
    /// An error of the caller's making.
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            server_fault: false,
        }
    }

    /// An error of AWS' making.
    #[must_use]
    pub fn server(code: &str, message: impl Into<String>) -> Self {
        Self {
            server_fault: true,
            ..Self::new(code, message)
        }
    }

    /// No answer in time.
    #[must_use]
    pub fn timeout(call: &str) -> Self {
        Self::new(NO_RESPONSE, format!("{call}: no response in time"))
    }

    /// The class of this error; the first that applies.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self.code.as_str() {
            NO_RESPONSE => ErrorClass::NoResponse,
            // The Id variant is missing from upstream's list, so that a template deleted by hand stays cached there.
            "InvalidLaunchTemplateName.NotFoundException"
            | "InvalidLaunchTemplateId.NotFound"
            | "InvalidLaunchTemplateId.NotFoundException" => ErrorClass::LaunchTemplateNotFound,
            "InvalidCapacityReservationId.NotFound"
            | "InvalidInstanceID.NotFound"
            | "QueueDoesNotExist"
            | "NoSuchEntity"
            | "ParameterNotFound" => ErrorClass::NotFound,
            "EntityAlreadyExists" | "InvalidLaunchTemplateName.AlreadyExistsException" => {
                ErrorClass::AlreadyExists
            }
            "DryRunOperation" => ErrorClass::DryRunOk,
            "UnauthorizedOperation" => ErrorClass::Unauthorized,
            "RequestLimitExceeded" => ErrorClass::RateLimited,
            "InvalidParameterValue"
                if self.message.contains("Invalid IAM Instance Profile name") =>
            {
                ErrorClass::ProfileNotVisible
            }
            "InvalidUserData.Malformed" if self.message.contains("User data is limited to") => {
                ErrorClass::UserDataTooLarge
            }
            _ if self.server_fault => ErrorClass::Server,
            _ => ErrorClass::Other,
        }
    }

    /// Whether the thing named is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(
            self.class(),
            ErrorClass::NotFound | ErrorClass::LaunchTemplateNotFound
        )
    }
}

/// Code of a fleet error about a full subnet.
pub const SUBNET_FULL: &str = "InsufficientFreeAddressesInSubnet";
/// Code of a fleet error about the role that spot launches need.
pub const SPOT_ROLE_NOT_PERMITTED: &str = "AuthFailure.ServiceLinkedRoleCreationNotPermitted";
/// Part of the message of a fleet error about a full spread placement group.
pub const SPREAD_GROUP_FULL: &str = "limit of instances in this spread placement group";

/// Whether a fleet error of this code says that the offering cannot be had now.
#[must_use]
pub fn is_unfulfillable_code(code: &str) -> bool {
    matches!(
        code,
        "InsufficientInstanceCapacity"
            | "MaxSpotInstanceCountExceeded"
            | "VcpuLimitExceeded"
            | "UnfulfillableCapacity"
            | "Unsupported"
            | SUBNET_FULL
            | "MaxFleetCountExceeded"
            | "ReservationCapacityExceeded"
    )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("InvalidInstanceID.NotFound", "", ErrorClass::NotFound)]
    #[case(
        "InvalidLaunchTemplateName.NotFoundException",
        "",
        ErrorClass::LaunchTemplateNotFound
    )]
    #[case("EntityAlreadyExists", "", ErrorClass::AlreadyExists)]
    #[case("DryRunOperation", "", ErrorClass::DryRunOk)]
    #[case("RequestLimitExceeded", "", ErrorClass::RateLimited)]
    #[case(
        "InvalidParameterValue",
        "Value (x) for parameter is invalid. Invalid IAM Instance Profile name",
        ErrorClass::ProfileNotVisible
    )]
    #[case("InvalidParameterValue", "something else", ErrorClass::Other)]
    #[case(
        "InvalidUserData.Malformed",
        "User data is limited to 16384 bytes",
        ErrorClass::UserDataTooLarge
    )]
    #[case("NoResponse", "", ErrorClass::NoResponse)]
    fn classes(#[case] code: &str, #[case] message: &str, #[case] want: ErrorClass) {
        assert_eq!(Ec2Error::new(code, message).class(), want);
    }

    #[test]
    fn a_server_fault_is_one_unless_the_code_says_more() {
        assert_eq!(
            Ec2Error::server("InternalError", "").class(),
            ErrorClass::Server
        );
        assert_eq!(
            Ec2Error::server("RequestLimitExceeded", "").class(),
            ErrorClass::RateLimited
        );
    }
}
