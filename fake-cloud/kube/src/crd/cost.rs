//! What a CEL rule would cost at worst, as far as its loops tell. The real server estimates every operation; here only
//! how often the innermost of nested loops can run is counted, which is never more than the real estimate: a rule that is
//! refused here is refused there.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::FieldError;
use crate::meta::{items, text};

/// Bytes of the largest request: what bounds a list that says no size.
const REQUEST_BYTES_MAX: f64 = 3.0 * 1024.0 * 1024.0;
/// What a rule may cost.
const BUDGET: f64 = 10_000_000.0;
/// What is over the budget by more than this factor is refused in one wording.
const FACTOR: f64 = 100.0;
/// Macros that loop.
const LOOPS: [&str; 5] = ["all", "exists", "exists_one", "filter", "map"];
const ADVICE: &str = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)";

/// Adds the errors of a rule that costs far too much. `path` is that of its node.
pub fn check(rule: &str, index: usize, schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let variables = BTreeMap::from([("self", schema)]);
    if runs(rule, &variables) <= BUDGET * FACTOR {
        return;
    }
    let at = format!("{path}.x-kubernetes-validations[{index}].rule");
    let factor = "exceeds budget by factor of more than 100x";
    errors.push(FieldError::forbidden(
        &at,
        format!("estimated rule cost {factor} {ADVICE}"),
    ));
    errors.push(FieldError::forbidden(
        &at,
        "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema",
    ));
    const ROOT: &str = "openAPIV3Schema";
    let root = path
        .find(ROOT)
        .and_then(|at| path.get(..at + ROOT.len()))
        .unwrap_or(path);
    errors.push(FieldError::forbidden(
        root,
        format!("x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema {factor} {ADVICE}"),
    ));
}

/// How often the innermost loop of an expression can run; 1 where there is none.
fn runs(expression: &str, variables: &BTreeMap<&str, &Value>) -> f64 {
    let mut most: f64 = 1.0;
    for (at, _) in expression.match_indices('(') {
        if in_string(expression, at) {
            continue;
        }
        let (Some(before), Some(inside)) = (expression.get(..at), expression.get(at + 1..)) else {
            continue;
        };
        let chain: &str = chain_at_end(before);
        let Some((receiver, name)) = chain.rsplit_once('.') else {
            continue;
        };
        let Some((variable, body)) = matching(inside).and_then(|i| i.split_once(',')) else {
            continue;
        };
        let Some(over) = resolve(receiver, variables).filter(|_| LOOPS.contains(&name)) else {
            continue;
        };
        let mut known = variables.clone();
        known.remove(variable.trim());
        // Who loops over a map loops over its keys, which lead nowhere.
        if let Some(items) = over.get("items") {
            known.insert(variable.trim(), items);
        }
        most = most.max(size(over) * runs(body, &known));
    }
    most
}

/// Names joined by dots at the end of a text.
fn chain_at_end(text: &str) -> &str {
    let start = text
        .rfind(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'))
        .map_or(0, |i| {
            i + text
                .get(i..)
                .and_then(|t| t.chars().next())
                .map_or(1, char::len_utf8)
        });
    text.get(start..).unwrap_or("")
}

/// What is between a parenthesis that was opened and its end.
fn matching(inside: &str) -> Option<&str> {
    let mut depth = 0_usize;
    for (at, c) in inside.char_indices() {
        if in_string(inside, at) {
            continue;
        }
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => return inside.get(..at),
            ')' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Whether a place in an expression is in a string literal.
fn in_string(expression: &str, at: usize) -> bool {
    let mut quote = None;
    let mut escaped = false;
    for c in expression.get(..at).unwrap_or("").chars() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            None if matches!(c, '\'' | '"') => quote = Some(c),
            _ => {}
        }
    }
    quote.is_some()
}

/// The schema of what a chain of names means.
fn resolve<'a>(chain: &str, variables: &BTreeMap<&str, &'a Value>) -> Option<&'a Value> {
    let mut names = chain.split('.');
    let mut schema = *variables.get(names.next()?)?;
    for name in names {
        schema = schema.get("properties")?.get(name)?;
    }
    Some(schema)
}

