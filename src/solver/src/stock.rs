//! What is sold (`wares.rs`) in terms of what is asked for: the room that DaemonSets leave on types, and offers rated by what
//! a core is worth, as questions about one cluster have found out.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use karpenter_model::Problem;

use crate::catalog::{OfPool, Sold, Types, UnitPrices, sold};
use crate::dense::{Dense, Names, fits};
use crate::rooms::{BLOCK, most};
use crate::wares::{Left, Offer, Offered, Ware};

/// Worth of a pod that asks for nothing, so that it counts at all.
pub(crate) const POD_WORTH: f64 = 1e-6;

/// Most that is kept of what is offered: questions ask for the same again and again, or for something new each time.
const OFFERS: usize = 1024;

/// Types as they are sold, each once for all pools with the same DaemonSets.
#[derive(Debug, Default)]
pub(crate) struct Stock {
    /// DaemonSet pods with where they run, in words.
    kinds: BTreeMap<String, usize>,
    /// By kind and address of the ware, which each of them keeps alive.
    known: BTreeMap<(usize, usize), Arc<Sold>>,
    /// By kind and address of what is left of a list, which each of them keeps alive.
    types: BTreeMap<(usize, usize), Types>,
    /// What the offers are rated by.
    rated: Option<Rated>,
    /// By kind and address of what is offered, which each of them keeps alive.
    offers: BTreeMap<(usize, usize), Arc<Offers>>,
}

/// What a unit of work is worth, and what a node costs by itself.
pub(crate) type Rated = (UnitPrices, f64);

/// What is left of a list, as it is sold to pools that run the same DaemonSets.
#[derive(Debug, Default)]
pub(crate) struct Assortment {
    /// Which DaemonSets.
    kind: usize,
    pub(crate) left: Arc<Left>,
    /// In the order of what is left.
    sold: Vec<Arc<Sold>>,
}

impl Deref for Assortment {
    type Target = [Arc<Sold>];

    fn deref(&self) -> &Self::Target {
        &self.sold
    }
}

/// What requirements leave, with what it has room for.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    offered: Arc<Offered>,
    /// The least that a unit of work can cost, and which offer; the least first.
    pub(crate) rates: Vec<(f64, usize)>,
    /// The types, which tell how much room the offers have.
    types: Types,
    /// The most that any offer of a block has of each resource.
    most: Vec<Dense>,
}

impl Deref for Offers {
    type Target = Offered;

    fn deref(&self) -> &Offered {
        &self.offered
    }
}

impl Offers {
    fn new(offered: Arc<Offered>, types: &Types, (prices, node_cost): Rated) -> Self {
        let mut rates = Vec::new();
        for (position, offer) in offered.offers.iter().enumerate() {
            let Some(sold) = types.get(offer.at()) else {
                continue;
            };
            let (cores, gib) = sold.free;
            let most = prices.worth(cores, gib) + POD_WORTH * sold.slots;
            let rate = (offer.price + node_cost) / most.max(f64::MIN_POSITIVE);
            rates.push((rate, position));
        }
        rates.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        rates.shrink_to_fit();
        let blocks = offered.offers.chunks(BLOCK);
        let most = blocks.map(|block| {
            let rooms = block.iter().filter_map(|o| types.get(o.at()));
            most(rooms.map(|sold| &sold.room))
        });
        Self {
            most: most.collect(),
            types: Arc::clone(types),
            offered,
            rates,
        }
    }

    /// The offers that have room for so much, the cheapest first.
    pub(crate) fn with_room<'a>(&'a self, need: &'a [i64]) -> impl Iterator<Item = &'a Offer> {
        let blocks = self.offers.chunks(BLOCK).zip(&self.most);
        let open = blocks.filter(|(_, most)| fits(need, most));
        open.flat_map(|(block, _)| block).filter(|offer| {
            let sold = self.types.get(offer.at());
            sold.is_some_and(|s| fits(need, &s.room))
        })
    }
}

impl Stock {
    /// What is left of a list, as it is sold to a pool with these DaemonSets.
    pub(crate) fn types(
        &mut self,
        problem: &Problem,
        names: &Names,
        left: Arc<Left>,
        daemons: &OfPool,
    ) -> Types {
        let kind = self.kind(daemons);
        let key = (kind, Arc::as_ptr(&left).addr());
        if let Some(known) = self.types.get(&key) {
            return Arc::clone(known);
        }
        let sold = left.wares.iter();
        let sold = sold.map(|ware| self.sold(problem, names, (kind, ware), daemons));
        let made = Arc::new(Assortment {
            kind,
            sold: sold.collect(),
            left,
        });
        self.types.insert(key, Arc::clone(&made));
        made
    }

    /// What is offered of types, rated.
    pub(crate) fn offers(
        &mut self,
        types: &Types,
        offered: Arc<Offered>,
        rated: Rated,
    ) -> Arc<Offers> {
        if self.rated != Some(rated) {
            self.offers.clear();
            self.rated = Some(rated);
        }
        if self.offers.len() >= OFFERS {
            self.offers.clear();
        }
        let key = (types.kind, Arc::as_ptr(&offered).addr());
        let known = self.offers.entry(key);
        let made = known.or_insert_with(|| Arc::new(Offers::new(offered, types, rated)));
        Arc::clone(made)
    }

    fn kind(&mut self, daemons: &OfPool) -> usize {
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
        (kind, ware): (usize, &Arc<Ware>),
        daemons: &OfPool,
    ) -> Arc<Sold> {
        let key = (kind, Arc::as_ptr(ware).addr());
        let known = self.known.entry(key);
        let made = known.or_insert_with(|| Arc::new(sold(problem, names, ware, daemons)));
        Arc::clone(made)
    }
}
