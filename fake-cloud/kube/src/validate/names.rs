//! Names, labels, annotations, finalizers: the syntax every object's metadata obeys.

use serde_json::Value;

use crate::error::FieldError;
use crate::meta::{self, at};
use crate::ops::Target;
use crate::wire::gojson;

const LABEL_LEN_MAX: usize = 63;
const SUBDOMAIN_LEN_MAX: usize = 253;
/// All annotations of an object together, in bytes.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

const SUBDOMAIN_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_TEXT: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED_TEXT: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE_TEXT: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

fn edges_and_middle(text: &str, edge: fn(&u8) -> bool, middle: fn(&u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(edge) && bytes.last().is_some_and(edge) && bytes.iter().all(middle)
}

fn lower_alnum(b: &u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// Whether `text` is an RFC 1123 label.
#[must_use]
pub fn is_label(text: &str) -> bool {
    text.len() <= LABEL_LEN_MAX
        && edges_and_middle(text, lower_alnum, |b| lower_alnum(b) || *b == b'-')
}

/// What is wrong with an RFC 1123 label.
#[must_use]
pub fn label_error(text: &str) -> Option<String> {
    if text.len() > LABEL_LEN_MAX {
        return Some(format!("must be no more than {LABEL_LEN_MAX} bytes"));
    }
    (!is_label(text)).then(|| LABEL_TEXT.to_owned())
}

/// What is wrong with an RFC 1123 subdomain, the syntax of most names.
#[must_use]
pub fn subdomain_error(text: &str) -> Option<String> {
    if text.len() > SUBDOMAIN_LEN_MAX {
        return Some(format!("must be no more than {SUBDOMAIN_LEN_MAX} bytes"));
    }
    let ok = text
        .split('.')
        .all(|part| edges_and_middle(part, lower_alnum, |b| lower_alnum(b) || *b == b'-'));
    (!ok).then(|| SUBDOMAIN_TEXT.to_owned())
}

fn is_qualified_part(text: &str) -> bool {
    edges_and_middle(text, u8::is_ascii_alphanumeric, |b| {
        b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')
    })
}

/// What is wrong with a qualified name such as a label's key.
#[must_use]
pub fn qualified_errors(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let mut parts = text.split('/');
    let (first, second, more) = (parts.next().unwrap_or(""), parts.next(), parts.next());
    if more.is_some() {
        return vec![format!(
            "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        )];
    }
    let name = match second {
        None => first,
        Some(name) => {
            if first.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else if let Some(error) = subdomain_error(first) {
                errors.push(format!("prefix part {error}"));
            }
            name
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_LEN_MAX {
        errors.push(format!(
            "name part must be no more than {LABEL_LEN_MAX} bytes"
        ));
    }
    if !is_qualified_part(name) {
        errors.push(QUALIFIED_TEXT.to_owned());
    }
    errors
}

/// What is wrong with a label's value.
#[must_use]
pub fn label_value_errors(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > LABEL_LEN_MAX {
        errors.push(format!("must be no more than {LABEL_LEN_MAX} bytes"));
    }
    if !text.is_empty() && !is_qualified_part(text) {
        errors.push(VALUE_TEXT.to_owned());
    }
    errors
}

/// Resources whose names are RFC 1123 labels.
fn name_is_label(target: &Target) -> bool {
    target.info.is("", "namespaces") || target.info.is("", "services")
}

/// Resources whose names only must be usable in a path.
fn name_is_path_segment(target: &Target) -> bool {
    target.info.group == "rbac.authorization.k8s.io"
        || target.info.plural == "events" && !target.info.custom
}

/// Validates `metadata` of a new object.
pub fn metadata(target: &Target, object: &Value, errors: &mut Vec<FieldError>) {
    let name = meta::name(object);
    if name.is_empty() {
        errors.push(FieldError::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else if name_is_path_segment(target) {
        let mut wrong = |why: String| errors.push(FieldError::invalid("metadata.name", name, why));
        if matches!(name, "." | "..") {
            wrong(format!("may not be '{name}'"));
        }
        for mark in ['/', '%'].into_iter().filter(|m| name.contains(*m)) {
            wrong(format!("may not contain '{mark}'"));
        }
    } else {
        let error = if name_is_label(target) {
            // Said first, as the likeliest slip.
            if name.contains('.') {
                Some("must not contain dots".to_owned())
            } else {
                label_error(name)
            }
        } else {
            subdomain_error(name)
        };
        if let Some(error) = error {
            errors.push(FieldError::invalid("metadata.name", name, of_name(&error)));
        }
    }
    generate_name(target, object, errors);
    labels(object, errors);
    if !target.info.custom {
        plain_finalizers(object, errors);
    }
    let owners = at(object, &["metadata", "ownerReferences"]).and_then(Value::as_array);
    let controls = |o: &&Value| o.get("controller") == Some(&Value::Bool(true));
    let controllers: Vec<&Value> = owners.into_iter().flatten().filter(controls).collect();
    if let [first, second, ..] = controllers.as_slice() {
        let of = |o: &Value| format!("{}/{}", meta::text(o, &["kind"]), meta::text(o, &["name"]));
        let all = at(object, &["metadata", "ownerReferences"]);
        let all = all.cloned().unwrap_or(Value::Null);
        let shown = gojson::list_of("meta.v1.OwnerReference", &all);
        let why = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
            of(first),
            of(second)
        );
        let error = FieldError::invalid("metadata.ownerReferences", all, why);
        errors.push(error.showing(shown));
    }
    for owner in at(object, &["metadata", "ownerReferences"])
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let version = meta::text(owner, &["apiVersion"]);
        if version.is_empty() || version.matches('/').count() > 1 {
            errors.push(FieldError::invalid(
                "metadata.ownerReferences.apiVersion",
                version,
                "version must not be empty",
            ));
        }
        if version == "v1" && meta::text(owner, &["kind"]) == "Event" {
            let shown = gojson::of_type("meta.v1.OwnerReference", owner);
            let why = "/v1, Kind=Event is disallowed from being an owner";
            let error = FieldError::invalid("metadata.ownerReferences", owner.clone(), why);
            errors.push(error.showing(shown));
        }
        for key in ["kind", "name", "uid"] {
            if meta::text(owner, &[key]).is_empty() {
                errors.push(FieldError::invalid(
                    &format!("metadata.ownerReferences.{key}"),
                    "",
                    "must not be empty",
                ));
            }
        }
    }
}

/// The length of a name is told in characters, that of other such words in bytes.
fn of_name(error: &str) -> String {
    error
        .strip_suffix(" bytes")
        .map_or_else(|| error.to_owned(), |head| format!("{head} characters"))
}

/// What no update changes: nobody but a deletion says that an object is being deleted.
pub fn kept(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    for key in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
        let is = at(new, &["metadata", key]).filter(|v| !v.is_null());
        let was = at(old, &["metadata", key]).filter(|v| !v.is_null());
        if let Some(is) = is.filter(|_| is != was) {
            let path = format!("metadata.{key}");
            let error = FieldError::invalid(&path, is.clone(), "field is immutable");
            // All kinds are asked, and each kind asks again.
            errors.extend([error.clone(), error]);
        }
    }
}

/// Validates the prefix of a generated name, as if a letter followed a dash at its end.
fn generate_name(target: &Target, object: &Value, errors: &mut Vec<FieldError>) {
    let prefix = meta::text(object, &["metadata", "generateName"]);
    if prefix.is_empty() || name_is_path_segment(target) {
        return;
    }
    // The real server puts the letter in place of the dash and of what stands before it.
    let whole = match prefix.strip_suffix('-') {
        Some(head) if !head.is_empty() => {
            let mut head = head.to_owned();
            head.pop();
            format!("{head}a")
        }
        _ => prefix.to_owned(),
    };
    let error = if name_is_label(target) {
        label_error(&whole)
    } else {
        subdomain_error(&whole)
    };
    if let Some(error) = error {
        let error = of_name(&error);
        errors.push(FieldError::invalid("metadata.generateName", prefix, error));
    }
}

/// Finalizers of built-in kinds are Kubernetes' own or have a domain.
fn plain_finalizers(object: &Value, errors: &mut Vec<FieldError>) {
    const OWN: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];
    for (i, finalizer) in meta::finalizers(object).enumerate() {
        if !finalizer.contains('/') && !OWN.contains(&finalizer) {
            errors.push(FieldError::invalid(
                &format!("metadata.finalizers[{i}]"),
                finalizer,
                "name is neither a standard finalizer name nor is it fully qualified",
            ));
        }
    }
}

/// Validates labels, annotations and finalizers.
pub fn labels(object: &Value, errors: &mut Vec<FieldError>) {
    for (key, value) in map(object, "labels") {
        for error in qualified_errors(key) {
            errors.push(FieldError::invalid("metadata.labels", key.as_str(), error));
        }
        match value.as_str() {
            Some(text) => {
                for error in label_value_errors(text) {
                    errors.push(FieldError::invalid("metadata.labels", text, error));
                }
            }
            None => errors.push(FieldError::type_invalid(
                &format!("metadata.labels.{key}"),
                value.clone(),
                "must be a string",
            )),
        }
    }
    let mut bytes = 0;
    for (key, value) in map(object, "annotations") {
        // Annotation keys are checked in lower case.
        for error in qualified_errors(&key.to_ascii_lowercase()) {
            errors.push(FieldError::invalid(
                "metadata.annotations",
                key.as_str(),
                error,
            ));
        }
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.push(FieldError::too_long(
            "metadata.annotations",
            ANNOTATIONS_BYTES_MAX as u64,
        ));
    }
    for finalizer in meta::finalizers(object) {
        for error in qualified_errors(finalizer) {
            errors.push(FieldError::invalid("metadata.finalizers", finalizer, error));
        }
    }
    let has = |wanted: &str| meta::finalizers(object).any(|f| f == wanted);
    if has("orphan") && has("foregroundDeletion") {
        errors.push(FieldError::invalid(
            "metadata.finalizers",
            at(object, &["metadata", "finalizers"])
                .cloned()
                .unwrap_or(Value::Null),
            "finalizer orphan and foregroundDeletion cannot be both set",
        ));
    }
}

fn map<'a>(object: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    at(object, &["metadata", key])
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("a", true)]
    #[case("a-b.c", true)]
    #[case("1", true)]
    #[case("ip-10-0-0-1.ec2.internal", true)]
    #[case("A", false)]
    #[case("-a", false)]
    #[case("a-", false)]
    #[case("a..b", false)]
    #[case("", false)]
    #[case("a_b", false)]
    fn subdomains(#[case] text: &str, #[case] ok: bool) {
        assert_eq!(subdomain_error(text).is_none(), ok, "{text}");
    }

    #[rstest]
    #[case("karpenter.sh/nodepool", 0)]
    #[case("app", 0)]
    #[case("/app", 1)]
    #[case("a/b/c", 1)]
    #[case("example.com/", 2)]
    #[case("UPPER.com/x", 1)]
    #[case("-x", 1)]
    fn qualified_names(#[case] text: &str, #[case] errors: usize) {
        assert_eq!(
            qualified_errors(text).len(),
            errors,
            "{:?}",
            qualified_errors(text)
        );
    }

    #[rstest]
    #[case("", true)]
    #[case("on-demand", true)]
    #[case("a b", false)]
    #[case(".x", false)]
    fn label_values(#[case] text: &str, #[case] ok: bool) {
        assert_eq!(label_value_errors(text).is_empty(), ok);
    }
}
