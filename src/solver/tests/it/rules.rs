//! Rules between pods: spread, affinity, anti-affinity, over hosts and zones, alone and against what is there.

use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_api::labels as l;
use karpenter_model::{NodeView, Plan, Pod, Problem};
use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

use crate::world::{ladder, list, node, pod, pod_with, pool, problem, show, solve};

pub(crate) const HOST: &str = l::HOSTNAME;
pub(crate) const ZONE: &str = l::ZONE;

/// A label that only some nodes and one of two pools have.
pub(crate) const RACK: &str = "rack";

pub(crate) fn arb_rack() -> impl Strategy<Value = Option<&'static str>> {
    prop::option::of(prop::sample::select(vec!["r1", "r2"]))
}

pub(crate) fn selector(app: &str) -> Value {
    json!({ "matchLabels": { "app": app } })
}

pub(crate) fn spread(key: &str, max_skew: i32, app: &str) -> Value {
    json!({ "maxSkew": max_skew, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector(app) })
}

fn term(key: &str, app: &str) -> Value {
    json!({ "topologyKey": key, "labelSelector": selector(app) })
}

pub(crate) fn required(kind: &str, key: &str, app: &str) -> Value {
    json!({ "affinity": { kind: { "requiredDuringSchedulingIgnoredDuringExecution": [term(key, app)] } } })
}

/// Pods `app-0`... of one CPU with a label and this spec.
pub(crate) fn apps(app: &str, count: usize, spec: &Value) -> Vec<Pod> {
    (0..count)
        .map(|i| {
            let mut pod = pod_with(&format!("{app}-{i:03}"), "cpu=1 memory=1Gi", spec.clone());
            pod.labels.insert("app".into(), app.into());
            pod
        })
        .collect()
}

/// A node in a zone with pods of an app on it.
pub(crate) fn holding(name: &str, zone: &str, app: &str, count: usize, spec: &Value) -> NodeView {
    let labels = [
        (ZONE, zone),
        (HOST, name),
        (l::CAPACITY_TYPE, "spot"),
        (l::ARCH, "amd64"),
    ];
    let mut node = node(name, "cpu=16 memory=64Gi", &labels);
    for (i, pod) in apps(app, count, spec).into_iter().enumerate() {
        let mut pod = pod;
        pod.key.name = format!("{name}-{i}").into();
        pod.node_name = Some(name.into());
        node.available.subtract(&pod.requests);
        node.pods.push(Arc::new(pod));
    }
    node
}

/// Some of a node's pods are on their way out.
pub(crate) fn leaving(node: &mut NodeView, which: u32) {
    for pod in node.pods.iter_mut().skip(which as usize) {
        Arc::make_mut(pod).deleted = Some("2026-01-01T00:00:00Z".parse().unwrap());
    }
}

fn with_nodes(pods: Vec<Pod>, nodes: Vec<NodeView>) -> Problem {
    let mut problem = problem(vec![pool("p", "", ladder())], pods);
    problem.nodes = nodes.into_iter().map(Arc::new).collect();
    problem
}

/// Pods by zone, new machines and nodes that exist taken together.
pub(crate) fn by_zone(problem: &Problem, plan: &Plan) -> BTreeMap<String, usize> {
    let mut out = BTreeMap::new();
    for machine in &plan.new_nodes {
        *out.entry(machine.cheapest.zone.to_string()).or_default() += machine.pods.len();
    }
    for placement in &plan.existing {
        let node = problem
            .nodes
            .iter()
            .find(|n| n.name == placement.node)
            .unwrap();
        *out.entry(node.labels[ZONE].clone()).or_default() += placement.pods.len();
    }
    out
}

#[test]
fn zones_are_filled_evenly_and_machines_are_shared() {
    let problem = with_nodes(
        apps(
            "web",
            14,
            &json!({ "topologySpreadConstraints": [spread(ZONE, 1, "web")] }),
        ),
        vec![],
    );
    let plan = solve(&problem);
    assert_eq!(
        by_zone(&problem, &plan),
        BTreeMap::from([("a".into(), 7), ("b".into(), 7)])
    );
    assert!(plan.new_nodes.len() <= 4, "{}", show(&plan));
}

