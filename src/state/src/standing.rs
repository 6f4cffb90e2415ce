//! How a pool's claims stand, and places kept for claims that are being created: what static NodePools are held at
//! their size by, and within their limit of nodes (`scheduling.md` §5, NodePoolState).

use std::sync::Arc;

use karpenter_api::{NodeClaim, labels};

use crate::Store;
use crate::cluster::Cluster;
use crate::leaving::claim_is_leaving;

/// What is to become of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It stays.
    Active,
    /// It is to go once what replaces it is ready; its object does not say so yet.
    PendingDisruption,
    /// It goes, or has gone.
    Deleting,
}

/// A pool's claims by their standing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolCount {
    /// Those that stay.
    pub active: usize,
    /// Those that wait for their replacement.
    pub pending_disruption: usize,
    /// Those that go.
    pub deleting: usize,
    /// Places kept for claims that are being created.
    pub reserved: usize,
}

impl PoolCount {
    /// What counts against a limit of nodes: every claim there is or is about to be.
    #[must_use]
    pub fn all(self) -> usize {
        self.active + self.pending_disruption + self.deleting + self.reserved
    }
    /// Claims that hold the pool at its size.
    #[must_use]
    pub fn holding(self) -> usize {
        self.active + self.pending_disruption
    }
    /// How many more claims `limit` leaves room for.
    #[must_use]
    pub fn room(self, limit: Option<u64>) -> usize {
        limit.map_or(usize::MAX, |limit| {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            limit.saturating_sub(self.all())
        })
    }
}

/// A place for one claim of a pool, kept until this is dropped: when the claim is in the state, or will never be.
#[derive(Debug)]
pub struct Reservation {
    store: Arc<Store>,
    pool: Arc<str>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.store.with_cluster(|c| c.release(&self.pool));
    }
}

/// Name of the pool that a claim is of.
pub(crate) fn pool_of(claim: &NodeClaim) -> Option<&str> {
    let all = claim.metadata.labels.as_ref()?;
    all.get(labels::NODEPOOL).map(String::as_str)
}

impl Cluster {
    pub(crate) fn standing(&self, name: &str) -> Standing {
        match self.claims.get(name) {
            None => Standing::Deleting,
            Some(claim) if claim_is_leaving(claim) => Standing::Deleting,
            Some(_) if self.is_marked(name) || self.pending_disruption.contains(name) => {
                Standing::PendingDisruption
            }
            Some(_) => Standing::Active,
        }
    }

    pub(crate) fn count_claims(&self, pool: &str) -> PoolCount {
        let mut count = PoolCount {
            reserved: self.reserved.get(pool).copied().unwrap_or(0),
            ..PoolCount::default()
        };
        for name in self.claims_by_pool.get(pool).into_iter().flatten() {
            match self.standing(name) {
                Standing::Active => count.active += 1,
                Standing::PendingDisruption => count.pending_disruption += 1,
                Standing::Deleting => count.deleting += 1,
            }
        }
        count
    }

    fn reserve(&mut self, pool: &Arc<str>, limit: Option<u64>) -> bool {
        let room = self.count_claims(pool).room(limit) > 0;
        if room {
            *self.reserved.entry(pool.clone()).or_default() += 1;
        }
        room
    }

    fn release(&mut self, pool: &str) {
        if let Some(held) = self.reserved.get_mut(pool) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.reserved.remove(pool);
            }
        }
    }
}

impl Store {
    /// How the pool's claims stand.
    #[must_use]
    pub fn count_claims(&self, pool: &str) -> PoolCount {
        self.read_cluster(|c| c.count_claims(pool))
    }
    /// The pool's claims that stay, in name order.
    #[must_use]
    pub fn active_claims(&self, pool: &str) -> Vec<Arc<NodeClaim>> {
        self.read_cluster(|c| {
            let names = c.claims_by_pool.get(pool).into_iter().flatten();
            names
                .filter(|n| c.standing(n) == Standing::Active)
                .filter_map(|n| c.claims.get(n).cloned())
                .collect()
        })
    }
    /// Keeps a place for one more claim of `pool`, if `limit` leaves one. Looking and keeping are one step, so that
    /// any number of callers together stay within the limit.
    #[must_use]
    pub fn reserve_node(self: &Arc<Self>, pool: &str, limit: Option<u64>) -> Option<Reservation> {
        let pool: Arc<str> = pool.into();
        self.with_cluster(|c| c.reserve(&pool, limit))
            .then(|| Reservation {
                store: self.clone(),
                pool,
            })
    }
    /// Notes that a claim is to go once its replacement, which is about to be created, is ready. Until then it runs
    /// on, and its pods are not planned for.
    pub fn expect_disruption(&self, claim: &str) {
        self.change(|c| c.set_pending_disruption(claim, true));
    }
    /// Takes that back.
    pub fn unexpect_disruption(&self, claim: &str) {
        self.change(|c| c.set_pending_disruption(claim, false));
    }
}
