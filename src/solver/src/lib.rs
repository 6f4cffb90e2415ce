//! The pure solver: `solve(&Problem) -> Plan`. No I/O, no clock, not async, no randomness.
//!
//! ```text
//! nodes ── cluster.rs: made ready once for any number of questions: who is where (kinds.rs, keepers.rs), what room there
//!          is (node_rooms.rs), what is sold (stock.rs)
//! types ── wares.rs: what is known of what is sold, whatever the cluster
//! pods ── queue ──> classes (pods that ask for the same)
//!   1. nodes that exist, in order: first that takes the pod            existing.rs
//!   2. machines to buy, one at a time, each filled before the next:    buy.rs, machine.rs
//!      of all types of a pool, the one whose price buys most work
//!      from the front of the queue (types and prices under each       sets.rs
//!      claim's requirements are worked out once)
//!   3. machines that cost less as one become one                         merge.rs
//!      pods go where they cost nothing if their machine gets smaller     improve.rs
//!   4. every type that could hold the same pods is listed, limits      finish.rs
//!      permitting
//!   5. what is left is explained: per pool, what each constraint       funnel.rs
//!      took away, nearest miss first
//! ```
//!
//! Reservations are used before anything else is bought, machine by machine (`reserved.rs`).
//!
//! Chunks of capacity buffers come last: they get what room is left when all pods have a place, and machines after that.
//!
//! Pods that rules between pods are about (`rules.rs`: spread, pod affinity) are placed domain by domain, in their turn:
//! `ruled.rs`, with `ledger.rs` keeping the counts. Pods of DaemonSets are planned by nobody and will be there all the same
//! (`daemons.rs`): rules rely on them, and keep clear of them.

mod abreast;
mod buy;
mod catalog;
mod choose;
mod class;
mod cluster;
mod daemons;
mod dense;
mod domains;
mod existing;
mod finish;
mod funnel;
mod improve;
mod keepers;
mod kept;
mod kinds;
mod ledger;
mod machine;
mod merge;
mod mounts;
mod node_rooms;
mod reserved;
mod rooms;
mod ruled;
mod rules;
mod sets;
mod stock;
mod topology;
mod wares;

use std::collections::BTreeMap;

use karpenter_model::plan::Unschedulable;
use karpenter_model::{Plan, PodKey, Problem};

use karpenter_model::resources::names::{CPU, MEMORY};

pub use abreast::abreast;
use buy::Buyer;
use catalog::Catalog;
use class::{Class, Classes};
pub use cluster::Cluster;
use dense::Names;
use existing::Existing;
use ledger::Ledger;
use reserved::Units;
use rooms::Rooms;
use sets::Sets;
pub use wares::Wares;

/// Plans where the problem's pods go and what to buy for those that fit nowhere.
#[must_use]
pub fn solve(problem: &Problem) -> Plan {
    solve_knowing(problem, &Wares::default())
}

/// The same with what questions before have found out about what is sold.
#[must_use]
pub fn solve_knowing(problem: &Problem, wares: &Wares) -> Plan {
    let cluster = Cluster::once(&problem.nodes).knowing(wares);
    solve_without(problem, &cluster, &[])
}

