//! Reading and writing `metadata` of untyped objects without panics.

use jiff::Timestamp;
use serde_json::{Map, Value};

/// A field below the root, by path.
#[must_use]
pub fn at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |v, key| v.get(key))
}

/// Whether a boolean below the root is there and set.
#[must_use]
pub fn flag(object: &Value, path: &[&str]) -> bool {
    at(object, path).and_then(Value::as_bool).unwrap_or(false)
}

/// A string below the root, empty when absent.
#[must_use]
pub fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or("")
}

/// The items of a list below the root, none when absent.
pub fn items<'a>(object: &'a Value, path: &[&str]) -> impl Iterator<Item = &'a Value> {
    at(object, path)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// Adds an item to a list, which is made where there is none.
pub fn push(list: &mut Value, item: Value) {
    match list {
        Value::Array(items) => items.push(item),
        other => *other = Value::Array(vec![item]),
    }
}

/// `metadata.name`.
#[must_use]
pub fn name(object: &Value) -> &str {
    text(object, &["metadata", "name"])
}

/// `metadata.namespace`, empty when absent.
#[must_use]
pub fn namespace(object: &Value) -> &str {
    text(object, &["metadata", "namespace"])
}

/// `metadata.uid`.
#[must_use]
pub fn uid(object: &Value) -> &str {
    text(object, &["metadata", "uid"])
}

/// `metadata.resourceVersion`, empty when absent.
#[must_use]
pub fn version(object: &Value) -> &str {
    text(object, &["metadata", "resourceVersion"])
}

/// Whether `metadata.deletionTimestamp` is set.
#[must_use]
pub fn is_deleting(object: &Value) -> bool {
    at(object, &["metadata", "deletionTimestamp"]).is_some_and(|v| !v.is_null())
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    at(object, &["metadata", "finalizers"])
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// A value as an object, made one if it is not.
#[allow(clippy::expect_used)]
pub fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("made an object just now")
}

/// A child object, made when absent.
pub fn child<'a>(value: &'a mut Value, key: &str) -> &'a mut Value {
    as_map(value).entry(key.to_owned()).or_insert(Value::Null)
}

/// `metadata` as a map, made when absent.
pub fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    as_map(child(object, "metadata"))
}

/// Sets or, with none, removes a key.
pub fn set(map: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    match value {
        Some(value) => {
            map.insert(key.to_owned(), value);
        }
        None => {
            map.remove(key);
        }
    }
}

/// Sets a key unless it is there and not null.
pub fn default_to(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if map.get(key).is_none_or(Value::is_null) {
        map.insert(key.to_owned(), value.into());
    }
}

/// RFC 3339 with seconds, as `metav1.Time` prints.
#[must_use]
pub fn time(at: Timestamp) -> String {
    let whole = Timestamp::from_second(at.as_second()).unwrap_or(at);
    whole.to_string()
}

/// RFC 3339 with microseconds, as `metav1.MicroTime` prints.
#[must_use]
pub fn micro_time(at: Timestamp) -> String {
    format!("{at:.6}")
}
