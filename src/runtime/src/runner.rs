//! The keyed runner: a sorted, deduplicating, rate-limited queue in front of a reconciler.
//!
//! Keys that are due run in sorted order, each at most once at a time; an error backs off per key with jitter
//! from the seeded tree; `RequeueAfter` waits on tokio time. A key added while it runs runs once more.

use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::{Clock, Key, RngTree};

/// What a successful reconcile wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing until something changes.
    AwaitChange,
    /// Another look after this time, or at a change before it.
    RequeueAfter(Duration),
}

/// The body of a keyed loop.
#[async_trait]
pub trait Reconciler: Send + Sync + 'static {
    /// Controller name as in logs and metrics, such as `nodeclaim.lifecycle`.
    fn name(&self) -> &'static str;
    /// Brings one object closer to what it should be. Level-triggered: may run twice, may be cut off anywhere.
    ///
    /// # Errors
    /// Anything that should be tried again with back-off; it is logged and counted by the runner.
    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError>;
}

/// A failed reconcile.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Another writer was faster: try again at once, without counting an error.
    #[error("conflict")]
    Conflict,
    /// Try again with back-off.
    #[error("{0}")]
    Retry(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<kube::Error> for ReconcileError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.is_conflict() => Self::Conflict,
            _ => Self::Retry(Box::new(error)),
        }
    }
}

/// How a runner behaves.
#[derive(Clone, Copy, Debug)]
pub struct RunnerOptions {
    /// Most keys that run at once.
    pub concurrency: usize,
    /// First back-off after an error.
    pub backoff_base: Duration,
    /// Longest back-off.
    pub backoff_max: Duration,
}

impl Default for RunnerOptions {
    fn default() -> Self {
        Self {
            concurrency: 10,
            backoff_base: Duration::from_millis(100),
            backoff_max: Duration::from_secs(60),
        }
    }
}

/// Handle to add keys to a runner; cheap to clone.
#[derive(Clone, Debug)]
pub struct Queue {
    // INTERFACE: the runtime author fills this in.
}

impl Queue {
    /// Runs `key` as soon as a slot is free.
    pub fn add(&self, _key: Key) {}
    /// Runs `key` after `delay` at the latest.
    pub fn add_after(&self, _key: Key, _delay: Duration) {}
}

/// Starts a runner for `reconciler` as a tokio task that ends, its reconciles finished, when `stop` is cancelled.
/// Returns the handle to feed it.
pub fn spawn<R: Reconciler>(
    _reconciler: std::sync::Arc<R>,
    _options: RunnerOptions,
    _clock: Clock,
    _rng: &RngTree,
    _stop: CancellationToken,
) -> (Queue, tokio::task::JoinHandle<()>) {
    (Queue {}, tokio::spawn(async {})) // INTERFACE: the runtime author fills this in.
}
