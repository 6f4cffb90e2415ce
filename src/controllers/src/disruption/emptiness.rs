//! Emptiness: nodes on which nothing runs that would have to move, given back together as far as budgets allow
//! (`lifecycle-and-disruption.md` §6.6).

use karpenter_api::NodePool;

use super::allowance::Allowance;
use super::candidate::{Candidate, Refusal, node_name};
use super::method::{Class, Command, Method, Reason};
use crate::lifecycle::objects::{conditions, is_true};
use karpenter_api::duration;

/// The method.
pub(crate) struct Emptiness;

impl Method for Emptiness {
    fn reason(&self) -> Reason {
        Reason::Empty
    }
    fn class(&self) -> Class {
        Class::Graceful
    }
    fn consolidation_type(&self) -> &'static str {
        "empty"
    }

    fn filter(&self, candidate: &Candidate) -> Result<(), Refusal> {
        if candidate.pool.spec.replicas.is_some() {
            return Err(Refusal::Silent);
        }
        if never_consolidates(&candidate.pool) {
            return Err(Refusal::Unconsolidatable(format!(
                "NodePool {:?} has consolidation disabled",
                &*candidate.pool_name
            )));
        }
        if candidate.pods.iter().any(|p| p.is_virtual()) {
            return Err(Refusal::Unconsolidatable(format!(
                "Node {:?} has buffer pods",
                node_name(candidate)
            )));
        }
        let quiet = is_true(
            &candidate.claim.status.conditions,
            conditions::CONSOLIDATABLE,
        );
        if candidate.is_empty() && quiet {
            Ok(())
        } else {
            Err(Refusal::Silent)
        }
    }

    fn choose(&self, mut candidates: Vec<Candidate>, budgets: &mut Allowance) -> Vec<Command> {
        // Names break ties, so that one cluster always yields one command.
        candidates.sort_by(|a, b| {
            b.savings_ratio()
                .total_cmp(&a.savings_ratio())
                .then_with(|| a.name.cmp(&b.name))
        });
        candidates.retain(|c| budgets.take(&c.pool_name));
        if candidates.is_empty() {
            return Vec::new();
        }
        vec![Command {
            reason: self.reason(),
            consolidation_type: self.consolidation_type(),
            candidates,
        }]
    }
}

/// Whether the pool's nodes are never to be consolidated.
fn never_consolidates(pool: &NodePool) -> bool {
    duration::parse_hms(&pool.spec.disruption.consolidate_after).is_err()
}
