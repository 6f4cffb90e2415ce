//! CEL rules (`x-kubernetes-validations`) of one schema node.

use std::collections::BTreeMap;

use kube::core::cel::{CompiledSchema, ErrorKind, compile_schema, validate_compiled};
use serde_json::Value;

use crate::error::{FieldError, FieldErrorKind};
use crate::meta::text;

/// A rule as Go shows it.
fn as_go_has_it(rule: &Value) -> String {
    let field = |name: &str, key: &str, otherwise: &str| {
        let value = rule.get(key).filter(|v| !v.is_null()).map(Value::to_string);
        format!("\"{name}\":{}", value.as_deref().unwrap_or(otherwise))
    };
    let fields = [
        field("Rule", "rule", "\"\""),
        field("Message", "message", "\"\""),
        field("MessageExpression", "messageExpression", "\"\""),
        field("Reason", "reason", "null"),
        field("FieldPath", "fieldPath", "\"\""),
        field("OptionalOldSelf", "optionalOldSelf", "null"),
    ];
    format!("{{{}}}", fields.join(","))
}

/// The compiled rules of a node. Rules of nodes below are theirs: this node's copy of the schema only says how values
/// below it are typed in expressions.
#[derive(Debug)]
pub struct Rules {
    /// As they are asked of a value that was something before.
    compiled: CompiledSchema,
    /// As they are asked of a new value, where a rule has an optional `oldSelf`.
    of_new: Option<CompiledSchema>,
    /// The rules' messages, by rule.
    messages: BTreeMap<String, String>,
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
        let optional = rules
            .iter()
            .any(|r| r.get("optionalOldSelf") == Some(&Value::Bool(true)));
        let of_new = optional.then(|| {
            let mut own = own.clone();
            make_optional(&mut own, "optional.none()");
            compile_schema(&own)
        });
        make_optional(&mut own, "optional.of(oldSelf)");
        let compiled = compile_schema(&own);
        for (i, rule) in compiled.validations.iter().enumerate() {
            if let Err(error) = rule {
                let rule = rules.get(i).unwrap_or(&Value::Null);
                let source = text(rule, &["rule"]);
                let error = error.to_string();
                // What the parser says stands after what was parsed, its pictures a blank from the edge.
                let why = error.find("ERROR: ").and_then(|at| error.get(at..));
                let why = why.unwrap_or(&error).replace("\n|", "\n |");
                let at = format!("{path}.x-kubernetes-validations[{i}].rule");
                let why = format!("compilation failed: {why}");
                errors.push(FieldError::invalid(&at, source, why).showing(as_go_has_it(rule)));
            }
        }
        let messages = rules
            .iter()
            .map(|r| {
                (
                    text(r, &["rule"]).to_owned(),
                    text(r, &["message"]).to_owned(),
                )
            })
            .collect();
        Some(Self {
            compiled,
            of_new,
            messages,
        })
    }

    /// Evaluates the rules on a value; `old` is its former value where the two can be told to be the same thing.
    pub fn check(
        &self,
        value: &Value,
        old: Option<&Value>,
        path: &str,
        errors: &mut Vec<FieldError>,
    ) {
        let compiled = match (&self.of_new, old) {
            (Some(of_new), None) => of_new,
            _ => &self.compiled,
        };
        let Err(failed) = validate_compiled(compiled, value, old) else {
            return;
        };
        for error in failed {
            let field = match (path.is_empty(), error.field_path.trim_start_matches('.')) {
                (true, "") => "<nil>".to_owned(),
                (false, "") => path.to_owned(),
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
            if !matches!(error.kind, ErrorKind::ValidationFailure) {
                // A rule that cannot be evaluated refuses the object, and says so.
                errors.push(FieldError::invalid(
                    &field,
                    shown(value),
                    self.failure(&error.rule, &error.message),
                ));
                continue;
            }
            let detail = match kind {
                // Such an error is told without a word about it.
                FieldErrorKind::Duplicate => String::new(),
                _ => error.message,
            };
            errors.push(FieldError {
                kind,
                shown: None,
                field,
                // Maps and lists are too much to show.
                value: (shows_value && !value.is_object() && !value.is_array())
                    .then(|| value.clone()),
                detail,
            });
        }
    }
}

