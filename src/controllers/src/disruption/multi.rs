//! Multi-node consolidation (`lifecycle-and-disruption.md` §6.6): several nodes at once, whose pods fit on the others,
//! on one machine that costs less, or on several that do. Prefixes of two orderings are searched, where upstream has one:
//! by what is saved per pod moved, and by how few pods have to move. Where they have nothing, sets that the solver would
//! place anew are looked at ([`sets`]), so many nodes a pass.

use std::sync::Arc;

use karpenter_solver::abreast;
use parking_lot::Mutex;

use super::allowance::Allowance;
use super::balanced::{self, Verdict};
use super::candidate::{Candidate, Refusal};
use super::consolidation::{self, Most};
use super::emptiness::best_first;
use super::method::{Class, Command, Method, Proposal, Reason, Rejection};
use super::sets::{self, WINDOW};
use super::snapshot::Snapshot;

/// Most nodes of one command.
const MAX_NODES: usize = 101;
pub(super) const KIND: &str = "multi";

/// The method.
#[derive(Default)]
pub(crate) struct MultiNode {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Generation that the rest is about, and for whom.
    asked: Option<(u64, Vec<Arc<str>>)>,
    /// Whether the prefixes had nothing.
    prefixes_done: bool,
    /// Nodes that were in a window since.
    seen: usize,
    /// Where the next window begins, whatever happened since.
    cursor: usize,
}

impl Method for MultiNode {
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
        let asked = candidates.iter().map(|c| c.name.clone()).collect();
        let asked = Some((snapshot.generation, asked));
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.asked != asked {
            *state = State {
                asked,
                cursor: state.cursor,
                ..State::default()
            };
        }
        let (all, free) = (candidates.clone(), budgets.clone());
        candidates.retain(|c| budgets.take(&c.pool_name));
        let held_back = candidates.len() < all.len();
        let mut search = Search::default();
        if !state.prefixes_done {
            search = prefixes(snapshot, candidates);
            state.prefixes_done = search.found.is_none();
        }
        if search.found.is_none() && state.seen < all.len() {
            let window = window(&all, state.cursor);
            state.cursor = (state.cursor + window.len()) % all.len().max(1);
            state.seen += window.len();
            search.add(sets::search(snapshot, &window, &free));
            if state.seen < all.len() {
                // The rest is for the next pass, which comes at once.
                proposal.wake_at(Some(snapshot.taken));
            }
        }
        match search.found {
            Some((command, verdicts)) => {
                state.asked = None;
                proposal.judged.extend(verdicts);
                let each = command.savings();
                let names = command.candidates.iter().map(|c| (c.name.clone(), each));
                proposal.found.extend(names);
                vec![command]
            }
            None => {
                proposal
                    .judged
                    .extend(search.rejected.into_iter().flatten());
                // A budget that held nodes back may open without anything else changing.
                if held_back && state.seen >= all.len() {
                    state.asked = None;
                }
                Vec::new()
            }
        }
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

/// So many nodes from a place on, beginning anew at the end.
fn window(all: &[Candidate], cursor: usize) -> Vec<Candidate> {
    let round = all.iter().cycle().skip(cursor % all.len().max(1));
    round.take(WINDOW.min(all.len())).cloned().collect()
}

/// The better of the longest prefixes of two orderings.
fn prefixes(snapshot: &Snapshot, candidates: Vec<Candidate>) -> Search {
    let mut by_pods = candidates.clone();
    by_pods.sort_by(|a, b| {
        a.reschedule_cost
            .total_cmp(&b.reschedule_cost)
            .then_with(|| a.name.cmp(&b.name))
    });
    let same = candidates
        .iter()
        .map(|c| &c.name)
        .eq(by_pods.iter().map(|c| &c.name));
    let orders = [candidates, by_pods];
    let orders = if same { &orders[..1] } else { &orders[..] };
    let mut search = Search::default();
    for other in abreast(snapshot.threads, orders, |order| longest(snapshot, order)) {
        search.add(other);
    }
    search
}

/// The longest prefix that can be given back, searched by halves: what holds for a prefix mostly holds for a shorter.
fn longest(snapshot: &Snapshot, candidates: &[Candidate]) -> Search {
    let (mut low, mut high) = (2, candidates.len().min(MAX_NODES));
    let mut search = Search::default();
    while low <= high {
        let middle = low.midpoint(high);
        let prefix: Vec<&Candidate> = candidates.iter().take(middle).collect();
        let command = consolidation::compute(snapshot, &prefix, KIND, Most::One).ok();
        let judged = command.map(|c| Search::of(snapshot, c)).unwrap_or_default();
        search.rejected = judged.rejected.or(search.rejected);
        if judged.found.is_some() {
            search.found = judged.found;
            low = middle + 1;
        } else {
            high = middle - 1;
        }
    }
    search
}

/// What came of looking through sets of nodes.
#[derive(Default)]
pub(super) struct Search {
    /// The best command, and what its pools make of it.
    found: Option<(Command, Vec<Verdict>)>,
    /// What pools made of the last one that they rejected.
    rejected: Option<Vec<Verdict>>,
}

impl Search {
    /// Of one command that was found, if it saves anything.
    pub(super) fn of(snapshot: &Snapshot, command: Command) -> Self {
        if command.savings() <= 0.0 {
            return Self::default();
        }
        let verdicts = balanced::judge(snapshot, &command);
        if balanced::approve(&verdicts) {
            Self {
                found: Some((command, verdicts)),
                rejected: None,
            }
        } else {
            Self {
                found: None,
                rejected: Some(verdicts),
            }
        }
    }

    /// Takes in another one, which is preferred if it saves more.
    pub(super) fn add(&mut self, other: Self) {
        self.rejected = self.rejected.take().or(other.rejected);
        let saves = |found: &Option<(Command, Vec<Verdict>)>| {
            found.as_ref().map_or(f64::NEG_INFINITY, |f| f.0.savings())
        };
        if saves(&other.found) > saves(&self.found) {
            self.found = other.found;
        }
    }
}
