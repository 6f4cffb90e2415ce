//! Validation of workloads: selectors, templates, counts, and what stays as it was made.

use serde_json::Value;

use super::pods;
use crate::error::FieldError;
use crate::meta::{at, text};
use crate::ops::Target;
use crate::selectors;
use crate::wire::gojson;

/// Fields of a cron schedule.
const CRON_FIELDS: usize = 5;

/// Errors of a workload.
pub fn check(target: &Target, object: &Value, errors: &mut Vec<FieldError>) {
    let spec = object.get("spec").unwrap_or(&Value::Null);
    let kind = target.info.plural.as_str();
    if kind == "controllerrevisions" {
        return;
    }
    if kind == "cronjobs" {
        if text(spec, &["schedule"]).is_empty() {
            errors.push(FieldError::required("spec.schedule", ""));
        } else {
            let schedule = text(spec, &["schedule"]);
            let fields: Vec<&str> = schedule.split_whitespace().collect();
            if fields.len() != CRON_FIELDS && !schedule.starts_with('@') {
                errors.push(FieldError::invalid(
                    "spec.schedule",
                    schedule,
                    format!(
                        "expected exactly {CRON_FIELDS} fields, found {}: [{}]",
                        fields.len(),
                        fields.join(" ")
                    ),
                ));
            }
        }
        let job = at(spec, &["jobTemplate", "spec"]).unwrap_or(&Value::Null);
        return job_spec(job, "spec.jobTemplate.spec", errors);
    }
    if kind == "jobs" {
        return job_spec(spec, "spec", errors);
    }
    pods::not_negative("spec.replicas", spec.get("replicas"), errors);
    pods::not_negative("spec.minReadySeconds", spec.get("minReadySeconds"), errors);
    selector(target, spec, errors);
    if kind == "deployments" {
        strategy(spec, errors);
    }
    let template = at(spec, &["template", "spec"]).unwrap_or(&Value::Null);
    pods::spec(template, "spec.template.spec", errors);
    let policy = text(template, &["restartPolicy"]);
    if matches!(policy, "OnFailure" | "Never") {
        errors.push(FieldError::not_supported(
            "spec.template.spec.restartPolicy",
            policy,
            &["Always"],
        ));
    }
}

/// Counts of a workload's status: what is ready or available is there.
pub fn counts(object: &Value, errors: &mut Vec<FieldError>) {
    let count = |key: &str| {
        at(object, &["status", key])
            .and_then(Value::as_i64)
            .unwrap_or(0)
    };
    let mut most = |key: &str, max: i64, of: &str| {
        if count(key) > max {
            let why = format!("cannot be greater than {of}");
            errors.push(FieldError::invalid(
                &format!("status.{key}"),
                count(key),
                why,
            ));
        }
    };
    for key in [
        "updatedReplicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
    ] {
        most(key, count("replicas"), "status.replicas");
    }
    most("availableReplicas", count("readyReplicas"), "readyReplicas");
}

fn selector(target: &Target, spec: &Value, errors: &mut Vec<FieldError>) {
    let Some(selector) = spec.get("selector").filter(|s| !s.is_null()) else {
        errors.push(FieldError::required("spec.selector", ""));
        unselected(spec, errors);
        return;
    };
    let before = errors.len();
    super::selectors::label_selector(Some(selector), "spec.selector", errors);
    let malformed = errors.len() > before;
    let empty = |key: &str| {
        let part = selector.get(key).unwrap_or(&Value::Null);
        part.as_object().is_none_or(serde_json::Map::is_empty)
            && part.as_array().is_none_or(Vec::is_empty)
    };
    if empty("matchLabels") && empty("matchExpressions") {
        let why = format!("empty selector is invalid for {}", target.info.singular);
        errors.push(FieldError::invalid("spec.selector", selector.clone(), why));
        return;
    }
    if malformed {
        let why = match target.info.plural.as_str() {
            // Here nobody says so twice.
            "daemonsets" => return,
            "statefulsets" => "",
            _ => "invalid label selector",
        };
        let shown = gojson::of_type("meta.v1.LabelSelector", selector);
        errors.push(FieldError::invalid("spec.selector", selector.clone(), why).showing(shown));
        return;
    }
    let template = spec.get("template").unwrap_or(&Value::Null);
    if !selectors::object_selects(Some(selector), template) {
        unselected(spec, errors);
    }
}

