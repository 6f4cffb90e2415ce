//! Defaults of pods and pod templates.

use serde_json::{Map, Value, json};

use crate::meta::{as_map, child, default_to};

/// Grace a pod that says nothing gets, in seconds.
pub const TERMINATION_GRACE_SECONDS: i64 = 30;
/// How long a pod stays on a node that is not ready or not reachable, in seconds.
pub const NOT_READY_TOLERATION_SECONDS: i64 = 300;

/// A pod.
pub fn pod(object: &mut Value) {
    spec(child(object, "spec"));
    let spec = as_map(child(object, "spec"));
    default_to(spec, "enableServiceLinks", true);
    let class = qos_class(object.get("spec").unwrap_or(&Value::Null));
    let status = as_map(child(object, "status"));
    default_to(status, "phase", "Pending");
    default_to(status, "qosClass", class);
}

/// The pod template of a workload.
pub fn template(template: &mut Value) {
    as_map(child(template, "metadata"));
    spec(child(template, "spec"));
}

/// What pods and templates share.
pub fn spec(spec: &mut Value) {
    let spec = as_map(spec);
    default_to(spec, "restartPolicy", "Always");
    default_to(spec, "dnsPolicy", "ClusterFirst");
    default_to(spec, "schedulerName", "default-scheduler");
    default_to(
        spec,
        "terminationGracePeriodSeconds",
        TERMINATION_GRACE_SECONDS,
    );
    default_to(spec, "securityContext", json!({}));
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if container.is_object() {
                self::container(container);
            }
        }
    }
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        host_ports(spec);
    }
    for volume in spec
        .get_mut("volumes")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        volume_defaults(volume);
    }
    for constraint in spec
        .get_mut("topologySpreadConstraints")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let constraint = as_map(constraint);
        default_to(constraint, "nodeAffinityPolicy", "Honor");
        default_to(constraint, "nodeTaintsPolicy", "Ignore");
        // The API leaves both out of what it shows when a client did; they are defaults of the scheduler.
        constraint.retain(|key, value| {
            !(key == "nodeAffinityPolicy" && value == "Honor"
                || key == "nodeTaintsPolicy" && value == "Ignore")
        });
    }
}

fn container(container: &mut Value) {
    let image = container
        .get("image")
        .and_then(Value::as_str)
        .unwrap_or("")
        .to_owned();
    let last = image.rsplit('/').next().unwrap_or("");
    let latest = !last.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest");
    let map = as_map(container);
    default_to(
        map,
        "imagePullPolicy",
        if latest { "Always" } else { "IfNotPresent" },
    );
    default_to(map, "terminationMessagePath", "/dev/termination-log");
    default_to(map, "terminationMessagePolicy", "File");
    for variable in container
        .get_mut("env")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(field) = variable.pointer_mut("/valueFrom/fieldRef") {
            default_to(as_map(field), "apiVersion", "v1");
        }
    }
    let resources = child(container, "resources");
    let limits = resources.get("limits").and_then(Value::as_object).cloned();
    let resources = as_map(resources);
    // What is limited but not requested is requested at its limit.
    if let Some(limits) = limits {
        let requests = as_map(resources.entry("requests").or_insert(Value::Null));
        for (name, quantity) in limits {
            requests.entry(name).or_insert(quantity);
        }
    }
    for port in container
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        default_to(as_map(port), "protocol", "TCP");
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe).filter(|p| p.is_object()) {
            let probe = as_map(probe);
            default_to(probe, "timeoutSeconds", 1);
            default_to(probe, "periodSeconds", 10);
            default_to(probe, "successThreshold", 1);
            default_to(probe, "failureThreshold", 3);
            if let Some(get) = probe.get_mut("httpGet").filter(|p| p.is_object()) {
                default_to(as_map(get), "scheme", "HTTP");
                default_to(as_map(get), "path", "/");
            }
        }
    }
}

/// On the host's network a container's ports are the host's.
fn host_ports(spec: &mut Map<String, Value>) {
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let ports = container.get_mut("ports").and_then(Value::as_array_mut);
            for port in ports.into_iter().flatten() {
                if let Some(number) = port.get("containerPort").cloned() {
                    default_to(as_map(port), "hostPort", number);
                }
            }
        }
    }
}

fn volume_defaults(volume: &mut Value) {
    /// 0644.
    const FILE_MODE: i64 = 420;
    if !volume.is_object() {
        return;
    }
    let source_count = volume.as_object().map_or(0, |v| v.len());
    if source_count <= 1 && !crate::tokens::is_kept(volume) {
        as_map(volume).insert("emptyDir".into(), json!({}));
    }
    for source in ["configMap", "secret", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source).filter(|s| s.is_object()) {
            default_to(as_map(source), "defaultMode", FILE_MODE);
        }
    }
    host_path(volume.get_mut("hostPath"));
    crate::tokens::keep(volume);
}

/// Defaults of a path on the host, of a pod's volume or of a PersistentVolume.
pub fn host_path(path: Option<&mut Value>) {
    if let Some(path) = path.filter(|p| p.is_object()) {
        default_to(as_map(path), "type", "");
    }
}

/// The DefaultTolerationSeconds admission plugin: five minutes on a node that is not ready or not reachable.
pub fn tolerations(spec: &mut Map<String, Value>) {
    let list = spec.entry("tolerations").or_insert(Value::Null);
    if !list.is_array() {
        *list = json!([]);
    }
    let Some(list) = list.as_array_mut() else {
        return;
    };
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let tolerated = list.iter().any(|t| {
            let field = |f: &str| t.get(f).and_then(Value::as_str).unwrap_or("");
            (field("key") == key || field("key").is_empty())
                && matches!(field("effect"), "NoExecute" | "")
        });
        if !tolerated {
            list.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": NOT_READY_TOLERATION_SECONDS,
            }));
        }
    }
}

/// The quality-of-service class a pod's requests and limits put it in.
#[must_use]
pub fn qos_class(spec: &Value) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    let counted = |name: &str| matches!(name, "cpu" | "memory");
    let set = |v: &Value| v.as_str().is_none_or(|s| s != "0") && v.as_i64() != Some(0);
    for list in ["containers", "initContainers"] {
        for container in spec
            .get(list)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let part = |what: &str| {
                container
                    .get("resources")
                    .and_then(|r| r.get(what))
                    .and_then(Value::as_object)
            };
            let (requests, limits) = (part("requests"), part("limits"));
            for map in [requests, limits].into_iter().flatten() {
                any |= map.iter().any(|(k, v)| counted(k) && set(v));
            }
            for name in ["cpu", "memory"] {
                let limit = limits.and_then(|l| l.get(name)).filter(|v| set(v));
                let request = requests.and_then(|r| r.get(name)).or(limit);
                guaranteed &= limit.is_some() && request == limit;
            }
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
