//! What the scheduler knows of a pod: read once from its object, compared and counted many times.

use k8s_openapi::api::core::v1::{
    Affinity, NodeSelector, PodAffinityTerm, PreferredSchedulingTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use karpenter_runtime::Key;
use serde::Deserialize;
use serde_json::Value;

use crate::loops::attach;
use crate::loops::object::{self, Labels};
use crate::loops::resources::{Amounts, pod_requests, pod_requests_for_scoring};
use crate::loops::selector::{self, Toleration};

/// A port taken on the node itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostPort {
    pub(crate) port: i64,
    pub(crate) protocol: String,
    pub(crate) ip: String,
}

impl HostPort {
    /// Two pods cannot both have such ports.
    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        let any = |ip: &str| ip == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || any(&self.ip) || any(&other.ip))
    }
}

/// A term of pod affinity or anti-affinity, with what it says about labels and namespaces resolved for its pod.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    pub(crate) topology_key: String,
    pub(crate) selector: Option<LabelSelector>,
    /// Namespaces by name.
    pub(crate) namespaces: Vec<String>,
    /// Namespaces by label; an empty selector means all.
    pub(crate) namespace_selector: Option<LabelSelector>,
    /// Weight of a preferred term; 0 for a required one.
    pub(crate) weight: i64,
}

impl Term {
    fn read(term: &PodAffinityTerm, weight: i64, namespace: &str, labels: &Labels) -> Self {
        let mut selector = term.label_selector.clone();
        if let Some(selector) = &mut selector {
            add_label_keys(selector, term.match_label_keys.as_deref(), "In", labels);
            add_label_keys(
                selector,
                term.mismatch_label_keys.as_deref(),
                "NotIn",
                labels,
            );
        }
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(namespace.to_owned());
        }
        Self {
            topology_key: term.topology_key.clone(),
            selector,
            namespaces,
            namespace_selector: term.namespace_selector.clone(),
            weight,
        }
    }

    /// Whether a pod with `labels` in `namespace` (itself labelled `of_namespace`) is meant.
    pub(crate) fn matches(&self, namespace: &str, of_namespace: &Labels, labels: &Labels) -> bool {
        let here = self.namespaces.iter().any(|n| n == namespace)
            || self
                .namespace_selector
                .as_ref()
                .is_some_and(|s| selector::selects(s, of_namespace));
        here && self
            .selector
            .as_ref()
            .is_some_and(|s| selector::selects(s, labels))
    }
}

/// `matchLabelKeys` and the like: the pod's own values of these labels join the selector.
fn add_label_keys(
    selector: &mut LabelSelector,
    keys: Option<&[String]>,
    operator: &str,
    labels: &Labels,
) {
    for key in keys.unwrap_or_default() {
        if let Some(value) = labels.get(key) {
            selector.match_expressions.get_or_insert_default().push(
                k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement {
                    key: key.clone(),
                    operator: operator.to_owned(),
                    values: Some(vec![value.clone()]),
                },
            );
        }
    }
}

/// A topology spread constraint.
#[derive(Clone, Debug)]
pub(crate) struct Spread {
    pub(crate) topology_key: String,
    pub(crate) max_skew: i64,
    pub(crate) min_domains: Option<i64>,
    /// `DoNotSchedule`, as opposed to `ScheduleAnyway`.
    pub(crate) hard: bool,
    pub(crate) selector: Option<LabelSelector>,
    /// `nodeAffinityPolicy: Honor` (the default): only nodes that the pod's selector and affinity admit count.
    pub(crate) honor_affinity: bool,
    /// `nodeTaintsPolicy: Honor`: only nodes whose taints the pod tolerates count.
    pub(crate) honor_taints: bool,
}

impl Spread {
    fn read(value: &Value, labels: &Labels) -> Self {
        let mut label_selector = selector::label_selector(object::at(value, &["labelSelector"]));
        let keys: Vec<String> = object::items(value, &["matchLabelKeys"])
            .iter()
            .filter_map(|k| k.as_str().map(str::to_owned))
            .collect();
        if let Some(selector) = &mut label_selector {
            add_label_keys(selector, Some(&keys), "In", labels);
        }
        Self {
            topology_key: object::text(value, &["topologyKey"]).to_owned(),
            max_skew: object::int(value, &["maxSkew"]).unwrap_or(1),
            min_domains: object::int(value, &["minDomains"]),
            hard: object::text(value, &["whenUnsatisfiable"]) != "ScheduleAnyway",
            selector: label_selector,
            honor_affinity: object::text(value, &["nodeAffinityPolicy"]) != "Ignore",
            honor_taints: object::text(value, &["nodeTaintsPolicy"]) == "Honor",
        }
    }
}

/// A pod as the scheduler sees it.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) key: Key,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) terminating: bool,
    pub(crate) node: String,
    pub(crate) priority: i64,
    pub(crate) never_preempts: bool,
    pub(crate) requests: Amounts,
    pub(crate) scoring_requests: Amounts,
    pub(crate) node_selector: Labels,
    pub(crate) required_nodes: Option<NodeSelector>,
    pub(crate) preferred_nodes: Vec<PreferredSchedulingTerm>,
    pub(crate) tolerations: Vec<Toleration>,
    pub(crate) ports: Vec<HostPort>,
    pub(crate) affinity: Vec<Term>,
    pub(crate) anti_affinity: Vec<Term>,
    pub(crate) preferred: Vec<Term>,
    pub(crate) spread: Vec<Spread>,
    /// Claims by name: those of volumes and of generic ephemeral volumes.
    pub(crate) claims: Vec<String>,
    /// The node on which room is made for it.
    pub(crate) nominated: String,
}

