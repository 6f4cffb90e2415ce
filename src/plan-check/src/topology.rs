//! Rules between pods, judged on the cluster as it will be: required anti-affinity, required affinity and
//! DoNotSchedule spread, by hostname and by zone-like keys.
//!
//! A machine that is still to be bought may end up in any domain its claim allows. What must never hold is judged
//! against all of them, what must hold against each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PodAffinityTerm, Taint, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use karpenter_api::labels as names;
use karpenter_model::{InstanceType, Plan, Pod, PodKey, PoolView, Problem};

use crate::Findings;
use crate::claims::offers;
use crate::fits::untolerated;
use crate::labels::{Labels, admits, allows, of_purchase};

/// A node as it will be: the domains it may be in by key, and the pods on it.
struct Place<'a> {
    /// Whether it is there, or still to be bought.
    exists: bool,
    name: String,
    labels: BTreeMap<String, BTreeSet<String>>,
    taints: &'a [Taint],
    pods: Vec<&'a Arc<Pod>>,
    planned: BTreeSet<&'a PodKey>,
}

impl Place<'_> {
    /// The domains of `key` this node may be in.
    fn domains(&self, key: &str) -> BTreeSet<String> {
        if key == names::HOSTNAME {
            return BTreeSet::from([self.name.clone()]);
        }
        self.labels.get(key).cloned().unwrap_or_default()
    }

    /// Whether a spread constraint of the pod counts this node: by default nodes that it may not select do not count,
    /// those whose taints it does not tolerate do.
    fn counts(&self, problem: &Problem, pod: &Pod, constraint: &TopologySpreadConstraint) -> bool {
        let any = |values: &BTreeSet<String>| match values.first() {
            Some(only) if values.len() == 1 => Some(only.clone()),
            _ => None,
        };
        let labels: Labels = self
            .labels
            .iter()
            .map(|(k, v)| (k.clone(), any(v)))
            .collect();
        let by_affinity = constraint.node_affinity_policy.as_deref() == Some("Ignore")
            || admits(&labels, pod, &problem.labels);
        let by_taints = constraint.node_taints_policy.as_deref() != Some("Honor")
            || untolerated(self.taints, pod, true).is_none();
        by_affinity && by_taints
    }
}

pub(crate) fn check(problem: &Problem, plan: &Plan, findings: &mut Findings) {
    let concerned = |p: &Arc<Pod>| {
        !p.spread.is_empty()
            || p.affinity
                .as_ref()
                .is_some_and(|a| a.pod_affinity.is_some() || a.pod_anti_affinity.is_some())
    };
    let anybody = problem.pods.iter().any(concerned)
        || problem.nodes.iter().flat_map(|n| &n.pods).any(concerned);
    if !anybody {
        return;
    }
    let places = places(problem, plan);
    for (at, place) in places.iter().enumerate() {
        for pod in &place.pods {
            anti_affinity(problem, pod, at, &places, findings);
            if place.planned.contains(&pod.key) {
                affinity(problem, pod, at, &places, findings);
                for constraint in pod
                    .spread
                    .iter()
                    .filter(|c| c.when_unsatisfiable == "DoNotSchedule")
                {
                    spread(problem, pod, constraint, at, &places, findings);
                }
            }
        }
    }
}

fn places<'a>(problem: &'a Problem, plan: &'a Plan) -> Vec<Place<'a>> {
    let pods: BTreeMap<&PodKey, &Arc<Pod>> = problem.pods.iter().map(|p| (&p.key, p)).collect();
    let pools: BTreeMap<&str, &Arc<PoolView>> =
        problem.pools.iter().map(|p| (p.name.as_ref(), p)).collect();
    let mut places = Vec::new();
    for node in &problem.nodes {
        let planned: BTreeSet<&PodKey> = plan
            .existing
            .iter()
            .filter(|e| e.node == node.name)
            .flat_map(|e| &e.pods)
            .collect();
        let moving = |p: &&Arc<Pod>| !pods.contains_key(&p.key);
        places.push(Place {
            exists: true,
            name: node
                .labels
                .get(names::HOSTNAME)
                .cloned()
                .unwrap_or_else(|| node.name.to_string()),
            labels: node
                .labels
                .iter()
                .map(|(k, v)| (k.clone(), BTreeSet::from([v.clone()])))
                .collect(),
            taints: &node.taints,
            pods: node
                .pods
                .iter()
                .filter(moving)
                .chain(planned.iter().filter_map(|k| pods.get(k).copied()))
                .collect(),
            planned,
        });
    }
    for (index, node) in plan.new_nodes.iter().enumerate() {
        let Some(pool) = pools.get(node.pool.as_ref()) else {
            continue;
        };
        let by_name: BTreeMap<&str, &Arc<InstanceType>> = pool
            .instance_types
            .iter()
            // Of several of a name it is the first.
            .rev()
            .map(|t| (t.name.as_ref(), t))
            .collect();
        let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for instance_type in node
            .instance_types
            .iter()
            .filter_map(|n| by_name.get(n.as_ref()))
        {
            for offer in offers(&node.requirements.map, instance_type) {
                for (key, value) in
                    of_purchase(&pool.labels, &node.requirements.map, instance_type, offer)
                {
                    if let Some(value) = value {
                        labels.entry(key).or_default().insert(value);
                    }
                }
            }
        }
        places.push(Place {
            exists: false,
            name: format!("new node {index} of pool {}", node.pool),
            labels,
            taints: &pool.taints,
            pods: node
                .pods
                .iter()
                .filter_map(|k| pods.get(k).copied())
                .collect(),
            planned: node.pods.iter().collect(),
        });
    }
    places
}

