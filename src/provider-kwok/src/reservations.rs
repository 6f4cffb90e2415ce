//! Machines out of reservations: as many as a catalogue says a reservation has, less those that are running or booting.

use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_cloud::Machine;
use karpenter_model::{InstanceType, Offering};
use parking_lot::{Mutex, RwLock};

use crate::catalog::RESERVATION_ID;

/// Machines by provider id, as the watch of Nodes tells; none until it has listed them.
pub(crate) type Machines = Arc<RwLock<Option<BTreeMap<String, Machine>>>>;

/// Machines out of each reservation; none while it is not known which machines there are.
pub(crate) type Used = Option<BTreeMap<String, u32>>;

/// Launches whose Node has not been seen yet: provider id and reservation.
#[derive(Debug, Default)]
pub(crate) struct Booting(Mutex<BTreeMap<String, String>>);

impl Booting {
    /// Takes note of a launch, whose labels say whether it is out of a reservation.
    pub(crate) fn add(&self, provider_id: &str, labels: &BTreeMap<String, String>) {
        if let Some(id) = labels.get(RESERVATION_ID) {
            self.0.lock().insert(provider_id.to_owned(), id.clone());
        }
    }
    /// The machine is gone; whether that leaves a reservation with one more.
    pub(crate) fn remove(&self, provider_id: &str) -> bool {
        self.0.lock().remove(provider_id).is_some()
    }

    /// How many machines each reservation has given, `but` one: a launch that is repeated takes no second unit.
    pub(crate) fn used(&self, machines: &Machines, but: Option<&str>) -> Used {
        let machines = machines.read();
        let mut of_machine = self.0.lock().clone();
        for machine in machines.as_ref()?.values() {
            if let Some(id) = machine.labels.get(RESERVATION_ID) {
                of_machine.insert(machine.provider_id.clone(), id.clone());
            }
        }
        of_machine.retain(|machine, _| Some(machine.as_str()) != but);
        let mut used = BTreeMap::new();
        for id in of_machine.into_values() {
            *used.entry(id).or_default() += 1;
        }
        Some(used)
    }
}

fn id_of(offering: &Offering) -> Option<&str> {
    let id = offering.requirements.get(RESERVATION_ID)?.single()?;
    offering.is_reserved().then_some(id)
}

/// Whether any type can be had out of a reservation.
pub(crate) fn any(types: &[Arc<InstanceType>]) -> bool {
    let mut offerings = types.iter().flat_map(|t| &t.offerings);
    offerings.any(|o| id_of(o).is_some())
}

/// Whether a machine can still be had from an offering of the catalogue.
pub(crate) fn has(offering: &Offering, used: &Used) -> bool {
    left(offering, used) > 0 || id_of(offering).is_none()
}

fn left(offering: &Offering, used: &Used) -> u32 {
    let (Some(id), Some(used)) = (id_of(offering), used) else {
        return 0;
    };
    let taken = used.get(id).copied().unwrap_or(0);
    offering.reservation_capacity.saturating_sub(taken)
}

/// The types with what their reservations have left.
pub(crate) fn apply(types: Vec<Arc<InstanceType>>, used: &Used) -> Vec<Arc<InstanceType>> {
    let reserved = |t: &Arc<InstanceType>| t.offerings.iter().any(|o| id_of(o).is_some());
    let with_left = |t: Arc<InstanceType>| {
        if !reserved(&t) {
            return t;
        }
        let mut changed = InstanceType::clone(&t);
        for offering in changed.offerings.iter_mut().filter(|o| id_of(o).is_some()) {
            offering.reservation_capacity = left(offering, used);
            offering.available &= offering.reservation_capacity > 0;
        }
        Arc::new(changed)
    };
    types.into_iter().map(with_left).collect()
}
