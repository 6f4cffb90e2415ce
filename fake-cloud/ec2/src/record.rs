//! An instance as the engine remembers it. Its state is a function of the clock; nothing ticks.

use std::sync::Arc;

use jiff::Timestamp;
use karpenter_ec2_api::{
    CapacityLifecycle, FleetTarget, Instance, InstanceState, LaunchTemplateData, Tags,
};

/// How long a terminated instance is still described (h).
pub const TERMINATED_VISIBLE_HOURS: i64 = 1;

/// An instance from launch to long after its end.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceRecord {
    /// `i-...`.
    pub id: String,
    /// Instance type.
    pub instance_type: Arc<str>,
    /// Zone name.
    pub zone: Arc<str>,
    /// Zone id.
    pub zone_id: Arc<str>,
    /// Spot or on-demand.
    pub capacity_type: FleetTarget,
    /// US dollars per hour, as at launch.
    pub price_per_hour: f64,
    /// Image.
    pub image_id: String,
    /// Subnet.
    pub subnet_id: String,
    /// Security groups, sorted.
    pub security_group_ids: Vec<String>,
    /// Host name.
    pub private_dns_name: String,
    /// Address within its subnet.
    pub address: u32,
    /// Tags.
    pub tags: Tags,
    /// Tenancy.
    pub tenancy: String,
    /// Interface types.
    pub interface_types: Vec<String>,
    /// Spot request; none for on-demand.
    pub spot_request_id: Option<String>,
    /// Capacity reservation that it was launched into.
    pub reservation: Option<String>,
    /// When it was launched.
    pub launched: Timestamp,
    /// When it runs.
    pub running: Timestamp,
    /// When it was (or, after an interruption notice, will be) told to go, and when it is gone.
    pub end: Option<(Timestamp, Timestamp)>,
    /// What it was launched with.
    pub(crate) template: Arc<LaunchTemplateData>,
}

impl InstanceRecord {
    /// State at a time.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> InstanceState {
        match self.end {
            Some((_, gone)) if now >= gone => InstanceState::Terminated,
            Some((told, _)) if now >= told => InstanceState::ShuttingDown,
            _ if now >= self.running => InstanceState::Running,
            _ => InstanceState::Pending,
        }
    }

    /// Whether `DescribeInstances` still shows it.
    #[must_use]
    pub fn is_visible(&self, now: Timestamp) -> bool {
        let limit = jiff::SignedDuration::from_hours(TERMINATED_VISIBLE_HOURS);
        self.end
            .is_none_or(|(_, gone)| now.duration_since(gone) < limit)
    }

    /// Cost in US dollars between two times: the price at launch for every second from launch to being told to go.
    #[must_use]
    pub fn cost_usd(&self, since: Timestamp, until: Timestamp) -> f64 {
        let from = self.launched.max(since);
        let to = self.end.map_or(until, |(told, _)| told.min(until));
        let seconds = to.duration_since(from).as_secs_f64().max(0.0);
        self.price_per_hour * seconds / 3600.0
    }

    pub(crate) fn describe(&self, now: Timestamp) -> Instance {
        Instance {
            id: self.id.clone(),
            image_id: self.image_id.clone(),
            instance_type: self.instance_type.clone(),
            state: self.state(now),
            launch_time: self.launched,
            zone: self.zone.clone(),
            zone_id: self.zone_id.clone(),
            tenancy: self.tenancy.clone(),
            security_group_ids: self.security_group_ids.clone(),
            subnet_id: self.subnet_id.clone(),
            private_dns_name: self.private_dns_name.clone(),
            tags: self.tags.clone(),
            interface_types: self.interface_types.clone(),
            spot_request_id: self.spot_request_id.clone(),
            lifecycle: match self.capacity_type {
                FleetTarget::Spot => CapacityLifecycle::Spot,
                FleetTarget::OnDemand => CapacityLifecycle::OnDemand,
                FleetTarget::CapacityBlock => CapacityLifecycle::CapacityBlock,
                FleetTarget::ReservedCapacity => CapacityLifecycle::InterruptibleReservation,
            },
            capacity_reservation_id: self.reservation.clone(),
            reservations_only: self.reservation.is_some(),
        }
    }
}
