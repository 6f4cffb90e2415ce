//! What holds for any problem: every pod is accounted for once, order of input does not matter, limits hold, the
//! checker is content, planning again changes nothing, a cut-off plan is still a good one.

use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_api::labels as l;
use karpenter_model::{Plan, Pod, PoolView, Problem};
use proptest::prelude::*;
use serde_json::json;

use crate::world::{
    affine, daemon, expression, list, machine_with, node, pod, pod_with, pool, port, reserved,
    show, solve, taint, with_reservations,
};

fn arb_pod() -> impl Strategy<Value = Pod> {
    (
        prop::sample::select(vec!["100m", "500m", "1", "1500m", "6", "40"]),
        prop::sample::select(vec!["64Mi", "1Gi", "3Gi", "12Gi"]),
        0_usize..10,
        -1_i32..2,
    )
        .prop_map(|(cpu, memory, kind, priority)| {
            let requests = format!("cpu={cpu} memory={memory}");
            let mut pod = match kind {
                0 => affine(
                    "x",
                    &requests,
                    vec![expression(l::ZONE, "In", &["a"])],
                    vec![],
                ),
                1 => affine(
                    "x",
                    &requests,
                    vec![
                        expression(l::ARCH, "In", &["arm64"]),
                        expression(l::ZONE, "In", &["b"]),
                    ],
                    vec![expression(l::CAPACITY_TYPE, "In", &["on-demand"])],
                ),
                2 => pod_with(
                    "x",
                    &requests,
                    json!({"tolerations": [{"operator": "Exists"}]}),
                ),
                3 => affine(
                    "x",
                    &requests,
                    vec![expression("team", "NotIn", &["x"])],
                    vec![],
                ),
                4 => affine(
                    "x",
                    &requests,
                    vec![expression("example.com/integer", "Gt", &["4"])],
                    vec![],
                ),
                _ => pod("x", &requests),
            };
            if kind == 5 {
                pod.host_ports = vec![port(80)];
            }
            pod.priority = priority;
            pod
        })
}

fn arb_pool(name: &'static str) -> impl Strategy<Value = PoolView> {
    (
        prop::collection::btree_map(
            prop::sample::select(vec![1_u32, 2, 4, 8, 16, 48]),
            (5_u32..40, any::<bool>()),
            1..5,
        ),
        prop::sample::select(vec![
            "",
            "team In x",
            "kubernetes.io/arch In amd64",
            "topology.kubernetes.io/zone In b",
            "node.kubernetes.io/instance-type Exists min=2",
        ]),
        prop::option::of((0_u32..30, 0_u32..4)),
        prop::sample::select(vec!["", "NoSchedule", "PreferNoSchedule"]),
        0_i32..2,
    )
        .prop_map(move |(sizes, requirements, limits, effect, weight)| {
            let types = sizes
                .into_iter()
                .map(|(n, (price, arm))| {
                    let arch = if arm { "arm64" } else { "amd64" };
                    machine_with(
                        &format!("m{n}"),
                        &format!("cpu={n} memory={}Gi", n * 3),
                        f64::from(n * price) / 500.0,
                        &format!("kubernetes.io/arch In {arch}, example.com/integer In {n}"),
                    )
                })
                .collect();
            let mut p = pool(name, requirements, types);
            if requirements.starts_with("team") {
                p.labels.insert("team".to_owned(), "x".to_owned());
            }
            p.limits = limits.map(|(cpu, nodes)| list(&format!("cpu={cpu} nodes={nodes}")));
            if !effect.is_empty() {
                p.taints = vec![taint("quiet", effect)];
            }
            p.weight = weight;
            p
        })
}

