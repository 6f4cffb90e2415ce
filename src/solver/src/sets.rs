//! Requirement sets that claims can have, each computed once: which types of the pool it leaves, at what price, and
//! what becomes of it when a pod's demands are added. Claims with equal requirements share one set.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_model::taints::first_untolerated;
use karpenter_model::{Problem, Requirement, Requirements, Undefined};

use crate::catalog::Catalog;
use crate::class::Classes;

/// Which set.
pub(crate) type SetId = usize;

/// A type that a set leaves, at its cheapest offering.
#[derive(Debug)]
pub(crate) struct Offered {
    /// Position among the pool's types.
    pub(crate) at: usize,
    /// Dollars per hour.
    pub(crate) price: f64,
    pub(crate) zone: Arc<str>,
    pub(crate) capacity_type: Arc<str>,
    /// All capacity types it can be had under.
    pub(crate) capacity_types: Vec<Arc<str>>,
}

/// Requirements in a pool.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) pool: usize,
    pub(crate) requirements: Requirements,
    /// Cheapest first, ties by name. Limits are not considered.
    pub(crate) offers: Vec<Offered>,
    /// Price by position among the pool's types; none where the type is not left.
    prices: Vec<Option<f64>>,
    /// Whether variety is asked for.
    pub(crate) has_min_values: bool,
}

impl Set {
    /// What the type costs under these requirements, if it can be had.
    pub(crate) fn price(&self, at: usize) -> Option<f64> {
        self.prices.get(at).copied().flatten()
    }
}

/// All sets met so far.
pub(crate) struct Sets<'a> {
    problem: &'a Problem,
    all: Vec<Set>,
    index: BTreeMap<(usize, Requirements), SetId>,
    /// By set, class and attempt.
    joined: BTreeMap<(SetId, usize, usize), Option<SetId>>,
    /// The pools' own sets.
    roots: Vec<SetId>,
}

impl<'a> Sets<'a> {
    pub(crate) fn new(problem: &'a Problem, catalog: &Catalog) -> Self {
        let mut out = Self {
            problem,
            all: Vec::new(),
            index: BTreeMap::new(),
            joined: BTreeMap::new(),
            roots: Vec::new(),
        };
        for (index, pool) in catalog.pools.iter().enumerate() {
            let root = out.intern(catalog, index, pool.view.requirements.clone());
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

    /// The set of a claim once a pod of the class joins it; none if it cannot.
    pub(crate) fn join(
        &mut self,
        catalog: &Catalog,
        classes: &Classes,
        set: SetId,
        class: usize,
        attempt: usize,
    ) -> Option<SetId> {
        if let Some(known) = self.joined.get(&(set, class, attempt)) {
            return *known;
        }
        let found = self.join_anew(catalog, classes, set, class, attempt);
        self.joined.insert((set, class, attempt), found);
        found
    }

    fn join_anew(
        &mut self,
        catalog: &Catalog,
        classes: &Classes,
        set: SetId,
        class: usize,
        attempt: usize,
    ) -> Option<SetId> {
        let base = self.all.get(set)?;
        let class = classes.get(class)?;
        let attempt = class.attempts.get(attempt)?;
        let pool = catalog.pools.get(base.pool)?;
        let taints = pool
            .view
            .taints
            .iter()
            .filter(|t| !(attempt.soft && t.effect == "PreferNoSchedule"));
        if first_untolerated(taints, &class.tolerations).is_some() {
            return None;
        }
        let labels = &self.problem.labels;
        if !base
            .requirements
            .is_compatible(&attempt.requirements, Undefined::WellKnown(labels))
        {
            return None;
        }
        if attempt.requirements.is_empty() {
            return Some(set);
        }
        let mut requirements = base.requirements.clone();
        requirements.add_all(&attempt.requirements);
        let id = self.intern(catalog, base.pool, requirements);
        (!self.all.get(id)?.offers.is_empty()).then_some(id)
    }

    /// The set with `key` pinned to a value; none if nothing is left.
    pub(crate) fn narrow(
        &mut self,
        catalog: &Catalog,
        set: SetId,
        key: &str,
        value: &str,
    ) -> Option<SetId> {
        let base = self.all.get(set)?;
        let known = base.requirements.get(key).and_then(|r| r.single());
        if known.is_some_and(|v| &**v == value) {
            return Some(set);
        }
        if !base.requirements.allows(key, value) {
            return None;
        }
        let (pool, mut requirements) = (base.pool, base.requirements.clone());
        requirements.add(Requirement::is_in(key, [value]));
        let id = self.intern(catalog, pool, requirements);
        (!self.all.get(id)?.offers.is_empty()).then_some(id)
    }

    /// Values of `key` that purchases under the set can come to have.
    pub(crate) fn values(&self, catalog: &Catalog, set: SetId, key: &str) -> BTreeSet<Arc<str>> {
        let mut out = BTreeSet::new();
        let Some(set) = self.all.get(set) else {
            return out;
        };
        let types = catalog.pools.get(set.pool).map_or(&[][..], |p| &p.types);
        let asked = set.requirements.get(key);
        let mut defined = false;
        for sold in set.offers.iter().filter_map(|o| types.get(o.at)) {
            let labels = &self.problem.labels;
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
        if out.is_empty()
            && let Some(asked) = asked
            && !asked.complement
        {
            out.extend(asked.values.iter().cloned());
        }
        out
    }

    fn intern(&mut self, catalog: &Catalog, pool: usize, requirements: Requirements) -> SetId {
        let key = (pool, requirements);
        if let Some(id) = self.index.get(&key) {
            return *id;
        }
        let set = self.build(catalog, pool, key.1.clone());
        let id = self.all.len();
        self.all.push(set);
        self.index.insert(key, id);
        id
    }

    fn build(&self, catalog: &Catalog, pool: usize, requirements: Requirements) -> Set {
        let types = catalog.pools.get(pool).map_or(&[][..], |p| &p.types);
        let mut offers: Vec<(Arc<str>, Offered)> = Vec::new();
        let mut prices = vec![None; types.len()];
        for (at, sold) in types.iter().enumerate() {
            let t = &sold.instance_type;
            if !t.requirements.does_intersect(&requirements) {
                continue;
            }
            let labels = &self.problem.labels;
            let Some(cheapest) = t.cheapest(&requirements, labels) else {
                continue;
            };
            let mut capacity_types: Vec<Arc<str>> = t
                .offers(&requirements, labels)
                .map(|o| Arc::from(o.capacity_type()))
                .collect();
            capacity_types.sort();
            capacity_types.dedup();
            if let Some(slot) = prices.get_mut(at) {
                *slot = Some(cheapest.price);
            }
            let offered = Offered {
                at,
                price: cheapest.price,
                zone: cheapest.zone().into(),
                capacity_type: cheapest.capacity_type().into(),
                capacity_types,
            };
            offers.push((Arc::clone(&t.name), offered));
        }
        offers.sort_by(|(a, x), (b, y)| x.price.total_cmp(&y.price).then_with(|| a.cmp(b)));
        Set {
            pool,
            has_min_values: requirements.has_min_values(),
            requirements,
            offers: offers.into_iter().map(|(_, o)| o).collect(),
            prices,
        }
    }
}