fn unselected(spec: &Value, errors: &mut Vec<FieldError>) {
    let labels = at(spec, &["template", "metadata", "labels"]).cloned();
    errors.push(FieldError::invalid(
        "spec.template.metadata.labels",
        labels.unwrap_or(Value::Null),
        "`selector` does not match template `labels`",
    ));
}

/// How a Deployment replaces its pods.
fn strategy(spec: &Value, errors: &mut Vec<FieldError>) {
    let rolling = at(spec, &["strategy", "rollingUpdate"]).filter(|r| !r.is_null());
    match (text(spec, &["strategy", "type"]), rolling) {
        ("Recreate", Some(_)) => errors.push(FieldError::forbidden(
            "spec.strategy.rollingUpdate",
            "may not be specified when strategy `type` is 'Recreate'",
        )),
        ("RollingUpdate", Some(rolling)) => {
            let none = |key: &str| match rolling.get(key) {
                Some(Value::Number(n)) => n.as_i64() == Some(0),
                Some(Value::String(s)) => s == "0%",
                _ => false,
            };
            if none("maxSurge") && none("maxUnavailable") {
                errors.push(FieldError::invalid(
                    "spec.strategy.rollingUpdate.maxUnavailable",
                    rolling
                        .get("maxUnavailable")
                        .cloned()
                        .unwrap_or(Value::Null),
                    "may not be 0 when `maxSurge` is 0",
                ));
            }
        }
        _ => {}
    }
}

fn job_spec(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for key in [
        "parallelism",
        "completions",
        "backoffLimit",
        "activeDeadlineSeconds",
        "ttlSecondsAfterFinished",
    ] {
        pods::not_negative(&format!("{path}.{key}"), spec.get(key), errors);
    }
    let template = at(spec, &["template", "spec"]).unwrap_or(&Value::Null);
    pods::spec(template, &format!("{path}.template.spec"), errors);
    let selector = spec.get("selector");
    super::selectors::label_selector(selector, &format!("{path}.selector"), errors);
    if text(template, &["restartPolicy"]) == "Always" {
        errors.push(FieldError::required(
            &format!("{path}.template.spec.restartPolicy"),
            "valid values: \"OnFailure\", \"Never\"",
        ));
    }
}

/// A job's template without what says where its pods go.
fn unplaced(job: &Value) -> Value {
    let mut template = at(job, &["spec", "template"])
        .cloned()
        .unwrap_or(Value::Null);
    let placing = ["nodeSelector", "affinity", "tolerations", "schedulingGates"];
    for (part, keys) in [
        ("metadata", &["labels", "annotations"][..]),
        ("spec", &placing[..]),
    ] {
        if let Some(map) = template.get_mut(part).and_then(Value::as_object_mut) {
            map.retain(|key, _| !keys.contains(&key.as_str()));
        }
    }
    template
}

