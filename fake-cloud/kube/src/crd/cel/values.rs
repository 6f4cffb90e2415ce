//! JSON as expressions see it: typed by its schema, fields by the names that expressions can write.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use kube::core::cel::cel::Value;
use kube::core::cel::cel::functions::{duration, timestamp};
use kube::core::cel::cel::objects::{Key, Map};
use serde_json::Value as Json;

use crate::meta::{flag, text};

/// A value as its schema types it.
#[must_use]
pub fn value_of(json: &Json, schema: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => number(n, text(schema, &["type"])),
        Json::String(s) => string(s, schema),
        Json::Array(items) => {
            let below = schema.get("items").unwrap_or(&Json::Null);
            Value::List(Arc::new(items.iter().map(|i| value_of(i, below)).collect()))
        }
        Json::Object(fields) => object(fields, schema),
    }
}

fn number(n: &serde_json::Number, kind: &str) -> Value {
    match (n.as_i64(), n.as_u64()) {
        // A number is one with a fraction, whatever is written.
        _ if kind == "number" => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
        (Some(i), _) => Value::Int(i),
        (_, Some(u)) => Value::UInt(u),
        _ => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
    }
}

fn string(s: &str, schema: &Json) -> Value {
    let plain = || Value::String(Arc::new(s.to_owned()));
    if flag(schema, &["x-kubernetes-int-or-string"]) {
        return plain();
    }
    // What does not fit its format was told by the format's own check.
    match text(schema, &["format"]) {
        "date-time" => timestamp(Arc::new(s.to_owned())).unwrap_or_else(|_| plain()),
        "date" => timestamp(Arc::new(format!("{s}T00:00:00Z"))).unwrap_or_else(|_| plain()),
        "duration" => duration(Arc::new(s.to_owned())).unwrap_or_else(|_| plain()),
        "byte" => base64::engine::general_purpose::STANDARD
            .decode(s)
            .map_or_else(|_| plain(), |bytes| Value::Bytes(Arc::new(bytes))),
        _ => plain(),
    }
}

fn object(fields: &serde_json::Map<String, Json>, schema: &Json) -> Value {
    let properties = schema.get("properties");
    let values = schema.get("additionalProperties");
    // The keys of a map are its user's, not names of fields.
    let is_map = !matches!(values, None | Some(Json::Bool(false)));
    let values = values.unwrap_or(&Json::Null);
    let mut map: HashMap<Key, Value> = fields
        .iter()
        .map(|(name, value)| {
            let below = properties.and_then(|p| p.get(name)).unwrap_or(values);
            let key = if is_map { name.clone() } else { escaped(name) };
            (Key::String(Arc::new(key)), value_of(value, below))
        })
        .collect();
    if flag(schema, &["x-kubernetes-embedded-resource"]) {
        let key = |name: &str| Key::String(Arc::new(name.to_owned()));
        for name in ["apiVersion", "kind"] {
            map.entry(key(name))
                .or_insert_with(|| Value::String(Arc::default()));
        }
        let nothing = Map {
            map: Arc::default(),
        };
        map.entry(key("metadata")).or_insert(Value::Map(nothing));
    }
    Value::Map(Map { map: Arc::new(map) })
}

/// A field's name as expressions write it, in which dots and the like have no place.
#[must_use]
pub fn escaped(name: &str) -> String {
    const RESERVED: [&str; 21] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    name.replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__")
}
