//! Deletions of pods that a client asks for, as it asks: what grace it leaves them is seen nowhere else.

use bytes::Bytes;
use http::{Method, Request};
use http_body::Body;
use http_body_util::{BodyExt as _, Collected, Full};
use serde_json::Value;

/// A client's request that a pod be deleted, evictions left aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodDelete {
    /// Path of the pod.
    pub pod: String,
    /// UID of the pod that it is meant for, if it says so: the server refuses it for another one of that name.
    pub uid: Option<String>,
    /// `gracePeriodSeconds` as it was asked for.
    pub grace_seconds: Option<i64>,
}

/// Whether a request deletes a pod.
pub(crate) fn is_one<B>(request: &Request<B>) -> bool {
    request.method() == Method::DELETE && request.uri().path().contains("/pods/")
}

/// Reads such a request, and gives it back as it was.
pub(crate) async fn read<B>(request: Request<B>) -> (PodDelete, Request<Full<Bytes>>)
where
    B: Body<Data = Bytes>,
{
    let (parts, body) = request.into_parts();
    // What cannot be read is refused by the server for lack of a body.
    let body = body.collect().await.map(Collected::to_bytes);
    let body = body.unwrap_or_default();
    let options: Value = serde_json::from_slice(&body).unwrap_or_default();
    let uid = options
        .pointer("/preconditions/uid")
        .and_then(Value::as_str);
    let delete = PodDelete {
        pod: parts.uri.path().to_owned(),
        uid: uid.map(str::to_owned),
        grace_seconds: options.get("gracePeriodSeconds").and_then(Value::as_i64),
    };
    (delete, Request::from_parts(parts, Full::new(body)))
}
