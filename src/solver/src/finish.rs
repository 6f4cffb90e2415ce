//! From a choice to a planned node: every type that could hold the same pods is listed, cheapest first, so that the
//! launch stays flexible; limits are booked at the most that any of them would add.

use std::collections::BTreeSet;
use std::sync::Arc;

use karpenter_model::instance::by_price;
use karpenter_model::plan::{
    FunnelStep, MAX_INSTANCE_TYPES_PER_CLAIM, PlannedNode, PricedOffering,
};
use karpenter_model::{InstanceType, Plan, Problem, Requirements, ResourceList};

use crate::Queue;
use crate::catalog::{Catalog, Pool, Sold};
use crate::dense::{Dense, Names, fits};

/// In a pool with limits, types with more than this many times the chosen type's limited resources are not listed:
/// the limit is booked at the largest listed type, and one huge type would eat it up.
const LIMITED_SIZE_FACTOR: i128 = 2;

/// A machine to buy, before it is committed to.
pub(crate) struct Purchase {
    pool: usize,
    requirements: Requirements,
    /// Listed types, cheapest first.
    types: Vec<usize>,
    /// Queue position and number of pods.
    filled: Vec<(usize, usize)>,
    need: Dense,
    /// Whether minValues had to be lowered.
    pub(crate) min_values_relaxed: bool,
    funnel: Vec<FunnelStep>,
}

/// Works out the purchase of pods that the type at `chosen` takes; none if not even that type can be listed.
#[allow(clippy::too_many_arguments)]
pub(crate) fn purchase(
    problem: &Problem,
    names: &Names,
    pool: &Pool,
    index: usize,
    chosen: usize,
    requirements: &Requirements,
    need: Dense,
    filled: Vec<(usize, usize)>,
    offers: &[(usize, f64)],
) -> Option<Purchase> {
    let chosen_type = pool.types.get(chosen)?;
    let room: Vec<usize> = offers
        .iter()
        .map(|(at, _)| *at)
        .filter(|at| pool.types.get(*at).is_some_and(|s| fits(&need, &s.room)))
        .collect();
    let small: Vec<usize> = room
        .iter()
        .copied()
        .filter(|at| near(pool, *at, chosen_type))
        .collect();
    let mut order: Vec<(&Arc<InstanceType>, usize)> = small
        .iter()
        .filter_map(|at| Some((&pool.types.get(*at)?.instance_type, *at)))
        .collect();
    order.sort_by_key(|(t, _)| Arc::clone(&t.name));
    let priced = by_price(order.iter().map(|(t, _)| *t), requirements, &problem.labels);
    let position = |t: &Arc<InstanceType>| {
        order
            .iter()
            .find(|(o, _)| Arc::ptr_eq(o, t))
            .map(|(_, at)| *at)
    };
    let types: Vec<usize> = priced
        .iter()
        .take(MAX_INSTANCE_TYPES_PER_CLAIM)
        .filter_map(|(t, _)| position(t))
        .collect();
    if types.is_empty() {
        return None;
    }
    let funnel = vec![
        step("requirements", pool.view.instance_types.len(), offers.len()),
        step(
            &format!("requests {}", text(&names.list(&need))),
            offers.len(),
            room.len(),
        ),
        step("limits", room.len(), small.len()),
    ];
    let mut out = Purchase {
        pool: index,
        requirements: requirements.clone(),
        types,
        filled,
        need,
        min_values_relaxed: false,
        funnel: funnel.into_iter().filter(|s| s.removed > 0).collect(),
    };
    lower_min_values(pool, &mut out);
    Some(out)
}

fn step(constraint: &str, before: usize, left: usize) -> FunnelStep {
    FunnelStep {
        constraint: constraint.to_owned(),
        removed: before.saturating_sub(left),
        left,
    }
}

/// A resource list in words.
pub(crate) fn text(list: &ResourceList) -> String {
    list.iter()
        .map(|(name, amount)| format!("{name} {}", karpenter_model::resources::text(name, amount)))
        .collect::<Vec<_>>()
        .join(", ")
}

