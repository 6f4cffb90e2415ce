//! Instance types and their offerings: what can be bought (`scheduling.md` §9.1).

use std::sync::Arc;

use crate::{Requirements, ResourceList};

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
}
