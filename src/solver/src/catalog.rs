//! Pools with what they sell, prepared once per solve: order, room per type after DaemonSets, limits left.

use std::cmp::Reverse;
use std::sync::Arc;

use karpenter_api::Quantity;
use karpenter_api::labels::{INITIALIZED, REGISTERED};
use karpenter_model::Undefined;
use karpenter_model::plan::SkippedPool;
use karpenter_model::pod::HostPort;
use karpenter_model::resources::names::{CPU, MEMORY, NODES};
use karpenter_model::storage::Attached;
use karpenter_model::taints::first_untolerated;
use karpenter_model::{
    InstanceType, Pod, PoolView, Problem, Requirement, Requirements, ResourceList,
};

use crate::dense::{Dense, Names, minus};
use crate::mounts;

/// A type of a pool.
#[derive(Debug)]
pub(crate) struct Sold {
    /// The type.
    pub(crate) instance_type: Arc<InstanceType>,
    /// Allocatable minus what DaemonSets take.
    pub(crate) room: Dense,
    /// What DaemonSets take.
    pub(crate) daemons: Dense,
    /// Host ports that DaemonSets take.
    pub(crate) ports: Vec<HostPort>,
}

/// A pool.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) view: Arc<PoolView>,
    /// Types that the pool's own requirements leave and that have an available offering.
    pub(crate) types: Vec<Sold>,
    /// Limits minus usage, planned purchases taken off; none = no limits.
    pub(crate) left: Option<ResourceList>,
}

/// All pools, in the order they are tried.
#[derive(Debug)]
pub(crate) struct Catalog {
    pub(crate) pools: Vec<Pool>,
}

/// What resources are worth: the cheapest offer's price per unit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnitPrices {
    per_core: f64,
    per_gib: f64,
}

const NANOS: f64 = 1e9;
const GIB: f64 = 1_073_741_824.0;

impl UnitPrices {
    /// Dollars per hour that the amounts are worth.
    #[allow(clippy::cast_precision_loss)] // A worth is for comparing; seven digits would do.
    pub(crate) fn dollars(&self, cpu: Quantity, memory: Quantity) -> f64 {
        self.per_core * (cpu.nanos() as f64 / NANOS)
            + self.per_gib * (memory.nanos() as f64 / NANOS / GIB)
    }
    /// The same in 10⁻⁹ dollars, for total orders.
    #[allow(clippy::cast_possible_truncation)] // Saturates, which is what an order needs.
    pub(crate) fn nano_dollars(&self, cpu: &Quantity, memory: &Quantity) -> i64 {
        (self.dollars(*cpu, *memory) * NANOS) as i64
    }
}

impl Catalog {
    /// Prepares the pools; those that sell nothing are left out and named.
    pub(crate) fn new(
        problem: &Problem,
        names: &mut Names,
        skipped: &mut Vec<SkippedPool>,
    ) -> Self {
        let mut views: Vec<&Arc<PoolView>> = problem.pools.iter().collect();
        views.sort_by_key(|p| (Reverse(p.weight), Reverse(Arc::clone(&p.name))));
        let mut pools = Vec::new();
        for view in views {
            let daemons = daemons_of(problem, view);
            let suitable: Vec<&Arc<InstanceType>> = view
                .instance_types
                .iter()
                .filter(|t| t.requirements.does_intersect(&view.requirements))
                .filter(|t| t.cheapest(&view.requirements, &problem.labels).is_some())
                .collect();
            if suitable.is_empty() {
                let of = view.instance_types.len();
                let reason = format!(
                    "its requirements leave none of {of} instance types with an available offering"
                );
                skipped.push(SkippedPool {
                    pool: Arc::clone(&view.name),
                    reason,
                });
            }
            let types = suitable
                .into_iter()
                .map(|t| sold(problem, names, t, &daemons))
                .collect();
            let left = view.limits.as_ref().map(|limits| {
                limits
                    .iter()
                    .map(|(name, limit)| {
                        (
                            name,
                            Quantity::from_nanos(
                                limit.nanos().saturating_sub(view.usage.get(name).nanos()),
                            ),
                        )
                    })
                    .collect()
            });
            pools.push(Pool {
                view: Arc::clone(view),
                types,
                left,
            });
        }
        Self { pools }
    }

