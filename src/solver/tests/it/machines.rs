//! What is bought: bin-packing, DaemonSet overhead, ports, minValues, weights (§19 by case number).

use std::sync::Arc;

use karpenter_api::labels as l;
use karpenter_model::{Offering, Pod};
use rstest::rstest;
use serde_json::json;

use crate::world::{
    daemon, ladder, list, machine, machine_with, pod, pods, pool, port, price, problem, reqs,
    selecting, show, solve, taint,
};

/// Case 9: for one small pod every type that fits is listed, cheapest first.
#[test]
fn case_09_every_fitting_type_is_listed() {
    let plan = solve(&problem(
        vec![pool("p", "", ladder())],
        vec![pod("a", "cpu=3")],
    ));
    let names: Vec<&str> = plan.new_nodes[0]
        .instance_types
        .iter()
        .map(AsRef::as_ref)
        .collect();
    assert_eq!(names, ["m4", "m8", "m16"]);
    assert_eq!(
        plan.new_nodes[0]
            .runner_up
            .as_ref()
            .unwrap()
            .instance_type
            .as_ref(),
        "m8"
    );
    let types: Vec<&str> = plan.new_nodes[0]
        .capacity_types
        .iter()
        .map(AsRef::as_ref)
        .collect();
    assert_eq!(
        types,
        ["on-demand", "spot"],
        "spot stays possible on a mixed pool"
    );
}

/// Case 10: two large pods fill a node but for the room of one small one.
#[test]
fn case_10_small_pods_fill_the_gaps() {
    let only = vec![machine("m", "cpu=10 memory=20Gi", 1.0)];
    let mut all = pods("large", 40, "cpu=4500m memory=1Gi");
    all.extend(pods("small", 20, "cpu=1 memory=1Gi"));
    let plan = solve(&problem(vec![pool("p", "", only)], all));
    assert_eq!(plan.new_nodes.len(), 20, "{}", show(&plan));
    assert!(plan.new_nodes.iter().all(|n| n.pods.len() == 3));
}

/// Case 11: pod slots run out before CPU does.
#[test]
fn case_11_pod_slots() {
    let only = vec![machine("m", "cpu=64 memory=64Gi pods=5", 1.0)];
    let plan = solve(&problem(
        vec![pool("p", "", only)],
        pods("a", 12, "cpu=10m"),
    ));
    let counts: Vec<usize> = plan.new_nodes.iter().map(|n| n.pods.len()).collect();
    assert_eq!(counts, [5, 5, 2]);
}

/// Case 14: none of something nobody has is no obstacle.
#[test]
fn case_14_zero_of_an_unknown_resource() {
    let plan = solve(&problem(
        vec![pool("p", "", ladder())],
        vec![pod("a", "example.com/x=0")],
    ));
    assert_eq!(plan.new_nodes.len(), 1);
}

/// Case 17: two vendors' devices are on no one machine.
#[test]
fn case_17_two_gpu_vendors() {
    let types = || {
        vec![
            machine("n", "cpu=8 memory=8Gi nvidia.com/gpu=1", 1.0),
            machine("a", "cpu=8 memory=8Gi amd.com/gpu=1", 1.0),
        ]
    };
    let both = pod("x", "nvidia.com/gpu=1 amd.com/gpu=1");
    let plan = solve(&problem(vec![pool("p", "", types())], vec![both]));
    assert_eq!((plan.new_nodes.len(), plan.unschedulable.len()), (0, 1));
    let each = vec![pod("x", "nvidia.com/gpu=1"), pod("y", "amd.com/gpu=1")];
    assert_eq!(
        solve(&problem(vec![pool("p", "", types())], each))
            .new_nodes
            .len(),
        2
    );
}

/// §20 1 and 2: growing must pay. On-demand types get large, spot only small: nobody leaves spot for size.
#[test]
fn growing_a_machine_is_weighed_against_another() {
    let mut big = machine("big", "cpu=64 memory=128Gi", 6.4);
    Arc::make_mut(&mut big).offerings = vec![Offering::new("a", "on-demand", 6.4)];
    let types = vec![machine("small", "cpu=4 memory=8Gi", 0.4), big];
    let plan = solve(&problem(
        vec![pool("p", "", types)],
        pods("a", 60, "cpu=1 memory=1Gi"),
    ));
    assert!(
        plan.new_nodes
            .iter()
            .all(|n| n.cheapest.capacity_type.as_ref() == "spot")
    );
    assert!(price(&plan) <= 15.0 * 0.4 / 3.0 + 1e-9, "{}", show(&plan));
}

