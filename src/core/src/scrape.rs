//! Gauges that describe the state of the whole, computed when they are read.

use std::sync::Arc;

use karpenter_runtime::Clock;
use karpenter_runtime::metrics::Metrics;
use karpenter_state::Store;
use parking_lot::Mutex;

/// Registers them.
pub(crate) fn register(metrics: &Metrics, store: &Arc<Store>, clock: Clock) {
    metrics.set(
        "karpenter_build_info",
        &[
            ("version", env!("CARGO_PKG_VERSION")),
            // Dashboards group by these names, which come from the first implementation's language.
            ("goversion", ""),
            ("goarch", std::env::consts::ARCH),
            ("commit", karpenter_runtime::build::COMMIT),
        ],
        1.0,
    );
    let unsynced_since = Mutex::new(Some(clock.now()));
    // A controller that was killed and started again counts in the same place: the dead one must not tell any more.
    let store = Arc::downgrade(store);
    metrics.on_scrape_while(move |metrics| {
        let Some(store) = store.upgrade() else {
            return false;
        };
        let nodes = u32::try_from(store.node_views().len()).map_or(f64::MAX, f64::from);
        metrics.set("karpenter_cluster_state_node_count", &[], nodes);
        let synced = store.synced();
        metrics.set(
            "karpenter_cluster_state_synced",
            &[],
            f64::from(u8::from(synced)),
        );
        let mut since = unsynced_since.lock();
        if synced {
            *since = None;
        } else if since.is_none() {
            *since = Some(clock.now());
        }
        let seconds = since.map_or(0.0, |at| {
            clock.now().saturating_duration_since(at).as_secs_f64()
        });
        metrics.set(
            "karpenter_cluster_state_unsynced_time_seconds",
            &[],
            seconds,
        );
        true
    });
}
