//! Where places are: nodes that exist come first, machines to be bought after them, and keys and domains are numbers.
//! Every place is a host of its own, except nodes that share a host name.

use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_api::labels::HOSTNAME;
use smallvec::SmallVec;

use crate::cluster::{Cluster, Domains};
use crate::rooms::{BLOCK, Bits};

/// Value of a topology key.
pub(crate) type Domain = Arc<str>;
/// Which topology key, host names not among them.
pub(crate) type KeyId = usize;
/// Which value of a topology key.
pub(crate) type DomainId = usize;
/// Stands for places that do not have the label: whoever has nothing but pods to keep away from meets nobody there.
pub(crate) const NOWHERE: DomainId = usize::MAX;
/// Which node or machine.
pub(crate) type Place = usize;
/// Domains that are asked for, by key.
pub(crate) type Combination = SmallVec<[(KeyId, DomainId); 2]>;

/// A topology key.
#[derive(Debug)]
struct Key {
    name: Arc<str>,
    /// What nodes have.
    nodes: Arc<Domains>,
    /// All domains that are known: of nodes that are not gone, and those that machines are or may be in.
    known: Bits,
    /// Whether some of the nodes that are not gone do not have it.
    lacked: bool,
    /// Domains that no node has.
    more: Vec<Domain>,
    index: BTreeMap<Domain, DomainId>,
    /// By machine; none where it is not known.
    of_machine: Vec<Option<DomainId>>,
    /// Places of machines by domain.
    machines: Vec<Bits>,
    /// Places of machines that will not have the label.
    without: Bits,
}

/// Keys, domains and hosts of all places.
#[derive(Debug)]
pub(crate) struct Topology<'a> {
    cluster: &'a Cluster,
    keys: Vec<Key>,
    index: BTreeMap<Arc<str>, KeyId>,
    /// The first place of machines; a multiple of 64.
    base: Place,
}

