//! Claims that files speak of without spelling them out: those that workloads and pods would make, the class that
//! admission would name, and what to make of claims and classes when none of their kind is among the files.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, Pod as RawPod, Volume,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use karpenter_e2e::json::{name, text};
use karpenter_model::{Pod, PodKey};
use karpenter_state::Store;
use serde_json::Value;

/// Marks the class that claims without one get.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
/// Name of the class of claims about which nothing is known.
const UNKNOWN_CLASS: &str = "unknown";

/// The claim of a number of a StatefulSet's template.
fn claim_of_set(set: &str, template: &PersistentVolumeClaim, number: usize) -> String {
    let template = template.metadata.name.as_deref().unwrap_or_default();
    format!("{template}-{set}-{number}")
}

/// The claim templates of a StatefulSet; none of other workloads.
fn templates(workload: &Value, errors: &mut Vec<String>) -> Vec<PersistentVolumeClaim> {
    let given = match workload.pointer("/spec/volumeClaimTemplates") {
        Some(given) if text(workload, "/kind") == "StatefulSet" => given.clone(),
        _ => return Vec::new(),
    };
    match serde_json::from_value(given) {
        Ok(templates) => templates,
        Err(e) => {
            let shown = name(workload);
            errors.push(format!(
                "StatefulSet {shown}: spec.volumeClaimTemplates: {e}"
            ));
            Vec::new()
        }
    }
}

/// Gives the pods of a workload, in the order of their numbers, the claims that they would have, and tells the store.
pub(super) fn claim_for(
    workload: &Value,
    pods: &mut [RawPod],
    store: &Store,
    errors: &mut Vec<String>,
) {
    let templates = templates(workload, errors);
    for (number, pod) in pods.iter_mut().enumerate() {
        let namespace = pod.metadata.namespace.clone();
        for template in &templates {
            let claim = claim_of_set(name(workload), template, number);
            let volumes = pod
                .spec
                .get_or_insert_default()
                .volumes
                .get_or_insert_default();
            let own = template.metadata.name.clone().unwrap_or_default();
            volumes.retain(|v| v.name != own);
            let mut volume = Volume {
                name: own,
                ..Volume::default()
            };
            volume
                .persistent_volume_claim
                .get_or_insert_default()
                .claim_name
                .clone_from(&claim);
            volumes.push(volume);
            apply(store, claim, namespace.clone(), template.spec.clone());
        }
    }
}

/// Tells the store the claims that a pod's ephemeral volumes make, if the pod still has to be placed.
pub(super) fn ephemeral(pod: &RawPod, store: &Store) {
    let Some(spec) = pod.spec.as_ref().filter(|s| s.node_name.is_none()) else {
        return;
    };
    let meta = &pod.metadata;
    for volume in spec.volumes.iter().flatten() {
        let source = volume.ephemeral.as_ref();
        if let Some(template) = source.and_then(|e| e.volume_claim_template.as_ref()) {
            let own = meta.name.as_deref().unwrap_or_default();
            let claim = format!("{own}-{}", volume.name);
            let namespace = meta.namespace.clone();
            apply(store, claim, namespace, Some(template.spec.clone()));
        }
    }
}

/// A claim with no version of its own, so that one that was read replaces it, and it never one that was read.
fn apply(
    store: &Store,
    name: String,
    namespace: Option<String>,
    spec: Option<PersistentVolumeClaimSpec>,
) {
    let key = PodKey {
        namespace: namespace.as_deref().unwrap_or_default().into(),
        name: name.as_str().into(),
    };
    if store.has_volume_claim(&key) {
        return;
    }
    store.apply_volume_claim(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name),
            namespace,
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    });
}

/// Names the class of a claim or of claim templates that name none, as admission would: the default one, the newest if
/// there are several.
pub(super) fn name_class(objects: &mut [Value]) {
    let is_default = |o: &&Value| {
        let annotation = o
            .pointer("/metadata/annotations")
            .and_then(|a| a.get(DEFAULT_CLASS));
        text(o, "/kind") == "StorageClass" && annotation.and_then(Value::as_str) == Some("true")
    };
    let newest = objects.iter().filter(is_default).max_by_key(|o| {
        let created = text(o, "/metadata/creationTimestamp").to_owned();
        (created, std::cmp::Reverse(name(o).to_owned()))
    });
    let Some(class) = newest.map(|o| name(o).to_owned()) else {
        return;
    };
    for object in objects {
        let specs: Vec<&mut Value> = match text(object, "/kind") {
            "PersistentVolumeClaim" => object.get_mut("spec").into_iter().collect(),
            "StatefulSet" => {
                let templates = object.pointer_mut("/spec/volumeClaimTemplates");
                let templates = templates
                    .and_then(Value::as_array_mut)
                    .into_iter()
                    .flatten();
                templates.filter_map(|t| t.get_mut("spec")).collect()
            }
            _ => continue,
        };
        for spec in specs.into_iter().filter_map(Value::as_object_mut) {
            // The empty name is one that was chosen: no class.
            if spec.get("storageClassName").is_none_or(Value::is_null) {
                spec.insert("storageClassName".to_owned(), class.as_str().into());
            }
        }
    }
}

/// What is known of a kind only if some of it was given: a dump holds all objects of a kind, manifests often none. What
/// pods speak of and nobody gave is then taken to let them go anywhere, with a warning each.
pub(super) fn assume(
    pods: &[Arc<Pod>],
    given: &BTreeSet<String>,
    store: &Store,
    warnings: &mut Vec<String>,
) {
    let mut unknown: BTreeSet<(&str, String)> = BTreeSet::new();
    for pod in pods {
        for key in pod.claims() {
            if !store.has_volume_claim(&key) && !given.contains("PersistentVolumeClaim") {
                unknown.insert(("PersistentVolumeClaim", key.to_string()));
                let spec = PersistentVolumeClaimSpec {
                    storage_class_name: Some(UNKNOWN_CLASS.to_owned()),
                    ..PersistentVolumeClaimSpec::default()
                };
                let namespace = Some(key.namespace.to_string());
                apply(store, key.name.to_string(), namespace, Some(spec));
                anywhere(store, UNKNOWN_CLASS);
            }
            if let Some(class) = store.class_wanted(&key)
                && &*class != UNKNOWN_CLASS
                && !given.contains("StorageClass")
            {
                unknown.insert(("StorageClass", class.to_string()));
                anywhere(store, &class);
            }
        }
    }
    for (kind, name) in unknown {
        warnings.push(format!(
            "{kind} {name} is not among the files, nor is any other; planned as if its volumes could be anywhere"
        ));
    }
}

fn anywhere(store: &Store, class: &str) {
    store.apply_storage_class(StorageClass {
        metadata: ObjectMeta {
            name: Some(class.to_owned()),
            ..ObjectMeta::default()
        },
        provisioner: "unknown".to_owned(),
        volume_binding_mode: Some("WaitForFirstConsumer".to_owned()),
        ..StorageClass::default()
    });
}
