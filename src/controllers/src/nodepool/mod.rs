//! The controllers of NodePools: hash, readiness, validation, counter.

pub(crate) mod hash;

use tokio::task::JoinHandle;

use crate::Context;

/// Starts them.
pub(crate) fn start(_ctx: &Context) -> Vec<JoinHandle<()>> {
    Vec::new()
}
