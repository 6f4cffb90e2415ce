//! CEL rules (`x-kubernetes-validations`) of one schema node.

use kube::core::cel::cel::Value as Celled;
use serde_json::Value;

use super::cel::{Expression, Type, Variables, optional, value_of};
use crate::error::{FieldError, FieldErrorKind};
use crate::meta::{flag, text};

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
    let shown = format!("{{{}}}", fields.join(","));
    // Go writes these as a browser may read them.
    let marks = [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026")];
    marks
        .iter()
        .fold(shown, |s, (mark, by)| s.replace(*mark, by))
}

/// A rule.
#[derive(Debug)]
struct Rule {
    source: String,
    expression: Expression,
    message: String,
    message_expression: Option<Expression>,
    reason: String,
    field_path: String,
    /// Whether it is about what the value was before.
    is_transition: bool,
    /// Whether what the value was before may be missing.
    optional_old: bool,
}

/// The rules of a node. Rules of nodes below are theirs: this node's schema only says how values below it are typed in
/// expressions.
#[derive(Debug)]
pub struct Rules {
    schema: Value,
    rules: Vec<Rule>,
}

impl Rules {
    /// Reads a node's rules; those that cannot be read are errors of the definition.
    pub fn read(
        schema: &Value,
        resource: bool,
        path: &str,
        errors: &mut Vec<FieldError>,
    ) -> Option<Self> {
        let given = schema
            .get("x-kubernetes-validations")
            .and_then(Value::as_array)?;
        if given.is_empty() {
            return None;
        }
        let mut rules = Vec::new();
        let of_self = Type::of(schema, resource).unwrap_or(Type::Any);
        for (i, rule) in given.iter().enumerate() {
            let optional_old = flag(rule, &["optionalOldSelf"]);
            let place = |key: &str| format!("{path}.x-kubernetes-validations[{i}].{key}");
            let mut expression = |key: &str, wanted: &Type<'_>| {
                let source = text(rule, &[key]);
                let before = match optional_old {
                    true => Type::Optional(Box::new(of_self.clone())),
                    false => of_self.clone(),
                };
                let variables = Variables::from([
                    ("self".to_owned(), of_self.clone()),
                    ("oldSelf".to_owned(), before),
                ]);
                let read = Expression::read(source).and_then(|expression| {
                    let is = expression.types(source, variables)?;
                    Ok((expression, is))
                });
                let (failed, called) = match key {
                    "rule" => ("compilation".to_owned(), "cel expression"),
                    other => (format!("{other} compilation"), other),
                };
                let why = match read {
                    Ok((expression, is)) if matches!(is, Type::Any) || is == *wanted => {
                        return Some(expression);
                    }
                    Ok(_) => format!("{called} must evaluate to a {wanted}"),
                    Err(why) => {
                        // What the parser says stands after what was parsed, its pictures a blank from the edge.
                        let told = why.find("ERROR: ").and_then(|at| why.get(at..));
                        let told = told.unwrap_or(&why).replace("\n|", "\n |");
                        format!("{failed} failed: {told}")
                    }
                };
                let error = FieldError::invalid(&place(key), source, why);
                errors.push(error.showing(as_go_has_it(rule)));
                None
            };
            let read = expression("rule", &Type::Bool);
            let message_expression = match text(rule, &["messageExpression"]) {
                "" => None,
                blank if blank.trim().is_empty() => {
                    let why = "messageExpression must be non-empty if specified";
                    errors.push(FieldError::required(&place("messageExpression"), why));
                    None
                }
                _ => expression("messageExpression", &Type::String),
            };
            if optional_old && !read.as_ref().is_some_and(|r| r.names("oldSelf")) {
                let why = "may not be set if oldSelf is not used in rule";
                errors.push(FieldError::invalid(&place("optionalOldSelf"), true, why));
            }
            let own = |key: &str| text(rule, &[key]).to_owned();
            rules.extend(read.map(|expression| Rule {
                source: own("rule"),
                is_transition: expression.names("oldSelf"),
                expression,
                message: own("message"),
                message_expression,
                reason: own("reason"),
                field_path: own("fieldPath"),
                optional_old,
            }));
        }
        let mut schema = schema.clone();
        strip(&mut schema);
        Some(Self { schema, rules })
    }

    /// Evaluates the rules on a value; `old` is its former value where the two can be told to be the same thing.
    pub fn check(
        &self,
        value: &Value,
        old: Option<&Value>,
        path: &str,
        errors: &mut Vec<FieldError>,
    ) {
        let now = value_of(value, &self.schema);
        let before = old.map(|old| value_of(old, &self.schema));
        for rule in &self.rules {
            let mut variables = vec![("self", now.clone())];
            if rule.optional_old {
                variables.push(("oldSelf", optional(before.clone())));
            } else if let Some(before) = &before {
                variables.push(("oldSelf", before.clone()));
            } else if rule.is_transition {
                continue;
            }
            match rule.expression.evaluate(&variables) {
                Ok(Celled::Bool(true)) => {}
                Ok(Celled::Bool(false)) => errors.push(rule.broken(value, path, &variables)),
                // A rule that cannot be evaluated refuses the object, and says so.
                Ok(_) => errors.push(rule.failed(value, path, "no such overload")),
                Err(why) => errors.push(rule.failed(value, path, &why)),
            }
        }
    }
}

