//! Patching objects: the patch is applied to the newest state, and the result takes the path of a PUT.

use std::sync::Arc;

use serde_json::Value;

use super::{Part, State, Target, WriteOptions, replace};
use crate::error::{ApiError, Result};

/// Kind of patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 7396.
    Merge,
    /// RFC 6902.
    Json,
    /// Kubernetes' strategic merge.
    Strategic,
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
    patch: &Value,
    options: &mut WriteOptions,
) -> Result<Arc<Value>> {
    let part = match subresource {
        "" => Part::Main,
        "status" if target.has_status() => Part::Status,
        "scale" => return super::scale::patch(state, target, name, kind, patch, options),
        _ => return Err(ApiError::no_such_resource()),
    };
    let old = state.require(target, name)?;
    let mut new = apply(kind, Some(target), &old, patch)?;
    super::create::check_kind(target, &mut new)?;
    replace::replace(state, target, &old, part, new, options)
}

/// The patched document.
///
/// # Errors
/// 400, 422.
pub fn apply(
    kind: PatchKind,
    _target: Option<&Target>,
    old: &Value,
    patch: &Value,
) -> Result<Value> {
    let mut new = old.clone();
    match kind {
        PatchKind::Merge | PatchKind::Strategic => json_patch::merge(&mut new, patch),
        PatchKind::Json => {
            let operations: json_patch::Patch = serde_json::from_value(patch.clone())
                .map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
            json_patch::patch(&mut new, &operations)
                .map_err(|e| ApiError::unprocessable(&e.to_string()))?;
        }
    }
    Ok(new)
}
