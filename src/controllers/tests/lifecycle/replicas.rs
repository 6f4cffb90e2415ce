//! Static NodePools are held at their size, within their limit of nodes, whatever goes wrong.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use karpenter_fake_kube::flaky::ClientFaults;
use serde_json::{Value, json};

use crate::world::{Launch, World};

fn names(world: &World) -> BTreeSet<String> {
    world.claims().into_keys().collect()
}

/// Claims that are not on their way out.
fn staying(world: &World) -> BTreeSet<String> {
    let all = world.claims().into_iter();
    all.filter(|(_, c)| c["metadata"]["deletionTimestamp"].is_null())
        .map(|(name, _)| name)
        .collect()
}

fn initialized(world: &World) -> usize {
    staying(world)
        .iter()
        .filter(|n| world.condition(n, "Initialized") == "True")
        .count()
}

fn of_team(world: &World, team: &str) -> usize {
    let all = world.claims();
    all.values()
        .filter(|c| c["metadata"]["labels"]["team"] == team)
        .count()
}

fn set(world: &World, spec: Value) {
    world.patch("nodepools", "default", json!({ "spec": spec }));
}

/// Makes every machine of the pool one that is not asked for any more.
fn recolour(world: &World, team: &str) {
    set(
        world,
        json!({"template": {"metadata": {"labels": {"team": team}}}}),
    );
}

