//! Validation of storage classes, volumes, attachments and CSINodes.

use serde_json::Value;

use super::{names, pods};
use crate::error::FieldError;
use crate::meta::{at, text};
use crate::wire::gojson;

const IMMUTABLE: &str = "field is immutable";

/// What an update of a storage class may not change.
pub fn class_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    for key in [
        "parameters",
        "provisioner",
        "reclaimPolicy",
        "volumeBindingMode",
    ] {
        if new.get(key) != old.get(key) {
            let value = new.get(key).cloned().unwrap_or(Value::Null);
            errors.push(FieldError::invalid(key, value, IMMUTABLE));
        }
    }
}

/// A volume: a size, modes, and one type.
pub fn volume(volume: &Value, errors: &mut Vec<FieldError>) {
    let spec = volume.get("spec").unwrap_or(&Value::Null);
    let modes = spec.get("accessModes").and_then(Value::as_array);
    if modes.is_none_or(Vec::is_empty) {
        errors.push(FieldError::required("spec.accessModes", ""));
    }
    for mode in modes.into_iter().flatten().filter_map(Value::as_str) {
        let known = [
            "ReadOnlyMany",
            "ReadWriteMany",
            "ReadWriteOnce",
            "ReadWriteOncePod",
        ];
        if !known.contains(&mode) {
            errors.push(FieldError::not_supported("spec.accessModes", mode, &known));
        }
    }
    let capacity = spec.get("capacity").and_then(Value::as_object);
    if capacity.is_none_or(serde_json::Map::is_empty) {
        errors.push(FieldError::required("spec.capacity", ""));
    }
    if capacity.is_none_or(|c| !c.contains_key("storage") || c.len() > 1) {
        let shown = spec.get("capacity").cloned().unwrap_or(Value::Null);
        let error = FieldError::not_supported("spec.capacity", shown, &["storage"]);
        errors.push(error);
    }
    const SOURCES: [&str; 22] = [
        "awsElasticBlockStore",
        "azureDisk",
        "azureFile",
        "cephfs",
        "cinder",
        "csi",
        "fc",
        "flexVolume",
        "flocker",
        "gcePersistentDisk",
        "glusterfs",
        "hostPath",
        "iscsi",
        "local",
        "nfs",
        "photonPersistentDisk",
        "portworxVolume",
        "quobyte",
        "rbd",
        "scaleIO",
        "storageos",
        "vsphereVolume",
    ];
    if !SOURCES
        .iter()
        .any(|s| spec.get(s).is_some_and(Value::is_object))
    {
        errors.push(FieldError::required("spec", "must specify a volume type"));
    }
}

/// An attachment: somebody who attaches, a volume and a node.
pub fn attachment(attachment: &Value, errors: &mut Vec<FieldError>) {
    let attacher = text(attachment, &["spec", "attacher"]);
    if attacher.is_empty() {
        errors.push(FieldError::required("spec.attacher", ""));
    }
    let source = |key: &str| at(attachment, &["spec", "source", key]).filter(|v| !v.is_null());
    let (inline, named) = (source("inlineVolumeSpec"), source("persistentVolumeName"));
    if inline.is_some() == named.is_some() {
        let why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        errors.push(FieldError::required("spec.source", why));
    }
    let node = text(attachment, &["spec", "nodeName"]);
    if let Some(why) = names::subdomain_error(node) {
        errors.push(FieldError::invalid("spec.nodeName", node, why));
    }
}

/// An attachment stays one of that volume to that node.
pub fn attachment_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let spec = |a: &Value| a.get("spec").cloned().unwrap_or(Value::Null);
    if spec(new) != spec(old) {
        let shown = gojson::internal("storage.v1.VolumeAttachmentSpec", &spec(new));
        errors.push(FieldError::invalid("spec", spec(new), IMMUTABLE).showing(shown));
    }
}

fn drivers(node: &Value) -> impl Iterator<Item = &Value> {
    let drivers = at(node, &["spec", "drivers"]).and_then(Value::as_array);
    drivers.into_iter().flatten()
}

/// A CSINode's drivers.
pub fn csi_node(node: &Value, errors: &mut Vec<FieldError>) {
    for (i, driver) in drivers(node).enumerate() {
        for key in ["name", "nodeID"] {
            if text(driver, &[key]).is_empty() {
                errors.push(FieldError::required(
                    &format!("spec.drivers[{i}].{key}"),
                    "",
                ));
            }
        }
        let count = at(driver, &["allocatable", "count"]);
        pods::not_negative(
            &format!("spec.drivers[{i}].allocatable.count"),
            count,
            errors,
        );
    }
}

/// A driver knows its node by one name. It may come and go, and what it can attach may change.
pub fn csi_node_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let keys = |driver: &Value| driver.get("topologyKeys").cloned().unwrap_or(Value::Null);
    for driver in drivers(new) {
        let name = text(driver, &["name"]);
        let before = drivers(old).find(|d| text(d, &["name"]) == name);
        let changed = before.is_some_and(|before| {
            text(before, &["nodeID"]) != text(driver, &["nodeID"]) || keys(before) != keys(driver)
        });
        if changed {
            // What it can attach may change, and is left out of the comparison.
            let mut compared = driver.clone();
            crate::meta::as_map(&mut compared).remove("allocatable");
            let shown = gojson::internal("storage.v1.CSINodeDriver", &compared);
            let error = FieldError::invalid("spec.drivers", driver.clone(), IMMUTABLE);
            errors.push(error.showing(shown));
        }
    }
}
