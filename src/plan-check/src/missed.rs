//! Pods called unschedulable that plainly fit: a plan may be frugal, not blind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_api::Quantity;
use karpenter_model::resources::names::NODES;
use karpenter_model::{InstanceType, NodeView, Plan, Pod, PodKey, PoolView, Problem, ResourceList};

use crate::Findings;
use crate::claims::{offers, spend};
use crate::fits::{ports_clash, short_of, untolerated};
use crate::labels::{admits, allows, of_node, of_purchase};
use crate::nodes::daemons_on;
use crate::reservations::is_left;
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
            .find_map(|p| sells(problem, plan, p, pod).map(|t| (p, t)))
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
    for daemon in daemons_on(problem, node) {
        coming.add(&daemon.requests);
        ports.extend(daemon.host_ports.iter().cloned());
    }
    for (name, amount) in coming.iter() {
        let missing = amount
            .nanos()
            .saturating_sub(node.daemon_requests.get(name).nanos())
            .max(0);
        need.add(&ResourceList::from_iter([(
            name,
            Quantity::from_nanos(missing),
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

/// The first type that a machine of its own could be bought of for the pod, beside everything that the plan buys.
fn sells(problem: &Problem, plan: &Plan, pool: &PoolView, pod: &Pod) -> Option<Arc<str>> {
    if untolerated(&pool.taints, pod, true).is_some() {
        return None;
    }
    let left = left_of_limits(plan, pool);
    let fitting: Vec<&Arc<InstanceType>> = pool
        .instance_types
        .iter()
        .filter(|t| within(left.as_ref(), t) && becomes(problem, plan, pool, t, pod))
        .collect();
    // The variety that is asked for has to be there among what fits, unless it may be lowered.
    let varied = pool.requirements.map.iter().all(|(key, requirement)| {
        let Some(least) = requirement.min_values else {
            return true;
        };
        let values: BTreeSet<_> = fitting
            .iter()
            .filter_map(|t| t.requirements.map.get(key))
            .flat_map(|r| &r.values)
            .filter(|v| allows(requirement, v))
            .collect();
        problem.options.best_effort_min_values
            || i64::try_from(values.len()).is_ok_and(|n| n >= least)
    });
    fitting.first().filter(|_| varied).map(|t| t.name.clone())
}

/// What the plan leaves of a pool's limits whatever the launches pick; none = there are no limits.
fn left_of_limits(plan: &Plan, pool: &PoolView) -> Option<ResourceList> {
    let mut spent = BTreeMap::new();
    for node in plan.new_nodes.iter().filter(|n| n.pool == pool.name) {
        let listed: BTreeSet<&str> = node.instance_types.iter().map(AsRef::as_ref).collect();
        let types: Vec<&Arc<InstanceType>> = pool
            .instance_types
            .iter()
            .filter(|t| listed.contains(&*t.name))
            .collect();
        spend(&mut spent, pool, &types);
    }
    let mut used = pool.usage.clone();
    used.add(&spent.remove(pool.name.as_ref()).unwrap_or_default());
    let mut left = pool.limits.clone()?;
    left.subtract(&used);
    Some(left)
}

/// Whether limits leave room for one machine of the type.
fn within(left: Option<&ResourceList>, sold: &InstanceType) -> bool {
    let Some(left) = left else { return true };
    let one = Quantity::from_units(1);
    left.iter().all(|(name, amount)| {
        let more = if name == NODES {
            one
        } else {
            sold.capacity.get(name)
        };
        more <= amount && amount >= Quantity::ZERO
    })
}

/// Whether some purchase of the type is a node that takes the pod and every DaemonSet.
fn becomes(
    problem: &Problem,
    plan: &Plan,
    pool: &PoolView,
    sold: &InstanceType,
    pod: &Pod,
) -> bool {
    let limits = problem.volume_limits.get(&sold.name).into_iter().flatten();
    let wants = |driver| {
        let attached = &pod.storage.as_deref()?.attached;
        attached.get(driver).map(BTreeSet::len)
    };
    for (driver, limit) in limits {
        if wants(driver).is_some_and(|n| n > *limit) {
            return false;
        }
    }
    let mut need = pod.requests.clone();
    for daemon in &problem.daemons {
        let ignored = daemon.has_resource_claims && problem.options.ignore_dra;
        if untolerated(&pool.taints, daemon, true).is_some() || ignored {
            continue;
        }
        let mut clash = daemon.host_ports.iter();
        if clash.any(|p| pod.host_ports.iter().any(|q| ports_clash(p, q))) {
            return false;
        }
        need.add(&daemon.requests);
    }
    short_of(&need, &sold.allocatable).is_none()
        && offers(&pool.requirements.map, sold)
            .into_iter()
            .filter(|o| is_left(problem, plan, o))
            .any(|offer| {
                let labels = of_purchase(&pool.labels, &pool.requirements.map, sold, offer);
                // A key that nobody gives a value could take any: such pods are left to the solver.
                labels.values().all(Option::is_some)
                    && admits(&labels, pod, &problem.labels)
                    && in_reach(pod, &labels)
            })
}
