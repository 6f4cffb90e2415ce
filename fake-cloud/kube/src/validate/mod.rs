//! Validation where users and controllers meet it.

pub mod definition;
pub mod names;

use serde_json::Value;

use crate::error::FieldError;
use crate::meta;
use crate::ops::{Part, Target};

/// Errors of a new object.
#[must_use]
pub fn create(target: &Target, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    names::metadata(target, object, &mut errors);
    if target.info.custom {
        errors.extend(crate::crd::validate(target, object, None));
    }
    if target
        .info
        .is("apiextensions.k8s.io", "customresourcedefinitions")
    {
        definition::definition(object, &mut errors);
    }
    errors
}

/// Errors of a change.
#[must_use]
pub fn update(target: &Target, new: &Value, old: &Value, _part: Part) -> Vec<FieldError> {
    let mut errors = Vec::new();
    names::labels(new, &mut errors);
    if target.info.custom {
        errors.extend(crate::crd::validate(target, new, Some(old)));
    }
    if target
        .info
        .is("apiextensions.k8s.io", "customresourcedefinitions")
        && new.get("spec") != old.get("spec")
    {
        definition::definition(new, &mut errors);
    }
    if meta::is_deleting(old) {
        let before: Vec<&str> = meta::finalizers(old).collect();
        let added: Vec<String> = meta::finalizers(new)
            .filter(|f| !before.contains(f))
            .map(|f| format!("{f:?}"))
            .collect();
        if !added.is_empty() {
            errors.push(FieldError::forbidden(
                "metadata.finalizers",
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    added.join(", ")
                ),
            ));
        }
    }
    errors
}
