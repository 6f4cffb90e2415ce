//! Volume binding: claims meet volumes, at once or where their first pod goes; what a storage class can provision
//! is provisioned with the node's zone on it; volumes whose claim is gone are reclaimed once they are detached. Claims
//! and volumes that are deleted while they are in use go when they no longer are (the protection controllers).

use std::sync::Arc;

use karpenter_runtime::Key;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::attach::{self, EBS_DRIVER};
use super::feed::{Controller, Dirty, Mirror, gone_is_fine, parts};
use super::index::Index;
use super::object;
use super::resource::{NODES, PODS, PVCS, PVS, STORAGE_CLASSES, VOLUME_ATTACHMENTS};
use super::resources::Amounts;
use crate::server::{ApiError, ApiServer, Change, Gr, PatchKind};

/// Annotation with which the scheduler tells where the first consumer goes.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Provisioner of classes that have none.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// Zone label of nodes.
const ZONE: &str = "topology.kubernetes.io/zone";
/// Finalizers of claims and of volumes, put on by the API server.
pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// See [`CLAIM_PROTECTION`].
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";

/// Whether a claim has its volume.
#[must_use]
pub fn is_bound(claim: &Value) -> bool {
    !object::text(claim, &["spec", "volumeName"]).is_empty()
        && object::text(claim, &["status", "phase"]) == "Bound"
}

/// Whether a class waits for the first consumer.
#[must_use]
pub fn waits_for_consumer(class: &Value) -> bool {
    object::text(class, &["volumeBindingMode"]) == "WaitForFirstConsumer"
}

/// Whether a class makes volumes.
#[must_use]
pub fn provisions(class: &Value) -> bool {
    !matches!(object::text(class, &["provisioner"]), "" | NO_PROVISIONER)
}

/// Whether a volume is free for a claim (or kept for it) and has what it asks for.
#[must_use]
pub fn could_bind(volume: &Value, claim: &Value) -> bool {
    if object::deleting(volume) {
        return false;
    }
    let reserved = object::at(volume, &["spec", "claimRef"]);
    if reserved.is_object() {
        let other_uid = object::text(reserved, &["uid"]);
        return object::text(reserved, &["name"]) == object::name(claim)
            && object::text(reserved, &["namespace"]) == object::namespace(claim)
            && (other_uid.is_empty() || other_uid == object::uid(claim));
    }
    let class = |o: &Value| object::text(o, &["spec", "storageClassName"]).to_owned();
    let bytes = |map: &Value| Amounts::read(map).other("storage");
    let modes = object::items(volume, &["spec", "accessModes"]);
    let selector = object::at(claim, &["spec", "selector"]);
    let selected = selector.is_null()
        || super::selector::label_selector(selector)
            .is_some_and(|s| super::selector::selects(&s, &object::labels(volume)));
    selected
        && class(volume) == class(claim)
        && bytes(object::at(volume, &["spec", "capacity"]))
            >= bytes(object::at(claim, &["spec", "resources", "requests"]))
        && object::items(claim, &["spec", "accessModes"])
            .iter()
            .all(|m| modes.contains(m))
}

/// A volume for `claim` by `class`, reachable from `zone`.
fn provisioned(claim: &Value, class: &Value, zone: Option<&str>) -> Value {
    let driver = object::text(class, &["provisioner"]);
    let name = format!("pvc-{}", object::uid(claim));
    let reclaim = match object::text(class, &["reclaimPolicy"]) {
        "" => "Delete",
        policy => policy,
    };
    let mut spec = json!({
        "capacity": {"storage": object::at(claim, &["spec", "resources", "requests", "storage"])},
        "accessModes": object::at(claim, &["spec", "accessModes"]),
        "volumeMode": "Filesystem",
        "storageClassName": object::name(class),
        "persistentVolumeReclaimPolicy": reclaim,
        "claimRef": {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": object::namespace(claim),
            "name": object::name(claim), "uid": object::uid(claim),
        },
        "csi": {"driver": driver, "volumeHandle": format!("vol-{}", object::uid(claim).replace('-', ""))},
    });
    if let (Some(zone), Some(map)) = (zone, spec.as_object_mut()) {
        let keys: &[&str] = if driver == EBS_DRIVER {
            &["topology.ebs.csi.aws.com/zone", ZONE]
        } else {
            &[ZONE]
        };
        // Terms are alternatives: nodes carry one of the keys or the other.
        let terms: Vec<Value> = keys
            .iter()
            .map(|k| json!({"matchExpressions": [{"key": k, "operator": "In", "values": [zone]}]}))
            .collect();
        let affinity = json!({"required": {"nodeSelectorTerms": terms}});
        map.insert("nodeAffinity".to_owned(), affinity);
    }
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": name,
            "annotations": {"pv.kubernetes.io/provisioned-by": driver},
        },
        "spec": spec,
    })
}

