//! The provider-neutral loops, one module each: a reconcile is thin I/O around a pure decision.

mod buffer;
pub mod context;
mod disruption;
mod gc;
mod hearing;
mod lifecycle;
pub mod nodepool;
mod observability;
pub mod overlay;
pub mod provisioning;
mod repair;
mod static_pools;
mod termination;

pub use context::Context;
pub use disruption::explain;
pub use lifecycle::start_lifecycle;
use tokio::task::JoinHandle;

/// Starts what turns pending pods into NodeClaims, what holds static NodePools at their size, and the controllers of
/// NodePools, NodeOverlays and CapacityBuffers. They end when `ctx.stop` is cancelled, work begun finished.
#[must_use]
pub fn start_provisioning(ctx: &Context) -> Vec<JoinHandle<()>> {
    let mut handles = nodepool::start(ctx);
    if ctx.settings.feature_gates.capacity_buffer {
        handles.extend(buffer::start(ctx));
    }
    if let Some(overlays) = &ctx.overlays {
        handles.extend(overlay::start(ctx, overlays));
    }
    handles.extend(provisioning::start(ctx));
    handles.extend(static_pools::start(ctx));
    handles
}
