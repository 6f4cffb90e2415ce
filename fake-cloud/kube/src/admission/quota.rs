//! ResourceQuotas: what a new object takes of them, and when there is too little left. What is used is counted anew by
//! the quota loop; admission only adds to it, so that two objects at once cannot both have the last of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::amount::Amount;
use crate::error::{ApiError, Result, qualified};
use crate::meta::{self, as_map, at, child, text};
use crate::ops::{State, Target};

const QUOTAS: &str = "resourcequotas.";

/// Amounts by the names that quotas have for them.
pub type Usage = BTreeMap<String, Amount>;

/// What an object counts for in its namespace's quotas.
#[must_use]
pub fn usage_of(group: &str, plural: &str, object: &Value) -> Usage {
    let one = Amount::one();
    let mut usage = Usage::new();
    usage.insert(format!("count/{}", qualified(group, plural)), one);
    match (group, plural) {
        (
            "",
            "configmaps"
            | "secrets"
            | "services"
            | "persistentvolumeclaims"
            | "resourcequotas"
            | "replicationcontrollers",
        ) => {
            usage.insert(plural.to_owned(), one);
            if let Some(storage) =
                at(object, &["spec", "resources", "requests", "storage"]).and_then(Amount::read)
            {
                usage.insert("requests.storage".to_owned(), storage);
            }
        }
        ("", "pods") => pod(object, &mut usage),
        _ => {}
    }
    usage
}

fn pod(pod: &Value, usage: &mut Usage) {
    if matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed") {
        // Only the object itself still counts.
        return;
    }
    usage.insert("pods".to_owned(), Amount::one());
    for part in ["requests", "limits"] {
        let mut sums = Usage::new();
        for (resource, amount) in amounts(pod, "containers", part) {
            let sum = sums.entry(resource).or_default();
            *sum = sum.plus(amount);
        }
        for (resource, amount) in amounts(pod, "initContainers", part) {
            let most = sums.entry(resource).or_default();
            *most = most.or_more(amount);
        }
        for (resource, amount) in sums {
            if part == "requests"
                && matches!(resource.as_str(), "cpu" | "memory" | "ephemeral-storage")
            {
                usage.insert(resource.clone(), amount);
            }
            usage.insert(format!("{part}.{resource}"), amount);
        }
    }
}

fn amounts(pod: &Value, list: &str, part: &str) -> Vec<(String, Amount)> {
    at(pod, &["spec", list])
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|c| at(c, &["resources", part]).and_then(Value::as_object))
        .flatten()
        .filter_map(|(k, v)| Some((k.clone(), Amount::read(v)?)))
        .collect()
}

/// Whether a quota is about an object, by its scopes.
#[must_use]
pub fn is_about(quota: &Value, group: &str, plural: &str, object: &Value) -> bool {
    let scopes: Vec<&str> = at(quota, &["spec", "scopes"])
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let terms = at(quota, &["spec", "scopeSelector", "matchExpressions"]).and_then(Value::as_array);
    if (group, plural) != ("", "pods") {
        return scopes.is_empty() && terms.is_none();
    }
    let best_effort = text(object, &["status", "qosClass"]) == "BestEffort";
    let ends = at(object, &["spec", "activeDeadlineSeconds"]).is_some_and(|s| !s.is_null());
    let class = text(object, &["spec", "priorityClassName"]);
    let scope = |scope: &str| match scope {
        "BestEffort" => best_effort,
        "NotBestEffort" => !best_effort,
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "PriorityClass" => !class.is_empty(),
        _ => false,
    };
    let term = |term: &Value| {
        let values = term.get("values").and_then(Value::as_array);
        let named = || {
            values
                .into_iter()
                .flatten()
                .any(|v| v.as_str() == Some(class))
        };
        match (text(term, &["scopeName"]), text(term, &["operator"])) {
            ("PriorityClass", "In") => named(),
            ("PriorityClass", "NotIn") => !named(),
            ("PriorityClass", "DoesNotExist") => class.is_empty(),
            (name, _) => scope(name),
        }
    };
    scopes.iter().all(|s| scope(s)) && terms.into_iter().flatten().all(term)
}

