//! What can be wrong with a NodePool or NodeOverlay that its schema lets pass, such as a taint that is there twice. One
//! line a problem, each naming the field and what was expected.

use std::collections::BTreeSet;
use std::fmt;

use crate::Quantity;
use crate::kinds::{RequirementSpec, Taint};
use crate::labels;
use crate::nodeoverlay::NodeOverlay;
use crate::nodepool::NodePool;

/// What validation has to know of labels; providers differ in it.
pub trait LabelRules {
    /// The key that `key` is another name of, or itself.
    fn normalize<'a>(&'a self, key: &'a str) -> &'a str;
    /// Whether users may not name the (normalised) key.
    fn is_restricted(&self, key: &str) -> bool;
    /// The values of a (normalised) key that mean something, if they are a closed set.
    fn known_values(&self, key: &str) -> Option<&BTreeSet<String>>;
}

/// Something wrong, or odd.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Path of the field.
    pub field: String,
    /// What is there and what was expected.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Why the object is not valid; empty = it is.
    pub problems: Vec<Problem>,
    /// What somebody should look at although the object is valid.
    pub warnings: Vec<Problem>,
}

impl Findings {
    fn problem(&mut self, field: &str, message: String) {
        self.problems.push(Problem {
            field: field.to_owned(),
            message,
        });
    }

    /// The problems in one line, for a condition's message; none if there are none.
    #[must_use]
    pub fn message(&self) -> Option<String> {
        let lines: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        (!lines.is_empty()).then(|| lines.join("; "))
    }
}

const OPERATORS: [&str; 8] = [
    "In",
    "NotIn",
    "Exists",
    "DoesNotExist",
    "Gt",
    "Lt",
    "Gte",
    "Lte",
];
const BOUNDS: [&str; 4] = ["Gt", "Lt", "Gte", "Lte"];
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
/// Most characters of a name and of a label value.
const MAX_NAME_CHARS: usize = 63;
/// Most characters of the domain before the slash of a key.
const MAX_DOMAIN_CHARS: usize = 253;

/// Looks a NodePool through.
#[must_use]
pub fn node_pool(pool: &NodePool, rules: &dyn LabelRules) -> Findings {
    let mut found = Findings::default();
    let template = &pool.spec.template;
    for (key, value) in template.metadata.labels.iter().flatten() {
        let field = format!("spec.template.metadata.labels[{key}]");
        check_key(&field, key, Pool::Restricted, rules, &mut found);
        check_value(&field, value, &mut found);
    }
    let mut seen = BTreeSet::new();
    let spec = &template.spec;
    for (name, taints) in [
        ("taints", &spec.taints),
        ("startupTaints", &spec.startup_taints),
    ] {
        for (i, taint) in taints.iter().enumerate() {
            let field = format!("spec.template.spec.{name}[{i}]");
            check_taint(&field, taint, &mut found);
            if !seen.insert((&taint.key, &taint.effect)) {
                let message = format!("{}:{} is there twice", taint.key, taint.effect);
                found.problem(&field, message);
            }
        }
    }
    for (i, requirement) in spec.requirements.iter().enumerate() {
        let field = format!("spec.template.spec.requirements[{i}]");
        check_requirement(&field, requirement, Pool::Restricted, rules, &mut found);
    }
    found
}

/// Looks a NodeOverlay through. `native` are the resources that the provider itself tells of.
#[must_use]
pub fn node_overlay(
    overlay: &NodeOverlay,
    native: &BTreeSet<String>,
    rules: &dyn LabelRules,
) -> Findings {
    let mut found = Findings::default();
    for (i, requirement) in overlay.spec.requirements.iter().enumerate() {
        let field = format!("spec.requirements[{i}]");
        check_requirement(&field, requirement, Pool::Allowed, rules, &mut found);
        let key = &requirement.key;
        if requirement.operator == "NotIn" && requirement.values.is_empty() {
            found.problem(
                &field,
                format!("{key} NotIn []; expected at least one value"),
            );
        }
        if requirement.min_values.is_some() {
            found.problem(&field, "minValues; expected none in an overlay".to_owned());
        }
    }
    if let Err(problem) = overlay.spec.price_change() {
        let (field, message) = problem.split_once(": ").unwrap_or(("spec", &problem));
        found.problem(field, message.to_owned());
    }
    for (name, amount) in &overlay.spec.capacity {
        let field = format!("spec.capacity[{name}]");
        if native.contains(name) {
            let message = "the provider tells of it itself; expected an extended resource";
            found.problem(&field, message.to_owned());
        } else if !is_qualified_name(name) {
            let message = "expected a qualified name, such as example.com/device";
            found.problem(&field, message.to_owned());
        }
        match amount.0.parse::<Quantity>() {
            Ok(amount) if amount >= Quantity::ZERO => {}
            _ => found.problem(
                &field,
                format!("{:?}; expected an amount of 0 or more", amount.0),
            ),
        }
    }
    if overlay
        .spec
        .weight
        .is_some_and(|w| !(1..=10_000).contains(&w))
    {
        let weight = overlay.spec.weight.unwrap_or_default();
        found.problem("spec.weight", format!("{weight}; expected 1 to 10000"));
    }
    found
}

