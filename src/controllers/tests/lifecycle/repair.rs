//! Node repair: machines whose Nodes stay bad are replaced, whatever would hold a disruption; many at once are not.

use karpenter_fake_kube::server::{PatchKind, gr};
use karpenter_runtime::Settings;
use serde_json::json;

use crate::world::World;

async fn world() -> World {
    let mut settings = Settings::default();
    settings.feature_gates.node_repair = true;
    World::with(settings).await
}

/// A kubelet says whether it is ready, and since when.
fn report(world: &World, node: &str, status: &str, since: &str) {
    let conditions = json!([{"type": "Ready", "status": status, "reason": "r", "message": "",
        "lastTransitionTime": since}]);
    let patch = json!({"status": {"conditions": conditions}});
    let (nodes, kind) = (gr("", "nodes"), PatchKind::Merge);
    world
        .server
        .patch(nodes, None, node, "status", kind, patch)
        .unwrap();
}

fn now(world: &World) -> String {
    world
        .clock
        .wall()
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string()
}

fn deleting(world: &World, claim: &str) -> bool {
    let claim = world.get("nodeclaims", claim);
    claim.is_none_or(|c| !c["metadata"]["deletionTimestamp"].is_null())
}

/// A pool that lets nothing be disrupted.
fn strict_pool(world: &World) {
    world.pool(json!({"consolidateAfter": "Never", "budgets": [{"nodes": "0"}]}));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stays_bad_is_replaced_whatever_holds_it() {
    let world = world().await;
    strict_pool(&world);
    world
        .node("a", json!({"terminationGracePeriod": "1h"}))
        .await;
    let guard = json!({"annotations": {"karpenter.sh/do-not-disrupt": "true"}});
    world.patch("nodes", "node-a", json!({ "metadata": guard }));
    world.pod("web", "node-a", guard, json!({}));
    world.budget("web", 1);
    world.pass(5).await;
    report(&world, "node-a", "False", &now(&world));
    let took = world.until(700, "deleted", |w| deleting(w, "a")).await;
    assert!((599..=600).contains(&took), "{took} s");
    let claim = world.get("nodeclaims", "a").unwrap();
    let at = &claim["metadata"]["annotations"]["karpenter.sh/nodeclaim-termination-timestamp"];
    assert_eq!(*at, claim["metadata"]["deletionTimestamp"]);
    world
        .until(120, "gone", |w| w.get("nodes", "node-a").is_none())
        .await;
    world.until(60, "gone", |w| w.cloud.running() == 0).await;
    assert_eq!(world.disrupted("unhealthy", "spot"), 1.0);
    let labels = [
        ("condition", "ready"),
        ("nodepool", "default"),
        ("capacity_type", "spot"),
        ("image_id", ""),
    ];
    let unhealthy = "karpenter_nodeclaims_unhealthy_disrupted_total";
    assert_eq!(world.metric(unhealthy, &labels), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_recovers_in_time_stays() {
    let world = world().await;
    strict_pool(&world);
    world.node("a", json!({})).await;
    for status in ["False", "Unknown", "False"] {
        report(&world, "node-a", status, &now(&world));
        world.pass(599).await;
        report(&world, "node-a", "True", &now(&world));
        world.pass(60).await;
    }
    world.pass(3600).await;
    assert!(!deleting(&world, "a"));
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_that_reports_well_a_moment_later_hides_nothing() {
    let world = world().await;
    strict_pool(&world);
    world.node("a", json!({})).await;
    world.node("b", json!({})).await;
    world.pass(3600).await;
    // Bad for longer than is put up with when it is first told of; both reports are there before anybody reads one.
    report(&world, "node-a", "False", "2026-01-01T00:30:00Z");
    report(&world, "node-a", "True", &now(&world));
    // This one was not.
    report(&world, "node-b", "False", &now(&world));
    report(&world, "node-b", "True", &now(&world));
    world.pass(1).await;
    assert!(deleting(&world, "a"));
    world.pass(3600).await;
    assert!(!deleting(&world, "b"));
}

#[tokio::test(start_paused = true)]
async fn many_bad_nodes_at_once_are_left_alone() {
    let world = world().await;
    strict_pool(&world);
    let names = ["a", "b", "c"];
    for name in names {
        world.node(name, json!({})).await;
    }
    for name in ["a", "b"] {
        report(&world, &format!("node-{name}"), "Unknown", &now(&world));
    }
    world.pass(1200).await;
    assert!(names.iter().all(|n| !deleting(&world, n)));
    world.context.events.flush().await;
    let text = "NodeRepairBlocked: more than 20% nodes are unhealthy in the nodepool";
    for node in ["node-a", "node-b"] {
        let told = world.events(node);
        assert_eq!(told.iter().filter(|e| *e == text).count(), 1, "{told:?}");
    }
    // One of three is what is put up with; the other is found within five minutes.
    report(&world, "node-b", "True", &now(&world));
    let took = world.until(400, "deleted", |w| deleting(w, "a")).await;
    assert!(took <= 300, "{took} s");
    world.pass(900).await;
    assert!(!deleting(&world, "b") && !deleting(&world, "c"));
}

#[tokio::test(start_paused = true)]
async fn a_claim_without_a_pool_is_judged_by_the_cluster() {
    let world = world().await;
    strict_pool(&world);
    for name in ["a", "b", "c"] {
        world.node(name, json!({})).await;
    }
    for name in ["a", "b"] {
        let none = json!({"metadata": {"labels": {"karpenter.sh/nodepool": null}}});
        world.patch("nodeclaims", name, none.clone());
        world.patch("nodes", &format!("node-{name}"), none);
    }
    world.pass(5).await;
    let since = now(&world);
    report(&world, "node-a", "False", &since);
    report(&world, "node-c", "False", &since);
    world.pass(610).await;
    assert!(!deleting(&world, "a"), "two of the cluster's three are bad");
    assert!(deleting(&world, "c"), "one of its pool's one is");
    world.context.events.flush().await;
    let text = "more than 20% nodes are unhealthy in the cluster";
    assert!(
        world.has_event("node-a", text),
        "{:?}",
        world.events("node-a")
    );
    // With that one gone it is one of two.
    assert!(world.until(400, "deleted", |w| deleting(w, "a")).await <= 300);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_repaired_unless_the_gate_is_open() {
    let world = World::start().await;
    strict_pool(&world);
    world.node("a", json!({})).await;
    report(&world, "node-a", "False", &now(&world));
    world.pass(7200).await;
    assert!(!deleting(&world, "a"));
}

#[tokio::test(start_paused = true)]
async fn a_controller_started_late_finds_what_is_overdue() {
    let mut world = world().await;
    strict_pool(&world);
    world.node("a", json!({})).await;
    report(&world, "node-a", "False", &now(&world));
    world.pass(300).await;
    world.crash().await;
    let took = world.until(700, "deleted", |w| deleting(w, "a")).await;
    assert!((299..=300).contains(&took), "{took} s");
}

#[tokio::test(start_paused = true)]
async fn a_drain_under_way_is_not_waited_for_any_longer() {
    let world = world().await;
    strict_pool(&world);
    world.node("a", json!({})).await;
    let guard = json!({"annotations": {"karpenter.sh/do-not-disrupt": "true"}});
    world.pod("web", "node-a", guard, json!({}));
    world.delete("nodeclaims", "a");
    world.pass(60).await;
    assert!(world.has_pod("web"), "a protected pod holds the drain");
    report(&world, "node-a", "False", &now(&world));
    world.pass(590).await;
    assert!(world.has_pod("web"));
    world
        .until(120, "gone", |w| w.get("nodes", "node-a").is_none())
        .await;
    assert_eq!(
        world.disrupted("unhealthy", "spot"),
        0.0,
        "it was going already"
    );
}
