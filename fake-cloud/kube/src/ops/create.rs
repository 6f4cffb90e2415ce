//! Creating objects: names, identity, defaulting, admission, validation.

use std::sync::Arc;

use serde_json::Value;

use super::{State, Target, WriteOptions};
use crate::error::{ApiError, Result};
use crate::meta::{self, text};
use crate::registry::Generation;
use crate::{admission, managed, validate};

/// Tries `generateName` makes before it gives up, as the real server does.
const GENERATE_NAME_TRIES_MAX: usize = 8;

/// POST.
///
/// # Errors
/// 400, 403, 409, 422.
pub fn create(
    state: &mut State,
    target: &Target,
    mut object: Value,
    options: &mut WriteOptions,
) -> Result<Arc<Value>> {
    let info = Arc::clone(&target.info);
    check_kind(target, &mut object)?;
    let namespace = place(target, &mut object)?;
    let mut target = target.clone();
    target.namespace = namespace;

    let now = state.now();
    let generated = {
        let metadata = meta::metadata(&mut object);
        for key in [
            "resourceVersion",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
        ] {
            metadata.remove(key);
        }
        // What a client says of a kind that counts none stays.
        if info.generation == Generation::Spec {
            metadata.remove("generation");
        }
        if text(&Value::Object(metadata.clone()), &["name"]).is_empty() {
            let prefix = metadata
                .get("generateName")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned();
            if prefix.is_empty() {
                None
            } else {
                Some(prefix)
            }
        } else {
            None
        }
    };
    if let Some(prefix) = generated {
        let mut name = String::new();
        for _ in 0..GENERATE_NAME_TRIES_MAX {
            name = state.generate_name(&target.key, &prefix);
            if state
                .store
                .get(&target.key, &target.namespace, &name)
                .is_none()
            {
                break;
            }
        }
        meta::metadata(&mut object).insert("name".into(), name.into());
    }
    let name = meta::name(&object).to_owned();

    if target.has_status() && !keeps_status(&target) {
        meta::as_map(&mut object).remove("status");
    }
    let uid = state.uid(&target.key);
    let metadata = meta::metadata(&mut object);
    metadata.insert("uid".into(), uid.into());
    metadata.insert("creationTimestamp".into(), now.into());
    if info.generation == Generation::Spec {
        metadata.insert("generation".into(), 1.into());
    }

    admission::default(state, &target, &mut object, None, options)?;
    // What admission adds nobody owns.
    managed::track_write(state, &target, None, &mut object, options);
    admission::begin(state, &target, &mut object);
    admission::admit_create(state, &target, &mut object, options)?;
    let errors = validate::create(&target, &object);
    if !errors.is_empty() {
        return Err(ApiError::invalid(&info, &name, &errors));
    }
    if let Some(existing) = state.store.get(&target.key, &target.namespace, &name) {
        let mut error = ApiError::already_exists(&info, &name);
        if meta::is_deleting(existing) {
            error.message = format!("object is being deleted: {}", error.message);
        }
        return Err(error);
    }
    crate::crd::versions::to_keep(&target, &mut object);
    admission::quota::take(state, &target, &object, options.dry_run)?;
    if options.dry_run {
        return Ok(Arc::new(object));
    }
    let stored = state
        .store
        .put(&target.key, &target.namespace, &name, object);
    admission::after_write(state, &target, Some(&stored));
    Ok(stored)
}

/// Nodes register with their status; every other kind's status is the server's to start.
fn keeps_status(target: &Target) -> bool {
    target.info.is("", "nodes")
}

/// Checks the name in a body against that in the path.
///
/// # Errors
/// 400 when there is none, or another.
pub fn check_name(object: &Value, name: &str) -> Result<()> {
    match meta::name(object) {
        "" => Err(ApiError::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        ))),
        given if given != name => Err(ApiError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        ))),
        _ => Ok(()),
    }
}

/// Checks `apiVersion` and `kind` against the request's resource; fills them in when absent, in the stored version.
///
/// # Errors
/// 400 when they are another's.
pub fn check_kind(target: &Target, object: &mut Value) -> Result<()> {
    if !object.is_object() {
        return Err(ApiError::bad_request(
            "the object provided is unrecognized (must be of type Object)",
        ));
    }
    let wanted = target.api_version();
    let (given, kind) = (text(object, &["apiVersion"]), text(object, &["kind"]));
    let other_version = !given.is_empty() && given != wanted;
    let other_kind = !kind.is_empty() && kind != target.info.kind;
    if target.info.custom {
        if other_version {
            return Err(ApiError::bad_request(format!(
                "the API version in the data ({given}) does not match the expected API version ({wanted})"
            )));
        }
        if other_kind {
            let error = crate::error::FieldError::invalid(
                "kind",
                kind,
                format!("must be {}", target.info.kind),
            );
            let name = meta::name(object);
            return Err(ApiError::invalid_named(
                &target.info.group,
                kind,
                name,
                &[error],
            ));
        }
    } else if other_version || other_kind {
        let kind = if kind.is_empty() {
            &target.info.kind
        } else {
            kind
        };
        let (group, version) = given.rsplit_once('/').unwrap_or(("", given));
        let to = target.info.group.split('.').next().unwrap_or("");
        let to = if to.is_empty() { "core" } else { to };
        let why = if version == "v1" || given.is_empty() {
            let version = if version.is_empty() { "v1" } else { version };
            format!(
                "converting ({version}.{kind}) to ({to}.{}): unknown conversion",
                target.info.kind
            )
        } else {
            let full = if group.is_empty() { version } else { given };
            format!(
                "no kind \"{kind}\" is registered for version \"{full}\" in scheme \"pkg/runtime/scheme.go:111\""
            )
        };
        return Err(ApiError::unreadable(kind, version, &target.info.kind, why));
    }
    let map = meta::as_map(object);
    map.insert("apiVersion".into(), target.storage_api_version().into());
    map.insert("kind".into(), target.info.kind.as_str().into());
    Ok(())
}

/// Checks and fills in `metadata.namespace`; answers where the object goes.
///
/// # Errors
/// 400 when it differs from the request's.
pub fn place(target: &Target, object: &mut Value) -> Result<String> {
    let given = meta::namespace(object).to_owned();
    if !target.info.namespaced {
        if given.is_empty() {
            meta::metadata(object).remove("namespace");
            return Ok(String::new());
        }
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let wanted = match (target.namespace.as_str(), given.as_str()) {
        ("", "") => "default".to_owned(),
        ("", given) => given.to_owned(),
        (wanted, "") => wanted.to_owned(),
        (wanted, given) if wanted == given => wanted.to_owned(),
        _ => {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    };
    meta::metadata(object).insert("namespace".into(), wanted.as_str().into());
    Ok(wanted)
}