impl Pod {
    /// From its object.
    pub(crate) fn read(pod: &Value) -> Self {
        let labels = object::labels(pod);
        let namespace = object::namespace(pod).to_owned();
        let affinity_value = object::at(pod, &["spec", "affinity"]);
        let affinity = if affinity_value.is_object() {
            Affinity::deserialize(affinity_value).unwrap_or_default()
        } else {
            Affinity::default()
        };
        let node_affinity = affinity.node_affinity.unwrap_or_default();
        let pod_affinity = affinity.pod_affinity.unwrap_or_default();
        let pod_anti_affinity = affinity.pod_anti_affinity.unwrap_or_default();
        let required = |terms: &Option<Vec<PodAffinityTerm>>| -> Vec<Term> {
            terms
                .iter()
                .flatten()
                .map(|t| Term::read(t, 0, &namespace, &labels))
                .collect()
        };
        let mut preferred = Vec::new();
        for (terms, sign) in [
            (
                &pod_affinity.preferred_during_scheduling_ignored_during_execution,
                1,
            ),
            (
                &pod_anti_affinity.preferred_during_scheduling_ignored_during_execution,
                -1,
            ),
        ] {
            for t in terms.iter().flatten() {
                let weight = i64::from(t.weight) * sign;
                preferred.push(Term::read(
                    &t.pod_affinity_term,
                    weight,
                    &namespace,
                    &labels,
                ));
            }
        }
        Self {
            key: object::key(pod),
            name: object::name(pod).to_owned(),
            terminating: object::deleting(pod),
            node: object::text(pod, &["spec", "nodeName"]).to_owned(),
            priority: object::int(pod, &["spec", "priority"]).unwrap_or(0),
            never_preempts: object::text(pod, &["spec", "preemptionPolicy"]) == "Never",
            requests: pod_requests(pod),
            scoring_requests: pod_requests_for_scoring(pod),
            node_selector: object::texts(pod, &["spec", "nodeSelector"]),
            required_nodes: node_affinity.required_during_scheduling_ignored_during_execution,
            preferred_nodes: node_affinity
                .preferred_during_scheduling_ignored_during_execution
                .unwrap_or_default(),
            tolerations: Toleration::of_pod(pod),
            ports: host_ports(pod),
            affinity: required(&pod_affinity.required_during_scheduling_ignored_during_execution),
            anti_affinity: required(
                &pod_anti_affinity.required_during_scheduling_ignored_during_execution,
            ),
            preferred,
            spread: object::items(pod, &["spec", "topologySpreadConstraints"])
                .iter()
                .map(|c| Spread::read(c, &labels))
                .collect(),
            claims: attach::claims(pod).collect(),
            nominated: object::text(pod, &["status", "nominatedNodeName"]).to_owned(),
            namespace,
            labels,
        }
    }
}

fn host_ports(pod: &Value) -> Vec<HostPort> {
    let host_network = object::flag(pod, &["spec", "hostNetwork"]);
    let sidecars = object::items(pod, &["spec", "initContainers"])
        .iter()
        .filter(|c| object::text(c, &["restartPolicy"]) == "Always");
    let containers = object::items(pod, &["spec", "containers"]).iter();
    containers
        .chain(sidecars)
        .flat_map(|c| object::items(c, &["ports"]))
        .filter_map(|p| {
            let mut port = object::int(p, &["hostPort"]).unwrap_or(0);
            if port == 0 && host_network {
                port = object::int(p, &["containerPort"]).unwrap_or(0);
            }
            let or =
                |text: &str, default: &str| if text.is_empty() { default } else { text }.to_owned();
            (port > 0).then(|| HostPort {
                port,
                protocol: or(object::text(p, &["protocol"]), "TCP"),
                ip: or(object::text(p, &["hostIP"]), "0.0.0.0"),
            })
        })
        .collect()
}

/// What two pods without claims must have in common to be treated alike: namespace, labels and spec, of containers what
/// they ask of a node. A pod's own name is left out, and so are its volumes, of which one has a name of its own.
pub(crate) fn shape(pod: &Value) -> String {
    use std::fmt::Write as _;
    let labels = object::at(pod, &["metadata", "labels"]);
    let mut shape = format!("{}\n{labels}", object::namespace(pod));
    let spec = object::at(pod, &["spec"]).as_object();
    for (key, value) in spec.into_iter().flatten() {
        // Writing to a string does not fail.
        match key.as_str() {
            "volumes" => {}
            "containers" | "initContainers" => {
                let _ = write!(shape, "\n{key}");
                for container in value.as_array().into_iter().flatten() {
                    for part in ["resources", "ports", "restartPolicy"] {
                        let _ = write!(shape, " {}", object::at(container, &[part]));
                    }
                }
            }
            _ => {
                let _ = write!(shape, "\n{key} {value}");
            }
        }
    }
    shape
}
