//! Effective requests by example (`scheduling.md` §3): pods as YAML-like JSON, the sum as text.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{LimitRange, Pod as RawPod, PodSpec, PodTemplateSpec};
use karpenter_model::{ContainerDefaults, Pod};
use rstest::rstest;
use serde_json::{Value, json};

fn read(spec: Value, status: Value) -> Pod {
    let raw: RawPod = serde_json::from_value(
        json!({"metadata": {"namespace": "d", "name": "p"}, "spec": spec, "status": status}),
    )
    .unwrap();
    Pod::try_from_k8s(&raw).unwrap()
}

fn text(list: &karpenter_model::ResourceList) -> String {
    list.to_raw()
        .into_iter()
        .filter(|(name, _)| name != "pods")
        .map(|(name, amount)| format!("{name} {}", amount.0))
        .collect::<Vec<_>>()
        .join(", ")
}

fn container(cpu: &str, memory: &str) -> Value {
    json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}})
}

fn sidecar(cpu: &str) -> Value {
    json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}})
}

#[rstest]
#[case::sum(json!({"containers": [container("1", "1Gi"), container("250m", "512Mi")]}), "cpu 1250m, memory 1536Mi")]
#[case::case_12_init_governs_where_larger(
    json!({"containers": [container("1", "1Gi")], "initContainers": [container("2", "512Mi")]}),
    "cpu 2, memory 1Gi"
)]
#[case::case_12_sidecar_before_init_adds_to_it(
    json!({"containers": [container("1", "1Gi")], "initContainers": [sidecar("500m"), container("2", "1Gi")]}),
    "cpu 2500m, memory 1Gi"
)]
#[case::case_12_sidecar_after_init_does_not(
    json!({"containers": [container("1", "1Gi")], "initContainers": [container("2", "1Gi"), sidecar("500m")]}),
    "cpu 2, memory 1Gi"
)]
#[case::sidecars_add_to_the_app(
    json!({"containers": [container("1", "1Gi")], "initContainers": [sidecar("500m")]}),
    "cpu 1500m, memory 1Gi"
)]
#[case::case_13_pod_level_overrides(
    json!({
        "containers": [container("1", "1Gi")],
        "resources": {"requests": {"cpu": "3", "ephemeral-storage": "9Gi"}}
    }),
    "cpu 3, memory 1Gi"
)]
#[case::case_15_overhead_adds(
    json!({"containers": [container("1", "1Gi")], "overhead": {"cpu": "100m", "memory": "64Mi"}}),
    "cpu 1100m, memory 1088Mi"
)]
#[case::case_14_zero_of_something_unknown(
    json!({"containers": [{"name": "c", "resources": {"requests": {"example.com/fpga": "0"}}}]}),
    "example.com/fpga 0"
)]
fn requests(#[case] spec: Value, #[case] expected: &str) {
    let pod = read(spec, json!({}));
    assert_eq!(text(&pod.requests), expected);
    assert_eq!(pod.requests.get("pods").units(), 1);
}

#[rstest]
#[case::growing(json!([]), "cpu 3")]
#[case::refused(json!([{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]), "cpu 2")]
#[case::waiting(json!([{"type": "PodResizePending", "status": "True", "reason": "Deferred"}]), "cpu 3")]
fn resize_in_place(#[case] conditions: Value, #[case] expected: &str) {
    let pod = read(
        json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "3"}}}]}),
        json!({
            "conditions": conditions,
            "containerStatuses": [{
                "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "resources": {"requests": {"cpu": "1"}}, "allocatedResources": {"cpu": "2"}
            }]
        }),
    );
    assert_eq!(text(&pod.requests), expected);
}

#[test]
fn limits_take_overhead_only_where_there_is_one() {
    let pod = read(
        json!({
            "containers": [{"name": "c", "resources": {"limits": {"memory": "1Gi"}}}],
            "overhead": {"cpu": "100m", "memory": "64Mi"}
        }),
        json!({}),
    );
    assert_eq!(text(&pod.limits), "memory 1088Mi");
    assert_eq!(text(&pod.requests), "cpu 100m, memory 64Mi");
}

