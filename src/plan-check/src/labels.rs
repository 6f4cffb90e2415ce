//! Which labels a Node has or could have, and whether they satisfy what a pod asks (Kubernetes' semantics).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};
use karpenter_api::labels as names;
use karpenter_model::{InstanceType, LabelRegistry, Offering, Pod, Requirement};

/// Labels by key; `None` as value = the label is there with some value that nobody can know yet.
pub(crate) type Labels = BTreeMap<String, Option<String>>;

/// Whether a requirement allows `value`.
pub(crate) fn allows(requirement: &Requirement, value: &str) -> bool {
    let listed = requirement.values.iter().any(|v| v.as_ref() == value);
    if listed == requirement.complement {
        return false;
    }
    if requirement.gte.is_none() && requirement.lte.is_none() {
        return true;
    }
    value.parse::<i64>().is_ok_and(|n| {
        requirement.gte.is_none_or(|g| n >= g) && requirement.lte.is_none_or(|l| n <= l)
    })
}

/// Whether a requirement says that the label must be absent.
pub(crate) fn forbids(requirement: &Requirement) -> bool {
    !requirement.complement && requirement.values.is_empty()
}

/// The only value a requirement allows, if there is only one.
pub(crate) fn only_value(requirement: &Requirement) -> Option<&str> {
    if requirement.complement || requirement.values.len() != 1 {
        return None;
    }
    requirement.values.first().map(AsRef::as_ref)
}

/// The labels of the Node that comes of buying `offering` of `instance_type` for a claim with `requirements`
/// and template `labels`.
pub(crate) fn of_purchase(
    labels: &BTreeMap<String, String>,
    requirements: &BTreeMap<std::sync::Arc<str>, Requirement>,
    instance_type: &InstanceType,
    offering: &Offering,
) -> Labels {
    let mut out: Labels = labels
        .iter()
        .map(|(k, v)| (k.clone(), Some(v.clone())))
        .collect();
    for set in [
        &offering.requirements.map,
        &instance_type.requirements.map,
        requirements,
    ] {
        for (key, requirement) in set {
            // What the offering says the machine lacks, it lacks, whatever others of the type have.
            let lacks = offering.requirements.map.get(key).is_some_and(forbids);
            if out.contains_key(key.as_ref()) || forbids(requirement) || lacks {
                continue;
            }
            match only_value(requirement) {
                Some(value) => {
                    out.insert(key.to_string(), Some(value.to_owned()));
                }
                // A key that only the claim names gets a value of the claim's choice.
                None if std::ptr::eq(set, requirements)
                    && !instance_type.requirements.map.contains_key(key) =>
                {
                    out.insert(key.to_string(), None);
                }
                None => {}
            }
        }
    }
    out.entry(names::REGISTERED.to_owned())
        .or_insert_with(|| Some("true".to_owned()));
    out.entry(names::INITIALIZED.to_owned())
        .or_insert_with(|| Some("true".to_owned()));
    out
}

/// The labels of a Node that is there.
pub(crate) fn of_node(labels: &BTreeMap<String, String>) -> Labels {
    labels
        .iter()
        .map(|(k, v)| (k.clone(), Some(v.clone())))
        .collect()
}

/// Whether a Node with `labels` satisfies node selector and required node affinity of `pod`.
pub(crate) fn admits(labels: &Labels, pod: &Pod, registry: &LabelRegistry) -> bool {
    let selected = pod.node_selector.iter().all(|(key, want)| {
        labels
            .get(registry.normalize(key))
            .is_some_and(|have| have.as_ref().is_none_or(|h| h == want))
    });
    selected
        && affinity_terms(pod)
            .is_none_or(|terms| terms.iter().any(|term| term_holds(labels, term, registry)))
}

/// Whether a pod asks about a label whose value nobody can know yet.
pub(crate) fn is_unsure(labels: &Labels, pod: &Pod, registry: &LabelRegistry) -> bool {
    let terms = affinity_terms(pod).into_iter().flatten();
    let expressions = terms.flat_map(|t| t.match_expressions.iter().flatten());
    let mut keys = pod.node_selector.keys().chain(expressions.map(|e| &e.key));
    keys.any(|key| labels.get(registry.normalize(key)) == Some(&None))
}

/// Required node affinity terms (ORed), if there are any.
fn affinity_terms(pod: &Pod) -> Option<&Vec<NodeSelectorTerm>> {
    let node = pod.affinity.as_ref()?.node_affinity.as_ref()?;
    node.required_during_scheduling_ignored_during_execution
        .as_ref()
        .map(|s| &s.node_selector_terms)
}

fn term_holds(labels: &Labels, term: &NodeSelectorTerm, registry: &LabelRegistry) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    // Kubernetes: a term without expressions and fields matches nothing.
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    // matchFields name one Node by its name; only DaemonSet pods use them and those are never planned.
    fields.is_empty()
        && expressions
            .iter()
            .all(|e| expression_holds(labels, e, registry))
}

fn expression_holds(
    labels: &Labels,
    e: &NodeSelectorRequirement,
    registry: &LabelRegistry,
) -> bool {
    let have = labels.get(registry.normalize(&e.key));
    let values = e.values.as_deref().unwrap_or_default();
    let listed = |v: &String| values.contains(v);
    let bound = || values.first().and_then(|v| v.parse::<i64>().ok());
    let number = || {
        have.and_then(Option::as_ref)
            .and_then(|v| v.parse::<i64>().ok())
    };
    match e.operator.as_str() {
        "In" => have.is_some_and(|h| h.as_ref().is_none_or(listed)),
        "NotIn" => have.is_none_or(|h| h.as_ref().is_none_or(|v| !listed(v))),
        "Exists" => have.is_some(),
        "DoesNotExist" => have.is_none(),
        "Gt" => number().zip(bound()).is_some_and(|(n, b)| n > b),
        "Lt" => number().zip(bound()).is_some_and(|(n, b)| n < b),
        _ => false,
    }
}
