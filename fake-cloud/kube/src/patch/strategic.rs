//! Strategic merge patches: like a merge patch, but lists are merged by key, and directives say what to drop, to
//! replace and in which order elements stand.

use serde_json::{Map, Value};

use super::gofmt;
use crate::error::{ApiError, Result};
use crate::structure::{Strategic, Structure};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_SCALARS: &str = "$deleteFromPrimitiveList/";

/// The patched document.
///
/// # Errors
/// 500, as the real server has it, for directives that make no sense.
pub fn apply(structure: Option<&Structure<'_>>, old: &Value, patch: &Value) -> Result<Value> {
    let (Some(old), Some(patch)) = (old.as_object(), patch.as_object()) else {
        return Ok(patch.clone());
    };
    merge_map(structure, &mut Vec::new(), old.clone(), patch).map(Value::Object)
}

/// The real server returns its library's errors as they come.
fn bad(why: String) -> ApiError {
    ApiError::bare(why)
}

fn merge_map<'p>(
    structure: Option<&Structure<'_>>,
    path: &mut Vec<&'p str>,
    mut old: Map<String, Value>,
    patch: &'p Map<String, Value>,
) -> Result<Map<String, Value>> {
    match patch.get(PATCH).map(|d| d.as_str().unwrap_or("")) {
        None | Some("merge") => {}
        Some("replace") => {
            return Ok(patch
                .iter()
                .filter(|(key, _)| *key != PATCH)
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect());
        }
        Some("delete") => return Ok(Map::new()),
        Some(other) => {
            let shown = gofmt::value(&Value::Object(patch.clone()));
            return Err(bad(format!("unknown patch type: {other} in map: {shown}")));
        }
    }
    if let Some(retain) = patch.get(RETAIN_KEYS) {
        let keys: Vec<&str> = retain
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        old.retain(|key, _| keys.contains(&key.as_str()));
    }
    for (key, value) in patch {
        if key == PATCH || key == RETAIN_KEYS || key.starts_with(SET_ORDER) {
            continue;
        }
        if let Some(field) = key.strip_prefix(DELETE_SCALARS) {
            let gone = value.as_array().map(Vec::as_slice).unwrap_or_default();
            if let Some(list) = old.get_mut(field).and_then(Value::as_array_mut) {
                list.retain(|item| !gone.contains(item));
            }
            continue;
        }
        if value.is_null() {
            old.remove(key);
            continue;
        }
        path.push(key);
        let merged = merge_value(structure, path, old.remove(key), value, patch, key);
        path.pop();
        match merged? {
            Some(value) => {
                old.insert(key.clone(), value);
            }
            None => {
                old.remove(key);
            }
        }
    }
    // An order may come without a change of the list.
    for (key, order) in patch {
        if let Some(field) = key.strip_prefix(SET_ORDER)
            && !patch.contains_key(field)
            && let Some(list) = old.get_mut(field).and_then(Value::as_array_mut)
        {
            path.push(field);
            let rule = structure.map_or(Strategic::Replace, |s| s.strategic(path));
            path.pop();
            let before = list.clone();
            let order = order.as_array().map(Vec::as_slice).unwrap_or_default();
            *list = reorder(rule, std::mem::take(list), &before, order);
        }
    }
    Ok(old)
}

fn merge_value<'p>(
    structure: Option<&Structure<'_>>,
    path: &mut Vec<&'p str>,
    old: Option<Value>,
    new: &'p Value,
    siblings: &Map<String, Value>,
    key: &str,
) -> Result<Option<Value>> {
    match new {
        Value::Object(patch) => {
            let deletes = patch.get(PATCH).and_then(Value::as_str) == Some("delete");
            if deletes {
                return Ok(None);
            }
            let old = match old {
                Some(Value::Object(old)) => old,
                _ => Map::new(),
            };
            merge_map(structure, path, old, patch).map(|m| Some(Value::Object(m)))
        }
        Value::Array(patch) => {
            let rule = structure.map_or(Strategic::Replace, |s| s.strategic(path));
            let old = match old {
                Some(Value::Array(old)) => old,
                _ => Vec::new(),
            };
            let order = siblings
                .get(&format!("{SET_ORDER}{key}"))
                .and_then(Value::as_array);
            if let Some(order) = order {
                check_order(rule, patch, order)?;
            }
            merge_list(structure, path, rule, old, patch, order).map(|l| Some(Value::Array(l)))
        }
        scalar => Ok(Some(scalar.clone())),
    }
}

