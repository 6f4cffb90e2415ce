//! Cells of a table: custom resources by their definitions' paths, built-in kinds each in its own way.

use serde_json::Value;

use super::{age, jsonpath, small, workloads};
use crate::crd::Column;
use crate::meta::{self, at, items, text};
use crate::ops::Target;

const NONE: &str = "<none>";

/// Cells of an object, one a column.
#[must_use]
pub fn cells(target: &Target, columns: &[Column], object: &Value, now: i64) -> Vec<Value> {
    if target.info.custom {
        return columns.iter().map(|c| custom(c, object, now)).collect();
    }
    let mut cells = built_in(target, object, now);
    cells.resize(columns.len(), Value::Null);
    cells
}

fn custom(column: &Column, object: &Value, now: i64) -> Value {
    if column.json_path.is_empty() {
        return meta::name(object).into();
    }
    let found = jsonpath::find(object, &column.json_path);
    let Some(value) = found.first() else {
        return Value::Null;
    };
    match column.kind.as_str() {
        "date" => value
            .as_str()
            .map_or(Value::Null, |t| age::of(t, now).into()),
        "integer" | "number" | "boolean" => (*value).clone(),
        _ => match value {
            Value::String(s) => s.as_str().into(),
            other => other.to_string().into(),
        },
    }
}

/// A text, or `<none>`.
pub fn or_none(text: &str) -> Value {
    if text.is_empty() {
        NONE.into()
    } else {
        text.into()
    }
}

/// A number, or 0.
#[must_use]
pub fn count(object: &Value, path: &[&str]) -> i64 {
    at(object, path).and_then(Value::as_i64).unwrap_or(0)
}

fn size(object: &Value, key: &str) -> usize {
    object
        .get(key)
        .and_then(Value::as_object)
        .map_or(0, serde_json::Map::len)
}

fn built_in(target: &Target, o: &Value, now: i64) -> Vec<Value> {
    let name: Value = meta::name(o).into();
    let created: Value = age::since(o, &["metadata", "creationTimestamp"], now).into();
    let text_at = |path: &[&str]| -> Value { text(o, path).into() };
    match (target.info.group.as_str(), target.info.plural.as_str()) {
        ("", "pods") => super::pods::cells(o, now),
        ("", "nodes") => node(o, created),
        ("", "events") => event(o, now),
        ("events.k8s.io", "events") => event(&crate::events::as_old(o), now),
        ("", "namespaces") => vec![name, text_at(&["status", "phase"]), created],
        ("", "services") => service(o, created),
        ("", "configmaps") => vec![
            name,
            (size(o, "data") + size(o, "binaryData")).into(),
            created,
        ],
        ("", "secrets") => vec![name, text_at(&["type"]), size(o, "data").into(), created],
        ("", "persistentvolumes") => volume(o, created),
        ("", "persistentvolumeclaims") => claim(o, created),
        ("rbac.authorization.k8s.io" | "networking.k8s.io" | "discovery.k8s.io", _)
        | ("", "resourcequotas" | "limitranges" | "endpoints")
        | ("apps", "controllerrevisions")
        | ("storage.k8s.io", "csidrivers") => small::cells(target, o, created),
        ("apps" | "batch", _) => workloads::cells(&target.info.plural, o, created, now),
        ("policy", "poddisruptionbudgets") => {
            let bound = |key: &str| match at(o, &["spec", key]) {
                None | Some(Value::Null) => "N/A".into(),
                Some(Value::String(s)) => s.as_str().into(),
                Some(other) => Value::from(other.to_string()),
            };
            let allowed = count(o, &["status", "disruptionsAllowed"]);
            vec![
                name,
                bound("minAvailable"),
                bound("maxUnavailable"),
                allowed.into(),
                created,
            ]
        }
        ("storage.k8s.io", "storageclasses") => {
            let default = text(
                o,
                &[
                    "metadata",
                    "annotations",
                    "storageclass.kubernetes.io/is-default-class",
                ],
            ) == "true";
            let shown = if default {
                format!("{} (default)", meta::name(o))
            } else {
                meta::name(o).to_owned()
            };
            let expand = o.get("allowVolumeExpansion") == Some(&Value::Bool(true));
            vec![
                shown.into(),
                text_at(&["provisioner"]),
                text_at(&["reclaimPolicy"]),
                text_at(&["volumeBindingMode"]),
                expand.into(),
                created,
            ]
        }
        ("storage.k8s.io", "csinodes") => {
            vec![name, items(o, &["spec", "drivers"]).count().into(), created]
        }
        ("storage.k8s.io", "volumeattachments") => vec![
            name,
            text_at(&["spec", "attacher"]),
            text_at(&["spec", "source", "persistentVolumeName"]),
            text_at(&["spec", "nodeName"]),
            (at(o, &["status", "attached"]) == Some(&Value::Bool(true))).into(),
            created,
        ],
        ("coordination.k8s.io", "leases") => {
            vec![name, text_at(&["spec", "holderIdentity"]), created]
        }
        ("scheduling.k8s.io", "priorityclasses") => vec![
            name,
            count(o, &["value"]).into(),
            (o.get("globalDefault") == Some(&Value::Bool(true))).into(),
            created,
            text_at(&["preemptionPolicy"]),
        ],
        ("apiextensions.k8s.io", "customresourcedefinitions") => {
            vec![name, text_at(&["metadata", "creationTimestamp"])]
        }
        _ => vec![name, created],
    }
}

