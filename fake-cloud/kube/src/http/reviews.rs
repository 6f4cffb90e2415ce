//! Reviews: questions that are posted and answered, never stored.

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::access::{Attributes, User, rules, users};
use crate::error::{ApiError, FieldError, Result};
use crate::meta;
use crate::ops::{State, Target};

/// Life of a token that is asked for without one, in seconds.
const TOKEN_SECONDS_DEFAULT: i64 = 3600;
/// Shortest life of a token.
const TOKEN_SECONDS_MIN: i64 = 600;

/// Answers a review.
///
/// # Errors
/// 400, 422, and 404 for reviews that are not served.
pub fn review(
    state: &State,
    target: &Target,
    user: Option<&User>,
    mut object: Value,
) -> Result<Value> {
    let admin = User::admin();
    let me = user.unwrap_or(&admin);
    let status = match target.info.plural.as_str() {
        "selfsubjectaccessreviews" => decision(state, me, &attributes(&object)?),
        "subjectaccessreviews" | "localsubjectaccessreviews" => {
            let (name, groups) = (meta::text(&object, &["spec", "user"]), groups(&object));
            if name.is_empty() && groups.is_empty() {
                let why = "at least one of user or group must be specified";
                return Err(malformed(FieldError::invalid("spec.user", "", why)));
            }
            let asked = meta::text(&object, &["spec", "resourceAttributes", "namespace"]);
            if target.info.namespaced && asked != target.namespace {
                let why = "must match metadata.namespace";
                let path = "spec.resourceAttributes.namespace";
                return Err(malformed(FieldError::invalid(path, asked, why)));
            }
            let other = User {
                name: name.to_owned(),
                uid: String::new(),
                groups,
            };
            decision(state, &other, &attributes(&object)?)
        }
        "selfsubjectrulesreviews" => {
            let namespace = meta::text(&object, &["spec", "namespace"]);
            if namespace.is_empty() {
                return Err(ApiError::bad_request("no namespace on request"));
            }
            let rules = rules::rules_of(state, me, namespace);
            let (paths, resources): (Vec<Value>, Vec<Value>) = rules
                .into_iter()
                .partition(|rule| rule.get("nonResourceURLs").is_some());
            meta::as_map(&mut object).insert("spec".into(), json!({}));
            json!({"incomplete": false, "resourceRules": resources, "nonResourceRules": paths})
        }
        "selfsubjectreviews" => {
            let now = state.now();
            meta::metadata(&mut object).insert("creationTimestamp".into(), now.into());
            json!({"userInfo": me.info()})
        }
        "tokenreviews" if meta::text(&object, &["spec", "token"]).is_empty() => {
            let why = "token is required for TokenReview in authentication";
            return Err(ApiError::bad_request(why));
        }
        "tokenreviews" => match users::of_token(state, meta::text(&object, &["spec", "token"])) {
            Some(user) => json!({"authenticated": true, "user": user.info()}),
            None => json!({"user": {}, "error": "invalid bearer token"}),
        },
        _ => return Err(ApiError::no_such_resource()),
    };
    let map = meta::as_map(&mut object);
    map.insert("apiVersion".into(), target.api_version().into());
    map.insert("kind".into(), target.info.kind.as_str().into());
    map.insert("status".into(), status);
    Ok(object)
}

fn malformed(error: FieldError) -> ApiError {
    ApiError::invalid_named("authorization.k8s.io", "", "", &[error])
}

fn groups(review: &Value) -> Vec<String> {
    meta::at(review, &["spec", "groups"])
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|g| g.as_str().map(str::to_owned))
        .collect()
}

fn attributes(review: &Value) -> Result<Attributes> {
    let spec = |key: &str| meta::at(review, &["spec", key]).filter(|v| v.is_object());
    match (spec("resourceAttributes"), spec("nonResourceAttributes")) {
        (Some(of), None) => {
            let text = |key: &str| meta::text(of, &[key]).to_owned();
            let resource = match (text("resource"), text("subresource")) {
                (resource, none) if none.is_empty() => resource,
                (resource, subresource) => format!("{resource}/{subresource}"),
            };
            Ok(Attributes::Resource {
                verb: text("verb"),
                group: text("group"),
                resource,
                namespace: text("namespace"),
                name: text("name"),
            })
        }
        (None, Some(of)) => Ok(Attributes::Path {
            verb: meta::text(of, &["verb"]).to_owned(),
            path: meta::text(of, &["path"]).to_owned(),
        }),
        _ => Err(malformed(FieldError::invalid(
            "spec.resourceAttributes",
            Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ))),
    }
}

fn decision(state: &State, user: &User, wanted: &Attributes) -> Value {
    let decision = rules::decide(state, user, wanted);
    let mut status = json!({"allowed": decision.allowed});
    if !decision.reason.is_empty() {
        meta::as_map(&mut status).insert("reason".into(), decision.reason.into());
    }
    status
}

/// A token of a service account: its bearer is the account.
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
            "token": users::token(&account, expires),
            "expirationTimestamp": meta::time(expires),
        }),
    );
    Ok(answer)
}
