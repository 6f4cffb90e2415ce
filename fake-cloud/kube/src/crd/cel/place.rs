//! Where the parts of an expression stand.

use std::sync::Arc;

use kube::core::cel::cel::common::ast::SourceInfo;
use kube::core::cel::cel::parser::Parser;

/// An expression's text, and where its parts stand in it.
pub(super) struct Places<'s> {
    source: &'s str,
    info: Option<Arc<SourceInfo>>,
}

impl<'s> Places<'s> {
    /// The parser gives away where parts stand only together with errors: so it is made to find one behind the expression.
    pub(super) fn of(source: &'s str) -> Self {
        let parser = Parser::new().enable_optional_syntax(true);
        let errors = parser.parse(&format!("{source}\n)")).err();
        let info = errors.and_then(|e| e.errors.into_iter().find_map(|e| e.source_info));
        Self { source, info }
    }

    /// Characters before a part.
    pub(super) fn start(&self, part: u64) -> Option<usize> {
        let (start, _) = self.info.as_ref()?.offset_for(part)?;
        usize::try_from(start).ok()
    }

    /// An error about a part, with a picture of the place, as the parser tells its own.
    pub(super) fn told(&self, part: u64, why: &str) -> String {
        let Some(start) = self.start(part) else {
            return format!("ERROR: {why}");
        };
        let before: String = self.source.chars().take(start).collect();
        let number = before.matches('\n').count();
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        let line = self.source.lines().nth(number).unwrap_or("");
        let number = number + 1;
        format!(
            "ERROR: <input>:{number}:{column}: {why}\n| {line}\n| {:.>column$}",
            "^"
        )
    }
}
