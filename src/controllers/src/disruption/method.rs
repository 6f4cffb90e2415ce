//! What a disruption method is: a pure proposal over a snapshot. Emptiness is the first of them; drift and
//! consolidation join the list.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::allowance::Allowance;
use super::candidate::{Candidate, Refusal, examine};
use super::snapshot::Snapshot;

/// Why a method disrupts; as budgets, conditions and (in lower case) metrics spell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// Nothing that would have to move runs there.
    Empty,
}

impl Reason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
        }
    }
    /// As metrics spell it.
    pub(crate) fn metric(self) -> &'static str {
        match self {
            Self::Empty => "empty",
        }
    }
}

/// How much a method's nodes may be held up by their pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Pods' protections and PodDisruptionBudgets always count.
    Graceful,
    /// They do not count for claims with a termination grace period: the drain will end.
    #[allow(dead_code)] // Of drift, the next method to come.
    Eventual,
}

/// Machines to be given back together.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) reason: Reason,
    pub(crate) consolidation_type: &'static str,
    pub(crate) candidates: Vec<Candidate>,
}

impl Command {
    /// Dollars per hour it saves.
    pub(crate) fn savings(&self) -> f64 {
        self.candidates.iter().map(|c| c.price).sum()
    }
}

/// What a method makes of a snapshot.
#[derive(Debug, Default)]
pub(crate) struct Proposal {
    /// What to do, best first.
    pub(crate) commands: Vec<Command>,
    /// Candidates the method looked at.
    pub(crate) eligible: usize,
    /// Why nodes are none, for events.
    pub(crate) refusals: Vec<(Arc<str>, Refusal)>,
    /// Pools whose budgets allow nothing at all for the method now.
    pub(crate) blocked_pools: BTreeSet<Arc<str>>,
    /// When to propose anew though nothing changed.
    pub(crate) wake: Option<Timestamp>,
}

impl Proposal {
    fn wake_at(&mut self, at: Option<Timestamp>) {
        self.wake = match (self.wake, at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

/// A disruption method.
pub(crate) trait Method: Send + Sync {
    fn reason(&self) -> Reason;
    fn class(&self) -> Class;
    /// Label `consolidation_type` of metrics.
    fn consolidation_type(&self) -> &'static str;
    /// Whether the method is about this candidate.
    fn filter(&self, candidate: &Candidate) -> Result<(), Refusal>;
    /// Chooses among the candidates, within what the budgets leave.
    fn choose(&self, candidates: Vec<Candidate>, budgets: &mut Allowance) -> Vec<Command>;

    /// What to do about the cluster as it is.
    fn propose(&self, snapshot: &Snapshot, now: Timestamp) -> Proposal {
        let mut proposal = Proposal::default();
        let candidates = self.candidates(snapshot, now, &mut proposal);
        proposal.eligible = candidates.len();
        if candidates.is_empty() {
            return proposal;
        }
        let mut budgets = Allowance::new(snapshot, self.reason(), now);
        proposal.commands = self.choose(candidates, &mut budgets);
        proposal.blocked_pools = budgets.blocked();
        proposal.wake_at(budgets.next_change(snapshot, now));
        proposal
    }

    /// What is left of a command after its waiting time: candidates that still are some, within the budgets of now.
    fn revise(&self, command: &Command, snapshot: &Snapshot, now: Timestamp) -> Option<Command> {
        let names: BTreeSet<&str> = command.candidates.iter().map(|c| &*c.name).collect();
        let mut candidates = self.candidates(snapshot, now, &mut Proposal::default());
        candidates.retain(|c| names.contains(&*c.name));
        let mut budgets = Allowance::new(snapshot, self.reason(), now);
        self.choose(candidates, &mut budgets).into_iter().next()
    }

    /// Nodes that pass the checks of all methods and this one's.
    fn candidates(
        &self,
        snapshot: &Snapshot,
        now: Timestamp,
        proposal: &mut Proposal,
    ) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for member in &snapshot.members {
            let verdict = examine(member, snapshot, self.class(), now)
                .and_then(|candidate| self.filter(&candidate).map(|()| candidate));
            match verdict {
                Ok(candidate) => candidates.push(candidate),
                Err(refusal) => {
                    proposal.wake_at(refusal.ends());
                    proposal.refusals.push((member.name.clone(), refusal));
                }
            }
        }
        candidates
    }
}