/// Neither machine gets cheaper without the pod, as a DaemonSet takes the other's port on the small type: it stays where it
/// is, and a pod that has no place anywhere does not keep it moving to and fro.
#[test]
fn a_pod_is_not_moved_where_nothing_is_saved() {
    let types = vec![
        machine("amd", "cpu=2 memory=4Gi", 0.1),
        machine_with(
            "arm",
            "cpu=4 memory=8Gi",
            0.3,
            "kubernetes.io/arch In arm64",
        ),
    ];
    let on_amd = json!({"nodeSelector": {"kubernetes.io/arch": "amd64"}});
    let mut taking = daemon("d", "cpu=100m", on_amd);
    Arc::make_mut(&mut taking).host_ports = vec![port(80)];
    let with_port = |name: &str| Pod {
        host_ports: vec![port(80)],
        ..pod(name, "cpu=500m")
    };
    let mut problem = problem(
        vec![pool("p", "", types)],
        vec![
            with_port("a"),
            with_port("b"),
            pod("plain", "cpu=1"),
            pod("huge", "cpu=100"),
        ],
    );
    problem.daemons = vec![taking];
    problem.options.work_budget = 10_000;
    let plan = karpenter_solver::solve(&problem);
    assert!(!plan.cut_off, "{} units, {}", plan.work, show(&plan));
    assert_eq!(plan.new_nodes.len(), 2, "{}", show(&plan));
    assert_eq!(plan.unschedulable.len(), 1);
}

/// §20 3: memory-heavy pods go to memory-rich machines whatever their CPU.
#[test]
fn memory_heavy_pods_get_memory_rich_machines() {
    let types = vec![
        machine("c", "cpu=16 memory=32Gi", 0.68),
        machine("r", "cpu=16 memory=128Gi", 1.0),
    ];
    let plan = solve(&problem(
        vec![pool("p", "", types)],
        pods("a", 16, "cpu=1 memory=7Gi"),
    ));
    assert_eq!(show(&plan), "new p r a spot: 16 pods");
}

/// Case 31: two pods with one host port part; a DaemonSet's port closes the types it runs on.
#[test]
fn case_31_host_ports() {
    let with_port = |name: &str, n| Pod {
        host_ports: vec![port(n)],
        ..pod(name, "cpu=100m")
    };
    let plan = solve(&problem(
        vec![pool("p", "", ladder())],
        vec![with_port("a", 80), with_port("b", 80), with_port("c", 81)],
    ));
    assert_eq!(plan.new_nodes.len(), 2, "{}", show(&plan));

    let types = vec![
        machine("amd", "cpu=2 memory=4Gi", 0.1),
        machine_with(
            "arm",
            "cpu=2 memory=4Gi",
            0.2,
            "kubernetes.io/arch In arm64",
        ),
    ];
    let mut on_amd = daemon(
        "d",
        "cpu=100m",
        json!({"nodeSelector": {"kubernetes.io/arch": "amd64"}}),
    );
    Arc::make_mut(&mut on_amd).host_ports = vec![port(80)];
    let mut problem = problem(
        vec![pool("p", "", types)],
        vec![with_port("a", 80), with_port("b", 99)],
    );
    problem.daemons = vec![on_amd];
    let plan = solve(&problem);
    let of = |name: &str| {
        let holds = |k: &karpenter_model::PodKey| k.name.as_ref() == name;
        let node = plan
            .new_nodes
            .iter()
            .find(|n| n.pods.iter().any(holds))
            .unwrap();
        node.instance_types
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(of("a"), ["arm"], "{}", show(&plan));
    assert!(
        of("b").contains(&"amd".to_owned()) || of("b") == ["arm"],
        "{}",
        show(&plan)
    );
}

/// Case 51: a DaemonSet for one kind of type weighs on that kind only; the claim asks for the least, once.
#[test]
fn case_51_daemon_overhead_per_type() {
    let types = vec![
        machine("amd", "cpu=2 memory=4Gi", 0.1),
        machine_with(
            "arm",
            "cpu=2 memory=4Gi",
            0.2,
            "kubernetes.io/arch In arm64",
        ),
    ];
    let mut problem = problem(
        vec![pool("p", "", types)],
        pods("a", 2, "cpu=900m memory=1Gi"),
    );
    problem.daemons = vec![
        daemon(
            "amd-only",
            "cpu=500m",
            json!({"nodeSelector": {"kubernetes.io/arch": "amd64"}}),
        ),
        daemon("all", "cpu=100m", json!({})),
    ];
    let plan = solve(&problem);
    // Two pods and 600m do not fit into two cores of amd; two pods and 100m fit into those of arm.
    let arm = plan.new_nodes.iter().find(|n| n.pods.len() == 2);
    let asked = arm.map(|n| n.requests.get("cpu"));
    if let Some(asked) = asked {
        assert_eq!(asked, list("cpu=1900m").get("cpu"));
    }
    for n in &plan.new_nodes {
        let amd = n.instance_types.iter().any(|t| t.as_ref() == "amd");
        assert!(!amd || n.pods.len() == 1, "{}", show(&plan));
    }
}

#[rstest]
#[case::counted(json!({}), 2)]
#[case::taint_not_tolerated(json!({"nodeSelector": {"team": "x"}}), 1)]
#[case::case_50_pinned_by_name(json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
    {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]}}}}), 2)]
