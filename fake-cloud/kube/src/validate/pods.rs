//! Validation of pods and pod templates.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{names, placing, volumes};
use crate::error::FieldError;
use crate::loops::resources::parse_millis;
use crate::meta::{at, text};

const QUANTITY_TEXT: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// Items of a list with their places.
pub(super) fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    value
        .get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .enumerate()
}

/// A value among those allowed; empty is allowed unless `required`.
pub fn one_of(
    path: &str,
    value: &str,
    allowed: &[&str],
    required: bool,
    errors: &mut Vec<FieldError>,
) {
    if value.is_empty() {
        if required {
            errors.push(FieldError::required(path, ""));
        }
    } else if !allowed.contains(&value) {
        errors.push(FieldError::not_supported(path, value, allowed));
    }
}

/// A number that may not be negative.
pub fn not_negative(path: &str, value: Option<&Value>, errors: &mut Vec<FieldError>) {
    if let Some(number) = value.and_then(Value::as_i64)
        && number < 0
    {
        errors.push(FieldError::invalid(
            path,
            number,
            "must be greater than or equal to 0",
        ));
    }
}

/// A pod's or template's `spec` at `path`.
pub fn spec(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    // A volume of two types is none.
    let mountable: BTreeSet<&str> = list(spec, "volumes")
        .filter(|(_, v)| volumes::types(v).len() < 2)
        .map(|(_, v)| text(v, &["name"]))
        .collect();
    for (i, volume) in list(spec, "volumes") {
        volumes::check(volume, &format!("{path}.volumes[{i}]"), errors);
        name(
            &format!("{path}.volumes[{i}].name"),
            text(volume, &["name"]),
            errors,
        );
    }
    if list(spec, "containers").next().is_none() {
        errors.push(FieldError::required(&format!("{path}.containers"), ""));
    }
    let mut seen = BTreeSet::new();
    for kind in ["containers", "initContainers"] {
        for (i, c) in list(spec, kind) {
            let path = format!("{path}.{kind}[{i}]");
            let container_name = text(c, &["name"]);
            name(&format!("{path}.name"), container_name, errors);
            if !container_name.is_empty() && !seen.insert(container_name) {
                errors.push(FieldError::duplicate(
                    &format!("{path}.name"),
                    container_name,
                ));
            }
            if text(c, &["image"]).is_empty() {
                errors.push(FieldError::required(&format!("{path}.image"), ""));
            }
            one_of(
                &format!("{path}.imagePullPolicy"),
                text(c, &["imagePullPolicy"]),
                &["Always", "IfNotPresent", "Never"],
                false,
                errors,
            );
            resources(c.get("resources"), &format!("{path}.resources"), errors);
            for (j, mount) in list(c, "volumeMounts") {
                let volume = text(mount, &["name"]);
                let path = format!("{path}.volumeMounts[{j}]");
                if !mountable.contains(volume) {
                    let mut error = FieldError::invalid(&format!("{path}.name"), volume, "");
                    error.kind = crate::error::FieldErrorKind::NotFound;
                    errors.push(error);
                }
                if text(mount, &["mountPath"]).is_empty() {
                    errors.push(FieldError::required(&format!("{path}.mountPath"), ""));
                }
            }
        }
    }
    one_of(
        &format!("{path}.restartPolicy"),
        text(spec, &["restartPolicy"]),
        &["Always", "OnFailure", "Never"],
        true,
        errors,
    );
    if let Some(seconds) = spec.get("activeDeadlineSeconds").and_then(Value::as_i64)
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        errors.push(FieldError::invalid(
            &format!("{path}.activeDeadlineSeconds"),
            seconds,
            format!("must be between 1 and {}, inclusive", i32::MAX),
        ));
    }
    if text(spec, &["dnsPolicy"]) == "None" && spec.get("dnsConfig").is_none_or(Value::is_null) {
        errors.push(FieldError::required(
            &format!("{path}.dnsConfig"),
            "must provide `dnsConfig` when `dnsPolicy` is None",
        ));
    }
    for (key, value) in spec
        .get("nodeSelector")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let path = format!("{path}.nodeSelector");
        for error in names::qualified_errors(key) {
            errors.push(FieldError::invalid(&path, key.as_str(), error));
        }
        for error in names::label_value_errors(value.as_str().unwrap_or("")) {
            errors.push(FieldError::invalid(&path, value.clone(), error));
        }
    }
    placing::tolerations(spec, path, errors);
    placing::spread(spec, path, errors);
    placing::affinity(spec, path, errors);
}

