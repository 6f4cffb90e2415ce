//! Validation of objects by their schema: types, bounds, distinctness, rules. What an update leaves as it was is not
//! checked again, as the real server's ratcheting has it.

use serde_json::Value;

use super::formats;
use super::schema::{Bound, Checks, ListType, Schema, Type};
use crate::error::{FieldError, FieldErrorKind};
use crate::meta;

/// Errors of an object; `old` is its former state.
#[must_use]
pub fn check(schema: &Schema, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    node(schema, object, old, "", &mut errors);
    // Rules are only evaluated on objects whose structure is sound.
    if !errors.iter().any(is_unsound) {
        rules(schema, object, old, "", &mut errors);
    }
    errors
}

fn is_unsound(error: &FieldError) -> bool {
    use FieldErrorKind::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
    matches!(
        error.kind,
        NotSupported | Required | TooLong | TooMany | TypeInvalid
    )
}

/// What is said beside errors that kept the rules from being asked.
#[must_use]
pub fn unasked(schema: &Schema, errors: &[FieldError]) -> Option<FieldError> {
    (schema.has_rules && errors.iter().any(is_unsound)).then(|| {
        FieldError::invalid(
            "<nil>",
            Value::Null,
            "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
        )
    })
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

fn value_path(path: &str, key: &str) -> String {
    format!("{path}[{key}]")
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_type(schema: &Schema, value: &Value) -> bool {
    if value.is_null() && schema.nullable {
        return true;
    }
    if schema.int_or_string {
        return value.is_string() || is_integer(value);
    }
    match schema.kind {
        Type::Any => true,
        Type::Object => value.is_object(),
        Type::Array => value.is_array(),
        Type::String => value.is_string(),
        Type::Integer => is_integer(value),
        Type::Number => value.is_number(),
        Type::Boolean => value.is_boolean(),
    }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0)
}

fn node(
    schema: &Schema,
    value: &Value,
    old: Option<&Value>,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    if old == Some(value) {
        return;
    }
    if !is_type(schema, value) {
        let wanted = if schema.int_or_string {
            "integer,string"
        } else {
            schema.kind.word()
        };
        let found = type_of(value);
        let at = if path.is_empty() { "<nil>" } else { path };
        let detail = format!("{at} in body must be of type {wanted}: \"{found}\"");
        errors.push(FieldError::type_invalid(at, found, detail));
        // Of a number with a fraction every check that it fails is told.
        if value.is_number() && (schema.int_or_string || schema.kind == Type::Integer) {
            let why = format!("Checked value must be of type integer (default format) in {at}");
            errors.push(FieldError::invalid("<nil>", "", why));
        }
        if value.is_number() && schema.int_or_string {
            let why = format!("\"{at}\" must validate at least one schema (anyOf)");
            errors.push(FieldError::invalid("<nil>", "", why));
            let why = format!("{at} in body must be of type integer: \"{found}\"");
            errors.push(FieldError::type_invalid(at, found, why));
        }
        return;
    }
    checks(&schema.checks, value, path, errors);
    if schema.embedded && value.is_object() {
        for key in ["apiVersion", "kind"] {
            if meta::text(value, &[key]).is_empty() {
                errors.push(FieldError::required(&join(path, key), ""));
            }
        }
    }
    match value {
        Value::Object(map) => {
            for (key, below) in map {
                let former = old.and_then(|o| o.get(key));
                if let Some(node_schema) = schema.properties.get(key) {
                    node(node_schema, below, former, &join(path, key), errors);
                } else if let Some(values) = &schema.values {
                    node(values, below, former, &join(path, key), errors);
                }
            }
        }
        Value::Array(list) => {
            distinct(&schema.list, list, path, errors);
            if let Some(items) = &schema.items {
                for (i, below) in list.iter().enumerate() {
                    let former = old.and_then(|o| correlate(&schema.list, o, below));
                    node(
                        items,
                        below,
                        former,
                        &value_path(path, &i.to_string()),
                        errors,
                    );
                }
            }
        }
        _ => {}
    }
}

/// The former value of a list's element: elements of keyed lists are found by their keys.
fn correlate<'a>(list: &ListType, old: &'a Value, item: &Value) -> Option<&'a Value> {
    match list {
        ListType::Map(keys) => old
            .as_array()?
            .iter()
            .find(|o| keys.iter().all(|k| o.get(k) == item.get(k))),
        // A list that is one value has no items that were something before.
        ListType::Set | ListType::Atomic => None,
    }
}

