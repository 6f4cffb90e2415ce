//! Pod predicates, node demands and refusals by example (`scheduling.md` §1.4, §4, §6.2), budgets in the way.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod as RawPod;
use karpenter_model::disruption::{Pdb, PdbMode, check_pdbs};
use karpenter_model::pod::{Owner, Phase};
use karpenter_model::{DoNotDisrupt, LabelRegistry, Pod};
use rstest::rstest;
use serde_json::{Value, json};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn pod() -> Pod {
    Pod {
        unschedulable: true,
        started: Some(at(0)),
        ..Pod::default()
    }
}

fn read(value: Value) -> Pod {
    let raw: RawPod = serde_json::from_value(value).unwrap();
    Pod::from_k8s(&raw)
}

#[test]
fn reads_what_decisions_need() {
    let pod = read(json!({
        "metadata": {
            "namespace": "d", "name": "web-1", "uid": "u", "labels": {"app": "web"},
            "annotations": {
                "karpenter.sh/do-not-disrupt": "true", "x.karpenter.sh/y": "1",
                "controller.kubernetes.io/pod-deletion-cost": "7", "other.io/z": "gone"
            },
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "o", "controller": true}]
        },
        "spec": {
            "priority": 5, "nodeName": "n",
            "containers": [{"name": "c", "ports": [
                {"containerPort": 80, "hostPort": 8080}, {"containerPort": 81},
                {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "10.0.0.1"}
            ]}],
            "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": "data-web-1"}},
                {"name": "tmp", "ephemeral": {}}, {"name": "cfg", "configMap": {"name": "c"}}
            ]
        },
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    }));
    assert_eq!(
        (pod.owner, pod.phase, pod.ready),
        (Owner::StatefulSet, Phase::Running, true)
    );
    assert_eq!(pod.controller.unwrap().1.as_ref(), "web");
    assert_eq!(pod.annotations.len(), 3);
    let ports: Vec<_> = pod
        .host_ports
        .iter()
        .map(|p| format!("{}:{}/{}", p.ip, p.port, p.protocol))
        .collect();
    assert_eq!(ports, ["0.0.0.0:8080/TCP", "10.0.0.1:53/UDP"]);
    let claims: Vec<_> = pod.volumes.iter().map(|v| v.claim.as_ref()).collect();
    assert_eq!(claims, ["data-web-1", "web-1-tmp"]);
    assert_eq!(pod.grace_seconds, 30);
}

#[rstest]
#[case::fresh(pod(), true)]
#[case::not_yet_judged(Pod { unschedulable: false, ..pod() }, false)]
#[case::bound(Pod { node_name: Some("n".into()), ..pod() }, false)]
#[case::preempting(Pod { nominated_node: Some("n".into()), ..pod() }, false)]
#[case::daemon(Pod { owner: Owner::DaemonSet, ..pod() }, false)]
#[case::mirror(Pod { owner: Owner::Node, ..pod() }, false)]
fn provisionable(#[case] pod: Pod, #[case] expected: bool) {
    assert_eq!(pod.is_provisionable(), expected);
}

#[rstest]
#[case::active(pod(), true)]
#[case::ended(Pod { phase: Phase::Succeeded, ..pod() }, false)]
#[case::case_57_going(Pod { deleted: Some(at(0)), ..pod() }, false)]
#[case::case_57_going_and_coming_back(Pod { deleted: Some(at(0)), owner: Owner::StatefulSet, ..pod() }, true)]
#[case::daemon(Pod { owner: Owner::DaemonSet, ..pod() }, false)]
fn reschedulable(#[case] pod: Pod, #[case] expected: bool) {
    assert_eq!(pod.is_reschedulable(), expected);
}

