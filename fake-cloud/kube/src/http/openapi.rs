//! OpenAPI documents: v3 for `kubectl explain` and so that kubectl lets the server validate fields; of v2, which kubectl
//! reads for lists of mixed kinds, a document without definitions: what it does not know it leaves to the server.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use http::Response;
use serde_json::{Map, Value, json};

use super::body::ResponseBody;
use super::respond;
use crate::error::{ApiError, Result};
use crate::registry::{Registry, ResourceInfo, VersionInfo};
use crate::wire::types::{self, Field, Kind};

const TITLE: &str = "Kubernetes";
const VERSION: &str = super::discovery::VERSION.2;

/// The media type of the v2 document that kubectl asks for.
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Answers `/openapi/...`.
///
/// # Errors
/// 404.
pub fn answer(registry: &Registry, path: &str, accept: &str) -> Result<Response<ResponseBody>> {
    if path.trim_end_matches('/') == "/openapi/v2" {
        return Ok(second(accept));
    }
    let below = path
        .strip_prefix("/openapi/v3")
        .ok_or_else(ApiError::no_such_page)?;
    let all = group_versions(registry);
    let document = match below.trim_matches('/') {
        "" => {
            let paths: Map<String, Value> = all
                .iter()
                .map(|(path, group, version)| {
                    let mut hasher = DefaultHasher::new();
                    document(registry, group, version)
                        .to_string()
                        .hash(&mut hasher);
                    let url = format!("/openapi/v3/{path}?hash={:016X}", hasher.finish());
                    (path.clone(), json!({"serverRelativeURL": url}))
                })
                .collect();
            json!({"paths": paths})
        }
        wanted => {
            let (_, group, version) = all
                .iter()
                .find(|(path, _, _)| path == wanted)
                .ok_or_else(ApiError::no_such_page)?;
            document(registry, group, version)
        }
    };
    Ok(respond::document(200, &document))
}

/// The v2 document, in JSON or in protobuf: fields 1 (swagger) and 2 (info: 1 title, 2 version).
fn second(accept: &str) -> Response<ResponseBody> {
    if !accept.contains("protobuf") {
        let info = json!({"title": TITLE, "version": VERSION});
        let document = json!({"swagger": "2.0", "info": info, "paths": {}, "definitions": {}});
        return respond::document(200, &document);
    }
    let field = |number: u8, content: &[u8]| {
        let mut out = vec![
            number << 3 | 2,
            u8::try_from(content.len()).unwrap_or(u8::MAX),
        ];
        out.extend_from_slice(content);
        out
    };
    let info = [field(1, TITLE.as_bytes()), field(2, VERSION.as_bytes())].concat();
    let document = [field(1, b"2.0"), field(2, &info)].concat();
    respond::bytes(200, V2_PROTOBUF, document)
}

fn group_versions(registry: &Registry) -> Vec<(String, String, String)> {
    let mut all = Vec::new();
    for (group, _) in registry.groups() {
        for version in registry.versions(group) {
            let path = if group.is_empty() {
                format!("api/{version}")
            } else {
                format!("apis/{group}/{version}")
            };
            all.push((path, group.to_owned(), version));
        }
    }
    all
}

fn document(registry: &Registry, group: &str, version: &str) -> Value {
    let mut paths = Map::new();
    let mut schemas = BTreeMap::new();
    let resources = registry
        .groups()
        .filter(|(name, _)| *name == group)
        .flat_map(|(_, resources)| resources.values());
    for info in resources {
        let Some(v) = info.served(version) else {
            continue;
        };
        let name = schema_name(info, version);
        paths.insert(object_path(info, version), operations(info, version, &name));
        let mut schema = schema(info, v, &mut schemas);
        if let Some(map) = schema.as_object_mut() {
            let kind = json!([{"group": info.group, "version": v.name, "kind": info.kind}]);
            map.insert("x-kubernetes-group-version-kind".into(), kind);
        }
        schemas.insert(name, schema);
    }
    json!({
        "openapi": "3.0.0", "info": {"title": TITLE, "version": VERSION},
        "paths": paths, "components": {"schemas": schemas},
    })
}

fn object_path(info: &ResourceInfo, version: &str) -> String {
    let root = if info.group.is_empty() {
        format!("/api/{version}")
    } else {
        format!("/apis/{}/{version}", info.group)
    };
    let namespace = if info.namespaced {
        "/namespaces/{namespace}"
    } else {
        ""
    };
    format!("{root}{namespace}/{}/{{name}}", info.plural)
}

fn built_in(info: &ResourceInfo, version: &str) -> Option<&'static str> {
    types::all()
        .of_kind(&info.api_version(version), &info.kind)
        .filter(|_| !info.custom)
}

fn schema_name(info: &ResourceInfo, version: &str) -> String {
    if let Some(name) = built_in(info, version) {
        return definition(name);
    }
    let parts: Vec<&str> = info
        .group
        .split('.')
        .rev()
        .filter(|p| !p.is_empty())
        .collect();
    format!("{}.{version}.{}", parts.join("."), info.kind)
}

/// The name of a Go type's definition.
fn definition(name: &str) -> String {
    if name.starts_with("meta.") {
        format!("io.k8s.apimachinery.pkg.apis.{name}")
    } else {
        format!("io.k8s.api.{name}")
    }
}

