//! The engine's mutable state, under one lock, and the small steps on it that calls are made of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use karpenter_ec2_api::{
    CapacityReservation, FleetTarget, Instance, LaunchTemplate, LaunchTemplateData,
};
use karpenter_runtime::rng::Rng;
use tokio::sync::mpsc;

use crate::account::{Account, SUBNET_ADDRESSES};
use crate::events::InstanceEvent;
use crate::faults::Faults;
use crate::prices::Prices;
use crate::record::InstanceRecord;

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) account: Account,
    pub(crate) prices: Prices,
    pub(crate) faults: Faults,
    pub(crate) templates: BTreeMap<String, (LaunchTemplate, Arc<LaunchTemplateData>)>,
    /// All there ever were, in order of launch.
    pub(crate) records: Vec<InstanceRecord>,
    /// Id to index in `records`, for those still visible.
    pub(crate) visible: BTreeMap<String, usize>,
    pub(crate) subscribers: Vec<mpsc::UnboundedSender<InstanceEvent>>,
    pub(crate) calls: BTreeMap<&'static str, u64>,
    pub(crate) ids: Rng,
    /// Times from pending to running and from told to gone.
    pub(crate) delays: Rng,
    /// Last address given out per subnet.
    pub(crate) addresses: BTreeMap<String, u32>,
    /// Releases of images so far.
    pub(crate) releases: usize,
}

impl State {
    pub(crate) fn tell(&mut self, event: &InstanceEvent) {
        self.subscribers.retain(|s| s.send(event.clone()).is_ok());
    }

    /// Forgets (for describing) what has been terminated for long.
    pub(crate) fn sweep(&mut self, now: Timestamp) {
        let records = &self.records;
        self.visible
            .retain(|_, i| records.get(*i).is_some_and(|r| r.is_visible(now)));
    }

    pub(crate) fn visible_records(&self) -> impl Iterator<Item = &InstanceRecord> {
        self.visible.values().filter_map(|i| self.records.get(*i))
    }

    pub(crate) fn record_mut(&mut self, id: &str) -> Option<&mut InstanceRecord> {
        let index = *self.visible.get(id)?;
        self.records.get_mut(index)
    }

    pub(crate) fn record(&self, id: &str) -> Option<&InstanceRecord> {
        self.records.get(*self.visible.get(id)?)
    }

    pub(crate) fn describe(&self, id: &str, now: Timestamp) -> Option<Instance> {
        let record = self.record(id)?;
        Some(self.show(record, now))
    }

    /// As `DescribeInstances` shows it: what a reservation leaves behind runs on by the hour.
    pub(crate) fn show(&self, record: &InstanceRecord, now: Timestamp) -> Instance {
        let mut shown = record.describe(now);
        shown
            .capacity_reservation_id
            .take_if(|id| self.reservation(id, now).is_none());
        shown
    }

    /// Machines of a pool that have not been told to go.
    pub(crate) fn in_use(&self, pool: (&str, &str, FleetTarget), now: Timestamp) -> u32 {
        let used = self
            .visible_records()
            .filter(|r| {
                (&*r.instance_type, &*r.zone, r.capacity_type) == pool
                    && r.end.is_none_or(|(told, _)| told > now)
            })
            .count();
        u32::try_from(used).unwrap_or(u32::MAX)
    }

    /// The reservation of that id, with what it has left; none if there is none or it has ended.
    pub(crate) fn reservation(&self, id: &str, now: Timestamp) -> Option<CapacityReservation> {
        let all = &self.account.capacity_reservations;
        let found = all.iter().find(|r| r.id == id && !has_ended(r, now))?;
        let used = self.visible_records().filter(|r| {
            r.reservation.as_deref() == Some(id) && r.end.is_none_or(|(told, _)| told > now)
        });
        let used = u32::try_from(used.count()).unwrap_or(u32::MAX);
        Some(CapacityReservation {
            available_instance_count: found.available_instance_count.saturating_sub(used),
            ..found.clone()
        })
    }

    /// Addresses in use in a subnet.
    fn used_addresses(&self, subnet: &str, now: Timestamp) -> BTreeSet<u32> {
        self.visible_records()
            .filter(|r| r.subnet_id == subnet && r.end.is_none_or(|(_, gone)| gone > now))
            .map(|r| r.address)
            .collect()
    }

    /// Free addresses of a subnet; `capacity` is what it has when empty.
    pub(crate) fn free_addresses(&self, subnet: &str, capacity: u32, now: Timestamp) -> u32 {
        let used = u32::try_from(self.used_addresses(subnet, now).len()).unwrap_or(u32::MAX);
        capacity.saturating_sub(used)
    }

    /// The next free address of a subnet, counting on from the last one given out, so that names are not reused soon.
    pub(crate) fn take_address(&mut self, subnet: &str, now: Timestamp) -> u32 {
        let used = self.used_addresses(subnet, now);
        let last = self.addresses.get(subnet).copied().unwrap_or(0);
        let next = (1..=SUBNET_ADDRESSES)
            .map(|step| (last + step - 1) % SUBNET_ADDRESSES + 1)
            .find(|a| !used.contains(a))
            .unwrap_or(1);
        self.addresses.insert(subnet.to_owned(), next);
        next
    }
}

/// Whether a reservation is over.
pub(crate) fn has_ended(reservation: &CapacityReservation, now: Timestamp) -> bool {
    reservation.end_date.is_some_and(|end| end <= now)
}
