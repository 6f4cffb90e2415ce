//! Small readers of Kubernetes objects that every loop here uses: labels, conditions, joins, references.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, ObjectReference};
pub(crate) use karpenter_api::kinds::Time;
use karpenter_api::kinds::{Condition, ObjectMeta};
use karpenter_api::{NodeClaim, labels};
use karpenter_cloud::NodeClassKind;
use karpenter_model::Pod;
use kube::Resource as _;

/// Condition types of a NodeClaim (`api.md` §4.1).
pub(crate) mod conditions {
    pub(crate) const LAUNCHED: &str = "Launched";
    pub(crate) const REGISTERED: &str = "Registered";
    pub(crate) const INITIALIZED: &str = "Initialized";
    pub(crate) const CONSOLIDATABLE: &str = "Consolidatable";
    pub(crate) const DRIFTED: &str = "Drifted";
    pub(crate) const DISRUPTION_REASON: &str = "DisruptionReason";
    pub(crate) const DRAINED: &str = "Drained";
    pub(crate) const VOLUMES_DETACHED: &str = "VolumesDetached";
    pub(crate) const INSTANCE_TERMINATING: &str = "InstanceTerminating";
    pub(crate) const CONSISTENT_STATE_FOUND: &str = "ConsistentStateFound";
    /// Of a NodePool.
    pub(crate) const NODE_REGISTRATION_HEALTHY: &str = "NodeRegistrationHealthy";
}

/// The object's name, empty if it has none yet.
pub(crate) fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// A label's value.
pub(crate) fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

/// A label's value, empty if it is missing: what metrics want.
pub(crate) fn label_or_empty<'a>(meta: &'a ObjectMeta, key: &str) -> &'a str {
    label(meta, key).unwrap_or_default()
}

/// An annotation's value.
pub(crate) fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Whether the label is there with value `true`.
pub(crate) fn has_true_label(meta: &ObjectMeta, key: &str) -> bool {
    label(meta, key) == Some("true")
}

/// Whether our finalizer is on the object.
pub(crate) fn has_finalizer(meta: &ObjectMeta) -> bool {
    meta.finalizers
        .iter()
        .flatten()
        .any(|f| f == labels::TERMINATION_FINALIZER)
}

/// Whether the object is on its way out.
pub(crate) fn is_deleting(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

/// A condition by type.
pub(crate) fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == kind)
}

/// Whether the condition is there with status `True`.
pub(crate) fn is_true(conditions: &[Condition], kind: &str) -> bool {
    condition(conditions, kind).is_some_and(|c| c.status == "True")
}

/// When the condition last changed its status.
pub(crate) fn transition(conditions: &[Condition], kind: &str) -> Option<Timestamp> {
    condition(conditions, kind).map(|c| c.last_transition_time.0)
}

/// Whether the claim asks for the provider's kind of NodeClass; all others are somebody else's.
pub(crate) fn is_managed_claim(claim: &NodeClaim, kind: &NodeClassKind) -> bool {
    let class = &claim.spec.node_class_ref;
    class.group == kind.group && class.kind == kind.kind
}

/// Whether the Node carries the label of the provider's kind of NodeClass.
pub(crate) fn is_managed_node(node: &Node, kind: &NodeClassKind) -> bool {
    label(&node.metadata, &kind.label()).is_some()
}

/// The Node's providerID, empty until it has one.
pub(crate) fn provider_id(node: &Node) -> &str {
    node.spec
        .as_ref()
        .and_then(|s| s.provider_id.as_deref())
        .unwrap_or_default()
}

/// Whether the Node's condition Ready is True.
pub(crate) fn is_ready(node: &Node) -> bool {
    node.status
        .as_ref()
        .and_then(|s| s.conditions.as_ref())
        .into_iter()
        .flatten()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Reference to a pod that is held as the facts about it.
pub(crate) fn pod_reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.key.namespace.to_string()),
        name: Some(pod.key.name.to_string()),
        uid: Some(pod.uid.to_string()),
        ..ObjectReference::default()
    }
}

/// Reference to a claim.
pub(crate) fn claim_reference(claim: &NodeClaim) -> ObjectReference {
    claim.object_ref(&())
}

/// Reference to a Node. Kubelets name Nodes by their name in the UID field; `kubectl describe node` looks for that,
/// but for Karpenter's own events it is the real UID, as upstream has it.
pub(crate) fn node_reference(node: &Node) -> ObjectReference {
    node.object_ref(&())
}

/// Longest error text in conditions and events; what is cut off is replaced by dots.
const MAX_MESSAGE_CHARS: usize = 300;

/// `text`, cut to a length that conditions and events can carry.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_MESSAGE_CHARS) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or(text)),
        None => text.to_owned(),
    }
}

/// `base + wait`, as late as time goes if it would overflow.
pub(crate) fn later(base: Timestamp, wait: std::time::Duration) -> Timestamp {
    jiff::SignedDuration::try_from(wait)
        .ok()
        .and_then(|w| base.checked_add(w).ok())
        .unwrap_or(Timestamp::MAX)
}

/// How long until `when`; zero if it has come.
pub(crate) fn until(when: Timestamp, now: Timestamp) -> std::time::Duration {
    std::time::Duration::try_from(when.duration_since(now)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_at_characters() {
        assert_eq!(shortened("short"), "short");
        let exact = "é".repeat(300);
        assert_eq!(shortened(&exact), exact);
        assert_eq!(shortened(&"é".repeat(301)), format!("{exact}..."));
    }

    #[test]
    fn waits_never_go_negative_or_overflow() {
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(
            until(now, later(now, std::time::Duration::from_secs(1))).as_secs(),
            0
        );
        assert_eq!(
            later(Timestamp::MAX, std::time::Duration::from_secs(1)),
            Timestamp::MAX
        );
    }
}