#[test]
fn a_zone_that_holds_some_already_gets_fewer() {
    let web = json!({ "topologySpreadConstraints": [spread(ZONE, 1, "web")] });
    let nodes = vec![holding("n1", "a", "web", 4, &web)];
    let problem = with_nodes(apps("web", 4, &web), nodes);
    let plan = solve(&problem);
    assert_eq!(by_zone(&problem, &plan), BTreeMap::from([("b".into(), 4)]));
}

/// As kube-scheduler: those that a roll-out is about to end do not count, however long they take to go.
#[test]
fn pods_on_their_way_out_do_not_count_for_a_spread() {
    let web = json!({ "topologySpreadConstraints": [spread(ZONE, 1, "web")] });
    let mut old = holding("n1", "a", "web", 4, &web);
    leaving(&mut old, 0);
    old.available = list("cpu=0 memory=0 pods=0");
    let problem = with_nodes(apps("web", 4, &web), vec![old]);
    let plan = solve(&problem);
    let two = |zone: &str| (zone.to_owned(), 2);
    assert_eq!(
        by_zone(&problem, &plan),
        BTreeMap::from([two("a"), two("b")])
    );
}

#[test]
fn a_zone_that_nothing_can_be_bought_in_holds_the_others_back() {
    // A node in zone c counts as a domain; it is full, and no machine can be bought there.
    let web = json!({ "topologySpreadConstraints": [spread(ZONE, 1, "web")] });
    let mut full = holding("n1", "c", "other", 1, &json!({}));
    full.available = list("cpu=0 memory=0 pods=0");
    let problem = with_nodes(apps("web", 4, &web), vec![full]);
    let plan = karpenter_solver::solve(&problem);
    assert!(karpenter_plan_check::check(&problem, &plan).is_empty());
    // One in a, one in b; c stays at none, so that a second anywhere would be a skew of two.
    assert_eq!(plan.unschedulable.len(), 2, "{}", show(&plan));
    assert!(
        plan.unschedulable[0]
            .reason
            .contains("topology spread (maxSkew 1) over topology.kubernetes.io/zone"),
        "{}",
        show(&plan)
    );
}

#[test]
fn min_domains_make_the_emptiest_count_as_empty() {
    let mut constraint = spread(ZONE, 1, "web");
    constraint["minDomains"] = json!(3);
    let problem = with_nodes(
        apps(
            "web",
            4,
            &json!({ "topologySpreadConstraints": [constraint] }),
        ),
        vec![],
    );
    let plan = karpenter_solver::solve(&problem);
    assert_eq!(plan.unschedulable.len(), 2, "{}", show(&plan));
}

#[rstest]
#[case::spread(json!({ "topologySpreadConstraints": [spread(HOST, 1, "web")] }), 5)]
#[case::spread_by_two(json!({ "topologySpreadConstraints": [spread(HOST, 2, "web")] }), 3)]
#[case::anti_affinity(required("podAntiAffinity", HOST, "web"), 5)]
fn case_36_hosts_take_as_many_as_the_rule_lets_them(#[case] spec: Value, #[case] machines: usize) {
    let plan = solve(&with_nodes(apps("web", 5, &spec), vec![]));
    assert_eq!(plan.new_nodes.len(), machines, "{}", show(&plan));
}

#[test]
fn anti_affinity_over_zones_leaves_the_third_of_two_zones_over() {
    let plan = karpenter_solver::solve(&with_nodes(
        apps("web", 3, &required("podAntiAffinity", ZONE, "web")),
        vec![],
    ));
    assert_eq!(
        (plan.new_nodes.len(), plan.unschedulable.len()),
        (2, 1),
        "{}",
        show(&plan)
    );
    assert!(
        plan.unschedulable[0]
            .reason
            .contains("pod anti-affinity over topology.kubernetes.io/zone"),
        "{}",
        show(&plan)
    );
}

