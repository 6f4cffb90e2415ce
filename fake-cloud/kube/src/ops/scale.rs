//! The scale subresource: desired replicas of a workload or of a custom resource, as `autoscaling/v1 Scale`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Part, State, Target, WriteOptions, replace};
use crate::apply::managers::{self, Manager, Operation};
use crate::apply::{FieldSet, fields};
use crate::error::{ApiError, FieldError, Result};
use crate::meta::{self, at};
use crate::patch::PatchKind;
use crate::registry::ScalePaths;
use crate::selectors;
use crate::structure::Structure;

/// Version that scales are of.
const VERSION: &str = "autoscaling/v1";

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
    // None is not written.
    let wanted = integer(object, &paths.spec).filter(|n| *n != 0);
    Ok(json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": wanted.map_or_else(|| json!({}), |n| json!({"replicas": n})),
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
    let paths = paths(target)?.clone();
    super::create::check_name(scale, name)?;
    let new = with_replicas(target, &old, &paths, name, scale)?;
    let stored = replace::replace(state, target, &old, Part::Main, new, options)?;
    scale_of(target, &stored).map(Arc::new)
}

/// An object with the replicas of a scale, and with its preconditions.
fn with_replicas(
    target: &Target,
    old: &Value,
    paths: &ScalePaths,
    name: &str,
    scale: &Value,
) -> Result<Value> {
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
    let mut new = old.clone();
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
    Ok(new)
}

/// Apply of a scale: its manager owns the replicas of the object, as it would have had it applied those.
///
/// # Errors
/// 400, 404, 409 on a conflict without `force`, 422.
pub fn apply(
    state: &mut State,
    target: &Target,
    name: &str,
    force: bool,
    document: &Value,
    options: &mut WriteOptions,
) -> Result<Arc<Value>> {
    let old = state.require(target, name)?;
    let paths = paths(target)?.clone();
    let (version, kind) = (
        meta::text(document, &["apiVersion"]),
        meta::text(document, &["kind"]),
    );
    if (version, kind) != (VERSION, "Scale") {
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        return Err(ApiError::bad_request(format!(
            "invalid object type: {group}/{version}, Kind={kind}"
        )));
    }
    super::create::check_name(document, name)?;
    let replicas = at(document, &["spec", "replicas"]).cloned();
    let mut field = replicas.clone().unwrap_or(Value::Null);
    for key in paths.spec.iter().rev() {
        field = Value::Object([(key.clone(), field)].into_iter().collect());
    }
    let field = fields::of(&Structure::of(target), &mut Vec::new(), &field);
    let me = Manager {
        name: options.manager.clone().unwrap_or_default(),
        operation: Operation::Apply,
        api_version: target.api_version(),
        subresource: "scale".to_owned(),
        time: state.now(),
        fields: replicas.as_ref().map(|_| field.clone()).unwrap_or_default(),
    };
    let mut owners = managers::of(&old);
    owners.retain(|owner| !owner.is_same(&me));
    let changes = replicas.is_some_and(|r| r.as_i64() != integer(&old, &paths.spec));
    if changes && !force {
        refuse_conflicts(&old, &owners, &me, &field)?;
    }
    if changes {
        for owner in &mut owners {
            owner.fields = owner.fields.minus(&field);
        }
    }
    owners.push(me);
    let mut scale = scale_of(target, &old)?;
    for key in ["resourceVersion", "uid"] {
        let given = at(document, &["metadata", key]).cloned();
        meta::set(meta::metadata(&mut scale), key, given);
    }
    if let Some(wanted) = at(document, &["spec", "replicas"]) {
        meta::as_map(meta::child(&mut scale, "spec")).insert("replicas".into(), wanted.clone());
    }
    options.manager = None;
    let mut new = with_replicas(target, &old, &paths, name, &scale)?;
    new = replace::prepare(state, target, &old, Part::Main, new, options)?;
    managers::write(&mut new, owners);
    let stored = replace::commit(state, target, &old, new, options)?;
    scale_of(target, &stored).map(Arc::new)
}

/// 409 when others own the replicas. What is in an object that nobody owns anything of is as good as owned.
fn refuse_conflicts(old: &Value, owners: &[Manager], me: &Manager, field: &FieldSet) -> Result<()> {
    let mut others: Vec<Manager> = owners
        .iter()
        .filter(|owner| !owner.fields.intersection(field).is_empty())
        .cloned()
        .collect();
    let mine = managers::of(old)
        .iter()
        .any(|owner| owner.is_same(me) && !owner.fields.intersection(field).is_empty());
    if others.is_empty() && !mine {
        others.push(Manager {
            name: "before-first-apply".to_owned(),
            operation: Operation::Update,
            subresource: "scale".to_owned(),
            ..me.clone()
        });
    }
    if others.is_empty() {
        return Ok(());
    }
    let replicas = json!({"f:spec": {"f:replicas": {}}});
    let replicas = FieldSet::from_json(&replicas);
    for owner in &mut others {
        VERSION.clone_into(&mut owner.api_version);
    }
    let conflicts: Vec<(&Manager, FieldSet)> =
        others.iter().map(|o| (o, replicas.clone())).collect();
    Err(super::apply::conflict(&conflicts))
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
