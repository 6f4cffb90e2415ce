//! Empty nodes are given back, when and as far as their pool says.

use serde_json::json;

use crate::world::World;

fn left(world: &World, names: &[&str]) -> usize {
    names
        .iter()
        .filter(|n| world.get("nodeclaims", n).is_some())
        .count()
}

fn deleting(world: &World, name: &str) -> bool {
    let claim = world.get("nodeclaims", name).unwrap_or_default();
    !claim["metadata"]["deletionTimestamp"].is_null()
}

#[tokio::test(start_paused = true)]
async fn an_empty_node_goes_after_consolidate_after() {
    let world = World::start().await;
    world.pool(json!({"consolidateAfter": "30s", "budgets": [{"nodes": "100%"}]}));
    world.node("a", json!({})).await;
    world.pod("web", "node-a", json!({}), json!({}));
    world.pass(300).await;
    assert_eq!(world.condition("a", "Consolidatable"), "True");
    assert!(!deleting(&world, "a"), "a pod that has to move keeps it");
    let pods = karpenter_fake_kube::server::gr("", "pods");
    world
        .server
        .delete(pods, Some("default"), "web", None)
        .unwrap();
    world.pass(2).await;
    assert_eq!(
        world.condition("a", "Consolidatable"),
        "",
        "the pod's going restarts the clock"
    );
    let took = world.until(120, "deleted", |w| deleting(w, "a")).await;
    // Thirty seconds of quiet, then fifteen of thinking it over.
    assert!((41..=46).contains(&took), "{took} s");
    assert_eq!(
        world.condition_field("a", "DisruptionReason", "reason"),
        "Empty"
    );
    world.until(60, "gone", |w| left(w, &["a"]) == 0).await;
    assert_eq!(world.cloud.running(), 0);
    assert_eq!(world.disrupted("empty", "spot"), 1.0);
    world.context.events.flush().await;
    assert!(
        world.has_event("node-a", "DisruptionTerminating"),
        "{:?}",
        world.events("node-a")
    );
    let labels = [
        ("decision", "delete"),
        ("reason", "empty"),
        ("consolidation_type", "empty"),
    ];
    assert_eq!(
        world.metric("karpenter_voluntary_disruption_decisions_total", &labels),
        1.0
    );
}

#[tokio::test(start_paused = true)]
async fn a_blocking_budget_keeps_empty_nodes() {
    let world = World::start().await;
    world.pool(json!({"consolidateAfter": "0s", "budgets": [{"nodes": "0"}]}));
    world.node("a", json!({})).await;
    world.pass(3600).await;
    assert!(!deleting(&world, "a"));
    assert_eq!(world.taints("node-a"), Vec::<String>::new());
    world.context.events.flush().await;
    let text = "DisruptionBlocked: No allowed disruptions for disruption reason Empty due to blocking budget";
    assert!(
        world.has_event("default", text),
        "{:?}",
        world.events("default")
    );
    let labels = [("nodepool", "default"), ("reason", "Empty")];
    assert_eq!(
        world.metric("karpenter_nodepools_allowed_disruptions", &labels),
        0.0
    );

    world.patch(
        "nodepools",
        "default",
        json!({"spec": {"disruption": {"budgets": [{"nodes": "1"}]}}}),
    );
    let took = world.until(60, "deleted", |w| deleting(w, "a")).await;
    assert!(took <= 17, "{took} s");
}

