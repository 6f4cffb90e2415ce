//! The cluster's topology spread: who gets it, and whom kube-scheduler would find it to be about.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // Panicking is how a test fails.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{
    Pod as RawPod, ReplicationController, Service, TopologySpreadConstraint,
};
use karpenter_model::{LabelRegistry, Pod, PodKey, Selector};
use karpenter_state::{Store, Watched};
use rstest::rstest;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn of<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn apply<T: DeserializeOwned + Watched>(store: &Store, value: Value) {
    of::<T>(value).apply(store);
}

/// A store in which pods are spread over zones unless they say otherwise.
fn store() -> Store {
    let store = Store::default();
    store.set_spread_defaults(vec![TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "topology.kubernetes.io/zone".to_owned(),
        when_unsatisfiable: "DoNotSchedule".to_owned(),
        ..TopologySpreadConstraint::default()
    }]);
    store
}

fn selecting(name: &str, selector: Value) -> Value {
    json!({"metadata": {"namespace": "d", "name": name}, "spec": {"selector": selector}})
}

fn workload(name: &str, selector: Value) -> Value {
    json!({"metadata": {"namespace": "d", "name": name},
        "spec": {"selector": selector, "serviceName": "s", "template": {}}})
}

/// A pod with labels `app: web, tier: front`, owned as told.
fn pod(owner: Option<(&str, &str)>) -> Value {
    let owners = owner.map(|(version, kind)| {
        json!([{"apiVersion": version, "kind": kind, "name": "owner", "uid": "o", "controller": true}])
    });
    json!({"metadata": {"namespace": "d", "name": "p", "uid": "p", "ownerReferences": owners,
            "labels": {"app": "web", "tier": "front"}},
        "spec": {"containers": []},
        "status": {"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}})
}

fn planned(store: &Store) -> Arc<Pod> {
    let pods = store.for_planning(store.provisionable_pods(), &LabelRegistry::default());
    assert_eq!(pods.len(), 1);
    pods[0].clone()
}

/// Whether the spread of the planned pod is about a pod with these labels; none if it has no spread.
fn is_about(store: &Store, labels: &[(&str, &str)]) -> Option<bool> {
    let pod = planned(store);
    let constraint = pod.spread.first()?;
    let labels = labels
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    let selector = Selector::from_k8s(constraint.label_selector.as_ref().unwrap());
    Some(selector.matches(&labels.collect()))
}

#[test]
fn a_pod_that_nothing_selects_is_planned_for_as_it_is() {
    let store = store();
    apply::<RawPod>(&store, pod(None));
    apply::<Service>(&store, selecting("other", json!({"app": "other"})));
    apply::<Service>(&store, selecting("all", json!({})));
    apply::<Service>(
        &store,
        json!({"metadata": {"namespace": "d", "name": "none"}, "spec": {}}),
    );
    apply::<Service>(
        &store,
        json!({"metadata": {"namespace": "e", "name": "web"}, "spec": {"selector": {"app": "web"}}}),
    );
    assert!(planned(&store).spread.is_empty());
}

#[test]
fn without_defaults_nobody_is_given_any() {
    let store = store();
    apply::<RawPod>(&store, pod(None));
    apply::<Service>(&store, selecting("web", json!({"app": "web"})));
    assert_eq!(planned(&store).spread.len(), 1);
    store.set_spread_defaults(Vec::new());
    assert!(planned(&store).spread.is_empty());
}

#[test]
fn a_spread_of_its_own_keeps_the_clusters_off() {
    let store = store();
    let mut own = pod(None);
    own["spec"]["topologySpreadConstraints"] =
        json!([{"maxSkew": 5, "topologyKey": "rack", "whenUnsatisfiable": "ScheduleAnyway"}]);
    apply::<RawPod>(&store, own);
    apply::<Service>(&store, selecting("web", json!({"app": "web"})));
    let pod = planned(&store);
    assert_eq!(pod.spread.len(), 1);
    assert_eq!(pod.spread[0].topology_key, "rack");
}

#[test]
fn what_services_select_counts_together() {
    let store = store();
    apply::<RawPod>(&store, pod(None));
    apply::<Service>(&store, selecting("web", json!({"app": "web"})));
    assert_eq!(is_about(&store, &[("app", "web")]), Some(true));
    apply::<Service>(&store, selecting("front", json!({"tier": "front"})));
    assert_eq!(is_about(&store, &[("app", "web")]), Some(false));
    assert_eq!(
        is_about(&store, &[("app", "web"), ("tier", "front")]),
        Some(true)
    );
}

#[rstest]
#[case::replica_set("apps/v1", "ReplicaSet", true)]
#[case::stateful_set("apps/v1", "StatefulSet", true)]
#[case::replication_controller("v1", "ReplicationController", true)]
#[case::of_another_group("example.com/v1", "ReplicaSet", false)]
#[case::job("batch/v1", "Job", false)]
fn what_its_controller_selects_counts(
    #[case] version: &str,
    #[case] kind: &str,
    #[case] counts: bool,
) {
    let store = store();
    apply::<RawPod>(&store, pod(Some((version, kind))));
    let by_labels = json!({"matchLabels": {"app": "web"},
        "matchExpressions": [{"key": "tier", "operator": "Exists"}]});
    match kind {
        "StatefulSet" => apply::<StatefulSet>(&store, workload("owner", by_labels)),
        "ReplicationController" => {
            let both = json!({"app": "web", "tier": "front"});
            apply::<ReplicationController>(&store, selecting("owner", both));
        }
        _ => apply::<ReplicaSet>(&store, workload("owner", by_labels)),
    }
    let about = is_about(&store, &[("app", "web"), ("tier", "front")]);
    assert_eq!(about, counts.then_some(true));
    assert_eq!(is_about(&store, &[("app", "web")]), counts.then_some(false));
}

/// Plans are made again when who is meant changes, and only then.
#[test]
fn a_change_of_whom_it_is_about_counts() {
    let store = store();
    apply::<RawPod>(&store, pod(None));
    let before = store.planning_generation();
    let mut service = selecting("web", json!({"app": "web"}));
    apply::<Service>(&store, service.clone());
    let after = store.planning_generation();
    assert_ne!(before, after);
    service["metadata"]["annotations"] = json!({"touched": "yes"});
    apply::<Service>(&store, service.clone());
    assert_eq!(store.planning_generation(), after);
    store.delete_service(&of(service));
    assert_ne!(store.planning_generation(), after);
    let key = PodKey {
        namespace: "d".into(),
        name: "p".into(),
    };
    assert!(
        store.pod(&key).unwrap().spread.is_empty(),
        "the pod itself stays as it is"
    );
}
