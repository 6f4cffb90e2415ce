//! Which nodes may be disrupted, and what Emptiness makes of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use karpenter_model::disruption::Pdb;
use karpenter_model::plan::{PlannedNode, PricedOffering};
use karpenter_model::pod::{Owner, Phase};
use karpenter_model::{InstanceType, Offering, Pod, PodKey, Requirements, ResourceList};
use karpenter_state::PoolCount;
use rstest::rstest;
use serde_json::{Value, json};

use super::candidate::{Refusal, examine};
use super::emptiness::Emptiness;
use super::ground::Ground;
use super::method::{Class, Command, Method, Proposal, Reason, Rejection, Replacement};
use super::single::SingleNode;
use super::snapshot::{Member, Pool, Snapshot};
use super::static_drift::StaticDrift;

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn now() -> Timestamp {
    at("2026-01-01T12:00:00Z")
}

fn condition(kind: &str) -> Value {
    json!({"type": kind, "status": "True", "reason": kind, "message": "",
           "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

/// An initialized, quiet, empty node of pool `p` of the given type.
fn member(name: &str, instance_type: &str) -> Member {
    let claim = json!({
        "metadata": {"name": name, "labels": {"karpenter.sh/nodepool": "p"}},
        "status": {"conditions": [condition("Initialized"), condition("Consolidatable")]}
    });
    let node = json!({
        "metadata": {"name": format!("node-{name}"), "labels": {
            "karpenter.sh/nodepool": "p", "karpenter.sh/initialized": "true",
            "node.kubernetes.io/instance-type": instance_type,
            "topology.kubernetes.io/zone": "z", "karpenter.sh/capacity-type": "spot"
        }},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}
    });
    Member {
        name: name.into(),
        claim: Arc::new(serde_json::from_value(claim).expect("a claim")),
        node: Some(Arc::new(serde_json::from_value(node).expect("a node"))),
        pods: Vec::new(),
        leaving: false,
        nominated_until: None,
        queued: false,
        held: None,
        buffer_pods: 0,
    }
}

fn pod(change: impl FnOnce(&mut Pod)) -> Arc<Pod> {
    let mut pod = Pod {
        key: PodKey {
            namespace: "ns".into(),
            name: "web".into(),
        },
        uid: "u".into(),
        phase: Phase::Running,
        ready: true,
        started: Some(at("2026-01-01T11:00:00Z")),
        ..Pod::default()
    };
    change(&mut pod);
    Arc::new(pod)
}

fn instance_type(name: &str, price: f64) -> (Arc<str>, Arc<InstanceType>) {
    let built = InstanceType::new(
        name,
        Requirements::new(),
        vec![Offering::new("z", "spot", price)],
        ResourceList::new(),
        Default::default(),
    );
    (built.name.clone(), Arc::new(built))
}

fn snapshot(members: Vec<Member>, disruption: &Value) -> Snapshot {
    let pool = json!({"metadata": {"name": "p"}, "spec": {"disruption": disruption}});
    let pool = Pool {
        pool: Arc::new(serde_json::from_value(pool).expect("a pool")),
        types: BTreeMap::from([instance_type("small", 0.1), instance_type("large", 0.4)]),
        count: PoolCount::default(),
    };
    Snapshot {
        members,
        pools: BTreeMap::from([("p".into(), pool)]),
        pdbs: BTreeMap::new(),
        ground: Ground::default(),
        generation: 1,
        taken: now(),
        spot_to_spot: false,
        threads: 2,
    }
}

fn free() -> Value {
    json!({"consolidateAfter": "0s", "budgets": [{"nodes": "100%"}]})
}

fn names(proposal: &Proposal) -> Vec<Vec<&str>> {
    proposal
        .commands
        .iter()
        .map(|c| c.candidates.iter().map(|c| &*c.name).collect())
        .collect()
}

fn edit(member: &mut Member, change: impl FnOnce(&mut k8s_openapi::api::core::v1::Node)) {
    let mut node = (**member.node.as_ref().expect("a node")).clone();
    change(&mut node);
    member.node = Some(Arc::new(node));
}

fn protect(text: &'static str) -> impl Fn(&mut Pod) {
    move |p: &mut Pod| {
        p.annotations
            .insert("karpenter.sh/do-not-disrupt".into(), text.into());
    }
}

#[rstest]
#[case::fine(|_: &mut Member| (), None)]
#[case::no_node(|m: &mut Member| m.node = None, Some("nodeclaim does not have an associated node"))]
#[case::not_initialized(
    |m: &mut Member| edit(m, |n| { n.metadata.labels.as_mut().expect("labels").remove("karpenter.sh/initialized"); }),
    Some("node isn't initialized"))]
