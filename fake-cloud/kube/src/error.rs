//! Refusals as the API words them: the `Status` bodies (reason, message, details) that clients match on.

use std::fmt;

use serde_json::{Value, json};

use crate::registry::ResourceInfo;

/// A refusal, as the API's `Status` body.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP code.
    pub code: u16,
    /// `NotFound`, `Conflict`, `Invalid`, ...
    pub reason: &'static str,
    /// Text.
    pub message: String,
    /// `details` of the Status, null when there are none.
    pub details: Value,
    /// `metadata.continue` of the Status: where a list goes on that began too long ago.
    pub next: Option<Box<str>>,
}

/// What stands between what was sent and what it cannot be read as.
const UNREADABLE: &str = " cannot be handled as a ";

/// Marks the 404 that is no Status.
const PAGE_NOT_FOUND: &str = "PageNotFound";

/// Result of API operations.
pub type Result<T, E = ApiError> = std::result::Result<T, E>;

/// The media types that the real server names. We have no protobuf: clients that offer it take JSON as well.
pub const MEDIA_TYPES: &str =
    "application/json, application/yaml, application/vnd.kubernetes.protobuf";

impl ApiError {
    fn new(code: u16, reason: &'static str, message: String) -> Self {
        Self {
            code,
            reason,
            message,
            details: Value::Null,
            next: None,
        }
    }

    fn about(mut self, info: &ResourceInfo, name: &str) -> Self {
        self.details = details(name, &info.group, &info.plural);
        self
    }

    /// 404 for an object.
    #[must_use]
    pub fn not_found(info: &ResourceInfo, name: &str) -> Self {
        Self::not_found_named(&info.group, &info.plural, name)
    }

    /// 404 for an object of a resource given by its names.
    #[must_use]
    pub fn not_found_named(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", qualified(group, plural));
        let mut error = Self::new(404, "NotFound", message);
        error.details = details(name, group, plural);
        error
    }

    /// 404 for a path or a resource that is not served.
    #[must_use]
    pub fn no_such_resource() -> Self {
        let mut error = Self::new(
            404,
            "NotFound",
            "the server could not find the requested resource".to_owned(),
        );
        error.details = json!({});
        error
    }

    /// 404 for a path that belongs to nothing that is served: a line of text, no Status.
    #[must_use]
    pub fn no_such_page() -> Self {
        Self::new(404, PAGE_NOT_FOUND, "404 page not found\n".to_owned())
    }

    /// Whether it is told as a line of text.
    #[must_use]
    pub fn is_page(&self) -> bool {
        self.reason == PAGE_NOT_FOUND
    }

    /// 409 for a name that is taken.
    #[must_use]
    pub fn already_exists(info: &ResourceInfo, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", info.qualified());
        Self::new(409, "AlreadyExists", message).about(info, name)
    }

