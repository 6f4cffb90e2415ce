//! Nodes that exist or are on their way come first (§7.4, §19 in-flight and existing).

use std::sync::Arc;

use karpenter_api::labels as l;
use karpenter_model::{NodeView, Pod, PoolView, Problem};
use rstest::rstest;
use serde_json::json;

use crate::world::{
    daemon, ladder, list, node, pod, pod_with, pods, pool, port, problem, selecting, show, solve,
    taint,
};

fn with_nodes(nodes: Vec<NodeView>, pods: Vec<Pod>) -> Problem {
    let mut problem = problem(vec![pool("p", "", ladder())], pods);
    problem.nodes = nodes.into_iter().map(Arc::new).collect();
    problem
}

/// Case 23: a node on its way is used, its labels respected.
#[test]
fn case_23_in_flight_nodes_are_used() {
    let mut coming = node("n", "cpu=4 memory=8Gi", &[(l::ZONE, "a"), ("team", "x")]);
    coming.initialized = false;
    let problem = with_nodes(
        vec![coming],
        vec![
            selecting("fits", "cpu=1", l::ZONE, "a"),
            selecting("elsewhere", "cpu=1", l::ZONE, "b"),
        ],
    );
    assert_eq!(show(&solve(&problem)), "n: 1 pods\nnew p m2 b spot: 1 pods");
}

/// A node has the labels it has: nothing is assumed of well-known keys it lacks.
#[rstest]
#[case(l::ZONE, "a", "n: 1 pods")]
#[case("team", "x", "n: 1 pods")]
#[case(l::ARCH, "amd64", "new p m2 a spot: 1 pods")]
fn case_30_labels_of_nodes_are_strict(
    #[case] key: &str,
    #[case] value: &str,
    #[case] expected: &str,
) {
    let there = node("n", "cpu=4 memory=8Gi", &[(l::ZONE, "a"), ("team", "x")]);
    let plan = solve(&with_nodes(
        vec![there],
        vec![selecting("a", "cpu=1", key, value)],
    ));
    assert_eq!(show(&plan), expected);
}

/// Case 25, the solver's half: the view's taints count, whoever put them there.
#[test]
fn case_25_taints_that_the_view_kept_block() {
    let mut there = node("n", "cpu=4 memory=8Gi", &[]);
    there.taints = vec![taint("node.kubernetes.io/not-ready", "NoSchedule")];
    let tolerant = json!({"tolerations": [{"operator": "Exists"}]});
    let plan = solve(&with_nodes(
        vec![there],
        vec![pod("a", "cpu=1"), pod_with("b", "cpu=1", tolerant)],
    ));
    assert_eq!(show(&plan), "n: 1 pods\nnew p m2 a spot: 1 pods");
}

/// Case 27: of a DaemonSet that is on the node already nothing more is set aside, and nothing given back.
#[rstest]
#[case::missing("", "cpu=2", "new p m4 a spot: 1 pods")]
#[case::half_there("cpu=500m", "cpu=2", "n: 1 pods")]
#[case::all_there("cpu=1", "cpu=2", "n: 1 pods")]
#[case::unexpected_ones_give_nothing_back("cpu=9", "cpu=3", "new p m4 a spot: 1 pods")]
fn case_27_daemon_room(#[case] there: &str, #[case] asked: &str, #[case] expected: &str) {
    let mut busy = node("n", "cpu=2500m memory=8Gi", &[]);
    busy.daemon_requests = list(there);
    let mut problem = with_nodes(vec![busy], vec![pod("a", asked)]);
    problem.daemons = vec![daemon("d", "cpu=1", json!({}))];
    assert_eq!(show(&solve(&problem)), expected);
}

/// Case 28: a DaemonSet that does not belong on the node takes nothing from it.
#[test]
fn case_28_foreign_daemons_are_not_charged() {
    let mut problem = with_nodes(
        vec![node("n", "cpu=2 memory=8Gi", &[])],
        vec![pod("a", "cpu=2")],
    );
    problem.daemons = vec![daemon(
        "d",
        "cpu=1",
        json!({"nodeSelector": {l::ARCH: "amd64"}}),
    )];
    assert_eq!(show(&solve(&problem)), "n: 1 pods");
}

