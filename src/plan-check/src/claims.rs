//! Machines to be bought: whatever the launch picks of what the claim allows must do for all of its pods.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_api::Quantity;
use karpenter_model::plan::{MAX_INSTANCE_TYPES_PER_CLAIM, PlannedNode};
use karpenter_model::resources::names::NODES;
use karpenter_model::{Pod, PoolView, Problem, ResourceList};

use crate::Findings;
use crate::case::{Case, Purchase, zone};
use crate::fits::{ports_clash, short_of, untolerated};
use crate::labels::{Labelled as _, admits, allows, forbids, is_unsure};
use crate::nodes::{daemons, has_soft_taints};
use crate::prices;

/// Prices closer than this are the same: they are sums and products of decimal literals.
pub(crate) const PRICE_EPSILON: f64 = 1e-9;

pub(crate) fn check(case: &Case<'_>, findings: &mut Findings) {
    let (problem, plan) = (case.problem, case.plan);
    for node in &plan.new_nodes {
        if !case.pools.contains_key(node.pool.as_ref()) {
            findings.error(
                "bookkeeping",
                format!("pool {} is in the plan but not in the problem", node.pool),
            );
        }
    }
    let soft = has_soft_taints(problem);
    let mut spent: BTreeMap<&str, ResourceList> = BTreeMap::new();
    for purchase in &case.purchases {
        let (what, pool) = (&purchase.what, purchase.pool);
        let placed = case.pods_of(&purchase.node.pods);
        listed_types(purchase, findings);
        inside_pool(pool, purchase.node, what, findings);
        no_new_labels(problem, purchase, findings);
        for pod in &placed {
            if let Some(taint) = untolerated(&pool.taints, pod, soft) {
                findings.error(
                    "taints",
                    format!(
                        "pod {} does not tolerate {}:{} of {what}",
                        pod.key, taint.key, taint.effect
                    ),
                );
            }
        }
        ports(&placed, what, findings);
        purchases(problem, purchase, &placed, findings);
        prices::check(purchase, findings);
        min_values(purchase, findings);
        spend(&mut spent, purchase);
    }
    for pool in &problem.pools {
        limits(pool, spent.get(pool.name.as_ref()), findings);
    }
}

fn listed_types(purchase: &Purchase<'_>, findings: &mut Findings) {
    let (what, listed) = (&purchase.what, &purchase.node.instance_types);
    if listed.is_empty() {
        findings.error("instance-types", format!("{what} lists no instance type"));
    }
    if listed.len() > MAX_INSTANCE_TYPES_PER_CLAIM {
        findings.error("instance-types", format!("{what} lists {} instance types, at most {MAX_INSTANCE_TYPES_PER_CLAIM} are allowed", listed.len()));
    }
    let distinct: BTreeSet<&str> = listed.iter().map(AsRef::as_ref).collect();
    if distinct.len() != listed.len() {
        findings.error(
            "instance-types",
            format!("{what} lists an instance type twice"),
        );
    }
    let sold = purchase.sold.iter().map(|s| s.instance_type.name.as_ref());
    let sold: BTreeSet<&str> = sold.collect();
    for name in listed.iter().filter(|n| !sold.contains(n.as_ref())) {
        findings.error(
            "instance-types",
            format!("{what} lists {name}, which its pool does not sell"),
        );
    }
}

/// The claim's requirements may narrow the pool's, never widen them.
fn inside_pool(pool: &PoolView, node: &PlannedNode, what: &str, findings: &mut Findings) {
    for (key, wide) in &pool.requirements.map {
        let Some(narrow) = node.requirements.map.get(key) else {
            findings.error(
                "requirements",
                format!("{what} dropped the pool's requirement on {key}"),
            );
            continue;
        };
        let inside = if narrow.complement {
            wide.complement
                && wide
                    .values
                    .iter()
                    .all(|v| narrow.values.contains(v) || !allows(wide, v) && !allows(narrow, v))
                && wide.gte.is_none_or(|g| narrow.gte.is_some_and(|n| n >= g))
                && wide.lte.is_none_or(|l| narrow.lte.is_some_and(|n| n <= l))
        } else {
            narrow.values.iter().all(|v| allows(wide, v))
        };
        if !inside {
            findings.error(
                "requirements",
                format!("{what} allows values of {key} that its pool does not"),
            );
        }
    }
}

/// A label that its pool does not define and nobody else gives it is no label that a claim may ask for.
fn no_new_labels(problem: &Problem, purchase: &Purchase<'_>, findings: &mut Findings) {
    for (key, asked) in &purchase.node.requirements.map {
        let is_defined = purchase.pool.requirements.map.contains_key(key)
            || problem.labels.well_known.contains(key.as_ref())
            || problem.labels.reservation_id.as_deref() == Some(key);
        let may_lack = forbids(asked)
            || asked.complement
                && !asked.values.is_empty()
                && asked.gte.is_none()
                && asked.lte.is_none();
        if !is_defined && !may_lack {
            findings.error(
                "requirements",
                format!(
                    "{} asks for label {key}, which its pool does not define",
                    purchase.what
                ),
            );
        }
    }
}

fn ports(placed: &[&Arc<Pod>], what: &str, findings: &mut Findings) {
    for (i, a) in placed.iter().enumerate() {
        for b in placed.iter().skip(i + 1) {
            if a.host_ports
                .iter()
                .any(|p| b.host_ports.iter().any(|q| ports_clash(p, q)))
            {
                findings.error(
                    "host-ports",
                    format!("pods {} and {} want the same port on {what}", a.key, b.key),
                );
            }
        }
    }
}