fn distinct(list: &ListType, items: &[Value], path: &str, errors: &mut Vec<FieldError>) {
    let keys_of = |item: &Value| -> Value {
        match list {
            ListType::Map(keys) => keys
                .iter()
                .filter_map(|k| item.get(k).map(|v| (k.clone(), v.clone())))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            _ => item.clone(),
        }
    };
    if *list == ListType::Atomic {
        return;
    }
    let mut seen: std::collections::BTreeSet<String> = std::collections::BTreeSet::new();
    for (i, item) in items.iter().enumerate() {
        let key = keys_of(item);
        if !seen.insert(key.to_string()) {
            errors.push(FieldError::duplicate(
                &value_path(path, &i.to_string()),
                key,
            ));
        }
    }
}

fn checks(checks: &Checks, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let at = if path.is_empty() { "<nil>" } else { path };
    if !checks.one_of_values.is_empty() && !checks.one_of_values.contains(value) {
        let words: Vec<String> = checks
            .one_of_values
            .iter()
            .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        errors.push(FieldError::not_supported(at, value.clone(), &words));
    }
    match value {
        Value::String(text) => string(checks, text, at, errors),
        Value::Number(_) => number(checks, value, at, errors),
        Value::Array(list) => {
            let count = list.len() as u64;
            if let Some(min) = checks.min_items.filter(|min| count < *min) {
                errors.push(FieldError::invalid(
                    at,
                    count,
                    format!("{at} in body should have at least {min} items"),
                ));
            }
            if let Some(max) = checks.max_items.filter(|max| count > *max) {
                errors.push(FieldError::too_many(at, count, max));
            }
        }
        Value::Object(map) => {
            let count = map.len() as u64;
            if let Some(min) = checks.min_properties.filter(|min| count < *min) {
                errors.push(FieldError::invalid(
                    at,
                    count,
                    format!("{at} in body should have at least {min} properties"),
                ));
            }
            if let Some(max) = checks.max_properties.filter(|max| count > *max) {
                errors.push(FieldError::too_many(at, count, max));
            }
            for key in &checks.required {
                if !map.contains_key(key) {
                    errors.push(FieldError::required(&join(path, key), ""));
                }
            }
        }
        _ => {}
    }
    branches(checks, value, path, at, errors);
}

fn string(checks: &Checks, text: &str, at: &str, errors: &mut Vec<FieldError>) {
    let length = text.chars().count() as u64;
    // The first of these that does not hold is told, and the format beside it.
    if let Some(max) = checks.max_length.filter(|max| length > *max) {
        errors.push(FieldError::too_long(at, max));
    } else if let Some(min) = checks.min_length.filter(|min| length < *min) {
        errors.push(FieldError::invalid(
            at,
            text,
            format!("{at} in body should be at least {min} chars long"),
        ));
    } else if let Some((pattern, regex)) = &checks.pattern
        && !regex.is_match(text)
    {
        errors.push(FieldError::invalid(
            at,
            text,
            format!("{at} in body should match '{pattern}'"),
        ));
    }
    if !formats::is_string_of(&checks.format, text) {
        errors.push(FieldError::type_invalid(
            at,
            text,
            format!("{at} in body must be of type {}: \"{text}\"", checks.format),
        ));
    }
}

fn number(checks: &Checks, value: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let Some(number) = value.as_f64() else {
        return;
    };
    let out = |bound: &Bound, low: bool| {
        bound
            .value
            .as_f64()
            .is_some_and(|limit| match (low, bound.exclusive) {
                (true, false) => number < limit,
                (true, true) => number <= limit,
                (false, false) => number > limit,
                (false, true) => number >= limit,
            })
    };
    let or_equal = |bound: &Bound| if bound.exclusive { "" } else { " or equal to" };
    if let Some(bound) = checks.minimum.as_ref().filter(|b| out(b, true)) {
        let detail = format!(
            "{at} in body should be greater than{} {}",
            or_equal(bound),
            bound.value
        );
        errors.push(FieldError::invalid(at, value.clone(), detail));
    }
    if let Some(bound) = checks.maximum.as_ref().filter(|b| out(b, false)) {
        let detail = format!(
            "{at} in body should be less than{} {}",
            or_equal(bound),
            bound.value
        );
        errors.push(FieldError::invalid(at, value.clone(), detail));
    }
    if let Some(step) = checks.multiple_of
        && step != 0.0
        && (number / step).fract() != 0.0
    {
        errors.push(FieldError::invalid(
            at,
            value.clone(),
            format!("{at} in body should be a multiple of {step}"),
        ));
    }
    if checks.format == "int32" && value.as_i64().is_some_and(|v| i32::try_from(v).is_err()) {
        let detail = format!("Checked value must be of type integer with format int32 in {at}");
        errors.push(FieldError::invalid("<nil>", "", detail));
    }
}