impl<'a> Topology<'a> {
    /// Of a cluster without the nodes that are gone.
    pub(crate) fn new<'b>(
        cluster: &'a Cluster,
        gone: &Bits,
        keys: impl Iterator<Item = &'b Arc<str>>,
    ) -> Self {
        let mut out = Self {
            cluster,
            keys: Vec::new(),
            index: BTreeMap::new(),
            base: cluster.nodes.len().div_ceil(BLOCK) * BLOCK,
        };
        for key in keys.filter(|k| &***k != HOSTNAME) {
            if out.index.contains_key(key) {
                continue;
            }
            out.index.insert(key.clone(), out.keys.len());
            let nodes = cluster.domains(key);
            let lacked = nodes.without.iter().any(|place| !gone.has(place));
            out.keys.push(Key {
                name: key.clone(),
                known: Bits::of(&nodes.left(gone)),
                lacked,
                nodes,
                more: Vec::new(),
                index: BTreeMap::new(),
                of_machine: Vec::new(),
                machines: Vec::new(),
                without: Bits::default(),
            });
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
        self.cluster.twin_of.get(&place).copied().unwrap_or(place)
    }
    /// All places of the host that a place stands for.
    pub(crate) fn places_of_host(&self, host: Place) -> SmallVec<[Place; 1]> {
        match self.cluster.twins.get(&host) {
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
        let key = self.keys.get(key)?;
        let of_nodes = key.nodes.names.get(domain);
        of_nodes.or_else(|| key.more.get(domain.checked_sub(key.nodes.names.len())?))
    }
    /// The domains of a key that are known.
    pub(crate) fn domains(&self, key: KeyId) -> impl Iterator<Item = DomainId> {
        self.keys.get(key).into_iter().flat_map(|k| k.known.iter())
    }
    /// The domains of a key as the nodes have them.
    pub(crate) fn of_nodes(&self, key: KeyId) -> Option<&Domains> {
        Some(&self.keys.get(key)?.nodes)
    }

    /// The number of a domain, made up if it is new.
    pub(crate) fn domain_id(&mut self, key: KeyId, value: &str) -> DomainId {
        let Some(key) = self.keys.get_mut(key) else {
            return 0;
        };
        key.id(value)
    }

    /// The domain that a place is in, as far as it is known.
    pub(crate) fn domain(&self, key: KeyId, place: Place) -> Option<DomainId> {
        let key = self.keys.get(key)?;
        let of = match place.checked_sub(self.base) {
            Some(machine) => key.of_machine.get(machine),
            None => key.nodes.of.get(place),
        };
        of.copied().flatten()
    }

    /// Takes note of the domain that a machine is in.
    pub(crate) fn pin(&mut self, key: KeyId, domain: DomainId, place: Place) {
        let machine = place.checked_sub(self.base);
        let (Some(key), Some(machine)) = (self.keys.get_mut(key), machine) else {
            return;
        };
        if key.of_machine.len() <= machine {
            key.of_machine.resize(machine + 1, None);
        }
        if let Some(slot) = key.of_machine.get_mut(machine) {
            *slot = Some(domain);
        }
        if key.machines.len() <= domain {
            key.machines.resize(domain + 1, Bits::default());
        }
        if let Some(bits) = key.machines.get_mut(domain) {
            bits.set(place, true);
        }
    }

    /// Takes note that a machine will not have a label.
    pub(crate) fn pin_nowhere(&mut self, key: KeyId, place: Place) {
        if let Some(key) = self.keys.get_mut(key) {
            key.without.set(place, true);
        }
    }

    /// The domain that a place is in, or that it is in none for certain.
    pub(crate) fn standing(&self, key: KeyId, place: Place) -> Option<DomainId> {
        let nowhere = |key: &Key| key.nodes.without.has(place) || key.without.has(place);
        let known = self.domain(key, place);
        known.or_else(|| self.keys.get(key).filter(|k| nowhere(k)).map(|_| NOWHERE))
    }

    /// Whether nodes that are not gone lack a label.
    pub(crate) fn is_lacked(&self, key: KeyId) -> bool {
        self.keys.get(key).is_some_and(|k| k.lacked)
    }

    /// The places of a block that are in all these domains.
    pub(crate) fn inside(&self, wanted: &Combination, block: usize) -> u64 {
        wanted.iter().fold(u64::MAX, |all, (key, domain)| {
            let key = self.keys.get(*key);
            all & key.map_or(0, |k| k.inside(*domain, block))
        })
    }

    /// The places of a block of machines that are in none of the other domains of these keys: in these, or nowhere yet.
    pub(crate) fn not_outside(&self, wanted: &Combination, block: usize) -> u64 {
        wanted.iter().fold(u64::MAX, |all, (key, domain)| {
            let Some(key) = self.keys.get(*key) else {
                return 0;
            };
            let others = key.machines.iter().enumerate().filter(|(d, _)| d != domain);
            let others = others.fold(0, |out, (_, bits)| out | bits.word(block));
            let without = if *domain == NOWHERE {
                0
            } else {
                key.without.word(block)
            };
            all & !(others | without)
        })
    }
}

impl Key {
    fn id(&mut self, value: &str) -> DomainId {
        let of_nodes = self.nodes.index.get(value).copied();
        let id = of_nodes
            .or_else(|| self.index.get(value).copied())
            .unwrap_or_else(|| {
                let id = self.nodes.names.len() + self.more.len();
                let value: Domain = value.into();
                self.index.insert(value.clone(), id);
                self.more.push(value);
                id
            });
        self.known.set(id, true);
        id
    }

    fn inside(&self, domain: DomainId, block: usize) -> u64 {
        if domain == NOWHERE {
            return self.nodes.without.word(block) | self.without.word(block);
        }
        let of = |places: &[Bits]| places.get(domain).map_or(0, |bits| bits.word(block));
        of(&self.nodes.places) | of(&self.machines)
    }
}
