//! The harness: scenarios, the world they run in, what is observed of it, and the tiers.

pub mod json;
pub mod manifests;
pub mod observe;
pub mod scenario;
