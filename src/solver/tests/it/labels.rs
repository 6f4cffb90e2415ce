//! Rules over a label that only some nodes and NodePools have. As kube-scheduler: where the label is not, nobody is anybody's
//! neighbour, so that anti-affinity is kept and affinity cannot be met; a spread leaves such nodes out.

use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_model::{NodeView, Plan, Pod, PoolView, Problem};
use serde_json::{Value, json};

use crate::rules::{RACK, ZONE, apps, holding, required, spread};
use crate::world::{ladder, pool, problem, show, solve};

fn racks() -> PoolView {
    pool("racks", "rack In r1 r2", ladder())
}

fn on(nodes: Vec<NodeView>, pools: Vec<PoolView>, pods: Vec<Pod>) -> Problem {
    let mut problem = problem(pools, pods);
    problem.nodes = nodes.into_iter().map(Arc::new).collect();
    problem
}

/// A node that may have the label, with pods of an app.
fn node(name: &str, rack: Option<&str>, app: &str, count: usize, spec: &Value) -> NodeView {
    let mut node = holding(name, "a", app, count, spec);
    let rack = rack.map(|rack| (RACK.to_owned(), rack.to_owned()));
    node.labels.extend(rack);
    node
}

/// Pods by the rack of new machines; none where the pool has no racks.
fn by_rack(plan: &Plan) -> BTreeMap<Option<String>, usize> {
    let mut out = BTreeMap::new();
    for machine in &plan.new_nodes {
        let rack = machine.requirements.get(RACK).and_then(|r| r.single());
        *out.entry(rack.map(ToString::to_string)).or_default() += machine.pods.len();
    }
    out
}

#[test]
fn anti_affinity_is_kept_by_nodes_without_the_label() {
    let apart = required("podAntiAffinity", RACK, "web");
    let nodes = vec![
        node("n1", Some("r1"), "web", 1, &apart),
        node("n2", None, "web", 1, &apart),
    ];
    let plan = solve(&on(nodes, vec![racks()], apps("web", 3, &apart)));
    assert_eq!(show(&plan), "n2: 3 pods");
}

#[test]
fn one_machine_without_the_label_takes_all_who_keep_apart_by_it() {
    let pods = || apps("web", 5, &required("podAntiAffinity", RACK, "web"));
    let plain = || pool("p", "", ladder());
    let plan = solve(&on(vec![], vec![racks(), plain()], pods()));
    assert_eq!(
        by_rack(&plan),
        BTreeMap::from([(None, 5)]),
        "{}",
        show(&plan)
    );
    let plan = solve(&on(vec![], vec![racks()], pods()));
    assert_eq!(
        (plan.new_nodes.len(), plan.unschedulable.len()),
        (2, 3),
        "{}",
        show(&plan)
    );
    // Nothing is bought for them while there is room, be it in a rack.
    let nodes = vec![node("n1", Some("r1"), "other", 0, &json!({}))];
    let plan = solve(&on(nodes, vec![plain()], pods()));
    assert_eq!(show(&plan), "n1: 1 pods\nnew p m4 a spot: 4 pods");
}

/// Whom others keep away by the label may be beside them where it is not.
#[test]
fn what_others_hold_binds_nobody_without_the_label() {
    let shy = required("podAntiAffinity", RACK, "web");
    let there = || {
        vec![
            node("n1", Some("r1"), "shy", 1, &shy),
            node("n2", None, "shy", 1, &shy),
        ]
    };
    let plan = solve(&on(there(), vec![racks()], apps("web", 2, &json!({}))));
    assert_eq!(show(&plan), "n2: 2 pods");
    let mut only_r1 = there();
    only_r1.truncate(1);
    let plan = solve(&on(
        only_r1,
        vec![pool("racks", "rack In r1", ladder())],
        apps("web", 2, &json!({})),
    ));
    assert_eq!(plan.unschedulable.len(), 2, "{}", show(&plan));
}

#[test]
fn affinity_cannot_be_met_without_the_label() {
    let pods = || apps("web", 2, &required("podAffinity", RACK, "cache"));
    let bare = || node("n1", None, "cache", 1, &json!({}));
    let plan = solve(&on(
        vec![bare()],
        vec![racks(), pool("p", "", ladder())],
        pods(),
    ));
    assert_eq!(plan.unschedulable.len(), 2, "{}", show(&plan));
    let there = vec![bare(), node("n2", Some("r2"), "cache", 16, &json!({}))];
    let plan = solve(&on(there, vec![racks(), pool("p", "", ladder())], pods()));
    assert_eq!(
        by_rack(&plan),
        BTreeMap::from([(Some("r2".to_owned()), 2)]),
        "{}",
        show(&plan)
    );
}

/// A partner that is found by one key leaves nobody free to be the first by another.
#[test]
fn the_first_of_a_group_is_the_first_by_all_keys() {
    let mut pods = required("podAffinity", ZONE, "web");
    let both = [ZONE, RACK]
        .map(|key| json!({ "topologyKey": key, "labelSelector": crate::rules::selector("web") }));
    pods["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = json!(both);
    let pods = || apps("web", 2, &pods);
    let there = vec![node("n1", None, "web", 1, &json!({}))];
    let plan = solve(&on(there, vec![racks()], pods()));
    assert_eq!(
        (plan.new_nodes.len(), plan.unschedulable.len()),
        (0, 2),
        "{}",
        show(&plan)
    );
    let plan = solve(&on(vec![], vec![racks()], pods()));
    assert_eq!(plan.new_nodes.len(), 1, "{}", show(&plan));
}

#[test]
fn a_spread_leaves_nodes_without_the_label_out() {
    let even = json!({ "topologySpreadConstraints": [spread(RACK, 1, "web")] });
    let there = vec![node("n1", None, "web", 3, &even)];
    let plan = solve(&on(
        there,
        vec![pool("p", "", ladder()), racks()],
        apps("web", 4, &even),
    ));
    let two = |rack: &str| (Some(rack.to_owned()), 2);
    assert_eq!(
        by_rack(&plan),
        BTreeMap::from([two("r1"), two("r2")]),
        "{}",
        show(&plan)
    );
}

/// A node without the label of one spread counts for no other of the pod: that in zone a is as if it were not there.
#[test]
fn a_node_without_the_label_of_one_spread_counts_for_none() {
    let both =
        json!({ "topologySpreadConstraints": [spread(ZONE, 1, "web"), spread(RACK, 4, "web")] });
    let there = vec![node("n1", None, "web", 3, &both)];
    let problem = on(there, vec![racks()], apps("web", 2, &both));
    let plan = solve(&problem);
    let one = |zone: &str| (zone.to_owned(), 1);
    let zones = crate::rules::by_zone(&problem, &plan);
    assert_eq!(
        zones,
        BTreeMap::from([one("a"), one("b")]),
        "{}",
        show(&plan)
    );
}

/// Nor is a zone one of its domains where only machines without the other label can be bought.
#[test]
fn a_zone_without_the_label_of_another_spread_is_no_domain() {
    let both =
        json!({ "topologySpreadConstraints": [spread(ZONE, 1, "web"), spread(RACK, 4, "web")] });
    let pools = vec![
        pool(
            "racks",
            "rack In r1 r2, topology.kubernetes.io/zone In a",
            ladder(),
        ),
        pool("p", "", ladder()),
    ];
    let plan = solve(&on(vec![], pools, apps("web", 4, &both)));
    assert!(plan.unschedulable.is_empty(), "{}", show(&plan));
}
