//! From a deleted claim or Node to nothing: drains, deadlines, lost machines.

use std::time::Duration;

use karpenter_fake_kube::flaky::ClientFaults;
use karpenter_fake_kube::server::{PatchKind, gr};
use serde_json::json;

use crate::world::{World, ready};

fn gone(world: &World, name: &str) -> bool {
    world.get("nodeclaims", name).is_none() && world.get("nodes", &format!("node-{name}")).is_none()
}

async fn one_node(spec: serde_json::Value) -> World {
    let world = World::start().await;
    world.pool(json!({"consolidateAfter": "Never"}));
    world.node("a", spec).await;
    world
}

#[tokio::test(start_paused = true)]
async fn a_deleted_claim_takes_node_and_machine_along() {
    let world = one_node(json!({})).await;
    world.pod("web", "node-a", json!({}), json!({}));
    world.pass(15).await;
    world.delete("nodeclaims", "a");
    world
        .until(3, "tainted", |w| {
            w.taints("node-a") == ["karpenter.sh/disrupted"]
        })
        .await;
    let node = world.get("nodes", "node-a").unwrap();
    let label = "node.kubernetes.io/exclude-from-external-load-balancers";
    assert_eq!(node["metadata"]["labels"][label], "karpenter");
    let took = world.until(60, "gone", |w| gone(w, "a")).await;
    // Five seconds of the pod's grace, at least five of draining, twelve of shutting down seen every five.
    assert!((15..=30).contains(&took), "{took} s");
    assert!(!world.has_pod("web"));
    assert_eq!(world.cloud.running(), 0);
    world.context.events.flush().await;
    assert!(
        world.has_event("web", "Evicted: Evicted pod: Forceful Termination"),
        "{:?}",
        world.events("web")
    );
    assert!(
        world.has_event("node-a", "FailedDraining: Failed to drain node, 1 pods"),
        "{:?}",
        world.events("node-a")
    );
    assert_eq!(
        world.metric("karpenter_pods_eviction_requests_total", &[("code", "200")]),
        1.0
    );
    assert_eq!(
        world.metric(
            "karpenter_pods_drained_total",
            &[("reason", "Forceful Termination")]
        ),
        1.0
    );
    assert_eq!(
        world.metric("karpenter_nodes_drained_total", &[("nodepool", "default")]),
        1.0
    );
    let labels = [("nodepool", "default"), ("zone", "z")];
    assert_eq!(
        world.metric("karpenter_nodes_terminated_total", &labels),
        1.0
    );
    let labels = [
        ("nodepool", "default"),
        ("capacity_type", "spot"),
        ("zone", "z"),
    ];
    assert_eq!(
        world.metric("karpenter_nodeclaims_terminated_total", &labels),
        1.0
    );
}

