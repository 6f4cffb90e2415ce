//! Defaults of the built-in kinds that other parts rely on.

pub mod pod;
pub mod workloads;

use serde_json::{Value, json};

use crate::meta::{self, as_map, child, default_to};
use crate::ops::Target;

/// Fills in the defaults of a built-in kind.
pub fn apply(target: &Target, object: &mut Value) {
    let info = &target.info;
    match (info.group.as_str(), info.plural.as_str()) {
        ("", "pods") => {
            pod::pod(object);
            times(object, &["lastProbeTime", "lastTransitionTime"]);
        }
        ("", "namespaces") => namespace(object),
        ("", "limitranges") => crate::admission::limits::default_range(object),
        ("", "nodes") => node(object),
        ("", "services") => service(object),
        ("", "secrets") => secret(object),
        ("", "events") => {
            let event = as_map(object);
            default_to(event, "reportingComponent", "");
            default_to(event, "reportingInstance", "");
        }
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => binding(object),
        ("", "persistentvolumes") => {
            let spec = as_map(child(object, "spec"));
            default_to(spec, "persistentVolumeReclaimPolicy", "Retain");
            default_to(spec, "volumeMode", "Filesystem");
            pod::host_path(spec.get_mut("hostPath"));
            default_to(as_map(child(object, "status")), "phase", "Pending");
        }
        ("", "persistentvolumeclaims") => {
            default_to(as_map(child(object, "spec")), "volumeMode", "Filesystem");
            default_to(as_map(child(object, "status")), "phase", "Pending");
        }
        ("apps", "deployments") => {
            workloads::deployment(object);
            times(object, &["lastTransitionTime", "lastUpdateTime"]);
        }
        ("apps", "replicasets") => workloads::replica_set(object),
        ("apps", "statefulsets") => workloads::stateful_set(object),
        ("apps", "daemonsets") => workloads::daemon_set(object),
        ("batch", "jobs") => workloads::job(object),
        ("batch", "cronjobs") => workloads::cron_job(object),
        ("storage.k8s.io", "storageclasses") => {
            let class = as_map(object);
            default_to(class, "reclaimPolicy", "Delete");
            default_to(class, "volumeBindingMode", "Immediate");
        }
        ("storage.k8s.io", "csinodes") => csi_node(object),
        ("coordination.k8s.io", "leases") => {
            // Fields of a gate that is off.
            let spec = as_map(child(object, "spec"));
            for key in ["strategy", "preferredHolder"] {
                spec.remove(key);
            }
        }
        ("storage.k8s.io", "csidrivers") => {
            let spec = as_map(child(object, "spec"));
            default_to(spec, "attachRequired", true);
            default_to(spec, "podInfoOnMount", false);
            default_to(spec, "storageCapacity", false);
            default_to(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
            default_to(spec, "volumeLifecycleModes", json!(["Persistent"]));
        }
        ("scheduling.k8s.io", "priorityclasses") => {
            default_to(as_map(object), "preemptionPolicy", "PreemptLowerPriority");
        }
        ("policy", "poddisruptionbudgets") => {
            let status = as_map(child(object, "status"));
            for count in [
                "currentHealthy",
                "desiredHealthy",
                "disruptionsAllowed",
                "expectedPods",
            ] {
                default_to(status, count, 0);
            }
        }
        _ => {}
    }
}

fn namespace(object: &mut Value) {
    let name = meta::name(object).to_owned();
    if !name.is_empty() {
        let labels = as_map(child(child(object, "metadata"), "labels"));
        labels.insert("kubernetes.io/metadata.name".into(), name.into());
    }
    if !meta::is_deleting(object) {
        default_to(as_map(child(object, "status")), "phase", "Active");
    }
    let spec = object.get_mut("spec").and_then(Value::as_object_mut);
    if let Some(spec) = spec
        && spec.get("finalizers") == Some(&json!([]))
    {
        spec.remove("finalizers");
    }
}

/// What is written as text is kept as bytes.
fn secret(object: &mut Value) {
    use base64::Engine as _;
    let secret = as_map(object);
    default_to(secret, "type", "Opaque");
    let Some(Value::Object(texts)) = secret.remove("stringData") else {
        return;
    };
    let data = as_map(secret.entry("data").or_insert(Value::Null));
    for (key, text) in texts {
        let bytes = text.as_str().unwrap_or_default();
        let encoded = base64::prelude::BASE64_STANDARD.encode(bytes);
        data.insert(key, encoded.into());
    }
}

/// Users and groups are RBAC's own, accounts are not.
fn binding(object: &mut Value) {
    let subjects = object.get_mut("subjects").and_then(Value::as_array_mut);
    for subject in subjects.into_iter().flatten() {
        if matches!(meta::text(subject, &["kind"]), "User" | "Group") {
            default_to(as_map(subject), "apiGroup", "rbac.authorization.k8s.io");
        }
    }
}

/// Lists that Go writes as null where there is nothing in them.
fn csi_node(object: &mut Value) {
    let spec = child(object, "spec");
    if spec.get("drivers") == Some(&json!([])) {
        as_map(spec).insert("drivers".into(), Value::Null);
    }
    let drivers = spec.get_mut("drivers").and_then(Value::as_array_mut);
    for driver in drivers.into_iter().flatten() {
        default_to(as_map(driver), "topologyKeys", Value::Null);
    }
}

/// The first of a node's ranges is written twice, and the older place wins.
fn pod_ranges(spec: &mut serde_json::Map<String, Value>) {
    let first = spec.get("podCIDR").and_then(Value::as_str).unwrap_or("");
    if first.is_empty() {
        return;
    }
    let same = spec.get("podCIDRs").and_then(|all| all.get(0)) == Some(&first.into());
    if !same {
        let ranges = json!([first]);
        spec.insert("podCIDRs".into(), ranges);
    }
}

fn node(object: &mut Value) {
    pod_ranges(as_map(child(object, "spec")));
    let status = child(object, "status");
    if let Some(capacity) = status.get("capacity").cloned() {
        default_to(as_map(status), "allocatable", capacity);
    }
    let status = as_map(status);
    if let Value::Object(blank) = blank_node_status() {
        for (key, value) in blank {
            default_to(status, &key, value);
        }
    }
    times(object, &["lastHeartbeatTime", "lastTransitionTime"]);
}

/// What of a node's status Go's types always write.
#[must_use]
pub fn blank_node_status() -> Value {
    json!({
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
        "nodeInfo": {
            "architecture": "", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "",
            "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "",
            "systemUUID": "",
        },
    })
}

/// Times of conditions that nobody set are written as null.
fn times(object: &mut Value, keys: &[&str]) {
    let conditions = object
        .pointer_mut("/status/conditions")
        .and_then(Value::as_array_mut);
    for condition in conditions
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
    {
        for key in keys {
            condition.entry(*key).or_insert(Value::Null);
        }
    }
}

/// Families of a headless service; what selects nothing is for both, whatever the cluster has.
pub fn headless(service: &mut Value) {
    let spec = as_map(child(service, "spec"));
    if spec.get("clusterIP").and_then(Value::as_str) != Some("None") {
        return;
    }
    let selector = spec.get("selector").and_then(Value::as_object);
    let selects = selector.is_some_and(|s| !s.is_empty());
    default_to(spec, "clusterIPs", json!(["None"]));
    if selects {
        default_to(spec, "ipFamilies", json!(["IPv4"]));
        default_to(spec, "ipFamilyPolicy", "SingleStack");
    } else {
        default_to(spec, "ipFamilies", json!(["IPv4", "IPv6"]));
        default_to(spec, "ipFamilyPolicy", "RequireDualStack");
    }
}

fn service(object: &mut Value) {
    let spec = as_map(child(object, "spec"));
    default_to(spec, "type", "ClusterIP");
    default_to(spec, "sessionAffinity", "None");
    default_to(spec, "internalTrafficPolicy", "Cluster");
    for port in spec
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let number = port.get("port").cloned();
        let port = as_map(port);
        default_to(port, "protocol", "TCP");
        if let Some(number) = number {
            default_to(port, "targetPort", number);
        }
    }
    default_to(as_map(child(object, "status")), "loadBalancer", json!({}));
}
