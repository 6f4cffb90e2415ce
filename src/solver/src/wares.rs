//! What is sold as such: lists of instance types, what requirements leave of each, and at which offering. All of that
//! depends on the lists alone and not on what a cluster needs, so that it is worked out once for all questions that are
//! asked while a list stays what it is, those about other clusters among them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use karpenter_model::resources::names::{CPU, MEMORY};
use karpenter_model::{InstanceType, LabelRegistry, Offering, Problem, Requirement, Requirements};
use parking_lot::Mutex;

use crate::catalog::{UnitPrices, size};
use crate::finish::Told;
use crate::kept::Kept;
use crate::reserved;

/// Most questions about one list that are kept by what they ask.
const QUESTIONS: usize = 64;
/// Clusters for which a list is kept after the last one that it was asked for.
const CLUSTERS: u64 = 2;

/// Stands for a position where there is none.
const NONE: u32 = u32::MAX;

/// Label keys.
pub(crate) type Keys = BTreeSet<Arc<str>>;

/// What is known of the lists of types that questions were about lately; clones share it. All questions that are asked with
/// one of these must have the same labels and feature gates. A list is known by its types' addresses: a type never changes.
#[derive(Clone, Debug, Default)]
pub struct Wares {
    shelves: Arc<Mutex<Shelves>>,
}

#[derive(Debug, Default)]
struct Shelves {
    /// Clusters begun.
    clusters: u64,
    /// Each with the last cluster that it was asked for.
    lists: Vec<(u64, Arc<List>)>,
}

impl Wares {
    /// A new cluster is asked about: lists that nobody asks for any more are forgotten.
    pub(crate) fn begin(&self) {
        let mut shelves = self.shelves.lock();
        shelves.clusters += 1;
        let now = shelves.clusters;
        shelves.lists.retain(|(last, _)| now - last <= CLUSTERS);
    }

    /// The zones that any of the types is offered in.
    #[must_use]
    pub fn zones(&self, types: &[Arc<InstanceType>]) -> Arc<BTreeSet<Arc<str>>> {
        let list = self.list(types);
        let zones = list.zones.get_or_init(|| {
            let mut zones = BTreeSet::new();
            for offering in types.iter().flat_map(|t| &t.offerings) {
                if !zones.contains(offering.zone()) {
                    zones.insert(offering.zone().into());
                }
            }
            Arc::new(zones)
        });
        Arc::clone(zones)
    }

    /// What is known of a list.
    pub(crate) fn list(&self, types: &[Arc<InstanceType>]) -> Arc<List> {
        let mut shelves = self.shelves.lock();
        let now = shelves.clusters;
        let known = shelves.lists.iter_mut().find(|(_, l)| l.is_of(types));
        if let Some((last, list)) = known {
            *last = now;
            return Arc::clone(list);
        }
        let list = Arc::new(List::new(types));
        shelves.lists.push((now, Arc::clone(&list)));
        list
    }
}

/// A list of types as a pool is sold them.
#[derive(Debug)]
pub(crate) struct List {
    types: Vec<Arc<InstanceType>>,
    /// The label keys that types or their offerings speak of.
    pub(crate) keys: Keys,
    /// By type, as far as somebody has asked.
    wares: Vec<OnceLock<Arc<Ware>>>,
    zones: OnceLock<Arc<BTreeSet<Arc<str>>>>,
    /// Units of reservations, the least of what offerings say.
    units: OnceLock<BTreeMap<Arc<str>, u32>>,
    /// Which types have something in common with a requirement.
    meet: Kept<Requirement, Vec<bool>>,
    left: Kept<Requirements, Left>,
}

impl List {
    fn new(types: &[Arc<InstanceType>]) -> Self {
        Self {
            types: types.to_vec(),
            keys: keys_of(types),
            wares: types.iter().map(|_| OnceLock::new()).collect(),
            zones: OnceLock::new(),
            units: OnceLock::new(),
            meet: Kept::at_most(QUESTIONS),
            left: Kept::at_most(QUESTIONS),
        }
    }

    fn is_of(&self, types: &[Arc<InstanceType>]) -> bool {
        let mut both = self.types.iter().zip(types);
        self.types.len() == types.len() && both.all(|(a, b)| Arc::ptr_eq(a, b))
    }

    /// How many types there are.
    pub(crate) fn len(&self) -> usize {
        self.types.len()
    }

    /// What of requirements decides about types and their offerings.
    pub(crate) fn deciding(&self, requirements: &Requirements) -> Requirements {
        let stated = requirements.iter().filter(|r| self.keys.contains(&r.key));
        stated.cloned().collect()
    }

    /// Machines left by reservation, as far as offerings can be had.
    pub(crate) fn units(&self, labels: &LabelRegistry) -> &BTreeMap<Arc<str>, u32> {
        self.units.get_or_init(|| {
            let mut units: BTreeMap<Arc<str>, u32> = BTreeMap::new();
            for offering in self.types.iter().flat_map(|t| &t.offerings) {
                let id = offering.reservation(labels);
                if let Some(id) = id.filter(|_| offering.is_usable()) {
                    let least = units.entry(id.clone()).or_insert(u32::MAX);
                    *least = (*least).min(offering.reservation_capacity);
                }
            }
            units
        })
    }

