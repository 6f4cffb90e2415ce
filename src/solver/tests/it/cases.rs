//! Cases of topology by number (`scheduling.md` §19) that no other test tells: what upstream's suite expects of spread
//! and affinity. Where a plan of ours comes to the same in fewer rounds, the test says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_api::labels as l;
use karpenter_model::{InstanceType, NodeView, Offering, Plan, Pod, Problem, Requirement};
use rstest::rstest;
use serde_json::{Value, json};

use crate::rules::{HOST, ZONE, apps, by_zone, holding, required, selector, spread};
use crate::world::{applied, ladder, list, machine, pool, problem, show, solve};

/// A type that is sold in zones a, b and c.
fn in_three_zones(sold: &Arc<InstanceType>) -> Arc<InstanceType> {
    let mut sold = InstanceType::clone(sold);
    let price = sold.offerings[0].price;
    sold.offerings
        .push(Offering::new("c", l::CAPACITY_ON_DEMAND, price));
    sold.requirements
        .set(Requirement::is_in(ZONE, ["a", "b", "c"]));
    Arc::new(sold)
}

fn three_zones(pods: Vec<Pod>, nodes: Vec<NodeView>) -> Problem {
    let types = ladder().iter().map(in_three_zones).collect();
    let mut problem = problem(vec![pool("p", "", types)], pods);
    problem.nodes = nodes.into_iter().map(Arc::new).collect();
    problem
}

fn spread_apps(count: usize, constraint: &Value) -> Vec<Pod> {
    apps(
        "web",
        count,
        &json!({ "topologySpreadConstraints": [constraint] }),
    )
}

/// Pods by zone, fewest first.
fn sizes(problem: &Problem, plan: &Plan) -> Vec<usize> {
    let mut sizes: Vec<usize> = by_zone(problem, plan).into_values().collect();
    sizes.sort_unstable();
    sizes
}

/// A node that has no room.
fn full(name: &str, zone: &str, app: &str, count: usize) -> NodeView {
    let mut node = holding(name, zone, app, count, &json!({}));
    node.available = list("cpu=0 memory=0 pods=0");
    node
}

#[test]
fn case_32_four_pods_over_three_zones() {
    let problem = three_zones(spread_apps(4, &spread(ZONE, 1, "web")), vec![]);
    assert_eq!(sizes(&problem, &solve(&problem)), [1, 1, 2]);
}

#[test]
fn case_33_only_the_emptiest_zones_grow() {
    let nodes = vec![full("n1", "a", "web", 3)];
    let problem = three_zones(spread_apps(3, &spread(ZONE, 1, "web")), nodes);
    let zones = by_zone(&problem, &solve(&problem));
    assert_eq!(zones.get("a"), None);
    assert_eq!(sizes(&problem, &solve(&problem)), [1, 2]);
}

/// Zone c counts, and nothing can be put there: the others stop at the skew, or go on where the rule is a wish.
#[rstest]
#[case::rule("DoNotSchedule", 2)]
#[case::wish("ScheduleAnyway", 6)]
fn case_34_a_minimum_that_cannot_grow(#[case] when: &str, #[case] placed: usize) {
    let mut constraint = spread(ZONE, 1, "web");
    constraint["whenUnsatisfiable"] = json!(when);
    let mut problem = problem(vec![pool("p", "", ladder())], spread_apps(6, &constraint));
    problem.nodes = vec![Arc::new(full("n1", "c", "other", 1))];
    let plan = solve(&problem);
    assert_eq!(
        sizes(&problem, &plan).iter().sum::<usize>(),
        placed,
        "{}",
        show(&plan)
    );
}

#[rstest]
#[case::too_few(2, vec![1, 1])]
#[case::enough(3, vec![1, 1, 1])]
fn case_35_min_domains(#[case] zones: usize, #[case] expected: Vec<usize>) {
    let mut constraint = spread(ZONE, 1, "web");
    constraint["minDomains"] = json!(3);
    let pods = spread_apps(3, &constraint);
    let problem = if zones == 3 {
        three_zones(pods, vec![])
    } else {
        problem(vec![pool("p", "", ladder())], pods)
    };
    assert_eq!(sizes(&problem, &solve(&problem)), expected);
}

#[test]
fn case_36_a_host_takes_as_many_as_the_skew() {
    let types = vec![machine("m16", "cpu=16 memory=64Gi", 0.8)];
    let problem = problem(
        vec![pool("p", "", types)],
        spread_apps(8, &spread(HOST, 4, "web")),
    );
    let plan = solve(&problem);
    let pods: Vec<usize> = plan.new_nodes.iter().map(|n| n.pods.len()).collect();
    assert_eq!(pods, [4, 4], "{}", show(&plan));
}

