//! The volume with a pod's token. Nearly every pod has one, alike but for its name, and in memory it would weigh as much as
//! half the pod: the store keeps its name alone, and what it stands for is told to whoever reads the pod as a document.

use std::sync::LazyLock;

use serde::ser::{Serialize, SerializeMap as _, SerializeSeq as _, Serializer};
use serde_json::{Value, json};

use crate::meta::{self, text};

/// What the names of such volumes begin with.
pub const PREFIX: &str = "kube-api-access-";
/// An hour, and seven seconds that tell such a token from one that somebody asked for.
const SECONDS: i64 = 3607;

/// What such a volume is.
static PROJECTED: LazyLock<Value> = LazyLock::new(|| {
    json!({"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace",
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]})
});

/// Whether a volume is one of these, kept by its name.
#[must_use]
pub fn is_kept(volume: &Value) -> bool {
    volume.as_object().is_some_and(|v| v.len() == 1) && text(volume, &["name"]).starts_with(PREFIX)
}

/// Keeps a volume by its name if it is one of these.
pub fn keep(volume: &mut Value) {
    let Some(map) = volume.as_object_mut().filter(|v| v.len() == 2) else {
        return;
    };
    let named = map.get("name").and_then(Value::as_str);
    let is =
        named.is_some_and(|n| n.starts_with(PREFIX)) && map.get("projected") == Some(&*PROJECTED);
    if is {
        map.remove("projected");
    }
}

/// A pod with its token's volume in full; none when there is nothing to add.
#[must_use]
pub fn in_full(object: &Value) -> Option<Value> {
    if !has_kept(object) {
        return None;
    }
    let mut object = object.clone();
    let volumes = object
        .pointer_mut("/spec/volumes")
        .and_then(Value::as_array_mut);
    for volume in volumes.into_iter().flatten().filter(|v| is_kept(v)) {
        meta::as_map(volume).insert("projected".into(), PROJECTED.clone());
    }
    Some(object)
}

fn has_kept(object: &Value) -> bool {
    let volumes = meta::at(object, &["spec", "volumes"]).and_then(Value::as_array);
    text(object, &["kind"]) == "Pod" && volumes.is_some_and(|v| v.iter().any(is_kept))
}

/// An object as it is told: a pod with its token's volume in full, without a copy being made.
pub struct Told<'a> {
    /// The object.
    pub object: &'a Value,
    /// Whether it says its kind and version.
    pub typed: bool,
}

impl Serialize for Told<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Value::Object(map) = self.object else {
            return self.object.serialize(serializer);
        };
        let kept = has_kept(self.object);
        if !kept && self.typed {
            return map.serialize(serializer);
        }
        let mut out = serializer.serialize_map(None)?;
        for (key, value) in map {
            match key.as_str() {
                "kind" | "apiVersion" if !self.typed => {}
                "spec" if kept => out.serialize_entry(key, &Spec(value))?,
                _ => out.serialize_entry(key, value)?,
            }
        }
        out.end()
    }
}

struct Spec<'a>(&'a Value);

impl Serialize for Spec<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_map(None)?;
        for (key, value) in self.0.as_object().into_iter().flatten() {
            match value {
                Value::Array(volumes) if key == "volumes" => {
                    out.serialize_entry(key, &Volumes(volumes))?;
                }
                _ => out.serialize_entry(key, value)?,
            }
        }
        out.end()
    }
}

struct Volumes<'a>(&'a [Value]);

impl Serialize for Volumes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_seq(Some(self.0.len()))?;
        for volume in self.0 {
            if is_kept(volume) {
                out.serialize_element(&InFull(text(volume, &["name"])))?;
            } else {
                out.serialize_element(volume)?;
            }
        }
        out.end()
    }
}

struct InFull<'a>(&'a str);

impl Serialize for InFull<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_map(Some(2))?;
        out.serialize_entry("name", self.0)?;
        out.serialize_entry("projected", &*PROJECTED)?;
        out.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_by_its_name_is_told_in_full() {
        let full = json!({"kind": "Pod", "apiVersion": "v1", "spec": {"a": 1, "volumes": [
            {"name": "kube-api-access-abcde", "projected": *PROJECTED},
            {"name": "kube-api-access-other", "projected": {"sources": []}},
            {"name": "data", "emptyDir": {}},
        ], "z": 2}});
        let mut kept = full.clone();
        kept["spec"]["volumes"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .for_each(keep);
        assert_eq!(
            kept["spec"]["volumes"][0],
            json!({"name": "kube-api-access-abcde"})
        );
        assert_eq!(kept["spec"]["volumes"][1], full["spec"]["volumes"][1]);
        let told = |object, typed| serde_json::to_value(Told { object, typed }).unwrap();
        assert_eq!(told(&kept, true), full);
        assert_eq!(told(&full, true), full);
        assert_eq!(told(&kept, false), json!({"spec": full["spec"]}));
        assert_eq!(in_full(&kept), Some(full.clone()));
        assert_eq!(in_full(&full), None);
    }
}
