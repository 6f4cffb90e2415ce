//! Reasons of failed launches, as conditions and metrics show them (`aws-provider.md` §7): the first that the error text
//! matches.

/// The reason for an error text.
pub(crate) fn reason(text: &str) -> &'static str {
    let has = |part: &str| text.contains(part);
    if has("AuthFailure.ServiceLinkedRoleCreationNotPermitted") {
        return "SpotSLRCreationFailed";
    }
    if has("UnauthorizedOperation") || has("AccessDenied") || has("AuthFailure") {
        let denied = has("permissions boundary") || has("service control policy");
        return if has("Not authorized for images") && !denied {
            "AMIAuthorizationFailure"
        } else {
            "Unauthorized"
        };
    }
    if has("InvalidParameter") && has("belong to different networks") {
        return "SecurityGroupSubnetVPCMismatch";
    }
    let table = [
        (
            "iamInstanceProfile.name is invalid",
            "InstanceProfileNameInvalid",
        ),
        ("InvalidLaunchTemplateId.NotFound", "LaunchTemplateNotFound"),
        ("User data is limited to", "UserDataSizeLimitExceeded"),
        ("InvalidAMIID.Malformed", "InvalidAMIID"),
        ("InvalidAMIID.NotFound", "AMINotFound"),
        ("RequestLimitExceeded", "RequestLimitExceeded"),
        ("InternalError", "InternalError"),
        ("not eligible for Free Tier", "FreeTierIneligible"),
        ("MaxFleetCountExceeded", "FleetQuotaExceeded"),
        ("PendingVerification", "AccountPendingVerification"),
        ("MaxSpotInstanceCountExceeded", "SpotQuotaExceeded"),
        ("VcpuLimitExceeded", "VCPULimitExceeded"),
        (
            "InsufficientFreeAddressesInSubnet",
            "InsufficientFreeAddressesInSubnet",
        ),
    ];
    let found = table.iter().find(|(part, _)| has(part));
    found.map_or("LaunchFailed", |(_, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("RequestLimitExceeded: slow down", "RequestLimitExceeded")]
    #[case(
        "UnauthorizedOperation: Not authorized for images: [ami-1]",
        "AMIAuthorizationFailure"
    )]
    #[case("UnauthorizedOperation: no", "Unauthorized")]
    #[case("InvalidAMIID.NotFound: x", "AMINotFound")]
    #[case(
        "VcpuLimitExceeded: x; MaxSpotInstanceCountExceeded: y",
        "SpotQuotaExceeded"
    )]
    #[case("Whatever: x", "LaunchFailed")]
    fn reasons(#[case] text: &str, #[case] want: &str) {
        assert_eq!(reason(text), want);
    }
}
