//! Cells of workloads.

use serde_json::Value;

use super::age;
use super::render::{count, or_none};
use crate::meta::{self, at, text};
use crate::selectors;

/// Cells of a kind of the groups `apps` and `batch`.
#[must_use]
pub fn cells(plural: &str, o: &Value, created: Value, now: i64) -> Vec<Value> {
    let name: Value = meta::name(o).into();
    let wanted = at(o, &["spec", "replicas"])
        .and_then(Value::as_i64)
        .unwrap_or(1);
    let status = |key: &str| count(o, &["status", key]);
    let (containers, images) = containers(o);
    let selector = or_none(
        &at(o, &["spec", "selector"])
            .map(selectors::text_of_label_selector)
            .unwrap_or_default(),
    );
    match plural {
        "deployments" => vec![
            name,
            format!("{}/{wanted}", status("readyReplicas")).into(),
            status("updatedReplicas").into(),
            status("availableReplicas").into(),
            created,
            containers,
            images,
            selector,
        ],
        "replicasets" => vec![
            name,
            wanted.into(),
            status("replicas").into(),
            status("readyReplicas").into(),
            created,
            containers,
            images,
            selector,
        ],
        "statefulsets" => vec![
            name,
            format!("{}/{wanted}", status("readyReplicas")).into(),
            created,
            containers,
            images,
        ],
        "daemonsets" => {
            let nodes: Vec<String> = at(o, &["spec", "template", "spec", "nodeSelector"])
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
                .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or("")))
                .collect();
            vec![
                name,
                status("desiredNumberScheduled").into(),
                status("currentNumberScheduled").into(),
                status("numberReady").into(),
                status("updatedNumberScheduled").into(),
                status("numberAvailable").into(),
                or_none(&nodes.join(",")),
                created,
                containers,
                images,
                selector,
            ]
        }
        "jobs" => job(o, created, now, containers, images, selector),
        "cronjobs" => {
            let active = at(o, &["status", "active"])
                .and_then(Value::as_array)
                .map_or(0, Vec::len);
            let last = match text(o, &["status", "lastScheduleTime"]) {
                "" => or_none(""),
                time => age::of(time, now).into(),
            };
            let suspended = at(o, &["spec", "suspend"]) == Some(&Value::Bool(true));
            vec![
                name,
                text(o, &["spec", "schedule"]).into(),
                or_none(text(o, &["spec", "timeZone"])),
                if suspended {
                    "True".into()
                } else {
                    "False".into()
                },
                active.into(),
                last,
                created,
                containers,
                images,
                selector,
            ]
        }
        _ => vec![name, created],
    }
}

fn job(
    o: &Value,
    created: Value,
    now: i64,
    containers: Value,
    images: Value,
    selector: Value,
) -> Vec<Value> {
    let is = |kind: &str| {
        at(o, &["status", "conditions"])
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .any(|c| text(c, &["type"]) == kind && text(c, &["status"]) == "True")
    };
    let state = if is("Complete") {
        "Complete"
    } else if is("Failed") {
        "Failed"
    } else if meta::is_deleting(o) {
        "Terminating"
    } else if is("Suspended") {
        "Suspended"
    } else {
        "Running"
    };
    let done = count(o, &["status", "succeeded"]);
    let completions = match at(o, &["spec", "completions"]).and_then(Value::as_i64) {
        Some(wanted) => format!("{done}/{wanted}"),
        None => format!("{done}/1 of {}", count(o, &["spec", "parallelism"]).max(1)),
    };
    let start = text(o, &["status", "startTime"])
        .parse::<jiff::Timestamp>()
        .ok();
    let end = text(o, &["status", "completionTime"])
        .parse::<jiff::Timestamp>()
        .ok();
    let duration = start.map_or_else(String::new, |start| {
        age::human(end.map_or(now, |e| e.as_second()) - start.as_second())
    });
    vec![
        meta::name(o).into(),
        state.into(),
        completions.into(),
        duration.into(),
        created,
        containers,
        images,
        selector,
    ]
}

fn containers(o: &Value) -> (Value, Value) {
    let list = at(o, &["spec", "template", "spec", "containers"])
        .or_else(|| {
            let path = [
                "spec",
                "jobTemplate",
                "spec",
                "template",
                "spec",
                "containers",
            ];
            at(o, &path)
        })
        .and_then(Value::as_array);
    let all = |key: &str| -> Value {
        let texts: Vec<&str> = list
            .into_iter()
            .flatten()
            .map(|c| text(c, &[key]))
            .collect();
        texts.join(",").into()
    };
    (all("name"), all("image"))
}
