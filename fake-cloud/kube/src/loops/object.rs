//! Reading Kubernetes objects that are plain JSON: the few accessors that the loops and the kubelet model share.
//! Everything is total: what is missing or of another type reads as empty.

use std::collections::BTreeMap;

use jiff::Timestamp;
use karpenter_runtime::Key;
use serde_json::{Value, json};

/// What indexing into nothing gives.
static NULL: Value = Value::Null;

/// Annotation values and labels.
pub type Labels = BTreeMap<String, String>;

/// The value at `path`, null when any step is missing.
#[must_use]
pub fn at<'a>(object: &'a Value, path: &[&str]) -> &'a Value {
    path.iter()
        .try_fold(object, |v, step| v.get(step))
        .unwrap_or(&NULL)
}

/// The text at `path`, empty when there is none.
#[must_use]
pub fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    at(object, path).as_str().unwrap_or_default()
}

/// The integer at `path`.
#[must_use]
pub fn int(object: &Value, path: &[&str]) -> Option<i64> {
    at(object, path).as_i64()
}

/// The boolean at `path`, false when there is none.
#[must_use]
pub fn flag(object: &Value, path: &[&str]) -> bool {
    at(object, path).as_bool().unwrap_or(false)
}

/// The items at `path`, none when it is no list.
#[must_use]
pub fn items<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    at(object, path).as_array().map_or(&[], Vec::as_slice)
}

/// The time at `path`.
#[must_use]
pub fn time(object: &Value, path: &[&str]) -> Option<Timestamp> {
    text(object, path).parse().ok()
}

/// Texts by name at `path`, such as labels.
#[must_use]
pub fn texts(object: &Value, path: &[&str]) -> Labels {
    at(object, path)
        .as_object()
        .map(|map| {
            map.iter()
                .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
                .collect()
        })
        .unwrap_or_default()
}

/// `metadata.name`.
#[must_use]
pub fn name(object: &Value) -> &str {
    text(object, &["metadata", "name"])
}

/// `metadata.namespace`, empty for cluster-scoped objects.
#[must_use]
pub fn namespace(object: &Value) -> &str {
    text(object, &["metadata", "namespace"])
}

/// `metadata.uid`.
#[must_use]
pub fn uid(object: &Value) -> &str {
    text(object, &["metadata", "uid"])
}

/// `metadata.labels`.
#[must_use]
pub fn labels(object: &Value) -> Labels {
    texts(object, &["metadata", "labels"])
}

/// One label, empty when it is not set.
#[must_use]
pub fn label<'a>(object: &'a Value, key: &str) -> &'a str {
    text(object, &["metadata", "labels", key])
}

/// One annotation, empty when it is not set.
#[must_use]
pub fn annotation<'a>(object: &'a Value, key: &str) -> &'a str {
    text(object, &["metadata", "annotations", key])
}

/// Namespace and name.
#[must_use]
pub fn key(object: &Value) -> Key {
    match namespace(object) {
        "" => Key::cluster(name(object)),
        ns => Key::namespaced(ns, name(object)),
    }
}

/// Whether the object has a deletion timestamp.
#[must_use]
pub fn deleting(object: &Value) -> bool {
    !at(object, &["metadata", "deletionTimestamp"]).is_null()
}

/// `metadata.creationTimestamp`.
#[must_use]
pub fn created(object: &Value) -> Timestamp {
    time(object, &["metadata", "creationTimestamp"]).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The owner reference with `controller: true`.
#[must_use]
pub fn controller(object: &Value) -> Option<&Value> {
    items(object, &["metadata", "ownerReferences"])
        .iter()
        .find(|r| flag(r, &["controller"]))
}

/// UID of the controlling owner, empty when there is none.
#[must_use]
pub fn controller_uid(object: &Value) -> &str {
    controller(object).map_or("", |r| text(r, &["uid"]))
}

/// Whether `finalizer` is on the object.
#[must_use]
pub fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    items(object, &["metadata", "finalizers"])
        .iter()
        .any(|f| f.as_str() == Some(finalizer))
}

/// The finalizers without `finalizer`.
#[must_use]
pub fn finalizers_without(object: &Value, finalizer: &str) -> Vec<Value> {
    items(object, &["metadata", "finalizers"])
        .iter()
        .filter(|f| f.as_str() != Some(finalizer))
        .cloned()
        .collect()
}

/// `status.conditions` entry of type `kind`.
#[must_use]
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    items(object, &["status", "conditions"])
        .iter()
        .find(|c| text(c, &["type"]) == kind)
}

/// Status of a condition: `True`, `False`, `Unknown`, or empty when it is not there.
#[must_use]
pub fn condition_status<'a>(object: &'a Value, kind: &str) -> &'a str {
    condition(object, kind).map_or("", |c| text(c, &["status"]))
}

