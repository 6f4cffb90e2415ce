//! `explain` as its user runs it: of a dump and of a live cluster, which must say the same.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::LazyLock;

use karpenter_fake_kube::server::{PatchKind, gr};
use karpenter_fake_kube::{ApiServer, ServerOptions};
use karpenter_runtime::{Clock, RngTree};
use rstest::rstest;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Monday evening, outside of the window of the pool's first budget.
const EVENING: &str = "2026-01-05T20:00:00Z";
/// The morning after, within it.
const MORNING: &str = "2026-01-06T10:00:00Z";

fn run(arguments: &[&str], kubeconfig: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kubectl-karpenter"))
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn condition(kind: &str, reason: &str) -> Value {
    json!({"type": kind, "status": "True", "reason": reason, "message": "", "observedGeneration": 1,
           "lastTransitionTime": "2026-01-05T00:00:00Z"})
}

/// A machine of the pool: claim and Node.
fn machine(name: &str, instance_type: &str, cpu: &str, more: &[Value]) -> [Value; 2] {
    let labels = json!({
        "karpenter.sh/nodepool": "default", "karpenter.sh/capacity-type": "on-demand",
        "node.kubernetes.io/instance-type": instance_type, "topology.kubernetes.io/zone": "test-zone-a",
        "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux", "kubernetes.io/hostname": name,
        "karpenter.sh/registered": "true", "karpenter.sh/initialized": "true",
        "karpenter.kwok.sh/kwoknodeclass": "default",
    });
    let resources =
        json!({"cpu": cpu, "memory": "64Gi", "pods": "110", "ephemeral-storage": "20Gi"});
    let mut conditions: Vec<Value> = [
        "Launched",
        "Registered",
        "Initialized",
        "Ready",
        "Consolidatable",
    ]
    .map(|kind| condition(kind, kind))
    .to_vec();
    conditions.extend_from_slice(more);
    let id = format!("kwok://{name}");
    let class = json!({"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "default"});
    [
        json!({"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim",
            "metadata": {"name": format!("claim-{name}"), "labels": labels, "creationTimestamp": "2026-01-05T00:00:00Z"},
            "spec": {"nodeClassRef": class, "requirements": [], "expireAfter": "720h"},
            "status": {"providerID": id, "nodeName": name, "capacity": resources, "allocatable": resources,
                "conditions": conditions}}),
        json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": labels, "creationTimestamp": "2026-01-05T00:00:00Z"},
            "spec": {"providerID": id},
            "status": {"capacity": resources, "allocatable": resources,
                "conditions": [{"type": "Ready", "status": "True", "reason": "r", "message": ""}]}}),
    ]
}

fn pod(name: &str, node: Option<&str>, cpu: &str, annotations: Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "spec": {"containers": [{"name": "c", "image": "pause", "resources": {"requests": {"cpu": cpu}}}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    match node {
        Some(node) => pod["spec"]["nodeName"] = node.into(),
        None => {
            pod["status"] = json!({"phase": "Pending", "conditions":
                [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]});
        }
    }
    pod
}

/// A pool with office hours, and in it: a machine that is too big, an empty one, one that a pod holds, one that has
/// drifted; a pod that has a place and one that has none.
fn cluster() -> Vec<Value> {
    let class = json!({"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "default"});
    let mut all = vec![
        json!({"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "default"},
            "spec": {
                "template": {"spec": {"nodeClassRef": class, "requirements": [
                    {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
                    {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]},
                    {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}]}},
                "disruption": {"consolidationPolicy": "WhenEmptyOrUnderutilized", "consolidateAfter": "0s", "budgets": [
                    {"nodes": "0", "reasons": ["Underutilized", "Empty"], "schedule": "0 9 * * mon-fri", "duration": "8h"},
                    {"nodes": "1", "reasons": ["Drifted"]}]}},
            "status": {"conditions": [condition("Ready", "Ready")]}}),
        json!({"apiVersion": "karpenter.kwok.sh/v1alpha1", "kind": "KWOKNodeClass", "metadata": {"name": "default"},
            "spec": {}}),
    ];
    all.extend(machine("big", "c-16x-amd64-linux", "16", &[]));
    all.extend(machine("empty", "c-2x-amd64-linux", "2", &[]));
    all.extend(machine("held", "c-2x-amd64-linux", "2", &[]));
    let drifted = condition("Drifted", "NodePoolDrifted");
    all.extend(machine("old", "c-4x-amd64-linux", "4", &[drifted]));
    let keep = json!({"karpenter.sh/do-not-disrupt": "true"});
    all.extend([
        pod("web", Some("big"), "3", json!({})),
        pod("db", Some("held"), "2", keep),
        pod("api", Some("old"), "4", json!({})),
        pod("waits", None, "1", json!({})),
        pod("huge", None, "1000", json!({})),
    ]);
    all
}

/// The cluster as a file.
fn dump() -> String {
    // Once: other tests' processes read it at the same time.
    static WRITTEN: LazyLock<String> = LazyLock::new(|| {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("explained.json");
        let list = json!({"apiVersion": "v1", "kind": "List", "items": cluster()});
        std::fs::write(&path, list.to_string()).unwrap();
        path.display().to_string()
    });
    WRITTEN.clone()
}

#[rstest]
#[case::too_big(&["node", "big"], EVENING, &[
    "Node big (NodeClaim claim-big) of NodePool default: c-16x-amd64-linux on-demand in test-zone-a, $0.4344/h, 1 pods of which 1 would move",
    "ends: it expires at 2026-02-04T00:00:00Z",
    "Empty: stays: 1 pod(s) on it would have to move",
    "Drifted: stays: it has not drifted",
    "Underutilized: goes: replace: nodepools=[default]: [big] -> [c-4x-amd64-linux on-demand in test-zone-a at $0.1086/h] (savings: $0.33)",
    "$0.4344/h before, $0.1086/h after",
])]
#[case::in_office_hours(&["node", "big"], MORNING, &[
    "Underutilized: stays: the budgets of NodePool default leave nothing for Underutilized: 0 of 4 node(s) may be in disruption at once, 0 are",
])]
#[case::by_its_claim(&["node", "claim-empty"], EVENING, &[
    "Empty: goes: delete: nodepools=[default]: [empty] (savings: $0.05)",
    "Underutilized: stays: it is empty, see there",
])]
#[case::held(&["node", "held"], EVENING, &[
    "Empty: stays: pod has \"karpenter.sh/do-not-disrupt\" annotation (Pod=default/db)",
    "Drifted: stays: pod has \"karpenter.sh/do-not-disrupt\" annotation (Pod=default/db)",
    "Underutilized: stays: pod has \"karpenter.sh/do-not-disrupt\" annotation (Pod=default/db)",
])]
#[case::drifted(&["node", "old"], MORNING, &[
    "ends: it has drifted since 2026-01-05T00:00:00Z: NodePoolDrifted",
    "Drifted: goes: delete: nodepools=[default]: [old] (savings: $0.11)",
])]
#[case::a_pod_that_holds(&["pod", "db"], EVENING, &[
    "Pod default/db: it runs on held (NodeClaim claim-held)",
    "nothing disrupts its node to save money: pod has \"karpenter.sh/do-not-disrupt\" annotation (Pod=default/db)",
    "its node does not drift away either: it has no terminationGracePeriod",
])]
#[case::a_pod_with_a_place(&["pod", "default/waits"], EVENING, &["Pod default/waits: node big has room for it"])]
#[case::a_pod_without(&["pod", "huge"], EVENING, &[
    "Pod default/huge: nothing can take it: ",
    "default: requests cpu 1k, pods 1 left 0 of 36 instance types",
])]
#[case::a_pool(&["nodepool", "default"], EVENING, &[
    "NodePool default: 4 nodes at $0.6515/h, 0 of them unavailable; WhenEmptyOrUnderutilized after 0s",
    "warning: outside of the windows of its budgets nothing limits Empty: all nodes may go at once, next from 2026-01-05T20:00:00Z",
    "warning: outside of the windows of its budgets nothing limits Underutilized",
    "now: Empty all, Drifted 1 (1 left), Underutilized all",
    "2026-01-05T20:00:00Z until 2026-01-06T09:00:00Z: Empty all, Drifted 1, Underutilized all",
    "2026-01-06T09:00:00Z until 2026-01-06T17:00:00Z: Empty 0, Drifted 1, Underutilized 0",
    "2026-01-09T17:00:00Z until 2026-01-12T09:00:00Z: Empty all, Drifted 1, Underutilized all",
])]
fn a_dump_is_explained(#[case] what: &[&str], #[case] at: &str, #[case] expected: &[&str]) {
    let dump = dump();
    let rest = ["-f", dump.as_str(), "--at", at];
    let output = run(&[&["explain"], what, &rest].concat(), "");
    let text = stdout(&output);
    assert!(output.status.success(), "{}", stderr(&output));
    for line in expected {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
}

#[test]
fn a_document_says_the_same_as_the_lines() {
    let dump = dump();
    let arguments = [
        "explain", "node", "big", "-f", &dump, "--at", EVENING, "-o", "json",
    ];
    let output = run(&arguments, "");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let single = &document["alternatives"][2];
    assert_eq!(single["reason"], "Underutilized");
    assert_eq!(single["goes"], true);
    let (before, after) = (&single["priceBefore"], &single["priceAfter"]);
    assert!(
        (before.as_f64().unwrap() - 0.434_432).abs() < 1e-3,
        "{before}"
    );
    assert!(
        (after.as_f64().unwrap() - 0.108_608).abs() < 1e-3,
        "{after}"
    );
    // What stays has no price but the one it has.
    assert_eq!(document["alternatives"][0]["priceAfter"], Value::Null);
    assert_eq!(document["alternatives"][0]["goes"], false);
}

#[rstest]
#[case::no_node(&["node", "nobody"], "nobody: there is no Node or NodeClaim of that name that Karpenter manages; expected one of big, empty, held, old")]
#[case::no_pod(&["pod", "nobody"], "Pod default/nobody: there is none of that name")]
#[case::no_pool(&["nodepool", "nobody"], "NodePool nobody: there is none of that name; expected one of default")]
fn what_is_not_there_is_named(#[case] what: &[&str], #[case] complaint: &str) {
    let dump = dump();
    let output = run(&[&["explain"], what, &["-f", dump.as_str()]].concat(), "");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stderr(&output).trim(), format!("error: {complaint}"));
}

