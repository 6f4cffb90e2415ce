//! What the functions of expressions cost, and how large what they answer can be.

use super::estimate::{Estimator, ITEMS, Known, VALUES};
use super::sizes::{Kind, Size};

/// What an authorizer's check costs.
const CHECK_COST: u64 = 350_000;
/// Units by characters that are gone through; a pattern's cost by its length.
const BY_CHARACTER: f64 = 0.1;
const BY_PATTERN: f64 = 0.25;
/// Length that a named format's pattern is taken for.
const FORMAT_PATTERN: f64 = 128.0;

/// So many units for each of a size, rounded up.
fn by(size: u64, factor: f64) -> u64 {
    // Of what is beyond 2^53 only the magnitude counts; too large a number becomes the largest.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )]
    let cost = (size as f64 * factor).ceil() as u64;
    cost
}

impl<'a> Estimator<'a> {
    /// A call itself, without what its arguments cost.
    #[allow(clippy::too_many_lines)] // A table of functions.
    pub(super) fn function(
        &self,
        name: &str,
        target: Option<&Known<'a>>,
        arguments: &[Known<'a>],
    ) -> Known<'a> {
        let first = arguments.first();
        let second = arguments.get(1);
        let size = |of: Option<&Known<'a>>| of.map_or(Size::UNKNOWN, Known::size);
        let simple = |kind| self.computed(1, kind, None);
        let traversal =
            |of: Size, kind, result| self.computed(by(of.max, BY_CHARACTER), kind, result);
        match (name, first, second) {
            ("_?_:_", ..) => self.conditional(arguments),
            ("_&&_" | "_||_", ..) => self.computed(0, Kind::Scalar, None),
            ("_==_" | "_!=_", Some(a), Some(b))
                if a.kind == Kind::Other && b.kind == Kind::Other =>
            {
                simple(Kind::Scalar)
            }
            ("_==_" | "_!=_", Some(a), Some(b)) => traversal(
                Size::up_to(a.size().max.min(b.size().max)),
                Kind::Scalar,
                None,
            ),
            ("_<_" | "_<=_" | "_>_" | "_>=_", Some(a), Some(b)) => {
                let texts = is_text(&a.kind) || is_text(&b.kind);
                let any = a.kind == Kind::Dynamic || b.kind == Kind::Dynamic;
                let smaller = a.size().max.min(b.size().max);
                let cost = match (texts, any) {
                    (true, _) => by(smaller, BY_CHARACTER),
                    (_, true) => by(smaller, BY_CHARACTER).max(1),
                    _ => 1,
                };
                self.computed(cost, Kind::Scalar, None)
            }
            ("_+_", Some(a), Some(b)) => self.added(a, b),
            ("@in" | "in" | "_in_", _, Some(among)) => {
                let cost = match among.kind {
                    Kind::Map(_) => 1,
                    Kind::List(_) => among.size().max,
                    _ => among.size().max.max(1),
                };
                self.computed(cost, Kind::Scalar, None)
            }
            ("_[_]", Some(of), _) => self.item(of),
            ("_?._" | "_[?_]", Some(of), _) => simple(Kind::Optional(Box::new(below(&of.kind)))),
            ("orValue" | "value", ..) => {
                let kind = match target.map(|t| &t.kind) {
                    Some(Kind::Optional(of)) => Kind::clone(of),
                    _ => Kind::Dynamic,
                };
                simple(kind)
            }
            ("or", ..) => simple(target.map_or(Kind::Dynamic, |t| t.kind.clone())),
            ("optional.of" | "optional.ofNonZeroValue", Some(of), _) => {
                simple(Kind::Optional(Box::new(of.kind.clone())))
            }
            ("optional.none", ..) => simple(Kind::Optional(Box::new(Kind::Dynamic))),
            ("dyn", Some(of), _) => Known {
                cost: 1,
                kind: Kind::Dynamic,
                path: Vec::new(),
                ..of.clone()
            },
            ("startsWith" | "endsWith", Some(_), _) => traversal(size(first), Kind::Scalar, None),
            ("contains", Some(_), _) if target.is_some() => {
                let (text, part) = (size(target).max, size(first).max);
                let cost = by(text, BY_CHARACTER).saturating_mul(by(part, BY_CHARACTER));
                self.computed(cost, Kind::Scalar, None)
            }
            ("matches", Some(_), _) if target.is_some() => {
                self.computed(searched(size(target), size(first)), Kind::Scalar, None)
            }
            ("find" | "findAll", Some(_), _) if target.is_some() => {
                let kind = match name {
                    "find" => Kind::Text,
                    _ => Kind::List(Box::new(Kind::Text)),
                };
                let cost = searched(size(target), size(first));
                self.computed(cost, kind, Some(Size::up_to(size(target).max)))
            }
            ("string", Some(of), _) if of.kind == Kind::Bytes => {
                let Size { min, max } = of.size();
                traversal(of.size(), Kind::Text, Some(Size { min: min / 4, max }))
            }
            ("bytes", Some(of), _) if of.kind == Kind::Text => {
                let Size { min, max } = of.size();
                let max = max.saturating_mul(4);
                traversal(of.size(), Kind::Bytes, Some(Size { min, max }))
            }
            ("strings.quote", Some(of), _) => {
                let quoted = of.size().and(Size::up_to(of.size().max));
                traversal(of.size(), Kind::Text, Some(quoted.and(Size::exactly(2))))
            }
            ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf", ..) => {
                self.compared(name, target)
            }
            ("url" | "jsonpatch.escapeKey", Some(_), _) => {
                let kind = if name == "url" {
                    Kind::Other
                } else {
                    Kind::Text
                };
                traversal(size(first), kind, Some(size(first)))
            }
            ("lowerAscii" | "upperAscii" | "substring" | "trim", ..) if target.is_some() => {
                traversal(size(target), Kind::Text, Some(size(target)))
            }
            ("replace", Some(what), Some(with)) if target.is_some() => {
                let result = replaced(size(target), what.size(), with.size());
                let cost = by(size(target).max, 2.0 * BY_CHARACTER);
                self.computed(cost, Kind::Text, Some(result))
            }
            ("split", ..) if target.is_some() => {
                let cost = by(size(target).max, 2.0 * BY_CHARACTER);
                let most = Size::up_to(size(target).max);
                self.computed(cost, Kind::List(Box::new(Kind::Text)), Some(most))
            }
            ("join", ..) if target.is_some() => self.joined(target, first),
            ("format", ..) if target.is_some() => traversal(size(target), Kind::Text, None),
            ("ip.isCanonical", Some(_), _) => {
                self.computed(by(size(first).max, 2.0 * BY_CHARACTER), Kind::Scalar, None)
            }
            ("isIP" | "isCIDR" | "isQuantity" | "isSemver", Some(_), _) => {
                traversal(size(first), Kind::Scalar, None)
            }
            ("ip" | "cidr" | "quantity" | "semver", Some(_), _) => {
                traversal(size(first), Kind::Other, None)
            }
            ("ip" | "masked", ..) => simple(Kind::Other),
            // Two addresses of at most sixteen bytes, and what has to be read to compare them.
            ("containsIP" | "containsCIDR", Some(with), _) => {
                let read = match with.kind {
                    Kind::Text => by(with.size().max, BY_CHARACTER),
                    _ => 0,
                };
                let more = if name == "containsCIDR" { 3 } else { 0 };
                self.computed(read.saturating_add(4 + more), Kind::Scalar, None)
            }
            ("validate", Some(_), _) => {
                let cost = by(size(first).max, BY_CHARACTER);
                let cost = by(cost, FORMAT_PATTERN * BY_PATTERN);
                let errors = Kind::Optional(Box::new(Kind::List(Box::new(Kind::Text))));
                self.computed(cost, errors, None)
            }
            ("check", ..) => self.computed(CHECK_COST, Kind::Other, None),
            (
                "getScheme" | "getHostname" | "getHost" | "getPort" | "getEscapedPath" | "string",
                ..,
            ) => simple(Kind::Text),
            ("getQuery", ..) => simple(Kind::Map(Box::new(Kind::List(Box::new(Kind::Text))))),
            ("add" | "sub" | "type", ..) => simple(Kind::Other),
            _ => simple(Kind::Scalar),
        }
    }
}

