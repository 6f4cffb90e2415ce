//! Merging what a manager applies into the live object, and taking out what it no longer applies.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::fields::{FieldSet, element, field};
use crate::crd::schema::ListType;
use crate::structure::Structure;

/// The live object with an applied configuration merged in.
#[must_use]
pub fn merge<'v>(
    structure: &Structure<'_>,
    path: &mut Vec<&'v str>,
    live: &Value,
    applied: &'v Value,
) -> Value {
    match (live, applied) {
        (Value::Object(a), Value::Object(b)) if !structure.map_is_atomic(path) => {
            let mut merged = a.clone();
            for (key, value) in b {
                path.push(key);
                let before = a.get(key).unwrap_or(&Value::Null);
                let after = merge(structure, path, before, value);
                path.pop();
                merged.insert(key.clone(), after);
            }
            Value::Object(merged)
        }
        (Value::Array(a), Value::Array(b)) => match structure.list(path) {
            ListType::Atomic => applied.clone(),
            list => Value::Array(merge_lists(structure, path, &list, a, b)),
        },
        _ => applied.clone(),
    }
}

/// Applied elements stand in the order they were applied in; others keep their place before the first that both have.
fn merge_lists<'v>(
    structure: &Structure<'_>,
    path: &mut Vec<&'v str>,
    list: &ListType,
    live: &[Value],
    applied: &'v [Value],
) -> Vec<Value> {
    let names =
        |items: &[Value]| -> Vec<String> { items.iter().map(|i| element(list, i)).collect() };
    let (before, after) = (names(live), names(applied));
    let places: BTreeMap<&str, &Value> = before.iter().map(String::as_str).zip(live).collect();
    let wanted: BTreeSet<&str> = after.iter().map(String::as_str).collect();
    let mut others = before.iter().zip(live).peekable();
    let mut result = Vec::with_capacity(live.len() + applied.len());
    for (name, item) in after.iter().zip(applied) {
        // What nobody applied here goes ahead, up to the next element that is applied.
        while let Some((_, other)) = others.next_if(|(n, _)| !wanted.contains(n.as_str())) {
            result.push(other.clone());
        }
        others.next_if(|(n, _)| *n == name);
        result.push(match list {
            ListType::Map(_) => {
                let live = places.get(name.as_str()).copied();
                merge(structure, path, live.unwrap_or(&Value::Null), item)
            }
            _ => item.clone(),
        });
    }
    let left = others.filter(|(name, _)| !wanted.contains(name.as_str()));
    result.extend(left.map(|(_, item)| item.clone()));
    result
}

/// Takes the fields of `gone` out of a value, unless another owner (`kept`) has something there.
pub fn remove(
    structure: &Structure<'_>,
    path: &mut Vec<String>,
    value: &mut Value,
    gone: &FieldSet,
    kept: &FieldSet,
) {
    let empty = FieldSet::default();
    match value {
        Value::Object(map) => remove_keys(structure, path, map, gone, kept),
        Value::Array(items) => {
            let names: Vec<&str> = path.iter().map(String::as_str).collect();
            let list = structure.list(&names);
            items.retain_mut(|item| {
                let key = element(&list, item);
                let Some(node) = gone.below.get(&key) else {
                    return true;
                };
                match kept.below.get(&key) {
                    None if node.member => false,
                    others => {
                        let mut node = node.clone();
                        // What an element is told apart by goes only with the element.
                        if let ListType::Map(keys) = &list {
                            keys.iter().for_each(|k| node.remove(&[&field(k)]));
                        }
                        remove(structure, path, item, &node, others.unwrap_or(&empty));
                        true
                    }
                }
            });
        }
        _ => {}
    }
}

fn remove_keys(
    structure: &Structure<'_>,
    path: &mut Vec<String>,
    map: &mut Map<String, Value>,
    gone: &FieldSet,
    kept: &FieldSet,
) {
    let empty = FieldSet::default();
    map.retain(|key, below| {
        let name = field(key);
        let Some(node) = gone.below.get(&name) else {
            return true;
        };
        let others = kept.below.get(&name);
        if node.member && node.below.is_empty() && others.is_none() {
            return false;
        }
        path.push(key.clone());
        remove(structure, path, below, node, others.unwrap_or(&empty));
        path.pop();
        let emptied = match below {
            Value::Object(map) => map.is_empty(),
            Value::Array(list) => list.is_empty(),
            _ => false,
        };
        // What held only what is gone goes with it.
        !emptied || others.is_some()
    });
}
