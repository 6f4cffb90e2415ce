//! What capacity buffers come to, as the objects they refer to come, change and go.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // Panicking is how a test fails.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{LimitRange, PodTemplate};
use karpenter_api::CapacityBuffer;
use karpenter_model::PodKey;
use karpenter_state::{Fit, Kind, MAX_CHUNKS, Resolution, Store, Watched};
use rstest::rstest;
use serde_json::{Value, json};

fn meta(name: &str, version: u64) -> Value {
    json!({"name": name, "namespace": "d", "uid": name, "resourceVersion": version.to_string(), "generation": version})
}

fn buffer(version: u64, spec: Value) -> CapacityBuffer {
    serde_json::from_value(json!({"metadata": meta("b", version), "spec": spec})).unwrap()
}

fn pod_spec(cpu: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
}

fn template(version: u64, cpu: &str) -> PodTemplate {
    serde_json::from_value(json!({"metadata": meta("t", version), "template": pod_spec(cpu)}))
        .unwrap()
}

fn deployment(version: u64, replicas: Option<i32>, status: Value) -> Deployment {
    serde_json::from_value(json!({"metadata": meta("web", version), "status": status,
        "spec": {"replicas": replicas, "selector": {}, "template": pod_spec("2")}}))
    .unwrap()
}

fn key() -> PodKey {
    PodKey {
        namespace: "d".into(),
        name: "b".into(),
    }
}

fn reason(store: &Store) -> &'static str {
    match store.resolution(&key()).as_deref() {
        None => "gone",
        Some(Resolution::Ready(_)) => "Resolved",
        Some(Resolution::NotReady { reason, .. }) => reason,
    }
}

fn cpus(store: &Store) -> Vec<i64> {
    let all = store.virtual_pods();
    all.iter().map(|p| p.requests.get("cpu").millis()).collect()
}

#[rstest]
#[case::neither(json!({"replicas": 1}), "ResolutionFailed")]
#[case::both(json!({"podTemplateRef": {"name": "t"}, "scalableRef": {"kind": "Deployment", "name": "web"}}), "ResolutionFailed")]
#[case::no_template(json!({"podTemplateRef": {"name": "other"}, "replicas": 1}), "PodTemplateNotFound")]
#[case::no_workload(json!({"scalableRef": {"kind": "Deployment", "name": "other"}}), "ScalableRefNotFound")]
#[case::not_of_that_kind(json!({"scalableRef": {"kind": "StatefulSet", "name": "web"}}), "ScalableRefNotFound")]
#[case::no_such_kind(json!({"scalableRef": {"kind": "Job", "name": "web"}}), "ResolutionFailed")]
#[case::no_such_group(json!({"scalableRef": {"apiGroup": "argoproj.io", "kind": "Deployment", "name": "web"}}), "ResolutionFailed")]
#[case::template(json!({"podTemplateRef": {"name": "t"}, "replicas": 1}), "Resolved")]
#[case::workload(json!({"scalableRef": {"apiGroup": "apps", "kind": "Deployment", "name": "web"}, "percentage": 10}), "Resolved")]
fn a_buffer_is_ready_when_what_it_refers_to_is_there(#[case] spec: Value, #[case] expected: &str) {
    let store = Store::default();
    template(1, "1").apply(&store);
    deployment(2, Some(10), json!({})).apply(&store);
    buffer(3, spec).apply(&store);
    assert_eq!(reason(&store), expected);
    assert_eq!(store.has_virtual_pods(), expected == "Resolved");
}

#[test]
fn chunks_follow_the_template_and_its_limit_ranges() {
    let store = Store::default();
    buffer(1, json!({"podTemplateRef": {"name": "t"}, "replicas": 2})).apply(&store);
    assert_eq!(reason(&store), "PodTemplateNotFound");
    let before = store.planning_generation();
    template(2, "1").apply(&store);
    assert_eq!(cpus(&store), [1000, 1000]);
    assert!(store.planning_generation() > before);
    template(3, "3").apply(&store);
    assert_eq!(cpus(&store), [3000, 3000]);
    let Some(Resolution::Ready(chunks)) = store.resolution(&key()).as_deref().cloned() else {
        panic!("not ready");
    };
    assert_eq!(chunks.template, Some(("t".into(), Some(3))));
    let range: LimitRange = serde_json::from_value(json!({"metadata": meta("r", 4),
        "spec": {"limits": [{"type": "Container", "defaultRequest": {"memory": "1Gi"}}]}}))
    .unwrap();
    range.apply(&store);
    let memory = store.virtual_pods()[0].requests.get("memory");
    assert_eq!(memory.units(), 1 << 30);
    template(5, "3").delete(&store);
    assert_eq!(reason(&store), "PodTemplateNotFound");
    assert!(!store.has_virtual_pods());
}