/// What an update of a workload may not change.
pub fn update(target: &Target, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let field =
        |object: &Value, key: &str| at(object, &["spec", key]).cloned().unwrap_or(Value::Null);
    let mut immutable = |key: &str| {
        if field(new, key) != field(old, key) {
            errors.push(FieldError::invalid(
                &format!("spec.{key}"),
                field(new, key),
                "field is immutable",
            ));
        }
    };
    match target.info.plural.as_str() {
        "deployments" | "replicasets" | "daemonsets" => immutable("selector"),
        "jobs" => {
            immutable("selector");
            // A suspended job's template may still be narrowed; a started one's may not.
            let suspended = at(old, &["spec", "suspend"]) == Some(&Value::Bool(true));
            if !suspended || unplaced(new) != unplaced(old) {
                immutable("template");
            }
            immutable("completionMode");
            let indexed = |o: &Value| text(o, &["spec", "completionMode"]) == "Indexed";
            if !indexed(old) {
                immutable("completions");
            }
            immutable("podFailurePolicy");
            immutable("successPolicy");
        }
        "statefulsets" => {
            const FREE: [&str; 7] = [
                "replicas",
                "ordinals",
                "template",
                "updateStrategy",
                "revisionHistoryLimit",
                "persistentVolumeClaimRetentionPolicy",
                "minReadySeconds",
            ];
            let frozen = |object: &Value| -> Value {
                let mut spec = object.get("spec").cloned().unwrap_or(Value::Null);
                if let Some(map) = spec.as_object_mut() {
                    map.retain(|key, _| !FREE.contains(&key.as_str()));
                }
                spec
            };
            if frozen(new) != frozen(old) {
                errors.push(FieldError::forbidden(
                    "spec",
                    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
                ));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;
    use rstest::rstest;
    use serde_json::json;
    use std::sync::Arc;

    fn errors(plural: &str, group: &str, spec: &Value, old: Option<&Value>) -> Vec<String> {
        let registry = Registry::default();
        let target = Target::new(Arc::clone(registry.get(group, plural).unwrap()), 0, None);
        let mut errors = Vec::new();
        match old {
            None => check(&target, &json!({"spec": spec}), &mut errors),
            Some(old) => update(
                &target,
                &json!({"spec": spec}),
                &json!({"spec": old}),
                &mut errors,
            ),
        }
        errors.iter().map(ToString::to_string).collect()
    }

    fn template(policy: &str) -> Value {
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"restartPolicy": policy, "containers": [{"name": "c", "image": "i"}]}})
    }

    #[rstest]
    #[case(json!({"selector": {"matchLabels": {"a": "b"}}, "template": template("Always")}), &[])]
    #[case(json!({"template": template("Always")}), &["spec.selector: Required value",
             "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`"])]
    #[case(json!({"selector": {}, "template": template("Always")}), &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"])]
    #[case(json!({"selector": {"matchLabels": {"a": "c"}}, "template": template("Always")}),
           &["spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`"])]
    #[case(json!({"selector": {"matchLabels": {"a": "b"}}, "replicas": -1, "template": template("Never")}),
           &["spec.replicas: Invalid value: -1: must be greater than or equal to 0",
             "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""])]
    fn deployments(#[case] spec: Value, #[case] expected: &[&str]) {
        assert_eq!(errors("deployments", "apps", &spec, None), expected);
    }

    #[test]
    fn jobs_do_not_restart_always_and_stay_what_they_are() {
        assert_eq!(
            errors(
                "jobs",
                "batch",
                &json!({"template": template("Always")}),
                None
            ),
            [
                "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""
            ]
        );
        let changed = errors(
            "jobs",
            "batch",
            &json!({"template": template("Never")}),
            Some(&json!({"template": template("OnFailure")})),
        );
        assert!(
            changed[0].starts_with("spec.template: Invalid value")
                && changed[0].ends_with("field is immutable"),
            "{changed:?}"
        );
    }

    #[test]
    fn stateful_sets_keep_their_identity() {
        let old = json!({"serviceName": "a", "replicas": 1});
        assert!(
            errors(
                "statefulsets",
                "apps",
                &json!({"serviceName": "a", "replicas": 2}),
                Some(&old)
            )
            .is_empty()
        );
        assert_eq!(
            errors(
                "statefulsets",
                "apps",
                &json!({"serviceName": "b", "replicas": 1}),
                Some(&old)
            )
            .len(),
            1
        );
    }
}
