//! Bodies: reading requests of any kind, answering with bytes or a stream of watch events.

use std::convert::Infallible;
use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;
use futures::StreamExt as _;
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use serde_json::Value;

use crate::error::{ApiError, Result};

/// Largest request body, in bytes; etcd's own limit on an object is 1.5 MiB, and the real server's on requests 3 MiB.
const REQUEST_BYTES_MAX: usize = 3 * 1024 * 1024;

/// A response's body.
pub type ResponseBody = UnsyncBoxBody<Bytes, Infallible>;

/// A body of bytes.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> ResponseBody {
    Full::new(bytes.into()).boxed_unsync()
}

/// A body that is a stream of chunks.
#[must_use]
pub fn stream(chunks: impl Stream<Item = Bytes> + Send + 'static) -> ResponseBody {
    let chunks: Pin<Box<dyn Stream<Item = Bytes> + Send>> = Box::pin(chunks);
    StreamBody::new(chunks.map(|chunk| Ok(Frame::data(chunk)))).boxed_unsync()
}

/// All bytes of a request.
///
/// # Errors
/// 400 when the body breaks off, 413 when it is too large.
pub async fn read<B>(body: B) -> Result<Bytes>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match Limited::new(body, REQUEST_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(ApiError {
            code: 413,
            reason: "RequestEntityTooLarge",
            message: format!("Request entity too large: limit is {REQUEST_BYTES_MAX}"),
            details: Value::Null,
        }),
        Err(error) => Err(ApiError::bad_request(format!(
            "could not read the request: {error}"
        ))),
    }
}

/// A request's document: JSON, or YAML where the content type says so.
///
/// # Errors
/// 400 when it is malformed, 415 for other types.
pub fn decode(content_type: &str, bytes: &[u8]) -> Result<Value> {
    let kind = content_type.split(';').next().unwrap_or("").trim();
    match kind {
        "application/yaml" | "application/apply-patch+yaml" => serde_saphyr::from_slice(bytes)
            .map_err(|e| ApiError::bad_request(format!("error decoding YAML: {e}"))),
        kind if kind.is_empty() || kind.ends_with("json") => serde_json::from_slice(bytes)
            .map_err(|e| ApiError::bad_request(format!("couldn't decode the body: {e}"))),
        _ => Err(ApiError::unsupported_media_type(
            "application/json, application/yaml",
        )),
    }
}
