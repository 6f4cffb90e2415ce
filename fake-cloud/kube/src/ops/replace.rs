//! Replacing objects: the one path every change of an existing object takes (PUT, every patch, apply, scale).

use std::sync::Arc;

use serde_json::Value;

use super::{Part, State, Target, WriteOptions};
use crate::crd::versions;
use crate::error::{ApiError, Result};
use crate::meta;
use crate::registry::Generation;
use crate::{admission, managed, validate};

/// PUT of an object or its status.
///
/// # Errors
/// 400, 404, 409, 422.
pub fn update(
    state: &mut State,
    target: &Target,
    name: &str,
    part: Part,
    mut object: Value,
    options: &mut WriteOptions,
) -> Result<Arc<Value>> {
    super::create::check_kind(target, &mut object)?;
    let mut target = target.clone();
    target.namespace = super::create::place(&target, &mut object)?;
    super::create::check_name(&object, name)?;
    let is_there = state
        .store
        .get(&target.key, &target.namespace, name)
        .is_some();
    if !is_there && part == Part::Main && target.info.put_creates() {
        let uid = meta::uid(&object);
        if !uid.is_empty() {
            return Err(ApiError::conflict(
                &target.info,
                name,
                &other_uid(&target, name, uid, ""),
            ));
        }
        return super::create::create(state, &target, object, options);
    }
    let old = state.require(&target, name)?;
    if options.require_version
        && target.info.put_needs_version()
        && meta::version(&object).is_empty()
    {
        return Err(unversioned(&target, name));
    }
    replace(state, &target, &old, part, object, options)
}

/// 422: a change that must say which version it is one of.
fn unversioned(target: &Target, name: &str) -> ApiError {
    let error = crate::error::FieldError::invalid(
        "metadata.resourceVersion",
        0,
        "must be specified for an update",
    );
    ApiError::invalid_named(&target.info.group, &target.info.plural, name, &[error])
}

/// The store's words about another UID, with the path that etcd would have the object at.
fn other_uid(target: &Target, name: &str, wanted: &str, is: &str) -> String {
    let info = &target.info;
    // Old kinds are kept without their group.
    let group = if info.custom { info.group.as_str() } else { "" };
    let place = [group, &info.plural, &target.namespace, name]
        .iter()
        .filter(|part| !part.is_empty())
        .copied()
        .collect::<Vec<_>>()
        .join("/");
    format!(
        "StorageError: invalid object, Code: 4, Key: /registry/{place}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {wanted}, UID in object meta: {is}"
    )
}

/// Makes `new` the successor of `old`: preconditions, what a client may not change, defaulting, validation,
/// generation, ownership, and nothing at all when nothing changed.
///
/// # Errors
/// 409, 422.
pub fn replace(
    state: &mut State,
    target: &Target,
    old: &Arc<Value>,
    part: Part,
    new: Value,
    options: &mut WriteOptions,
) -> Result<Arc<Value>> {
    let seen = &versions::compared(target, old);
    let mut new = prepare(state, target, seen, part, new, options)?;
    managed::track_write(state, target, Some((seen, part)), &mut new, options);
    commit(state, target, old, new, options)
}

/// Everything of [`replace`] up to field ownership and storing.
///
/// # Errors
/// 409, 422.
pub fn prepare(
    state: &mut State,
    target: &Target,
    old: &Arc<Value>,
    part: Part,
    new: Value,
    options: &mut WriteOptions,
) -> Result<Value> {
    let info = &target.info;
    let name = meta::name(old);
    let version = meta::version(&new);
    if !version.is_empty() && version.parse::<u64>().is_err() {
        let why = format!("strconv.ParseUint: parsing {version:?}: invalid syntax");
        return Err(ApiError::bare(why));
    }
    if version.is_empty() && options.patching && info.put_needs_version() {
        return Err(unversioned(target, name));
    }
    if !version.is_empty() && version != meta::version(old) {
        return Err(ApiError::stale(info, name));
    }
    let uid = meta::uid(&new);
    // The status of a custom object is written with nothing else.
    let looks_at_uid = !(info.custom && options.patching && part == Part::Status);
    if looks_at_uid && !uid.is_empty() && uid != meta::uid(old) {
        if options.patching {
            let error =
                crate::error::FieldError::invalid("metadata.uid", uid, "field is immutable");
            // All kinds are asked, and each kind asks again.
            return Err(ApiError::invalid(info, name, &[error.clone(), error]));
        }
        let why = other_uid(target, name, uid, meta::uid(old));
        return Err(ApiError::conflict(info, name, &why));
    }
    let mut new = match part {
        Part::Main => new,
        Part::Status => with_status(target, old, new),
        Part::EphemeralContainers => with_ephemeral_containers(old, &new),
    };
    keep_identity(&mut new, old);
    if part == Part::Main && target.has_status() {
        let status = old.get("status").cloned();
        meta::set(meta::as_map(&mut new), "status", status);
    }
    admission::default(state, target, &mut new, Some(old), options)?;
    admission::admit_update(state, target, &mut new, old, part, options)?;
    let errors = validate::update(target, &new, old, part);
    if !errors.is_empty() {
        return Err(ApiError::invalid(info, name, &errors));
    }
    if part != Part::Status
        && info.generation == Generation::Spec
        && desired_changed(target, &new, old)
    {
        let generation = meta::at(old, &["metadata", "generation"])
            .and_then(Value::as_i64)
            .unwrap_or(0)
            + 1;
        meta::metadata(&mut new).insert("generation".into(), generation.into());
    }
    Ok(new)
}

