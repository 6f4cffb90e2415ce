//! One small problem with a good plan, and the handles to spoil them.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Affinity, PodAffinityTerm, PodAntiAffinity, Taint, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use karpenter_api::Quantity;
use karpenter_api::labels as names;
use karpenter_model::plan::{ExistingPlacement, PlannedNode, PricedOffering, Unschedulable};
use karpenter_model::pod::HostPort;
use karpenter_model::storage::{Attached, StorageFault, StorageRefusal};
use karpenter_model::{
    InstanceType, LabelRegistry, NodeView, Offering, Plan, Pod, PodKey, PoolView, Problem,
    Requirement, Requirements, ResourceList, SolveOptions, Storage, VolumeRoom,
};

pub(crate) fn key(name: &str) -> PodKey {
    PodKey {
        namespace: "default".into(),
        name: name.into(),
    }
}

pub(crate) fn resources(cpu_millis: i64, memory_mib: i64) -> ResourceList {
    ResourceList::from_iter([
        ("cpu", Quantity::from_millis(cpu_millis)),
        ("memory", Quantity::from_units(memory_mib << 20)),
        ("pods", Quantity::from_units(1)),
    ])
}

pub(crate) fn pod(name: &str, cpu_millis: i64, memory_mib: i64) -> Arc<Pod> {
    let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    Arc::new(Pod {
        key: key(name),
        requests: resources(cpu_millis, memory_mib),
        labels,
        ..Pod::default()
    })
}

pub(crate) fn require<'a>(
    requirements: &'a mut Requirements,
    label: &str,
    values: &[&str],
) -> &'a mut Requirement {
    let requirement = Requirement::is_in(label, values);
    requirements.map.insert(label.into(), requirement);
    requirements.map.get_mut(label).unwrap()
}

fn sold(name: &str, cpu: i64, price: f64) -> InstanceType {
    let mut requirements = Requirements::default();
    require(&mut requirements, names::INSTANCE_TYPE, &[name]);
    require(&mut requirements, names::ARCH, &["amd64"]);
    require(&mut requirements, names::ZONE, &["zone-1", "zone-2"]);
    let offering = |zone: &str, price| {
        let mut requirements = Requirements::default();
        require(&mut requirements, names::ZONE, &[zone]);
        require(&mut requirements, names::CAPACITY_TYPE, &["spot"]);
        Offering {
            requirements,
            price,
            available: true,
            reservation_capacity: 0,
            overlaid: false,
        }
    };
    let mut capacity = resources(cpu * 1000, cpu * 4096);
    capacity.set("pods", Quantity::from_units(20));
    InstanceType {
        name: name.into(),
        requirements,
        offerings: vec![offering("zone-1", price), offering("zone-2", price * 1.5)],
        allocatable: capacity.clone(),
        capacity,
        overhead: karpenter_model::instance::Overhead::default(),
        overlaid: false,
    }
}

/// Pod `a` goes to the node there is, `b` and `c` to a new one that may become `large` or `xlarge`.
pub(crate) fn good() -> (Problem, Plan) {
    let node = NodeView {
        name: "node-1".into(),
        labels: BTreeMap::from([(names::ZONE.to_owned(), "zone-1".to_owned())]),
        capacity: resources(2000, 4096),
        allocatable: resources(2000, 4096),
        available: resources(2000, 4096),
        initialized: true,
        ..NodeView::default()
    };
    let mut requirements = Requirements::default();
    require(&mut requirements, names::ARCH, &["amd64"]);
    let pool = PoolView {
        name: "default".into(),
        requirements: requirements.clone(),
        instance_types: vec![
            Arc::new(sold("large", 4, 0.1)),
            Arc::new(sold("xlarge", 8, 0.2)),
        ],
        ..PoolView::default()
    };
    let problem = Problem {
        pods: vec![
            pod("a", 1000, 512),
            pod("b", 1000, 512),
            pod("c", 1000, 512),
        ],
        nodes: vec![Arc::new(node)],
        pools: vec![Arc::new(pool)],
        daemons: Vec::new(),
        volume_limits: Arc::default(),
        namespaces: Arc::default(),
        labels: Arc::new(LabelRegistry::default()),
        options: SolveOptions::default(),
    };
    let cheapest = PricedOffering {
        instance_type: "large".into(),
        zone: "zone-1".into(),
        capacity_type: "spot".into(),
        price: 0.1,
    };
    let new = PlannedNode {
        pool: "default".into(),
        pods: vec![key("b"), key("c")],
        requirements,
        instance_types: vec!["large".into(), "xlarge".into()],
        capacity_types: vec!["spot".into()],
        requests: resources(2000, 1024),
        min_values_relaxed: false,
        cheapest: cheapest.clone(),
        runner_up: Some(PricedOffering {
            instance_type: "xlarge".into(),
            price: 0.2,
            ..cheapest.clone()
        }),
        funnel: Vec::new(),
    };
    let plan = Plan {
        new_nodes: vec![new],
        existing: vec![ExistingPlacement {
            node: "node-1".into(),
            pods: vec![key("a")],
        }],
        ..Plan::default()
    };
    (problem, plan)
}