/// Whether the label of the NodePool may be named.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pool {
    Allowed,
    Restricted,
}

fn check_key(field: &str, key: &str, pool: Pool, rules: &dyn LabelRules, found: &mut Findings) {
    let normal = rules.normalize(key);
    let is_pool = normal == labels::NODEPOOL;
    if (is_pool && pool == Pool::Restricted) || (!is_pool && rules.is_restricted(normal)) {
        found.problem(
            field,
            format!("label {normal:?} is restricted; expected another key"),
        );
    } else if !is_qualified_name(normal) {
        found.problem(
            field,
            format!("key {normal:?}; expected a qualified name, such as example.com/name"),
        );
    }
}

fn check_value(field: &str, value: &str, found: &mut Findings) {
    if !value.is_empty() && !is_name(value) {
        let expected = "expected at most 63 letters, digits, '-', '_', '.', with a letter or digit at each end";
        found.problem(field, format!("value {value:?}; {expected}"));
    }
}

fn check_taint(field: &str, taint: &Taint, found: &mut Findings) {
    if !is_qualified_name(&taint.key) {
        found.problem(
            field,
            format!(
                "key {:?}; expected a qualified name, such as example.com/name",
                taint.key
            ),
        );
    }
    let value = taint.value.as_deref().unwrap_or_default();
    if !value.is_empty() && !is_qualified_name(value) {
        found.problem(field, format!("value {value:?}; expected a qualified name"));
    }
    if !taint.effect.is_empty() && !EFFECTS.contains(&taint.effect.as_str()) {
        found.problem(
            field,
            format!(
                "effect {:?}; expected one of {}",
                taint.effect,
                EFFECTS.join(", ")
            ),
        );
    }
}

fn check_requirement(
    field: &str,
    requirement: &RequirementSpec,
    pool: Pool,
    rules: &dyn LabelRules,
    found: &mut Findings,
) {
    let RequirementSpec {
        key,
        operator,
        values,
        min_values,
    } = requirement;
    if !OPERATORS.contains(&operator.as_str()) {
        found.problem(
            field,
            format!(
                "operator {operator:?}; expected one of {}",
                OPERATORS.join(", ")
            ),
        );
    }
    check_key(field, key, pool, rules, found);
    for value in values {
        check_value(field, value, found);
    }
    if operator == "In" {
        check_in(field, requirement, rules, found);
    }
    if BOUNDS.contains(&operator.as_str()) {
        let is_bound =
            |v: &String| v.bytes().all(|b| b.is_ascii_digit()) && v.parse::<i64>().is_ok();
        if !matches!(values.as_slice(), [one] if is_bound(one)) {
            let message = format!("{key} {operator} {values:?}; expected one integer of 0 or more");
            found.problem(field, message);
        }
    }
    if min_values.is_some_and(|n| !(1..=50).contains(&n)) {
        found.problem(
            field,
            format!(
                "minValues {}; expected 1 to 50",
                min_values.unwrap_or_default()
            ),
        );
    }
}

fn check_in(
    field: &str,
    requirement: &RequirementSpec,
    rules: &dyn LabelRules,
    found: &mut Findings,
) {
    let RequirementSpec { key, values, .. } = requirement;
    let least = usize::try_from(requirement.min_values.unwrap_or(0)).unwrap_or(0);
    let distinct: BTreeSet<&String> = values.iter().collect();
    if distinct.is_empty() {
        found.problem(field, format!("{key} In []; expected at least one value"));
        return;
    }
    if distinct.len() < least {
        let message = format!(
            "{key} has {} values; expected at least minValues, {least}",
            distinct.len()
        );
        found.problem(field, message);
        return;
    }
    let Some(known) = rules.known_values(rules.normalize(key)) else {
        return;
    };
    let (usable, strange): (Vec<&String>, Vec<&String>) =
        distinct.iter().partition(|v| known.contains(**v));
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let known = known.join(", ");
    if usable.len() < least.max(1) {
        let message = format!(
            "{key} In {values:?} has {} of the values {known}; expected at least {}",
            usable.len(),
            least.max(1)
        );
        found.problem(field, message);
    } else if !strange.is_empty() {
        found.warnings.push(Problem {
            field: field.to_owned(),
            message: format!("{key} In {strange:?} means nothing; expected values among {known}"),
        });
    }
}

