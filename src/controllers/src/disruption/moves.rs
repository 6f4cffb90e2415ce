//! Moves per pod and day: how restless disruption makes a cluster, as a gauge that can be alerted on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use karpenter_runtime::Clock;
use karpenter_runtime::metrics::Metrics;
use karpenter_state::Store;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::candidate::Candidate;
use super::method::Reason;
use crate::Context;

/// How far back moves are counted.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Most machines that are remembered; the oldest are forgotten first.
const MAX_REMEMBERED: usize = 50_000;
/// Its name.
const NAME: &str = "karpenter_voluntary_disruption_pod_moves_per_day";

/// Machines given back lately, with their pods; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Moves {
    log: Arc<Mutex<VecDeque<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    at: Instant,
    pool: Arc<str>,
    reason: Reason,
    pods: usize,
}

impl Moves {
    /// None yet; told of whenever metrics are read, as long as `ctx` lives.
    pub(super) fn start(ctx: &Context) -> Self {
        let moves = Self::default();
        let (told, state) = (moves.clone(), Arc::downgrade(&ctx.state));
        let clock = ctx.clock.clone();
        ctx.metrics
            .on_scrape_while(move |metrics| match state.upgrade() {
                Some(state) => {
                    told.tell(metrics, &state, &clock);
                    true
                }
                None => false,
            });
        moves
    }

    /// A machine goes, and its pods have to.
    pub(super) fn add(&self, candidate: &Candidate, reason: Reason, at: Instant) {
        let mut log = self.log.lock();
        log.push_back(Entry {
            at,
            pool: candidate.pool_name.clone(),
            reason,
            pods: candidate.pods_to_move(),
        });
        while log.len() > MAX_REMEMBERED {
            log.pop_front();
        }
    }

    fn tell(&self, metrics: &Metrics, state: &Store, clock: &Clock) {
        let mut pods: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        for view in state.node_views() {
            if let Some(pool) = &view.node_pool {
                let here = view.pods.iter().filter(|p| p.is_reschedulable());
                *pods.entry(pool.clone()).or_default() += here.count();
            }
        }
        let shares = self.shares(&pods, clock.now());
        metrics.replace(
            NAME,
            shares.into_iter().map(|((pool, reason), share)| {
                let labels = vec![Box::from(&*pool), Box::from(reason.metric())];
                (labels, share)
            }),
        );
    }

    /// Pods moved within the last day by NodePool and reason, for each of the pods that the pool has now.
    fn shares(
        &self,
        pods: &BTreeMap<Arc<str>, usize>,
        now: Instant,
    ) -> BTreeMap<(Arc<str>, Reason), f64> {
        let mut log = self.log.lock();
        log.retain(|e| now.saturating_duration_since(e.at) <= DAY);
        let mut moved: BTreeMap<(Arc<str>, Reason), usize> = BTreeMap::new();
        for pool in pods.keys() {
            for reason in [Reason::Empty, Reason::Drifted, Reason::Underutilized] {
                moved.insert((pool.clone(), reason), 0);
            }
        }
        for entry in log.iter() {
            *moved.entry((entry.pool.clone(), entry.reason)).or_default() += entry.pods;
        }
        let count = |n: usize| u32::try_from(n).map_or(f64::MAX, f64::from);
        moved
            .into_iter()
            .map(|(key, n)| {
                let here = pods.get(&key.0).copied().unwrap_or_default();
                (key, count(n) / count(here.max(1)))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_move_counts_for_a_day() {
        let moves = Moves::default();
        let pool: Arc<str> = "p".into();
        let start = Instant::now();
        for (hours, pods) in [(0, 6), (10, 2)] {
            moves.log.lock().push_back(Entry {
                at: start + Duration::from_secs(hours * 3600),
                pool: pool.clone(),
                reason: Reason::Underutilized,
                pods,
            });
        }
        let pods = BTreeMap::from([(pool.clone(), 4)]);
        let at = |hours: u64| {
            let shares = moves.shares(&pods, start + Duration::from_secs(hours * 3600));
            shares.get(&(pool.clone(), Reason::Underutilized)).copied()
        };
        assert_eq!(at(12), Some(2.0));
        assert_eq!(at(25), Some(0.5));
        assert_eq!(at(40), Some(0.0));
        let nobody = moves.shares(&BTreeMap::new(), start);
        assert!(
            nobody.is_empty(),
            "what is forgotten is not told: {nobody:?}"
        );
    }
}