#[rstest]
#[case("true", 0, DoNotDisrupt::Always)]
#[case("1h30m", 60, DoNotDisrupt::Until(at(5400)))]
#[case("1h30m", 5400, DoNotDisrupt::Elapsed(at(5400)))]
#[case("1.5s", 1, DoNotDisrupt::Until(Timestamp::from_millisecond(1500).unwrap()))]
#[case("0", 0, DoNotDisrupt::Invalid("0".to_owned()))]
#[case("-5m", 0, DoNotDisrupt::Invalid("-5m".to_owned()))]
#[case("soon", 0, DoNotDisrupt::Invalid("soon".to_owned()))]
#[case("5", 0, DoNotDisrupt::Invalid("5".to_owned()))]
fn do_not_disrupt(#[case] text: &str, #[case] now: i64, #[case] expected: DoNotDisrupt) {
    let annotations = BTreeMap::from([("karpenter.sh/do-not-disrupt".to_owned(), text.to_owned())]);
    let pod = Pod {
        annotations,
        ..pod()
    };
    let told = pod.do_not_disrupt(at(now));
    assert_eq!(told, expected);
    assert_eq!(pod.is_evictable(at(now)), !told.is_active());
    assert!(pod.is_drainable(at(now)), "a protected pod holds the drain");
}

#[test]
fn a_pod_without_a_start_is_protected_by_any_duration() {
    let annotations = BTreeMap::from([("karpenter.sh/do-not-disrupt".to_owned(), "1m".to_owned())]);
    let pod = Pod {
        annotations,
        started: None,
        ..pod()
    };
    assert!(pod.do_not_disrupt(at(9_999)).is_active());
}

#[test]
fn a_pod_that_should_be_gone_for_a_minute_is_stuck() {
    let pod = Pod {
        deleted: Some(at(100)),
        ..pod()
    };
    assert!(!pod.is_stuck_terminating(at(160)));
    assert!(pod.is_stuck_terminating(at(161)));
    assert!(pod.is_waiting_eviction(at(160)) && !pod.is_waiting_eviction(at(161)));
    assert!(pod.needs_forced_eviction(at(99)) && !pod.needs_forced_eviction(at(100)));
}

#[test]
fn pods_that_tolerate_the_disruption_taint_are_left_alone() {
    let pod = read(json!({
        "metadata": {"name": "p"},
        "spec": {"containers": [], "tolerations": [{"key": "karpenter.sh/disrupted", "operator": "Exists"}]}
    }));
    assert!(!pod.is_evictable(at(0)) && !pod.is_drainable(at(0)));
}

fn affine(terms: Value, preferred: Value) -> Pod {
    read(json!({
        "metadata": {"name": "p"},
        "spec": {"containers": [], "nodeSelector": {"team": "a"}, "affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
            "preferredDuringSchedulingIgnoredDuringExecution": preferred
        }}}
    }))
}

fn expression(key: &str, op: &str, values: &[&str]) -> Value {
    json!({"matchExpressions": [{"key": key, "operator": op, "values": values}]})
}

#[test]
fn required_terms_are_alternatives_and_preferences_come_heaviest_first() {
    let pod = affine(
        json!([
            expression("z", "In", &["1"]),
            {},
            expression("z", "In", &["2"])
        ]),
        json!([
            {"weight": 1, "preference": expression("p", "In", &["light"])},
            {"weight": 9, "preference": expression("p", "In", &["heavy"])}
        ]),
    );
    let demands = pod.node_demands(&LabelRegistry::default()).unwrap();
    let alternatives: Vec<_> = demands
        .alternatives
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        alternatives,
        ["team In [a], z In [1]", "team In [a], z In [2]"]
    );
    let preferred: Vec<_> = demands
        .preferred
        .iter()
        .map(|(w, r)| format!("{w} {r}"))
        .collect();
    assert_eq!(preferred, ["9 p In [heavy]", "1 p In [light]"]);
}

