//! Pools with what they sell, prepared once per solve: order, room per type after DaemonSets, limits left.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::ops::Deref;
use std::sync::Arc;

use karpenter_api::Quantity;
use karpenter_model::Undefined;
use karpenter_model::plan::SkippedPool;
use karpenter_model::pod::HostPort;
use karpenter_model::resources::names::{CPU, MEMORY, NODES, PODS};
use karpenter_model::storage::Attached;
use karpenter_model::{Offering, Pod, PoolView, Problem, Requirements, ResourceList};
use parking_lot::Mutex;

use crate::cluster::Cluster;
use crate::daemons::{Bar, DaemonId, Daemons, may_have, once_up};
use crate::dense::{Dense, Names};
use crate::mounts;
use crate::stock::{Assortment, Stock};
use crate::wares::{List, Offer, Ware};

/// A type as it is sold to pools that run the same DaemonSets.
#[derive(Debug)]
pub(crate) struct Sold {
    ware: Arc<Ware>,
    /// Allocatable minus what DaemonSets take.
    pub(crate) room: Dense,
    /// Cores and GiB of it.
    pub(crate) free: (f64, f64),
    /// Pods that it has slots for.
    pub(crate) slots: f64,
    /// What DaemonSets take.
    pub(crate) daemons: ResourceList,
    /// Host ports that DaemonSets take.
    pub(crate) ports: Vec<HostPort>,
    /// DaemonSets that it may run, and on which nodes of it.
    running: Vec<(DaemonId, Arc<[Requirements]>)>,
}

impl Sold {
    /// Whether a DaemonSet may run on it, bought under requirements, whose pod must not share a domain of a key with it.
    pub(crate) fn is_barred(&self, bars: &[Bar], requirements: &Requirements) -> bool {
        let sold = &self.instance_type.requirements;
        let may_run = |id: &DaemonId| {
            let mut running = self.running.iter().filter(|(own, _)| own == id);
            running.any(|(_, on)| on.iter().any(|r| requirements.does_intersect(r)))
        };
        let mut bars = bars.iter();
        bars.any(|(id, key)| may_run(id) && may_have(key, requirements, sold))
    }
}

impl Deref for Sold {
    type Target = Ware;

    fn deref(&self) -> &Ware {
        &self.ware
    }
}

/// What requirements leave of a list of types.
pub(crate) type Types = Arc<Assortment>;

/// A pool.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) view: Arc<PoolView>,
    /// Types that the pool's own requirements leave and that have an available offering.
    /// Pools that leave the same of the same share them.
    pub(crate) types: Types,
    /// All that it is sold.
    pub(crate) list: Arc<List>,
    /// The most that any of them has of what is limited.
    pub(crate) largest: ResourceList,
    /// Limits minus usage, planned purchases taken off; none = no limits.
    pub(crate) left: Option<ResourceList>,
}

/// All pools, in the order they are tried.
#[derive(Debug)]
pub(crate) struct Catalog {
    pub(crate) pools: Vec<Pool>,
    /// What questions about the cluster have found out about what is sold.
    pub(crate) stock: Arc<Mutex<Stock>>,
}

/// What resources are worth: the cheapest offer's price per unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct UnitPrices {
    per_core: f64,
    per_gib: f64,
}

const NANOS: f64 = 1e9;
const GIB: f64 = 1_073_741_824.0;

/// Cores and GiB.
#[allow(clippy::cast_precision_loss)] // Worths are for comparing; seven digits would do.
pub(crate) fn size(cpu: Quantity, memory: Quantity) -> (f64, f64) {
    (
        cpu.nanos() as f64 / NANOS,
        memory.nanos() as f64 / NANOS / GIB,
    )
}

