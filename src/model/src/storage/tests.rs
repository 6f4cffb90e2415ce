//! What claims come to, case by case of the specification.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::pod::PodVolume;

#[derive(Default)]
struct Objects {
    claims: BTreeMap<PodKey, Arc<Claim>>,
    volumes: BTreeMap<String, Arc<Volume>>,
    classes: BTreeMap<String, Arc<Class>>,
}

impl StorageObjects for Objects {
    fn claim(&self, key: &PodKey) -> Option<Arc<Claim>> {
        self.claims.get(key).cloned()
    }
    fn volume(&self, name: &str) -> Option<Arc<Volume>> {
        self.volumes.get(name).cloned()
    }
    fn class(&self, name: &str) -> Option<Arc<Class>> {
        self.classes.get(name).cloned()
    }
}

fn key(name: &str) -> PodKey {
    PodKey {
        namespace: "ns".into(),
        name: name.into(),
    }
}

impl Objects {
    fn with(mut self, object: Value) -> Self {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        match object["kind"].as_str().unwrap() {
            "PersistentVolumeClaim" => {
                let raw: PersistentVolumeClaim = serde_json::from_value(object).unwrap();
                self.claims.insert(key(&name), Arc::new(Claim::from(&raw)));
            }
            "PersistentVolume" => {
                let raw: PersistentVolume = serde_json::from_value(object).unwrap();
                self.volumes.insert(name, Arc::new(Volume::from(&raw)));
            }
            _ => {
                let raw: StorageClass = serde_json::from_value(object).unwrap();
                self.classes.insert(name, Arc::new(Class::from(&raw)));
            }
        }
        self
    }
}

/// A bound claim of a volume.
fn bound(name: &str, volume: &str) -> Value {
    json!({"kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "annotations": {BIND_COMPLETED: "yes"}},
        "spec": {"volumeName": volume}, "status": {"phase": "Bound"}})
}

fn unbound(name: &str, class: &str) -> Value {
    json!({"kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {"storageClassName": class}})
}

fn zones(zones: &[&str]) -> Value {
    json!({"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": zones}]})
}