fn name(path: &str, name: &str, errors: &mut Vec<FieldError>) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else if let Some(error) = names::label_error(name) {
        errors.push(FieldError::invalid(path, name, error));
    }
}

fn resources(resources: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    let Some(resources) = resources else {
        return;
    };
    let shown = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    for part in ["limits", "requests"] {
        for (resource, quantity) in resources
            .get(part)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let path = format!("{path}.{part}[{resource}]");
            match parse_millis(&shown(quantity)) {
                None => errors.push(FieldError::invalid(&path, shown(quantity), QUANTITY_TEXT)),
                Some(amount) if is_extended(resource) && amount % 1000 != 0 => {
                    errors.push(FieldError::invalid(
                        &path,
                        shown(quantity),
                        "must be an integer",
                    ));
                }
                Some(amount) if amount < 0 => errors.push(FieldError::invalid(
                    &path,
                    shown(quantity),
                    "must be greater than or equal to 0",
                )),
                Some(_) => {}
            }
        }
    }
    for (resource, _) in resources
        .get("requests")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(resource, _)| is_extended(resource))
    {
        if at(resources, &["limits", resource]).is_none() {
            errors.push(FieldError::required(
                &format!("{path}.limits"),
                "Limit must be set for non overcommitable resources",
            ));
        }
    }
    for part in ["limits", "requests"] {
        let names = resources.get(part).and_then(Value::as_object);
        for resource in names.into_iter().flatten().map(|(name, _)| name) {
            let standard = matches!(resource.as_str(), "cpu" | "memory" | "ephemeral-storage")
                || resource.starts_with("hugepages-");
            if !standard && !resource.contains('/') {
                let path = format!("{path}.{part}[{resource}]");
                for why in [
                    "must be a standard resource type or fully qualified",
                    "must be a standard resource for containers",
                ] {
                    errors.push(FieldError::invalid(&path, resource.as_str(), why));
                }
            }
        }
    }
    for (resource, limit) in resources
        .get("limits")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let request = at(resources, &["requests", resource]);
        if let Some(request) = request
            && let (Some(wanted), Some(bound)) =
                (parse_millis(&shown(request)), parse_millis(&shown(limit)))
            && wanted > bound
        {
            errors.push(FieldError::invalid(
                &format!("{path}.requests"),
                shown(request),
                format!(
                    "must be less than or equal to {resource} limit of {}",
                    shown(limit)
                ),
            ));
        }
    }
}

/// Whether a resource is neither Kubernetes' own nor one that may be overcommitted.
fn is_extended(resource: &str) -> bool {
    resource.contains('/') && !resource.starts_with("kubernetes.io/")
}

