//! What is seen of a world from outside: a timeline of milestones and the money spent. Reads the API only, so that
//! it judges what a user would see and not what the controller thinks.

mod ledger;
mod timeline;

use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_fake_kube::server::{ApiServer, Change, gr};
use karpenter_runtime::Clock;
use parking_lot::Mutex;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub use ledger::{Ledger, PriceLookup};
pub use timeline::Entry;
use timeline::Timeline;

/// Window over which changes of pods are told as one line; longer than a burst of bindings, shorter than a boot. A
/// NodePool or NodeOverlay that is not ready is told of when it still is not at its end.
const POD_WINDOW: std::time::Duration = std::time::Duration::from_secs(1);

/// Everything observed so far.
#[derive(Debug, Default)]
pub struct Observed {
    timeline: Timeline,
    ledger: Ledger,
    pods: BTreeMap<String, PodPhase>,
    /// Most pods that ran at once.
    pub pods_running_peak: u64,
    /// Machines that joined.
    pub nodes_launched: u64,
    /// Machines that went.
    pub nodes_returned: u64,
}

/// How far a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PodPhase {
    Pending,
    Starting,
    Running,
}

/// Counts of pods, DaemonSet pods left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PodCounts {
    /// Without a node.
    pub pending: u64,
    /// With a node, not running yet.
    pub starting: u64,
    /// Running.
    pub running: u64,
}

impl Observed {
    /// Counts of pods now.
    #[must_use]
    pub fn pod_counts(&self) -> PodCounts {
        let mut counts = PodCounts::default();
        for phase in self.pods.values() {
            match phase {
                PodPhase::Pending => counts.pending += 1,
                PodPhase::Starting => counts.starting += 1,
                PodPhase::Running => counts.running += 1,
            }
        }
        counts
    }
    /// The milestones so far.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        self.timeline.entries()
    }
    /// The money spent.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }
    /// Adds a milestone of the harness itself (a step, a fault).
    pub fn note(&mut self, at: f64, kind: &str, object: &str, message: &str) {
        self.timeline.push(at, kind, object, message);
    }
}

/// Starts observing `api`; ends when `stop` is cancelled.
#[must_use]
pub fn start(
    api: &ApiServer,
    clock: Clock,
    prices: PriceLookup,
    stop: CancellationToken,
) -> (Arc<Mutex<Observed>>, tokio::task::JoinHandle<()>) {
    let observed = Arc::new(Mutex::new(Observed::default()));
    let shared = Arc::clone(&observed);
    let start = clock.now();
    let mut claims = api.subscribe(gr("karpenter.sh", "nodeclaims"));
    let mut pools = api.subscribe(gr("karpenter.sh", "nodepools"));
    let mut overlays = api.subscribe(gr("karpenter.sh", "nodeoverlays"));
    let mut nodes = api.subscribe(gr("", "nodes"));
    let mut pods = api.subscribe(gr("", "pods"));
    let mut events = api.subscribe(gr("", "events"));
    let task = tokio::spawn(async move {
        let mut flush_at: Option<tokio::time::Instant> = None;
        loop {
            let flush = async {
                match flush_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(change) = claims.next() => {
                    let at = seconds(&clock, start);
                    let mut o = shared.lock();
                    let Observed { timeline, ledger, .. } = &mut *o;
                    ledger.claim(at, &change, &prices);
                    timeline.claim(at, &change, ledger);
                }
                Some(change) = pools.next() => {
                    if shared.lock().timeline.readiness("NodePool", &change) {
                        flush_at.get_or_insert_with(|| clock.now() + POD_WINDOW);
                    }
                }
                Some(change) = overlays.next() => {
                    if shared.lock().timeline.readiness("NodeOverlay", &change) {
                        flush_at.get_or_insert_with(|| clock.now() + POD_WINDOW);
                    }
                }
                Some(change) = nodes.next() => {
                    let at = seconds(&clock, start);
                    let mut o = shared.lock();
                    let (joined, left) = o.timeline.node(at, &change);
                    o.nodes_launched += u64::from(joined);
                    o.nodes_returned += u64::from(left);
                }
                Some(change) = pods.next() => {
                    shared.lock().pod(&change);
                    flush_at.get_or_insert_with(|| clock.now() + POD_WINDOW);
                }
                Some(change) = events.next() => {
                    if shared.lock().timeline.event(seconds(&clock, start), &change) {
                        flush_at.get_or_insert_with(|| clock.now() + POD_WINDOW);
                    }
                }
                () = flush => {
                    flush_at = None;
                    shared.lock().flush(seconds(&clock, start));
                }
                else => break,
            }
        }
        let at = seconds(&clock, start);
        let mut o = shared.lock();
        o.flush(at);
        o.ledger.close(at);
    });
    (observed, task)
}

impl Observed {
    fn pod(&mut self, change: &Change) {
        let (Change::Added(object) | Change::Modified(object) | Change::Deleted(object)) = change;
        if crate::json::is_daemon(object) {
            return;
        }
        let key = format!(
            "{}/{}",
            crate::json::text(object, "/metadata/namespace"),
            crate::json::name(object)
        );
        let phase = crate::json::text(object, "/status/phase");
        if matches!(change, Change::Deleted(_)) || matches!(phase, "Succeeded" | "Failed") {
            self.pods.remove(&key);
        } else {
            let phase = match (phase, crate::json::text(object, "/spec/nodeName")) {
                ("Running", _) => PodPhase::Running,
                (_, "") => PodPhase::Pending,
                _ => PodPhase::Starting,
            };
            self.pods.insert(key, phase);
        }
        self.pods_running_peak = self.pods_running_peak.max(self.pod_counts_running());
    }

    fn pod_counts_running(&self) -> u64 {
        u64::try_from(
            self.pods
                .values()
                .filter(|p| **p == PodPhase::Running)
                .count(),
        )
        .unwrap_or(u64::MAX)
    }

    fn flush(&mut self, at: f64) {
        let counts = self.pod_counts();
        self.timeline.flush(at, counts);
    }
}

/// Seconds since the start, to the millisecond.
fn seconds(clock: &Clock, start: tokio::time::Instant) -> f64 {
    (clock.now().saturating_duration_since(start).as_secs_f64() * 1000.0).round() / 1000.0
}
