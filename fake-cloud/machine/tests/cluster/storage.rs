//! Volumes from their claim to their end: bound, attached, in use, detached, reclaimed.

use karpenter_fake_kube::server::{PatchKind, gr};
use karpenter_fake_machine::Cluster;
use serde_json::{Value, json};

use crate::support::{
    ATTACHMENTS, Asks as _, CLAIMS, NODES, PODS, VOLUMES, pod, seconds, with_claim,
};

const ZONE: &str = "topology.kubernetes.io/zone";

/// Two nodes in one zone, a class, and a claim for a gigabyte.
fn world() -> Cluster {
    let cluster = Cluster::start();
    for name in ["n1", "n2"] {
        cluster.add_node(name, "2", "8Gi").unwrap();
        let label = json!({"metadata": {"labels": {ZONE: "a"}}});
        let patched = cluster
            .api()
            .patch(NODES, None, name, "", PatchKind::Merge, label);
        patched.unwrap();
    }
    let class = json!({"metadata": {"name": "cloud"}, "provisioner": "ebs.csi.aws.com",
        "volumeBindingMode": "WaitForFirstConsumer"});
    let classes = gr("storage.k8s.io", "storageclasses");
    cluster.api().create(classes, None, class).unwrap();
    cluster.make(CLAIMS, claim("data"));
    cluster
}

fn claim(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"storageClassName": "cloud", "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}})
}

fn attached_to(cluster: &Cluster) -> Vec<String> {
    let all = cluster.api().list(ATTACHMENTS, None);
    let node = |a: &Value| {
        let state = match (
            &a["metadata"]["deletionTimestamp"],
            &a["status"]["attached"],
        ) {
            (Value::String(_), _) => "detaching from",
            (_, Value::Bool(true)) => "attached to",
            _ => "attaching to",
        };
        format!("{state} {}", a["spec"]["nodeName"].as_str().unwrap())
    };
    all.iter().map(|a| node(a)).collect()
}

