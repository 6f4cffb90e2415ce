//! Starts the loops that deal with claims and Nodes, and tells each of them what changed: one subscription to the
//! state feeds them all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use karpenter_model::PodKey;
use karpenter_runtime::runner::{self, RunnerOptions};
use karpenter_runtime::{Key, Queue, Reconciler};
use karpenter_state::{Changed, Kind};
use tokio::task::JoinHandle;

use super::consistency::Consistency;
use super::controller::Lifecycle;
use super::disruptable::Disruptable;
use super::expiration::Expiration;
use super::health::Health;
use super::hydration::Hydration;
use super::launch::Bought;
use super::objects::{label, name, provider_id};
use super::podevents::{PodEventStamps, PodEvents};
use super::pool_health::PoolHealth;
use crate::hearing::{Hearer, listen};
use crate::termination::eviction::{BACKOFF_BASE, BACKOFF_MAX, EvictionQueue, Evictions};
use crate::termination::node::NodeTermination;
use crate::{Context, disruption, gc, observability, repair};

/// Cores at which concurrency ends to grow with them.
const MAX_SCALING_CORES: u32 = 60;

/// Starts what carries claims from launch to their end, drains Nodes, collects what was lost and disrupts what is
/// not needed. The loops end when `ctx.stop` is cancelled, reconciles begun finished.
#[must_use]
pub fn start_lifecycle(ctx: &Context) -> Vec<JoinHandle<()>> {
    // Before anything is read, so that nothing is missed.
    let changes = ctx.state.subscribe();
    let mut tasks = Vec::new();
    let health = Arc::new(Health::default());
    let evictions = Evictions::default();
    let pod_events = Arc::new(PodEvents::default());
    let seconds = |s| Duration::from_secs(s);
    let millis = Duration::from_millis;

    let own_queue = Arc::new(OnceLock::new());
    let lifecycle = spawn(
        ctx,
        &mut tasks,
        Lifecycle {
            ctx: ctx.clone(),
            bought: Bought::default(),
            health: health.clone(),
            queue: own_queue.clone(),
        },
        options(scaled(ctx, 1000, 5000), seconds(1), seconds(60)),
    );
    // Set once, here.
    let _ = own_queue.set(lifecycle.clone());
    let termination = NodeTermination {
        ctx: ctx.clone(),
        evictions: evictions.clone(),
    };
    let slow = options(scaled(ctx, 100, 5000), BACKOFF_BASE, BACKOFF_MAX);
    let termination = spawn(ctx, &mut tasks, termination, slow);
    let eviction_queue = EvictionQueue {
        ctx: ctx.clone(),
        evictions: evictions.clone(),
    };
    evictions.connect(spawn(ctx, &mut tasks, eviction_queue, slow));
    let usual = options(scaled(ctx, 10, 1000), millis(100), seconds(60));
    let disruptable = spawn(ctx, &mut tasks, Disruptable { ctx: ctx.clone() }, usual);
    let expiration = spawn(ctx, &mut tasks, Expiration { ctx: ctx.clone() }, usual);
    let consistency = spawn(ctx, &mut tasks, Consistency { ctx: ctx.clone() }, usual);
    let hydration = spawn(ctx, &mut tasks, Hydration { ctx: ctx.clone() }, usual);
    let stamps = PodEventStamps {
        ctx: ctx.clone(),
        events: pod_events.clone(),
    };
    let stamps = spawn(ctx, &mut tasks, stamps, usual);
    let pool_health = PoolHealth {
        ctx: ctx.clone(),
        health,
    };
    let pool_health = spawn(ctx, &mut tasks, pool_health, usual);

    let dispatcher = Dispatcher {
        ctx: ctx.clone(),
        disruptable: disruptable.clone(),
        claims: [lifecycle, disruptable, expiration, consistency, hydration].into(),
        termination,
        stamps,
        pool_health,
        evictions,
        pod_events,
        machines: BTreeMap::new(),
    };
    tasks.push(tokio::spawn(listen(ctx.clone(), changes, dispatcher)));
    tasks.push(gc::start(ctx));
    tasks.extend(disruption::start(ctx));
    tasks.extend(repair::start(ctx));
    tasks.extend(observability::start(ctx));
    tasks
}

fn spawn<R: Reconciler>(
    ctx: &Context,
    tasks: &mut Vec<JoinHandle<()>>,
    reconciler: R,
    options: RunnerOptions,
) -> Queue {
    let (clock, stop) = (ctx.clock.clone(), ctx.stop.clone());
    let (queue, task) = runner::spawn(Arc::new(reconciler), options, clock, &ctx.rng, stop);
    tasks.push(task);
    queue
}

fn options(concurrency: usize, backoff_base: Duration, backoff_max: Duration) -> RunnerOptions {
    RunnerOptions {
        concurrency,
        backoff_base,
        backoff_max,
    }
}

/// Concurrency between `least` at one core and `most` at sixty (`operations.md` §5, `L(a,b)`).
fn scaled(ctx: &Context, least: u32, most: u32) -> usize {
    concurrency(ctx.settings.cpu_requests_millis, least, most)
}

