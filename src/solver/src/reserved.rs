//! Units of reservations: how many machines may still be bought out of each, over all pools of the plan. A machine that is
//! bought out of one is pinned to it, so that it takes one unit and keeps none from anybody else; what does not get one is
//! bought at once as it would be without reservations, and not a run later.

use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_api::labels::{CAPACITY_RESERVED, CAPACITY_TYPE};
use karpenter_model::{LabelRegistry, Offering, Problem, Requirement, Requirements};

use crate::buy::Buyer;
use crate::catalog::Catalog;
use crate::choose::Candidate;
use crate::cluster::Cluster;
use crate::rooms::Bits;
use crate::sets::SetId;

/// Units left, by reservation.
#[derive(Debug, Default)]
pub(crate) struct Units {
    left: BTreeMap<Arc<str>, u32>,
}

impl Units {
    /// What offerings have left (the least of what they say), without what claims that are not launched yet will take.
    pub(crate) fn new(
        problem: &Problem,
        catalog: &Catalog,
        cluster: &Cluster,
        gone: &Bits,
    ) -> Self {
        let mut left: BTreeMap<Arc<str>, u32> = BTreeMap::new();
        let labels = &problem.labels;
        let Some(key) = labels.reservation_id.as_deref() else {
            return Self::default();
        };
        if !problem.options.reserved_capacity {
            return Self::default();
        }
        for (id, units) in catalog.pools.iter().flat_map(|p| p.list.units(labels)) {
            let least = left.entry(id.clone()).or_insert(u32::MAX);
            *least = (*least).min(*units);
        }
        if left.is_empty() {
            return Self::default();
        }
        for node in cluster.left(gone) {
            let reserved = node
                .labels
                .get(CAPACITY_TYPE)
                .is_some_and(|t| t == CAPACITY_RESERVED);
            let under_way = node.managed && node.provider_id.is_empty() && reserved;
            if let Some(units) = node.labels.get(key).and_then(|id| left.get_mut(&**id))
                && under_way
            {
                *units = units.saturating_sub(1);
            }
        }
        Self { left }
    }

    /// Whether a machine may still be bought out of `id`.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.left.get(id).is_some_and(|n| *n > 0)
    }
    /// Whether there is any unit at all.
    pub(crate) fn any(&self) -> bool {
        self.left.values().any(|n| *n > 0)
    }
    /// A machine was bought out of `id`.
    pub(crate) fn take(&mut self, id: &str) {
        if let Some(left) = self.left.get_mut(id) {
            *left = left.saturating_sub(1);
        }
    }
    /// A machine out of `id` is not bought after all.
    pub(crate) fn give_back(&mut self, id: &str) {
        if let Some(left) = self.left.get_mut(id) {
            *left = left.saturating_add(1);
        }
    }
}

/// The reservation that all machines under `requirements` are bought out of.
pub(crate) fn pinned(labels: &LabelRegistry, requirements: &Requirements) -> Option<Arc<str>> {
    let single = |key| requirements.get(key).and_then(Requirement::single);
    let reserved = single(CAPACITY_TYPE).is_some_and(|t| &**t == CAPACITY_RESERVED);
    let id = single(labels.reservation_id.as_deref()?)?;
    reserved.then(|| id.clone())
}

/// Whether a reserved offering can be planned with: one that does not say which reservation it is out of cannot be counted.
pub(crate) fn may_be_had(problem: &Problem, offering: &Offering) -> bool {
    problem.options.reserved_capacity && offering.reservation(&problem.labels).is_some()
}

impl Buyer<'_, '_> {
    /// The best purchase in one pool: out of a reservation while there is one, as it is paid for already.
    pub(crate) fn of_pool(
        &mut self,
        index: usize,
        id: SetId,
        sharers: &[(usize, usize, usize)],
    ) -> Option<Candidate> {
        let mut best: Option<Candidate> = None;
        if self.units.any() {
            let ids = self.sets.get(id).map(|s| s.reservations.clone());
            for reservation in ids.unwrap_or_default() {
                let pinned = self.sets.out_of(self.catalog, id, &reservation);
                let candidate = pinned.and_then(|set| self.in_pool(index, set, sharers));
                if let Some(candidate) = candidate
                    && best.as_ref().is_none_or(|b| candidate.score < b.score)
                {
                    best = Some(candidate);
                }
            }
        }
        best.or_else(|| self.in_pool(index, id, sharers))
    }
}
