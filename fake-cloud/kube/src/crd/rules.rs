//! CEL rules (`x-kubernetes-validations`) of one schema node.

use kube::core::cel::{CompiledSchema, ErrorKind, compile_schema, validate_compiled};
use serde_json::Value;

use crate::error::{FieldError, FieldErrorKind};
use crate::meta::text;

/// The compiled rules of a node. Rules of nodes below are theirs: this node's copy of the schema only says how values
/// below it are typed in expressions.
#[derive(Debug)]
pub struct Rules {
    compiled: CompiledSchema,
}

impl Rules {
    /// Compiles a node's rules; those that do not compile are errors of the definition.
    pub fn read(schema: &Value, path: &str, errors: &mut Vec<FieldError>) -> Option<Self> {
        let rules = schema
            .get("x-kubernetes-validations")
            .and_then(Value::as_array)?;
        if rules.is_empty() {
            return None;
        }
        let mut own = schema.clone();
        strip(&mut own, true);
        let compiled = compile_schema(&own);
        for (i, rule) in compiled.validations.iter().enumerate() {
            if let Err(error) = rule {
                let source = rules.get(i).map_or("", |r| text(r, &["rule"]));
                errors.push(FieldError::invalid(
                    &format!("{path}.x-kubernetes-validations[{i}].rule"),
                    source,
                    format!("compilation failed: {error}"),
                ));
            }
        }
        Some(Self { compiled })
    }

    /// Evaluates the rules on a value; `old` is its former value where the two can be told to be the same thing.
    pub fn check(
        &self,
        value: &Value,
        old: Option<&Value>,
        path: &str,
        errors: &mut Vec<FieldError>,
    ) {
        let Err(failed) = validate_compiled(&self.compiled, value, old) else {
            return;
        };
        for error in failed {
            let field = match (path.is_empty(), error.field_path.trim_start_matches('.')) {
                (_, "") => path.to_owned(),
                (true, below) => below.to_owned(),
                (false, below) if below.starts_with('[') => format!("{path}{below}"),
                (false, below) => format!("{path}.{below}"),
            };
            let kind = match error.reason.as_deref() {
                Some("FieldValueRequired") => FieldErrorKind::Required,
                Some("FieldValueForbidden") => FieldErrorKind::Forbidden,
                Some("FieldValueDuplicate") => FieldErrorKind::Duplicate,
                _ => FieldErrorKind::Invalid,
            };
            let shows_value = matches!(kind, FieldErrorKind::Invalid | FieldErrorKind::Duplicate);
            let detail = match error.kind {
                ErrorKind::ValidationFailure => error.message,
                // A rule that cannot be evaluated refuses the object, and says so.
                _ => format!(
                    "rule {:?} could not be evaluated: {}",
                    error.rule, error.message
                ),
            };
            errors.push(FieldError {
                kind,
                field,
                // Maps and lists are too much to show.
                value: (shows_value && !value.is_object() && !value.is_array())
                    .then(|| value.clone()),
                detail,
            });
        }
    }
}

/// Removes defaults everywhere and rules everywhere but at the top.
fn strip(schema: &mut Value, top: bool) {
    let Some(map) = schema.as_object_mut() else {
        return;
    };
    map.remove("default");
    map.remove("description");
    if !top {
        map.remove("x-kubernetes-validations");
    }
    for (key, below) in map.iter_mut() {
        match (key.as_str(), below) {
            ("properties", Value::Object(properties)) => {
                properties.values_mut().for_each(|p| strip(p, false));
            }
            ("items" | "additionalProperties" | "not", below) => strip(below, false),
            ("allOf" | "anyOf" | "oneOf", Value::Array(branches)) => {
                branches.iter_mut().for_each(|b| strip(b, false));
            }
            _ => {}
        }
    }
}
