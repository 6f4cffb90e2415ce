//! Merging what a manager applies into the live object, and taking out what it no longer applies.

use std::collections::BTreeMap;

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

/// Applied elements stand in the order they were applied in; others keep their place among them.
fn merge_lists<'v>(
    structure: &Structure<'_>,
    path: &mut Vec<&'v str>,
    list: &ListType,
    live: &[Value],
    applied: &'v [Value],
) -> Vec<Value> {
    let places: BTreeMap<String, usize> = live
        .iter()
        .enumerate()
        .map(|(i, item)| (element(list, item), i))
        .collect();
    let mut taken: Vec<(Option<usize>, Value)> = Vec::new();
    let mut named = std::collections::BTreeSet::new();
    for item in applied {
        let key = element(list, item);
        let place = places.get(&key).copied();
        let before = place.and_then(|at| live.get(at)).unwrap_or(&Value::Null);
        let merged = match list {
            ListType::Map(_) => merge(structure, path, before, item),
            _ => item.clone(),
        };
        named.insert(key);
        taken.push((place, merged));
    }
    let mut others = live
        .iter()
        .enumerate()
        .filter(|(_, item)| !named.contains(&element(list, item)))
        .peekable();
    let mut result = Vec::with_capacity(live.len() + applied.len());
    for (place, item) in taken {
        while let Some((_, other)) =
            others.next_if(|(at, _)| place.is_some_and(|place| *at < place))
        {
            result.push(other.clone());
        }
        result.push(item);
    }
    result.extend(others.map(|(_, item)| item.clone()));
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
