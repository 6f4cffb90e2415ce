//! Emptiness: nodes on which nothing runs that would have to move, given back together as far as budgets allow
//! (`lifecycle-and-disruption.md` §6.6).

use karpenter_api::NodePool;

use super::allowance::Allowance;
use super::candidate::{Candidate, Refusal, node_name};
use super::method::{Class, Command, Method, Proposal, Reason, Rejection};
use super::snapshot::Snapshot;
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
        goes_once_quiet(candidate)?;
        if is_quiet(candidate) {
            Ok(())
        } else {
            Err(Refusal::Silent)
        }
    }

    fn choose(
        &self,
        _snapshot: &Snapshot,
        candidates: Vec<Candidate>,
        budgets: &mut Allowance,
        _proposal: &mut Proposal,
    ) -> Vec<Command> {
        let candidates = within(candidates, budgets);
        if candidates.is_empty() {
            return Vec::new();
        }
        vec![Command {
            reason: self.reason(),
            consolidation_type: self.consolidation_type(),
            candidates,
            replacements: Vec::new(),
        }]
    }

    /// What is empty no longer stays, the rest goes.
    fn reconsider(
        &self,
        _snapshot: &Snapshot,
        command: &Command,
        still: Vec<Candidate>,
        budgets: &mut Allowance,
    ) -> Result<Command, Rejection> {
        if still.is_empty() {
            return Err(Rejection::Churn);
        }
        let candidates = within(still, budgets);
        if candidates.is_empty() {
            return Err(Rejection::Budget);
        }
        Ok(Command {
            candidates,
            ..command.clone()
        })
    }
}

/// Whether a node is given back as empty, as soon as its pool's `consolidateAfter` is over.
pub(super) fn goes_once_quiet(candidate: &Candidate) -> Result<(), Refusal> {
    if candidate.pool.spec.replicas.is_some() {
        return Err(Refusal::Silent);
    }
    if never_consolidates(&candidate.pool) {
        return Err(Refusal::Unconsolidatable(format!(
            "NodePool {:?} has consolidation disabled",
            &*candidate.pool_name
        )));
    }
    if candidate.has_no_pods() && candidate.buffer_pods > 0 {
        return Err(Refusal::Unconsolidatable(format!(
            "Node {:?} has buffer pods",
            node_name(candidate)
        )));
    }
    if candidate.is_empty() {
        Ok(())
    } else {
        Err(Refusal::Silent)
    }
}

/// Whether no pod has come to a node or gone for as long as its pool says.
pub(super) fn is_quiet(candidate: &Candidate) -> bool {
    is_true(
        &candidate.claim.status.conditions,
        conditions::CONSOLIDATABLE,
    )
}

/// The candidates that budgets allow, those that save most first.
pub(super) fn within(mut candidates: Vec<Candidate>, budgets: &mut Allowance) -> Vec<Candidate> {
    best_first(&mut candidates);
    candidates.retain(|c| budgets.take(&c.pool_name));
    candidates
}

/// Most saved per pod moved first; names break ties, so that one cluster always yields one command.
pub(super) fn best_first(candidates: &mut [Candidate]) {
    candidates.sort_by(|a, b| {
        b.savings_ratio()
            .total_cmp(&a.savings_ratio())
            .then_with(|| a.name.cmp(&b.name))
    });
}

/// Whether the pool's nodes are never to be consolidated.
pub(super) fn never_consolidates(pool: &NodePool) -> bool {
    duration::parse_hms(&pool.spec.disruption.consolidate_after).is_err()
}
