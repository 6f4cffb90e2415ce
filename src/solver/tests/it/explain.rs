//! What a pod that goes nowhere is told: the nearest miss, the remedy, and per pool what each constraint took.

use karpenter_api::labels as l;
use karpenter_model::plan::PoolFunnel;
use karpenter_model::{Pod, PoolView};
use rstest::rstest;

use crate::world::{
    affine, daemon, expression, ladder, list, machine_with, pod, pods, pool, port, problem,
    selecting, show, solve, taint,
};

fn lines(funnels: &[PoolFunnel]) -> Vec<String> {
    funnels
        .iter()
        .flat_map(|f| {
            f.steps
                .iter()
                .map(|s| format!("{} | {} | -{} ={}", f.pool, s.constraint, s.removed, s.left))
        })
        .collect()
}

fn tainted() -> PoolView {
    PoolView {
        taints: vec![karpenter_model::taints::taint("team", "a", "NoSchedule")],
        ..pool("p", "", ladder())
    }
}

fn used_up() -> PoolView {
    PoolView {
        limits: Some(list("cpu=10")),
        usage: list("cpu=9 nodes=1"),
        ..pool("p", "", ladder())
    }
}

#[rstest]
#[case::taint(tainted(), pod("a", "cpu=1"), &["team=a:NoSchedule", "tolerate"])]
#[case::resources(pool("p", "", ladder()), pod("a", "cpu=1 memory=34Gi"), &["memory 34Gi", "32Gi"])]
#[case::label(pool("p", "", ladder()), selecting("a", "cpu=1", "team", "x"), &["team In [x]", "does not define"])]
#[case::value(pool("p", "kubernetes.io/arch In amd64", ladder()), selecting("a", "cpu=1", l::ARCH, "arm64"), &["kubernetes.io/arch In [arm64]", "kubernetes.io/arch In [amd64]"])]
#[case::limits(used_up(), pod("a", "cpu=1"), &["limits", "cpu 10"])]
#[case::nothing_sold(pool("p", "kubernetes.io/arch In riscv", ladder()), pod("a", "cpu=1"), &["none of its 4 instance types"])]
fn one_sentence(#[case] pool: PoolView, #[case] pod: Pod, #[case] words: &[&str]) {
    let plan = solve(&problem(vec![pool], vec![pod]));
    let reason = &plan.unschedulable[0].reason;
    assert!(words.iter().all(|w| reason.contains(w)), "{reason}");
}

/// What a DaemonSet takes on each machine is told, and the port that it is about.
#[test]
fn a_port_that_daemons_take_is_named() {
    let mut wanting = pod("a", "cpu=1");
    wanting.host_ports = vec![port(80)];
    let mut taking = Pod::clone(&daemon("d", "cpu=100m", serde_json::json!({})));
    taking.host_ports = vec![port(80)];
    let mut asked = problem(vec![pool("p", "", ladder())], vec![wanting]);
    asked.daemons = vec![std::sync::Arc::new(taking)];
    let plan = solve(&asked);
    let left = &plan.unschedulable[0];
    assert_eq!(
        left.reason,
        "NodePool p: DaemonSets take a host port of the pod (0.0.0.0:80/TCP) on each of 4 instance types; ask for another"
    );
    assert_eq!(
        lines(&left.pools).last().unwrap(),
        "p | host ports 0.0.0.0:80/TCP | -4 =0"
    );
}

#[test]
fn the_funnel_counts_what_each_constraint_took() {
    let mut types = ladder();
    types.push(machine_with(
        "arm",
        "cpu=64 memory=128Gi",
        3.0,
        "kubernetes.io/arch In arm64",
    ));
    let wish = affine(
        "a",
        "cpu=10 memory=40Gi",
        vec![expression(l::ARCH, "In", &["amd64"])],
        vec![],
    );
    let plan = solve(&problem(vec![pool("p", "", types)], vec![wish]));
    let told = lines(&plan.unschedulable[0].pools);
    assert_eq!(
        told,
        [
            "p | NodePool requirements and available offerings | -0 =5",
            "p | kubernetes.io/arch In [amd64] | -1 =4",
            "p | requests cpu 10, memory 40Gi, pods 1 | -4 =0",
        ]
    );
}

#[test]
fn the_nearest_miss_comes_first() {
    let mut far = pool("far", "", ladder());
    far.taints = vec![taint("x", "NoSchedule")];
    let near = pool("near", "", ladder());
    let plan = solve(&problem(vec![far, near], vec![pod("a", "cpu=99")]));
    let order: Vec<&str> = plan.unschedulable[0]
        .pools
        .iter()
        .map(|f| f.pool.as_ref())
        .collect();
    assert_eq!(order, ["near", "far"]);
    assert!(plan.unschedulable[0].reason.starts_with("NodePool near:"));
}

/// Each pool has one thing against the pod; the one that it names is the one to be told of.
#[test]
fn a_pool_that_the_pod_names_is_nearer_than_others() {
    let mut kept = pool("kept", "", ladder());
    kept.taints = vec![taint("x", "NoSchedule")];
    let any = pool("any", "", ladder());
    let named = selecting("a", "cpu=1", l::NODEPOOL, "kept");
    let plan = solve(&problem(vec![any, kept], vec![named]));
    let reason = &plan.unschedulable[0].reason;
    assert!(reason.starts_with("NodePool kept:"), "{reason}");
}

#[test]
fn equal_pods_are_told_the_same() {
    let plan = solve(&problem(
        vec![pool("p", "", ladder())],
        pods("a", 50, "cpu=99"),
    ));
    assert_eq!(plan.unschedulable.len(), 50);
    assert!(
        plan.unschedulable
            .iter()
            .all(|u| u.reason == plan.unschedulable[0].reason)
    );
}

#[test]
fn a_pool_that_sells_nothing_is_named() {
    let plan = solve(&problem(
        vec![
            pool("p", "kubernetes.io/arch In riscv", ladder()),
            pool("q", "", ladder()),
        ],
        vec![pod("a", "cpu=1")],
    ));
    assert_eq!(plan.skipped_pools.len(), 1);
    assert_eq!(plan.skipped_pools[0].pool.as_ref(), "p");
    assert_eq!(show(&plan), "new q m2 a spot: 1 pods");
}

#[test]
fn a_pod_that_cannot_be_read_is_named_and_the_rest_planned() {
    let bad = Pod {
        invalid: Some("resource cpu: \"two\" is not a quantity".into()),
        ..pod("bad", "cpu=1")
    };
    // Not through the checker: it would count the bad pod by the requests that could be read.
    let plan = karpenter_solver::solve(&problem(
        vec![pool("p", "", ladder())],
        vec![bad, pod("a", "cpu=1")],
    ));
    assert_eq!(plan.unschedulable.len(), 1);
    assert!(plan.unschedulable[0].reason.contains("cpu"));
    assert_eq!(plan.new_nodes.len(), 1);
}
