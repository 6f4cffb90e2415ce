//! Pods with resource claims (DRA): nobody allocates devices, so nothing is planned for them, by whichever setting.

use karpenter_model::Pod;
use rstest::rstest;
use serde_json::json;

use crate::world::{daemon, ladder, node, pod, pod_with, pool, problem, show, solve};

fn on_a_device(name: &str) -> Pod {
    let claims = json!({"resourceClaims": [{"name": "gpu", "resourceClaimName": "the-gpu"}]});
    pod_with(name, "cpu=1", claims)
}

#[rstest]
#[case::ignored(true, "--ignore-dra-requests)")]
#[case::not_ignored(false, "--ignore-dra-requests=false)")]
fn pods_with_claims_are_refused_and_the_rest_planned(#[case] ignore: bool, #[case] words: &str) {
    let mut asked = problem(
        vec![pool("p", "", ladder())],
        vec![on_a_device("a"), pod("b", "cpu=1")],
    );
    asked.options.ignore_dra = ignore;
    let plan = solve(&asked);
    assert_eq!(plan.new_nodes.len(), 1);
    assert_eq!(plan.unschedulable.len(), 1);
    let refused = &plan.unschedulable[0];
    assert_eq!(&*refused.pod.name, "a");
    assert!(
        refused.reason.contains("resource claims (DRA)"),
        "{}",
        refused.reason
    );
    assert!(refused.reason.contains(words), "{}", refused.reason);
}

#[test]
fn room_on_a_node_is_not_room_for_a_pod_with_claims() {
    let mut asked = problem(vec![], vec![on_a_device("a")]);
    asked.nodes = vec![std::sync::Arc::new(node("n", "cpu=4 memory=8Gi", &[]))];
    assert!(solve(&asked).existing.is_empty());
}

/// A container that uses a claim is enough, and so is one that only initializes.
#[rstest]
#[case::of_a_container(json!({"containers": [{"name": "c", "resources": {"claims": [{"name": "gpu"}]}}]}))]
#[case::of_an_init_container(json!({"containers": [], "initContainers": [{"name": "c", "resources": {"claims": [{"name": "gpu"}]}}]}))]
fn claims_are_seen_where_containers_use_them(#[case] spec: serde_json::Value) {
    let raw =
        serde_json::from_value(json!({"metadata": {"name": "a", "namespace": "d"}, "spec": spec}));
    assert!(Pod::from_k8s(&raw.unwrap()).has_resource_claims);
}

/// A DaemonSet whose pods are ignored takes no room; otherwise it does.
#[rstest]
#[case::ignored(true, "new p m2 a spot: 1 pods")]
#[case::not_ignored(false, "new p m4 a spot: 1 pods")]
fn daemons_with_claims_are_charged_unless_ignored(#[case] ignore: bool, #[case] expected: &str) {
    let mut asked = problem(vec![pool("p", "", ladder())], vec![pod("a", "cpu=1500m")]);
    let claims = json!({"resourceClaims": [{"name": "gpu", "resourceClaimName": "the-gpu"}]});
    asked.daemons = vec![daemon("driver", "cpu=1", claims)];
    asked.options.ignore_dra = ignore;
    assert_eq!(show(&solve(&asked)), expected);
}
