//! Reservations: counted over all pools and rounds, used first, and never twice (`scheduling.md` §9.3).

use std::sync::Arc;

use karpenter_api::labels as l;
use karpenter_model::{InstanceType, Offering, Requirement};
use rstest::rstest;
use serde_json::json;

use crate::world::{
    RESERVATION as ID, ladder, list, machine, node, pod, pod_with, pods, pool, reserved, selecting,
    show, solve, with_reservations as with_ids,
};

fn four() -> Arc<InstanceType> {
    machine("m4", "cpu=4 memory=8Gi", 0.2)
}

/// The reservation each new node is pinned to, `-` for none.
fn pins(plan: &karpenter_model::Plan) -> String {
    let all = plan.new_nodes.iter();
    let pin = |n: &karpenter_model::plan::PlannedNode| {
        let id = n.requirements.get(ID).and_then(Requirement::single);
        let reserved = n
            .capacity_types
            .iter()
            .all(|c| &**c == l::CAPACITY_RESERVED);
        assert_eq!(
            id.is_some(),
            reserved,
            "pinned and nothing else, or not at all"
        );
        id.map_or("-".to_owned(), ToString::to_string)
    };
    let mut pins: Vec<String> = all.map(pin).collect();
    pins.sort();
    pins.join(" ")
}

/// One now; the other, which upstream puts off until the next run, at once on what is left of the same pool.
#[test]
fn case_59_a_unit_serves_one_machine_and_the_rest_is_bought_otherwise() {
    let types = vec![reserved(&four(), &[("r", "a", 1)])];
    let plan = solve(&with_ids(vec![pool("p", "", types)], pods("w", 2, "cpu=3")));
    assert_eq!(pins(&plan), "- r");
    assert_eq!(
        show(&plan),
        "new p m4 a reserved: 1 pods\nnew p m4 a spot: 1 pods"
    );
}

#[test]
fn case_60_units_are_shared_between_pools_and_ids_are_counted_apart() {
    let of = |id: &str, left| vec![reserved(&four(), &[(id, "a", left)])];
    let one = vec![
        pool("p", "team In p", of("r", 2)),
        pool("q", "team In q", of("r", 2)),
    ];
    let asking = |name: &str, team: &str| selecting(name, "cpu=3", "team", team);
    let wanted = vec![
        asking("a", "p"),
        asking("b", "q"),
        asking("c", "p"),
        asking("d", "q"),
    ];
    let plan = solve(&with_ids(one, wanted));
    assert_eq!(pins(&plan), "- - r r");

    let types = vec![reserved(&four(), &[("r", "a", 1), ("s", "b", 2)])];
    let plan = solve(&with_ids(vec![pool("p", "", types)], pods("w", 4, "cpu=3")));
    assert_eq!(pins(&plan), "- r s s");
}

#[test]
fn the_least_of_what_offerings_say_counts() {
    let types = vec![
        reserved(&four(), &[("r", "a", 3)]),
        reserved(&machine("m8", "cpu=8 memory=16Gi", 0.4), &[("r", "a", 1)]),
    ];
    let plan = solve(&with_ids(vec![pool("p", "", types)], pods("w", 2, "cpu=7")));
    assert_eq!(pins(&plan), "- r");
}

#[test]
fn claims_under_way_hold_their_units() {
    let types = vec![reserved(&four(), &[("r", "a", 2)])];
    let mut problem = with_ids(vec![pool("p", "", types)], pods("w", 2, "cpu=3"));
    let labels = [(ID, "r"), (l::CAPACITY_TYPE, l::CAPACITY_RESERVED)];
    let mut coming = node("coming", "cpu=4", &labels);
    coming.provider_id = "".into();
    coming.initialized = false;
    coming.available = list("cpu=1");
    problem.nodes.push(Arc::new(coming));
    assert_eq!(pins(&karpenter_solver::solve(&problem)), "- r");
    let plan = karpenter_solver::solve(&problem);
    assert!(karpenter_plan_check::check(&problem, &plan).is_empty());
}

