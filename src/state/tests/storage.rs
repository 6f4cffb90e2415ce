//! Storage objects in the state: pods get their claims looked up, nodes know what is attached, changes are noticed.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // Panicking is how a test fails.

use std::collections::BTreeSet;
use std::sync::Arc;

use karpenter_model::{LabelRegistry, NodeView, Pod};
use karpenter_state::{Store, Watched};
use rstest::rstest;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const EBS: &str = "ebs.csi.aws.com";

fn of<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn apply<T: DeserializeOwned + Watched>(store: &Store, value: Value) {
    of::<T>(value).apply(store);
}

type RawPod = k8s_openapi::api::core::v1::Pod;
type Node = k8s_openapi::api::core::v1::Node;
type VolumeClaim = k8s_openapi::api::core::v1::PersistentVolumeClaim;
type Volume = k8s_openapi::api::core::v1::PersistentVolume;
type Class = k8s_openapi::api::storage::v1::StorageClass;
type CsiNode = k8s_openapi::api::storage::v1::CSINode;

fn pod(name: &str, claim: &str, node: Option<&str>) -> Value {
    let reason = node.is_none().then_some("Unschedulable");
    json!({"metadata": {"namespace": "d", "name": name, "uid": name},
        "spec": {"nodeName": node, "containers": [],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]},
        "status": {"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": reason}]}})
}

fn node(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"node.kubernetes.io/instance-type": "m", "karpenter.sh/initialized": "true"}},
        "spec": {"providerID": format!("x:///{name}")}, "status": {"capacity": {"cpu": "4"}, "allocatable": {"cpu": "4"}}})
}

fn limited(name: &str, count: u32) -> Value {
    json!({"metadata": {"name": name}, "spec": {"drivers": [
        {"name": EBS, "nodeID": "i", "allocatable": {"count": count}}]}})
}

fn bound(claim: &str, volume: &str) -> Value {
    json!({"metadata": {"namespace": "d", "name": claim, "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"volumeName": volume}})
}

fn volume(name: &str, claim: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "claimRef": {"namespace": "d", "name": claim},
        "csi": {"driver": EBS, "volumeHandle": "v"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a"]}]}]}}}})
}

fn waiting(store: &Store) -> Arc<Pod> {
    let all = store.for_planning(store.provisionable_pods(), &LabelRegistry::default());
    all.into_iter().next().unwrap()
}

fn refusal(store: &Store) -> Option<String> {
    let refusal = waiting(store).refusal(&LabelRegistry::default());
    refusal.map(|r| r.to_string())
}

fn view(store: &Store, name: &str) -> Arc<NodeView> {
    let all = store.problem_nodes(&BTreeSet::new());
    all.into_iter().find(|n| &*n.name == name).unwrap()
}

/// Limit and claims of a node.
fn room(store: &Store, name: &str) -> (Option<usize>, Vec<String>) {
    let view = view(store, name);
    let Some(room) = view.volumes.as_deref() else {
        return (None, Vec::new());
    };
    let used = room.used.get(EBS).into_iter().flatten();
    (
        room.limits.get(EBS).copied(),
        used.map(ToString::to_string).collect(),
    )
}

#[test]
fn a_pod_is_refused_until_its_claim_can_be_planned_with() {
    let store = Store::default();
    apply::<RawPod>(&store, pod("p", "data", None));
    let before = store.planning_generation();
    assert_eq!(
        refusal(&store).unwrap(),
        "PersistentVolumeClaim d/data: it does not exist"
    );
    apply::<VolumeClaim>(&store, bound("data", "pv"));
    let claimed = store.planning_generation();
    assert!(claimed > before, "the claim makes plans differ");
    assert_eq!(
        refusal(&store).unwrap(),
        "PersistentVolumeClaim d/data: its PersistentVolume pv does not exist"
    );
    apply::<Volume>(&store, volume("pv", "data"));
    assert!(store.planning_generation() > claimed, "so does the volume");
    assert_eq!(refusal(&store), None);
    let storage = waiting(&store).storage.clone().unwrap();
    assert_eq!(
        storage.alternatives[0].to_specs()[0].key,
        "topology.kubernetes.io/zone"
    );
}

#[test]
fn a_class_that_appears_makes_plans_differ_where_it_is_used() {
    let store = Store::default();
    let class = |name: &str| json!({"metadata": {"name": name}, "provisioner": EBS, "volumeBindingMode": "WaitForFirstConsumer"});
    apply::<Class>(&store, class("unused"));
    apply::<RawPod>(&store, pod("p", "data", None));
    apply::<VolumeClaim>(
        &store,
        json!({"metadata": {"namespace": "d", "name": "data"}, "spec": {"storageClassName": "fast"}}),
    );
    assert!(
        refusal(&store)
            .unwrap()
            .contains("StorageClass fast does not exist")
    );
    let before = store.planning_generation();
    apply::<Class>(&store, class("fast"));
    assert!(store.planning_generation() > before);
    assert_eq!(refusal(&store), None);
}

#[rstest]
#[case::not_of_a_pod(|s: &Store| apply::<VolumeClaim>(s, bound("other", "pv")))]
#[case::the_same_again(|s: &Store| {
    let mut again = bound("data", "pv");
    again["status"] = json!({"phase": "Bound"});
    apply::<VolumeClaim>(s, again);
})]
fn claims_that_tell_nothing_new_leave_plans_alone(#[case] change: fn(&Store)) {
    let store = Store::default();
    apply::<RawPod>(&store, pod("p", "data", None));
    apply::<VolumeClaim>(&store, bound("data", "pv"));
    let before = store.planning_generation();
    change(&store);
    assert_eq!(store.planning_generation(), before);
}

#[test]
fn a_node_knows_its_limit_and_what_is_attached_whatever_comes_first() {
    let store = Store::default();
    apply::<Node>(&store, node("n"));
    apply::<RawPod>(&store, pod("p", "data", Some("n")));
    assert_eq!(room(&store, "n"), (None, vec![]));
    apply::<CsiNode>(&store, limited("n", 25));
    assert_eq!(room(&store, "n"), (Some(25), vec![]));
    apply::<VolumeClaim>(&store, bound("data", "pv"));
    assert_eq!(room(&store, "n"), (Some(25), vec![]), "of which driver?");
    apply::<Volume>(&store, volume("pv", "data"));
    assert_eq!(room(&store, "n"), (Some(25), vec!["d/data".to_owned()]));
    of::<RawPod>(pod("p", "data", Some("n"))).delete(&store);
    assert_eq!(room(&store, "n"), (Some(25), vec![]));
}

#[test]
fn a_node_that_has_not_told_its_limit_is_expected_to_have_that_of_its_type() {
    let store = Store::default();
    apply::<Node>(&store, node("told"));
    apply::<Node>(&store, node("young"));
    apply::<CsiNode>(&store, limited("told", 25));
    assert!(store.volume_limits().is_empty(), "nobody asks");
    assert_eq!(room(&store, "young").0, None);
    apply::<RawPod>(&store, pod("p", "data", None));
    assert_eq!(room(&store, "young").0, Some(25));
    assert_eq!(store.volume_limits()["m"][EBS], 25);
    apply::<CsiNode>(&store, limited("young", 27));
    assert_eq!(room(&store, "young").0, Some(27));
    of::<CsiNode>(limited("told", 25)).delete(&store);
    assert_eq!(store.volume_limits()["m"][EBS], 27);
    assert_eq!(room(&store, "told").0, Some(27));
}