/// Whether values of a kind are gone through character by character.
fn is_text(kind: &Kind<'_>) -> bool {
    matches!(kind, Kind::Text | Kind::Bytes)
}

/// What is in a container that there may be.
fn below<'a>(kind: &Kind<'a>) -> Kind<'a> {
    match kind {
        Kind::List(of) | Kind::Map(of) => Kind::clone(of),
        Kind::Optional(of) => below(of),
        _ => Kind::Dynamic,
    }
}

/// The cost of looking for a pattern in a text.
fn searched(text: Size, pattern: Size) -> u64 {
    let text = by(text.max.saturating_add(1), BY_CHARACTER);
    text.saturating_mul(by(pattern.max, BY_PATTERN))
}

/// The size of a text of which parts were replaced.
fn replaced(text: Size, what: Size, with: Size) -> Size {
    let parts = |all: u64, each: u64| all.div_ceil(each.max(1));
    let max = if what.min == 0 {
        // Nothing is found before, between and after all characters.
        let places = text.max.saturating_add(1);
        places.saturating_mul(with.max).saturating_add(text.max)
    } else if with.max <= what.min {
        text.max
    } else {
        parts(text.max, what.min).saturating_mul(with.max)
    };
    let min = if what.max == 0 {
        let places = text.min.saturating_add(1);
        places.saturating_mul(with.min).saturating_add(text.min)
    } else if what.max <= with.min {
        text.min
    } else {
        parts(text.min, what.max).saturating_mul(with.min)
    };
    Size { min, max }
}

