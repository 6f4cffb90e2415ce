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
use serde_saphyr::DuplicateKeyPolicy;

use crate::error::{ApiError, Result};
use crate::wire::protobuf;

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
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            let mut error = ApiError::bad_request(format!(
                "Request entity too large: limit is {REQUEST_BYTES_MAX}"
            ));
            (error.code, error.reason) = (413, "RequestEntityTooLarge");
            Err(error)
        }
        Err(error) => Err(ApiError::bad_request(format!(
            "could not read the request: {error}"
        ))),
    }
}

/// A request's document: JSON, or YAML or protobuf where the content type says so.
///
/// # Errors
/// 400 when it is malformed, 415 for other types.
pub fn decode(content_type: &str, bytes: &[u8]) -> Result<Value> {
    let kind = content_type.split(';').next().unwrap_or("").trim();
    match kind {
        protobuf::MEDIA_TYPE => protobuf::read(bytes, "Object"),
        "application/yaml" | "application/apply-patch+yaml" => {
            // Whether a key comes twice is for field validation to say.
            let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::LastWins };
            serde_saphyr::from_slice_with_options(bytes, options)
                .map(as_go_reads)
                .map_err(|e| ApiError::bad_request(format!("error decoding YAML: {e}")))
        }
        kind if kind.is_empty() || kind.ends_with("json") => serde_json::from_slice(bytes)
            .map(as_go_reads)
            .map_err(|e| ApiError::bad_request(format!("{NO_BODY}: {}", json_error(&e)))),
        _ => Err(ApiError::unsupported_media_type(crate::error::MEDIA_TYPES)),
    }
}

/// Whole numbers are written without a fraction, however they came: 2.0 is kept as 2.
fn as_go_reads(mut value: Value) -> Value {
    match &mut value {
        Value::Number(n) if n.is_f64() => {
            let whole = n.as_f64().filter(|f| f.fract() == 0.0);
            if let Some(whole) = whole.and_then(|f| format!("{f:.0}").parse::<i64>().ok()) {
                return whole.into();
            }
        }
        Value::Array(items) => {
            for item in items {
                *item = as_go_reads(item.take());
            }
        }
        Value::Object(fields) => {
            for field in fields.values_mut() {
                *field = as_go_reads(field.take());
            }
        }
        _ => {}
    }
    value
}

/// How messages about a malformed body begin.
pub const NO_BODY: &str = "couldn't decode the body";

fn json_error(error: &serde_json::Error) -> String {
    if error.is_eof() {
        "unexpected end of JSON input".to_owned()
    } else {
        error.to_string()
    }
}

/// The object that a request brings.
///
/// # Errors
/// As [`decode`], in the words that are used of objects.
pub fn object(content_type: &str, bytes: &[u8], kind: &str) -> Result<Value> {
    if content_type.starts_with(protobuf::MEDIA_TYPE) {
        return protobuf::read(bytes, kind);
    }
    if !is_json(content_type) {
        return decode(content_type, bytes);
    }
    let read = serde_json::from_slice(bytes).map(as_go_reads);
    read.map_err(|error| {
        let shown = match bytes {
            [] => "<empty>".into(),
            bytes => String::from_utf8_lossy(bytes),
        };
        ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse error: {} ({shown})",
            json_error(&error)
        ))
    })
}

/// Whether a content type is that of JSON, which is what none says.
#[must_use]
pub fn is_json(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or("").trim();
    kind.is_empty() || kind.ends_with("json")
}

/// The object of a custom kind that a request brings; nothing but what it says tells its kind.
///
/// # Errors
/// As [`object`], and when it does not say its kind.
pub fn custom_object(content_type: &str, bytes: &[u8], kind: &str) -> Result<Value> {
    /// As much of a body as a message shows at its end.
    const SHOWN_CHARS: usize = 30;
    let mut object = object(content_type, bytes, kind)?;
    if crate::meta::text(&object, &["kind"]).is_empty() {
        let text = String::from_utf8_lossy(bytes);
        let short: String = text.chars().take(SHOWN_CHARS).collect();
        let dots = if short.len() < text.len() { " ..." } else { "" };
        return Err(ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): Object 'Kind' is missing in '{text}' ({short}{dots})"
        )));
    }
    of_strings(&mut object).map_err(|why| {
        let version = crate::meta::text(&object, &["apiVersion"]);
        let version = version.rsplit('/').next().unwrap_or(version);
        ApiError::unreadable(kind, version, kind, why)
    })?;
    Ok(object)
}

/// Labels and annotations are texts; what is null is none.
fn of_strings(object: &mut Value) -> std::result::Result<(), String> {
    for key in ["labels", "annotations"] {
        let map = object.get_mut("metadata").and_then(|m| m.get_mut(key));
        for value in map.and_then(Value::as_object_mut).into_iter().flatten() {
            let what = match value.1 {
                Value::String(_) => continue,
                Value::Null => {
                    *value.1 = "".into();
                    continue;
                }
                Value::Bool(_) => "bool",
                Value::Number(_) => "number",
                Value::Array(_) => "array",
                Value::Object(_) => "object",
            };
            return Err(format!(
                "json: cannot unmarshal {what} into Go struct field ObjectMeta.{key} of type string"
            ));
        }
    }
    Ok(())
}
