//! From a claim to a usable node, and what goes wrong on the way.

use karpenter_fake_kube::server::{PatchKind, gr};
use serde_json::json;

use crate::world::{Launch, World, join};

#[tokio::test(start_paused = true)]
async fn a_claim_becomes_a_node_step_by_step() {
    let world = World::start().await;
    world.pool(json!({}));
    world.claim(
        "a",
        json!({"taints": [{"key": "team", "value": "x", "effect": "NoSchedule"}]}),
    );
    world
        .until(5, "launched", |w| w.condition("a", "Launched") == "True")
        .await;
    let claim = world.get("nodeclaims", "a").unwrap();
    assert_eq!(
        claim["metadata"]["finalizers"],
        json!(["karpenter.sh/termination"])
    );
    assert_eq!(
        claim["metadata"]["labels"]["topology.kubernetes.io/zone"],
        "z"
    );
    assert_eq!(claim["status"]["capacity"]["cpu"], "4");
    assert_eq!(
        world.condition_field("a", "Registered", "reason"),
        "NodeNotFound"
    );
    assert_eq!(world.condition("a", "Ready"), "Unknown");

    let took = world
        .until(60, "registered", |w| {
            w.condition("a", "Registered") == "True"
        })
        .await;
    assert!(
        (28..=31).contains(&took),
        "registers as soon as the node joins: {took} s"
    );
    let node = world.get("nodes", "node-a").unwrap();
    assert_eq!(
        node["metadata"]["labels"]["karpenter.sh/registered"],
        "true"
    );
    assert_eq!(
        node["metadata"]["finalizers"],
        json!(["karpenter.sh/termination"])
    );
    assert_eq!(node["metadata"]["ownerReferences"][0]["name"], "a");
    assert_eq!(world.taints("node-a"), ["team", "cni"]);
    world.pass(1).await;
    assert_eq!(
        world.condition_field("a", "Initialized", "reason"),
        "StartupTaintsExist"
    );

    world.patch("nodes", "node-a", json!({"spec": {"taints": null}}));
    let took = world
        .until(5, "initialized", |w| {
            w.condition("a", "Initialized") == "True"
        })
        .await;
    assert!(took < 1);
    assert_eq!(world.condition("a", "Ready"), "True");
    let node = world.get("nodes", "node-a").unwrap();
    assert_eq!(
        node["metadata"]["labels"]["karpenter.sh/initialized"],
        "true"
    );
    assert_eq!(
        world.taints("node-a"),
        Vec::<String>::new(),
        "startup taints are not put back"
    );
    assert_eq!(world.cloud.created.lock().len(), 1);
    assert_eq!(
        world.metric(
            "karpenter_nodes_created_total",
            &[("nodepool", "default"), ("zone", "z")]
        ),
        1.0
    );
}

#[tokio::test(start_paused = true)]
async fn a_settled_cluster_is_left_alone() {
    let world = World::start().await;
    world.pool(json!({"consolidateAfter": "Never"}));
    world.node("a", json!({"expireAfter": "Never"})).await;
    world.pod("web", "node-a", json!({}), json!({}));
    world.pass(60).await;
    let (version, lists) = (world.version(), *world.cloud.lists.lock());
    world.pass(30 * 24 * 3600).await;
    assert_eq!(world.version(), version, "nothing is written for a month");
    assert_eq!(
        *world.cloud.lists.lock(),
        lists,
        "and the cloud is not asked"
    );
}