#[tokio::test(start_paused = true)]
async fn budgets_let_nodes_go_one_after_the_other() {
    let world = World::start().await;
    world.pool(json!({"consolidateAfter": "30s", "budgets": [{"nodes": "2"}]}));
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        world.claim(name, json!({"startupTaints": []}));
    }
    world
        .until(120, "initialized", |w| {
            names
                .iter()
                .all(|n| w.condition(n, "Initialized") == "True")
        })
        .await;
    let mut most = 0;
    while left(&world, &names) > 0 {
        let going = names.iter().filter(|n| deleting(&world, n)).count();
        most = most.max(going);
        world.pass(1).await;
        assert!(
            world.clock.wall() < "2026-01-01T00:15:00Z".parse().unwrap(),
            "takes too long"
        );
    }
    assert_eq!(
        most, 2,
        "never more than the budget, and no fewer than it allows"
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_comes_while_it_is_thought_over_saves_its_node() {
    let world = World::start().await;
    world.pool(json!({"consolidateAfter": "0s", "budgets": [{"nodes": "100%"}]}));
    world.node("a", json!({})).await;
    world.pass(8).await;
    world.pod("late", "node-a", json!({}), json!({}));
    world.pass(60).await;
    assert!(!deleting(&world, "a"));
    assert_eq!(world.taints("node-a"), Vec::<String>::new());
    let failed = "karpenter_voluntary_disruption_failed_validations_total";
    assert_eq!(
        world.metric(failed, &[("consolidation_type", "empty")]),
        1.0
    );
}

#[tokio::test(start_paused = true)]
async fn a_protected_pod_without_weight_still_blocks() {
    let world = World::start().await;
    world.pool(json!({"consolidateAfter": "0s", "budgets": [{"nodes": "100%"}]}));
    world.node("a", json!({})).await;
    let meta = json!({
        "annotations": {"karpenter.sh/do-not-disrupt": "true"},
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "ds", "uid": "ds", "controller": true}]
    });
    world.pod("guard", "node-a", meta, json!({}));
    world.pass(120).await;
    assert!(!deleting(&world, "a"));
    world.context.events.flush().await;
    let text =
        "DisruptionBlocked: Pod has \"karpenter.sh/do-not-disrupt\" annotation (Pod=default/guard)";
    assert!(
        world.has_event("node-a", text),
        "{:?}",
        world.events("node-a")
    );
    assert!(world.has_event("a", text), "{:?}", world.events("a"));
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_controller_left_is_healed() {
    let mut world = World::start().await;
    world.pool(json!({"consolidateAfter": "Never"}));
    world.node("a", json!({})).await;
    world.pass(10).await;
    world.crash().await;
    world.patch(
        "nodes",
        "node-a",
        json!({"spec": {"taints": [{"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}]}}),
    );
    let status = world.get("nodeclaims", "a").unwrap()["status"]["conditions"].clone();
    let mut all = status.as_array().unwrap().clone();
    all.push(
        json!({"type": "DisruptionReason", "status": "True", "reason": "Empty", "message": "Empty",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}),
    );
    let claims = karpenter_fake_kube::server::gr("karpenter.sh", "nodeclaims");
    let kind = karpenter_fake_kube::server::PatchKind::Merge;
    let patch = json!({"status": {"conditions": all}});
    world
        .server
        .patch(claims, None, "a", "status", kind, patch)
        .unwrap();
    world.crash().await;
    world.pass(5).await;
    assert_eq!(world.taints("node-a"), Vec::<String>::new());
    assert_eq!(world.condition("a", "DisruptionReason"), "");
}

/// Everything the API server holds after a story with launches, a failing one, pods, a drain and emptiness.
async fn story() -> String {
    let mut world = World::start().await;
    world.pool(json!({"consolidateAfter": "30s", "budgets": [{"nodes": "2"}]}));
    for name in ["a", "b", "c", "d"] {
        world.claim(name, json!({"startupTaints": []}));
    }
    world.pass(35).await;
    *world.cloud.launch.lock() = crate::world::Launch::Unauthorized;
    world.claim("e", json!({}));
    world.pod("web", "node-a", json!({}), json!({}));
    world.budget("web", 1);
    world.delete("nodeclaims", "a");
    world.pass(20).await;
    world.crash().await;
    world.pass(200).await;
    world.context.events.flush().await;
    ["nodeclaims", "nodepools", "nodes", "pods", "events"]
        .iter()
        .flat_map(|resource| {
            let group = if resource.starts_with("node") && *resource != "nodes" {
                "karpenter.sh"
            } else {
                ""
            };
            let gr = karpenter_fake_kube::server::gr(group, resource);
            world.server.list(gr, None)
        })
        .map(|object| object.to_string() + "\n")
        .collect()
}

#[test]
fn one_story_told_twice_is_the_same_to_the_byte() {
    let tell = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().start_paused(true).build().unwrap();
        runtime.block_on(story())
    };
    let (once, twice) = (tell(), tell());
    assert!(once.lines().count() > 20, "{once}");
    for (a, b) in once.lines().zip(twice.lines()) {
        assert_eq!(a, b);
    }
    assert_eq!(once.len(), twice.len());
}
