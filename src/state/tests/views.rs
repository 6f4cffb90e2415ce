//! What scheduling sees of nodes and claims, and what is kept in memory only: marks, nominations, plans, generations.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // Panicking is how a test fails.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{LimitRange, Node, Pod};
use karpenter_api::NodeClaim;
use karpenter_model::{NodeView, PodKey};
use karpenter_state::{Changed, Kind, Store};
use rstest::rstest;
use serde_json::{Value, json};

fn merge(into: &mut Value, patch: Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (k, v) in patch {
                if v.is_null() {
                    into.remove(&k);
                } else {
                    merge(into.entry(k).or_insert(Value::Null), v);
                }
            }
        }
        (into, patch) => *into = patch,
    }
}

fn claim(patch: Value) -> NodeClaim {
    let mut v = json!({
        "metadata": {"name": "c", "resourceVersion": "1", "labels": {"karpenter.sh/nodepool": "p", "from": "claim"}},
        "spec": {"nodeClassRef": {"group": "g", "kind": "k", "name": "n"}, "requirements": [],
            "taints": [{"key": "lasting", "effect": "NoSchedule"}], "startupTaints": [{"key": "startup", "effect": "NoExecute"}],
            "resources": {"requests": {"cpu": "1500m"}}},
        "status": {"providerID": "x:///1", "capacity": {"cpu": "4", "gpu": "1"}, "allocatable": {"cpu": "3900m", "gpu": "1"}},
    });
    merge(&mut v, patch);
    serde_json::from_value(v).unwrap()
}

fn node(patch: Value) -> Node {
    let mut v = json!({
        "metadata": {"name": "n", "resourceVersion": "1", "labels": {"from": "node", "karpenter.sh/nodepool": "p", "node.kubernetes.io/instance-type": "m"}},
        "spec": {"providerID": "x:///1", "taints": [
            {"key": "lasting", "effect": "NoSchedule"}, {"key": "startup", "effect": "NoExecute"},
            {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}, {"key": "other", "effect": "NoSchedule"}]},
        "status": {"capacity": {"cpu": "4", "gpu": "0"}, "allocatable": {"cpu": "3800m"}},
    });
    merge(&mut v, patch);
    serde_json::from_value(v).unwrap()
}

fn labels(registered: bool, initialized: bool) -> Value {
    json!({"metadata": {"labels": {"karpenter.sh/registered": registered.to_string(), "karpenter.sh/initialized": initialized.to_string()}}})
}

fn pod(name: &str, version: u32, patch: Value) -> Pod {
    let mut v = json!({
        "metadata": {"name": name, "namespace": "d", "uid": format!("uid-{name}"), "resourceVersion": version.to_string()},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "500m"}}, "ports": [{"containerPort": 80, "hostPort": 8080}]}]},
        "status": {"phase": "Pending"},
    });
    merge(&mut v, patch);
    serde_json::from_value(v).unwrap()
}

fn key(name: &str) -> PodKey {
    PodKey {
        namespace: "d".into(),
        name: name.into(),
    }
}

fn only(store: &Store) -> NodeView {
    let views = store.node_views();
    assert_eq!(views.len(), 1, "{views:#?}");
    (*views[0]).clone()
}

fn amount(list: &karpenter_model::ResourceList, name: &str) -> i64 {
    list.get(name).millis()
}

fn taints(view: &NodeView) -> Vec<&str> {
    view.taints.iter().map(|t| t.key.as_str()).collect()
}

/// `(labels, taints that count, name, gpu)` as a machine comes up.
#[rstest]
#[case::no_node(None, "claim", &["lasting"], "c", 1000)]
#[case::joined(Some((false, false)), "claim", &["lasting"], "n", 1000)]
#[case::registered(Some((true, false)), "node", &["lasting", "other"], "n", 1000)]
#[case::initialized(Some((true, true)), "node", &["lasting", "startup", "node.kubernetes.io/not-ready", "other"], "n", 0)]
fn case_26_a_claim_becomes_a_node(
    #[case] state: Option<(bool, bool)>,
    #[case] from: &str,
    #[case] expected_taints: &[&str],
    #[case] name: &str,
    #[case] gpu: i64,
) {
    let store = Store::default();
    store.apply_node_claim(claim(json!({})));
    if let Some((registered, initialized)) = state {
        store.apply_node(node(labels(registered, initialized)));
    }
    let view = only(&store);
    assert_eq!(view.labels["from"], from);
    assert_eq!(taints(&view), expected_taints);
    assert_eq!(&*view.name, name);
    assert_eq!(
        amount(&view.allocatable, "gpu"),
        gpu,
        "zero until its plugin registers, so the claim's word counts"
    );
    assert_eq!(amount(&view.capacity, "nodes"), 1000);
    assert!(view.managed);
}

