//! The Node object that an instance registers: labels, taints, capacity and what the kubelet's configuration leaves
//! allocatable of it.

use karpenter_fake_kube::loops::attach::EBS_DRIVER;
use karpenter_fake_kube::loops::object;
use karpenter_fake_kube::loops::resources::parse_millis;
use serde_json::{Map, Value, json};

use crate::instance::Instance;
use crate::userdata::NodeSetup;

/// Version that simulated kubelets report.
pub(crate) const KUBELET_VERSION: &str = "v1.36.3";
const GIB: i64 = 1 << 30;
const MIB: i64 = 1 << 20;
/// Pods of a node that nothing limits.
const PODS: u32 = 110;
/// Hard eviction thresholds of the operating system images.
const EVICTION_MEMORY_BYTES: i64 = 100 * MIB;
const EVICTION_STORAGE_PERCENT: i64 = 10;
/// Milli-CPU reserved by bands of the CPU: upper end of the band in milli-CPU, share in 1/10000.
const CPU_BANDS: [(i64, i64); 4] = [(1000, 600), (2000, 100), (4000, 50), (i64::MAX, 25)];

/// Amounts of a node: milli-CPU, bytes, bytes, pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Amounts {
    pub(crate) cpu_millis: i64,
    pub(crate) memory: i64,
    pub(crate) storage: i64,
    pub(crate) pods: i64,
}

/// What the hardware has.
pub(crate) fn capacity(instance: &Instance, setup: &NodeSetup) -> Amounts {
    let unlimited = if instance.eni_pods > 0 {
        instance.eni_pods
    } else {
        PODS
    };
    let mut pods = setup.max_pods.unwrap_or(unlimited);
    if let Some(per_core) = setup.pods_per_core {
        pods = pods.min(per_core.saturating_mul(instance.vcpus));
    }
    let bytes = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    Amounts {
        cpu_millis: i64::from(instance.vcpus) * 1000,
        memory: bytes(instance.memory_bytes),
        storage: bytes(instance.storage_bytes),
        pods: i64::from(pods),
    }
}

/// What is left of `capacity` for pods. The defaults are those that the EKS images configure.
pub(crate) fn allocatable(capacity: Amounts, instance: &Instance, setup: &NodeSetup) -> Amounts {
    let reserved = |map: &std::collections::BTreeMap<String, String>, name: &str| {
        map.get(name).and_then(|text| parse_millis(text))
    };
    let millis = |n: i128| i64::try_from(n).unwrap_or(i64::MAX);
    let units = |n: i128| millis(n.div_euclid(1000) + i128::from(n.rem_euclid(1000) != 0));
    let pods_for_memory = i64::from(if instance.eni_pods > 0 {
        instance.eni_pods
    } else {
        PODS
    });
    let kube = &setup.kube_reserved;
    let kube_cpu = reserved(kube, "cpu").map_or_else(|| cpu_reserved(capacity.cpu_millis), millis);
    let kube_memory = reserved(kube, "memory").map_or((11 * pods_for_memory + 255) * MIB, units);
    let kube_storage = reserved(kube, "ephemeral-storage").map_or(GIB, units);
    let system = |name: &str| reserved(&setup.system_reserved, name).unwrap_or(0);
    let threshold = |signal: &str, total: i64, default: i64| match setup.eviction_hard.get(signal) {
        None => default,
        Some(text) => share(text, total).unwrap_or(default),
    };
    let memory_threshold = threshold("memory.available", capacity.memory, EVICTION_MEMORY_BYTES);
    let tenth = percent(capacity.storage, EVICTION_STORAGE_PERCENT);
    let storage_threshold = threshold("nodefs.available", capacity.storage, tenth);
    Amounts {
        cpu_millis: (capacity.cpu_millis - kube_cpu - millis(system("cpu"))).max(0),
        memory: (capacity.memory - kube_memory - units(system("memory")) - memory_threshold).max(0),
        storage: (capacity.storage
            - kube_storage
            - units(system("ephemeral-storage"))
            - storage_threshold)
            .max(0),
        pods: capacity.pods,
    }
}