/// `allOf` and its kin: the schema is told, and what the branch that is closest says.
fn branches(checks: &Checks, value: &Value, path: &str, at: &str, errors: &mut Vec<FieldError>) {
    let found = |schema: &Schema| {
        let mut inner = Vec::new();
        node(schema, value, None, path, &mut inner);
        inner
    };
    let mut tell = |why: String, closest: Option<Vec<FieldError>>| {
        let detail = format!("\"{at}\" must {why}");
        errors.push(FieldError::invalid("<nil>", "", detail));
        errors.extend(closest.into_iter().flatten());
    };
    let all: Vec<FieldError> = checks.all_of.iter().flat_map(found).collect();
    if !all.is_empty() {
        tell("validate all the schemas (allOf)".to_owned(), Some(all));
    }
    let closest = |schemas: &[Schema]| schemas.iter().map(found).min_by_key(Vec::len);
    let passing = |schemas: &[Schema]| schemas.iter().filter(|s| found(s).is_empty()).count();
    if !checks.any_of.is_empty() && passing(&checks.any_of) == 0 {
        let why = "validate at least one schema (anyOf)".to_owned();
        tell(why, closest(&checks.any_of));
    }
    if !checks.one_of.is_empty() {
        let why = "validate one and only one schema (oneOf). Found";
        match passing(&checks.one_of) {
            1 => {}
            0 => tell(format!("{why} none valid"), closest(&checks.one_of)),
            many => tell(format!("{why} {many} valid alternatives"), None),
        }
    }
    if checks.not.as_ref().is_some_and(|s| found(s).is_empty()) {
        tell("not validate the schema (not)".to_owned(), None);
    }
}

