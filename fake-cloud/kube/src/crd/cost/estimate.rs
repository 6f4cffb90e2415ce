//! The cost of one expression at worst, counted as the real server counts it: a unit for each look at a variable or a field
//! and for each simple call, a tenth of a unit for each character that is gone through, and the steps of a loop as often as
//! what it goes over can have items.

use std::collections::HashMap;

use kube::core::cel::cel::IdedExpr;
use kube::core::cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr,
};

use super::sizes::{Decl, Kind, Size};

/// What it costs to make a list, a map, an object.
const LIST_COST: u64 = 10;
const MAP_COST: u64 = 30;
const OBJECT_COST: u64 = 40;
/// Steps of a path that lead from a container to what it holds.
pub(super) const ITEMS: &str = "@items";
pub(super) const VALUES: &str = "@values";
const KEYS: &str = "@keys";

/// Sizes of what a list or a map holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) key: Size,
    pub(super) value: Size,
}

impl Entry {
    /// One or the other.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            key: self.key.or(other.key),
            value: self.value.or(other.value),
        }
    }
}

/// What is known of a part of an expression.
#[derive(Clone, Debug)]
pub(super) struct Known<'a> {
    pub(super) cost: u64,
    pub(super) kind: Kind<'a>,
    /// Where it is to be found, from a variable on; empty for what is computed.
    pub(super) path: Vec<String>,
    pub(super) size: Option<Size>,
    pub(super) entry: Option<Entry>,
}

impl Known<'_> {
    /// Its size, which may be anything.
    pub(super) fn size(&self) -> Size {
        self.size.unwrap_or(Size::UNKNOWN)
    }
}

/// Estimates expressions about one node of a schema.
pub(super) struct Estimator<'a> {
    root: Decl<'a>,
    optional_old: bool,
    /// Variables of loops, the innermost last.
    variables: HashMap<String, Vec<Known<'a>>>,
}

impl<'a> Estimator<'a> {
    pub(super) fn new(root: Decl<'a>, optional_old: bool) -> Self {
        Self {
            root,
            optional_old,
            variables: HashMap::new(),
        }
    }

    pub(super) fn cost(&mut self, expression: &IdedExpr) -> u64 {
        self.look(expression).cost
    }

