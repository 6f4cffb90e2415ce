//! Machines to be bought: whatever the launch picks of what the claim allows must do for all of its pods.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_api::Quantity;
use karpenter_model::plan::{MAX_INSTANCE_TYPES_PER_CLAIM, PlannedNode};
use karpenter_model::resources::names::NODES;
use karpenter_model::{
    InstanceType, Offering, Plan, Pod, PodKey, PoolView, Problem, Requirement, ResourceList,
};

use crate::Findings;
use crate::fits::{ports_clash, short_of, untolerated};
use crate::labels::{Labels, admits, allows, forbids, is_unsure, of_purchase};
use crate::nodes::has_soft_taints;
use crate::prices;

/// Prices closer than this are the same: they are sums and products of decimal literals.
pub(crate) const PRICE_EPSILON: f64 = 1e-9;

pub(crate) fn check(problem: &Problem, plan: &Plan, findings: &mut Findings) {
    let pods: BTreeMap<&PodKey, &Arc<Pod>> = problem.pods.iter().map(|p| (&p.key, p)).collect();
    let pools: BTreeMap<&str, &Arc<PoolView>> =
        problem.pools.iter().map(|p| (p.name.as_ref(), p)).collect();
    let soft = has_soft_taints(problem);
    let mut spent: BTreeMap<&str, ResourceList> = BTreeMap::new();
    for (index, node) in plan.new_nodes.iter().enumerate() {
        let Some(pool) = pools.get(node.pool.as_ref()) else {
            findings.error(
                "bookkeeping",
                format!("pool {} is in the plan but not in the problem", node.pool),
            );
            continue;
        };
        let what = format!("new node {index} of pool {}", node.pool);
        let placed: Vec<&Arc<Pod>> = node
            .pods
            .iter()
            .filter_map(|k| pods.get(k).copied())
            .collect();
        let types = listed_types(pool, node, &what, findings);
        inside_pool(pool, node, &what, findings);
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
        ports(&placed, &what, findings);
        purchases(problem, pool, node, &placed, &types, &what, findings);
        prices::check(pool, node, &what, findings);
        min_values(node, &types, &what, findings);
        spend(&mut spent, pool, &types);
    }
    for pool in &problem.pools {
        limits(pool, spent.get(pool.name.as_ref()), findings);
    }
}

fn listed_types<'a>(
    pool: &'a PoolView,
    node: &PlannedNode,
    what: &str,
    findings: &mut Findings,
) -> Vec<&'a Arc<InstanceType>> {
    let by_name: BTreeMap<&str, &Arc<InstanceType>> = pool
        .instance_types
        .iter()
        // Of several of a name it is the first.
        .rev()
        .map(|t| (t.name.as_ref(), t))
        .collect();
    if node.instance_types.is_empty() {
        findings.error("instance-types", format!("{what} lists no instance type"));
    }
    if node.instance_types.len() > MAX_INSTANCE_TYPES_PER_CLAIM {
        findings.error("instance-types", format!("{what} lists {} instance types, at most {MAX_INSTANCE_TYPES_PER_CLAIM} are allowed", node.instance_types.len()));
    }
    let distinct: BTreeSet<_> = node.instance_types.iter().collect();
    if distinct.len() != node.instance_types.len() {
        findings.error(
            "instance-types",
            format!("{what} lists an instance type twice"),
        );
    }
    node.instance_types
        .iter()
        .filter_map(|name| {
            let found = by_name.get(name.as_ref()).copied();
            if found.is_none() {
                findings.error(
                    "instance-types",
                    format!("{what} lists {name}, which its pool does not sell"),
                );
            }
            found
        })
        .collect()
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

/// What can be bought: every listed type with every available offering that the claim allows.
pub(crate) fn offers<'a>(
    requirements: &BTreeMap<Arc<str>, Requirement>,
    instance_type: &'a InstanceType,
) -> Vec<&'a Offering> {
    let type_allows = requirements
        .iter()
        .all(|(key, want)| meets(want, instance_type.requirements.map.get(key)));
    if !type_allows {
        return Vec::new();
    }
    instance_type
        .offerings
        .iter()
        .filter(|o| {
            o.available
                && requirements
                    .iter()
                    .all(|(key, want)| meets(want, o.requirements.map.get(key)))
        })
        .collect()
}

/// Whether what is sold (`have`; none = it says nothing about the key) can be what is wanted.
fn meets(want: &Requirement, have: Option<&Requirement>) -> bool {
    let Some(have) = have else { return true };
    if forbids(have) {
        return want.complement
            && !want.values.is_empty()
            && want.gte.is_none()
            && want.lte.is_none()
            || forbids(want);
    }
    if have.complement {
        return !forbids(want);
    }
    have.values.iter().any(|v| allows(want, v)) || forbids(have)
}

