//! What the rules of a definition would cost at worst: each rule by itself, times how often what it is asked of can occur
//! in an object, and all of them together. What is over the budgets is refused in the real server's words.

mod estimate;
mod functions;
mod sizes;

use std::collections::BTreeSet;

use serde_json::Value;

use super::cel::Expression;
use crate::error::FieldError;
use crate::meta::{flag, items, text};
use estimate::Estimator;
use sizes::{Decl, REQUEST_BYTES_MAX};

/// What a rule may cost, and all of a schema.
const RULE_BUDGET: u64 = 10_000_000;
const SCHEMA_BUDGET: u64 = 100_000_000;
/// The rules that are named when all together cost too much: so many, and none that is cheaper than this.
const NAMED_MAX: usize = 4;
const NAMED_COST_MIN: u64 = SCHEMA_BUDGET / 100;

/// Adds the errors of rules that cost too much. `path` is that of the schema.
pub fn judge(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    // What does not compile has no cost.
    let broken = errors.iter().map(|e| e.field.clone()).collect();
    let mut all = All {
        broken,
        errors,
        total: 0,
        dear: Vec::new(),
    };
    all.node(schema, path, Some(1), true);
    let All {
        errors,
        total,
        mut dear,
        ..
    } = all;
    if total <= SCHEMA_BUDGET {
        return;
    }
    dear.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
    for (path, _) in dear.iter().take(NAMED_MAX) {
        errors.push(FieldError::forbidden(
            path,
            "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema",
        ));
    }
    let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
    errors.push(FieldError::forbidden(
        path,
        exceeds(what, total, SCHEMA_BUDGET),
    ));
}

fn exceeds(what: &str, cost: u64, budget: u64) -> String {
    // Factors are told, not computed with.
    #[allow(clippy::cast_precision_loss)]
    let factor = cost as f64 / budget as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

/// The rules of a whole schema.
struct All<'e> {
    broken: BTreeSet<String>,
    errors: &'e mut Vec<FieldError>,
    total: u64,
    dear: Vec<(String, u64)>,
}

impl All<'_> {
    /// The rules of a node and of those below. `times` is how often the node can occur; none where nothing bounds it.
    fn node(&mut self, schema: &Value, path: &str, times: Option<u64>, root: bool) {
        let below = times.and_then(|times| Some(times.saturating_mul(children_max(schema)?)));
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, child) in properties.into_iter().flatten() {
            let path = format!("{path}.properties[{name}]");
            self.node(child, &path, below, false);
        }
        for key in ["additionalProperties", "items"] {
            if let Some(child) = schema.get(key).filter(|c| c.is_object()) {
                self.node(child, &format!("{path}.{key}"), below, false);
            }
        }
        let embedded = flag(schema, &["x-kubernetes-embedded-resource"]);
        let decl = Decl::new(schema, root || embedded);
        for (i, rule) in items(schema, &["x-kubernetes-validations"]).enumerate() {
            let path = format!("{path}.x-kubernetes-validations[{i}]");
            let optional = flag(rule, &["optionalOldSelf"]);
            let most = times.unwrap_or_else(|| REQUEST_BYTES_MAX / (decl.shortest() + 1));
            for (key, what) in [
                ("rule", "estimated rule cost"),
                ("messageExpression", "estimated messageExpression cost"),
            ] {
                let path = format!("{path}.{key}");
                if self.broken.contains(&path) {
                    continue;
                }
                if let Some(cost) = cost_of(text(rule, &[key]), decl, optional) {
                    let often = if key == "rule" { most } else { 1 };
                    self.count(&path, what, cost.saturating_mul(often));
                }
            }
        }
    }

    fn count(&mut self, path: &str, what: &str, cost: u64) {
        if cost > RULE_BUDGET {
            let why = exceeds(what, cost, RULE_BUDGET);
            self.errors.push(FieldError::forbidden(path, why));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= NAMED_COST_MIN {
            self.dear.push((path.to_owned(), cost));
        }
    }
}

/// How many children a node has at most of each kind of child; none where nothing bounds them.
fn children_max(schema: &Value) -> Option<u64> {
    let declared = |key: &str| schema.get(key).and_then(Value::as_u64);
    match text(schema, &["type"]) {
        "object" if schema.get("additionalProperties").is_some() => declared("maxProperties"),
        "array" => declared("maxItems"),
        _ => Some(1),
    }
}

/// What an expression costs; none where there is none, or none that compiles.
fn cost_of(source: &str, decl: Decl<'_>, optional_old: bool) -> Option<u64> {
    if source.trim().is_empty() {
        return None;
    }
    let expression = Expression::read(source).ok()?;
    Some(Estimator::new(decl, optional_old).cost(expression.as_read()))
}

#[cfg(test)]
mod tests;
