//! One pod per DaemonSet, as every new node will run it (`scheduling.md` §5 "DaemonSet cache").

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Affinity;
use karpenter_model::pod::Owner;
use karpenter_model::{Pod, PodKey};

use crate::cluster::Cluster;

/// Newest first, then by name.
type Rank = (Reverse<Option<Timestamp>>, PodKey);

/// Pods by their DaemonSet, the newest first: asking for one of each must not cost as much as there are pods.
#[derive(Debug, Default)]
pub(crate) struct LivePods {
    by_set: BTreeMap<PodKey, BTreeSet<Rank>>,
}

impl LivePods {
    pub(crate) fn pod_changed(&mut self, before: Option<&Pod>, after: Option<&Pod>) {
        if let Some(pod) = before
            && let Some(set) = set_of(pod)
            && let Some(own) = self.by_set.get_mut(&set)
        {
            own.remove(&rank(pod));
            if own.is_empty() {
                self.by_set.remove(&set);
            }
        }
        if let Some(pod) = after
            && let Some(set) = set_of(pod)
        {
            self.by_set.entry(set).or_default().insert(rank(pod));
        }
    }

    fn newest(&self, set: &PodKey) -> Option<&PodKey> {
        let (_, key) = self.by_set.get(set)?.first()?;
        Some(key)
    }
}

fn rank(pod: &Pod) -> Rank {
    (Reverse(pod.created), pod.key.clone())
}

/// The DaemonSet that a pod is of.
fn set_of(pod: &Pod) -> Option<PodKey> {
    let (kind, name) = pod.controller.as_ref()?;
    let daemon = pod.owner == Owner::DaemonSet && &**kind == "DaemonSet";
    daemon.then(|| PodKey {
        namespace: pod.key.namespace.clone(),
        name: name.clone(),
    })
}

/// In key order of the DaemonSets: the newest live pod of each, else one made from its template.
pub(crate) fn daemons(cluster: &Cluster) -> Vec<Arc<Pod>> {
    let newest = |set: &PodKey| cluster.pods.get(cluster.live.newest(set)?);
    cluster
        .daemon_sets
        .iter()
        .map(|(key, set)| match newest(key) {
            Some(live) => Arc::new(unpinned(live, set)),
            None => {
                let template = set.spec.as_ref().map(|s| s.template.clone());
                let defaults = cluster.container_defaults(&key.namespace);
                Arc::new(Pod::from_template(
                    &template.unwrap_or_default(),
                    set,
                    &defaults,
                ))
            }
        })
        .collect()
}

/// The live pod without the pin to its node that the DaemonSet controller put into its required affinity.
fn unpinned(live: &Pod, set: &DaemonSet) -> Pod {
    let template = set
        .spec
        .as_ref()
        .and_then(|s| s.template.spec.as_ref())
        .and_then(|s| s.affinity.as_ref())
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|n| {
            n.required_during_scheduling_ignored_during_execution
                .clone()
        });
    let mut pod = live.clone();
    let mut affinity: Affinity = pod.affinity.as_deref().cloned().unwrap_or_default();
    let mut node = affinity.node_affinity.take().unwrap_or_default();
    node.required_during_scheduling_ignored_during_execution = template;
    affinity.node_affinity = Some(node);
    pod.affinity = Some(Arc::new(affinity));
    pod
}
