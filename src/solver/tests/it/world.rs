//! A small language for problems, and the one way tests solve them: checked, and planned again with the plan applied.
//!
//! Types are `name cpu/memoryGi price` with two zones (`a`, `b`) and two capacity types, spot at a third of the price.
//! A type keeps nothing for itself and has 110 pod slots unless a test says otherwise.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod as RawPod, Taint};
use karpenter_api::Quantity;
use karpenter_api::labels as l;
use karpenter_model::instance::Overhead;
use karpenter_model::pod::{HostPort, Owner};
use karpenter_model::{
    InstanceType, LabelRegistry, NodeView, Offering, Plan, Pod, PoolView, Problem, Requirement,
    Requirements, ResourceList, SolveOptions, VolumeRoom, taints,
};
use serde_json::{Value, json};

pub(crate) fn list(text: &str) -> ResourceList {
    text.split_whitespace()
        .map(|entry| {
            let (name, amount) = entry.split_once('=').unwrap();
            (name, amount.parse::<Quantity>().unwrap())
        })
        .collect()
}

/// `key Op v1 v2, key Op …`, an entry ending in `min=n` has minValues.
pub(crate) fn reqs(text: &str) -> Requirements {
    text.split(", ")
        .filter(|t| !t.is_empty())
        .map(|t| {
            let mut words = t.split(' ');
            let (key, op) = (words.next().unwrap(), words.next().unwrap());
            let (min, values): (Vec<&str>, Vec<&str>) = words.partition(|w| w.starts_with("min="));
            let mut r = Requirement::new(key, op.parse().unwrap(), values).unwrap();
            r.min_values = min.first().map(|m| m[4..].parse().unwrap());
            r
        })
        .collect()
}

/// An instance type with the labels of `extra` beside the usual ones.
pub(crate) fn machine_with(
    name: &str,
    capacity: &str,
    price: f64,
    extra: &str,
) -> Arc<InstanceType> {
    let mut requirements = reqs(extra);
    for (key, values) in [
        (l::INSTANCE_TYPE, vec![name]),
        (l::ZONE, vec!["a", "b"]),
        (l::CAPACITY_TYPE, vec!["on-demand", "spot"]),
        (l::OS, vec!["linux"]),
    ] {
        requirements.set(Requirement::is_in(key, values));
    }
    if !requirements.contains(l::ARCH) {
        requirements.set(Requirement::is_in(l::ARCH, ["amd64"]));
    }
    let offerings = ["a", "b"]
        .into_iter()
        .flat_map(|z| {
            [
                Offering::new(z, "on-demand", price),
                Offering::new(z, "spot", price / 3.0),
            ]
        })
        .collect();
    let mut total = list("pods=110");
    total.max_with(&list(capacity));
    if capacity.contains("pods=") {
        total.set("pods", list(capacity).get("pods"));
    }
    Arc::new(InstanceType::new(
        name,
        requirements,
        offerings,
        total,
        Overhead::default(),
    ))
}

pub(crate) fn machine(name: &str, capacity: &str, price: f64) -> Arc<InstanceType> {
    machine_with(name, capacity, price, "")
}

/// 2, 4, 8 and 16 cores with twice the GiB, the price straight in the size.
pub(crate) fn ladder() -> Vec<Arc<InstanceType>> {
    [2, 4, 8, 16]
        .iter()
        .map(|n| {
            machine(
                &format!("m{n}"),
                &format!("cpu={n} memory={}Gi", 2 * n),
                f64::from(*n) * 0.05,
            )
        })
        .collect()
}

pub(crate) fn pool(name: &str, requirements: &str, types: Vec<Arc<InstanceType>>) -> PoolView {
    let mut all = reqs(requirements);
    all.set(Requirement::is_in(l::NODEPOOL, [name]));
    PoolView {
        name: name.into(),
        requirements: all,
        labels: BTreeMap::from([(l::NODEPOOL.to_owned(), name.to_owned())]),
        instance_types: types,
        ..PoolView::default()
    }
}

pub(crate) fn taint(key: &str, effect: &str) -> Taint {
    taints::taint(key, "", effect)
}