#[test]
fn case_37_pods_that_do_not_mean_themselves_may_share_a_domain() {
    let of = |app: &str, other: &str| {
        apps(
            app,
            3,
            &json!({ "topologySpreadConstraints": [spread(HOST, 1, other)] }),
        )
    };
    let mut pods = of("even", "odd");
    pods.extend(of("odd", "even"));
    let problem = problem(vec![pool("p", "", ladder())], pods);
    let plan = solve(&problem);
    assert!(plan.unschedulable.is_empty(), "{}", show(&plan));
}

#[test]
fn case_38_a_match_label_key_that_no_pod_has_is_passed_over() {
    let mut constraint = spread(HOST, 1, "web");
    constraint["matchLabelKeys"] = json!(["unheard-of"]);
    let problem = problem(vec![pool("p", "", ladder())], spread_apps(2, &constraint));
    assert_eq!(solve(&problem).new_nodes.len(), 2);
}

/// A preferred zone is given up for the spread; a required one makes the others no domains of the pod.
#[rstest]
#[case::preferred("preferredDuringSchedulingIgnoredDuringExecution", vec![2, 2, 2])]
#[case::required("requiredDuringSchedulingIgnoredDuringExecution", vec![6])]
fn case_40_preferred_zones_do_not_limit_a_spread(#[case] kind: &str, #[case] expected: Vec<usize>) {
    let term = json!({ "matchExpressions": [{ "key": ZONE, "operator": "In", "values": ["a"] }] });
    let affinity = if kind.starts_with("preferred") {
        json!([{ "weight": 1, "preference": term }])
    } else {
        json!({ "nodeSelectorTerms": [term] })
    };
    let spec = json!({
        "topologySpreadConstraints": [spread(ZONE, 1, "web")],
        "affinity": { "nodeAffinity": { kind: affinity } },
    });
    let problem = three_zones(apps("web", 6, &spec), vec![]);
    assert_eq!(sizes(&problem, &solve(&problem)), expected);
}

#[test]
fn case_41_a_group_bound_to_one_host_stops_where_the_host_is_full() {
    let types = vec![machine("m16", "cpu=16 memory=64Gi pods=5", 0.8)];
    let problem = problem(
        vec![pool("p", "", types)],
        apps("web", 10, &required("podAffinity", HOST, "web")),
    );
    let plan = karpenter_solver::solve(&problem);
    assert_eq!(karpenter_plan_check::check(&problem, &plan), []);
    assert_eq!(plan.new_nodes.len(), 1, "{}", show(&plan));
    assert_eq!(
        (plan.new_nodes[0].pods.len(), plan.unschedulable.len()),
        (5, 5)
    );
    // Next round: there is a host with them now, and no second one may take any.
    let again = karpenter_solver::solve(&applied(&problem, &plan));
    assert_eq!(
        (again.new_nodes.len(), again.unschedulable.len()),
        (0, 5),
        "{}",
        show(&again)
    );
}

/// Upstream blocks every zone that the first pod's machine could land in and needs a second round; a zone is settled here
/// as soon as a machine is chosen.
#[test]
fn case_44_anti_affinity_with_an_open_zone_costs_no_round() {
    let mut pods = apps("shy", 1, &required("podAntiAffinity", ZONE, "web"));
    pods.extend(apps("web", 1, &json!({})));
    let problem = problem(vec![pool("p", "", ladder())], pods);
    assert_eq!(
        by_zone(&problem, &solve(&problem)),
        BTreeMap::from([("a".into(), 1), ("b".into(), 1)])
    );
}

#[test]
fn case_45_preferred_anti_affinity_of_others_is_not_a_rule() {
    let wish = json!({ "affinity": { "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [
        { "weight": 1, "podAffinityTerm": { "topologyKey": ZONE, "labelSelector": selector("web") } }
    ] } } });
    let nodes = vec![holding("n1", "a", "shy", 1, &wish)];
    let mut problem = problem(vec![pool("p", "", ladder())], apps("web", 2, &json!({})));
    problem.nodes = nodes.into_iter().map(Arc::new).collect();
    assert_eq!(show(&solve(&problem)), "n1: 2 pods");
}

/// The pool names a third zone that it sells nothing in: no domain. A node there makes it one.
#[test]
fn case_47_domains_are_where_nodes_are_or_can_be_bought() {
    let web = spread_apps(4, &spread(ZONE, 1, "web"));
    let mut problem = problem(vec![pool("p", &format!("{ZONE} In a b c"), ladder())], web);
    assert_eq!(sizes(&problem, &solve(&problem)), [2, 2]);
    problem.nodes = vec![Arc::new(holding("n1", "c", "other", 1, &json!({})))];
    assert_eq!(sizes(&problem, &solve(&problem)), [1, 1, 2]);
}