#[test]
fn case_61_an_unlaunched_claim_counts_with_what_was_asked_for() {
    let store = Store::default();
    store.apply_node_claim(claim(json!({"status": null})));
    assert_eq!(amount(&only(&store).available, "cpu"), 1500);
    assert_eq!(amount(&store.usage("p"), "cpu"), 1500);
    assert_eq!(amount(&store.usage("p"), "nodes"), 1000);
}

#[test]
fn a_node_that_is_not_ours_counts_as_it_is_and_ours_waits_for_its_identity() {
    let store = Store::default();
    store.apply_node(node(
        json!({"metadata": {"labels": {"karpenter.sh/nodepool": null}}}),
    ));
    let view = only(&store);
    assert!(view.initialized && !view.managed);
    assert_eq!(taints(&view).len(), 4, "nothing is forgiven");
    let store = Store::default();
    store.apply_node(node(json!({"spec": {"providerID": ""}})));
    assert!(store.node_views().is_empty());
}

#[test]
fn pods_take_room_ports_and_daemons_are_told_apart() {
    let store = Store::default();
    store.apply_node_claim(claim(json!({})));
    store.apply_node(node(labels(true, true)));
    let on = json!({"spec": {"nodeName": "n"}});
    store.apply_pod(pod("a", 1, on.clone()));
    let mut daemon = on.clone();
    merge(
        &mut daemon,
        json!({"metadata": {"ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "ds", "uid": "u", "controller": true}]}}),
    );
    store.apply_pod(pod("b", 1, daemon));
    let mut done = on;
    merge(&mut done, json!({"status": {"phase": "Succeeded"}}));
    store.apply_pod(pod("c", 1, done));
    let view = only(&store);
    assert_eq!(amount(&view.available, "cpu"), 3800 - 1000);
    assert_eq!(amount(&view.daemon_requests, "cpu"), 500);
    assert_eq!((view.pods.len(), view.host_ports.len()), (2, 2));
    store.delete_pod(&pod("a", 2, json!({})));
    assert_eq!(amount(&only(&store).available, "cpu"), 3800 - 500);
}

#[rstest]
#[case::marked(|s: &Store| { s.mark_for_deletion("c"); })]
#[case::deleting(|s: &Store| s.apply_node_claim(claim(json!({"metadata": {"resourceVersion": "9", "deletionTimestamp": "2026-01-01T00:00:00Z"}}))))]
#[case::terminating(|s: &Store| s.apply_node_claim(claim(json!({"metadata": {"resourceVersion": "9"}, "status": {"conditions": [
    {"type": "InstanceTerminating", "status": "True", "reason": "x", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}))))]
fn what_leaves_takes_no_pods_and_does_not_count(#[case] leave: fn(&Store)) {
    let store = Store::default();
    store.apply_node_claim(claim(json!({})));
    store.apply_node(node(labels(true, true)));
    store.apply_pod(pod("a", 1, json!({"spec": {"nodeName": "n"}})));
    assert_eq!(store.problem_nodes(&BTreeSet::new()).len(), 1);
    assert!(
        store.problem_nodes(&["c".into()].into()).is_empty(),
        "left out on request"
    );
    let (consolidation, planning) = (
        store.consolidation_generation(),
        store.planning_generation(),
    );
    leave(&store);
    assert!(store.is_leaving("c"));
    assert!(store.problem_nodes(&BTreeSet::new()).is_empty());
    assert!(store.usage("p").is_empty());
    assert_eq!(
        store
            .leaving_nodes()
            .iter()
            .map(|v| v.pods.len())
            .sum::<usize>(),
        1
    );
    assert!(store.consolidation_generation() > consolidation);
    assert!(store.planning_generation() > planning);
}

