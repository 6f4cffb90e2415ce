//! Where pods go: nodes that were not looked at yet, room that is made for more important pods, programs that end.

use karpenter_fake_kube::access::User;
use karpenter_fake_kube::server::{PatchKind, gr};
use karpenter_fake_machine::Cluster;
use kube::api::{Api, ListParams};
use serde_json::json;

use crate::support::{Asks as _, NODES, PODS, pod, seconds};

#[tokio::test(start_paused = true)]
async fn a_new_node_is_tainted_until_it_is_ready() {
    let cluster = Cluster::start();
    cluster.add_node("n", "4", "8Gi").unwrap();
    let node = cluster.there(NODES, "n").unwrap();
    let taint = json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]);
    assert_eq!(node["spec"]["taints"], taint);
    cluster.make(PODS, pod("p", "1"));
    seconds(30).await;
    let node = cluster.there(NODES, "n").unwrap();
    assert!(
        node["spec"].get("taints").is_none_or(|t| t == &json!([])),
        "{node:#}"
    );
    assert_eq!(cluster.phase("p"), "Running");
}

/// Of four pods that fill a node the least important goes, with the grace it has, and its place is kept.
#[tokio::test(start_paused = true)]
async fn a_more_important_pod_takes_the_place_of_the_least_important() {
    let cluster = Cluster::start();
    cluster.add_node("n", "4", "8Gi").unwrap();
    let classes = gr("scheduling.k8s.io", "priorityclasses");
    for (name, value) in [("low", -10), ("high", 1000)] {
        let class = json!({"metadata": {"name": name}, "value": value});
        cluster.api().create(classes, None, class).unwrap();
    }
    let of = |name: &str, class: &str| {
        let mut pod = pod(name, "900m");
        pod["spec"]["priorityClassName"] = class.into();
        pod["metadata"]["annotations"] = json!({"karpenter-rs.test/ignores-sigterm": "true"});
        pod
    };
    for name in ["a", "b", "c"] {
        cluster.make(PODS, pod(name, "900m"));
    }
    cluster.make(PODS, of("least", "low"));
    seconds(30).await;
    assert_eq!(cluster.phase("least"), "Running");
    cluster.make(PODS, of("urgent", "high"));
    seconds(10).await;
    let urgent = cluster.there(PODS, "urgent").unwrap();
    assert_eq!(urgent["status"]["nominatedNodeName"], "n", "{urgent:#}");
    let least = cluster.there(PODS, "least").unwrap();
    assert!(least["metadata"]["deletionTimestamp"].is_string());
    let conditions = least["status"]["conditions"].as_array().unwrap();
    let target = conditions
        .iter()
        .find(|c| c["type"] == "DisruptionTarget")
        .unwrap();
    assert_eq!(target["reason"], "PreemptionByScheduler");
    // Whoever is less important does not get the place meanwhile.
    cluster.make(PODS, of("hopeful", "low"));
    seconds(60).await;
    assert_eq!(cluster.phase("urgent"), "Running");
    let urgent = cluster.there(PODS, "urgent").unwrap();
    assert!(urgent["status"].get("nominatedNodeName").is_none());
    assert_eq!(cluster.phase("hopeful"), "unplaced");
    for name in ["a", "b", "c"] {
        assert_eq!(cluster.phase(name), "Running");
    }
    let events = cluster.api().list(gr("", "events"), Some("default"));
    let preempted = events.iter().filter(|e| e["reason"] == "Preempted");
    assert_eq!(preempted.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_program_that_ends_is_started_again() {
    let cluster = Cluster::start();
    cluster.add_node("n", "4", "8Gi").unwrap();
    let mut crashing = pod("crashing", "1");
    crashing["metadata"]["annotations"] =
        json!({"karpenter-rs.test/run-seconds": "5", "karpenter-rs.test/exit-code": "3"});
    cluster.make(PODS, crashing);
    seconds(8).await;
    let container = |p: &serde_json::Value| p["status"]["containerStatuses"][0].clone();
    let first = container(&cluster.there(PODS, "crashing").unwrap());
    assert_eq!(first["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert_eq!(first["lastState"]["terminated"]["exitCode"], 3);
    seconds(10).await;
    let second = container(&cluster.there(PODS, "crashing").unwrap());
    assert_eq!(
        (&second["restartCount"], &second["ready"]),
        (&json!(1), &json!(true))
    );
    assert!(second["state"]["running"].is_object());
    seconds(120).await;
    let later = container(&cluster.there(PODS, "crashing").unwrap());
    assert_eq!(
        later["restartCount"], 3,
        "after 10, 20 and 40 seconds: {later:#}"
    );
    assert_eq!(cluster.phase("crashing"), "Running");
}

#[tokio::test(start_paused = true)]
async fn a_container_whose_liveness_probe_fails_is_started_again() {
    let cluster = Cluster::start();
    cluster.add_node("n", "4", "8Gi").unwrap();
    let mut probed = pod("probed", "1");
    probed["spec"]["containers"][0]["livenessProbe"] =
        json!({"tcpSocket": {"port": 80}, "periodSeconds": 5, "failureThreshold": 2});
    let beside = json!({"name": "beside", "image": "i"});
    let containers = probed["spec"]["containers"].as_array_mut().unwrap();
    containers.push(beside);
    cluster.make(PODS, probed);
    seconds(30).await;
    let live = |value: &str| {
        let patch = json!({"metadata": {"annotations": {"karpenter-rs.test/unlive": value}}});
        let patched =
            cluster
                .api()
                .patch(PODS, Some("default"), "probed", "", PatchKind::Merge, patch);
        patched.unwrap();
    };
    let told = || {
        let pod = cluster.there(PODS, "probed").unwrap();
        let of = |n: usize| pod["status"]["containerStatuses"][n].clone();
        let mut conditions = pod["status"]["conditions"].as_array().unwrap().iter();
        let ready = conditions.find(|c| c["type"] == "Ready").unwrap()["status"].clone();
        (of(0), of(1), ready)
    };
    let (well, ..) = told();
    assert_eq!(
        (&well["restartCount"], &well["ready"]),
        (&json!(0), &json!(true))
    );
    live("true");
    seconds(12).await;
    let (killed, beside, ready) = told();
    assert_eq!(
        killed["state"]["waiting"]["reason"], "CrashLoopBackOff",
        "{killed:#}"
    );
    assert_eq!(killed["lastState"]["terminated"]["exitCode"], 143);
    assert_eq!(
        (&beside["restartCount"], &beside["ready"]),
        (&json!(0), &json!(true))
    );
    assert_eq!(ready, "False");
    // It comes back, and is killed again after twice the wait.
    seconds(60).await;
    let (again, ..) = told();
    assert_eq!(again["restartCount"], 2, "{again:#}");
    live("false");
    seconds(120).await;
    let (well, beside, ready) = told();
    assert_eq!(
        (&well["restartCount"], &well["ready"]),
        (&json!(3), &json!(true))
    );
    assert_eq!(
        (&beside["restartCount"], &ready),
        (&json!(0), &json!("True"))
    );
}

/// Somebody with `view` sees what others' roles add to it.
#[tokio::test(start_paused = true)]
async fn roles_are_aggregated() {
    let cluster = Cluster::start();
    let rbac = |plural| gr("rbac.authorization.k8s.io", plural);
    let binding = json!({"metadata": {"name": "jane"}, "subjects": [{"kind": "User", "name": "jane"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}});
    cluster
        .api()
        .create(rbac("clusterrolebindings"), None, binding)
        .unwrap();
    seconds(1).await;
    let jane = cluster.api().client_of(User::new("jane", &[]));
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::default_namespaced(jane.clone());
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::default_namespaced(jane);
    pods.list(&ListParams::default()).await.unwrap();
    let refused = secrets.list(&ListParams::default()).await.unwrap_err();
    assert!(refused.to_string().contains("forbidden"), "{refused}");
    let role = json!({"metadata": {"name": "more", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}]});
    cluster
        .api()
        .create(rbac("clusterroles"), None, role)
        .unwrap();
    seconds(1).await;
    secrets.list(&ListParams::default()).await.unwrap();
    // What admin is made of goes through edit, and loses what view loses.
    let rules =
        |name: &str| cluster.api().get(rbac("clusterroles"), None, name).unwrap()["rules"].clone();
    let lists_secrets = json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]});
    assert!(rules("admin").as_array().unwrap().contains(&lists_secrets));
    let unlabelled = json!({"metadata": {"labels": null}});
    let kind = PatchKind::Merge;
    cluster
        .api()
        .patch(rbac("clusterroles"), None, "more", "", kind, unlabelled)
        .unwrap();
    seconds(1).await;
    assert!(!rules("admin").as_array().unwrap().contains(&lists_secrets));
}
