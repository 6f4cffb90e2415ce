//! Validation of nodes, disruption budgets and other small kinds.

use std::collections::BTreeSet;

use karpenter_api::quantity::Quantity;
use serde_json::Value;

use super::{names, pods, selectors};
use crate::error::FieldError;
use crate::meta::{at, text};
use crate::wire::gojson;

/// A node's taints.
pub fn taints(node: &Value, errors: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    let taints = at(node, &["spec", "taints"]).and_then(Value::as_array);
    for (i, taint) in taints.into_iter().flatten().enumerate() {
        let path = format!("metadata.taints[{i}]");
        let (key, effect) = (text(taint, &["key"]), text(taint, &["effect"]));
        for error in names::qualified_errors(key) {
            errors.push(FieldError::invalid(&format!("{path}.key"), key, error));
        }
        for error in names::label_value_errors(text(taint, &["value"])) {
            errors.push(FieldError::invalid(
                &format!("{path}.value"),
                text(taint, &["value"]),
                error,
            ));
        }
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        pods::one_of(&format!("{path}.effect"), effect, &effects, true, errors);
        if !seen.insert((key, effect)) {
            let shown = gojson::internal("core.v1.Taint", taint);
            let mut error = FieldError::duplicate(&path, taint.clone()).showing(shown);
            error.detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(error);
        }
    }
}

/// A node's taints, and the ranges of its pods' addresses.
pub fn node(node: &Value, errors: &mut Vec<FieldError>) {
    let ranges = at(node, &["spec", "podCIDRs"]).and_then(Value::as_array);
    for (i, range) in ranges.into_iter().flatten().enumerate() {
        let range = range.as_str().unwrap_or_default();
        if !is_range(range) {
            let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            errors.push(FieldError::invalid(
                &format!("spec.podCIDRs[{i}]"),
                range,
                why,
            ));
        }
    }
    taints(node, errors);
}

fn is_range(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return false;
    };
    let most = match address.parse() {
        Ok(std::net::IpAddr::V4(_)) => 32,
        Ok(std::net::IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}

/// What a node has and gives: nothing below zero, and of what is not Kubernetes' own only whole ones.
pub fn node_resources(node: &Value, errors: &mut Vec<FieldError>) {
    for part in ["capacity", "allocatable"] {
        let amounts = at(node, &["status", part]).and_then(Value::as_object);
        for (name, amount) in amounts.into_iter().flatten() {
            let told = amount.as_str().unwrap_or_default();
            let Ok((quantity, _)) = Quantity::parse_with_format(told) else {
                continue;
            };
            let path = format!("status.{part}.{name}");
            let whole = name.contains('/') && !name.starts_with("kubernetes.io/");
            if quantity.nanos() < 0 {
                let why = "must be greater than or equal to 0";
                errors.push(FieldError::invalid(&path, told, why));
            } else if whole && quantity != Quantity::from_units(quantity.units()) {
                errors.push(FieldError::invalid(&path, told, "must be an integer"));
            }
        }
    }
}

/// What an update of a node may not change. Its taints were looked at, and are once more.
pub fn node_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    taints(new, errors);
    let (before, after) = (
        text(old, &["spec", "providerID"]),
        text(new, &["spec", "providerID"]),
    );
    if !before.is_empty() && before != after {
        errors.push(FieldError::forbidden(
            "spec.providerID",
            "node updates may not change providerID except from \"\" to valid",
        ));
    }
}

/// A disruption budget.
pub fn budget(budget: &Value, errors: &mut Vec<FieldError>) {
    let spec = budget.get("spec").unwrap_or(&Value::Null);
    let bound = |key: &str| spec.get(key).filter(|v| !v.is_null());
    if bound("minAvailable").is_some() && bound("maxUnavailable").is_some() {
        errors.push(
            FieldError::invalid(
                "spec",
                spec.clone(),
                "minAvailable and maxUnavailable cannot be both set",
            )
            .showing(gojson::internal("policy.v1.PodDisruptionBudgetSpec", spec)),
        );
    }
    for key in ["minAvailable", "maxUnavailable"] {
        let path = format!("spec.{key}");
        match bound(key) {
            Some(Value::String(percent)) => {
                let number = percent
                    .strip_suffix('%')
                    .and_then(|p| p.parse::<u32>().ok());
                match number {
                    None => errors.push(FieldError::invalid(
                        &path,
                        percent.as_str(),
                        "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
                    )),
                    Some(number) if number > 100 => errors.push(FieldError::invalid(
                        &path,
                        percent.as_str(),
                        "must not be greater than 100%",
                    )),
                    Some(_) => {}
                }
            }
            other => pods::not_negative(&path, other, errors),
        }
    }
    selectors::label_selector(spec.get("selector"), "spec.selector", errors);
    pods::one_of(
        "spec.unhealthyPodEvictionPolicy",
        text(spec, &["unhealthyPodEvictionPolicy"]),
        &["AlwaysAllow", "IfHealthyBudget"],
        false,
        errors,
    );
}

