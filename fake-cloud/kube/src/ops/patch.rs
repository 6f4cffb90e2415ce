//! Patching objects: the patch is applied to the newest state, and the result takes the path of a PUT.

use std::sync::Arc;

use serde_json::Value;

use super::{Part, State, Target, WriteOptions, replace};
use crate::error::{ApiError, FieldError, Result};
use crate::meta::text;
use crate::patch::{self, PatchKind};
use crate::structure::Structure;
use crate::wire::gojson;

/// The refusal of a patch that makes something of an object that its kind cannot read: the real server shows the
/// patched document and, of strategic patches, the patch.
fn unreadable(kind: PatchKind, document: &Value, patched: &Value, error: &ApiError) -> ApiError {
    let shown: Value = match kind {
        PatchKind::Strategic => patch::gofmt::value(document).into(),
        _ => {
            let touched = patch::touched(kind, document);
            let (version, kind) = (text(patched, &["apiVersion"]), text(patched, &["kind"]));
            gojson::object(version, kind, patched, &touched).into()
        }
    };
    let why = error.why_unreadable();
    ApiError::invalid_named("", "", "", &[FieldError::invalid("patch", shown, why)])
}

/// PATCH of an object or of a subresource (`status`, `scale`; empty = the object).
///
/// # Errors
/// 400, 404, 409, 415, 422.
pub fn patch(
    state: &mut State,
    target: &Target,
    name: &str,
    subresource: &str,
    kind: PatchKind,
    document: &Value,
    options: &mut WriteOptions,
) -> Result<Arc<Value>> {
    let part = match subresource {
        "" | "finalize" => Part::Main,
        "status" if target.has_status() => Part::Status,
        "ephemeralcontainers" => Part::EphemeralContainers,
        "scale" => return super::scale::patch(state, target, name, kind, document, options),
        _ => return Err(ApiError::no_such_resource()),
    };
    let old = state.require(target, name)?;
    let seen = crate::crd::versions::seen(target, &old);
    let whole = (part == Part::Main).then(|| crate::tokens::in_full(&seen));
    let whole = whole.flatten();
    let before = whole.as_ref().unwrap_or(&seen);
    let mut new = patch::apply(kind, Some(&Structure::of(target)), before, document)?;
    let patched = options.wire.then(|| new.clone());
    super::create::check_kind(target, &mut new).map_err(|error| match &patched {
        Some(patched) if !target.info.custom && patched.is_object() => {
            unreadable(kind, document, patched, &error)
        }
        _ => error,
    })?;
    super::create::check_name(&new, name)?;
    super::create::place(target, &mut new)?;
    options.patching = true;
    if let Some(patched) = &patched {
        let read = if target.info.custom {
            crate::crd::admit(target, &mut new, options)
        } else {
            crate::http::typed::read(target, &mut new, options)
        };
        read.map_err(|error| unreadable(kind, document, patched, &error))?;
    }
    replace::replace(state, target, &old, part, new, options)
}
