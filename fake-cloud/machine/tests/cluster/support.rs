//! Short ways of saying things.

use std::sync::Arc;
use std::time::Duration;

use karpenter_fake_kube::server::{Gr, gr};
use karpenter_fake_machine::Cluster;
use serde_json::{Value, json};

pub(crate) const PODS: Gr<'static> = gr("", "pods");
pub(crate) const NODES: Gr<'static> = gr("", "nodes");
pub(crate) const CLAIMS: Gr<'static> = gr("", "persistentvolumeclaims");
pub(crate) const VOLUMES: Gr<'static> = gr("", "persistentvolumes");
pub(crate) const ATTACHMENTS: Gr<'static> = gr("storage.k8s.io", "volumeattachments");

/// Lets time pass.
pub(crate) async fn seconds(n: u64) {
    tokio::time::sleep(Duration::from_secs(n)).await;
}

pub(crate) fn pod(name: &str, cpu: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": {"containers": [
        {"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]}})
}

/// A pod with a claim.
pub(crate) fn with_claim(mut pod: Value, claim: &str) -> Value {
    pod["spec"]["volumes"] =
        json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]);
    pod
}

/// Keys of a node's taints.
pub(crate) fn tainted(node: &Value) -> Vec<&str> {
    let taints = node["spec"]["taints"].as_array().into_iter().flatten();
    taints.map(|t| t["key"].as_str().unwrap()).collect()
}

pub(crate) trait Asks {
    fn make(&self, gr: Gr<'_>, object: Value) -> Arc<Value>;
    fn there(&self, gr: Gr<'_>, name: &str) -> Option<Arc<Value>>;
    fn phase(&self, pod: &str) -> String;
}

impl Asks for Cluster {
    fn make(&self, gr: Gr<'_>, object: Value) -> Arc<Value> {
        self.api().create(gr, Some("default"), object).unwrap()
    }

    fn there(&self, gr: Gr<'_>, name: &str) -> Option<Arc<Value>> {
        self.api().get(gr, Some("default"), name).ok()
    }

    fn phase(&self, pod: &str) -> String {
        let pod = self.there(PODS, pod).unwrap();
        let told = if pod["status"]["phase"] == "Pending" {
            &pod["spec"]["nodeName"]
        } else {
            &pod["status"]["phase"]
        };
        told.as_str().unwrap_or("unplaced").to_owned()
    }
}
