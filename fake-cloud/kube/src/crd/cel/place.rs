//! Where a part of an expression stands.

use kube::core::cel::cel::parser::Parser;

/// An error about a part of an expression, with a picture of the place, as the parser tells its own.
///
/// The parser gives away where parts stand only together with errors: so it is made to find one behind the expression.
pub(super) fn told(source: &str, part: u64, why: &str) -> String {
    let parser = Parser::new().enable_optional_syntax(true);
    let errors = parser.parse(&format!("{source}\n)")).err();
    let info = errors.and_then(|e| e.errors.into_iter().find_map(|e| e.source_info));
    let Some((start, _)) = info.and_then(|info| info.offset_for(part)) else {
        return format!("ERROR: {why}");
    };
    let start = usize::try_from(start).unwrap_or(usize::MAX);
    let before: String = source.chars().take(start).collect();
    let number = before.matches('\n').count();
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    let line = source.lines().nth(number).unwrap_or("");
    let number = number + 1;
    format!(
        "ERROR: <input>:{number}:{column}: {why}\n| {line}\n| {:.>column$}",
        "^"
    )
}
