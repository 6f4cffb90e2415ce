//! CustomResourceDefinitions: turning a definition into a served resource, and what its schema does to objects.

pub mod cel;
pub mod check;
pub mod cost;
pub mod definition;
pub mod formats;
pub mod removal;
pub mod rules;
pub mod schema;
pub mod shape;
pub mod versions;

use serde_json::Value;

use crate::error::{FieldError, Result};
use crate::meta;
use crate::ops::{Target, WriteOptions};
use crate::patch;
pub use schema::CrdSchema;

/// A printed column (`additionalPrinterColumns`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean`, `date`.
    pub kind: String,
    /// Format hint.
    pub format: String,
    /// Description.
    pub description: String,
    /// 0 is always shown, others with `-o wide`.
    pub priority: i64,
    /// Simple JSONPath.
    pub json_path: String,
}

/// Prunes and defaults a custom object.
///
/// # Errors
/// 400 for unknown fields under strict field validation.
pub fn admit(target: &Target, object: &mut Value, options: &mut WriteOptions) -> Result<()> {
    let Some(schema) = target.version_info().and_then(|v| v.schema.as_ref()) else {
        return Ok(());
    };
    let unknown = shape::prune(&schema.root, object);
    let texts = std::mem::take(&mut options.written).pruned(&unknown);
    options.told(target, texts)?;
    if schema.root.has_defaults {
        shape::default(&schema.root, object);
    }
    Ok(())
}

/// What Go makes of a value that is no number.
const fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Numbers of replicas that a scale shows are numbers and none below zero, whatever the schema says.
fn scale(target: &Target, object: &Value, errors: &mut Vec<FieldError>) {
    let Some(paths) = target.version_info().and_then(|v| v.scale.as_ref()) else {
        return;
    };
    for path in [&paths.spec, &paths.status] {
        let words: Vec<&str> = path.iter().map(String::as_str).collect();
        let field = format!(".{}", path.join("."));
        let found = meta::at(object, &words);
        let count = found.and_then(Value::as_i64);
        if let Some(other) = found.filter(|f| count.is_none() && !f.is_null()) {
            let shown = patch::gofmt::value(other);
            let why = format!(
                "{field} accessor error: {shown} is of the type {}, expected int64",
                go_type(other)
            );
            errors.push(FieldError::invalid(&field, 0, why));
        }
        if let Some(count) = count.filter(|c| *c < 0) {
            let why = "should be a non-negative integer";
            errors.push(FieldError::invalid(&field, count, why));
        }
    }
}

/// Errors of a custom object.
#[must_use]
pub fn validate(target: &Target, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let Some(schema) = target.version_info().and_then(|v| v.schema.as_ref()) else {
        return Vec::new();
    };
    let mut errors = check::check(&schema.root, object, old);
    scale(target, object, &mut errors);
    errors.extend(check::unasked(&schema.root, &errors));
    if old.is_none() {
        check::metadata_name(&schema.root, object, &mut errors);
    }
    errors
}
