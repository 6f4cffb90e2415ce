//! Cells of pods: the one status that sums up phase, containers and deletion.

use serde_json::Value;

use super::age;
use super::render::{count, or_none};
use crate::meta::{self, at, items, text};

/// Cells of a pod.
#[must_use]
pub fn cells(pod: &Value, now: i64) -> Vec<Value> {
    let total = items(pod, &["spec", "containers"]).count();
    let ready = items(pod, &["status", "containerStatuses"])
        .filter(|c| {
            c.get("ready") == Some(&Value::Bool(true)) && at(c, &["state", "running"]).is_some()
        })
        .count();
    let restarts: i64 = items(pod, &["status", "containerStatuses"])
        .map(|c| count(c, &["restartCount"]))
        .sum();
    let last = items(pod, &["status", "containerStatuses"])
        .map(|c| text(c, &["lastState", "terminated", "finishedAt"]))
        .max()
        .unwrap_or("");
    let restarts = if restarts > 0 && !last.is_empty() {
        format!("{restarts} ({} ago)", age::of(last, now))
    } else {
        restarts.to_string()
    };
    vec![
        meta::name(pod).into(),
        format!("{ready}/{total}").into(),
        status(pod).into(),
        restarts.into(),
        age::since(pod, &["metadata", "creationTimestamp"], now).into(),
        or_none(text(pod, &["status", "podIP"])),
        or_none(text(pod, &["spec", "nodeName"])),
        or_none(text(pod, &["status", "nominatedNodeName"])),
        gates(pod),
    ]
}

/// Readiness gates that are met, of all.
fn gates(pod: &Value) -> Value {
    let wanted: Vec<&str> = items(pod, &["spec", "readinessGates"])
        .map(|g| text(g, &["conditionType"]))
        .collect();
    if wanted.is_empty() {
        return or_none("");
    }
    let met = wanted.iter().filter(|gate| {
        items(pod, &["status", "conditions"])
            .any(|c| text(c, &["type"]) == **gate && text(c, &["status"]) == "True")
    });
    format!("{}/{}", met.count(), wanted.len()).into()
}

/// The word in the column `STATUS`.
#[must_use]
pub fn status(pod: &Value) -> String {
    let phase = text(pod, &["status", "phase"]);
    let mut status = match text(pod, &["status", "reason"]) {
        "" => phase.to_owned(),
        reason => reason.to_owned(),
    };
    let gated = items(pod, &["status", "conditions"])
        .any(|c| text(c, &["type"]) == "PodScheduled" && text(c, &["reason"]) == "SchedulingGated");
    if gated {
        "SchedulingGated".clone_into(&mut status);
    }
    let initial = items(pod, &["spec", "initContainers"]).count();
    let mut initializing = false;
    for (i, c) in items(pod, &["status", "initContainerStatuses"]).enumerate() {
        let state = |key: &str| at(c, &["state", key]);
        if state("terminated").is_some_and(|t| count(t, &["exitCode"]) == 0)
            || c.get("started") == Some(&Value::Bool(true)) && state("running").is_some()
        {
            continue;
        }
        let waiting = text(c, &["state", "waiting", "reason"]);
        status = if let Some(ended) = state("terminated") {
            match text(ended, &["reason"]) {
                "" => format!("Init:ExitCode:{}", count(ended, &["exitCode"])),
                reason => format!("Init:{reason}"),
            }
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{i}/{initial}")
        };
        initializing = true;
        break;
    }
    if !initializing {
        let mut running = false;
        let statuses: Vec<&Value> = items(pod, &["status", "containerStatuses"]).collect();
        for c in statuses.iter().rev() {
            let waiting = text(c, &["state", "waiting", "reason"]);
            if !waiting.is_empty() {
                waiting.clone_into(&mut status);
            } else if let Some(ended) = at(c, &["state", "terminated"]) {
                status = match text(ended, &["reason"]) {
                    "" => format!("ExitCode:{}", count(ended, &["exitCode"])),
                    reason => reason.to_owned(),
                };
            } else if c.get("ready") == Some(&Value::Bool(true))
                && at(c, &["state", "running"]).is_some()
            {
                running = true;
            }
        }
        if status == "Completed" && running {
            "Running".clone_into(&mut status);
        }
    }
    if meta::is_deleting(pod) {
        if text(pod, &["status", "reason"]) == "NodeLost" {
            return "Unknown".to_owned();
        }
        if !matches!(phase, "Failed" | "Succeeded") {
            return "Terminating".to_owned();
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case(json!({"status": {"phase": "Pending"}}), "Pending")]
    #[case(json!({"status": {"phase": "Running", "containerStatuses": [{"ready": true, "state": {"running": {}}}]}}), "Running")]
    #[case(json!({"status": {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}}), "ContainerCreating")]
    #[case(json!({"status": {"phase": "Running", "containerStatuses": [{"state": {"terminated": {"reason": "Completed"}}}, {"ready": true, "state": {"running": {}}}]}}), "Running")]
    #[case(json!({"status": {"phase": "Failed", "reason": "Evicted"}}), "Evicted")]
    #[case(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Running"}}), "Terminating")]
    #[case(json!({"spec": {"initContainers": [{}, {}]}, "status": {"phase": "Pending", "initContainerStatuses": [
        {"state": {"terminated": {"exitCode": 0}}}, {"state": {"waiting": {"reason": "PodInitializing"}}}]}}), "Init:1/2")]
    fn statuses(#[case] pod: Value, #[case] expected: &str) {
        assert_eq!(status(&pod), expected);
    }
}
