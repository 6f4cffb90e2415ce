//! Requirement sets that claims can have, each computed once: which types of the pool it leaves, at what price, and
//! what becomes of it when a pod's demands are added. Claims with equal requirements share one set.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;

use karpenter_api::labels::{CAPACITY_RESERVED, CAPACITY_TYPE};
use karpenter_model::taints::first_in_the_way;
use karpenter_model::{Problem, Requirement, Requirements, Undefined};

use crate::catalog::{Catalog, Pool, UnitPrices};
use crate::class::{Classes, DemandId};
use crate::daemons::{Daemon, DaemonId};
use crate::reserved;
use crate::stock::Offers;
use crate::topology::{DomainId, KeyId, NOWHERE};
use crate::wares::{Offer, Offered, Ware};

/// Which set.
pub(crate) type SetId = usize;

/// Requirements in a pool.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) pool: usize,
    pub(crate) requirements: Requirements,
    /// The reservation that it is pinned to.
    pub(crate) pinned: Option<Arc<str>>,
    /// Whether variety is asked for.
    pub(crate) has_min_values: bool,
    left: Arc<Offers>,
}

impl Deref for Set {
    type Target = Offers;

    fn deref(&self) -> &Offers {
        &self.left
    }
}

/// What is known of a set together with something else.
type Known = BTreeMap<(SetId, KeyId, DomainId), Option<SetId>>;

/// All sets met so far.
pub(crate) struct Sets<'a> {
    problem: &'a Problem,
    prices: UnitPrices,
    /// Whether anything is sold out of reservations.
    reserved: bool,
    all: Vec<Set>,
    index: BTreeMap<(usize, Requirements), SetId>,
    /// By set and demand; none where it was never asked.
    joined: Vec<Vec<Option<Option<SetId>>>>,
    narrowed: Known,
    values: BTreeMap<(SetId, KeyId), Arc<BTreeSet<Arc<str>>>>,
    /// DaemonSets whose pods are on every machine of a set.
    running: BTreeMap<(SetId, DaemonId), bool>,
    /// The pools' own sets.
    roots: Vec<SetId>,
}

impl<'a> Sets<'a> {
    pub(crate) fn new(problem: &'a Problem, catalog: &Catalog, prices: UnitPrices) -> Self {
        let mut out = Self {
            problem,
            prices,
            reserved: catalog.pools.iter().any(Pool::has_reserved),
            all: Vec::new(),
            index: BTreeMap::new(),
            joined: Vec::new(),
            narrowed: Known::new(),
            values: BTreeMap::new(),
            running: BTreeMap::new(),
            roots: Vec::new(),
        };
        for (index, pool) in catalog.pools.iter().enumerate() {
            let root = out.intern(catalog, index, pool.view.requirements.clone(), None);
            out.roots.push(root);
        }
        out
    }

    pub(crate) fn get(&self, id: SetId) -> Option<&Set> {
        self.all.get(id)
    }

    /// The set of a claim of this pool that has no pods yet.
    pub(crate) fn root(&self, pool: usize) -> Option<SetId> {
        self.roots.get(pool).copied()
    }

    /// The set of a claim once a pod with the demand joins it; none if it cannot.
    pub(crate) fn join(
        &mut self,
        catalog: &Catalog,
        classes: &Classes,
        set: SetId,
        demand: DemandId,
    ) -> Option<SetId> {
        let known = self.joined.get(set).and_then(|s| s.get(demand));
        if let Some(Some(known)) = known {
            return *known;
        }
        let found = self.join_anew(catalog, classes, set, demand);
        if self.joined.len() <= set {
            self.joined.resize(set + 1, Vec::new());
        }
        if let Some(row) = self.joined.get_mut(set) {
            row.resize(classes.demands().max(demand + 1), None);
            if let Some(slot) = row.get_mut(demand) {
                *slot = Some(found);
            }
        }
        found
    }

    fn join_anew(
        &mut self,
        catalog: &Catalog,
        classes: &Classes,
        set: SetId,
        demand: DemandId,
    ) -> Option<SetId> {
        let base = self.all.get(set)?;
        let demand = classes.demand(demand)?;
        let pool = catalog.pools.get(base.pool)?;
        let taints = &pool.view.taints;
        if first_in_the_way(taints, &demand.tolerations, demand.soft).is_some() {
            return None;
        }
        let beside = demand.beside.as_deref();
        if beside.is_some_and(|own| first_in_the_way(taints, own, true).is_some()) {
            return None;
        }
        let labels = &self.problem.labels;
        if !base
            .requirements
            .is_compatible(&demand.requirements, Undefined::WellKnown(labels))
        {
            return None;
        }
        if demand.requirements.is_empty() {
            return Some(set);
        }
        let mut requirements = base.requirements.clone();
        requirements.add_all(&demand.requirements);
        let id = self.intern(catalog, base.pool, requirements, Some(set));
        (!self.all.get(id)?.is_empty()).then_some(id)
    }