fn operations(info: &ResourceInfo, version: &str, schema: &str) -> Value {
    let kind = json!({"group": info.group, "version": version, "kind": info.kind});
    let query = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string"}});
    let parameters = json!([
        query("dryRun"),
        query("fieldManager"),
        query("fieldValidation"),
        query("force")
    ]);
    let body = json!({"$ref": format!("#/components/schemas/{schema}")});
    let answer =
        json!({"200": {"description": "OK", "content": {"application/json": {"schema": body}}}});
    json!({
        "get": {"responses": answer, "x-kubernetes-action": "get", "x-kubernetes-group-version-kind": kind},
        "put": {"responses": answer, "parameters": parameters, "x-kubernetes-action": "put", "x-kubernetes-group-version-kind": kind},
        // Strategic patches are left out on purpose: kubectl then computes them from the types it has built in,
        // which know merge keys that these schemas do not.
        "patch": {
            "requestBody": {"content": {
                "application/apply-patch+yaml": {"schema": {"type": "object"}},
                "application/json-patch+json": {"schema": {"type": "object"}},
                "application/merge-patch+json": {"schema": {"type": "object"}},
            }},
            "responses": answer, "parameters": parameters,
            "x-kubernetes-action": "patch", "x-kubernetes-group-version-kind": kind,
        },
    })
}

/// The schema of a resource; the definitions that it refers to are added to `all`.
fn schema(info: &ResourceInfo, version: &VersionInfo, all: &mut BTreeMap<String, Value>) -> Value {
    let Some(name) = built_in(info, &version.name) else {
        return version.schema.as_ref().map_or_else(
            || json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
            |s| s.raw.clone(),
        );
    };
    let mut schema = object(name, all);
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        for key in ["apiVersion", "kind"] {
            properties.insert(key.into(), json!({"type": "string"}));
        }
    }
    schema
}

/// A Go type as a schema.
fn object(name: &str, all: &mut BTreeMap<String, Value>) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    members(name, &mut properties, &mut required, all);
    let mut schema = json!({"type": "object", "properties": properties});
    if let (false, Some(map)) = (required.is_empty(), schema.as_object_mut()) {
        map.insert("required".into(), required.into());
    }
    schema
}

fn members(
    name: &str,
    properties: &mut Map<String, Value>,
    required: &mut Vec<&'static str>,
    all: &mut BTreeMap<String, Value>,
) {
    for field in types::all().fields(name) {
        match (field.name, &field.kind) {
            (Some(key), kind) => {
                properties.insert(key.to_owned(), of_kind(kind, all));
                if is_required(field) {
                    required.push(key);
                }
            }
            (None, Kind::Type(below)) => members(below, properties, required, all),
            (None, _) => {}
        }
    }
}

/// What Go always writes has to be there, but for structures, which it writes even where they are optional.
fn is_required(field: &Field) -> bool {
    !field.omits_empty
        && !field.pointer
        && !matches!(field.kind, Kind::Type(_) | Kind::Time | Kind::MicroTime)
}

fn of_kind(kind: &Kind, all: &mut BTreeMap<String, Value>) -> Value {
    match kind {
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Int32 => json!({"type": "integer", "format": "int32"}),
        Kind::Int64 => json!({"type": "integer", "format": "int64"}),
        Kind::Double => json!({"type": "number", "format": "double"}),
        Kind::String => json!({"type": "string"}),
        Kind::Bytes => json!({"type": "string", "format": "byte"}),
        Kind::Time | Kind::MicroTime => json!({"type": "string", "format": "date-time"}),
        Kind::Quantity => named(
            "io.k8s.apimachinery.pkg.api.resource.Quantity",
            all,
            || json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        ),
        Kind::IntOrString => named(
            "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
            all,
            || json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}),
        ),
        Kind::FieldsV1 | Kind::Raw => json!({"type": "object"}),
        Kind::List(item) => json!({"type": "array", "items": of_kind(item, all)}),
        Kind::Map(value) => json!({"type": "object", "additionalProperties": of_kind(value, all)}),
        Kind::MapOfLists(item) => {
            let list = json!({"type": "array", "items": of_kind(item, all)});
            json!({"type": "object", "additionalProperties": list})
        }
        Kind::Type(name) => {
            let definition = definition(name);
            if !all.contains_key(&definition) {
                // Its place is taken first: types refer to themselves.
                all.insert(definition.clone(), Value::Null);
                let schema = object(name, all);
                all.insert(definition.clone(), schema);
            }
            reference(&definition)
        }
    }
}

fn named(name: &str, all: &mut BTreeMap<String, Value>, schema: fn() -> Value) -> Value {
    all.entry(name.to_owned()).or_insert_with(schema);
    reference(name)
}

fn reference(name: &str) -> Value {
    json!({"allOf": [{"$ref": format!("#/components/schemas/{name}")}]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_to_a_definition() {
        fn check(value: &Value, schemas: &Map<String, Value>) {
            match value {
                Value::Object(map) => {
                    if let Some(to) = map.get("$ref").and_then(Value::as_str) {
                        let name = to.strip_prefix("#/components/schemas/").unwrap();
                        assert!(schemas.get(name).is_some_and(Value::is_object), "{name}");
                    }
                    map.values().for_each(|v| check(v, schemas));
                }
                Value::Array(items) => items.iter().for_each(|v| check(v, schemas)),
                _ => {}
            }
        }
        let registry = Registry::default();
        for (_, group, version) in group_versions(&registry) {
            let document = document(&registry, &group, &version);
            let schemas = document["components"]["schemas"].as_object().unwrap();
            check(&document, schemas);
        }
    }
}
