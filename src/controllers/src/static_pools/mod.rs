//! Static NodePools (`spec.replicas`, gate StaticCapacity): two loops hold each at its size, one creates claims, one
//! deletes them (`scheduling.md` §14). Both look when the pool or one of its claims changed, and at nothing else.

mod deprovisioning;
mod provisioning;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use karpenter_api::{NodePool, labels};
use karpenter_model::PoolView;
use karpenter_runtime::runner::{self, RunnerOptions};
use karpenter_runtime::{Key, Queue, Reconciler};
use karpenter_state::{Changed, Kind};
use tokio::task::JoinHandle;

use self::provisioning::Launches;
use crate::Context;
use crate::hearing::{Hearer, listen};
use crate::lifecycle::objects::{is_deleting, label, name};
use crate::provisioning::{execute, limits};

/// Pools that one loop works on at a time.
const CONCURRENCY: usize = 10;

/// A claim could not be created.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateError {
    /// The pool's limit of nodes leaves no room.
    #[error("the nodepool is at its limit of nodes")]
    AtLimit,
    /// The pool has gone.
    #[error("the nodepool is gone")]
    NoPool,
    /// The API server did not take it, or did not say so.
    #[error(transparent)]
    Api(#[from] kube::Error),
}

/// Starts them, if the gate is open.
pub(crate) fn start(ctx: &Context) -> Vec<JoinHandle<()>> {
    if !ctx.settings.feature_gates.static_capacity {
        return Vec::new();
    }
    let changes = ctx.state.subscribe();
    let mut tasks = Vec::new();
    let launches = Arc::new(Launches::default());
    let provisioning = provisioning::Provisioning {
        ctx: ctx.clone(),
        launches: launches.clone(),
    };
    let deprovisioning = deprovisioning::Deprovisioning {
        ctx: ctx.clone(),
        launches: launches.clone(),
    };
    let feeder = Feeder {
        provisioning: spawn(ctx, provisioning, &mut tasks),
        deprovisioning: spawn(ctx, deprovisioning, &mut tasks),
        ctx: ctx.clone(),
        launches,
        seen: BTreeMap::new(),
    };
    tasks.push(tokio::spawn(listen(ctx.clone(), changes, feeder)));
    tasks
}

fn spawn<R: Reconciler>(ctx: &Context, loop_: R, tasks: &mut Vec<JoinHandle<()>>) -> Queue {
    let options = RunnerOptions {
        concurrency: CONCURRENCY,
        backoff_base: Duration::from_millis(100),
        backoff_max: Duration::from_secs(60),
    };
    let (clock, stop) = (ctx.clock.clone(), ctx.stop.clone());
    let (queue, task) = runner::spawn(Arc::new(loop_), options, clock, &ctx.rng, stop);
    tasks.push(task);
    queue
}

/// Creates one claim from the template of a static pool, within the limit of nodes the pool has now.
pub(crate) async fn create(
    ctx: &Context,
    pool: &PoolView,
    reason: &str,
) -> Result<Arc<str>, CreateError> {
    let current = ctx.state.node_pool(&pool.name);
    let current = current.ok_or(CreateError::NoPool)?;
    let place = ctx
        .state
        .reserve_node(&pool.name, limits::of_nodes(&current));
    // Kept until the claim is in the state, which counts it from then on.
    let Some(_place) = place else {
        tracing::debug!(NodePool = %pool.name, "not creating nodeclaim, nodepool is at its limit of nodes");
        return Err(CreateError::AtLimit);
    };
    Ok(execute::create_static_claim(ctx, pool, reason).await?)
}

/// How many machines a pool is to have; none = pods decide.
fn replicas(pool: &NodePool) -> Option<usize> {
    let replicas = pool.spec.replicas?;
    Some(usize::try_from(replicas).unwrap_or(0))
}

/// Feeds the loops.
struct Feeder {
    ctx: Context,
    provisioning: Queue,
    deprovisioning: Queue,
    launches: Arc<Launches>,
    /// Each claim as last seen: one that is gone cannot be asked.
    seen: BTreeMap<Arc<str>, Seen>,
}

/// What is remembered of a claim.
#[derive(Clone)]
struct Seen {
    pool: Arc<str>,
    /// Whether it has got its machine.
    launched: bool,
    /// Whether it is on its way out.
    leaving: bool,
}

impl Hearer<Changed> for Feeder {
    fn everything(&mut self) {
        for claim in self.ctx.state.node_claims() {
            self.claim(name(&claim.metadata));
        }
        for pool in self.ctx.state.node_pools() {
            self.pool(name(&pool.metadata));
        }
    }
    fn hear(&mut self, change: Changed) {
        match change.kind {
            Kind::NodePool => self.pool(&change.name),
            Kind::NodeClaim => {
                if let Some(pool) = self.claim(&change.name) {
                    self.pool(&pool);
                }
            }
            _ => {}
        }
    }
}

impl Feeder {
    /// Has both loops look at a pool, if it is a static one or was one.
    fn pool(&self, pool: &str) {
        let held = self.ctx.state.node_pool(pool);
        if held.is_none_or(|p| p.spec.replicas.is_some()) {
            self.provisioning.add(Key::cluster(pool));
            self.deprovisioning.add(Key::cluster(pool));
        }
    }

    /// Takes note of a claim as it is now; its pool.
    fn claim(&mut self, claim: &str) -> Option<Arc<str>> {
        let before = self.seen.remove(claim);
        let held = self.ctx.state.node_claim(claim);
        let now = match &held {
            Some(held) => Seen {
                pool: label(&held.metadata, labels::NODEPOOL)?.into(),
                launched: !held.status.provider_id.is_empty(),
                leaving: is_deleting(&held.metadata),
            },
            None => Seen {
                leaving: true,
                ..before.clone()?
            },
        };
        let was = |what: fn(&Seen) -> bool| before.as_ref().is_some_and(what);
        if now.launched && !was(|s| s.launched) {
            self.launches.launched(&now.pool);
        }
        if now.leaving && !was(|s| s.leaving) && !now.launched {
            self.launches.failed(&now.pool, claim, self.ctx.clock.now());
        }
        let pool = now.pool.clone();
        if held.is_some() {
            self.seen.insert(claim.into(), now);
        } else {
            self.launches.forget(claim);
        }
        Some(pool)
    }
}
