//! Which build this is.

/// Version of the workspace.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Commit the build was made from, if the build was told (`KARPENTER_COMMIT` in its environment).
pub const COMMIT: &str = match option_env!("KARPENTER_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
