//! A structural schema of one version of a custom resource, read once into a tree that every object is walked along.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use super::rules::Rules;
use crate::error::FieldError;
use crate::meta::text;

/// Deepest nesting that is read; the real server's cost limits stop far earlier.
const DEPTH_MAX: usize = 64;

/// JSON type of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Not given (only legal beside int-or-string and preserved nodes).
    Any,
    /// `object`.
    Object,
    /// `array`.
    Array,
    /// `string`.
    String,
    /// `integer`.
    Integer,
    /// `number`.
    Number,
    /// `boolean`.
    Boolean,
}

impl Type {
    /// The schema's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// How a list merges and what makes its elements distinct.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// One value as a whole.
    #[default]
    Atomic,
    /// Distinct scalars.
    Set,
    /// Objects distinct by these keys.
    Map(Vec<String>),
}

/// A bound on a number.
#[derive(Clone, Debug)]
pub struct Bound {
    /// The bound as written.
    pub value: Value,
    /// Whether the bound itself is out.
    pub exclusive: bool,
}

/// Value rules of a node that do not describe structure; the branches of `allOf` and its kin hold such nodes, too.
#[derive(Debug, Default)]
pub struct Checks {
    /// `enum`.
    pub one_of_values: Vec<Value>,
    /// `pattern`, compiled; none when it cannot be.
    pub pattern: Option<(String, Regex)>,
    /// `minimum`.
    pub minimum: Option<Bound>,
    /// `maximum`.
    pub maximum: Option<Bound>,
    /// `multipleOf`.
    pub multiple_of: Option<f64>,
    /// `minLength`, in characters.
    pub min_length: Option<u64>,
    /// `maxLength`, in characters.
    pub max_length: Option<u64>,
    /// `minItems`.
    pub min_items: Option<u64>,
    /// `maxItems`.
    pub max_items: Option<u64>,
    /// `minProperties`.
    pub min_properties: Option<u64>,
    /// `maxProperties`.
    pub max_properties: Option<u64>,
    /// `format`.
    pub format: String,
    /// `required`.
    pub required: Vec<String>,
    /// `allOf`.
    pub all_of: Vec<Schema>,
    /// `anyOf`.
    pub any_of: Vec<Schema>,
    /// `oneOf`.
    pub one_of: Vec<Schema>,
    /// `not`.
    pub not: Option<Box<Schema>>,
}

/// A node.
#[derive(Debug)]
pub struct Schema {
    /// JSON type.
    pub kind: Type,
    /// `properties`.
    pub properties: BTreeMap<String, Schema>,
    /// `items`.
    pub items: Option<Box<Schema>>,
    /// `additionalProperties` with a schema.
    pub values: Option<Box<Schema>>,
    /// `additionalProperties: true`.
    pub any_values: bool,
    /// `default`.
    pub default: Option<Value>,
    /// `nullable`.
    pub nullable: bool,
    /// `x-kubernetes-preserve-unknown-fields`.
    pub preserve: bool,
    /// `x-kubernetes-int-or-string`.
    pub int_or_string: bool,
    /// `x-kubernetes-embedded-resource`.
    pub embedded: bool,
    /// `x-kubernetes-list-type`, `x-kubernetes-list-map-keys`.
    pub list: ListType,
    /// `x-kubernetes-map-type: atomic`.
    pub atomic_map: bool,
    /// Value rules.
    pub checks: Checks,
    /// `x-kubernetes-validations`.
    pub rules: Option<Rules>,
    /// Whether this node or one below has a default.
    pub has_defaults: bool,
    /// Whether there are rules here or below.
    pub has_rules: bool,
}

/// A structural schema, ready to default, prune and validate objects.
#[derive(Debug)]
pub struct CrdSchema {
    /// The schema as the definition has it.
    pub raw: Value,
    /// Its tree.
    pub root: Schema,
    /// What is wrong with the schema itself; the definition is refused for these.
    pub errors: Vec<FieldError>,
}

impl CrdSchema {
    /// Reads a schema; errors name fields below `path`.
    #[must_use]
    pub fn new(schema: &Value, path: &str) -> Self {
        let mut errors = Vec::new();
        let root = read(schema, path, 0, &mut errors);
        require_types(schema, path, 0, &mut errors);
        Self {
            raw: schema.clone(),
            root,
            errors,
        }
    }
}

fn read(schema: &Value, path: &str, depth: usize, errors: &mut Vec<FieldError>) -> Schema {
    let flag = |key: &str| schema.get(key).and_then(Value::as_bool).unwrap_or(false);
    let too_deep = depth >= DEPTH_MAX;
    if too_deep {
        errors.push(FieldError::forbidden(
            path,
            format!("schemas nest at most {DEPTH_MAX} levels"),
        ));
    }
    let mut properties = BTreeMap::new();
    if !too_deep {
        for (name, below) in schema
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let path = format!("{path}.properties[{name}]");
            properties.insert(name.clone(), read(below, &path, depth + 1, errors));
        }
    }
    let mut child = |key: &str| -> Option<Box<Schema>> {
        let below = schema.get(key).filter(|v| v.is_object() && !too_deep)?;
        Some(Box::new(read(
            below,
            &format!("{path}.{key}"),
            depth + 1,
            errors,
        )))
    };
    let items = child("items");
    let values = child("additionalProperties");
    let checks = checks(schema, path, depth, errors);
    let resource = depth == 0 || flag("x-kubernetes-embedded-resource");
    let rules = Rules::read(schema, resource, path, errors);
    let has_defaults = schema.get("default").is_some()
        || properties.values().any(|s| s.has_defaults)
        || items.as_ref().is_some_and(|s| s.has_defaults)
        || values.as_ref().is_some_and(|s| s.has_defaults);
    let has_rules = rules.is_some()
        || properties.values().any(|s| s.has_rules)
        || items.as_ref().is_some_and(|s| s.has_rules)
        || values.as_ref().is_some_and(|s| s.has_rules);
    Schema {
        kind: kind(schema),
        properties,
        items,
        values,
        any_values: flag("additionalProperties"),
        default: schema.get("default").cloned(),
        nullable: flag("nullable"),
        preserve: flag("x-kubernetes-preserve-unknown-fields"),
        int_or_string: flag("x-kubernetes-int-or-string"),
        embedded: flag("x-kubernetes-embedded-resource"),
        list: list_type(schema),
        atomic_map: text(schema, &["x-kubernetes-map-type"]) == "atomic",
        checks,
        rules,
        has_defaults,
        has_rules,
    }
}

