//! A small language for structural schemas: functions that return JSON, so that a CustomResourceDefinition reads
//! like the type it describes. Patterns and bounds are those of Karpenter v1.14; objects that pass there pass here.

use serde_json::{Map, Value, json};

/// Patterns that several fields share.
pub mod pattern {
    /// A quantity.
    pub const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";
    /// A label key.
    pub const LABEL_KEY: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*(\/))?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$";
    /// A label value.
    pub const LABEL_VALUE: &str = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";
    /// A duration or `Never`.
    pub const NILLABLE_DURATION: &str = r"^(([0-9]+(s|m|h))+|Never)$";
    /// A duration.
    pub const DURATION: &str = r"^([0-9]+(s|m|h))+$";
    /// A condition type.
    pub const CONDITION_TYPE: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$";
    /// A condition reason.
    pub const CONDITION_REASON: &str = r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$";
    /// A condition reason that may be empty.
    pub const CONDITION_REASON_OR_EMPTY: &str = r"^([A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?|)$";
}

/// Adds the fields of `more` to the schema `base`.
#[must_use]
pub fn with(base: Value, more: Value) -> Value {
    match (base, more) {
        (Value::Object(mut a), Value::Object(b)) => {
            a.extend(b);
            Value::Object(a)
        }
        (base, _) => base,
    }
}

/// Adds a description.
#[must_use]
pub fn doc(text: &str, schema: Value) -> Value {
    with(schema, json!({ "description": text }))
}

/// Adds a default.
#[must_use]
pub fn default(value: &Value, schema: Value) -> Value {
    with(schema, json!({ "default": value }))
}

/// Adds CEL rules, each with what it asks for.
#[must_use]
pub fn rules(rules: &[(&str, &str)], schema: Value) -> Value {
    let list: Vec<Value> = rules
        .iter()
        .map(|(rule, message)| json!({ "rule": rule, "message": message }))
        .collect();
    with(schema, json!({ "x-kubernetes-validations": list }))
}

/// Any text.
#[must_use]
pub fn text() -> Value {
    json!({ "type": "string" })
}

/// Text of a pattern.
#[must_use]
pub fn matching(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": pattern })
}

/// One of some words.
#[must_use]
pub fn one_of(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}

/// A point in time.
#[must_use]
pub fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

/// True or false.
#[must_use]
pub fn boolean() -> Value {
    json!({ "type": "boolean" })
}

/// An integer of 32 bits.
#[must_use]
pub fn int32() -> Value {
    json!({ "type": "integer", "format": "int32" })
}

/// An integer of 64 bits.
#[must_use]
pub fn int64() -> Value {
    json!({ "type": "integer", "format": "int64" })
}

/// Bounds of an integer, both included.
#[must_use]
pub fn bounded(min: i64, max: Option<i64>, schema: Value) -> Value {
    let schema = with(schema, json!({ "minimum": min }));
    match max {
        Some(max) => with(schema, json!({ "maximum": max })),
        None => schema,
    }
}

/// A quantity: number or text.
#[must_use]
pub fn quantity() -> Value {
    json!({
        "anyOf": [{ "type": "integer" }, { "type": "string" }],
        "pattern": pattern::QUANTITY,
        "x-kubernetes-int-or-string": true,
    })
}

/// Resource names to quantities.
#[must_use]
pub fn resources() -> Value {
    map(quantity())
}

/// A map of text to `values`.
#[must_use]
pub fn map(values: Value) -> Value {
    json!({ "type": "object", "additionalProperties": values })
}

/// An object with these fields, the required ones named.
#[must_use]
pub fn object(fields: Vec<(&str, Value)>, required: &[&str]) -> Value {
    let properties: Map<String, Value> = fields
        .into_iter()
        .map(|(name, schema)| (name.to_owned(), schema))
        .collect();
    let mut out = json!({ "type": "object", "properties": properties });
    if !required.is_empty() {
        out = with(out, json!({ "required": required }));
    }
    out
}

