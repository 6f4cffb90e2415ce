//! What consolidation makes of whole clusters: which machines go, what is bought in their place, and why others stay.

use std::sync::Arc;

use karpenter_model::{InstanceType, LabelRegistry};
use karpenter_solver::Wares;
use rstest::rstest;
use serde_json::{Value, json};

use super::candidate::Refusal;
use super::drift::Drift;
use super::kit::{KIND, Kit, amounts, condition, merge, now, sold};
use super::method::{Method, Proposal};
use super::multi::MultiNode;
use super::single::SingleNode;
use super::snapshot::{Facts, Snapshot, assemble};
use super::under_way::Busy;

/// A pool that buys one capacity type.
fn only(capacity_type: &str) -> Value {
    json!({"spec": {"template": {"spec": {"requirements":
        [{"key": "karpenter.sh/capacity-type", "operator": "In", "values": [capacity_type]}]}}}})
}

/// Types of 2, 4, 8 and 16 cores, each twice the price of the one before, on demand and as spot at half of it.
fn usual() -> Vec<Arc<InstanceType>> {
    [2_u32, 4, 8, 16]
        .map(|cores| {
            let price = 0.1 * f64::from(cores);
            let name = format!("m{cores}");
            sold(
                &name,
                cores,
                &[
                    ("a", "on-demand", price),
                    ("b", "on-demand", price),
                    ("a", "spot", price / 2.0),
                    ("b", "spot", price / 2.0),
                ],
            )
        })
        .into()
}

impl Kit {
    /// A machine of pool `p`; `more` is merged into its Node.
    pub(super) fn node(&self, name: &str, instance_type: &str, capacity_type: &str, more: &Value) {
        self.machine(name, instance_type, capacity_type, more, &json!({}));
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let labels = Arc::new(LabelRegistry::default());
        let facts = Facts {
            state: &self.state,
            labels: &labels,
            node_class: &KIND,
            settings: &self.settings,
            wares: &Wares::default(),
        };
        assemble(facts, &self.sold(), None, &Busy::default(), now())
    }

    pub(super) fn single(&self) -> Proposal {
        SingleNode::default().propose(&self.snapshot(), now())
    }
    pub(super) fn multi(&self) -> Proposal {
        MultiNode::default().propose(&self.snapshot(), now())
    }
}

/// What is proposed: who goes, and the types (cheapest first) and capacity types of what comes.
pub(super) fn moves(proposal: &Proposal) -> Vec<String> {
    let words = |c: &super::method::Command| {
        let who: Vec<&str> = c.candidates.iter().map(|c| &*c.name).collect();
        let what: Vec<String> = c
            .replacements
            .iter()
            .map(|r| {
                format!(
                    "{} {}",
                    r.planned.instance_types.join("/"),
                    r.planned.capacity_types.join("/")
                )
            })
            .collect();
        format!("{} -> [{}]", who.join(","), what.join(", "))
    };
    proposal.commands.iter().map(words).collect()
}

/// Why `node` stays.
fn why(proposal: &Proposal, node: &str) -> String {
    let found = proposal.refusals.iter().find(|(name, _)| &**name == node);
    match found {
        Some((_, Refusal::Unconsolidatable(text) | Refusal::Blocked { message: text, .. })) => {
            text.clone()
        }
        other => format!("{other:?}"),
    }
}

#[rstest]
#[case::on_demand("on-demand", &["on-demand"], "n -> [m2/m4 on-demand]")]
// A launch that finds no spot capacity must not end in something dearer.
#[case::to_spot("on-demand", &["on-demand", "spot"], "n -> [m2/m4/m8 spot]")]
fn a_machine_that_is_too_big_is_replaced(
    #[case] capacity_type: &str,
    #[case] admitted: &[&str],
    #[case] expected: &str,
) {
    let kit = Kit::new(usual());
    let requirement =
        json!([{"key": "karpenter.sh/capacity-type", "operator": "In", "values": admitted}]);
    kit.pool(
        "p",
        &json!({"spec": {"template": {"spec": {"requirements": requirement}}}}),
    );
    kit.node("n", "m8", capacity_type, &json!({}));
    kit.pod("web", "n", "1", &json!({}));
    assert_eq!(moves(&kit.single()), [expected]);
}