fn merge_list<'p>(
    structure: Option<&Structure<'_>>,
    path: &mut Vec<&'p str>,
    rule: Strategic,
    old: Vec<Value>,
    patch: &'p [Value],
    order: Option<&Vec<Value>>,
) -> Result<Vec<Value>> {
    let before = old.clone();
    let merged = match rule {
        Strategic::Replace => return Ok(patch.to_vec()),
        Strategic::Scalars => {
            let mut merged = old;
            for item in patch {
                if !merged.contains(item) {
                    merged.push(item.clone());
                }
            }
            merged
        }
        Strategic::ByKey(key) => {
            let directive =
                |item: &Value| item.get(PATCH).and_then(Value::as_str).map(str::to_owned);
            if patch
                .iter()
                .any(|i| directive(i).as_deref() == Some("replace"))
            {
                return Ok(patch
                    .iter()
                    .filter(|i| i.get(PATCH).is_none())
                    .cloned()
                    .collect());
            }
            let mut merged = old;
            for item in patch {
                let Some(fields) = item.as_object() else {
                    return Err(bad(format!(
                        "list of {} holds something that is no object",
                        path.join(".")
                    )));
                };
                let Some(id) = fields.get(key) else {
                    return Err(bad(format!(
                        "map: {} does not contain declared merge key: {key}",
                        gofmt::value(item)
                    )));
                };
                let place = merged.iter().position(|m| m.get(key) == Some(id));
                match (directive(item).as_deref(), place) {
                    (Some("delete"), Some(at)) => {
                        merged.remove(at);
                    }
                    (Some("delete"), None) => {}
                    (_, Some(at)) => {
                        if let Some(slot) = merged.get_mut(at) {
                            let existing = slot.as_object().cloned().unwrap_or_default();
                            *slot = Value::Object(merge_map(structure, path, existing, fields)?);
                        }
                    }
                    (_, None) => merged.push(Value::Object(merge_map(
                        structure,
                        path,
                        Map::new(),
                        fields,
                    )?)),
                }
            }
            merged
        }
    };
    // Without an order what the patch names stands as the patch has it.
    Ok(reorder(
        rule,
        merged,
        &before,
        order.map_or(patch, Vec::as_slice),
    ))
}

/// What a patch sets stands in its order as in the order that it asks for.
fn check_order(rule: Strategic, patch: &[Value], order: &[Value]) -> Result<()> {
    let id = |item: &Value| match rule {
        Strategic::ByKey(key) => item.get(key).cloned().unwrap_or(Value::Null),
        _ => item.clone(),
    };
    let mut rest = order.iter();
    let set = patch.iter().filter(|i| i.get(PATCH).is_none());
    for item in set {
        if !rest.any(|o| id(o) == id(item)) {
            return Err(bad(format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                gofmt::value(&Value::Array(patch.to_vec())),
                gofmt::value(&Value::Array(order.to_vec()))
            )));
        }
    }
    Ok(())
}

