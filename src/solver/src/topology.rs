//! Where places are: nodes that exist come first, machines to be bought after them, and keys and domains are numbers.
//! Every place is a host of its own, except nodes that share a host name.

use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_api::labels::HOSTNAME;
use karpenter_model::NodeView;
use smallvec::SmallVec;

use crate::rooms::{BLOCK, Bits};

/// Value of a topology key.
pub(crate) type Domain = Arc<str>;
/// Which topology key, host names not among them.
pub(crate) type KeyId = usize;
/// Which value of a topology key.
pub(crate) type DomainId = usize;
/// Which node or machine.
pub(crate) type Place = usize;
/// Domains that are asked for, by key.
pub(crate) type Combination = SmallVec<[(KeyId, DomainId); 2]>;

/// A topology key.
#[derive(Debug)]
struct Key {
    name: Arc<str>,
    domains: Vec<Domain>,
    index: BTreeMap<Domain, DomainId>,
    /// By place; none where it is not known or there is none.
    of: Vec<Option<DomainId>>,
    /// Places by domain.
    places: Vec<Bits>,
}

/// Keys, domains and hosts of all places.
#[derive(Debug, Default)]
pub(crate) struct Topology {
    keys: Vec<Key>,
    index: BTreeMap<Arc<str>, KeyId>,
    /// The first place of machines; a multiple of 64.
    base: Place,
    /// Of nodes that share a host name: the first of them, which stands for the host.
    twin_of: BTreeMap<Place, Place>,
    /// All places of hosts that have several.
    twins: BTreeMap<Place, Vec<Place>>,
}

impl Topology {
    /// Of nodes in the order of their places.
    pub(crate) fn new<'a>(
        nodes: &[Arc<NodeView>],
        keys: impl Iterator<Item = &'a Arc<str>>,
    ) -> Self {
        let mut out = Self {
            base: nodes.len().div_ceil(BLOCK) * BLOCK,
            ..Self::default()
        };
        for key in keys.filter(|k| &***k != HOSTNAME) {
            if out.index.contains_key(key) {
                continue;
            }
            let id = out.keys.len();
            out.index.insert(key.clone(), id);
            out.keys.push(Key {
                name: key.clone(),
                domains: Vec::new(),
                index: BTreeMap::new(),
                of: Vec::new(),
                places: Vec::new(),
            });
            for (place, node) in nodes.iter().enumerate() {
                if let Some(value) = node.labels.get(&**key) {
                    let domain = out.domain_id(id, value);
                    out.pin(id, domain, place);
                }
            }
        }
        let mut hosts: BTreeMap<&str, Place> = BTreeMap::new();
        for (place, node) in nodes.iter().enumerate() {
            // A node's name stands for a host name that is not there.
            let host = node.labels.get(HOSTNAME).map_or(&*node.name, |h| h);
            let first = *hosts.entry(host).or_insert(place);
            if first != place {
                out.twin_of.insert(place, first);
                let twins = out.twins.entry(first).or_insert_with(|| vec![first]);
                twins.push(place);
            }
        }
        out
    }

    /// The place of a machine.
    pub(crate) fn machine(&self, index: usize) -> Place {
        self.base + index
    }
    /// The first block of machines.
    pub(crate) fn machine_block(&self) -> usize {
        self.base / BLOCK
    }
    /// The place that stands for the host of a place.
    pub(crate) fn host(&self, place: Place) -> Place {
        self.twin_of.get(&place).copied().unwrap_or(place)
    }
    /// All places of the host that a place stands for.
    pub(crate) fn places_of_host(&self, host: Place) -> SmallVec<[Place; 1]> {
        match self.twins.get(&host) {
            Some(all) => SmallVec::from_slice(all),
            None => SmallVec::from_slice(&[host]),
        }
    }

    pub(crate) fn key(&self, name: &str) -> Option<KeyId> {
        self.index.get(name).copied()
    }
    pub(crate) fn key_name(&self, key: KeyId) -> Option<&Arc<str>> {
        Some(&self.keys.get(key)?.name)
    }
    pub(crate) fn domain_name(&self, key: KeyId, domain: DomainId) -> Option<&Domain> {
        self.keys.get(key)?.domains.get(domain)
    }
    /// How many domains of a key are known.
    pub(crate) fn domains(&self, key: KeyId) -> usize {
        self.keys.get(key).map_or(0, |k| k.domains.len())
    }

    /// The number of a domain, made up if it is new.
    pub(crate) fn domain_id(&mut self, key: KeyId, value: &str) -> DomainId {
        let Some(key) = self.keys.get_mut(key) else {
            return 0;
        };
        if let Some(known) = key.index.get(value) {
            return *known;
        }
        let id = key.domains.len();
        let value: Domain = value.into();
        key.index.insert(value.clone(), id);
        key.domains.push(value);
        key.places.push(Bits::default());
        id
    }

    /// The domain that a place is in, as far as it is known.
    pub(crate) fn domain(&self, key: KeyId, place: Place) -> Option<DomainId> {
        self.keys.get(key)?.of.get(place).copied().flatten()
    }

    /// Takes note of the domain that a place is in.
    pub(crate) fn pin(&mut self, key: KeyId, domain: DomainId, place: Place) {
        let Some(key) = self.keys.get_mut(key) else {
            return;
        };
        if key.of.len() <= place {
            key.of.resize(place + 1, None);
        }
        if let Some(slot) = key.of.get_mut(place) {
            *slot = Some(domain);
        }
        if let Some(bits) = key.places.get_mut(domain) {
            bits.set(place, true);
        }
    }

    /// The places of a block that are in all these domains.
    pub(crate) fn inside(&self, wanted: &Combination, block: usize) -> u64 {
        wanted.iter().fold(u64::MAX, |all, (key, domain)| {
            let bits = self.keys.get(*key).and_then(|k| k.places.get(*domain));
            all & bits.map_or(0, |b| b.word(block))
        })
    }

    /// The places of a block that are in none of the other domains of these keys: in these, or nowhere yet.
    pub(crate) fn not_outside(&self, wanted: &Combination, block: usize) -> u64 {
        wanted.iter().fold(u64::MAX, |all, (key, domain)| {
            let Some(key) = self.keys.get(*key) else {
                return 0;
            };
            let others = key.places.iter().enumerate().filter(|(d, _)| d != domain);
            all & !others.fold(0, |out, (_, bits)| out | bits.word(block))
        })
    }
}