#[tokio::test(start_paused = true)]
async fn a_deleted_node_takes_its_claim_along() {
    let world = one_node(json!({})).await;
    world.delete("nodes", "node-a");
    world.until(60, "gone", |w| gone(w, "a")).await;
    assert_eq!(world.cloud.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_never_launched_just_goes() {
    let world = World::start().await;
    world.pool(json!({}));
    *world.cloud.launch.lock() = crate::world::Launch::Unauthorized;
    world.claim("a", json!({}));
    world.pass(2).await;
    world.delete("nodeclaims", "a");
    world
        .until(2, "gone", |w| w.get("nodeclaims", "a").is_none())
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_pdb_holds_a_drain_until_it_lets_go() {
    let world = one_node(json!({})).await;
    world.budget("web", 1);
    world.pod("web", "node-a", json!({}), json!({}));
    world.pass(15).await;
    world.delete("nodeclaims", "a");
    world.pass(300).await;
    assert!(world.has_pod("web") && !world.pod_is_going("web"));
    assert!(world.get("nodes", "node-a").is_some());
    world.context.events.flush().await;
    let text = "Failed to evict pod default/web: evicting pod violates a PDB";
    assert!(
        world.has_event("node-a", text),
        "{:?}",
        world.events("node-a")
    );
    let refused = world.metric("karpenter_pods_eviction_requests_total", &[("code", "429")]);
    assert!(
        (30.0..=50.0).contains(&refused),
        "backs off to ten seconds: {refused}"
    );
    world.drop_budget("web");
    let took = world.until(60, "gone", |w| gone(w, "a")).await;
    assert!(took <= 30, "{took} s");
}

#[tokio::test(start_paused = true)]
async fn two_pdbs_on_one_pod_are_told_apart() {
    let world = one_node(json!({})).await;
    world.pod(
        "web",
        "node-a",
        json!({"labels": {"app": "web", "tier": "front"}}),
        json!({}),
    );
    world.budget("web", 0);
    let second = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "front", "namespace": "default"},
        "spec": {"minAvailable": 0, "selector": {"matchLabels": {"tier": "front"}}}});
    let budgets = karpenter_fake_kube::server::gr("policy", "poddisruptionbudgets");
    world
        .server
        .create(budgets, Some("default"), second)
        .unwrap();
    world.pass(15).await;
    world.delete("nodeclaims", "a");
    world.pass(20).await;
    assert!(world.has_pod("web"));
    world.context.events.flush().await;
    let text = "eviction does not support multiple PDBs";
    assert!(
        world.has_event("node-a", text),
        "{:?}",
        world.events("node-a")
    );
}

#[tokio::test(start_paused = true)]
async fn tiers_go_one_after_the_other() {
    let world = one_node(json!({})).await;
    let owner = json!({"ownerReferences": [
        {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "ds", "uid": "ds", "controller": true}]});
    let critical = json!({"priorityClassName": "system-node-critical"});
    world.pod("plain", "node-a", json!({}), json!({}));
    world.pod("daemon", "node-a", owner.clone(), json!({}));
    world.pod("critical", "node-a", json!({}), critical.clone());
    world.pod("critical-daemon", "node-a", owner, critical);
    world.pass(15).await;
    world.delete("nodeclaims", "a");
    for (going, staying) in [
        ("plain", vec!["daemon", "critical", "critical-daemon"]),
        ("daemon", vec!["critical", "critical-daemon"]),
        ("critical", vec!["critical-daemon"]),
        ("critical-daemon", vec![]),
    ] {
        world.until(20, going, |w| w.pod_is_going(going)).await;
        world.pass(1).await;
        assert!(world.has_pod(going));
        assert!(
            staying.iter().all(|p| !world.pod_is_going(p)),
            "only {going} goes"
        );
    }
    world.until(60, "gone", |w| gone(w, "a")).await;
}

#[tokio::test(start_paused = true)]
async fn a_protected_pod_holds_the_drain_until_its_time_is_up() {
    let world = one_node(json!({})).await;
    let note = json!({"annotations": {"karpenter.sh/do-not-disrupt": "5m"}});
    world.pod("web", "node-a", note, json!({}));
    world.pass(60).await;
    world.delete("nodeclaims", "a");
    let took = world.until(400, "going", |w| w.pod_is_going("web")).await;
    assert!(
        (237..=241).contains(&took),
        "five minutes after its start: {took} s"
    );
    world.until(60, "gone", |w| gone(w, "a")).await;
}