fn volume(name: &str, source: Value, terms: Value) -> Value {
    let mut spec = source;
    spec["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": terms}});
    json!({"kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec})
}

fn csi(driver: &str) -> Value {
    json!({"csi": {"driver": driver, "volumeHandle": "v"}})
}

fn class(name: &str, provisioner: &str, mode: &str, topologies: Value) -> Value {
    json!({"kind": "StorageClass", "metadata": {"name": name}, "provisioner": provisioner,
        "volumeBindingMode": mode, "allowedTopologies": topologies})
}

fn pod(claims: &[&str]) -> Pod {
    let volume = |c: &&str| PodVolume {
        name: (*c).into(),
        claim: (*c).into(),
    };
    Pod {
        key: key("p"),
        volumes: claims.iter().map(volume).collect(),
        ..Pod::default()
    }
}

fn of(objects: &Objects, claims: &[&str]) -> Storage {
    Storage::of(&pod(claims), objects, &LabelRegistry::default()).unwrap()
}

/// Alternatives as text.
fn places_of(storage: &Storage) -> Vec<String> {
    assert_eq!(storage.refusal, None);
    let text = |r: &Requirements| {
        let all: Vec<String> = r.iter().map(ToString::to_string).collect();
        all.join(", ")
    };
    storage.alternatives.iter().map(text).collect()
}

fn refusal_of(storage: &Storage) -> String {
    storage.refusal.as_ref().unwrap().to_string()
}

#[test]
fn a_pod_without_claims_has_no_storage() {
    let none = Storage::of(&pod(&[]), &Objects::default(), &LabelRegistry::default());
    assert_eq!(none, None);
}

#[test]
fn a_bound_claim_is_where_its_volume_is() {
    let objects = Objects::default().with(bound("data", "pv")).with(volume(
        "pv",
        csi("ebs.csi.aws.com"),
        json!([zones(&["a"]), zones(&["b"])]),
    ));
    let storage = of(&objects, &["data"]);
    assert_eq!(
        places_of(&storage),
        [
            "topology.kubernetes.io/zone In [a]",
            "topology.kubernetes.io/zone In [b]"
        ]
    );
    let attached = Attached::from([("ebs.csi.aws.com".into(), BTreeSet::from([key("data")]))]);
    assert_eq!(storage.attached, attached);
}

#[test]
fn an_unbound_claim_goes_where_its_class_allows() {
    let topologies = json!([{"matchLabelExpressions": [
        {"key": "failure-domain.beta.kubernetes.io/zone", "values": ["a", "b"]}]},
        {"matchLabelExpressions": []}]);
    let objects = Objects::default().with(unbound("data", "fast")).with(class(
        "fast",
        "kubernetes.io/aws-ebs",
        "WaitForFirstConsumer",
        topologies,
    ));
    let storage = of(&objects, &["data"]);
    assert_eq!(
        places_of(&storage),
        ["topology.kubernetes.io/zone In [a b]"],
        "the alias is resolved; a term that says nothing is no alternative"
    );
    assert_eq!(
        storage.attached.keys().collect::<Vec<_>>(),
        [&Arc::from("ebs.csi.aws.com")],
        "the driver that took the plugin's place attaches it"
    );
}

#[test]
fn a_volume_without_affinity_is_anywhere_and_one_on_a_disk_of_a_node_leaves_the_name_out() {
    let hostname = json!({"matchExpressions": [
        {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n"]}]});
    let both = json!({"matchExpressions": [
        {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n"]},
        {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a"]}]});
    let local = || json!({"local": {"path": "/x"}});
    let objects = Objects::default()
        .with(bound("free", "free"))
        .with(volume("free", csi("nfs.csi.k8s.io"), json!([{}])))
        .with(bound("disk", "disk"))
        .with(volume("disk", local(), json!([hostname.clone()])))
        .with(bound("disk-in-zone", "disk-in-zone"))
        .with(volume("disk-in-zone", local(), json!([both])))
        .with(bound("remote", "remote"))
        .with(volume("remote", csi("x"), json!([hostname])));
    assert!(places_of(&of(&objects, &["free"])).is_empty());
    assert_eq!(places_of(&of(&objects, &["disk"])), [""], "anywhere");
    assert_eq!(
        places_of(&of(&objects, &["disk-in-zone"])),
        ["topology.kubernetes.io/zone In [a]"]
    );
    assert_eq!(
        places_of(&of(&objects, &["remote"])),
        ["kubernetes.io/hostname In [n]"],
        "only a node's own disk goes with the node"
    );
    assert!(of(&objects, &["disk"]).attached.is_empty());
}

#[test]
fn branches_that_volumes_do_not_share_are_pruned() {
    let at = |name: &str, terms| volume(name, csi("ebs.csi.aws.com"), terms);
    let objects = Objects::default()
        .with(bound("x", "x"))
        .with(at("x", json!([zones(&["a"]), zones(&["b"])])))
        .with(bound("y", "y"))
        .with(at("y", json!([zones(&["b"]), zones(&["c"])])))
        .with(bound("z", "z"))
        .with(at("z", json!([zones(&["a"])])));
    assert_eq!(
        places_of(&of(&objects, &["x", "y"])),
        ["topology.kubernetes.io/zone In [b]"]
    );
    assert_eq!(
        refusal_of(&of(&objects, &["x", "y", "z"])),
        "PersistentVolumeClaim ns/z: its volume can be used in no place where the pod's other volumes can"
    );
}

#[rstest]
#[case::missing(&[], "it does not exist")]
#[case::deleting(
    &[json!({"kind": "PersistentVolumeClaim", "metadata": {"name": "data", "deletionTimestamp": "2026-01-01T00:00:00Z"}})],
    "it is being deleted"
)]
#[case::lost(
    &[json!({"kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "status": {"phase": "Lost"}})],
    "it has lost its volume (phase Lost)"
)]
#[case::half_bound(
    &[json!({"kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": {"volumeName": "pv"}})],
    "it names PersistentVolume pv but is not bound to it yet"
)]
#[case::no_volume(&[bound("data", "pv")], "its PersistentVolume pv does not exist")]
#[case::volume_goes(
    &[bound("data", "pv"), json!({"kind": "PersistentVolume", "metadata": {"name": "pv", "deletionTimestamp": "2026-01-01T00:00:00Z"}})],
    "its PersistentVolume pv is being deleted"
)]
#[case::no_class(
    &[json!({"kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": {"storageClassName": ""}})],
    "it is not bound and names no StorageClass, so that no volume will be made for it"
)]
#[case::unknown_class(&[unbound("data", "fast")], "its StorageClass fast does not exist")]
#[case::immediate(
    &[unbound("data", "fast"), class("fast", "ebs.csi.aws.com", "Immediate", json!([]))],
    "it is not bound, and StorageClass fast binds at once (volumeBindingMode Immediate): where its volume will be is not known yet"
)]
#[case::unreadable(
    &[bound("data", "pv"), volume("pv", csi("x"), json!([{"matchExpressions": [{"key": "k", "operator": "Near"}]}]))],
    "where its volume can be used cannot be read: requirement k: operator \"Near\" is unknown"
)]
fn a_claim_in_the_way_is_named(#[case] objects: &[Value], #[case] fault: &str) {
    let objects = (objects.iter().cloned()).fold(Objects::default(), Objects::with);
    let said = refusal_of(&of(&objects, &["data"]));
    let expected = format!("PersistentVolumeClaim ns/data: {fault}");
    assert!(said.starts_with(&expected), "{said}\nexpected {expected}");
}

#[test]
fn a_claim_that_two_volumes_of_a_pod_name_counts_once_and_unknown_drivers_not_at_all() {
    let objects = Objects::default()
        .with(bound("data", "pv"))
        .with(volume("pv", csi("ebs.csi.aws.com"), json!([])))
        .with(bound("old", "old"))
        .with(volume(
            "old",
            json!({"awsElasticBlockStore": {"volumeID": "v"}}),
            json!([]),
        ))
        .with(bound("nfs", "nfs"))
        .with(volume(
            "nfs",
            json!({"nfs": {"path": "/", "server": "s"}}),
            json!([]),
        ));
    let storage = of(&objects, &["data", "data", "old", "nfs"]);
    let ebs = BTreeSet::from([key("data"), key("old")]);
    assert_eq!(
        storage.attached,
        Attached::from([("ebs.csi.aws.com".into(), ebs)])
    );
}

#[test]
fn limits_are_those_that_drivers_name() {
    let raw: CSINode =
        serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": {"drivers": [
        {"name": "ebs.csi.aws.com", "nodeID": "i", "allocatable": {"count": 25}},
        {"name": "efs.csi.aws.com", "nodeID": "i"}]}}))
        .unwrap();
    assert_eq!(
        limits(&raw),
        VolumeLimits::from([("ebs.csi.aws.com".into(), 25)])
    );
}
