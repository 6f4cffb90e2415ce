//! The public benchmark's plain pods, made-up and real EC2 types: valid, and never dearer than what Karpenter made
//! of the same input. Where the files are not there (`KARPENTER_SHARED`, else `../shared`), says so and skips.

use rstest::rstest;

use crate::files::recorded;
use crate::world::{price, show};

/// Claims that the checker is shown.
const CHECKED: usize = 6;

#[rstest]
#[case("generic-1000-400.json.gz", 0.90)]
#[case("generic-1000-aws.json.gz", 0.50)]
fn never_dearer_than_upstream(#[case] name: &str, #[case] most: f64) {
    let Some(recorded) = recorded(name) else {
        return;
    };
    let problem = recorded.problem;
    let plan = karpenter_solver::solve(&problem);
    assert!(plan.unschedulable.is_empty(), "{}", show(&plan));
    let pods: usize = plan.new_nodes.iter().map(|n| n.pods.len()).sum();
    assert_eq!(pods, problem.pods.len());
    // The checker goes through every node that could come of every claim, which takes its time: some claims do.
    let mut some = plan.clone();
    let every = some.new_nodes.len().div_ceil(CHECKED);
    some.new_nodes = plan.new_nodes.iter().step_by(every).cloned().collect();
    let mut asked = problem.clone();
    asked
        .pods
        .retain(|p| some.new_nodes.iter().any(|n| n.pods.contains(&p.key)));
    let findings = karpenter_plan_check::check(&asked, &some);
    assert!(findings.is_empty(), "{findings:#?}");
    let theirs = recorded.price;
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
#[case("diverse-100-400.json.gz", 0.77, true)]
#[case("diverse-1000-400.json.gz", 0.71, false)]
#[case("diverse-100-aws.json.gz", 0.50, true)]
#[case("diverse-1000-aws.json.gz", 0.40, false)]
fn with_rules_between_pods(#[case] name: &str, #[case] most: f64, #[case] checked: bool) {
    let Some(recorded) = recorded(name) else {
        return;
    };
    let problem = recorded.problem;
    let plan = karpenter_solver::solve(&problem);
    assert!(plan.unschedulable.is_empty(), "{}", show(&plan));
    if checked {
        let findings = karpenter_plan_check::check(&problem, &plan);
        assert!(findings.is_empty(), "{findings:#?}");
    }
    let theirs = recorded.price;
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
