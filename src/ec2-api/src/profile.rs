//! IAM instance profiles.

/// An instance profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceProfile {
    /// Name.
    pub name: String,
    /// Path, with slashes on both ends.
    pub path: String,
    /// Names of its roles; at most one.
    pub roles: Vec<String>,
}