/// How many items a list or a map can have at most; 1 for what has none.
fn size(schema: &Value) -> f64 {
    // Beside an item there is a comma, and in a map its key.
    let (declared, of, beside) = match text(schema, &["type"]) {
        "array" => ("maxItems", schema.get("items"), 1.0),
        "object" => ("maxProperties", schema.get("additionalProperties"), 6.0),
        _ => return 1.0,
    };
    let Some(of) = of else {
        return 1.0;
    };
    let most = ((REQUEST_BYTES_MAX - 2.0) / (shortest(of) + beside)).floor();
    schema
        .get(declared)
        .and_then(Value::as_f64)
        .map_or(most, |n| n.min(most))
}

/// The fewest bytes that a value can be written with, as the real server counts them.
fn shortest(schema: &Value) -> f64 {
    match (text(schema, &["type"]), text(schema, &["format"])) {
        _ if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) => 1.0,
        ("integer" | "number", _) => 1.0,
        ("boolean", _) => 4.0,
        ("string", "duration") => 4.0,
        ("string", "date") => 12.0,
        ("string", "date-time") => 22.0,
        ("object", _) => {
            let fields = items(schema, &["required"]).filter_map(Value::as_str);
            let field = |name: &str| {
                let of = schema.get("properties")?.get(name)?;
                // What has a default need not be sent.
                let sent = of.get("default").is_none();
                // Its quotes, a colon and a comma.
                let length = f64::from(u32::try_from(name.len() + 4).unwrap_or(u32::MAX));
                sent.then(|| length + shortest(of))
            };
            2.0 + fields.filter_map(field).sum::<f64>()
        }
        _ => 2.0,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::nothing("self.size() > 0", false)]
    #[case::one_loop("self.list.all(x, x.startsWith('a'))", false)]
    #[case::two_after_another("self.list.all(x, x != '') && self.list.all(y, y != 'b')", false)]
    #[case::nested("self.list.all(x, self.list.all(y, x == y))", true)]
    #[case::in_words(
        "self.list.all(x, x != 'self.list.all(y, self.list.all(z, z))')",
        false
    )]
    #[case::bounded("self.few.all(x, self.few.all(y, x == y))", false)]
    #[case::half_bounded("self.few.all(x, self.list.all(y, x == y))", false)]
    #[case::three_deep(
        "self.few.all(x, self.list.exists(y, self.few.exists(z, z == y)))",
        true
    )]
    #[case::through_items("self.lists.all(l, l.names.all(n, self.list.exists(m, m == n)))", true)]
    #[case::bounded_less("self.many.all(x, self.list.all(y, x == y))", true)]
    #[case::items_that_need_room("self.many.all(x, self.named.all(y, x == y.name))", false)]
    #[case::keys_that_need_room("self.many.all(x, self.map.all(k, x == k))", false)]
    #[case::over_keys("self.map.all(k, self.map.all(l, l == k))", true)]
    fn nested_loops_over_what_has_no_bound_cost_too_much(
        #[case] rule: &str,
        #[case] refused: bool,
    ) {
        let strings = json!({"type": "array", "items": {"type": "string"}});
        let schema = json!({"type": "object", "properties": {
            "list": strings,
            "few": {"type": "array", "maxItems": 100, "items": {"type": "string"}},
            "many": {"type": "array", "maxItems": 1000, "items": {"type": "string"}},
            "named": {"type": "array", "items": {"type": "object", "required": ["name", "zone"], "properties": {
                "name": {"type": "string"}, "zone": {"type": "string", "default": ""},
            }}},
            "lists": {"type": "array", "items": {"type": "object", "properties": {"names": strings}}},
            "map": {"type": "object", "additionalProperties": {"type": "string"}},
        }});
        let mut errors = Vec::new();
        check(
            rule,
            0,
            &schema,
            "spec.validation.openAPIV3Schema.properties[spec]",
            &mut errors,
        );
        let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
        let at =
            "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule";
        let wanted = if refused {
            vec![at, at, "spec.validation.openAPIV3Schema"]
        } else {
            vec![]
        };
        assert_eq!(fields, wanted);
    }
}