fn purchases(
    problem: &Problem,
    purchase: &Purchase<'_>,
    placed: &[&Arc<Pod>],
    findings: &mut Findings,
) {
    let (what, node) = (&purchase.what, purchase.node);
    let picky: Vec<&&Arc<Pod>> = distinct_selectors(placed);
    let mut cheapest = f64::INFINITY;
    let mut last_price = f64::NEG_INFINITY;
    let mut capacity_types: BTreeSet<String> = BTreeSet::new();
    let mut pods_need = ResourceList::new();
    placed.iter().for_each(|p| pods_need.add(&p.requests));
    let daemons = tolerant_daemons(problem, purchase.pool);
    for sold in &purchase.sold {
        let instance_type = sold.instance_type;
        let prices = sold.offers.iter().map(|o| o.price);
        let Some(best) = prices.min_by(f64::total_cmp) else {
            findings.error(
                "offerings",
                format!(
                    "{what} lists {}, which has no available offering it allows",
                    instance_type.name
                ),
            );
            continue;
        };
        if best + PRICE_EPSILON < last_price {
            findings.error("prices", format!("{what} does not list its types cheapest first: {} is cheaper than the one before", instance_type.name));
        }
        last_price = best;
        cheapest = cheapest.min(best);
        let mut need = pods_need.clone();
        // Least that DaemonSets take on this type: those that surely run there, whatever offering is bought.
        for daemon in &daemons {
            let mut nodes = purchase.nodes(sold);
            let labels = &problem.labels;
            if nodes.all(|n| admits(&n, daemon, labels) && !is_unsure(&n, daemon, labels)) {
                need.add(&daemon.requests);
            }
        }
        if let Some((resource, wants, has)) = short_of(&need, &instance_type.allocatable) {
            findings.error(
                "resources",
                format!(
                    "{what} lists {} with {has} of {resource}, but pods and daemons want {wants}",
                    instance_type.name
                ),
            );
        }
        for node in purchase.nodes(sold) {
            if let Some(Some(known)) = node.label(karpenter_api::labels::CAPACITY_TYPE)
                && !capacity_types.contains(known)
            {
                capacity_types.insert(known.to_owned());
            }
            for pod in &picky {
                if !admits(&node, pod, &problem.labels) {
                    findings.error("selectors", format!("{what} could become {} in {}, which does not satisfy the node selectors of pod {}", instance_type.name, zone(&node), pod.key));
                }
            }
        }
    }
    if cheapest.is_finite() && (node.cheapest.price - cheapest).abs() > PRICE_EPSILON {
        findings.error(
            "prices",
            format!(
                "{what} says its cheapest offering costs {}, it costs {cheapest}",
                node.cheapest.price
            ),
        );
    }
    let said: BTreeSet<String> = node.capacity_types.iter().map(|c| c.to_string()).collect();
    if !purchase.sold.is_empty() && said != capacity_types {
        findings.error(
            "offerings",
            format!("{what} says it offers {said:?}, its types offer {capacity_types:?}"),
        );
    }
}

/// One pod of each set of node selectors: the others would get the same answer.
fn distinct_selectors<'a, 'b>(placed: &'b [&'a Arc<Pod>]) -> Vec<&'b &'a Arc<Pod>> {
    let mut seen = BTreeSet::new();
    placed
        .iter()
        .filter(|p| {
            let affinity = p.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
            (!p.node_selector.is_empty() || affinity.is_some())
                && seen.insert((p.node_selector.clone(), affinity.map(|a| format!("{a:?}"))))
        })
        .collect()
}

/// DaemonSets whose pods run on the pool's nodes as far as taints go.
pub(crate) fn tolerant_daemons<'a>(problem: &'a Problem, pool: &PoolView) -> Vec<&'a Arc<Pod>> {
    daemons(problem)
        .filter(|d| untolerated(&pool.taints, d, true).is_none())
        .collect()
}

fn min_values(purchase: &Purchase<'_>, findings: &mut Findings) {
    for (key, requirement) in &purchase.node.requirements.map {
        let Some(least) = requirement.min_values else {
            continue;
        };
        let values: BTreeSet<_> = purchase
            .sold
            .iter()
            .filter_map(|s| s.instance_type.requirements.map.get(key))
            .flat_map(|r| r.values.iter())
            .filter(|v| allows(requirement, v))
            .collect();
        if i64::try_from(values.len()).is_ok_and(|n| n < least) {
            findings.error(
                "min-values",
                format!(
                    "{} leaves {} values of {key}, at least {least} are wanted",
                    purchase.what,
                    values.len()
                ),
            );
        }
    }
}

/// Books the most that the purchase can add to the pool.
pub(crate) fn spend<'a>(spent: &mut BTreeMap<&'a str, ResourceList>, purchase: &Purchase<'a>) {
    let mut most = ResourceList::new();
    for sold in &purchase.sold {
        for (name, amount) in sold.instance_type.capacity.iter() {
            if amount > most.get(name) {
                most.set(name, amount);
            }
        }
    }
    most.set(NODES, Quantity::from_units(1));
    let pool = purchase.pool.name.as_ref();
    spent.entry(pool).or_default().add(&most);
}

fn limits(pool: &PoolView, spent: Option<&ResourceList>, findings: &mut Findings) {
    let (Some(limits), Some(spent)) = (&pool.limits, spent) else {
        return;
    };
    let mut total = pool.usage.clone();
    total.add(spent);
    for (name, limit) in limits.iter() {
        if total.get(name) > limit {
            findings.error(
                "limits",
                format!(
                    "pool {} could grow to {} of {name}, its limit is {limit}",
                    pool.name,
                    total.get(name)
                ),
            );
        }
    }
}
