//! What a pod's volume claims demand of a node: bound volumes stay where they are, claims that wait for their first
//! consumer must be possible there, a node takes so many volumes of a driver, and some claims are one pod's alone. Models
//! the plugins VolumeRestrictions, NodeVolumeLimits, VolumeBinding and VolumeZone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{NodeSelector, TopologySelectorTerm};
use karpenter_runtime::Key;
use serde::Deserialize;
use serde_json::Value;

use super::cluster::{Cluster, Node};
use super::pod::Pod;
use crate::loops::attach;
use crate::loops::feed::Mirror;
use crate::loops::object::{self, at, items, text};
use crate::loops::resources::Amounts;
use crate::loops::selector::node_selector_matches;
use crate::loops::storage::{self, SELECTED_NODE};

/// Labels of volumes that say where they are, each with the one that nodes have today.
const PLACES: [(&str, &str); 4] = [
    (
        "failure-domain.beta.kubernetes.io/zone",
        "topology.kubernetes.io/zone",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/region",
    ),
    ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    (
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/region",
    ),
];

/// Claims, volumes, storage classes, and what nodes can attach.
#[derive(Default)]
pub(crate) struct Volumes {
    pub(crate) claims: Mirror,
    pub(crate) volumes: Mirror,
    pub(crate) classes: Mirror,
    pub(crate) csi_nodes: Mirror,
}

/// A claim that waits for its first consumer.
struct Delayed {
    /// Volumes that could be its own, the smallest first, and where each can be used.
    found: Vec<(Key, Option<NodeSelector>)>,
    /// Where its class can make one; none where it makes none.
    made: Option<Vec<TopologySelectorTerm>>,
    /// The node that was chosen for it already.
    pinned_to: Option<String>,
}

/// A label of a volume: its key, the key that nodes have today, and the values that will do.
type Place = (&'static str, &'static str, BTreeSet<String>);

/// The demands of one pod's claims.
#[derive(Default)]
pub(crate) struct PodVolumes {
    bound: Vec<NodeSelector>,
    places: Vec<Place>,
    delayed: Vec<Delayed>,
    /// Claims that no other pod may have.
    alone: Vec<Key>,
    /// Volumes to be attached, and by which driver.
    attached: BTreeMap<String, String>,
    /// Names of claims that wait for their first consumer.
    pub(crate) waiting: Vec<String>,
}

