//! What every loop works with.

use std::sync::Arc;

use karpenter_cloud::Provider;
use karpenter_runtime::{Clock, EventRecorder, RngTree, Settings, metrics::Metrics};
use tokio_util::sync::CancellationToken;

/// Handles that all loops share; cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// API client that retries.
    pub client: kube::Client,
    /// API client that does not retry: evictions, leases (a 429 must come back at once).
    pub client_no_retry: kube::Client,
    /// The cluster as watched.
    pub state: Arc<karpenter_state::Store>,
    /// The cloud and what it brings along.
    pub provider: Arc<Provider>,
    /// Clock.
    pub clock: Clock,
    /// Randomness.
    pub rng: RngTree,
    /// Settings.
    pub settings: Arc<Settings>,
    /// Event writer.
    pub events: EventRecorder,
    /// Metrics.
    pub metrics: Metrics,
    /// Cancelled at shutdown or when the lease is lost.
    pub stop: CancellationToken,
    /// Notified when instance types, prices or availability have changed.
    pub catalog_changed: Arc<tokio::sync::Notify>,
}