#[test]
fn case_43_affinity_keeps_pods_together_and_finds_those_that_come_later() {
    // web is served first (it is older by name) but has to be where cache is.
    let mut pods = apps("web", 3, &required("podAffinity", ZONE, "cache"));
    let mut cache = apps("cache", 1, &json!({}));
    cache[0].node_selector.insert(ZONE.into(), "b".into());
    pods.extend(cache);
    let problem = with_nodes(pods, vec![]);
    let plan = solve(&problem);
    assert_eq!(by_zone(&problem, &plan), BTreeMap::from([("b".into(), 4)]));
}

#[test]
fn case_42_affinity_to_itself_stays_in_one_zone() {
    let problem = with_nodes(
        apps("web", 20, &required("podAffinity", ZONE, "web")),
        vec![],
    );
    assert_eq!(by_zone(&problem, &solve(&problem)).len(), 1);
}

#[test]
fn case_43_affinity_to_nobody_is_left_over_and_says_so() {
    let plan = karpenter_solver::solve(&with_nodes(
        apps("web", 1, &required("podAffinity", ZONE, "ghost")),
        vec![],
    ));
    assert_eq!(plan.new_nodes.len(), 0);
    assert!(
        plan.unschedulable[0].reason.contains("pod affinity over"),
        "{}",
        show(&plan)
    );
}

/// kube-scheduler counts only pods that all terms mean: one pod for each of two terms is no partner, and buying a machine
/// for such a pod would never end.
#[rstest]
#[case::one_for_each_term(&["cache", "db"], false)]
#[case::one_for_both(&["both"], true)]
fn several_terms_of_affinity_mean_the_same_pods(#[case] there: &[&str], #[case] placed: bool) {
    let mut spec = required("podAffinity", ZONE, "x");
    spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = json!([
        { "topologyKey": ZONE, "labelSelector": { "matchExpressions": [{ "key": "app", "operator": "In", "values": ["cache", "both"] }] } },
        { "topologyKey": HOST, "labelSelector": { "matchExpressions": [{ "key": "app", "operator": "In", "values": ["db", "both"] }] } },
    ]);
    let mut node = holding("n1", "a", "other", 0, &json!({}));
    for app in there {
        let other = holding("n1", "a", app, 1, &json!({}));
        node.pods.extend(other.pods);
    }
    let problem = with_nodes(apps("web", 1, &spec), vec![node]);
    let plan = karpenter_solver::solve(&problem);
    assert!(karpenter_plan_check::check(&problem, &plan).is_empty());
    assert_eq!(plan.new_nodes.len(), 0, "{}", show(&plan));
    assert_eq!(plan.unschedulable.is_empty(), placed, "{}", show(&plan));
}

#[test]
fn affinity_over_hosts_follows_a_pod_that_is_there() {
    let nodes = vec![
        holding("n1", "a", "cache", 1, &json!({})),
        holding("n2", "b", "other", 1, &json!({})),
    ];
    let plan = solve(&with_nodes(
        apps("web", 3, &required("podAffinity", HOST, "cache")),
        nodes,
    ));
    assert_eq!(show(&plan), "n1: 3 pods");
}

#[test]
fn case_45_what_a_pod_that_is_there_holds_against_others_counts() {
    let shy = required("podAntiAffinity", ZONE, "web");
    let nodes = vec![holding("n1", "a", "shy", 1, &shy)];
    let problem = with_nodes(apps("web", 2, &json!({})), nodes);
    let plan = solve(&problem);
    assert_eq!(
        by_zone(&problem, &plan),
        BTreeMap::from([("b".into(), 2)]),
        "{}",
        show(&plan)
    );
}

