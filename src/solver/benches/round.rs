//! What a provisioning round costs in a large cluster: state as it is held, the question made of it, the answer. 5 000
//! nodes and 100 000 bound pods; nothing pending, one node less, then a hundred pods. CPU time of one thread, and memory at the end.
//!
//! With `scattered`, every second node is short of memory only and the others of CPU only, so that no node takes a pod of
//! any other and none is plainly full: each simulation looks at all of them.
//!
//! `cargo bench -p karpenter-solver --bench round [nodes] [pods on each] [scattered]`

// A bench reports to a person and may fail loudly.
#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

#[path = "cases/made.rs"]
#[allow(dead_code)] // Another bench uses the rest.
mod made;
#[path = "cases/measure.rs"]
mod measure;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use karpenter_api::{Quantity, labels as l};
use karpenter_model::resources::names::{CPU, MEMORY};
use karpenter_model::{InstanceType, Plan, Pod, PoolView, Problem};
use karpenter_solver::Cluster;
use karpenter_state::Store;
use measure::{cpu, memory};
use serde_json::{Value, json};

/// The mean of so many runs, and what the last one gave.
fn timed<T>(what: &str, times: u32, mut run: impl FnMut() -> T) -> T {
    let begun = cpu();
    for _ in 1..times {
        run();
    }
    let last = run();
    let mean = (cpu() - begun) / f64::from(times);
    println!("{what:<52} {:>9.1} ms", mean * 1e3);
    last
}

fn told(what: &str) {
    println!("{what:<52} {}", memory("VmRSS"));
}

fn claim(name: &str, t: &InstanceType, zone: &str) -> Value {
    json!({
        "metadata": {"name": name, "resourceVersion": "1", "uid": name,
            "labels": {l::NODEPOOL: "default", l::INSTANCE_TYPE: &*t.name, l::ZONE: zone,
                l::CAPACITY_TYPE: "on-demand", l::ARCH: "amd64", l::OS: "linux"}},
        "spec": {"nodeClassRef": {"group": "g", "kind": "k", "name": "n"}, "requirements": []},
        "status": {"providerID": format!("made:///{name}"), "nodeName": name,
            "capacity": t.capacity.to_raw(), "allocatable": t.allocatable.to_raw()},
    })
}

fn node(name: &str, t: &InstanceType, zone: &str) -> Value {
    json!({
        "metadata": {"name": name, "resourceVersion": "2", "uid": name,
            "labels": {l::NODEPOOL: "default", l::INSTANCE_TYPE: &*t.name, l::ZONE: zone,
                l::CAPACITY_TYPE: "on-demand", l::ARCH: "amd64", l::OS: "linux", l::HOSTNAME: name,
                l::REGISTERED: "true", l::INITIALIZED: "true"}},
        "spec": {"providerID": format!("made:///{name}")},
        "status": {"capacity": t.capacity.to_raw(), "allocatable": t.allocatable.to_raw()},
    })
}

fn pod(index: usize, node: Option<&str>, (cpu, memory): (&str, &str)) -> Value {
    let workload = format!("web-{}", index % 60);
    let mut spec = json!({
        "containers": [{"name": "app", "image": "registry.example/app:1",
            "resources": {"requests": {"cpu": cpu, "memory": memory}}}],
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": l::ZONE,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app": workload}}}],
    });
    let mut status = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled",
        "status": "False", "reason": "Unschedulable"}]});
    if let Some(node) = node {
        spec["nodeName"] = json!(node);
        status = json!({"phase": "Running"});
    }
    let name = format!("pod-{index:06}");
    json!({
        "metadata": {"name": name, "namespace": "d", "uid": name, "resourceVersion": "3",
            "labels": {"app": workload, "pod-template-hash": "6f5b7c9d8f"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": true,
                "name": workload, "uid": workload}]},
        "spec": spec,
        "status": status,
    })
}

