//! Whom rules mean.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodAffinityTerm, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use karpenter_model::{Pod, Problem};

/// Terms of required pod anti-affinity.
pub(crate) fn apart(pod: &Pod) -> &[PodAffinityTerm] {
    let affinity = pod.affinity.as_deref();
    let all = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
    all.and_then(|a| {
        a.required_during_scheduling_ignored_during_execution
            .as_deref()
    })
    .unwrap_or_default()
}

/// Terms of required pod affinity.
pub(crate) fn together(pod: &Pod) -> &[PodAffinityTerm] {
    let affinity = pod.affinity.as_deref();
    let all = affinity.and_then(|a| a.pod_affinity.as_ref());
    all.and_then(|a| {
        a.required_during_scheduling_ignored_during_execution
            .as_deref()
    })
    .unwrap_or_default()
}

/// Spreads that must hold.
pub(crate) fn spread(pod: &Pod) -> impl Iterator<Item = &TopologySpreadConstraint> {
    let all = pod.spread.iter();
    all.filter(|c| c.when_unsatisfiable == "DoNotSchedule")
}

/// Whether required anti-affinity of `one` means the other pod, by one of the keys that count.
pub(crate) fn excludes(
    problem: &Problem,
    one: &Pod,
    other: &Pod,
    counts: impl Fn(&str) -> bool,
) -> bool {
    let mut terms = apart(one).iter();
    terms.any(|t| counts(&t.topology_key) && by_term(problem, t, one, other))
}

/// Whether a term of `owner` means the other pod.
pub(crate) fn by_term(problem: &Problem, term: &PodAffinityTerm, owner: &Pod, other: &Pod) -> bool {
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

/// Whether a constraint of `owner` counts the other pod.
pub(crate) fn by_constraint(
    constraint: &TopologySpreadConstraint,
    owner: &Pod,
    other: &Pod,
) -> bool {
    let alike =
        |k: &String| !owner.labels.contains_key(k) || owner.labels.get(k) == other.labels.get(k);
    let selector = constraint.label_selector.as_ref();
    other.key.namespace == owner.key.namespace
        && selector.is_some_and(|s| matches(s, &other.labels))
        && constraint.match_label_keys.iter().flatten().all(alike)
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