/// The zone of a class's first allowed topology, if it names any.
fn allowed_zone(class: &Value) -> Option<String> {
    object::items(class, &["allowedTopologies"])
        .iter()
        .flat_map(|t| object::items(t, &["matchLabelExpressions"]))
        .filter(|e| object::text(e, &["key"]).ends_with("/zone"))
        .find_map(|e| {
            object::items(e, &["values"])
                .first()?
                .as_str()
                .map(str::to_owned)
        })
}

/// The loop.
#[derive(Default)]
pub struct Storage {
    claims: Mirror,
    volumes: Mirror,
    classes: Mirror,
    nodes: Mirror,
    /// Claims that placed pods name, and which pods.
    users: Index<Key>,
    /// Volumes that are attached, and by what.
    attached: Index<String>,
}

impl Storage {
    /// The smallest volume that will do, by name among equals.
    fn free_volume(&self, claim: &Value, node: Option<&Value>) -> Option<&Arc<Value>> {
        let reachable = |volume: &Value| {
            let Some(node) = node else { return true };
            let affinity = object::at(volume, &["spec", "nodeAffinity", "required"]);
            serde_json::from_value(affinity.clone()).map_or(affinity.is_null(), |s| {
                super::selector::node_selector_matches(
                    &s,
                    &object::labels(node),
                    object::name(node),
                )
            })
        };
        self.volumes
            .iter()
            .filter(|(_, v)| could_bind(v, claim) && reachable(v))
            .min_by_key(|(_, v)| {
                let kept = object::at(v, &["spec", "claimRef"]).is_object();
                let size = Amounts::read(object::at(v, &["spec", "capacity"])).other("storage");
                (!kept, size)
            })
            .map(|(_, v)| v)
    }

