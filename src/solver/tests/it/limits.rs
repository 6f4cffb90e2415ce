//! Limits (§7.4, case 49): never exceeded, whatever the launch picks, and used up as far as they go.

use karpenter_model::PoolView;
use rstest::rstest;

use crate::world::{ladder, list, machine, pod, pods, pool, problem, show, solve};

fn limited(name: &str, limits: &str, usage: &str) -> PoolView {
    PoolView {
        limits: Some(list(limits)),
        usage: list(usage),
        ..pool(name, "", ladder())
    }
}

#[rstest]
#[case::case_49_exceeded("cpu=4", "cpu=4 nodes=1", 3, 0)]
#[case::overrun("cpu=4", "cpu=8 nodes=1", 3, 0)]
#[case::case_49_partly("cpu=4", "nodes=0", 5, 4)]
#[case::all_of_it("cpu=16", "nodes=0", 16, 16)]
#[case::case_49_nodes("nodes=2", "nodes=2", 3, 0)]
#[case::no_nodes_at_all("nodes=0", "nodes=0", 3, 0)]
#[case::another_resource_is_no_matter("example.com/x=0", "nodes=0", 3, 3)]
fn as_far_as_limits_go(
    #[case] limits: &str,
    #[case] usage: &str,
    #[case] count: usize,
    #[case] placed: usize,
) {
    let plan = solve(&problem(
        vec![limited("p", limits, usage)],
        pods("a", count, "cpu=1"),
    ));
    assert_eq!(count - plan.unschedulable.len(), placed, "{}", show(&plan));
}

/// Upstream does not count nodes within a round and overshoots; every machine of a round counts here.
#[test]
fn case_49_node_limit_within_one_round() {
    let mut p = limited("p", "nodes=2", "nodes=0");
    p.instance_types = vec![machine("m", "cpu=2 memory=4Gi", 0.1)];
    let plan = solve(&problem(vec![p], pods("a", 10, "cpu=1")));
    assert_eq!(
        (plan.new_nodes.len(), plan.unschedulable.len()),
        (2, 6),
        "{}",
        show(&plan)
    );
}

#[test]
fn what_one_pool_may_not_another_may() {
    let mut first = limited("first", "cpu=2", "nodes=0");
    first.weight = 10;
    let plan = solve(&problem(
        vec![first, pool("second", "", ladder())],
        pods("a", 4, "cpu=1"),
    ));
    assert_eq!(plan.unschedulable.len(), 0);
    let on_first: usize = plan
        .new_nodes
        .iter()
        .filter(|n| n.pool.as_ref() == "first")
        .map(|n| n.pods.len())
        .sum();
    assert_eq!(on_first, 2, "{}", show(&plan));
}

/// However the provider chooses among the listed types, all machines together stay within the limit.
#[test]
fn any_choice_of_the_listed_types_stays_within() {
    let plan = solve(&problem(
        vec![limited("p", "cpu=40 memory=100Gi", "cpu=5 nodes=1")],
        pods("a", 60, "cpu=700m memory=900Mi"),
    ));
    let types = ladder();
    let most: i64 = plan
        .new_nodes
        .iter()
        .map(|n| {
            let cpu = |t: &std::sync::Arc<str>| {
                types
                    .iter()
                    .find(|x| x.name == *t)
                    .unwrap()
                    .capacity
                    .get("cpu")
                    .units()
            };
            n.instance_types.iter().map(cpu).max().unwrap()
        })
        .sum();
    assert!(most <= 35, "{most}\n{}", show(&plan));
    assert!(!plan.new_nodes.is_empty());
}

/// A limit that leaves room for bigger types leaves them on the list: flexibility is capacity.
#[test]
fn far_limits_do_not_cost_flexibility() {
    let plan = solve(&problem(
        vec![limited("p", "cpu=1000", "nodes=0")],
        vec![pod("a", "cpu=1")],
    ));
    assert_eq!(plan.new_nodes[0].instance_types.len(), 4);
}
