//! The controllers of NodePools: hash, readiness with validation, counter. One subscription feeds them; each looks
//! again when something it depends on changed, and at nothing else.

mod cost;
mod counter;
pub(crate) mod hash;
mod readiness;

use std::sync::Arc;

use karpenter_api::NodePool;
use karpenter_cloud::NodeClassKind;
use karpenter_runtime::runner::{self, RunnerOptions};
use karpenter_runtime::{Key, Queue, Reconciler};
use karpenter_state::{Changed, Kind};
use tokio::task::JoinHandle;

use crate::Context;
use crate::hearing::{Hearer, listen};

/// Starts them.
pub(crate) fn start(ctx: &Context) -> Vec<JoinHandle<()>> {
    let changes = ctx.state.subscribe();
    let mut tasks = Vec::new();
    let feeder = Feeder {
        counter: spawn(
            ctx,
            counter::Counter {
                ctx: ctx.clone(),
                cost: cost::Cost::default(),
            },
            &mut tasks,
        ),
        hash: spawn(ctx, hash::Hash { ctx: ctx.clone() }, &mut tasks),
        readiness: spawn(ctx, readiness::Readiness::new(ctx.clone()), &mut tasks),
        ctx: ctx.clone(),
        counted: None,
    };
    tasks.push(tokio::spawn(listen(ctx.clone(), changes, feeder)));
    tasks
}

fn spawn<R: Reconciler>(ctx: &Context, loop_: R, tasks: &mut Vec<JoinHandle<()>>) -> Queue {
    let (queue, task) = runner::spawn(
        Arc::new(loop_),
        RunnerOptions::default(),
        ctx.clock.clone(),
        &ctx.rng,
        ctx.stop.clone(),
    );
    tasks.push(task);
    queue
}

/// Whether the pool's NodeClass is of the running provider's kind.
pub(crate) fn is_managed(pool: &NodePool, kind: &NodeClassKind) -> bool {
    let class = &pool.spec.template.spec.node_class_ref;
    class.group == kind.group && class.kind == kind.kind
}

struct Feeder {
    ctx: Context,
    counter: Queue,
    hash: Queue,
    readiness: Queue,
    /// The planning generation that counters were last told of.
    counted: Option<u64>,
}

impl Hearer<Changed> for Feeder {
    fn everything(&mut self) {
        for pool in self.ctx.state.node_pools() {
            self.all(pool.metadata.name.as_deref().unwrap_or_default());
        }
    }
    fn hear(&mut self, change: Changed) {
        self.dispatch(&change);
    }
}

impl Feeder {
    fn all(&self, pool: &str) {
        let key = Key::cluster(pool);
        self.hash.add(key.clone());
        self.readiness.add(key.clone());
        self.counter.add_after(key, counter::GATHER);
    }

    fn dispatch(&mut self, change: &Changed) {
        match change.kind {
            Kind::NodePool => self.all(&change.name),
            Kind::NodeClass => {
                for pool in self.ctx.state.node_pools() {
                    if *pool.spec.template.spec.node_class_ref.name == *change.name {
                        let name = pool.metadata.name.as_deref().unwrap_or_default();
                        self.readiness.add(Key::cluster(name));
                    }
                }
            }
            Kind::Node | Kind::NodeClaim => self.count_if_changed(),
            Kind::Catalog => self.count_all(),
            _ => {}
        }
    }

    /// Counts anew if views of nodes changed; heartbeats do not change them.
    fn count_if_changed(&mut self) {
        let generation = Some(self.ctx.state.planning_generation());
        if self.counted == generation {
            return;
        }
        self.counted = generation;
        self.count_all();
    }

    fn count_all(&self) {
        for pool in self.ctx.state.node_pools() {
            let name = pool.metadata.name.as_deref().unwrap_or_default();
            self.counter.add_after(Key::cluster(name), counter::GATHER);
        }
    }
}