#[case::leaving(|m: &mut Member| m.leaving = true, Some("node is deleting or marked for deletion"))]
#[case::nominated(
    |m: &mut Member| m.nominated_until = Some(at("2026-01-01T12:00:20Z")),
    Some("node is nominated for a pending pod"))]
#[case::protected_node(
    |m: &mut Member| edit(m, |n| n.metadata.annotations = Some(
        [("karpenter.sh/do-not-disrupt".to_owned(), "true".to_owned())].into())),
    Some("disruption is blocked through the \"karpenter.sh/do-not-disrupt\" annotation"))]
#[case::no_pool_label(
    |m: &mut Member| edit(m, |n| { n.metadata.labels.as_mut().expect("labels").remove("karpenter.sh/nodepool"); }),
    Some("node doesn't have required label (label=karpenter.sh/nodepool)"))]
#[case::pool_is_gone(
    |m: &mut Member| edit(m, |n| { n.metadata.labels.as_mut().expect("labels")
        .insert("karpenter.sh/nodepool".into(), "other".into()); }),
    Some("NodePool not found (NodePool=other)"))]
#[case::protected_pod(
    |m: &mut Member| m.pods = vec![pod(protect("true"))],
    Some("pod has \"karpenter.sh/do-not-disrupt\" annotation (Pod=ns/web)"))]
#[case::protected_daemon(
    |m: &mut Member| m.pods = vec![pod(|p| { protect("true")(p); p.owner = Owner::DaemonSet; })],
    Some("pod has \"karpenter.sh/do-not-disrupt\" annotation (Pod=ns/web)"))]
#[case::protection_elapsed(|m: &mut Member| m.pods = vec![pod(protect("30m"))], None)]
#[case::protected_pod_that_goes(
    |m: &mut Member| m.pods = vec![pod(|p| { protect("true")(p); p.deleted = Some(now()); })], None)]
#[case::type_is_gone(
    |m: &mut Member| edit(m, |n| { n.metadata.labels.as_mut().expect("labels")
        .remove("node.kubernetes.io/instance-type"); }), None)]
fn a_candidate_passes_every_check(
    #[case] change: impl Fn(&mut Member),
    #[case] expected: Option<&str>,
) {
    let mut member = member("a", "small");
    change(&mut member);
    let snapshot = snapshot(vec![member.clone()], &free());
    match (
        examine(&member, &snapshot, Class::Graceful, now()),
        expected,
    ) {
        (Ok(_), None) => {}
        (Err(Refusal::Blocked { message, .. }), Some(text)) => assert_eq!(message, text),
        (got, want) => panic!("expected {want:?}, got {got:?}"),
    }
}

#[rstest]
#[case::one(&[0], Some("pdb prevents pod evictions (PodDisruptionBudget=[ns/b0])"))]
#[case::one_with_room(&[1], None)]
#[case::two(&[1, 1],
    Some("eviction does not support multiple PDBs (PodDisruptionBudget(s)=[ns/b0 ns/b1])"))]