fn node(o: &Value, created: Value) -> Vec<Value> {
    let ready = items(o, &["status", "conditions"])
        .find(|c| text(c, &["type"]) == "Ready")
        .map(|c| text(c, &["status"]));
    let mut status = match ready {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if at(o, &["spec", "unschedulable"]) == Some(&Value::Bool(true)) {
        status.push_str(",SchedulingDisabled");
    }
    let mut roles: Vec<&str> = at(o, &["metadata", "labels"])
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) if !role.is_empty() => Some(role),
                _ if key == "kubernetes.io/role" => value.as_str(),
                _ => None,
            },
        )
        .collect();
    roles.sort_unstable();
    let kernel = match text(o, &["status", "nodeInfo", "architecture"]) {
        "" => String::new(),
        architecture => format!(" ({architecture})"),
    };
    let address = |kind: &str| {
        let found = items(o, &["status", "addresses"]).find(|a| text(a, &["type"]) == kind);
        or_none(found.map_or("", |a| text(a, &["address"])))
    };
    let info = |key: &str| match text(o, &["status", "nodeInfo", key]) {
        "" => Value::from("<unknown>"),
        set => set.into(),
    };
    vec![
        meta::name(o).into(),
        status.into(),
        or_none(&roles.join(",")),
        created,
        text(o, &["status", "nodeInfo", "kubeletVersion"]).into(),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        match info("kernelVersion") {
            Value::String(version) if version != "<unknown>" => format!("{version}{kernel}").into(),
            unknown => unknown,
        },
        info("containerRuntimeVersion"),
    ]
}

fn event(o: &Value, now: i64) -> Vec<Value> {
    let first_of = |keys: &[&str]| -> String {
        let found = keys.iter().map(|k| text(o, &[k])).find(|t| !t.is_empty());
        age::of(found.unwrap_or(""), now)
    };
    let involved = |key: &str| text(o, &["involvedObject", key]);
    let object = format!(
        "{}/{}",
        involved("kind").to_ascii_lowercase(),
        involved("name")
    );
    let host = text(o, &["source", "host"]);
    let component = match text(o, &["source", "component"]) {
        "" => text(o, &["reportingComponent"]),
        set => set,
    };
    let source = if host.is_empty() {
        component.to_owned()
    } else {
        format!("{component}, {host}")
    };
    vec![
        first_of(&["lastTimestamp", "eventTime", "firstTimestamp"]).into(),
        text(o, &["type"]).into(),
        text(o, &["reason"]).into(),
        object.into(),
        text(o, &["involvedObject", "fieldPath"]).into(),
        source.into(),
        text(o, &["message"]).trim().into(),
        first_of(&["firstTimestamp", "eventTime"]).into(),
        count(o, &["count"]).max(1).into(),
        meta::name(o).into(),
    ]
}

fn service(o: &Value, created: Value) -> Vec<Value> {
    let ports: Vec<String> = items(o, &["spec", "ports"])
        .map(|p| match p.get("nodePort").and_then(Value::as_i64) {
            Some(node) => format!("{}:{node}/{}", count(p, &["port"]), text(p, &["protocol"])),
            None => format!("{}/{}", count(p, &["port"]), text(p, &["protocol"])),
        })
        .collect();
    let selector: Vec<String> = at(o, &["spec", "selector"])
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or("")))
        .collect();
    vec![
        meta::name(o).into(),
        text(o, &["spec", "type"]).into(),
        or_none(text(o, &["spec", "clusterIP"])),
        NONE.into(),
        or_none(&ports.join(",")),
        created,
        or_none(&selector.join(",")),
    ]
}

fn modes(o: &Value) -> String {
    let short: Vec<&str> = items(o, &["spec", "accessModes"])
        .filter_map(Value::as_str)
        .map(|mode| match mode {
            "ReadWriteOnce" => "RWO",
            "ReadOnlyMany" => "ROX",
            "ReadWriteMany" => "RWX",
            "ReadWriteOncePod" => "RWOP",
            other => other,
        })
        .collect();
    short.join(",")
}

/// Phase, or `Terminating`.
fn phase(o: &Value) -> Value {
    if meta::is_deleting(o) {
        "Terminating".into()
    } else {
        text(o, &["status", "phase"]).into()
    }
}

fn volume(o: &Value, created: Value) -> Vec<Value> {
    let claim = match text(o, &["spec", "claimRef", "name"]) {
        "" => String::new(),
        name => format!("{}/{name}", text(o, &["spec", "claimRef", "namespace"])),
    };
    vec![
        meta::name(o).into(),
        text(o, &["spec", "capacity", "storage"]).into(),
        modes(o).into(),
        text(o, &["spec", "persistentVolumeReclaimPolicy"]).into(),
        phase(o),
        claim.into(),
        text(o, &["spec", "storageClassName"]).into(),
        attributes_class(o),
        text(o, &["status", "reason"]).into(),
        created,
        text(o, &["spec", "volumeMode"]).into(),
    ]
}

fn attributes_class(o: &Value) -> Value {
    match text(o, &["spec", "volumeAttributesClassName"]) {
        "" => "<unset>".into(),
        set => set.into(),
    }
}

fn claim(o: &Value, created: Value) -> Vec<Value> {
    let bound = !text(o, &["spec", "volumeName"]).is_empty();
    let (capacity, modes) = if bound {
        (
            text(o, &["status", "capacity", "storage"]).to_owned(),
            modes(o),
        )
    } else {
        (String::new(), String::new())
    };
    vec![
        meta::name(o).into(),
        phase(o),
        text(o, &["spec", "volumeName"]).into(),
        capacity.into(),
        modes.into(),
        text(o, &["spec", "storageClassName"]).into(),
        match text(o, &["spec", "volumeAttributesClassName"]) {
            "" => "<unset>".into(),
            set => set.into(),
        },
        created,
        text(o, &["spec", "volumeMode"]).into(),
    ]
}
