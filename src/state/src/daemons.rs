//! One pod per DaemonSet, as every new node will run it (`scheduling.md` §5 "DaemonSet cache").

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Affinity;
use karpenter_model::pod::Owner;
use karpenter_model::{Pod, PodKey};

use crate::cluster::Cluster;

/// In key order of the DaemonSets: the newest live pod of each, else one made from its template.
pub(crate) fn daemons(cluster: &Cluster) -> Vec<Arc<Pod>> {
    let mut newest: BTreeMap<PodKey, &Arc<Pod>> = BTreeMap::new();
    for (key, pod) in cluster.pods.iter() {
        let Some((kind, name)) = &pod.controller else {
            continue;
        };
        if pod.owner != Owner::DaemonSet || &**kind != "DaemonSet" {
            continue;
        }
        let set = PodKey {
            namespace: key.namespace.clone(),
            name: name.clone(),
        };
        let best = newest.entry(set).or_insert(pod);
        if pod.created > best.created {
            *best = pod;
        }
    }
    cluster
        .daemon_sets
        .iter()
        .map(|(key, set)| match newest.get(key) {
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