#[case::waits_for_registration(json!({"nodeSelector": {"karpenter.sh/registered": "true"}}), 2)]
#[case::waits_for_initialization(json!({"nodeSelector": {"karpenter.sh/initialized": "true"}}), 2)]
fn which_daemons_are_charged(#[case] spec: serde_json::Value, #[case] nodes: usize) {
    let only = vec![machine("m", "cpu=2 memory=4Gi", 0.1)];
    let mut problem = problem(vec![pool("p", "", only)], pods("a", 2, "cpu=1"));
    problem.daemons = vec![daemon("d", "cpu=500m", spec)];
    assert_eq!(karpenter_solver::solve(&problem).new_nodes.len(), nodes);
}

/// Case 52: a DaemonSet that does not tolerate a startup taint runs there all the same, once the taint is gone.
#[test]
fn case_52_startup_taints_do_not_spare_daemons() {
    let mut starting = pool("p", "", vec![machine("m", "cpu=2 memory=4Gi", 0.1)]);
    starting.startup_taints = vec![taint("cni", "NoSchedule")];
    let mut problem = problem(vec![starting], pods("a", 2, "cpu=1"));
    problem.daemons = vec![daemon("d", "cpu=500m", json!({}))];
    assert_eq!(solve(&problem).new_nodes.len(), 2);
}

/// Cases 19 and 20: the variety asked for is there, or there is no machine.
#[rstest]
#[case::case_19_two_types(2, "cpu=3", false, "m4 m8 m16")]
#[case::exactly_enough(3, "cpu=3", false, "m4 m8 m16")]
#[case::case_20_too_few(4, "cpu=3", false, "")]
#[case::case_22_best_effort(4, "cpu=3", true, "m4 m8 m16")]
fn min_values(
    #[case] min: usize,
    #[case] requests: &str,
    #[case] best_effort: bool,
    #[case] expected: &str,
) {
    let requirements = format!("{} Exists min={min}", l::INSTANCE_TYPE);
    let mut problem = problem(
        vec![pool("p", &requirements, ladder())],
        vec![pod("a", requests)],
    );
    problem.options.best_effort_min_values = best_effort;
    let plan = karpenter_solver::solve(&problem);
    let got = plan
        .new_nodes
        .first()
        .map_or_else(String::new, |n| n.instance_types.join(" "));
    assert_eq!(got, expected, "{}", show(&plan));
    if let Some(node) = plan.new_nodes.first() {
        assert_eq!(node.min_values_relaxed, min > 3);
        let left = node.requirements.get(l::INSTANCE_TYPE).unwrap().min_values;
        assert_eq!(left, Some(i64::try_from(min.min(3)).unwrap()));
    } else {
        assert!(
            plan.unschedulable[0].reason.contains("minValues"),
            "{}",
            show(&plan)
        );
    }
}

