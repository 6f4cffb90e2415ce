//! Tables: what `kubectl get` prints, as the server words it.

pub mod age;
pub mod columns;
pub mod jsonpath;
pub mod pods;
pub mod render;
pub mod small;
pub mod workloads;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::meta;
use crate::ops::Target;
use crate::tokens;

/// How a client wants objects shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// As they are.
    Object,
    /// As rows of a table; with what of the object in each row, and the time ages are counted to (seconds).
    Table {
        /// What rows carry of their object.
        include: Include,
        /// Now, in seconds of Unix time.
        now_seconds: i64,
    },
    /// Only their metadata (`PartialObjectMetadata`).
    Metadata,
}

/// What a row carries of its object (`includeObject`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// Its metadata.
    Metadata,
    /// All of it.
    Object,
}

/// A table of objects, or an object's metadata.
#[must_use]
pub fn of_objects(target: &Target, objects: &[Arc<Value>], show: &Show, metadata: &Value) -> Value {
    match show {
        Show::Object | Show::Metadata => objects.first().map_or(Value::Null, |o| partial(o)),
        Show::Table {
            include,
            now_seconds,
        } => {
            let columns = columns::of(target);
            let definitions: Vec<Value> = columns
                .iter()
                .map(|c| {
                    json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority})
                })
                .collect();
            let rows: Vec<Value> = objects
                .iter()
                .map(|object| {
                    let mut row =
                        json!({"cells": render::cells(target, &columns, object, *now_seconds)});
                    let shown = match include {
                        Include::None => None,
                        Include::Metadata => Some(partial(object)),
                        Include::Object => {
                            let whole = tokens::in_full(object);
                            Some(whole.unwrap_or_else(|| Value::clone(object)))
                        }
                    };
                    if let Some(shown) = shown {
                        meta::as_map(&mut row).insert("object".into(), shown);
                    }
                    row
                })
                .collect();
            json!({
                "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                "columnDefinitions": definitions, "rows": rows,
            })
        }
    }
}

/// The lists of `PartialObjectMetadata`.
#[must_use]
pub fn partial_list(objects: &[Arc<Value>], metadata: &Value) -> Value {
    let items: Vec<Value> = objects.iter().map(|o| partial(o)).collect();
    json!({
        "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items,
    })
}

fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| json!({})),
    })
}