/// A priority class.
pub fn priority_class(class: &Value, errors: &mut Vec<FieldError>) {
    const OF_USERS_MAX: i64 = 1_000_000_000;
    let name = crate::meta::name(class);
    if matches!(name, "system-cluster-critical" | "system-node-critical") {
        return;
    }
    if name.starts_with("system-") {
        errors.push(FieldError::forbidden(
            "metadata.name",
            format!(
                "priority class names with 'system-' prefix are reserved for system use only. error: {name} is not a known system priority class"
            ),
        ));
    }
    if class.get("value").and_then(Value::as_i64).unwrap_or(0) > OF_USERS_MAX {
        errors.push(FieldError::forbidden(
            "value",
            format!("maximum allowed value of a user defined priority is {OF_USERS_MAX}"),
        ));
    }
}

/// A lease.
pub fn lease(lease: &Value, errors: &mut Vec<FieldError>) {
    if let Some(seconds) = at(lease, &["spec", "leaseDurationSeconds"]).and_then(Value::as_i64)
        && seconds <= 0
    {
        errors.push(FieldError::invalid(
            "spec.leaseDurationSeconds",
            seconds,
            "must be greater than 0",
        ));
    }
    let transitions = at(lease, &["spec", "leaseTransitions"]);
    pods::not_negative("spec.leaseTransitions", transitions, errors);
}

/// A claim of storage.
pub fn claim(claim: &Value, errors: &mut Vec<FieldError>) {
    let modes = at(claim, &["spec", "accessModes"]).and_then(Value::as_array);
    if modes.is_none_or(Vec::is_empty) {
        errors.push(FieldError::required(
            "spec.accessModes",
            "at least 1 access mode is required",
        ));
    }
    let selector = at(claim, &["spec", "selector"]);
    selectors::label_selector(selector, "spec.selector", errors);
    if at(claim, &["spec", "resources", "requests", "storage"]).is_none() {
        errors.push(FieldError::required("spec.resources[storage]", ""));
    }
}

/// What an update of a claim may not change: all but its size and its attributes' class once it is bound, and its volume
/// as long as it has none.
pub fn claim_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let bound = text(old, &["status", "phase"]) == "Bound";
    let kept = |claim: &Value| {
        let mut spec = claim.get("spec").cloned().unwrap_or(Value::Null);
        if let Some(map) = spec.as_object_mut() {
            if text(old, &["spec", "volumeName"]).is_empty() {
                map.remove("volumeName");
            }
            if bound {
                map.remove("volumeAttributesClassName");
                if let Some(resources) = map.get_mut("resources").and_then(Value::as_object_mut) {
                    resources.remove("requests");
                }
            }
        }
        spec
    };
    if kept(new) != kept(old) {
        errors.push(FieldError::forbidden(
            "spec",
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        ));
    }
}

/// A service's ports.
pub fn service(service: &Value, errors: &mut Vec<FieldError>) {
    let spec = service.get("spec").unwrap_or(&Value::Null);
    let ports = spec.get("ports").and_then(Value::as_array);
    let free = text(spec, &["clusterIP"]) == "None" || text(spec, &["type"]) == "ExternalName";
    if ports.is_none_or(Vec::is_empty) && !free {
        errors.push(FieldError::required("spec.ports", ""));
    }
    let several = ports.is_some_and(|p| p.len() > 1);
    for (i, port) in ports.into_iter().flatten().enumerate() {
        if several && text(port, &["name"]).is_empty() {
            errors.push(FieldError::required(&format!("spec.ports[{i}].name"), ""));
        }
        for key in ["port", "targetPort"] {
            if let Some(number) = port.get(key).and_then(Value::as_i64)
                && !(1..=65_535).contains(&number)
            {
                errors.push(FieldError::invalid(
                    &format!("spec.ports[{i}].{key}"),
                    number,
                    "must be between 1 and 65535, inclusive",
                ));
            }
        }
    }
}

/// An event is in the namespace of what it is about.
pub fn event(event: &Value, errors: &mut Vec<FieldError>) {
    let about = text(event, &["involvedObject", "namespace"]);
    let namespace = crate::meta::namespace(event);
    if about != namespace && !(about.is_empty() && namespace == "default") {
        errors.push(FieldError::invalid(
            "involvedObject.namespace",
            about,
            "does not match event.namespace",
        ));
    }
}