fn cpu_reserved(cpu_millis: i64) -> i64 {
    let mut from = 0;
    let mut sum = 0;
    for (to, share) in CPU_BANDS {
        let inside = cpu_millis.min(to) - from;
        if inside <= 0 {
            break;
        }
        sum += inside * share / 10_000;
        from = to;
    }
    sum
}

/// A threshold: a quantity, or a share of the whole such as `10%` (`100%` switches it off).
fn share(text: &str, total: i64) -> Option<i64> {
    if let Some(p) = text.strip_suffix('%') {
        let p: f64 = p.trim().parse().ok()?;
        if !(0.0..100.0).contains(&p) {
            return Some(0);
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
        return Some((total as f64 / 100.0 * p).ceil() as i64);
    }
    let millis = parse_millis(text)?;
    i64::try_from(millis.div_euclid(1000)).ok()
}

fn percent(total: i64, p: i64) -> i64 {
    let scaled = i128::from(total) * i128::from(p);
    i64::try_from(scaled.div_euclid(100) + i128::from(scaled.rem_euclid(100) != 0))
        .unwrap_or(i64::MAX)
}

fn printed(amounts: Amounts) -> Map<String, Value> {
    let cpu = if amounts.cpu_millis % 1000 == 0 {
        (amounts.cpu_millis / 1000).to_string()
    } else {
        format!("{}m", amounts.cpu_millis)
    };
    let kib = |n: i64| format!("{}Ki", n / 1024);
    [
        ("cpu", json!(cpu)),
        ("ephemeral-storage", json!(kib(amounts.storage))),
        ("hugepages-1Gi", json!("0")),
        ("hugepages-2Mi", json!("0")),
        ("memory", json!(kib(amounts.memory))),
        ("pods", json!(amounts.pods.to_string())),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v))
    .collect()
}

/// The Node as the kubelet registers it, not ready yet.
pub(crate) fn registering(instance: &Instance, setup: &NodeSetup, now: jiff::Timestamp) -> Value {
    let name = &instance.private_dns_name;
    let mut labels: Map<String, Value> = setup
        .labels
        .iter()
        .map(|(k, v)| (k.clone(), json!(v)))
        .collect();
    for (key, value) in [
        ("beta.kubernetes.io/arch", &*instance.arch),
        ("beta.kubernetes.io/instance-type", &*instance.instance_type),
        ("beta.kubernetes.io/os", "linux"),
        (
            "failure-domain.beta.kubernetes.io/region",
            &*instance.region,
        ),
        ("failure-domain.beta.kubernetes.io/zone", &*instance.zone),
        ("kubernetes.io/arch", &*instance.arch),
        ("kubernetes.io/hostname", &**name),
        ("kubernetes.io/os", "linux"),
        ("node.kubernetes.io/instance-type", &*instance.instance_type),
        ("topology.ebs.csi.aws.com/zone", &*instance.zone),
        ("topology.k8s.aws/zone-id", &*instance.zone_id),
        ("topology.kubernetes.io/region", &*instance.region),
        ("topology.kubernetes.io/zone", &*instance.zone),
    ] {
        if !value.is_empty() {
            labels.insert(key.to_owned(), json!(value));
        }
    }
    let taints: Vec<Value> = setup
        .taints
        .iter()
        .map(|(key, value, effect)| {
            let mut taint = json!({"key": key, "effect": effect});
            if let (false, Some(map)) = (value.is_empty(), taint.as_object_mut()) {
                map.insert("value".to_owned(), json!(value));
            }
            taint
        })
        .collect();
    let capacity = capacity(instance, setup);
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"providerID": instance.provider_id, "taints": taints},
        "status": {
            "capacity": printed(capacity),
            "allocatable": printed(allocatable(capacity, instance, setup)),
            "addresses": [
                {"type": "InternalIP", "address": private_ip(name)},
                {"type": "InternalDNS", "address": name},
                {"type": "Hostname", "address": name},
            ],
            "conditions": conditions(false, "container runtime network not ready: cni plugin not initialized", now),
            "nodeInfo": node_info(&instance.arch, &instance.id),
        },
    })
}

