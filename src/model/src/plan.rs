//! The answer of a solve: specific enough that carrying it out needs no further choice, and honest about what
//! was not done and why. Printed by `plan`, `simulate`, events and logs from the same structures.

use std::fmt;
use std::sync::Arc;

use crate::{PodKey, Requirements, ResourceList};

/// Most instance types a claim names (`scheduling.md` §10).
pub const MAX_INSTANCE_TYPES_PER_CLAIM: usize = 600;

/// What to do.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Machines to buy.
    pub new_nodes: Vec<PlannedNode>,
    /// Pods that go to nodes that exist or are on their way.
    pub existing: Vec<ExistingPlacement>,
    /// Pods that go nowhere.
    pub unschedulable: Vec<Unschedulable>,
    /// Pools that could not be used at all.
    pub skipped_pools: Vec<SkippedPool>,
    /// Work units spent.
    pub work: u64,
    /// Whether the work budget ran out, so that pods are missing from all three lists.
    pub cut_off: bool,
}

/// A machine to buy.
#[derive(Clone, Debug)]
pub struct PlannedNode {
    /// NodePool.
    pub pool: Arc<str>,
    /// Pods it is for, in the order they were placed.
    pub pods: Vec<PodKey>,
    /// Final requirements, hostname and simulation-only keys gone, instance types not folded in.
    pub requirements: Requirements,
    /// Types that fit, cheapest first (ties by name), at most [`MAX_INSTANCE_TYPES_PER_CLAIM`].
    pub instance_types: Vec<Arc<str>>,
    /// Capacity types that those types offer under the requirements.
    pub capacity_types: Vec<Arc<str>>,
    /// Requests of the pods plus the least DaemonSet overhead.
    pub requests: ResourceList,
    /// Whether a minValues was lowered.
    pub min_values_relaxed: bool,
    /// Cheapest available offering that the requirements admit: what the launch is expected to buy.
    pub cheapest: PricedOffering,
    /// The next best type and its price, to explain the choice.
    pub runner_up: Option<PricedOffering>,
    /// What each constraint left over of the pool's types, in the order applied.
    pub funnel: Vec<FunnelStep>,
}

/// An instance type in a zone under a capacity type at a price.
#[derive(Clone, Debug, PartialEq)]
pub struct PricedOffering {
    /// Instance type.
    pub instance_type: Arc<str>,
    /// Zone.
    pub zone: Arc<str>,
    /// Capacity type.
    pub capacity_type: Arc<str>,
    /// US dollars per hour.
    pub price: f64,
}

/// As everybody who tells of it does: `m5.large spot in us-east-1a at $0.0350/h`.
impl fmt::Display for PricedOffering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            instance_type,
            zone,
            capacity_type,
            price,
        } = self;
        write!(
            f,
            "{instance_type} {capacity_type} in {zone} at ${price:.4}/h"
        )
    }
}

/// Pods for a node that exists or is on its way.
#[derive(Clone, Debug)]
pub struct ExistingPlacement {
    /// [`crate::NodeView::name`].
    pub node: Arc<str>,
    /// Pods, in the order they were placed.
    pub pods: Vec<PodKey>,
}

/// A pod that goes nowhere.
#[derive(Clone, Debug)]
pub struct Unschedulable {
    /// The pod.
    pub pod: PodKey,
    /// One sentence: the nearest miss and, where there is one, the remedy.
    pub reason: String,
    /// Per NodePool what each constraint left over; nearest miss first.
    pub pools: Vec<PoolFunnel>,
}

/// What the constraints left over of one pool.
#[derive(Clone, Debug)]
pub struct PoolFunnel {
    /// NodePool.
    pub pool: Arc<str>,
    /// In the order applied.
    pub steps: Vec<FunnelStep>,
}

/// One constraint of a funnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunnelStep {
    /// Such as `kubernetes.io/arch In [arm64]` or `cpu 4 + 150m daemons`.
    pub constraint: String,
    /// Instance types it took away.
    pub removed: usize,
    /// Instance types left after it.
    pub left: usize,
}

/// As everybody who tells of it does: `kubernetes.io/arch In [arm64] left 3 of 12 instance types`.
impl fmt::Display for FunnelStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = self.left.saturating_add(self.removed);
        let Self {
            constraint, left, ..
        } = self;
        write!(f, "{constraint} left {left} of {before} instance types")
    }
}

/// A pool that could not be used at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedPool {
    /// NodePool.
    pub pool: Arc<str>,
    /// Why.
    pub reason: String,
}
