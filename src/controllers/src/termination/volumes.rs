//! Volumes that still have to be detached before a machine may go (`lifecycle-and-disruption.md` §4
//! "awaitVolumeDetachment"): a volume that is pulled out from under a node stays locked for six minutes.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use karpenter_model::Pod;
use karpenter_state::Store;

/// PersistentVolumes whose detachment is waited for, in name order; those of pods that stay do not count.
pub(crate) fn waited_for(
    attachments: &[Arc<VolumeAttachment>],
    staying: &BTreeSet<String>,
) -> BTreeSet<String> {
    attachments
        .iter()
        .filter_map(|a| a.spec.source.persistent_volume_name.clone())
        .filter(|volume| !staying.contains(volume))
        .collect()
}

/// PersistentVolumes of the pods on a node that a drain leaves alone; a claim that is not there has none.
pub(crate) fn of_staying_pods(
    state: &Store,
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> BTreeSet<String> {
    let staying = pods.iter().filter(|p| !p.is_drainable(now));
    let claims = staying.flat_map(|pod| pod.claims());
    let volumes = claims.filter_map(|claim| state.volume_of(&claim));
    volumes.map(|v| v.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn attachment(source: &Value) -> Arc<VolumeAttachment> {
        let value = json!({
            "metadata": {"name": "a"},
            "spec": {"attacher": "ebs", "nodeName": "n", "source": source}
        });
        Arc::new(serde_json::from_value(value).expect("an attachment"))
    }

    #[test]
    fn only_volumes_of_pods_that_go_are_waited_for() {
        let all = [
            attachment(&json!({"persistentVolumeName": "pv-goes"})),
            attachment(&json!({"persistentVolumeName": "pv-stays"})),
            attachment(&json!({"inlineVolumeSpec": {}})),
        ];
        let staying = BTreeSet::from(["pv-stays".to_owned()]);
        let waited: Vec<_> = waited_for(&all, &staying).into_iter().collect();
        assert_eq!(waited, ["pv-goes"]);
    }
}
