//! Constraints of §19 (requirements, alternatives, preferences, taints), by case number.

use karpenter_api::labels as l;
use karpenter_model::Pod;
use rstest::rstest;
use serde_json::json;

use crate::world::{
    affine, expression, ladder, machine_with, pod, pod_with, pool, problem, selecting, show, solve,
    taint,
};

/// One pod, one pool: what is bought (`-` = nothing).
fn bought(requirements: &str, pod: Pod) -> String {
    let types = vec![
        machine_with("amd-2", "cpu=2 memory=4Gi", 0.1, "example.com/integer In 2"),
        machine_with(
            "amd-8",
            "cpu=8 memory=16Gi",
            0.4,
            "example.com/integer In 8",
        ),
        machine_with(
            "arm-2",
            "cpu=2 memory=4Gi",
            0.08,
            "kubernetes.io/arch In arm64, example.com/integer In 3",
        ),
    ];
    let plan = solve(&problem(vec![pool("p", requirements, types)], vec![pod]));
    plan.new_nodes.first().map_or_else(
        || "-".to_owned(),
        |n| {
            let c = &n.cheapest;
            format!("{} {} {}", c.instance_type, c.zone, c.capacity_type)
        },
    )
}

#[rstest]
// 1: a custom label that nothing defines.
#[case::case_01_in_undefined("", ("team", "In", "a"), "-")]
#[case::case_01_exists_undefined("", ("team", "Exists", ""), "-")]
#[case::case_01_not_in_undefined("", ("team", "NotIn", "a"), "arm-2 a spot")]
#[case::case_01_absence_undefined("", ("team", "DoesNotExist", ""), "arm-2 a spot")]
#[case::custom_defined("team In a b", ("team", "In", "a"), "arm-2 a spot")]
#[case::custom_other_value("team In b", ("team", "In", "a"), "-")]
#[case::custom_absence_of_defined("team In b", ("team", "DoesNotExist", ""), "-")]
// 2: no node can be bought by its name.
#[case::case_02_hostname("", (l::HOSTNAME, "In", "n"), "-")]
// 3: integer bounds pick among types.
#[case::case_03_gt("", ("example.com/integer", "Gt", "3"), "amd-8 a spot")]
#[case::case_03_lt("", ("example.com/integer", "Lt", "3"), "amd-2 a spot")]
#[case::case_03_gte_of_the_pool("example.com/integer Gte 8", (l::ZONE, "In", "a"), "amd-8 a spot")]
#[case::case_03_lte_of_the_pool("example.com/integer Lte 2", (l::ZONE, "In", "a"), "amd-2 a spot")]
#[case::case_03_both("example.com/integer Gte 3, example.com/integer Lte 8", ("example.com/integer", "Gt", "3"), "amd-8 a spot")]
#[case::case_03_none("", ("example.com/integer", "Gt", "8"), "-")]
// 4: Exists does not widen what is there.
#[case::case_04_exists("kubernetes.io/arch In amd64", (l::ARCH, "Exists", ""), "amd-2 a spot")]
// 8: restricted domain; Kubernetes' own domains are the user's.
#[case::case_08_restricted("", ("karpenter.sh/team", "In", "a"), "-")]
#[case::case_08_kubernetes("node.kubernetes.io/team In a", ("node.kubernetes.io/team", "In", "a"), "arm-2 a spot")]
// Well-known keys narrow type, zone and capacity type.
#[case::arch("", (l::ARCH, "In", "amd64"), "amd-2 a spot")]
#[case::zone("", (l::ZONE, "In", "b"), "arm-2 b spot")]
#[case::unknown_zone("", (l::ZONE, "In", "c"), "-")]
#[case::capacity_type("", (l::CAPACITY_TYPE, "In", "on-demand"), "arm-2 a on-demand")]
#[case::pool_and_pod_disagree("kubernetes.io/arch In amd64", (l::ARCH, "In", "arm64"), "-")]
#[case::instance_type("", (l::INSTANCE_TYPE, "NotIn", "arm-2"), "amd-2 a spot")]
fn one_pod(#[case] requirements: &str, #[case] asked: (&str, &str, &str), #[case] expected: &str) {
    let (key, op, value) = asked;
    let values: &[&str] = if value.is_empty() { &[] } else { &[value] };
    let pod = affine("p", "cpu=1", vec![expression(key, op, values)], vec![]);
    assert_eq!(bought(requirements, pod), expected);
}

