//! Pods called unschedulable that plainly fit: a plan may be frugal, not blind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_api::Quantity;
use karpenter_model::pod::HostPort;
use karpenter_model::resources::names::NODES;
use karpenter_model::{InstanceType, NodeView, Pod, PoolView, Problem, ResourceList};

use crate::Findings;
use crate::case::{Case, offers};
use crate::claims::{spend, tolerant_daemons};
use crate::fits::{ports_clash, short_of, untolerated};
use crate::kinds::Kinds;
use crate::labels::{Bought, admits, allows};
use crate::nodes::daemons_on;
use crate::reservations::is_left;
use crate::volumes::{in_reach, over};

pub(crate) fn check(case: &Case<'_>, findings: &mut Findings) {
    let (problem, plan) = (case.problem, case.plan);
    let homeless: Vec<&Arc<Pod>> = (plan.unschedulable.iter())
        .filter_map(|u| case.pods.get(&u.pod).copied())
        .collect();
    let everybody = || {
        problem
            .nodes
            .iter()
            .flat_map(|n| &n.pods)
            .chain(&problem.pods)
            .chain(&problem.daemons)
    };
    // Whom others avoid, by rules between pods, is judged elsewhere.
    if homeless.is_empty() || everybody().any(|p| avoids_others(p)) {
        return;
    }
    let seats = seats(case);
    let left: Vec<Option<ResourceList>> = (problem.pools.iter())
        .map(|pool| left_of_limits(case, pool))
        .collect();
    let mut kinds = Kinds::default();
    // What pods that fare alike miss.
    let mut judged: BTreeMap<usize, Vec<(&Pod, Vec<String>)>> = BTreeMap::new();
    for pod in homeless.into_iter().filter(|p| is_plain(p)) {
        let alike = judged.entry(kinds.of(pod)).or_default();
        let known = alike.iter().position(|(other, _)| fares_alike(other, pod));
        let known = known.unwrap_or_else(|| {
            alike.push((pod, homes(case, &seats, &left, pod)));
            alike.len() - 1
        });
        for home in alike.get(known).into_iter().flat_map(|(_, homes)| homes) {
            findings.error(
                "missed",
                format!("pod {} is called unschedulable but {home}", pod.key),
            );
        }
    }
}

/// Where a pod has a place for all that, in words.
fn homes(
    case: &Case<'_>,
    seats: &[Seat<'_>],
    left: &[Option<ResourceList>],
    pod: &Arc<Pod>,
) -> Vec<String> {
    let node = seats.iter().find(|s| s.takes(case.problem, pod));
    let node = node.map(|s| format!("fits node {}", s.node.name));
    let mut pools = case.problem.pools.iter().zip(left);
    let sold = pools.find_map(|(pool, left)| {
        let name = sells(case, pool, left.as_ref(), pod)?;
        Some(format!("{name} of pool {} would take it", pool.name))
    });
    node.into_iter().chain(sold).collect()
}

fn avoids_others(pod: &Pod) -> bool {
    let affinity = pod.affinity.as_ref();
    affinity.is_some_and(|a| a.pod_anti_affinity.is_some())
}

/// Pods whose rules reach beyond one node are judged elsewhere.
fn is_plain(pod: &Pod) -> bool {
    let between_pods = pod
        .affinity
        .as_ref()
        .is_some_and(|a| a.pod_affinity.is_some() || a.pod_anti_affinity.is_some());
    !between_pods
        && pod.spread.is_empty()
        && pod.storage.as_deref().is_none_or(|s| s.refusal.is_none())
        && (pod.volumes.is_empty() || pod.storage.is_some())
        && !pod.has_resource_claims
}

/// Whether what one pod of a kind misses, another misses, too.
fn fares_alike(a: &Pod, b: &Pod) -> bool {
    a.requests == b.requests
        && a.host_ports == b.host_ports
        && a.storage.is_none()
        && b.storage.is_none()
}

/// A node with what it is given by the plan, and with what DaemonSets will take: they may still be on their way to it,
/// so that this is not free.
struct Seat<'a> {
    node: &'a NodeView,
    need: ResourceList,
    ports: Vec<HostPort>,
    placed: Vec<&'a Arc<Pod>>,
}