#[test]
fn the_topology_spread_that_a_cluster_gives_by_default_is_heeded() {
    let file = |name: &str, text: String| {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let mut objects = cluster();
    let waits = |o: &&mut Value| o["metadata"]["name"] == "waits";
    objects.iter_mut().find(waits).unwrap()["metadata"]["labels"] = json!({"app": "waits"});
    objects.push(
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "waits", "namespace": "default"},
            "spec": {"selector": {"app": "waits"}}}),
    );
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let dump = file("spread-explained.json", list.to_string());
    // No node and no machine that can be bought has such a label.
    let config = file(
        "spread-explained.yaml",
        "podTopologySpread: {defaultConstraints: [{maxSkew: 1, topologyKey: example.com/rack, \
         whenUnsatisfiable: DoNotSchedule}]}"
            .to_owned(),
    );
    let asked = ["explain", "pod", "waits", "-f", &dump, "--at", EVENING];
    let free = stdout(&run(&asked, ""));
    assert!(!free.contains("topology spread"), "{free}");
    let bound = run(&[&asked[..], &["--scheduler-config", &config]].concat(), "");
    let said = stdout(&bound);
    assert!(
        said.contains("topology spread (maxSkew 1) over example.com/rack"),
        "{said}{}",
        stderr(&bound)
    );
}

