//! The demo's story told by the binary as a process of its own: a workload goes from none to 3, 200, 40 and none, in real
//! time.

use karpenter_fake_machine::{Kwok, KwokOptions};
use karpenter_runtime::RngTree;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::json;

use crate::process::{Cluster, api, create, eventually, free_port};

/// Objects of a kind that a test counts.
async fn count(api: &Api<DynamicObject>, meant: impl Fn(&DynamicObject) -> bool) -> usize {
    let list = api.list(&Default::default()).await.unwrap();
    list.items.iter().filter(|o| meant(o)).count()
}

fn runs(pod: &DynamicObject) -> bool {
    pod.data.pointer("/status/phase") == Some(&json!("Running"))
        && pod.metadata.deletion_timestamp.is_none()
}

#[tokio::test]
async fn buys_for_three_and_two_hundred_and_gives_back_for_forty_and_none() {
    let cluster = Cluster::start("story").await;
    let _kwok = Kwok::start(
        cluster.server.clone(),
        KwokOptions::default(),
        RngTree::new(2),
        cluster.stop.clone(),
    );
    cluster.install_crds().await;
    let client = cluster.server.client();
    cluster
        .node_pool(
            json!({"requirements": [
                {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]},
                // A spot machine would not be replaced by a smaller one: SpotToSpotConsolidation is off.
                {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
            ]}),
            json!({"consolidationPolicy": "WhenEmptyOrUnderutilized", "consolidateAfter": "0s", "budgets": [{"nodes": "100%"}]}),
        )
        .await;
    let sets = Api::<DynamicObject>::namespaced_with(
        client.clone(),
        "default",
        &kube::api::ApiResource {
            group: "apps".to_owned(),
            version: "v1".to_owned(),
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            plural: "deployments".to_owned(),
        },
    );
    create(&sets, json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "pause", "resources": {"requests": {"cpu": "1"}}}]}}},
    })).await;
    let _process = cluster.karpenter((free_port(), free_port()), &[]);

    let pods = api(&client, "", "v1", "Pod", "pods");
    let nodes = api(&client, "", "v1", "Node", "nodes");
    let claims = api(&client, "karpenter.sh", "v1", "NodeClaim", "nodeclaims");
    let log = &cluster.log;
    let scale = async |replicas: usize| {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        let done = sets.patch("web", &PatchParams::default(), &patch).await;
        done.unwrap();
        let settled = async || {
            let running = count(&pods, runs).await;
            let all = count(&pods, |_| true).await;
            (running == replicas && all == replicas).then_some(())
        };
        eventually(&format!("{replicas} running pods"), log, settled).await;
    };
    let cores = async || -> u64 {
        let list = nodes.list(&Default::default()).await.unwrap();
        let of = |n: &DynamicObject| {
            let cpu = n.data.pointer("/status/capacity/cpu")?.as_str()?;
            cpu.parse::<u64>().ok()
        };
        list.items.iter().filter_map(of).sum()
    };

    scale(3).await;
    let few = cores().await;
    assert!(few >= 3, "{few} cores for 3 pods of one");
    scale(200).await;
    let many = cores().await;
    assert!(many >= 200, "{many} cores for 200 pods of one");
    scale(40).await;
    let fewer = async || {
        let now = cores().await;
        (now >= 40 && now < many / 2).then_some(())
    };
    eventually("nodes given back", log, fewer).await;
    scale(0).await;
    let gone = async || {
        let left = count(&nodes, |_| true).await + count(&claims, |_| true).await;
        (left == 0).then_some(())
    };
    eventually("empty cluster", log, gone).await;
    let created = std::fs::read_to_string(log).unwrap();
    assert!(created.contains("\"message\":\"deleted nodeclaim\""));
}
