//! Validation of volumes.

use serde_json::Value;

use crate::error::FieldError;

/// A volume at `path`: it is of one type.
pub fn check(volume: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for source in types(volume).into_iter().skip(1) {
        errors.push(FieldError::forbidden(
            &format!("{path}.{source}"),
            "may not specify more than 1 volume type",
        ));
    }
}

/// The types that a volume has, in the order in which the real server looks for them.
#[must_use]
pub fn types(volume: &Value) -> Vec<&str> {
    const ORDER: [&str; 12] = [
        "emptyDir",
        "hostPath",
        "secret",
        "nfs",
        "iscsi",
        "persistentVolumeClaim",
        "downwardAPI",
        "fc",
        "configMap",
        "projected",
        "csi",
        "ephemeral",
    ];
    let all = volume.as_object().into_iter().flatten();
    let mut found: Vec<&str> = all
        .filter(|(key, source)| *key != "name" && !source.is_null())
        .map(|(key, _)| key.as_str())
        .collect();
    found.sort_by_key(|s| ORDER.iter().position(|o| o == s).unwrap_or(ORDER.len()));
    found
}