    /// Whether two sets are pinned to the same reservation, or neither to any.
    pub(crate) fn pinned_alike(&self, a: SetId, b: SetId) -> bool {
        let of = |id| self.all.get(id).and_then(|s: &Set| s.pinned.as_ref());
        of(a) == of(b)
    }

    /// The set once it is pinned to a reservation; none if nothing is left.
    pub(crate) fn out_of(
        &mut self,
        catalog: &Catalog,
        set: SetId,
        reservation: &Arc<str>,
    ) -> Option<SetId> {
        let key = self.problem.labels.reservation_id.as_deref()?.into();
        let pinned = self.narrow_anew(catalog, set, &key, reservation)?;
        let (key, kind) = (CAPACITY_TYPE.into(), CAPACITY_RESERVED.into());
        self.narrow_anew(catalog, pinned, &key, &kind)
    }

    /// Whether a DaemonSet's pod will be on every machine of a set.
    pub(crate) fn runs(&mut self, catalog: &Catalog, set: SetId, daemon: &Daemon) -> bool {
        if let Some(known) = self.running.get(&(set, daemon.id)) {
            return *known;
        }
        let found = self.runs_anew(catalog, set, daemon).unwrap_or(false);
        self.running.insert((set, daemon.id), found);
        found
    }

    fn runs_anew(&self, catalog: &Catalog, set: SetId, daemon: &Daemon) -> Option<bool> {
        let base = self.all.get(set)?;
        let own = &base.requirements;
        let labels = &self.problem.labels;
        let asks_no_more = |asked: &Requirements| {
            let mut both = own.clone();
            both.add_all(asked);
            both == *own && own.is_compatible(asked, Undefined::WellKnown(labels))
        };
        let taints = &catalog.pools.get(base.pool)?.view.taints;
        Some(daemon.tolerates(taints) && daemon.asks().any(asks_no_more))
    }

    /// The set with a key pinned to a value; none if nothing is left.
    pub(crate) fn narrow(
        &mut self,
        catalog: &Catalog,
        set: SetId,
        pin: (KeyId, DomainId),
        key: &Arc<str>,
        value: &Arc<str>,
    ) -> Option<SetId> {
        let known = (set, pin.0, pin.1);
        if let Some(found) = self.narrowed.get(&known) {
            return *found;
        }
        let found = self.narrow_anew(catalog, set, key, value);
        self.narrowed.insert(known, found);
        found
    }

    /// The set of machines that do not have a label; none if there are none, or if nobody can tell.
    pub(crate) fn without(
        &mut self,
        catalog: &Catalog,
        set: SetId,
        id: KeyId,
        key: &Arc<str>,
    ) -> Option<SetId> {
        let known = (set, id, NOWHERE);
        if let Some(found) = self.narrowed.get(&known) {
            return *found;
        }
        let found = self.without_anew(catalog, set, key);
        self.narrowed.insert(known, found);
        found
    }

    fn without_anew(&mut self, catalog: &Catalog, set: SetId, key: &Arc<str>) -> Option<SetId> {
        let base = self.all.get(set)?;
        if let Some(asked) = base.requirements.get(key) {
            return asked.is_empty().then_some(set);
        }
        let pool = base.pool;
        if !catalog.pools.get(pool)?.list.keys.contains(key) {
            // Of what nobody says anything about, well-known labels get some value all the same.
            return (!self.problem.labels.is_well_known(key)).then_some(set);
        }
        let mut requirements = base.requirements.clone();
        requirements.add(Requirement::does_not_exist(Arc::clone(key)));
        let id = self.intern(catalog, pool, requirements, Some(set));
        (!self.all.get(id)?.is_empty()).then_some(id)
    }

    fn narrow_anew(
        &mut self,
        catalog: &Catalog,
        set: SetId,
        key: &Arc<str>,
        value: &Arc<str>,
    ) -> Option<SetId> {
        let base = self.all.get(set)?;
        let known = base.requirements.get(key).and_then(|r| r.single());
        if known == Some(value) {
            return Some(set);
        }
        // A label that neither the pool nor what it is sold has comes to no node.
        let pin = Requirement::is_in(key.clone(), [value.as_ref()]);
        let one: Requirements = [pin.clone()].into_iter().collect();
        let labels = &self.problem.labels;
        if !base
            .requirements
            .is_compatible(&one, Undefined::WellKnown(labels))
        {
            return None;
        }
        let (pool, mut requirements) = (base.pool, base.requirements.clone());
        requirements.add(pin);
        let id = self.intern(catalog, pool, requirements, Some(set));
        (!self.all.get(id)?.is_empty()).then_some(id)
    }