fn near(pool: &Pool, at: usize, chosen: &Sold) -> bool {
    let (Some(left), Some(sold)) = (&pool.left, pool.types.get(at)) else {
        return true;
    };
    left.iter().all(|(name, _)| {
        let most = chosen
            .instance_type
            .capacity
            .get(name)
            .nanos()
            .saturating_mul(LIMITED_SIZE_FACTOR);
        sold.instance_type.capacity.get(name).nanos() <= most
    })
}

/// Lowers minValues to what the listed types have, and says so.
fn lower_min_values(pool: &Pool, purchase: &mut Purchase) {
    let types = &purchase.types;
    for (key, requirement) in &mut purchase.requirements.map {
        let Some(least) = requirement.min_values else {
            continue;
        };
        let own = types
            .iter()
            .filter_map(|at| pool.types.get(*at))
            .filter_map(|s| s.instance_type.requirements.get(key));
        let distinct: BTreeSet<Arc<str>> = own
            .flat_map(|r| r.values.iter())
            .filter(|v| requirement.complement || requirement.values.contains(*v))
            .cloned()
            .collect();
        let have = i64::try_from(distinct.len()).unwrap_or(i64::MAX);
        if have < least {
            // The API's least is 1: a key without any value left loses the field.
            requirement.min_values = (have > 0).then_some(have);
            purchase.min_values_relaxed = true;
        }
    }
}

/// Takes the pods off the queue, books the limits, writes the planned node.
pub(crate) fn commit(
    problem: &Problem,
    names: &Names,
    queue: &mut Queue,
    catalog: &mut Catalog,
    plan: &mut Plan,
    purchase: Purchase,
) {
    let Some(pool) = catalog.pools.get_mut(purchase.pool) else {
        return;
    };
    let mut pods = Vec::new();
    for (position, n) in &purchase.filled {
        pods.extend((0..*n).map_while(|_| queue.take(*position)));
    }
    let sold: Vec<&Sold> = purchase
        .types
        .iter()
        .filter_map(|at| pool.types.get(*at))
        .collect();
    let mut requests = names.list(&purchase.need);
    let daemons: Vec<ResourceList> = sold.iter().map(|s| names.list(&s.daemons)).collect();
    requests.add(&ResourceList::min(&daemons));
    let mut best: Vec<PricedOffering> = sold
        .iter()
        .filter_map(|s| cheapest(problem, s, &purchase.requirements))
        .collect();
    let runner_up = if best.len() > 1 {
        Some(best.swap_remove(1))
    } else {
        None
    };
    let Some(cheapest) = best.into_iter().next() else {
        return;
    };
    let capacity_types: BTreeSet<Arc<str>> = sold
        .iter()
        .flat_map(|s| {
            s.instance_type
                .offers(&purchase.requirements, &problem.labels)
        })
        .map(|o| Arc::from(o.capacity_type()))
        .collect();
    let instance_types = sold
        .iter()
        .map(|s| Arc::clone(&s.instance_type.name))
        .collect();
    let most = ResourceList::max(sold.iter().map(|s| &s.instance_type.capacity));
    plan.new_nodes.push(PlannedNode {
        pool: Arc::clone(&pool.view.name),
        pods,
        requirements: purchase.requirements,
        instance_types,
        capacity_types: capacity_types.into_iter().collect(),
        requests,
        min_values_relaxed: purchase.min_values_relaxed,
        cheapest,
        runner_up,
        funnel: purchase.funnel,
    });
    pool.book(&most);
}

fn cheapest(problem: &Problem, sold: &Sold, requirements: &Requirements) -> Option<PricedOffering> {
    let offer = sold.instance_type.cheapest(requirements, &problem.labels)?;
    Some(PricedOffering {
        instance_type: Arc::clone(&sold.instance_type.name),
        zone: offer.zone().into(),
        capacity_type: offer.capacity_type().into(),
        price: offer.price,
    })
}