fn purchases(
    problem: &Problem,
    pool: &PoolView,
    node: &PlannedNode,
    placed: &[&Arc<Pod>],
    types: &[&Arc<InstanceType>],
    what: &str,
    findings: &mut Findings,
) {
    let picky: Vec<&&Arc<Pod>> = distinct_selectors(placed);
    let mut cheapest = f64::INFINITY;
    let mut last_price = f64::NEG_INFINITY;
    let mut capacity_types: BTreeSet<String> = BTreeSet::new();
    let mut pods_need = ResourceList::new();
    placed.iter().for_each(|p| pods_need.add(&p.requests));
    for instance_type in types {
        let offers = offers(&node.requirements.map, instance_type);
        let Some(best) = offers.iter().map(|o| o.price).min_by(f64::total_cmp) else {
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
        need.add(&daemons(problem, pool, node, instance_type));
        if let Some((resource, wants, has)) = short_of(&need, &instance_type.allocatable) {
            findings.error(
                "resources",
                format!(
                    "{what} lists {} with {has} of {resource}, but pods and daemons want {wants}",
                    instance_type.name
                ),
            );
        }
        for offer in offers {
            let labels = of_purchase(&pool.labels, &node.requirements.map, instance_type, offer);
            if let Some(Some(capacity_type)) = labels.get(karpenter_api::labels::CAPACITY_TYPE) {
                capacity_types.insert(capacity_type.clone());
            }
            for pod in &picky {
                if !admits(&labels, pod, &problem.labels) {
                    findings.error("selectors", format!("{what} could become {} in {}, which does not satisfy the node selectors of pod {}", instance_type.name, zone(&labels), pod.key));
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
    if !types.is_empty() && said != capacity_types {
        findings.error(
            "offerings",
            format!("{what} says it offers {said:?}, its types offer {capacity_types:?}"),
        );
    }
}

fn zone(labels: &Labels) -> &str {
    labels
        .get(karpenter_api::labels::ZONE)
        .and_then(Option::as_deref)
        .unwrap_or("some zone")
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

/// Least that DaemonSets take on this type: those that surely run there, whatever offering is bought.
fn daemons(
    problem: &Problem,
    pool: &PoolView,
    node: &PlannedNode,
    instance_type: &InstanceType,
) -> ResourceList {
    let mut total = ResourceList::new();
    let nodes: Vec<Labels> = offers(&node.requirements.map, instance_type)
        .into_iter()
        .map(|o| of_purchase(&pool.labels, &node.requirements.map, instance_type, o))
        .collect();
    for daemon in &problem.daemons {
        let tolerated = untolerated(&pool.taints, daemon, true).is_none();
        if tolerated
            && !(daemon.has_resource_claims && problem.options.ignore_dra)
            && !nodes.is_empty()
            && nodes.iter().all(|l| {
                admits(l, daemon, &problem.labels) && !is_unsure(l, daemon, &problem.labels)
            })
        {
            total.add(&daemon.requests);
        }
    }
    total
}

fn min_values(
    node: &PlannedNode,
    types: &[&Arc<InstanceType>],
    what: &str,
    findings: &mut Findings,
) {
    for (key, requirement) in &node.requirements.map {
        let Some(least) = requirement.min_values else {
            continue;
        };
        let values: BTreeSet<_> = types
            .iter()
            .filter_map(|t| t.requirements.map.get(key))
            .flat_map(|r| r.values.iter())
            .filter(|v| allows(requirement, v))
            .collect();
        if i64::try_from(values.len()).is_ok_and(|n| n < least) {
            findings.error(
                "min-values",
                format!(
                    "{what} leaves {} values of {key}, at least {least} are wanted",
                    values.len()
                ),
            );
        }
    }
}

/// Books the most that the purchase can add to the pool.
pub(crate) fn spend<'a>(
    spent: &mut BTreeMap<&'a str, ResourceList>,
    pool: &'a PoolView,
    types: &[&Arc<InstanceType>],
) {
    let mut most = ResourceList::new();
    for instance_type in types {
        for (name, amount) in instance_type.capacity.iter() {
            if amount > most.get(name) {
                most.set(name, amount);
            }
        }
    }
    most.set(NODES, Quantity::from_units(1));
    spent.entry(pool.name.as_ref()).or_default().add(&most);
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