/// Stores `new`, removes the object if this was the last thing holding it, or does nothing if nothing changed.
///
/// # Errors
/// None today; kept fallible for admission after the fact.
pub fn commit(
    state: &mut State,
    target: &Target,
    old: &Arc<Value>,
    mut new: Value,
    options: &WriteOptions,
) -> Result<Arc<Value>> {
    versions::to_keep(target, &mut new);
    if target.info.is("apps", "daemonsets") {
        crate::defaults::workloads::count_template(&mut new, Some(old));
    }
    if new == **old {
        return Ok(Arc::clone(old));
    }
    if options.dry_run {
        return Ok(Arc::new(new));
    }
    let (namespace, name) = (meta::namespace(old).to_owned(), meta::name(old).to_owned());
    if released(target, &new) {
        // Watches are told the last state that was stored, the client what it made of it.
        let gone = state
            .store
            .remove(&target.key, &namespace, &name, None)
            .unwrap_or_else(|| Arc::clone(old));
        admission::after_delete(state, target, &gone);
        meta::metadata(&mut new).insert("resourceVersion".into(), meta::version(&gone).into());
        return Ok(Arc::new(new));
    }
    let stored = state.store.put(&target.key, &namespace, &name, new);
    admission::after_write(state, target, Some(&stored));
    Ok(stored)
}

/// Whether an object that is being deleted has nothing left that holds it.
#[must_use]
pub fn released(target: &Target, object: &Value) -> bool {
    if !meta::is_deleting(object) || meta::finalizers(object).next().is_some() {
        return false;
    }
    if target.info.is("", "namespaces") {
        return meta::at(object, &["spec", "finalizers"])
            .and_then(Value::as_array)
            .is_none_or(Vec::is_empty);
    }
    meta::at(object, &["metadata", "deletionGracePeriodSeconds"])
        .and_then(Value::as_i64)
        .unwrap_or(0)
        == 0
}

/// `old` with the ephemeral containers of `new`.
fn with_ephemeral_containers(old: &Value, new: &Value) -> Value {
    const FIELD: &str = "ephemeralContainers";
    let mut result = old.clone();
    let containers = new.get("spec").and_then(|s| s.get(FIELD)).cloned();
    meta::set(
        meta::as_map(meta::child(&mut result, "spec")),
        FIELD,
        containers,
    );
    result
}

/// `old` with what a write to `status` may change.
fn with_status(target: &Target, old: &Value, mut new: Value) -> Value {
    let mut result = old.clone();
    let status = new.get_mut("status").map(Value::take);
    meta::set(meta::as_map(&mut result), "status", status);
    if !target.info.custom {
        // Built-in kinds let labels and annotations through with the status (a kubelet does this).
        let from = meta::metadata(&mut new);
        let to = meta::metadata(&mut result);
        let keeps_labels = target.info.is("apps", "deployments");
        for key in ["labels", "annotations", "finalizers", "managedFields"] {
            if key == "labels" && keeps_labels {
                continue;
            }
            if let Some(value) = from.remove(key) {
                to.insert(key.to_owned(), value);
            }
        }
    } else if let Some(managed) = meta::metadata(&mut new).remove("managedFields") {
        meta::metadata(&mut result).insert("managedFields".into(), managed);
    }
    result
}

/// What no client changes.
fn keep_identity(new: &mut Value, old: &Value) {
    const KEPT: [&str; 6] = [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "generation",
        "resourceVersion",
    ];
    // A deletion stays one; that there is none is for validation to say.
    const FILLED_IN: [&str; 2] = ["deletionTimestamp", "deletionGracePeriodSeconds"];
    let old = old.get("metadata");
    let before = |key: &str| {
        old.and_then(|m| m.get(key))
            .filter(|v| !v.is_null())
            .cloned()
    };
    let metadata = meta::metadata(new);
    for key in KEPT {
        meta::set(metadata, key, before(key));
    }
    let deleting = before("deletionTimestamp").is_some();
    for key in FILLED_IN {
        if deleting || metadata.get(key).is_none_or(Value::is_null) {
            meta::set(metadata, key, before(key));
        }
    }
    metadata.remove("selfLink");
    drop_empty(metadata);
}

/// Lists and maps of `metadata` that hold nothing are not written.
pub fn drop_empty(metadata: &mut serde_json::Map<String, Value>) {
    for key in ["labels", "annotations", "finalizers", "ownerReferences"] {
        let empty = match metadata.get(key) {
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Null) => true,
            _ => false,
        };
        if empty {
            metadata.remove(key);
        }
    }
}

/// Whether anything but metadata and (where it is written apart) status differs.
fn desired_changed(target: &Target, new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else {
        return true;
    };
    // What a Deployment is annotated with its ReplicaSets get, too.
    if target.info.is("apps", "deployments") {
        let annotations = |o: &serde_json::Map<String, Value>| {
            o.get("metadata")
                .and_then(|m| m.get("annotations"))
                .cloned()
        };
        if annotations(new) != annotations(old) {
            return true;
        }
    }
    let counts = |key: &str| key != "metadata" && !(key == "status" && target.has_status());
    new.iter().any(|(k, v)| counts(k) && old.get(k) != Some(v))
        || old.keys().any(|k| counts(k) && !new.contains_key(k))
}
