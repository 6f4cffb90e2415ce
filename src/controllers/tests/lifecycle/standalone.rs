//! NodeClaims that no NodePool owns live like others: what they say reaches the node, and they go when their machine, their
//! Node, their class or their time does.

use karpenter_fake_kube::server::{PatchKind, gr};
use serde_json::{Value, json};

use crate::world::{Launch, World};

/// A world without any NodePool, in which a plain claim has become a node.
async fn one_node() -> World {
    let world = World::start().await;
    world.standalone("a", json!({}), json!({}));
    world
        .until(60, "initialized", |w| {
            w.condition("a", "Initialized") == "True"
        })
        .await;
    world
}

fn gone(world: &World) -> bool {
    world.get("nodeclaims", "a").is_none() && world.get("nodes", "node-a").is_none()
}

#[tokio::test(start_paused = true)]
async fn a_standard_claim_becomes_ready_and_is_left_alone() {
    let world = one_node().await;
    assert_eq!(world.condition("a", "Ready"), "True");
    let node = world.get("nodes", "node-a").unwrap();
    assert_eq!(
        node["metadata"]["labels"]["karpenter.sh/capacity-type"],
        "spot"
    );
    world.pass(600).await;
    let version = world.version();
    world.pass(30 * 24 * 3600).await;
    assert_eq!(
        world.version(),
        version,
        "nothing consolidates or expires it"
    );
    assert_eq!(world.cloud.running(), 1);
}

#[tokio::test(start_paused = true)]
async fn everything_that_a_claim_says_reaches_its_node() {
    let world = World::start().await;
    let taints = json!([
        {"key": "custom-taint", "effect": "NoSchedule", "value": "custom-value"},
        {"key": "other-custom-taint", "effect": "NoExecute", "value": "other-custom-value"},
    ]);
    world.standalone(
        "a",
        json!({"labels": {"custom-label": "custom-value"}, "annotations": {"custom-annotation": "custom-value"}}),
        json!({"taints": taints, "resources": {"requests": {"cpu": "3", "memory": "16Gi"}}}),
    );
    world
        .until(60, "initialized", |w| {
            w.condition("a", "Initialized") == "True"
        })
        .await;
    let node = world.get("nodes", "node-a").unwrap();
    let meta = &node["metadata"];
    assert_eq!(meta["labels"]["custom-label"], "custom-value");
    assert_eq!(meta["annotations"]["custom-annotation"], "custom-value");
    assert_eq!(node["spec"]["taints"], taints);
    let claim = world.get("nodeclaims", "a").unwrap();
    let owner = json!({"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "name": "a",
        "uid": claim["metadata"]["uid"], "blockOwnerDeletion": true});
    assert_eq!(meta["ownerReferences"], json!([owner]));
    assert_eq!(world.condition("a", "Ready"), "True");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_claim_takes_its_node_and_machine_along() {
    let world = one_node().await;
    world.delete("nodeclaims", "a");
    world.until(60, "gone", gone).await;
    assert_eq!(world.cloud.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_node_takes_its_claim_and_machine_along() {
    let world = one_node().await;
    world.delete("nodes", "node-a");
    world.until(60, "gone", gone).await;
    assert_eq!(world.cloud.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_register_has_fifteen_minutes() {
    let world = World::start().await;
    *world.cloud.launch.lock() = Launch::NeverJoins;
    world.standalone("a", json!({}), json!({}));
    world.pass(60).await;
    assert_eq!(world.condition("a", "Launched"), "True");
    assert_eq!(world.condition("a", "Registered"), "Unknown");
    assert_eq!(world.condition("a", "Initialized"), "Unknown");
    let took = world.until(900, "gone", gone).await;
    assert!(took >= 830, "{took} s");
    assert_eq!(world.cloud.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_class_cannot_sell_is_given_back() {
    for launch in [Launch::NotReady, Launch::SoldOut] {
        let world = World::start().await;
        *world.cloud.launch.lock() = launch;
        world.standalone("a", json!({}), json!({}));
        world.until(10, "gone", gone).await;
        assert_eq!(world.cloud.running(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_machine_nobody_knows_is_collected() {
    let world = World::start().await;
    *world.cloud.launch.lock() = Launch::NeverJoins;
    world.standalone("a", json!({}), json!({}));
    world.pass(1).await;
    // Somebody says of it what is not so, as the public suite does.
    let is = |kind: &str| -> Value {
        json!({"type": kind, "status": "True", "reason": kind, "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let status = json!({"status": {"providerID": "Provider:///AZ/i-01234567890123456", "nodeName": "test-node-name",
        "conditions": [is("Launched"), is("Registered"), is("Initialized")]}});
    let claims = gr("karpenter.sh", "nodeclaims");
    world
        .server
        .patch(claims, None, "a", "status", PatchKind::Merge, status)
        .unwrap();
    let took = world.until(300, "gone", gone).await;
    assert!(took > 60, "not before the cloud was asked: {took} s");
}
