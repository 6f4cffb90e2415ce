//! Fragments that NodePool, NodeClaim and NodeOverlay share: requirements, taints, NodeClass references, and which
//! label keys users may set.

use serde_json::{Value, json};

use super::LabelDomain;
use super::schema::{
    at_most, atomic, bounded, doc, list, matching, object, one_of, pattern, rules, text, time, with,
};

/// What a label key is called in a rule: the key itself, or each key of a map.
#[derive(Clone, Copy)]
enum Subject {
    /// `self` is the key.
    Key,
    /// `self` is a map; the rule holds for all its keys `x`.
    MapKeys,
}

impl Subject {
    fn rule(self, of_key: impl Fn(&str) -> String) -> String {
        match self {
            Self::Key => of_key("self"),
            Self::MapKeys => format!("self.all(x, {})", of_key("x")),
        }
    }
}

/// Keys in `karpenter.sh` that users may name.
const CORE_ALLOWED: [&str; 2] = ["karpenter.sh/capacity-type", "karpenter.sh/nodepool"];

fn domain_rule(subject: Subject, domain: &str, allowed: &[&str]) -> (String, String) {
    let keys = allowed
        .iter()
        .map(|k| format!("\"{k}\""))
        .collect::<Vec<_>>()
        .join(", ");
    (
        subject
            .rule(|x| format!("{x} in [{keys}] || !{x}.find(\"^([^/]+)\").endsWith(\"{domain}\")")),
        format!("label domain \"{domain}\" is restricted"),
    )
}

fn key_rule(subject: Subject, key: &str) -> (String, String) {
    (
        subject.rule(|x| format!("{x} != \"{key}\"")),
        format!("label \"{key}\" is restricted"),
    )
}

fn restricted(subject: Subject, pool_label: bool, domains: &[LabelDomain], schema: Value) -> Value {
    let mut all = vec![domain_rule(subject, "karpenter.sh", &CORE_ALLOWED)];
    if pool_label {
        all.push(key_rule(subject, "karpenter.sh/nodepool"));
    }
    all.push(key_rule(subject, "kubernetes.io/hostname"));
    for d in domains {
        let allowed = match subject {
            Subject::Key => &d.requirement_keys,
            Subject::MapKeys => &d.label_keys,
        };
        let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
        all.push(domain_rule(subject, &d.domain, &allowed));
    }
    let borrowed: Vec<(&str, &str)> = all.iter().map(|(r, m)| (r.as_str(), m.as_str())).collect();
    rules(&borrowed, schema)
}

/// Labels of a template.
pub(super) fn template_labels(domains: &[LabelDomain]) -> Value {
    let schema = json!({
        "type": "object",
        "additionalProperties": { "type": "string", "maxLength": 63, "pattern": pattern::LABEL_VALUE },
        "maxProperties": 100,
        "x-kubernetes-map-type": "atomic",
    });
    doc(
        "Labels of the nodes.",
        restricted(Subject::MapKeys, true, domains, schema),
    )
}

/// How the kinds differ in what their requirements may say.
pub(super) struct RequirementRules {
    /// Whether the pool label is refused.
    pub(super) pool_label_restricted: bool,
    /// Whether there is `minValues`.
    pub(super) min_values: bool,
    /// Whether `NotIn` must have a value.
    pub(super) not_in_needs_value: bool,
}

const IN_HAS_VALUE: (&str, &str) = (
    "self.all(x, x.operator == 'In' ? x.values.size() != 0 : true)",
    "operator 'In' needs at least one value",
);
const NOT_IN_HAS_VALUE: (&str, &str) = (
    "self.all(x, x.operator == 'NotIn' ? x.values.size() != 0 : true)",
    "operator 'NotIn' needs at least one value",
);
const BOUND_IS_INTEGER: (&str, &str) = (
    "self.all(x, (x.operator == 'Gt' || x.operator == 'Lt' || x.operator == 'Gte' || x.operator == 'Lte') ? (x.values.size() == 1 && int(x.values[0]) >= 0) : true)",
    "operators 'Gt', 'Lt', 'Gte' and 'Lte' need exactly one value, an integer of 0 or more",
);
const MIN_VALUES_COVERED: (&str, &str) = (
    "self.all(x, (x.operator == 'In' && has(x.minValues)) ? x.values.size() >= x.minValues : true)",
    "operator 'In' with 'minValues' needs at least that many values",
);