#[test]
fn pods_may_go_to_capacity_that_is_not_ours() {
    let kit = Kit::new(usual());
    kit.node("n", "m2", "on-demand", &json!({}));
    kit.pod("web", "n", "1", &json!({}));
    assert_eq!(moves(&kit.single()), Vec::<String>::new());
    let foreign = json!({"metadata": {"name": "own", "labels": {"kubernetes.io/hostname": "own"}},
        "status": {"capacity": amounts(4), "allocatable": amounts(4), "conditions": [{"type": "Ready", "status": "True"}]}});
    kit.state
        .apply_node(serde_json::from_value(foreign).expect("a node"));
    assert_eq!(moves(&kit.single()), ["n -> []"]);
}

#[test]
fn two_machines_are_not_replaced_by_one_of_their_own() {
    // What two pods of two m4 need is one m4: the one that is there, not a third.
    let kit = Kit::new(usual());
    for name in ["n1", "n2"] {
        kit.node(name, "m4", "on-demand", &json!({}));
        kit.pod(&format!("web-{name}"), name, "1500m", &json!({}));
    }
    let found = moves(&kit.multi());
    assert!(found.iter().all(|m| !m.contains("m4")), "{found:?}");
    assert_eq!(moves(&kit.single()), ["n1 -> []"]);
}

#[test]
fn a_spot_and_an_on_demand_machine_become_one() {
    let kit = Kit::new(usual());
    for (name, kind) in [("n1", "spot"), ("n2", "on-demand")] {
        kit.node(name, "m8", kind, &json!({}));
        kit.pod(&format!("web-{name}"), name, "1", &json!({}));
    }
    assert_eq!(moves(&kit.multi()), ["n2,n1 -> [m2 on-demand]"]);
}

/// A spot machine, and so many cheaper spot types.
fn spot(cheaper: u32) -> Kit {
    let mut types = vec![sold("x16", 16, &[("a", "spot", 1.0)])];
    types.extend((0..cheaper).map(|n| {
        let price = 0.2 + 0.01 * f64::from(n);
        sold(&format!("s{n:02}x4"), 4, &[("a", "spot", price)])
    }));
    let mut kit = Kit::new(types);
    kit.settings.feature_gates.spot_to_spot_consolidation = true;
    kit.pool("p", &only("spot"));
    kit.node("n", "x16", "spot", &json!({}));
    kit.pod("web", "n", "1", &json!({}));
    kit
}

#[test]
fn a_spot_machine_is_replaced_where_there_is_choice() {
    let mut closed = spot(20);
    closed.settings.feature_gates.spot_to_spot_consolidation = false;
    assert!(why(&closed.single(), "n").contains("SpotToSpotConsolidation is disabled"));
    let narrow = spot(14).single();
    assert!(
        why(&narrow, "n").contains("requires 15 cheaper instance type options"),
        "{}",
        why(&narrow, "n")
    );
    let wide = spot(20).single();
    let types = &wide.commands[0].replacements[0].planned.instance_types;
    assert_eq!(
        types.len(),
        15,
        "the launch is among the fifteen cheapest: {types:?}"
    );
    assert_eq!(&*types[0], "s00x4");
    // Variety that is asked for widens it.
    let varied = spot(20);
    let wish =
        json!([{"key": "node.kubernetes.io/instance-type", "operator": "Exists", "minValues": 18}]);
    varied.pool(
        "p",
        &json!({"spec": {"template": {"spec": {"requirements": wish}}}}),
    );
    let found = varied.single();
    assert_eq!(
        found.commands[0].replacements[0]
            .planned
            .instance_types
            .len(),
        18
    );
    let too_varied = spot(16);
    let wish =
        json!([{"key": "node.kubernetes.io/instance-type", "operator": "Exists", "minValues": 17}]);
    too_varied.pool(
        "p",
        &json!({"spec": {"template": {"spec": {"requirements": wish}}}}),
    );
    assert!(
        why(&too_varied.single(), "n").contains("minValues asks for 17"),
        "{}",
        why(&too_varied.single(), "n")
    );
}

