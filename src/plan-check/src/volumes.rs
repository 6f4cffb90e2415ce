//! Volumes: pods go where their volumes can be, and no node gets more of them than its CSI drivers attach.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_model::storage::Attached;
use karpenter_model::{NodeView, Pod, PodKey, Problem, Requirement, Requirements};

use crate::Findings;
use crate::case::{Case, Purchase, zone};
use crate::labels::{Labelled, allows, forbids};

pub(crate) fn check(case: &Case<'_>, findings: &mut Findings) {
    // A claim that others mount, too, may turn out to be somewhere already: it is not counted ahead.
    let mut users: BTreeMap<&PodKey, usize> = BTreeMap::new();
    let pods = case.problem.pods.iter();
    let storages = pods.filter_map(|p| p.storage.as_deref());
    for claim in storages.flat_map(|s| s.attached.values().flatten()) {
        *users.entry(claim).or_default() += 1;
    }
    let with_storage = |keys| {
        let mut found = case.pods_of(keys);
        found.retain(|p| p.storage.is_some());
        found
    };
    for placement in &case.plan.existing {
        let placed = with_storage(&placement.pods);
        let found = case.nodes.get(placement.node.as_ref());
        if let Some(node) = found.filter(|_| !placed.is_empty()) {
            on_node(node, &placed, findings);
        }
    }
    for purchase in &case.purchases {
        let placed = with_storage(&purchase.node.pods);
        if !placed.is_empty() {
            on_purchase(case.problem, purchase, &placed, &users, findings);
        }
    }
}

fn on_node(node: &NodeView, placed: &[&Arc<Pod>], findings: &mut Findings) {
    let what = format!("node {}", node.name);
    for pod in placed {
        reachable(pod, &node.labels, &what, findings);
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
    purchase: &Purchase<'_>,
    placed: &[&Arc<Pod>],
    users: &BTreeMap<&PodKey, usize>,
    findings: &mut Findings,
) {
    let brought = together(placed);
    for sold in &purchase.sold {
        let (what, name) = (&purchase.what, &sold.instance_type.name);
        for node in purchase.nodes(sold) {
            let what = format!("{what} as {name} in {}", zone(&node));
            for pod in placed {
                reachable(pod, &node, &what, findings);
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

fn reachable(pod: &Pod, labels: &impl Labelled, what: &str, findings: &mut Findings) {
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
pub(crate) fn in_reach(pod: &Pod, labels: &impl Labelled) -> bool {
    pod.storage.as_deref().is_none_or(|s| {
        s.alternatives.is_empty() || s.alternatives.iter().any(|place| holds(place, labels))
    })
}

fn holds(place: &Requirements, labels: &impl Labelled) -> bool {
    place.map.iter().all(|(key, want)| match labels.label(key) {
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