#[tokio::test(start_paused = true)]
async fn the_grace_period_ends_every_hold_in_time() {
    let world = one_node(json!({"terminationGracePeriod": "10m"})).await;
    world.budget("held", 1);
    let note = json!({"annotations": {"karpenter.sh/do-not-disrupt": "true"}});
    world.pod(
        "protected",
        "node-a",
        note,
        json!({"terminationGracePeriodSeconds": 60}),
    );
    world.pod(
        "held",
        "node-a",
        json!({}),
        json!({"terminationGracePeriodSeconds": 30}),
    );
    world.pod(
        "slow",
        "node-a",
        json!({}),
        json!({"terminationGracePeriodSeconds": 1200}),
    );
    world.pass(15).await;
    world.delete("nodeclaims", "a");
    let took = world.until(5, "slow", |w| w.pod_is_going("slow")).await;
    assert!(
        took < 2,
        "what needs more than there is begins at once: {took} s"
    );
    let claim = world.get("nodeclaims", "a").unwrap();
    let deadline =
        &claim["metadata"]["annotations"]["karpenter.sh/nodeclaim-termination-timestamp"];
    assert!(deadline.is_string());
    world.pass(530).await;
    assert!(!world.pod_is_going("protected") && !world.pod_is_going("held"));
    world
        .until(15, "protected", |w| w.pod_is_going("protected"))
        .await;
    assert!(
        !world.pod_is_going("held"),
        "each begins its own grace before the deadline"
    );
    world.until(35, "held", |w| w.pod_is_going("held")).await;
    let took = world.until(90, "gone", |w| gone(w, "a")).await;
    assert!(took <= 60, "{took} s");
    world.context.events.flush().await;
    assert!(world.has_event(
        "a",
        "TerminationGracePeriodExpiring: All pods will be deleted by 2026-01-01T"
    ));
    assert!(
        world.has_event("protected", "Disrupted"),
        "{:?}",
        world.events("protected")
    );
}

