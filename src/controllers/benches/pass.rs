//! One pass of the disruption loop over 5 000 nodes and 100 000 pods, of which nothing comes: every method looks at all it
//! may look at. Prints what it measures and fails past the bound: 10 s on two cores.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types
)] // A bench measures in the machine's own time, prints, and may fail loudly.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use karpenter_cloud::NodeClassKind;
use karpenter_controllers::explain::Cluster;
use karpenter_model::{
    InstanceType, LabelRegistry, Offering, Requirement, Requirements, ResourceList,
};
use karpenter_runtime::Settings;
use karpenter_state::Store;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const KIND: NodeClassKind = NodeClassKind {
    group: "test.karpenter.sh",
    version: "v1",
    kind: "TestNodeClass",
    plural: "testnodeclasses",
};
const PODS_PER_NODE: usize = 20;
const PASS_MAX: Duration = Duration::from_secs(10);
const ZONES: [&str; 3] = ["a", "b", "c"];
/// Cores of the types there are; a node of the bench has sixteen.
const CORES: [u32; 6] = [2, 4, 8, 16, 32, 64];

fn main() {
    for nodes in [1_250, 2_500, 5_000] {
        let began = Instant::now();
        let cluster = cluster(nodes);
        let taken = began.elapsed();
        let began = Instant::now();
        let found = cluster.pass();
        let pass = began.elapsed();
        println!(
            "{nodes} nodes, {} pods: filled and read in {taken:.1?}, a pass takes {pass:.2?} and finds {found:?}",
            nodes * PODS_PER_NODE
        );
        assert!(
            pass < PASS_MAX,
            "a pass takes {pass:?}, expected under {PASS_MAX:?}"
        );
    }
}

fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn types() -> Vec<Arc<InstanceType>> {
    let amount = |cores: u32| {
        let raw =
            json!({"cpu": cores.to_string(), "memory": format!("{}Gi", cores * 4), "pods": "110"});
        ResourceList::from_raw(&read(raw)).unwrap()
    };
    let one = |cores: u32| {
        let name = format!("m{cores}");
        let price = 0.05 * f64::from(cores);
        let offerings = ZONES
            .iter()
            .map(|z| Offering::new(z, "on-demand", price))
            .collect();
        let mut requirements = Requirements::new();
        requirements.add(Requirement::is_in(
            "node.kubernetes.io/instance-type",
            [name.as_str()],
        ));
        Arc::new(InstanceType::new(
            name.as_str(),
            requirements,
            offerings,
            amount(cores),
            Default::default(),
        ))
    };
    CORES.into_iter().map(one).collect()
}

/// Nodes of sixteen cores that are full to the last pod: no two fit on one, and none on a smaller one.
fn cluster(nodes: usize) -> Cluster {
    let state = Arc::new(Store::default());
    let when = "2026-01-01T00:00:00Z";
    let ready: Vec<Value> = ["Launched", "Registered", "Initialized", "Ready", "Consolidatable"]
        .map(|kind| json!({"type": kind, "status": "True", "reason": kind, "message": "", "lastTransitionTime": when}))
        .into();
    state.apply_node_pool(read(json!({
        "metadata": {"name": "default"},
        "spec": {"template": {"spec": {"nodeClassRef": {"group": KIND.group, "kind": KIND.kind, "name": "default"}}},
            "disruption": {"consolidateAfter": "0s", "budgets": [{"nodes": "100%"}]}},
        "status": {"conditions": [ready.get(3)]},
    })));
    for n in 0..nodes {
        let (name, id) = (format!("node-{n:05}"), format!("test:///{n}"));
        let labels = json!({
            "karpenter.sh/nodepool": "default", "karpenter.sh/capacity-type": "on-demand",
            "node.kubernetes.io/instance-type": "m16", "topology.kubernetes.io/zone": ZONES.get(n % 3),
            "kubernetes.io/hostname": name, "karpenter.sh/registered": "true", "karpenter.sh/initialized": "true",
        });
        let amounts = json!({"cpu": "16", "memory": "64Gi", "pods": "110"});
        state.apply_node_claim(read(json!({
            "metadata": {"name": name, "uid": name, "labels": labels, "creationTimestamp": when},
            "spec": {"nodeClassRef": {"group": KIND.group, "kind": KIND.kind, "name": "default"}, "expireAfter": "Never"},
            "status": {"providerID": id, "nodeName": name, "conditions": ready, "capacity": amounts, "allocatable": amounts},
        })));
        let node: Node = read(json!({
            "metadata": {"name": name, "labels": labels, "creationTimestamp": when},
            "spec": {"providerID": id},
            "status": {"capacity": amounts, "allocatable": amounts, "conditions": [{"type": "Ready", "status": "True"}]},
        }));
        state.apply_node(node);
        for p in 0..PODS_PER_NODE {
            // Ten shapes, as if of ten Deployments; together they fill a node to 15.5 of its cores.
            let cpu = format!("{}m", 550 + 50 * (p % 10));
            state.apply_pod(read(json!({
                "metadata": {"name": format!("pod-{n}-{p}"), "namespace": "default", "uid": format!("{n}-{p}"),
                    "labels": {"app": format!("web{}", p % 10)}, "creationTimestamp": when,
                    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "rs", "controller": true}]},
                "spec": {"nodeName": name, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}}}]},
                "status": {"phase": "Running", "startTime": when, "conditions": [{"type": "Ready", "status": "True"}]},
            })));
        }
    }
    let sold = BTreeMap::from([("default".into(), Arc::new(types()))]);
    let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
    let labels = Arc::new(LabelRegistry::default());
    Cluster::new(state, labels, &KIND, &Settings::default(), &sold, now)
}
