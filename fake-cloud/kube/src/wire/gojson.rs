//! Objects as Go writes them in JSON: a type's fields in the order in which it declares them. Some messages of the real
//! server show objects like that.

use serde_json::{Map, Value};

use super::types::{self, Field, Kind};

/// An object of a kind. Where `touched` (a patch, say) has a map, the object was taken apart and is written with its keys
/// in the alphabet's order; so is what is of no known type.
#[must_use]
pub fn object(api_version: &str, kind: &str, object: &Value, touched: &Value) -> String {
    let of = types::all().of_kind(api_version, kind).map(Kind::Type);
    written(of.as_ref(), object, Some(touched))
}

/// A value of a type, by the type's name.
#[must_use]
pub fn of_type(name: &'static str, value: &Value) -> String {
    written(Some(&Kind::Type(name)), value, None)
}

/// A list of values of a type.
#[must_use]
pub fn list_of(name: &'static str, values: &Value) -> String {
    let of = Kind::List(Box::new(Kind::Type(name)));
    written(Some(&of), values, None)
}

fn written(kind: Option<&Kind>, value: &Value, touched: Option<&Value>) -> String {
    match (value, kind) {
        (Value::Object(map), Some(Kind::Type(name))) => {
            let fields = flat(name);
            let field = |key: &str| fields.iter().find(|f| f.name == Some(key));
            let parts = |key: &str, below: &Value| {
                let touched = touched.and_then(|t| t.get(key)).filter(|t| t.is_object());
                entry(key, &written(field(key).map(|f| &f.kind), below, touched))
            };
            if touched.is_some_and(Value::is_object) {
                return joined('{', map.iter().map(|(key, below)| parts(key, below)), '}');
            }
            // Where a type has no such fields of its own, they are those of every object.
            let names = ["kind", "apiVersion"]
                .into_iter()
                .filter(|k| field(k).is_none());
            let names = names.chain(fields.iter().filter_map(|f| f.name));
            let known = names.filter_map(|key| Some(parts(key, map.get(key)?)));
            joined('{', known, '}')
        }
        (Value::Object(map), Some(Kind::Map(of))) => keyed(map, Some(of)),
        (Value::Array(items), Some(Kind::List(of))) => {
            joined('[', items.iter().map(|i| written(Some(of), i, None)), ']')
        }
        (Value::Object(map), None) => keyed(map, None),
        _ => value.to_string(),
    }
}

fn keyed(map: &Map<String, Value>, of: Option<&Kind>) -> String {
    let entries = map.iter().map(|(k, v)| entry(k, &written(of, v, None)));
    joined('{', entries, '}')
}

fn entry(key: &str, value: &str) -> String {
    format!("{}:{value}", Value::from(key))
}

fn joined(open: char, parts: impl Iterator<Item = String>, close: char) -> String {
    let parts: Vec<String> = parts.collect();
    format!("{open}{}{close}", parts.join(","))
}

/// A type's fields, those of the types that stand in it included.
fn flat(name: &str) -> Vec<&'static Field> {
    let mut all = Vec::new();
    for field in types::all().fields(name) {
        match (&field.kind, field.name) {
            (Kind::Type(inner), None) => all.extend(flat(inner)),
            _ => all.push(field),
        }
    }
    all
}

/// A value of one of the server's own types, which have no names for JSON: every field is there under its name in Go. What
/// such a type shares with the API (selectors, amounts) is written as there.
#[must_use]
pub fn internal(name: &'static str, value: &Value) -> String {
    let entries = flat(name).into_iter().filter_map(|field| {
        let key = field.name?;
        let value = value.get(key).unwrap_or(&Value::Null);
        let text = match (&field.kind, value) {
            (Kind::Type(of), value) if !of.starts_with("meta.") && value.is_object() => {
                internal(of, value)
            }
            (Kind::List(of), Value::Array(items)) => match &**of {
                Kind::Type(of) if !of.starts_with("meta.") => {
                    joined('[', items.iter().map(|i| internal(of, i)), ']')
                }
                _ => written(Some(&field.kind), value, None),
            },
            (Kind::String, Value::Null) if !field.pointer => "\"\"".to_owned(),
            (Kind::Bool, Value::Null) if !field.pointer => "false".to_owned(),
            (Kind::Int32 | Kind::Int64, Value::Null) if !field.pointer => "0".to_owned(),
            (kind, value) => written(Some(kind), value, None),
        };
        let mut letters = key.chars();
        let name: String = letters
            .next()
            .into_iter()
            .flat_map(char::to_uppercase)
            .chain(letters)
            .collect();
        Some(entry(&name, &text))
    });
    joined('{', entries, '}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_stand_as_their_types_declare_them() {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"b": "1", "a": "2"}, "zoo": 1,
            "metadata": {"uid": "u", "name": "n", "labels": {"y": "1", "x": "2"}}});
        let shown = |touched: Value| object("v1", "ConfigMap", &map, &touched);
        assert_eq!(
            shown(json!({"data": {}})),
            r#"{"apiVersion":"v1","data":{"a":"2","b":"1"},"kind":"ConfigMap","metadata":{"name":"n","uid":"u","labels":{"x":"2","y":"1"}},"zoo":1}"#
        );
        assert!(
            shown(json!({"metadata": {"labels": {}}}))
                .contains(r#""metadata":{"labels":{"x":"2","y":"1"},"name":"n","uid":"u"}"#)
        );
        let selector = json!({"matchExpressions": [{"values": ["x"], "operator": "In", "key": "k"}], "matchLabels": {"a": "b"}});
        assert_eq!(
            of_type("meta.v1.LabelSelector", &selector),
            r#"{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"k","operator":"In","values":["x"]}]}"#
        );
    }

    #[test]
    fn the_servers_own_types_show_every_field() {
        let taint = json!({"key": "a", "effect": "NoSchedule"});
        assert_eq!(
            internal("core.v1.Taint", &taint),
            r#"{"Key":"a","Value":"","Effect":"NoSchedule","TimeAdded":null}"#
        );
        let budget = json!({"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}});
        assert_eq!(
            internal("policy.v1.PodDisruptionBudgetSpec", &budget),
            r#"{"MinAvailable":1,"Selector":{"matchLabels":{"a":"b"}},"MaxUnavailable":null,"UnhealthyPodEvictionPolicy":null}"#
        );
    }
}
