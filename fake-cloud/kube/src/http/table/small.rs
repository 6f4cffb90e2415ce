//! Cells of kinds of which a table tells little.

use serde_json::{Value, json};

use super::render::or_none;
use crate::meta::{self, at, items, text};
use crate::ops::Target;

/// Most endpoints and ports that a cell tells before it counts the rest.
const LISTED_MAX: usize = 3;

/// Cells of an object.
#[must_use]
pub fn cells(target: &Target, o: &Value, created: Value) -> Vec<Value> {
    let name = Value::from(meta::name(o));
    let since = Value::from(text(o, &["metadata", "creationTimestamp"]));
    match target.info.plural.as_str() {
        "roles" | "clusterroles" | "limitranges" => vec![name, since],
        "rolebindings" | "clusterrolebindings" => binding(o, name, created),
        "resourcequotas" => vec![name, used(o, false).into(), used(o, true).into(), created],
        "endpoints" => vec![name, endpoints(o), created],
        "networkpolicies" => {
            let selector = at(o, &["spec", "podSelector"]);
            let shown = selector.map(crate::selectors::text_of_label_selector);
            vec![name, or_none(&shown.unwrap_or_default()), created]
        }
        "endpointslices" => vec![
            name,
            text(o, &["addressType"]).into(),
            slice_ports(o),
            slice_endpoints(o),
            created,
        ],
        "controllerrevisions" => vec![
            name,
            controller(o),
            at(o, &["revision"]).cloned().unwrap_or_else(|| 0.into()),
            created,
        ],
        "csidrivers" => driver(o, name, created),
        _ => vec![name, created],
    }
}

fn binding(o: &Value, name: Value, created: Value) -> Vec<Value> {
    let role = format!(
        "{}/{}",
        text(o, &["roleRef", "kind"]),
        text(o, &["roleRef", "name"])
    );
    let of = |kind: &str| -> Value {
        let names: Vec<String> = items(o, &["subjects"])
            .filter(|s| text(s, &["kind"]) == kind)
            .map(|s| match (kind, text(s, &["namespace"])) {
                ("ServiceAccount", namespace) if !namespace.is_empty() => {
                    format!("{namespace}/{}", text(s, &["name"]))
                }
                _ => text(s, &["name"]).to_owned(),
            })
            .collect();
        names.join(", ").into()
    };
    vec![
        name,
        role.into(),
        created,
        of("User"),
        of("Group"),
        of("ServiceAccount"),
    ]
}

/// What is used of what there is: of limits, or of requests and all else.
fn used(o: &Value, limits: bool) -> String {
    let hard = at(o, &["status", "hard"]).and_then(Value::as_object);
    let pairs: Vec<String> = hard
        .into_iter()
        .flatten()
        .filter(|(resource, _)| resource.starts_with("limits.") == limits)
        .map(|(resource, hard)| {
            let used = text(o, &["status", "used", resource]);
            let used = if used.is_empty() { "0" } else { used };
            format!("{resource}: {used}/{}", hard.as_str().unwrap_or_default())
        })
        .collect();
    pairs.join(", ")
}

fn endpoints(o: &Value) -> Value {
    let all: Vec<String> = items(o, &["subsets"])
        .flat_map(|subset| {
            let ports: Vec<i64> = items(subset, &["ports"])
                .filter_map(|p| p.get("port").and_then(Value::as_i64))
                .collect();
            items(subset, &["addresses"])
                .flat_map(move |a| {
                    let ip = text(a, &["ip"]).to_owned();
                    if ports.is_empty() {
                        vec![ip]
                    } else {
                        ports.iter().map(|p| format!("{ip}:{p}")).collect()
                    }
                })
                .collect::<Vec<_>>()
        })
        .collect();
    some_of(&all)
}

/// The first few, and how many more there are.
fn some_of(all: &[String]) -> Value {
    if all.is_empty() {
        return or_none("");
    }
    let mut shown = all
        .iter()
        .take(LISTED_MAX)
        .cloned()
        .collect::<Vec<_>>()
        .join(",");
    if all.len() > LISTED_MAX {
        shown.push_str(&format!(" + {} more...", all.len() - LISTED_MAX));
    }
    shown.into()
}

fn slice_ports(o: &Value) -> Value {
    let all: Vec<String> = items(o, &["ports"])
        .map(|p| match p.get("port").and_then(Value::as_i64) {
            Some(port) => port.to_string(),
            None => "*".to_owned(),
        })
        .collect();
    if all.is_empty() {
        return "<unset>".into();
    }
    some_of(&all)
}

fn slice_endpoints(o: &Value) -> Value {
    let all: Vec<String> = items(o, &["endpoints"])
        .flat_map(|e| items(e, &["addresses"]))
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    if all.is_empty() {
        return "<unset>".into();
    }
    some_of(&all)
}

fn controller(o: &Value) -> Value {
    let owner = items(o, &["metadata", "ownerReferences"])
        .find(|r| r.get("controller") == Some(&Value::Bool(true)));
    let Some(owner) = owner else {
        return or_none("");
    };
    let version = text(owner, &["apiVersion"]);
    let kind = text(owner, &["kind"]).to_ascii_lowercase();
    let name = text(owner, &["name"]);
    match version.split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{name}").into(),
        None => format!("{kind}/{name}").into(),
    }
}

fn driver(o: &Value, name: Value, created: Value) -> Vec<Value> {
    let spec = o.get("spec").unwrap_or(&Value::Null);
    let is = |key: &str, default: bool| -> Value {
        spec.get(key)
            .and_then(Value::as_bool)
            .unwrap_or(default)
            .into()
    };
    let audiences: Vec<&str> = items(spec, &["tokenRequests"])
        .map(|t| text(t, &["audience"]))
        .collect();
    let modes: Vec<&str> = items(spec, &["volumeLifecycleModes"])
        .filter_map(Value::as_str)
        .collect();
    vec![
        name,
        is("attachRequired", true),
        is("podInfoOnMount", false),
        is("storageCapacity", false),
        if audiences.is_empty() {
            json!("<unset>")
        } else {
            audiences.join(",").into()
        },
        is("requiresRepublish", false),
        if modes.is_empty() {
            or_none("")
        } else {
            modes.join(",").into()
        },
        created,
    ]
}
