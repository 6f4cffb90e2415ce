//! Pods called unschedulable that plainly fit: a plan may be frugal, not blind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_model::{NodeView, Plan, Pod, PodKey, PoolView, Problem, ResourceList};

use crate::Findings;
use crate::claims::offers;
use crate::fits::{ports_clash, short_of, untolerated};
use crate::labels::{admits, of_node, of_purchase};
use crate::volumes::{in_reach, over};

pub(crate) fn check(problem: &Problem, plan: &Plan, findings: &mut Findings) {
    let pods: BTreeMap<&PodKey, &Arc<Pod>> = problem.pods.iter().map(|p| (&p.key, p)).collect();
    for unschedulable in &plan.unschedulable {
        let Some(pod) = pods.get(&unschedulable.pod) else {
            continue;
        };
        if !is_plain(pod, problem) {
            continue;
        }
        if let Some(node) = problem
            .nodes
            .iter()
            .find(|n| takes(problem, plan, &pods, n, pod))
        {
            findings.error(
                "missed",
                format!(
                    "pod {} is called unschedulable but fits node {}",
                    pod.key, node.name
                ),
            );
        }
        if let Some((pool, name)) = problem
            .pools
            .iter()
            .find_map(|p| sells(problem, p, pod).map(|t| (p, t)))
        {
            findings.error(
                "missed",
                format!(
                    "pod {} is called unschedulable but {name} of pool {} would take it",
                    pod.key, pool.name
                ),
            );
        }
    }
}

/// Pods whose rules reach beyond one node are judged elsewhere.
fn is_plain(pod: &Pod, problem: &Problem) -> bool {
    let between_pods = pod
        .affinity
        .as_ref()
        .is_some_and(|a| a.pod_affinity.is_some() || a.pod_anti_affinity.is_some());
    let avoided = problem
        .nodes
        .iter()
        .flat_map(|n| &n.pods)
        .chain(&problem.pods)
        .any(|p| {
            p.affinity
                .as_ref()
                .is_some_and(|a| a.pod_anti_affinity.is_some())
        });
    !between_pods
        && !avoided
        && pod.spread.is_empty()
        && pod.storage.as_deref().is_none_or(|s| s.refusal.is_none())
        && (pod.volumes.is_empty() || pod.storage.is_some())
        && !pod.has_resource_claims
}

fn takes(
    problem: &Problem,
    plan: &Plan,
    pods: &BTreeMap<&PodKey, &Arc<Pod>>,
    node: &NodeView,
    pod: &Pod,
) -> bool {
    let mut need = pod.requests.clone();
    let mut ports = node.host_ports.clone();
    let mut with_volumes = Vec::new();
    for key in plan
        .existing
        .iter()
        .filter(|e| e.node == node.name)
        .flat_map(|e| &e.pods)
    {
        if let Some(other) = pods.get(key) {
            need.add(&other.requests);
            ports.extend(other.host_ports.iter().cloned());
            with_volumes.push(*other);
        }
    }
    with_volumes.extend(pods.get(&pod.key).copied());
    // DaemonSets may still be on their way to the node: what they will take is not free.
    let labels = of_node(&node.labels);
    let mut coming = ResourceList::new();
    for daemon in &problem.daemons {
        if admits(&labels, daemon, &problem.labels)
            && untolerated(&node.taints, daemon, true).is_none()
        {
            coming.add(&daemon.requests);
        }
    }
    for (name, amount) in coming.iter() {
        let missing = amount
            .nanos()
            .saturating_sub(node.daemon_requests.get(name).nanos())
            .max(0);
        need.add(&ResourceList::from_iter([(
            name,
            karpenter_api::Quantity::from_nanos(missing),
        )]));
    }
    untolerated(&node.taints, pod, false).is_none()
        && admits(&labels, pod, &problem.labels)
        && in_reach(pod, &labels)
        && over(node, &with_volumes).is_none()
        && short_of(&need, &node.available).is_none()
        && !pod
            .host_ports
            .iter()
            .any(|p| ports.iter().any(|q| ports_clash(p, q)))
}

fn sells(problem: &Problem, pool: &PoolView, pod: &Pod) -> Option<Arc<str>> {
    // A pool with limits may rightly refuse; one with minValues may lack the variety.
    if pool.limits.is_some()
        || pool
            .requirements
            .map
            .values()
            .any(|r| r.min_values.is_some())
    {
        return None;
    }
    if untolerated(&pool.taints, pod, false).is_some() || !pod.host_ports.is_empty() {
        return None;
    }
    let too_many = |name: &Arc<str>| {
        let limits = problem.volume_limits.get(name).into_iter().flatten();
        let wants = |driver| {
            pod.storage
                .as_deref()?
                .attached
                .get(driver)
                .map(BTreeSet::len)
        };
        limits
            .into_iter()
            .any(|(d, limit)| wants(d).is_some_and(|n| n > *limit))
    };
    let mut types = pool.instance_types.iter().filter(|t| !too_many(&t.name));
    types.find_map(|instance_type| {
        let fits = offers(&pool.requirements.map, instance_type)
            .into_iter()
            .any(|offer| {
                let labels =
                    of_purchase(&pool.labels, &pool.requirements.map, instance_type, offer);
                // A key that nobody gives a value could take any: such pods are left to the solver.
                if labels.values().any(Option::is_none)
                    || !admits(&labels, pod, &problem.labels)
                    || !in_reach(pod, &labels)
                {
                    return false;
                }
                let mut need = pod.requests.clone();
                for daemon in &problem.daemons {
                    if untolerated(&pool.taints, daemon, true).is_none()
                        && !daemon.has_resource_claims
                    {
                        need.add(&daemon.requests);
                    }
                }
                short_of(&need, &instance_type.allocatable).is_none()
            });
        fits.then(|| Arc::clone(&instance_type.name))
    })
}