#[test]
fn what_may_turn_out_dearer_is_not_bought() {
    // In zone a it is cheaper, in zone b it is not: nobody knows where the launch ends.
    let types = |b: f64| {
        vec![
            sold("big8", 8, &[("a", "on-demand", 1.0)]),
            sold("odd4", 4, &[("a", "on-demand", 0.5), ("b", "on-demand", b)]),
        ]
    };
    for (b, goes) in [(1.0, false), (0.9, true)] {
        let kit = Kit::new(types(b));
        kit.node("n", "big8", "on-demand", &json!({}));
        kit.pod("web", "n", "1", &json!({}));
        assert_eq!(
            !kit.single().commands.is_empty(),
            goes,
            "at ${b} in the other zone"
        );
    }
}

#[test]
fn a_node_whose_pods_changed_a_moment_ago_still_takes_pods() {
    let kit = Kit::new(usual());
    kit.node("n", "m2", "on-demand", &json!({}));
    kit.pod("web", "n", "1", &json!({}));
    let settled = ["Launched", "Registered", "Initialized", "Ready"].map(condition);
    let busy =
        json!({"status": {"lastPodEventTime": "2026-01-01T23:59:59Z", "conditions": settled}});
    kit.machine("busy", "m8", "on-demand", &json!({}), &busy);
    kit.pool(
        "p",
        &json!({"spec": {"disruption": {"consolidateAfter": "1h"}}}),
    );
    kit.pod("other", "busy", "5", &json!({}));
    assert_eq!(moves(&kit.single()), ["n -> []"]);
}

#[test]
fn a_busy_machine_is_not_drained_onto_one_that_goes_anyway() {
    let types = [("m8", 8, 0.8), ("m4", 4, 0.4)];
    let types = types.map(|(name, cores, price)| sold(name, cores, &[("a", "on-demand", price)]));
    let waits = ["Launched", "Registered", "Initialized", "Ready"].map(condition);
    let waits = json!({"status": {"conditions": waits}});
    let chosen = |cpu: &str, idle: &str, claim: &Value| {
        let kit = Kit::new(types.to_vec());
        kit.node("busy", "m8", "on-demand", &json!({}));
        kit.pod("web", "busy", cpu, &json!({}));
        kit.machine("idle", idle, "on-demand", &json!({}), claim);
        moves(&kit.single())
    };
    // Of its own size: the empty one goes by itself in a moment, and nobody moves.
    assert_eq!(chosen("6", "m8", &waits), Vec::<String>::new());
    // A smaller one is what would be bought.
    assert_eq!(chosen("3", "m4", &waits), ["busy -> []"]);
    // One that stays empty, whatever keeps it, is room that costs nothing.
    assert_eq!(chosen("6", "m8", &json!({})), ["busy -> []"]);
}

#[test]
fn pods_do_not_go_where_nothing_runs_yet() {
    let kit = Kit::new(usual());
    kit.node("n", "m4", "on-demand", &json!({}));
    kit.pod("web", "n", "3", &json!({}));
    let starting = json!({"metadata": {"labels": {"karpenter.sh/initialized": null}}});
    let conditions = ["Launched", "Registered"].map(condition);
    let conditions = json!({"status": {"conditions": conditions}});
    kit.machine("new", "m8", "on-demand", &starting, &conditions);
    let blocked = kit.single();
    assert!(
        why(&blocked, "n").contains("would schedule against uninitialized nodeclaim/new"),
        "{}",
        why(&blocked, "n")
    );
    // An initialized one comes first, though its name comes last.
    kit.node("old", "m8", "on-demand", &json!({}));
    kit.pod("other", "old", "4", &json!({}));
    assert_eq!(moves(&kit.single()), ["n -> []"]);
}

#[test]
fn a_pod_that_waits_for_ever_blocks_nobody() {
    let kit = Kit::new(usual());
    kit.node("n", "m2", "on-demand", &json!({}));
    kit.pod("web", "n", "1", &json!({}));
    kit.node("other", "m8", "on-demand", &json!({}));
    kit.pod("more", "other", "5", &json!({}));
    kit.pod("huge", "", "500", &json!({}));
    assert_eq!(moves(&kit.single()), ["n -> []"]);
    // One that runs and could run nowhere else keeps its machine.
    let pinned = json!({"spec": {"nodeSelector": {"kubernetes.io/hostname": "n"}}});
    kit.pod("pinned", "n", "100m", &pinned);
    let held = kit.single();
    assert!(
        why(&held, "n").contains("default/pinned"),
        "{}",
        why(&held, "n")
    );
}

