//! Joining a Node to its claim (`lifecycle-and-disruption.md` §3 "Registration"): what the Node has to look like.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};
use karpenter_api::kinds::OwnerReference;
use karpenter_api::{NodeClaim, labels};

use super::objects::{has_finalizer, has_true_label, name};

/// What the Nodes with a claim's providerID say about its registration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// It has not joined yet.
    NodeNotFound,
    /// More than one claims to be the machine.
    MultipleNodesFound,
    /// It is here.
    Join {
        /// The Node as it is.
        node: Arc<Node>,
        /// It came without the taint that keeps pods off until registration: they may have landed too early.
        taint_was_missing: bool,
    },
}

/// Decides on the registration of a launched claim.
pub(crate) fn outcome(nodes: &[Arc<Node>]) -> Outcome {
    match nodes {
        [] => Outcome::NodeNotFound,
        [node] => Outcome::Join {
            node: node.clone(),
            taint_was_missing: !has_true_label(&node.metadata, labels::REGISTERED)
                && !has_unregistered_taint(node),
        },
        _ => Outcome::MultipleNodesFound,
    }
}

fn has_unregistered_taint(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_ref());
    taints.into_iter().flatten().any(is_unregistered)
}

fn is_unregistered(taint: &Taint) -> bool {
    taint.key == labels::UNREGISTERED_TAINT && taint.effect == "NoExecute"
}

/// The Node with everything its claim gives it, open for pods.
pub(crate) fn joined(claim: &NodeClaim, node: &Node, taken_off: &Taken) -> Node {
    let mut node = synced(claim, node, taken_off);
    let labels_of_node = node.metadata.labels.get_or_insert_default();
    labels_of_node.insert(labels::REGISTERED.to_owned(), "true".to_owned());
    let spec = node.spec.get_or_insert_default();
    let mut taints = spec.taints.take().unwrap_or_default();
    taints.retain(|t| !is_unregistered(t));
    spec.taints = (!taints.is_empty()).then_some(taints);
    node
}

/// Taints, as key and effect, that somebody took off a Node since it joined.
pub(crate) type Taken = BTreeSet<(String, String)>;

/// The Node with everything its claim gives it, still closed for pods. Startup taints that somebody has taken off already
/// are not put back: whoever did will not do it again.
pub(crate) fn synced(claim: &NodeClaim, node: &Node, taken_off: &Taken) -> Node {
    let mut node = node.clone();
    if !has_finalizer(&node.metadata) {
        let finalizers = node.metadata.finalizers.get_or_insert_default();
        finalizers.push(labels::TERMINATION_FINALIZER.to_owned());
    }
    own(claim, &mut node);
    let meta = &mut node.metadata;
    if let Some(annotations) = &claim.metadata.annotations {
        meta.annotations
            .get_or_insert_default()
            .extend(annotations.clone());
    }
    let node_labels = meta.labels.get_or_insert_default();
    node_labels.extend(claim.metadata.labels.clone().unwrap_or_default());
    // The claim's labels may hold the opt-out, so it is looked up after they were copied.
    let sync_taints = node_labels
        .get(labels::DO_NOT_SYNC_TAINTS)
        .is_none_or(|v| v != "true");

    let spec = node.spec.get_or_insert_default();
    let mut taints = spec.taints.take().unwrap_or_default();
    if sync_taints {
        let startup = claim.spec.startup_taints.iter();
        let startup = startup.filter(|t| !taken_off.contains(&(t.key.clone(), t.effect.clone())));
        for taint in claim.spec.taints.iter().chain(startup) {
            if !taints
                .iter()
                .any(|t| t.key == taint.key && t.effect == taint.effect)
            {
                taints.push(taint.clone());
            }
        }
    }
    spec.taints = (!taints.is_empty()).then_some(taints);
    node
}