#[test]
fn a_daemon_set_template_copies_limits_into_missing_requests() {
    let template: PodTemplateSpec = serde_json::from_value(json!({"spec": {
        "containers": [{"name": "c", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "200m"}}}],
        "initContainers": [{"name": "i", "resources": {"limits": {"cpu": "2"}}}]
    }}))
    .unwrap();
    let set: DaemonSet =
        serde_json::from_value(json!({"metadata": {"namespace": "kube-system", "name": "agent"}}))
            .unwrap();
    let pod = Pod::from_template(&template, &set, &ContainerDefaults::default());
    assert!(pod.is_daemon());
    assert_eq!(pod.key.to_string(), "kube-system/agent");
    assert_eq!(text(&pod.requests), "cpu 2, memory 1Gi");
}

#[rstest]
#[case::limits_are_requests_too(json!({"default": {"cpu": "2"}}), "cpu 2, memory 100Mi", "cpu 2")]
#[case::requests_alone(json!({"defaultRequest": {"cpu": "500m"}}), "cpu 500m, memory 100Mi", "")]
#[case::what_is_said_stays(json!({"default": {"memory": "1Gi"}, "defaultRequest": {"memory": "1Gi"}}), "memory 100Mi", "memory 1Gi")]
#[case::a_maximum_is_a_limit(json!({"max": {"cpu": "3"}}), "cpu 3, memory 100Mi", "cpu 3")]
#[case::a_minimum_is_a_request(json!({"min": {"cpu": "1"}, "max": {"memory": "1Gi"}}), "cpu 1, memory 100Mi", "memory 1Gi")]
fn a_limit_range_gives_what_containers_do_not_say(
    #[case] item: Value,
    #[case] requests: &str,
    #[case] limits: &str,
) {
    let mut spec: PodSpec = serde_json::from_value(json!({
        "containers": [{"name": "c", "resources": {"requests": {"memory": "100Mi"}}}],
        "initContainers": [{"name": "i", "resources": {"requests": {"memory": "100Mi"}}}]
    }))
    .unwrap();
    ContainerDefaults::of(&[limit_range("Container", item)]).admit(&mut spec);
    let raw = |spec: PodSpec| RawPod {
        spec: Some(spec),
        ..RawPod::default()
    };
    let pod = Pod::from_k8s(&raw(spec));
    assert_eq!(text(&pod.requests), requests);
    assert_eq!(text(&pod.limits), limits);
}

#[test]
fn of_two_limit_ranges_the_first_gives_and_other_types_give_nothing() {
    let mut spec: PodSpec = serde_json::from_value(json!({"containers": [{"name": "c"}]})).unwrap();
    ContainerDefaults::of(&[
        limit_range("Pod", json!({"max": {"memory": "9Gi"}})),
        limit_range("Container", json!({"defaultRequest": {"cpu": "1"}})),
        limit_range(
            "Container",
            json!({"defaultRequest": {"cpu": "7"}, "default": {"cpu": "7"}}),
        ),
    ])
    .admit(&mut spec);
    let pod = Pod::from_k8s(&RawPod {
        spec: Some(spec),
        ..RawPod::default()
    });
    assert_eq!(text(&pod.requests), "cpu 1");
    assert_eq!(text(&pod.limits), "cpu 7");
}

fn limit_range(kind: &str, mut item: Value) -> LimitRange {
    item["type"] = kind.into();
    serde_json::from_value(json!({"spec": {"limits": [item]}})).unwrap()
}

#[test]
fn an_unreadable_amount_is_named_and_no_pod_is_lost() {
    let raw: RawPod = serde_json::from_value(json!({
        "metadata": {"namespace": "d", "name": "p"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "two"}}}]}
    }))
    .unwrap();
    let error = Pod::try_from_k8s(&raw).unwrap_err().to_string();
    assert!(
        error.starts_with("pod d/p: resource cpu: \"two\""),
        "{error}"
    );
    let kept = Pod::from_k8s(&raw);
    assert!(kept.invalid.unwrap().contains("cpu"));
}
