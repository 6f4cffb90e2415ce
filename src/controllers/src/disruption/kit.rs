//! A cluster in the making, put into the state as objects: for tests of decisions, and for the bench of a pass.

#![allow(clippy::expect_used, clippy::indexing_slicing)] // Objects made here.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use karpenter_cloud::NodeClassKind;
use karpenter_model::{InstanceType, Offering, Requirement, Requirements, ResourceList};
use karpenter_runtime::Settings;
use karpenter_state::Store;
use serde_json::{Value, json};

/// The NodeClass of its pools.
pub(crate) const KIND: NodeClassKind = NodeClassKind {
    group: "test.karpenter.sh",
    version: "v1",
    kind: "TestNodeClass",
    plural: "testnodeclasses",
};

/// When it is looked at.
pub(crate) fn now() -> Timestamp {
    "2026-01-02T00:00:00Z".parse().expect("a time")
}

/// A cluster in the making.
pub(crate) struct Kit {
    pub(crate) state: Arc<Store>,
    pub(crate) types: Vec<Arc<InstanceType>>,
    pub(crate) settings: Settings,
}

/// Sets what `more` says, deeply; null takes a field away.
pub(crate) fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                if value.is_null() {
                    into.remove(key);
                } else {
                    merge(into.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (into, more) => *into = more.clone(),
    }
}

pub(crate) fn condition(kind: &str) -> Value {
    json!({"type": kind, "status": "True", "reason": kind, "message": "",
           "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

pub(crate) fn amounts(cores: u32) -> Value {
    json!({"cpu": cores.to_string(), "memory": format!("{}Gi", 4 * cores), "pods": "110"})
}

/// A type of so many cores with offerings by (zone, capacity type, price).
pub(crate) fn sold(name: &str, cores: u32, offerings: &[(&str, &str, f64)]) -> Arc<InstanceType> {
    let mut requirements = Requirements::new();
    requirements.add(Requirement::is_in(
        "node.kubernetes.io/instance-type",
        [name],
    ));
    let offerings = offerings.iter().map(|(z, c, p)| Offering::new(z, c, *p));
    let amounts = serde_json::from_value(amounts(cores)).expect("amounts");
    Arc::new(InstanceType::new(
        name,
        requirements,
        offerings.collect(),
        ResourceList::from_raw(&amounts).expect("resources"),
        Default::default(),
    ))
}

impl Kit {
    /// One pool, and what it may buy.
    pub(crate) fn new(types: Vec<Arc<InstanceType>>) -> Self {
        let kit = Self {
            state: Arc::default(),
            types,
            settings: Settings::default(),
        };
        kit.pool("p", &json!({}));
        kit
    }

    /// A pool that buys on demand; `more` is merged into it.
    pub(crate) fn pool(&self, name: &str, more: &Value) {
        let mut pool = json!({"metadata": {"name": name},
            "spec": {"template": {"spec": {"nodeClassRef": {"group": KIND.group, "kind": KIND.kind, "name": "default"},
                "requirements": [{"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]}]}},
                "disruption": {"consolidateAfter": "0s", "consolidationPolicy": "WhenEmptyOrUnderutilized",
                    "budgets": [{"nodes": "100%"}]}},
            "status": {"conditions": [condition("Ready")]}});
        merge(&mut pool, more);
        self.state
            .apply_node_pool(serde_json::from_value(pool).expect("a pool"));
    }

    /// A machine of pool `p`; what is given besides is merged into its Node and its claim.
    pub(crate) fn machine(
        &self,
        name: &str,
        instance_type: &str,
        capacity_type: &str,
        node_more: &Value,
        claim_more: &Value,
    ) {
        let cores = instance_type
            .trim_start_matches(|c: char| !c.is_ascii_digit())
            .parse()
            .unwrap_or(4);
        let labels = json!({"karpenter.sh/nodepool": "p", "karpenter.sh/capacity-type": capacity_type,
            "node.kubernetes.io/instance-type": instance_type, "topology.kubernetes.io/zone": "a",
            "kubernetes.io/hostname": name, "karpenter.sh/registered": "true", "karpenter.sh/initialized": "true"});
        let id = format!("test:///{name}");
        let conditions = [
            "Launched",
            "Registered",
            "Initialized",
            "Ready",
            "Consolidatable",
        ]
        .map(condition);
        let mut claim = json!({"metadata": {"name": name, "uid": name, "labels": labels, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeClassRef": {"group": KIND.group, "kind": KIND.kind, "name": "default"}},
            "status": {"providerID": id, "nodeName": name, "conditions": conditions,
                "capacity": amounts(cores), "allocatable": amounts(cores)}});
        merge(&mut claim, claim_more);
        self.state
            .apply_node_claim(serde_json::from_value(claim).expect("a claim"));
        let mut node = json!({"metadata": {"name": name, "labels": labels, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"providerID": id},
            "status": {"capacity": amounts(cores), "allocatable": amounts(cores),
                "conditions": [{"type": "Ready", "status": "True"}]}});
        merge(&mut node, node_more);
        self.state
            .apply_node(serde_json::from_value(node).expect("a node"));
    }

    /// A pod that runs on `node`, or waits where that is empty.
    pub(crate) fn pod(&self, name: &str, node: &str, cpu: &str, more: &Value) {
        let mut pod = json!({"metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"},
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "rs", "controller": true}]},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
            "status": {"phase": "Running", "startTime": "2026-01-01T00:00:00Z", "conditions": [{"type": "Ready", "status": "True"}]}});
        if node.is_empty() {
            pod["status"] = json!({"phase": "Pending", "conditions":
                [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]});
        } else {
            pod["spec"]["nodeName"] = node.into();
        }
        merge(&mut pod, more);
        self.state
            .apply_pod(serde_json::from_value(pod).expect("a pod"));
    }

    /// What each pool may buy.
    pub(crate) fn sold(&self) -> BTreeMap<Arc<str>, Arc<Vec<Arc<InstanceType>>>> {
        let types = Arc::new(self.types.clone());
        let pools = self.state.node_pools();
        let names = pools.iter().filter_map(|p| p.metadata.name.as_deref());
        names.map(|name| (name.into(), types.clone())).collect()
    }
}
