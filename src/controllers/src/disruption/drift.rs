//! Drift: machines that are not what is asked for now make room for ones that are, one at a time, the longest drifted
//! first (`lifecycle-and-disruption.md` §6.6). Prices play no part.

use super::allowance::Allowance;
use super::candidate::{Candidate, Refusal};
use super::ground::{Limits, Terms, sentence};
use super::method::{Class, Command, Method, Proposal, Reason, Rejection, all_still};
use super::snapshot::Snapshot;
use crate::lifecycle::objects::{condition, conditions, is_true};

/// The method.
pub(crate) struct Drift;

impl Method for Drift {
    fn reason(&self) -> Reason {
        Reason::Drifted
    }
    fn class(&self) -> Class {
        Class::Eventual
    }
    fn consolidation_type(&self) -> &'static str {
        ""
    }
    fn waits(&self) -> bool {
        false
    }

    fn filter(&self, candidate: &Candidate) -> Result<(), Refusal> {
        let drifted = is_true(&candidate.claim.status.conditions, conditions::DRIFTED);
        if drifted && candidate.pool.spec.replicas.is_none() {
            Ok(())
        } else {
            Err(Refusal::Silent)
        }
    }

    fn choose(
        &self,
        snapshot: &Snapshot,
        mut candidates: Vec<Candidate>,
        budgets: &mut Allowance,
        proposal: &mut Proposal,
    ) -> Vec<Command> {
        longest_drifted_first(&mut candidates);
        for candidate in candidates {
            if !budgets.take(&candidate.pool_name) {
                continue;
            }
            let pool = candidate.pool_name.clone();
            match self.command(snapshot, candidate) {
                Ok(command) => return vec![command],
                Err(refused) => {
                    // The next one of the pool may do what this one cannot.
                    budgets.put_back(&pool);
                    proposal.refusals.push(refused);
                }
            }
        }
        Vec::new()
    }

    fn reconsider(
        &self,
        snapshot: &Snapshot,
        command: &Command,
        still: Vec<Candidate>,
        budgets: &mut Allowance,
    ) -> Result<Command, Rejection> {
        all_still(command, &still, budgets)?;
        let candidate = still.into_iter().next().ok_or(Rejection::Churn)?;
        // Simulated anew: what is bought is bought for the pods of now.
        self.command(snapshot, candidate)
            .map_err(|_| Rejection::Scheduling)
    }
}

/// Machines that nothing has to leave go at once; the others in the order in which they drifted.
pub(super) fn longest_drifted_first(candidates: &mut [Candidate]) {
    candidates.sort_by_key(|c| {
        let drifted = condition(&c.claim.status.conditions, conditions::DRIFTED);
        (
            c.pods_to_move() > 0,
            drifted.map(|d| d.last_transition_time.clone()),
            c.name.clone(),
        )
    });
}

impl Drift {
    fn command(
        &self,
        snapshot: &Snapshot,
        candidate: Candidate,
    ) -> Result<Command, (std::sync::Arc<str>, Refusal)> {
        // A pool that is at its limit could not be kept up to date otherwise.
        let outcome = snapshot.ground.without(
            &[&candidate],
            &snapshot.pdbs,
            Terms {
                limits: Limits::Ignore,
                fewest_machines: false,
            },
            snapshot.taken,
        );
        // Chunks of buffers come along where they can; that they cannot does not keep an outdated machine.
        if !outcome.failures.is_empty() {
            let refusal = Refusal::Blocked {
                message: sentence(&outcome.failures),
                ends: None,
            };
            return Err((candidate.name, refusal));
        }
        Ok(Command {
            reason: self.reason(),
            consolidation_type: self.consolidation_type(),
            candidates: vec![candidate],
            replacements: outcome.replacements,
        })
    }
}