/// What an update of a pod may not change.
pub fn update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let frozen = |pod: &Value| -> Value {
        let mut spec = pod.get("spec").cloned().unwrap_or(Value::Null);
        if let Some(map) = spec.as_object_mut() {
            for key in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
                map.remove(key);
            }
            for kind in ["containers", "initContainers"] {
                for c in map
                    .get_mut(kind)
                    .and_then(Value::as_array_mut)
                    .into_iter()
                    .flatten()
                {
                    if let Some(c) = c.as_object_mut() {
                        c.remove("image");
                    }
                }
            }
            // Pods that are still gated may be narrowed to fewer nodes.
            if list(old.get("spec").unwrap_or(&Value::Null), "schedulingGates")
                .next()
                .is_some()
            {
                map.remove("nodeSelector");
                map.remove("affinity");
            }
        }
        spec
    };
    let deadline =
        |pod: &Value| at(pod, &["spec", "activeDeadlineSeconds"]).and_then(Value::as_i64);
    match (deadline(old), deadline(new)) {
        (Some(before), Some(after)) if after > before => {
            let why = "must be less than or equal to previous value";
            errors.push(FieldError::invalid(
                "spec.activeDeadlineSeconds",
                after,
                why,
            ));
        }
        (Some(_), None) => {
            let why = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid(
                "spec.activeDeadlineSeconds",
                Value::Null,
                why,
            ));
        }
        _ => {}
    }
    if frozen(new) != frozen(old) {
        errors.push(FieldError::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ));
    }
    let tolerations = |pod: &Value| {
        at(pod, &["spec", "tolerations"])
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let after = tolerations(new);
    let same_but_seconds = |a: &Value, b: &Value| {
        ["key", "operator", "value", "effect"]
            .iter()
            .all(|k| text(a, &[k]) == text(b, &[k]))
    };
    if tolerations(old)
        .iter()
        .any(|t| !after.iter().any(|n| same_but_seconds(n, t)))
    {
        errors.push(FieldError::forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        ));
    }
    let gates = |pod: &Value| -> BTreeSet<String> {
        let spec = pod.get("spec").unwrap_or(&Value::Null);
        list(spec, "schedulingGates")
            .map(|(_, g)| text(g, &["name"]).to_owned())
            .collect()
    };
    let before = gates(old);
    for (i, gate) in list(new.get("spec").unwrap_or(&Value::Null), "schedulingGates") {
        let name = text(gate, &["name"]);
        if !before.contains(name) {
            errors.push(FieldError::forbidden(
                &format!("spec.schedulingGates[{i}].name"),
                format!("only deletion is allowed, but found new scheduling gate '{name}'"),
            ));
        }
    }
    let selector = |pod: &Value| {
        at(pod, &["spec", "nodeSelector"])
            .cloned()
            .unwrap_or(Value::Null)
    };
    let (narrower, was) = (selector(new), selector(old));
    let kept = |(key, value): (&String, &Value)| narrower.get(key) == Some(value);
    if !before.is_empty() && !was.as_object().into_iter().flatten().all(kept) {
        errors.push(FieldError::invalid(
            "spec.nodeSelector",
            narrower,
            "only additions to spec.nodeSelector are allowed (no mutations or deletions)",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn pod(more: Value) -> Value {
        let mut spec =
            json!({"restartPolicy": "Always", "containers": [{"name": "a", "image": "i"}]});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        json!({"spec": spec})
    }

    #[rstest]
    #[case(json!({}), &[])]
    #[case(json!({"containers": []}), &["spec.containers: Required value"])]
    #[case(json!({"containers": [{"name": "a"}]}), &["spec.containers[0].image: Required value"])]
    #[case(json!({"containers": [{"name": "a", "image": "i"}, {"name": "a", "image": "i"}]}), &["spec.containers[1].name: Duplicate value: \"a\""])]
    #[case(json!({"containers": [{"name": "a", "image": "i", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}]}),
           &["spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"])]
    #[case(json!({"containers": [{"name": "a", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}),
           &["spec.containers[0].volumeMounts[0].name: Not found: \"v\""])]
    #[case(json!({"restartPolicy": "Maybe"}), &["spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"OnFailure\", \"Never\""])]
    #[case(json!({"tolerations": [{"operator": "Exists"}, {"key": "a", "effect": "NoSchedule"}]}), &[])]
    #[case(json!({"tolerations": [{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 5}]}),
           &["spec.tolerations[0].effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute' when `tolerationSeconds` is set"])]
    #[case(json!({"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}]}),
           &["spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero"])]
    #[case(json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
               {"matchExpressions": [{"key": "k", "operator": "In"}]}]}}}}),
           &["spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"])]
    fn specs(#[case] more: Value, #[case] expected: &[&str]) {
        let mut errors = Vec::new();
        spec(&pod(more)["spec"], "spec", &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts, expected);
    }

    #[rstest]
    #[case(json!({}), json!({"containers": [{"name": "a", "image": "j"}]}), 0)]
    #[case(json!({}), json!({"tolerations": [{"key": "x"}]}), 0)]
    #[case(json!({"tolerations": [{"key": "x"}]}), json!({}), 1)]
    #[case(json!({}), json!({"nodeSelector": {"a": "b"}}), 1)]
    #[case(json!({"schedulingGates": [{"name": "g"}]}), json!({"nodeSelector": {"a": "b"}}), 0)]
    #[case(json!({}), json!({"schedulingGates": [{"name": "g"}]}), 1)]
    #[case(json!({}), json!({"nodeName": "n"}), 1)]
    fn updates(#[case] old: Value, #[case] new: Value, #[case] count: usize) {
        let mut errors = Vec::new();
        update(&pod(new), &pod(old), &mut errors);
        assert_eq!(errors.len(), count, "{errors:?}");
    }
}