/// Fields, items and values have types; branches of `anyOf` and its like have none of their own.
fn require_types(schema: &Value, path: &str, depth: usize, errors: &mut Vec<FieldError>) {
    if depth >= DEPTH_MAX {
        return;
    }
    let fields = schema.get("properties").and_then(Value::as_object);
    for (name, below) in fields.into_iter().flatten() {
        let path = format!("{path}.properties[{name}]");
        require_type(below, &path, "specified object fields", errors);
        require_types(below, &path, depth + 1, errors);
    }
    for (key, of) in [
        ("items", "array items"),
        ("additionalProperties", "object fields"),
    ] {
        if let Some(below) = schema.get(key).filter(|v| v.is_object()) {
            let path = format!("{path}.{key}");
            require_type(below, &path, &format!("specified {of}"), errors);
            require_types(below, &path, depth + 1, errors);
        }
    }
}

/// What is specified has a type, unless anything may be there.
fn require_type(schema: &Value, path: &str, of: &str, errors: &mut Vec<FieldError>) {
    let flag = |key: &str| schema.get(key) == Some(&Value::Bool(true));
    let free = flag("x-kubernetes-int-or-string") || flag("x-kubernetes-preserve-unknown-fields");
    if text(schema, &["type"]).is_empty() && !free {
        errors.push(FieldError::required(
            &format!("{path}.type"),
            format!("must not be empty for {of}"),
        ));
    }
}

fn kind(schema: &Value) -> Type {
    match text(schema, &["type"]) {
        "object" => Type::Object,
        "array" => Type::Array,
        "string" => Type::String,
        "integer" => Type::Integer,
        "number" => Type::Number,
        "boolean" => Type::Boolean,
        _ => Type::Any,
    }
}

fn list_type(schema: &Value) -> ListType {
    match text(schema, &["x-kubernetes-list-type"]) {
        "set" => ListType::Set,
        "map" => ListType::Map(strings(schema.get("x-kubernetes-list-map-keys"))),
        _ => ListType::Atomic,
    }
}

fn strings(list: Option<&Value>) -> Vec<String> {
    list.and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect()
}

fn checks(schema: &Value, path: &str, depth: usize, errors: &mut Vec<FieldError>) -> Checks {
    let flag = |key: &str| schema.get(key).and_then(Value::as_bool).unwrap_or(false);
    let bound = |key: &str, exclusive: &str| {
        schema
            .get(key)
            .filter(|v| v.is_number())
            .map(|value| Bound {
                value: value.clone(),
                exclusive: flag(exclusive),
            })
    };
    let count = |key: &str| schema.get(key).and_then(Value::as_u64);
    let pattern = text(schema, &["pattern"]);
    let pattern = if pattern.is_empty() {
        None
    } else {
        match Regex::new(pattern) {
            Ok(regex) => Some((pattern.to_owned(), regex)),
            Err(error) => {
                let why = format!("must be a valid regular expression, but isn't: {error}");
                errors.push(FieldError::invalid(
                    &format!("{path}.pattern"),
                    pattern,
                    why,
                ));
                None
            }
        }
    };
    let mut branches = |key: &str| -> Vec<Schema> {
        if depth >= DEPTH_MAX {
            return Vec::new();
        }
        let list = schema.get(key).and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .enumerate()
            .map(|(i, below)| read(below, &format!("{path}.{key}[{i}]"), depth + 1, errors))
            .collect()
    };
    let (all_of, any_of, one_of) = (branches("allOf"), branches("anyOf"), branches("oneOf"));
    let not = schema
        .get("not")
        .filter(|_| depth < DEPTH_MAX)
        .map(|below| Box::new(read(below, &format!("{path}.not"), depth + 1, errors)));
    Checks {
        one_of_values: schema
            .get("enum")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default(),
        pattern,
        minimum: bound("minimum", "exclusiveMinimum"),
        maximum: bound("maximum", "exclusiveMaximum"),
        multiple_of: schema.get("multipleOf").and_then(Value::as_f64),
        min_length: count("minLength"),
        max_length: count("maxLength"),
        min_items: count("minItems"),
        max_items: count("maxItems"),
        min_properties: count("minProperties"),
        max_properties: count("maxProperties"),
        format: text(schema, &["format"]).to_owned(),
        required: strings(schema.get("required")),
        all_of,
        any_of,
        one_of,
        not,
    }
}
