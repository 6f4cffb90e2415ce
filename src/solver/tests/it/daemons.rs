//! Rules between pods and DaemonSets whose pods are not there yet: on machines still to be bought and on nodes on their way.

use std::sync::Arc;

use karpenter_api::labels as l;
use karpenter_model::{Plan, Pod, PoolView, Problem};
use rstest::rstest;
use serde_json::{Value, json};

use crate::rules::{HOST, ZONE, apps, required, selector};
use crate::world::{
    daemon, ladder, machine, machine_with, node, pod, pool, problem, show, solve, taint,
};

/// A DaemonSet pod of an app.
fn agent(app: &str, spec: Value) -> Arc<Pod> {
    let mut made = Pod::clone(&daemon(app, "cpu=100m", spec));
    made.labels.insert("app".into(), app.into());
    Arc::new(made)
}

fn with_agent(pools: Vec<PoolView>, pods: Vec<Pod>, spec: Value) -> Problem {
    let mut problem = problem(pools, pods);
    problem.daemons = vec![agent("agent", spec)];
    problem
}

fn plain() -> Vec<PoolView> {
    vec![pool("p", "", ladder())]
}

fn types(plan: &Plan) -> Vec<&str> {
    let machine = plan.new_nodes.first();
    machine.map_or(Vec::new(), |m| {
        m.instance_types.iter().map(AsRef::as_ref).collect()
    })
}

#[rstest]
#[case::host(HOST)]
#[case::zone(ZONE)]
#[case::capacity_type(l::CAPACITY_TYPE)]
fn affinity_to_a_daemon_is_met_by_a_machine_to_be_bought(#[case] key: &str) {
    let pods = apps("web", 3, &required("podAffinity", key, "agent"));
    let plan = solve(&with_agent(plain(), pods, json!({})));
    assert!(plan.unschedulable.is_empty(), "{}", show(&plan));
    assert_eq!(plan.new_nodes.len(), 1, "{}", show(&plan));
}

#[test]
fn the_machine_is_one_that_the_daemon_runs_on() {
    let pods = || apps("web", 2, &required("podAffinity", HOST, "agent"));
    let plan = solve(&with_agent(
        plain(),
        pods(),
        json!({"nodeSelector": {ZONE: "b"}}),
    ));
    assert_eq!(show(&plan), "new p m4 b spot: 2 pods");
    assert_eq!(
        plan.new_nodes[0]
            .requirements
            .get(ZONE)
            .and_then(|r| r.single())
            .map(|z| &**z),
        Some("b")
    );

    let on_arm = json!({"nodeSelector": {l::ARCH: "arm64"}});
    let mut both = ladder();
    both.push(machine_with(
        "arm",
        "cpu=8 memory=16Gi",
        4.0,
        "kubernetes.io/arch In arm64",
    ));
    let plan = solve(&with_agent(vec![pool("p", "", both)], pods(), on_arm));
    assert_eq!(types(&plan), ["arm"]);
}

