//! The pods that a workload would make.

use k8s_openapi::api::core::v1::{Pod as RawPod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use karpenter_e2e::json::{name, text};
use karpenter_e2e::strict::MAX_REPLICAS;
use serde_json::Value;

/// All replicas of a Deployment, ReplicaSet, StatefulSet or Job, named `<workload>-<number>`.
pub(super) fn pods(object: &Value, errors: &mut Vec<String>) -> Vec<RawPod> {
    let shown = format!("{} {}", text(object, "/kind"), name(object));
    let field = if text(object, "/kind") == "Job" {
        "parallelism"
    } else {
        "replicas"
    };
    let replicas = object.pointer(&format!("/spec/{field}"));
    let count = replicas
        .map_or(Some(1), Value::as_i64)
        .filter(|n| (0..=MAX_REPLICAS).contains(n));
    let Some(count) = count else {
        errors.push(format!(
            "{shown}: spec.{field}: expected a number from 0 to {MAX_REPLICAS}, got {}",
            replicas.cloned().unwrap_or_default()
        ));
        return Vec::new();
    };
    let template = object
        .pointer("/spec/template")
        .cloned()
        .unwrap_or_default();
    let template: PodTemplateSpec = match serde_json::from_value(template) {
        Ok(template) => template,
        Err(e) => {
            errors.push(format!("{shown}: spec.template: {e}"));
            return Vec::new();
        }
    };
    let namespace = match text(object, "/metadata/namespace") {
        "" => "default",
        given => given,
    };
    let labelled = template.metadata.unwrap_or_default();
    (0..count)
        .map(|i| RawPod {
            metadata: ObjectMeta {
                name: Some(format!("{}-{i}", name(object))),
                namespace: Some(namespace.to_owned()),
                // Ties in the queue are broken by UID: numbers of one width keep the order of the replicas.
                uid: Some(format!("{}-{i:08}", name(object))),
                owner_references: Some(vec![OwnerReference {
                    api_version: text(object, "/apiVersion").to_owned(),
                    kind: text(object, "/kind").to_owned(),
                    name: name(object).to_owned(),
                    controller: Some(true),
                    ..OwnerReference::default()
                }]),
                ..labelled.clone()
            },
            spec: template.spec.clone(),
            status: None,
        })
        .collect()
}
