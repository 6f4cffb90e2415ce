//! OpenAPI v3 documents: enough for kubectl to let the server validate fields and to explain custom resources. There
//! is no v2 document: kubectl falls back to what it knows of built-in kinds.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use http::Response;
use serde_json::{Map, Value, json};

use super::body::ResponseBody;
use super::respond;
use crate::error::{ApiError, Result};
use crate::registry::{Registry, ResourceInfo, VersionInfo};

/// Answers `/openapi/...`.
///
/// # Errors
/// 404.
pub fn answer(registry: &Registry, path: &str) -> Result<Response<ResponseBody>> {
    let below = path
        .strip_prefix("/openapi/v3")
        .ok_or_else(ApiError::no_such_resource)?;
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
                .ok_or_else(ApiError::no_such_resource)?;
            document(registry, group, version)
        }
    };
    Ok(respond::document(200, &document))
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
    let mut schemas = Map::new();
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
        schemas.insert(name, schema(info, v));
    }
    json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.36.1"},
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

fn schema_name(info: &ResourceInfo, version: &str) -> String {
    let mut parts: Vec<&str> = info
        .group
        .split('.')
        .rev()
        .filter(|p| !p.is_empty())
        .collect();
    if parts.is_empty() {
        parts = vec!["io", "k8s", "api", "core"];
    }
    format!("{}.{version}.{}", parts.join("."), info.kind)
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

fn schema(info: &ResourceInfo, version: &VersionInfo) -> Value {
    let mut schema = version.schema.as_ref().map_or_else(
        || json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
        |s| s.raw.clone(),
    );
    if let Some(map) = schema.as_object_mut() {
        map.insert(
            "x-kubernetes-group-version-kind".into(),
            json!([{"group": info.group, "version": version.name, "kind": info.kind}]),
        );
    }
    schema
}
