//! Compares two definitions by what they mean: fields, types, defaults, bounds, rules, columns, names. Descriptions
//! and messages are for people and do not count; nor does the order of enums, required fields, rules or lists of
//! names, or blanks in rules.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// How `ours` differs from `theirs`, a line a difference: the path, `-` for what only they have, `+` for what only we
/// have, `~` for what both have differently.
#[must_use]
pub fn differences(ours: &Value, theirs: &Value) -> Vec<String> {
    let (ours, theirs) = (meaning(ours), meaning(theirs));
    let mut out = Vec::new();
    compare("", &ours, &theirs, &mut out);
    out
}

/// Lists in which the order says nothing.
const SETS: [&str; 5] = [
    "enum",
    "required",
    "shortNames",
    "categories",
    "x-kubernetes-list-map-keys",
];

/// The parts of a definition that count, in one form.
fn meaning(definition: &Value) -> Value {
    let mut spec = definition.get("spec").cloned().unwrap_or_default();
    let versions = spec.get_mut("versions").and_then(Value::as_array_mut);
    for version in versions.into_iter().flatten() {
        if let Some(schema) = version.pointer_mut("/schema/openAPIV3Schema") {
            *schema = schema_meaning(schema);
        }
        let columns = version.get_mut("additionalPrinterColumns");
        for column in columns.and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(column) = column.as_object_mut() {
                column.remove("description");
            }
        }
    }
    sorted(&mut spec);
    let mut out = Map::new();
    out.insert("spec".to_owned(), spec);
    if let Some(name) = definition.pointer("/metadata/name") {
        out.insert("name".to_owned(), name.clone());
    }
    Value::Object(out)
}

/// Sorts what has no order outside schemas.
fn sorted(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map.iter_mut() {
                match inner {
                    Value::Array(items) if SETS.contains(&key.as_str()) => sort(items),
                    _ => sorted(inner),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(sorted),
        _ => {}
    }
}

fn sort(items: &mut [Value]) {
    items.sort_by_key(ToString::to_string);
}

fn schema_meaning(schema: &Value) -> Value {
    let Value::Object(map) = schema else {
        return schema.clone();
    };
    let mut out = Map::new();
    for (key, value) in map {
        let kept = match (key.as_str(), value) {
            ("description", _) => continue,
            ("properties", Value::Object(fields)) => {
                let fields = fields.iter().map(|(k, v)| (k.clone(), schema_meaning(v)));
                Value::Object(fields.collect())
            }
            ("items" | "additionalProperties", inner) => schema_meaning(inner),
            ("x-kubernetes-validations", Value::Array(rules)) => {
                let rules: BTreeSet<String> = rules.iter().map(rule_meaning).collect();
                rules.into_iter().collect()
            }
            (set, Value::Array(items)) if SETS.contains(&set) => {
                let mut items = items.clone();
                sort(&mut items);
                Value::Array(items)
            }
            (_, other) => other.clone(),
        };
        out.insert(key.clone(), kept);
    }
    Value::Object(out)
}

/// A rule without blanks, its list literals sorted and without doubles.
fn rule_meaning(rule: &Value) -> String {
    let text = rule.get("rule").and_then(Value::as_str).unwrap_or_default();
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some((before, tail)) = rest.split_once("in[") {
        let Some((list, after)) = tail.split_once(']') else {
            break;
        };
        let members: BTreeSet<&str> = list.split(',').collect();
        let members: Vec<&str> = members.into_iter().collect();
        out.push_str(&format!("{before}in[{}]", members.join(",")));
        rest = after;
    }
    out + rest
}

fn compare(path: &str, ours: &Value, theirs: &Value, out: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let path = format!("{path}/{key}");
                match (a.get(key), b.get(key)) {
                    (Some(x), Some(y)) => compare(&path, x, y, out),
                    (Some(x), None) => out.push(format!("{path} + {x}")),
                    (None, Some(y)) => out.push(format!("{path} - {y}")),
                    (None, None) => {}
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (x, y)) in a.iter().zip(b).enumerate() {
                compare(&format!("{path}/{i}"), x, y, out);
            }
        }
        _ if ours == theirs => {}
        _ => out.push(format!("{path} ~ {ours} for {theirs}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(schema: Value) -> Value {
        json!({ "metadata": { "name": "a" }, "spec": { "versions": [{ "schema": { "openAPIV3Schema": schema } }] } })
    }

    #[test]
    fn what_only_reads_differently_is_equal() {
        let rule = |rule: &str, message: &str| json!([{ "rule": rule, "message": message }]);
        let a = json!({ "description": "a", "enum": ["x", "y"], "required": ["p", "q"],
            "properties": { "description": { "type": "string" } },
            "x-kubernetes-validations": rule("self in ['a', 'b']", "one") });
        let b = json!({ "description": "b", "enum": ["y", "x"], "required": ["q", "p"],
            "properties": { "description": { "type": "string" } },
            "x-kubernetes-validations": rule("self in ['b','a', 'a']", "two") });
        assert_eq!(differences(&with(a), &with(b)), Vec::<String>::new());
    }

    #[test]
    fn every_kind_of_difference_is_named() {
        let a = json!({ "properties": { "f": { "type": "string", "pattern": "x" }, "description": { "type": "string" } } });
        let b = json!({ "properties": { "f": { "type": "integer", "minimum": 1 } } });
        let root = "/spec/versions/0/schema/openAPIV3Schema/properties";
        assert_eq!(
            differences(&with(a), &with(b)),
            [
                format!(r#"{root}/description + {{"type":"string"}}"#),
                format!("{root}/f/minimum - 1"),
                format!(r#"{root}/f/pattern + "x""#),
                format!(r#"{root}/f/type ~ "string" for "integer""#),
            ]
        );
    }
}
