//! What types the parts of an expression are of, as far as schemas and the functions used tell, and where types do not fit.
//! What is not known is of any type: nothing is refused that the real server takes.

use std::collections::HashMap;

use serde_json::Value as Json;

use super::values::escaped;
use crate::meta::{flag, text};

/// The type of a part of an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Type<'a> {
    /// Not known here.
    Any,
    /// Known when there is a value.
    Dyn,
    /// `null`.
    Null,
    /// `bool`.
    Bool,
    /// `int`.
    Int,
    /// `uint`.
    UInt,
    /// `double`.
    Double,
    /// `string`.
    String,
    /// `bytes`.
    Bytes,
    /// `duration`.
    Duration,
    /// `timestamp`.
    Timestamp,
    /// Items of one type.
    List(Box<Type<'a>>),
    /// Keys and values.
    Map(Box<Type<'a>>, Box<Type<'a>>),
    /// What may be missing.
    Optional(Box<Type<'a>>),
    /// Fields as a schema has them; and whether it is that of an object with metadata.
    Object(&'a Json, bool),
    /// `metadata`, of which expressions see the names.
    Metadata,
}

impl std::fmt::Display for Type<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any | Self::Dyn => f.write_str("dyn"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::UInt => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Duration => f.write_str("duration"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::List(of) => write!(f, "list({of})"),
            Self::Map(key, value) => write!(f, "map({key}, {value})"),
            Self::Optional(of) => write!(f, "optional_type({of})"),
            Self::Object(..) | Self::Metadata => f.write_str("object"),
        }
    }
}

impl<'a> Type<'a> {
    /// The type of a schema's values; none where expressions do not see them.
    #[must_use]
    pub fn of(schema: &'a Json, resource: bool) -> Option<Self> {
        if flag(schema, &["x-kubernetes-int-or-string"]) {
            return Some(Self::Dyn);
        }
        let below = |key: &str| {
            let below = schema.get(key).filter(|b| b.is_object())?;
            Self::of(below, flag(below, &["x-kubernetes-embedded-resource"]))
        };
        Some(match (text(schema, &["type"]), text(schema, &["format"])) {
            ("array", _) => Self::List(Box::new(below("items")?)),
            ("object", _)
                if schema
                    .get("additionalProperties")
                    .is_some_and(Json::is_object) =>
            {
                Self::Map(
                    Box::new(Self::String),
                    Box::new(below("additionalProperties")?),
                )
            }
            ("object", _) if flag(schema, &["additionalProperties"]) => Self::Any,
            ("object", _) => Self::Object(schema, resource),
            ("boolean", _) => Self::Bool,
            ("integer", _) => Self::Int,
            ("number", _) => Self::Double,
            ("string", "byte") => Self::Bytes,
            ("string", "duration") => Self::Duration,
            ("string", "date" | "date-time") => Self::Timestamp,
            ("string", _) => Self::String,
            _ => return None,
        })
    }

    /// The type of a field, by its name in expressions.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn field(&self, name: &str) -> Result<Self, String> {
        let undefined = || format!("undefined field '{name}'");
        match self {
            Self::Any | Self::Dyn => Ok(self.clone()),
            Self::Map(_, value) => Ok(Self::clone(value)),
            Self::Metadata if matches!(name, "name" | "generateName") => Ok(Self::String),
            Self::Metadata => Err(undefined()),
            Self::Optional(of) => Ok(of.field(name)?.optional()),
            Self::Object(_, true) if name == "metadata" => Ok(Self::Metadata),
            Self::Object(schema, resource) => {
                let fields = schema.get("properties").and_then(Json::as_object);
                let mut fields = fields.into_iter().flatten();
                let found = fields.find(|(key, _)| escaped(key) == name).map(|(_, f)| f);
                if let Some(found) = found {
                    let embedded = flag(found, &["x-kubernetes-embedded-resource"]);
                    return Self::of(found, embedded).ok_or_else(undefined);
                }
                if *resource && matches!(name, "apiVersion" | "kind") {
                    return Ok(Self::String);
                }
                Err(undefined())
            }
            other => Err(format!("type '{other}' does not support field selection")),
        }
    }

    /// The type as that of a value that may be missing.
    pub(super) fn optional(self) -> Self {
        match self {
            Self::Optional(of) => Self::Optional(of),
            of => Self::Optional(Box::new(of)),
        }
    }

    /// What a container holds at a key; none where the key is not one of it.
    pub(super) fn item(&self, key: &Self) -> Option<Self> {
        match self {
            Self::Any | Self::Dyn => Some(self.clone()),
            Self::List(of) => Self::Int.joined(key).map(|_| Self::clone(of)),
            Self::Map(keys, of) => keys.joined(key).map(|_| Self::clone(of)),
            Self::Optional(of) => of.item(key).map(Self::optional),
            _ => None,
        }
    }

    /// The type that both are of, if there is one.
    pub(super) fn joined(&self, other: &Self) -> Option<Self> {
        let both = |a: &Self, b: &Self| a.joined(b).map(Box::new);
        match (self, other) {
            (Self::Any, one) | (one, Self::Any) => Some(one.clone()),
            (Self::Dyn, _) | (_, Self::Dyn) => Some(Self::Dyn),
            (Self::Null, one) | (one, Self::Null) if one.may_be_null() => Some(one.clone()),
            (Self::List(a), Self::List(b)) => Some(Self::List(both(a, b)?)),
            (Self::Optional(a), Self::Optional(b)) => Some(Self::Optional(both(a, b)?)),
            (Self::Map(k, a), Self::Map(l, b)) => Some(Self::Map(both(k, l)?, both(a, b)?)),
            (Self::Object(..) | Self::Metadata, Self::Object(..) | Self::Metadata) => {
                Some(self.clone())
            }
            (a, b) => (a == b).then(|| a.clone()),
        }
    }

    const fn may_be_null(&self) -> bool {
        matches!(
            self,
            Self::Null
                | Self::Object(..)
                | Self::Metadata
                | Self::Optional(_)
                | Self::Duration
                | Self::Timestamp
        )
    }

    const fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::UInt | Self::Double)
    }
}