    /// What the declarations say of a place.
    fn declared(&self, path: &[String]) -> Option<Decl<'a>> {
        let mut decl = self.root;
        for step in path.get(1..)? {
            decl = match step.as_str() {
                ITEMS | VALUES => decl.items()?,
                KEYS => decl.keys()?,
                field => decl.field(field)?,
            };
        }
        Some(decl)
    }

    /// Something at a place or computed; its size is what is known already, else what is declared, else its kind's.
    pub(super) fn known(
        &self,
        cost: u64,
        kind: Kind<'a>,
        path: Vec<String>,
        size: Option<Size>,
    ) -> Known<'a> {
        let declared = || self.declared(&path).map(|d| Size::up_to(d.largest()));
        let scalar = is_scalar(&kind).then_some(Size::exactly(1));
        let size = size.or_else(declared).or(scalar);
        Known {
            cost,
            kind,
            path,
            size,
            entry: None,
        }
    }

    pub(super) fn computed(&self, cost: u64, kind: Kind<'a>, size: Option<Size>) -> Known<'a> {
        self.known(cost, kind, Vec::new(), size)
    }

    fn look(&mut self, expression: &IdedExpr) -> Known<'a> {
        match &expression.expr {
            Expr::Literal(literal) => self.literal(literal),
            Expr::Ident(name) => self.variable(name),
            Expr::Select(select) => self.select(select),
            Expr::Call(call) => self.call(call),
            Expr::List(list) => self.list(&list.elements),
            Expr::Map(map) => {
                let entries = map.entries.iter();
                self.entries(entries.map(|e| &e.expr), MAP_COST)
            }
            Expr::Struct(object) => {
                let fields = object.entries.iter();
                self.entries(fields.map(|e| &e.expr), OBJECT_COST)
            }
            Expr::Comprehension(loops) => self.comprehension(loops),
            Expr::Unspecified => self.computed(0, Kind::Dynamic, None),
        }
    }

    fn literal(&self, literal: &LiteralValue) -> Known<'a> {
        let count = |n: usize| Size::exactly(u64::try_from(n).unwrap_or(u64::MAX));
        let (kind, size) = match literal {
            LiteralValue::String(text) => (Kind::Text, count(text.inner().chars().count())),
            LiteralValue::Bytes(bytes) => (Kind::Bytes, count(bytes.inner().len())),
            _ => (Kind::Scalar, Size::exactly(1)),
        };
        self.computed(0, kind, Some(size))
    }

    fn variable(&self, name: &str) -> Known<'a> {
        let local = self.variables.get(name).and_then(|stack| stack.last());
        if let Some(local) = local {
            let declared = self.declared(&local.path);
            let declared = declared.map(|d| Size::up_to(d.largest()));
            return Known {
                cost: 1,
                size: declared.or(local.size),
                ..local.clone()
            };
        }
        let root = self.root.kind().unwrap_or(Kind::Dynamic);
        let kind = match name {
            "self" => root,
            "oldSelf" if self.optional_old => Kind::Optional(Box::new(root)),
            "oldSelf" => root,
            _ => Kind::Other,
        };
        self.known(1, kind, vec![name.to_owned()], None)
    }

    fn select(&mut self, select: &SelectExpr) -> Known<'a> {
        let operand = self.look(&select.operand);
        if select.test {
            return self.computed(operand.cost, Kind::Scalar, None);
        }
        let looked_up = matches!(operand.kind, Kind::Map(_) | Kind::Object(_));
        let kind = field_of(&operand.kind, &select.field);
        let mut path = operand.path;
        path.push(select.field.clone());
        self.known(operand.cost + u64::from(looked_up), kind, path, None)
    }

    fn list(&mut self, elements: &[IdedExpr]) -> Known<'a> {
        let mut cost = LIST_COST;
        let mut item: Option<Known<'a>> = None;
        for element in elements {
            let element = self.look(element);
            cost = element.cost.saturating_add(cost);
            item = Some(match item {
                Some(before) => Known {
                    size: Some(before.size().or(element.size())),
                    ..element
                },
                None => element,
            });
        }
        let count = Size::exactly(u64::try_from(elements.len()).unwrap_or(u64::MAX));
        let value = item.as_ref().map_or(Size::exactly(0), Known::size);
        let kind = item.map_or(Kind::Dynamic, |i| i.kind);
        let list = self.computed(cost, Kind::List(Box::new(kind)), Some(count));
        let key = Size::exactly(1);
        Known {
            entry: Some(Entry { key, value }),
            ..list
        }
    }

    fn entries<'e>(
        &mut self,
        entries: impl Iterator<Item = &'e EntryExpr>,
        base: u64,
    ) -> Known<'a> {
        let (mut cost, mut count) = (base, 0);
        let mut sizes: Option<Entry> = None;
        for entry in entries {
            count += 1;
            match entry {
                EntryExpr::StructField(field) => {
                    cost = self.cost(&field.value).saturating_add(cost);
                }
                EntryExpr::MapEntry(entry) => {
                    let (key, value) = (self.look(&entry.key), self.look(&entry.value));
                    cost = cost.saturating_add(key.cost).saturating_add(value.cost);
                    let (key, value) = (key.size(), value.size());
                    sizes = Some(sizes.map_or(Entry { key, value }, |s| Entry {
                        key: s.key.or(key),
                        value: s.value.or(value),
                    }));
                }
            }
        }
        if base != MAP_COST {
            return self.computed(cost, Kind::Other, None);
        }
        let nothing = Entry {
            key: Size::exactly(0),
            value: Size::exactly(0),
        };
        let map = Kind::Map(Box::new(Kind::Dynamic));
        Known {
            entry: Some(sizes.unwrap_or(nothing)),
            ..self.computed(cost, map, Some(Size::exactly(count)))
        }
    }

    fn with_variable<T>(
        &mut self,
        name: &str,
        value: Known<'a>,
        then: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let stack = self.variables.entry(name.to_owned()).or_default();
        stack.push(value);
        let result = then(self);
        if let Some(stack) = self.variables.get_mut(name) {
            stack.pop();
        }
        result
    }

    /// What a loop's variable stands for: an item of a list, a key of a map.
    fn turn(range: &Known<'a>) -> Known<'a> {
        let (kind, step, size) = match &range.kind {
            Kind::List(of) => (Kind::clone(of), ITEMS, range.entry.map(|e| e.value)),
            Kind::Map(_) => (Kind::Text, KEYS, range.entry.map(|e| e.key)),
            _ => (Kind::Dynamic, KEYS, range.entry.map(|e| e.key)),
        };
        let mut path = range.path.clone();
        path.push(step.to_owned());
        let size = size.or(is_scalar(&kind).then_some(Size::exactly(1)));
        Known {
            cost: 1,
            kind,
            path,
            size,
            entry: None,
        }
    }

    fn comprehension(&mut self, loops: &ComprehensionExpr) -> Known<'a> {
        let range = self.look(&loops.iter_range);
        let start = self.look(&loops.accu_init);
        let turn = Self::turn(&range);
        let (condition, step, result) =
            self.with_variable(&loops.accu_var, start.clone(), |this| {
                let (condition, step) = this.with_variable(&loops.iter_var, turn, |this| {
                    (this.cost(&loops.loop_cond), this.look(&loops.loop_step))
                });
                (condition, step, this.cost(&loops.result))
            });
        let often = range.size();
        let turns = often
            .max
            .saturating_mul(condition.saturating_add(step.cost));
        let cost = range
            .cost
            .saturating_add(start.cost)
            .saturating_add(result)
            .saturating_add(turns);
        // A loop that gathers has as many items as it has turns.
        match start.kind {
            Kind::List(_) | Kind::Map(_) => Known {
                entry: step.entry,
                ..self.computed(cost, step.kind, Some(often))
            },
            kind => self.computed(cost, kind, start.size),
        }
    }

    fn call(&mut self, call: &CallExpr) -> Known<'a> {
        let namespace = match call.target.as_deref().map(|t| &t.expr) {
            Some(Expr::Ident(name)) if self.is_library(name) => Some(name.as_str()),
            _ => None,
        };
        let of_library = namespace.map(|n| format!("{n}.{}", call.func_name));
        let name = of_library.as_deref().unwrap_or(&call.func_name);
        if name == "cel.bind"
            && let [variable, value, then] = call.args.as_slice()
            && let Expr::Ident(variable) = &variable.expr
        {
            let value = self.look(value);
            let bound = value.cost.saturating_add(LIST_COST);
            let then = self.with_variable(variable, value, |this| this.look(then));
            let cost = then.cost.saturating_add(bound);
            return Known { cost, ..then };
        }
        let target = match (&call.target, namespace) {
            (Some(target), None) => Some(self.look(target)),
            _ => None,
        };
        let arguments: Vec<Known<'a>> = call.args.iter().map(|a| self.look(a)).collect();
        let given = match (name, arguments.as_slice()) {
            // Only one of the two is come to.
            ("_?_:_", [condition, a, b]) => condition.cost.saturating_add(a.cost.max(b.cost)),
            (_, all) => all
                .iter()
                .chain(&target)
                .fold(0_u64, |sum, a| sum.saturating_add(a.cost)),
        };
        let mut own = self.function(name, target.as_ref(), &arguments);
        if name == "_?._"
            && let ([of, _], [_, field]) = (arguments.as_slice(), call.args.as_slice())
            && let Expr::Literal(LiteralValue::String(field)) = &field.expr
        {
            let kind = match field_of(&of.kind, field.inner()) {
                Kind::Optional(kind) => Kind::Optional(kind),
                kind => Kind::Optional(Box::new(kind)),
            };
            own = self.computed(own.cost, kind, None);
        }
        Known {
            cost: own.cost.saturating_add(given),
            ..own
        }
    }

    /// Whether a name before a dot is that of a library and of no variable.
    fn is_library(&self, name: &str) -> bool {
        const LIBRARIES: [&str; 6] = ["cel", "optional", "ip", "format", "jsonpatch", "strings"];
        LIBRARIES.contains(&name) && self.variables.get(name).is_none_or(Vec::is_empty)
    }
}

/// What a field of a value is; through what may be missing everything may be.
fn field_of<'a>(kind: &Kind<'a>, field: &str) -> Kind<'a> {
    match kind {
        Kind::Map(values) => Kind::clone(values),
        Kind::Object(decl) => decl
            .field(field)
            .and_then(Decl::kind)
            .unwrap_or(Kind::Dynamic),
        Kind::Optional(inner) => match field_of(inner, field) {
            Kind::Optional(kind) => Kind::Optional(kind),
            kind => Kind::Optional(Box::new(kind)),
        },
        _ => Kind::Dynamic,
    }
}

/// Whether values of a kind are of one size.
pub(super) fn is_scalar(kind: &Kind<'_>) -> bool {
    match kind {
        Kind::Scalar => true,
        Kind::Optional(of) => is_scalar(of),
        _ => false,
    }
}