/// Of two terms that a DaemonSet's pods may run under, the second leaves something that can be bought.
#[test]
fn every_term_of_the_daemons_node_affinity_is_tried() {
    let terms = json!([
        crate::world::expression(ZONE, "In", &["elsewhere"]),
        crate::world::expression(l::CAPACITY_TYPE, "In", &["on-demand"]),
    ]);
    let spec = json!({"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
    let pods = apps("web", 1, &required("podAffinity", HOST, "agent"));
    let plan = solve(&with_agent(plain(), pods, spec));
    assert_eq!(show(&plan), "new p m2 a on-demand: 1 pods");
}

fn only_where(key: &str, value: &str) -> Value {
    json!({"nodeSelector": {key: value}})
}

/// No machine helps: none is bought.
#[rstest]
#[case::it_does_not_tolerate_the_pool(json!({}), "NoSchedule", json!({"tolerations": [{"operator": "Exists"}]}))]
#[case::it_is_for_other_nodes(only_where("team", "x"), "", json!({}))]
#[case::it_is_for_another_zone_than_the_pod(only_where(ZONE, "a"), "", only_where(ZONE, "b"))]
#[case::it_waits_for_others(required("podAffinity", HOST, "cache"), "", json!({}))]
#[case::it_keeps_the_pod_away(required("podAntiAffinity", HOST, "web"), "", json!({}))]
#[case::it_is_spread(json!({"topologySpreadConstraints": [crate::rules::spread(HOST, 1, "agent")]}), "", json!({}))]
fn affinity_to_a_daemon_that_will_not_be_there(
    #[case] spec: Value,
    #[case] effect: &str,
    #[case] more: Value,
) {
    let mut rule = required("podAffinity", HOST, "agent");
    for (field, value) in more.as_object().unwrap() {
        rule[field] = value.clone();
    }
    let mut own = pool("p", "", ladder());
    if !effect.is_empty() {
        own.taints = vec![taint("kept", effect)];
    }
    let plan = solve(&with_agent(vec![own], apps("web", 2, &rule), spec));
    assert_eq!(plan.new_nodes.len(), 0, "{}", show(&plan));
    assert_eq!(plan.unschedulable.len(), 2);
}

/// Two DaemonSets that exclude each other: nobody knows which one is there.
#[test]
fn affinity_to_one_of_two_daemons_that_exclude_each_other() {
    let pods = apps("web", 1, &required("podAffinity", HOST, "agent"));
    let mut problem = with_agent(plain(), pods, json!({}));
    problem
        .daemons
        .push(agent("rival", required("podAntiAffinity", HOST, "agent")));
    assert_eq!(solve(&problem).new_nodes.len(), 0);
}

#[test]
fn the_pool_that_the_daemon_runs_in_is_taken_though_another_is_heavier() {
    let mut heavy = pool("heavy", "", ladder());
    heavy.taints = vec![taint("kept", "NoSchedule")];
    heavy.weight = 10;
    let mut spec = required("podAffinity", HOST, "agent");
    spec["tolerations"] = json!([{"operator": "Exists"}]);
    let pools = vec![heavy, pool("p", "", ladder())];
    let plan = solve(&with_agent(pools, apps("web", 2, &spec), json!({})));
    assert_eq!(show(&plan), "new p m4 a spot: 2 pods");
}

/// Over a key of a pool's own, only machines that have it are anywhere.
#[test]
fn affinity_to_a_daemon_over_a_key_that_one_pool_has() {
    let mut heavy = pool("heavy", "", ladder());
    heavy.weight = 10;
    let racks = pool("racks", "rack In r1 r2", ladder());
    let pods = apps("web", 2, &required("podAffinity", "rack", "agent"));
    let plan = solve(&with_agent(vec![heavy, racks], pods, json!({})));
    assert_eq!(show(&plan), "new racks m4 a spot: 2 pods");
    let rack = plan.new_nodes[0]
        .requirements
        .get("rack")
        .and_then(|r| r.single());
    assert!(rack.is_some(), "{:?}", plan.new_nodes[0].requirements);
}

/// Pods that have nothing to do with the DaemonSet share the machine, before and after.
#[test]
fn others_share_the_machine() {
    let mut pods = apps("web", 2, &required("podAffinity", HOST, "agent"));
    pods.extend(apps("other", 4, &json!({})));
    let plan = solve(&with_agent(plain(), pods, json!({})));
    assert_eq!(plan.new_nodes.len(), 1, "{}", show(&plan));
}

/// A node that is on its way gets its pod of the DaemonSet, so that nothing has to be bought.
#[rstest]
#[case::for_everybody(json!({}))]
#[case::once_nodes_are_up(only_where(l::INITIALIZED, "true"))]
fn a_node_on_its_way_will_have_the_daemon(#[case] spec: Value) {
    let pods = apps("web", 2, &required("podAffinity", HOST, "agent"));
    let mut problem = with_agent(plain(), pods, spec);
    let mut coming = node("n1", "cpu=4 memory=8Gi", &[(ZONE, "a"), (HOST, "n1")]);
    coming.initialized = false;
    problem.nodes = vec![Arc::new(coming)];
    assert_eq!(show(&solve(&problem)), "n1: 2 pods");
}

/// A pod that excludes the DaemonSet was there first: its pod does not come, and nobody may rely on it.
#[test]
fn a_daemon_that_is_kept_off_a_node_does_not_come() {
    let pods = apps("web", 1, &required("podAffinity", HOST, "agent"));
    let mut problem = with_agent(plain(), pods, json!({}));
    let shy = required("podAntiAffinity", HOST, "agent");
    problem.nodes = vec![Arc::new(crate::rules::holding("n1", "a", "shy", 1, &shy))];
    assert_eq!(show(&solve(&problem)), "new p m2 a spot: 1 pods");
}

/// Anti-affinity to a DaemonSet of some types: no other type is listed for the launch, and none is taken for it later.
#[rstest]
#[case::the_pod_excludes_it(required("podAntiAffinity", HOST, "agent"), json!({}))]
#[case::by_zone(required("podAntiAffinity", ZONE, "agent"), json!({}))]
#[case::it_excludes_the_pod(json!({}), required("podAntiAffinity", HOST, "web"))]
#[case::it_excludes_the_pod_by_zone(json!({}), required("podAntiAffinity", ZONE, "web"))]
fn types_that_an_excluded_daemon_runs_on_are_not_listed(#[case] own: Value, #[case] theirs: Value) {
    let types_of = || {
        vec![
            machine("amd", "cpu=4 memory=8Gi", 0.1),
            machine_with(
                "arm",
                "cpu=4 memory=8Gi",
                0.2,
                "kubernetes.io/arch In arm64",
            ),
            machine_with(
                "arm-large",
                "cpu=8 memory=16Gi",
                0.3,
                "kubernetes.io/arch In arm64",
            ),
        ]
    };
    let mut spec = theirs;
    spec["nodeSelector"] = json!({l::ARCH: "amd64"});
    let plan = solve(&with_agent(
        vec![pool("p", "", types_of())],
        apps("web", 1, &own),
        spec,
    ));
    assert_eq!(types(&plan), ["arm", "arm-large"], "{}", show(&plan));
}

#[rstest]
#[case::host(HOST)]
#[case::zone(ZONE)]
fn a_daemon_that_excludes_pods_keeps_them_off_all_machines_that_will_run_it(#[case] key: &str) {
    let shy = required("podAntiAffinity", key, "web");
    let mut pods = apps("web", 2, &json!({}));
    pods.push(pod("other", "cpu=1"));
    let plan = solve(&with_agent(plain(), pods.clone(), shy.clone()));
    assert_eq!(plan.new_nodes.len(), 1, "{}", show(&plan));
    assert_eq!(plan.unschedulable.len(), 2);
    assert!(
        plan.unschedulable[0].reason.contains("DaemonSets"),
        "{}",
        show(&plan)
    );

    // Where it does not run there is a place for them.
    let mut quiet = pool("quiet", "quiet In yes", ladder());
    quiet.labels.insert("quiet".into(), "yes".into());
    let mut spec = shy;
    spec["affinity"]["nodeAffinity"] = json!({"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [crate::world::expression("quiet", "DoesNotExist", &[])]}});
    let pools = vec![pool("p", "", ladder()), quiet];
    let plan = karpenter_solver::solve(&with_agent(pools, pods, spec));
    let placed: usize = plan.new_nodes.iter().map(|n| n.pods.len()).sum();
    // In the zone of a machine that runs it there is none.
    let expected = if key == HOST { 3 } else { placed };
    assert_eq!(placed, expected, "{}", show(&plan));
}

/// Nor may they be put on a node that its pod is still to come to.
#[test]
fn a_daemon_on_its_way_to_a_node_excludes_pods_from_it() {
    let shy = required("podAntiAffinity", HOST, "web");
    let mut problem = with_agent(plain(), apps("web", 1, &json!({})), shy);
    let mut coming = node("n1", "cpu=4 memory=8Gi", &[(ZONE, "a"), (HOST, "n1")]);
    coming.initialized = false;
    problem.nodes = vec![Arc::new(coming)];
    let plan = solve(&problem);
    assert_eq!(
        (plan.existing.len(), plan.new_nodes.len()),
        (0, 0),
        "{}",
        show(&plan)
    );
}

/// The selectors of DaemonSets are read by namespace, too.
#[test]
fn a_daemon_of_another_namespace_is_another() {
    let mut rule = required("podAffinity", HOST, "agent");
    let mut problem = with_agent(plain(), apps("web", 1, &rule), json!({}));
    Arc::make_mut(&mut problem.daemons[0]).key.namespace = "kube-system".into();
    assert_eq!(solve(&problem).new_nodes.len(), 0);
    rule["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0] = json!(
        {"topologyKey": HOST, "namespaces": ["kube-system"], "labelSelector": selector("agent")});
    problem.pods = apps("web", 1, &rule).into_iter().map(Arc::new).collect();
    assert_eq!(solve(&problem).new_nodes.len(), 1);
}