/// A DaemonSet that runs everywhere, or on some types, zones, capacity types or pools only; some take a port.
fn arb_daemon() -> impl Strategy<Value = Arc<Pod>> {
    let requests = prop::sample::select(vec![
        "cpu=50m memory=32Mi",
        "cpu=200m",
        "cpu=1 memory=1Gi",
        "memory=2Gi",
    ]);
    let ports = prop::sample::select(vec![0, 0, 80, 81]);
    (0_usize..8, requests, any::<bool>(), ports, any::<bool>()).prop_map(
        |(kind, requests, tolerates, taken, claims)| {
            let on = |terms: serde_json::Value| {
                json!({"affinity": {"nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
            };
            let mut spec = match kind {
                0 => json!({"nodeSelector": {l::ARCH: "arm64"}}),
                1 => json!({"nodeSelector": {l::ZONE: "a"}}),
                2 => json!({"nodeSelector": {l::CAPACITY_TYPE: "spot"}}),
                3 => json!({"nodeSelector": {"team": "x"}}),
                4 => on(json!([expression("example.com/integer", "Gt", &["4"])])),
                5 => on(json!([
                    expression(l::INSTANCE_TYPE, "In", &["m1", "m8"]),
                    expression(l::ARCH, "In", &["arm64"]),
                ])),
                _ => json!({}),
            };
            if tolerates {
                spec["tolerations"] = json!([{"operator": "Exists"}]);
            }
            let mut made = Pod::clone(&daemon("x", requests, spec));
            made.host_ports = Vec::from_iter((taken > 0).then(|| port(taken)));
            made.has_resource_claims = claims && kind == 7;
            Arc::new(made)
        },
    )
}

fn arb_problem() -> impl Strategy<Value = Problem> {
    (
        prop::collection::vec(arb_pod(), 0..24),
        arb_pool("p"),
        arb_pool("q"),
        0_usize..4,
        prop::collection::vec(arb_daemon(), 0..4),
        prop::option::of((0_u32..4, 0_u32..4)),
    )
        .prop_map(|(pods, mut p, mut q, nodes, daemons, units)| {
            let pods = pods
                .into_iter()
                .enumerate()
                .map(|(i, pod)| crate::world::named(pod, &format!("pod-{i:02}")))
                .collect();
            // Both pools are sold out of one reservation, the first out of one of its own besides.
            if let Some((shared, own)) = units {
                let both = [("r", "a", shared), ("s", "b", own)];
                for (pool, ids) in [(&mut p, &both[..]), (&mut q, &both[..1])] {
                    for sold in pool.instance_types.iter_mut().take(2) {
                        *sold = reserved(sold, ids);
                    }
                }
            }
            let mut problem = with_reservations(vec![p, q], pods);
            // Far more than so few pods need: whoever goes round in circles is cut off, and fails.
            problem.options.work_budget = 200_000;
            problem.nodes = (0..nodes)
                .map(|i| {
                    let zone = ["a", "b"][i % 2];
                    let mut n = node(
                        &format!("n-{i}"),
                        "cpu=3 memory=9Gi",
                        &[(l::ZONE, zone), (l::ARCH, "amd64")],
                    );
                    n.initialized = i % 3 != 0;
                    Arc::new(n)
                })
                .collect();
            let daemons = daemons.into_iter().enumerate();
            problem.daemons = daemons
                .map(|(i, made)| {
                    let name = format!("daemon-{i}");
                    Arc::new(crate::world::named(Pod::clone(&made), &name))
                })
                .collect();
            problem
        })
}

fn accounted(problem: &Problem, plan: &Plan) {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let placed = plan.new_nodes.iter().flat_map(|n| &n.pods);
    let existing = plan.existing.iter().flat_map(|e| &e.pods);
    let left = plan.unschedulable.iter().map(|u| &u.pod);
    for key in placed.chain(existing).chain(left) {
        *seen.entry(key.to_string()).or_default() += 1;
    }
    assert!(seen.values().all(|n| *n == 1), "doubled: {seen:?}");
    if !plan.cut_off {
        assert_eq!(seen.len(), problem.pods.len(), "lost");
    }
}

fn checked(problem: &Problem) -> Plan {
    let plan = karpenter_solver::solve(problem);
    let findings = karpenter_plan_check::check(problem, &plan);
    assert!(findings.is_empty(), "{findings:#?}\n{}", show(&plan));
    plan
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn plans_are_sound_and_final(problem in arb_problem()) {
        // What variety keeps off new machines may find room once one of the types it had to allow is there.
        let varied = problem.pools.iter().any(|p| p.requirements.has_min_values());
        // So it is with DaemonSets of some zones or capacity types: they are charged wherever a machine may come to be.
        let placed = problem.daemons.iter().any(|d| {
            [l::ZONE, l::CAPACITY_TYPE].iter().any(|key| d.node_selector.contains_key(*key))
        });
        let plan = if varied || placed { checked(&problem) } else { solve(&problem) };
        accounted(&problem, &plan);
        prop_assert!(!plan.cut_off, "{} units", plan.work);
        crate::world::left_out(&problem);
    }

    #[test]
    fn the_order_of_input_does_not_matter(problem in arb_problem(), turn in 0_usize..24) {
        let mut other = problem.clone();
        let by = turn % other.pods.len().max(1);
        other.pods.rotate_left(by);
        other.nodes.reverse();
        other.pools.reverse();
        other.daemons.reverse();
        for pool in &mut other.pools {
            Arc::make_mut(pool).instance_types.reverse();
        }
        let (a, b) = (karpenter_solver::solve(&problem), karpenter_solver::solve(&other));
        prop_assert_eq!(format!("{a:?}"), format!("{b:?}"));
    }

    #[test]
    fn a_plan_that_was_cut_off_is_still_sound(problem in arb_problem(), budget in 1_u64..60) {
        let mut problem = problem;
        problem.options.work_budget = budget;
        let plan = karpenter_solver::solve(&problem);
        let findings = karpenter_plan_check::check(&problem, &plan);
        let placed: Vec<_> = findings.iter().filter(|f| f.rule != "pods").collect();
        prop_assert!(placed.is_empty(), "{:?}\n{}", placed, show(&plan));
        accounted(&problem, &plan);
    }
}