    /// How many types are left once each requirement in turn has taken away what it does not have in common with.
    pub(crate) fn narrowed<'a>(
        &self,
        requirements: impl Iterator<Item = &'a Requirement>,
    ) -> Vec<(&'a Requirement, usize)> {
        let mut left = vec![true; self.types.len()];
        requirements
            .map(|requirement| {
                let meets = self.meet.get(requirement, || {
                    let one: Requirements = [requirement.clone()].into_iter().collect();
                    let types = self.types.iter();
                    types.map(|t| t.requirements.does_intersect(&one)).collect()
                });
                for (stays, meets) in left.iter_mut().zip(meets.iter()) {
                    *stays &= meets;
                }
                (requirement, left.iter().filter(|stays| **stays).count())
            })
            .collect()
    }

    /// What a pool's requirements leave, of those that decide.
    pub(crate) fn left(&self, problem: &Problem, deciding: &Requirements) -> Arc<Left> {
        self.left.get(deciding, || {
            // A launch names the type: of several of a name it is the first.
            let mut named: BTreeSet<&Arc<str>> = BTreeSet::new();
            let all = self.types.iter().zip(&self.wares);
            let wares = all
                .filter(|(t, _)| named.insert(&t.name))
                .filter(|(t, _)| t.requirements.does_intersect(deciding))
                .map(|(t, ware)| Arc::clone(ware.get_or_init(|| Arc::new(Ware::new(problem, t)))))
                .filter(|w| w.suiting(deciding, &problem.labels).next().is_some());
            Left {
                wares: wares.collect(),
                offered: Kept::at_most(QUESTIONS),
            }
        })
    }
}

/// What a pool's requirements leave of a list.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// In the order of the list.
    pub(crate) wares: Vec<Arc<Ware>>,
    /// By what decides.
    offered: Kept<Requirements, Offered>,
}

impl Left {
    /// What stricter requirements leave of it, of those that decide.
    pub(crate) fn offered(
        &self,
        deciding: &Requirements,
        find: impl FnOnce() -> Offered,
    ) -> Arc<Offered> {
        self.offered.get(deciding, find)
    }
}

/// What requirements leave of a list of types; sets of several pools may have the same.
#[derive(Debug, Default)]
pub(crate) struct Offered {
    /// Cheapest first, ties by name. Limits are not considered.
    pub(crate) offers: Vec<Offer>,
    /// Position among the offers by position among the types; [`NONE`] where the type is not left.
    slots: Vec<u32>,
    /// Reservations that machines could be bought out of; none once they are pinned to one.
    pub(crate) reservations: BTreeSet<Arc<str>>,
    /// What plans say of it.
    pub(crate) told: OnceLock<Told>,
}

/// A type at its cheapest offering. Many of them are kept, so that they are small.
#[derive(Debug)]
pub(crate) struct Offer {
    /// Dollars per hour.
    pub(crate) price: f64,
    at: u32,
    offering: u32,
}

impl Offer {
    /// Of the type at a position, by the position of its offering.
    pub(crate) fn new(at: usize, offering: usize, price: f64) -> Option<Self> {
        Some(Self {
            price,
            at: u32::try_from(at).ok()?,
            offering: u32::try_from(offering).ok()?,
        })
    }

    /// Position among the pool's types.
    pub(crate) fn at(&self) -> usize {
        self.at as usize
    }

    /// Position among the type's offerings.
    pub(crate) fn offering(&self) -> usize {
        self.offering as usize
    }
}

impl Offered {
    /// Of so many types, these.
    pub(crate) fn new(
        wares: &[Arc<Ware>],
        mut offers: Vec<Offer>,
        reservations: BTreeSet<Arc<str>>,
    ) -> Self {
        let name = |offer: &Offer| wares.get(offer.at()).map(|w| &w.instance_type.name);
        offers.sort_by(|a, b| {
            a.price
                .total_cmp(&b.price)
                .then_with(|| name(a).cmp(&name(b)))
        });
        let mut slots = vec![NONE; wares.len()];
        for (position, offer) in (0..NONE).zip(&offers) {
            if let Some(slot) = slots.get_mut(offer.at()) {
                *slot = position;
            }
        }
        Self {
            offers,
            slots,
            reservations,
            told: OnceLock::new(),
        }
    }

    /// Whether nothing can be had.
    pub(crate) fn is_empty(&self) -> bool {
        self.offers.is_empty() && self.reservations.is_empty()
    }

    /// The offer of a type, if it can be had.
    pub(crate) fn offer(&self, at: usize) -> Option<&Offer> {
        // There are never so many offers that one is at the position that stands for none.
        self.offers.get(*self.slots.get(at)? as usize)
    }

    /// What the type costs under these requirements, if it can be had.
    pub(crate) fn price(&self, at: usize) -> Option<f64> {
        Some(self.offer(at)?.price)
    }
}

