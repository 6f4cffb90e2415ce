//! Pruning and defaulting: giving an object the shape its schema describes.

use serde_json::{Map, Value};

use super::schema::Schema;
use crate::meta;

/// Fields of `metadata` that there are; others are dropped.
const METADATA: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Drops what the schema does not know; answers the paths of what was dropped.
pub fn prune(schema: &Schema, object: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    prune_resource(schema, object, "", &mut unknown);
    unknown
}

fn prune_resource(schema: &Schema, object: &mut Value, path: &str, unknown: &mut Vec<String>) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|key, _| {
            let known = METADATA.contains(&key.as_str());
            if !known {
                unknown.push(join(&join(path, "metadata"), key));
            }
            known
        });
    }
    prune_node(schema, object, path, true, unknown);
}

fn prune_node(
    schema: &Schema,
    value: &mut Value,
    path: &str,
    resource: bool,
    unknown: &mut Vec<String>,
) {
    match value {
        Value::Object(map) => {
            let keeps_all = schema.preserve || schema.any_values;
            map.retain(|key, below| {
                if resource && matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
                    return true;
                }
                let path = join(path, key);
                match schema.properties.get(key).or(schema.values.as_deref()) {
                    Some(node) if node.embedded => {
                        if below.is_object() {
                            prune_resource(node, below, &path, unknown);
                        }
                    }
                    Some(node) => prune_node(node, below, &path, false, unknown),
                    None if keeps_all => {}
                    None => {
                        unknown.push(path);
                        return false;
                    }
                }
                true
            });
        }
        Value::Array(list) => {
            let Some(items) = &schema.items else {
                return;
            };
            for (i, below) in list.iter_mut().enumerate() {
                let path = format!("{path}[{i}]");
                if items.embedded && below.is_object() {
                    prune_resource(items, below, &path, unknown);
                } else {
                    prune_node(items, below, &path, false, unknown);
                }
            }
        }
        _ => {}
    }
}

/// Drops nulls that may not be, and fills in defaults, defaults of defaults included.
pub fn default(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(map) => {
            default_properties(schema, map);
            for (key, below) in map.iter_mut() {
                if let Some(node) = schema.properties.get(key).or(schema.values.as_deref()) {
                    default(node, below);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                for below in list {
                    if below.is_null()
                        && !items.nullable
                        && let Some(value) = &items.default
                    {
                        *below = value.clone();
                    }
                    default(items, below);
                }
            }
        }
        _ => {}
    }
}

fn default_properties(schema: &Schema, map: &mut Map<String, Value>) {
    for (key, node) in &schema.properties {
        if map.get(key).is_some_and(Value::is_null) && !node.nullable {
            map.remove(key);
        }
        if let Some(value) = &node.default
            && !map.contains_key(key)
        {
            map.insert(key.clone(), value.clone());
        }
    }
    if let Some(values) = &schema.values
        && !values.nullable
    {
        let nulls: Vec<String> = map
            .iter()
            .filter(|(key, v)| v.is_null() && !schema.properties.contains_key(*key))
            .map(|(key, _)| key.clone())
            .collect();
        for key in nulls {
            meta::set(map, &key, values.default.clone());
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::CrdSchema;
    use serde_json::json;

    fn schema(schema: &Value) -> CrdSchema {
        let schema = CrdSchema::new(schema, "schema");
        assert!(schema.errors.is_empty(), "{:?}", schema.errors);
        schema
    }

    #[test]
    fn prunes_by_structure_and_says_what() {
        let schema = schema(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"b": {"type": "integer"}}}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                         "properties": {"known": {"type": "object", "properties": {}}}},
            }},
        }}));
        let mut object = json!({
            "apiVersion": "x/v1", "kind": "X", "metadata": {"name": "a", "colour": "red"},
            "spec": {"list": [{"a": "1", "z": 1}], "map": {"k": {"b": 1, "c": 2}}, "free": {"any": 1, "known": {"x": 1}}, "extra": 1},
            "more": 1,
        });
        let unknown = prune(&schema.root, &mut object);
        assert_eq!(
            object,
            json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "a"},
                   "spec": {"list": [{"a": "1"}], "map": {"k": {"b": 1}}, "free": {"any": 1, "known": {}}}})
        );
        let mut unknown = unknown;
        unknown.sort();
        assert_eq!(
            unknown,
            [
                "metadata.colour",
                "more",
                "spec.extra",
                "spec.free.known.x",
                "spec.list[0].z",
                "spec.map.k.c"
            ]
        );
    }

    #[test]
    fn defaults_nest_and_nulls_go() {
        let schema = schema(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "default": {}, "properties": {
                "disruption": {"type": "object", "default": {"after": "0s"}, "properties": {
                    "after": {"type": "string"}, "budgets": {"type": "array", "default": [{}],
                        "items": {"type": "object", "properties": {"nodes": {"type": "string", "default": "10%"}}}}}},
                "maybe": {"type": "string", "nullable": true, "default": "x"},
                "never": {"type": "string"},
            }},
        }}));
        let mut object = json!({});
        default(&schema.root, &mut object);
        assert_eq!(
            object,
            json!({"spec": {"disruption": {"after": "0s", "budgets": [{"nodes": "10%"}]}, "maybe": "x"}})
        );
        let mut object = json!({"spec": {"maybe": null, "never": null, "disruption": null}});
        default(&schema.root, &mut object);
        assert_eq!(
            object,
            json!({"spec": {"disruption": {"after": "0s", "budgets": [{"nodes": "10%"}]}, "maybe": null}})
        );
    }
}
