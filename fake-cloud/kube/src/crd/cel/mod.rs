//! Expressions of rules: read, and evaluated with what they may name.
//!
//! The `cel` crate reads optional syntax (`a.?b`, `a[?i]`, `[?x]`, `{?k: v}`), but its own optional values do not survive
//! being copied, and a plain step through one is lost. So such expressions are turned, after they were read, into calls of
//! functions of ours (`turn`) on optional values of ours (`optional`). What they cost is told of the expression as it was
//! read.

mod optional;
mod place;
mod turn;
mod typed;
mod types;
mod values;

use kube::core::cel::KubeCelExt;
use kube::core::cel::cel::parser::Parser;
use kube::core::cel::cel::{Context, ExecutionError, IdedExpr, Value};

use place::Places;

pub use optional::optional;
pub use types::{Type, Variables};
pub use values::{escaped, value_of};

/// An expression that was read.
#[derive(Debug)]
pub struct Expression {
    /// As it was read, macros expanded.
    read: IdedExpr,
    /// As it is evaluated, where that is not as it was read.
    turned: Option<IdedExpr>,
}

thread_local! {
    /// What every expression may call.
    static FUNCTIONS: Context<'static> = {
        let mut context = Context::default().with_all();
        optional::register(&mut context);
        context
    };
}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// What the parser says of it, with a picture of the place.
    pub fn read(source: &str) -> Result<Self, String> {
        let parser = Parser::new().enable_optional_syntax(true);
        let mut read = parser.parse(source).map_err(|e| e.to_string())?;
        turn::expand(&mut read).map_err(|(part, why)| Places::of(source).told(part, &why))?;
        let turned = turn::is_about_optionals(&mut read).then(|| {
            let mut turned = read.clone();
            turn::turn(&mut turned);
            turned
        });
        Ok(Self { read, turned })
    }

    /// What it comes to, where `variables` are of these types.
    ///
    /// # Errors
    /// What does not fit, each with a picture of the place.
    pub fn types<'a>(&self, source: &str, variables: Variables<'a>) -> Result<Type<'a>, String> {
        let (found, mut wrong) = typed::check(&self.read, variables);
        if wrong.is_empty() {
            return Ok(found);
        }
        let places = Places::of(source);
        wrong.sort_by_key(|(part, _)| places.start(*part));
        wrong.dedup();
        let told: Vec<String> = wrong
            .iter()
            .map(|(part, why)| places.told(*part, why))
            .collect();
        Err(told.join("\n"))
    }

    /// The expression as its author wrote it: what its cost is told of.
    #[must_use]
    pub const fn as_read(&self) -> &IdedExpr {
        &self.read
    }

    /// Whether it names a variable.
    #[must_use]
    pub fn names(&self, variable: &str) -> bool {
        self.read.references().has_variable(variable)
    }

    /// Evaluates it.
    ///
    /// # Errors
    /// What went wrong, in the words of the real server where they are known.
    pub fn evaluate(&self, variables: &[(&str, Value)]) -> Result<Value, String> {
        FUNCTIONS.with(|functions| {
            let mut scope = functions.new_inner_scope();
            for (name, value) in variables {
                scope.add_variable_from_value(*name, value.clone());
            }
            let expression = self.turned.as_ref().unwrap_or(&self.read);
            Value::resolve(expression, &scope).map_err(|e| match e {
                ExecutionError::FunctionError { message, .. } => message,
                ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
                other => other.to_string(),
            })
        })
    }
}

#[cfg(test)]
mod tests;