pub(crate) fn named(mut pod: Pod, name: &str) -> Pod {
    pod.key.namespace = "d".into();
    pod.key.name = name.into();
    pod.uid = name.into();
    pod
}

pub(crate) fn pod(name: &str, requests: &str) -> Pod {
    let mut all = list("pods=1");
    all.add(&list(requests));
    named(
        Pod {
            requests: all,
            unschedulable: true,
            ..Pod::default()
        },
        name,
    )
}

/// `count` equal pods, `name-000…`.
pub(crate) fn pods(name: &str, count: usize, requests: &str) -> Vec<Pod> {
    (0..count)
        .map(|i| pod(&format!("{name}-{i:03}"), requests))
        .collect()
}

/// A pod with fields of a Kubernetes spec (`nodeSelector`, `affinity`, `tolerations` …).
pub(crate) fn pod_with(name: &str, requests: &str, mut spec: Value) -> Pod {
    spec["containers"] = json!([]);
    let raw: RawPod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
    Pod {
        requests: pod(name, requests).requests,
        ..named(Pod::from_k8s(&raw), name)
    }
}

pub(crate) fn selecting(name: &str, requests: &str, key: &str, value: &str) -> Pod {
    pod_with(name, requests, json!({"nodeSelector": {key: value}}))
}

pub(crate) fn expression(key: &str, op: &str, values: &[&str]) -> Value {
    json!({"matchExpressions": [{"key": key, "operator": op, "values": values}]})
}

/// A pod with required node affinity terms and preferred ones, the heaviest first.
pub(crate) fn affine(
    name: &str,
    requests: &str,
    required: Vec<Value>,
    preferred: Vec<Value>,
) -> Pod {
    let mut node = json!({});
    if !required.is_empty() {
        node["requiredDuringSchedulingIgnoredDuringExecution"] =
            json!({"nodeSelectorTerms": required});
    }
    let weighted: Vec<Value> = preferred
        .into_iter()
        .enumerate()
        .map(|(i, p)| json!({"weight": 100 - i, "preference": p}))
        .collect();
    node["preferredDuringSchedulingIgnoredDuringExecution"] = json!(weighted);
    pod_with(name, requests, json!({"affinity": {"nodeAffinity": node}}))
}

pub(crate) fn daemon(name: &str, requests: &str, spec: Value) -> Arc<Pod> {
    Arc::new(Pod {
        owner: Owner::DaemonSet,
        unschedulable: false,
        ..pod_with(name, requests, spec)
    })
}

pub(crate) fn port(port: i32) -> HostPort {
    HostPort {
        ip: "0.0.0.0".into(),
        port,
        protocol: "TCP".into(),
    }
}

/// An initialized node of a pool with nothing on it.
pub(crate) fn node(name: &str, capacity: &str, labels: &[(&str, &str)]) -> NodeView {
    let mut all = list("pods=110");
    all.max_with(&list(capacity));
    NodeView {
        name: name.into(),
        node_claim: Some(name.into()),
        provider_id: name.into(),
        labels: labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        capacity: all.clone(),
        allocatable: all.clone(),
        available: all,
        initialized: true,
        managed: true,
        ..NodeView::default()
    }
}

pub(crate) fn problem(pools: Vec<PoolView>, pods: Vec<Pod>) -> Problem {
    let mut labels = LabelRegistry::default();
    labels.well_known.insert("example.com/integer".to_owned());
    Problem {
        pods: pods.into_iter().map(Arc::new).collect(),
        nodes: Vec::new(),
        pools: pools.into_iter().map(Arc::new).collect(),
        daemons: Vec::new(),
        volume_limits: Arc::default(),
        namespaces: Arc::default(),
        labels: Arc::new(labels),
        options: SolveOptions::default(),
    }
}

/// Key of reservations.
pub(crate) const RESERVATION: &str = "example.com/reservation";

