//! One pod per DaemonSet, as every new node will run it (`scheduling.md` §5 "DaemonSet cache").

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{self as k8s, Affinity, Container};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use karpenter_model::pod::Owner;
use karpenter_model::{Pod, PodKey};
use kube::core::ObjectMeta;

use crate::cluster::Cluster;
#[allow(unused_imports)]
use crate::interim::FromK8s;

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
            None => Arc::new(Pod::from_k8s(&from_template(set))),
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

/// A pod as the template describes it, limits standing in for missing requests (as the API server defaults them).
fn from_template(set: &DaemonSet) -> k8s::Pod {
    let meta = &set.metadata;
    let template = set.spec.as_ref().map(|s| &s.template);
    let tmeta = template.and_then(|t| t.metadata.as_ref());
    let mut spec = template.and_then(|t| t.spec.clone()).unwrap_or_default();
    spec.containers.iter_mut().for_each(limits_to_requests);
    spec.init_containers
        .iter_mut()
        .flatten()
        .for_each(limits_to_requests);
    k8s::Pod {
        metadata: ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            labels: tmeta.and_then(|m| m.labels.clone()),
            annotations: tmeta.and_then(|m| m.annotations.clone()),
            owner_references: Some(vec![OwnerReference {
                api_version: "apps/v1".to_owned(),
                kind: "DaemonSet".to_owned(),
                name: meta.name.clone().unwrap_or_default(),
                uid: meta.uid.clone().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}

fn limits_to_requests(container: &mut Container) {
    let Some(resources) = &mut container.resources else {
        return;
    };
    let Some(limits) = &resources.limits else {
        return;
    };
    let requests = resources.requests.get_or_insert_default();
    for (name, amount) in limits {
        requests
            .entry(name.clone())
            .or_insert_with(|| amount.clone());
    }
}
