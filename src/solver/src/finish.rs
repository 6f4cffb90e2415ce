//! From machines to planned nodes: every type that could hold the same pods is listed, cheapest first, so that the
//! launch stays flexible, as far as limits go: what they leave over is shared out among the machines of a pool.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_api::Quantity;
use karpenter_api::labels::CAPACITY_TYPE;
use karpenter_model::plan::{
    FunnelStep, MAX_INSTANCE_TYPES_PER_CLAIM, PlannedNode, PricedOffering,
};
use karpenter_model::resources::names::NODES;
use karpenter_model::{LabelRegistry, Requirement, Requirements, ResourceList};

use crate::catalog::{Catalog, Pool, Sold};
use crate::dense::Names;
use crate::machine::{Machine, takes};
use crate::mounts;
use crate::sets::{Set, Sets};
use crate::wares::Offer;

/// Writes the planned nodes, in the order the machines were opened.
pub(crate) fn planned(
    names: &Names,
    labels: &LabelRegistry,
    catalog: &Catalog,
    sets: &Sets<'_>,
    mut machines: Vec<Machine>,
) -> Vec<PlannedNode> {
    let mut of_pool: BTreeMap<usize, i128> = BTreeMap::new();
    machines.retain(|m| !m.gone());
    for machine in &machines {
        *of_pool.entry(machine.pool).or_default() += 1;
    }
    machines
        .into_iter()
        .filter_map(|machine| {
            let pool = catalog.pools.get(machine.pool)?;
            let set = sets.get(machine.set)?;
            let sharers = of_pool.get(&machine.pool).copied().unwrap_or(1);
            let told = set.told.get_or_init(|| Told::new(labels, pool, set));
            node(names, pool, set, machine, sharers, told)
        })
        .collect()
}

/// What plans say of all machines whose requirements leave the same.
#[derive(Debug)]
pub(crate) struct Told {
    /// What each requirement takes away.
    steps: Vec<FunnelStep>,
    /// Capacity types that any offer can be had under.
    capacity_types: Vec<Arc<str>>,
    /// By offer: which of them, as bits.
    under: Vec<u8>,
}

impl Told {
    fn new(labels: &LabelRegistry, pool: &Pool, set: &Set) -> Self {
        let mut capacity_types: Vec<Arc<str>> = Vec::new();
        let under = set.offers.iter().map(|offer| {
            let mut bits = 0_u8;
            let sold = pool.types.get(offer.at());
            let offers = sold
                .into_iter()
                .flat_map(|s| s.instance_type.offers(&set.requirements, labels))
                .filter(|o| set.pinned.is_some() || !o.is_reserved());
            for offering in offers {
                let known = capacity_types
                    .iter()
                    .position(|c| **c == *offering.capacity_type());
                let at = known.unwrap_or_else(|| {
                    capacity_types.push(offering.capacity_type().into());
                    capacity_types.len() - 1
                });
                bits |= 1_u8
                    .checked_shl(u32::try_from(at).unwrap_or(u32::MAX))
                    .unwrap_or(0);
            }
            bits
        });
        Self {
            under: under.collect(),
            steps: requirement_steps(pool, set),
            capacity_types,
        }
    }

    /// The capacity types of some offers, sorted.
    fn capacity_types(&self, offers: impl Iterator<Item = usize>) -> Vec<Arc<str>> {
        let bits = offers
            .filter_map(|at| self.under.get(at))
            .fold(0, |a, b| a | b);
        let all = self.capacity_types.iter().enumerate();
        let mut out: Vec<Arc<str>> = all
            .filter(|(at, _)| bits >> at & 1 == 1)
            .map(|(_, name)| name.clone())
            .collect();
        out.sort();
        out
    }
}

/// What each requirement of a set takes away of the pool's types, and at last those that cannot be had.
fn requirement_steps(pool: &Pool, set: &Set) -> Vec<FunnelStep> {
    // What says nothing about types takes none away.
    let deciding = pool.list.deciding(&set.requirements);
    let mut before = pool.list.len();
    let mut steps = Vec::new();
    for (requirement, left) in pool.list.narrowed(deciding.iter()) {
        steps.push(step(&requirement.to_string(), before, left));
        before = left;
    }
    steps.push(step("available offerings", before, set.offers.len()));
    steps
}

