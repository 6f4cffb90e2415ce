//! The only place that prints: results on standard output, errors on standard error.
#![allow(clippy::print_stdout, clippy::print_stderr)] // That is what it is for.

use std::error::Error;
use std::io::Write as _;

use serde::Serialize;

/// What goes wrong in a command.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// Prints an error with its causes, once each.
pub(crate) fn error(error: &Failure) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = inner.source();
    }
    eprintln!("error: {text}");
}

/// Prints a note beside the result.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

/// Prints a line of a result. A reader that has gone (`| head`) ends nothing.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints a document as JSON.
///
/// # Errors
/// When it cannot be written as JSON.
pub(crate) fn json<T: Serialize>(document: &T) -> Result<(), Failure> {
    line(&serde_json::to_string_pretty(document)?);
    Ok(())
}
