//! From machines to planned nodes: every type that could hold the same pods is listed, cheapest first, so that the
//! launch stays flexible, as far as limits go: what they leave over is shared out among the machines of a pool.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_api::Quantity;
use karpenter_model::plan::{
    FunnelStep, MAX_INSTANCE_TYPES_PER_CLAIM, PlannedNode, PricedOffering,
};
use karpenter_model::resources::names::NODES;
use karpenter_model::{Requirements, ResourceList};

use crate::catalog::{Catalog, Pool, Sold};
use crate::dense::Names;
use crate::machine::{Machine, takes};
use crate::mounts;
use crate::sets::{Offered, Set, SetId, Sets};

/// Writes the planned nodes, in the order the machines were opened.
pub(crate) fn planned(
    names: &Names,
    catalog: &Catalog,
    sets: &Sets<'_>,
    machines: Vec<Machine>,
) -> Vec<PlannedNode> {
    let mut of_pool: BTreeMap<usize, i128> = BTreeMap::new();
    for machine in &machines {
        *of_pool.entry(machine.pool).or_default() += 1;
    }
    let mut by_requirement: BTreeMap<SetId, Vec<FunnelStep>> = BTreeMap::new();
    machines
        .into_iter()
        .filter_map(|machine| {
            let pool = catalog.pools.get(machine.pool)?;
            let set = sets.get(machine.set)?;
            let sharers = of_pool.get(&machine.pool).copied().unwrap_or(1);
            let steps = by_requirement
                .entry(machine.set)
                .or_insert_with(|| requirement_steps(pool, set));
            node(names, pool, set, machine, sharers, steps)
        })
        .collect()
}

/// What each requirement of a set takes away of the pool's types, and at last those that cannot be had.
fn requirement_steps(pool: &Pool, set: &Set) -> Vec<FunnelStep> {
    let mut steps = Vec::new();
    let mut left: Vec<_> = pool.view.instance_types.iter().collect();
    for requirement in set.requirements.iter() {
        let one: Requirements = [requirement.clone()].into_iter().collect();
        let before = left.len();
        left.retain(|t| t.requirements.does_intersect(&one));
        steps.push(step(&requirement.to_string(), before, left.len()));
    }
    steps.push(step("available offerings", left.len(), set.offers.len()));
    steps
}

fn node(
    names: &Names,
    pool: &Pool,
    set: &Set,
    machine: Machine,
    sharers: i128,
    by_requirement: &[FunnelStep],
) -> Option<PlannedNode> {
    let fitting: Vec<(&Offered, &Sold)> = set
        .offers
        .iter()
        .filter_map(|o| Some((o, pool.types.get(o.at)?)))
        .filter(|(_, s)| takes(s, &machine.need, &machine.ports))
        .collect();
    let allowed = allowance(pool, &machine.booked, sharers);
    let mut listed: Vec<(&Offered, &Sold)> = fitting
        .iter()
        .copied()
        .filter(|(_, s)| {
            let capacity = &s.instance_type.capacity;
            allowed
                .as_ref()
                .is_none_or(|a| capacity.exceeding(a).next().is_none())
        })
        .collect();
    let rest = [
        step(
            &format!("requests {}", text(&names.list(&machine.need))),
            set.offers.len(),
            fitting.len(),
        ),
        step("limits", fitting.len(), listed.len()),
    ];
    listed.truncate(MAX_INSTANCE_TYPES_PER_CLAIM);

    let mut requests = mounts::without(names.list(&machine.need));
    let daemons: Vec<ResourceList> = listed.iter().map(|(_, s)| names.list(&s.daemons)).collect();
    requests.add(&ResourceList::min(&daemons));
    let mut requirements = set.requirements.clone();
    let min_values_relaxed = lower_min_values(&mut requirements, &listed);
    let capacity_types: BTreeSet<&Arc<str>> =
        listed.iter().flat_map(|(o, _)| &o.capacity_types).collect();
    let mut best = listed.iter().map(|(o, s)| PricedOffering {
        instance_type: Arc::clone(&s.instance_type.name),
        zone: Arc::clone(&o.zone),
        capacity_type: Arc::clone(&o.capacity_type),
        price: o.price,
    });
    Some(PlannedNode {
        pool: Arc::clone(&pool.view.name),
        cheapest: best.next()?,
        runner_up: best.next(),
        pods: machine.pods,
        requirements,
        instance_types: listed
            .iter()
            .map(|(_, s)| Arc::clone(&s.instance_type.name))
            .collect(),
        capacity_types: capacity_types.into_iter().cloned().collect(),
        requests,
        min_values_relaxed,
        funnel: by_requirement
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
fn lower_min_values(requirements: &mut Requirements, listed: &[(&Offered, &Sold)]) -> bool {
    let mut lowered = false;
    for (key, requirement) in &mut requirements.map {
        let Some(least) = requirement.min_values else {
            continue;
        };
        let distinct: BTreeSet<&Arc<str>> = listed
            .iter()
            .filter_map(|(_, s)| s.instance_type.requirements.get(key))
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
