//! Single-node consolidation (`lifecycle-and-disruption.md` §6.6): one node whose pods fit on the others, or on a
//! machine that costs less. Nodes are looked at round after round, so many a pass: the tail of a big cluster is
//! reached, whatever happens in between.

use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_solver::abreast;
use parking_lot::Mutex;

use super::allowance::Allowance;
use super::balanced;
use super::candidate::{Candidate, Refusal};
use super::consolidation::{self, Most};
use super::emptiness::best_first;
use super::method::{Class, Command, Method, Proposal, Reason, Rejection};
use super::snapshot::Snapshot;

/// Nodes that are looked at in one pass.
const NODES_A_PASS: usize = 100;
pub(super) const KIND: &str = "single";

/// The method.
#[derive(Default)]
pub(crate) struct SingleNode {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Generation that `seen` is about.
    generation: u64,
    /// By claim: in which generation and pass it was looked at last.
    seen: BTreeMap<Arc<str>, (u64, u64)>,
    passes: u64,
}

impl Method for SingleNode {
    fn reason(&self) -> Reason {
        Reason::Underutilized
    }
    fn class(&self) -> Class {
        Class::Graceful
    }
    fn consolidation_type(&self) -> &'static str {
        KIND
    }
    fn filter(&self, candidate: &Candidate) -> Result<(), Refusal> {
        consolidation::filter(candidate)
    }

    fn choose(
        &self,
        snapshot: &Snapshot,
        mut candidates: Vec<Candidate>,
        budgets: &mut Allowance,
        proposal: &mut Proposal,
    ) -> Vec<Command> {
        best_first(&mut candidates);
        let mut state = self.state.lock();
        let state = &mut *state;
        state.generation = snapshot.generation;
        state.passes += 1;
        let there: BTreeMap<&str, ()> = candidates.iter().map(|c| (&*c.name, ())).collect();
        state.seen.retain(|name, _| there.contains_key(&**name));
        // Known to be hopeless while nothing changes.
        candidates.retain(|c| {
            state
                .seen
                .get(&c.name)
                .is_none_or(|(g, _)| *g != snapshot.generation)
        });
        // Those that waited longest first; the sort keeps the order among equals.
        candidates.sort_by_key(|c| state.seen.get(&c.name).map_or(0, |(_, pass)| *pass));
        candidates.retain(|c| {
            let may = budgets.take(&c.pool_name);
            if may {
                budgets.put_back(&c.pool_name);
            }
            may
        });
        let looked_at = candidates.get(..NODES_A_PASS).unwrap_or(&candidates);
        // Whoever stands before the first that can go is looked at on one thread as on many; what others find out too
        // early is forgotten.
        for several in looked_at.chunks(snapshot.threads.max(1)) {
            let ask = |c: &Candidate| consolidation::compute(snapshot, &[c], KIND, Most::One);
            let outcomes = abreast(snapshot.threads, several, ask);
            for (candidate, outcome) in several.iter().zip(outcomes) {
                match outcome {
                    Ok(command) if command.savings() <= 0.0 && !command.replacements.is_empty() => {
                    }
                    Ok(command) => {
                        let verdicts = balanced::judge(snapshot, &command);
                        let approved = balanced::approve(&verdicts);
                        proposal.judged.extend(verdicts);
                        if approved && budgets.take(&candidate.pool_name) {
                            let found = (candidate.name.clone(), command.savings());
                            proposal.found.push(found);
                            return vec![command];
                        }
                    }
                    Err(stays) => proposal
                        .refusals
                        .push((candidate.name.clone(), Refusal::Unconsolidatable(stays.why))),
                }
                let looked = (snapshot.generation, state.passes);
                state.seen.insert(candidate.name.clone(), looked);
            }
        }
        if candidates.len() > NODES_A_PASS {
            // The rest is for the next pass, which comes at once.
            proposal.wake_at(Some(snapshot.taken));
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
        consolidation::reconsider(snapshot, command, &still, budgets)
    }
}
