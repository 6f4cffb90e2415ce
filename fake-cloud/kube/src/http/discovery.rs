//! Discovery: what is served, in the aggregated and the older form, and the server's own documents.

use http::Response;
use serde_json::{Value, json};

use super::body::ResponseBody;
use super::path::Path;
use super::respond;
use crate::error::{ApiError, Result};
use crate::registry::{Registry, ResourceInfo, VersionInfo};
use crate::server::ApiServer;

/// The Kubernetes version the server says it is.
pub(super) const VERSION: (&str, &str, &str) = ("1", "36", "v1.36.1");

const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// Answers what is not about objects.
///
/// # Errors
/// 404.
pub fn answer(server: &ApiServer, path: &Path, accept: &str) -> Result<Response<ResponseBody>> {
    let state = server.inner.state.lock();
    let registry = &state.registry;
    let aggregated = accept.contains("as=APIGroupDiscoveryList") && accept.contains("v=v2");
    let document = match path {
        Path::CoreVersions if aggregated => return Ok(aggregate(registry, true)),
        Path::Groups if aggregated => return Ok(aggregate(registry, false)),
        Path::CoreVersions => json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1"}],
        }),
        Path::Groups => {
            let groups: Vec<Value> = registry
                .groups()
                .filter(|(name, _)| !name.is_empty())
                .map(|(name, _)| group(registry, name))
                .collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        Path::Group(name) => {
            if registry.groups().all(|(known, _)| known != name) {
                return Err(ApiError::no_such_page());
            }
            let mut document = group(registry, name);
            if let Some(map) = document.as_object_mut() {
                map.insert("kind".into(), "APIGroup".into());
                map.insert("apiVersion".into(), "v1".into());
            }
            document
        }
        Path::Resources { group, version } => resources(registry, group, version)?,
        Path::Other(path) => return other(registry, path, accept),
        Path::Objects(_) => return Err(ApiError::no_such_resource()),
    };
    Ok(respond::document(200, &document))
}

fn other(registry: &Registry, path: &str, accept: &str) -> Result<Response<ResponseBody>> {
    let path = path.trim_end_matches('/');
    Ok(match path {
        "/version" => {
            let (major, minor, git) = VERSION;
            respond::document(
                200,
                &json!({
                    "major": major, "minor": minor, "gitVersion": git, "gitCommit": "", "gitTreeState": "clean",
                    "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "", "platform": "linux/amd64",
                }),
            )
        }
        "/healthz" | "/readyz" | "/livez" => {
            respond::bytes(200, "text/plain; charset=utf-8", b"ok".to_vec())
        }
        "" => {
            let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
            for (name, _) in registry.groups().filter(|(name, _)| !name.is_empty()) {
                paths.push(format!("/apis/{name}"));
                paths.extend(
                    registry
                        .versions(name)
                        .iter()
                        .map(|v| format!("/apis/{name}/{v}")),
                );
            }
            paths.extend(
                [
                    "/healthz",
                    "/livez",
                    "/openapi/v2",
                    "/openapi/v3",
                    "/readyz",
                    "/version",
                ]
                .map(str::to_owned),
            );
            respond::document(200, &json!({"paths": paths}))
        }
        path if path.starts_with("/openapi/") => {
            return super::openapi::answer(registry, path, accept);
        }
        _ => return Err(ApiError::no_such_page()),
    })
}

fn group(registry: &Registry, name: &str) -> Value {
    let versions: Vec<Value> = registry
        .versions(name)
        .iter()
        .map(|v| json!({"groupVersion": format!("{name}/{v}"), "version": v}))
        .collect();
    json!({
        "name": name,
        "preferredVersion": versions.first().cloned().unwrap_or(Value::Null),
        "versions": versions,
    })
}

/// Resources of a version that are served.
fn served<'a>(
    registry: &'a Registry,
    group: &str,
    version: &str,
) -> Vec<(&'a ResourceInfo, &'a VersionInfo)> {
    registry
        .groups()
        .filter(|(name, _)| *name == group)
        .flat_map(|(_, resources)| resources.values())
        .filter_map(|info| info.served(version).map(|v| (&**info, v)))
        .collect()
}

