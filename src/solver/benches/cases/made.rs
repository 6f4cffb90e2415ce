//! Problems made from a seed: the public scheduling benchmark's made-up types and pod classes at any size, its preference
//! pods, and a cluster as platform teams run it. The draws are our own, so plans differ a little from those of its files.

use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_api::Quantity;
use karpenter_api::labels as l;
use karpenter_model::instance::Overhead;
use karpenter_model::{
    InstanceType, LabelRegistry, NodeView, Offering, Pod, PoolView, Problem, Requirement,
    Requirements, ResourceList, SolveOptions,
};
use serde_json::{Value, json};

const MIB: i64 = 1 << 20;
/// Dollars per hour of a core with its two GiB, as the benchmark prices it.
pub(crate) const CORE_PRICE: f64 = 0.314_748_364_8;
const ZONES: [&str; 3] = ["test-zone-1", "test-zone-2", "test-zone-3"];

/// One stream of numbers.
pub(crate) struct Draws(u64);

impl Draws {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }
    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % u64::try_from(n).unwrap()).unwrap()
    }
    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

pub(crate) fn list(cpu_millis: i64, memory_mib: i64, pods: i64) -> ResourceList {
    ResourceList::from_iter([
        ("cpu", Quantity::from_millis(cpu_millis)),
        ("memory", Quantity::from_units(memory_mib * MIB)),
        ("pods", Quantity::from_units(pods)),
    ])
}

/// The benchmark's types: 1 … `count` cores with 2 GiB and 10 pods each.
pub(crate) fn types(count: i64) -> Vec<Arc<InstanceType>> {
    (1..=count)
        .map(|n| {
            let name = format!("fake-it-{}", n - 1);
            let large = n > 4;
            let mut requirements: Requirements = [
                Requirement::is_in(l::INSTANCE_TYPE, [name.as_str()]),
                Requirement::is_in(l::ARCH, ["amd64"]),
                Requirement::is_in(l::OS, ["darwin", "linux", "windows"]),
                Requirement::is_in(l::ZONE, ZONES),
                Requirement::is_in(l::CAPACITY_TYPE, ["on-demand", "spot"]),
                Requirement::is_in("integer", [n.to_string()]),
                Requirement::is_in("size", [if large { "large" } else { "small" }]),
            ]
            .into_iter()
            .collect();
            if large {
                requirements.add(Requirement::is_in("special", ["optional"]));
            }
            #[allow(clippy::cast_precision_loss)]
            let price = CORE_PRICE * n as f64;
            let offerings = [
                (ZONES[0], "spot"),
                (ZONES[1], "spot"),
                (ZONES[0], "on-demand"),
                (ZONES[1], "on-demand"),
                (ZONES[2], "on-demand"),
            ]
            .map(|(zone, capacity_type)| Offering::new(zone, capacity_type, price));
            let overhead = Overhead {
                kube_reserved: list(100, 10, 0),
                ..Overhead::default()
            };
            let capacity = list(n * 1000, n * 2048, n * 10);
            let offerings = offerings.to_vec();
            let made = InstanceType::new(name, requirements, offerings, capacity, overhead);
            Arc::new(made)
        })
        .collect()
}

/// A pool that sells `types` and has no other requirement.
pub(crate) fn pool(name: &str, types: Vec<Arc<InstanceType>>) -> PoolView {
    PoolView {
        name: name.into(),
        requirements: [Requirement::is_in(l::NODEPOOL, [name])]
            .into_iter()
            .collect(),
        instance_types: types,
        limits: Some(list(10_000_000_000, 10_000_000 * 1024, i64::from(i32::MAX))),
        ..PoolView::default()
    }
}

/// Pods to be placed on what `pools` sell.
pub(crate) fn problem(pods: Vec<Arc<Pod>>, pools: Vec<PoolView>) -> Problem {
    Problem {
        pods,
        nodes: Vec::new(),
        pools: pools.into_iter().map(Arc::new).collect(),
        daemons: Vec::new(),
        volume_limits: Arc::default(),
        namespaces: Arc::default(),
        labels: Arc::new(LabelRegistry::default()),
        options: SolveOptions::default(),
    }
}

