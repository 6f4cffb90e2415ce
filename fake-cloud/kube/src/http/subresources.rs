//! Subresources: status, scale, binding, eviction, tokens; and what can only be created.

use http::{Method, Response};
use serde_json::{Value, json};

use super::body::ResponseBody;
use super::options::{Call, write_options};
use super::path::ObjectPath;
use super::route::{object, patch, show, shown};
use super::table::Show;
use super::{respond, reviews};
use crate::error::{ApiError, FieldError, Result};
use crate::meta;
use crate::ops::{self, Part, State, Target};

/// Answers a request for a subresource.
pub(super) fn subresource(
    state: &mut State,
    target: &Target,
    name: &str,
    subresource: &str,
    call: &Call,
) -> Result<Response<ResponseBody>> {
    let show = show(state, call)?;
    let version = target
        .version_info()
        .ok_or_else(ApiError::no_such_resource)?;
    if !target.info.subresources(version).contains(&subresource) {
        return Err(if target.info.custom {
            ApiError::not_found(&target.info, name)
        } else {
            ApiError::no_such_resource()
        });
    }
    match (subresource, &call.method) {
        ("status", &Method::GET) => object(state, target, name, call),
        ("status", &Method::PUT) => {
            let mut options = write_options(call, "UpdateOptions")?;
            options.require_version = true;
            let object = call.document(target, &mut options)?;
            let stored =
                ops::replace::update(state, target, name, Part::Status, object, &mut options)?;
            Ok(shown(target, 200, &stored, show, &options))
        }
        ("ephemeralcontainers", &Method::GET) => object(state, target, name, call),
        ("ephemeralcontainers", &Method::PUT) => {
            let mut options = write_options(call, "UpdateOptions")?;
            let pod = call.document(target, &mut options)?;
            let part = Part::EphemeralContainers;
            let stored = ops::replace::update(state, target, name, part, pod, &mut options)?;
            Ok(shown(target, 200, &stored, show, &options))
        }
        ("status" | "scale" | "ephemeralcontainers", &Method::PATCH) => {
            patch(state, target, name, subresource, call, show)
        }
        ("scale", &Method::GET) => {
            let object = state.require(target, name)?;
            let scale = ops::scale::scale_of(target, &object)?;
            Ok(respond::document(200, &scale))
        }
        ("scale", &Method::PUT) => {
            let mut options = write_options(call, "UpdateOptions")?;
            let scale = ops::scale::update(state, target, name, &call.object()?, &mut options)?;
            Ok(respond::document(200, &scale))
        }
        ("finalize", &Method::PUT) => {
            let mut options = write_options(call, "UpdateOptions")?;
            let stored = ops::replace::update(
                state,
                target,
                name,
                Part::Main,
                call.object()?,
                &mut options,
            )?;
            Ok(shown(target, 200, &stored, Show::Object, &options))
        }
        ("binding", &Method::POST) => {
            let options = write_options(call, "CreateOptions")?;
            bind(state, target, name, &call.object()?, options.dry_run)
        }
        ("eviction", &Method::POST) => {
            let options = write_options(call, "CreateOptions")?;
            let eviction = if call.body.is_empty() {
                json!({})
            } else {
                call.object()?
            };
            ops::eviction::evict(state, target, name, &eviction, options.dry_run)?;
            Ok(respond::created())
        }
        ("token", &Method::POST) => Ok(respond::document(
            201,
            &reviews::token(state, target, name, &call.object()?)?,
        )),
        ("scale", &Method::DELETE) if target.info.custom => {
            let mut error = ApiError::method_not_allowed();
            let of = target.info.qualified();
            error.message = format!("delete is not supported on resources of kind {of:?}");
            error.details = json!({"group": target.info.group, "kind": target.info.plural});
            Err(error)
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

fn bind(
    state: &mut State,
    target: &Target,
    pod: &str,
    binding: &Value,
    dry_run: bool,
) -> Result<Response<ResponseBody>> {
    let (node, kind) = (
        meta::text(binding, &["target", "name"]),
        meta::text(binding, &["target", "kind"]),
    );
    if !matches!(kind, "" | "Node") {
        let known = ["Node", "<empty>"];
        let error = FieldError::not_supported("target.kind", kind, &known);
        return Err(ApiError::bare(error.to_string()));
    }
    if node.is_empty() {
        let error = FieldError::required("target.name", "");
        return Err(ApiError::bare(error.to_string()));
    }
    let annotations = meta::at(binding, &["metadata", "annotations"])
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    ops::binding::bind(state, &target.namespace, pod, node, &annotations, dry_run)?;
    Ok(respond::created())
}

/// Answers a request for what is only ever created: reviews, and bindings at their old place.
pub(super) fn create_only(
    state: &mut State,
    target: &Target,
    path: &ObjectPath,
    call: &Call,
) -> Result<Response<ResponseBody>> {
    if call.method != Method::POST || path.name.is_some() {
        return Err(ApiError::method_not_allowed());
    }
    let object = call.object()?;
    if target.info.is("", "bindings") {
        let pod = meta::name(&object).to_owned();
        let options = write_options(call, "CreateOptions")?;
        return bind(state, target, &pod, &object, options.dry_run);
    }
    reviews::review(state, target, call.user.as_ref(), object)
        .map(|answer| respond::document(201, &answer))
}
