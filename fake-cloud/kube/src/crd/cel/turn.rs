//! Expressions with optionals: their macros are expanded as the real server expands them, and then everything that may
//! meet an optional is turned into a call that knows of them.

use kube::core::cel::cel::common::ast::operators::{CONDITIONAL, INDEX, OPT_INDEX, OPT_SELECT};
use kube::core::cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, ListExpr, LiteralValue,
};

/// The parts of an expression.
fn parts(expression: &mut IdedExpr) -> Vec<&mut IdedExpr> {
    match &mut expression.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
        Expr::Select(select) => vec![&mut *select.operand],
        Expr::Call(call) => {
            let target = call.target.iter_mut().map(|t| &mut **t);
            target.chain(call.args.iter_mut()).collect()
        }
        Expr::List(list) => list.elements.iter_mut().collect(),
        Expr::Map(map) => map
            .entries
            .iter_mut()
            .flat_map(|e| of_entry(&mut e.expr))
            .collect(),
        Expr::Struct(object) => {
            let entries = object.entries.iter_mut();
            entries.flat_map(|e| of_entry(&mut e.expr)).collect()
        }
        Expr::Comprehension(loops) => {
            let ComprehensionExpr {
                iter_range,
                accu_init,
                loop_cond,
                loop_step,
                result,
                ..
            } = &mut **loops;
            vec![iter_range, accu_init, loop_cond, loop_step, result]
        }
    }
}

fn of_entry(entry: &mut EntryExpr) -> Vec<&mut IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&mut field.value],
        EntryExpr::MapEntry(entry) => vec![&mut entry.key, &mut entry.value],
    }
}

const fn of(expr: Expr) -> IdedExpr {
    IdedExpr { id: 0, expr }
}

fn call(name: &str, args: Vec<IdedExpr>) -> Expr {
    Expr::Call(CallExpr {
        func_name: name.to_owned(),
        target: None,
        args,
    })
}

fn method(target: IdedExpr, name: &str, args: Vec<IdedExpr>) -> IdedExpr {
    of(Expr::Call(CallExpr {
        func_name: name.to_owned(),
        target: Some(Box::new(target)),
        args,
    }))
}

fn of_library(name: &str, args: Vec<IdedExpr>) -> IdedExpr {
    method(of(Expr::Ident("optional".to_owned())), name, args)
}

/// Expands `optMap` and `optFlatMap`: where there is a value, the expression about it, with its variable as that of a
/// loop that makes no turn.
///
/// # Errors
/// Where what stands for the variable is none: which part it is, and what is told of it.
pub(super) fn expand(expression: &mut IdedExpr) -> Result<(), (u64, String)> {
    for part in parts(expression) {
        expand(part)?;
    }
    let Expr::Call(found) = &mut expression.expr else {
        return Ok(());
    };
    let flat = match found.func_name.as_str() {
        "optMap" => false,
        "optFlatMap" => true,
        _ => return Ok(()),
    };
    let (Some(target), [variable, then]) = (&found.target, found.args.as_slice()) else {
        return Ok(());
    };
    let Expr::Ident(variable) = &variable.expr else {
        let why = format!(
            "{}() variable name must be a simple identifier",
            found.func_name
        );
        return Err((variable.id, why));
    };
    let target = IdedExpr::clone(target);
    let value = of(Expr::Comprehension(Box::new(ComprehensionExpr {
        iter_range: of(Expr::List(ListExpr::new(Vec::new()))),
        iter_var: "#unused".to_owned(),
        iter_var2: None,
        accu_var: variable.clone(),
        accu_init: method(target.clone(), "value", Vec::new()),
        loop_cond: of(Expr::Literal(LiteralValue::Boolean(false.into()))),
        loop_step: of(Expr::Ident(variable.clone())),
        result: then.clone(),
    })));
    let value = if flat {
        value
    } else {
        of_library("of", vec![value])
    };
    let there = method(target, "hasValue", Vec::new());
    let nothing = of_library("none", Vec::new());
    expression.expr = call(CONDITIONAL, vec![there, value, nothing]);
    Ok(())
}

/// Whether a value in an expression may be an optional.
pub(super) fn is_about_optionals(expression: &mut IdedExpr) -> bool {
    const ASKED: [&str; 10] = [
        OPT_SELECT,
        OPT_INDEX,
        "hasValue",
        "value",
        "orValue",
        "or",
        "unwrapOpt",
        "optional",
        "first",
        "last",
    ];
    let here = match &expression.expr {
        Expr::Call(call) => ASKED.contains(&call.func_name.as_str()),
        Expr::Ident(name) => name == "optional",
        Expr::List(list) => !list.optional_indices.is_empty(),
        Expr::Map(map) => map.entries.iter().any(|e| is_left_out(&e.expr)),
        _ => false,
    };
    // The parts are only read; there is one walk over them, and it can write.
    here || parts(expression).into_iter().any(is_about_optionals)
}

/// Whether an entry may be left out.
const fn is_left_out(entry: &EntryExpr) -> bool {
    match entry {
        EntryExpr::StructField(field) => field.optional,
        EntryExpr::MapEntry(entry) => entry.optional,
    }
}

/// Turns each step of an expression into a call that knows of optionals.
pub(super) fn turn(expression: &mut IdedExpr) {
    for part in parts(expression) {
        turn(part);
    }
    let expr = std::mem::take(&mut expression.expr);
    expression.expr = match expr {
        Expr::Select(select) => {
            let name = if select.test { "@has" } else { "@plain_step" };
            let field = LiteralValue::String(select.field.into());
            call(name, vec![*select.operand, of(Expr::Literal(field))])
        }
        Expr::Call(mut found) => {
            match found.func_name.as_str() {
                OPT_SELECT | OPT_INDEX => "@step".clone_into(&mut found.func_name),
                INDEX => "@plain_step".clone_into(&mut found.func_name),
                _ => {}
            }
            Expr::Call(found)
        }
        Expr::List(list) if !list.optional_indices.is_empty() => {
            let entries = list.elements.into_iter().enumerate();
            let entries =
                entries.map(|(i, element)| entry(element, list.optional_indices.contains(&i)));
            call("@list", entries.collect())
        }
        Expr::Map(map) if map.entries.iter().any(|e| is_left_out(&e.expr)) => {
            let entries = map.entries.into_iter().flat_map(|e| match e.expr {
                EntryExpr::MapEntry(found) => {
                    vec![found.key, entry(found.value, found.optional)]
                }
                EntryExpr::StructField(field) => vec![field.value],
            });
            call("@map", entries.collect())
        }
        other => other,
    };
}

fn entry(value: IdedExpr, may_be_left_out: bool) -> IdedExpr {
    if may_be_left_out {
        of(call("@entry", vec![value]))
    } else {
        value
    }
}
