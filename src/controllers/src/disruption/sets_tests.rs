//! Several nodes that are replaced by several others: what is found, what rules it keeps, and what it leaves alone.

use std::sync::Arc;

use karpenter_model::{InstanceType, ResourceList};
use rstest::rstest;
use serde_json::{Value, json};

use super::decision_tests::moves;
use super::kit::{Kit, now, sold};
use super::method::{Method, Rejection};
use super::multi::MultiNode;

/// A type of so many cores and GiB in zone a.
fn shape(name: &str, cores: u32, gib: u32, kind: &str, price: f64) -> Arc<InstanceType> {
    let amounts = json!({"cpu": cores.to_string(), "memory": format!("{gib}Gi"), "pods": "110"});
    let amounts = serde_json::from_value(amounts).expect("amounts");
    let one = sold(name, cores, &[("a", kind, price)]);
    Arc::new(InstanceType::new(
        name,
        one.requirements.clone(),
        one.offerings.to_vec(),
        ResourceList::from_raw(&amounts).expect("resources"),
        Default::default(),
    ))
}

fn memory(gib: u32) -> Value {
    json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"memory": format!("{gib}Gi")}}}]}})
}

/// Two all-purpose machines, each with a pod that needs cores and one that needs memory; none of them fits on less alone,
/// and one for all costs as much.
fn mixed(kind: &str, cores_price: f64) -> Kit {
    let mut kit = Kit::new(vec![
        shape("g8", 8, 32, kind, 0.40),
        shape("g16", 16, 64, kind, 0.80),
        shape("c16", 16, 16, kind, cores_price),
        shape("r4", 4, 64, kind, 0.26),
    ]);
    kit.settings.feature_gates.spot_to_spot_consolidation = true;
    kit.pool(
        "p",
        &json!({"spec": {"template": {"spec": {"requirements":
            [{"key": "karpenter.sh/capacity-type", "operator": "In", "values": [kind]}]}}}}),
    );
    for name in ["n1", "n2"] {
        kit.node(name, "g8", kind, &json!({"status": big_memory()}));
        kit.pod(&format!("cores-{name}"), name, "6", &json!({}));
        let mut lots = memory(26);
        lots["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "1".into();
        kit.pod(&format!("memory-{name}"), name, "1", &lots);
    }
    kit
}

fn big_memory() -> Value {
    let amounts = json!({"cpu": "8", "memory": "32Gi", "pods": "110"});
    json!({"capacity": amounts, "allocatable": amounts})
}

#[test]
fn two_machines_become_two_others_where_one_will_not_do() {
    let kit = mixed("on-demand", 0.30);
    assert_eq!(moves(&kit.single()), Vec::<String>::new());
    let found = kit.multi();
    assert_eq!(
        moves(&found),
        ["n1,n2 -> [r4 on-demand, c16 on-demand]"],
        "{:?}",
        found.refusals
    );
    let saved = found.commands[0].savings();
    assert!((saved - 0.24).abs() < 1e-9, "{saved}");
    assert_eq!(found.found.len(), 2, "both are told that they could go");
}

#[rstest]
// The sum is what counts: 0.26 is saved on one, but the other costs as much more.
#[case::as_dear(0.54)]
// Two cents a day would not pay for the ten minutes in which both run.
#[case::for_cents(0.539)]
fn what_does_not_pay_stays(#[case] cores_price: f64) {
    let kit = mixed("on-demand", cores_price);
    assert_eq!(moves(&kit.multi()), Vec::<String>::new());
}

#[test]
fn spot_machines_become_others_only_where_there_is_choice() {
    // As many machines as before: the rule of single ones holds for each.
    let narrow = mixed("spot", 0.30);
    assert_eq!(moves(&narrow.multi()), Vec::<String>::new());
    let mut wide = mixed("spot", 0.30);
    for n in 0..15 {
        let price = 0.30 + 0.001 * f64::from(n);
        wide.types
            .push(shape(&format!("c{n}x16"), 16, 16, "spot", price));
        wide.types
            .push(shape(&format!("r{n}x4"), 4, 64, "spot", price - 0.04));
    }
    let found = wide.multi();
    let counts: Vec<usize> = found.commands[0]
        .replacements
        .iter()
        .map(|r| r.planned.instance_types.len())
        .collect();
    assert_eq!(counts, [15, 15], "each launch among the fifteen cheapest");
    wide.settings.feature_gates.spot_to_spot_consolidation = false;
    assert_eq!(moves(&wide.multi()), Vec::<String>::new());
}

#[test]
fn budgets_and_protected_pods_hold_sets_back() {
    let kit = mixed("on-demand", 0.30);
    kit.pool(
        "p",
        &json!({"spec": {"disruption": {"budgets": [{"nodes": "1"}]}}}),
    );
    assert_eq!(moves(&kit.multi()), Vec::<String>::new());
    let kit = mixed("on-demand", 0.30);
    let guard = json!({"metadata": {"annotations": {"karpenter.sh/do-not-disrupt": "true"}}});
    kit.pod("guarded", "n1", "10m", &guard);
    assert_eq!(moves(&kit.multi()), Vec::<String>::new());
}

#[test]
fn a_pool_at_its_limit_buys_nothing_beside_what_runs() {
    let kit = mixed("on-demand", 0.30);
    kit.pool("p", &json!({"spec": {"limits": {"cpu": "20"}}}));
    assert_eq!(moves(&kit.multi()), Vec::<String>::new());
    kit.pool("p", &json!({"spec": {"limits": {"cpu": "36"}}}));
    assert_eq!(moves(&kit.multi()).len(), 1);
}

#[test]
fn a_machine_whose_replacement_is_waited_for_counts_towards_limits() {
    let kit = mixed("on-demand", 0.30);
    kit.node("n3", "g8", "on-demand", &json!({}));
    kit.state.mark_for_deletion("n3");
    kit.pool("p", &json!({"spec": {"limits": {"cpu": "43"}}}));
    assert_eq!(moves(&kit.multi()), Vec::<String>::new());
    kit.pool("p", &json!({"spec": {"limits": {"cpu": "44"}}}));
    assert_eq!(moves(&kit.multi()).len(), 1);
}

#[test]
fn a_machine_that_would_be_bought_again_is_left_out() {
    // A third machine is just what its pods need: the other two go without it.
    let kit = mixed("on-demand", 0.30);
    kit.node(
        "n3",
        "r4",
        "on-demand",
        &json!({"status": {
        "capacity": {"cpu": "4", "memory": "64Gi", "pods": "110"},
        "allocatable": {"cpu": "4", "memory": "64Gi", "pods": "110"}}}),
    );
    kit.pod("large", "n3", "1", &memory(60));
    assert_eq!(
        moves(&kit.multi()),
        ["n1,n2 -> [r4 on-demand, c16 on-demand]"]
    );
}

#[rstest]
// 3+3 and 2+2+2 fill two machines of six; kube-scheduler spreads them, and a 3 is left over.
#[case::tight(6, 0)]
#[case::loose(7, 1)]
fn pods_have_room_wherever_the_scheduler_puts_them(#[case] cores: u32, #[case] commands: usize) {
    let kit = Kit::new(vec![
        sold("m8", 8, &[("a", "on-demand", 0.8)]),
        sold("smaller", cores, &[("a", "on-demand", 0.5)]),
    ]);
    for (name, each, pods) in [("n1", "3", 2), ("n2", "2", 3)] {
        kit.node(name, "m8", "on-demand", &json!({}));
        for n in 0..pods {
            kit.pod(&format!("{name}-{n}"), name, each, &json!({}));
        }
    }
    let found = kit.multi().commands;
    assert_eq!(found.len(), commands);
    assert!(found.iter().all(|c| c.replacements.len() == 2), "{found:?}");
}

#[test]
fn a_set_is_looked_at_again_before_anything_is_bought() {
    let kit = mixed("on-demand", 0.30);
    let found = kit.multi().commands.remove(0);
    let method = MultiNode::default();
    let again = method.revise(&found, &kit.snapshot(), now());
    assert_eq!(again.map(|c| c.replacements.len()), Ok(2));
    // A pod that came in between has room on neither.
    kit.pod("late", "n1", "1", &memory(17));
    let later = method.revise(&found, &kit.snapshot(), now());
    assert_eq!(
        later.map(|c| c.replacements.len()),
        Err(Rejection::Scheduling)
    );
}

#[test]
fn whoever_is_steady_stays() {
    // After the move: the same pods on what was bought.
    let kit = mixed("on-demand", 0.30);
    let small = Kit::new(kit.types.clone());
    let of = |cores: u32, gib: u32| {
        let amounts =
            json!({"cpu": cores.to_string(), "memory": format!("{gib}Gi"), "pods": "110"});
        json!({"status": {"capacity": amounts, "allocatable": amounts}})
    };
    small.node("c", "c16", "on-demand", &of(16, 16));
    small.node("r", "r4", "on-demand", &of(4, 64));
    for n in 0..2 {
        small.pod(&format!("cores-{n}"), "c", "6", &json!({}));
        small.pod(&format!("memory-{n}"), "r", "1", &memory(26));
    }
    assert_eq!(moves(&small.multi()), Vec::<String>::new());
    assert_eq!(moves(&small.single()), Vec::<String>::new());
}

#[test]
fn the_tail_of_a_large_cluster_is_reached() {
    let kit = mixed("on-demand", 0.30);
    let amounts = json!({"cpu": "16", "memory": "64Gi", "pods": "110"});
    let status = json!({"status": {"capacity": amounts, "allocatable": amounts}});
    let full = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "15", "memory": "60Gi"}}}]}});
    for n in 0..120 {
        // They come before the two in the order of what is saved.
        let name = format!("full-{n:03}");
        kit.node(&name, "g16", "on-demand", &status);
        kit.pod(&format!("pod-{name}"), &name, "15", &full);
    }
    let (method, snapshot) = (MultiNode::default(), kit.snapshot());
    let first = method.propose(&snapshot, now());
    assert_eq!(moves(&first), Vec::<String>::new());
    assert_eq!(first.wake, Some(now()), "the rest is looked at at once");
    let second = method.propose(&snapshot, now());
    assert_eq!(moves(&second), ["n1,n2 -> [r4 on-demand, c16 on-demand]"]);
}

#[test]
fn a_cluster_that_has_nothing_is_looked_at_once() {
    let kit = mixed("on-demand", 0.60);
    let (method, snapshot) = (MultiNode::default(), kit.snapshot());
    assert_eq!(
        moves(&method.propose(&snapshot, now())),
        Vec::<String>::new()
    );
    assert_eq!(method.propose(&snapshot, now()).wake, None);
}
