//! Label selectors, node selectors, taints and tolerations, as the API defines them.

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;
use serde_json::Value;

use super::object::{self, Labels};

/// A label selector read from an object; none when it is missing (which selects nothing).
#[must_use]
pub fn label_selector(value: &Value) -> Option<LabelSelector> {
    LabelSelector::deserialize(value).ok()
}

/// Whether `selector` selects `labels`; an empty one selects everything.
#[must_use]
pub fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    let equal = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(k, v)| labels.get(k) == Some(v));
    equal
        && selector.match_expressions.iter().flatten().all(|e| {
            let value = labels.get(&e.key);
            let values = e.values.as_deref().unwrap_or_default();
            match e.operator.as_str() {
                "In" => value.is_some_and(|v| values.contains(v)),
                "NotIn" => value.is_none_or(|v| !values.contains(v)),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

/// Whether a node with `labels` and `name` is in a node selector: any term, all of its requirements.
#[must_use]
pub fn node_selector_matches(selector: &NodeSelector, labels: &Labels, name: &str) -> bool {
    selector
        .node_selector_terms
        .iter()
        .any(|t| node_term_matches(t, labels, name))
}

/// Whether one term holds; an empty one never does.
#[must_use]
pub fn node_term_matches(term: &NodeSelectorTerm, labels: &Labels, name: &str) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions
        .iter()
        .all(|r| node_requirement_holds(r, labels.get(&r.key).map(String::as_str)))
        && fields
            .iter()
            .all(|r| r.key == "metadata.name" && node_requirement_holds(r, Some(name)))
}

fn node_requirement_holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let number = || {
        let want = values.first()?.parse::<i64>().ok()?;
        Some((value?.parse::<i64>().ok()?, want))
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|v| values.iter().any(|w| w == v)),
        "NotIn" => value.is_none_or(|v| !values.iter().any(|w| w == v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number().is_some_and(|(have, want)| have > want),
        "Lt" => number().is_some_and(|(have, want)| have < want),
        _ => false,
    }
}

/// A node's taint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Taint {
    /// Key.
    pub key: String,
    /// Value, empty when not given.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

impl Taint {
    /// The taints in `spec.taints` of a node.
    #[must_use]
    pub fn of_node(node: &Value) -> Vec<Self> {
        object::items(node, &["spec", "taints"])
            .iter()
            .map(Self::read)
            .collect()
    }

    /// From its JSON form.
    #[must_use]
    pub fn read(value: &Value) -> Self {
        Self {
            key: object::text(value, &["key"]).to_owned(),
            value: object::text(value, &["value"]).to_owned(),
            effect: object::text(value, &["effect"]).to_owned(),
        }
    }
}

/// A pod's toleration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Toleration {
    /// Key; empty with `Exists` tolerates every key.
    pub key: String,
    /// `Exists`, `Equal` (the default), `Lt` or `Gt`.
    pub operator: String,
    /// Value for `Equal`.
    pub value: String,
    /// Effect; empty for all.
    pub effect: String,
    /// How long `NoExecute` is tolerated; none for ever.
    pub seconds: Option<i64>,
}

impl Toleration {
    /// The tolerations in `spec.tolerations` of a pod.
    #[must_use]
    pub fn of_pod(pod: &Value) -> Vec<Self> {
        object::items(pod, &["spec", "tolerations"])
            .iter()
            .map(|t| Self {
                key: object::text(t, &["key"]).to_owned(),
                operator: object::text(t, &["operator"]).to_owned(),
                value: object::text(t, &["value"]).to_owned(),
                effect: object::text(t, &["effect"]).to_owned(),
                seconds: object::int(t, &["tolerationSeconds"]),
            })
            .collect()
    }

    /// Whether it tolerates `taint`.
    #[must_use]
    pub fn tolerates(&self, taint: &Taint) -> bool {
        if !self.effect.is_empty() && self.effect != taint.effect {
            return false;
        }
        if !self.key.is_empty() && self.key != taint.key {
            return false;
        }
        let numbers = || {
            Some((
                self.value.parse::<i64>().ok()?,
                taint.value.parse::<i64>().ok()?,
            ))
        };
        match self.operator.as_str() {
            "Exists" => true,
            "" | "Equal" => !self.key.is_empty() && self.value == taint.value,
            "Gt" => numbers().is_some_and(|(mine, node)| node > mine),
            "Lt" => numbers().is_some_and(|(mine, node)| node < mine),
            _ => false,
        }
    }
}

/// Whether any of `tolerations` tolerates `taint`.
#[must_use]
pub fn tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|t| t.tolerates(taint))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn labels() -> Labels {
        [("app", "web"), ("gen", "5")]
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    }

    #[rstest]
    #[case(json!({}), true)]
    #[case(json!({"matchLabels": {"app": "web"}}), true)]
    #[case(json!({"matchLabels": {"app": "db"}}), false)]
    #[case(json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["db", "web"]}]}), true)]
    #[case(json!({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["x"]}]}), true)]
    #[case(json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}), false)]
    #[case(json!({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}), true)]
    #[case(json!({"matchExpressions": [{"key": "app", "operator": "Exists"}, {"key": "tier", "operator": "Exists"}]}), false)]
    fn label_selectors(#[case] selector: Value, #[case] want: bool) {
        assert_eq!(
            selects(&label_selector(&selector).unwrap(), &labels()),
            want
        );
    }

    #[rstest]
    #[case(json!([{"matchExpressions": [{"key": "gen", "operator": "Gt", "values": ["4"]}]}]), true)]
    #[case(json!([{"matchExpressions": [{"key": "gen", "operator": "Gt", "values": ["5"]}]}]), false)]
    #[case(json!([{"matchExpressions": [{"key": "gen", "operator": "Lt", "values": ["6"]}]}]), true)]
    #[case(json!([{"matchExpressions": [{"key": "app", "operator": "Lt", "values": ["6"]}]}]), false)]
    #[case(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]), true)]
    #[case(json!([{"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["n1"]}]}]), false)]
    #[case(json!([{}]), false)]
    #[case(json!([{}, {"matchExpressions": [{"key": "app", "operator": "Exists"}]}]), true)]
    fn node_selectors(#[case] terms: Value, #[case] want: bool) {
        let selector: NodeSelector =
            serde_json::from_value(json!({"nodeSelectorTerms": terms})).unwrap();
        assert_eq!(node_selector_matches(&selector, &labels(), "n1"), want);
    }

    #[rstest]
    #[case(json!({"key": "k", "value": "v"}), true)]
    #[case(json!({"key": "k", "operator": "Equal", "value": "w"}), false)]
    #[case(json!({"key": "k", "operator": "Exists", "effect": "NoSchedule"}), true)]
    #[case(json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false)]
    #[case(json!({"operator": "Exists"}), true)]
    #[case(json!({"value": "v"}), false)]
    fn tolerations(#[case] toleration: Value, #[case] want: bool) {
        let taint = Taint::read(&json!({"key": "k", "value": "v", "effect": "NoSchedule"}));
        let pod = json!({"spec": {"tolerations": [toleration]}});
        assert_eq!(tolerated(&Toleration::of_pod(&pod), &taint), want);
    }
}