/// Case 29: initialized nodes first, then by name.
#[test]
fn case_29_initialized_nodes_first() {
    let mut nodes: Vec<NodeView> = (0..99)
        .map(|i| NodeView {
            initialized: false,
            ..node(&format!("a-{i:02}"), "cpu=4 memory=8Gi", &[])
        })
        .collect();
    nodes.push(node("z", "cpu=1 memory=8Gi", &[]));
    let plan = solve(&with_nodes(nodes, pods("a", 2, "cpu=1")));
    assert_eq!(show(&plan), "a-00: 1 pods\nz: 1 pods");
}

/// Case 30: what does not fit on a node gets one of its own.
#[test]
fn case_30_new_node_when_there_is_no_room() {
    let plan = solve(&with_nodes(
        vec![node("n", "cpu=1 memory=8Gi", &[])],
        pods("a", 2, "cpu=800m"),
    ));
    assert_eq!(show(&plan), "n: 1 pods\nnew p m2 a spot: 1 pods");
}

/// Case 31: a host port in use is in use.
#[test]
fn case_31_host_ports_of_nodes() {
    let mut there = node("n", "cpu=4 memory=8Gi", &[]);
    there.host_ports = vec![port(80)];
    let with = |name, n| Pod {
        host_ports: vec![port(n)],
        ..pod(name, "cpu=1")
    };
    let plan = solve(&with_nodes(
        vec![there],
        vec![with("a", 80), with("b", 81), with("c", 81)],
    ));
    let on_node: usize = plan.existing.iter().map(|e| e.pods.len()).sum();
    assert_eq!(on_node, 1, "{}", show(&plan));
}

#[test]
fn an_overdrawn_node_takes_nothing() {
    let mut full = node("n", "cpu=4 memory=8Gi", &[]);
    full.available = list("cpu=4 memory=-1Gi pods=10");
    let plan = solve(&with_nodes(vec![full], vec![pod("a", "cpu=1")]));
    assert_eq!(show(&plan), "new p m2 a spot: 1 pods");
}

#[test]
fn nodes_are_used_without_any_pool() {
    let mut problem = problem(Vec::<PoolView>::new(), pods("a", 2, "cpu=1"));
    problem.nodes = vec![Arc::new(node("n", "cpu=1 memory=8Gi", &[]))];
    let plan = solve(&problem);
    assert_eq!(
        (plan.existing[0].pods.len(), plan.unschedulable.len()),
        (1, 1)
    );
}

/// A preference is no reason to buy a machine while a node has room: kube-scheduler would use the node.
#[test]
fn preferences_do_not_buy_machines() {
    let wish = crate::world::affine(
        "a",
        "cpu=1",
        vec![],
        vec![crate::world::expression(l::ZONE, "In", &["b"])],
    );
    let there = node("n", "cpu=4 memory=8Gi", &[(l::ZONE, "a")]);
    assert_eq!(
        show(&solve(&with_nodes(vec![there], vec![wish]))),
        "n: 1 pods"
    );
}

/// The DaemonSet's pod is not there yet; its port is not free all the same.
#[test]
fn a_port_that_a_daemon_will_take_is_not_given_away() {
    let mut wanting = pod("a", "cpu=1");
    wanting.host_ports = vec![port(80)];
    let mut taking = Pod::clone(&daemon(
        "d",
        "cpu=100m",
        serde_json::json!({"nodeSelector": {l::ZONE: "a"}}),
    ));
    taking.host_ports = vec![port(80)];
    let mut asked = problem(vec![], vec![wanting]);
    asked.daemons = vec![Arc::new(taking)];
    let on = |zone| {
        Arc::new(node(
            &format!("in-{zone}"),
            "cpu=4 memory=8Gi",
            &[(l::ZONE, zone)],
        ))
    };
    asked.nodes = vec![on("a")];
    assert_eq!(solve(&asked).unschedulable.len(), 1);
    asked.nodes = vec![on("a"), on("b")];
    assert_eq!(show(&solve(&asked)), "in-b: 1 pods");
}