    /// Values of `key` that purchases under the set can come to have.
    pub(crate) fn values(
        &mut self,
        catalog: &Catalog,
        set: SetId,
        id: KeyId,
        key: &str,
    ) -> Arc<BTreeSet<Arc<str>>> {
        if let Some(known) = self.values.get(&(set, id)) {
            return Arc::clone(known);
        }
        let found = Arc::new(self.values_anew(catalog, set, key));
        self.values.insert((set, id), Arc::clone(&found));
        found
    }

    fn values_anew(&self, catalog: &Catalog, set: SetId, key: &str) -> BTreeSet<Arc<str>> {
        let mut out = BTreeSet::new();
        let Some(set) = self.all.get(set) else {
            return out;
        };
        let types = catalog.pools.get(set.pool).map_or(&[][..], |p| &**p.types);
        let asked = set.requirements.get(key);
        let mut defined = false;
        let mut any = false;
        let reserved = !set.reservations.is_empty();
        for (at, sold) in types.iter().enumerate() {
            let labels = &self.problem.labels;
            let of_type = &sold.instance_type.requirements;
            let out_of_one = || reserved && of_type.does_intersect(&set.requirements);
            if set.price(at).is_none() && !out_of_one() {
                continue;
            }
            any = true;
            for offering in sold.instance_type.offers(&set.requirements, labels) {
                if let Some(r) = offering.requirements.get(key) {
                    defined = true;
                    out.extend(r.values.iter().cloned());
                }
            }
            if let Some(r) = sold.instance_type.requirements.get(key)
                && !defined
            {
                let fits = |v: &&Arc<str>| asked.is_none_or(|a| a.has(v));
                out.extend(r.values.iter().filter(fits).cloned());
            }
        }
        // A label that only the pool knows; where nothing is sold, whatever it names is no value that a node will have.
        if out.is_empty()
            && any
            && let Some(asked) = asked
            && !asked.complement
        {
            out.extend(asked.values.iter().cloned());
        }
        out
    }

    fn intern(
        &mut self,
        catalog: &Catalog,
        pool: usize,
        requirements: Requirements,
        base: Option<SetId>,
    ) -> SetId {
        let key = (pool, requirements);
        if let Some(id) = self.index.get(&key) {
            return *id;
        }
        let set = self.build(catalog, pool, key.1.clone(), base);
        let id = self.all.len();
        self.all.push(set);
        self.index.insert(key, id);
        id
    }

    /// The set of these requirements. They are stricter than those of `base`, whose types are the only ones in question.
    fn build(
        &mut self,
        catalog: &Catalog,
        pool: usize,
        requirements: Requirements,
        base: Option<SetId>,
    ) -> Set {
        let rated = (self.prices, self.problem.options.node_cost);
        let left = catalog.pools.get(pool).map(|pool| {
            let deciding = pool.list.deciding(&requirements);
            let find = || self.offered(&pool.types.left.wares, &requirements, base);
            let offered = pool.types.left.offered(&deciding, find);
            catalog.stock.lock().offers(&pool.types, offered, rated)
        });
        Set {
            pool,
            pinned: reserved::pinned(&self.problem.labels, &requirements),
            has_min_values: requirements.has_min_values(),
            left: left.unwrap_or_default(),
            requirements,
        }
    }

    /// What requirements leave of wares.
    fn offered(
        &self,
        wares: &[Arc<Ware>],
        requirements: &Requirements,
        base: Option<SetId>,
    ) -> Offered {
        // Types that can be had out of reservations only are no offers of the base.
        let reserved = self.problem.labels.reservation_id.is_some() && self.reserved;
        let base = base.and_then(|b| self.all.get(b)).filter(|_| !reserved);
        // What the base states itself has been looked at, and what the pool states by the catalogue.
        let news: Requirements = requirements
            .iter()
            .filter(|r| reserved || base.is_some_and(|b| b.requirements.get(&r.key) != Some(*r)))
            .cloned()
            .collect();
        let labels = &self.problem.labels;
        let pinned = reserved::pinned(labels, requirements);
        let mut reservations = BTreeSet::new();
        if reserved && pinned.is_none() {
            let intersecting = wares.iter();
            for ware in
                intersecting.filter(|w| w.instance_type.requirements.does_intersect(requirements))
            {
                let all = ware.suiting(requirements, labels);
                reservations.extend(all.filter_map(|(_, o)| o.reservation(labels).cloned()));
            }
        }
        let offer = |at: usize| {
            let ware = wares.get(at)?;
            if !ware.instance_type.requirements.does_intersect(&news) {
                return None;
            }
            let (offering, cheapest) = ware.cheapest(requirements, labels)?;
            Offer::new(at, offering, cheapest.price)
        };
        let offers = match base {
            Some(base) => base.offers.iter().filter_map(|o| offer(o.at())).collect(),
            None => (0..wares.len()).filter_map(offer).collect(),
        };
        Offered::new(wares, offers, reservations)
    }
}