/// The same on the nodes of a cluster that was made ready before, without some of them, which are named by their positions
/// among those that the cluster was made of. The problem's own nodes are not looked at. All problems that are asked of a
/// cluster have the same labels, namespaces, DaemonSets, volume limits and feature gates: what was worked out for one is
/// used for the next.
#[must_use]
pub fn solve_without(problem: &Problem, cluster: &Cluster, gone: &[usize]) -> Plan {
    let gone = cluster.places_of(gone);
    let mut names = Names::default();
    let mut plan = Plan::default();
    let mut refused: BTreeMap<PodKey, String> = BTreeMap::new();
    let classes = Classes::new(problem, cluster, &gone, &mut names, &mut refused);
    let mut catalog = Catalog::new(problem, &names, cluster, &mut plan.skipped_pools);
    let prices = catalog.unit_prices();
    let mut queue = classes.queue(&prices);
    let mut budget = Budget {
        left: problem.options.work_budget,
        spent: 0,
    };

    let ledger = Ledger::new(problem, cluster, &gone, &classes);
    let mut existing = Existing::new(problem, &names, &classes, cluster, &gone);
    existing::place(&mut existing, &classes, &ledger, &mut queue, &mut budget);
    let worth = |class: &Class| {
        let asked = &class.example.requests;
        prices.dollars(asked.get(CPU), asked.get(MEMORY))
    };
    let sets = Sets::new(problem, &catalog, prices);
    let units = Units::new(problem, &catalog, cluster, &gone);
    let mut buyer = Buyer {
        problem,
        classes: &classes,
        catalog: &mut catalog,
        queue: &mut queue,
        budget: &mut budget,
        sets,
        worths: classes.iter().map(worth).collect(),
        machines: Vec::new(),
        spare: Rooms::default(),
        ledger,
        existing,
        purchasable: BTreeMap::new(),
        nowhere: BTreeMap::new(),
        units,
    };
    buyer.run();
    let ruled_out = buyer.ruled_out_all();
    let (sets, machines) = (buyer.sets, buyer.machines);
    plan.existing = buyer.existing.placements();
    plan.new_nodes = finish::planned(&names, &problem.labels, &catalog, &sets, machines);

    let mut explained: BTreeMap<usize, (String, Vec<karpenter_model::plan::PoolFunnel>)> =
        BTreeMap::new();
    if !budget.exhausted() {
        for (class, pods) in queue.remaining() {
            let Some(c) = classes.get(class).filter(|_| !pods.is_empty()) else {
                continue;
            };
            let (reason, pools) =
                explained
                    .entry(class)
                    .or_insert_with(|| match ruled_out.get(&class) {
                        Some(why) => (why.clone(), Vec::new()),
                        None => funnel::explain(problem, &names, &classes, c, &catalog),
                    });
            for pod in pods {
                plan.unschedulable.push(Unschedulable {
                    pod,
                    reason: reason.clone(),
                    pools: pools.clone(),
                });
            }
        }
    }
    plan.cut_off = budget.exhausted();
    plan.unschedulable
        .extend(refused.into_iter().map(|(pod, reason)| Unschedulable {
            pod,
            reason,
            pools: Vec::new(),
        }));
    plan.unschedulable.sort_by(|a, b| a.pod.cmp(&b.pod));
    plan.work = budget.spent;
    plan
}

/// Work units that may still be spent.
struct Budget {
    left: u64,
    spent: u64,
}

impl Budget {
    /// Spends `units`; false when there are none left.
    fn spend(&mut self, units: u64) -> bool {
        self.spent = self.spent.saturating_add(units);
        self.left = self.left.saturating_sub(units);
        !self.exhausted()
    }
    fn exhausted(&self) -> bool {
        self.left == 0
    }
}

/// Pods that are not placed yet, class by class, in the order they are to be served.
struct Queue {
    /// Class and its pods, next one last, so that taking is cheap.
    waiting: Vec<(usize, Vec<PodKey>)>,
    /// First position of pods that exist in plans only (chunks of capacity buffers): they take no room from the others
    /// and do not choose their machines.
    late: usize,
}

impl Queue {
    /// The first pod of the class at `position`.
    fn take(&mut self, position: usize) -> Option<PodKey> {
        self.waiting
            .get_mut(position)
            .and_then(|(_, pods)| pods.pop())
    }
    /// The first `n` pods of the class at `position`.
    fn take_many(&mut self, position: usize, n: usize) -> Vec<PodKey> {
        (0..n).map_while(|_| self.take(position)).collect()
    }
    /// The class at `position`.
    fn class(&self, position: usize) -> Option<usize> {
        self.waiting.get(position).map(|(class, _)| *class)
    }
    /// How many pods wait at `position`.
    fn count(&self, position: usize) -> usize {
        self.waiting.get(position).map_or(0, |(_, pods)| pods.len())
    }
    /// Class and number of pods at every position, in order.
    fn counts(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        self.waiting
            .iter()
            .enumerate()
            .map(|(position, (class, pods))| (position, *class, pods.len()))
    }
    /// What is left, pods in queue order.
    fn remaining(self) -> impl Iterator<Item = (usize, Vec<PodKey>)> {
        self.waiting.into_iter().map(|(class, mut pods)| {
            pods.reverse();
            (class, pods)
        })
    }
}

/// Whether pods may have to put up with a taint that they would rather avoid, to be on a machine of some pool.
fn soft_taints(problem: &Problem) -> bool {
    let mut taints = problem.pools.iter().flat_map(|p| &p.taints);
    taints.any(|t| t.effect == "PreferNoSchedule")
}
