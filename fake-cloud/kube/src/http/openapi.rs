//! OpenAPI documents: enough for kubectl to find kinds and decide how to patch them.

use http::Response;
use serde_json::json;

use super::body::ResponseBody;
use super::respond;
use crate::error::{ApiError, Result};
use crate::registry::Registry;

/// Answers `/openapi/...`.
///
/// # Errors
/// 404.
pub fn answer(_registry: &Registry, path: &str) -> Result<Response<ResponseBody>> {
    match path {
        "/openapi/v3" => Ok(respond::document(200, &json!({"paths": {}}))),
        _ => Err(ApiError::no_such_resource()),
    }
}