/// Why claims keep a pod off a node, and whether evicting pods from it would not help.
pub(crate) type VolumeRefusal = (&'static str, bool);

impl Volumes {
    /// The demands of `pod`'s claims, or why it cannot be scheduled anywhere.
    pub(crate) fn of(&self, pod: &Pod) -> Result<PodVolumes, String> {
        let mut demands = PodVolumes::default();
        let mut delayed = Vec::new();
        for name in &pod.claims {
            let key = Key::namespaced(&pod.namespace, name);
            let Some(claim) = self.claims.get(&key) else {
                return Err(format!("persistentvolumeclaim {name:?} not found"));
            };
            if object::deleting(claim) {
                return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
            }
            let volume_name = text(claim, &["spec", "volumeName"]);
            if text(claim, &["status", "phase"]) == "Lost" {
                return Err(format!(
                    "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume_name:?}"
                ));
            }
            let modes = items(claim, &["spec", "accessModes"]);
            if modes.iter().any(|m| m == "ReadWriteOncePod") {
                demands.alone.push(key.clone());
            }
            demands.attached.extend(self.attached(&key));
            if storage::is_bound(claim) {
                let Some(volume) = self.volumes.get(&Key::cluster(volume_name)) else {
                    return Err(
                        "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
                            .to_owned(),
                    );
                };
                demands.bound.extend(usable_where(volume));
                demands.places.extend(places(volume));
                continue;
            }
            let class = text(claim, &["spec", "storageClassName"]);
            let class = self.classes.get(&Key::cluster(class));
            let class = class.filter(|c| storage::waits_for_consumer(c) && volume_name.is_empty());
            let Some(class) = class else {
                return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
            };
            demands.waiting.push(name.clone());
            let wanted = Amounts::read(at(claim, &["spec", "resources", "requests"]));
            delayed.push((wanted.other("storage"), self.delayed(claim, class)));
        }
        // The smallest claims choose first, so that they leave the large volumes to those that need them.
        delayed.sort_by_key(|(size, _)| *size);
        demands.delayed = delayed.into_iter().map(|(_, d)| d).collect();
        Ok(demands)
    }

    fn delayed(&self, claim: &Value, class: &Value) -> Delayed {
        let size = |v: &Value| Amounts::read(at(v, &["spec", "capacity"])).other("storage");
        let mut found: Vec<_> = self
            .volumes
            .iter()
            .filter(|(_, v)| {
                // A volume that is kept for a claim need not have been looked at yet.
                let kept = at(v, &["spec", "claimRef"]).is_object();
                (kept || text(v, &["status", "phase"]) == "Available")
                    && storage::could_bind(v, claim)
            })
            .map(|(key, v)| {
                let kept = at(v, &["spec", "claimRef"]).is_object();
                (!kept, size(v), key.clone(), usable_where(v))
            })
            .collect();
        found.sort_by(|a, b| (a.0, a.1, &a.2).cmp(&(b.0, b.1, &b.2)));
        let terms = items(class, &["allowedTopologies"]);
        let terms = terms
            .iter()
            .filter_map(|t| TopologySelectorTerm::deserialize(t).ok());
        let pinned = object::annotation(claim, SELECTED_NODE);
        Delayed {
            found: found.into_iter().map(|(_, _, key, at)| (key, at)).collect(),
            made: storage::provisions(class).then(|| terms.collect()),
            pinned_to: Some(pinned.to_owned()).filter(|p| !p.is_empty()),
        }
    }

    /// The volume that a claim will have attached, by a name of its own, and its driver.
    fn attached(&self, claim: &Key) -> Option<(String, String)> {
        let object = self.claims.get(claim)?;
        let volume = text(object, &["spec", "volumeName"]);
        if let Some(volume) = self.volumes.get(&Key::cluster(volume)) {
            let driver = attach::driver(volume)?;
            let handle = text(volume, &["spec", "csi", "volumeHandle"]);
            return Some((format!("{driver}/{handle}"), driver.to_owned()));
        }
        let class = text(object, &["spec", "storageClassName"]);
        let class = self.classes.get(&Key::cluster(class))?;
        let driver = text(class, &["provisioner"]);
        (!driver.is_empty()).then(|| (format!("{driver}/claim {claim}"), driver.to_owned()))
    }

    /// Whether a node can take what a pod wants attached beside what its pods have.
    fn room(&self, wanted: &PodVolumes, node: &Node, cluster: &Cluster) -> bool {
        if wanted.attached.is_empty() {
            return true;
        }
        let Some(limits) = self.csi_nodes.get(&Key::cluster(&node.name)) else {
            return true;
        };
        let limits: BTreeMap<&str, i64> = items(limits, &["spec", "drivers"])
            .iter()
            .filter_map(|d| {
                Some((
                    text(d, &["name"]),
                    object::int(d, &["allocatable", "count"])?,
                ))
            })
            .collect();
        if !wanted
            .attached
            .values()
            .any(|d| limits.contains_key(d.as_str()))
        {
            return true;
        }
        let there: BTreeMap<String, String> = node
            .pods()
            .filter_map(|key| cluster.placed(key))
            .flat_map(|pod| {
                let claim = |c: &String| self.attached(&Key::namespaced(&pod.namespace, c));
                pod.claims.iter().filter_map(claim).collect::<Vec<_>>()
            })
            .collect();
        let count = |of: &BTreeMap<String, String>,
                     driver: &str,
                     but: Option<&BTreeMap<String, String>>| {
            let new = |v: &str| but.is_none_or(|b| !b.contains_key(v));
            let mine = of.iter().filter(|(v, d)| *d == driver && new(v));
            i64::try_from(mine.count()).unwrap_or(i64::MAX)
        };
        limits.iter().all(|(driver, limit)| {
            let new = count(&wanted.attached, driver, Some(&there));
            new == 0 || count(&there, driver, None).saturating_add(new) <= *limit
        })
    }

    /// Why the claims keep the pod off `node`, if they do.
    pub(crate) fn refusal(
        &self,
        wanted: &PodVolumes,
        node: &Node,
        cluster: &Cluster,
    ) -> Option<VolumeRefusal> {
        if wanted.alone.iter().any(|claim| cluster.uses(claim)) {
            return Some((
                "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode",
                false,
            ));
        }
        if !self.room(wanted, node, cluster) {
            return Some(("node(s) exceed max volume count", false));
        }
        let here = |s: &NodeSelector| node_selector_matches(s, &node.labels, &node.name);
        if !wanted.bound.iter().all(here) {
            return Some((
                "node(s) didn't match PersistentVolume's node affinity",
                true,
            ));
        }
        let mut chosen: BTreeSet<&Key> = BTreeSet::new();
        for claim in &wanted.delayed {
            if claim.pinned_to.as_ref().is_some_and(|n| *n != node.name) {
                return Some((NONE_TO_BIND, true));
            }
            let free = claim.found.iter().find(|(volume, place)| {
                claim.pinned_to.is_none()
                    && !chosen.contains(volume)
                    && place.as_ref().is_none_or(here)
            });
            match (free, &claim.made) {
                (Some((volume, _)), _) => {
                    chosen.insert(volume);
                }
                (None, Some(terms)) if allowed(terms, node) => {}
                (None, _) => return Some((NONE_TO_BIND, true)),
            }
        }
        let placed = PLACES.iter().any(|(key, _)| node.labels.contains_key(*key));
        let fits = |(key, today, values): &Place| {
            let label = node.labels.get(*key).or_else(|| node.labels.get(*today));
            label.is_some_and(|v| values.contains(v))
        };
        if placed && !wanted.places.iter().all(fits) {
            return Some(("node(s) had no available volume zone", true));
        }
        None
    }
}

const NONE_TO_BIND: &str = "node(s) didn't find available persistent volumes to bind";

/// Where a volume can be used; none: everywhere.
fn usable_where(volume: &Arc<Value>) -> Option<NodeSelector> {
    NodeSelector::deserialize(at(volume, &["spec", "nodeAffinity", "required"])).ok()
}

/// What a volume's labels say of where it is; values are separated as clouds do it.
fn places(volume: &Value) -> impl Iterator<Item = Place> + '_ {
    PLACES.iter().filter_map(|(key, today)| {
        let value = object::label(volume, key);
        let values: BTreeSet<String> = value.split("__").map(|v| v.trim().to_owned()).collect();
        // An empty part makes the whole label unreadable, and what is unreadable says nothing.
        (!values.contains("")).then_some((*key, *today, values))
    })
}

fn allowed(terms: &[TopologySelectorTerm], node: &Node) -> bool {
    let fits = |t: &TopologySelectorTerm| {
        t.match_label_expressions.iter().flatten().all(|e| {
            node.labels
                .get(&e.key)
                .is_some_and(|v| e.values.contains(v))
        })
    };
    terms.is_empty() || terms.iter().any(fits)
}