#[test]
fn without_files_and_without_a_cluster_it_says_what_it_needs() {
    let output = run(&["explain", "node", "a"], "/nonexistent/kubeconfig");
    assert_eq!(output.status.code(), Some(2));
    let complaint = stderr(&output);
    assert!(
        complaint.starts_with("error: no cluster to ask: "),
        "{complaint}"
    );
    assert!(
        complaint.contains("name files with -f instead"),
        "{complaint}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_cluster_is_explained_as_its_dump_is() {
    let server = ApiServer::new(ServerOptions {
        clock: Clock::real(),
        rng: RngTree::new(1),
    });
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let mut crds = karpenter_api::crd::core(&[]);
    crds.push(karpenter_provider_kwok::nodeclass::crd());
    for crd in crds {
        let kind = gr("apiextensions.k8s.io", "customresourcedefinitions");
        server.create(kind, None, crd).unwrap();
    }
    for object in cluster() {
        let (group, plural) = match object["kind"].as_str().unwrap() {
            "NodePool" => ("karpenter.sh", "nodepools"),
            "NodeClaim" => ("karpenter.sh", "nodeclaims"),
            "KWOKNodeClass" => ("karpenter.kwok.sh", "kwoknodeclasses"),
            "Node" => ("", "nodes"),
            _ => ("", "pods"),
        };
        let namespace = (plural == "pods").then_some("default");
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let status = object["status"].clone();
        server.create(gr(group, plural), namespace, object).unwrap();
        if !status.is_null() {
            let patch = json!({"status": status});
            let (of, kind) = (gr(group, plural), PatchKind::Merge);
            server
                .patch(of, namespace, &name, "status", kind, patch)
                .unwrap();
        }
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { server.serve(listener, stop).await });
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    let kubeconfig = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("explain-kubeconfig");
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    let kubeconfig = kubeconfig.display().to_string();
    let dump = dump();
    for what in [["nodepool", "default"], ["pod", "huge"], ["pod", "db"]] {
        let of_dump = [&["explain"], &what[..], &["-f", &dump, "--at", EVENING]].concat();
        let live = [&["explain"], &what[..], &["--at", EVENING]].concat();
        // The server answers on the runtime's other thread.
        let live = run(&live, &kubeconfig);
        assert!(live.status.success(), "{}", stderr(&live));
        assert_eq!(stdout(&live), stdout(&run(&of_dump, "")));
    }
}
