//! Building responses.

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use super::body::{ResponseBody, full};
use crate::error::ApiError;
use crate::tokens::Told;

/// A JSON document.
#[must_use]
pub fn document(code: u16, value: &Value) -> Response<ResponseBody> {
    bytes(
        code,
        "application/json",
        serde_json::to_vec(value).unwrap_or_default(),
    )
}

/// A stored object.
#[must_use]
pub fn object(code: u16, object: &Value) -> Response<ResponseBody> {
    let told = Told {
        object,
        typed: true,
    };
    let written = serde_json::to_vec(&told).unwrap_or_default();
    bytes(code, "application/json", written)
}

/// Bytes of a content type.
#[must_use]
pub fn bytes(code: u16, content_type: &'static str, bytes: Vec<u8>) -> Response<ResponseBody> {
    let mut response = Response::new(full(bytes));
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A refusal; one that says when to come back says so in a header, too.
#[must_use]
pub fn refusal(error: &ApiError) -> Response<ResponseBody> {
    if error.is_page() {
        let text = "text/plain; charset=utf-8";
        return bytes(error.code, text, error.message.clone().into_bytes());
    }
    let mut response = document(error.code, &error.to_status());
    if let Some(seconds) = error
        .details
        .get("retryAfterSeconds")
        .and_then(Value::as_u64)
    {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The `Status` of something done that has no object to show; `details` name what it was done to.
#[must_use]
pub fn success(details: Value) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
    })
}

/// The answer to something created that has no object to show.
pub fn created() -> Response<ResponseBody> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
    });
    document(201, &status)
}

/// Adds `Warning` headers (RFC 7234, code 299).
pub fn warn(response: &mut Response<ResponseBody>, warnings: &[String]) {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}
