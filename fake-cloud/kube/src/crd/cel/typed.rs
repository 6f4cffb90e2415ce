//! Looks through an expression for types that do not fit.

use kube::core::cel::cel::common::ast::operators::{
    CONDITIONAL, LOGICAL_AND, LOGICAL_OR, OPT_SELECT,
};
use kube::core::cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, ListExpr, LiteralValue, MapExpr,
};

use super::types::{Type, Variables, called, is_function, is_type};

/// What was found wrong: which part, and what is told of it.
pub(super) type Wrong = (u64, String);

/// The type of an expression, and what is wrong with it.
pub(super) fn check<'a>(expression: &IdedExpr, variables: Variables<'a>) -> (Type<'a>, Vec<Wrong>) {
    let mut checker = Checker {
        variables,
        wrong: Vec::new(),
    };
    let found = checker.look(expression);
    (found, checker.wrong)
}

struct Checker<'a> {
    variables: Variables<'a>,
    wrong: Vec<Wrong>,
}

impl<'a> Checker<'a> {
    fn say(&mut self, part: u64, why: String) -> Type<'a> {
        self.wrong.push((part, why));
        Type::Any
    }

    fn look(&mut self, expression: &IdedExpr) -> Type<'a> {
        let id = expression.id;
        match &expression.expr {
            Expr::Unspecified => Type::Any,
            Expr::Literal(literal) => literal_type(literal),
            Expr::Ident(name) => match self.variables.get(name) {
                Some(found) => found.clone(),
                None if is_type(name) => Type::Any,
                None => self.say(id, undeclared(name)),
            },
            Expr::Select(select) => {
                let of = self.look(&select.operand);
                let found = of.field(&select.field);
                let found = found.unwrap_or_else(|why| self.say(id, why));
                if select.test { Type::Bool } else { found }
            }
            Expr::Call(call) => self.call(id, call),
            Expr::List(list) => self.list(list),
            Expr::Map(map) => self.map(map),
            Expr::Struct(object) => {
                for entry in &object.entries {
                    if let EntryExpr::StructField(field) = &entry.expr {
                        self.look(&field.value);
                    }
                }
                Type::Any
            }
            Expr::Comprehension(loops) => self.comprehension(loops),
        }
    }

    /// One more of the elements that are of one type.
    fn one_more(&mut self, known: &mut Type<'a>, element: &IdedExpr, may_be_left_out: bool) {
        let mut found = self.look(element);
        if may_be_left_out {
            found = match found {
                Type::Optional(of) => *of,
                any @ (Type::Any | Type::Dyn) => any,
                other => {
                    let why = format!("expected type 'optional_type({known})' but found '{other}'");
                    self.say(element.id, why)
                }
            };
        }
        match known.joined(&found) {
            Some(joined) => *known = joined,
            None => {
                let why = format!("expected type '{known}' but found '{found}'");
                self.say(element.id, why);
            }
        }
    }

    fn list(&mut self, list: &ListExpr) -> Type<'a> {
        let mut of = Type::Any;
        for (i, element) in list.elements.iter().enumerate() {
            self.one_more(&mut of, element, list.optional_indices.contains(&i));
        }
        Type::List(Box::new(of))
    }

    fn map(&mut self, map: &MapExpr) -> Type<'a> {
        let (mut key, mut value) = (Type::Any, Type::Any);
        for entry in &map.entries {
            if let EntryExpr::MapEntry(entry) = &entry.expr {
                self.one_more(&mut key, &entry.key, false);
                self.one_more(&mut value, &entry.value, entry.optional);
            }
        }
        Type::Map(Box::new(key), Box::new(value))
    }

    fn call(&mut self, id: u64, call: &CallExpr) -> Type<'a> {
        // What is left of macros that the parser does not know: their variables are declared nowhere.
        const MACROS: &[&str] = &[
            "all",
            "exists",
            "existsOne",
            "exists_one",
            "map",
            "filter",
            "sortBy",
            "transformList",
            "transformMap",
            "transformMapEntry",
        ];
        let name = call.func_name.as_str();
        if MACROS.contains(&name) {
            return Type::Any;
        }
        if name == OPT_SELECT
            && let [of, field] = call.args.as_slice()
            && let Expr::Literal(LiteralValue::String(field)) = &field.expr
        {
            let of = self.look(of);
            let found = of.field(field.inner());
            return found.map_or_else(|why| self.say(id, why), Type::optional);
        }
        if matches!(name, LOGICAL_AND | LOGICAL_OR) {
            for part in &call.args {
                let is = self.look(part);
                if !matches!(is, Type::Bool | Type::Any | Type::Dyn) {
                    let why = format!("expected type 'bool' but found '{is}'");
                    self.say(part.id, why);
                }
            }
            return Type::Bool;
        }
        let library = match call.target.as_deref().map(|t| &t.expr) {
            Some(Expr::Ident(prefix)) if !self.variables.contains_key(prefix) => {
                Some(format!("{prefix}.{name}")).filter(|whole| is_function(whole))
            }
            _ => None,
        };
        let member = call.target.is_some() && library.is_none();
        let receiver = call.target.as_deref().filter(|_| member);
        let types: Vec<Type<'a>> = receiver
            .into_iter()
            .chain(&call.args)
            .map(|part| self.look(part))
            .collect();
        let name = library.as_deref().unwrap_or(name);
        let operator = name.contains(['_', '@', '!']) && !name.contains('.') || name == "-_";
        if !operator && !is_function(name) {
            return self.say(id, undeclared(name));
        }
        called(name, member, &types).unwrap_or_else(|| {
            let mut types = types;
            if name == CONDITIONAL
                && let [_, a, b] = types.as_mut_slice()
                && let Some(joined) = a.joined(b)
            {
                // An empty list is one of what the other one holds.
                (*a, *b) = (joined.clone(), joined);
            }
            let told: Vec<String> = types.iter().map(Type::to_string).collect();
            let told = match told.split_first() {
                Some((receiver, rest)) if member => format!("{receiver}.({})", rest.join(", ")),
                _ => format!("({})", told.join(", ")),
            };
            let why = format!("found no matching overload for '{name}' applied to '{told}'");
            self.say(id, why)
        })
    }

    fn with<T>(&mut self, name: &str, is: Type<'a>, then: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.variables.insert(name.to_owned(), is);
        let result = then(self);
        match before {
            Some(before) => self.variables.insert(name.to_owned(), before),
            None => self.variables.remove(name),
        };
        result
    }

    fn comprehension(&mut self, loops: &ComprehensionExpr) -> Type<'a> {
        let range = self.look(&loops.iter_range);
        let start = self.look(&loops.accu_init);
        let turn = match range {
            Type::List(of) => *of,
            Type::Map(key, _) => *key,
            any @ (Type::Any | Type::Dyn) => any,
            other => {
                let why = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.say(loops.iter_range.id, why)
            }
        };
        let gathered = self.with(&loops.accu_var, start.clone(), |this| {
            this.with(&loops.iter_var, turn, |this| {
                this.look(&loops.loop_cond);
                this.look(&loops.loop_step)
            })
        });
        let gathered = start.joined(&gathered).unwrap_or(Type::Any);
        self.with(&loops.accu_var, gathered, |this| this.look(&loops.result))
    }
}

fn undeclared(name: &str) -> String {
    format!("undeclared reference to '{name}' (in container '')")
}

const fn literal_type<'a>(literal: &LiteralValue) -> Type<'a> {
    match literal {
        LiteralValue::Boolean(_) => Type::Bool,
        LiteralValue::Bytes(_) => Type::Bytes,
        LiteralValue::Double(_) => Type::Double,
        LiteralValue::Int(_) => Type::Int,
        LiteralValue::Null => Type::Null,
        LiteralValue::String(_) => Type::String,
        LiteralValue::UInt(_) => Type::UInt,
    }
}
