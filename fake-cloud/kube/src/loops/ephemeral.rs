//! Generic ephemeral volumes: each pod gets a claim of its own for every such volume, which goes when the pod goes.

use std::sync::Arc;

use karpenter_runtime::Key;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::feed::{Controller, Dirty, Mirror, parts, there_is_fine};
use super::object::{self, at, items, text};
use super::resource::{PODS, PVCS};
use crate::server::{ApiError, ApiServer, Change, Gr};

/// The loop. It holds the pods that have such volumes.
#[derive(Default)]
pub struct Ephemeral {
    pods: Mirror,
}

/// What volumes' claims are made from.
const TEMPLATE: [&str; 2] = ["ephemeral", "volumeClaimTemplate"];

fn volumes(pod: &Value) -> impl Iterator<Item = &Value> {
    let all = items(pod, &["spec", "volumes"]).iter();
    all.filter(|v| at(v, &TEMPLATE).is_object())
}

/// Name of the claim of a pod for one of its volumes.
pub(super) fn claim_name(pod: &Value, volume: &Value) -> String {
    format!("{}-{}", object::name(pod), text(volume, &["name"]))
}

/// The claim of a pod for one of its volumes. It is the pod's, and goes with it.
fn claim(pod: &Value, volume: &Value) -> Value {
    let template = at(volume, &TEMPLATE);
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": claim_name(pod, volume),
            "namespace": object::namespace(pod),
            "labels": at(template, &["metadata", "labels"]),
            "annotations": at(template, &["metadata", "annotations"]),
            "ownerReferences": [object::owner_reference("v1", "Pod", pod)],
        },
        "spec": at(template, &["spec"]),
    })
}

impl Controller for Ephemeral {
    const NAME: &'static str = "ephemeral-volume";
    const WATCHES: &'static [Gr<'static>] = &[PODS];

    fn observe(&mut self, _: usize, change: &Change, dirty: &mut Dirty) {
        let (pod, there) = parts(change);
        let key = object::key(pod);
        if there && volumes(pod).next().is_some() {
            // Volumes of a pod never change.
            if self.pods.apply(change).is_none() {
                dirty.add(key);
            }
        } else if self.pods.get(&key).is_some() {
            self.pods.apply(&Change::Deleted(Arc::clone(pod)));
        }
    }

    fn reconcile(&mut self, api: &ApiServer, key: &Key) -> Result<Option<Instant>, ApiError> {
        let Some(pod) = self.pods.get(key) else {
            return Ok(None);
        };
        if !object::deleting(pod) {
            for volume in volumes(pod) {
                let made = api.create(PVCS, Some(object::namespace(pod)), claim(pod, volume));
                there_is_fine(made)?;
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_claim_of_a_volume_is_the_pods() {
        let volume = json!({"name": "data", "ephemeral": {"volumeClaimTemplate": {
            "metadata": {"labels": {"app": "x"}}, "spec": {"storageClassName": "fast"}}}});
        let pod = json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"volumes": [{"name": "other", "emptyDir": {}}, volume]}});
        let made: Vec<Value> = volumes(&pod).map(|v| claim(&pod, v)).collect();
        let [made] = made.as_slice() else {
            panic!("{made:?}");
        };
        assert_eq!(made["metadata"]["name"], "p-data");
        assert_eq!(made["metadata"]["namespace"], "ns");
        assert_eq!(made["metadata"]["labels"]["app"], "x");
        assert_eq!(made["metadata"]["ownerReferences"][0]["uid"], "u");
        assert_eq!(made["spec"]["storageClassName"], "fast");
    }
}
