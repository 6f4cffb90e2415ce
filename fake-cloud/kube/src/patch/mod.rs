//! Patch documents: what they make of an object.

pub mod gofmt;
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

/// The maps of an object that a patch reached into, as a tree of maps.
#[must_use]
pub fn touched(kind: PatchKind, patch: &Value) -> Value {
    if kind != PatchKind::Json {
        return patch.clone();
    }
    let mut tree = Value::Object(serde_json::Map::new());
    for operation in patch.as_array().into_iter().flatten() {
        let path = operation.get("path").and_then(Value::as_str).unwrap_or("");
        let steps: Vec<&str> = path.split('/').skip(1).collect();
        let mut spot = &mut tree;
        for step in steps.split_last().map_or(&[][..], |(_, above)| above) {
            spot = crate::meta::child(spot, step);
            crate::meta::as_map(spot);
        }
    }
    tree
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
        return Err(ApiError::bad_request(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            go_kind(patch)
        )));
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
            let Some(operations) = patch.as_array() else {
                return Err(ApiError::bad_request(format!(
                    "error decoding patch: json: cannot unmarshal {} into Go value of type []handlers.jsonPatchOp",
                    go_kind(patch)
                )));
            };
            let mut new = old.clone();
            for operation in operations {
                let operation = lenient(operation, &new);
                let operation: json_patch::PatchOperation =
                    serde_json::from_value(operation).map_err(|_| ApiError::unprocessable())?;
                json_patch::patch(&mut new, std::slice::from_ref(&operation))
                    .map_err(|_| ApiError::unprocessable())?;
            }
            Ok(new)
        }
    }
}

/// An operation as the real server's library takes it: replacing a field that is not there adds it, and a test for null
/// holds where there is nothing.
fn lenient(operation: &Value, document: &Value) -> Value {
    let field = |name: &str| operation.get(name).and_then(Value::as_str).unwrap_or("");
    let (above, _) = field("path").rsplit_once('/').unwrap_or_default();
    let adds = field("op") == "replace"
        && document.pointer(field("path")).is_none()
        && document.pointer(above).is_some_and(Value::is_object);
    let mut operation = operation.clone();
    let is_null = operation.get("value").is_some_and(Value::is_null);
    if field("op") == "test" && is_null && document.pointer(field("path")).is_none() {
        // What is not there is null to it: nothing to test.
        return serde_json::json!({"op": "test", "path": "", "value": document});
    }
    if adds && let Some(map) = operation.as_object_mut() {
        map.insert("op".into(), "add".into());
    }
    operation
}

/// What Go's decoder calls a JSON value.
#[must_use]
pub fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
