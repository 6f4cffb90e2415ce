//! Which labels a Node has or could have, and whether they satisfy what a pod asks (Kubernetes' semantics).

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};
use karpenter_api::labels as names;
use karpenter_model::{InstanceType, LabelRegistry, Offering, Pod, Requirement};

/// What has labels, or will have.
pub(crate) trait Labelled {
    /// The value of a label; `Some(None)` = it is there with some value that nobody can know yet.
    fn label(&self, key: &str) -> Option<Option<&str>>;
}

/// The labels of a Node that is there.
impl Labelled for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<Option<&str>> {
        self.get(key).map(|value| Some(value.as_str()))
    }
}

/// The Node that comes of buying an offering of an instance type for a claim.
pub(crate) struct Bought<'a> {
    /// Labels of the pool's template.
    pub(crate) labels: &'a BTreeMap<String, String>,
    /// What the claim requires.
    pub(crate) requirements: &'a BTreeMap<Arc<str>, Requirement>,
    pub(crate) instance_type: &'a InstanceType,
    pub(crate) offering: &'a Offering,
}

impl Labelled for Bought<'_> {
    fn label(&self, key: &str) -> Option<Option<&str>> {
        if let Some(value) = self.labels.get(key) {
            return Some(Some(value));
        }
        let (offering, sold) = (
            self.offering.requirements.map.get(key),
            self.instance_type.requirements.map.get(key),
        );
        // What the offering says the machine lacks, it lacks, whatever others of the type have.
        if !offering.is_some_and(forbids) {
            let claim = self.requirements.get(key).filter(|r| !forbids(r));
            let said = [offering, sold.filter(|r| !forbids(r)), claim];
            if let Some(value) = said.into_iter().flatten().find_map(only_value) {
                return Some(Some(value));
            }
            // A key that only the claim names gets a value of the claim's choice.
            if claim.is_some() && sold.is_none() {
                return Some(None);
            }
        }
        [names::REGISTERED, names::INITIALIZED]
            .contains(&key)
            .then_some(Some("true"))
    }
}

impl Bought<'_> {
    /// Whether every label that there will be has a value that is known.
    pub(crate) fn is_certain(&self) -> bool {
        let mut keys = self.requirements.keys();
        keys.all(|key| self.label(key) != Some(None))
    }
}

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

/// Whether a Node with `labels` satisfies node selector and required node affinity of `pod`.
pub(crate) fn admits(labels: &impl Labelled, pod: &Pod, registry: &LabelRegistry) -> bool {
    let selected = pod.node_selector.iter().all(|(key, want)| {
        labels
            .label(registry.normalize(key))
            .is_some_and(|have| have.is_none_or(|h| h == want))
    });
    selected
        && affinity_terms(pod)
            .is_none_or(|terms| terms.iter().any(|term| term_holds(labels, term, registry)))
}

/// Whether a pod asks about a label whose value nobody can know yet.
pub(crate) fn is_unsure(labels: &impl Labelled, pod: &Pod, registry: &LabelRegistry) -> bool {
    keys_asked(pod, registry).any(|key| labels.label(key) == Some(None))
}

/// Labels of nodes that a pod asks about, as nodes have them.
pub(crate) fn keys_asked<'a>(
    pod: &'a Pod,
    registry: &'a LabelRegistry,
) -> impl Iterator<Item = &'a str> {
    let terms = affinity_terms(pod).into_iter().flatten();
    let expressions = terms.flat_map(|t| t.match_expressions.iter().flatten());
    let keys = pod.node_selector.keys().chain(expressions.map(|e| &e.key));
    keys.map(|key| registry.normalize(key))
}

/// Required node affinity terms (ORed), if there are any.
fn affinity_terms(pod: &Pod) -> Option<&Vec<NodeSelectorTerm>> {
    let node = pod.affinity.as_ref()?.node_affinity.as_ref()?;
    node.required_during_scheduling_ignored_during_execution
        .as_ref()
        .map(|s| &s.node_selector_terms)
}

fn term_holds(labels: &impl Labelled, term: &NodeSelectorTerm, registry: &LabelRegistry) -> bool {
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
    labels: &impl Labelled,
    e: &NodeSelectorRequirement,
    registry: &LabelRegistry,
) -> bool {
    let have = labels.label(registry.normalize(&e.key));
    let values = e.values.as_deref().unwrap_or_default();
    let listed = |v: &str| values.iter().any(|value| value == v);
    let bound = || values.first().and_then(|v| v.parse::<i64>().ok());
    let number = || have.flatten()?.parse::<i64>().ok();
    match e.operator.as_str() {
        "In" => have.is_some_and(|h| h.is_none_or(listed)),
        "NotIn" => have.is_none_or(|h| h.is_none_or(|v| !listed(v))),
        "Exists" => have.is_some(),
        "DoesNotExist" => have.is_none(),
        "Gt" => number().zip(bound()).is_some_and(|(n, b)| n > b),
        "Lt" => number().zip(bound()).is_some_and(|(n, b)| n < b),
        _ => false,
    }
}
