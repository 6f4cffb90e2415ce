//! Optional values, and the functions that make and ask them.

use std::sync::Arc;

use kube::core::cel::cel::common::ast::IdedExpr;
use kube::core::cel::cel::extractors::This;
use kube::core::cel::cel::objects::{Key, KeyRef, Map, Opaque, OptionalValue};
use kube::core::cel::cel::{Context, ExecutionError, FunctionContext, ResolveResult, Value};

/// A value that may not be there.
#[derive(Debug, PartialEq, Eq)]
struct Optional(Option<Value>);

impl Opaque for Optional {
    fn runtime_type_name(&self) -> &'static str {
        // Not the library's own name of the type, by which it would take it for a value of its own.
        "optional"
    }
}

/// What an entry of a list or a map literal is, which may be left out: never seen by an expression.
#[derive(Debug, PartialEq, Eq)]
struct Entry(Option<Value>);

impl Opaque for Entry {
    fn runtime_type_name(&self) -> &'static str {
        "optional entry"
    }
}

/// An optional value, for a variable.
#[must_use]
pub fn optional(value: Option<Value>) -> Value {
    Value::Opaque(Arc::new(Optional(value)))
}

/// The value of an optional, ours or the library's; none where it is no optional.
fn inner(value: &Value) -> Option<Option<&Value>> {
    let Value::Opaque(opaque) = value else {
        return None;
    };
    opaque.downcast_ref::<Optional>().map_or_else(
        || {
            opaque
                .downcast_ref::<OptionalValue>()
                .map(OptionalValue::value)
        },
        |ours| Some(ours.0.as_ref()),
    )
}

fn no_such_overload() -> ExecutionError {
    ExecutionError::function_error("", "no such overload")
}

/// The nth argument.
fn argument(ftx: &FunctionContext<'_, '_>, n: usize) -> ResolveResult {
    let found: Option<&IdedExpr> = ftx.args.get(n);
    found.map_or_else(
        || Err(no_such_overload()),
        |expression| Value::resolve(expression, ftx.ptx),
    )
}

/// What the receiver, an optional, holds.
fn receiver(this: &Value) -> Result<Option<&Value>, ExecutionError> {
    inner(this).ok_or_else(no_such_overload)
}

/// What is found in a map or a list; none where there is nothing.
fn found(of: &Value, key: &Value) -> Result<Option<Value>, ExecutionError> {
    let whole = |at: f64| (at.fract() == 0.0).then(|| format!("{at:.0}").parse::<i64>().ok());
    match (of, key) {
        (Value::Map(map), Value::String(name)) => Ok(map.get(&KeyRef::String(name)).cloned()),
        (Value::Map(map), Value::Int(n)) => Ok(map.get(&KeyRef::Int(*n)).cloned()),
        (Value::Map(map), Value::UInt(n)) => Ok(map.get(&KeyRef::Uint(*n)).cloned()),
        (Value::Map(map), Value::Bool(b)) => Ok(map.get(&KeyRef::Bool(*b)).cloned()),
        (Value::List(list), at) => {
            let at = match at {
                Value::Int(n) => Some(*n),
                Value::UInt(n) => i64::try_from(*n).ok(),
                Value::Float(n) => whole(*n).flatten(),
                _ => return Err(no_such_overload()),
            };
            let at = at.and_then(|n| usize::try_from(n).ok());
            Ok(at.and_then(|n| list.get(n)).cloned())
        }
        _ => Err(no_such_overload()),
    }
}

/// A step that may lead nowhere: `a.?b`, `a[?b]`, and each step through what may not be there.
fn step(ftx: &FunctionContext<'_, '_>) -> ResolveResult {
    let (of, key) = (argument(ftx, 0)?, argument(ftx, 1)?);
    Ok(optional(match inner(&of) {
        Some(None) => None,
        Some(Some(of)) => found(of, &key)?,
        None => found(&of, &key)?,
    }))
}

/// `a.b` and `a[b]`.
fn plain_step(ftx: &FunctionContext<'_, '_>) -> ResolveResult {
    let (of, key) = (argument(ftx, 0)?, argument(ftx, 1)?);
    match inner(&of) {
        Some(None) => Ok(optional(None)),
        Some(Some(of)) => Ok(optional(found(of, &key)?)),
        None => found(&of, &key)?.ok_or_else(|| match (&of, &key) {
            (Value::List(_), Value::Int(at)) => {
                ExecutionError::function_error("", format!("index out of bounds: {at}"))
            }
            (_, Value::String(name)) => ExecutionError::no_such_key(name),
            (_, Value::Int(n)) => ExecutionError::no_such_key(&n.to_string()),
            _ => no_such_overload(),
        }),
    }
}

/// `has(a.b)`.
fn has(ftx: &FunctionContext<'_, '_>) -> ResolveResult {
    let (of, key) = (argument(ftx, 0)?, argument(ftx, 1)?);
    let there = match inner(&of) {
        Some(None) => false,
        Some(Some(of)) => found(of, &key)?.is_some(),
        None => found(&of, &key)?.is_some(),
    };
    Ok(there.into())
}

/// An entry of a literal that is left out where its value is none.
fn entry(ftx: &FunctionContext<'_, '_>) -> ResolveResult {
    let value = argument(ftx, 0)?;
    let held = inner(&value).ok_or_else(no_such_overload)?.cloned();
    Ok(Value::Opaque(Arc::new(Entry(held))))
}

