//! The public benchmark's plain pods, made-up and real EC2 types: valid, and never dearer than what Karpenter made
//! of the same input. Where the files are not there (`KARPENTER_SHARED`, else `../shared`), says so and skips.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use flate2::read::GzDecoder;
use k8s_openapi::api::core::v1::Pod as RawPod;
use karpenter_api::NodePool;
use karpenter_api::kinds::{RawQuantity, RequirementSpec};
use karpenter_model::instance::Overhead;
use karpenter_model::{
    InstanceType, LabelRegistry, Offering, Pod, PoolView, Problem, Requirements, ResourceList,
};
use rstest::rstest;
use serde_json::Value;

use crate::world::{pool, price, problem, show};

/// Claims that the checker is shown.
const CHECKED: usize = 6;

fn file(name: &str) -> Option<Value> {
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
    Some(serde_json::from_str(&text).unwrap())
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

fn read(value: &Value) -> Problem {
    let labels = LabelRegistry::default();
    let types = value["instanceTypes"].as_array().unwrap();
    let types = types.iter().map(|t| instance_type(t, &labels)).collect();
    let raw: NodePool = serde_json::from_value(value["nodePool"].clone()).unwrap();
    let view = PoolView {
        limits: raw
            .spec
            .limits
            .as_ref()
            .map(|l| ResourceList::from_raw(l).unwrap()),
        ..pool("bench", "", types)
    };
    let pods: Vec<RawPod> = serde_json::from_value(value["pods"].clone()).unwrap();
    problem(
        vec![view],
        pods.iter().map(|p| Pod::try_from_k8s(p).unwrap()).collect(),
    )
}

#[rstest]
#[case("generic-1000-400.json.gz", 0.90)]
#[case("generic-1000-aws.json.gz", 0.50)]
fn never_dearer_than_upstream(#[case] name: &str, #[case] most: f64) {
    let Some(value) = file(name) else { return };
    let problem = read(&value);
    let plan = karpenter_solver::solve(&problem);
    assert!(plan.unschedulable.is_empty(), "{}", show(&plan));
    let pods: usize = plan.new_nodes.iter().map(|n| n.pods.len()).sum();
    assert_eq!(pods, problem.pods.len());
    // The checker goes through every node that could come of every claim, which takes its time: some claims do.
    let mut some = plan.clone();
    let every = some.new_nodes.len().div_ceil(CHECKED);
    some.new_nodes = plan.new_nodes.iter().step_by(every).cloned().collect();
    let mut theirs = problem.clone();
    theirs
        .pods
        .retain(|p| some.new_nodes.iter().any(|n| n.pods.contains(&p.key)));
    let findings = karpenter_plan_check::check(&theirs, &some);
    assert!(findings.is_empty(), "{findings:#?}");
    let theirs = value["upstream"].as_array().unwrap().iter();
    let theirs = theirs
        .map(|u| u["totalCheapestPrice"].as_f64().unwrap())
        .fold(f64::INFINITY, f64::min);
    let ours = price(&plan);
    println!(
        "{name}: ours {ours:.3} on {} nodes, upstream {theirs:.3}",
        plan.new_nodes.len()
    );
    assert!(
        ours <= most * theirs,
        "ours {ours:.3}, upstream {theirs:.3}"
    );
}

/// Pods with every kind of rule: all are placed, every rule is kept (checked on the small ones: the checker goes through
/// every node that could come of every claim), and it costs less.
#[rstest]
#[case("diverse-100-400.json.gz", 0.85, true)]
#[case("diverse-1000-400.json.gz", 0.75, false)]
#[case("diverse-100-aws.json.gz", 0.55, true)]
#[case("diverse-1000-aws.json.gz", 0.42, false)]
fn with_rules_between_pods(#[case] name: &str, #[case] most: f64, #[case] checked: bool) {
    let Some(value) = file(name) else { return };
    let problem = read(&value);
    let plan = karpenter_solver::solve(&problem);
    assert!(plan.unschedulable.is_empty(), "{}", show(&plan));
    if checked {
        let findings = karpenter_plan_check::check(&problem, &plan);
        assert!(findings.is_empty(), "{findings:#?}");
    }
    let theirs = value["upstream"].as_array().unwrap().iter();
    let theirs = theirs
        .map(|u| u["totalCheapestPrice"].as_f64().unwrap())
        .fold(f64::INFINITY, f64::min);
    let ours = price(&plan);
    println!(
        "{name}: ours {ours:.3} on {} nodes, upstream {theirs:.3}",
        plan.new_nodes.len()
    );
    assert!(
        ours <= most * theirs,
        "ours {ours:.3}, upstream {theirs:.3}"
    );
}
