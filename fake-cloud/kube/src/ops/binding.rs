//! The binding subresource of pods: the scheduler's decision.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::State;
use crate::error::{ApiError, Result};
use crate::meta::{self, text};

/// Binds a pod to a node; `annotations` of the binding go to the pod.
///
/// # Errors
/// 404; 409 when the pod is bound or being deleted.
pub fn bind(
    state: &mut State,
    namespace: &str,
    pod: &str,
    node: &str,
    annotations: &Map<String, Value>,
    dry_run: bool,
) -> Result<Arc<Value>> {
    let target = state.target("", "pods", Some(namespace))?;
    let old = state.require(&target, pod)?;
    if meta::is_deleting(&old) {
        let why = format!("pod {pod} is being deleted, cannot be assigned to a host");
        return Err(ApiError::conflict_of("pods/binding", pod, &why));
    }
    let bound = text(&old, &["spec", "nodeName"]);
    if !bound.is_empty() {
        let why = format!("pod {pod} is already assigned to node \"{bound}\"");
        return Err(ApiError::conflict_of("pods/binding", pod, &why));
    }
    let gated = meta::at(&old, &["spec", "schedulingGates"])
        .and_then(Value::as_array)
        .is_some_and(|gates| !gates.is_empty());
    if gated {
        let why = format!("pod {pod} has non-empty .spec.schedulingGates");
        return Err(ApiError::conflict_of("pods/binding", pod, &why));
    }
    let now = state.now();
    let mut new = Value::clone(&old);
    meta::as_map(meta::child(&mut new, "spec")).insert("nodeName".into(), node.into());
    // Room was made for it, maybe; now it is there.
    meta::as_map(meta::child(&mut new, "status")).remove("nominatedNodeName");
    set_condition(
        meta::child(&mut new, "status"),
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now}),
    );
    if !annotations.is_empty() {
        let of_pod = meta::as_map(meta::child(
            meta::child(&mut new, "metadata"),
            "annotations",
        ));
        of_pod.extend(annotations.clone());
    }
    // A change of spec like any other.
    let generation = meta::at(&old, &["metadata", "generation"])
        .and_then(Value::as_i64)
        .unwrap_or(0)
        + 1;
    meta::metadata(&mut new).insert("generation".into(), generation.into());
    if dry_run {
        return Ok(Arc::new(new));
    }
    Ok(state.store.put(&target.key, namespace, pod, new))
}

/// Sets a condition by its type; keeps the transition time when the status stays.
pub fn set_condition(status: &mut Value, mut condition: Value) {
    let list = meta::child(status, "conditions");
    if !list.is_array() {
        *list = json!([]);
    }
    let Some(list) = list.as_array_mut() else {
        return;
    };
    let same_type = |c: &&mut Value| c.get("type") == condition.get("type");
    match list.iter_mut().find(same_type) {
        Some(existing) => {
            if existing.get("status") == condition.get("status")
                && let Some(since) = existing.get("lastTransitionTime").cloned()
            {
                meta::as_map(&mut condition).insert("lastTransitionTime".into(), since);
            }
            *existing = condition;
        }
        None => list.push(condition),
    }
}
