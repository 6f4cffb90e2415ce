//! The provider-neutral loops, one module each: a reconcile is thin I/O around a pure decision.

pub mod context;
pub mod nodepool;
pub mod provisioning;

pub use context::Context;
use tokio::task::JoinHandle;

/// Starts what turns pending pods into NodeClaims, and the controllers of NodePools. They end when `ctx.stop` is
/// cancelled, work begun finished.
#[must_use]
pub fn start_provisioning(ctx: &Context) -> Vec<JoinHandle<()>> {
    let mut handles = nodepool::start(ctx);
    handles.extend(provisioning::start(ctx));
    handles
}
