//! Single-node consolidation (`lifecycle-and-disruption.md` §6.6): one node whose pods fit on the others, or on a
//! machine that costs less. Nodes are looked at round after round, so many a pass: the tail of a big cluster is
//! reached, whatever happens in between.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::allowance::Allowance;
use super::balanced;
use super::candidate::{Candidate, Refusal};
use super::consolidation;
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
        let mut looked_at = 0;
        for candidate in candidates {
            if looked_at == NODES_A_PASS {
                // The rest is for the next pass, which comes at once.
                proposal.wake_at(Some(snapshot.taken));
                break;
            }
            if !budgets.take(&candidate.pool_name) {
                continue;
            }
            looked_at += 1;
            match consolidation::compute(snapshot, &[&candidate], KIND) {
                Ok(command) if command.savings() <= 0.0 && !command.replacements.is_empty() => {}
                Ok(command) => {
                    let verdicts = balanced::judge(snapshot, &command);
                    let approved = balanced::approve(&verdicts);
                    proposal.judged.extend(verdicts);
                    if approved {
                        proposal
                            .found
                            .push((candidate.name.clone(), command.savings()));
                        return vec![command];
                    }
                }
                Err(why) => proposal
                    .refusals
                    .push((candidate.name.clone(), Refusal::Unconsolidatable(why))),
            }
            budgets.put_back(&candidate.pool_name);
            let looked = (snapshot.generation, state.passes);
            state.seen.insert(candidate.name, looked);
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