#[test]
fn what_pods_of_the_same_plan_hold_against_each_other_counts() {
    let mut pods = apps("shy", 1, &required("podAntiAffinity", HOST, "web"));
    pods.extend(apps("web", 2, &json!({})));
    let plan = solve(&with_nodes(pods, vec![]));
    assert_eq!(plan.new_nodes.len(), 2, "{}", show(&plan));
}

#[test]
fn case_46_other_namespaces_are_others() {
    let mut pods = apps("web", 2, &required("podAntiAffinity", HOST, "web"));
    pods[1].key.namespace = "elsewhere".into();
    assert_eq!(solve(&with_nodes(pods, vec![])).new_nodes.len(), 1);
}

/// Whether a pod that keeps `web` of the selected namespaces off its host shares one with a `web` of namespace `other`.
#[rstest]
#[case::selected(json!({"matchLabels": {"team": "blue"}}), json!([]), 2)]
#[case::not_selected(json!({"matchLabels": {"team": "red"}}), json!([]), 1)]
#[case::everywhere(json!({}), json!([]), 2)]
#[case::named_besides(json!({"matchLabels": {"team": "red"}}), json!(["other"]), 2)]
fn case_46_namespaces_are_selected_by_their_labels(
    #[case] namespaces: Value,
    #[case] named: Value,
    #[case] machines: usize,
) {
    let mut shy = required("podAntiAffinity", HOST, "web");
    let term = &mut shy["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        [0];
    term["namespaceSelector"] = namespaces;
    term["namespaces"] = named;
    let mut pods = apps("shy", 1, &shy);
    let mut web = apps("web", 1, &json!({}));
    web[0].key.namespace = "other".into();
    pods.extend(web);
    let mut problem = with_nodes(pods, vec![]);
    let team = |team: &str| BTreeMap::from([("team".to_owned(), team.to_owned())]);
    problem.namespaces =
        Arc::new([("d".into(), team("green")), ("other".into(), team("blue"))].into());
    let plan = solve(&problem);
    assert_eq!(plan.new_nodes.len(), machines, "{}", show(&plan));
}

#[test]
fn where_no_namespace_is_known_each_is_taken_to_be_selected() {
    let mut shy = required("podAntiAffinity", HOST, "web");
    shy["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]["namespaceSelector"] =
        json!({"matchLabels": {"team": "red"}});
    let mut pods = apps("shy", 1, &shy);
    let mut web = apps("web", 1, &json!({}));
    web[0].key.namespace = "other".into();
    pods.extend(web);
    assert_eq!(solve(&with_nodes(pods, vec![])).new_nodes.len(), 2);
}

#[test]
fn case_38_match_label_keys_tell_revisions_apart() {
    let mut constraint = spread(HOST, 1, "web");
    constraint["matchLabelKeys"] = json!(["rev"]);
    let mut pods = apps(
        "web",
        2,
        &json!({ "topologySpreadConstraints": [constraint] }),
    );
    pods[0].labels.insert("rev".into(), "1".into());
    pods[1].labels.insert("rev".into(), "2".into());
    assert_eq!(solve(&with_nodes(pods, vec![])).new_nodes.len(), 1);
}

#[test]
fn a_spread_that_may_be_broken_is_kept_where_it_costs_nothing() {
    let mut constraint = spread(ZONE, 1, "web");
    constraint["whenUnsatisfiable"] = json!("ScheduleAnyway");
    let problem = with_nodes(
        apps(
            "web",
            8,
            &json!({ "topologySpreadConstraints": [constraint] }),
        ),
        vec![],
    );
    let zones = by_zone(&problem, &solve(&problem));
    assert_eq!(zones, BTreeMap::from([("a".into(), 4), ("b".into(), 4)]));
}

/// A zone whose only node is full of others and tainted: it holds the others back as long as it counts.
#[rstest]
#[case::taints_do_not_matter(json!({}), 1)]
#[case::taints_matter(json!({"nodeTaintsPolicy": "Honor"}), 6)]
fn case_39_nodes_whose_taints_are_not_tolerated_count_by_policy(
    #[case] policy: Value,
    #[case] placed: usize,
) {
    let mut constraint = spread(ZONE, 1, "web");
    for (key, value) in policy.as_object().unwrap() {
        constraint[key] = value.clone();
    }
    let pods = apps(
        "web",
        6,
        &json!({ "topologySpreadConstraints": [constraint] }),
    );
    let mut full = holding("n1", "c", "x", 1, &json!({}));
    full.taints = vec![crate::world::taint("kept", "NoSchedule")];
    let only_a = pool("p", &format!("{ZONE} In a"), ladder());
    let mut problem = problem(vec![only_a], pods);
    problem.nodes = vec![Arc::new(full)];
    let plan = solve(&problem);
    let there: usize = plan.new_nodes.iter().map(|n| n.pods.len()).sum();
    assert_eq!(there, placed, "{}", show(&plan));
}

#[test]
fn case_39_only_zones_that_the_pod_may_go_to_count() {
    // Zone b is not the pod's: with policy Honor (the default) it does not hold the others back.
    let mut spec = json!({ "topologySpreadConstraints": [spread(ZONE, 1, "web")] });
    spec["nodeSelector"] = json!({ ZONE: "a" });
    let problem = with_nodes(
        apps("web", 6, &spec),
        vec![holding("n1", "b", "x", 1, &json!({}))],
    );
    assert_eq!(
        by_zone(&problem, &solve(&problem)),
        BTreeMap::from([("a".into(), 6)])
    );
}

/// The first is alone on the smallest machine when the others, which have to share its host, come.
#[test]
fn a_machine_becomes_larger_for_pods_that_have_to_share_it() {
    let mut first = json!({ "topologySpreadConstraints": [spread(ZONE, 1, "a")] });
    first["nodeSelector"] = json!({ ZONE: "a" });
    let mut pods = apps("a", 1, &first);
    pods.extend((0..2).map(|i| {
        let mut pod = apps("a", 1, &required("podAffinity", HOST, "a")).remove(0);
        pod.key.name = format!("sharer-{i}").into();
        pod.uid = pod.key.name.clone();
        pod
    }));
    let plan = solve(&with_nodes(pods, vec![]));
    assert_eq!(show(&plan), "new p m4 a spot: 3 pods");
}

/// Two halves of one app, one on spot machines and one on others, both spread over zones: neither is on a node that the
/// other counts, so that each fills the zones by itself.
#[test]
fn machines_that_a_pod_may_not_go_to_do_not_count_for_its_spread() {
    let half = |kind: &str, count: usize| {
        let mut spec = json!({ "topologySpreadConstraints": [spread(ZONE, 1, "web")] });
        spec["nodeSelector"] = json!({ l::CAPACITY_TYPE: kind });
        let mut pods = apps("web", count, &spec);
        for pod in &mut pods {
            pod.key.name = format!("{}-{kind}", pod.key.name).into();
            pod.uid = pod.key.name.clone();
        }
        pods
    };
    // The first half may only go to zone a.
    let mut pods = half("on-demand", 3);
    for pod in &mut pods {
        pod.node_selector.insert(ZONE.to_owned(), "a".to_owned());
    }
    pods.extend(half("spot", 4));
    let problem = with_nodes(pods, vec![]);
    let plan = solve(&problem);
    assert!(plan.unschedulable.is_empty(), "{}", show(&plan));
    let zones = by_zone(&problem, &plan);
    assert_eq!(zones, BTreeMap::from([("a".into(), 5), ("b".into(), 2)]));
}

/// A pod of theirs goes where the spread pods may not: by policy Honor it does not count, wherever it is put.
#[rstest]
#[case::on_a_node(vec![holding("n1", "b", "x", 0, &json!({}))])]
#[case::on_a_machine(vec![])]
fn case_39_pods_of_the_same_plan_count_only_where_the_pod_may_go(#[case] nodes: Vec<NodeView>) {
    let mut spec = json!({ "topologySpreadConstraints": [spread(l::CAPACITY_TYPE, 1, "web")] });
    spec["nodeSelector"] = json!({ ZONE: "a" });
    let mut pods = apps("web", 2, &spec);
    let elsewhere = json!({ "nodeSelector": { ZONE: "b", l::CAPACITY_TYPE: "spot" } });
    for mut other in apps("web", 3, &elsewhere) {
        other.key.name = format!("other-{}", other.key.name).into();
        pods.push(other);
    }
    let plan = solve(&with_nodes(pods, nodes));
    let mut types: Vec<(usize, Vec<Arc<str>>)> = plan
        .new_nodes
        .iter()
        .filter(|n| n.pods.iter().any(|p| !p.name.starts_with("other")))
        .map(|n| (n.pods.len(), n.capacity_types.clone()))
        .collect();
    types.sort();
    let one_of = |kind: &str| (1, vec![Arc::from(kind)]);
    assert_eq!(
        types,
        [one_of("on-demand"), one_of("spot")],
        "{}",
        show(&plan)
    );
}

#[test]
fn plain_pods_share_machines_with_ruled_ones() {
    let mut pods = apps(
        "web",
        2,
        &json!({ "topologySpreadConstraints": [spread(ZONE, 1, "web")] }),
    );
    pods.extend((0..2).map(|i| pod(&format!("plain-{i}"), "cpu=500m memory=512Mi")));
    let plan = solve(&with_nodes(pods, vec![]));
    assert_eq!(plan.new_nodes.len(), 2, "{}", show(&plan));
}

fn arb_rules() -> impl Strategy<Value = Value> {
    let key = || prop::sample::select(vec![HOST, ZONE, l::CAPACITY_TYPE, RACK]);
    let app = || prop::sample::select(vec!["a", "b", "c"]);
    prop_oneof![
        Just(json!({})),
        (key(), key(), app()).prop_map(|(k, k2, a)| json!({ "topologySpreadConstraints": [spread(k, 1, a), spread(k2, 1, a)] })),
        (key(), app(), 1_i32..3).prop_map(|(k, a, s)| json!({ "topologySpreadConstraints": [spread(k, s, a)] })),
        (key(), app(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(k, a, affinity, taints, pinned)| {
            let mut constraint = spread(k, 1, a);
            constraint["nodeAffinityPolicy"] = json!(if affinity { "Honor" } else { "Ignore" });
            constraint["nodeTaintsPolicy"] = json!(if taints { "Honor" } else { "Ignore" });
            let mut spec = json!({ "topologySpreadConstraints": [constraint] });
            if pinned {
                spec["nodeSelector"] = json!({ ZONE: "a" });
            }
            spec
        }),
        (key(), app(), prop::sample::select(vec!["red", "blue"])).prop_map(|(k, a, team)| {
            let mut spec = required("podAntiAffinity", k, a);
            spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]
                ["namespaceSelector"] = json!({"matchLabels": {"team": team}});
            spec
        }),
        (key(), app()).prop_map(|(k, a)| required("podAffinity", k, a)),
        (key(), key(), app()).prop_map(|(k, k2, a)| json!({
            "affinity": { "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [term(k, a), term(k2, a)] } },
        })),
        (key(), app()).prop_map(|(k, a)| required("podAntiAffinity", k, a)),
        (key(), key(), app()).prop_map(|(k, k2, a)| json!({
            "topologySpreadConstraints": [spread(k, 1, a)],
            "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [term(k2, a)] } },
        })),
    ]
}

/// DaemonSets of an app, with rules of their own or none, on all nodes or some.
pub(crate) fn arb_daemons() -> impl Strategy<Value = Vec<Arc<Pod>>> {
    let key = || prop::sample::select(vec![HOST, HOST, ZONE]);
    let app = || prop::sample::select(vec!["a", "b", "c"]);
    let rules = prop_oneof![
        4 => Just(json!({})),
        1 => (key(), app()).prop_map(|(k, a)| required("podAffinity", k, a)),
        1 => (key(), app()).prop_map(|(k, a)| required("podAntiAffinity", k, a)),
    ];
    let nodes = prop::sample::select(vec![
        json!({}),
        json!({ ZONE: "a" }),
        json!({ l::CAPACITY_TYPE: "spot" }),
        json!({ l::REGISTERED: "true" }),
        json!({ l::INSTANCE_TYPE: "m4" }),
    ]);
    let one = (app(), rules, nodes, any::<bool>()).prop_map(|(app, rules, nodes, tolerates)| {
        let mut spec = rules;
        spec["nodeSelector"] = nodes;
        if tolerates {
            spec["tolerations"] = json!([{"operator": "Exists"}]);
        }
        let mut made = Pod::clone(&crate::world::daemon("x", "cpu=100m", spec));
        made.labels.insert("app".into(), app.into());
        made
    });
    prop::collection::vec(one, 0..3).prop_map(|all| {
        let all = all.into_iter().enumerate();
        all.map(|(i, pod)| Arc::new(crate::world::named(pod, &format!("daemon-{i}"))))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever the rules, the checker is content, and no pod is lost.
    #[test]
    fn any_mix_of_rules_makes_a_sound_plan(
        groups in prop::collection::vec((prop::sample::select(vec!["a", "b", "c"]), 1_usize..6, arb_rules(), any::<bool>()), 1..5),
        there in prop::collection::vec((prop::sample::select(vec!["a", "b"]), prop::sample::select(vec!["a", "b", "c"]), 0_usize..3, arb_rules(), any::<bool>(), arb_rack()), 0..3),
        racks in any::<bool>(),
        daemons in arb_daemons(),
    ) {
        let mut pods = Vec::new();
        for (i, (app, count, spec, other)) in groups.iter().enumerate() {
            for mut pod in apps(app, *count, spec) {
                if *other {
                    pod.key.namespace = "other".into();
                }
                pod.key.name = format!("{}-{i}", pod.key.name).into();
                pod.uid = pod.key.name.clone();
                pods.push(pod);
            }
        }
        let total = pods.len();
        let nodes = there
            .iter()
            .enumerate()
            .map(|(i, (zone, app, count, spec, tainted, rack))| {
                let mut node = holding(&format!("n{i}"), zone, app, *count, spec);
                leaving(&mut node, *count as u32 / 2 + 1);
                node.labels.extend(rack.map(|r| (RACK.to_owned(), r.to_owned())));
                if *tainted {
                    node.taints = vec![crate::world::taint("kept", "NoSchedule")];
                }
                node
            })
            .collect();
        let mut problem = with_nodes(pods, nodes);
        let team = |team: &str| BTreeMap::from([("team".to_owned(), team.to_owned())]);
        problem.namespaces = Arc::new([("d".into(), team("red")), ("other".into(), team("blue"))].into());
        problem.options.work_budget = 200_000;
        problem.daemons = daemons;
        if racks {
            problem.pools.push(Arc::new(pool("racks", &format!("{RACK} In r1 r2"), ladder())));
        }
        let plan = karpenter_solver::solve(&problem);
        let findings = karpenter_plan_check::check(&problem, &plan);
        prop_assert!(findings.is_empty(), "{findings:#?}\n{}", show(&plan));
        crate::world::left_out(&problem);
        let placed: usize = plan.new_nodes.iter().map(|n| n.pods.len()).sum::<usize>()
            + plan.existing.iter().map(|e| e.pods.len()).sum::<usize>();
        prop_assert_eq!(placed + plan.unschedulable.len(), total);
        let mut turned = problem.clone();
        turned.pods.reverse();
        prop_assert_eq!(show(&karpenter_solver::solve(&turned)), show(&plan));
    }
}
