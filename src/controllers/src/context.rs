//! What every loop works with.

use std::sync::Arc;

use karpenter_cloud::Provider;
use karpenter_runtime::{Clock, EventRecorder, RngTree, Settings, metrics::Metrics};
use karpenter_solver::Wares;
use tokio_util::sync::CancellationToken;

use crate::overlay::Overlays;

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
    /// What NodeOverlays make of what the provider sells; none while their gate is off.
    pub overlays: Option<Arc<Overlays>>,
    /// What plans have found out about what is sold.
    pub wares: Wares,
}

impl Context {
    /// On how many threads something may be thought over: as many as there are cores; one where time is simulated, as many
    /// worlds share a machine then.
    pub(crate) fn threads(&self) -> usize {
        if self.clock.is_virtual() {
            return 1;
        }
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    /// With NodeOverlays between the provider and everything that asks it what it sells, if their gate is on.
    #[must_use]
    pub fn with_overlays(mut self) -> Self {
        if self.settings.feature_gates.node_overlay {
            let overlays = Arc::new(Overlays::new(&self));
            let mut provider = Provider::clone(&self.provider);
            provider.cloud = overlays.clone();
            self.provider = Arc::new(provider);
            self.overlays = Some(overlays);
        }
        self
    }
}