fn seats<'a>(case: &Case<'a>) -> Vec<Seat<'a>> {
    let mut placed: BTreeMap<&str, Vec<&Arc<Pod>>> = BTreeMap::new();
    for existing in &case.plan.existing {
        let pods = case.pods_of(&existing.pods);
        placed.entry(&existing.node).or_default().extend(pods);
    }
    let seat = |node: &'a Arc<NodeView>| {
        let placed = placed.remove(node.name.as_ref()).unwrap_or_default();
        let mut need = ResourceList::new();
        let mut ports = node.host_ports.clone();
        for pod in &placed {
            need.add(&pod.requests);
            ports.extend(pod.host_ports.iter().cloned());
        }
        let mut coming = ResourceList::new();
        for daemon in daemons_on(case.problem, node) {
            coming.add(&daemon.requests);
            ports.extend(daemon.host_ports.iter().cloned());
        }
        for (name, amount) in coming.iter() {
            let there = node.daemon_requests.get(name).nanos();
            let missing = Quantity::from_nanos(amount.nanos().saturating_sub(there).max(0));
            need.add(&ResourceList::from_iter([(name, missing)]));
        }
        Seat {
            node,
            need,
            ports,
            placed,
        }
    };
    case.problem.nodes.iter().map(seat).collect()
}

impl Seat<'_> {
    fn takes(&self, problem: &Problem, pod: &Arc<Pod>) -> bool {
        let node = self.node;
        let mut need = self.need.clone();
        need.add(&pod.requests);
        let clashes = |p| self.ports.iter().any(|q| ports_clash(p, q));
        let with_volumes = || [self.placed.as_slice(), &[pod]].concat();
        short_of(&need, &node.available).is_none()
            && untolerated(&node.taints, pod, false).is_none()
            && admits(&node.labels, pod, &problem.labels)
            && in_reach(pod, &node.labels)
            && over(node, &with_volumes()).is_none()
            && !pod.host_ports.iter().any(clashes)
    }
}

/// The first type that a machine of its own could be bought of for the pod, beside everything that the plan buys.
fn sells(
    case: &Case<'_>,
    pool: &PoolView,
    left: Option<&ResourceList>,
    pod: &Pod,
) -> Option<Arc<str>> {
    if untolerated(&pool.taints, pod, true).is_some() {
        return None;
    }
    let fitting: Vec<&Arc<InstanceType>> = pool
        .instance_types
        .iter()
        .filter(|t| within(left, t) && becomes(case, pool, t, pod))
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
        case.problem.options.best_effort_min_values
            || i64::try_from(values.len()).is_ok_and(|n| n >= least)
    });
    fitting.first().filter(|_| varied).map(|t| t.name.clone())
}

/// What the plan leaves of a pool's limits whatever the launches pick; none = there are no limits.
fn left_of_limits(case: &Case<'_>, pool: &PoolView) -> Option<ResourceList> {
    let mut left = pool.limits.clone()?;
    let mut spent = BTreeMap::new();
    let bought = case.purchases.iter().filter(|p| p.pool.name == pool.name);
    bought.for_each(|p| spend(&mut spent, p));
    let mut used = pool.usage.clone();
    used.add(&spent.remove(pool.name.as_ref()).unwrap_or_default());
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
fn becomes(case: &Case<'_>, pool: &PoolView, sold: &InstanceType, pod: &Pod) -> bool {
    let problem = case.problem;
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
    for daemon in tolerant_daemons(problem, pool) {
        let mut clash = daemon.host_ports.iter();
        if clash.any(|p| pod.host_ports.iter().any(|q| ports_clash(p, q))) {
            return false;
        }
        need.add(&daemon.requests);
    }
    short_of(&need, &sold.allocatable).is_none()
        && offers(&pool.requirements.map, sold)
            .into_iter()
            .filter(|o| is_left(problem, case.plan, o))
            .any(|offering| {
                let node = Bought {
                    labels: &pool.labels,
                    requirements: &pool.requirements.map,
                    instance_type: sold,
                    offering,
                };
                // A key that nobody gives a value could take any: such pods are left to the solver.
                node.is_certain() && admits(&node, pod, &problem.labels) && in_reach(pod, &node)
            })
}