fn concurrency(cpu_millis: u32, least: u32, most: u32) -> usize {
    let cores = cpu_millis.div_ceil(1000).clamp(1, MAX_SCALING_CORES);
    let grown = u64::from(most.saturating_sub(least)) * u64::from(cores - 1)
        / u64::from(MAX_SCALING_CORES - 1);
    usize::try_from(u64::from(least) + grown).unwrap_or(usize::MAX)
}

/// Feeds the loops.
struct Dispatcher {
    ctx: Context,
    /// What judges drift: a type that is not sold any more is one.
    disruptable: Queue,
    /// Loops keyed by claim.
    claims: Vec<Queue>,
    termination: Queue,
    stamps: Queue,
    pool_health: Queue,
    evictions: Evictions,
    pod_events: Arc<PodEvents>,
    /// providerID of each Node as last seen: a Node that is gone cannot be asked for it any more.
    machines: BTreeMap<Arc<str>, String>,
}

impl Hearer<Changed> for Dispatcher {
    fn everything(&mut self) {
        let state = self.ctx.state.clone();
        for pod in state.pods() {
            self.pod_events
                .observe(&self.ctx, &pod.key, Some(&pod), &self.stamps);
        }
        for claim in state.node_claims() {
            self.claim(name(&claim.metadata));
        }
        for node in state.nodes() {
            let node_name = name(&node.metadata);
            self.machines
                .insert(node_name.into(), provider_id(&node).to_owned());
            self.termination.add(Key::cluster(node_name));
        }
        for pool in state.node_pools() {
            self.pool_health.add(Key::cluster(name(&pool.metadata)));
        }
    }
    fn hear(&mut self, change: Changed) {
        self.dispatch(&change);
    }
}

impl Dispatcher {
    fn dispatch(&mut self, change: &Changed) {
        let state = self.ctx.state.clone();
        match change.kind {
            Kind::Pod => {
                let key = PodKey {
                    namespace: change.namespace.clone(),
                    name: change.name.clone(),
                };
                let pod = state.pod(&key);
                let node = (self.pod_events).observe(&self.ctx, &key, pod.as_deref(), &self.stamps);
                self.evictions.observe(&key, pod.as_deref());
                if let Some(node) = node {
                    self.draining(&node);
                }
            }
            Kind::NodeClaim => {
                self.claim(&change.name);
                for node in crate::termination::node::nodes_of(&self.ctx, &change.name) {
                    self.draining(name(&node.metadata));
                }
            }
            Kind::Node => {
                self.termination.add(Key::cluster(&change.name));
                let before = match state.node(&change.name) {
                    Some(node) => {
                        let id = provider_id(&node).to_owned();
                        self.machines.insert(change.name.clone(), id)
                    }
                    None => self.machines.remove(&change.name),
                };
                let after = self.machines.get(&change.name).cloned();
                let ids: BTreeSet<String> = before.into_iter().chain(after).collect();
                for claim in ids.iter().flat_map(|id| state.claims_by_provider_id(id)) {
                    self.claim(name(&claim.metadata));
                }
            }
            Kind::NodePool => {
                self.pool_health.add(Key::cluster(&change.name));
                self.claims_of_pool(&change.name);
            }
            Kind::NodeClass => {
                for pool in state.node_pools() {
                    if *pool.spec.template.spec.node_class_ref.name == *change.name {
                        self.pool_health.add(Key::cluster(name(&pool.metadata)));
                        self.claims_of_pool(name(&pool.metadata));
                    }
                }
            }
            Kind::Catalog => {
                for claim in state.node_claims() {
                    self.disruptable.add(Key::cluster(name(&claim.metadata)));
                }
            }
            Kind::PodDisruptionBudget => self.evictions.retry_in(&change.namespace),
            Kind::VolumeAttachment => {
                for node in state.nodes() {
                    self.draining(name(&node.metadata));
                }
            }
            Kind::DaemonSet
            | Kind::LimitRange
            | Kind::PersistentVolumeClaim
            | Kind::PersistentVolume
            | Kind::StorageClass
            | Kind::Service
            | Kind::ReplicationController
            | Kind::CSINode
            | Kind::Namespace
            | Kind::CapacityBuffer
            | Kind::NodeOverlay
            | Kind::PodTemplate
            | Kind::Deployment
            | Kind::StatefulSet
            | Kind::ReplicaSet => {}
        }
    }

    fn claim(&self, claim: &str) {
        self.claims.iter().for_each(|q| q.add(Key::cluster(claim)));
    }

    fn claims_of_pool(&self, pool: &str) {
        for claim in self.ctx.state.node_claims() {
            if label(&claim.metadata, karpenter_api::labels::NODEPOOL) == Some(pool) {
                self.claim(name(&claim.metadata));
            }
        }
    }

    /// Looks at a Node's termination again if it has one.
    fn draining(&self, node: &str) {
        let node_held = self.ctx.state.node(node);
        if node_held.is_some_and(|n| n.metadata.deletion_timestamp.is_some()) {
            self.termination.add(Key::cluster(node));
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::one_core(1000, 1000)]
    #[case::part_of_a_core(100, 1000)]
    #[case::two_cores(1001, 1067)]
    #[case::sixty_cores(60_000, 5000)]
    #[case::no_more_than_that(600_000, 5000)]
    fn concurrency_grows_with_cores(#[case] cpu_millis: u32, #[case] expected: usize) {
        assert_eq!(concurrency(cpu_millis, 1000, 5000), expected);
    }
}
