//! Validation of roles, bindings, limit ranges and quotas.

use serde_json::Value;

use crate::admission::amount::Amount;
use crate::error::FieldError;
use crate::meta::{at, text};
use crate::ops::Target;

const GROUP: &str = "rbac.authorization.k8s.io";

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// A role's rules.
pub fn role(target: &Target, role: &Value, errors: &mut Vec<FieldError>) {
    for (i, rule) in list(role, "rules").iter().enumerate() {
        let path = format!("rules[{i}]");
        if list(rule, "verbs").is_empty() {
            let why = "verbs must contain at least one value";
            errors.push(FieldError::required(&format!("{path}.verbs"), why));
        }
        if !list(rule, "nonResourceURLs").is_empty() {
            if target.info.namespaced {
                errors.push(FieldError::invalid(
                    &format!("{path}.nonResourceURLs"),
                    rule.get("nonResourceURLs").cloned().unwrap_or(Value::Null),
                    "namespaced rules cannot apply to non-resource URLs",
                ));
            }
            continue;
        }
        for (key, why) in [
            (
                "apiGroups",
                "resource rules must supply at least one api group",
            ),
            (
                "resources",
                "resource rules must supply at least one resource",
            ),
        ] {
            if list(rule, key).is_empty() {
                errors.push(FieldError::required(&format!("{path}.{key}"), why));
            }
        }
    }
}

/// A binding's role and subjects.
pub fn binding(target: &Target, binding: &Value, errors: &mut Vec<FieldError>) {
    let reference = |key: &str| text(binding, &["roleRef", key]);
    if reference("apiGroup") != GROUP {
        let given = reference("apiGroup");
        errors.push(FieldError::not_supported(
            "roleRef.apiGroup",
            given,
            &[GROUP],
        ));
    }
    let kinds: &[&str] = if target.info.namespaced {
        &["Role", "ClusterRole"]
    } else {
        &["ClusterRole"]
    };
    if !kinds.contains(&reference("kind")) {
        errors.push(FieldError::not_supported(
            "roleRef.kind",
            reference("kind"),
            kinds,
        ));
    }
    if reference("name").is_empty() {
        errors.push(FieldError::required("roleRef.name", ""));
    }
    for (i, subject) in list(binding, "subjects").iter().enumerate() {
        let path = format!("subjects[{i}]");
        if text(subject, &["name"]).is_empty() {
            errors.push(FieldError::required(&format!("{path}.name"), ""));
        }
        let kinds = ["ServiceAccount", "User", "Group"];
        let kind = text(subject, &["kind"]);
        if !kinds.contains(&kind) {
            errors.push(FieldError::not_supported(
                &format!("{path}.kind"),
                kind,
                &kinds,
            ));
        }
    }
}

/// A binding keeps its role.
pub fn binding_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    if new.get("roleRef") != old.get("roleRef") {
        let part = |key: &str| text(new, &["roleRef", key]).to_owned();
        let shown = serde_json::json!({"APIGroup": part("apiGroup"), "Kind": part("kind"), "Name": part("name")});
        errors.push(FieldError::invalid(
            "roleRef",
            shown,
            "cannot change roleRef",
        ));
    }
}

/// A limit range's bounds.
pub fn limit_range(range: &Value, errors: &mut Vec<FieldError>) {
    let spec = range.get("spec").unwrap_or(&Value::Null);
    for (i, item) in list(spec, "limits").iter().enumerate() {
        let path = format!("spec.limits[{i}]");
        let amount =
            |part: &str, resource: &str| at(item, &[part, resource]).and_then(Amount::read);
        if text(item, &["type"]) == "Pod" {
            for part in ["default", "defaultRequest"] {
                if item
                    .get(part)
                    .and_then(Value::as_object)
                    .is_some_and(|m| !m.is_empty())
                {
                    let why = "may not be specified when `type` is 'Pod'";
                    errors.push(FieldError::forbidden(&format!("{path}.{part}"), why));
                }
            }
            continue;
        }
        let most = item.get("max").and_then(Value::as_object);
        for (resource, _) in most.into_iter().flatten() {
            let Some(max) = amount("max", resource) else {
                continue;
            };
            for (part, word) in [
                ("min", "min"),
                ("default", "default"),
                ("defaultRequest", "default request"),
            ] {
                let Some(value) = amount(part, resource).filter(|v| v.exceeds(max)) else {
                    continue;
                };
                // The real server shows the bound of a default instead of the default.
                let shown = if part == "default" { max } else { value };
                errors.push(FieldError::invalid(
                    &format!("{path}.{part}[{resource}]"),
                    shown.to_string(),
                    format!("{word} value {value} is greater than max value {max}"),
                ));
            }
        }
    }
}

/// A quota's names, amounts and scopes.
pub fn quota(quota: &Value, errors: &mut Vec<FieldError>) {
    let hard = at(quota, &["spec", "hard"]).and_then(Value::as_object);
    for (name, value) in hard.into_iter().flatten() {
        let path = format!("spec.hard[{name}]");
        let standard = matches!(
            name.as_str(),
            "cpu"
                | "memory"
                | "ephemeral-storage"
                | "pods"
                | "services"
                | "replicationcontrollers"
                | "resourcequotas"
                | "secrets"
                | "configmaps"
                | "persistentvolumeclaims"
        ) || name.starts_with("requests.")
            || name.starts_with("limits.")
            || name.starts_with("services.");
        if !standard && !name.contains('/') {
            for why in [
                "must be a standard resource type or fully qualified",
                "must be a standard resource for quota",
            ] {
                errors.push(FieldError::invalid(&path, name.as_str(), why));
            }
        }
        if value.as_str().is_some_and(|text| text.starts_with('-')) {
            let why = "must be greater than or equal to 0";
            errors.push(FieldError::invalid(&path, value.clone(), why));
        }
    }
    let spec = quota.get("spec").unwrap_or(&Value::Null);
    let best_effort = list(spec, "scopes")
        .iter()
        .any(|s| s.as_str() == Some("BestEffort"));
    let counts_pods_only = hard
        .into_iter()
        .flatten()
        .all(|(name, _)| matches!(name.as_str(), "pods" | "count/pods"));
    if best_effort && !counts_pods_only {
        let scopes = spec.get("scopes").cloned().unwrap_or(Value::Null);
        errors.push(FieldError::invalid(
            "spec.scopes",
            scopes,
            "unsupported scope applied to resource",
        ));
    }
}
