//! Reads the public scheduling benchmark's files (`KARPENTER_SHARED`, else `../shared` beside the tree): pods, NodePool
//! and instance types as a [`Problem`], and what Karpenter's own solver made of them.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use flate2::read::GzDecoder;
use k8s_openapi::api::core::v1::Pod as RawPod;
use karpenter_api::NodePool;
use karpenter_api::kinds::{RawQuantity, RequirementSpec};
use karpenter_api::labels::NODEPOOL;
use karpenter_model::instance::Overhead;
use karpenter_model::{
    InstanceType, LabelRegistry, Offering, Pod, PoolView, Problem, Requirement, Requirements,
    ResourceList, SolveOptions,
};
use serde_json::Value;

/// A case of the benchmark and Karpenter's best plan for it.
pub(crate) struct Recorded {
    pub(crate) problem: Problem,
    /// Dollars per hour, the least of its repetitions.
    pub(crate) price: f64,
    /// NodeClaims of that repetition.
    pub(crate) nodes: usize,
}

/// The case of a file; none where the file is not there, which is said.
pub(crate) fn recorded(name: &str) -> Option<Recorded> {
    let root = std::env::var_os("KARPENTER_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")),
        PathBuf::from,
    );
    let path = root.join("data/scheduling-bench").join(name);
    let Ok(bytes) = std::fs::read(&path) else {
        println!("SKIPPED: {name} is not there (set KARPENTER_SHARED): plans were NOT compared");
        return None;
    };
    let mut text = String::new();
    GzDecoder::new(&bytes[..])
        .read_to_string(&mut text)
        .unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    let theirs = value["upstream"].as_array().unwrap().iter().map(|u| {
        let claims = &u["nodeClaims"];
        let nodes = claims.as_array().map_or_else(
            || usize::try_from(claims.as_u64().unwrap_or(0)).unwrap(),
            Vec::len,
        );
        (u["totalCheapestPrice"].as_f64().unwrap(), nodes)
    });
    let (price, nodes) = theirs.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    Some(Recorded {
        problem: problem(&value),
        price,
        nodes,
    })
}

fn resources(value: &Value) -> ResourceList {
    let raw: std::collections::BTreeMap<String, RawQuantity> =
        serde_json::from_value(value.clone()).unwrap();
    ResourceList::from_raw(&raw).unwrap()
}

fn requirements(value: &Value, labels: &LabelRegistry) -> Requirements {
    let specs: Vec<RequirementSpec> = serde_json::from_value(value.clone()).unwrap();
    Requirements::from_specs(&specs, labels).unwrap()
}

fn instance_type(value: &Value, labels: &LabelRegistry) -> Arc<InstanceType> {
    let offerings = value["offerings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| Offering {
            requirements: requirements(&o["requirements"], labels),
            price: o["price"].as_f64().unwrap(),
            available: o["available"].as_bool().unwrap_or(true),
            reservation_capacity: 0,
            overlaid: false,
        });
    let overhead = Overhead {
        kube_reserved: resources(&value["kubeReserved"]),
        ..Overhead::default()
    };
    let t = InstanceType::new(
        value["name"].as_str().unwrap(),
        requirements(&value["requirements"], labels),
        offerings.collect(),
        resources(&value["capacity"]),
        overhead,
    );
    assert_eq!(
        t.allocatable,
        resources(&value["allocatable"]),
        "{}",
        t.name
    );
    Arc::new(t)
}

fn problem(value: &Value) -> Problem {
    let labels = LabelRegistry::default();
    let types = value["instanceTypes"].as_array().unwrap();
    let types = types.iter().map(|t| instance_type(t, &labels)).collect();
    let raw: NodePool = serde_json::from_value(value["nodePool"].clone()).unwrap();
    let view = PoolView {
        name: "bench".into(),
        requirements: [Requirement::is_in(NODEPOOL, ["bench"])]
            .into_iter()
            .collect(),
        instance_types: types,
        limits: raw
            .spec
            .limits
            .as_ref()
            .map(|l| ResourceList::from_raw(l).unwrap()),
        ..PoolView::default()
    };
    let pods: Vec<RawPod> = serde_json::from_value(value["pods"].clone()).unwrap();
    Problem {
        pods: pods
            .iter()
            .map(|p| Arc::new(Pod::try_from_k8s(p).unwrap()))
            .collect(),
        nodes: Vec::new(),
        pools: vec![Arc::new(view)],
        daemons: Vec::new(),
        volume_limits: Arc::default(),
        namespaces: Arc::default(),
        labels: Arc::new(labels),
        options: SolveOptions::default(),
    }
}
