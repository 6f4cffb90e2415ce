//! What is wrong with a NodePool that its schema let pass (`api.md` §3.1).

use std::collections::BTreeSet;

use karpenter_api::NodePool;
use karpenter_api::kinds::RequirementSpec;
use karpenter_api::labels;
use karpenter_model::{LabelRegistry, Operator, Requirement};

/// Taint effects that Kubernetes knows.
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
/// Most characters of a name or label value.
const MAX_NAME_CHARS: usize = 63;
/// Most characters of a DNS name before the slash of a key.
const MAX_PREFIX_CHARS: usize = 253;

/// Every problem, each naming field and value; empty = valid.
pub(super) fn problems(pool: &NodePool, registry: &LabelRegistry) -> Vec<String> {
    let mut out = Vec::new();
    let template = &pool.spec.template;
    for (key, value) in template.metadata.labels.iter().flatten() {
        let field = format!("spec.template.metadata.labels[{key}]");
        check_key(&field, key, registry, &mut out);
        if !is_label_value(value) {
            out.push(format!("{field}: {value:?} is not a label value"));
        }
    }
    let mut seen = BTreeSet::new();
    let lists = [
        ("taints", &template.spec.taints),
        ("startupTaints", &template.spec.startup_taints),
    ];
    for (list, taints) in lists {
        for (i, taint) in taints.iter().enumerate() {
            let field = format!("spec.template.spec.{list}[{i}]");
            if !is_qualified_name(&taint.key) {
                out.push(format!(
                    "{field}: key {:?} is not a qualified name",
                    taint.key
                ));
            }
            let value = taint.value.as_deref().unwrap_or_default();
            if !value.is_empty() && !is_qualified_name(value) {
                out.push(format!("{field}: value {value:?} is not a qualified name"));
            }
            if !taint.effect.is_empty() && !EFFECTS.contains(&taint.effect.as_str()) {
                out.push(format!(
                    "{field}: effect {:?}, expected one of {}",
                    taint.effect,
                    EFFECTS.join(", ")
                ));
            }
            if !seen.insert((&taint.key, &taint.effect)) {
                out.push(format!(
                    "{field}: {}:{} is there twice",
                    taint.key, taint.effect
                ));
            }
        }
    }
    for (i, spec) in template.spec.requirements.iter().enumerate() {
        let field = format!("spec.template.spec.requirements[{i}]");
        check_requirement(&field, spec, registry, &mut out);
    }
    out
}

fn check_key(field: &str, key: &str, registry: &LabelRegistry, out: &mut Vec<String>) {
    let key = registry.normalize(key);
    if key == labels::NODEPOOL || registry.is_restricted(key) {
        out.push(format!("{field}: key {key} is restricted"));
    } else if !is_qualified_name(key) {
        out.push(format!("{field}: key {key:?} is not a qualified name"));
    }
}

fn check_requirement(
    field: &str,
    spec: &RequirementSpec,
    registry: &LabelRegistry,
    out: &mut Vec<String>,
) {
    check_key(field, &spec.key, registry, out);
    let requirement = match Requirement::from_spec(spec, registry) {
        Ok(requirement) => requirement,
        Err(error) => {
            out.push(format!("{field}: {error}"));
            return;
        }
    };
    if let Some(bad) = spec.values.iter().find(|v| !is_label_value(v)) {
        out.push(format!("{field}: {bad:?} is not a label value"));
    }
    let is_bound = ["Gt", "Lt", "Gte", "Lte"].contains(&spec.operator.as_str());
    if is_bound && let Some(bad) = spec.values.iter().find(|v| v.starts_with('-')) {
        out.push(format!(
            "{field}: {} {} {bad}: expected a number that is not negative",
            spec.key, spec.operator
        ));
    }
    if requirement.operator() != Operator::In {
        return;
    }
    let least = usize::try_from(spec.min_values.unwrap_or(0)).unwrap_or(0);
    if requirement.values.len() < least {
        out.push(format!(
            "{field}: minValues {least} of {} values",
            requirement.values.len()
        ));
    }
    let Some(known) = registry.known_values.get(&*requirement.key) else {
        return;
    };
    let usable = requirement.values.iter().filter(|v| known.contains(&***v));
    let usable = usable.count();
    if usable == 0 || usable < least {
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        out.push(format!(
            "{field}: {requirement} names {usable} known value(s) of {}, expected at least {} of {}",
            requirement.key,
            least.max(1),
            known.join(", ")
        ));
    }
}

/// `[prefix/]name` as Kubernetes has it.
fn is_qualified_name(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_name(name),
        None => is_name(text),
    }
}

fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_name(text)
}

fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= MAX_NAME_CHARS
        && text.chars().all(inner)
        && edge(text.chars().next())
        && edge(text.chars().next_back())
}

fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= MAX_PREFIX_CHARS
        && text.split('.').all(|label| {
            let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            label.chars().all(|c| lower(c) || c == '-')
                && label.chars().next().is_some_and(lower)
                && label.chars().next_back().is_some_and(lower)
        })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn of(template: Value) -> Vec<String> {
        let pool: NodePool = serde_json::from_value(
            json!({"metadata": {"name": "p"}, "spec": {"template": template}}),
        )
        .unwrap();
        problems(&pool, &LabelRegistry::default())
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
    #[case::nodepool_label(json!({"metadata": {"labels": {"karpenter.sh/nodepool": "x"}}}), "karpenter.sh/nodepool is restricted")]
    #[case::restricted_domain(json!({"metadata": {"labels": {"karpenter.sh/mine": "x"}}}), "karpenter.sh/mine is restricted")]
    #[case::hostname(requirement("kubernetes.io/hostname", "In", &["a"], None), "kubernetes.io/hostname is restricted")]
    #[case::label_value(json!({"metadata": {"labels": {"a": "b c"}}}), "\"b c\" is not a label value")]
    #[case::label_key(json!({"metadata": {"labels": {"A.B/c": "x"}}}), "not a qualified name")]
    #[case::no_taint_key(json!({"spec": {"taints": [{"key": "", "effect": "NoSchedule"}]}}), "taints[0]: key")]
    #[case::effect(json!({"spec": {"startupTaints": [{"key": "a", "effect": "Never"}]}}), "startupTaints[0]: effect \"Never\"")]
    #[case::taint_twice(json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}], "startupTaints": [{"key": "a", "value": "v", "effect": "NoSchedule"}]}}), "a:NoSchedule is there twice")]
    #[case::operator(requirement("a", "Is", &["b"], None), "Is")]
    #[case::in_without_values(requirement("a", "In", &[], None), "requirements[0]")]
    #[case::bound_is_no_number(requirement("a", "Gt", &["x"], None), "x")]
    #[case::negative_bound(requirement("a", "Lt", &["-1"], None), "not negative")]
    #[case::min_values(requirement("a", "In", &["b"], Some(2)), "minValues 2 of 1")]
    #[case::no_known_value(requirement("karpenter.sh/capacity-type", "In", &["cheap"], None), "names 0 known value(s)")]
    #[case::min_values_of_known(requirement("karpenter.sh/capacity-type", "In", &["spot", "cheap"], Some(2)), "names 1 known value(s)")]
    fn invalid(#[case] template: Value, #[case] expected: &str) {
        let found = of(template);
        assert!(found.iter().any(|p| p.contains(expected)), "{found:?}");
    }
}
