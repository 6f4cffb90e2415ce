//! Patching objects: the patch is applied to the newest state, and the result takes the path of a PUT.

use std::sync::Arc;

use serde_json::Value;

use super::{Part, State, Target, WriteOptions, replace};
use crate::error::{ApiError, Result};
use crate::patch::{self, PatchKind};
use crate::structure::Structure;

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
        "scale" => return super::scale::patch(state, target, name, kind, document, options),
        _ => return Err(ApiError::no_such_resource()),
    };
    let old = state.require(target, name)?;
    let mut new = patch::apply(kind, Some(&Structure::of(target)), &old, document)?;
    super::create::check_kind(target, &mut new)?;
    super::create::check_name(&new, name)?;
    super::create::place(target, &mut new)?;
    options.patching = true;
    if options.wire {
        crate::http::typed::read(target, &mut new, options)?;
    }
    replace::replace(state, target, &old, part, new, options)
}
