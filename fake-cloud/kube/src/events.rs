//! Events in their new form (`events.k8s.io/v1`), which are the old ones under other names: kept in the old form, shown
//! in either.

use serde_json::{Map, Value};

use crate::error::FieldError;
use crate::meta::{self, at, text};
use crate::registry::ResourceInfo;
use crate::validate::names;

/// The group of the new form.
pub const GROUP: &str = "events.k8s.io";

/// Fields of the new form, and what they are called in the old one.
const NAMES: [(&str, &str); 8] = [
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reportingInstance", "reportingInstance"),
];
/// Fields that the old form has even where they are empty, and those that the new one has.
const OLD_ALWAYS: [&str; 5] = [
    "involvedObject",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "eventTime",
];
const NEW_ALWAYS: [&str; 4] = [
    "deprecatedSource",
    "deprecatedFirstTimestamp",
    "deprecatedLastTimestamp",
    "eventTime",
];

/// Whether a resource is that of the new form.
#[must_use]
pub fn is_new(info: &ResourceInfo) -> bool {
    info.is(GROUP, "events")
}

fn blank(key: &str) -> Value {
    match key {
        "involvedObject" | "source" | "deprecatedSource" => Value::Object(Map::new()),
        _ => Value::Null,
    }
}

/// An event in another form: its fields by their names there, and those that this form always has.
fn in_form(
    event: &Value,
    version: &str,
    always: &[&str],
    names: impl Iterator<Item = (&'static str, &'static str)> + Clone,
) -> Map<String, Value> {
    let fields = event.as_object().into_iter().flatten();
    let renamed = fields.map(|(key, value)| {
        let name = names.clone().find(|(from, _)| from == key);
        (
            name.map_or(key.as_str(), |(_, to)| to).to_owned(),
            value.clone(),
        )
    });
    let mut form: Map<String, Value> = renamed.collect();
    form.insert("apiVersion".into(), version.into());
    for key in always {
        form.entry(*key).or_insert_with(|| blank(key));
    }
    form
}

/// An event in the new form.
#[must_use]
pub fn as_new(event: &Value) -> Value {
    let names = NAMES.into_iter().map(|(new, old)| (old, new));
    let mut new = in_form(event, "events.k8s.io/v1", &NEW_ALWAYS, names);
    // What is empty is not written.
    for key in ["reportingController", "reportingInstance"] {
        if new.get(key).and_then(Value::as_str) == Some("") {
            new.remove(key);
        }
    }
    Value::Object(new)
}

/// An event in the old form, in which it is kept.
#[must_use]
pub fn as_old(event: &Value) -> Value {
    let mut old = in_form(event, "v1", &OLD_ALWAYS, NAMES.into_iter());
    for key in ["reportingComponent", "reportingInstance"] {
        old.entry(key).or_insert_with(|| "".into());
    }
    Value::Object(old)
}

/// Errors of an event in the new form, which leaves less open than the old one.
pub fn check(event: &Value, errors: &mut Vec<FieldError>) {
    /// Fewest events that are a series.
    const SERIES_MIN: i64 = 2;
    let required = |path: &str| FieldError::required(path, "");
    if at(event, &["eventTime"]).is_none_or(Value::is_null) {
        errors.push(required("eventTime"));
    }
    if let Some(series) = event.get("series").filter(|s| s.is_object()) {
        if series.get("count").and_then(Value::as_i64).unwrap_or(0) < SERIES_MIN {
            let why = format!("should be at least {SERIES_MIN}");
            errors.push(FieldError::invalid("series.count", "", why));
        }
        if series.get("lastObservedTime").is_none_or(Value::is_null) {
            errors.push(required("series.lastObservedTime"));
        }
    }
    let controller = text(event, &["reportingController"]);
    for why in names::qualified_errors(controller) {
        errors.push(FieldError::invalid("reportingController", controller, why));
    }
    for key in [
        "reportingController",
        "reportingInstance",
        "action",
        "reason",
    ] {
        if text(event, &[key]).is_empty() {
            errors.push(required(key));
        }
    }
    let kind = text(event, &["type"]);
    if !matches!(kind, "Normal" | "Warning") {
        let why = format!("has invalid value: {kind}");
        errors.push(FieldError::invalid("type", "", why));
    }
    let (about, namespace) = (
        text(event, &["regarding", "namespace"]),
        meta::namespace(event),
    );
    if about != namespace && !(about.is_empty() && namespace == "default") {
        let why = "does not match event.namespace";
        errors.push(FieldError::invalid("regarding.namespace", about, why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_goes_from_one_form_to_the_other_and_back() {
        let new = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "a"}, "note": "n",
            "eventTime": "t", "reportingController": "c", "reportingInstance": "i", "regarding": {"name": "p"},
            "deprecatedSource": {}, "deprecatedFirstTimestamp": null, "deprecatedLastTimestamp": null});
        let old = as_old(&new);
        assert_eq!(
            (&old["message"], &old["involvedObject"]["name"]),
            (&json!("n"), &json!("p"))
        );
        assert_eq!(old["apiVersion"], "v1");
        assert_eq!(as_new(&old), new);
    }
}
