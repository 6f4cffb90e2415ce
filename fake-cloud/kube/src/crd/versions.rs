//! Objects of a definition with several versions: kept in one, shown in each as its schema has them. There are no
//! conversions: what both versions know stays, what only one knows is dropped on the way to the other.

use std::sync::Arc;

use serde_json::Value;

use super::{CrdSchema, shape};
use crate::events;
use crate::meta::{self, text};
use crate::ops::Target;
use crate::registry::{ResourceInfo, VersionInfo};
use crate::store::Kept;

fn reshape(version: Option<&VersionInfo>, object: &mut Value) {
    if let Some(CrdSchema { root, .. }) = version.and_then(|v| v.schema.as_deref()) {
        shape::prune(root, object);
        shape::default(root, object);
    }
}

/// An object as the version that was asked for has it.
#[must_use]
pub fn seen(target: &Target, object: &Arc<Value>) -> Arc<Value> {
    in_version(target, object, target.api_version())
}

/// The same as what a write to it is compared with: said to be of the version that objects are kept in.
#[must_use]
pub fn compared(target: &Target, object: &Arc<Value>) -> Arc<Value> {
    in_version(target, object, target.storage_api_version())
}

fn in_version(target: &Target, object: &Arc<Value>, called: String) -> Arc<Value> {
    if events::is_new(&target.info) {
        let is_event = text(object, &["kind"]) == "Event";
        return if is_event && text(object, &["apiVersion"]) == "v1" {
            Arc::new(events::as_new(object))
        } else {
            Arc::clone(object)
        };
    }
    let several = target.info.custom && target.info.versions.len() > 1;
    // Tables and lists are of no version.
    if !several || text(object, &["kind"]) != target.info.kind {
        return Arc::clone(object);
    }
    let is = text(object, &["apiVersion"]);
    let (shaped, named) = (is == target.api_version(), is == called);
    if shaped && named {
        return Arc::clone(object);
    }
    let mut object = Value::clone(object);
    if !shaped {
        reshape(target.version_info(), &mut object);
    }
    meta::as_map(&mut object).insert("apiVersion".into(), called.into());
    Arc::new(object)
}

/// Shows what is kept in the version that was asked for.
pub fn show(target: &Target, kept: &mut Kept) {
    let seen = seen(target, &kept.object);
    if !Arc::ptr_eq(&seen, &kept.object) {
        *kept = Kept::new(seen);
    }
}

/// Gives an object that was written in another version the shape of the one that it is kept in.
pub fn to_keep(target: &Target, object: &mut Value) {
    if events::is_new(&target.info) {
        *object = events::as_old(object);
    }
    if target.info.custom && target.version != target.info.storage {
        reshape(target.info.storage_version(), object);
    }
}

/// Reads an object that is kept already through its version's schema, which has changed.
pub fn read_again(info: &ResourceInfo, object: &mut Value) {
    let kept_in = text(object, &["apiVersion"]);
    let version = info
        .versions
        .iter()
        .find(|v| info.api_version(&v.name) == kept_in);
    reshape(version, object);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::definition::resource_of;
    use serde_json::json;

    #[test]
    fn an_object_is_shown_and_kept_as_each_version_has_it() {
        let version = |name: &str, storage: bool, properties: Value| {
            json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema":
                {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}}})
        };
        let definition = json!({"spec": {"group": "x.io", "scope": "Cluster",
        "names": {"plural": "widgets", "kind": "Widget"}, "versions": [
            version("v1", false, json!({"size": {"type": "integer", "default": 1}})),
            version("v2", true, json!({"size": {"type": "integer"}, "color": {"type": "string", "default": "red"}})),
        ]}});
        let info = Arc::new(resource_of(&definition).unwrap());
        let at = |name: &str| {
            let version = info.versions.iter().position(|v| v.name == name).unwrap();
            Target::new(Arc::clone(&info), version, None)
        };
        let widget = |version: &str, spec: Value| json!({"apiVersion": version, "kind": "Widget", "metadata": {}, "spec": spec});
        let mut written = widget("x.io/v2", json!({"size": 4}));
        to_keep(&at("v1"), &mut written);
        let kept = Arc::new(written);
        assert_eq!(kept["spec"], json!({"size": 4, "color": "red"}));
        assert_eq!(
            *seen(&at("v1"), &kept),
            widget("x.io/v1", json!({"size": 4}))
        );
        assert!(Arc::ptr_eq(&seen(&at("v2"), &kept), &kept));
        assert_eq!(
            *compared(&at("v1"), &kept),
            widget("x.io/v2", json!({"size": 4}))
        );
        let bare = Arc::new(widget("x.io/v2", json!({"color": "blue"})));
        assert_eq!(seen(&at("v1"), &bare)["spec"], json!({"size": 1}));
    }
}