impl Rule {
    /// The field that an error is about.
    fn field(&self, path: &str) -> String {
        let below = self.field_path.as_str();
        match (path.is_empty(), below.trim_start_matches('.')) {
            (true, "") => "<nil>".to_owned(),
            (false, "") => path.to_owned(),
            (true, below) => below.to_owned(),
            (false, below) if below.starts_with('[') => format!("{path}{below}"),
            (false, below) => format!("{path}.{below}"),
        }
    }

    /// The error of a value that breaks the rule.
    fn broken(&self, value: &Value, path: &str, variables: &[(&str, Celled)]) -> FieldError {
        let kind = match self.reason.as_str() {
            "FieldValueRequired" => FieldErrorKind::Required,
            "FieldValueForbidden" => FieldErrorKind::Forbidden,
            "FieldValueDuplicate" => FieldErrorKind::Duplicate,
            _ => FieldErrorKind::Invalid,
        };
        let shows_value = matches!(kind, FieldErrorKind::Invalid | FieldErrorKind::Duplicate);
        let detail = match kind {
            // Such an error is told without a word about it.
            FieldErrorKind::Duplicate => String::new(),
            _ => self.told(variables),
        };
        FieldError {
            kind,
            shown: None,
            field: self.field(path),
            // Maps and lists are too much to show.
            value: (shows_value && !value.is_object() && !value.is_array()).then(|| value.clone()),
            detail,
        }
    }

    /// The rule's message: what its expression comes to, else the one that it has, else the rule itself.
    fn told(&self, variables: &[(&str, Celled)]) -> String {
        let computed = self.message_expression.as_ref();
        if let Some(Ok(Celled::String(told))) = computed.map(|m| m.evaluate(variables)) {
            let told = told.trim();
            if !told.is_empty() && !told.contains('\n') {
                return told.to_owned();
            }
        }
        match self.message.trim() {
            "" => format!("failed rule: {}", self.source.trim()),
            message => message.to_owned(),
        }
    }

    /// The error of a value for which the rule could not be evaluated.
    fn failed(&self, value: &Value, path: &str, why: &str) -> FieldError {
        let which = match self.message.as_str() {
            "" => &self.source,
            message => message,
        };
        let why = format!("{why} evaluating rule: {which}");
        FieldError::invalid(&self.field(path), shown(value), why)
    }
}

fn shown(value: &Value) -> Value {
    match value {
        Value::Object(_) => "object".into(),
        Value::Array(_) => "array".into(),
        other => other.clone(),
    }
}

/// Leaves of a schema what types values.
fn strip(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else {
        return;
    };
    map.retain(|key, _| {
        matches!(
            key.as_str(),
            "type"
                | "format"
                | "properties"
                | "items"
                | "additionalProperties"
                | "x-kubernetes-int-or-string"
                | "x-kubernetes-embedded-resource"
        )
    });
    for (key, below) in map.iter_mut() {
        match (key.as_str(), below) {
            ("properties", Value::Object(properties)) => properties.values_mut().for_each(strip),
            ("items" | "additionalProperties", below) => strip(below),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_optional_old_value_is_asked_of_new_values_too() {
        let schema = json!({"type": "integer", "x-kubernetes-validations": [
            {"rule": "oldSelf.hasValue() ? self >= oldSelf.value() : self > 0", "message": "m", "optionalOldSelf": true},
        ]});
        let mut errors = Vec::new();
        let rules = Rules::read(&schema, false, "s", &mut errors).unwrap();
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
