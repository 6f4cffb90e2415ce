//! Which of the nodes that will do is best: the main terms of the real scheduler's default profile, in whole points,
//! ties broken by name, so that the same cluster always gives the same answer.

use super::cluster::{Cluster, Node};
use super::pod::Pod;
use super::topology::{soft_affinity, soft_spread};
use crate::loops::selector::{node_term_matches, tolerated};

/// Weights of the default profile.
mod weight {
    pub(super) const TAINT_TOLERATION: i64 = 3;
    pub(super) const NODE_AFFINITY: i64 = 2;
    pub(super) const TOPOLOGY_SPREAD: i64 = 2;
    pub(super) const POD_AFFINITY: i64 = 2;
    pub(super) const LEAST_ALLOCATED: i64 = 1;
    pub(super) const BALANCED_ALLOCATION: i64 = 1;
}

/// The best of `feasible`, which must be in order of name.
pub(crate) fn best<'a>(cluster: &Cluster, pod: &Pod, feasible: &[&'a Node]) -> Option<&'a Node> {
    if let [only] = feasible {
        return Some(only);
    }
    let mut total: Vec<i64> = feasible
        .iter()
        .map(|n| {
            weight::LEAST_ALLOCATED * least_allocated(pod, n)
                + weight::BALANCED_ALLOCATION * balanced(pod, n)
        })
        .collect();
    let mut add = |points: Vec<i64>, weight: i64| {
        for (sum, p) in total.iter_mut().zip(points) {
            *sum += p * weight;
        }
    };
    add(taints(pod, feasible), weight::TAINT_TOLERATION);
    add(node_affinity(pod, feasible), weight::NODE_AFFINITY);
    add(soft_spread(cluster, pod, feasible), weight::TOPOLOGY_SPREAD);
    add(soft_affinity(cluster, pod, feasible), weight::POD_AFFINITY);
    let mut best: Option<(i64, &Node)> = None;
    for (points, node) in total.into_iter().zip(feasible) {
        if best.is_none_or(|(most, _)| points > most) {
            best = Some((points, node));
        }
    }
    best.map(|(_, n)| n)
}

/// Free share of CPU and memory once the pod is there.
fn least_allocated(pod: &Pod, node: &Node) -> i64 {
    let share = |have: i64, used: i64| {
        if have <= 0 || used > have {
            0
        } else {
            // Memory times 100 stays far below 2⁶³.
            have.saturating_sub(used).saturating_mul(100) / have
        }
    };
    let (have, used, want) = (
        &node.allocatable,
        &node.scoring_requested,
        &pod.scoring_requests,
    );
    (share(have.cpu, used.cpu + want.cpu) + share(have.memory, used.memory + want.memory)) / 2
}

/// 100 when CPU and memory are used to the same share, less the farther they are apart.
fn balanced(pod: &Pod, node: &Node) -> i64 {
    // In 1/10000 of the whole.
    let share = |have: i64, used: i64| {
        if have <= 0 {
            10_000
        } else {
            i64::try_from(i128::from(used) * 10_000 / i128::from(have))
                .unwrap_or(10_000)
                .min(10_000)
        }
    };
    let (have, used, want) = (&node.allocatable, &node.requested, &pod.requests);
    let cpu = share(have.cpu, used.cpu + want.cpu);
    let memory = share(have.memory, used.memory + want.memory);
    // Of two values, the standard deviation is half their difference.
    100 - (cpu - memory).abs() / 2 / 100
}

fn taints(pod: &Pod, feasible: &[&Node]) -> Vec<i64> {
    let raw: Vec<i64> = feasible
        .iter()
        .map(|n| {
            let disliked = n
                .taints
                .iter()
                .filter(|t| t.effect == "PreferNoSchedule" && !tolerated(&pod.tolerations, t));
            i64::try_from(disliked.count()).unwrap_or(i64::MAX)
        })
        .collect();
    let most = raw.iter().max().copied().unwrap_or(0);
    raw.iter()
        .map(|p| if most == 0 { 100 } else { 100 - 100 * p / most })
        .collect()
}

fn node_affinity(pod: &Pod, feasible: &[&Node]) -> Vec<i64> {
    if pod.preferred_nodes.is_empty() {
        return Vec::new();
    }
    let raw: Vec<i64> = feasible
        .iter()
        .map(|n| {
            pod.preferred_nodes
                .iter()
                .filter(|t| node_term_matches(&t.preference, &n.labels, &n.name))
                .map(|t| i64::from(t.weight))
                .sum()
        })
        .collect();
    let most = raw.iter().max().copied().unwrap_or(0);
    raw.iter()
        .map(|p| if most == 0 { 0 } else { 100 * p / most })
        .collect()
}
