//! Input that nobody meant: it is named where its owner looks, and nothing else stalls.

use karpenter_fake_kube::server::{PatchKind, gr};
use serde_json::json;

use crate::world::World;

#[tokio::test(start_paused = true)]
async fn a_termination_time_that_is_none_is_told_and_the_grace_period_holds() {
    let world = World::start().await;
    world.pool(json!({}));
    world
        .node("a", json!({"terminationGracePeriod": "2m"}))
        .await;
    let annotations = json!({"metadata": {"annotations": {"karpenter.sh/nodeclaim-termination-timestamp": "soon"}}});
    world.patch("nodeclaims", "a", annotations);
    let guard = json!({"annotations": {"karpenter.sh/do-not-disrupt": "true"}});
    world.pod("web", "node-a", guard, json!({}));
    world.pass(10).await;
    world.delete("nodeclaims", "a");
    let took = world
        .until(300, "gone", |w| w.get("nodeclaims", "a").is_none())
        .await;
    assert!((100..=180).contains(&took), "by its grace period: {took} s");
    world.context.events.flush().await;
    let text = "InvalidTerminationTimestamp: NodeClaim a: annotation karpenter.sh/nodeclaim-termination-timestamp is \"soon\"";
    assert!(
        world.has_event("node-a", text),
        "{:?}",
        world.events("node-a")
    );
}

#[tokio::test(start_paused = true)]
async fn protections_and_costs_that_cannot_be_read_hold_nothing_up() {
    let world = World::start().await;
    world.pool(json!({"consolidateAfter": "Never"}));
    world.node("a", json!({})).await;
    let odd = json!({"annotations": {"karpenter.sh/do-not-disrupt": "perhaps",
        "controller.kubernetes.io/pod-deletion-cost": "dear"}});
    world.pod("odd", "node-a", odd, json!({}));
    // Nobody owns it either: what is evicted does not come back, which is its owner's wish.
    world.pod("orphan", "node-a", json!({}), json!({}));
    world.pass(10).await;
    world.delete("nodeclaims", "a");
    world
        .until(120, "gone", |w| w.get("nodeclaims", "a").is_none())
        .await;
    world.context.events.flush().await;
    let text = "InvalidDoNotDisruptAnnotation";
    assert!(world.has_event("odd", text), "{:?}", world.events("odd"));
    assert!(!world.has_pod("odd") && !world.has_pod("orphan"));
}

#[tokio::test(start_paused = true)]
async fn a_budget_whose_selector_means_nothing_covers_nobody() {
    let world = World::start().await;
    world.pool(json!({"consolidateAfter": "Never"}));
    world.node("a", json!({})).await;
    world.pod("web", "node-a", json!({}), json!({}));
    let odd = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "odd", "namespace": "default"},
        "spec": {"maxUnavailable": 0, "selector": {"matchExpressions": [{"key": "app", "operator": "Within", "values": ["web"]}]}}});
    let budgets = gr("policy", "poddisruptionbudgets");
    // A real API server refuses it; one of another version may have let it in.
    let _ = world.server.create(budgets, Some("default"), odd);
    world.pass(10).await;
    world.delete("nodeclaims", "a");
    world
        .until(120, "gone", |w| w.get("nodeclaims", "a").is_none())
        .await;
}

#[tokio::test(start_paused = true)]
async fn nodes_that_are_not_ours_are_left_alone() {
    let world = World::start().await;
    world.pool(json!({"consolidateAfter": "0s"}));
    world.node("a", json!({})).await;
    world.pod("web", "node-a", json!({}), json!({}));
    let nodes = gr("", "nodes");
    let labels = json!({"karpenter.sh/nodepool": "default", "karpenter.sh/registered": "true",
        "karpenter.sh/initialized": "true"});
    for (name, id) in [
        ("foreign", json!("aws:///zone/i-other")),
        ("bare", json!(null)),
        ("empty", json!("")),
    ] {
        let node =
            json!({"metadata": {"name": name, "labels": labels}, "spec": {"providerID": id}});
        world.server.create(nodes, None, node).unwrap();
        let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "r", "message": ""}]}});
        let patched = world
            .server
            .patch(nodes, None, name, "status", PatchKind::Merge, status);
        patched.unwrap();
    }
    // The server taints every new Node, and nobody plays the node lifecycle for these.
    let names = ["foreign", "bare", "empty", "node-a"];
    let before = names.map(|name| world.taints(name));
    world.pass(3600).await;
    for (name, taints) in names.into_iter().zip(before) {
        let node = world.get("nodes", name).unwrap();
        assert!(node["metadata"]["deletionTimestamp"].is_null(), "{name}");
        assert_eq!(world.taints(name), taints, "{name}");
    }
    assert_eq!(world.cloud.running(), 1);
    // And the one that is ours still goes when it has to.
    world.delete("nodeclaims", "a");
    world
        .until(120, "gone", |w| w.get("nodes", "node-a").is_none())
        .await;
    assert!(world.get("nodes", "foreign").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_changes_or_goes_in_the_middle_of_it_all_stalls_nobody() {
    let world = World::start().await;
    world.pool(json!({"consolidateAfter": "0s"}));
    world.claim("launching", json!({"startupTaints": []}));
    world.pass(1).await;
    let nonsense = json!({"spec": {"disruption": {"budgets": [{"nodes": "many"}], "consolidateAfter": "soon"}}});
    let pools = gr("karpenter.sh", "nodepools");
    // What the definition would refuse got in by an older one.
    let _ = world
        .server
        .patch(pools, None, "default", "", PatchKind::Merge, nonsense);
    world
        .until(60, "initialized", |w| {
            w.condition("launching", "Initialized") == "True"
        })
        .await;
    world.claim("other", json!({"startupTaints": []}));
    world.pass(1).await;
    world.delete("nodepools", "default");
    world
        .until(60, "initialized without its pool", |w| {
            w.condition("other", "Initialized") == "True"
        })
        .await;
    // Here nobody collects what the pool owned.
    for claim in ["launching", "other"] {
        world.delete("nodeclaims", claim);
    }
    world
        .until(180, "all gone", |w| {
            w.claims().is_empty() && w.cloud.running() == 0
        })
        .await;
}