impl<'a> Estimator<'a> {
    /// One of two, by a condition.
    fn conditional(&self, arguments: &[Known<'a>]) -> Known<'a> {
        let [_, a, b] = arguments else {
            return self.computed(1, Kind::Dynamic, None);
        };
        let kind = match (&a.kind, &b.kind) {
            (Kind::Dynamic, other) | (other, _) => other.clone(),
        };
        let entry = a.entry.zip(b.entry).map(|(a, b)| a.or(b));
        Known {
            entry,
            ..self.computed(0, kind, Some(a.size().or(b.size())))
        }
    }

    fn added(&self, a: &Known<'a>, b: &Known<'a>) -> Known<'a> {
        let whole = a.size().and(b.size());
        let entry = a.entry.zip(b.entry).map(|(a, b)| a.or(b));
        let through = by(whole.max, BY_CHARACTER);
        let (cost, kind) = match (&a.kind, &b.kind) {
            (Kind::List(of), Kind::List(more)) => {
                let of = match **of {
                    Kind::Dynamic => more,
                    _ => of,
                };
                (1, Kind::List(of.clone()))
            }
            (Kind::List(_), _) => (1, a.kind.clone()),
            (_, Kind::List(_)) => (1, b.kind.clone()),
            (a, b) if is_text(a) => (through, if is_text(b) { b.clone() } else { a.clone() }),
            (_, b) if is_text(b) => (through, b.clone()),
            (Kind::Dynamic, _) | (_, Kind::Dynamic) => (through.max(1), Kind::Dynamic),
            _ => return self.computed(1, Kind::Scalar, None),
        };
        Known {
            entry,
            ..self.computed(cost, kind, Some(whole))
        }
    }

    /// An item of a list, a value of a map.
    fn item(&self, of: &Known<'a>) -> Known<'a> {
        let (kind, step) = match &of.kind {
            Kind::List(items) => (Kind::clone(items), ITEMS),
            Kind::Map(values) => (Kind::clone(values), VALUES),
            _ => (Kind::Dynamic, VALUES),
        };
        let mut path = of.path.clone();
        path.push(step.to_owned());
        self.known(1, kind, path, of.entry.map(|e| e.value))
    }

    /// A list whose items are compared, or a text that is looked through.
    fn compared(&self, name: &str, target: Option<&Known<'a>>) -> Known<'a> {
        let Some(target) = target else {
            return self.computed(1, Kind::Scalar, None);
        };
        let Kind::List(of) = &target.kind else {
            let cost = by(target.size().max, BY_CHARACTER);
            return self.computed(cost, Kind::Scalar, None);
        };
        let each = match is_text(of) {
            true => by(self.item(target).size().max, BY_CHARACTER).saturating_add(1),
            false => 1,
        };
        let kind = match name {
            "max" | "min" | "sum" => Kind::clone(of),
            _ => Kind::Scalar,
        };
        self.computed(target.size().max.saturating_mul(each), kind, None)
    }

    /// The texts of a list, with something between them.
    fn joined(&self, target: Option<&Known<'a>>, between: Option<&Known<'a>>) -> Known<'a> {
        let Some(list) = target else {
            return self.computed(1, Kind::Text, None);
        };
        let each = Known {
            entry: None,
            ..list.clone()
        };
        let mut size = list.size().times(self.item(&each).size());
        if let Some(between) = between {
            let gaps = Size {
                min: list.size().min.saturating_sub(1),
                max: list.size().max.saturating_sub(1),
            };
            size = size.and(between.size().times(gaps));
        }
        self.computed(by(size.max, BY_CHARACTER), Kind::Text, Some(size))
    }
}