fn anti_affinity(
    problem: &Problem,
    pod: &Arc<Pod>,
    at: usize,
    places: &[Place<'_>],
    findings: &mut Findings,
) {
    let Some(here) = places.get(at) else { return };
    let terms = pod
        .affinity
        .as_ref()
        .and_then(|a| a.pod_anti_affinity.as_ref())
        .and_then(|a| {
            a.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
    for term in terms.into_iter().flatten() {
        let mine = here.domains(&term.topology_key);
        for place in places {
            if place.domains(&term.topology_key).is_disjoint(&mine) {
                continue;
            }
            for other in &place.pods {
                // Two pods that were both there before are not this plan's doing.
                let ours = here.planned.contains(&pod.key) || place.planned.contains(&other.key);
                if ours && other.key != pod.key && selects(problem, term, pod, other) {
                    findings.error(
                        "anti-affinity",
                        format!(
                            "pods {} and {} may share {} although the first excludes it",
                            pod.key, other.key, term.topology_key
                        ),
                    );
                }
            }
        }
    }
}

fn affinity(
    problem: &Problem,
    pod: &Arc<Pod>,
    at: usize,
    places: &[Place<'_>],
    findings: &mut Findings,
) {
    let Some(here) = places.get(at) else { return };
    let terms = pod
        .affinity
        .as_ref()
        .and_then(|a| a.pod_affinity.as_ref())
        .and_then(|a| {
            a.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
    for term in terms.into_iter().flatten() {
        let mine = here.domains(&term.topology_key);
        let with_me = |place: &Place<'_>| {
            let theirs = place.domains(&term.topology_key);
            std::ptr::eq(place, here) || (mine.len() == 1 && theirs == mine)
        };
        let partner = places
            .iter()
            .filter(|p| with_me(p))
            .flat_map(|p| &p.pods)
            .any(|o| o.key != pod.key && selects(problem, term, pod, o));
        // The first of a group that selects itself may go anywhere, if nobody of the group runs elsewhere. Pods of this
        // plan that are meant but do not share the rule are free to come after it.
        let shares = |place: &Place<'_>, other: &Pod| {
            !place.planned.contains(&other.key) || has_affinity(other, term)
        };
        let elsewhere = places
            .iter()
            .flat_map(|p| p.pods.iter().map(move |o| (p, o)))
            .any(|(p, o)| o.key != pod.key && selects(problem, term, pod, o) && shares(p, o));
        let first = selects(problem, term, pod, pod) && !elsewhere;
        if mine.is_empty() || !(partner || first) {
            findings.error(
                "affinity",
                format!(
                    "pod {} is not put with the pods it wants to share {} with",
                    pod.key, term.topology_key
                ),
            );
        }
    }
}

/// Whether a pod has a required affinity term equal to this one.
fn has_affinity(pod: &Pod, term: &PodAffinityTerm) -> bool {
    pod.affinity
        .as_ref()
        .and_then(|a| a.pod_affinity.as_ref())
        .and_then(|a| {
            a.required_during_scheduling_ignored_during_execution
                .as_ref()
        })
        .is_some_and(|terms| terms.contains(term))
}

fn selects(problem: &Problem, term: &PodAffinityTerm, owner: &Pod, other: &Pod) -> bool {
    let listed = term.namespaces.as_deref().unwrap_or_default();
    let is_listed = listed
        .iter()
        .any(|n| n.as_str() == other.key.namespace.as_ref());
    let namespace = match &term.namespace_selector {
        None if listed.is_empty() => owner.key.namespace == other.key.namespace,
        None => is_listed,
        // Nobody knows labels of namespaces: whom the selector means cannot be judged.
        Some(selector) if problem.namespaces.is_empty() && !is_empty(selector) => is_listed,
        Some(selector) => {
            let labels = problem.namespaces.get(&other.key.namespace);
            is_listed || is_empty(selector) || labels.is_some_and(|l| matches(selector, l))
        }
    };
    let mine = |key: &String| owner.labels.get(key);
    let theirs = |key: &String| other.labels.get(key);
    let alike = |k: &String| mine(k).is_none() || theirs(k) == mine(k);
    let unlike = |k: &String| mine(k).is_none() || theirs(k) != mine(k);
    namespace
        && term.match_label_keys.iter().flatten().all(alike)
        && term.mismatch_label_keys.iter().flatten().all(unlike)
        && term
            .label_selector
            .as_ref()
            .is_some_and(|s| matches(s, &other.labels))
}

fn is_empty(selector: &LabelSelector) -> bool {
    selector
        .match_labels
        .as_ref()
        .is_none_or(BTreeMap::is_empty)
        && selector
            .match_expressions
            .as_ref()
            .is_none_or(Vec::is_empty)
}

fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let wanted = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(k, v)| labels.get(k) == Some(v));
    wanted
        && selector.match_expressions.iter().flatten().all(|e| {
            let have = labels.get(&e.key);
            let listed = have.is_some_and(|h| e.values.as_deref().unwrap_or_default().contains(h));
            match e.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => have.is_some(),
                "DoesNotExist" => have.is_none(),
                _ => false,
            }
        })
}

fn spread(
    problem: &Problem,
    pod: &Arc<Pod>,
    constraint: &TopologySpreadConstraint,
    at: usize,
    places: &[Place<'_>],
    findings: &mut Findings,
) {
    let (Some(here), Some(base)) = (places.get(at), constraint.label_selector.as_ref()) else {
        return;
    };
    let key = constraint.topology_key.as_str();
    let counted =
        |other: &Pod| {
            other.key.namespace == pod.key.namespace
                && matches(base, &other.labels)
                && constraint.match_label_keys.iter().flatten().all(|k| {
                    !pod.labels.contains_key(k) || pod.labels.get(k) == other.labels.get(k)
                })
        };
    if !counted(pod) {
        return; // It does not count itself, so the order of placement decides and the end state says nothing.
    }
    let mine = here.domains(key);
    let Some(domain) = mine.first().filter(|_| mine.len() == 1) else {
        findings.error(
            "spread",
            format!(
                "pod {} is spread by {key} but may land in any of {mine:?}",
                pod.key
            ),
        );
        return;
    };
    let counting: Vec<&Place<'_>> = places
        .iter()
        .filter(|p| p.counts(problem, pod, constraint))
        .collect();
    let count = |domain: &str| -> i64 {
        let inside = counting.iter().filter(|p| p.domains(key).contains(domain));
        i64::try_from(inside.flat_map(|p| &p.pods).filter(|o| counted(o)).count())
            .unwrap_or(i64::MAX)
    };
    let eligible = eligible_domains(problem, pod, constraint, &counting);
    let few = constraint
        .min_domains
        .is_some_and(|m| i64::try_from(eligible.len()).is_ok_and(|n| n < i64::from(m)));
    // A new host is always an option, with nobody on it.
    let least = if few || key == names::HOSTNAME {
        0
    } else {
        eligible.iter().map(|d| count(d)).min().unwrap_or(0)
    };
    // Pods of this plan that do not share the rule are free to come after those that do.
    let shares = |place: &Place<'_>, other: &Pod| {
        !place.planned.contains(&other.key) || other.spread.contains(constraint)
    };
    let inside = counting.iter().filter(|p| p.domains(key).contains(domain));
    let here = inside
        .flat_map(|p| p.pods.iter().map(move |o| (p, o)))
        .filter(|(p, o)| counted(o) && shares(p, o))
        .count();
    let skew = i64::try_from(here).unwrap_or(i64::MAX) - least;
    if skew > i64::from(constraint.max_skew) {
        findings.error(
            "spread",
            format!(
                "pod {} makes a skew of {skew} over {key}, at most {} is allowed",
                pod.key, constraint.max_skew
            ),
        );
    }
}

/// Domains among which the pod is spread: of the nodes that count, and of offerings that it could use.
fn eligible_domains(
    problem: &Problem,
    pod: &Pod,
    constraint: &TopologySpreadConstraint,
    counting: &[&Place<'_>],
) -> BTreeSet<String> {
    let key = constraint.topology_key.as_str();
    // A machine to be bought is in a domain that can be bought: those are looked at below.
    let there = counting.iter().filter(|p| p.exists);
    let mut out: BTreeSet<String> = there.flat_map(|p| p.domains(key)).collect();
    for pool in &problem.pools {
        if untolerated(&pool.taints, pod, true).is_some() {
            continue;
        }
        for instance_type in &pool.instance_types {
            for offer in offers(&pool.requirements.map, instance_type) {
                let labels =
                    of_purchase(&pool.labels, &pool.requirements.map, instance_type, offer);
                let allowed = pool.requirements.map.get(key);
                let admitted = admits(&labels, pod, &problem.labels);
                if let Some(Some(value)) = labels.get(key).filter(|_| admitted)
                    && allowed.is_none_or(|r| allows(r, value))
                {
                    out.insert(value.clone());
                }
            }
        }
    }
    out
}
