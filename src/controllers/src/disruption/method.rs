//! What a disruption method is: a pure proposal over a snapshot. Emptiness, drift and consolidation are methods.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use karpenter_model::PoolView;
use karpenter_model::plan::PlannedNode;

use super::allowance::Allowance;
use super::balanced::Verdict;
use super::candidate::{Candidate, Refusal, examine};
use super::snapshot::{Member, Snapshot};
use super::under_way::Held;

/// Why a method disrupts; as budgets, conditions and (in lower case) metrics spell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// Nothing that would have to move runs there.
    Empty,
    /// The machine is not what is asked for now.
    Drifted,
    /// Its pods fit on less.
    Underutilized,
}

impl Reason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Drifted => "Drifted",
            Self::Underutilized => "Underutilized",
        }
    }
    /// As metrics spell it.
    pub(crate) fn metric(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Drifted => "drifted",
            Self::Underutilized => "underutilized",
        }
    }
}

/// How much a method's nodes may be held up by their pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Pods' protections and PodDisruptionBudgets always count.
    Graceful,
    /// They do not count for claims with a termination grace period: the drain will end.
    Eventual,
}

/// Machines to be given back together, after others have taken their place.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) reason: Reason,
    pub(crate) consolidation_type: &'static str,
    pub(crate) candidates: Vec<Candidate>,
    /// What has to be there before the candidates go.
    pub(crate) replacements: Vec<Replacement>,
}

/// A machine to buy in place of candidates.
#[derive(Clone, Debug)]
pub(crate) struct Replacement {
    pub(crate) planned: PlannedNode,
    pub(crate) pool: Arc<PoolView>,
    /// Whether the claim is the pool's template and nothing else: those of static pools, which hold their size with it.
    pub(crate) from_template: bool,
}

impl Command {
    /// Dollars per hour it saves.
    pub(crate) fn savings(&self) -> f64 {
        let before: f64 = self.candidates.iter().map(|c| c.price).sum();
        let after: f64 = self
            .replacements
            .iter()
            .map(|r| r.planned.cheapest.price)
            .sum();
        before - after
    }
    /// `delete` or `replace`, as metrics and logs spell it.
    pub(crate) fn decision(&self) -> &'static str {
        if self.replacements.is_empty() {
            "delete"
        } else {
            "replace"
        }
    }
}

/// Why a command is not carried out after all; as events spell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// Budgets do not leave room for all of its candidates any more.
    Budget,
    /// The pods would not go where they were to go, or what was to be bought is not what would be bought now.
    Scheduling,
    /// A candidate is none any more.
    Churn,
    /// Something could not be written.
    Unknown,
}

impl Rejection {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::Scheduling => "scheduling",
            Self::Churn => "churn",
            Self::Unknown => "unknown",
        }
    }
    /// Whether it counts as a failed validation: a plan that comes out differently does not.
    pub(crate) fn is_failed_validation(self) -> bool {
        matches!(self, Self::Budget | Self::Churn)
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
    /// Candidates that can be replaced by something cheaper, and by how much (event `ConsolidationCandidate`).
    pub(crate) found: Vec<(Arc<str>, f64)>,
    /// What pools made of moves that were found, for metrics and the event `ConsolidationApproved`.
    pub(crate) judged: Vec<Verdict>,
    /// Pools whose budgets allow nothing at all for the method now.
    pub(crate) blocked_pools: BTreeSet<Arc<str>>,
    /// When to propose anew though nothing changed.
    pub(crate) wake: Option<Timestamp>,
}

impl Proposal {
    pub(crate) fn wake_at(&mut self, at: Option<Timestamp>) {
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
    /// Whether all commands of a proposal are begun in one pass, not only the best one.
    fn begins_all(&self) -> bool {
        false
    }
    /// Whether a command is thought over before it is begun.
    fn waits(&self) -> bool {
        true
    }
    /// Chooses among the candidates, within what the budgets leave.
    fn choose(
        &self,
        snapshot: &Snapshot,
        candidates: Vec<Candidate>,
        budgets: &mut Allowance,
        proposal: &mut Proposal,
    ) -> Vec<Command>;
    /// What is left of `command` when of its candidates these are still some, or why it is not to be carried out.
    fn reconsider(
        &self,
        snapshot: &Snapshot,
        command: &Command,
        still: Vec<Candidate>,
        budgets: &mut Allowance,
    ) -> Result<Command, Rejection>;

    /// What to do about the cluster as it is.
    fn propose(&self, snapshot: &Snapshot, now: Timestamp) -> Proposal {
        let mut proposal = Proposal::default();
        let candidates = self.candidates(snapshot, now, &mut proposal);
        proposal.eligible = candidates.len();
        if candidates.is_empty() {
            return proposal;
        }
        let mut budgets = Allowance::new(snapshot, self.reason(), now);
        proposal.commands = self.choose(snapshot, candidates, &mut budgets, &mut proposal);
        proposal.blocked_pools = budgets.blocked();
        proposal.wake_at(budgets.next_change(snapshot, now));
        proposal
    }
    /// What is left of a command after its waiting time: candidates that still are some, within the budgets of now.
    fn revise(
        &self,
        command: &Command,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<Command, Rejection> {
        let names: BTreeSet<&str> = command.candidates.iter().map(|c| &*c.name).collect();
        let mut candidates = self.candidates(snapshot, now, &mut Proposal::default());
        candidates.retain(|c| names.contains(&*c.name));
        let mut budgets = Allowance::new(snapshot, self.reason(), now);
        self.reconsider(snapshot, command, candidates, &mut budgets)
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
                .and_then(|candidate| self.filter(&candidate).map(|()| candidate))
                .and_then(|candidate| match self.reason() {
                    Reason::Empty => Ok(candidate),
                    _ => not_held(member, now).map(|()| candidate),
                });
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

/// A node whose replacements could not be had is left alone for a while.
fn not_held(member: &Member, now: Timestamp) -> Result<(), Refusal> {
    match member.held.filter(|held| held.until > now) {
        None => Ok(()),
        Some(Held { failures, until }) => Err(Refusal::Blocked {
            message: format!(
                "its replacement could not be had ({failures} time(s) in a row), next try after {until:.0}"
            ),
            ends: Some(until),
        }),
    }
}

/// Whether all candidates of `command` still are some, and budgets let all of them go.
pub(crate) fn all_still(
    command: &Command,
    still: &[Candidate],
    budgets: &mut Allowance,
) -> Result<(), Rejection> {
    if still.len() < command.candidates.len() {
        Err(Rejection::Churn)
    } else if still.iter().all(|c| budgets.take(&c.pool_name)) {
        Ok(())
    } else {
        Err(Rejection::Budget)
    }
}