#[test]
fn case_62_a_claim_that_is_marked_and_then_deleted_is_taken_off_once() {
    let store = Store::default();
    store.apply_node_claim(claim(json!({})));
    let other = json!({"metadata": {"name": "other"}, "status": {"providerID": "x:///2"}});
    store.apply_node_claim(claim(other));
    let cpu = |store: &Store| amount(&store.usage("p"), "cpu");
    let towards_limits = |store: &Store| amount(&store.usage_with_marked("p"), "cpu");
    assert_eq!(cpu(&store), 8000);
    assert!(store.marked_nodes().is_empty());
    store.mark_for_deletion("c");
    assert_eq!(cpu(&store), 4000);
    assert_eq!(towards_limits(&store), 8000, "it may stay yet");
    assert_eq!(store.marked_nodes().len(), 1);
    let deleting =
        json!({"metadata": {"resourceVersion": "2", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
    store.apply_node_claim(claim(deleting));
    assert_eq!(cpu(&store), 4000);
    assert_eq!(towards_limits(&store), 4000, "it was told to go");
    assert!(store.marked_nodes().is_empty());
    store.forget_node_claim("c");
    assert_eq!(cpu(&store), 4000);
}

#[test]
fn case_63_a_pod_of_the_same_name_on_another_node_takes_its_room_there() {
    let store = Store::default();
    let of = |name: &str, id: &str| {
        let mut patch = labels(true, true);
        merge(
            &mut patch,
            json!({"metadata": {"name": name}, "spec": {"providerID": id}}),
        );
        node(patch)
    };
    store.apply_node(of("n", "x:///1"));
    store.apply_node(of("m", "x:///2"));
    let used = |store: &Store, name: &str| {
        let views = store.node_views();
        let view = views.iter().find(|v| &*v.name == name).unwrap();
        amount(&view.allocatable, "cpu") - amount(&view.available, "cpu")
    };
    let on = |node: &str, uid: &str, version| {
        pod(
            "a",
            version,
            json!({"metadata": {"uid": uid}, "spec": {"nodeName": node}}),
        )
    };
    store.apply_pod(on("n", "first", 1));
    assert_eq!((used(&store, "n"), used(&store, "m")), (500, 0));
    // Neither its deletion nor the moment without it was seen.
    store.apply_pod(on("m", "second", 3));
    assert_eq!((used(&store, "n"), used(&store, "m")), (0, 500));
    store.delete_pod(&on("n", "first", 2));
    assert_eq!(
        (used(&store, "n"), used(&store, "m")),
        (0, 500),
        "the late news is about the other"
    );
}

/// Upstream also forgets what it has found every five minutes; here only what may change an answer asks again.
#[test]
fn case_64_an_edited_pool_and_new_overlays_ask_for_another_look() {
    let store = Store::default();
    let pool = |version: u32, generation: i64| -> karpenter_api::NodePool {
        let meta =
            json!({"name": "p", "resourceVersion": version.to_string(), "generation": generation});
        serde_json::from_value(json!({"metadata": meta})).unwrap()
    };
    let overlay = |version: u32, price: &str| -> karpenter_api::NodeOverlay {
        let meta = json!({"name": "o", "resourceVersion": version.to_string()});
        serde_json::from_value(
            json!({"metadata": meta, "spec": {"requirements": [], "price": price}}),
        )
        .unwrap()
    };
    let mut last = store.consolidation_generation();
    let mut asks = |expected: bool, what: &str| {
        let now = store.consolidation_generation();
        assert_eq!(now > last, expected, "{what}");
        last = now;
    };
    store.apply_node_pool(pool(1, 1));
    asks(true, "a new pool");
    store.apply_node_pool(pool(2, 1));
    asks(false, "a status");
    store.apply_node_pool(pool(3, 2));
    asks(true, "an edited pool");
    store.apply_node_overlay(overlay(4, "1"));
    asks(true, "a new overlay");
    store.apply_node_overlay(overlay(5, "1"));
    asks(false, "a status of an overlay");
    store.apply_node_overlay(overlay(6, "2"));
    asks(true, "another price");
    store.delete_node_overlay(&overlay(7, "2"));
    asks(true, "an overlay less");
    store.catalog_changed();
    asks(true, "other prices of the provider");
}

#[test]
fn an_unknown_claim_has_left() {
    let store = Store::default();
    assert!(store.is_leaving("c"));
    store.apply_node_claim(claim(json!({})));
    assert!(!store.is_leaving("c"));
    assert!(store.mark_for_deletion("c") && !store.mark_for_deletion("c"));
    store.unmark_for_deletion("c");
    assert!(!store.is_leaving("c"));
    store.forget_node_claim("c");
    store.apply_node_claim(claim(json!({})));
    assert!(
        store.node_claim("c").is_none(),
        "what was forgotten does not come back as it was"
    );
}

#[test]
fn heartbeats_do_not_count_as_changes_of_plans() {
    let store = Store::default();
    store.apply_node_claim(claim(json!({})));
    store.apply_node(node(labels(true, true)));
    let before = (
        store.planning_generation(),
        store.consolidation_generation(),
    );
    let mut beat = labels(true, true);
    merge(
        &mut beat,
        json!({"metadata": {"resourceVersion": "2"}, "status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]}}),
    );
    store.apply_node(node(beat.clone()));
    assert_eq!(
        (
            store.planning_generation(),
            store.consolidation_generation()
        ),
        before
    );
    merge(
        &mut beat,
        json!({"metadata": {"resourceVersion": "3"}, "status": {"allocatable": {"cpu": "1"}}}),
    );
    store.apply_node(node(beat));
    assert!(store.planning_generation() > before.0);
}

#[test]
fn a_plan_holds_until_launch_and_carries_its_pods() {
    let store = Store::default();
    store.apply_node_claim(claim(json!({"status": null})));
    store.apply_pod(pod("a", 1, json!({})));
    store.plan("c", [key("a"), key("not-there")]);
    assert_eq!(store.planned_claim(&key("a")).as_deref(), Some("c"));
    assert_eq!(store.planned_claim(&key("not-there")), None);
    assert_eq!(amount(&only(&store).available, "cpu"), 1000);
    store.apply_node_claim(claim(json!({"metadata": {"resourceVersion": "2"}})));
    assert_eq!(
        store.planned_claim(&key("a")),
        None,
        "launched: the machine itself is planned with"
    );
    assert_eq!(amount(&only(&store).available, "cpu"), 3900);
}

#[rstest]
#[case::claim_gone(|s: &Store| s.forget_node_claim("c"))]
#[case::claim_deleting(|s: &Store| s.apply_node_claim(claim(json!({"status": null, "metadata": {"resourceVersion": "2", "deletionTimestamp": "2026-01-01T00:00:00Z"}}))))]
#[case::pod_gone(|s: &Store| s.delete_pod(&pod("a", 2, json!({}))))]
#[case::pod_bound(|s: &Store| s.apply_pod(pod("a", 2, json!({"spec": {"nodeName": "elsewhere"}}))))]
#[case::pod_replaced(|s: &Store| s.apply_pod(pod("a", 2, json!({"metadata": {"uid": "another"}}))))]
fn a_plan_ends(#[case] end: fn(&Store)) {
    let store = Store::default();
    store.apply_node_claim(claim(json!({"status": null})));
    store.apply_pod(pod("a", 1, json!({})));
    store.plan("c", [key("a")]);
    end(&store);
    assert_eq!(store.planned_claim(&key("a")), None);
}

#[test]
fn nominations_last_until_their_latest_end() {
    let store = Store::default();
    let at = |s: i64| Timestamp::from_second(s).unwrap();
    store.nominate("n", at(100));
    store.nominate("n", at(50));
    assert!(store.is_nominated("n", at(99)));
    assert!(!store.is_nominated("n", at(100)));
}

#[test]
fn provisionable_pods_are_those_the_scheduler_gave_up_on() {
    let store = Store::default();
    let unschedulable = json!({"status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}});
    store.apply_pod(pod("new", 1, json!({})));
    store.apply_pod(pod("waits", 1, unschedulable.clone()));
    let mut deleting = unschedulable;
    merge(
        &mut deleting,
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
    );
    store.apply_pod(pod("deleted", 1, deleting));
    let names: Vec<_> = store
        .provisionable_pods()
        .iter()
        .map(|p| p.key.name.to_string())
        .collect();
    assert_eq!(names, ["waits"]);
    store.apply_pod(pod("waits", 2, json!({"spec": {"nodeName": "n"}})));
    assert!(store.provisionable_pods().is_empty());
}

#[test]
fn a_daemon_set_is_its_newest_pod_unpinned_or_its_template() {
    let store = Store::default();
    let set: DaemonSet = serde_json::from_value(json!({
        "metadata": {"name": "ds", "namespace": "d", "uid": "u", "resourceVersion": "1"},
        "spec": {"selector": {}, "template": {"metadata": {"labels": {"app": "ds"}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "200m"}}}]}}},
    }))
    .unwrap();
    store.apply_daemon_set(set);
    let cpu = |s: &Store| amount(&s.daemons()[0].requests, "cpu");
    assert_eq!(cpu(&store), 200, "limits stand in for requests");
    for (name, created, request) in [
        ("old", "2026-01-01T00:00:00Z", "300m"),
        ("new", "2026-01-02T00:00:00Z", "400m"),
    ] {
        store.apply_pod(pod(name, 1, json!({
            "metadata": {"creationTimestamp": created, "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "ds", "uid": "u", "controller": true}]},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": request}}}],
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]}}}},
        })));
    }
    assert_eq!(cpu(&store), 400, "webhooks may have changed it");
    let required = store.daemons()[0]
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.clone())
        .and_then(|n| n.required_during_scheduling_ignored_during_execution);
    assert!(required.is_none(), "the pin to its node is gone");
    store.delete_pod(&pod("new", 2, json!({})));
    assert_eq!(cpu(&store), 300, "the newest that is left");
    store.delete_pod(&pod("old", 2, json!({})));
    assert_eq!(cpu(&store), 200, "none is left");
}

