//! Reads a CustomResourceDefinition into the registry's form and keeps its status.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Column, CrdSchema};
use crate::meta::{self, at, text};
use crate::registry::{Generation, ResourceInfo, ScalePaths, VersionInfo, version_rank};

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
        create_only: false,
    })
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

/// Fills in what the server itself says of a definition: names taken, established at once, versions ever stored.
pub fn establish(crd: &mut Value, now: &str) {
    let names = at(crd, &["spec", "names"]).cloned().unwrap_or(Value::Null);
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
    let conditions = json!([
        {"type": "NamesAccepted", "status": "True", "lastTransitionTime": since("NamesAccepted"),
         "reason": "NoConflicts", "message": "no conflicts found"},
        {"type": "Established", "status": "True", "lastTransitionTime": since("Established"),
         "reason": "InitialNamesAccepted", "message": "the initial names have been accepted"},
    ]);
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