/// What is asked about pods, nodes apart.
fn question(store: &Store, pool: &Arc<PoolView>, pods: Vec<Arc<Pod>>) -> Problem {
    let mut problem = made::problem(Vec::new(), Vec::new());
    problem.pods = store.for_planning(pods, &problem.labels);
    problem.daemons = store.daemons();
    problem.volume_limits = store.volume_limits();
    problem.namespaces = store.namespaces();
    problem.pools = vec![Arc::clone(pool)];
    problem
}

/// Where pods go.
fn plan(store: &Store, pool: &Arc<PoolView>, pods: Vec<Arc<Pod>>) -> Plan {
    plan_on(store, pool, pods, 1)
}

fn plan_on(store: &Store, pool: &Arc<PoolView>, pods: Vec<Arc<Pod>>, threads: usize) -> Plan {
    if pods.is_empty() {
        return Plan::default();
    }
    let mut problem = question(store, pool, pods);
    problem.options.threads = threads;
    problem.nodes = store.problem_nodes(&BTreeSet::new());
    karpenter_solver::solve(&problem)
}

/// What pods ask for.
const USUAL: (&str, &str) = ("250m", "512Mi");

fn main() {
    let scattered = std::env::args().any(|a| a == "scattered");
    let numbers: Vec<usize> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let nodes = numbers.first().copied().unwrap_or(5_000);
    let each = numbers.get(1).copied().unwrap_or(20);
    let types = made::types(400);
    let pool = Arc::new(made::pool("default", types.clone()));
    told("before");
    let store = Store::default();
    let names: Vec<String> = (0..nodes).map(|i| format!("node-{i:05}")).collect();
    timed("reading nodes and claims", 1, || {
        for (i, name) in names.iter().enumerate() {
            let t = &types[each / 4];
            let zone = format!("test-zone-{}", i % 3 + 1);
            store.apply_node_claim(serde_json::from_value(claim(name, t, &zone)).unwrap());
            store.apply_node(serde_json::from_value(node(name, t, &zone)).unwrap());
        }
    });
    // As much as makes a node full.
    let share = |name: &str| {
        let all = types[each / 4].allocatable.get(name).nanos();
        Quantity::from_nanos(all / i128::try_from(each).unwrap()).to_string()
    };
    timed("reading bound pods", 1, || {
        for i in 0..nodes * each {
            let node = &names[i / each];
            let asked = match i / each % 2 {
                _ if !scattered => USUAL,
                0 => (&*share(CPU), "128Mi"),
                _ => ("50m", &*share(MEMORY)),
            };
            store.apply_pod(serde_json::from_value(pod(i, Some(node), asked)).unwrap());
        }
    });
    told("state");
    timed("first view of all nodes", 1, || {
        store.problem_nodes(&BTreeSet::new())
    });
    told("state with views");
    let round = || plan(&store, &pool, store.provisionable_pods());
    timed("round with nothing pending", 9, round);
    // What disruption asks of each of its candidates: where the pods of this node could go.
    let views = store.problem_nodes(&BTreeSet::new());
    let cluster = timed("making the cluster ready for simulations", 9, || {
        Cluster::new(&views)
    });
    let mut at = 0;
    let mut simulate = || {
        at += 1;
        let gone = at * 97 % views.len();
        let problem = question(&store, &pool, store.pods_on(&views[gone].name));
        karpenter_solver::solve_without(&problem, &cluster, &[gone])
    };
    timed("first simulation of one node less", 1, &mut simulate);
    timed("simulation of one node less", 500, &mut simulate);
    for i in 0..100 {
        let index = nodes * each + i;
        store.apply_pod(serde_json::from_value(pod(index, None, USUAL)).unwrap());
    }
    let plan = timed("round with 100 pods pending", 9, round);
    let placed: usize = plan.existing.iter().map(|p| p.pods.len()).sum();
    println!("  {placed} on nodes, {} new nodes", plan.new_nodes.len());
    for threads in [1, 2, 1, 2] {
        let begun = Instant::now();
        for _ in 0..9 {
            plan_on(&store, &pool, store.provisionable_pods(), threads);
        }
        let mean = begun.elapsed().as_secs_f64() / 9.0;
        println!(
            "  the same by the wall clock, {threads} threads {:>22.1} ms",
            mean * 1e3
        );
    }
    told("state, views and solve");
}
