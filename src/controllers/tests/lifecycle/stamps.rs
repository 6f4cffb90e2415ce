//! What a claim gives its Node and what it does not, and what it notes of the pods there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use karpenter_api::NodeClaim;
use karpenter_cloud::{HookAnswer, RegistrationHook};
use karpenter_fake_kube::server::{PatchKind, gr};
use karpenter_runtime::Settings;
use serde_json::{Value, json};

use crate::world::World;

#[tokio::test(start_paused = true)]
async fn taints_are_left_to_the_kubelet_where_the_claim_says_so() {
    let world = World::start().await;
    let taint = |key: &str| json!([{"key": key, "value": "x", "effect": "NoSchedule"}]);
    let spec = json!({"taints": taint("team"), "startupTaints": taint("cni"), "resources": {"requests": {"cpu": "1"}}});
    let labels = json!({"labels": {"karpenter.sh/do-not-sync-taints": "true"}});
    world.standalone("a", labels, spec.clone());
    world.standalone("b", json!({}), spec);
    for claim in ["a", "b"] {
        world
            .until(60, "registered", |w| {
                w.condition(claim, "Registered") == "True"
            })
            .await;
    }
    assert_eq!(world.taints("node-a"), Vec::<String>::new());
    assert_eq!(world.taints("node-b"), ["team", "cni"]);
    world.pass(5).await;
    assert_eq!(world.condition("a", "Initialized"), "True");
    let lack = world.condition_field("b", "Initialized", "reason");
    assert_eq!(lack, "StartupTaintsExist");
}

/// `status.lastPodEventTime` of a claim.
fn stamp(world: &World, claim: &str) -> Value {
    let claim = world.get("nodeclaims", claim).unwrap();
    claim["status"]["lastPodEventTime"].clone()
}

#[tokio::test(start_paused = true)]
async fn pods_that_come_end_or_go_are_noted_and_nothing_else_is() {
    let world = World::start().await;
    world.pool(json!({"consolidateAfter": "Never"}));
    world.node("a", json!({"expireAfter": "Never"})).await;
    world.pass(60).await;
    assert_eq!(stamp(&world, "a"), Value::Null);
    let mut last = Value::Null;
    let moved = |what: &str, last: &mut Value, expected: bool| {
        let now = stamp(&world, "a");
        assert_eq!(now != *last, expected, "{what}: {last} -> {now}");
        *last = now;
    };
    let pods = gr("", "pods");
    world.pod("web", "node-a", json!({}), json!({}));
    world.pod(
        "job",
        "node-a",
        json!({}),
        json!({"restartPolicy": "Never"}),
    );
    world.pass(30).await;
    moved("bound", &mut last, true);
    let label = json!({"metadata": {"labels": {"seen": "yes"}}});
    let patched = world
        .server
        .patch(pods, Some("default"), "web", "", PatchKind::Merge, label);
    patched.unwrap();
    world.pass(30).await;
    moved("labelled", &mut last, false);
    let done = json!({"status": {"phase": "Succeeded"}});
    let patched = world.server.patch(
        pods,
        Some("default"),
        "job",
        "status",
        PatchKind::Merge,
        done,
    );
    patched.unwrap();
    world.pass(30).await;
    moved("completed", &mut last, true);
    world
        .server
        .delete(pods, Some("default"), "web", None)
        .unwrap();
    world.pass(30).await;
    moved("deleted", &mut last, true);
    let owner = json!([{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "d", "controller": true}]);
    world.pod(
        "daemon",
        "node-a",
        json!({"ownerReferences": owner}),
        json!({}),
    );
    world.pass(30).await;
    moved("of a DaemonSet", &mut last, false);
}

/// A hook that is done when it is told so, and then knows a label.
struct Hook {
    name: &'static str,
    done: Arc<AtomicBool>,
}

#[async_trait]
impl RegistrationHook for Hook {
    fn name(&self) -> &'static str {
        self.name
    }
    async fn registered(&self, _claim: &NodeClaim) -> HookAnswer {
        // Asked one after the other, two of them would take as long again.
        tokio::time::sleep(Duration::from_secs(2)).await;
        if self.done.load(Ordering::Relaxed) {
            HookAnswer::Done([(format!("test/{}", self.name), "yes".to_owned())].into())
        } else {
            HookAnswer::Pending(Duration::from_secs(3))
        }
    }
}

#[tokio::test(start_paused = true)]
async fn hooks_hold_a_registration_until_all_are_done() {
    let [one, two] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let hook = |name, done: &Arc<AtomicBool>| -> Arc<dyn RegistrationHook> {
        let done = done.clone();
        Arc::new(Hook { name, done })
    };
    let hooks = vec![hook("one", &one), hook("two", &two)];
    let world = World::with_hooks(Settings::default(), hooks).await;
    let spec = json!({"taints": [{"key": "team", "value": "x", "effect": "NoSchedule"}], "resources": {"requests": {"cpu": "1"}}});
    world.standalone("a", json!({}), spec);
    let waits = |w: &World| w.condition_field("a", "Registered", "message");
    let took = world
        .until(60, "asked", |w| waits(w).contains("hooks"))
        .await;
    assert!(took < 36, "both are asked at once: {took} s");
    assert_eq!(waits(&world), "waiting for registration hooks: one, two");
    let reason = world.condition_field("a", "Registered", "reason");
    assert_eq!(reason, "RegistrationHookPending");
    assert_eq!(
        world.taints("node-a"),
        ["karpenter.sh/unregistered", "team"]
    );
    one.store(true, Ordering::Relaxed);
    world
        .until(10, "one is done", |w| {
            waits(w) == "waiting for registration hooks: two"
        })
        .await;
    assert_eq!(world.condition("a", "Registered"), "Unknown");
    two.store(true, Ordering::Relaxed);
    world
        .until(10, "both are done", |w| {
            w.condition("a", "Registered") == "True"
        })
        .await;
    assert_eq!(world.taints("node-a"), ["team"]);
    let node = world.get("nodes", "node-a").unwrap();
    for label in ["test/one", "test/two", "karpenter.sh/registered"] {
        assert!(node["metadata"]["labels"][label].is_string(), "{label}");
    }
}

/// An agent that is quick takes its startup taint off before the Node has registered, and does so once.
#[tokio::test(start_paused = true)]
async fn a_startup_taint_that_was_taken_off_early_is_not_put_back() {
    let done = Arc::new(AtomicBool::new(false));
    let hook = Hook {
        name: "slow",
        done: done.clone(),
    };
    let world = World::with_hooks(Settings::default(), vec![Arc::new(hook)]).await;
    let taint = |key: &str| json!([{"key": key, "value": "x", "effect": "NoSchedule"}]);
    let spec = json!({"taints": taint("team"), "startupTaints": taint("cni"), "resources": {"requests": {"cpu": "1"}}});
    world.standalone("a", json!({}), spec);
    let all = ["karpenter.sh/unregistered", "team", "cni"];
    world
        .until(60, "synced", |w| w.taints("node-a") == all)
        .await;
    let left =
        json!({"spec": {"taints": [{"key": "karpenter.sh/unregistered", "effect": "NoExecute"}]}});
    world.patch("nodes", "node-a", left);
    world.pass(10).await;
    assert_eq!(
        world.taints("node-a"),
        ["karpenter.sh/unregistered", "team"],
        "what is not a startup taint is the claim's to say"
    );
    done.store(true, Ordering::Relaxed);
    world
        .until(60, "initialized", |w| {
            w.condition("a", "Initialized") == "True"
        })
        .await;
    assert_eq!(world.taints("node-a"), ["team"]);
}