#[rstest]
// 5: required against the pool fails; preferred against the required one gives way.
#[case::case_05_required_conflicts(vec![(l::ZONE, "c")], vec![], "-")]
#[case::case_05_preferred_conflicts(vec![(l::ZONE, "a")], vec![(l::ZONE, "b")], "arm-2 a spot")]
#[case::preferred_is_met_where_it_can(vec![], vec![(l::ARCH, "amd64")], "amd-2 a spot")]
#[case::heaviest_preference_first(vec![], vec![(l::ZONE, "b"), (l::ARCH, "amd64")], "arm-2 b spot")]
#[case::lighter_one_when_the_heavier_cannot(vec![], vec![(l::ZONE, "c"), (l::ARCH, "amd64")], "amd-2 a spot")]
// 6: required terms are alternatives, however many are in vain.
#[case::case_06_last_term(vec![(l::ZONE, "x"), (l::ZONE, "y"), (l::ZONE, "b")], vec![], "arm-2 b spot")]
#[case::case_06_no_term(vec![(l::ZONE, "x"), (l::ZONE, "y")], vec![], "-")]
#[case::a_term_that_only_works_without_the_preference(vec![(l::ZONE, "x"), (l::ZONE, "a")], vec![(l::ZONE, "b")], "arm-2 a spot")]
fn alternatives_and_preferences(
    #[case] required: Vec<(&str, &str)>,
    #[case] preferred: Vec<(&str, &str)>,
    #[case] expected: &str,
) {
    let terms = |t: Vec<(&str, &str)>| t.iter().map(|(k, v)| expression(k, "In", &[v])).collect();
    let pod = affine("p", "cpu=1", terms(required), terms(preferred));
    assert_eq!(bought("", pod), expected);
}

#[test]
fn preferences_are_ignored_when_told_to() {
    let pod = affine(
        "p",
        "cpu=1",
        vec![],
        vec![expression(l::ZONE, "In", &["b"])],
    );
    let mut problem = problem(vec![pool("p", "", ladder())], vec![pod]);
    problem.options.respect_preferences = false;
    assert_eq!(solve(&problem).new_nodes[0].cheapest.zone.as_ref(), "a");
}

/// Case 7: a pool that would rather not is used when there is no other, and preferences go before the taint.
#[test]
fn case_07_prefer_no_schedule() {
    let mut soft = pool("soft", "", ladder());
    soft.taints = vec![taint("quiet", "PreferNoSchedule")];
    let plain = pool("plain", "", ladder());
    let both = solve(&problem(vec![soft.clone(), plain], vec![pod("a", "cpu=1")]));
    assert_eq!(show(&both), "new plain m2 a spot: 1 pods");

    let wish = affine(
        "a",
        "cpu=1",
        vec![],
        vec![expression(l::ZONE, "In", &["b"])],
    );
    let alone = solve(&problem(vec![soft], vec![wish]));
    assert_eq!(show(&alone), "new soft m2 b spot: 1 pods");
}

#[rstest]
#[case("NoSchedule", false, 0)]
#[case("NoExecute", false, 0)]
#[case("NoSchedule", true, 1)]
#[case("NoExecute", true, 1)]
fn hard_taints(#[case] effect: &str, #[case] tolerated: bool, #[case] nodes: usize) {
    let mut tainted = pool("p", "", ladder());
    tainted.taints = vec![taint("team", effect)];
    let tolerations = if tolerated {
        json!({"tolerations": [{"key": "team", "operator": "Exists"}]})
    } else {
        json!({})
    };
    let plan = solve(&problem(
        vec![tainted],
        vec![pod_with("a", "cpu=1", tolerations)],
    ));
    assert_eq!(plan.new_nodes.len(), nodes);
    assert_eq!(plan.unschedulable.len(), 1 - nodes);
}

#[test]
fn startup_taints_do_not_keep_pods_away() {
    let mut starting = pool("p", "", ladder());
    starting.startup_taints = vec![taint("cni", "NoSchedule")];
    assert_eq!(
        solve(&problem(vec![starting], vec![pod("a", "cpu=1")]))
            .new_nodes
            .len(),
        1
    );
}

#[test]
fn a_selector_may_name_the_pool() {
    let pools = vec![pool("a", "", ladder()), pool("b", "", ladder())];
    let plan = solve(&problem(
        pools,
        vec![selecting("x", "cpu=1", l::NODEPOOL, "a")],
    ));
    assert_eq!(show(&plan), "new a m2 a spot: 1 pods");
}