/// A pod that asks for so much, with fields of a pod spec and labels.
pub(crate) fn pod(name: &str, labels: Value, cpu: i64, memory: i64, mut spec: Value) -> Arc<Pod> {
    spec["containers"] = json!([{"name": "app", "resources": {
        "requests": {"cpu": format!("{cpu}m"), "memory": format!("{memory}Mi")}}}]);
    let raw = json!({
        "metadata": {"name": name, "namespace": "default", "uid": uid(name), "labels": labels},
        "spec": spec,
    });
    Arc::new(Pod::try_from_k8s(&serde_json::from_value(raw).unwrap()).unwrap())
}

/// Something like a UID: the same for the same name, and in no order.
fn uid(name: &str) -> String {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
    });
    format!("{hash:016x}")
}

fn size(draws: &mut Draws) -> (i64, i64) {
    (
        draws.of(&[100, 250, 500, 1000, 1500]),
        draws.of(&[100, 256, 512, 1024, 2048, 4096]),
    )
}

/// The benchmark's plain pods, or with `jitter` amounts that hardly any two pods share.
pub(crate) fn plain(count: usize, jitter: bool) -> Vec<Arc<Pod>> {
    let mut draws = Draws::new(42);
    (0..count)
        .map(|i| {
            let (cpu, memory) = size(&mut draws);
            let more = |d: &mut Draws, n| i64::try_from(d.below(n)).unwrap();
            let (a, b) = if jitter {
                (more(&mut draws, 97), more(&mut draws, 89))
            } else {
                (0, 0)
            };
            pod(
                &format!("pod-{i:06}"),
                json!({}),
                cpu + a,
                memory + b,
                json!({}),
            )
        })
        .collect()
}

/// The benchmark's five classes: plain, spread over zones, spread over hosts, together in a zone, one a host.
pub(crate) fn diverse(count: usize) -> Vec<Arc<Pod>> {
    const LETTERS: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];
    let mut draws = Draws::new(42);
    (0..count)
        .map(|i| {
            let letter = draws.of(&LETTERS);
            let spread = |key: &str, draws: &mut Draws| {
                json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": key,
                    "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": {"matchLabels": {"my-label": draws.of(&LETTERS)}}}]})
            };
            let term = |key: &str, label: &str, value: &str| {
                json!({"requiredDuringSchedulingIgnoredDuringExecution": [
                    {"topologyKey": key, "labelSelector": {"matchLabels": {label: value}}}]})
            };
            let (labels, spec) = match i * 5 / count {
                1 => (json!({"my-label": letter}), spread(l::ZONE, &mut draws)),
                2 => (json!({"my-label": letter}), spread(l::HOSTNAME, &mut draws)),
                3 => (
                    json!({"my-affinity": letter}),
                    json!({"affinity": {"podAffinity": term(l::ZONE, "my-affinity", letter)}}),
                ),
                4 => (
                    json!({"app": "nginx"}),
                    json!({"affinity": {"podAntiAffinity": term(l::HOSTNAME, "app", "nginx")}}),
                ),
                _ => (json!({"my-label": letter}), json!({})),
            };
            let (cpu, memory) = size(&mut draws);
            pod(&format!("pod-{i:06}"), labels, cpu, memory, spec)
        })
        .collect()
}

/// The benchmark's preference pods: all alike, with wishes that cannot all be granted.
pub(crate) fn wishful(count: usize) -> Vec<Arc<Pod>> {
    let nginx = json!({"matchLabels": {"app": "nginx"}});
    let wish = |weight, key: &str| json!({"weight": weight, "podAffinityTerm": {"topologyKey": key, "labelSelector": nginx}});
    let spec = json!({"affinity": {
        "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1,
            "preference": {"matchExpressions": [
                {"key": l::ZONE, "operator": "In", "values": [ZONES[0]]}]}}]},
        "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            wish(10, l::ZONE), wish(1, l::HOSTNAME)]},
    }});
    (0..count)
        .map(|i| {
            let name = format!("pod-{i:06}");
            pod(&name, json!({"app": "nginx"}), 100, 4096, spec.clone())
        })
        .collect()
}