    /// 409 with the reason `why`.
    #[must_use]
    pub fn conflict(info: &ResourceInfo, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": {why}",
            info.qualified()
        );
        Self::new(409, "Conflict", message).about(info, name)
    }

    /// 409 of a deletion whose preconditions do not hold; the real server names the kind here, not the resource.
    #[must_use]
    pub fn precondition(info: &ResourceInfo, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": {why}",
            qualified(&info.group, &info.kind)
        );
        let mut error = Self::new(409, "Conflict", message);
        error.details = details(name, &info.group, &info.kind);
        error
    }

    /// 409 of a subresource.
    #[must_use]
    pub fn conflict_of(resource: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}");
        let mut error = Self::new(409, "Conflict", message);
        error.details = details(name, "", resource);
        error
    }

    /// 422 for options of a request (`ListOptions`, `CreateOptions`, ...).
    #[must_use]
    pub fn invalid_options(kind: &str, errors: &[FieldError]) -> Self {
        let mut error = Self::invalid_named("meta.k8s.io", kind, "", errors);
        if let Some(details) = error.details.as_object_mut() {
            details.remove("name");
        }
        error
    }

    /// An error that the real server returns as it came, without a reason: 500.
    #[must_use]
    pub fn bare(message: impl Into<String>) -> Self {
        Self::new(500, "", message.into())
    }

    /// 409 for a stale resourceVersion.
    #[must_use]
    pub fn stale(info: &ResourceInfo, name: &str) -> Self {
        Self::conflict(
            info,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409 of server-side apply, with one cause a field and a ready message.
    #[must_use]
    pub fn apply_conflict(message: String, causes: Vec<Value>) -> Self {
        let mut error = Self::new(409, "Conflict", message);
        error.details = json!({ "causes": causes });
        error
    }

    /// 422 with field errors.
    #[must_use]
    pub fn invalid(info: &ResourceInfo, name: &str, errors: &[FieldError]) -> Self {
        // Events are told of in their old group.
        let group = if crate::events::is_new(info) {
            ""
        } else {
            &info.group
        };
        Self::invalid_named(group, &info.kind, name, errors)
    }

    /// 422 with field errors of a kind given by its names.
    #[must_use]
    pub fn invalid_named(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let qualified = qualified(group, kind);
        let mut texts: Vec<String> = Vec::new();
        for text in errors.iter().map(FieldError::to_string) {
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let all = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let mut error = Self::new(
            422,
            "Invalid",
            format!("{qualified} \"{name}\" is invalid: {all}"),
        );
        let causes: Vec<Value> = errors
            .iter()
            .map(|e| json!({"reason": e.kind.reason(), "message": e.body(), "field": e.field}))
            .collect();
        let mut about = serde_json::Map::new();
        if !name.is_empty() {
            about.insert("name".into(), name.into());
        }
        if !group.is_empty() {
            about.insert("group".into(), group.into());
        }
        if !kind.is_empty() {
            about.insert("kind".into(), kind.into());
        }
        about.insert("causes".into(), causes.into());
        error.details = Value::Object(about);
        error
    }

    /// 422 without an object: the request cannot be processed (a JSON patch whose test failed, say).
    #[must_use]
    pub fn unprocessable() -> Self {
        let mut error = Self::new(
            422,
            "Invalid",
            "the server rejected our request due to an error in our request".to_owned(),
        );
        error.details = json!({});
        error
    }

    /// 400: what was sent as a `kind` cannot be read as what it goes to.
    #[must_use]
    pub fn unreadable(kind: &str, version: &str, wanted: &str, why: impl fmt::Display) -> Self {
        Self::bad_request(format!(
            "{kind} in version {version:?}{UNREADABLE}{wanted}: {why}"
        ))
    }

    /// Why it cannot be read, of [`Self::unreadable`]; of others what they say.
    #[must_use]
    pub fn why_unreadable(&self) -> &str {
        let why = self.message.split_once(UNREADABLE);
        why.and_then(|(_, rest)| rest.split_once(": "))
            .map_or(&self.message, |(_, why)| why)
    }

    /// 400.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message.into())
    }

    /// 403 with the admission's reason.
    #[must_use]
    pub fn forbidden(info: &ResourceInfo, name: &str, why: &str) -> Self {
        let message = format!("{} \"{name}\" is forbidden: {why}", info.qualified());
        Self::new(403, "Forbidden", message).about(info, name)
    }

    /// 403 with the whole message; the caller says what it is about.
    #[must_use]
    pub fn denied(message: String) -> Self {
        Self::new(403, "Forbidden", message)
    }

    /// 401.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized".to_owned())
    }

    /// 405.
    #[must_use]
    pub fn method_not_allowed() -> Self {
        let mut error = Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource".to_owned(),
        );
        error.details = json!({});
        error
    }

    /// 406.
    #[must_use]
    pub fn not_acceptable() -> Self {
        Self::new(
            406,
            "NotAcceptable",
            format!("only the following media types are accepted: {MEDIA_TYPES}"),
        )
    }

    /// 410: the resourceVersion or the continue token is older than the history kept.
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message.into())
    }

    /// 415.
    #[must_use]
    pub fn unsupported_media_type(accepted: &str) -> Self {
        Self::new(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {accepted}"
            ),
        )
    }

    /// 429 of an eviction that a disruption budget forbids; `cause` is the budget's explanation.
    #[must_use]
    pub fn disruption_budget(cause: &str) -> Self {
        let mut error = Self::new(
            429,
            "TooManyRequests",
            "Cannot evict pod as it would violate the pod's disruption budget.".to_owned(),
        );
        error.details = json!({"causes": [{"reason": "DisruptionBudget", "message": cause}]});
        error
    }

    /// 500 with the server's text.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "InternalError", message.into())
    }

    /// The `Status` object.
    #[must_use]
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.next.as_ref().map_or_else(|| json!({}), |next| json!({"continue": next})),
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        });
        if let Some(map) = status.as_object_mut() {
            if !self.reason.is_empty() {
                map.insert("reason".into(), self.reason.into());
            }
            if !self.details.is_null() {
                map.insert("details".into(), self.details.clone());
            }
        }
        status
    }
}

