//! Defaults of the workload kinds.

use serde_json::{Value, json};

use super::pod;
use crate::meta::{self, as_map, child, default_to};

/// Old ReplicaSets and revisions kept.
const REVISION_HISTORY_LIMIT: i64 = 10;
/// Time a rollout may take before it counts as stuck, in seconds.
const PROGRESS_DEADLINE_SECONDS: i64 = 600;

/// A Deployment.
pub fn deployment(object: &mut Value) {
    let spec = child(object, "spec");
    pod::template(child(spec, "template"));
    let spec = as_map(spec);
    default_to(spec, "replicas", 1);
    default_to(spec, "revisionHistoryLimit", REVISION_HISTORY_LIMIT);
    default_to(spec, "progressDeadlineSeconds", PROGRESS_DEADLINE_SECONDS);
    let strategy = as_map(spec.entry("strategy").or_insert(Value::Null));
    default_to(strategy, "type", "RollingUpdate");
    if strategy.get("type") == Some(&json!("RollingUpdate")) {
        let rolling = as_map(strategy.entry("rollingUpdate").or_insert(Value::Null));
        default_to(rolling, "maxUnavailable", "25%");
        default_to(rolling, "maxSurge", "25%");
    }
    as_map(child(object, "status"));
}

/// A ReplicaSet.
pub fn replica_set(object: &mut Value) {
    let spec = child(object, "spec");
    pod::template(child(spec, "template"));
    default_to(as_map(spec), "replicas", 1);
    default_to(as_map(child(object, "status")), "replicas", 0);
}

/// A StatefulSet.
pub fn stateful_set(object: &mut Value) {
    let spec = child(object, "spec");
    pod::template(child(spec, "template"));
    let spec = as_map(spec);
    default_to(spec, "replicas", 1);
    default_to(spec, "podManagementPolicy", "OrderedReady");
    default_to(spec, "revisionHistoryLimit", REVISION_HISTORY_LIMIT);
    default_to(
        spec,
        "persistentVolumeClaimRetentionPolicy",
        json!({"whenDeleted": "Retain", "whenScaled": "Retain"}),
    );
    let strategy = as_map(spec.entry("updateStrategy").or_insert(Value::Null));
    default_to(strategy, "type", "RollingUpdate");
    if strategy.get("type") == Some(&json!("RollingUpdate")) {
        default_to(
            as_map(strategy.entry("rollingUpdate").or_insert(Value::Null)),
            "partition",
            0,
        );
    }
    for claim in spec
        .get_mut("volumeClaimTemplates")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        default_to(as_map(claim), "apiVersion", "v1");
        default_to(as_map(claim), "kind", "PersistentVolumeClaim");
        default_to(as_map(child(claim, "spec")), "volumeMode", "Filesystem");
        default_to(as_map(child(claim, "status")), "phase", "Pending");
    }
    let status = as_map(child(object, "status"));
    default_to(status, "replicas", 0);
    default_to(status, "availableReplicas", 0);
}

/// A DaemonSet.
pub fn daemon_set(object: &mut Value) {
    let spec = child(object, "spec");
    pod::template(child(spec, "template"));
    let spec = as_map(spec);
    default_to(spec, "revisionHistoryLimit", REVISION_HISTORY_LIMIT);
    let strategy = as_map(spec.entry("updateStrategy").or_insert(Value::Null));
    default_to(strategy, "type", "RollingUpdate");
    if strategy.get("type") == Some(&json!("RollingUpdate")) {
        let rolling = as_map(strategy.entry("rollingUpdate").or_insert(Value::Null));
        default_to(rolling, "maxUnavailable", 1);
        default_to(rolling, "maxSurge", 0);
    }
    let status = as_map(child(object, "status"));
    for count in [
        "currentNumberScheduled",
        "desiredNumberScheduled",
        "numberMisscheduled",
        "numberReady",
    ] {
        default_to(status, count, 0);
    }
}

/// A Job: counts, and the selector and labels that tie its pods to it by UID.
pub fn job(object: &mut Value) {
    let uid = crate::meta::uid(object).to_owned();
    let name = crate::meta::name(object).to_owned();
    job_spec(child(object, "spec"));
    let spec = child(object, "spec");
    let manual = spec.get("manualSelector") == Some(&Value::Bool(true));
    if !manual && !uid.is_empty() {
        default_to(
            as_map(spec),
            "selector",
            json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}),
        );
        let labels = as_map(child(child(child(spec, "template"), "metadata"), "labels"));
        for prefix in ["", "batch.kubernetes.io/"] {
            default_to(labels, &format!("{prefix}controller-uid"), uid.as_str());
            default_to(labels, &format!("{prefix}job-name"), name.as_str());
        }
    }
    let labels = crate::meta::at(object, &["spec", "template", "metadata", "labels"]).cloned();
    if let Some(labels) = labels.filter(|l| l.as_object().is_some_and(|l| !l.is_empty())) {
        default_to(crate::meta::metadata(object), "labels", labels);
    }
    as_map(child(object, "status"));
}

fn job_spec(spec: &mut Value) {
    pod::template(child(spec, "template"));
    let spec = as_map(spec);
    if !spec.contains_key("completions") && !spec.contains_key("parallelism") {
        spec.insert("completions".into(), 1.into());
    }
    default_to(spec, "parallelism", 1);
    default_to(spec, "backoffLimit", 6);
    default_to(spec, "completionMode", "NonIndexed");
    default_to(spec, "suspend", false);
    default_to(spec, "manualSelector", false);
    default_to(spec, "podReplacementPolicy", "TerminatingOrFailed");
}

/// A CronJob.
pub fn cron_job(object: &mut Value) {
    let spec = child(object, "spec");
    let template = child(child(spec, "jobTemplate"), "spec");
    pod::template(child(template, "template"));
    let spec = as_map(spec);
    default_to(spec, "concurrencyPolicy", "Allow");
    default_to(spec, "suspend", false);
    default_to(spec, "successfulJobsHistoryLimit", 3);
    default_to(spec, "failedJobsHistoryLimit", 1);
    as_map(child(object, "status"));
}

/// Where a DaemonSet counts the changes of its template, which only old clients read.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// The count of a DaemonSet's template is the server's: no client changes it.
pub fn keep_template_generation(daemon_set: &mut Value, old: &Value) {
    let Some(count) = meta::at(old, &["metadata", "annotations", TEMPLATE_GENERATION]) else {
        return;
    };
    let annotations = child(child(daemon_set, "metadata"), "annotations");
    as_map(annotations).insert(TEMPLATE_GENERATION.into(), count.clone());
}

/// Counts a new DaemonSet's template, or a change of one.
pub fn count_template(daemon_set: &mut Value, old: Option<&Value>) {
    let template = |d: &Value| meta::at(d, &["spec", "template"]).cloned();
    let count = match old {
        Some(old) if template(old) == template(daemon_set) => return,
        Some(old) => meta::text(old, &["metadata", "annotations", TEMPLATE_GENERATION])
            .parse()
            .unwrap_or(0_u64),
        None => 0,
    };
    let annotations = child(child(daemon_set, "metadata"), "annotations");
    let count = count.saturating_add(1).to_string();
    as_map(annotations).insert(TEMPLATE_GENERATION.into(), count.into());
}