    /// What a core and a GiB cost where they cost least.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn unit_prices(&self) -> UnitPrices {
        let (mut per_core, mut per_gib) = (f64::INFINITY, f64::INFINITY);
        for sold in self.pools.iter().flat_map(|p| &p.types) {
            let offers = sold.instance_type.offerings.iter().filter(|o| o.available);
            let Some(price) = offers.map(|o| o.price).min_by(f64::total_cmp) else {
                continue;
            };
            let cores = sold.instance_type.allocatable.get(CPU).nanos() as f64 / NANOS;
            let gib = sold.instance_type.allocatable.get(MEMORY).nanos() as f64 / NANOS / GIB;
            // A price pays for both; halves keep their sum near what a balanced machine costs.
            if cores > 0.0 {
                per_core = per_core.min(price / cores / 2.0);
            }
            if gib > 0.0 {
                per_gib = per_gib.min(price / gib / 2.0);
            }
        }
        let or_one = |x: f64| if x.is_finite() && x > 0.0 { x } else { 1.0 };
        UnitPrices {
            per_core: or_one(per_core),
            per_gib: or_one(per_gib),
        }
    }
}

fn sold(
    problem: &Problem,
    names: &mut Names,
    instance_type: &Arc<InstanceType>,
    daemons: &[Daemon],
) -> Sold {
    let mut taken = ResourceList::new();
    let mut ports = Vec::new();
    for daemon in daemons {
        if daemon
            .alternatives
            .iter()
            .any(|r| instance_type.requirements.does_intersect(r))
        {
            taken.add(&daemon.pod.requests);
            ports.extend(daemon.pod.host_ports.iter().cloned());
        }
    }
    let taken = names.dense(&taken);
    let mut allocatable = names.dense(&instance_type.allocatable);
    let limits = problem.volume_limits.get(&instance_type.name);
    mounts::set_room(names, &mut allocatable, limits, &Attached::new());
    Sold {
        room: minus(&allocatable, &taken),
        daemons: taken,
        ports,
        instance_type: Arc::clone(instance_type),
    }
}

/// A DaemonSet pod that runs on machines of a pool.
struct Daemon {
    pod: Arc<Pod>,
    alternatives: Vec<Requirements>,
}

fn daemons_of(problem: &Problem, view: &PoolView) -> Vec<Daemon> {
    let hard: Vec<_> = view
        .taints
        .iter()
        .filter(|t| t.effect != "PreferNoSchedule")
        .collect();
    // Nodes get these labels before any pod runs on them, so that DaemonSets may wait for them.
    let mut requirements = view.requirements.clone();
    for key in [REGISTERED, INITIALIZED] {
        requirements.add(Requirement::is_in(key, ["true"]));
    }
    let ignored = |p: &Pod| p.has_resource_claims && problem.options.ignore_dra;
    problem
        .daemons
        .iter()
        .filter(|p| {
            !ignored(p) && first_untolerated(hard.iter().copied(), &p.tolerations).is_none()
        })
        .filter_map(|pod| {
            let demands = pod.node_demands(&problem.labels).ok()?;
            let alternatives: Vec<Requirements> = demands
                .alternatives
                .into_iter()
                .filter(|r| requirements.is_compatible(r, Undefined::WellKnown(&problem.labels)))
                .collect();
            (!alternatives.is_empty()).then(|| Daemon {
                pod: Arc::clone(pod),
                alternatives,
            })
        })
        .collect()
}

impl Pool {
    /// Whether the limits leave room for a machine of this capacity, or for a machine that holds `held` to grow
    /// to it.
    pub(crate) fn admits(&self, capacity: &ResourceList, held: Option<&ResourceList>) -> bool {
        let Some(left) = &self.left else { return true };
        left.iter().all(|(name, amount)| {
            let (wanted, given_back) = match (name == NODES, held) {
                (true, None) => (Quantity::from_units(1), Quantity::ZERO),
                (true, Some(_)) => (Quantity::ZERO, Quantity::ZERO),
                (false, held) => (
                    capacity.get(name),
                    held.map_or(Quantity::ZERO, |h| h.get(name)),
                ),
            };
            let free = amount.nanos().saturating_add(given_back.nanos());
            // A limit that is reached or overrun closes the pool for whatever counts towards it.
            wanted.nanos() <= free && amount >= Quantity::ZERO
        })
    }

    /// Takes a new machine off the limits.
    pub(crate) fn open(&mut self, booked: &ResourceList) {
        if let Some(left) = &mut self.left {
            let mut all = booked.clone();
            all.set(NODES, Quantity::from_units(1));
            left.subtract(&all);
        }
    }

    /// Changes what a machine holds of the limits.
    pub(crate) fn rebook(&mut self, booked: &mut ResourceList, wanted: ResourceList) {
        if let Some(left) = &mut self.left {
            let back: ResourceList = left
                .iter()
                .filter(|(name, _)| *name != NODES)
                .map(|(name, _)| (name, booked.get(name)))
                .collect();
            left.add(&back);
            let mut taken = wanted.clone();
            taken.remove(NODES);
            left.subtract(&taken);
        }
        *booked = wanted;
    }
}