fn resources(registry: &Registry, group: &str, version: &str) -> Result<Value> {
    let served = served(registry, group, version);
    if served.is_empty() {
        return Err(registry.unserved(group));
    }
    let mut list = Vec::new();
    for (info, v) in served {
        let verbs = verbs(info);
        let mut resource = json!({
            "name": info.plural, "singularName": info.singular, "namespaced": info.namespaced,
            "kind": info.kind, "verbs": verbs,
        });
        if let Some(map) = resource.as_object_mut() {
            if !info.short_names.is_empty() {
                map.insert("shortNames".into(), json!(info.short_names));
            }
            if !info.categories.is_empty() {
                map.insert("categories".into(), json!(info.categories));
            }
        }
        list.push(resource);
        let mut subresources = info.subresources(v);
        if info.custom {
            subresources.reverse();
        }
        for sub in subresources {
            let (sub_group, sub_version, kind) = response_kind(info, v, sub);
            let mut resource = json!({
                "name": format!("{}/{sub}", info.plural), "singularName": "", "namespaced": info.namespaced,
                "kind": kind, "verbs": subresource_verbs(sub),
            });
            if (sub_group.as_str(), sub_version.as_str()) != (group, version)
                && let Some(map) = resource.as_object_mut()
            {
                map.insert("group".into(), sub_group.into());
                map.insert("version".into(), sub_version.into());
            }
            list.push(resource);
        }
    }
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    Ok(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list}),
    )
}

/// Verbs of a resource, in the order in which its half of the real server lists them.
fn verbs(info: &ResourceInfo) -> Value {
    const OF_CUSTOM: [&str; 8] = [
        "delete",
        "deletecollection",
        "get",
        "list",
        "patch",
        "create",
        "update",
        "watch",
    ];
    match (info.create_only, info.custom) {
        (true, _) => json!(["create"]),
        (_, true) if info.terminating => {
            let changes = ["create", "patch", "update"];
            json!(
                OF_CUSTOM
                    .iter()
                    .filter(|v| !changes.contains(v))
                    .collect::<Vec<_>>()
            )
        }
        (_, true) => json!(OF_CUSTOM),
        _ => json!(VERBS),
    }
}

/// Group, version and kind that a subresource speaks.
fn response_kind(
    info: &ResourceInfo,
    version: &VersionInfo,
    sub: &str,
) -> (String, String, String) {
    let owned = |g: &str, v: &str, k: &str| (g.to_owned(), v.to_owned(), k.to_owned());
    match sub {
        "scale" => owned("autoscaling", "v1", "Scale"),
        "eviction" => owned("policy", "v1", "Eviction"),
        "binding" => owned("", "v1", "Binding"),
        "ephemeralcontainers" => owned("", "v1", "Pod"),
        "token" => owned("authentication.k8s.io", "v1", "TokenRequest"),
        _ => owned(&info.group, &version.name, &info.kind),
    }
}

fn subresource_verbs(sub: &str) -> &'static [&'static str] {
    match sub {
        "eviction" | "binding" | "token" => &["create"],
        "finalize" => &["update"],
        _ => &["get", "patch", "update"],
    }
}

fn aggregate(registry: &Registry, core: bool) -> Response<ResponseBody> {
    let items: Vec<Value> = registry
        .groups()
        .filter(|(name, _)| name.is_empty() == core)
        .map(|(name, _)| {
            let versions: Vec<Value> = registry
                .versions(name)
                .iter()
                .map(|version| {
                    let resources: Vec<Value> = served(registry, name, version)
                        .into_iter()
                        .map(|(info, v)| aggregated_resource(info, v))
                        .collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            json!({"metadata": {"name": name, "creationTimestamp": null}, "versions": versions})
        })
        .collect();
    let document = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
    });
    respond::bytes(
        200,
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        document.to_string().into_bytes(),
    )
}

fn aggregated_resource(info: &ResourceInfo, v: &VersionInfo) -> Value {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let verbs = verbs(info);
    let mut resource = json!({
        "resource": info.plural,
        "responseKind": kind(&info.group, &v.name, &info.kind),
        "scope": if info.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": info.singular,
        "verbs": verbs,
    });
    if let Some(map) = resource.as_object_mut() {
        if !info.short_names.is_empty() {
            map.insert("shortNames".into(), json!(info.short_names));
        }
        if !info.categories.is_empty() {
            map.insert("categories".into(), json!(info.categories));
        }
        let subresources: Vec<Value> = info
            .subresources(v)
            .into_iter()
            .map(|sub| {
                let (g, version, k) = response_kind(info, v, sub);
                json!({"subresource": sub, "responseKind": kind(&g, &version, &k), "verbs": subresource_verbs(sub)})
            })
            .collect();
        if !subresources.is_empty() {
            map.insert("subresources".into(), subresources.into());
        }
    }
    resource
}
