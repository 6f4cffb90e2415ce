//! The provisioner: batches what happens, plans pods that fit nowhere, and makes the claims of the plan.

pub mod batch;

use tokio::task::JoinHandle;

use crate::Context;

/// Starts it.
pub(crate) fn start(ctx: &Context) -> JoinHandle<()> {
    let ctx = ctx.clone();
    tokio::spawn(async move { ctx.stop.cancelled().await })
}