/// A type that can be had out of reservations besides: id, zone, machines left.
pub(crate) fn reserved(
    sold: &Arc<InstanceType>,
    out_of: &[(&str, &str, u32)],
) -> Arc<InstanceType> {
    let mut sold = InstanceType::clone(sold);
    let kinds = [
        l::CAPACITY_ON_DEMAND,
        l::CAPACITY_SPOT,
        l::CAPACITY_RESERVED,
    ];
    sold.requirements
        .set(Requirement::is_in(l::CAPACITY_TYPE, kinds));
    let ids = out_of.iter().map(|(id, _, _)| *id);
    sold.requirements
        .set(Requirement::is_in(RESERVATION, ids.collect::<Vec<_>>()));
    for offering in &mut sold.offerings {
        offering
            .requirements
            .set(Requirement::does_not_exist(RESERVATION));
    }
    for (id, zone, left) in out_of {
        let mut offering = Offering::new(zone, l::CAPACITY_RESERVED, 0.000_001);
        offering
            .requirements
            .set(Requirement::is_in(RESERVATION, [*id]));
        offering.reservation_capacity = *left;
        offering.available = *left > 0;
        sold.offerings.push(offering);
    }
    Arc::new(sold)
}

/// A problem in which reservations can be named.
pub(crate) fn with_reservations(pools: Vec<PoolView>, pods: Vec<Pod>) -> Problem {
    let mut problem = problem(pools, pods);
    let labels = Arc::make_mut(&mut problem.labels);
    labels.well_known.insert(RESERVATION.to_owned());
    labels.reservation_id = Some(RESERVATION.to_owned());
    problem
}

/// Solves, has the plan checked, and plans again with it carried out: nothing may change.
pub(crate) fn solve(problem: &Problem) -> Plan {
    let plan = karpenter_solver::solve(problem);
    let findings = karpenter_plan_check::check(problem, &plan);
    assert!(findings.is_empty(), "{findings:#?}\n{}", show(&plan));
    let after = applied(problem, &plan);
    let again = karpenter_solver::solve(&after);
    let findings = karpenter_plan_check::check(&after, &again);
    assert!(
        findings.is_empty(),
        "again: {findings:#?}\n{}",
        show(&again)
    );
    assert!(
        again.new_nodes.is_empty() && again.existing.is_empty(),
        "planning again changed something:\n{}\nfirst:\n{}",
        show(&again),
        show(&plan)
    );
    assert_eq!(again.unschedulable.len(), plan.unschedulable.len());
    plan
}

/// The problem after the plan was carried out: pods bound, machines bought at the cheapest offering.
pub(crate) fn applied(problem: &Problem, plan: &Plan) -> Problem {
    let mut after = problem.clone();
    let by_key: BTreeMap<_, _> = problem.pods.iter().map(|p| (&p.key, p)).collect();
    let unplaced: Vec<_> = plan.unschedulable.iter().map(|u| &u.pod).collect();
    after.pods.retain(|p| unplaced.contains(&&p.key));
    for placement in &plan.existing {
        let node = after
            .nodes
            .iter_mut()
            .find(|n| n.name == placement.node)
            .unwrap();
        let node = Arc::make_mut(node);
        for key in &placement.pods {
            bind(node, by_key[key]);
        }
    }
    for (i, bought) in plan.new_nodes.iter().enumerate() {
        let pool = after
            .pools
            .iter_mut()
            .find(|p| p.name == bought.pool)
            .unwrap();
        let pool = Arc::make_mut(pool);
        let of = |t: &&Arc<InstanceType>| t.name == bought.cheapest.instance_type;
        let t = Arc::clone(pool.instance_types.iter().find(of).unwrap());
        let mut labels = pool.labels.clone();
        for r in t.requirements.iter().chain(bought.requirements.iter()) {
            if let Some(v) = r.any().filter(|_| r.complement || r.values.len() == 1) {
                labels
                    .entry(r.key.to_string())
                    .or_insert_with(|| v.to_string());
            }
        }
        labels.insert(l::ZONE.to_owned(), bought.cheapest.zone.to_string());
        labels.insert(
            l::CAPACITY_TYPE.to_owned(),
            bought.cheapest.capacity_type.to_string(),
        );
        let key = problem.labels.reservation_id.as_deref();
        let id = key.and_then(|k| bought.requirements.get(k)?.single());
        let name: Arc<str> = format!("bought-{i:03}").into();
        let mut node = NodeView {
            name: Arc::clone(&name),
            node_claim: Some(Arc::clone(&name)),
            node_pool: Some(Arc::clone(&pool.name)),
            provider_id: name,
            labels,
            taints: pool.taints.clone(),
            capacity: t.capacity.clone(),
            allocatable: t.allocatable.clone(),
            available: t.allocatable.clone(),
            managed: true,
            ..NodeView::default()
        };
        if let Some(limits) = problem.volume_limits.get(&t.name) {
            let room = VolumeRoom {
                limits: limits.clone(),
                ..VolumeRoom::default()
            };
            node.volumes = Some(Arc::new(room));
        }
        for key in &bought.pods {
            bind(&mut node, by_key[key]);
        }
        pool.usage.add(&t.capacity);
        pool.usage.add(&list("nodes=1"));
        after.nodes.push(Arc::new(node));
        if let Some(id) = id {
            use_up(&mut after, id);
        }
    }
    after
}

