//! Every pod has exactly one fate, and every name in the plan is one of the problem.

use std::collections::{BTreeMap, BTreeSet};

use karpenter_model::{Plan, PodKey, Problem};

use crate::Findings;

pub(crate) fn check(problem: &Problem, plan: &Plan, findings: &mut Findings) {
    let mut fates: BTreeMap<&PodKey, usize> = problem.pods.iter().map(|p| (&p.key, 0)).collect();
    let placed = plan
        .new_nodes
        .iter()
        .flat_map(|n| &n.pods)
        .chain(plan.existing.iter().flat_map(|e| &e.pods));
    for key in placed.chain(plan.unschedulable.iter().map(|u| &u.pod)) {
        match fates.get_mut(key) {
            Some(count) => *count += 1,
            None => findings.error(
                "bookkeeping",
                format!("pod {key} is in the plan but not in the problem"),
            ),
        }
    }
    for (key, count) in fates {
        match count {
            1 => {}
            0 if plan.cut_off => {}
            0 => findings.error(
                "bookkeeping",
                format!("pod {key} is lost: neither placed nor unschedulable"),
            ),
            n => findings.error("bookkeeping", format!("pod {key} has {n} fates")),
        }
    }
    let with_claims = problem.pods.iter().filter(|p| p.has_resource_claims);
    let with_claims: BTreeSet<&PodKey> = with_claims.map(|p| &p.key).collect();
    let existing = plan.existing.iter().flat_map(|e| &e.pods);
    for key in existing.chain(plan.new_nodes.iter().flat_map(|n| &n.pods)) {
        if with_claims.contains(key) {
            findings.error(
                "resource-claims",
                format!(
                    "pod {key} has resource claims and is placed, but nobody allocates devices"
                ),
            );
        }
    }
    for node in &plan.new_nodes {
        if node.pods.is_empty() {
            findings.error(
                "bookkeeping",
                format!("a new node of pool {} is for no pod", node.pool),
            );
        }
    }
    for unschedulable in &plan.unschedulable {
        if unschedulable.reason.trim().is_empty() {
            findings.error(
                "explanation",
                format!(
                    "pod {} is unschedulable without a reason",
                    unschedulable.pod
                ),
            );
        }
    }
}
