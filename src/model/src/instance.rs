//! Instance types and their offerings: what can be bought (`scheduling.md` §9).

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_api::Quantity;
use karpenter_api::labels::{
    CAPACITY_ON_DEMAND, CAPACITY_RESERVED, CAPACITY_SPOT, CAPACITY_TYPE, ZONE,
};

use crate::requirement::Undefined;
use crate::resources::{is_hugepages, names};
use crate::{LabelRegistry, Requirement, Requirements, ResourceList};

/// A kind of machine. Immutable and shared once built.
#[derive(Clone, Debug)]
pub struct InstanceType {
    /// Name, such as `m7i.large`.
    pub name: Arc<str>,
    /// One requirement for every well-known key, possibly `DoesNotExist`.
    pub requirements: Requirements,
    /// Every way to buy it, available or not.
    pub offerings: Vec<Offering>,
    /// Total resources.
    pub capacity: ResourceList,
    /// What kubelet, system and eviction threshold take away.
    pub overhead: Overhead,
    /// `capacity − overhead`, hugepages out of memory, floored at zero.
    pub allocatable: ResourceList,
    /// Whether a NodeOverlay has put resources into it.
    pub overlaid: bool,
}

/// Resources a machine keeps for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overhead {
    /// For the kubelet.
    pub kube_reserved: ResourceList,
    /// For the operating system.
    pub system_reserved: ResourceList,
    /// Kept free by eviction.
    pub eviction_threshold: ResourceList,
}

/// One way to buy an instance type.
#[derive(Clone, Debug)]
pub struct Offering {
    /// Holds at least zone and capacity type.
    pub requirements: Requirements,
    /// US dollars per hour.
    pub price: f64,
    /// Whether it can be had now.
    pub available: bool,
    /// Machines left in the reservation; zero for unreserved offerings.
    pub reservation_capacity: u32,
    /// Whether its price is a NodeOverlay's.
    pub overlaid: bool,
}

impl Overhead {
    /// All three together.
    #[must_use]
    pub fn total(&self) -> ResourceList {
        let mut sum = self.kube_reserved.clone();
        sum.add(&self.system_reserved);
        sum.add(&self.eviction_threshold);
        sum
    }
}

impl InstanceType {
    /// An instance type with its allocatable computed (`scheduling.md` §3).
    #[must_use]
    pub fn new(
        name: impl Into<Arc<str>>,
        requirements: Requirements,
        offerings: Vec<Offering>,
        capacity: ResourceList,
        overhead: Overhead,
    ) -> Self {
        let allocatable = allocatable(&capacity, &overhead);
        Self {
            name: name.into(),
            requirements,
            offerings,
            capacity,
            overhead,
            allocatable,
            overlaid: false,
        }
    }

    /// Offerings that can be had now ([`Offering::is_usable`]) and that `requirements` admit, in the order listed.
    pub fn offers<'a, 'b>(
        &'a self,
        requirements: &'b Requirements,
        labels: &'b LabelRegistry,
    ) -> impl Iterator<Item = &'a Offering> + use<'a, 'b> {
        self.offerings
            .iter()
            .filter(move |o| o.is_usable() && o.suits(requirements, labels))
    }

    /// The cheapest of [`Self::offers`]; ties by zone, then capacity type.
    #[must_use]
    pub fn cheapest(
        &self,
        requirements: &Requirements,
        labels: &LabelRegistry,
    ) -> Option<&Offering> {
        self.offers(requirements, labels)
            .min_by(|a, b| a.cmp_by_price(b))
    }

    /// The most that a launch under `requirements` may come to: of the first capacity type of reserved, spot,
    /// on-demand that has any offer, the dearest (`scheduling.md` §9.2). Availability is not asked.
    #[must_use]
    pub fn worst_launch_price(
        &self,
        requirements: &Requirements,
        labels: &LabelRegistry,
    ) -> Option<f64> {
        [CAPACITY_RESERVED, CAPACITY_SPOT, CAPACITY_ON_DEMAND]
            .into_iter()
            .find_map(|capacity_type| {
                self.offerings
                    .iter()
                    .filter(|o| o.capacity_type() == capacity_type)
                    .filter(|o| o.suits(requirements, labels))
                    .map(|o| o.price)
                    .max_by(f64::total_cmp)
            })
    }

    /// The type's requirements as a machine of one of its offerings has them: without what only others have, such as a
    /// reservation.
    #[must_use]
    pub fn requirements_as(&self, offering: &Offering) -> Requirements {
        let lacks = |key: &str| {
            let own = offering.requirements.get(key);
            own.is_some_and(Requirement::is_empty)
        };
        let has = self.requirements.iter().filter(|r| !lacks(&r.key));
        has.cloned().collect()
    }

    /// The offering that a node with these labels was bought under, available or not.
    #[must_use]
    pub fn offering(&self, zone: &str, capacity_type: &str) -> Option<&Offering> {
        self.offerings
            .iter()
            .find(|o| o.zone() == zone && o.capacity_type() == capacity_type)
    }

    /// [`Self::offering`] by all labels of the node: of several reservations, the one it is out of.
    #[must_use]
    pub fn offering_of(
        &self,
        node: &BTreeMap<String, String>,
        labels: &LabelRegistry,
    ) -> Option<&Offering> {
        let value = |key: &str| node.get(key).map_or("", String::as_str);
        let (zone, capacity_type) = (value(ZONE), value(CAPACITY_TYPE));
        let id = labels.reservation_id.as_deref().map(value);
        self.offerings
            .iter()
            .filter(|o| o.zone() == zone && o.capacity_type() == capacity_type)
            .find(|o| o.reservation(labels).is_none_or(|own| Some(&**own) == id))
    }
}

