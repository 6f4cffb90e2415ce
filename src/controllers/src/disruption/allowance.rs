//! How many nodes of each pool a method may still disrupt (`lifecycle-and-disruption.md` §6.4).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use karpenter_api::budget::Budgets;
use karpenter_api::{NodePool, labels};

use super::method::Reason;
use super::snapshot::{Member, Snapshot};
use crate::lifecycle::objects::{conditions, is_ready, is_true, label};

/// What budgets leave of one pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PoolAllowance {
    /// Nodes the pool's budgets count.
    pub(crate) total: usize,
    /// Those of them that are unavailable already.
    pub(crate) disrupting: usize,
    /// What the budgets allow in all.
    pub(crate) allowed: usize,
    /// What is left of it.
    pub(crate) left: usize,
    /// Whether a candidate was turned away.
    pub(crate) refused: bool,
}

/// What budgets leave of all pools.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allowance {
    pools: BTreeMap<Arc<str>, PoolAllowance>,
}

impl Allowance {
    /// For one reason, at `now`.
    pub(crate) fn new(snapshot: &Snapshot, reason: Reason, now: Timestamp) -> Self {
        let mut pools: BTreeMap<Arc<str>, PoolAllowance> = BTreeMap::new();
        for name in snapshot.pools.keys() {
            pools.insert(name.clone(), PoolAllowance::default());
        }
        for member in &snapshot.members {
            let Some(pool) = label(&member.claim.metadata, labels::NODEPOOL) else {
                continue;
            };
            if let Some(counts) = pools.get_mut(pool)
                && counts_towards_total(member)
            {
                counts.total += 1;
                counts.disrupting += usize::from(is_unavailable(member));
            }
        }
        for (name, counts) in &mut pools {
            if let Some(pool) = snapshot.pools.get(name) {
                counts.allowed = allowed(&pool.pool, reason, counts.total, now);
                counts.left = counts.allowed.saturating_sub(counts.disrupting);
            }
        }
        Self { pools }
    }

    /// Takes one node of the pool, if any are left.
    pub(crate) fn take(&mut self, pool: &str) -> bool {
        let Some(counts) = self.pools.get_mut(pool) else {
            return false;
        };
        match counts.left.checked_sub(1) {
            Some(left) => {
                counts.left = left;
                true
            }
            None => {
                counts.refused = true;
                false
            }
        }
    }

    /// Gives one back that was taken and is not disrupted after all.
    pub(crate) fn put_back(&mut self, pool: &str) {
        if let Some(counts) = self.pools.get_mut(pool) {
            counts.left += 1;
        }
    }
    /// Pools with nodes of which none may be disrupted.
    pub(crate) fn blocked(&self) -> BTreeSet<Arc<str>> {
        self.pools
            .iter()
            .filter(|(_, c)| c.allowed == 0 && c.total > 0)
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// When a budget's window next opens or closes of a pool that turned a candidate away.
    pub(crate) fn next_change(&self, snapshot: &Snapshot, now: Timestamp) -> Option<Timestamp> {
        self.pools
            .iter()
            .filter(|(_, c)| c.refused)
            .filter_map(|(name, _)| next_change(&snapshot.pools.get(name)?.pool, now))
            .min()
    }

    /// All pools, for metrics.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &PoolAllowance)> {
        self.pools.iter()
    }
}

fn counts_towards_total(member: &Member) -> bool {
    let all = &member.claim.status.conditions;
    is_true(all, conditions::INITIALIZED) && !is_true(all, conditions::INSTANCE_TERMINATING)
}

fn is_unavailable(member: &Member) -> bool {
    member.leaving || !member.node.as_ref().is_some_and(|n| is_ready(n))
}

fn allowed(pool: &NodePool, reason: Reason, total: usize, now: Timestamp) -> usize {
    Budgets::of(&pool.spec.disruption).allowed(reason.as_str(), total, now)
}

fn next_change(pool: &NodePool, now: Timestamp) -> Option<Timestamp> {
    Budgets::of(&pool.spec.disruption).next_transition(now)
}
