//! Reads a CustomResourceDefinition into the registry's form and keeps its status.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Column, CrdSchema};
use crate::meta::{self, at, text};
use crate::registry::{Generation, Registry, ResourceInfo, ScalePaths, VersionInfo, version_rank};

/// The resource a definition describes; none while it is too broken to serve.
#[must_use]
pub fn resource_of(crd: &Value) -> Option<ResourceInfo> {
    let spec = crd.get("spec")?;
    let names = spec.get("names")?;
    let kind = text(names, &["kind"]);
    let strings = |key: &str| -> Vec<String> {
        names
            .get(key)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|v| v.as_str().map(str::to_owned))
            .collect()
    };
    let or = |key: &str, other: String| match text(names, &[key]) {
        "" => other,
        set => set.to_owned(),
    };
    let mut versions: Vec<(bool, VersionInfo)> = spec
        .get("versions")
        .and_then(Value::as_array)?
        .iter()
        .enumerate()
        .map(|(i, v)| {
            let storage = v.get("storage").and_then(Value::as_bool).unwrap_or(false);
            (storage, version_of(v, i))
        })
        .collect();
    versions.sort_by_key(|(_, v)| std::cmp::Reverse(version_rank(&v.name)));
    warn_of_deprecated(spec, kind, &mut versions);
    let storage = versions.iter().position(|(storage, _)| *storage)?;
    Some(ResourceInfo {
        group: text(spec, &["group"]).to_owned(),
        plural: text(names, &["plural"]).to_owned(),
        singular: or("singular", kind.to_ascii_lowercase()),
        kind: kind.to_owned(),
        list_kind: or("listKind", format!("{kind}List")),
        namespaced: text(spec, &["scope"]) == "Namespaced",
        short_names: strings("shortNames"),
        categories: strings("categories"),
        extra: &[],
        versions: versions.into_iter().map(|(_, v)| v).collect(),
        storage,
        generation: Generation::Spec,
        custom: true,
        terminating: super::removal::is_terminating(crd),
        create_only: false,
    })
}

/// What clients of deprecated versions are told: the definition's words, or to use the newest version that is none.
fn warn_of_deprecated(spec: &Value, kind: &str, versions: &mut [(bool, VersionInfo)]) {
    let group = text(spec, &["group"]);
    let declared = |name: &str| {
        let all = spec.get("versions").and_then(Value::as_array);
        all.into_iter()
            .flatten()
            .find(|v| text(v, &["name"]) == name)
    };
    let is_deprecated = |name: &str| {
        declared(name).is_some_and(|v| v.get("deprecated") == Some(&Value::Bool(true)))
    };
    let better = versions
        .iter()
        .find(|(_, v)| v.served && !is_deprecated(&v.name))
        .map(|(_, v)| v.name.clone());
    for (_, version) in versions.iter_mut().filter(|(_, v)| is_deprecated(&v.name)) {
        let own = declared(&version.name).map_or("", |v| text(v, &["deprecationWarning"]));
        version.deprecation = Some(match (own, &better) {
            ("", None) => format!("{group}/{} {kind} is deprecated", version.name),
            ("", Some(better)) => format!(
                "{group}/{} {kind} is deprecated; use {group}/{better} {kind}",
                version.name
            ),
            (own, _) => own.to_owned(),
        });
    }
}

fn version_of(version: &Value, index: usize) -> VersionInfo {
    let path = format!("spec.versions[{index}].schema.openAPIV3Schema");
    let scale = at(version, &["subresources", "scale"]).map(|scale| ScalePaths {
        spec: segments(text(scale, &["specReplicasPath"])),
        status: segments(text(scale, &["statusReplicasPath"])),
        selector: match text(scale, &["labelSelectorPath"]) {
            "" => None,
            path => Some(segments(path)),
        },
    });
    VersionInfo {
        name: text(version, &["name"]).to_owned(),
        served: version
            .get("served")
            .and_then(Value::as_bool)
            .unwrap_or(false),
        schema: at(version, &["schema", "openAPIV3Schema"])
            .map(|s| Arc::new(CrdSchema::new(s, &path))),
        columns: version
            .get("additionalPrinterColumns")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(column_of)
            .collect(),
        status: at(version, &["subresources", "status"]).is_some(),
        scale,
        deprecation: None,
        selectable: version
            .get("selectableFields")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|f| text(f, &["jsonPath"]).trim_start_matches('.').to_owned())
            .collect(),
    }
}

fn column_of(column: &Value) -> Column {
    Column {
        name: text(column, &["name"]).to_owned(),
        kind: text(column, &["type"]).to_owned(),
        format: text(column, &["format"]).to_owned(),
        description: match text(column, &["description"]) {
            "" => format!(
                "Custom resource definition column (in JSONPath format): {}",
                text(column, &["jsonPath"])
            ),
            set => set.to_owned(),
        },
        priority: column.get("priority").and_then(Value::as_i64).unwrap_or(0),
        json_path: text(column, &["jsonPath"]).to_owned(),
    }
}