fn budgets_of_pods_block(#[case] allowed: &[i32], #[case] expected: Option<&str>) {
    let mut member = member("a", "small");
    member.pods = vec![pod(|p| {
        p.labels.insert("app".into(), "web".into());
    })];
    let mut snapshot = snapshot(vec![member.clone()], &free());
    let budgets = allowed.iter().enumerate().map(|(i, allowed)| {
        let raw = json!({
            "metadata": {"name": format!("b{i}"), "namespace": "ns"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "minAvailable": 1},
            "status": {"disruptionsAllowed": allowed, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}
        });
        Pdb::from_k8s(&serde_json::from_value(raw).expect("a budget"))
    });
    snapshot.pdbs.insert("ns".into(), budgets.collect());
    let text = |class| match examine(&member, &snapshot, class, now()) {
        Err(Refusal::Blocked { message, .. }) => Some(message),
        _ => None,
    };
    assert_eq!(text(Class::Graceful).as_deref(), expected);

    let mut claim = (*member.claim).clone();
    claim.spec.termination_grace_period = Some("1h".into());
    member.claim = Arc::new(claim);
    let waived = examine(&member, &snapshot, Class::Eventual, now());
    assert!(
        waived.is_ok(),
        "a drain with an end waits for no budget: {waived:?}"
    );
}

#[test]
fn an_obstacle_with_an_end_wakes_the_loop_then() {
    let (mut a, mut b) = (member("a", "small"), member("b", "small"));
    a.pods = vec![pod(protect("90m"))];
    b.nominated_until = Some(at("2026-01-01T12:00:20Z"));
    let proposal = Emptiness.propose(&snapshot(vec![a, b], &free()), now());
    assert!(proposal.commands.is_empty());
    assert_eq!(proposal.wake, Some(at("2026-01-01T12:00:20Z")));
}

#[rstest]
#[case::nothing(vec![], true)]
#[case::daemon(vec![pod(|p| p.owner = Owner::DaemonSet)], true)]
#[case::mirror(vec![pod(|p| p.owner = Owner::Node)], true)]
#[case::ended(vec![pod(|p| p.phase = Phase::Succeeded)], true)]
#[case::going(vec![pod(|p| p.deleted = Some(now()))], true)]
#[case::going_with_an_identity(
    vec![pod(|p| { p.deleted = Some(now()); p.owner = Owner::StatefulSet; })], false)]
#[case::running(vec![pod(|_| ())], false)]
#[case::pending(vec![pod(|p| p.phase = Phase::Pending)], false)]
#[case::worth_nothing(vec![pod(|p| {
    p.annotations.insert("controller.kubernetes.io/pod-deletion-cost".into(), "-2147483647".into());
})], true)]
fn some_pods_keep_a_node(#[case] pods: Vec<Arc<Pod>>, #[case] goes: bool) {
    let mut member = member("a", "small");
    member.pods = pods;
    let proposal = Emptiness.propose(&snapshot(vec![member], &free()), now());
    assert_eq!(
        !proposal.commands.is_empty(),
        goes,
        "{:?}",
        proposal.refusals
    );
}

#[test]
fn room_for_a_buffer_keeps_a_node_that_may_still_be_consolidated() {
    let mut member = member("a", "small");
    member.buffer_pods = 1;
    let held = snapshot(vec![member.clone()], &free());
    let proposal = Emptiness.propose(&held, now());
    assert!(proposal.commands.is_empty());
    let expected = Refusal::Unconsolidatable("Node \"node-a\" has buffer pods".into());
    assert_eq!(proposal.refusals, [("a".into(), expected)]);
    // Whether that saves anything is for a plan to tell: here there is nobody to plan for.
    let single = SingleNode::default().propose(&held, now());
    assert_eq!(single.eligible, 1);
    member.buffer_pods = 0;
    let empty = snapshot(vec![member], &free());
    assert_eq!(names(&Emptiness.propose(&empty, now())), [["a"]]);
    assert_eq!(SingleNode::default().propose(&empty, now()).eligible, 0);
}