/// The value of an entry of a literal, if it is not left out.
fn kept(value: Value) -> Option<Value> {
    if let Value::Opaque(opaque) = &value
        && let Some(entry) = opaque.downcast_ref::<Entry>()
    {
        return entry.0.clone();
    }
    Some(value)
}

/// `[a, ?b]`.
fn list(ftx: &FunctionContext<'_, '_>) -> ResolveResult {
    let values = (0..ftx.args.len()).filter_map(|n| argument(ftx, n).map(kept).transpose());
    Ok(Value::List(Arc::new(values.collect::<Result<_, _>>()?)))
}

/// `{k: v, ?l: w}`: keys and values in turn.
fn map(ftx: &FunctionContext<'_, '_>) -> ResolveResult {
    let mut map = std::collections::HashMap::new();
    for n in (0..ftx.args.len()).step_by(2) {
        let key: Key = match argument(ftx, n)? {
            Value::String(s) => Key::String(s),
            Value::Int(i) => Key::Int(i),
            Value::UInt(u) => Key::Uint(u),
            Value::Bool(b) => Key::Bool(b),
            other => return Err(ExecutionError::unsupported_key_type(other)),
        };
        if let Some(value) = kept(argument(ftx, n + 1)?) {
            map.insert(key, value);
        }
    }
    Ok(Value::Map(Map { map: Arc::new(map) }))
}

fn none(_: &FunctionContext<'_, '_>) -> ResolveResult {
    Ok(optional(None))
}

fn of(ftx: &FunctionContext<'_, '_>) -> ResolveResult {
    Ok(optional(Some(argument(ftx, 0)?)))
}

fn of_non_zero(ftx: &FunctionContext<'_, '_>) -> ResolveResult {
    let value = argument(ftx, 0)?;
    let zero = match &value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Int(i) => *i == 0,
        Value::UInt(u) => *u == 0,
        Value::Float(f) => *f == 0.0,
        Value::String(s) => s.is_empty(),
        Value::Bytes(b) => b.is_empty(),
        Value::List(l) => l.is_empty(),
        Value::Map(m) => m.map.is_empty(),
        Value::Duration(d) => d.is_zero(),
        other => inner(other) == Some(None),
    };
    Ok(optional((!zero).then_some(value)))
}

fn has_value(This(this): This<Value>) -> Result<bool, ExecutionError> {
    Ok(receiver(&this)?.is_some())
}

fn value(This(this): This<Value>) -> ResolveResult {
    let held = receiver(&this)?.cloned();
    held.ok_or_else(|| ExecutionError::function_error("", "optional.none() dereference"))
}

/// `a.or(b)`; `b` is only come to where `a` is none.
fn or(ftx: &FunctionContext<'_, '_>, This(this): This<Value>) -> ResolveResult {
    if receiver(&this)?.is_some() {
        return Ok(this);
    }
    let other = argument(ftx, 0)?;
    receiver(&other)?;
    Ok(other)
}

/// `a.orValue(b)`; `b` is only come to where `a` is none.
fn or_value(ftx: &FunctionContext<'_, '_>, This(this): This<Value>) -> ResolveResult {
    receiver(&this)?.map_or_else(|| argument(ftx, 0), |held| Ok(held.clone()))
}

/// `[optionals].unwrapOpt()`: those that are there.
fn unwrapped(all: &Value) -> ResolveResult {
    let Value::List(all) = all else {
        return Err(no_such_overload());
    };
    let there = all.iter().filter_map(|v| receiver(v).transpose());
    let there = there.map(|v| v.cloned()).collect::<Result<_, _>>()?;
    Ok(Value::List(Arc::new(there)))
}

fn unwrap_opt(This(this): This<Value>) -> ResolveResult {
    unwrapped(&this)
}

fn unwrap_all(ftx: &FunctionContext<'_, '_>) -> ResolveResult {
    unwrapped(&argument(ftx, 0)?)
}

fn first(This(this): This<Value>) -> ResolveResult {
    match &this {
        Value::List(list) => Ok(optional(list.first().cloned())),
        _ => Err(no_such_overload()),
    }
}

fn last(This(this): This<Value>) -> ResolveResult {
    match &this {
        Value::List(list) => Ok(optional(list.last().cloned())),
        _ => Err(no_such_overload()),
    }
}

/// Adds what expressions with optionals call. The names with an `@` are those that `turn` writes.
pub(super) fn register(context: &mut Context<'_>) {
    context.add_function("@step", step);
    context.add_function("@plain_step", plain_step);
    context.add_function("@has", has);
    context.add_function("@entry", entry);
    context.add_function("@list", list);
    context.add_function("@map", map);
    context.add_function("optional.none", none);
    context.add_function("optional.of", of);
    context.add_function("optional.ofNonZeroValue", of_non_zero);
    context.add_function("optional.unwrap", unwrap_all);
    context.add_function("unwrapOpt", unwrap_opt);
    context.add_function("hasValue", has_value);
    context.add_function("value", value);
    context.add_function("or", or);
    context.add_function("orValue", or_value);
    context.add_function("first", first);
    context.add_function("last", last);
}
