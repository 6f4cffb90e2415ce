//! Patch documents: what they make of an object.

pub mod strategic;

use serde_json::Value;

use crate::error::{ApiError, Result};
use crate::structure::Structure;

/// Operations a JSON patch may have, as in the real server.
const JSON_PATCH_OPERATIONS_MAX: usize = 10_000;

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

/// The patched document; without a structure, strategic merges treat lists as values.
///
/// # Errors
/// 400 for a malformed patch, 413 for too long a one, 422 for one that cannot be applied.
pub fn apply(
    kind: PatchKind,
    structure: Option<&Structure<'_>>,
    old: &Value,
    patch: &Value,
) -> Result<Value> {
    if kind != PatchKind::Json && !patch.is_object() {
        return Err(ApiError::bad_request(
            "error decoding patch: must be an object",
        ));
    }
    match kind {
        PatchKind::Merge => {
            let mut new = old.clone();
            json_patch::merge(&mut new, patch);
            Ok(new)
        }
        PatchKind::Strategic => strategic::apply(structure, old, patch),
        PatchKind::Json => {
            if patch
                .as_array()
                .is_some_and(|ops| ops.len() > JSON_PATCH_OPERATIONS_MAX)
            {
                let mut error = ApiError::bad_request(format!(
                    "The allowed maximum operations in a JSON patch is {JSON_PATCH_OPERATIONS_MAX}"
                ));
                (error.code, error.reason) = (413, "RequestEntityTooLarge");
                return Err(error);
            }
            let operations: json_patch::Patch = serde_json::from_value(patch.clone())
                .map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
            let mut new = old.clone();
            json_patch::patch(&mut new, &operations)
                .map_err(|e| ApiError::unprocessable(&e.to_string()))?;
            Ok(new)
        }
    }
}