/// A controller's revision holds something.
pub fn revision(revision: &Value, errors: &mut Vec<FieldError>) {
    if revision.get("data").is_none_or(Value::is_null) {
        errors.push(FieldError::required("data", "data is mandatory"));
    }
}

/// What a secret of a known type must hold.
pub fn secret(secret: &Value, errors: &mut Vec<FieldError>) {
    let needed: &[&str] = match text(secret, &["type"]) {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    let lacks = |key: &str| at(secret, &["data", key]).is_none();
    let lacking = |key: &str| FieldError::required(&format!("data[{key}]"), "");
    errors.extend(needed.iter().filter(|k| lacks(k)).map(|k| lacking(k)));
    // One of the two will do.
    let basic = text(secret, &["type"]) == "kubernetes.io/basic-auth";
    if basic && lacks("username") && lacks("password") {
        errors.extend(["username", "password"].map(lacking));
    }
}

/// Keys of a config map or a secret.
pub fn data_keys(object: &Value, errors: &mut Vec<FieldError>) {
    const KEY_LEN_MAX: usize = 253;
    for part in ["data", "binaryData"] {
        let data = object.get(part).and_then(Value::as_object);
        for key in data.into_iter().flatten().map(|(key, _)| key) {
            let path = format!("{part}[{key}]");
            let usable = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if key.len() > KEY_LEN_MAX {
                let why = format!("must be no more than {KEY_LEN_MAX} bytes");
                errors.push(FieldError::invalid(&path, key.as_str(), why));
            } else if key.is_empty() || !key.chars().all(usable) {
                errors.push(FieldError::invalid(
                    &path,
                    key.as_str(),
                    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
                ));
            } else if matches!(key.as_str(), "." | "..") {
                let why = format!("must not be '{key}'");
                errors.push(FieldError::invalid(&path, key.as_str(), why));
            }
        }
    }
}

/// Config maps and secrets that say so do not change any more; a secret keeps its type.
pub fn kept_data(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    if new.get("type") != old.get("type") {
        errors.push(FieldError::invalid(
            "type",
            new.get("type").cloned().unwrap_or(Value::Null),
            "field is immutable",
        ));
    }
    if old.get("immutable") != Some(&Value::Bool(true)) {
        return;
    }
    let why = "field is immutable when `immutable` is set";
    if new.get("immutable") != Some(&Value::Bool(true)) {
        errors.push(FieldError::forbidden("immutable", why));
    }
    for key in ["data", "binaryData"] {
        if new.get(key) != old.get(key) {
            errors.push(FieldError::forbidden(key, why));
        }
    }
}

/// What an update of a priority class may not change.
pub fn priority_class_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    for key in ["value", "preemptionPolicy"] {
        if new.get(key) != old.get(key) {
            errors.push(FieldError::forbidden(
                key,
                "may not be changed in an update.",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn texts(check: impl Fn(&mut Vec<FieldError>)) -> Vec<String> {
        let mut errors = Vec::new();
        check(&mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[rstest]
    #[case(json!({"minAvailable": "50%"}), None)]
    #[case(json!({"maxUnavailable": 0}), None)]
    #[case(json!({"minAvailable": 1, "maxUnavailable": 1}), Some("cannot be both set"))]
    #[case(json!({"minAvailable": "101%"}), Some("must not be greater than 100%"))]
    #[case(json!({"minAvailable": "half"}), Some("a valid percent string"))]
    #[case(json!({"minAvailable": -1}), Some("must be greater than or equal to 0"))]
    fn budgets(#[case] spec: Value, #[case] expected: Option<&str>) {
        let found = texts(|e| budget(&json!({"spec": spec}), e));
        assert_eq!(found.len(), usize::from(expected.is_some()), "{found:?}");
        assert!(found.iter().all(|t| t.contains(expected.unwrap())));
    }

    #[test]
    fn nodes() {
        let tainted = |taints: Value| texts(|e| node(&json!({"spec": {"taints": taints}}), e));
        assert!(
            tainted(
                json!([{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoExecute"}])
            )
            .is_empty()
        );
        assert_eq!(
            tainted(json!([{"key": "a"}])),
            ["metadata.taints[0].effect: Required value"]
        );
        assert_eq!(
            tainted(
                json!([{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}])
            )
            .len(),
            1
        );
        let with = |id: &str| json!({"spec": {"providerID": id}});
        assert!(texts(|e| node_update(&with("x"), &json!({}), e)).is_empty());
        assert_eq!(texts(|e| node_update(&with("y"), &with("x"), e)).len(), 1);
    }
}
