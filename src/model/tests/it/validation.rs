//! NodePools judged by `karpenter-api`'s validation with the label rules of the registry.

use karpenter_api::NodePool;
use karpenter_api::validation;
use karpenter_model::LabelRegistry;
use rstest::rstest;
use serde_json::{Value, json};

fn of(template: Value) -> Vec<String> {
    let pool: NodePool =
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"template": template}}))
            .unwrap();
    let found = validation::node_pool(&pool, &LabelRegistry::default());
    found.problems.iter().map(ToString::to_string).collect()
}

fn requirement(key: &str, operator: &str, values: &[&str], min: Option<i64>) -> Value {
    json!({"spec": {"requirements": [{"key": key, "operator": operator, "values": values, "minValues": min}]}})
}

#[rstest]
#[case::nothing(json!({}))]
#[case::label(json!({"metadata": {"labels": {"team.example.com/name": "a-b_c.d", "empty": ""}}}))]
#[case::taints(json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoExecute"}]}}))]
#[case::capacity_type(requirement("karpenter.sh/capacity-type", "In", &["spot"], None))]
#[case::unknown_beside_known(requirement("karpenter.sh/capacity-type", "In", &["spot", "cheap"], None))]
#[case::not_in_is_not_checked(requirement("karpenter.sh/capacity-type", "NotIn", &["cheap"], None))]
#[case::alias(requirement("beta.kubernetes.io/arch", "In", &["arm64"], None))]
#[case::bound(requirement("example.com/cpu", "Gt", &["3"], None))]
#[case::min_values(requirement("example.com/x", "In", &["a", "b"], Some(2)))]
fn valid(#[case] template: Value) {
    assert_eq!(of(template), Vec::<String>::new());
}

#[rstest]
#[case::nodepool_label(json!({"metadata": {"labels": {"karpenter.sh/nodepool": "x"}}}), "karpenter.sh/nodepool\" is restricted")]
#[case::restricted_domain(json!({"metadata": {"labels": {"karpenter.sh/mine": "x"}}}), "karpenter.sh/mine\" is restricted")]
#[case::hostname(requirement("kubernetes.io/hostname", "In", &["a"], None), "kubernetes.io/hostname\" is restricted")]
#[case::label_value(json!({"metadata": {"labels": {"a": "b c"}}}), "value \"b c\"")]
#[case::label_key(json!({"metadata": {"labels": {"A.B/c": "x"}}}), "expected a qualified name")]
#[case::no_taint_key(json!({"spec": {"taints": [{"key": "", "effect": "NoSchedule"}]}}), "taints[0]: key")]
#[case::effect(json!({"spec": {"startupTaints": [{"key": "a", "effect": "Never"}]}}), "startupTaints[0]: effect \"Never\"")]
#[case::taint_twice(json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}], "startupTaints": [{"key": "a", "value": "v", "effect": "NoSchedule"}]}}), "a:NoSchedule is there twice")]
#[case::operator(requirement("a", "Is", &["b"], None), "Is")]
#[case::in_without_values(requirement("a", "In", &[], None), "requirements[0]")]
#[case::bound_is_no_number(requirement("a", "Gt", &["x"], None), "x")]
#[case::negative_bound(requirement("a", "Lt", &["-1"], None), "0 or more")]
#[case::min_values(requirement("a", "In", &["b"], Some(2)), "has 1 values; expected at least minValues, 2")]
#[case::no_known_value(requirement("karpenter.sh/capacity-type", "In", &["cheap"], None), "has 0 of the values")]
#[case::min_values_of_known(requirement("karpenter.sh/capacity-type", "In", &["spot", "cheap"], Some(2)), "has 1 of the values")]
fn invalid(#[case] template: Value, #[case] expected: &str) {
    let found = of(template);
    assert!(found.iter().any(|p| p.contains(expected)), "{found:?}");
}
