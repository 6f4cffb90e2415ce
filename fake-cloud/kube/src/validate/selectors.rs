//! Validation of label selectors in objects, wherever they stand.

use serde_json::Value;

use super::names;
use crate::error::FieldError;
use crate::meta::{at, items, text};

/// The selector at `path`, if there is one.
pub fn label_selector(selector: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    let Some(selector) = selector.filter(|s| !s.is_null()) else {
        return;
    };
    let labels = at(selector, &["matchLabels"]).and_then(Value::as_object);
    for (key, value) in labels.into_iter().flatten() {
        let path = format!("{path}.matchLabels");
        for why in names::qualified_errors(key) {
            errors.push(FieldError::invalid(&path, key.as_str(), why));
        }
        let value = value.as_str().unwrap_or_default();
        for why in names::label_value_errors(value) {
            errors.push(FieldError::invalid(&path, value, why));
        }
    }
    for (i, expression) in items(selector, &["matchExpressions"]).enumerate() {
        let path = format!("{path}.matchExpressions[{i}]");
        let values = || items(expression, &["values"]).filter_map(Value::as_str);
        let operator = text(expression, &["operator"]);
        match (operator, values().next()) {
            ("In" | "NotIn", None) => errors.push(FieldError::required(
                &format!("{path}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            ("Exists" | "DoesNotExist", Some(_)) => errors.push(FieldError::forbidden(
                &format!("{path}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
            (other, _) => errors.push(FieldError::invalid(
                &format!("{path}.operator"),
                other,
                "not a valid selector operator",
            )),
        }
        let key = text(expression, &["key"]);
        for why in names::qualified_errors(key) {
            errors.push(FieldError::invalid(&format!("{path}.key"), key, why));
        }
        for (j, value) in values().enumerate() {
            for why in names::label_value_errors(value) {
                let path = format!("{path}.values[{j}]");
                errors.push(FieldError::invalid(&path, value, why));
            }
        }
    }
}

/// The pods that a NetworkPolicy is about, and those that it lets speak to them.
pub fn network_policy(policy: &Value, errors: &mut Vec<FieldError>) {
    label_selector(
        at(policy, &["spec", "podSelector"]),
        "spec.podSelector",
        errors,
    );
    for (list, side) in [("ingress", "from"), ("egress", "to")] {
        for (i, rule) in items(policy, &["spec", list]).enumerate() {
            for (j, peer) in items(rule, &[side]).enumerate() {
                for key in ["podSelector", "namespaceSelector"] {
                    let path = format!("spec.{list}[{i}].{side}[{j}].{key}");
                    label_selector(peer.get(key), &path, errors);
                }
            }
        }
    }
}
