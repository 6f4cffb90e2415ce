//! When a registered Node counts as usable (`lifecycle-and-disruption.md` §3 "Initialization").

use k8s_openapi::api::core::v1::{Node, Taint};
use karpenter_api::kinds::RawQuantity;
use karpenter_api::{NodeClaim, Quantity, labels};
use karpenter_model::{ResourceList, taints};

use super::objects::is_ready;

/// What a Node still lacks: reason and message of condition Initialized while Unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lacking {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

fn lacking(reason: &'static str, message: impl Into<String>) -> Lacking {
    Lacking {
        reason,
        message: message.into(),
    }
}

/// The first thing that keeps the Node from being usable; none = it is.
pub(crate) fn first_lack(claim: &NodeClaim, node: Option<&Node>) -> Option<Lacking> {
    let Some(node) = node else {
        return Some(lacking(
            "NodeNotFound",
            "no node with the claim's provider id",
        ));
    };
    if !is_ready(node) {
        return Some(lacking("NodeNotReady", "node is not ready"));
    }
    let own = node
        .spec
        .as_ref()
        .and_then(|s| s.taints.as_deref())
        .unwrap_or_default();
    if let Some(taint) = claim
        .spec
        .startup_taints
        .iter()
        .find(|startup| own.iter().any(|t| taints::same(t, startup)))
    {
        let text = format!("startup taint {} is still on the node", words(taint));
        return Some(lacking("StartupTaintsExist", text));
    }
    if let Some(taint) = own.iter().find(|t| taints::is_ephemeral(t)) {
        let text = format!("taint {} is still on the node", words(taint));
        return Some(lacking("KnownEphemeralTaintsExist", text));
    }
    if let Some(resource) = missing_resource(claim, node) {
        let text = format!("resource {resource} was requested and is not allocatable yet");
        return Some(lacking("ResourceNotRegistered", text));
    }
    None
}

fn words(taint: &Taint) -> String {
    match taint.value.as_deref() {
        None | Some("") => format!("{}:{}", taint.key, taint.effect),
        Some(value) => format!("{}={value}:{}", taint.key, taint.effect),
    }
}

fn missing_resource(claim: &NodeClaim, node: &Node) -> Option<String> {
    let requested = &claim.spec.resources.requests;
    let allocatable = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
    requested
        .iter()
        .filter(|(_, amount)| is_some_amount(amount))
        .find(|(name, _)| {
            !allocatable
                .and_then(|all| all.get(*name))
                .is_some_and(is_some_amount)
        })
        .map(|(name, _)| name.clone())
}

/// Whether the amount is more than nothing. A text that is no quantity cannot come from the API server; it counts
/// as nothing.
fn is_some_amount(raw: &RawQuantity) -> bool {
    let one = std::collections::BTreeMap::from([(String::new(), raw.clone())]);
    ResourceList::from_raw(&one).is_ok_and(|list| list.get("") > Quantity::ZERO)
}

/// The Node with the label that says it is usable.
pub(crate) fn initialized(node: &Node) -> Node {
    let mut node = node.clone();
    let all = node.metadata.labels.get_or_insert_default();
    all.insert(labels::INITIALIZED.to_owned(), "true".to_owned());
    node
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn claim() -> NodeClaim {
        serde_json::from_value(json!({
            "metadata": {"name": "c"},
            "spec": {
                "startupTaints": [{"key": "cni", "value": "x", "effect": "NoExecute"}],
                "resources": {"requests": {"cpu": "1", "nvidia.com/gpu": "1", "nothing": "0"}}
            }
        }))
        .expect("a claim")
    }

    fn node(ready: &str, taints: &Value, gpus: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n"},
            "spec": {"taints": taints},
            "status": {
                "conditions": [{"type": "Ready", "status": ready}],
                "allocatable": {"cpu": "3900m", "nvidia.com/gpu": gpus}
            }
        }))
        .expect("a node")
    }

    #[rstest]
    #[case::not_ready("False", json!([]), "1", Some("NodeNotReady"))]
    #[case::unknown_is_not_ready("Unknown", json!([]), "1", Some("NodeNotReady"))]
    #[case::startup_taint("True", json!([{"key": "cni", "effect": "NoExecute"}]), "1", Some("StartupTaintsExist"))]
    #[case::startup_taint_with_another_effect_is_another("True",
        json!([{"key": "cni", "effect": "NoSchedule"}]), "1", None)]
    #[case::ephemeral_taint("True",
        json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]), "1", Some("KnownEphemeralTaintsExist"))]
    #[case::readiness_taint("True",
        json!([{"key": "readiness.k8s.io/storage", "effect": "NoSchedule"}]), "1", Some("KnownEphemeralTaintsExist"))]
    #[case::lasting_taint_is_fine("True", json!([{"key": "team", "effect": "NoSchedule"}]), "1", None)]
    #[case::no_gpu_yet("True", json!([]), "0", Some("ResourceNotRegistered"))]
    #[case::all_there("True", json!([]), "1", None)]
    fn the_first_lack_is_told(
        #[case] ready: &str,
        #[case] taints: Value,
        #[case] gpus: &str,
        #[case] expected: Option<&str>,
    ) {
        let lack = first_lack(&claim(), Some(&node(ready, &taints, gpus)));
        assert_eq!(lack.as_ref().map(|l| l.reason), expected, "{lack:?}");
    }

    #[test]
    fn a_vanished_node_is_told() {
        assert_eq!(
            first_lack(&claim(), None).map(|l| l.reason),
            Some("NodeNotFound")
        );
    }

    #[test]
    fn messages_name_what_is_missing() {
        let lack = first_lack(&claim(), Some(&node("True", &json!([]), "0"))).expect("a lack");
        assert!(lack.message.contains("nvidia.com/gpu"), "{}", lack.message);
        let tainted = node(
            "True",
            &json!([{"key": "cni", "value": "x", "effect": "NoExecute"}]),
            "1",
        );
        let lack = first_lack(&claim(), Some(&tainted)).expect("a lack");
        assert!(lack.message.contains("cni=x:NoExecute"), "{}", lack.message);
    }
}