pub(crate) fn node(problem: &mut Problem) -> &mut NodeView {
    Arc::get_mut(&mut problem.nodes[0]).unwrap()
}

pub(crate) fn pool(problem: &mut Problem) -> &mut PoolView {
    Arc::get_mut(&mut problem.pools[0]).unwrap()
}

pub(crate) fn instance_type<'a>(problem: &'a mut Problem, name: &str) -> &'a mut InstanceType {
    let types = &mut pool(problem).instance_types;
    Arc::get_mut(types.iter_mut().find(|t| t.name.as_ref() == name).unwrap()).unwrap()
}

pub(crate) fn edit<'a>(problem: &'a mut Problem, name: &str) -> &'a mut Pod {
    Arc::get_mut(
        problem
            .pods
            .iter_mut()
            .find(|p| p.key == key(name))
            .unwrap(),
    )
    .unwrap()
}

pub(crate) fn select(problem: &mut Problem, name: &str, label: &str, value: &str) {
    edit(problem, name)
        .node_selector
        .insert(label.to_owned(), value.to_owned());
}

pub(crate) fn taint(key: &str, value: &str, effect: &str) -> Taint {
    Taint {
        key: key.to_owned(),
        value: Some(value.to_owned()),
        effect: effect.to_owned(),
        time_added: None,
    }
}

pub(crate) fn port(port: i32) -> HostPort {
    HostPort {
        ip: "0.0.0.0".into(),
        port,
        protocol: "TCP".into(),
    }
}

fn web() -> LabelSelector {
    LabelSelector {
        match_labels: Some(BTreeMap::from([("app".to_owned(), "web".to_owned())])),
        match_expressions: None,
    }
}

pub(crate) fn anti_affinity(problem: &mut Problem, name: &str, key: &str) {
    let term = PodAffinityTerm {
        label_selector: Some(web()),
        topology_key: key.to_owned(),
        ..PodAffinityTerm::default()
    };
    edit(problem, name).affinity = Some(Arc::new(Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: Some(vec![term]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }));
}

pub(crate) fn spread_by_zone(problem: &mut Problem, names_of_pods: &[&str], max_skew: i32) {
    for name in names_of_pods {
        let pod = edit(problem, name);
        pod.labels.insert("app".to_owned(), "spread".to_owned());
        pod.spread = vec![TopologySpreadConstraint {
            label_selector: Some(LabelSelector {
                match_labels: Some(BTreeMap::from([("app".to_owned(), "spread".to_owned())])),
                match_expressions: None,
            }),
            max_skew,
            topology_key: names::ZONE.to_owned(),
            when_unsatisfiable: "DoNotSchedule".to_owned(),
            ..TopologySpreadConstraint::default()
        }];
    }
}

fn attached(claims: &[&str]) -> Attached {
    let all = claims.iter().map(|c| key(c)).collect();
    Attached::from([("ebs".into(), all)])
}

/// Gives a pod volumes that can be used in these zones (none = anywhere).
pub(crate) fn mount(problem: &mut Problem, name: &str, zones: &[&str], claims: &[&str]) {
    let place = |zone: &&str| {
        let mut place = Requirements::default();
        require(&mut place, names::ZONE, &[zone]);
        place
    };
    edit(problem, name).storage = Some(Arc::new(Storage {
        alternatives: zones.iter().map(place).collect(),
        attached: attached(claims),
        refusal: None,
    }));
}

/// Makes a claim of a pod one that cannot be planned for.
pub(crate) fn refuse(problem: &mut Problem, name: &str) {
    let storage = edit(problem, name).storage.as_mut().unwrap();
    Arc::get_mut(storage).unwrap().refusal = Some(StorageRefusal {
        claim: key("data"),
        fault: StorageFault::Missing,
    });
}

/// Volumes that the node has, and how many it can have.
pub(crate) fn attach(problem: &mut Problem, limit: usize, claims: &[&str]) {
    node(problem).volumes = Some(Arc::new(VolumeRoom {
        limits: [("ebs".into(), limit)].into(),
        used: attached(claims),
    }));
}

