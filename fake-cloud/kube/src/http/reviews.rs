//! Reviews: questions that are posted and answered, never stored. Everybody is cluster admin here.

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::error::{ApiError, FieldError, Result};
use crate::meta;
use crate::ops::{State, Target};

/// The user that in-memory and loopback clients are.
const USER: &str = "kubernetes-admin";
/// Life of a token that is asked for without one, in seconds.
const TOKEN_SECONDS_DEFAULT: i64 = 3600;
/// Shortest life of a token.
const TOKEN_SECONDS_MIN: i64 = 600;

/// Answers a review.
///
/// # Errors
/// 404 for reviews that are not served.
pub fn review(target: &Target, mut object: Value) -> Result<Value> {
    let status = match target.info.plural.as_str() {
        "selfsubjectaccessreviews" | "subjectaccessreviews" => json!({"allowed": true}),
        "selfsubjectrulesreviews" => json!({
            "incomplete": false,
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }),
        "selfsubjectreviews" => {
            json!({"userInfo": {"username": USER, "groups": ["system:masters", "system:authenticated"]}})
        }
        "tokenreviews" => {
            json!({"authenticated": false, "user": {}, "error": "tokens are not checked"})
        }
        _ => return Err(ApiError::no_such_resource()),
    };
    let map = meta::as_map(&mut object);
    map.insert("apiVersion".into(), target.api_version().into());
    map.insert("kind".into(), target.info.kind.as_str().into());
    map.insert("status".into(), status);
    Ok(object)
}

/// A token of a service account. It opens nothing: nobody is asked for one.
///
/// # Errors
/// 404 when there is no such account.
pub fn token(state: &mut State, target: &Target, name: &str, request: &Value) -> Result<Value> {
    let account = state.require(target, name)?;
    let seconds = meta::at(request, &["spec", "expirationSeconds"])
        .and_then(Value::as_i64)
        .unwrap_or(TOKEN_SECONDS_DEFAULT);
    if seconds < TOKEN_SECONDS_MIN {
        let error = FieldError::invalid(
            "spec.expirationSeconds",
            seconds,
            "may not specify a duration less than 10 minutes",
        );
        let (group, kind) = ("authentication.k8s.io", "TokenRequest");
        return Err(ApiError::invalid_named(group, kind, "", &[error]));
    }
    let now = state.clock.wall();
    let expires = now
        .checked_add(SignedDuration::from_secs(seconds))
        .unwrap_or(now);
    let mut answer = request.clone();
    let map = meta::as_map(&mut answer);
    map.insert("apiVersion".into(), "authentication.k8s.io/v1".into());
    map.insert("kind".into(), "TokenRequest".into());
    map.insert(
        "status".into(),
        json!({
            "token": format!("{}.{}", meta::uid(&account), expires.as_second()),
            "expirationTimestamp": meta::time(expires),
        }),
    );
    Ok(answer)
}