#[test]
fn a_node_that_was_busy_a_moment_ago_stays() {
    let mut member = member("a", "small");
    let mut claim = (*member.claim).clone();
    claim
        .status
        .conditions
        .retain(|c| c.type_ != "Consolidatable");
    member.claim = Arc::new(claim);
    let proposal = Emptiness.propose(&snapshot(vec![member], &free()), now());
    assert!(proposal.commands.is_empty());
    assert_eq!(proposal.eligible, 0);
}

#[test]
fn a_pool_that_never_consolidates_says_so() {
    let members = vec![member("a", "small")];
    let disruption = json!({"consolidateAfter": "Never", "budgets": [{"nodes": "100%"}]});
    let proposal = Emptiness.propose(&snapshot(members, &disruption), now());
    let expected = Refusal::Unconsolidatable("NodePool \"p\" has consolidation disabled".into());
    assert_eq!(proposal.refusals, [("a".into(), expected)]);
}

#[test]
fn the_dearest_empty_nodes_go_first_all_in_one_command() {
    let members = vec![
        member("a", "small"),
        member("b", "large"),
        member("c", "unknown"),
    ];
    let proposal = Emptiness.propose(&snapshot(members, &free()), now());
    assert_eq!(names(&proposal), [["b", "a", "c"]]);
    assert!((proposal.commands[0].savings() - 0.5).abs() < 1e-9);
}

#[rstest]
#[case::a_number(json!([{"nodes": "3"}]), 3)]
#[case::percentages_round_up(json!([{"nodes": "21%"}]), 3)]
#[case::default_is_a_tenth(Value::Null, 1)]
#[case::the_strictest_holds(json!([{"nodes": "50%"}, {"nodes": "2"}]), 2)]
#[case::of_another_reason(json!([{"nodes": "0", "reasons": ["Drifted"]}, {"nodes": "4"}]), 4)]
#[case::of_this_reason(json!([{"nodes": "1", "reasons": ["Empty"]}, {"nodes": "4"}]), 1)]
#[case::nothing(json!([{"nodes": "0"}]), 0)]
fn budgets_limit_a_command(#[case] budgets: Value, #[case] expected: usize) {
    let members: Vec<Member> = (0..10).map(|i| member(&format!("m{i}"), "small")).collect();
    let mut disruption = json!({"consolidateAfter": "0s"});
    if !budgets.is_null() {
        disruption["budgets"] = budgets;
    }
    let snapshot = snapshot(members, &disruption);
    let proposal = Emptiness.propose(&snapshot, now());
    let chosen: usize = proposal.commands.iter().map(|c| c.candidates.len()).sum();
    assert_eq!(chosen, expected);
    assert_eq!(proposal.eligible, 10);
    assert_eq!(proposal.blocked_pools.is_empty(), expected > 0);
}

#[test]
fn nodes_that_are_down_or_going_use_the_budget_up() {
    let mut members: Vec<Member> = (0..10).map(|i| member(&format!("m{i}"), "small")).collect();
    members[0].leaving = true;
    edit(&mut members[1], |n| n.status = None);
    members[1].pods = vec![pod(|_| ())];
    let disruption = json!({"consolidateAfter": "0s", "budgets": [{"nodes": "3"}]});
    let proposal = Emptiness.propose(&snapshot(members, &disruption), now());
    assert_eq!(names(&proposal), [["m2"]]);
}

#[test]
fn a_window_that_opens_wakes_the_loop() {
    let disruption = json!({"consolidateAfter": "0s", "budgets": [
        {"nodes": "0", "schedule": "0 9 * * *", "duration": "8h"}
    ]});
    let members = vec![member("a", "small")];
    let closed = Emptiness.propose(&snapshot(members.clone(), &disruption), now());
    assert!(closed.commands.is_empty());
    assert_eq!(closed.wake, Some(at("2026-01-01T17:00:00Z")));
    let open = Emptiness.propose(&snapshot(members, &disruption), at("2026-01-01T17:00:00Z"));
    assert_eq!(names(&open), [["a"]]);
}