/// A provider says of a reservation what is left of it, and does not offer what is not.
fn use_up(problem: &mut Problem, id: &str) {
    for pool in &mut problem.pools {
        for sold in &mut Arc::make_mut(pool).instance_types {
            for offering in &mut Arc::make_mut(sold).offerings {
                if offering
                    .reservation(&problem.labels)
                    .is_some_and(|own| &**own == id)
                {
                    offering.reservation_capacity -= 1;
                    offering.available = offering.reservation_capacity > 0;
                }
            }
        }
    }
}

fn bind(node: &mut NodeView, pod: &Arc<Pod>) {
    node.available.subtract(&pod.requests);
    node.host_ports.extend(pod.host_ports.iter().cloned());
    if let Some(storage) = &pod.storage {
        let mut room = node.volumes.as_deref().cloned().unwrap_or_default();
        for (driver, claims) in &storage.attached {
            let used = room.used.entry(Arc::clone(driver)).or_default();
            used.extend(claims.iter().cloned());
        }
        node.volumes = Some(Arc::new(room));
    }
    let mut bound = Pod::clone(pod);
    bound.node_name = Some(Arc::clone(&node.name));
    node.pods.push(Arc::new(bound));
}

/// The plan in a line per thing: what tests compare.
pub(crate) fn show(plan: &Plan) -> String {
    let mut out = Vec::new();
    for e in &plan.existing {
        out.push(format!("{}: {} pods", e.node, e.pods.len()));
    }
    for n in &plan.new_nodes {
        let c = &n.cheapest;
        out.push(format!(
            "new {} {} {} {}: {} pods",
            n.pool,
            c.instance_type,
            c.zone,
            c.capacity_type,
            n.pods.len()
        ));
    }
    for u in &plan.unschedulable {
        out.push(format!("{}: {}", u.pod.name, u.reason));
    }
    out.join("\n")
}

/// Dollars per hour of what is bought.
pub(crate) fn price(plan: &Plan) -> f64 {
    plan.new_nodes.iter().map(|n| n.cheapest.price).sum()
}

/// A node that is left out of a cluster that was made ready is as if it were not there, and what other questions have found
/// out about what is sold changes no answer.
pub(crate) fn left_out(problem: &Problem) {
    let wares = karpenter_solver::Wares::default();
    let cluster = karpenter_solver::Cluster::new(&problem.nodes).knowing(&wares);
    for (at, node) in problem.nodes.iter().enumerate() {
        let mut without = problem.clone();
        without.nodes.remove(at);
        // As disruption asks: its pods are to go elsewhere.
        without.pods.extend(node.pods.iter().cloned());
        let mut asked = without.clone();
        asked.nodes.clear();
        let expected = format!("{:?}", karpenter_solver::solve(&without));
        let plan = karpenter_solver::solve_without(&asked, &cluster, &[at]);
        assert_eq!(format!("{plan:?}"), expected, "without {}", node.name);
        let plan = karpenter_solver::solve_knowing(&without, &wares);
        assert_eq!(format!("{plan:?}"), expected, "{} by others", node.name);
        assert!(!plan.cut_off, "without {}: {} units", node.name, plan.work);
    }
}
