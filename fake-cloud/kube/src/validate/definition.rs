//! Validation of CustomResourceDefinitions.

use serde_json::Value;

use crate::crd::{CrdSchema, cost};
use crate::error::FieldError;
use crate::meta::{self, at, text};

/// Errors of a changed definition: what other objects and clients know it by does not change, and versions in which
/// objects may be stored stay.
pub fn update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let kept: [&[&str]; 4] = [
        &["spec", "group"],
        &["spec", "scope"],
        &["spec", "names", "plural"],
        &["spec", "names", "kind"],
    ];
    for path in kept {
        if text(new, path) != text(old, path) {
            errors.push(FieldError::invalid(
                &path.join("."),
                text(new, path),
                "field is immutable",
            ));
        }
    }
    if !errors.is_empty() {
        return;
    }
    definition(new, errors);
    let versions = || at(new, &["spec", "versions"]).and_then(Value::as_array);
    let stored = at(old, &["status", "storedVersions"]).and_then(Value::as_array);
    for (i, version) in stored.into_iter().flatten().enumerate() {
        let name = version.as_str().unwrap_or_default();
        if !versions()
            .into_iter()
            .flatten()
            .any(|v| text(v, &["name"]) == name)
        {
            errors.push(FieldError::invalid(
                &format!("status.storedVersions[{i}]"),
                name,
                format!(
                    "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
                ),
            ));
        }
    }
}

/// Errors of a definition, those of its schemas and rules included.
pub fn definition(crd: &Value, errors: &mut Vec<FieldError>) {
    let name = meta::name(crd);
    let (group, plural) = (
        text(crd, &["spec", "group"]),
        text(crd, &["spec", "names", "plural"]),
    );
    for (path, value) in [
        ("spec.group", group),
        ("spec.scope", text(crd, &["spec", "scope"])),
        ("spec.names.plural", plural),
        ("spec.names.kind", text(crd, &["spec", "names", "kind"])),
    ] {
        if value.is_empty() {
            errors.push(FieldError::required(path, ""));
        }
    }
    if !group.is_empty() && !plural.is_empty() && name != format!("{plural}.{group}") {
        errors.push(FieldError::invalid(
            "metadata.name",
            name,
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    let scope = text(crd, &["spec", "scope"]);
    if !matches!(scope, "" | "Cluster" | "Namespaced") {
        errors.push(FieldError::not_supported(
            "spec.scope",
            scope,
            &["Cluster", "Namespaced"],
        ));
    }
    let versions = at(crd, &["spec", "versions"]).and_then(Value::as_array);
    let mut schemas = versions.into_iter().flatten().map(|v| v.get("schema"));
    let first = schemas.next();
    let same = schemas.all(|schema| Some(schema) == first);
    let (mut storage, mut twice, mut names) = (0, false, std::collections::BTreeSet::new());
    for (i, version) in versions.into_iter().flatten().enumerate() {
        let path = format!("spec.versions[{i}]");
        if text(version, &["name"]).is_empty() {
            errors.push(FieldError::required(&format!("{path}.name"), ""));
        }
        let name = text(version, &["name"]);
        twice |= !names.insert(name);
        storage += usize::from(version.get("storage") == Some(&Value::Bool(true)));
        // What all versions have in common is said of the definition.
        let schema_path = if same && version.get("schema").is_some() {
            "spec.validation.openAPIV3Schema".to_owned()
        } else {
            format!("{path}.schema.openAPIV3Schema")
        };
        match at(version, &["schema", "openAPIV3Schema"]) {
            Some(schema) => {
                if text(schema, &["type"]) != "object" {
                    errors.push(FieldError::invalid(
                        &format!("{schema_path}.type"),
                        text(schema, &["type"]),
                        "must be object at the root",
                    ));
                }
                if i == 0 || !same {
                    errors.extend(CrdSchema::new(schema, &schema_path).errors);
                    cost::judge(schema, &schema_path, errors);
                }
            }
            None => errors.push(FieldError::required(&schema_path, "")),
        }
    }
    if twice {
        let shown = versions.map_or(Value::Null, |v| Value::Array(v.clone()));
        let why = "must contain unique version names";
        errors.push(FieldError::invalid("spec.versions", shown, why));
    }
    if storage != 1 {
        let shown = at(crd, &["spec", "versions"])
            .cloned()
            .unwrap_or(Value::Null);
        if shown.as_array().is_none_or(Vec::is_empty) {
            let why = "must have exactly one version marked as storage version";
            errors.push(FieldError::invalid(
                "spec.versions",
                serde_json::json!([]),
                why,
            ));
            return;
        }
        let names: Vec<&str> = shown
            .as_array()
            .into_iter()
            .flatten()
            .map(|v| text(v, &["name"]))
            .collect();
        errors.push(FieldError::invalid(
            "spec.versions",
            names.join(","),
            "must have exactly one version marked as storage version",
        ));
    }
}
