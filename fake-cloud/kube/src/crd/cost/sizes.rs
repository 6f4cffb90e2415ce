//! How large values can be, as their schemas say.

use serde_json::Value;

use crate::crd::cel::escaped;
use crate::meta::{flag, items, text};

/// Bytes of the largest request: what bounds values that say no size.
pub(super) const REQUEST_BYTES_MAX: u64 = 3 * 1024 * 1024;
/// Bytes that a text takes for each of its characters at most.
const BYTES_OF_CHARACTER: u64 = 4;

/// Fewest and most characters, bytes or items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) min: u64,
    pub(super) max: u64,
}

impl Size {
    /// Nothing is known.
    pub(super) const UNKNOWN: Self = Self {
        min: 0,
        max: u64::MAX,
    };

    /// Exactly so many.
    pub(super) const fn exactly(n: u64) -> Self {
        Self { min: n, max: n }
    }

    /// At most so many.
    pub(super) const fn up_to(max: u64) -> Self {
        Self { min: 0, max }
    }

    /// One or the other.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        }
    }

    /// One after the other.
    pub(super) const fn and(self, other: Self) -> Self {
        Self {
            min: self.min.saturating_add(other.min),
            max: self.max.saturating_add(other.max),
        }
    }

    /// One for each of the other.
    pub(super) const fn times(self, other: Self) -> Self {
        Self {
            min: self.min.saturating_mul(other.min),
            max: self.max.saturating_mul(other.max),
        }
    }
}

/// What expressions can do with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// A number, a truth value, a time: of one size.
    Scalar,
    Text,
    Bytes,
    List(Box<Kind<'a>>),
    Map(Box<Kind<'a>>),
    Object(Decl<'a>),
    Optional(Box<Kind<'a>>),
    /// Anything; it is found out when it is there.
    Dynamic,
    /// A value of a library's own type.
    Other,
}

/// What a schema declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decl<'a> {
    /// A schema, and whether it is that of an object with metadata.
    Schema(&'a Value, bool),
    /// A text of which nothing is said: a map's key, an object's name.
    Text,
    /// `metadata`, of which expressions see the names.
    Metadata,
}

impl<'a> Decl<'a> {
    pub(super) const fn new(schema: &'a Value, resource: bool) -> Self {
        Self::Schema(schema, resource)
    }

    fn below(schema: &'a Value) -> Self {
        Self::Schema(schema, flag(schema, &["x-kubernetes-embedded-resource"]))
    }

    /// The items of a list, the values of a map.
    pub(super) fn items(self) -> Option<Self> {
        let Self::Schema(schema, _) = self else {
            return None;
        };
        match text(schema, &["type"]) {
            "array" => schema.get("items"),
            "object" => schema.get("additionalProperties"),
            _ => None,
        }
        .filter(|s| s.is_object())
        .map(Self::below)
    }

    /// The keys of a map.
    pub(super) fn keys(self) -> Option<Self> {
        matches!(self.kind(), Some(Kind::Map(_))).then_some(Self::Text)
    }

    /// A field, by its name in expressions.
    pub(super) fn field(self, name: &str) -> Option<Self> {
        let (schema, resource) = match self {
            Self::Metadata => {
                return matches!(name, "name" | "generateName").then_some(Self::Text);
            }
            Self::Text => return None,
            Self::Schema(schema, resource) => (schema, resource),
        };
        if resource && name == "metadata" {
            return Some(Self::Metadata);
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        let found = properties
            .into_iter()
            .flatten()
            .find(|(key, _)| escaped(key) == name)
            .map(|(_, below)| Self::below(below));
        if found.is_none() && resource && matches!(name, "apiVersion" | "kind") {
            return Some(Self::Text);
        }
        found.filter(|f| f.kind().is_some())
    }

    /// What expressions can do with it; none where they do not see it.
    pub(super) fn kind(self) -> Option<Kind<'a>> {
        let schema = match self {
            Self::Text => return Some(Kind::Text),
            Self::Metadata => return Some(Kind::Object(self)),
            Self::Schema(schema, _) => schema,
        };
        if flag(schema, &["x-kubernetes-int-or-string"]) {
            return Some(Kind::Dynamic);
        }
        match (text(schema, &["type"]), text(schema, &["format"])) {
            ("array", _) => Some(Kind::List(Box::new(self.items()?.kind()?))),
            ("object", _) => match self.items() {
                Some(values) => Some(Kind::Map(Box::new(values.kind()?))),
                None => Some(Kind::Object(self)),
            },
            ("string", "byte") => Some(Kind::Bytes),
            ("string", "duration" | "date" | "date-time")
            | ("boolean" | "number" | "integer", _) => Some(Kind::Scalar),
            ("string", _) => Some(Kind::Text),
            _ => None,
        }
    }

    /// How many characters, bytes or items it has at most.
    pub(super) fn largest(self) -> u64 {
        let Self::Schema(schema, _) = self else {
            return 0;
        };
        let declared = |key: &str| schema.get(key).and_then(Value::as_u64);
        let characters = || declared("maxLength").map(|n| n.saturating_mul(BYTES_OF_CHARACTER));
        // Without the quotes.
        let whole = REQUEST_BYTES_MAX - 2;
        if flag(schema, &["x-kubernetes-int-or-string"]) {
            return characters().unwrap_or(whole);
        }
        let room = |beside: u64| self.items().map_or(0, |i| whole / (i.shortest() + beside));
        match (text(schema, &["type"]), text(schema, &["format"])) {
            // Beside an item there is a comma, beside a value its key as well.
            ("array", _) => declared("maxItems").unwrap_or_else(|| room(1)),
            ("object", _) if self.items().is_some() => {
                declared("maxProperties").unwrap_or_else(|| room(6))
            }
            ("string", "duration" | "date-time") => 32,
            ("string", "date") => 12,
            ("string", "byte") => declared("maxLength").unwrap_or(whole),
            ("string", _) => characters().or_else(|| longest(schema)).unwrap_or(whole),
            _ => 0,
        }
    }

    /// The fewest bytes that it can be written with.
    pub(super) fn shortest(self) -> u64 {
        let Self::Schema(schema, _) = self else {
            return 2;
        };
        match (text(schema, &["type"]), text(schema, &["format"])) {
            _ if flag(schema, &["x-kubernetes-int-or-string"]) => 1,
            ("integer" | "number", _) => 1,
            ("boolean", _) => 4,
            ("string", "duration") => 3,
            ("string", "date") => 12,
            ("string", "date-time") => 21,
            ("object", _) if self.items().is_none() => {
                let fields = items(schema, &["required"]).filter_map(Value::as_str);
                let field = |name: &str| {
                    let below = schema.get("properties")?.get(name)?;
                    // What has a default need not be sent.
                    let sent = below.get("default").is_none();
                    let below = Self::below(below);
                    below.kind().filter(|_| sent)?;
                    // Its quotes, a colon and a comma.
                    let name = u64::try_from(name.len()).unwrap_or(u64::MAX);
                    Some(name.saturating_add(4 + below.shortest()))
                };
                2 + fields.filter_map(field).sum::<u64>()
            }
            _ => 2,
        }
    }
}

/// The longest of the texts that a value must be one of.
fn longest(schema: &Value) -> Option<u64> {
    let texts = schema.get("enum").and_then(Value::as_array)?;
    let longest = texts.iter().map(|v| v.as_str().map_or(0, str::len)).max()?;
    u64::try_from(longest).ok()
}