/// Waits like [`World::until`], and sees to it that there are never more than `limit` claims meanwhile.
async fn until_within(world: &World, seconds: u64, limit: usize, done: impl Fn(&World) -> bool) {
    let start = world.clock.now();
    while !done(world) {
        let there = world.claims().len();
        assert!(there <= limit, "{there} claims, at most {limit} allowed");
        let took = world.clock.now().duration_since(start);
        assert!(took < Duration::from_secs(seconds), "not in {seconds} s");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_is_held_at_its_size() {
    let world = World::with_static_pools().await;
    world.static_pool(3, json!({}));
    let took = world
        .until(60, "three nodes", |w| initialized(w) == 3)
        .await;
    assert!(took <= 33, "{took} s: created at once and together");
    let first = names(&world);
    assert_eq!(first.len(), 3);
    let created = [
        ("reason", "provisioned"),
        ("nodepool", "default"),
        ("min_values_relaxed", "false"),
    ];
    assert_eq!(
        world.metric("karpenter_nodeclaims_created_total", &created),
        3.0
    );

    let gone = first.first().unwrap();
    world.delete("nodeclaims", gone);
    world.until(5, "replaced", |w| staying(w).len() == 3).await;
    assert!(!staying(&world).contains(gone));

    set(&world, json!({"replicas": 5}));
    world.until(60, "grown", |w| initialized(w) == 5).await;
    let version = world.version();
    world.pass(3600).await;
    assert_eq!(world.version(), version, "what is as wanted is left alone");

    set(&world, json!({"replicas": 0}));
    world
        .until(60, "gone", |w| {
            w.claims().is_empty() && w.cloud.running() == 0
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn claims_carry_the_template_and_nothing_else() {
    let world = World::with_static_pools().await;
    let class = json!({"group": "test.karpenter.sh", "kind": "TestNodeClass", "name": "plain"});
    let template = json!({
        "metadata": {"labels": {"team": "red"}, "annotations": {"note": "kept"}},
        "spec": {
            "requirements": [
                {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64", "arm64"]},
                {"key": "rack", "operator": "In", "values": ["r1"]},
            ],
            "taints": [{"key": "own", "effect": "NoSchedule"}],
            "startupTaints": [{"key": "cni", "effect": "NoExecute"}],
            "expireAfter": "24h", "terminationGracePeriod": "5m", "nodeClassRef": class,
        },
    });
    world.static_pool(1, json!({ "template": template }));
    world.until(5, "created", |w| w.claims().len() == 1).await;
    let claims = world.claims();
    let (name, claim) = claims.first_key_value().unwrap();
    assert!(name.starts_with("default-"), "{name}");
    let (meta, spec) = (&claim["metadata"], &claim["spec"]);
    assert_eq!(meta["labels"]["team"], "red");
    assert_eq!(meta["labels"]["rack"], "r1");
    assert_eq!(meta["labels"]["karpenter.sh/nodepool"], "default");
    assert_eq!(meta["annotations"]["note"], "kept");
    let relaxed = &meta["annotations"]["karpenter.sh/nodeclaim-min-values-relaxed"];
    assert!(relaxed.is_null(), "{relaxed}");
    assert!(!meta["annotations"]["karpenter.sh/nodepool-hash"].is_null());
    assert_eq!(meta["ownerReferences"][0]["name"], "default");
    assert_eq!(meta["ownerReferences"][0]["blockOwnerDeletion"], true);
    assert_eq!(
        spec["resources"]["requests"].as_object().map(|r| r.len()),
        None
    );
    let keys: BTreeSet<&str> = spec["requirements"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["key"].as_str().unwrap())
        .collect();
    assert!(keys.contains("kubernetes.io/arch") && keys.contains("rack"));
    assert!(
        !keys.contains("node.kubernetes.io/instance-type"),
        "the provider chooses: {keys:?}"
    );
    assert_eq!(spec["taints"], template["spec"]["taints"]);
    assert_eq!(spec["startupTaints"], template["spec"]["startupTaints"]);
    assert_eq!(spec["expireAfter"], "24h");
    assert_eq!(spec["terminationGracePeriod"], "5m");
    assert_eq!(spec["nodeClassRef"], class);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_created_unless_the_gate_is_open_and_the_pool_ready() {
    let world = World::start().await;
    world.static_pool(3, json!({}));
    world.pass(600).await;
    assert_eq!(world.claims().len(), 0, "the gate is shut");

    let world = World::with_static_pools().await;
    let class = json!({"group": "test.karpenter.sh", "kind": "TestNodeClass", "name": "missing"});
    let template = json!({"spec": {"requirements": [], "nodeClassRef": class}});
    world.static_pool(3, json!({ "template": template }));
    world.pass(600).await;
    assert_eq!(world.claims().len(), 0, "the NodeClass is missing");
    set(
        &world,
        json!({"template": {"spec": {"nodeClassRef": {"name": "plain"}}}}),
    );
    world.until(5, "created", |w| w.claims().len() == 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_shrinks_by_what_is_missed_least() {
    let world = World::with_static_pools().await;
    world.static_pool(4, json!({}));
    world.until(60, "nodes", |w| initialized(w) == 4).await;
    let all: Vec<String> = names(&world).into_iter().collect();
    let [guarded, dear, empty, cheap] = all.as_slice() else {
        panic!("{all:?}");
    };
    let node = |claim: &String| format!("node-{claim}");
    let protect = json!({"annotations": {"karpenter.sh/do-not-disrupt": "true"}});
    world.pod("guarded", &node(guarded), protect, json!({}));
    world.pod("dear-a", &node(dear), json!({}), json!({}));
    world.pod("dear-b", &node(dear), json!({}), json!({}));
    world.pod("cheap", &node(cheap), json!({}), json!({}));
    let daemon = json!({"ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet",
        "name": "ds", "uid": "ds", "controller": true}]});
    world.pod("daemon", &node(empty), daemon, json!({}));
    world.pass(30).await;
    let mut left: BTreeSet<String> = all.iter().cloned().collect();
    for (replicas, goes) in [(3, empty), (2, cheap), (1, dear), (0, guarded)] {
        set(&world, json!({"replicas": replicas}));
        world.pass(2).await;
        left.remove(goes);
        assert_eq!(staying(&world), left, "at {replicas}");
    }
    // A wish of the owner still lets pods go in peace: this one's protection holds the drain.
    world.pass(300).await;
    assert!(world.has_pod("guarded") && !world.has_pod("cheap"));
}

#[tokio::test(start_paused = true)]
async fn a_machine_is_not_taken_for_empty_because_the_watch_of_pods_is_late() {
    let world = World::with_static_pools().await;
    world.static_pool(3, json!({}));
    world.until(60, "nodes", |w| initialized(w) == 3).await;
    let all: Vec<String> = names(&world).into_iter().collect();
    world.hear_of_no_pods();
    // Of three that are alike the first would go, and then the second.
    for (pod, claim) in [("a", &all[0]), ("b", &all[1])] {
        world.pod(pod, &format!("node-{claim}"), json!({}), json!({}));
    }
    world.pass(1).await;
    let pods = world.context.state.pods_on(&format!("node-{}", all[0]));
    assert!(pods.is_empty(), "the watch has told nothing");
    set(&world, json!({"replicas": 2}));
    world.pass(2).await;
    assert_eq!(staying(&world), all[..2].iter().cloned().collect());
    world.pass(60).await;
    assert!(world.has_pod("a") && world.has_pod("b"));
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_nodes_holds_while_everything_changes() {
    let world = World::with_static_pools().await;
    // Requests overtake each other, and answers come later than events.
    world.faults(ClientFaults {
        delayed: 800,
        ..ClientFaults::default()
    });
    world.answers.slow.store(true, Ordering::Relaxed);
    world.static_pool(6, json!({"limits": {"nodes": "4"}}));
    until_within(&world, 60, 4, |w| initialized(w) == 4).await;
    world.pass(120).await;
    assert_eq!(world.claims().len(), 4);
    // Raised, shrunk, grown and recoloured, each before the one before has come to rest.
    set(&world, json!({"limits": {"nodes": "5"}}));
    until_within(&world, 60, 5, |w| w.claims().len() == 5).await;
    for (replicas, team) in [(1, "blue"), (9, "green"), (2, "red"), (9, "blue")] {
        set(&world, json!({ "replicas": replicas }));
        recolour(&world, team);
        let end = world.clock.now() + Duration::from_secs(7);
        until_within(&world, 10, 5, |w| w.clock.now() > end).await;
    }
    set(&world, json!({"replicas": 4}));
    until_within(&world, 1200, 5, |w| {
        initialized(w) == 4 && w.claims().len() == 4 && of_team(w, "blue") == 4
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_makes_no_machine_too_many() {
    let mut world = World::with_static_pools().await;
    world.faults(ClientFaults {
        failed_after: 300,
        failed_before: 100,
        conflicts: 100,
        watches_late: 1000,
        ..ClientFaults::default()
    });
    // A watch suffers from what it was opened under.
    world.crash().await;
    world.static_pool(20, json!({"limits": {"nodes": "20"}}));
    until_within(&world, 600, 20, |w| w.claims().len() == 20).await;
    let end = world.clock.now() + Duration::from_secs(300);
    until_within(&world, 600, 20, |w| w.clock.now() > end).await;
    world.faults(ClientFaults::default());
    until_within(&world, 600, 20, |w| initialized(w) == 20).await;
}

#[tokio::test(start_paused = true)]
async fn drift_replaces_all_at_once_when_nothing_limits_it() {
    let world = World::with_static_pools().await;
    world.static_pool(3, json!({}));
    world.until(60, "nodes", |w| initialized(w) == 3).await;
    let old = names(&world);
    recolour(&world, "blue");
    world
        .until(5, "replacements", |w| of_team(w, "blue") == 3)
        .await;
    assert!(
        staying(&world).is_superset(&old),
        "nothing goes before what replaces it is ready"
    );
    world
        .until(120, "replaced", |w| {
            initialized(w) == 3 && w.claims().len() == 3 && of_team(w, "blue") == 3
        })
        .await;
    assert_eq!(world.disrupted("drifted", "spot"), 3.0);
    let labels = [
        ("decision", "replace"),
        ("reason", "drifted"),
        ("consolidation_type", ""),
    ];
    let decisions = "karpenter_voluntary_disruption_decisions_total";
    assert_eq!(world.metric(decisions, &labels), 3.0);
    world.pass(600).await;
    assert_eq!(of_team(&world, "blue"), 3, "and that was it");
    assert_eq!(world.claims().len(), 3);
}

/// Claims that are there, and of them those that are being replaced and still can run pods.
fn there_and_replaced(world: &World) -> (usize, usize) {
    let all = names(world);
    let is = |name: &String, kind: &str| world.condition(name, kind) == "True";
    let replaced = all
        .iter()
        .filter(|n| is(n, "DisruptionReason") && !is(n, "InstanceTerminating"));
    (all.len(), replaced.count())
}

#[tokio::test(start_paused = true)]
async fn drift_keeps_to_budgets_and_limits() {
    let budget = |nodes: &str| json!({"consolidateAfter": "0s", "budgets": [{"nodes": nodes}]});
    for (spec, most_there, most_replaced) in [
        // A machine that is ending counts against the limit, but not against budgets any more.
        (json!({"disruption": budget("1")}), 6, 1),
        (json!({"disruption": budget("2")}), 8, 2),
        (json!({"limits": {"nodes": "5"}}), 5, 1),
        (json!({"limits": {"nodes": "6"}}), 6, 2),
    ] {
        let world = World::with_static_pools().await;
        world.static_pool(4, spec.clone());
        world.until(60, "nodes", |w| initialized(w) == 4).await;
        recolour(&world, "blue");
        let mut seen = (0, 0);
        while of_team(&world, "red") > 0 {
            let (there, replaced) = there_and_replaced(&world);
            seen = (seen.0.max(there), seen.1.max(replaced));
            assert!(world.clock.wall() < "2026-01-01T00:20:00Z".parse().unwrap());
            world.pass(1).await;
        }
        assert_eq!(seen, (most_there, most_replaced), "{spec}");
        world.pass(60).await;
        assert_eq!(of_team(&world, "blue"), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_replacement_is_not_taken_for_one_too_many() {
    let world = World::with_static_pools().await;
    world.static_pool(2, json!({}));
    world.until(60, "nodes", |w| initialized(w) == 2).await;
    // The watch tells of a replacement before the answer to its creation is there.
    world.answers.slow.store(true, Ordering::Relaxed);
    recolour(&world, "blue");
    until_within(&world, 120, 4, |w| {
        initialized(w) == 2 && w.claims().len() == 2 && of_team(w, "blue") == 2
    })
    .await;
    assert_eq!(world.cloud.created.lock().len(), 4, "none in vain");
}

#[tokio::test(start_paused = true)]
async fn drift_without_room_for_a_replacement_says_so() {
    let world = World::with_static_pools().await;
    world.static_pool(2, json!({"limits": {"nodes": "2"}}));
    world.until(60, "nodes", |w| initialized(w) == 2).await;
    recolour(&world, "blue");
    world.pass(600).await;
    assert_eq!(of_team(&world, "red"), 2);
    world.context.events.flush().await;
    let first = names(&world).first().unwrap().clone();
    let text = "DisruptionBlocked: Its NodePool's limit of nodes leaves no room for a replacement";
    assert!(world.has_event(&first, text), "{:?}", world.events(&first));
    set(&world, json!({"limits": {"nodes": "3"}}));
    until_within(&world, 300, 3, |w| {
        of_team(w, "blue") == 2 && w.claims().len() == 2
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_replacement_that_never_comes_changes_nothing() {
    let world = World::with_static_pools().await;
    world.static_pool(
        2,
        json!({"disruption": {"consolidateAfter": "0s", "budgets": [{"nodes": "1"}]}}),
    );
    world.until(60, "nodes", |w| initialized(w) == 2).await;
    let old = names(&world);
    *world.cloud.launch.lock() = Launch::NeverJoins;
    recolour(&world, "blue");
    world.until(5, "begun", |w| w.claims().len() == 3).await;
    // The command is given up after ten minutes; the machine it has left is the one too many.
    world.pass(590).await;
    assert!(staying(&world).is_superset(&old));
    *world.cloud.launch.lock() = Launch::Joins;
    world
        .until(300, "replaced", |w| {
            of_team(w, "blue") == 2 && w.claims().len() == 2 && initialized(w) == 2
        })
        .await;
    assert_eq!(world.cloud.running(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_leaves_by_itself_while_it_is_replaced_is_not_told_to_be_disrupted() {
    for by_hand in [false, true] {
        let world = World::with_static_pools().await;
        world.static_pool(1, json!({}));
        world.until(60, "a node", |w| initialized(w) == 1).await;
        let old = names(&world).first().unwrap().clone();
        recolour(&world, "blue");
        world
            .until(5, "a replacement", |w| of_team(w, "blue") == 1)
            .await;
        // Its drain takes longer than the replacement.
        let guard = json!({"annotations": {"karpenter.sh/do-not-disrupt": "true"}});
        world.pod("held", &format!("node-{old}"), guard, json!({}));
        if by_hand {
            world.delete("nodeclaims", &old);
        }
        world
            .until(60, "replaced", |w| {
                initialized(w) == 1 && !staying(w).contains(&old)
            })
            .await;
        world.pass(30).await;
        world.context.events.flush().await;
        let told = world.has_event(&old, "DisruptionTerminating");
        assert_eq!(told, !by_hand, "{:?}", world.events(&old));
        let counted = world.disrupted("drifted", "spot");
        assert_eq!(counted, if by_hand { 0.0 } else { 1.0 });
        assert!(world.has_pod("held"), "it was still there to be told of");
    }
}

#[tokio::test(start_paused = true)]
async fn a_controller_killed_in_the_middle_leaves_the_size_right() {
    let mut world = World::with_static_pools().await;
    world.static_pool(3, json!({"limits": {"nodes": "5"}}));
    for wait in [1, 2, 40] {
        world.pass(wait).await;
        world.crash().await;
    }
    until_within(&world, 120, 5, |w| initialized(w) == 3).await;
    assert_eq!(world.claims().len(), 3);
    recolour(&world, "blue");
    for wait in [1, 2, 10, 25, 3, 3] {
        world.pass(wait).await;
        assert!(world.claims().len() <= 5);
        world.crash().await;
    }
    until_within(&world, 300, 5, |w| {
        of_team(w, "blue") == 3 && w.claims().len() == 3 && initialized(w) == 3
    })
    .await;
    assert_eq!(world.cloud.running(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_is_sold_out_is_asked_for_ever_more_rarely() {
    let world = World::with_static_pools().await;
    *world.cloud.launch.lock() = Launch::SoldOut;
    world.static_pool(2, json!({}));
    world.pass(600).await;
    let asked = world.cloud.created.lock().len();
    assert!(
        (20..=40).contains(&asked),
        "{asked} launches in ten minutes"
    );
    *world.cloud.launch.lock() = Launch::Joins;
    world.until(120, "nodes", |w| initialized(w) == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_shrank_is_not_taken_for_one_that_cannot_launch() {
    let world = World::with_static_pools().await;
    world.static_pool(0, json!({}));
    // Claims that stay without a machine until somebody looks into it.
    *world.cloud.launch.lock() = Launch::Unauthorized;
    for _ in 0..6 {
        set(&world, json!({"replicas": 3}));
        world.pass(5).await;
        set(&world, json!({"replicas": 0}));
        world.pass(5).await;
    }
    world.until(60, "gone", |w| w.claims().is_empty()).await;
    set(&world, json!({"replicas": 3}));
    world.until(1, "created", |w| staying(w).len() == 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_goes_buys_nothing_more() {
    let world = World::with_static_pools().await;
    world.static_pool(2, json!({}));
    world.until(60, "nodes", |w| initialized(w) == 2).await;
    world.delete("nodepools", "default");
    // The collector of the cluster, which is not part of this world.
    for name in names(&world) {
        world.delete("nodeclaims", &name);
    }
    until_within(&world, 120, 2, |w| w.claims().is_empty()).await;
    world.pass(120).await;
    assert_eq!(world.cloud.running(), 0);
    assert_eq!(world.cloud.created.lock().len(), 2);
}
