//! Multi-node consolidation (`lifecycle-and-disruption.md` §6.6): several nodes at once, whose pods fit on the others
//! or on one machine that costs less. Prefixes of two orderings are searched, where upstream has one: by what is saved
//! per pod moved, and by how few pods have to move.

use std::sync::Arc;

use parking_lot::Mutex;

use super::abreast::abreast;
use super::allowance::Allowance;
use super::balanced::{self, Verdict};
use super::candidate::{Candidate, Refusal};
use super::consolidation;
use super::emptiness::best_first;
use super::method::{Class, Command, Method, Proposal, Reason, Rejection};
use super::snapshot::Snapshot;

/// Most nodes of one command.
const MAX_NODES: usize = 101;
pub(super) const KIND: &str = "multi";

/// The method.
#[derive(Default)]
pub(crate) struct MultiNode {
    /// Generation in which there was nothing to be done, and for whom.
    settled: Mutex<Option<(u64, Vec<Arc<str>>)>>,
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
        if *self.settled.lock() == asked {
            return Vec::new();
        }
        let before = candidates.len();
        candidates.retain(|c| budgets.take(&c.pool_name));
        let held_back = candidates.len() < before;
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
        let searches = abreast(snapshot.threads, orders, |order| longest(snapshot, order));
        let mut search = Search::default();
        for other in searches {
            search.rejected = search.rejected.or(other.rejected);
            if let Some(found) = other.found
                && search
                    .found
                    .as_ref()
                    .is_none_or(|b| found.0.savings() > b.0.savings())
            {
                search.found = Some(found);
            }
        }
        match search.found {
            Some((command, verdicts)) => {
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
                if !held_back {
                    *self.settled.lock() = asked;
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

/// The longest prefix that can be given back, searched by halves: what holds for a prefix mostly holds for a shorter.
fn longest(snapshot: &Snapshot, candidates: &[Candidate]) -> Search {
    let (mut low, mut high) = (2, candidates.len().min(MAX_NODES));
    let mut search = Search::default();
    while low <= high {
        let middle = low.midpoint(high);
        let prefix: Vec<&Candidate> = candidates.iter().take(middle).collect();
        let command = consolidation::compute(snapshot, &prefix, KIND).ok();
        let judged = command.filter(|c| c.savings() > 0.0).map(|c| {
            let verdicts = balanced::judge(snapshot, &c);
            (c, verdicts)
        });
        match judged {
            Some((command, verdicts)) if balanced::approve(&verdicts) => {
                search.found = Some((command, verdicts));
                low = middle + 1;
            }
            rejected => {
                search.rejected = rejected.map(|(_, verdicts)| verdicts).or(search.rejected);
                high = middle - 1;
            }
        }
    }
    search
}

/// What came of looking through the prefixes of an ordering.
#[derive(Default)]
struct Search {
    /// The best command, and what its pools make of it.
    found: Option<(Command, Vec<Verdict>)>,
    /// What pools made of the last one that they rejected.
    rejected: Option<Vec<Verdict>>,
}