/// A list.
#[must_use]
pub fn list(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

/// A list that is replaced as a whole when applied.
#[must_use]
pub fn atomic(items: Value) -> Value {
    with(list(items), json!({ "x-kubernetes-list-type": "atomic" }))
}

/// Most entries of a list.
#[must_use]
pub fn at_most(max: u32, schema: Value) -> Value {
    with(schema, json!({ "maxItems": max }))
}

/// Conditions. `keyed` makes apply merge them by type; `reason` is the pattern of reasons, and whether reason and
/// message have to be there.
#[must_use]
pub fn conditions(keyed: bool, reason_may_be_empty: bool) -> Value {
    let (reason, required): (Value, &[&str]) = if reason_may_be_empty {
        (
            with(
                matching(pattern::CONDITION_REASON_OR_EMPTY),
                json!({ "maxLength": 1024 }),
            ),
            &["lastTransitionTime", "status", "type"],
        )
    } else {
        (
            with(
                matching(pattern::CONDITION_REASON),
                json!({ "maxLength": 1024, "minLength": 1 }),
            ),
            &["lastTransitionTime", "message", "reason", "status", "type"],
        )
    };
    let item = object(
        vec![
            (
                "type",
                with(
                    matching(pattern::CONDITION_TYPE),
                    json!({ "maxLength": 316 }),
                ),
            ),
            ("status", one_of(&["True", "False", "Unknown"])),
            ("reason", reason),
            ("message", with(text(), json!({ "maxLength": 32768 }))),
            ("lastTransitionTime", time()),
            ("observedGeneration", bounded(0, None, int64())),
        ],
        required,
    );
    let schema = doc("What is known about the object.", list(item));
    if keyed {
        with(
            schema,
            json!({ "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"] }),
        )
    } else {
        schema
    }
}

/// A column of `kubectl get`; `wide` ones show with `-o wide`.
#[must_use]
pub fn column(name: &str, kind: &str, path: &str, wide: bool) -> Value {
    let column = json!({ "name": name, "type": kind, "jsonPath": path });
    if wide {
        with(column, json!({ "priority": 1 }))
    } else {
        column
    }
}

/// Path of a condition's status.
#[must_use]
pub fn condition_path(kind: &str) -> String {
    format!(".status.conditions[?(@.type==\"{kind}\")].status")
}

/// The Age column.
#[must_use]
pub fn age() -> Value {
    column("Age", "date", ".metadata.creationTimestamp", false)
}

/// Names of a definition.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// API group.
    pub group: &'a str,
    /// Version.
    pub version: &'a str,
    /// Kind.
    pub kind: &'a str,
    /// Plural.
    pub plural: &'a str,
    /// Singular.
    pub singular: &'a str,
    /// Short names.
    pub short: &'a [&'a str],
    /// Category.
    pub category: &'a str,
    /// Whether it lives in namespaces.
    pub namespaced: bool,
    /// Whether `spec` has to be there.
    pub spec_required: bool,
}

/// A CustomResourceDefinition with one version and a status subresource; `extra` joins the subresources.
#[must_use]
pub fn definition(
    n: &Names<'_>,
    about: &str,
    columns: Vec<Value>,
    spec: Value,
    status: Value,
    extra: Option<Value>,
) -> Value {
    let required: &[&str] = if n.spec_required { &["spec"] } else { &[] };
    let schema = object(
        vec![
            ("apiVersion", text()),
            ("kind", text()),
            ("metadata", json!({ "type": "object" })),
            ("spec", spec),
            ("status", status),
        ],
        required,
    );
    let mut subresources = json!({ "status": {} });
    if let Some(extra) = extra {
        subresources = with(subresources, extra);
    }
    let mut version = json!({
        "name": n.version,
        "served": true,
        "storage": true,
        "schema": { "openAPIV3Schema": doc(about, schema) },
        "subresources": subresources,
    });
    if !columns.is_empty() {
        version = with(version, json!({ "additionalPrinterColumns": columns }));
    }
    let mut names = json!({
        "kind": n.kind,
        "listKind": format!("{}List", n.kind),
        "plural": n.plural,
        "singular": n.singular,
        "categories": [n.category],
    });
    if !n.short.is_empty() {
        names = with(names, json!({ "shortNames": n.short }));
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{}.{}", n.plural, n.group) },
        "spec": {
            "group": n.group,
            "names": names,
            "scope": if n.namespaced { "Namespaced" } else { "Cluster" },
            "versions": [version],
        },
    })
}
