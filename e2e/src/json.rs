//! Small readers for objects held as JSON.

use karpenter_api::labels;
use serde_json::Value;

/// The text at a JSON pointer, empty when there is none.
#[must_use]
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// `metadata.name`.
#[must_use]
pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// A label, empty when there is none.
#[must_use]
pub fn label<'a>(object: &'a Value, key: &str) -> &'a str {
    object
        .pointer("/metadata/labels")
        .and_then(|l| l.get(key))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Status of a condition, empty when there is none.
#[must_use]
pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a str {
    condition_field(object, kind, "status")
}

/// A field of a condition, empty when there is none.
#[must_use]
pub fn condition_field<'a>(object: &'a Value, kind: &str, field: &str) -> &'a str {
    object
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .and_then(|all| {
            all.iter()
                .find(|c| c.get("type").and_then(Value::as_str) == Some(kind))
        })
        .and_then(|c| c.get(field))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Whether a Node is Karpenter's: of a NodePool, or registered for a NodeClaim of its own.
#[must_use]
pub fn is_ours(node: &Value) -> bool {
    !label(node, labels::NODEPOOL).is_empty() || label(node, labels::REGISTERED) == "true"
}

/// Whether a pod runs and is ready.
#[must_use]
pub fn is_running(pod: &Value) -> bool {
    text(pod, "/status/phase") == "Running" && condition(pod, "Ready") == "True"
}

/// Whether a pod belongs to a DaemonSet.
#[must_use]
pub fn is_daemon(pod: &Value) -> bool {
    pod.pointer("/metadata/ownerReferences")
        .and_then(Value::as_array)
        .is_some_and(|owners| {
            owners
                .iter()
                .any(|o| o.get("kind").and_then(Value::as_str) == Some("DaemonSet"))
        })
}
