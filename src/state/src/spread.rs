//! The topology spread that the cluster gives to pods without one of their own (`scheduling.md` §8.5), and what
//! kube-scheduler finds out for each of them: whom it is about. That is what the pod's Services and its controller
//! select; a pod of which nothing is selected gets none.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ReplicationController, Service, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use karpenter_model::{Pod, PodKey};

use crate::Kind;
use crate::cluster::{Cluster, key_of, version_of};
use crate::storage::feeds_trimmed;
use crate::table::{Step, Table, Version};

type Labels = BTreeMap<String, String>;

/// What is asked of pods without a spread of their own, and those who select pods.
#[derive(Debug, Default)]
pub(crate) struct SpreadTables {
    /// None: pods are planned for as they are.
    defaults: Vec<TopologySpreadConstraint>,
    services: Table<PodKey, Labels>,
    controllers: Table<PodKey, Labels>,
}

impl SpreadTables {
    pub(crate) fn services_listed(&self) -> bool {
        self.services.listed
    }
    pub(crate) fn controllers_listed(&self) -> bool {
        self.controllers.listed
    }
    pub(crate) fn has_defaults(&self) -> bool {
        !self.defaults.is_empty()
    }
}

// A selector that is not there selects nobody; an empty one adds nothing to what others say.
fn of_service(raw: &Service) -> Labels {
    let spec = raw.spec.as_ref();
    spec.and_then(|s| s.selector.clone()).unwrap_or_default()
}

fn of_controller(raw: &ReplicationController) -> Labels {
    let spec = raw.spec.as_ref();
    spec.and_then(|s| s.selector.clone()).unwrap_or_default()
}

impl Cluster {
    feeds_trimmed!(spread.services: PodKey, Service, of_service, key_of, service_changed; apply_service, delete_service, reset_services);
    feeds_trimmed!(spread.controllers: PodKey, ReplicationController, of_controller, key_of, controller_changed; apply_replication_controller, delete_replication_controller, reset_replication_controllers);

    /// Sets what pods without a spread of their own are asked.
    pub(crate) fn set_spread_defaults(&mut self, defaults: Vec<TopologySpreadConstraint>) {
        if self.spread.defaults != defaults {
            self.spread.defaults = defaults;
            self.plans_differ();
        }
    }

    fn service_changed(&mut self, step: Step<PodKey, Labels>) {
        self.selection_changed(Kind::Service, step);
    }

    fn controller_changed(&mut self, step: Step<PodKey, Labels>) {
        self.selection_changed(Kind::ReplicationController, step);
    }

    fn selection_changed(&mut self, kind: Kind, step: Step<PodKey, Labels>) {
        if step.before == step.after {
            return;
        }
        if self.spread.has_defaults() {
            self.plans_differ();
        }
        self.note(kind, &step.key, step.after.is_none());
    }

    /// The pods with the spread that the cluster gives them. All or nothing: a constraint of its own keeps them off.
    pub(crate) fn with_spread_defaults(&self, pods: Vec<Arc<Pod>>) -> Vec<Arc<Pod>> {
        if !self.spread.has_defaults() {
            return pods;
        }
        // Pods of a workload are alike: whom they are about is found out once.
        let mut known: BTreeMap<_, Option<LabelSelector>> = BTreeMap::new();
        let give = |pod: Arc<Pod>| {
            if !pod.spread.is_empty() {
                return pod;
            }
            let alike = (
                pod.key.namespace.clone(),
                pod.controller.clone(),
                pod.labels.clone(),
            );
            let whom = known.entry(alike).or_insert_with(|| self.selected(&pod));
            let Some(whom) = whom else { return pod };
            let mut pod = Pod::clone(&pod);
            let defaults = self.spread.defaults.iter().cloned();
            pod.spread = defaults
                .map(|constraint| TopologySpreadConstraint {
                    label_selector: Some(whom.clone()),
                    ..constraint
                })
                .collect();
            Arc::new(pod)
        };
        pods.into_iter().map(give).collect()
    }

    /// What selects a pod, all of it together; none if nothing does.
    fn selected(&self, pod: &Pod) -> Option<LabelSelector> {
        let namespace = &pod.key.namespace;
        let first = PodKey {
            namespace: namespace.clone(),
            name: "".into(),
        };
        let here = self.spread.services.from(&first);
        let here = here.take_while(|(key, _)| key.namespace == *namespace);
        let mut labels = Labels::new();
        for (_, selector) in here {
            if selector.iter().all(|(k, v)| pod.labels.get(k) == Some(v)) {
                labels.extend(selector.iter().map(|(k, v)| (k.clone(), v.clone())));
            }
        }
        let mut expressions = Vec::new();
        if let Some((kind, name)) = &pod.controller {
            let key = PodKey {
                namespace: namespace.clone(),
                name: name.clone(),
            };
            let group = pod.controller_version.as_deref().unwrap_or_default();
            match &**kind {
                "ReplicationController" if group == "v1" => {
                    let selector = self.spread.controllers.get(&key);
                    labels.extend(selector.into_iter().flat_map(|s| Labels::clone(s)));
                }
                "ReplicaSet" | "StatefulSet" | "Deployment" if group.starts_with("apps/") => {
                    let selector = self.buffers.selector(kind, &key);
                    expressions = selector.map(as_expressions).unwrap_or_default();
                }
                _ => {}
            }
        }
        let nobody = labels.is_empty() && expressions.is_empty();
        (!nobody).then_some(LabelSelector {
            match_labels: Some(labels),
            match_expressions: Some(expressions),
        })
    }
}

/// A selector as expressions, so that it holds beside labels that say something else of the same key.
fn as_expressions(selector: &LabelSelector) -> Vec<LabelSelectorRequirement> {
    let labels = selector.match_labels.iter().flatten();
    let labels = labels.map(|(key, value)| LabelSelectorRequirement {
        key: key.clone(),
        operator: "In".to_owned(),
        values: Some(vec![value.clone()]),
    });
    let rest = selector.match_expressions.iter().flatten().cloned();
    labels.chain(rest).collect()
}