#[test]
fn limit_ranges_of_its_namespace_fill_a_daemon_sets_template() {
    let store = Store::default();
    let set: DaemonSet = serde_json::from_value(json!({
        "metadata": {"name": "ds", "namespace": "d", "uid": "u", "resourceVersion": "1"},
        "spec": {"selector": {}, "template": {"spec": {"containers": [{"name": "c"}]}}},
    }))
    .unwrap();
    store.apply_daemon_set(set);
    let range = |namespace: &str, version: &str, cpu: &str| -> LimitRange {
        serde_json::from_value(json!({
            "metadata": {"name": "r", "namespace": namespace, "resourceVersion": version},
            "spec": {"limits": [{"type": "Container", "default": {"cpu": cpu}}]},
        }))
        .unwrap()
    };
    let cpu = |s: &Store| amount(&s.daemons()[0].requests, "cpu");
    store.apply_limit_range(range("elsewhere", "2", "4"));
    assert_eq!(cpu(&store), 0);
    let before = store.planning_generation();
    store.apply_limit_range(range("d", "3", "2"));
    assert_eq!(cpu(&store), 2000, "before any of its pods was seen");
    let after = store.planning_generation();
    assert!(after > before);
    store.apply_limit_range(range("d", "4", "2"));
    assert_eq!(store.planning_generation(), after, "it says the same");
    store.delete_limit_range(&range("d", "5", "2"));
    assert_eq!(cpu(&store), 0);
}

