//! Volumes: pods go where their volumes can be, and no node gets more of them than its CSI drivers attach.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_model::plan::PlannedNode;
use karpenter_model::storage::Attached;
use karpenter_model::{NodeView, Plan, Pod, PodKey, PoolView, Problem, Requirement, Requirements};

use crate::Findings;
use crate::claims::offers;
use crate::labels::{Labels, allows, forbids, of_node, of_purchase};

pub(crate) fn check(problem: &Problem, plan: &Plan, findings: &mut Findings) {
    let pods: BTreeMap<&PodKey, &Arc<Pod>> = problem.pods.iter().map(|p| (&p.key, p)).collect();
    let with_storage = |keys: &[PodKey]| -> Vec<&Arc<Pod>> {
        let found = keys.iter().filter_map(|k| pods.get(k).copied());
        found.filter(|p| p.storage.is_some()).collect()
    };
    for placement in &plan.existing {
        let placed = with_storage(&placement.pods);
        let found = problem.nodes.iter().find(|n| n.name == placement.node);
        if let Some(node) = found.filter(|_| !placed.is_empty()) {
            on_node(node, &placed, findings);
        }
    }
    for (index, node) in plan.new_nodes.iter().enumerate() {
        let placed = with_storage(&node.pods);
        let pool = problem.pools.iter().find(|p| p.name == node.pool);
        if let Some(pool) = pool.filter(|_| !placed.is_empty()) {
            let what = format!("new node {index} of pool {}", node.pool);
            on_purchase(problem, pool, node, &placed, &what, findings);
        }
    }
}

fn on_node(node: &NodeView, placed: &[&Arc<Pod>], findings: &mut Findings) {
    let labels = of_node(&node.labels);
    let what = format!("node {}", node.name);
    for pod in placed {
        reachable(pod, &labels, &what, findings);
    }
    if let Some((driver, wants, limit)) = over(node, placed) {
        findings.error(
            "volume-limits",
            format!("{what} would have {wants} volumes of {driver}, at most {limit} can be"),
        );
    }
}

/// The first driver that pods bring more volumes of than the node's limit allows: driver, number, limit. What is too
/// much without them is not held against them.
pub(crate) fn over(node: &NodeView, placed: &[&Arc<Pod>]) -> Option<(Arc<str>, usize, usize)> {
    let room = node.volumes.as_deref()?;
    let brought = together(placed);
    brought.into_iter().find_map(|(driver, mut claims)| {
        let limit = *room.limits.get(&driver)?;
        let there = room.used.get(&driver).cloned().unwrap_or_default();
        let before = there.len();
        claims.extend(there);
        (claims.len() > before && claims.len() > limit).then_some((driver, claims.len(), limit))
    })
}

/// Claims of all pods.
fn together(placed: &[&Arc<Pod>]) -> Attached {
    let mut all = Attached::new();
    for storage in placed.iter().filter_map(|p| p.storage.as_deref()) {
        for (driver, claims) in &storage.attached {
            all.entry(driver.clone())
                .or_default()
                .extend(claims.iter().cloned());
        }
    }
    all
}

fn on_purchase(
    problem: &Problem,
    pool: &PoolView,
    node: &PlannedNode,
    placed: &[&Arc<Pod>],
    what: &str,
    findings: &mut Findings,
) {
    // A claim that others mount, too, may turn out to be somewhere already: it is not counted ahead.
    let mut users: BTreeMap<&PodKey, usize> = BTreeMap::new();
    let storages = problem.pods.iter().filter_map(|p| p.storage.as_deref());
    for claim in storages.flat_map(|s| s.attached.values().flatten()) {
        *users.entry(claim).or_default() += 1;
    }
    let brought = together(placed);
    for name in &node.instance_types {
        let found = pool.instance_types.iter().find(|t| t.name == *name);
        let Some(instance_type) = found else { continue };
        for offer in offers(&node.requirements.map, instance_type) {
            let labels = of_purchase(&pool.labels, &node.requirements.map, instance_type, offer);
            let zone = labels.get(karpenter_api::labels::ZONE).cloned().flatten();
            let what = format!("{what} as {name} in {}", zone.unwrap_or_default());
            for pod in placed {
                reachable(pod, &labels, &what, findings);
            }
        }
        let limits = problem.volume_limits.get(name);
        for (driver, limit) in limits.into_iter().flatten() {
            let own: BTreeSet<&PodKey> = (brought.get(driver).into_iter().flatten())
                .filter(|c| users.get(c) == Some(&1))
                .collect();
            if own.len() > *limit {
                findings.error(
                    "volume-limits",
                    format!(
                        "{what} as {name} would have {} volumes of {driver}, at most {limit} can be",
                        own.len()
                    ),
                );
            }
        }
    }
}

fn reachable(pod: &Pod, labels: &Labels, what: &str, findings: &mut Findings) {
    let Some(storage) = pod.storage.as_deref() else {
        return;
    };
    if let Some(refusal) = &storage.refusal {
        findings.error("volumes", format!("pod {} is planned: {refusal}", pod.key));
    }
    if !in_reach(pod, labels) {
        findings.error(
            "volumes",
            format!("the volumes of pod {} are out of reach of {what}", pod.key),
        );
    }
}

/// Whether a Node with these labels can have the volumes of `pod`.
pub(crate) fn in_reach(pod: &Pod, labels: &Labels) -> bool {
    pod.storage.as_deref().is_none_or(|s| {
        s.alternatives.is_empty() || s.alternatives.iter().any(|place| holds(place, labels))
    })
}

fn holds(place: &Requirements, labels: &Labels) -> bool {
    place
        .map
        .iter()
        .all(|(key, want)| match labels.get(key.as_ref()) {
            Some(Some(value)) => allows(want, value),
            Some(None) => !forbids(want),
            None => may_lack(want),
        })
}

/// Whether a Node without the label is meant, too: `NotIn` and `DoesNotExist`.
fn may_lack(want: &Requirement) -> bool {
    let bounded = want.gte.is_some() || want.lte.is_some();
    forbids(want) || want.complement && !want.values.is_empty() && !bounded
}