fn node(
    names: &Names,
    pool: &Pool,
    set: &Set,
    machine: Machine,
    sharers: i128,
    told: &Told,
) -> Option<PlannedNode> {
    let fitting: Vec<(usize, &Offer, &Sold)> = set
        .offers
        .iter()
        .enumerate()
        .filter_map(|(at, o)| Some((at, o, &**pool.types.get(o.at())?)))
        .filter(|(_, _, s)| takes(s, set, &machine.load))
        .collect();
    let fitted = fitting.len();
    let mut listed = fitting;
    if let Some(allowed) = allowance(pool, &machine.booked, sharers)
        && pool.largest.exceeding(&allowed).next().is_some()
    {
        listed.retain(|(_, _, s)| {
            s.instance_type
                .capacity
                .exceeding(&allowed)
                .next()
                .is_none()
        });
    }
    let rest = [
        step(
            &format!("requests {}", text(&names.list(&machine.load.need))),
            set.offers.len(),
            fitted,
        ),
        step("limits", fitted, listed.len()),
    ];
    listed.truncate(MAX_INSTANCE_TYPES_PER_CLAIM);

    let mut requests = mounts::without(names.list(&machine.load.need));
    let mut daemons: Vec<&ResourceList> = listed.iter().map(|(_, _, s)| &s.daemons).collect();
    daemons.dedup();
    requests.add(&ResourceList::min(daemons));
    let mut requirements = set.requirements.clone();
    let capacity_types = told.capacity_types(listed.iter().map(|(at, _, _)| *at));
    // What is not bought out of a reservation must not be launched from one: its units are others'.
    if set.pinned.is_none() && listed.iter().any(|(_, _, s)| s.has_reservations) {
        requirements.add(Requirement::is_in(CAPACITY_TYPE, &capacity_types));
    }
    let min_values_relaxed = lower_min_values(&mut requirements, &listed);
    let mut best = listed.iter().filter_map(|(_, o, s)| {
        let offering = pool.offering(o)?;
        Some(PricedOffering {
            instance_type: Arc::clone(&s.instance_type.name),
            zone: offering.zone().into(),
            capacity_type: offering.capacity_type().into(),
            price: o.price,
        })
    });
    Some(PlannedNode {
        pool: Arc::clone(&pool.view.name),
        cheapest: best.next()?,
        runner_up: best.next(),
        pods: machine.pods.into_iter().map(|(_, pod)| pod).collect(),
        requirements,
        instance_types: listed
            .iter()
            .map(|(_, _, s)| Arc::clone(&s.instance_type.name))
            .collect(),
        capacity_types,
        requests,
        min_values_relaxed,
        funnel: told
            .steps
            .iter()
            .cloned()
            .chain(rest)
            .filter(|s| s.removed > 0)
            .collect(),
    })
}

/// The most of each limited resource that a listed type may have: what the machine holds of the limit and its share
/// of what is left over. None without limits.
fn allowance(pool: &Pool, booked: &ResourceList, sharers: i128) -> Option<ResourceList> {
    let left = pool.left.as_ref()?;
    let share = |left: Quantity| left.nanos().max(0) / sharers.max(1);
    Some(
        left.iter()
            .filter(|(name, _)| *name != NODES)
            .map(|(name, left)| {
                let nanos = booked.get(name).nanos().saturating_add(share(left));
                (name, Quantity::from_nanos(nanos))
            })
            .collect(),
    )
}

fn step(constraint: &str, before: usize, left: usize) -> FunnelStep {
    FunnelStep {
        constraint: constraint.to_owned(),
        removed: before.saturating_sub(left),
        left,
    }
}

/// Lowers minValues to what the listed types have; whether any had to be.
fn lower_min_values(requirements: &mut Requirements, listed: &[(usize, &Offer, &Sold)]) -> bool {
    let mut lowered = false;
    for (key, requirement) in &mut requirements.map {
        let Some(least) = requirement.min_values else {
            continue;
        };
        let distinct: BTreeSet<&Arc<str>> = listed
            .iter()
            .filter_map(|(_, _, s)| s.instance_type.requirements.get(key))
            .flat_map(|r| &r.values)
            .filter(|v| requirement.has(v))
            .collect();
        let have = i64::try_from(distinct.len()).unwrap_or(i64::MAX);
        if have < least {
            // The API's least is 1: a key without any value left loses the field.
            requirement.min_values = (have > 0).then_some(have);
            lowered = true;
        }
    }
    lowered
}

/// A resource list in words.
pub(crate) fn text(list: &ResourceList) -> String {
    list.iter()
        .map(|(name, amount)| format!("{name} {}", karpenter_model::resources::text(name, amount)))
        .collect::<Vec<_>>()
        .join(", ")
}