#[tokio::test(start_paused = true)]
async fn a_lost_machine_is_collected_and_not_drained() {
    let world = one_node(json!({})).await;
    world.pod("web", "node-a", json!({}), json!({}));
    let claim = world.get("nodeclaims", "a").unwrap();
    world
        .cloud
        .lose(claim["status"]["providerID"].as_str().unwrap());
    world.pass(600).await;
    assert!(!gone(&world, "a"), "a ready node proves its machine");
    ready(&world.server, "node-a", "Unknown");
    world.until(125, "gone", |w| gone(w, "a")).await;
    assert_eq!(world.disrupted("garbage_collected", "spot"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn an_expired_claim_goes_to_the_second() {
    let world = one_node(json!({"expireAfter": "1h"})).await;
    let start = world.clock.wall();
    world.pass(3600 - 60).await;
    assert!(!gone(&world, "a"), "{start}");
    world
        .until(60, "deleted", |w| {
            !w.get("nodeclaims", "a").unwrap_or_default()["metadata"]["deletionTimestamp"].is_null()
        })
        .await;
    world.until(60, "gone", |w| gone(w, "a")).await;
    assert_eq!(world.disrupted("expired", "spot"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_crash_during_the_drain_changes_nothing() {
    let mut world = one_node(json!({})).await;
    world.budget("web", 1);
    world.pod("web", "node-a", json!({}), json!({}));
    world.pass(15).await;
    world.delete("nodeclaims", "a");
    world.pass(7).await;
    world.crash().await;
    world.pass(7).await;
    world.drop_budget("web");
    world.until(60, "gone", |w| gone(w, "a")).await;
    assert_eq!(world.cloud.running(), 0);
}

/// With slow answers every read is old by the time of the write: a Node that others write to without a pause must go
/// all the same, and what they put on it must stay.
#[tokio::test(start_paused = true)]
async fn a_node_that_others_keep_writing_to_goes_all_the_same() {
    let world = one_node(json!({})).await;
    let ours = "karpenter.sh/termination";
    let theirs = "example.com/theirs";
    let both = json!({"metadata": {"finalizers": [ours, theirs]}});
    world.patch("nodes", "node-a", both);
    world.delete("nodeclaims", "a");
    world
        .until(5, "tainted", |w| !w.taints("node-a").is_empty())
        .await;
    world.faults(ClientFaults {
        delayed: 1000,
        ..ClientFaults::default()
    });
    let server = world.server.clone();
    let others = tokio::spawn(async move {
        for round in 0_u64.. {
            let patch =
                json!({"metadata": {"annotations": {"example.com/round": round.to_string()}}});
            let kind = PatchKind::Merge;
            let answer = server.patch(gr("", "nodes"), None, "node-a", "", kind, patch);
            if answer.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let finalizers =
        |w: &World| w.get("nodes", "node-a").unwrap()["metadata"]["finalizers"].clone();
    world
        .until(60, "our finalizer goes", |w| {
            finalizers(w) == json!([theirs])
        })
        .await;
    world.faults(ClientFaults::default());
    world.patch("nodes", "node-a", json!({"metadata": {"finalizers": null}}));
    world.until(30, "gone", |w| gone(w, "a")).await;
    others.await.unwrap();
    assert_eq!(world.cloud.running(), 0);
    let labels = [("nodepool", "default"), ("zone", "z")];
    let terminated = world.metric("karpenter_nodes_terminated_total", &labels);
    assert_eq!(terminated, 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_claim_deleted_while_its_machine_is_bought_leaves_none_behind() {
    let world = World::start().await;
    world.pool(json!({}));
    world.claim("a", json!({}));
    world.pass(1).await;
    assert_eq!(world.cloud.running(), 1, "bought, and not told yet");
    world.delete("nodeclaims", "a");
    world
        .until(60, "gone", |w| w.get("nodeclaims", "a").is_none())
        .await;
    assert_eq!(world.cloud.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn volumes_are_detached_before_the_machine_ends() {
    let world = one_node(json!({"terminationGracePeriod": "10m"})).await;
    world.attach("pv-1", "node-a");
    world.pass(15).await;
    world.delete("nodeclaims", "a");
    world.pass(120).await;
    assert_eq!(world.condition("a", "Drained"), "True");
    assert_eq!(
        world.condition_field("a", "VolumesDetached", "reason"),
        "AwaitingVolumeDetachment"
    );
    assert_eq!(world.cloud.running(), 1);
    world.context.events.flush().await;
    assert!(world.has_event("node-a", "AwaitingVolumeDetachment"));
    world.detach("pv-1");
    let took = world.until(60, "gone", |w| gone(w, "a")).await;
    assert!(took <= 16, "{took} s");
}

#[tokio::test(start_paused = true)]
async fn volumes_are_not_waited_for_past_the_deadline() {
    let world = one_node(json!({"terminationGracePeriod": "2m"})).await;
    world.attach("pv-1", "node-a");
    world.pass(15).await;
    world.delete("nodeclaims", "a");
    let took = world.until(150, "gone", |w| gone(w, "a")).await;
    assert!((119..=136).contains(&took), "{took} s");
}

#[tokio::test(start_paused = true)]
async fn a_dead_node_is_not_drained() {
    let world = one_node(json!({})).await;
    let note = json!({"annotations": {"karpenter.sh/do-not-disrupt": "true"}});
    world.pod("web", "node-a", note, json!({}));
    world.pass(15).await;
    ready(&world.server, "node-a", "False");
    world.delete("nodeclaims", "a");
    world.pass(60).await;
    assert!(
        !gone(&world, "a"),
        "its machine is there, so the pod is heard"
    );
    let claim = world.get("nodeclaims", "a").unwrap();
    world
        .cloud
        .lose(claim["status"]["providerID"].as_str().unwrap());
    world.patch(
        "nodes",
        "node-a",
        json!({"metadata": {"labels": {"wake": "up"}}}),
    );
    world.until(10, "gone", |w| gone(w, "a")).await;
}

#[tokio::test(start_paused = true)]
async fn a_shared_machine_is_nobodys_to_end() {
    let world = one_node(json!({})).await;
    let id = world.get("nodeclaims", "a").unwrap()["status"]["providerID"].clone();
    world.claim("b", json!({}));
    world
        .until(5, "launched", |w| w.condition("b", "Launched") == "True")
        .await;
    let claims = karpenter_fake_kube::server::gr("karpenter.sh", "nodeclaims");
    let kind = karpenter_fake_kube::server::PatchKind::Merge;
    let patch = json!({"status": {"providerID": id}});
    world
        .server
        .patch(claims, None, "b", "status", kind, patch)
        .unwrap();
    world.pass(1).await;
    world.delete("nodes", "node-a");
    world
        .until(20, "finalized", |w| w.get("nodes", "node-a").is_none())
        .await;
    assert!(world.get("nodeclaims", "b").is_some());
}
