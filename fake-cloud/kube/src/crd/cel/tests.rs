//! What expressions come to. What the real server makes of rules like these is in the conformance table.

use rstest::rstest;
use serde_json::json;

use super::*;

fn evaluated(source: &str) -> Result<Value, String> {
    let schema = json!({"type": "object", "properties": {
        "size": {"type": "integer"},
        "share": {"type": "number"},
        "when": {"type": "string", "format": "date-time"},
        "list": {"type": "array", "items": {"type": "integer"}},
        "map": {"type": "object", "additionalProperties": {"type": "string"}},
        "deep": {"type": "object", "properties": {"word": {"type": "string"}}},
        "my-name": {"type": "string"}, "a_b": {"type": "string"}, "for": {"type": "string"},
    }});
    let value = json!({
        "size": 3, "share": 2, "when": "2026-01-02T03:04:05Z", "list": [1, 2], "map": {"a-b": "x"},
        "deep": {"word": "w"}, "my-name": "m", "a_b": "u", "for": "f",
    });
    Expression::read(source)?.evaluate(&[("self", value_of(&value, &schema))])
}

#[rstest]
#[case::there("self.?size.hasValue()")]
#[case::not_there("!self.?missing.hasValue()")]
#[case::else_a_value("self.?missing.orValue(7) == 7 && self.?size.orValue(7) == 3")]
#[case::else_an_optional("self.?missing.or(self.?size).value() == 3")]
#[case::two_steps("self.?deep.?word.orValue('') == 'w' && self.?no.?word.orValue('-') == '-'")]
#[case::a_plain_step_through_one("self.?deep.word.orValue('') == 'w' && !self.?no.word.hasValue()")]
#[case::whether_there_is_a_step("has(self.?deep.word) && !has(self.?no.word)")]
#[case::an_index("self.list[?1].orValue(0) == 2 && self.list[?2].orValue(0) == 0")]
#[case::a_key("self.map[?'a-b'].orValue('') == 'x' && !self.map[?'b'].hasValue()")]
#[case::an_index_through_one("self.?list[0].orValue(0) == 1 && self.?list[?9].orValue(8) == 8")]
#[case::mapped(
    "self.?size.optMap(s, s + 1).orValue(0) == 4 && !self.?no.optMap(s, s + 1).hasValue()"
)]
#[case::mapped_flat("self.?deep.optFlatMap(d, d.?word).orValue('') == 'w'")]
#[case::made(
    "optional.of(1) == optional.of(1) && optional.none() == optional.none() && optional.of(1) != optional.none()"
)]
#[case::of_nothing(
    "!optional.ofNonZeroValue(0).hasValue() && optional.ofNonZeroValue('a').hasValue()"
)]
#[case::in_a_list("[1, ?self.?size, ?self.?no] == [1, 3]")]
#[case::in_a_map("{'a': 1, ?'b': self.?size, ?'c': self.?no} == {'a': 1, 'b': 3}")]
#[case::in_loops("self.?list.orValue([]).all(x, x > 0) && self.?no.orValue([]).all(x, false)")]
#[case::over_optionals("['size', 'no'].map(k, self[?k]).filter(o, o.hasValue()).size() == 1")]
#[case::not_come_to(
    "self.?size.orValue(1 / 0) == 3 && self.?size.or(optional.of(1 / 0)).hasValue()"
)]
#[case::in_words("'.?a [?0]'.size() == 8 && r'\\d.?x'.size() == 5")]
#[case::numbers("self.share / 4.0 == 0.5 && self.share > 1")]
#[case::times("self.when.getFullYear() == 2026")]
#[case::names("self.my__dash__name == 'm' && self.a_b == 'u' && self.__for__ == 'f'")]
fn holds(#[case] expression: &str) {
    assert_eq!(evaluated(expression), Ok(Value::Bool(true)), "{expression}");
}

#[rstest]
#[case("self.?no.value()", "optional.none() dereference")]
#[case("self.deep.no", "no such key: no")]
#[case("self.deep.no == self.?no.orValue('')", "no such key: no")]
#[case("self.?list.orValue([])[5]", "index out of bounds: 5")]
#[case("self.size.?a.hasValue()", "no such overload")]
fn cannot_be_evaluated(#[case] expression: &str, #[case] why: &str) {
    assert_eq!(evaluated(expression), Err(why.to_owned()), "{expression}");
}

#[test]
fn what_was_read_is_what_its_author_wrote() {
    let read = Expression::read("self.?a[?0]").unwrap();
    let plain = Parser::new()
        .enable_optional_syntax(true)
        .parse("self.?a[?0]");
    assert_eq!(read.as_read(), &plain.unwrap());
}