fn own(claim: &NodeClaim, node: &mut Node) {
    let uid = claim.metadata.uid.clone().unwrap_or_default();
    let owners = node.metadata.owner_references.get_or_insert_default();
    if owners.iter().any(|o| o.uid == uid) {
        return;
    }
    owners.push(OwnerReference {
        api_version: "karpenter.sh/v1".to_owned(),
        kind: "NodeClaim".to_owned(),
        name: name(&claim.metadata).to_owned(),
        uid,
        controller: None,
        block_owner_deletion: Some(true),
    });
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn claim() -> NodeClaim {
        serde_json::from_value(json!({
            "metadata": {
                "name": "pool-a1", "uid": "u-1",
                "labels": {"karpenter.sh/nodepool": "pool", "zone": "claim"},
                "annotations": {"note": "claim"}
            },
            "spec": {
                "taints": [{"key": "team", "value": "a", "effect": "NoSchedule"}],
                "startupTaints": [{"key": "cni", "effect": "NoExecute"}]
            }
        }))
        .expect("a claim")
    }

    fn node(value: Value) -> Arc<Node> {
        Arc::new(serde_json::from_value(value).expect("a node"))
    }

    fn fresh() -> Arc<Node> {
        node(json!({
            "metadata": {"name": "n", "labels": {"zone": "node", "own": "node"}},
            "spec": {"taints": [{"key": "karpenter.sh/unregistered", "effect": "NoExecute"}]}
        }))
    }

    fn taints(node: &Node) -> Vec<String> {
        let all = node
            .spec
            .as_ref()
            .and_then(|s| s.taints.clone())
            .unwrap_or_default();
        all.iter()
            .map(|t| {
                format!(
                    "{}={}:{}",
                    t.key,
                    t.value.clone().unwrap_or_default(),
                    t.effect
                )
            })
            .collect()
    }

    fn join(claim: &NodeClaim, node: Arc<Node>) -> (Node, bool) {
        match outcome(&[node]) {
            Outcome::Join {
                node,
                taint_was_missing,
            } => (joined(claim, &node, &Taken::new()), taint_was_missing),
            other => panic!("expected a join, got {other:?}"),
        }
    }

    #[test]
    fn no_node_and_two_nodes() {
        assert_eq!(outcome(&[]), Outcome::NodeNotFound);
        assert_eq!(outcome(&[fresh(), fresh()]), Outcome::MultipleNodesFound);
    }

    #[test]
    fn a_joined_node_carries_all_of_its_claim() {
        let (wanted, missing) = join(&claim(), fresh());
        assert!(!missing);
        assert_eq!(taints(&wanted), ["team=a:NoSchedule", "cni=:NoExecute"]);
        assert_eq!(
            serde_json::to_value(&wanted.metadata).expect("metadata"),
            json!({
                "name": "n",
                "labels": {
                    "karpenter.sh/nodepool": "pool", "zone": "claim", "own": "node",
                    "karpenter.sh/registered": "true"
                },
                "annotations": {"note": "claim"},
                "finalizers": ["karpenter.sh/termination"],
                "ownerReferences": [{
                    "apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "name": "pool-a1", "uid": "u-1",
                    "blockOwnerDeletion": true
                }]
            })
        );
    }

    #[test]
    fn joining_twice_changes_nothing() {
        let (once, _) = join(&claim(), fresh());
        let (twice, missing) = join(&claim(), Arc::new(once.clone()));
        assert_eq!(once, twice);
        assert!(!missing, "registered already, so the taint is not missed");
    }

    #[rstest]
    #[case::own_taints_left_alone(json!({"karpenter.sh/do-not-sync-taints": "true"}), json!([]), vec![])]
    #[case::same_key_and_effect_kept(
        json!({}),
        json!([{"key": "team", "value": "kept", "effect": "NoSchedule"}]),
        vec!["team=kept:NoSchedule", "cni=:NoExecute"]
    )]
    #[case::same_key_other_effect_added(
        json!({}),
        json!([{"key": "team", "value": "b", "effect": "NoExecute"}]),
        vec!["team=b:NoExecute", "team=a:NoSchedule", "cni=:NoExecute"]
    )]
    fn taints_are_merged(
        #[case] node_labels: Value,
        #[case] own: Value,
        #[case] expected: Vec<&str>,
    ) {
        let (wanted, missing) = join(
            &claim(),
            node(
                json!({"metadata": {"name": "n", "labels": node_labels}, "spec": {"taints": own}}),
            ),
        );
        assert_eq!(taints(&wanted), expected);
        assert!(missing, "the node came without the unregistered taint");
    }
}
