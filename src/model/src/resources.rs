//! Resource lists: a name to an exact amount, with the arithmetic of `scheduling.md` §3.

use std::collections::BTreeMap;

use karpenter_api::Quantity;
use karpenter_api::kinds::RawQuantity;

/// Resource names that the code speaks of.
pub mod names {
    /// CPU cores.
    pub const CPU: &str = "cpu";
    /// Bytes of memory.
    pub const MEMORY: &str = "memory";
    /// Number of pods.
    pub const PODS: &str = "pods";
    /// Bytes of ephemeral storage.
    pub const EPHEMERAL_STORAGE: &str = "ephemeral-storage";
    /// Number of nodes; only in limits and pool totals.
    pub const NODES: &str = "nodes";
}

/// Amounts by resource name; a missing name is zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceList {
    /// Sorted by name.
    map: BTreeMap<String, Quantity>,
}

impl ResourceList {
    /// No resources.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// The amount of `name`, zero when missing.
    #[must_use]
    pub fn get(&self, name: &str) -> Quantity {
        self.map.get(name).copied().unwrap_or(Quantity::ZERO)
    }
    /// Whether `name` is listed, be it as zero.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }
    /// Sets the amount of `name`.
    pub fn set(&mut self, name: &str, amount: Quantity) {
        self.map.insert(name.to_owned(), amount);
    }
    /// Names and amounts in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Quantity)> {
        self.map.iter().map(|(k, v)| (k.as_str(), *v))
    }
    /// Whether nothing is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
    /// From an API map; texts that are no quantities are errors naming resource and text.
    ///
    /// # Errors
    /// The first entry that does not parse.
    pub fn from_raw(_raw: &BTreeMap<String, RawQuantity>) -> Result<Self, BadResource> {
        Ok(Self::default()) // INTERFACE: the model author fills this in.
    }
    /// To an API map in canonical text (memory-like in binary suffixes, the rest decimal).
    #[must_use]
    pub fn to_raw(&self) -> BTreeMap<String, RawQuantity> {
        BTreeMap::new() // INTERFACE: the model author fills this in.
    }
    /// Adds every entry of `other`.
    pub fn add(&mut self, other: &Self) {
        for (k, v) in other.iter() {
            let sum = Quantity::from_nanos(self.get(k).nanos().saturating_add(v.nanos()));
            self.set(k, sum);
        }
    }
    /// Subtracts `other` for the names of `self` only, as upstream's `Subtract`.
    pub fn subtract(&mut self, other: &Self) {
        for (k, v) in &mut self.map {
            *v = Quantity::from_nanos(v.nanos().saturating_sub(other.get(k).nanos()));
        }
    }
    /// Whether `self` fits into `total`: false if anything in `total` is negative, else name by name ≤.
    #[must_use]
    pub fn fits(&self, total: &Self) -> bool {
        total.map.values().all(|v| *v >= Quantity::ZERO)
            && self.iter().all(|(k, v)| v <= total.get(k))
    }
}

impl<'a> FromIterator<(&'a str, Quantity)> for ResourceList {
    fn from_iter<T: IntoIterator<Item = (&'a str, Quantity)>>(iter: T) -> Self {
        Self {
            map: iter.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        }
    }
}

/// An entry of a resource map that is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("resource {resource}: {source}")]
pub struct BadResource {
    /// Resource name.
    pub resource: String,
    /// What is wrong with its text.
    pub source: karpenter_api::quantity::ParseQuantityError,
}