impl Rules {
    /// What is said of a rule that could not be evaluated.
    fn failure(&self, rule: &str, why: &str) -> String {
        let why = why.trim_start_matches("rule evaluation error: ");
        let why = why.replacen("No such key", "no such key", 1);
        let message = self.messages.get(rule).map_or("", String::as_str);
        if message.is_empty() {
            format!("{why} evaluating rule: {rule}")
        } else {
            format!("{why} evaluating rule: {message}")
        }
    }
}

fn shown(value: &Value) -> Value {
    match value {
        Value::Object(_) => "object".into(),
        Value::Array(_) => "array".into(),
        other => other.clone(),
    }
}

/// Rewrites rules with an optional `oldSelf`, which the library does not know: the former value, or none, as an optional.
fn make_optional(schema: &mut Value, old_self: &str) {
    let rules = schema
        .get_mut("x-kubernetes-validations")
        .and_then(Value::as_array_mut);
    for rule in rules.into_iter().flatten() {
        let Some(map) = rule.as_object_mut() else {
            continue;
        };
        if map.remove("optionalOldSelf") != Some(Value::Bool(true)) {
            continue;
        }
        for key in ["rule", "messageExpression"] {
            if let Some(Value::String(expression)) = map.get_mut(key) {
                *expression = replace_word(expression, "oldSelf", old_self);
            }
        }
    }
}

/// Replaces a word of an expression, but not in its string literals.
fn replace_word(expression: &str, word: &str, by: &str) -> String {
    let mut out = String::with_capacity(expression.len());
    let mut rest = expression;
    let mut quote: Option<char> = None;
    let mut before = ' ';
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    while let Some(c) = rest.chars().next() {
        let (_, after) = rest.split_at(c.len_utf8());
        match quote {
            Some(_) if c == '\\' => {
                out.push(c);
                let escaped = after.chars().next();
                out.extend(escaped);
                rest = after.get(escaped.map_or(0, char::len_utf8)..).unwrap_or("");
                before = ' ';
                continue;
            }
            Some(q) if c == q => quote = None,
            None if matches!(c, '\'' | '"') => quote = Some(c),
            None if !in_word(before) && before != '.' => {
                if let Some(tail) = rest.strip_prefix(word)
                    && !tail.starts_with(in_word)
                {
                    out.push_str(by);
                    rest = tail;
                    before = ')';
                    continue;
                }
            }
            _ => {}
        }
        out.push(c);
        before = c;
        rest = after;
    }
    out
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

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case("oldSelf.hasValue()", "X.hasValue()")]
    #[case("self.oldSelf == oldSelf", "self.oldSelf == X")]
    #[case(
        "oldSelfish || myoldSelf || 'oldSelf\\'' == oldSelf",
        "oldSelfish || myoldSelf || 'oldSelf\\'' == X"
    )]
    #[case("[oldSelf, \"oldSelf\"]", "[X, \"oldSelf\"]")]
    fn words_are_replaced_outside_of_strings(#[case] expression: &str, #[case] expected: &str) {
        assert_eq!(replace_word(expression, "oldSelf", "X"), expected);
    }

    #[test]
    fn an_optional_old_value_is_asked_of_new_values_too() {
        let schema = json!({"type": "integer", "x-kubernetes-validations": [
            {"rule": "oldSelf.hasValue() ? self >= oldSelf.value() : self > 0", "message": "m", "optionalOldSelf": true},
        ]});
        let mut errors = Vec::new();
        let rules = Rules::read(&schema, "s", &mut errors).unwrap();
        assert!(errors.is_empty(), "{errors:?}");
        let failures = |value: i64, old: Option<i64>| {
            let mut errors = Vec::new();
            rules.check(
                &value.into(),
                old.map(Value::from).as_ref(),
                "s",
                &mut errors,
            );
            errors.len()
        };
        assert_eq!(
            [
                failures(0, None),
                failures(1, None),
                failures(1, Some(2)),
                failures(0, Some(-1))
            ],
            [1, 0, 1, 0]
        );
    }
}
