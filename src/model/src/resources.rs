//! Resource lists: a name to an exact amount, with the arithmetic of `scheduling.md` §3.

use std::borrow::Cow;
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
///
/// Lists are short and there are very many of them (several for each pod of a cluster): a sorted vector whose usual names
/// are not copied takes a fifth of what a map takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceList {
    /// Sorted by name, each once.
    entries: Vec<(Name, Quantity)>,
}

/// A resource name; the usual ones are borrowed from the code.
type Name = Cow<'static, str>;

fn name_of(text: &str) -> Name {
    const USUAL: [&str; 5] = [
        names::CPU,
        names::EPHEMERAL_STORAGE,
        names::MEMORY,
        names::NODES,
        names::PODS,
    ];
    let known = USUAL.into_iter().find(|n| *n == text);
    known.map_or_else(|| Cow::Owned(text.to_owned()), Cow::Borrowed)
}

impl ResourceList {
    /// No resources.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    fn find(&self, name: &str) -> Result<usize, usize> {
        self.entries.binary_search_by(|(k, _)| (**k).cmp(name))
    }
    /// The amount of `name`, if it is listed.
    fn listed(&self, name: &str) -> Option<Quantity> {
        let at = self.find(name).ok()?;
        self.entries.get(at).map(|(_, amount)| *amount)
    }
    /// The amount of `name`, zero when missing.
    #[must_use]
    pub fn get(&self, name: &str) -> Quantity {
        self.listed(name).unwrap_or(Quantity::ZERO)
    }
    /// Whether `name` is listed, be it as zero.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }
    /// Sets the amount of `name`.
    pub fn set(&mut self, name: &str, amount: Quantity) {
        match self.find(name) {
            Ok(at) => {
                if let Some((_, slot)) = self.entries.get_mut(at) {
                    *slot = amount;
                }
            }
            Err(at) => {
                // Lists are kept for long: no more room than they need.
                self.entries.reserve_exact(1);
                self.entries.insert(at, (name_of(name), amount));
            }
        }
    }
    /// Names and amounts in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Quantity)> {
        self.entries.iter().map(|(k, v)| (&**k, *v))
    }
    /// Whether nothing is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    /// From an API map; texts that are no quantities are errors naming resource and text.
    ///
    /// # Errors
    /// The first entry that does not parse.
    pub fn from_raw(raw: &BTreeMap<String, RawQuantity>) -> Result<Self, BadResource> {
        let mut entries = Vec::with_capacity(raw.len());
        for (resource, text) in raw {
            let amount = text.0.parse().map_err(|source| BadResource {
                resource: resource.clone(),
                source,
            })?;
            entries.push((name_of(resource), amount));
        }
        Ok(Self { entries })
    }
    /// To an API map in canonical text (memory-like in binary suffixes, the rest decimal).
    #[must_use]
    pub fn to_raw(&self) -> BTreeMap<String, RawQuantity> {
        self.iter()
            .map(|(name, amount)| (name.to_owned(), RawQuantity(text(name, amount))))
            .collect()
    }
    /// Forgets `name`.
    pub fn remove(&mut self, name: &str) {
        if let Ok(at) = self.find(name) {
            self.entries.remove(at);
        }
    }
    /// Raises every amount to that of `other` where that is greater.
    pub fn max_with(&mut self, other: &Self) {
        for (k, v) in other.iter() {
            let greater = self.listed(k).map_or(v, |present| present.max(v));
            self.set(k, greater);
        }
    }
    /// The greatest amount of every name that any of `lists` has.
    #[must_use]
    pub fn max<'a>(lists: impl IntoIterator<Item = &'a Self>) -> Self {
        lists.into_iter().fold(Self::new(), |mut acc, list| {
            acc.max_with(list);
            acc
        })
    }
    /// The least amount of every name that all of `lists` have; nothing for no lists.
    #[must_use]
    pub fn min<'a>(lists: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut lists = lists.into_iter();
        let Some(first) = lists.next() else {
            return Self::new();
        };
        lists.fold(first.clone(), |acc, list| Self {
            entries: acc
                .entries
                .into_iter()
                .filter_map(|(k, v)| Some((list.listed(&k)?.min(v), k)))
                .map(|(v, k)| (k, v))
                .collect(),
        })
    }
    /// `self` with negative amounts raised to zero.
    #[must_use]
    pub fn floored(mut self) -> Self {
        for (_, v) in &mut self.entries {
            *v = (*v).max(Quantity::ZERO);
        }
        self
    }
    /// Names of which `self` has more than `limit`, among the names that `limit` has.
    pub fn exceeding<'a>(&'a self, limit: &'a Self) -> impl Iterator<Item = &'a str> {
        limit
            .iter()
            .filter(|(name, most)| self.get(name) > *most)
            .map(|(name, _)| name)
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
        for (k, v) in &mut self.entries {
            *v = Quantity::from_nanos(v.nanos().saturating_sub(other.get(k).nanos()));
        }
    }
    /// Subtracts every entry of `other`: what `self` lacks of it is owed, that is, below zero.
    pub fn deduct(&mut self, other: &Self) {
        for (k, v) in other.iter() {
            let rest = Quantity::from_nanos(self.get(k).nanos().saturating_sub(v.nanos()));
            self.set(k, rest);
        }
    }
    /// Whether `self` fits into `total`: false if anything in `total` is negative, else name by name ≤.
    #[must_use]
    pub fn fits(&self, total: &Self) -> bool {
        total.iter().all(|(_, v)| v >= Quantity::ZERO)
            && self.iter().all(|(k, v)| v <= total.get(k))
    }
}

/// Whether a resource is a size of huge pages, which come out of memory.
#[must_use]
pub fn is_hugepages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// An amount of the resource `name` as Kubernetes writes it: bytes with binary suffixes, the rest decimal.
#[must_use]
pub fn text(name: &str, amount: Quantity) -> String {
    let bytes = matches!(name, names::MEMORY | names::EPHEMERAL_STORAGE) || is_hugepages(name);
    if bytes {
        amount.to_binary_string()
    } else {
        amount.to_string()
    }
}

impl<'a> FromIterator<(&'a str, Quantity)> for ResourceList {
    fn from_iter<T: IntoIterator<Item = (&'a str, Quantity)>>(iter: T) -> Self {
        let mut out = Self::new();
        for (name, amount) in iter {
            out.set(name, amount);
        }
        out
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
