//! Taints and tolerations by example (`scheduling.md` §2).

use karpenter_model::taints::{
    Toleration, first_untolerated, is_ephemeral, same, taint, text, tolerates,
};
use rstest::rstest;

fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
    let some = |t: &str| (!t.is_empty()).then(|| t.to_owned());
    Toleration {
        key: some(key),
        operator: some(operator),
        value: some(value),
        effect: some(effect),
        toleration_seconds: None,
    }
}

#[rstest]
#[case(("team", "", "a", ""), true)]
#[case(("team", "Equal", "a", "NoSchedule"), true)]
#[case(("team", "Equal", "b", ""), false)]
#[case(("team", "Equal", "a", "NoExecute"), false)]
#[case(("team", "Exists", "", ""), true)]
#[case(("other", "Exists", "", ""), false)]
#[case(("", "Exists", "", ""), true)]
#[case(("", "Exists", "", "NoExecute"), false)]
#[case(("team", "Near", "a", ""), false)]
fn tolerates_text(#[case] t: (&str, &str, &str, &str), #[case] expected: bool) {
    let there = taint("team", "a", "NoSchedule");
    assert_eq!(tolerates(&toleration(t.0, t.1, t.2, t.3), &there), expected);
}

#[rstest]
#[case("950", "Gt", "900", true)]
#[case("900", "Gt", "900", false)]
#[case("850", "Lt", "900", true)]
#[case("900", "Lt", "900", false)]
#[case("many", "Gt", "900", false)]
#[case("950", "Gt", "few", false)]
#[case("", "Lt", "900", false)]
fn tolerates_numbers(
    #[case] there: &str,
    #[case] op: &str,
    #[case] bound: &str,
    #[case] expected: bool,
) {
    let there = taint("sla", there, "NoSchedule");
    assert_eq!(
        tolerates(&toleration("sla", op, bound, ""), &there),
        expected
    );
}

#[test]
fn every_taint_must_be_tolerated_preferred_ones_too() {
    let taints = [
        taint("a", "", "NoSchedule"),
        taint("b", "", "PreferNoSchedule"),
    ];
    let a = toleration("a", "Exists", "", "");
    let left = first_untolerated(&taints, std::slice::from_ref(&a)).unwrap();
    assert_eq!(text(left), "b:PreferNoSchedule");
    let both = [a, toleration("b", "Exists", "", "")];
    assert!(first_untolerated(&taints, &both).is_none());
}

#[rstest]
#[case("node.kubernetes.io/not-ready", "NoSchedule", true)]
#[case("node.kubernetes.io/not-ready", "NoExecute", true)]
#[case("node.kubernetes.io/unreachable", "NoSchedule", true)]
#[case("node.kubernetes.io/unreachable", "NoExecute", false)]
#[case("node.cloudprovider.kubernetes.io/uninitialized", "NoSchedule", true)]
#[case("karpenter.sh/unregistered", "NoExecute", true)]
#[case("karpenter.sh/disrupted", "NoSchedule", false)]
#[case("readiness.k8s.io/network", "PreferNoSchedule", true)]
fn ephemeral(#[case] key: &str, #[case] effect: &str, #[case] expected: bool) {
    assert_eq!(is_ephemeral(&taint(key, "", effect)), expected);
}

#[test]
fn a_taint_is_known_by_key_and_effect() {
    assert!(same(
        &taint("a", "1", "NoSchedule"),
        &taint("a", "2", "NoSchedule")
    ));
    assert!(!same(
        &taint("a", "1", "NoSchedule"),
        &taint("a", "1", "NoExecute")
    ));
}
