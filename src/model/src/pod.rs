//! A pod as scheduling and disruption see it: everything they ask of it, nothing else, computed once.
//! How it is read from Kubernetes is in `pod_from`, what it may do in `pod_predicates`, where it may go in `pod_nodes`.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Affinity, Toleration, TopologySpreadConstraint};

use crate::{ResourceList, Storage};

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodKey {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl std::fmt::Display for PodKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What kind of object owns a pod, as far as decisions care.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// Nothing, or something that does not matter.
    #[default]
    Other,
    /// `apps/v1` DaemonSet.
    DaemonSet,
    /// `apps/v1` StatefulSet.
    StatefulSet,
    /// `v1` Node: a mirror pod.
    Node,
}

/// `status.phase`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Not started.
    #[default]
    Pending,
    /// Running.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
    /// Not known.
    Unknown,
}

/// A host port claim.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// Host address; `0.0.0.0` when unspecified.
    pub ip: Arc<str>,
    /// Port number.
    pub port: i32,
    /// `TCP`, `UDP`, `SCTP`.
    pub protocol: Arc<str>,
}

/// A volume of a pod that refers to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodVolume {
    /// Volume name in the pod.
    pub name: Arc<str>,
    /// PersistentVolumeClaim name (`<pod>-<volume>` for ephemeral volumes).
    pub claim: Arc<str>,
}

/// The facts about a pod.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    /// Namespace and name.
    pub key: PodKey,
    /// UID.
    pub uid: Arc<str>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations in Karpenter's domains and the deletion cost; no others are kept.
    pub annotations: BTreeMap<String, String>,
    /// Owner kind.
    pub owner: Owner,
    /// Name of the owning DaemonSet, ReplicaSet…: kind and name of the controller reference.
    pub controller: Option<(Arc<str>, Arc<str>)>,
    /// `apiVersion` of that reference.
    pub controller_version: Option<Arc<str>>,
    /// `spec.nodeName`.
    pub node_name: Option<Arc<str>>,
    /// `status.nominatedNodeName`.
    pub nominated_node: Option<Arc<str>>,
    /// `status.phase`.
    pub phase: Phase,
    /// Whether PodScheduled is False with reason `Unschedulable`.
    pub unschedulable: bool,
    /// Whether condition Ready is True.
    pub ready: bool,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// `metadata.deletionTimestamp`.
    pub deleted: Option<Timestamp>,
    /// `status.startTime`.
    pub started: Option<Timestamp>,
    /// `spec.priority`.
    pub priority: i32,
    /// `spec.priorityClassName`.
    pub priority_class: Option<Arc<str>>,
    /// `spec.terminationGracePeriodSeconds`, 30 when unset.
    pub grace_seconds: i64,
    /// Effective requests (`scheduling.md` §3), `pods: 1` included.
    pub requests: ResourceList,
    /// Effective limits.
    pub limits: ResourceList,
    /// Tolerations.
    pub tolerations: Vec<Toleration>,
    /// `spec.nodeSelector`.
    pub node_selector: BTreeMap<String, String>,
    /// Node and pod (anti-)affinity.
    pub affinity: Option<Arc<Affinity>>,
    /// Topology spread constraints.
    pub spread: Vec<TopologySpreadConstraint>,
    /// Host ports of its containers.
    pub host_ports: Vec<HostPort>,
    /// Volumes with a PersistentVolumeClaim.
    pub volumes: Vec<PodVolume>,
    /// What its claims come to in the cluster as it is now; none where nobody has looked them up.
    pub storage: Option<Arc<Storage>>,
    /// Whether it has resource claims (DRA).
    pub has_resource_claims: bool,
    /// What makes it impossible to plan for: a quantity or a field that cannot be read.
    pub invalid: Option<Arc<str>>,
}

impl Default for PodKey {
    fn default() -> Self {
        Self {
            namespace: "".into(),
            name: "".into(),
        }
    }
}