/// A cluster as platform teams run it: `pods` of 60 workloads (half of them spread over zones and hosts, some kept apart,
/// some bound to a team's pool), 25 pools (per team, by capacity type, with taints) that all sell `sold`, and `nodes` that
/// exist and are two thirds full.
pub(crate) fn platform(pods: usize, nodes: usize, sold: &[Arc<InstanceType>]) -> Problem {
    const TEAMS: usize = 12;
    let mut draws = Draws::new(7);
    let mut pools = Vec::new();
    for team in 0..TEAMS {
        for capacity_type in ["spot", "on-demand"] {
            let name = format!("team-{team}-{capacity_type}");
            let mut view = pool(&name, sold.to_vec());
            let mut requirements = view.requirements.clone();
            requirements.add(Requirement::is_in(l::CAPACITY_TYPE, [capacity_type]));
            requirements.add(Requirement::is_in("team", [team.to_string()]));
            view.requirements = requirements;
            view.taints = vec![
                serde_json::from_value(
                    json!({"key": "team", "value": team.to_string(), "effect": "NoSchedule"}),
                )
                .unwrap(),
            ];
            pools.push(view);
        }
    }
    pools.push(pool("shared", sold.to_vec()));
    let workloads: Vec<(Value, i64, i64)> = (0..60)
        .map(|w| {
            let (cpu, memory) = size(&mut draws);
            let me = json!({"matchLabels": {"workload": w.to_string()}});
            let mut spec = json!({});
            if w % 2 == 0 {
                let rule = |key: &str, when: &str| {
                    json!({"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": when,
                        "labelSelector": me})
                };
                spec["topologySpreadConstraints"] = json!([
                    rule(l::ZONE, "DoNotSchedule"),
                    rule(l::HOSTNAME, "ScheduleAnyway")
                ]);
            }
            if w % 10 == 5 {
                spec["affinity"] = json!({"podAntiAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        {"topologyKey": l::HOSTNAME, "labelSelector": me}]}});
            }
            if w % 3 == 0 {
                let team = (w / 3 % TEAMS).to_string();
                spec["nodeSelector"] = json!({"team": team});
                spec["tolerations"] = json!([{"key": "team", "value": team, "operator": "Equal"}]);
            }
            (spec, cpu, memory)
        })
        .collect();
    let made: Vec<Arc<Pod>> = (0..pods)
        .map(|i| {
            // One workload in ten that keeps apart stays small, as such workloads are.
            let mut w = draws.below(60);
            if w % 10 == 5 && draws.below(10) > 0 {
                w = w / 10 * 10 + 1;
            }
            let (spec, cpu, memory) = &workloads[w];
            let labels = json!({"workload": w.to_string()});
            pod(&format!("pod-{i:06}"), labels, *cpu, *memory, spec.clone())
        })
        .collect();
    let mut problem = problem(made, pools);
    problem.nodes = standing(nodes, sold, &mut draws);
    problem
}

/// Nodes of the pool `shared` that exist, with pods that take two thirds of them.
pub(crate) fn standing(
    count: usize,
    sold: &[Arc<InstanceType>],
    draws: &mut Draws,
) -> Vec<Arc<NodeView>> {
    let suitable: Vec<_> = sold
        .iter()
        .filter(|t| (4..=16).contains(&t.capacity.get("cpu").units()))
        .collect();
    (0..count)
        .map(|i| {
            let t = draws.of(&suitable);
            let name = format!("node-{i:05}");
            let offering = &t.offerings[draws.below(t.offerings.len())];
            let labels = BTreeMap::from(
                [
                    (l::HOSTNAME, name.as_str()),
                    (l::ZONE, offering.zone()),
                    (l::CAPACITY_TYPE, offering.capacity_type()),
                    (l::INSTANCE_TYPE, &*t.name),
                    (l::NODEPOOL, "shared"),
                    (l::ARCH, "amd64"),
                    (l::OS, "linux"),
                ]
                .map(|(k, v)| (k.to_owned(), v.to_owned())),
            );
            let mut available = t.allocatable.clone();
            let mut pods = Vec::new();
            for p in 0..20 {
                let (cpu, memory) = size(draws);
                let name = format!("there-{i:05}-{p:02}");
                let workload = json!({"workload": draws.below(60).to_string()});
                let one = pod(&name, workload, cpu / 4, memory / 4, json!({}));
                let mut after = available.clone();
                after.subtract(&one.requests);
                if after.get("cpu").nanos() * 3 < t.allocatable.get("cpu").nanos()
                    || after.get("memory").nanos() * 3 < t.allocatable.get("memory").nanos()
                {
                    break;
                }
                available = after;
                pods.push(one);
            }
            Arc::new(NodeView {
                name: name.as_str().into(),
                node_claim: Some(name.as_str().into()),
                node_pool: Some("shared".into()),
                provider_id: format!("made:///{name}").into(),
                labels,
                capacity: t.capacity.clone(),
                allocatable: t.allocatable.clone(),
                available,
                pods,
                initialized: true,
                managed: true,
                ..NodeView::default()
            })
        })
        .collect()
}