/// What an operator or a function makes of its arguments, the receiver first; none where there is no such overload. What
/// is not told here can be anything.
pub(super) fn called<'a>(name: &str, member: bool, args: &[Type<'a>]) -> Option<Type<'a>> {
    use Type::{
        Any, Bool, Bytes, Double, Duration, Int, List, Map, Optional, String, Timestamp, UInt,
    };
    let list_of = |of: Type<'a>| List(Box::new(of));
    if args.iter().any(|a| matches!(a, Any | Type::Dyn)) {
        // Whatever it is, these answer the same.
        return Some(match (name, args) {
            (
                "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" | "@in" | "_&&_" | "_||_" | "!_"
                | "startsWith" | "endsWith" | "contains" | "matches" | "hasValue" | "isSorted",
                _,
            ) => Bool,
            ("size", _) => Int,
            ("_?_:_", [_, a, b]) => a.joined(b).unwrap_or(Any),
            ("orValue", [Optional(of), other]) => of.joined(other).unwrap_or(Any),
            _ => Any,
        });
    }
    Some(match (name, args) {
        ("_==_" | "_!=_", [a, b]) => a.joined(b).map(|_| Bool)?,
        ("_<_" | "_<=_" | "_>_" | "_>=_", [a, b]) => {
            let ordered = matches!(a, Bool | String | Bytes | Duration | Timestamp) && a == b;
            (ordered || a.is_number() && b.is_number()).then_some(Bool)?
        }
        ("!_", [Bool]) => Bool,
        ("_?_:_", [Bool, a, b]) => a.joined(b)?,
        ("_+_", [List(a), List(b)]) => list_of(a.joined(b)?),
        ("_+_", [Timestamp, Duration] | [Duration, Timestamp]) => Timestamp,
        ("_+_", [a @ (String | Bytes | Duration), b]) if a == b => a.clone(),
        ("_-_", [Timestamp, Timestamp]) => Duration,
        ("_-_", [Timestamp, Duration]) => Timestamp,
        ("_-_", [Duration, Duration]) => Duration,
        ("_+_" | "_-_" | "_*_" | "_/_", [a, b]) if a.is_number() && a == b => a.clone(),
        ("_%_", [a @ (Int | UInt), b]) if a == b => a.clone(),
        ("-_", [a @ (Int | Double)]) => a.clone(),
        ("@in", [a, List(of)]) => a.joined(of).map(|_| Bool)?,
        ("@in", [a, Map(key, _)]) => a.joined(key).map(|_| Bool)?,
        ("_[_]", [of, key]) => of.item(key)?,
        ("_[?_]", [of, key]) => of.item(key)?.optional(),
        ("hasValue", [Optional(_)]) if member => Bool,
        ("value", [Optional(of)]) if member => Type::clone(of),
        ("orValue", [Optional(of), other]) if member => of.joined(other)?,
        ("or", [Optional(a), Optional(b)]) if member => a.joined(b)?.optional(),
        ("optional.of" | "optional.ofNonZeroValue", [of]) => Optional(Box::new(of.clone())),
        ("optional.none", []) => Optional(Box::new(Any)),
        (
            "getFullYear" | "getMonth" | "getDayOfYear" | "getDayOfMonth" | "getDate"
            | "getDayOfWeek",
            [Timestamp, ..],
        ) if member => Int,
        (
            "getHours" | "getMinutes" | "getSeconds" | "getMilliseconds",
            [Timestamp | Duration, ..],
        ) if member => Int,
        ("size", [String | Bytes | List(_) | Map(..)]) => Int,
        ("startsWith" | "endsWith" | "contains", [String, String]) if member => Bool,
        ("matches", [String, String]) => Bool,
        ("find" | "lowerAscii" | "upperAscii" | "trim", [String, ..]) if member => String,
        ("findAll" | "split", [String, String, ..]) if member => list_of(String),
        ("isSorted", [List(_)]) if member => Bool,
        ("int", [Int | UInt | Double | String | Timestamp | Duration]) => Int,
        ("uint", [Int | UInt | Double | String]) => UInt,
        ("double", [Int | UInt | Double | String]) => Double,
        ("string", [Bool | Int | UInt | Double | String | Bytes | Duration | Timestamp]) => String,
        ("duration", [String | Duration]) => Duration,
        ("timestamp", [String | Timestamp | Int]) => Timestamp,
        (name, _) if IS_TOLD.contains(&name) => return None,
        _ => Any,
    })
}