#[test]
fn the_gate_keeps_reservations_out() {
    let types = vec![reserved(&four(), &[("r", "a", 9)])];
    let mut problem = with_ids(vec![pool("p", "", types)], pods("w", 1, "cpu=3"));
    problem.options.reserved_capacity = false;
    assert_eq!(show(&solve(&problem)), "new p m4 a spot: 1 pods");
}

#[test]
fn a_reservation_without_a_name_cannot_be_counted_and_is_not_used() {
    let mut sold = InstanceType::clone(&four());
    let mut offering = Offering::new("a", l::CAPACITY_RESERVED, 0.0);
    offering.reservation_capacity = 9;
    sold.offerings.push(offering);
    let plan = solve(&with_ids(
        vec![pool("p", "", vec![Arc::new(sold)])],
        pods("w", 1, "cpu=3"),
    ));
    assert_eq!(show(&plan), "new p m4 a spot: 1 pods");
}

#[rstest]
#[case::by_type(json!({ "nodeSelector": { "karpenter.sh/capacity-type": "reserved" } }))]
#[case::by_id(json!({ "nodeSelector": { ID: "r" } }))]
#[case::by_both(json!({ "nodeSelector": { ID: "r", "karpenter.sh/capacity-type": "reserved" } }))]
fn a_pod_that_insists_waits_and_is_told(#[case] spec: serde_json::Value) {
    let types = vec![reserved(&four(), &[("r", "a", 1)])];
    let wanted = vec![
        pod_with("x", "cpu=3", spec.clone()),
        pod_with("y", "cpu=3", spec),
    ];
    let problem = with_ids(vec![pool("p", "", types)], wanted);
    let plan = karpenter_solver::solve(&problem);
    assert_eq!(karpenter_plan_check::check(&problem, &plan), []);
    assert_eq!(pins(&plan), "r");
    assert_eq!(plan.unschedulable.len(), 1, "{}", show(&plan));
    let reason = &plan.unschedulable[0].reason;
    assert!(reason.contains("reservations"), "{reason}");
}

/// A machine bought by the hour does not become a reserved one because a pod joins it, and merged ones give units back.
#[test]
fn pods_share_reserved_machines_and_do_not_move_others_into_them() {
    let types: Vec<_> = ladder()
        .iter()
        .map(|t| {
            if &*t.name == "m8" {
                reserved(t, &[("r", "a", 1)])
            } else {
                t.clone()
            }
        })
        .collect();
    let mut wanted = pods("w", 6, "cpu=2");
    wanted.push(selecting(
        "late",
        "cpu=100m",
        l::CAPACITY_TYPE,
        l::CAPACITY_RESERVED,
    ));
    wanted.push(pod("tiny", "cpu=100m"));
    let problem = with_ids(vec![pool("p", "", types)], wanted);
    let plan = karpenter_solver::solve(&problem);
    assert_eq!(
        karpenter_plan_check::check(&problem, &plan),
        [],
        "{}",
        show(&plan)
    );
    assert_eq!(pins(&plan).matches('r').count(), 1, "{}", show(&plan));
}

/// Spread over zones of which one is sold out of a reservation only.
#[test]
fn rules_between_pods_hold_over_reservations() {
    let sold = reserved(&four(), &[("r", "c", 1)]);
    let mut sold = InstanceType::clone(&sold);
    sold.requirements
        .set(Requirement::is_in(l::ZONE, ["a", "b", "c"]));
    let spread = json!({ "topologySpreadConstraints": [{
        "maxSkew": 1, "topologyKey": l::ZONE, "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": { "matchLabels": { "app": "w" } },
    }] });
    let wanted = (0..3)
        .map(|i| {
            let mut pod = pod_with(&format!("w{i}"), "cpu=3", spread.clone());
            pod.labels.insert("app".to_owned(), "w".to_owned());
            pod
        })
        .collect();
    let plan = solve(&with_ids(vec![pool("p", "", vec![Arc::new(sold)])], wanted));
    assert!(plan.unschedulable.is_empty(), "{}", show(&plan));
    assert_eq!(pins(&plan), "- - r");
}
