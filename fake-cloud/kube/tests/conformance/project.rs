//! What of an answer is compared: chosen paths, with what no two servers share (identities, versions, times) named alike.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};

/// The value at a path, null when there is none; `*` collects every item.
pub(crate) fn at(document: &Value, path: &str) -> Value {
    let segments: Vec<String> = path
        .replace("\\.", "\u{0}")
        .split('.')
        .map(|s| s.replace('\u{0}', "."))
        .collect();
    walk(document, &segments)
}

fn walk(value: &Value, path: &[String]) -> Value {
    let Some((first, rest)) = path.split_first() else {
        return value.clone();
    };
    match value {
        Value::Array(items) if first == "*" => items.iter().map(|i| walk(i, rest)).collect(),
        Value::Array(items) => first
            .parse::<usize>()
            .ok()
            .and_then(|i| items.get(i))
            .map_or(Value::Null, |i| walk(i, rest)),
        Value::Object(map) => map.get(first).map_or(Value::Null, |v| walk(v, rest)),
        _ => Value::Null,
    }
}

/// The chosen paths of a document, or all of it.
pub(crate) fn shown(document: &Value, paths: &[String]) -> Value {
    if paths.is_empty() {
        return document.clone();
    }
    let chosen = paths.iter().map(|p| (p.clone(), at(document, p)));
    Value::Object(chosen.collect::<Map<_, _>>())
}

static TIME: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z").unwrap());
static UID: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").unwrap()
});
static VERSION: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"(ResourceVersion in (?:precondition|object meta): |ResourceVersion in (?:the precondition|record) \(|resource version: |current: |resourceVersion: |\\?"resourceVersion\\?":\\?")\d+( \(\d+\))?"#).unwrap()
});

static TOKEN_VOLUME: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("kube-api-access-[a-z0-9]{5}").unwrap());

/// Five letters that make a name, at the end of a quoted word.
static GENERATED: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"([-.])[bcdfghjklmnpqrstvwxz2456789]{5}(\\?"|$)"#).unwrap());

/// A refusal without the letters of generated names.
fn without_generated(value: Value) -> Value {
    match value {
        Value::String(text) => GENERATED
            .replace_all(&text, "$1?????$2")
            .into_owned()
            .into(),
        Value::Array(items) => items.into_iter().map(without_generated).collect(),
        Value::Object(map) => {
            let pairs = map.into_iter().map(|(k, v)| (k, without_generated(v)));
            Value::Object(pairs.collect())
        }
        other => other,
    }
}

/// A refusal whose causes are in an order of their own: the real server looks through maps in no order at all.
pub(crate) fn ordered(status: Value) -> Value {
    let mut status = without_generated(status);
    let Some(causes) = status["details"]["causes"].as_array() else {
        return status;
    };
    let told = |causes: &[Value]| {
        let texts: Vec<String> = causes
            .iter()
            .map(|c| {
                let text = |key: &str| c[key].as_str().unwrap_or_default().to_owned();
                format!("{}: {}", text("field"), text("message"))
            })
            .collect();
        format!("[{}]", texts.join(", "))
    };
    let mut sorted = causes.clone();
    sorted.sort_by_key(Value::to_string);
    if let Some(head) = status["message"]
        .as_str()
        .and_then(|m| m.strip_suffix(&told(causes)))
    {
        status["message"] = format!("{head}{}", told(&sorted)).into();
    }
    status["details"]["causes"] = sorted.into();
    status
}

/// A document in which identities, versions, times and the check's namespace are named alike.
pub(crate) fn normal(value: Value, namespace: &str) -> Value {
    match value {
        Value::Object(map) => {
            let prefix = map
                .iter()
                .find(|(key, _)| key.ends_with("generateName"))
                .and_then(|(_, prefix)| prefix.as_str())
                .unwrap_or_default()
                .to_owned();
            let generated = |name: &str| {
                let kept = name.len().checked_sub(5).and_then(|n| name.get(..n));
                kept.filter(|k| !k.is_empty() && prefix.starts_with(k))
                    .map(|k| format!("{k}?????"))
            };
            let pairs = map.into_iter().map(|(key, value)| {
                let value = match (key.as_str(), value) {
                    // In order of their second, which may turn between two steps, and then of their names.
                    (k, Value::Array(mut owners)) if k.ends_with("managedFields") => {
                        owners.sort_by_key(|o| {
                            ["manager", "operation", "subresource", "apiVersion"]
                                .map(|k| o[k].as_str().unwrap_or_default().to_owned())
                        });
                        owners.into_iter().map(|o| normal(o, namespace)).collect()
                    }
                    (k, Value::String(s))
                        if is_version(k) && s.parse::<u64>().is_ok_and(|v| v > 1) =>
                    {
                        "<version>".into()
                    }
                    (k, Value::String(s)) if k.ends_with("continue") && !s.is_empty() => {
                        "<token>".into()
                    }
                    ("name" | "metadata.name", Value::String(s)) => match generated(&s) {
                        Some(name) => name.into(),
                        None => plain(&s, namespace).into(),
                    },
                    (_, value) => normal(value, namespace),
                };
                (plain(&key, namespace), value)
            });
            Value::Object(pairs.collect())
        }
        Value::Array(items) => items.into_iter().map(|i| normal(i, namespace)).collect(),
        Value::String(text) => plain(&text, namespace).into(),
        other => other,
    }
}

fn is_version(key: &str) -> bool {
    key == "resourceVersion" || key.ends_with(".resourceVersion")
}

fn plain(text: &str, namespace: &str) -> String {
    let text = text.replace(namespace, "{ns}");
    let text = TIME.replace_all(&text, |c: &regex::Captures<'_>| {
        if c.get(1).is_some() {
            "<microtime>"
        } else {
            "<time>"
        }
    });
    let text = UID.replace_all(&text, "<uid>");
    let text = TOKEN_VOLUME.replace_all(&text, "kube-api-access-?????");
    VERSION.replace_all(&text, "$1<version>").into_owned()
}