    fn bring_claim(&self, api: &ApiServer, claim: &Value) -> Result<(), ApiError> {
        if object::deleting(claim) {
            if self.users.has(&object::key(claim)) {
                return Ok(());
            }
            return unprotect(api, PVCS, claim, CLAIM_PROTECTION);
        }
        if is_bound(claim) {
            return Ok(());
        }
        let named = object::text(claim, &["spec", "volumeName"]);
        if !named.is_empty() {
            return match self.volumes.get(&Key::cluster(named)) {
                Some(volume) if could_bind(volume, claim) => bind(api, claim, volume),
                _ => Ok(()),
            };
        }
        let class_name = object::text(claim, &["spec", "storageClassName"]);
        let class = self.classes.get(&Key::cluster(class_name));
        let selected = object::annotation(claim, SELECTED_NODE);
        let node = self.nodes.get(&Key::cluster(selected));
        let waits = class.is_some_and(|c| waits_for_consumer(c));
        if waits && selected.is_empty() {
            return Ok(());
        }
        if waits && node.is_none() {
            // The node went away before the volume was made: the scheduler chooses again.
            let patch = json!({"metadata": {"annotations": {SELECTED_NODE: null}}});
            let (ns, name) = (object::namespace(claim), object::name(claim));
            return gone_is_fine(api.patch(PVCS, Some(ns), name, "", PatchKind::Merge, patch));
        }
        if let Some(volume) = self.free_volume(claim, node.map(Arc::as_ref)) {
            return bind(api, claim, volume);
        }
        let Some(class) = class.filter(|c| provisions(c)) else {
            return Ok(());
        };
        let zone = match node {
            Some(node) => Some(object::label(node, ZONE).to_owned()),
            None => allowed_zone(class).or_else(|| self.some_zone(claim)),
        };
        let zone = zone.as_deref().filter(|z| !z.is_empty());
        match api.create(PVS, None, provisioned(claim, class, zone)) {
            Ok(volume) => bind(api, claim, &volume),
            Err(error) if error.code == 409 => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A zone of the cluster for a volume that nobody waits for, spread by the claim's name.
    fn some_zone(&self, claim: &Value) -> Option<String> {
        let zones: std::collections::BTreeSet<&str> = self
            .nodes
            .iter()
            .map(|(_, n)| object::label(n, ZONE))
            .filter(|z| !z.is_empty())
            .collect();
        let hash = object::name(claim).bytes().fold(0_usize, |h, b| {
            h.wrapping_mul(31).wrapping_add(usize::from(b))
        });
        zones
            .iter()
            .nth(hash.checked_rem(zones.len())?)
            .map(|z| (*z).to_owned())
    }

    fn bring_volume(&self, api: &ApiServer, volume: &Value) -> Result<(), ApiError> {
        let name = object::name(volume);
        let phase = object::text(volume, &["status", "phase"]);
        if object::deleting(volume) && phase != "Bound" {
            return unprotect(api, PVS, volume, VOLUME_PROTECTION);
        }
        let set_phase = |phase: &str| {
            let patch = json!({"status": {"phase": phase}});
            gone_is_fine(api.patch(PVS, None, name, "status", PatchKind::Merge, patch))
        };
        let claim_ref = object::at(volume, &["spec", "claimRef"]);
        let uid = object::text(claim_ref, &["uid"]);
        if uid.is_empty() {
            return if phase == "Available" {
                Ok(())
            } else {
                set_phase("Available")
            };
        }
        let key = Key::namespaced(
            object::text(claim_ref, &["namespace"]),
            object::text(claim_ref, &["name"]),
        );
        let alive = self.claims.get(&key).is_some_and(|c| object::uid(c) == uid);
        if alive {
            return Ok(());
        }
        if phase != "Released" {
            return set_phase("Released");
        }
        let reclaimed =
            object::text(volume, &["spec", "persistentVolumeReclaimPolicy"]) == "Delete";
        // A driver does not delete what is still attached somewhere.
        if reclaimed && !object::deleting(volume) && !self.attached.has(name) {
            return gone_is_fine(api.delete(PVS, None, name, None));
        }
        Ok(())
    }
}

/// Takes a protection off.
fn unprotect(
    api: &ApiServer,
    resource: Gr<'_>,
    object: &Value,
    finalizer: &str,
) -> Result<(), ApiError> {
    if !object::has_finalizer(object, finalizer) {
        return Ok(());
    }
    let namespace = Some(object::namespace(object)).filter(|ns| !ns.is_empty());
    let patch = json!({"metadata": {
        "resourceVersion": object::at(object, &["metadata", "resourceVersion"]),
        "finalizers": object::finalizers_without(object, finalizer),
    }});
    let name = object::name(object);
    // A conflict is tried again, too: nobody says that a change by somebody else will bring us back.
    gone_is_fine(api.patch(resource, namespace, name, "", PatchKind::Merge, patch))
}

fn bind(api: &ApiServer, claim: &Value, volume: &Value) -> Result<(), ApiError> {
    let (ns, name) = (object::namespace(claim), object::name(claim));
    let volume_name = object::name(volume);
    let reference = json!({"spec": {"claimRef": {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": ns, "name": name, "uid": object::uid(claim),
    }}});
    api.patch(PVS, None, volume_name, "", PatchKind::Merge, reference)?;
    let bound = json!({"status": {"phase": "Bound"}});
    api.patch(PVS, None, volume_name, "status", PatchKind::Merge, bound)?;
    let spec = json!({
        "metadata": {"annotations": {BIND_COMPLETED: "yes"}},
        "spec": {"volumeName": volume_name},
    });
    api.patch(PVCS, Some(ns), name, "", PatchKind::Merge, spec)?;
    let status = json!({"status": {
        "phase": "Bound",
        "accessModes": object::at(volume, &["spec", "accessModes"]),
        "capacity": object::at(volume, &["spec", "capacity"]),
    }});
    api.patch(PVCS, Some(ns), name, "status", PatchKind::Merge, status)?;
    Ok(())
}

impl Controller for Storage {
    const NAME: &'static str = "persistentvolume-binder";
    const WATCHES: &'static [Gr<'static>] =
        &[STORAGE_CLASSES, NODES, PVS, PVCS, PODS, VOLUME_ATTACHMENTS];

    fn observe(&mut self, watch: usize, change: &Change, dirty: &mut Dirty) {
        let (object, there) = parts(change);
        match watch {
            0 => {
                self.classes.apply(change);
                self.unbound_claims(dirty);
            }
            1 => {
                let new_or_gone = self.nodes.apply(change).is_none() || !parts(change).1;
                if new_or_gone {
                    self.unbound_claims(dirty);
                }
            }
            2 => {
                self.volumes.apply(change);
                dirty.add(object::key(object));
                self.unbound_claims(dirty);
            }
            4 => self.observe_pod(change, dirty),
            5 => {
                let volume = attach::volume_of(object);
                if there {
                    self.attached.add(volume.to_owned(), object::key(object));
                } else {
                    self.attached.remove(volume, &object::key(object));
                }
                dirty.add(Key::cluster(volume));
            }
            _ => {
                self.claims.apply(change);
                dirty.add(object::key(object));
                let volume = object::text(object, &["spec", "volumeName"]);
                if !volume.is_empty() {
                    dirty.add(Key::cluster(volume));
                }
            }
        }
    }

    fn reconcile(&mut self, api: &ApiServer, key: &Key) -> Result<Option<Instant>, ApiError> {
        if key.namespace.is_some() {
            if let Some(claim) = self.claims.get(key) {
                self.bring_claim(api, claim)?;
            }
        } else if let Some(volume) = self.volumes.get(key) {
            self.bring_volume(api, volume)?;
        }
        Ok(None)
    }
}

impl Storage {
    /// A pod that has a node keeps its claims from going, until its object is gone.
    fn observe_pod(&mut self, change: &Change, dirty: &mut Dirty) {
        let (pod, there) = parts(change);
        let placed = !object::text(pod, &["spec", "nodeName"]).is_empty();
        for claim in attach::claims(pod).filter(|_| placed) {
            let claim = Key::namespaced(object::namespace(pod), &claim);
            if there {
                self.users.add(claim, object::key(pod));
            } else {
                self.users.remove(&claim, &object::key(pod));
                dirty.add(claim);
            }
        }
    }

    fn unbound_claims(&self, dirty: &mut Dirty) {
        for (key, claim) in self.claims.iter() {
            if !is_bound(claim) {
                dirty.add(key.clone());
            }
        }
    }
}
