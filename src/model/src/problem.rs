//! The question a solve answers: pods, the nodes there are, and the pools that more can be bought from.
//! Built by `karpenter-state` from the live cluster, by the CLI from files; read by solver and plan-check.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Taint;
use karpenter_api::kinds::NodeClassRef;

use crate::pod::HostPort;
use crate::storage::VolumeLimits;
use crate::{InstanceType, LabelRegistry, Pod, Requirements, ResourceList, VolumeRoom};

/// Labels by namespace.
pub type Namespaces = BTreeMap<Arc<str>, BTreeMap<String, String>>;

/// Everything a solve may look at. Nothing else influences its result.
#[derive(Clone, Debug, Default)]
pub struct Problem {
    /// Pods to place.
    pub pods: Vec<Arc<Pod>>,
    /// Nodes and in-flight claims that may take pods (those leaving are not here).
    pub nodes: Vec<Arc<NodeView>>,
    /// Pools, in any order.
    pub pools: Vec<Arc<PoolView>>,
    /// One pod per DaemonSet: its newest live one, or one made from its template.
    pub daemons: Vec<Arc<Pod>>,
    /// Most volumes of a driver that can be attached to machines of an instance type, as far as nodes have told.
    pub volume_limits: Arc<BTreeMap<Arc<str>, VolumeLimits>>,
    /// Labels of namespaces, which selectors of affinity terms look at; empty = not known.
    pub namespaces: Arc<Namespaces>,
    /// Label keys with meaning.
    pub labels: Arc<LabelRegistry>,
    /// Policies.
    pub options: SolveOptions,
}

/// A node, or a claim on its way to one, with what is on it.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    /// Node name, or claim name until there is a node.
    pub name: Arc<str>,
    /// NodeClaim, if it is ours.
    pub node_claim: Option<Arc<str>>,
    /// NodePool, if it is ours.
    pub node_pool: Option<Arc<str>>,
    /// `spec.providerID`.
    pub provider_id: Arc<str>,
    /// Labels (the claim's until registered).
    pub labels: BTreeMap<String, String>,
    /// Taints that count (ephemeral and startup taints are gone while not initialized).
    pub taints: Vec<Taint>,
    /// Total resources.
    pub capacity: ResourceList,
    /// What pods may use in all.
    pub allocatable: ResourceList,
    /// `allocatable` minus the requests of `pods`.
    pub available: ResourceList,
    /// Requests of DaemonSet pods that are on it already.
    pub daemon_requests: ResourceList,
    /// Pods on it (terminal ones left out).
    pub pods: Vec<Arc<Pod>>,
    /// Host ports in use.
    pub host_ports: Vec<HostPort>,
    /// Volumes attached to it and how many can be; none if neither is known.
    pub volumes: Option<Arc<VolumeRoom>>,
    /// Whether it is initialized (nodes that are not ours count as such).
    pub initialized: bool,
    /// Whether a NodeClaim of ours stands behind it.
    pub managed: bool,
}

/// A NodePool with what can be bought for it now.
#[derive(Clone, Debug, Default)]
pub struct PoolView {
    /// NodePool name.
    pub name: Arc<str>,
    /// UID of the NodePool, for owner references.
    pub uid: Arc<str>,
    /// Higher first; ties by name descending.
    pub weight: i32,
    /// Requirements of the template, its labels, the pool label and the NodeClass label folded in.
    pub requirements: Requirements,
    /// Labels that claims get: the template's, the pool's, the NodeClass's.
    pub labels: BTreeMap<String, String>,
    /// Annotations that claims get: the template's and the hash ones.
    pub annotations: BTreeMap<String, String>,
    /// Lasting taints.
    pub taints: Vec<Taint>,
    /// Startup taints.
    pub startup_taints: Vec<Taint>,
    /// NodeClass.
    pub node_class: NodeClassRef,
    /// Text of `expireAfter`.
    pub expire_after: Option<String>,
    /// Text of `terminationGracePeriod`.
    pub termination_grace_period: Option<String>,
    /// What the provider sells.
    pub instance_types: Vec<Arc<InstanceType>>,
    /// `spec.limits`.
    pub limits: Option<ResourceList>,
    /// Resources of the pool's machines now, `nodes` included, in-flight ones too, leaving ones not.
    pub usage: ResourceList,
}

/// Policies of a solve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SolveOptions {
    /// Whether preferred affinities and `ScheduleAnyway` spreads count (`--preference-policy`).
    pub respect_preferences: bool,
    /// Whether minValues may be lowered (`--min-values-policy=BestEffort`).
    pub best_effort_min_values: bool,
    /// Whether pods with resource claims are refused (`--ignore-dra-requests`).
    pub ignore_dra: bool,
    /// Whether machines may be bought out of reservations (gate `ReservedCapacity`).
    pub reserved_capacity: bool,
    /// Whether machines of a plan become one wherever a type takes the pods of both, whatever it costs: what a
    /// consolidation asks for when it may buy a single machine.
    pub fewest_machines: bool,
    /// What a machine costs beyond its price when machines are compared, dollars per hour (`--node-cost`): addresses,
    /// logging agents billed by node, attention. DaemonSets need not be in it; they take room of every machine as it is.
    pub node_cost: f64,
    /// Work units after which the solve returns what it has; a unit is one test of a pod against a node or claim.
    pub work_budget: u64,
    /// On how many threads a large cluster is looked through. The plan is the same, whatever the number.
    pub threads: usize,
}

impl SolveOptions {
    /// The default of [`Self::node_cost`]: small enough that it decides only between prices that are nearly equal.
    pub const NODE_COST: f64 = 0.002;
}

impl Default for SolveOptions {
    fn default() -> Self {
        Self {
            respect_preferences: true,
            best_effort_min_values: false,
            ignore_dra: true,
            reserved_capacity: true,
            fewest_machines: false,
            node_cost: Self::NODE_COST,
            work_budget: u64::MAX,
            threads: 1,
        }
    }
}
