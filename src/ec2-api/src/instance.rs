//! Instances as `DescribeInstances` shows them.

use std::sync::Arc;

use jiff::Timestamp;

use crate::Tags;

/// `State.Name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InstanceState {
    /// Starting.
    Pending,
    /// Up.
    Running,
    /// On its way to stopped.
    Stopping,
    /// Not running, not gone.
    Stopped,
    /// On its way out.
    ShuttingDown,
    /// Gone.
    Terminated,
}

impl InstanceState {
    /// As EC2 spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
        }
    }
}

/// States in which an instance still exists, as values of an `instance-state-name` filter.
#[must_use]
pub fn live_states() -> [&'static str; 5] {
    ["pending", "running", "stopping", "stopped", "shutting-down"]
}

/// `InstanceLifecycle`, as far as it is told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CapacityLifecycle {
    /// On-demand.
    #[default]
    OnDemand,
    /// Spot.
    Spot,
    /// Out of a capacity block.
    CapacityBlock,
    /// Out of a reservation that may take it back.
    InterruptibleReservation,
}

/// An instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// `i-...`.
    pub id: String,
    /// Image.
    pub image_id: String,
    /// Instance type.
    pub instance_type: Arc<str>,
    /// State.
    pub state: InstanceState,
    /// When it was launched.
    pub launch_time: Timestamp,
    /// Zone name.
    pub zone: Arc<str>,
    /// Zone id.
    pub zone_id: Arc<str>,
    /// `default`, `dedicated`.
    pub tenancy: String,
    /// Security group ids, sorted.
    pub security_group_ids: Vec<String>,
    /// Subnet.
    pub subnet_id: String,
    /// Host name in the VPC.
    pub private_dns_name: String,
    /// Tags.
    pub tags: Tags,
    /// Interface types of its network interfaces.
    pub interface_types: Vec<String>,
    /// Set for spot instances.
    pub spot_request_id: Option<String>,
    /// Lifecycle.
    pub lifecycle: CapacityLifecycle,
    /// Capacity reservation that it runs in.
    pub capacity_reservation_id: Option<String>,
    /// Whether it was to run in reservations only (`CapacityReservationPreference` is `capacity-reservations-only`).
    pub reservations_only: bool,
}

/// What `TerminateInstances` did to an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// Instance id.
    pub id: String,
    /// State after the call.
    pub current: InstanceState,
    /// State before the call.
    pub previous: InstanceState,
}