fn segments(path: &str) -> Vec<String> {
    path.split('.')
        .filter(|s| !s.is_empty())
        .map(str::to_owned)
        .collect()
}

/// A name of a definition that another resource of its group has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameConflict {
    /// Field of `spec.names`.
    field: &'static str,
    /// Reason of the condition.
    reason: &'static str,
    /// The name.
    name: String,
}

/// The first name of a definition that another resource of its group has already.
#[must_use]
pub fn conflict(crd: &Value, registry: &Registry) -> Option<NameConflict> {
    let name_of = |key: &str| text(crd, &["spec", "names", key]).to_owned();
    let (group, plural) = (text(crd, &["spec", "group"]), name_of("plural"));
    let others: Vec<_> = registry
        .groups()
        .filter(|(g, _)| *g == group)
        .flat_map(|(_, resources)| resources.values())
        .filter(|r| r.plural != plural)
        .collect();
    let singular = name_of("singular");
    let (kind, list_kind) = (name_of("kind"), name_of("listKind"));
    if others
        .iter()
        .any(|r| r.singular == singular || r.plural == singular)
    {
        let (field, reason) = ("singular", "SingularConflict");
        return Some(NameConflict {
            field,
            reason,
            name: singular,
        });
    }
    if others.iter().any(|r| r.kind == kind || r.list_kind == kind) {
        let (field, reason) = ("kind", "KindConflict");
        return Some(NameConflict {
            field,
            reason,
            name: kind,
        });
    }
    others
        .iter()
        .any(|r| r.kind == list_kind || r.list_kind == list_kind)
        .then_some(NameConflict {
            field: "listKind",
            reason: "ListKindConflict",
            name: list_kind,
        })
}

/// Whether a definition's names were accepted, so that it is served.
#[must_use]
pub fn is_established(crd: &Value) -> bool {
    at(crd, &["status", "conditions"])
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .any(|c| text(c, &["type"]) == "Established" && text(c, &["status"]) == "True")
}

/// Fills in what the server itself says of a definition: names taken, established at once, versions ever stored.
pub fn establish(crd: &mut Value, now: &str, conflict: Option<NameConflict>) {
    let mut names = at(crd, &["spec", "names"]).cloned().unwrap_or(Value::Null);
    let mut stored: Vec<Value> = at(crd, &["status", "storedVersions"])
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let storage = at(crd, &["spec", "versions"])
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find(|v| v.get("storage") == Some(&Value::Bool(true)))
        .and_then(|v| v.get("name"))
        .cloned();
    if let Some(storage) = storage
        && !stored.contains(&storage)
    {
        stored.push(storage);
    }
    let since = |kind: &str| -> String {
        at(crd, &["status", "conditions"])
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .find(|c| text(c, &["type"]) == kind)
            .map_or_else(
                || now.to_owned(),
                |c| text(c, &["lastTransitionTime"]).to_owned(),
            )
    };
    let conditions = match conflict {
        None => json!([
            {"type": "NamesAccepted", "status": "True", "lastTransitionTime": since("NamesAccepted"),
             "reason": "NoConflicts", "message": "no conflicts found"},
            {"type": "Established", "status": "True", "lastTransitionTime": since("Established"),
             "reason": "InitialNamesAccepted", "message": "the initial names have been accepted"},
        ]),
        Some(NameConflict {
            field,
            reason,
            name,
        }) => {
            meta::as_map(&mut names).insert(field.to_owned(), "".into());
            json!([
                {"type": "NamesAccepted", "status": "False", "lastTransitionTime": since("NamesAccepted"),
                 "reason": reason, "message": format!("{name:?} is already in use")},
                {"type": "Established", "status": "False", "lastTransitionTime": since("Established"),
                 "reason": "NotAccepted", "message": "not all names are accepted"},
            ])
        }
    };
    let status =
        json!({"acceptedNames": names, "conditions": conditions, "storedVersions": stored});
    meta::as_map(crd).insert("status".into(), status);
}

/// Defaults of a definition: singular, listKind, conversion strategy.
pub fn default_definition(crd: &mut Value) {
    let spec = meta::child(crd, "spec");
    let kind = text(spec, &["names", "kind"]).to_owned();
    let names = meta::as_map(meta::child(spec, "names"));
    meta::default_to(names, "singular", kind.to_ascii_lowercase());
    meta::default_to(names, "listKind", format!("{kind}List"));
    meta::default_to(
        meta::as_map(spec),
        "conversion",
        json!({"strategy": "None"}),
    );
}