/// Whether a text is `[domain/]name` as Kubernetes wants keys.
#[must_use]
pub fn is_qualified_name(text: &str) -> bool {
    match text.split_once('/') {
        Some((domain, name)) => is_domain(domain) && is_name(name),
        None => is_name(text),
    }
}

fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= MAX_NAME_CHARS
        && bytes.iter().all(|b| inner(*b))
        && edge(bytes.first())
        && edge(bytes.last())
}

fn is_domain(text: &str) -> bool {
    let lower = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= MAX_DOMAIN_CHARS
        && text.split('.').map(str::as_bytes).all(|part| {
            part.iter().all(|b| lower(b) || *b == b'-')
                && part.first().is_some_and(lower)
                && part.last().is_some_and(lower)
        })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    struct Rules(BTreeSet<String>);

    impl LabelRules for Rules {
        fn normalize<'a>(&'a self, key: &'a str) -> &'a str {
            labels::ALIASES
                .iter()
                .find(|(alias, _)| *alias == key)
                .map_or(key, |(_, normal)| normal)
        }
        fn is_restricted(&self, key: &str) -> bool {
            let domain = key.split_once('/').map_or(key, |(domain, _)| domain);
            key == labels::HOSTNAME
                || (domain == labels::GROUP && !labels::WELL_KNOWN.contains(&key))
        }
        fn known_values(&self, key: &str) -> Option<&BTreeSet<String>> {
            (key == labels::CAPACITY_TYPE).then_some(&self.0)
        }
    }

    fn of(template: Value) -> Findings {
        let pool = json!({ "metadata": { "name": "p" }, "spec": { "template": template } });
        let known = [
            labels::CAPACITY_SPOT,
            labels::CAPACITY_ON_DEMAND,
            labels::CAPACITY_RESERVED,
        ];
        let rules = Rules(known.map(str::to_owned).into());
        node_pool(&serde_json::from_value(pool).unwrap(), &rules)
    }

    fn label(key: &str, value: &str) -> Value {
        json!({ "metadata": { "labels": { key: value } } })
    }

    fn requirement(key: &str, operator: &str, values: &[&str], min: Option<i64>) -> Value {
        json!({ "spec": { "requirements": [{ "key": key, "operator": operator, "values": values, "minValues": min }] } })
    }

    fn taints(taints: Value, startup: Value) -> Value {
        json!({ "spec": { "taints": taints, "startupTaints": startup } })
    }

    #[rstest]
    #[case::nothing(json!({}))]
    #[case::labels(label("team.example.com/name", "a-b_c.D"))]
    #[case::empty_value(label("a", ""))]
    #[case::well_known(label("karpenter.sh/capacity-type", "spot"))]
    #[case::taints(taints(json!([{ "key": "a", "effect": "NoSchedule" }]), json!([{ "key": "a", "effect": "NoExecute" }, { "key": "b", "effect": "" }])))]
    #[case::not_in_is_not_looked_up(requirement("karpenter.sh/capacity-type", "NotIn", &["cheap"], None))]
    #[case::alias(requirement("beta.kubernetes.io/arch", "In", &["arm64"], None))]
    #[case::bound(requirement("example.com/cpu", "Gte", &["0"], None))]
    #[case::min_values(requirement("example.com/x", "In", &["a", "b"], Some(2)))]
    #[case::exists(requirement("example.com/x", "Exists", &[], Some(50)))]
    fn valid(#[case] template: Value) {
        assert_eq!(of(template), Findings::default());
    }

    #[rstest]
    #[case(
        label("karpenter.sh/nodepool", "x"),
        "spec.template.metadata.labels[karpenter.sh/nodepool]: label \"karpenter.sh/nodepool\" is restricted"
    )]
    #[case(label("karpenter.sh/mine", "x"), "is restricted")]
    #[case(label("a", "b c"), "value \"b c\"; expected at most 63")]
    #[case(label("A.B/c", "x"), "qualified name")]
    #[case(label(&"a".repeat(64), "x"), "qualified name")]
    #[case(requirement("kubernetes.io/hostname", "In", &["a"], None), "is restricted")]
    #[case(requirement("karpenter.sh/nodepool", "Exists", &[], None), "is restricted")]
    #[case(taints(json!([{ "key": "", "effect": "NoSchedule" }]), json!([])), "spec.template.spec.taints[0]: key \"\"")]
    #[case(taints(json!([{ "key": "a", "value": "/", "effect": "NoSchedule" }]), json!([])), "value \"/\"")]
    #[case(taints(json!([]), json!([{ "key": "a", "effect": "Never" }])), "startupTaints[0]: effect \"Never\"; expected one of NoSchedule")]
    #[case(taints(json!([{ "key": "a", "effect": "NoSchedule" }]), json!([{ "key": "a", "value": "v", "effect": "NoSchedule" }])), "spec.template.spec.startupTaints[0]: a:NoSchedule is there twice")]
    #[case(requirement("a", "Is", &["b"], None), "operator \"Is\"; expected one of In, NotIn")]
    #[case(requirement("a", "In", &[], None), "a In []; expected at least one value")]
    #[case(requirement("a", "In", &["-x"], None), "value \"-x\"")]
    #[case(requirement("a", "Gt", &["x"], None), "a Gt [\"x\"]; expected one integer of 0 or more")]
    #[case(requirement("a", "Lt", &["-1"], None), "expected one integer of 0 or more")]
    #[case(requirement("a", "Lte", &["1", "2"], None), "expected one integer of 0 or more")]
    #[case(requirement("a", "Gte", &[], None), "expected one integer of 0 or more")]
    #[case(requirement("a", "Gt", &["99999999999999999999"], None), "expected one integer of 0 or more")]
    #[case(requirement("a", "In", &["b", "b"], Some(2)), "a has 1 values; expected at least minValues, 2")]
    #[case(requirement("a", "Exists", &[], Some(51)), "minValues 51; expected 1 to 50")]
    #[case(requirement("karpenter.sh/capacity-type", "In", &["cheap"], None), "has 0 of the values on-demand, reserved, spot; expected at least 1")]
    #[case(requirement("karpenter.sh/capacity-type", "In", &["spot", "cheap"], Some(2)), "has 1 of the values")]
    fn invalid(#[case] template: Value, #[case] expected: &str) {
        let found = of(template);
        let message = found.message().unwrap();
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn values_that_mean_nothing_are_a_warning_beside_ones_that_do() {
        let found = of(requirement(
            "karpenter.sh/capacity-type",
            "In",
            &["spot", "cheap"],
            None,
        ));
        assert_eq!(found.message(), None);
        let warning = found.warnings[0].to_string();
        assert!(
            warning.contains("In [\"cheap\"] means nothing; expected values among on-demand"),
            "{warning}"
        );
    }

    #[rstest]
    #[case::nothing(json!({ "requirements": [] }), "")]
    #[case::all(json!({
        "requirements": [{ "key": "karpenter.sh/nodepool", "operator": "In", "values": ["p"] }, { "key": "team", "operator": "NotIn", "values": ["a"] }],
        "priceAdjustment": "-10%", "capacity": { "smarter-devices/fuse": "20" }, "weight": 7,
    }), "")]
    #[case::key(json!({ "requirements": [{ "key": "kubernetes.io/hostname", "operator": "Exists" }] }), "spec.requirements[0]: label \"kubernetes.io/hostname\" is restricted")]
    #[case::not_in(json!({ "requirements": [{ "key": "a", "operator": "NotIn" }] }), "spec.requirements[0]: a NotIn []; expected at least one value")]
    #[case::min_values(json!({ "requirements": [{ "key": "a", "operator": "Exists", "minValues": 2 }] }), "spec.requirements[0]: minValues; expected none in an overlay")]
    #[case::operator(json!({ "requirements": [{ "key": "a", "operator": "Like", "values": ["b"] }] }), "operator \"Like\"; expected one of")]
    #[case::price(json!({ "price": "dear" }), "spec.price: \"dear\"; expected US dollars")]
    #[case::native(json!({ "capacity": { "cpu": "1" } }), "spec.capacity[cpu]: the provider tells of it itself")]
    #[case::name(json!({ "capacity": { "a b": "1" } }), "spec.capacity[a b]: expected a qualified name")]
    #[case::amount(json!({ "capacity": { "a/b": "many" } }), "spec.capacity[a/b]: \"many\"; expected an amount of 0 or more")]
    #[case::negative(json!({ "capacity": { "a/b": "-1" } }), "spec.capacity[a/b]: \"-1\"; expected an amount of 0 or more")]
    #[case::weight(json!({ "weight": 0 }), "spec.weight: 0; expected 1 to 10000")]
    fn overlays(#[case] spec: Value, #[case] expected: &str) {
        let overlay = json!({ "metadata": { "name": "o" }, "spec": spec });
        let native = ["cpu".to_owned()].into();
        let rules = Rules(BTreeSet::new());
        let found = node_overlay(&serde_json::from_value(overlay).unwrap(), &native, &rules);
        let message = found.message().unwrap_or_default();
        assert!(message.contains(expected), "{message}");
        assert_eq!(message.is_empty(), expected.is_empty(), "{message}");
    }

    #[test]
    fn every_problem_is_told() {
        let found = of(json!({ "metadata": { "labels": { "a": "b c", "/": "d" } } }));
        assert_eq!(found.problems.len(), 2);
        let message = found.message().unwrap();
        assert_eq!(message.matches("spec.template.metadata.labels[").count(), 2);
    }
}