/// A list of requirements.
pub(super) fn requirements(r: &RequirementRules, domains: &[LabelDomain]) -> Value {
    let key = with(matching(pattern::LABEL_KEY), json!({ "maxLength": 316 }));
    // Karpenter writes the bounds of a value on the list, where they check nothing; values are checked at run time.
    let values = with(
        atomic(text()),
        json!({ "maxLength": 63, "pattern": pattern::LABEL_VALUE }),
    );
    let mut fields = vec![
        (
            "key",
            restricted(Subject::Key, r.pool_label_restricted, domains, key),
        ),
        (
            "operator",
            one_of(&[
                "In",
                "NotIn",
                "Exists",
                "DoesNotExist",
                "Gt",
                "Lt",
                "Gte",
                "Lte",
            ]),
        ),
        ("values", values),
    ];
    if r.min_values {
        let min_values = bounded(1, Some(50), json!({ "type": "integer" }));
        fields.push((
            "minValues",
            doc(
                "Least number of distinct values that must stay possible.",
                min_values,
            ),
        ));
    }
    let mut all = Vec::new();
    if r.not_in_needs_value {
        all.push(NOT_IN_HAS_VALUE);
    }
    all.extend([IN_HAS_VALUE, BOUND_IS_INTEGER]);
    if r.min_values {
        all.push(MIN_VALUES_COVERED);
    }
    let schema = at_most(100, atomic(object(fields, &["key", "operator"])));
    doc(
        "What the machine must be like, as label requirements.",
        rules(&all, schema),
    )
}

/// A list of taints.
pub(super) fn taints(about: &str) -> Value {
    let item = object(
        vec![
            (
                "key",
                with(matching(pattern::LABEL_KEY), json!({ "minLength": 1 })),
            ),
            ("value", matching(pattern::LABEL_KEY)),
            (
                "effect",
                one_of(&["NoSchedule", "PreferNoSchedule", "NoExecute"]),
            ),
            ("timeAdded", time()),
        ],
        &["effect", "key"],
    );
    doc(about, atomic(item))
}

/// A reference to a NodeClass; `fixed` makes group and kind immutable.
pub(super) fn node_class_ref(fixed: bool) -> Value {
    let schema = object(
        vec![
            (
                "group",
                rules(
                    &[("self != ''", "group may not be empty")],
                    matching("^[^/]*$"),
                ),
            ),
            (
                "kind",
                rules(&[("self != ''", "kind may not be empty")], text()),
            ),
            (
                "name",
                rules(&[("self != ''", "name may not be empty")], text()),
            ),
        ],
        &["group", "kind", "name"],
    );
    let schema = if fixed {
        rules(
            &[
                (
                    "self.group == oldSelf.group",
                    "nodeClassRef.group is immutable",
                ),
                (
                    "self.kind == oldSelf.kind",
                    "nodeClassRef.kind is immutable",
                ),
            ],
            schema,
        )
    } else {
        schema
    };
    doc("NodeClass to launch with.", schema)
}

/// `expireAfter`.
pub(super) fn expire_after() -> Value {
    let schema = with(
        matching(pattern::NILLABLE_DURATION),
        json!({ "default": "720h" }),
    );
    doc("Age at which a machine is given back, or Never.", schema)
}

/// `terminationGracePeriod`.
pub(super) fn termination_grace_period() -> Value {
    doc(
        "How long a drain may take before pods are deleted; unset = as long as it takes.",
        matching(pattern::DURATION),
    )
}

/// Disruption reasons that a budget may name.
pub(super) fn reasons() -> Value {
    let reasons = list(one_of(&["Underutilized", "Empty", "Drifted"]));
    with(
        at_most(50, reasons),
        json!({ "x-kubernetes-list-type": "set" }),
    )
}
