//! Kubelet settings as command line flags and as its configuration file.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Taint;
use serde_json::{Map, Value, json};

use super::Inputs;

/// The configuration file's fields: those of `spec.kubelet`, and the taints.
pub(super) fn config(inputs: &Inputs<'_>) -> Value {
    let mut config = match serde_json::to_value(&inputs.kubelet) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let taints: Vec<Value> = inputs.taints.iter().map(taint_json).collect();
    if !taints.is_empty() {
        config.insert("registerWithTaints".to_owned(), Value::Array(taints));
    }
    Value::Object(config)
}

fn taint_json(taint: &Taint) -> Value {
    let mut json = json!({ "effect": taint.effect, "key": taint.key });
    if let (Some(value), Some(map)) = (
        taint.value.as_ref().filter(|v| !v.is_empty()),
        json.as_object_mut(),
    ) {
        map.insert("value".to_owned(), Value::String(value.clone()));
    }
    json
}

/// `--node-labels="..."`, none without labels.
pub(super) fn node_labels_flag(labels: &BTreeMap<String, String>) -> Option<String> {
    (!labels.is_empty()).then(|| format!("--node-labels=\"{}\"", join(labels, "=")))
}

/// All settings as flags, as AL2's bootstrap takes them.
pub(super) fn flags(inputs: &Inputs<'_>) -> String {
    let k = &inputs.kubelet;
    let taints: Vec<String> = inputs.taints.iter().map(taint_text).collect();
    let map = |flag: &str, map: &BTreeMap<String, String>, sign: &str| {
        (!map.is_empty()).then(|| format!("--{flag}=\"{}\"", join(map, sign)))
    };
    let number = |flag: &str, n: Option<i32>| n.map(|n| format!("--{flag}={n}"));
    [
        node_labels_flag(&inputs.labels),
        (!taints.is_empty()).then(|| format!("--register-with-taints=\"{}\"", taints.join(","))),
        number("max-pods", k.max_pods),
        number("pods-per-core", k.pods_per_core),
        map("system-reserved", &k.system_reserved, "="),
        map("kube-reserved", &k.kube_reserved, "="),
        map("eviction-hard", &k.eviction_hard, "<"),
        map("eviction-soft", &k.eviction_soft, "<"),
        map(
            "eviction-soft-grace-period",
            &k.eviction_soft_grace_period,
            "=",
        ),
        number(
            "eviction-max-pod-grace-period",
            k.eviction_max_pod_grace_period,
        ),
        number("image-gc-high-threshold", k.image_gc_high_threshold_percent),
        number("image-gc-low-threshold", k.image_gc_low_threshold_percent),
        k.cpu_cfs_quota
            .map(|quota| format!("--cpu-cfs-quota={quota}")),
    ]
    .into_iter()
    .flatten()
    .collect::<Vec<_>>()
    .join(" ")
}

fn taint_text(taint: &Taint) -> String {
    match taint.value.as_deref().filter(|v| !v.is_empty()) {
        Some(value) => format!("{}={value}:{}", taint.key, taint.effect),
        None => format!("{}:{}", taint.key, taint.effect),
    }
}

fn join(map: &BTreeMap<String, String>, sign: &str) -> String {
    let pairs: Vec<String> = map.iter().map(|(k, v)| format!("{k}{sign}{v}")).collect();
    pairs.join(",")
}
