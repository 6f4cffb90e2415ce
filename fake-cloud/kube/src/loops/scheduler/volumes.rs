//! What a pod's volume claims demand of a node: bound volumes stay where they are, claims that wait for their first
//! consumer must be possible there.

use k8s_openapi::api::core::v1::{NodeSelector, TopologySelectorTerm};
use karpenter_runtime::Key;
use serde::Deserialize;

use super::cluster::Node;
use super::pod::Pod;
use crate::loops::feed::Mirror;
use crate::loops::object;
use crate::loops::selector::node_selector_matches;
use crate::loops::storage::{self, SELECTED_NODE};

/// Claims, volumes and storage classes.
#[derive(Default)]
pub(crate) struct Volumes {
    pub(crate) claims: Mirror,
    pub(crate) volumes: Mirror,
    pub(crate) classes: Mirror,
}

/// The demands of one pod's claims.
#[derive(Default)]
pub(crate) struct PodVolumes {
    bound: Vec<NodeSelector>,
    /// Claims that will be provisioned where the pod goes: topologies that their class allows.
    provisioned: Vec<Vec<TopologySelectorTerm>>,
    /// Claims that need a volume that exists already: where there is one.
    found: Vec<Vec<Option<NodeSelector>>>,
    /// Another node was chosen for a claim already.
    pinned_to: Option<String>,
    /// Names of claims that wait for their first consumer.
    pub(crate) waiting: Vec<String>,
}

impl Volumes {
    /// The demands of `pod`'s claims, or why it cannot be scheduled anywhere.
    pub(crate) fn of(&self, pod: &Pod) -> Result<PodVolumes, String> {
        let mut demands = PodVolumes::default();
        for name in &pod.claims {
            let Some(claim) = self.claims.get(&Key::namespaced(&pod.namespace, name)) else {
                return Err(format!("persistentvolumeclaim {name:?} not found"));
            };
            if object::deleting(claim) {
                return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
            }
            if storage::is_bound(claim) {
                let volume = Key::cluster(object::text(claim, &["spec", "volumeName"]));
                let affinity = self.volumes.get(&volume).map(|v| {
                    NodeSelector::deserialize(object::at(v, &["spec", "nodeAffinity", "required"]))
                });
                if let Some(Ok(selector)) = affinity {
                    demands.bound.push(selector);
                }
                continue;
            }
            let class = self.classes.get(&Key::cluster(object::text(
                claim,
                &["spec", "storageClassName"],
            )));
            let Some(class) = class.filter(|c| storage::waits_for_consumer(c)) else {
                return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
            };
            demands.waiting.push(name.clone());
            let selected = object::annotation(claim, SELECTED_NODE);
            if !selected.is_empty() {
                demands.pinned_to = Some(selected.to_owned());
            }
            if storage::provisions(class) {
                let allowed = object::items(class, &["allowedTopologies"])
                    .iter()
                    .filter_map(|t| TopologySelectorTerm::deserialize(t).ok())
                    .collect();
                demands.provisioned.push(allowed);
            } else {
                let volumes = self
                    .volumes
                    .iter()
                    .filter(|(_, v)| storage::could_bind(v, claim));
                let places = volumes.map(|(_, v)| {
                    NodeSelector::deserialize(object::at(v, &["spec", "nodeAffinity", "required"]))
                        .ok()
                });
                demands.found.push(places.collect());
            }
        }
        Ok(demands)
    }
}

impl PodVolumes {
    /// Why the claims keep the pod off `node`, if they do.
    pub(crate) fn refusal(&self, node: &Node) -> Option<&'static str> {
        let here = |s: &NodeSelector| node_selector_matches(s, &node.labels, &node.name);
        if !self.bound.iter().all(here) {
            return Some("node(s) didn't match PersistentVolume's node affinity");
        }
        let allowed = |terms: &Vec<TopologySelectorTerm>| {
            terms.is_empty()
                || terms.iter().any(|t| {
                    t.match_label_expressions.iter().flatten().all(|e| {
                        node.labels
                            .get(&e.key)
                            .is_some_and(|v| e.values.contains(v))
                    })
                })
        };
        let available =
            |places: &Vec<Option<NodeSelector>>| places.iter().any(|p| p.as_ref().is_none_or(here));
        let pinned_elsewhere = self.pinned_to.as_ref().is_some_and(|n| *n != node.name);
        if pinned_elsewhere
            || !self.provisioned.iter().all(allowed)
            || !self.found.iter().all(available)
        {
            return Some("node(s) didn't find available persistent volumes to bind");
        }
        None
    }
}
