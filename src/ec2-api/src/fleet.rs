//! `CreateFleet` of type `instant`.

use std::sync::Arc;

use crate::TagSpecification;

/// What to buy and from where.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateFleetInput {
    /// Templates, each with the pools it may be launched into.
    pub configs: Vec<FleetLaunchTemplateConfig>,
    /// Number of machines.
    pub total_target_capacity: u32,
    /// What to buy.
    pub target: FleetTarget,
    /// How a pool is chosen.
    pub strategy: AllocationStrategy,
    /// Tags of what is made.
    pub tag_specifications: Vec<TagSpecification>,
    /// Fleet context; none = not set.
    pub context: Option<String>,
    /// Only ask whether it would work: `DryRunOperation` then.
    pub dry_run: bool,
}

/// `DefaultTargetCapacityType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FleetTarget {
    /// On-demand capacity.
    OnDemand,
    /// Spot capacity.
    Spot,
    /// Capacity of a block.
    CapacityBlock,
    /// Capacity of reservations that may be taken back.
    ReservedCapacity,
}

impl FleetTarget {
    /// As EC2 spells it; Karpenter's label, too, where nothing is reserved.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnDemand => "on-demand",
            Self::Spot => "spot",
            Self::CapacityBlock => "capacity-block",
            Self::ReservedCapacity => "reserved-capacity",
        }
    }
}

/// `AllocationStrategy` of the options of either capacity type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllocationStrategy {
    /// Cheapest pool.
    LowestPrice,
    /// Lowest priority number (on-demand).
    Prioritized,
    /// Deepest of the cheap pools (spot).
    PriceCapacityOptimized,
    /// Deep pools, priorities as a tie-break (spot).
    CapacityOptimizedPrioritized,
}

/// A template and its pools.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetLaunchTemplateConfig {
    /// Template name; its latest version is used.
    pub launch_template_name: String,
    /// Pools.
    pub overrides: Vec<FleetOverride>,
}

/// A pool: what a machine launched there differs in from the template.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FleetOverride {
    /// Instance type.
    pub instance_type: Arc<str>,
    /// Subnet.
    pub subnet_id: Arc<str>,
    /// Zone name.
    pub zone: Arc<str>,
    /// Image; empty = the template's.
    pub image_id: Arc<str>,
    /// Lower goes first under the prioritized strategies.
    pub priority: f64,
}

/// What was launched and what was not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CreateFleetOutput {
    /// `fleet-...`.
    pub fleet_id: String,
    /// Launched machines.
    pub instances: Vec<FleetInstance>,
    /// Failures.
    pub errors: Vec<FleetError>,
}

/// Machines launched into one pool.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetInstance {
    /// Instance ids.
    pub ids: Vec<String>,
    /// Capacity bought.
    pub lifecycle: FleetTarget,
    /// The pool.
    pub pool: FleetOverride,
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetError {
    /// Code, such as `InsufficientInstanceCapacity`.
    pub code: String,
    /// Text.
    pub message: String,
    /// The pool it was about; none when EC2 does not say.
    pub pool: Option<FleetOverride>,
}
