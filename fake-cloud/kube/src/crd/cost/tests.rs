//! Rules on both sides of the budget. What the real server makes of rules like these is in the conformance table.

use rstest::rstest;
use serde_json::{Value, json};

use super::*;

fn schema(rule: &str) -> Value {
    let strings = json!({"type": "array", "items": {"type": "string"}});
    let named = json!({"type": "object", "required": ["name", "zone"], "properties": {
        "name": {"type": "string"}, "zone": {"type": "string", "default": ""},
    }});
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "list": strings,
        "few": {"type": "array", "maxItems": 100, "items": {"type": "string"}},
        "short": {"type": "array", "maxItems": 100, "items": {"type": "string", "maxLength": 10}},
        "many": {"type": "array", "maxItems": 1000, "items": {"type": "string", "maxLength": 5}},
        "named": {"type": "array", "items": named},
        "lists": {"type": "array", "items": {"type": "object", "properties": {"names": strings}}},
        "map": {"type": "object", "additionalProperties": {"type": "string"}},
        "text": {"type": "string"},
        "word": {"type": "string", "maxLength": 20},
        "which": {"type": "string", "enum": ["a", "four"]},
        "number": {"type": "integer"},
    }, "x-kubernetes-validations": [{"rule": rule}]}}})
}

/// The cost of a rule about `spec`.
fn cost(rule: &str) -> u64 {
    let schema = schema(rule);
    let spec = &schema["properties"]["spec"];
    cost_of(rule, Decl::new(spec, false), false).unwrap()
}

// Each is counted by hand: looks, calls, characters, turns.
#[rstest]
#[case::a_look("self.number > 0", 2 + 1)]
#[case::whether_it_is_there("has(self.number)", 1)]
#[case::both("self.number > 0 && self.number < 9", 6)]
#[case::one_of_two("self.number > 0 ? self.word == 'ab' : true", 3 + 3)]
#[case::a_word_compared("self.word == 'word of twenty letters'", 2 + 3)]
#[case::a_word_of_few("self.which == 'somewhat longer'", 2 + 1)]
#[case::a_pattern("self.word.matches('^[a-z]*$')", 2 + 9 * 2)]
#[case::a_part("self.word.contains('ab')", 2 + 8)]
#[case::a_loop("self.few.all(x, true)", 2 + 1 + 100 * (2 + 1))]
#[case::in_a_list("'a' in self.few", 2 + 100)]
#[case::a_literal("self.word in ['a', 'b']", 2 + 10 + 2)]
#[case::nested("self.few.all(x, self.few.exists(y, y == 'a'))", 2 + 1 + 100 * (3 + 3 + 100 * (3 + 3)))]
fn a_rule_costs(#[case] rule: &str, #[case] wanted: u64) {
    assert_eq!(cost(rule), wanted, "{rule}");
}

#[rstest]
#[case::nothing("self.number > 0", 0)]
#[case::one_loop("self.list.all(x, x.startsWith('a'))", 0)]
#[case::nested("self.list.all(x, self.list.all(y, x == y))", 3)]
#[case::in_words("self.list.all(x, x != 'self.list.all(y, self.list.all(z, z))')", 0)]
#[case::bounded("self.few.all(x, self.few.all(y, size(x) == size(y)))", 0)]
#[case::half_bounded("self.few.all(x, self.list.all(y, y == 'a'))", 3)]
#[case::through_items("self.lists.all(l, l.names.all(n, self.list.exists(m, m == n)))", 3)]
#[case::over_keys("self.map.all(k, self.map.all(l, l == k))", 3)]
#[case::long_texts("self.few.all(x, self.few.all(y, x == y))", 3)]
#[case::a_pattern_over_long_texts("self.few.all(x, x.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$'))", 3)]
#[case::the_same_over_short_ones("self.short.all(x, x.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$'))", 0)]
fn rules_over_the_budget_are_refused(#[case] rule: &str, #[case] refused: usize) {
    let mut errors = Vec::new();
    let path = "spec.validation.openAPIV3Schema";
    judge(&schema(rule), path, &mut errors);
    let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
    let at = format!("{path}.properties[spec].x-kubernetes-validations[0].rule");
    let all = [at.as_str(), at.as_str(), path];
    // A rule over its own budget need not be over that of the whole.
    assert_eq!(fields, all[..refused], "{errors:?}");
}