/// What a Status is about.
#[must_use]
pub fn details(name: &str, group: &str, plural: &str) -> Value {
    let mut about = serde_json::Map::new();
    if !name.is_empty() {
        about.insert("name".into(), name.into());
    }
    if !group.is_empty() {
        about.insert("group".into(), group.into());
    }
    about.insert("kind".into(), plural.into());
    Value::Object(about)
}

/// `plural` or `plural.group`, as messages name a resource.
#[must_use]
pub fn qualified(group: &str, plural: &str) -> String {
    if group.is_empty() {
        plural.to_owned()
    } else {
        format!("{plural}.{group}")
    }
}

/// What is wrong with a field; the names are those of apimachinery's `field.ErrorType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// A value that refers to something that is not there.
    NotFound,
    /// A value is missing.
    Required,
    /// A value occurs twice.
    Duplicate,
    /// A value is malformed or out of bounds.
    Invalid,
    /// A value is not among those allowed.
    NotSupported,
    /// The field may not be set or changed.
    Forbidden,
    /// A string is too long.
    TooLong,
    /// A list or map is too long.
    TooMany,
    /// The JSON type is wrong.
    TypeInvalid,
}

impl FieldErrorKind {
    const fn text(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
        }
    }

    /// The `reason` of a Status cause.
    const fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }
}

/// One field that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// What is wrong.
    pub kind: FieldErrorKind,
    /// Path such as `spec.containers[0].name`.
    pub field: String,
    /// The offending value; none when the message leaves it out.
    pub value: Option<Value>,
    /// The value as the message shows it, where that is not its JSON.
    pub shown: Option<String>,
    /// Explanation, may be empty.
    pub detail: String,
}

impl FieldError {
    fn new(kind: FieldErrorKind, field: &str, value: Option<Value>, detail: String) -> Self {
        Self {
            kind,
            field: field.to_owned(),
            value,
            shown: None,
            detail,
        }
    }
    /// A missing value.
    pub fn required(field: &str, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Required, field, None, detail.into())
    }
    /// A malformed value.
    pub fn invalid(field: &str, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(
            FieldErrorKind::Invalid,
            field,
            Some(value.into()),
            detail.into(),
        )
    }
    /// A value of the wrong JSON type.
    pub fn type_invalid(field: &str, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(
            FieldErrorKind::TypeInvalid,
            field,
            Some(value.into()),
            detail.into(),
        )
    }
    /// A value that occurs twice.
    pub fn duplicate(field: &str, value: impl Into<Value>) -> Self {
        Self::new(
            FieldErrorKind::Duplicate,
            field,
            Some(value.into()),
            String::new(),
        )
    }
    /// A field that may not be set or changed.
    pub fn forbidden(field: &str, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Forbidden, field, None, detail.into())
    }
    /// A string over `limit` bytes.
    pub fn too_long(field: &str, limit: u64) -> Self {
        let detail = format!("may not be more than {limit} bytes");
        Self::new(FieldErrorKind::TooLong, field, None, detail)
    }
    /// A list or map over `limit` entries.
    pub fn too_many(field: &str, actual: u64, limit: u64) -> Self {
        let items = if limit == 1 { "item" } else { "items" };
        let detail = format!("must have at most {limit} {items}");
        Self::new(FieldErrorKind::TooMany, field, Some(actual.into()), detail)
    }
    /// A value outside `supported`.
    pub fn not_supported(field: &str, value: impl Into<Value>, supported: &[&str]) -> Self {
        let list: Vec<String> = supported.iter().map(|s| format!("\"{s}\"")).collect();
        let detail = format!("supported values: {}", list.join(", "));
        Self::new(
            FieldErrorKind::NotSupported,
            field,
            Some(value.into()),
            detail,
        )
    }

    /// The same with its value shown in other words.
    #[must_use]
    pub fn showing(mut self, value: String) -> Self {
        self.shown = Some(value);
        self
    }

    /// The same with something said of it.
    #[must_use]
    pub fn because(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Everything but the path.
    #[must_use]
    pub fn body(&self) -> String {
        let mut text = self.kind.text().to_owned();
        let value = self.value.as_ref().map(Value::to_string);
        if let Some(value) = self.shown.as_ref().or(value.as_ref()) {
            text.push_str(": ");
            text.push_str(value);
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}
