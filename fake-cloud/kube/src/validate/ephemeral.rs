//! Validation of ephemeral containers: they are added to a running pod, one by one, and stay as they are.

use serde_json::Value;

use super::names;
use crate::error::FieldError;
use crate::meta::{at, text};

const PATH: &str = "spec.ephemeralContainers";

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    at(pod, &["spec", "ephemeralContainers"])
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// A new pod has none.
pub fn create(pod: &Value, errors: &mut Vec<FieldError>) {
    if containers(pod).next().is_some() {
        errors.push(FieldError::forbidden(PATH, "cannot be set on create"));
    }
}

/// What a write of them may do: add some, with names of their own.
pub fn update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let taken: Vec<&str> = ["containers", "initContainers"]
        .iter()
        .filter_map(|list| at(old, &["spec", list])?.as_array())
        .flatten()
        .map(|c| text(c, &["name"]))
        .collect();
    let mut seen: Vec<&str> = Vec::new();
    for (i, container) in containers(new).enumerate() {
        let path = format!("{PATH}[{i}]");
        let name = text(container, &["name"]);
        if name.is_empty() {
            errors.push(FieldError::required(&format!("{path}.name"), ""));
        } else if let Some(why) = names::label_error(name) {
            errors.push(FieldError::invalid(&format!("{path}.name"), name, why));
        } else if taken.contains(&name) || seen.contains(&name) {
            errors.push(FieldError::duplicate(&format!("{path}.name"), name));
        }
        seen.push(name);
        if text(container, &["image"]).is_empty() {
            errors.push(FieldError::required(&format!("{path}.image"), ""));
        }
    }
    for before in containers(old) {
        let name = text(before, &["name"]);
        let what = match containers(new).find(|c| text(c, &["name"]) == name) {
            None => "removed",
            Some(after) if after != before => "changed",
            Some(_) => continue,
        };
        let why = format!("existing ephemeral containers {name:?} may not be {what}\n");
        errors.push(FieldError::forbidden(PATH, why));
    }
}