/// Seconds until `done`, at most ten minutes.
async fn until(done: impl Fn() -> bool) -> u64 {
    for n in 0..6000 {
        if done() {
            return n / 10;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("it never came to that");
}

#[tokio::test(start_paused = true)]
async fn a_pod_starts_when_its_volume_is_attached_and_what_it_leaves_is_reclaimed() {
    let cluster = world();
    cluster.make(PODS, with_claim(pod("db", "1"), "data"));
    until(|| attached_to(&cluster) == ["attaching to n1"]).await;
    assert_eq!(cluster.phase("db"), "n1", "placed, and not started");
    let took = until(|| cluster.phase("db") == "Running").await;
    assert!((1..=5).contains(&took), "{took} s");
    assert_eq!(attached_to(&cluster), ["attached to n1"]);
    let volume = cluster.there(CLAIMS, "data").unwrap()["spec"]["volumeName"].clone();
    let volume = volume.as_str().unwrap().to_owned();

    // A claim in use goes when it no longer is, its volume once it is detached.
    let api = cluster.api();
    api.delete(CLAIMS, Some("default"), "data", None).unwrap();
    seconds(60).await;
    assert!(
        cluster
            .there(CLAIMS, "data")
            .is_some_and(|c| c["metadata"]["deletionTimestamp"].is_string())
    );
    api.delete(PODS, Some("default"), "db", None).unwrap();
    until(|| cluster.there(CLAIMS, "data").is_none()).await;
    let there = cluster.there(VOLUMES, &volume).unwrap();
    assert_eq!(
        there["metadata"]["finalizers"],
        json!(["kubernetes.io/pv-protection"])
    );
    assert_eq!(attached_to(&cluster).len(), 1, "still attached");
    until(|| cluster.there(VOLUMES, &volume).is_none()).await;
    assert_eq!(attached_to(&cluster), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_volume_moves_with_its_pod_and_is_on_one_node_at_a_time() {
    let cluster = world();
    let place = |pod: Value, node: &str| {
        let mut pod = with_claim(pod, "data");
        pod["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node});
        cluster.make(PODS, pod);
    };
    place(pod("first", "1"), "n1");
    until(|| cluster.phase("first") == "Running").await;
    place(pod("second", "1"), "n2");
    seconds(120).await;
    assert_eq!(cluster.phase("second"), "n2", "it waits for the volume");
    let events = cluster.api().list(gr("", "events"), Some("default"));
    let multi = events.iter().find(|e| e["reason"] == "FailedAttachVolume");
    assert!(multi.is_some_and(|e| e["involvedObject"]["name"] == "second"));
    cluster
        .api()
        .delete(PODS, Some("default"), "first", None)
        .unwrap();
    let took = until(|| cluster.phase("second") == "Running").await;
    assert!(
        (2..=20).contains(&took),
        "unmounted, detached and attached in {took} s"
    );
    assert_eq!(attached_to(&cluster), ["attached to n2"]);
}

/// Nobody unmounts on a node that is gone: six minutes pass, unless somebody vouches that it is off.
#[tokio::test(start_paused = true)]
async fn a_volume_stays_on_a_lost_node_for_six_minutes() {
    for (vouched, wanted) in [(false, 355..=380), (true, 1..=20)] {
        let cluster = world();
        cluster.make(PODS, with_claim(pod("db", "1"), "data"));
        until(|| cluster.phase("db") == "Running").await;
        let api = cluster.api();
        let hold = json!({"metadata": {"annotations": {"karpenter-rs.test/hold": "true"}}});
        api.patch(NODES, None, "n1", "", PatchKind::Merge, hold)
            .unwrap();
        let down = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
        api.patch(NODES, None, "n1", "status", PatchKind::Strategic, down)
            .unwrap();
        api.delete(PODS, Some("default"), "db", Some(0)).unwrap();
        if vouched {
            let node = api.get(NODES, None, "n1").unwrap();
            let mut taints = node["spec"]["taints"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            taints.push(json!({"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute", "value": "nodeshutdown"}));
            let patch = json!({"spec": {"taints": taints}});
            api.patch(NODES, None, "n1", "", PatchKind::Merge, patch)
                .unwrap();
        }
        let took = until(|| attached_to(&cluster).is_empty()).await;
        assert!(wanted.contains(&took), "vouched {vouched}: {took} s");
    }
}

/// Nodes attach so many volumes of a driver; the next pod goes elsewhere.
#[tokio::test(start_paused = true)]
async fn a_node_takes_as_many_volumes_as_its_driver_says() {
    let cluster = world();
    let limit = json!({"metadata": {"name": "n1"}, "spec": {"drivers": [
        {"name": "ebs.csi.aws.com", "nodeID": "i-1", "topologyKeys": null, "allocatable": {"count": 1}}]}});
    cluster
        .api()
        .create(gr("storage.k8s.io", "csinodes"), None, limit)
        .unwrap();
    cluster.make(CLAIMS, claim("more"));
    let mut first = with_claim(pod("first", "100m"), "data");
    first["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": "n1"});
    cluster.make(PODS, first);
    until(|| cluster.phase("first") == "Running").await;
    let mut second = with_claim(pod("second", "100m"), "more");
    second["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": "n1"});
    cluster.make(PODS, second);
    seconds(30).await;
    let second = cluster.there(PODS, "second").unwrap();
    let said = second["status"]["conditions"][0]["message"]
        .as_str()
        .unwrap();
    assert!(said.contains("1 node(s) exceed max volume count"), "{said}");
    cluster
        .api()
        .delete(PODS, Some("default"), "second", None)
        .unwrap();
    cluster.make(PODS, with_claim(pod("third", "100m"), "more"));
    until(|| cluster.phase("third") == "Running").await;
    assert_eq!(
        cluster.there(PODS, "third").unwrap()["spec"]["nodeName"],
        "n2"
    );
}
