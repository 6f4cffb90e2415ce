//! What schedulings are measured by: how long each took, and how much is before one that runs (`operations.md` §3).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use karpenter_model::Plan;
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::{Clock, RngTree};
use parking_lot::Mutex;
use tokio::time::Instant;

const DEPTH: &str = "karpenter_scheduler_queue_depth";
const AGE: &str = "karpenter_scheduler_unfinished_work_seconds";

/// Measures the schedulings of one controller; cheap to clone.
#[derive(Clone)]
pub(crate) struct Meter {
    controller: &'static str,
    clock: Clock,
    metrics: Metrics,
    running: Arc<Mutex<Running>>,
}

/// Schedulings that run now, by their ids.
struct Running {
    ids: karpenter_runtime::rng::Rng,
    by_id: BTreeMap<String, (usize, Instant)>,
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter")
            .field("controller", &self.controller)
            .finish_non_exhaustive()
    }
}

impl Meter {
    /// For the schedulings of `controller`.
    pub(crate) fn new(
        controller: &'static str,
        clock: Clock,
        metrics: Metrics,
        rng: &RngTree,
    ) -> Self {
        let meter = Self {
            controller,
            clock,
            metrics,
            running: Arc::new(Mutex::new(Running {
                ids: rng.child("scheduling", controller).rng(),
                by_id: BTreeMap::new(),
            })),
        };
        let (running, clock) = (Arc::downgrade(&meter.running), meter.clock.clone());
        meter.metrics.on_scrape_while(move |metrics| {
            let Some(running) = running.upgrade() else {
                return false;
            };
            let now = clock.now();
            metrics.remove(DEPTH, &[("controller", controller)]);
            metrics.remove(AGE, &[("controller", controller)]);
            for (id, (pods, since)) in &running.lock().by_id {
                let labels = [("controller", controller), ("scheduling_id", id.as_str())];
                let pods = u32::try_from(*pods).map_or(f64::MAX, f64::from);
                metrics.set(DEPTH, &labels, pods);
                let age = now.saturating_duration_since(*since);
                metrics.set(AGE, &labels, age.as_secs_f64());
            }
            true
        });
        meter
    }

    /// Lets a question about so many pods be solved; how long that took is told apart with [`Meter::took`], as what is
    /// asked before may count as well.
    pub(crate) fn solve(&self, pods: usize, solve: impl FnOnce() -> Plan) -> Plan {
        let id = self.begin(pods);
        let plan = solve();
        self.running.lock().by_id.remove(&id);
        plan
    }

    fn begin(&self, pods: usize) -> String {
        let mut running = self.running.lock();
        let id = running.ids.uuid();
        let what = (pods, self.clock.now());
        running.by_id.insert(id.clone(), what);
        id
    }

    /// [`Meter::solve`], told of as a scheduling of its own.
    pub(crate) fn timed(&self, pods: usize, solve: impl FnOnce() -> Plan) -> Plan {
        let began = self.clock.now();
        let plan = self.solve(pods, solve);
        self.took(self.clock.now().saturating_duration_since(began));
        plan
    }

    /// A scheduling took that long.
    pub(crate) fn took(&self, took: Duration) {
        self.metrics.observe(
            "karpenter_scheduler_scheduling_duration_seconds",
            &[("controller", self.controller)],
            took.as_secs_f64(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_scheduling_that_runs_shows_its_depth_and_age() {
        let metrics = Metrics::default();
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let meter = Meter::new("provisioner", clock, metrics.clone(), &RngTree::new(1));
        let id = meter.begin(7);
        tokio::time::sleep(Duration::from_secs(3)).await;
        let _ = metrics.render();
        let labels = [("scheduling_id", id.as_str())];
        assert_eq!(metrics.value(DEPTH, &labels), Some(7.0));
        assert_eq!(metrics.value(AGE, &labels), Some(3.0));
        meter.running.lock().by_id.clear();
        let _ = metrics.render();
        assert_eq!(metrics.value(DEPTH, &[]), None);
        meter.timed(0, Plan::default);
        let name = "karpenter_scheduler_scheduling_duration_seconds";
        assert_eq!(metrics.value(name, &[]), Some(1.0));
    }
}
