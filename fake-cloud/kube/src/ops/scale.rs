//! The scale subresource: desired replicas of a workload or of a custom resource, as `autoscaling/v1 Scale`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Part, State, Target, WriteOptions, replace};
use crate::error::{ApiError, FieldError, Result};
use crate::meta::{self, at};
use crate::patch::PatchKind;
use crate::registry::ScalePaths;
use crate::selectors;

fn paths(target: &Target) -> Result<&ScalePaths> {
    target
        .version_info()
        .and_then(|v| v.scale.as_ref())
        .ok_or_else(ApiError::no_such_resource)
}

fn integer(object: &Value, path: &[String]) -> Option<i64> {
    path.iter()
        .try_fold(object, |v, key| v.get(key.as_str()))
        .and_then(Value::as_i64)
}

/// The scale of an object.
///
/// # Errors
/// 404 where there is none.
pub fn scale_of(target: &Target, object: &Value) -> Result<Value> {
    let paths = paths(target)?;
    let selector = match &paths.selector {
        Some(path) => path
            .iter()
            .try_fold(object, |v, key| v.get(key.as_str()))
            .and_then(Value::as_str)
            .map(str::to_owned),
        None if target.info.custom => None,
        None => at(object, &["spec", "selector"]).map(selectors::text_of_label_selector),
    };
    let mut metadata = serde_json::Map::new();
    for key in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        if let Some(value) = at(object, &["metadata", key]) {
            metadata.insert(key.into(), value.clone());
        }
    }
    let mut status = json!({"replicas": integer(object, &paths.status).unwrap_or(0)});
    if let (Some(selector), Some(map)) = (selector, status.as_object_mut()) {
        map.insert("selector".into(), selector.into());
    }
    Ok(json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": integer(object, &paths.spec).unwrap_or(0)},
        "status": status,
    }))
}

/// PUT of a scale; answers the new scale.
///
/// # Errors
/// 400, 404, 409, 422.
pub fn update(
    state: &mut State,
    target: &Target,
    name: &str,
    scale: &Value,
    options: &mut WriteOptions,
) -> Result<Arc<Value>> {
    let old = state.require(target, name)?;
    let paths = paths(target)?;
    let kind = meta::text(scale, &["kind"]);
    if !kind.is_empty() && kind != "Scale" {
        return Err(ApiError::bad_request(format!(
            "wrong object passed to Scale update: {kind}"
        )));
    }
    let replicas = at(scale, &["spec", "replicas"])
        .and_then(Value::as_i64)
        .unwrap_or(0);
    if replicas < 0 {
        let error = FieldError::invalid(
            "spec.replicas",
            replicas,
            "must be greater than or equal to 0",
        );
        if target.info.custom {
            let mut error = error.because("should be a non-negative integer");
            error.field = format!(".{}", paths.spec.join("."));
            return Err(ApiError::invalid(&target.info, name, &[error]));
        }
        return Err(ApiError::invalid_named(
            "autoscaling",
            "Scale",
            name,
            &[error],
        ));
    }
    let mut new = Value::clone(&old);
    let metadata = meta::metadata(&mut new);
    // The preconditions are the scale's, not the object's.
    for key in ["resourceVersion", "uid"] {
        meta::set(metadata, key, at(scale, &["metadata", key]).cloned());
    }
    let mut place = &mut new;
    for key in &paths.spec {
        place = meta::child(place, key);
    }
    *place = replicas.into();
    let stored = replace::replace(state, target, &old, Part::Main, new, options)?;
    scale_of(target, &stored).map(Arc::new)
}

/// PATCH of a scale; answers the new scale.
///
/// # Errors
/// 400, 404, 409, 422.
pub fn patch(
    state: &mut State,
    target: &Target,
    name: &str,
    kind: PatchKind,
    patch: &Value,
    options: &mut WriteOptions,
) -> Result<Arc<Value>> {
    let old = state.require(target, name)?;
    let scale = scale_of(target, &old)?;
    let patched = crate::patch::apply(kind, None, &scale, patch)?;
    update(state, target, name, &patched, options)
}
