//! LimitRanges: what they give to containers that say nothing, and what they allow of a container, a pod and a claim.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::amount::Amount;
use crate::error::{ApiError, Result};
use crate::meta::{self, as_map, at, child, text};
use crate::ops::{State, Target};

const RANGES: &str = "limitranges.";

/// What a namespace's ranges say, oldest name first.
fn items(state: &State, namespace: &str) -> Vec<Arc<Value>> {
    state
        .store
        .iter(RANGES, Some(namespace), None)
        .cloned()
        .collect()
}

fn limits(range: &Value) -> impl Iterator<Item = &Value> {
    at(range, &["spec", "limits"])
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn map<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value
        .get(key)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

/// Fills in a LimitRange itself: a limit that is not given is the largest allowed, a request the limit or the smallest.
pub fn default_range(range: &mut Value) {
    let items = child(child(range, "spec"), "limits").as_array_mut();
    for item in items.into_iter().flatten() {
        if text(item, &["type"]) != "Container" {
            continue;
        }
        for (from, to) in [
            ("max", "default"),
            ("default", "defaultRequest"),
            ("min", "defaultRequest"),
        ] {
            let given: Vec<(String, Value)> = map(item, from)
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect();
            if given.is_empty() {
                continue;
            }
            let target = as_map(child(item, to));
            for (resource, quantity) in given {
                target.entry(resource).or_insert(quantity);
            }
        }
    }
}

/// Gives a new pod's containers what the ranges of its namespace say, and notes it.
pub fn give(state: &State, target: &Target, pod: &mut Value) {
    let mut said = Vec::new();
    for range in items(state, &target.namespace) {
        for item in limits(&range).filter(|i| text(i, &["type"]) == "Container") {
            for list in ["containers", "initContainers"] {
                let containers = child(child(pod, "spec"), list).as_array_mut();
                for container in containers.into_iter().flatten() {
                    give_container(item, list == "initContainers", container, &mut said);
                }
            }
        }
    }
    // An absent list was made null on the way.
    let spec = as_map(child(pod, "spec"));
    spec.retain(|key, value| key != "initContainers" || !value.is_null());
    if !said.is_empty() {
        let note = format!("LimitRanger plugin set: {}", said.join("; "));
        let annotations = as_map(child(child(pod, "metadata"), "annotations"));
        annotations.insert("kubernetes.io/limit-ranger".into(), note.into());
    }
}

fn give_container(item: &Value, init: bool, container: &mut Value, said: &mut Vec<String>) {
    let name = text(container, &["name"]).to_owned();
    for (from, to, word) in [
        ("defaultRequest", "requests", "request"),
        ("default", "limits", "limit"),
    ] {
        let mut given = Vec::new();
        for (resource, quantity) in map(item, from) {
            let amounts = as_map(child(child(container, "resources"), to));
            if !amounts.contains_key(resource) {
                amounts.insert(resource.clone(), quantity.clone());
                given.push(resource.as_str());
            }
        }
        if !given.is_empty() {
            let kind = if init { "init container" } else { "container" };
            said.push(format!("{} {word} for {kind} {name}", given.join(", ")));
        }
    }
}

/// Amounts that a thing asks for and is bounded by.
#[derive(Default)]
struct Asked {
    requests: BTreeMap<String, Amount>,
    limits: BTreeMap<String, Amount>,
}

impl Asked {
    fn of(resources: &Value) -> Self {
        let read = |key: &str| {
            map(resources, key)
                .filter_map(|(k, v)| Some((k.clone(), Amount::read(v)?)))
                .collect()
        };
        Self {
            requests: read("requests"),
            limits: read("limits"),
        }
    }

    /// Of a pod: the sum of its containers, or what an init container needs at its time.
    fn of_pod(pod: &Value) -> Self {
        let mut whole = Self::default();
        let list = |key: &str| {
            at(pod, &["spec", key])
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .map(|c| Self::of(c.get("resources").unwrap_or(&Value::Null)))
                .collect::<Vec<_>>()
        };
        for container in list("containers") {
            for (into, from) in [
                (&mut whole.requests, container.requests),
                (&mut whole.limits, container.limits),
            ] {
                for (resource, amount) in from {
                    let sum = into.entry(resource).or_default();
                    *sum = sum.plus(amount);
                }
            }
        }
        for container in list("initContainers") {
            for (into, from) in [
                (&mut whole.requests, container.requests),
                (&mut whole.limits, container.limits),
            ] {
                for (resource, amount) in from {
                    let most = into.entry(resource).or_default();
                    *most = most.or_more(amount);
                }
            }
        }
        whole
    }
}

/// Refuses what the ranges of its namespace do not allow.
///
/// # Errors
/// 403.
pub fn check(state: &State, target: &Target, object: &Value) -> Result<()> {
    let is_pod = target.info.is("", "pods");
    if !is_pod && !target.info.is("", "persistentvolumeclaims") {
        return Ok(());
    }
    let mut wrong = Vec::new();
    for range in items(state, &target.namespace) {
        for item in limits(&range) {
            match (text(item, &["type"]), is_pod) {
                ("Container", true) => {
                    for list in ["containers", "initContainers"] {
                        let containers = at(object, &["spec", list]).and_then(Value::as_array);
                        for container in containers.into_iter().flatten() {
                            let asked =
                                Asked::of(container.get("resources").unwrap_or(&Value::Null));
                            bounds(item, "Container", &asked, &mut wrong);
                        }
                    }
                }
                ("Pod", true) => bounds(item, "Pod", &Asked::of_pod(object), &mut wrong),
                ("PersistentVolumeClaim", false) => {
                    let asked =
                        Asked::of(at(object, &["spec", "resources"]).unwrap_or(&Value::Null));
                    claim(item, &asked, &mut wrong);
                }
                _ => {}
            }
        }
    }
    let why = match wrong.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    Err(ApiError::forbidden(&target.info, meta::name(object), &why))
}

fn bounds(item: &Value, kind: &str, asked: &Asked, wrong: &mut Vec<String>) {
    for (resource, text) in map(item, "min") {
        let Some(least) = Amount::read(text) else {
            continue;
        };
        let head = format!("minimum {resource} usage per {kind} is {least}");
        match (asked.requests.get(resource), asked.limits.get(resource)) {
            (None, _) => wrong.push(format!("{head}.  No request is specified")),
            (Some(request), _) if least.exceeds(*request) => {
                wrong.push(format!("{head}, but request is {request}"));
            }
            (_, Some(limit)) if least.exceeds(*limit) => {
                wrong.push(format!("{head}, but limit is {limit}"))
            }
            _ => {}
        }
    }
    for (resource, text) in map(item, "max") {
        let Some(most) = Amount::read(text) else {
            continue;
        };
        let head = format!("maximum {resource} usage per {kind} is {most}");
        match (asked.limits.get(resource), asked.requests.get(resource)) {
            (None, _) => wrong.push(format!("{head}.  No limit is specified")),
            (Some(limit), _) if limit.exceeds(most) => {
                wrong.push(format!("{head}, but limit is {limit}"))
            }
            (_, Some(request)) if request.exceeds(most) => {
                wrong.push(format!("{head}, but request is {request}"));
            }
            _ => {}
        }
    }
    for (resource, text) in map(item, "maxLimitRequestRatio") {
        let Some(most) = Amount::read(text) else {
            continue;
        };
        let head = format!("{resource} max limit to request ratio per {kind} is {most}");
        let some = |amounts: &BTreeMap<String, Amount>| {
            amounts
                .get(resource)
                .map(|q| q.millis())
                .filter(|m| *m != 0)
        };
        match (some(&asked.requests), some(&asked.limits)) {
            (None, _) => wrong.push(format!(
                "{head}, but no request is specified or request is 0"
            )),
            (_, None) => wrong.push(format!("{head}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                #[allow(clippy::cast_precision_loss)] // A ratio that is only told.
                let (ratio, most) = (limit as f64 / request as f64, most.millis() as f64 / 1000.0);
                if ratio > most {
                    wrong.push(format!("{head}, but provided ratio is {ratio:.6}"));
                }
            }
        }
    }
}

fn claim(item: &Value, asked: &Asked, wrong: &mut Vec<String>) {
    let request = asked.requests.get("storage").copied().unwrap_or_default();
    let bound = |key: &str| at(item, &[key, "storage"]).and_then(Amount::read);
    let kind = "PersistentVolumeClaim";
    if let Some(least) = bound("min").filter(|least| least.exceeds(request)) {
        wrong.push(format!(
            "minimum storage usage per {kind} is {least}, but request is {request}"
        ));
    }
    if let Some(most) = bound("max").filter(|most| request.exceeds(*most)) {
        wrong.push(format!(
            "maximum storage usage per {kind} is {most}, but request is {request}"
        ));
    }
}