/// What would share its machine takes variety away: a pod that has it by itself is not left over for that.
#[test]
fn min_values_of_the_head_by_itself() {
    let requirements = format!("{} Exists min=2", l::INSTANCE_TYPE);
    let types = vec![
        machine("cores", "cpu=8 memory=8Gi", 1.0),
        machine("memory", "cpu=2 memory=32Gi", 1.0),
    ];
    let mut head = pod("head", "cpu=1 memory=1Gi");
    head.priority = 1;
    // The one goes with it on either type, and then only on that.
    let pods = vec![
        head,
        pod("busy", "cpu=6 memory=1Gi"),
        pod("large", "cpu=500m memory=20Gi"),
    ];
    // Planned again, "busy" would find room where "cores" was launched.
    let plan = karpenter_solver::solve(&problem(vec![pool("p", &requirements, types)], pods));
    let types: Vec<&str> = plan.new_nodes[0]
        .instance_types
        .iter()
        .map(|t| &**t)
        .collect();
    assert_eq!(types, ["cores", "memory"], "{}", show(&plan));
    let left: Vec<&str> = plan.unschedulable.iter().map(|u| &*u.pod.name).collect();
    assert_eq!(left, ["busy", "large"], "{}", show(&plan));
}

/// Case 22: lowering happens on the heavy pool before a lighter one is turned to.
#[test]
fn case_22_lowered_before_falling_back() {
    let requirements = format!("{} Exists min=9", l::INSTANCE_TYPE);
    let mut heavy = pool("heavy", &requirements, ladder());
    heavy.weight = 10;
    let mut problem = problem(
        vec![heavy, pool("light", "", ladder())],
        vec![pod("a", "cpu=1")],
    );
    assert_eq!(show(&solve(&problem)), "new light m2 a spot: 1 pods");
    problem.options.best_effort_min_values = true;
    let plan = solve(&problem);
    assert_eq!(show(&plan), "new heavy m2 a spot: 1 pods");
    assert!(plan.new_nodes[0].min_values_relaxed);
}

/// Case 54: the heavier pool first, dear or not, unless the pod says otherwise.
#[test]
fn case_54_weights() {
    let mut heavy = pool("heavy", "", vec![machine("dear", "cpu=2 memory=4Gi", 9.0)]);
    heavy.weight = 10;
    let pools = || vec![pool("light", "", ladder()), heavy.clone()];
    let plan = solve(&problem(pools(), vec![pod("a", "cpu=1")]));
    assert_eq!(show(&plan), "new heavy dear a spot: 1 pods");
    let plan = solve(&problem(
        pools(),
        vec![selecting("a", "cpu=1", l::NODEPOOL, "light")],
    ));
    assert_eq!(show(&plan), "new light m2 a spot: 1 pods");
    let plan = solve(&problem(pools(), vec![pod("a", "cpu=3")]));
    assert_eq!(
        show(&plan),
        "new light m4 a spot: 1 pods",
        "too big for the heavy one"
    );
}

#[test]
fn the_claim_says_what_it_needs() {
    let mut problem = problem(
        vec![pool("p", "team In x", ladder())],
        vec![
            selecting("a", "cpu=1 memory=1Gi", l::ZONE, "b"),
            pod("b", "cpu=500m memory=1Gi"),
        ],
    );
    problem.daemons = vec![daemon("d", "cpu=100m memory=64Mi", json!({}))];
    let plan = solve(&problem);
    assert_eq!(plan.new_nodes.len(), 1, "{}", show(&plan));
    let node = &plan.new_nodes[0];
    assert_eq!(node.requests, list("cpu=1600m memory=2112Mi pods=3"));
    let mut expected = reqs("team In x, topology.kubernetes.io/zone In b");
    expected.add_all(&reqs("karpenter.sh/nodepool In p"));
    assert_eq!(node.requirements, expected);
}