/// Names whose overloads are all told by [`called`].
const IS_TOLD: &[&str] = &[
    "getFullYear",
    "getMonth",
    "getDayOfYear",
    "getDayOfMonth",
    "getDate",
    "getDayOfWeek",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
    "_==_",
    "_!=_",
    "_<_",
    "_<=_",
    "_>_",
    "_>=_",
    "_&&_",
    "_||_",
    "!_",
    "_?_:_",
    "_+_",
    "_-_",
    "_*_",
    "_/_",
    "_%_",
    "-_",
    "@in",
    "_[_]",
    "_[?_]",
    "hasValue",
    "value",
    "orValue",
    "or",
    "size",
    "startsWith",
    "endsWith",
    "matches",
    "find",
    "findAll",
    "split",
    "isSorted",
    "lowerAscii",
    "upperAscii",
    "trim",
    "int",
    "double",
];

/// Functions, by their names or by those of their libraries.
pub(super) fn is_function(name: &str) -> bool {
    const LIBRARIES: &[&str] = &[
        "optional.",
        "sets.",
        "format.",
        "jsonpatch.",
        "strings.",
        "math.",
        "ip.",
    ];
    const NAMES: &[&str] = &[
        "add",
        "all",
        "asApproximateFloat",
        "asInteger",
        "base64.decode",
        "base64.encode",
        "bool",
        "bytes",
        "charAt",
        "cidr",
        "compareTo",
        "contains",
        "containsCIDR",
        "containsIP",
        "distinct",
        "double",
        "duration",
        "dyn",
        "endsWith",
        "exists",
        "existsOne",
        "exists_one",
        "family",
        "filter",
        "find",
        "findAll",
        "first",
        "flatten",
        "format",
        "getDate",
        "getDayOfMonth",
        "getDayOfWeek",
        "getDayOfYear",
        "getEscapedPath",
        "getFullYear",
        "getHost",
        "getHostname",
        "getHours",
        "getMilliseconds",
        "getMinutes",
        "getMonth",
        "getPort",
        "getQuery",
        "getScheme",
        "getSeconds",
        "has",
        "hasValue",
        "indexOf",
        "int",
        "ip",
        "isCIDR",
        "isGlobalUnicast",
        "isGreaterThan",
        "isIP",
        "isInteger",
        "isLessThan",
        "isLinkLocalMulticast",
        "isLinkLocalUnicast",
        "isLoopback",
        "isQuantity",
        "isSemver",
        "isSorted",
        "isURL",
        "isUnspecified",
        "join",
        "last",
        "lastIndexOf",
        "lists.range",
        "lowerAscii",
        "major",
        "map",
        "masked",
        "matches",
        "max",
        "min",
        "minor",
        "or",
        "orValue",
        "patch",
        "prefixLength",
        "quantity",
        "quote",
        "replace",
        "reverse",
        "semver",
        "sign",
        "size",
        "slice",
        "sort",
        "sortBy",
        "split",
        "startsWith",
        "string",
        "sub",
        "substring",
        "sum",
        "timestamp",
        "transformList",
        "transformMap",
        "transformMapEntry",
        "trim",
        "type",
        "uint",
        "unwrapOpt",
        "upperAscii",
        "url",
        "validate",
        "value",
    ];
    LIBRARIES.iter().any(|l| name.starts_with(l)) || NAMES.contains(&name)
}

/// Names of types, which expressions may compare with.
pub(super) fn is_type(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "bool",
        "bytes",
        "double",
        "int",
        "list",
        "map",
        "null_type",
        "string",
        "type",
        "uint",
        "google",
    ];
    NAMES.contains(&name)
}

/// What variables are of which types.
pub type Variables<'a> = HashMap<String, Type<'a>>;