/// Machine facts that `kubectl get nodes -o wide` shows.
pub(crate) fn node_info(arch: &str, id: &str) -> Value {
    json!({
        "architecture": arch,
        "operatingSystem": "linux",
        "osImage": "Amazon Linux 2023 (simulated)",
        "kernelVersion": "6.12.0",
        "kubeletVersion": KUBELET_VERSION,
        "kubeProxyVersion": "",
        "containerRuntimeVersion": "containerd://2.1.0",
        "machineID": id,
        "systemUUID": id,
        "bootID": id,
    })
}

/// The address in a name such as `ip-10-0-3-4.ec2.internal`; names of other forms get none that is real.
fn private_ip(name: &str) -> String {
    let host = name.split('.').next().unwrap_or_default();
    let parts: Vec<&str> = host
        .strip_prefix("ip-")
        .unwrap_or_default()
        .split('-')
        .collect();
    let good = parts.len() == 4 && parts.iter().all(|p| p.parse::<u8>().is_ok());
    if good {
        parts.join(".")
    } else {
        "169.254.0.1".to_owned()
    }
}

/// All conditions of a kubelet.
pub(crate) fn conditions(ready: bool, message: &str, now: jiff::Timestamp) -> Vec<Value> {
    let stamp = object::stamp(now);
    let quiet = [
        (
            "MemoryPressure",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        (
            "DiskPressure",
            "KubeletHasNoDiskPressure",
            "kubelet has no disk pressure",
        ),
        (
            "PIDPressure",
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available",
        ),
    ];
    let mut list: Vec<Value> = quiet
        .iter()
        .map(|(kind, reason, message)| {
            json!({"type": kind, "status": "False", "reason": reason, "message": message,
                "lastHeartbeatTime": stamp, "lastTransitionTime": stamp})
        })
        .collect();
    let mut ready = ready_condition(ready, message);
    if let Some(map) = ready.as_object_mut() {
        map.insert("lastHeartbeatTime".to_owned(), json!(stamp));
        map.insert("lastTransitionTime".to_owned(), json!(stamp));
    }
    list.push(ready);
    list
}

fn ready_condition(ready: bool, message: &str) -> Value {
    if ready {
        json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status"})
    } else {
        json!({"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": message})
    }
}

/// The node's conditions with all of the kubelet's said anew; none when nothing changes.
pub(crate) fn reported(
    node: &Value,
    ready: bool,
    message: &str,
    now: jiff::Timestamp,
) -> Option<Vec<Value>> {
    let mut changed = node.clone();
    let mut any = false;
    for mut wanted in conditions(ready, message, now) {
        if let Some(map) = wanted.as_object_mut() {
            map.remove("lastTransitionTime");
        }
        if let Some(list) = object::merge_condition(&changed, &wanted, now)
            && let Some(map) = changed.as_object_mut()
            && let Some(status) = map
                .entry("status")
                .or_insert_with(|| json!({}))
                .as_object_mut()
        {
            status.insert("conditions".to_owned(), Value::Array(list));
            any = true;
        }
    }
    any.then(|| object::items(&changed, &["status", "conditions"]).to_vec())
}

/// What a Nitro machine can attach, less its root volume and its first network interface.
const VOLUMES_MAX: u32 = 28 - 2;

/// The CSINode that a kubelet makes before it is ready: no driver has registered yet.
pub(crate) fn csi_node(node: &Value) -> Value {
    let name = object::name(node);
    json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSINode",
        "metadata": {
            "name": name,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": object::uid(node)}],
        },
        "spec": {"drivers": []},
    })
}

/// The entry of the volume driver in the CSINode of an instance.
pub(crate) fn volume_driver(instance_id: &str) -> Value {
    json!({
        "name": EBS_DRIVER,
        "nodeID": instance_id,
        "topologyKeys": ["kubernetes.io/os", "topology.ebs.csi.aws.com/zone", "topology.kubernetes.io/zone"],
        "allocatable": {"count": VOLUMES_MAX},
    })
}