#[test]
fn a_command_is_revised_to_what_still_holds() {
    let members: Vec<Member> = ["a", "b", "c"].map(|n| member(n, "small")).into();
    let before = snapshot(members.clone(), &free());
    let command = Emptiness.propose(&before, now()).commands.remove(0);
    let mut after = members;
    after[0].pods = vec![pod(|_| ())];
    after[1].nominated_until = Some(at("2026-01-01T12:00:20Z"));
    after.push(member("d", "small"));
    let revised = Emptiness.revise(&command, &snapshot(after.clone(), &free()), now());
    let left: Vec<_> = revised
        .into_iter()
        .flat_map(|c| c.candidates)
        .map(|c| c.name)
        .collect();
    assert_eq!(left, ["c".into()], "and nobody who was not in it joins");
    after[2].leaving = true;
    let nothing = Emptiness.revise(&command, &snapshot(after, &free()), now());
    assert_eq!(nothing.unwrap_err(), Rejection::Churn);
    let shut = json!({"consolidateAfter": "0s", "budgets": [{"nodes": "0"}]});
    let members = ["a", "b", "c"].map(|n| member(n, "small")).into();
    let shut = Emptiness.revise(&command, &snapshot(members, &shut), now());
    assert_eq!(shut.unwrap_err(), Rejection::Budget);
}

/// Ten drifted nodes of a static pool that should have ten, the last ones the longest ago.
fn drifted(spec: &Value) -> Snapshot {
    let members = (0..10).map(|i| {
        let mut member = member(&format!("m{i}"), "small");
        let mut claim = (*member.claim).clone();
        let mut drifted = condition("Drifted");
        drifted["lastTransitionTime"] = format!("2026-01-01T09:0{}:00Z", 9 - i).into();
        let drifted = serde_json::from_value(drifted).expect("a condition");
        claim.status.conditions.push(drifted);
        member.claim = Arc::new(claim);
        member
    });
    let mut snapshot = snapshot(members.collect(), &free());
    let pool = snapshot.pools.get_mut("p").expect("a pool");
    let mut object = json!({"metadata": {"name": "p"},
        "spec": {"replicas": 10, "disruption": free()},
        "status": {"conditions": [condition("Ready")]}});
    for (key, value) in spec.as_object().expect("an object") {
        object["spec"][key] = value.clone();
    }
    pool.pool = Arc::new(serde_json::from_value(object).expect("a pool"));
    pool.count.active = 10;
    snapshot
}

#[rstest]
#[case::all_of_them(json!({}), |_: &mut PoolCount| (), 10)]
#[case::budget(json!({"disruption": {"consolidateAfter": "0s", "budgets": [{"nodes": "3"}]}}), |_: &mut PoolCount| (), 3)]
#[case::limit(json!({"limits": {"nodes": "12"}}), |_: &mut PoolCount| (), 2)]
#[case::what_goes_counts(json!({"limits": {"nodes": "12"}}), |c: &mut PoolCount| c.deleting = 1, 1)]
#[case::what_is_being_created_counts(json!({"limits": {"nodes": "12"}}), |c: &mut PoolCount| c.reserved = 1, 1)]
#[case::no_room(json!({"limits": {"nodes": "10"}}), |_: &mut PoolCount| (), 0)]
#[case::limit_that_cannot_be_read(json!({"limits": {"nodes": "many"}}), |_: &mut PoolCount| (), 0)]
#[case::one_too_many(json!({"replicas": 9}), |_: &mut PoolCount| (), 0)]
#[case::one_is_being_replaced(json!({}), |c: &mut PoolCount| c.pending_disruption = 1, 0)]
#[case::dynamic(json!({"replicas": null}), |_: &mut PoolCount| (), 0)]
fn static_drift_goes_as_far_as_it_may(
    #[case] spec: Value,
    #[case] count: impl Fn(&mut PoolCount),
    #[case] expected: usize,
) {
    let mut snapshot = drifted(&spec);
    count(&mut snapshot.pools.get_mut("p").expect("a pool").count);
    let proposal = StaticDrift.propose(&snapshot, now());
    let longest: Vec<String> = (0..10).rev().map(|i| format!("m{i}")).collect();
    let expected: Vec<Vec<&str>> = longest
        .iter()
        .take(expected)
        .map(|n| vec![n.as_str()])
        .collect();
    assert_eq!(
        names(&proposal),
        expected,
        "one command each, the longest drifted first"
    );
    for command in &proposal.commands {
        assert!(command.replacements.iter().all(|r| r.from_template));
        assert_eq!(command.replacements.len(), 1);
    }
}