#[test]
fn rules_between_pods_hold_after_a_move() {
    let kit = Kit::new(usual());
    let apart = json!({"spec": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        [{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}]}}}});
    for name in ["n1", "n2"] {
        kit.node(name, "m2", "on-demand", &json!({}));
        kit.pod(&format!("web-{name}"), name, "100m", &apart);
    }
    assert_eq!(
        moves(&kit.single()),
        Vec::<String>::new(),
        "two pods that may not meet need two hosts"
    );
    let wish = json!({"spec": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": null,
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm":
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}}]}}}});
    for name in ["n1", "n2"] {
        let mut softened = apart.clone();
        merge(&mut softened, &wish);
        kit.pod(&format!("web-{name}"), name, "100m", &softened);
    }
    let found = moves(&kit.single());
    assert_eq!(
        found,
        ["n1 -> []"],
        "a wish over hostnames is left to the scheduler"
    );
}

#[test]
fn budgets_of_other_namespaces_and_of_unready_pods_do_not_count() {
    let budget = |namespace: &str, policy: Value| {
        json!({"metadata": {"name": "b", "namespace": namespace},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "maxUnavailable": 0, "unhealthyPodEvictionPolicy": policy},
            "status": {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 1, "expectedPods": 1}})
    };
    let apply = |kit: &Kit, value| {
        let budget = serde_json::from_value(value).expect("a budget");
        kit.state.apply_budget(budget);
    };
    let kit = || {
        let kit = Kit::new(usual());
        kit.node("n", "m2", "on-demand", &json!({}));
        kit.node("other", "m8", "on-demand", &json!({}));
        kit.pod(
            "more",
            "other",
            "5",
            &json!({"metadata": {"labels": {"app": "more"}}}),
        );
        kit
    };
    let elsewhere = kit();
    elsewhere.pod("web", "n", "1", &json!({}));
    apply(&elsewhere, budget("elsewhere", Value::Null));
    assert_eq!(moves(&elsewhere.single()), ["n -> []"]);
    apply(&elsewhere, budget("default", Value::Null));
    assert!(why(&elsewhere.single(), "n").contains("default/b"));
    let unready = kit();
    unready.pod(
        "web",
        "n",
        "1",
        &json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}),
    );
    apply(&unready, budget("default", "AlwaysAllow".into()));
    assert_eq!(moves(&unready.single()), ["n -> []"]);
}

#[test]
fn who_saves_most_for_least_goes_first_and_everybody_has_a_turn() {
    let kit = Kit::new(usual());
    // All of them could go; n1 is the smallest, n3 the largest with as many pods.
    for (name, of) in [("n1", "m4"), ("n2", "m8"), ("n3", "m16")] {
        kit.node(name, of, "on-demand", &json!({}));
        kit.pod(&format!("web-{name}"), name, "100m", &json!({}));
    }
    let first = moves(&kit.single());
    assert!(first[0].starts_with("n3"), "{first:?}");
}

#[test]
fn a_balanced_pool_weighs_what_is_saved_against_who_is_moved() {
    let kit = |pods: usize| {
        let kit = Kit::new(usual());
        kit.pool(
            "p",
            &json!({"spec": {"disruption": {"consolidationPolicy": "Balanced"}}}),
        );
        // The one that might go: m16, which m8 can replace; the others are full.
        kit.node("n", "m16", "on-demand", &json!({}));
        for i in 0..pods {
            kit.pod(&format!("n-{i}"), "n", "250m", &json!({}));
        }
        let guard = json!({"metadata": {"annotations": {"karpenter.sh/do-not-disrupt": "true"}}});
        for name in ["f1", "f2", "f3"] {
            kit.node(name, "m16", "on-demand", &json!({}));
            for i in 0..4 {
                kit.pod(&format!("{name}-{i}"), name, "3900m", &guard);
            }
        }
        kit
    };
    let few = kit(3);
    assert!(
        moves(&few.single())[0].starts_with("n -> ["),
        "an oversized machine goes"
    );
    let many = kit(30).single();
    assert_eq!(
        moves(&many),
        Vec::<String>::new(),
        "thirty pods are not moved for an eighth of the cost"
    );
    assert!(
        many.judged.iter().any(|v| !v.approved),
        "and the verdict is told"
    );
    // The same in a pool that asks for nothing but savings.
    let plain = kit(30);
    plain.pool(
        "p",
        &json!({"spec": {"disruption": {"consolidationPolicy": "WhenEmptyOrUnderutilized"}}}),
    );
    assert!(moves(&plain.single())[0].starts_with("n -> [m8"));
}