#[test]
fn a_share_follows_the_workload_and_nothing_but_its_size_and_template() {
    let store = Store::default();
    let spec = json!({"scalableRef": {"kind": "Deployment", "name": "web"}, "percentage": 50});
    buffer(1, spec).apply(&store);
    deployment(2, Some(4), json!({})).apply(&store);
    assert_eq!(cpus(&store), [2000, 2000]);
    let before = (
        store.planning_generation(),
        store.resolution(&key()).unwrap(),
    );
    deployment(3, Some(4), json!({"readyReplicas": 4})).apply(&store);
    let after = (
        store.planning_generation(),
        store.resolution(&key()).unwrap(),
    );
    assert_eq!(after.0, before.0);
    assert!(Arc::ptr_eq(&after.1, &before.1), "worked out once");
    deployment(4, Some(7), json!({})).apply(&store);
    assert_eq!(cpus(&store).len(), 4);
    deployment(5, None, json!({})).apply(&store);
    assert_eq!(
        cpus(&store).len(),
        1,
        "a Deployment has one pod unless it says so"
    );
    Deployment::reset(vec![], "6", &store);
    assert_eq!(reason(&store), "ScalableRefNotFound");
}

#[rstest]
#[case::gone(|s: &Store| buffer(9, json!({})).delete(s))]
#[case::going(|s: &Store| {
    let mut going = buffer(9, json!({"podTemplateRef": {"name": "t"}, "replicas": 2}));
    going.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    going.apply(s);
})]
#[case::not_in_the_list(|s: &Store| CapacityBuffer::reset(vec![], "9", s))]
fn a_buffer_that_goes_has_no_chunks_from_then_on(#[case] end: fn(&Store)) {
    let store = Store::default();
    template(1, "1").apply(&store);
    buffer(2, json!({"podTemplateRef": {"name": "t"}, "replicas": 2})).apply(&store);
    let before = (
        store.planning_generation(),
        store.consolidation_generation(),
    );
    end(&store);
    assert!(!store.has_virtual_pods());
    assert!(store.planning_generation() > before.0);
    assert!(store.consolidation_generation() > before.1);
}

#[test]
fn a_typing_error_does_not_take_all_memory() {
    let store = Store::default();
    template(1, "1m").apply(&store);
    let spec = json!({"podTemplateRef": {"name": "t"}, "limits": {"cpu": "1G"}});
    buffer(2, spec).apply(&store);
    let Some(Resolution::Ready(chunks)) = store.resolution(&key()).as_deref().cloned() else {
        panic!("not ready");
    };
    assert_eq!(chunks.pods.len(), MAX_CHUNKS);
    assert_eq!(chunks.asked, Some(1_000_000_000_000));
}

#[test]
fn a_fit_is_kept_only_for_the_chunks_it_is_about() {
    let store = Store::default();
    template(1, "1").apply(&store);
    let spec = json!({"podTemplateRef": {"name": "t"}, "replicas": 1});
    buffer(2, spec.clone()).apply(&store);
    let planned = store.resolution(&key()).unwrap();
    let fit = Fit {
        there: 1,
        ..Fit::default()
    };
    let fits = || BTreeMap::from([(key(), (planned.clone(), fit.clone()))]);
    let mut changes = store.subscribe();
    let generation = store.planning_generation();
    store.set_buffer_fits(fits());
    store.set_buffer_fits(fits());
    assert_eq!(store.buffer_fit(&key()), Some(fit.clone()));
    assert_eq!(changes.try_recv().unwrap().kind, Kind::CapacityBuffer);
    assert!(changes.try_recv().is_err(), "told once");
    let mut written = buffer(3, spec);
    written.status.replicas = Some(1);
    written.apply(&store);
    assert_eq!(
        store.buffer_fit(&key()),
        Some(fit.clone()),
        "a status changes nothing"
    );
    assert_eq!(store.planning_generation(), generation);
    template(4, "2").apply(&store);
    assert_eq!(store.buffer_fit(&key()), None);
    store.set_buffer_fits(fits());
    assert_eq!(store.buffer_fit(&key()), None, "of a plan for other chunks");
}

#[tokio::test]
async fn a_store_waits_for_the_kinds_it_was_told_to() {
    let store = Store::waiting_for(Kind::OF_BUFFERS);
    assert!(!store.synced());
    CapacityBuffer::reset(vec![], "1", &store);
    assert!(store.listed(Kind::CapacityBuffer) && !store.listed(Kind::Deployment));
    Deployment::reset(vec![], "1", &store);
    assert!(store.listed(Kind::Deployment) && !store.listed(Kind::ReplicaSet));
}