impl UnitPrices {
    /// Dollars per hour and core, dollars per hour and GiB.
    pub(crate) fn new(per_core: f64, per_gib: f64) -> Self {
        Self { per_core, per_gib }
    }
    /// Dollars per hour that the amounts are worth.
    pub(crate) fn dollars(&self, cpu: Quantity, memory: Quantity) -> f64 {
        let (cores, gib) = size(cpu, memory);
        self.worth(cores, gib)
    }
    /// Dollars per hour that cores and GiB are worth.
    pub(crate) fn worth(&self, cores: f64, gib: f64) -> f64 {
        self.per_core * cores + self.per_gib * gib
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
        names: &Names,
        cluster: &Cluster,
        skipped: &mut Vec<SkippedPool>,
    ) -> Self {
        let mut views: Vec<&Arc<PoolView>> = problem.pools.iter().collect();
        views.sort_by_key(|p| (Reverse(p.weight), Reverse(Arc::clone(&p.name))));
        let mut pools = Vec::new();
        let stock = cluster.stock(names);
        for view in views {
            let daemons = daemons_of(problem, cluster.daemons(problem), view);
            let list = cluster.wares.list(&view.instance_types);
            let left = list.left(problem, &list.deciding(&view.requirements));
            let types = stock.lock().types(problem, names, left, &daemons);
            if types.is_empty() {
                let of = view.instance_types.len();
                let reason = format!(
                    "its requirements leave none of {of} instance types with an available offering"
                );
                skipped.push(SkippedPool {
                    pool: Arc::clone(&view.name),
                    reason,
                });
            }
            let limited = view.limits.iter().flat_map(ResourceList::iter);
            let largest = limited
                .map(|(name, _)| {
                    let have = types.iter().map(|s| s.instance_type.capacity.get(name));
                    (name, have.max().unwrap_or(Quantity::ZERO))
                })
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
                list,
                largest,
                left,
            });
        }
        Self { pools, stock }
    }

    /// What a core and a GiB cost where they cost least.
    pub(crate) fn unit_prices(&self) -> UnitPrices {
        let (mut per_core, mut per_gib) = (f64::INFINITY, f64::INFINITY);
        for sold in self.pools.iter().flat_map(|p| p.types.iter()) {
            per_core = per_core.min(sold.unit.per_core);
            per_gib = per_gib.min(sold.unit.per_gib);
        }
        let or_one = |x: f64| if x.is_finite() && x > 0.0 { x } else { 1.0 };
        UnitPrices {
            per_core: or_one(per_core),
            per_gib: or_one(per_gib),
        }
    }
}

#[allow(clippy::cast_precision_loss)] // Worths are for comparing.
pub(crate) fn sold(problem: &Problem, names: &Names, ware: &Arc<Ware>, daemons: &OfPool) -> Sold {
    let instance_type = &ware.instance_type;
    let mut taken = ResourceList::new();
    let (mut ports, mut running) = (Vec::new(), Vec::new());
    for daemon in &daemons.all {
        if daemon
            .alternatives
            .iter()
            .any(|r| instance_type.requirements.does_intersect(r))
        {
            taken.add(&daemon.pod.requests);
            ports.extend(daemon.pod.host_ports.iter().cloned());
            running.push((daemon.id, Arc::clone(&daemon.alternatives)));
        }
    }
    let mut left = instance_type.allocatable.clone();
    left.deduct(&taken);
    let mut room = names.room(&left);
    let limits = problem.volume_limits.get(&instance_type.name);
    mounts::set_room(names, &mut room, limits, &Attached::new());
    Sold {
        ware: Arc::clone(ware),
        room,
        free: size(left.get(CPU), left.get(MEMORY)),
        slots: left.get(PODS).nanos() as f64 / NANOS,
        daemons: taken,
        ports,
        running,
    }
}

/// A DaemonSet pod that runs on machines of a pool.
struct Running {
    id: DaemonId,
    pod: Arc<Pod>,
    alternatives: Arc<[Requirements]>,
}

/// The DaemonSets of a pool.
pub(crate) struct OfPool {
    all: Vec<Running>,
    /// The same for the same ones.
    pub(crate) text: String,
}

fn daemons_of(problem: &Problem, daemons: &Daemons, view: &PoolView) -> OfPool {
    let requirements = once_up(&view.requirements);
    let meets =
        |r: &&Requirements| requirements.is_compatible(r, Undefined::WellKnown(&problem.labels));
    let tolerant = daemons.iter().filter(|d| d.tolerates(&view.taints));
    let running = tolerant.map(|d| Running {
        id: d.id,
        pod: Arc::clone(&d.pod),
        alternatives: d.alternatives.iter().filter(meets).cloned().collect(),
    });
    let all: Vec<Running> = running.filter(|d| !d.alternatives.is_empty()).collect();
    let mut text = String::new();
    for daemon in &all {
        // Writing to a String cannot fail.
        let _ = write!(text, "{}{:?}", daemon.pod.key, daemon.alternatives);
    }
    OfPool { all, text }
}

impl Pool {
    /// The offering that an offer of a type is.
    pub(crate) fn offering(&self, offer: &Offer) -> Option<&Offering> {
        let sold = self.types.get(offer.at())?;
        sold.instance_type.offerings.get(offer.offering())
    }

    /// Whether any type is sold out of a reservation.
    pub(crate) fn has_reserved(&self) -> bool {
        self.types.iter().any(|t| t.reserved)
    }

    /// Whether the limits leave room for a new machine of any type.
    pub(crate) fn admits_any(&self) -> bool {
        self.admits(&self.largest, None)
    }

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

    /// Gives back what a machine holds of the limits that is not bought after all.
    pub(crate) fn close(&mut self, booked: &ResourceList) {
        if let Some(left) = &mut self.left {
            let back = left
                .iter()
                .map(|(name, _)| {
                    let amount = if name == NODES {
                        Quantity::from_units(1)
                    } else {
                        booked.get(name)
                    };
                    (name, amount)
                })
                .collect();
            left.add(&back);
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
