//! The two kinds of time a command can run in.

use crate::output::Failure;

/// A single-threaded runtime whose clock jumps from event to event.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn virtual_time() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(karpenter_e2e::world::virtual_runtime()?)
}

/// A single-threaded runtime on the machine's clock, with sockets and signals.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn real_time() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}
