//! What a request says besides its path: query parameters, bodies and headers, as options of an operation.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::query::Query;
use super::strict::Written;
use super::{body, typed};
use crate::access::User;
use crate::error::{ApiError, FieldError, Result};
use crate::meta;
use crate::ops::delete::{DeleteOptions, Propagation};
use crate::ops::{FieldValidation, Target, WriteOptions};

/// Longest name of a field manager.
const FIELD_MANAGER_BYTES_MAX: usize = 128;

/// A request, read.
pub(super) struct Call {
    /// Who asks; none is the administrator.
    pub(super) user: Option<User>,
    pub(super) method: Method,
    pub(super) query: Query,
    pub(super) content_type: String,
    pub(super) accept: String,
    pub(super) user_agent: String,
    pub(super) body: Bytes,
}

impl Call {
    pub(super) fn object(&self) -> Result<Value> {
        body::decode(&self.content_type, &self.body)
    }

    /// An object of the request's resource, read as its kind reads it.
    pub(super) fn document(&self, target: &Target, options: &mut WriteOptions) -> Result<Value> {
        let read = if target.info.custom {
            body::custom_object
        } else {
            body::object
        };
        let mut object = read(&self.content_type, &self.body, &target.info.kind)?;
        options.written = if body::is_json(&self.content_type) {
            Written::json(&self.body)
        } else if self.content_type.starts_with("application/yaml") {
            Written::yaml(&self.body)
        } else {
            Written::default()
        };
        typed::read(target, &mut object, options)?;
        Ok(object)
    }

    /// `fieldManager`, or the client's name as its User-Agent begins.
    pub(super) fn manager(&self) -> String {
        if let Some(manager) = self.query.get("fieldManager") {
            return manager.to_owned();
        }
        match self.user_agent.split('/').next() {
            Some("") | None => "unknown".to_owned(),
            Some(name) => name.to_owned(),
        }
    }
}

/// How a write is to be done.
pub(super) fn write_options(call: &Call, kind: &str) -> Result<WriteOptions> {
    let field_validation = match call.query.get("fieldValidation") {
        None | Some("Warn") => FieldValidation::Warn,
        Some("Ignore") => FieldValidation::Ignore,
        Some("Strict") => FieldValidation::Strict,
        Some(other) => {
            let known = ["", "Ignore", "Strict", "Warn"];
            let error = FieldError::not_supported("fieldValidation", other, &known);
            return Err(ApiError::invalid_options(kind, &[error]));
        }
    };
    if let Some(manager) = call.query.get("fieldManager") {
        let errors = field_manager(manager);
        if !errors.is_empty() {
            return Err(ApiError::invalid_options(kind, &errors));
        }
    }
    Ok(WriteOptions {
        dry_run: dry_run(call.query.get("dryRun"), kind)?,
        manager: Some(call.manager()),
        field_validation,
        wire: true,
        user: call.user.clone(),
        ..WriteOptions::default()
    })
}

/// What is wrong with a manager's name: too long, or not printable.
fn field_manager(name: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if name.len() > FIELD_MANAGER_BYTES_MAX {
        errors.push(FieldError::too_long(
            "fieldManager",
            FIELD_MANAGER_BYTES_MAX as u64,
        ));
    }
    if let Some((at, odd)) = name.char_indices().find(|(_, c)| c.is_control()) {
        let why = format!(
            "invalid character U+{:04X} (at position {at})",
            u32::from(odd)
        );
        errors.push(FieldError::invalid("fieldManager", name, why));
    }
    errors
}

fn dry_run(value: Option<&str>, kind: &str) -> Result<bool> {
    match value {
        None => Ok(false),
        Some("All") => Ok(true),
        Some(other) => {
            let error = FieldError::not_supported("dryRun", json!([other]), &["All"]);
            Err(ApiError::invalid_options(kind, &[error]))
        }
    }
}

/// How a deletion is to be done.
pub(super) fn delete_options(call: &Call) -> Result<DeleteOptions> {
    let body = if call.body.is_empty() {
        json!({})
    } else {
        call.object()?
    };
    delete_options_of(&body, call)
}

fn delete_options_of(body: &Value, call: &Call) -> Result<DeleteOptions> {
    let string = |path: &[&str]| {
        meta::at(body, path)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let options = "DeleteOptions";
    let kind = meta::text(body, &["kind"]);
    if !matches!(kind, "" | "DeleteOptions") {
        return Err(ApiError::bad_request(format!(
            "no kind \"{kind}\" is registered for version \"{}\" in scheme \"pkg/runtime/scheme.go:111\"",
            meta::text(body, &["apiVersion"])
        )));
    }
    let propagation = string(&["propagationPolicy"])
        .or_else(|| call.query.get("propagationPolicy").map(str::to_owned));
    let orphan = body
        .get("orphanDependents")
        .and_then(Value::as_bool)
        .or_else(|| call.query.get("orphanDependents").map(|v| v == "true"));
    if let (Some(policy), Some(_)) = (&propagation, orphan) {
        let why = "orphanDependents and deletionPropagation cannot be both set";
        let error = FieldError::invalid("propagationPolicy", policy.as_str(), why);
        return Err(ApiError::invalid_options(options, &[error]));
    }
    let propagation = match propagation.as_deref() {
        None => match orphan {
            Some(true) => Some(Propagation::Orphan),
            Some(false) => Some(Propagation::Background),
            None => None,
        },
        Some("Background") => Some(Propagation::Background),
        Some("Foreground") => Some(Propagation::Foreground),
        Some("Orphan") => Some(Propagation::Orphan),
        Some(other) => {
            let known = ["Foreground", "Background", "Orphan", "nil"];
            let error = FieldError::not_supported("propagationPolicy", other, &known);
            return Err(ApiError::invalid_options(options, &[error]));
        }
    };
    let in_body = body
        .get("dryRun")
        .and_then(Value::as_array)
        .and_then(|list| list.first())
        .and_then(Value::as_str);
    let grace_seconds = match body.get("gracePeriodSeconds").and_then(Value::as_i64) {
        Some(seconds) => Some(seconds),
        None => call.query.number("gracePeriodSeconds")?,
    };
    Ok(DeleteOptions {
        grace_seconds,
        uid: string(&["preconditions", "uid"]),
        version: string(&["preconditions", "resourceVersion"]),
        propagation,
        dry_run: dry_run(in_body.or(call.query.get("dryRun")), options)?,
    })
}