fn read(map: Option<&Value>) -> Usage {
    map.and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k.clone(), Amount::read(v)?)))
        .collect()
}

/// Takes what a new object needs from the quotas of its namespace.
///
/// # Errors
/// 403.
pub fn take(state: &mut State, target: &Target, object: &Value, dry_run: bool) -> Result<()> {
    if !target.info.namespaced || state.store.is_empty(QUOTAS) {
        return Ok(());
    }
    let (group, plural) = (target.info.group.as_str(), target.info.plural.as_str());
    let name = meta::name(object);
    let usage = usage_of(group, plural, object);
    let quotas: Vec<Arc<Value>> = state
        .store
        .iter(QUOTAS, Some(&target.namespace), None)
        .filter(|q| is_about(q, group, plural, object))
        .cloned()
        .collect();
    let mut changed = Vec::new();
    for quota in quotas {
        let hard = read(at(&quota, &["status", "hard"]));
        let used = read(at(&quota, &["status", "used"]));
        let called = meta::name(&quota);
        if plural == "pods" && group.is_empty() {
            let missing = unsaid(&hard, object);
            if !missing.is_empty() {
                let why = format!(
                    "failed quota: {called}: must specify {}",
                    missing.join("; ")
                );
                return Err(ApiError::forbidden(&target.info, name, &why));
            }
        }
        let wanted: Vec<(&String, Amount)> = usage
            .iter()
            .filter(|(k, _)| hard.contains_key(*k))
            .map(|(k, v)| (k, *v))
            .collect();
        if wanted.is_empty() {
            continue;
        }
        let of = |map: &Usage, key: &str| map.get(key).copied().unwrap_or_default();
        let over: Vec<&(&String, Amount)> = wanted
            .iter()
            .filter(|(key, more)| of(&used, key).plus(*more).exceeds(of(&hard, key)))
            .collect();
        if !over.is_empty() {
            let list = |value: &dyn Fn(&str, Amount) -> Amount| {
                let texts: Vec<String> = over
                    .iter()
                    .map(|(key, more)| format!("{key}={}", value(key, *more)))
                    .collect();
                texts.join(",")
            };
            let why = format!(
                "exceeded quota: {called}, requested: {}, used: {}, limited: {}",
                list(&|_, more| more),
                list(&|key, _| of(&used, key)),
                list(&|key, _| of(&hard, key)),
            );
            return Err(ApiError::forbidden(&target.info, name, &why));
        }
        let mut new = Value::clone(&quota);
        let counts = as_map(child(child(&mut new, "status"), "used"));
        for (key, more) in wanted {
            counts.insert(key.clone(), of(&used, key).plus(more).to_string().into());
        }
        changed.push((called.to_owned(), new));
    }
    if !dry_run {
        for (quota, new) in changed {
            state.store.put(QUOTAS, &target.namespace, &quota, new);
        }
    }
    Ok(())
}

/// What a quota counts and containers do not say, with the containers.
fn unsaid(hard: &Usage, pod: &Value) -> Vec<String> {
    let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for key in hard.keys() {
        let (part, resource) = match key.as_str() {
            "cpu" | "memory" => ("requests", key.as_str()),
            key => match key.split_once('.') {
                Some((part @ ("requests" | "limits"), resource @ ("cpu" | "memory"))) => {
                    (part, resource)
                }
                _ => continue,
            },
        };
        for list in ["containers", "initContainers"] {
            let containers = at(pod, &["spec", list]).and_then(Value::as_array);
            for container in containers.into_iter().flatten() {
                if at(container, &["resources", part, resource]).is_none() {
                    missing
                        .entry(key)
                        .or_default()
                        .push(text(container, &["name"]));
                }
            }
        }
    }
    missing
        .iter()
        .map(|(key, names)| format!("{key} for: {}", names.join(",")))
        .collect()
}
