//! Validation of what says where a pod may go: tolerations, topology spread, affinity.

use serde_json::Value;

use super::pods::{list, one_of};
use super::{names, selectors};
use crate::error::FieldError;
use crate::meta::{at, text};

/// A pod's or template's tolerations.
pub(super) fn tolerations(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for (i, t) in list(spec, "tolerations") {
        let path = format!("{path}.tolerations[{i}]");
        let (key, operator, value) = (
            text(t, &["key"]),
            text(t, &["operator"]),
            text(t, &["value"]),
        );
        let effect = text(t, &["effect"]);
        if !key.is_empty() {
            for error in names::qualified_errors(key) {
                errors.push(FieldError::invalid(&format!("{path}.key"), key, error));
            }
        } else if operator != "Exists" {
            errors.push(FieldError::invalid(
                &format!("{path}.operator"),
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            ));
        }
        if t.get("tolerationSeconds").is_some_and(|s| !s.is_null()) && effect != "NoExecute" {
            errors.push(FieldError::invalid(
                &format!("{path}.effect"),
                effect,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            ));
        }
        one_of(
            &format!("{path}.operator"),
            operator,
            &["Equal", "Exists", "Gt", "Lt"],
            false,
            errors,
        );
        if operator == "Exists" && !value.is_empty() {
            errors.push(FieldError::invalid(
                &format!("{path}.operator"),
                value,
                "value must be empty when `operator` is 'Exists'",
            ));
        }
        one_of(
            &format!("{path}.effect"),
            effect,
            &["NoSchedule", "PreferNoSchedule", "NoExecute"],
            false,
            errors,
        );
    }
}

/// A pod's or template's topology spread constraints.
pub(super) fn spread(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let mut seen = std::collections::BTreeMap::new();
    for (i, c) in list(spec, "topologySpreadConstraints") {
        let path = format!("{path}.topologySpreadConstraints[{i}]");
        let at_path = path.clone();
        let skew = c.get("maxSkew").and_then(Value::as_i64).unwrap_or(0);
        if skew <= 0 {
            errors.push(FieldError::invalid(
                &format!("{path}.maxSkew"),
                skew,
                "must be greater than zero",
            ));
        }
        let (key, when) = (text(c, &["topologyKey"]), text(c, &["whenUnsatisfiable"]));
        if key.is_empty() {
            errors.push(FieldError::required(
                &format!("{path}.topologyKey"),
                "can not be empty",
            ));
        }
        let allowed = ["DoNotSchedule", "ScheduleAnyway"];
        if allowed.contains(&when) {
            // Told of the earlier of the two.
            if let Some(first) = seen.insert((key, when), at_path.clone()) {
                errors.push(FieldError::duplicate(
                    &format!("{first}.{{topologyKey, whenUnsatisfiable}}"),
                    format!("{{{key}, {when}}}"),
                ));
            }
        } else {
            errors.push(FieldError::not_supported(
                &format!("{path}.whenUnsatisfiable"),
                when,
                &allowed,
            ));
        }
        if let Some(domains) = c.get("minDomains").and_then(Value::as_i64) {
            if domains <= 0 {
                errors.push(FieldError::invalid(
                    &format!("{path}.minDomains"),
                    domains,
                    "must be greater than zero",
                ));
            }
            if when != "DoNotSchedule" {
                errors.push(FieldError::invalid(
                    &format!("{path}.minDomains"),
                    domains,
                    format!(
                        "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}"
                    ),
                ));
            }
        }
        let path = format!("{path}.labelSelector");
        selectors::label_selector(c.get("labelSelector"), &path, errors);
    }
}

/// A pod's or template's affinity.
pub(super) fn affinity(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    if let Some(node) = at(spec, &["affinity", "nodeAffinity", REQUIRED]) {
        let path = format!("{path}.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms");
        if list(node, "nodeSelectorTerms").next().is_none() {
            errors.push(FieldError::required(
                &path,
                "must have at least one node selector term",
            ));
        }
        for (i, term) in list(node, "nodeSelectorTerms") {
            for (j, e) in list(term, "matchExpressions") {
                requirement(e, &format!("{path}[{i}].matchExpressions[{j}]"), errors);
            }
        }
    }
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    for kind in ["nodeAffinity", "podAffinity", "podAntiAffinity"] {
        let terms = at(spec, &["affinity", kind]).unwrap_or(&Value::Null);
        for (i, term) in list(terms, PREFERRED) {
            let weight = term.get("weight").and_then(Value::as_i64).unwrap_or(0);
            if !(1..=100).contains(&weight) {
                errors.push(FieldError::invalid(
                    &format!("{path}.affinity.{kind}.{PREFERRED}[{i}].weight"),
                    weight,
                    "must be in the range 1-100",
                ));
            }
            if kind != "nodeAffinity" {
                let path = format!("{path}.affinity.{kind}.{PREFERRED}[{i}].podAffinityTerm");
                pod_term(term.get("podAffinityTerm"), &path, errors);
            }
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(terms) = at(spec, &["affinity", kind]) else {
            continue;
        };
        for (i, term) in list(terms, REQUIRED) {
            let path = format!("{path}.affinity.{kind}.{REQUIRED}[{i}]");
            pod_term(Some(term), &path, errors);
        }
    }
}

/// A term of an affinity between pods.
fn pod_term(term: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    let Some(term) = term else {
        return;
    };
    for key in ["labelSelector", "namespaceSelector"] {
        selectors::label_selector(term.get(key), &format!("{path}.{key}"), errors);
    }
    let key = text(term, &["topologyKey"]);
    let path = format!("{path}.topologyKey");
    if key.is_empty() {
        errors.push(FieldError::required(&path, "can not be empty"));
    }
    for error in names::qualified_errors(key) {
        errors.push(FieldError::invalid(&path, key, error));
    }
}

fn requirement(e: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let values = e
        .get("values")
        .and_then(Value::as_array)
        .map_or(0, Vec::len);
    let operator = text(e, &["operator"]);
    match operator {
        "In" | "NotIn" if values == 0 => errors.push(FieldError::required(
            &format!("{path}.values"),
            "must be specified when `operator` is 'In' or 'NotIn'",
        )),
        "Exists" | "DoesNotExist" if values > 0 => errors.push(FieldError::forbidden(
            &format!("{path}.values"),
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        )),
        "Gt" | "Lt" if values != 1 => errors.push(FieldError::required(
            &format!("{path}.values"),
            "must be specified single value when `operator` is 'Lt' or 'Gt'",
        )),
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.push(FieldError::invalid(
            &format!("{path}.operator"),
            other,
            "not a valid selector operator",
        )),
    }
    for error in names::qualified_errors(text(e, &["key"])) {
        errors.push(FieldError::invalid(
            &format!("{path}.key"),
            text(e, &["key"]),
            error,
        ));
    }
}