/// Prices that make no sense are no offers; the rest is planned as if they were not there.
#[test]
fn senseless_prices_are_passed_over() {
    let mut types = ladder();
    Arc::make_mut(&mut types[0]).offerings = vec![
        Offering::new("a", "spot", -5.0),
        Offering::new("b", "spot", f64::NAN),
    ];
    let plan = solve(&problem(
        vec![pool("p", "", types)],
        vec![pod("a", "cpu=1")],
    ));
    assert_eq!(show(&plan), "new p m4 a spot: 1 pods");
}

/// Three pods fill a small machine and two are left for another one: a machine of twice the size costs less than both.
#[test]
fn two_machines_that_cost_less_as_one_become_one() {
    let types = vec![
        machine("small", "cpu=4 memory=16Gi", 0.0381),
        machine("large", "cpu=8 memory=32Gi", 0.0756),
    ];
    let mut problem = problem(vec![pool("p", "", types)], pods("a", 5, "cpu=1"));
    problem.daemons = vec![daemon("d", "cpu=100m", json!({}))];
    assert_eq!(show(&solve(&problem)), "new p large a spot: 5 pods");
}

/// What does not pay is left alone: the large one costs more than both, even with what a node costs.
#[test]
fn machines_that_cost_more_as_one_stay_two() {
    let types = vec![
        machine("small", "cpu=4 memory=16Gi", 0.0381),
        machine("large", "cpu=8 memory=32Gi", 0.0956),
    ];
    let mut problem = problem(vec![pool("p", "", types)], pods("a", 5, "cpu=1"));
    problem.daemons = vec![daemon("d", "cpu=100m", json!({}))];
    assert_eq!(solve(&problem).new_nodes.len(), 2);
}

/// A merge gives its share of the limits back and takes what it needs, never more.
#[test]
fn a_merge_keeps_within_limits() {
    let types = vec![
        machine("small", "cpu=4 memory=16Gi", 0.0381),
        machine("large", "cpu=9 memory=32Gi", 0.0700),
    ];
    let mut limited = pool("p", "", types);
    limited.limits = Some(list("cpu=8"));
    let problem = problem(vec![limited], pods("a", 5, "cpu=1"));
    let plan = solve(&problem);
    assert_eq!(plan.new_nodes.len(), 2, "{}", show(&plan));
}

/// Where only one machine may be bought (consolidation), what is cheaper in two is no use.
#[test]
fn as_few_machines_as_will_do_are_bought_on_request() {
    let mut problem = problem(
        vec![pool("p", "", ladder())],
        pods("web", 11, "cpu=1 memory=1Gi"),
    );
    assert_eq!(solve(&problem).new_nodes.len(), 2, "8 and 4 cores");
    problem.options.fewest_machines = true;
    let plan = solve(&problem);
    assert_eq!(show(&plan), "new p m16 a spot: 11 pods");
}

/// The dearer a node is beyond its price, the fewer there are; what the machines cost is never the less for it.
#[test]
fn a_cost_per_node_trades_price_for_fewer_nodes() {
    let types = vec![
        machine("small", "cpu=4 memory=16Gi", 0.300),
        machine("large", "cpu=16 memory=64Gi", 1.290),
    ];
    let mut problem = problem(
        vec![pool("p", "", types)],
        pods("a", 16, "cpu=1 memory=1Gi"),
    );
    assert_eq!(show(&solve(&problem)).lines().count(), 4, "four small ones");
    problem.options.node_cost = 0.05;
    assert_eq!(show(&solve(&problem)), "new p large a spot: 16 pods");
}

/// A DaemonSet that asks for what a machine does not have keeps every pod off it: there would be no room for both.
#[test]
fn a_daemon_that_has_no_room_on_a_type_rules_it_out() {
    let types = vec![
        machine("plain", "cpu=4 memory=8Gi", 0.1),
        machine("special", "cpu=4 memory=8Gi example.com/thing=1", 0.9),
    ];
    let mut problem = problem(vec![pool("p", "", types)], pods("a", 1, "cpu=1"));
    problem.daemons = vec![daemon("agent", "cpu=100m example.com/thing=1", json!({}))];
    assert_eq!(show(&solve(&problem)), "new p special a spot: 1 pods");
}