#[test]
fn a_static_pool_without_room_for_a_replacement_says_so_when_at_rest() {
    let mut snapshot = drifted(&json!({"limits": {"nodes": "10"}}));
    let refusals = |s: &Snapshot| StaticDrift.propose(s, now()).refusals.len();
    assert_eq!(refusals(&snapshot), 10);
    let pool = snapshot.pools.get_mut("p").expect("a pool");
    (pool.count.active, pool.count.deleting) = (9, 1);
    assert_eq!(refusals(&snapshot), 0, "room is being made");
}

#[test]
fn a_static_pool_that_cannot_launch_replaces_nothing() {
    let mut snapshot = drifted(&json!({}));
    let pool = snapshot.pools.get_mut("p").expect("a pool");
    let mut object = (*pool.pool).clone();
    object.status.conditions.clear();
    pool.pool = Arc::new(object);
    assert!(StaticDrift.propose(&snapshot, now()).commands.is_empty());
}

/// A command that replaces one machine of the given price by a cheaper one; it has so long to live.
fn replacing(price: f64, cheaper: f64, life: Option<&str>) -> Command {
    let mut member = member("a", "small");
    let mut claim = (*member.claim).clone();
    claim.metadata.creation_timestamp = Some(Time(now()));
    claim.spec.expire_after = life.map(str::to_owned);
    member.claim = Arc::new(claim);
    let snapshot = snapshot(vec![member.clone()], &free());
    let mut candidate = examine(&member, &snapshot, Class::Graceful, now()).expect("a candidate");
    candidate.price = price;
    let planned = PlannedNode {
        pool: "p".into(),
        pods: Vec::new(),
        requirements: Requirements::new(),
        instance_types: vec!["large".into()],
        capacity_types: vec!["spot".into()],
        requests: ResourceList::new(),
        min_values_relaxed: false,
        cheapest: PricedOffering {
            instance_type: "large".into(),
            zone: "z".into(),
            capacity_type: "spot".into(),
            price: cheaper,
        },
        runner_up: None,
        funnel: Vec::new(),
    };
    Command {
        reason: Reason::Underutilized,
        consolidation_type: "single",
        candidates: vec![candidate],
        replacements: vec![Replacement {
            planned,
            pool: Arc::default(),
            from_template: false,
        }],
    }
}

#[rstest]
#[case::half_the_price(1.0, 0.5, None, true)]
#[case::a_cent_in_the_dollar(1.0, 0.99, None, true)]
#[case::a_tenth_of_a_cent(1.0, 0.999, None, false)]
#[case::half_the_price_for_a_day(1.0, 0.5, Some("720h"), true)]
#[case::half_the_price_for_a_quarter_of_an_hour(1.0, 0.5, Some("15m"), true)]
#[case::half_the_price_for_ten_minutes(1.0, 0.5, Some("10m"), false)]
#[case::a_tenth_for_half_an_hour(1.0, 0.9, Some("30m"), false)]
#[case::nobody_knows_the_price(0.0, 0.0, None, true)]
fn a_move_has_to_pay_for_itself(
    #[case] price: f64,
    #[case] cheaper: f64,
    #[case] life: Option<&str>,
    #[case] pays: bool,
) {
    let command = replacing(price, cheaper, life);
    let verdict = super::worth::check(&command, now());
    assert_eq!(verdict.is_ok(), pays, "{verdict:?}");
}
