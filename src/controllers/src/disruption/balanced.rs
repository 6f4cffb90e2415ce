//! `consolidationPolicy: Balanced` (`lifecycle-and-disruption.md` §6.6): a move has to save a share of its pool's cost
//! that is worth the share of the pool's pods it disturbs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::candidate::Candidate;
use super::method::Command;
use super::snapshot::Snapshot;
use crate::lifecycle::objects::label;
use karpenter_api::labels;

/// The policy's name.
const BALANCED: &str = "Balanced";
/// Least score of a move that is made: 1/k with k = 2.
const LEAST_SCORE: f64 = 0.5;

/// What all nodes of a pool come to.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    cost: f64,
    disruption: f64,
}

/// Policy of pools that name none.
pub(super) const DEFAULT_POLICY: &str = "WhenEmptyOrUnderutilized";
/// How much disruption a pool accepts for its savings: k.
const TOLERANCE: f64 = 1.0 / LEAST_SCORE;

/// What a pool makes of a move.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) pool: Arc<str>,
    /// Its `consolidationPolicy`.
    pub(crate) policy: Arc<str>,
    /// Its nodes in the move, by claim.
    pub(crate) members: Vec<Arc<str>>,
    /// Whether the move is made: every Balanced pool in it has to approve.
    pub(crate) approved: bool,
    /// Of a Balanced pool.
    pub(crate) score: Option<Score>,
}

/// How a Balanced pool weighs a move.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Score {
    pub(crate) value: f64,
    /// Share of the pool's cost that is saved.
    savings: f64,
    /// Share of the pool's disruption that is caused.
    disruption: f64,
}

impl Verdict {
    /// The score in words; none unless the pool is a Balanced one.
    pub(crate) fn words(&self) -> Option<String> {
        let score = self.score?;
        Some(format!(
            "consolidation score {:.2}, threshold {LEAST_SCORE:.2} (k={TOLERANCE}), savings {:.1}% of the NodePool's cost, disruption {:.1}% of its pods",
            score.value,
            score.savings * 100.0,
            score.disruption * 100.0
        ))
    }
}

/// Whether the move that these are about is made.
pub(super) fn approve(verdicts: &[Verdict]) -> bool {
    verdicts.iter().all(|v| v.approved)
}

/// What every pool that the command touches makes of it.
pub(super) fn judge(snapshot: &Snapshot, command: &Command) -> Vec<Verdict> {
    let mut pools: BTreeMap<&Arc<str>, Vec<&Candidate>> = BTreeMap::new();
    for candidate in &command.candidates {
        pools
            .entry(&candidate.pool_name)
            .or_default()
            .push(candidate);
    }
    let all: f64 = command.candidates.iter().map(|c| c.price).sum();
    let judge = |(name, candidates): (&Arc<str>, Vec<&Candidate>)| {
        let policy = candidates
            .first()
            .and_then(|c| c.pool.spec.disruption.consolidation_policy.as_deref());
        let verdict = |score| Verdict {
            pool: name.clone(),
            policy: policy.unwrap_or(DEFAULT_POLICY).into(),
            members: candidates.iter().map(|c| c.name.clone()).collect(),
            approved: true,
            score,
        };
        if policy != Some(BALANCED) {
            return verdict(None);
        }
        let price: f64 = candidates.iter().map(|c| c.price).sum();
        let share = if all > 0.0 { price / all } else { 0.0 };
        let disruption = candidates.iter().map(|c| c.reschedule_cost - 1.0).sum();
        let moved = Totals {
            cost: command.savings() * share,
            disruption,
        };
        verdict(Some(weigh(moved, totals(snapshot, name))))
    };
    let mut verdicts: Vec<Verdict> = pools.into_iter().map(judge).collect();
    let mut scores = verdicts.iter().filter_map(|v| v.score);
    let approved = scores.all(|s| s.value >= LEAST_SCORE);
    for verdict in &mut verdicts {
        verdict.approved = approved;
    }
    verdicts
}

fn weigh(moved: Totals, pool: Totals) -> Score {
    let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    Score {
        value: score(moved, pool),
        savings: share(moved.cost, pool.cost),
        disruption: share(moved.disruption, pool.disruption),
    }
}

/// Share of cost saved per share of disruption caused.
fn score(moved: Totals, pool: Totals) -> f64 {
    if moved.cost <= 0.0 || pool.cost <= 0.0 {
        return 0.0;
    }
    if moved.disruption <= 0.0 {
        return f64::INFINITY;
    }
    if pool.disruption <= 0.0 {
        return 0.0;
    }
    (moved.cost / pool.cost) / (moved.disruption / pool.disruption)
}

/// Dollars per hour of all nodes of a pool.
pub(super) fn cost(snapshot: &Snapshot, pool: &str) -> f64 {
    totals(snapshot, pool).cost
}

fn totals(snapshot: &Snapshot, pool: &str) -> Totals {
    let mut totals = Totals::default();
    let Some(types) = snapshot.pools.get(pool).map(|p| &p.types) else {
        return totals;
    };
    for member in &snapshot.members {
        if label(&member.claim.metadata, labels::NODEPOOL) != Some(pool) {
            continue;
        }
        let Some(node) = &member.node else {
            continue;
        };
        let value = |key| label(&node.metadata, key).unwrap_or_default();
        let none = BTreeMap::new();
        let bought_as = node.metadata.labels.as_ref().unwrap_or(&none);
        let price = types
            .get(value(labels::INSTANCE_TYPE))
            .and_then(|t| t.offering_of(bought_as, &snapshot.ground.labels))
            .map_or(0.0, |o| o.price);
        if price.is_finite() {
            totals.cost += price;
        }
        totals.disruption += member
            .pods
            .iter()
            .filter(|p| p.is_reschedulable())
            .map(|p| p.eviction_cost().max(0.0))
            .sum::<f64>();
    }
    totals
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    // A tenth of the cost for a tenth of the pods: one for one.
    #[case::fair((1.0, 2.0), (10.0, 20.0), 1.0)]
    #[case::marginal((0.5, 2.0), (10.0, 20.0), 0.5)]
    #[case::dear_to_pods((0.1, 2.0), (10.0, 20.0), 0.1)]
    #[case::nothing_saved((0.0, 2.0), (10.0, 20.0), 0.0)]
    #[case::nothing_disturbed((1.0, 0.0), (10.0, 20.0), f64::INFINITY)]
    #[case::pool_without_price((1.0, 1.0), (0.0, 20.0), 0.0)]
    fn savings_are_weighed_against_disruption(
        #[case] moved: (f64, f64),
        #[case] pool: (f64, f64),
        #[case] want: f64,
    ) {
        let of = |(cost, disruption)| Totals { cost, disruption };
        let got = score(of(moved), of(pool));
        assert!(got == want || (got - want).abs() < 1e-9, "{got}");
    }
}