/// Evaluates CEL rules along the tree.
fn rules(
    schema: &Schema,
    value: &Value,
    old: Option<&Value>,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    if old == Some(value) || value.is_null() {
        return;
    }
    if let Some(rules) = &schema.rules {
        rules.check(value, old, path, errors);
    }
    match value {
        Value::Object(map) => {
            for (key, below) in map {
                let former = old.and_then(|o| o.get(key));
                if let Some(node) = schema.properties.get(key) {
                    self::rules(node, below, former, &join(path, key), errors);
                } else if let Some(values) = &schema.values {
                    self::rules(values, below, former, &value_path(path, key), errors);
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = &schema.items else {
                return;
            };
            for (i, below) in list.iter().enumerate() {
                // Only keyed lists say which element was which; transition rules skip the others.
                let former = old.and_then(|o| correlate(&schema.list, o, below));
                self::rules(
                    items,
                    below,
                    former,
                    &value_path(path, &i.to_string()),
                    errors,
                );
            }
        }
        _ => {}
    }
}

/// Checks the parts of `metadata` that a schema may constrain (`name` only, as the API documents).
pub fn metadata_name(schema: &Schema, object: &Value, errors: &mut Vec<FieldError>) {
    if let Some(node) = schema
        .properties
        .get("metadata")
        .and_then(|m| m.properties.get("name"))
    {
        checks(
            &node.checks,
            &Value::from(meta::name(object)),
            "metadata.name",
            errors,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::CrdSchema;
    use rstest::rstest;
    use serde_json::json;

    fn schema() -> CrdSchema {
        let schema = CrdSchema::new(
            &json!({"type": "object", "properties": {"spec": {
                "type": "object", "required": ["name"],
                "x-kubernetes-validations": [
                    {"rule": "!has(self.replicas) || !has(self.weight)", "message": "Cannot set both"},
                    {"rule": "has(self.replicas) == has(oldSelf.replicas)", "message": "Cannot transition"},
                ],
                "properties": {
                    "name": {"type": "string", "minLength": 1, "maxLength": 5, "pattern": "^[a-z]*$"},
                    "mode": {"type": "string", "enum": ["Fast", "Slow"]},
                    "replicas": {"type": "integer", "minimum": 0, "format": "int32"},
                    "weight": {"type": "integer", "minimum": 1, "maximum": 100},
                    "size": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}],
                             "pattern": "^[0-9]+(Ki|Mi)?$"},
                    "labels": {"type": "object", "maxProperties": 2, "additionalProperties": {"type": "string", "maxLength": 3},
                               "x-kubernetes-validations": [{"rule": "self.all(k, k != 'bad')", "message": "label is restricted",
                                                             "reason": "FieldValueForbidden"}]},
                    "terms": {"type": "array", "minItems": 1, "maxItems": 3, "x-kubernetes-list-type": "map",
                              "x-kubernetes-list-map-keys": ["key"],
                              "items": {"type": "object", "required": ["key"], "properties": {
                                  "key": {"type": "string"}, "value": {"type": "string",
                                  "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "Value is immutable"}]}}}},
                    "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                },
            }}}),
            "schema",
        );
        assert!(schema.errors.is_empty(), "{:?}", schema.errors);
        schema
    }

    fn texts(object: &Value, old: Option<&Value>) -> Vec<String> {
        check(&schema().root, object, old)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[rstest]
    #[case(json!({"name": "a"}), &[])]
    #[case(json!({"name": "a", "size": 5, "labels": {"a": "b"}, "terms": [{"key": "x"}, {"key": "y"}]}), &[])]
    #[case(json!({}), &["spec.name: Required value"])]
    #[case(json!({"name": "A"}), &["spec.name: Invalid value: \"A\": spec.name in body should match '^[a-z]*$'"])]
    #[case(json!({"name": ""}), &["spec.name: Invalid value: \"\": spec.name in body should be at least 1 chars long"])]
    #[case(json!({"name": "abcdef"}), &["spec.name: Too long: may not be more than 5 bytes"])]
    #[case(json!({"name": 1}), &["spec.name: Invalid value: \"integer\": spec.name in body must be of type string: \"integer\""])]
    #[case(json!({"name": "a", "mode": "x"}), &["spec.mode: Unsupported value: \"x\": supported values: \"Fast\", \"Slow\""])]
    #[case(json!({"name": "a", "weight": 101}), &["spec.weight: Invalid value: 101: spec.weight in body should be less than or equal to 100"])]
    #[case(json!({"name": "a", "weight": 0}), &["spec.weight: Invalid value: 0: spec.weight in body should be greater than or equal to 1"])]
    #[case(json!({"name": "a", "size": "5Gi"}), &["spec.size: Invalid value: \"5Gi\": spec.size in body should match '^[0-9]+(Ki|Mi)?$'"])]
    #[case(json!({"name": "a", "labels": {"a": "1", "b": "2", "c": "3"}}), &["spec.labels: Too many: 3: must have at most 2 items"])]
    #[case(json!({"name": "a", "terms": []}), &["spec.terms: Invalid value: 0: spec.terms in body should have at least 1 items"])]
    #[case(json!({"name": "a", "terms": [{"key": "x"}, {"key": "x"}]}), &["spec.terms[1]: Duplicate value: {\"key\":\"x\"}"])]
    #[case(json!({"name": "a", "tags": ["x", "y", "x"]}), &["spec.tags[2]: Duplicate value: \"x\""])]
    #[case(json!({"name": "a", "replicas": 1, "weight": 1}), &["spec: Invalid value: Cannot set both"])]
    #[case(json!({"name": "a", "labels": {"bad": "1"}}), &["spec.labels: Forbidden: label is restricted"])]
    fn creations(#[case] spec: Value, #[case] expected: &[&str]) {
        assert_eq!(texts(&json!({"spec": spec}), None), expected);
    }

    #[rstest]
    #[case(json!({"name": "a"}), json!({"name": "a", "replicas": 1}), &["spec: Invalid value: Cannot transition"])]
    #[case(json!({"name": "a", "terms": [{"key": "x", "value": "1"}]}), json!({"name": "a", "terms": [{"key": "y", "value": "3"}, {"key": "x", "value": "2"}]}),
           &["spec.terms[1].value: Invalid value: \"2\": Value is immutable"])]
    // What was invalid and stays as it was is let through; a change beside it is checked.
    #[case(json!({"name": "TOO LONG"}), json!({"name": "TOO LONG", "weight": 5}), &[])]
    #[case(json!({"name": "TOO LONG"}), json!({"name": "TOO LONG", "weight": 500}), &["spec.weight: Invalid value: 500: spec.weight in body should be less than or equal to 100"])]
    fn updates(#[case] old: Value, #[case] new: Value, #[case] expected: &[&str]) {
        assert_eq!(
            texts(&json!({"spec": new}), Some(&json!({"spec": old}))),
            expected
        );
    }

    #[test]
    fn rules_that_do_not_compile_are_errors_of_the_definition() {
        let schema = CrdSchema::new(
            &json!({"type": "object", "properties": {"spec": {"type": "object",
                "x-kubernetes-validations": [{"rule": "self.x ==", "message": "m"}]}}}),
            "schema",
        );
        assert_eq!(schema.errors.len(), 1);
        assert_eq!(
            schema.errors[0].field,
            "schema.properties[spec].x-kubernetes-validations[0].rule"
        );
    }
}
