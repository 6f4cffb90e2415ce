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

/// Whether every Balanced pool that the command touches approves of it.
pub(super) fn approves(snapshot: &Snapshot, command: &Command) -> bool {
    let mut pools: BTreeMap<&Arc<str>, Vec<&Candidate>> = BTreeMap::new();
    for candidate in &command.candidates {
        pools
            .entry(&candidate.pool_name)
            .or_default()
            .push(candidate);
    }
    let all: f64 = command.candidates.iter().map(|c| c.price).sum();
    pools.into_iter().all(|(name, candidates)| {
        let policy = candidates
            .first()
            .and_then(|c| c.pool.spec.disruption.consolidation_policy.as_deref());
        if policy != Some(BALANCED) {
            return true;
        }
        let price: f64 = candidates.iter().map(|c| c.price).sum();
        let share = if all > 0.0 { price / all } else { 0.0 };
        let disruption = candidates.iter().map(|c| c.reschedule_cost - 1.0).sum();
        let moved = Totals {
            cost: command.savings() * share,
            disruption,
        };
        score(moved, totals(snapshot, name)) >= LEAST_SCORE
    })
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
        let price = types
            .get(value(labels::INSTANCE_TYPE))
            .and_then(|t| t.offering(value(labels::ZONE), value(labels::CAPACITY_TYPE)))
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