#[tokio::test]
async fn case_61_subscribers_hear_every_change_and_lists_make_it_synced() {
    let store = Store::default();
    let mut changes = store.subscribe();
    store.apply_node_claim(claim(json!({})));
    store.apply_node_claim(claim(json!({})));
    store.reset_node_claims(vec![], "5");
    let of = |deleted| Changed {
        kind: Kind::NodeClaim,
        namespace: "".into(),
        name: "c".into(),
        deleted,
    };
    assert_eq!(changes.try_recv().unwrap(), of(false));
    assert_eq!(
        changes.try_recv().unwrap(),
        of(true),
        "what is old is no change"
    );
    assert!(changes.try_recv().is_err());
    store.reset_pods(vec![], "5");
    store.reset_nodes(vec![], "5");
    store.reset_node_pools(vec![], "5");
    store.reset_node_classes(vec![], "5");
    store.reset_daemon_sets(vec![], "5");
    store.reset_budgets(vec![], "5");
    store.reset_volume_claims(vec![], "5");
    store.reset_volumes(vec![], "5");
    store.reset_storage_classes(vec![], "5");
    store.reset_csi_nodes(vec![], "5");
    store.reset_namespaces(vec![], "5");
    assert!(!store.synced(), "one list is missing");
    store.reset_volume_attachments(vec![], "5");
    assert!(store.synced());
    store.wait_synced().await;
}