#[tokio::test(start_paused = true)]
async fn no_capacity_gives_the_claim_back() {
    let world = World::start().await;
    world.pool(json!({}));
    *world.cloud.launch.lock() = Launch::SoldOut;
    world.claim("a", json!({}));
    world
        .until(5, "gone", |w| w.get("nodeclaims", "a").is_none())
        .await;
    world.context.events.flush().await;
    let text = "InsufficientCapacityError: NodeClaim a event: insufficient capacity, all sold";
    assert!(world.has_event("a", text), "{:?}", world.events("a"));
    assert_eq!(world.disrupted("insufficient_capacity", ""), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_keeps_failing_says_why_and_times_out() {
    let world = World::start().await;
    world.pool(json!({}));
    *world.cloud.launch.lock() = Launch::Unauthorized;
    for name in ["a", "b"] {
        world.claim(name, json!({}));
    }
    world
        .until(5, "reason", |w| {
            w.condition_field("a", "Launched", "reason") == "Unauthorized"
        })
        .await;
    assert_eq!(world.condition("a", "Launched"), "Unknown");
    assert_eq!(
        world.condition_field("a", "Launched", "message"),
        "not allowed to buy"
    );
    let took = world
        .until(400, "gone", |w| w.get("nodeclaims", "a").is_none())
        .await;
    assert!((295..=300).contains(&took), "{took} s");
    assert_eq!(world.disrupted("launch_timeout", ""), 2.0);
    let pool = world.get("nodepools", "default").unwrap();
    let health = &pool["status"]["conditions"][0];
    assert_eq!(health["type"], "NodeRegistrationHealthy");
    assert_eq!(
        (&health["status"], &health["reason"]),
        (&json!("False"), &json!("Unauthorized"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_never_joins_is_given_back_after_fifteen_minutes() {
    let world = World::start().await;
    world.pool(json!({}));
    *world.cloud.launch.lock() = Launch::NeverJoins;
    world.claim("a", json!({}));
    world
        .until(5, "launched", |w| w.condition("a", "Launched") == "True")
        .await;
    let took = world
        .until(1000, "deleted", |w| {
            let claim = w.get("nodeclaims", "a");
            claim.is_none_or(|c| !c["metadata"]["deletionTimestamp"].is_null())
        })
        .await;
    assert!((898..=900).contains(&took), "to the second: {took} s");
    world
        .until(60, "gone", |w| w.get("nodeclaims", "a").is_none())
        .await;
    assert_eq!(world.cloud.running(), 0, "the machine is ended too");
    assert_eq!(world.disrupted("registration_timeout", "spot"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn two_nodes_for_one_machine_never_register() {
    let world = World::start().await;
    world.pool(json!({}));
    *world.cloud.launch.lock() = Launch::NeverJoins;
    world.claim("a", json!({}));
    world
        .until(5, "launched", |w| w.condition("a", "Launched") == "True")
        .await;
    let claim = world.get("nodeclaims", "a").unwrap();
    let id = claim["status"]["providerID"].as_str().unwrap();
    // In one breath, so that both are there when the first is seen.
    join(&world.server, "x", id);
    join(&world.server, "y", id);
    world
        .until(5, "told", |w| {
            w.condition_field("a", "Registered", "reason") == "MultipleNodesFound"
        })
        .await;
    world.delete("nodes", "node-x");
    world.pass(60).await;
    assert_eq!(
        world.condition("a", "Registered"),
        "False",
        "it is not looked at again"
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_without_the_taint_registers_with_a_warning() {
    let world = World::start().await;
    world.pool(json!({}));
    *world.cloud.launch.lock() = Launch::NeverJoins;
    world.claim("a", json!({}));
    world
        .until(5, "launched", |w| w.condition("a", "Launched") == "True")
        .await;
    let claim = world.get("nodeclaims", "a").unwrap();
    let node =
        json!({"metadata": {"name": "n"}, "spec": {"providerID": claim["status"]["providerID"]}});
    world.server.create(gr("", "nodes"), None, node).unwrap();
    world
        .until(5, "registered", |w| {
            w.condition("a", "Registered") == "True"
        })
        .await;
    world.context.events.flush().await;
    assert!(
        world.has_event("a", "UnregisteredTaintMissing"),
        "{:?}",
        world.events("a")
    );
}

#[tokio::test(start_paused = true)]
async fn a_controller_killed_mid_launch_buys_once() {
    let mut world = World::start().await;
    world.pool(json!({}));
    world.claim("a", json!({"startupTaints": []}));
    // Bought, and not told yet.
    world.pass(1).await;
    assert_eq!(world.cloud.running(), 1);
    assert_ne!(world.condition("a", "Launched"), "True");
    world.crash().await;
    world
        .until(120, "initialized", |w| {
            w.condition("a", "Initialized") == "True"
        })
        .await;
    assert_eq!(world.cloud.running(), 1);
    world.delete("nodeclaims", "a");
    world
        .until(120, "gone", |w| w.get("nodeclaims", "a").is_none())
        .await;
    assert_eq!(world.cloud.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lost_write_does_not_buy_again() {
    let world = World::start().await;
    world.pool(json!({}));
    world.claim("a", json!({}));
    // Somebody else writes in the moment between purchase and status.
    world.pass(1).await;
    assert_eq!(world.cloud.created.lock().len(), 1);
    let note = json!({"metadata": {"annotations": {"note": "x"}}});
    let claims = gr("karpenter.sh", "nodeclaims");
    world
        .server
        .patch(claims, None, "a", "", PatchKind::Merge, note)
        .unwrap();
    world
        .until(5, "launched", |w| w.condition("a", "Launched") == "True")
        .await;
    assert_eq!(world.cloud.created.lock().len(), 1);
    let claim = world.get("nodeclaims", "a").unwrap();
    assert_eq!(claim["metadata"]["annotations"]["note"], "x");
}

#[tokio::test(start_paused = true)]
async fn a_type_that_is_not_sold_any_more_is_drift_once_its_machine_is_an_hour_old() {
    let world = World::start().await;
    world.pool(json!({"consolidateAfter": "Never", "budgets": [{"nodes": "0"}]}));
    world.node("a", json!({})).await;
    let sells = |yes: bool| {
        let withdrawn = &world.cloud.withdrawn;
        withdrawn.store(!yes, std::sync::atomic::Ordering::Relaxed);
        world.context.state.catalog_changed();
    };
    let drifted = || world.condition_field("a", "Drifted", "reason");
    sells(false);
    world.pass(1800).await;
    assert_eq!(drifted(), "", "catalogues may lag behind a launch");
    world.pass(1800).await;
    assert_eq!(drifted(), "InstanceTypeNotFound");
    sells(true);
    world.pass(2).await;
    assert_eq!(drifted(), "", "it is sold again");
    world.pass(3600).await;
    sells(false);
    world.pass(2).await;
    assert_eq!(drifted(), "InstanceTypeNotFound", "told at once");
}
