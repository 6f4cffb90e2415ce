//! Chunks of capacity buffers are planned for after every pod, and take nothing from one.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use karpenter_api::labels as l;
use karpenter_model::{ContainerDefaults, NodeView, Pod, Problem};
use serde_json::{Value, json};

use crate::world::{ladder, list, node, pod, pod_with, pool, problem, show, solve};

/// Chunks of a buffer, of a pod that looks like this.
fn chunks(count: usize, requests: Value, mut spec: Value, app: &str) -> Vec<Pod> {
    spec["containers"] = json!([{"name": "c", "resources": {"requests": requests}}]);
    let template = json!({"metadata": {"labels": {"app": app}}, "spec": spec});
    let buffer = ObjectMeta {
        name: Some("spare".into()),
        namespace: Some("default".into()),
        uid: Some("spare".into()),
        ..ObjectMeta::default()
    };
    let chunk = Pod::chunk(
        &serde_json::from_value(template).unwrap(),
        &buffer,
        &ContainerDefaults::default(),
    );
    (1..=count).map(|i| chunk.numbered(i)).collect()
}

fn held(name: &str, capacity: &str) -> NodeView {
    let labels = [
        (l::ZONE, "a"),
        (l::HOSTNAME, name),
        (l::CAPACITY_TYPE, "spot"),
        (l::ARCH, "amd64"),
    ];
    node(name, capacity, &labels)
}

fn with(pods: Vec<Pod>, nodes: Vec<NodeView>) -> Problem {
    let mut problem = problem(vec![pool("p", "", ladder())], pods);
    problem.nodes = nodes.into_iter().map(Arc::new).collect();
    problem
}

fn large() -> Value {
    json!({"cpu": "3", "memory": "1Gi"})
}

#[test]
fn a_small_pod_comes_before_a_large_chunk() {
    let mut pods = chunks(1, large(), json!({}), "web");
    pods.push(pod("small", "cpu=1 memory=1Gi"));
    let plan = solve(&with(pods, vec![held("n", "cpu=3 memory=64Gi")]));
    assert_eq!(plan.existing.len(), 1, "{}", show(&plan));
    assert_eq!(&*plan.existing[0].pods[0].name, "small");
    assert_eq!(plan.new_nodes.len(), 1);
    assert_eq!(&*plan.new_nodes[0].pods[0].name, "capacity-buffer-spare#1");
}

#[test]
fn a_pod_with_rules_comes_before_a_chunk_without() {
    let apart = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": l::HOSTNAME, "labelSelector": {"matchLabels": {"app": "db"}}}]}}});
    let mut ruled = pod_with("ruled", "cpu=3 memory=1Gi", apart);
    ruled.labels.insert("app".into(), "db".into());
    // The chunks are what the rule is about: they must not drive the pod away.
    let mut pods = chunks(2, large(), json!({}), "db");
    pods.push(ruled);
    let plan = solve(&with(pods, vec![held("n", "cpu=3 memory=64Gi")]));
    assert_eq!(&*plan.existing[0].pods[0].name, "ruled", "{}", show(&plan));
    let bought: usize = plan.new_nodes.iter().map(|n| n.pods.len()).sum();
    assert_eq!(bought, 2);
}

#[test]
fn no_machine_is_made_larger_for_what_fits_on_nodes() {
    let mut pods = chunks(2, json!({"cpu": "1", "memory": "1Gi"}), json!({}), "web");
    pods.push(pod("large", "cpu=8 memory=8Gi"));
    let plan = solve(&with(pods.clone(), vec![held("n", "cpu=2 memory=64Gi")]));
    assert_eq!(plan.existing[0].pods.len(), 2, "{}", show(&plan));
    let alone = solve(&with(pods.split_off(2), vec![]));
    assert_eq!(
        plan.new_nodes[0].cheapest.instance_type,
        alone.new_nodes[0].cheapest.instance_type
    );
}

#[test]
fn chunks_share_the_machine_of_a_pod_where_that_costs_less() {
    let mut pods = chunks(1, json!({"cpu": "1", "memory": "1Gi"}), json!({}), "web");
    pods.push(pod("web", "cpu=1 memory=1Gi"));
    let plan = solve(&with(pods, vec![]));
    assert_eq!(plan.new_nodes.len(), 1, "{}", show(&plan));
}

#[test]
fn under_a_limit_pods_get_what_there_is() {
    let mut pods = chunks(4, large(), json!({}), "web");
    pods.extend((0..2).map(|i| pod(&format!("web-{i}"), "cpu=3 memory=1Gi")));
    let mut limited = pool("p", "", ladder());
    limited.limits = Some(list("cpu=8"));
    let plan = solve(&problem(vec![limited], pods));
    let missing: Vec<_> = plan.unschedulable.iter().map(|u| &*u.pod.name).collect();
    assert!(
        missing
            .iter()
            .all(|name| name.starts_with("capacity-buffer-")),
        "{missing:?}"
    );
    assert!(missing.len() >= 2, "{}", show(&plan));
}

#[test]
fn chunks_keep_apart_if_their_pods_would() {
    let apart = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": l::HOSTNAME, "labelSelector": {"matchLabels": {"app": "web"}}}]}}});
    let plan = solve(&with(
        chunks(3, json!({"cpu": "1", "memory": "1Gi"}), apart, "web"),
        vec![held("n", "cpu=16 memory=64Gi")],
    ));
    assert_eq!(plan.existing[0].pods.len(), 1, "{}", show(&plan));
    assert_eq!(plan.new_nodes.len(), 2);
}