fn named_claim(name: &str, patch: Value) -> NodeClaim {
    let mut all =
        json!({"metadata": {"name": name}, "status": {"providerID": format!("x:///{name}")}});
    merge(&mut all, patch);
    claim(all)
}

#[test]
fn claims_are_counted_by_how_they_stand() {
    let store = Store::default();
    for name in ["a", "b", "c", "d"] {
        store.apply_node_claim(named_claim(name, json!({})));
    }
    let other = json!({"metadata": {"labels": {"karpenter.sh/nodepool": "other"}}});
    store.apply_node_claim(named_claim("e", other));
    store.expect_disruption("a");
    store.mark_for_deletion("b");
    let deleted =
        json!({"metadata": {"resourceVersion": "2", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
    store.apply_node_claim(named_claim("c", deleted.clone()));
    let count = store.count_claims("p");
    let stand = (count.active, count.pending_disruption, count.deleting);
    assert_eq!(stand, (1, 2, 1));
    assert_eq!((count.all(), count.holding()), (4, 3));
    let names = |claims: Vec<std::sync::Arc<NodeClaim>>| -> Vec<String> {
        let names = claims.iter().map(|c| c.metadata.name.clone());
        names.map(Option::unwrap).collect()
    };
    assert_eq!(names(store.active_claims("p")), ["d"]);
    // A claim that goes is gone for good, whatever was expected of it.
    store.apply_node_claim(named_claim("a", deleted));
    store.unexpect_disruption("b");
    assert_eq!(
        store.count_claims("p").pending_disruption,
        1,
        "still marked"
    );
    store.unmark_for_deletion("b");
    assert_eq!(names(store.active_claims("p")), ["b", "d"]);
    for name in ["a", "b", "c", "d"] {
        store.forget_node_claim(name);
    }
    assert_eq!(store.count_claims("p").all(), 0);
    assert_eq!(store.count_claims("other").active, 1);
}

#[test]
fn a_claim_whose_disruption_is_expected_does_not_leave() {
    let store = Store::default();
    store.apply_node_claim(claim(json!({})));
    let mut changes = store.subscribe();
    store.expect_disruption("c");
    store.expect_disruption("unknown");
    assert!(!store.is_leaving("c"), "its pods are not planned for yet");
    assert!(changes.try_recv().is_err());
    store.unexpect_disruption("c");
    store.unexpect_disruption("c");
    store.unexpect_disruption("unknown");
    assert_eq!(&*changes.try_recv().unwrap().name, "c");
    assert!(changes.try_recv().is_err(), "told once");
}

#[test]
fn places_are_kept_within_the_limit_until_they_are_given_back() {
    let store = std::sync::Arc::new(Store::default());
    store.apply_node_claim(named_claim("a", json!({})));
    let first = store.reserve_node("p", Some(3));
    let second = store.reserve_node("p", Some(3));
    assert!(first.is_some() && second.is_some());
    assert!(store.reserve_node("p", Some(3)).is_none());
    assert!(
        store.reserve_node("other", Some(1)).is_some(),
        "another pool"
    );
    assert_eq!(
        store.count_claims("other").reserved,
        0,
        "given back at once"
    );
    assert!(store.reserve_node("p", None).is_some(), "no limit, no end");
    store.apply_node_claim(named_claim("b", json!({})));
    drop(first);
    assert_eq!(store.count_claims("p").reserved, 1);
    assert!(
        store.reserve_node("p", Some(3)).is_none(),
        "two and a place"
    );
    drop(second);
    assert!(store.reserve_node("p", Some(3)).is_some());
    assert!(store.reserve_node("p", Some(0)).is_none());
}

#[test]
fn every_version_of_a_node_is_told_even_if_nobody_reads_it_in_time() {
    let store = Store::default();
    let mut versions = store.subscribe_nodes();
    for version in ["2", "3", "3", "1"] {
        store.apply_node(node(json!({"metadata": {"resourceVersion": version}})));
    }
    let mut seen = Vec::new();
    while let Ok(node) = versions.try_recv() {
        seen.push(node.metadata.resource_version.clone().unwrap());
    }
    assert_eq!(
        seen,
        ["2", "3"],
        "in order, the stale and the known left out"
    );
}
