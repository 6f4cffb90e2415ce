//! `static.provisioning`: creates the claims that a static NodePool lacks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use karpenter_model::{PoolView, ResourceList};
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::runner::ReconcileError;
use karpenter_runtime::{Action, Key, Reconciler};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{CreateError, replicas};
use crate::Context;
use crate::provisioning::pools;

/// Most claims of a pool created at a time.
const MAX_PARALLEL_CREATES: usize = 100;
/// When a pool whose limit leaves no room is looked at again although nothing changed: a place that another loop kept
/// may have been given back.
const LIMIT_RETRY: Duration = Duration::from_secs(30);
/// Wait after a claim of a pool went without ever having had a machine; doubled each time it happens again.
const LAUNCH_BACKOFF: Duration = Duration::from_secs(1);
/// Longest such wait.
const LAUNCH_BACKOFF_MAX: Duration = Duration::from_secs(60);

/// How the launches of static pools' claims went, so that what cannot be had is not asked for over and over.
#[derive(Debug, Default)]
pub(super) struct Launches {
    failing: Mutex<BTreeMap<Arc<str>, Failing>>,
    /// Claims that were deleted because their pool shrank: that they go says nothing about launches.
    not_needed: Mutex<BTreeSet<Arc<str>>>,
}

#[derive(Clone, Copy, Debug)]
struct Failing {
    wait: Duration,
    until: Instant,
}

impl Launches {
    /// A claim has got its machine.
    pub(super) fn launched(&self, pool: &str) {
        self.failing.lock().remove(pool);
    }
    /// A claim is about to be deleted because its pool shrank.
    pub(super) fn not_needed(&self, claim: &str) {
        self.not_needed.lock().insert(claim.into());
    }
    /// A claim has gone: nothing more is to be known of it.
    pub(super) fn forget(&self, claim: &str) {
        self.not_needed.lock().remove(claim);
    }
    /// A claim goes without ever having had a machine.
    pub(super) fn failed(&self, pool: &Arc<str>, claim: &str, now: Instant) {
        if self.not_needed.lock().contains(claim) {
            return;
        }
        let mut failing = self.failing.lock();
        let wait = match failing.get(pool) {
            // Claims that were created together fail together: that is one failure.
            Some(failing) if now < failing.until => return,
            Some(failing) => failing.wait.saturating_mul(2).min(LAUNCH_BACKOFF_MAX),
            None => LAUNCH_BACKOFF,
        };
        let until = now + wait;
        failing.insert(pool.clone(), Failing { wait, until });
    }
    /// How long nothing should be created for the pool.
    fn wait(&self, pool: &str, now: Instant) -> Option<Duration> {
        let until = self.failing.lock().get(pool)?.until;
        let left = until.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }
}

/// The reconciler, keyed by NodePool.
pub(super) struct Provisioning {
    pub(super) ctx: Context,
    pub(super) launches: Arc<Launches>,
}

#[async_trait]
impl Reconciler for Provisioning {
    fn name(&self) -> &'static str {
        "static.provisioning"
    }
    fn group_kind(&self) -> (&'static str, &'static str) {
        ("karpenter.sh", "NodePool")
    }
    fn metrics(&self) -> Option<&Metrics> {
        Some(&self.ctx.metrics)
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let (ctx, pool_name) = (&self.ctx, &key.name);
        let Some(pool) = ctx.state.node_pool(pool_name) else {
            self.launches.launched(pool_name);
            return Ok(Action::AwaitChange);
        };
        let missing = self.missing(pool_name);
        if missing == 0 {
            return Ok(Action::AwaitChange);
        }
        if let Some(wait) = self.launches.wait(pool_name, ctx.clock.now()) {
            return Ok(Action::RequeueAfter(wait));
        }
        let labels = &ctx.provider.labels;
        let view = match pools::pool_view(&pool, Vec::new(), ResourceList::new(), labels) {
            Ok(view) => view,
            Err(error) => {
                // Only another spec can help.
                tracing::error!(NodePool = %pool_name, error = %error, "ignoring nodepool, invalid");
                return Ok(Action::AwaitChange);
            }
        };
        tracing::debug!(NodePool = %pool_name, count = missing, "creating nodeclaims of static nodepool");
        let creations: Vec<_> = (0..missing).map(|_| self.create(&view)).collect();
        let results: Vec<_> = futures::stream::iter(creations)
            .buffered(MAX_PARALLEL_CREATES)
            .collect()
            .await;
        let mut at_limit = false;
        for result in results {
            match result {
                Ok(()) | Err(CreateError::NoPool) => {}
                Err(CreateError::AtLimit) => at_limit = true,
                Err(CreateError::Api(error)) => return Err(ReconcileError::Retry(Box::new(error))),
            }
        }
        // A limit ends to hold by a change, which is told, or when somebody gives back a place, which is not.
        let kept = ctx.state.count_claims(pool_name).reserved > 0;
        Ok(if at_limit && kept {
            Action::RequeueAfter(LIMIT_RETRY)
        } else {
            Action::AwaitChange
        })
    }
}

impl Provisioning {
    /// How many claims the pool lacks now. Those that are being replaced hold their place until they go.
    fn missing(&self, pool: &str) -> usize {
        let Some(held) = self.ctx.state.node_pool(pool) else {
            return 0;
        };
        let launchable = pools::not_launchable(&held, &self.ctx.provider.node_class).is_none();
        let Some(replicas) = replicas(&held).filter(|_| launchable) else {
            return 0;
        };
        let count = self.ctx.state.count_claims(pool);
        if count.holding() >= replicas {
            return 0;
        }
        replicas.saturating_sub(count.active + count.reserved)
    }

    /// Creates one claim, if it is still needed: a large pool takes its time, and may be told to shrink meanwhile.
    async fn create(&self, pool: &PoolView) -> Result<(), CreateError> {
        if self.missing(&pool.name) > 0 {
            super::create(&self.ctx, pool, "provisioned").await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_is_asked_for_ever_more_rarely() {
        let launches = Launches::default();
        let pool: Arc<str> = "p".into();
        let start = Instant::now();
        assert_eq!(launches.wait("p", start), None);
        let mut now = start;
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            launches.failed(&pool, "a", now);
            launches.failed(&pool, "b", now);
            let wait = Duration::from_secs(seconds);
            assert_eq!(launches.wait("p", now), Some(wait), "two at once are one");
            now += wait;
            assert_eq!(launches.wait("p", now), None);
        }
        launches.launched("p");
        launches.failed(&pool, "a", now);
        assert_eq!(launches.wait("p", now), Some(LAUNCH_BACKOFF));
    }

    #[test]
    fn claims_that_were_too_many_say_nothing() {
        let launches = Launches::default();
        let (pool, now): (Arc<str>, _) = ("p".into(), Instant::now());
        launches.not_needed("a");
        launches.failed(&pool, "a", now);
        assert_eq!(launches.wait("p", now), None);
        launches.forget("a");
        launches.failed(&pool, "a", now);
        assert!(launches.wait("p", now).is_some(), "another of that name");
    }
}