/// Has a pod keep those of namespaces of a team off its host, and puts another pod into one of team blue.
pub(crate) fn apart_from_team(
    problem: &mut Problem,
    plan: &mut Plan,
    (name, other): (&str, &str),
    team: &str,
) {
    let labels = |team: &str| BTreeMap::from([("team".to_owned(), team.to_owned())]);
    anti_affinity(problem, name, names::HOSTNAME);
    let affinity = edit(problem, name).affinity.as_mut().unwrap();
    let anti = Arc::get_mut(affinity).unwrap().pod_anti_affinity.as_mut();
    let terms = anti
        .unwrap()
        .required_during_scheduling_ignored_during_execution
        .as_mut();
    terms.unwrap()[0].namespace_selector = Some(LabelSelector {
        match_labels: Some(labels(team)),
        match_expressions: None,
    });
    problem.namespaces = Arc::new(
        [
            ("default".into(), labels("green")),
            ("other".into(), labels("blue")),
        ]
        .into(),
    );
    edit(problem, other).key.namespace = "other".into();
    for pod in plan.new_nodes.iter_mut().flat_map(|n| &mut n.pods) {
        if *pod == key(other) {
            pod.namespace = "other".into();
        }
    }
}

/// Spreads `b` and `c` over zones, both in one, beside a zone whose only node is tainted.
pub(crate) fn spread_beside_a_tainted_zone(
    problem: &mut Problem,
    plan: &mut Plan,
    taints: Option<&str>,
) {
    spread_by_zone(problem, &["b", "c"], 1);
    for name in ["b", "c"] {
        edit(problem, name).spread[0].node_taints_policy = taints.map(str::to_owned);
    }
    require(&mut pool(problem).requirements, names::ZONE, &["zone-2"]);
    in_zone_2(&mut plan.new_nodes[0]);
    node(problem).taints = vec![taint("kept", "", "NoSchedule")];
    plan.existing.clear();
    problem.pods.retain(|p| p.key != key("a"));
}

/// Key of reservations.
pub(crate) const RESERVATION: &str = "example.com/reservation";

/// All that is sold, and with it the one new node, is out of reservation `r`, which has `left` machines.
pub(crate) fn reserve(problem: &mut Problem, plan: &mut Plan, left: u32) {
    Arc::make_mut(&mut problem.labels).reservation_id = Some(RESERVATION.to_owned());
    for name in ["large", "xlarge"] {
        let sold = instance_type(problem, name);
        require(&mut sold.requirements, RESERVATION, &["r"]);
        for offering in &mut sold.offerings {
            require(&mut offering.requirements, RESERVATION, &["r"]);
            require(
                &mut offering.requirements,
                names::CAPACITY_TYPE,
                &["reserved"],
            );
            offering.reservation_capacity = left;
        }
    }
    for node in &mut plan.new_nodes {
        require(&mut node.requirements, RESERVATION, &["r"]);
        require(&mut node.requirements, names::CAPACITY_TYPE, &["reserved"]);
        node.capacity_types = vec!["reserved".into()];
        node.cheapest.capacity_type = "reserved".into();
        node.runner_up.as_mut().unwrap().capacity_type = "reserved".into();
    }
}

/// A new node can be had in zone 2 only, where all costs half as much again.
pub(crate) fn in_zone_2(node: &mut PlannedNode) {
    require(&mut node.requirements, names::ZONE, &["zone-2"]);
    for said in [&mut node.cheapest, node.runner_up.as_mut().unwrap()] {
        said.zone = "zone-2".into();
        said.price *= 1.5;
    }
}

/// The new node is bought once more, for other pods.
pub(crate) fn buy_once_more(plan: &mut Plan, pods: &[&str]) {
    let mut again = plan.new_nodes[0].clone();
    again.pods = pods.iter().map(|p| key(p)).collect();
    plan.new_nodes.push(again);
}

/// A pod is called unschedulable; a new node without pods is not bought.
pub(crate) fn lose(plan: &mut Plan, pod: &str) {
    let mut lost = vec![key(pod)];
    if pod == "b" {
        // The whole node is given up.
        lost = plan.new_nodes.drain(..).flat_map(|n| n.pods).collect();
    }
    for pod in lost {
        plan.unschedulable.push(Unschedulable {
            pod,
            reason: "because".into(),
            pools: Vec::new(),
        });
    }
}

/// So many cores and nothing else.
pub(crate) fn cores(n: i64) -> ResourceList {
    ResourceList::from_iter([("cpu", Quantity::from_units(n))])
}