impl Offering {
    /// An available offering of a zone under a capacity type.
    #[must_use]
    pub fn new(zone: &str, capacity_type: &str, price: f64) -> Self {
        Self {
            requirements: [
                Requirement::is_in(ZONE, [zone]),
                Requirement::is_in(CAPACITY_TYPE, [capacity_type]),
            ]
            .into_iter()
            .collect(),
            price,
            available: true,
            reservation_capacity: 0,
            overlaid: false,
        }
    }

    /// Zone; empty if it names none.
    #[must_use]
    pub fn zone(&self) -> &str {
        self.value(ZONE)
    }

    /// `spot`, `on-demand` or `reserved`; empty if it names none.
    #[must_use]
    pub fn capacity_type(&self) -> &str {
        self.value(CAPACITY_TYPE)
    }

    fn value(&self, key: &str) -> &str {
        self.requirements
            .get(key)
            .and_then(Requirement::single)
            .map_or("", |v| v)
    }

    /// Whether it can be had now at a price that makes sense: a provider's NaN or negative price must not make
    /// a machine look like a bargain.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.available && self.price.is_finite() && self.price >= 0.0
    }

    /// Whether a claim with `requirements` may be launched from it.
    #[must_use]
    pub fn suits(&self, requirements: &Requirements, labels: &LabelRegistry) -> bool {
        requirements.is_compatible(&self.requirements, Undefined::WellKnown(labels))
    }

    /// The reservation that a machine bought here is out of.
    #[must_use]
    pub fn reservation(&self, labels: &LabelRegistry) -> Option<&Arc<str>> {
        let key = labels.reservation_id.as_deref()?;
        let reserved = self.is_reserved();
        self.requirements.get(key)?.single().filter(|_| reserved)
    }

    /// Whether it is sold out of a reservation.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.capacity_type() == CAPACITY_RESERVED
    }

    /// By price, then zone, then capacity type.
    #[must_use]
    pub fn cmp_by_price(&self, other: &Self) -> Ordering {
        self.price
            .total_cmp(&other.price)
            .then_with(|| self.zone().cmp(other.zone()))
            .then_with(|| self.capacity_type().cmp(other.capacity_type()))
    }
}

/// Types with their cheapest offer under `requirements`, cheapest first, ties by name; types without are left out.
#[must_use]
pub fn by_price<'a>(
    types: impl IntoIterator<Item = &'a Arc<InstanceType>>,
    requirements: &Requirements,
    labels: &LabelRegistry,
) -> Vec<(&'a Arc<InstanceType>, &'a Offering)> {
    let mut out: Vec<_> = types
        .into_iter()
        .filter_map(|t| Some((t, t.cheapest(requirements, labels)?)))
        .collect();
    out.sort_by(|(a, x), (b, y)| {
        x.price
            .total_cmp(&y.price)
            .then_with(|| a.name.cmp(&b.name))
    });
    out
}

fn allocatable(capacity: &ResourceList, overhead: &Overhead) -> ResourceList {
    let mut left = capacity.clone();
    left.subtract(&overhead.total());
    let mut memory = left.get(names::MEMORY).nanos();
    for (_, amount) in capacity.iter().filter(|(name, _)| is_hugepages(name)) {
        memory = memory.saturating_sub(amount.nanos());
    }
    if left.contains(names::MEMORY) {
        left.set(names::MEMORY, Quantity::from_nanos(memory));
    }
    left.floored()
}