#[rstest]
#[case::fine(json!([expression("z", "In", &["1"])]), None)]
#[case::case_02_hostname(json!([expression("kubernetes.io/hostname", "In", &["n"])]), Some("label kubernetes.io/hostname is restricted"))]
#[case::case_08_restricted_domain(json!([expression("karpenter.sh/team", "Exists", &[])]), Some("label karpenter.sh/team is restricted"))]
#[case::case_08_sub_domain(json!([expression("x.karpenter.sh/team", "Exists", &[])]), Some("label x.karpenter.sh/team is restricted"))]
#[case::case_08_kubernetes_domain(json!([expression("node.kubernetes.io/team", "In", &["a"])]), None)]
#[case::opted_out_in_one_of_two(json!([expression("karpenter.sh/nodepool", "DoesNotExist", &[]), expression("z", "In", &["1"])]), None)]
#[case::opted_out(json!([expression("karpenter.sh/nodepool", "DoesNotExist", &[])]), Some("it asks for nodes that no NodePool owns"))]
#[case::fields(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]), Some("node affinity uses matchFields"))]
#[case::operator(json!([expression("z", "Like", &["1"])]), Some("requirement z: operator \"Like\" is unknown"))]
#[case::operator_of_pools(json!([expression("z", "Gte", &["1"])]), Some("requirement z: operator \"Gte\" is unknown to kube-scheduler"))]
#[case::bound(json!([expression("z", "Gt", &["-1"])]), Some("requirement z: operator Gt takes an integer of at least 0, got -1"))]
#[case::capacity_type(json!([expression("karpenter.sh/capacity-type", "In", &["cheap"])]), Some("requirement karpenter.sh/capacity-type: none of [\"cheap\"]"))]
#[case::nothing(json!([{}]), Some("its required node affinity has no term"))]
fn refusals(#[case] terms: Value, #[case] expected: Option<&str>) {
    let told = affine(terms, json!([])).refusal(&LabelRegistry::default());
    match expected {
        None => assert_eq!(told, None),
        Some(start) => {
            let told = told.unwrap().to_string();
            assert!(told.starts_with(start), "{told}");
        }
    }
}

fn budget(spec: Value, allowed: i32) -> Pdb {
    let mut spec = spec;
    spec["selector"] = json!({"matchLabels": {"app": "web"}});
    Pdb::from_k8s(
        &serde_json::from_value(json!({
            "metadata": {"namespace": "d", "name": "b"}, "spec": spec,
            "status": {"disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}
        }))
        .unwrap(),
    )
}

fn covered() -> Pod {
    read(
        json!({"metadata": {"namespace": "d", "name": "p", "labels": {"app": "web"}}, "spec": {"containers": []}}),
    )
}

#[rstest]
#[case::room(json!({"maxUnavailable": 1}), 1, false, false)]
#[case::used_up(json!({"maxUnavailable": 1}), 0, true, false)]
#[case::never(json!({"maxUnavailable": 0}), 0, true, true)]
#[case::never_percent(json!({"maxUnavailable": "0%"}), 0, true, true)]
#[case::all_needed(json!({"minAvailable": "100%"}), 0, true, true)]
#[case::unhealthy_may_go(json!({"maxUnavailable": 0, "unhealthyPodEvictionPolicy": "AlwaysAllow"}), 0, false, false)]
fn budgets(
    #[case] spec: Value,
    #[case] allowed: i32,
    #[case] blocks_now: bool,
    #[case] blocks_for_good: bool,
) {
    let budgets = [budget(spec, allowed)];
    let check = |mode| check_pdbs(&covered(), &budgets, mode, at(0)).is_err();
    assert_eq!(check(PdbMode::ZeroDisruptions), blocks_now);
    assert_eq!(check(PdbMode::FullyBlocking), blocks_for_good);
    assert_eq!(
        covered().is_currently_reschedulable(&budgets, at(0)),
        !blocks_for_good
    );
}

/// Case 57: a pod under two budgets cannot be evicted by anybody.
#[test]
fn case_57_two_budgets_block() {
    let budgets = [
        budget(json!({"maxUnavailable": 1}), 1),
        budget(json!({"maxUnavailable": 2}), 2),
    ];
    let error = check_pdbs(&covered(), &budgets, PdbMode::FullyBlocking, at(0)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "eviction does not support multiple PDBs: d/b, d/b"
    );
}