/// What a claim says of itself that has drifted.
fn drifted(since: &str) -> Value {
    let mut all = ["Launched", "Registered", "Initialized", "Ready"]
        .map(condition)
        .to_vec();
    let mut drifted = condition("Drifted");
    drifted["lastTransitionTime"] = since.into();
    all.push(drifted);
    json!({"status": {"conditions": all}})
}

#[test]
fn several_drifted_machines_are_replaced_at_a_time_in_a_pool_at_its_limit() {
    let kit = Kit::new(vec![sold("m4", 4, &[("a", "on-demand", 0.4)])]);
    kit.pool("p", &json!({"spec": {"limits": {"cpu": "8"}}}));
    for name in ["n1", "n2"] {
        let since = drifted("2026-01-01T03:00:00Z");
        kit.machine(name, "m4", "on-demand", &json!({}), &since);
        kit.pod(&format!("web-{name}"), name, "3", &json!({}));
    }
    let chosen = |kit: &Kit| moves(&Drift.propose(&kit.snapshot(), now()));
    assert_eq!(chosen(&kit), ["n1 -> [m4 on-demand]"]);
    // Its replacement is there, and is waited for.
    kit.state.mark_for_deletion("n1");
    kit.node("next", "m4", "on-demand", &json!({}));
    assert_eq!(chosen(&kit), ["n2 -> [m4 on-demand]"]);
}

#[test]
fn drift_takes_who_is_idle_first_and_then_who_waits_longest() {
    let kit = Kit::new(usual());
    for (name, since) in [
        ("n1", "2026-01-01T03:00:00Z"),
        ("n2", "2026-01-01T02:00:00Z"),
        ("idle", "2026-01-01T04:00:00Z"),
    ] {
        kit.machine(name, "m4", "on-demand", &json!({}), &drifted(since));
    }
    for name in ["n1", "n2"] {
        kit.pod(&format!("web-{name}"), name, "3", &json!({}));
    }
    let chosen = |kit: &Kit| moves(&Drift.propose(&kit.snapshot(), now()));
    assert_eq!(chosen(&kit), ["idle -> []"]);
    kit.pod("busy", "idle", "3", &json!({}));
    let next = chosen(&kit);
    assert!(next[0].starts_with("n2 -> ["), "{next:?}");
    // The first one cannot be moved: the next is tried.
    kit.pod(
        "pinned",
        "n2",
        "100m",
        &json!({"spec": {"nodeSelector": {"kubernetes.io/hostname": "n2"}}}),
    );
    let tried = Drift.propose(&kit.snapshot(), now());
    assert!(
        moves(&tried)[0].starts_with("n1 -> ["),
        "{:?}",
        moves(&tried)
    );
    assert!(why(&tried, "n2").contains("default/pinned"));
    // What one machine held may take several, if that is what is sold.
    let mut small = Kit::new(vec![sold("m4", 4, &[("a", "on-demand", 0.4)])]);
    small.types.push(sold("old16", 16, &[]));
    small.machine(
        "n",
        "old16",
        "on-demand",
        &json!({}),
        &drifted("2026-01-01T03:00:00Z"),
    );
    for i in 0..4 {
        small.pod(&format!("web-{i}"), "n", "3", &json!({}));
    }
    let several = Drift.propose(&small.snapshot(), now());
    assert_eq!(several.commands[0].replacements.len(), 4);
}
