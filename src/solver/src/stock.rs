//! What is sold, as questions about one cluster have found out: types after what DaemonSets take, lists of types that pools'
//! requirements leave, and the offers that are left of those. All of that depends on the catalogue alone, so that a question
//! costs what its own pods cost, however many types and pools there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_model::{InstanceType, PoolView, Problem, Requirements};

use crate::catalog::{Daemons, Keys, Sold, Types, UnitPrices, sold};
use crate::dense::Names;
use crate::sets::Offers;

/// Types as they are sold, each once for all pools with the same DaemonSets.
#[derive(Debug, Default)]
pub(crate) struct Stock {
    /// DaemonSet pods with where they run, in words.
    kinds: BTreeMap<String, usize>,
    /// By kind and address of the type, which each of them keeps alive.
    known: BTreeMap<(usize, usize), Arc<Sold>>,
    /// Lists of types, with the label keys that they speak of.
    lists: Vec<(Vec<Arc<InstanceType>>, Keys)>,
    /// What requirements leave, by kind, list and what they say about those keys.
    left: BTreeMap<(usize, usize, Requirements), Types>,
    /// What the offers are rated by.
    rated: Option<(UnitPrices, f64)>,
    /// What requirements leave of those, by the address of the list, which `left` keeps alive, and what they say about
    /// its keys.
    offers: BTreeMap<(usize, Requirements), Arc<Offers>>,
}

impl Stock {
    /// What a pool's requirements leave of what it is sold, and the label keys that any of that speaks of.
    pub(crate) fn suitable(
        &mut self,
        problem: &Problem,
        names: &Names,
        view: &PoolView,
        daemons: &Daemons,
    ) -> (Types, Keys) {
        let types = &view.instance_types[..];
        let same = |list: &[Arc<InstanceType>]| {
            list.len() == types.len() && list.iter().zip(types).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        let list = self.lists.iter().position(|(list, _)| same(list));
        let list = list.unwrap_or_else(|| {
            self.lists.push((types.to_vec(), Arc::new(keys_of(types))));
            self.lists.len() - 1
        });
        let keys = self.lists.get(list).map(|(_, keys)| Arc::clone(keys));
        let keys = keys.unwrap_or_default();
        let kind = self.kind(daemons);
        let asked = about(&view.requirements, &keys);
        if let Some(known) = self.left.get(&(kind, list, asked.clone())) {
            return (Arc::clone(known), keys);
        }
        // A launch names the type: of several of a name it is the first.
        let mut named: BTreeSet<&Arc<str>> = BTreeSet::new();
        let left: Vec<Arc<Sold>> = types
            .iter()
            .filter(|t| named.insert(&t.name))
            .filter(|t| t.requirements.does_intersect(&asked))
            .map(|t| self.sold(problem, names, t, daemons))
            .filter(|s| s.suiting(&asked, &problem.labels).next().is_some())
            .collect();
        let left = Arc::new(left);
        self.left.insert((kind, list, asked), Arc::clone(&left));
        (left, keys)
    }

    /// What requirements leave of a pool's types, rated by prices and the cost of a node of its own, if it is known.
    pub(crate) fn offers(
        &mut self,
        types: &Types,
        asked: &Requirements,
        rated: (UnitPrices, f64),
    ) -> Option<Arc<Offers>> {
        if self.rated != Some(rated) {
            self.offers.clear();
            self.rated = Some(rated);
        }
        let known = self.offers.get(&(address(types), asked.clone()));
        known.cloned()
    }

    /// Takes note of the same.
    pub(crate) fn found(
        &mut self,
        types: &Types,
        asked: Requirements,
        rated: (UnitPrices, f64),
        offers: &Arc<Offers>,
    ) {
        if self.rated == Some(rated) {
            let key = (address(types), asked);
            self.offers.insert(key, Arc::clone(offers));
        }
    }

    fn kind(&mut self, daemons: &Daemons) -> usize {
        let next = self.kinds.len();
        match self.kinds.get(&daemons.text) {
            Some(kind) => *kind,
            None => *self.kinds.entry(daemons.text.clone()).or_insert(next),
        }
    }

    fn sold(
        &mut self,
        problem: &Problem,
        names: &Names,
        instance_type: &Arc<InstanceType>,
        daemons: &Daemons,
    ) -> Arc<Sold> {
        let kind = self.kind(daemons);
        let key = (kind, Arc::as_ptr(instance_type).addr());
        let known = self.known.entry(key);
        let made = known.or_insert_with(|| Arc::new(sold(problem, names, instance_type, daemons)));
        Arc::clone(made)
    }
}

fn address(types: &Types) -> usize {
    Arc::as_ptr(types).addr()
}

/// The label keys that types or their offerings speak of.
fn keys_of(types: &[Arc<InstanceType>]) -> BTreeSet<Arc<str>> {
    let all = types.iter().flat_map(|t| {
        let offered = t.offerings.iter().flat_map(|o| o.requirements.iter());
        t.requirements.iter().chain(offered)
    });
    let mut keys = BTreeSet::new();
    for requirement in all {
        if !keys.contains(&requirement.key) {
            keys.insert(Arc::clone(&requirement.key));
        }
    }
    keys
}

/// What requirements say about some keys.
pub(crate) fn about(requirements: &Requirements, keys: &BTreeSet<Arc<str>>) -> Requirements {
    let stated = requirements.iter().filter(|r| keys.contains(&r.key));
    stated.cloned().collect()
}