/// Puts elements that `order` names in that order; others keep their place among them as they had it in `before`.
fn reorder(rule: Strategic, list: Vec<Value>, before: &[Value], order: &[Value]) -> Vec<Value> {
    let id = |item: &Value| -> Value {
        match rule {
            Strategic::ByKey(key) => item.get(key).cloned().unwrap_or(Value::Null),
            _ => item.clone(),
        }
    };
    let index = |list: &[Value], item: &Value| list.iter().position(|o| id(o) == id(item));
    let (mut named, others): (Vec<Value>, Vec<Value>) = list
        .into_iter()
        .partition(|item| index(order, item).is_some());
    named.sort_by_key(|item| index(order, item));
    let mut result = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let other_first = match (others.peek(), named.peek()) {
            (None, None) => return result,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(other), Some(name)) => {
                matches!((index(before, other), index(before, name)), (Some(o), Some(n)) if o < n)
            }
        };
        result.extend(if other_first {
            others.next()
        } else {
            named.next()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Target;
    use crate::registry::Registry;
    use rstest::rstest;
    use serde_json::json;
    use std::sync::Arc;

    fn patched(plural: &str, group: &str, old: &Value, patch: &Value) -> Result<Value> {
        let registry = Registry::default();
        let info = registry.get(group, plural).unwrap();
        let target = Target::new(Arc::clone(info), 0, None);
        apply(Some(&Structure::of(&target)), old, patch)
    }

    fn containers(list: Value) -> Value {
        json!({"spec": {"template": {"spec": {"containers": list}}}})
    }

    #[rstest]
    // A container and its lists are merged by their keys.
    #[case(
        json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "1"}]),
        json!([{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}]),
        json!([{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]}, {"name": "b", "image": "1"}])
    )]
    #[case(
        json!([{"name": "a"}, {"name": "b"}]),
        json!([{"name": "a", "$patch": "delete"}, {"name": "c"}]),
        json!([{"name": "c"}, {"name": "b"}])
    )]
    #[case(
        json!([{"name": "a"}, {"name": "b"}]),
        json!([{"$patch": "replace"}, {"name": "c"}]),
        json!([{"name": "c"}])
    )]
    #[case(
        json!([{"name": "a", "ports": [{"containerPort": 80, "name": "x"}]}]),
        json!([{"name": "a", "ports": [{"containerPort": 80, "name": "y"}, {"containerPort": 81}], "command": ["z"]}]),
        json!([{"name": "a", "ports": [{"containerPort": 80, "name": "y"}, {"containerPort": 81}], "command": ["z"]}])
    )]
    fn lists_merge_by_key(#[case] old: Value, #[case] patch: Value, #[case] expected: Value) {
        assert_eq!(
            patched("deployments", "apps", &containers(old), &containers(patch)).unwrap(),
            containers(expected)
        );
    }

    #[test]
    fn order_is_set() {
        let old = containers(json!([{"name": "server"}, {"name": "a"}, {"name": "b"}]));
        let patch = json!({"spec": {"template": {"spec": {
            "$setElementOrder/containers": [{"name": "new"}, {"name": "b"}, {"name": "a"}],
            "containers": [{"name": "new"}]}}}});
        assert_eq!(
            patched("deployments", "apps", &old, &patch).unwrap(),
            containers(json!([{"name": "new"}, {"name": "server"}, {"name": "b"}, {"name": "a"}]))
        );
    }

    #[test]
    fn retain_keys_and_nulls() {
        let old = json!({"spec": {"replicas": 3, "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
        let patch = json!({"spec": {"replicas": null, "strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
        assert_eq!(
            patched("deployments", "apps", &old, &patch).unwrap(),
            json!({"spec": {"strategy": {"type": "Recreate"}}})
        );
        let patch = json!({"spec": {"strategy": {"$patch": "replace", "type": "Recreate"}}});
        assert_eq!(
            patched("deployments", "apps", &old, &patch).unwrap(),
            json!({"spec": {"replicas": 3, "strategy": {"type": "Recreate"}}})
        );
    }

    #[test]
    fn nodes_merge_conditions_but_replace_taints_and_finalizers_are_a_set() {
        let old = json!({"metadata": {"finalizers": ["a", "b"]}, "spec": {"taints": [{"key": "x"}]},
                         "status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "Disk", "status": "False"}]}});
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]},
                           "spec": {"taints": [{"key": "y"}]}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        assert_eq!(
            patched("nodes", "", &old, &patch).unwrap(),
            json!({"metadata": {"finalizers": ["c", "b"]}, "spec": {"taints": [{"key": "y"}]},
                   "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Disk", "status": "False"}]}})
        );
    }

    #[rstest]
    #[case(json!([{"image": "x"}]))]
    #[case(json!(["x"]))]
    fn elements_need_their_key(#[case] patch: Value) {
        let error = patched(
            "deployments",
            "apps",
            &containers(json!([])),
            &containers(patch),
        )
        .unwrap_err();
        assert_eq!(error.code, 500);
    }

    #[test]
    fn unknown_directives_are_refused() {
        assert!(
            patched(
                "pods",
                "",
                &json!({}),
                &json!({"spec": {"$patch": "mangle"}})
            )
            .is_err()
        );
    }
}