/// The node's lease, written once: the node lifecycle loop counts it as renewed until it is told otherwise.
pub(crate) fn lease(node: &Value, now: jiff::Timestamp) -> Value {
    let name = object::name(node);
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": name,
            "namespace": "kube-node-lease",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": object::uid(node)}],
        },
        "spec": {
            "holderIdentity": name,
            "leaseDurationSeconds": 40,
            "renewTime": now.strftime("%Y-%m-%dT%H:%M:%S.000000Z").to_string(),
        },
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn instance() -> Instance {
        Instance {
            private_dns_name: "ip-10-0-3-4.ec2.internal".into(),
            vcpus: 2,
            memory_bytes: 8 << 30,
            storage_bytes: 20 << 30,
            eni_pods: 29,
            arch: "amd64".into(),
            zone: "us-east-1a".into(),
            ..Instance::default()
        }
    }

    #[test]
    fn defaults_are_those_of_the_images() {
        let setup = NodeSetup::default();
        let c = capacity(&instance(), &setup);
        assert_eq!((c.cpu_millis, c.pods), (2000, 29));
        let a = allocatable(c, &instance(), &setup);
        // 2 vCPU: 60m + 10m. 29 pods: 574Mi, and 100Mi for eviction. Storage: 1Gi and a tenth.
        assert_eq!(a.cpu_millis, 1930);
        assert_eq!(a.memory, (8 << 30) - (574 + 100) * MIB);
        assert_eq!(a.storage, (20 << 30) - (1 << 30) - (2 << 30));
    }

    #[rstest]
    #[case(1000, 60)]
    #[case(2000, 70)]
    #[case(4000, 80)]
    #[case(8000, 90)]
    #[case(96_000, 310)]
    fn cpu_bands(#[case] cpu: i64, #[case] want: i64) {
        assert_eq!(cpu_reserved(cpu), want);
    }

    #[test]
    fn configuration_overrides_by_key() {
        let text = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        let setup = NodeSetup {
            max_pods: Some(200),
            pods_per_core: Some(5),
            kube_reserved: text(&[("cpu", "500m")]),
            system_reserved: text(&[("memory", "1Gi")]),
            eviction_hard: text(&[("memory.available", "10%"), ("nodefs.available", "100%")]),
            ..NodeSetup::default()
        };
        let c = capacity(&instance(), &setup);
        assert_eq!(c.pods, 10);
        let a = allocatable(c, &instance(), &setup);
        assert_eq!(a.cpu_millis, 1500);
        let tenth = (8_i64 << 30).div_euclid(10) + 1;
        assert_eq!(a.memory, (8 << 30) - 574 * MIB - GIB - tenth);
        assert_eq!(a.storage, (20 << 30) - GIB);
    }

    #[test]
    fn the_node_says_where_it_is() {
        let node = registering(
            &instance(),
            &NodeSetup::default(),
            jiff::Timestamp::UNIX_EPOCH,
        );
        assert_eq!(node["status"]["addresses"][0]["address"], "10.0.3.4");
        assert_eq!(node["status"]["allocatable"]["cpu"], "1930m");
        assert_eq!(object::condition_status(&node, "Ready"), "False");
        let labels = &node["metadata"]["labels"];
        assert_eq!(labels["kubernetes.io/arch"], "amd64");
        for key in [
            "topology.kubernetes.io/zone",
            "failure-domain.beta.kubernetes.io/zone",
            "topology.ebs.csi.aws.com/zone",
        ] {
            assert_eq!(labels[key], "us-east-1a", "{key}");
        }
        assert_eq!(
            reported(&node, false, "x", jiff::Timestamp::UNIX_EPOCH).map(|l| l.len()),
            Some(4)
        );
        let again = json!({"status": {"conditions": reported(&node, true, "", jiff::Timestamp::UNIX_EPOCH)}});
        assert_eq!(
            reported(&again, true, "", jiff::Timestamp::UNIX_EPOCH),
            None
        );
    }
}
