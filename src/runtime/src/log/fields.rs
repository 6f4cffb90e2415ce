//! Fields of spans and events as JSON.

use std::fmt::Debug;

use serde::de::IgnoredAny;
use tracing::field::{Field as Name, Visit};

/// Keys whose value is an object of the cluster: a bare name becomes `{"name": ...}`.
const OBJECT_KEYS: [&str; 7] = [
    "NodePool",
    "NodeClaim",
    "Node",
    "Pod",
    "NodeClass",
    "EC2NodeClass",
    "KWOKNodeClass",
];

/// A key and its value as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) key: String,
    pub(super) json: String,
}

/// Collects what a span or an event carries.
#[derive(Default)]
pub(super) struct Collector {
    pub(super) message: Option<String>,
    pub(super) fields: Vec<Field>,
}

impl Collector {
    fn push(&mut self, name: &Name, json: String) {
        self.fields.push(Field {
            key: name.name().replace('_', "-"),
            json,
        });
    }

    fn push_text(&mut self, name: &Name, text: &str) {
        let json = if OBJECT_KEYS.contains(&name.name()) && !text.is_empty() {
            object(text)
        } else {
            quoted(text)
        };
        self.push(name, json);
    }
}

impl Visit for Collector {
    fn record_f64(&mut self, name: &Name, value: f64) {
        let json = serde_json::Number::from_f64(value)
            .map_or_else(|| quoted(&value.to_string()), |number| number.to_string());
        self.push(name, json);
    }
    fn record_i64(&mut self, name: &Name, value: i64) {
        self.push(name, value.to_string());
    }
    fn record_u64(&mut self, name: &Name, value: u64) {
        self.push(name, value.to_string());
    }
    fn record_i128(&mut self, name: &Name, value: i128) {
        self.push(name, value.to_string());
    }
    fn record_u128(&mut self, name: &Name, value: u128) {
        self.push(name, value.to_string());
    }
    fn record_bool(&mut self, name: &Name, value: bool) {
        self.push(name, value.to_string());
    }
    fn record_str(&mut self, name: &Name, value: &str) {
        if name.name() == "message" {
            self.message = Some(value.to_owned());
        } else {
            self.push_text(name, value);
        }
    }
    fn record_error(&mut self, name: &Name, value: &(dyn std::error::Error + 'static)) {
        // Our errors do not repeat their source: the whole chain makes the sentence.
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(error) = source {
            let more = error.to_string();
            if !text.ends_with(&more) {
                text.push_str(": ");
                text.push_str(&more);
            }
            source = error.source();
        }
        self.push_text(name, &text);
    }
    fn record_debug(&mut self, name: &Name, value: &dyn Debug) {
        // `%value` comes this way too, as something whose Debug is the value's Display.
        let text = format!("{value:?}");
        if name.name() == "message" {
            self.message = Some(text);
        } else if text.starts_with(['{', '[']) && serde_json::from_str::<IgnoredAny>(&text).is_ok()
        {
            self.push(name, text);
        } else {
            self.push_text(name, &text);
        }
    }
}

/// `namespace/name` or `name` as an object.
fn object(text: &str) -> String {
    match text.split_once('/') {
        Some((namespace, name)) => format!(
            "{{\"name\":{},\"namespace\":{}}}",
            quoted(name),
            quoted(namespace)
        ),
        None => format!("{{\"name\":{}}}", quoted(text)),
    }
}

/// Adds the key that names the object a controller works on, as in `"NodeClaim":{"name":"default-x"}`, right behind
/// the controller's kind; leaves group and kind out where there are none.
pub(super) fn with_object_key(fields: Vec<Field>) -> Vec<Field> {
    let text = |key: &str| {
        let field = fields.iter().find(|f| f.key == key);
        field.and_then(|f| serde_json::from_str::<String>(&f.json).ok())
    };
    let Some(kind) = text("controllerKind") else {
        return fields;
    };
    let named = match (
        text("namespace").unwrap_or_default(),
        text("name").unwrap_or_default(),
    ) {
        (namespace, name) if namespace.is_empty() => object(&name),
        (namespace, name) => object(&format!("{namespace}/{name}")),
    };
    let mut out = Vec::with_capacity(fields.len() + 1);
    for field in fields {
        match field.key.as_str() {
            "controllerGroup" | "controllerKind" if kind.is_empty() => {}
            "controllerKind" => {
                out.push(field);
                out.push(Field {
                    key: kind.clone(),
                    json: named.clone(),
                });
            }
            _ => out.push(field),
        }
    }
    out
}

pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Appends `"key":"text"`.
pub(super) fn push_pair(line: &mut String, key: &str, text: &str) {
    push_raw(line, key, &quoted(text));
}

/// Appends `"key":json`.
pub(super) fn push_raw(line: &mut String, key: &str, json: &str) {
    if !line.ends_with('{') {
        line.push(',');
    }
    line.push_str(&quoted(key));
    line.push(':');
    line.push_str(json);
}
