//! The virtual pods of a capacity buffer: what would be there if somebody used the room. They are planned for like
//! pods, after all others, and exist nowhere but in plans.

use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use karpenter_api::labels;

use crate::pod_from::{fill_resources, read};
use crate::{ContainerDefaults, Pod, PodKey};

/// Stands before a chunk's number; no name of the API can contain it.
pub(crate) const NUMBER_SIGN: char = '#';

impl Pod {
    /// What every chunk of a buffer looks like; [`Pod::numbered`] makes the chunks. Volumes that belong to a pod's
    /// own claims are left out: no chunk has any.
    #[must_use]
    pub fn chunk(
        template: &PodTemplateSpec,
        buffer: &ObjectMeta,
        defaults: &ContainerDefaults,
    ) -> Self {
        let mut spec = template.spec.clone().unwrap_or_default();
        defaults.admit(&mut spec);
        spec.node_name = None;
        without_claims(&mut spec);
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let mut meta = template.metadata.clone().unwrap_or_default();
        let marks = [
            (labels::BUFFER_FAKE_POD, "true".to_owned()),
            (labels::BUFFER_NAME, text(&buffer.name)),
            (labels::BUFFER_NAMESPACE, text(&buffer.namespace)),
        ];
        let annotations = meta.annotations.get_or_insert_default();
        annotations.extend(marks.map(|(key, value)| (key.to_owned(), value)));
        meta.namespace.clone_from(&buffer.namespace);
        meta.name.clone_from(&buffer.name);
        meta.uid.clone_from(&buffer.uid);
        meta.creation_timestamp
            .clone_from(&buffer.creation_timestamp);
        meta.owner_references = None;
        meta.deletion_timestamp = None;
        let mut pod = read(&meta, &spec, None);
        pod.unschedulable = true;
        // Below everything that is there to run.
        pod.priority = i32::MIN;
        pod.priority_class = None;
        // A node that is about to go keeps its chunks until it does: what takes its place is bought with them in mind.
        pod.tolerations.push(Toleration {
            key: Some(labels::DISRUPTED_TAINT.to_owned()),
            operator: Some("Exists".to_owned()),
            ..Toleration::default()
        });
        if let Err(error) = fill_resources(&mut pod, &spec, None) {
            pod.invalid = Some(error.to_string().into());
        }
        pod
    }

    /// The chunk of this number. No pod of a cluster can have its name, so that one is never taken for the other.
    #[must_use]
    pub fn numbered(&self, number: usize) -> Self {
        Self {
            key: PodKey {
                namespace: self.key.namespace.clone(),
                name: format!("capacity-buffer-{}{NUMBER_SIGN}{number}", self.key.name).into(),
            },
            uid: format!("{}-{number:05}", self.uid).into(),
            ..self.clone()
        }
    }

    /// The buffer that a virtual pod stands for.
    #[must_use]
    pub fn buffer(&self) -> Option<PodKey> {
        let name = self.annotations.get(labels::BUFFER_NAME)?;
        self.is_virtual().then(|| PodKey {
            namespace: self.key.namespace.clone(),
            name: name.as_str().into(),
        })
    }
}

/// Takes volumes of PersistentVolumeClaims off a spec, made for the pod or not, and what mounts them.
fn without_claims(spec: &mut PodSpec) {
    let mut gone = Vec::new();
    if let Some(volumes) = &mut spec.volumes {
        volumes.retain(|v| {
            let claimed = v.persistent_volume_claim.is_some() || v.ephemeral.is_some();
            if claimed {
                gone.push(v.name.clone());
            }
            !claimed
        });
    }
    let init = spec.init_containers.iter_mut().flatten();
    for container in spec.containers.iter_mut().chain(init) {
        if let Some(mounts) = &mut container.volume_mounts {
            mounts.retain(|m| !gone.contains(&m.name));
        }
        if let Some(devices) = &mut container.volume_devices {
            devices.retain(|d| !gone.contains(&d.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Taint;
    use serde_json::json;

    use super::*;
    use crate::taints::first_untolerated;

    #[test]
    fn a_chunk_is_what_a_pod_would_be_without_what_is_only_its_own() {
        let template: PodTemplateSpec = serde_json::from_value(json!({
            "metadata": {"labels": {"app": "web"}, "annotations": {"karpenter.sh/do-not-disrupt": "true"}},
            "spec": {
                "nodeName": "n", "priority": 7, "priorityClassName": "high",
                "nodeSelector": {"disk": "ssd"},
                "volumes": [
                    {"name": "data", "persistentVolumeClaim": {"claimName": "c"}},
                    {"name": "scratch", "ephemeral": {}},
                    {"name": "tmp", "emptyDir": {}},
                ],
                "containers": [{
                    "name": "c", "resources": {"limits": {"cpu": "2"}},
                    "volumeMounts": [{"name": "data", "mountPath": "/d"}, {"name": "tmp", "mountPath": "/t"}],
                    "volumeDevices": [{"name": "scratch", "devicePath": "/s"}],
                }],
            },
        }))
        .unwrap();
        let buffer: ObjectMeta = serde_json::from_value(json!({
            "namespace": "shop", "name": "spare", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z",
        }))
        .unwrap();
        let chunk = Pod::chunk(&template, &buffer, &ContainerDefaults::default()).numbered(3);
        assert_eq!(chunk.key.to_string(), "shop/capacity-buffer-spare#3");
        assert_eq!(&*chunk.uid, "u-00003");
        assert!(chunk.is_virtual() && chunk.is_provisionable() && chunk.is_active());
        assert_eq!(chunk.buffer().unwrap().to_string(), "shop/spare");
        assert_eq!(chunk.labels["app"], "web");
        assert_eq!(chunk.node_selector["disk"], "ssd");
        assert_eq!(chunk.requests.get("cpu").units(), 2);
        assert_eq!((chunk.priority, chunk.priority_class), (i32::MIN, None));
        assert!(chunk.volumes.is_empty());
        let going = Taint {
            key: labels::DISRUPTED_TAINT.to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        };
        assert!(first_untolerated([&going], &chunk.tolerations).is_none());
        assert!(chunk.created.is_some());

        let mut spec = template.spec.unwrap();
        without_claims(&mut spec);
        let container = &spec.containers[0];
        assert_eq!(container.volume_mounts.as_ref().unwrap().len(), 1);
        assert!(container.volume_devices.as_ref().unwrap().is_empty());
    }

    #[test]
    fn a_pod_of_the_cluster_that_says_it_is_virtual_is_not() {
        let mut pod = Pod::default();
        pod.key.name = "capacity-buffer-spare-1".into();
        for (key, value) in [
            (labels::BUFFER_FAKE_POD, "true"),
            (labels::BUFFER_NAME, "spare"),
        ] {
            pod.annotations.insert(key.to_owned(), value.to_owned());
        }
        assert!(!pod.is_virtual());
        assert_eq!(pod.buffer(), None);
    }
}