/// `status.phase` of a pod is `Succeeded` or `Failed`.
#[must_use]
pub fn terminal(pod: &Value) -> bool {
    matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed")
}

/// Neither finished nor on its way out.
#[must_use]
pub fn active(pod: &Value) -> bool {
    !terminal(pod) && !deleting(pod)
}

/// The pod's Ready condition is True.
#[must_use]
pub fn pod_ready(pod: &Value) -> bool {
    condition_status(pod, "Ready") == "True"
}

/// Since when the pod is ready, if it is.
#[must_use]
pub fn ready_since(pod: &Value) -> Option<Timestamp> {
    condition(pod, "Ready")
        .filter(|c| text(c, &["status"]) == "True")
        .map(|c| time(c, &["lastTransitionTime"]).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// A controlling owner reference to `owner`.
#[must_use]
pub fn owner_reference(api_version: &str, kind: &str, owner: &Value) -> Value {
    json!({
        "apiVersion": api_version,
        "kind": kind,
        "name": name(owner),
        "uid": uid(owner),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// A condition list with `wanted` merged in: the transition time moves only when the status does.
/// None when nothing changed.
#[must_use]
pub fn merge_condition(object: &Value, wanted: &Value, now: Timestamp) -> Option<Vec<Value>> {
    let kind = text(wanted, &["type"]);
    let mut list = items(object, &["status", "conditions"]).to_vec();
    let old = list.iter().position(|c| text(c, &["type"]) == kind);
    let mut fresh = wanted.clone();
    let before = old.and_then(|i| list.get(i)).cloned();
    let since = match &before {
        Some(before) if text(before, &["status"]) == text(wanted, &["status"]) => {
            let same = ["reason", "message"]
                .iter()
                .all(|f| text(before, &[f]) == text(wanted, &[f]));
            if same {
                return None;
            }
            at(before, &["lastTransitionTime"]).clone()
        }
        _ => json!(stamp(now)),
    };
    if let Some(map) = fresh.as_object_mut() {
        map.insert("lastTransitionTime".to_owned(), since);
    }
    match old.and_then(|i| list.get_mut(i)) {
        Some(slot) => *slot = fresh,
        None => list.push(fresh),
    }
    Some(list)
}

/// A time as `metav1.Time` prints it: whole seconds, UTC.
#[must_use]
pub fn stamp(when: Timestamp) -> String {
    when.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A stable 32-bit hash of a value, whatever order its keys are in (FNV-1a), as Kubernetes' names spell it.
#[must_use]
pub fn template_hash(template: &Value) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut hash = 0x811c_9dc5;
    hash_into(template, &mut hash);
    hash.to_string()
        .bytes()
        .map(|b| {
            let i = usize::from(b) % ALPHABET.len();
            ALPHABET.get(i).map_or('x', |c| char::from(*c))
        })
        .collect()
}

fn hash_into(value: &Value, hash: &mut u32) {
    let mut feed = |bytes: &[u8]| {
        for b in bytes {
            *hash = (*hash ^ u32::from(*b)).wrapping_mul(0x0100_0193);
        }
    };
    match value {
        Value::Object(map) => {
            feed(b"{");
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            for (k, v) in sorted {
                hash_into(&Value::String(k.clone()), hash);
                hash_into(v, hash);
            }
        }
        Value::Array(list) => {
            feed(b"[");
            for v in list {
                hash_into(v, hash);
            }
        }
        scalar => {
            feed(scalar.to_string().as_bytes());
            feed(b",");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_does_not_depend_on_key_order() {
        let a: Value = serde_json::from_str(r#"{"a":1,"b":{"c":[1,2],"d":"x"}}"#).unwrap();
        let b: Value = serde_json::from_str(r#"{"b":{"d":"x","c":[1,2]},"a":1}"#).unwrap();
        let c: Value = serde_json::from_str(r#"{"b":{"d":"x","c":[2,1]},"a":1}"#).unwrap();
        assert_eq!(template_hash(&a), template_hash(&b));
        assert_ne!(template_hash(&a), template_hash(&c));
    }

    #[test]
    fn a_condition_keeps_its_transition_time_while_the_status_stays() {
        let t0: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let t1: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let wanted = |status: &str, reason: &str| json!({"type": "Ready", "status": status, "reason": reason});
        let first = merge_condition(&json!({}), &wanted("False", "A"), t0).unwrap();
        let object = json!({"status": {"conditions": first}});
        assert_eq!(merge_condition(&object, &wanted("False", "A"), t1), None);
        let reason = merge_condition(&object, &wanted("False", "B"), t1).unwrap();
        assert_eq!(text(&reason[0], &["lastTransitionTime"]), stamp(t0));
        let status = merge_condition(&object, &wanted("True", "A"), t1).unwrap();
        assert_eq!(text(&status[0], &["lastTransitionTime"]), stamp(t1));
    }
}