/// A type with what can be had of it.
#[derive(Debug)]
pub(crate) struct Ware {
    /// The type.
    pub(crate) instance_type: Arc<InstanceType>,
    /// Offerings that can be had, by position among the type's, cheapest first.
    offerings: Vec<usize>,
    /// Whether some of them are out of reservations.
    pub(crate) reserved: bool,
    /// Whether it has any reservation, be it one that cannot be had now.
    pub(crate) has_reservations: bool,
    /// What a core and a GiB of it cost, half of the price each; infinite if it has none or cannot be had.
    pub(crate) unit: UnitPrices,
}

impl Ware {
    fn new(problem: &Problem, instance_type: &Arc<InstanceType>) -> Self {
        let all = &instance_type.offerings;
        let can_be_had =
            |o: &Offering| o.is_usable() && (!o.is_reserved() || reserved::may_be_had(problem, o));
        let mut had: Vec<(usize, &Offering)> = all
            .iter()
            .enumerate()
            .filter(|(_, o)| can_be_had(o))
            .collect();
        had.sort_by(|(_, a), (_, b)| a.cmp_by_price(b));
        // A reservation is paid for already: its price says nothing about what a core is worth.
        let cheapest = had.iter().find(|(_, o)| !o.is_reserved());
        // A price pays for both; halves keep their sum near what a balanced machine costs.
        let half = cheapest.map_or(f64::INFINITY, |(_, o)| o.price / 2.0);
        let each = |amount: f64| {
            if amount > 0.0 {
                half / amount
            } else {
                f64::INFINITY
            }
        };
        let allocatable = &instance_type.allocatable;
        let (cores, gib) = size(allocatable.get(CPU), allocatable.get(MEMORY));
        Self {
            reserved: had.iter().any(|(_, o)| o.is_reserved()),
            has_reservations: all.iter().any(Offering::is_reserved),
            offerings: had.into_iter().map(|(at, _)| at).collect(),
            unit: UnitPrices::new(each(cores), each(gib)),
            instance_type: Arc::clone(instance_type),
        }
    }

    /// The cheapest offering that suits requirements, and its position.
    pub(crate) fn cheapest(
        &self,
        requirements: &Requirements,
        labels: &LabelRegistry,
    ) -> Option<(usize, &Offering)> {
        // Out of a reservation only where the requirements pin it: it has to be counted.
        let unpinned = || reserved::pinned(labels, requirements).is_none();
        let no_reserved = self.reserved && unpinned();
        self.suiting(requirements, labels)
            .find(|(_, o)| !(no_reserved && o.is_reserved()))
    }

    /// The offerings that suit requirements, with their positions, cheapest first.
    pub(crate) fn suiting<'a, 'b>(
        &'a self,
        requirements: &'b Requirements,
        labels: &'b LabelRegistry,
    ) -> impl Iterator<Item = (usize, &'a Offering)> + use<'a, 'b> {
        self.offerings
            .iter()
            .filter_map(|at| Some((*at, self.instance_type.offerings.get(*at)?)))
            .filter(move |(_, o)| o.suits(requirements, labels))
    }
}

/// The label keys that types or their offerings speak of.
fn keys_of(types: &[Arc<InstanceType>]) -> Keys {
    let of =
        |r: &'_ Requirements| -> Vec<Arc<str>> { r.iter().map(|r| Arc::clone(&r.key)).collect() };
    // Nearly all types speak of the same keys, and so do nearly all offerings.
    let (mut type_keys, mut offering_keys) = (Vec::new(), Vec::new());
    let mut keys = Keys::new();
    let same = |known: &[Arc<str>], r: &Requirements| known.iter().eq(r.iter().map(|r| &r.key));
    for t in types {
        if !same(&type_keys, &t.requirements) {
            type_keys = of(&t.requirements);
            keys.extend(type_keys.iter().cloned());
        }
        for offering in &t.offerings {
            if !same(&offering_keys, &offering.requirements) {
                offering_keys = of(&offering.requirements);
                keys.extend(offering_keys.iter().cloned());
            }
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(names: &[&str]) -> Vec<Arc<InstanceType>> {
        let made = names.iter().map(|name| {
            let requirements = Requirements::default();
            Arc::new(InstanceType::new(
                *name,
                requirements,
                vec![],
                Default::default(),
                Default::default(),
            ))
        });
        made.collect()
    }

    #[test]
    fn a_list_is_known_by_its_types_until_clusters_no_longer_ask_for_it() {
        let wares = Wares::default();
        let (sold, other) = (types(&["a", "b"]), types(&["a", "b"]));
        let first = wares.list(&sold);
        assert!(Arc::ptr_eq(&first, &wares.list(&sold.clone())));
        assert!(!Arc::ptr_eq(&first, &wares.list(&other)), "other types");
        assert!(!Arc::ptr_eq(&first, &wares.list(&sold[..1])), "fewer types");
        for _ in 0..CLUSTERS {
            wares.begin();
        }
        assert!(
            Arc::ptr_eq(&first, &wares.list(&sold)),
            "asked for just now"
        );
        for _ in 0..=CLUSTERS {
            wares.begin();
        }
        assert!(!Arc::ptr_eq(&first, &wares.list(&sold)), "forgotten");
    }
}
