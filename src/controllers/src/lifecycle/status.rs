//! Setting conditions of claims and pools; the algorithm for the root condition is `karpenter_api`'s.

use jiff::Timestamp;
use karpenter_api::kinds::{Condition, Time};
use karpenter_api::{NodeClaim, NodePool};

use super::objects::conditions;

/// A condition's status with what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// True; the reason is the condition's own type.
    True,
    /// True, for a reason worth telling.
    TrueBecause(String, String),
    /// False: reason and message.
    False(String, String),
    /// Unknown: reason and message.
    Unknown(String, String),
}

impl Status {
    pub(crate) fn true_because(reason: &str, message: &str) -> Self {
        Self::TrueBecause(reason.to_owned(), message.to_owned())
    }
    pub(crate) fn failed(reason: &str, message: &str) -> Self {
        Self::False(reason.to_owned(), message.to_owned())
    }
    pub(crate) fn unknown(reason: &str, message: &str) -> Self {
        Self::Unknown(reason.to_owned(), message.to_owned())
    }
    /// As the API spells it.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::True | Self::TrueBecause(..) => "True",
            Self::False(..) => "False",
            Self::Unknown(..) => "Unknown",
        }
    }
}

const DEPENDENTS: [&str; 3] = [
    conditions::LAUNCHED,
    conditions::REGISTERED,
    conditions::INITIALIZED,
];

/// Sets a condition of a claim.
pub(crate) fn set(claim: &mut NodeClaim, kind: &str, status: Status, now: Timestamp) {
    let generation = claim.metadata.generation;
    put(&mut claim.status.conditions, kind, status, generation, now);
    root(claim, now);
}

/// Takes a condition off a claim.
pub(crate) fn clear(claim: &mut NodeClaim, kind: &str) {
    claim.status.conditions.retain(|c| c.type_ != kind);
}

/// Makes sure that a claim has the conditions that every claim has, about its present generation.
pub(crate) fn settle(claim: &mut NodeClaim, now: Timestamp) {
    let created = claim
        .metadata
        .creation_timestamp
        .as_ref()
        .map_or(now, |t| t.0);
    let generation = claim.metadata.generation;
    for kind in DEPENDENTS {
        let all = &mut claim.status.conditions;
        match all.iter_mut().find(|c| c.type_ == kind) {
            Some(held) => held.observed_generation = generation,
            None => {
                let waits = Status::unknown(
                    "AwaitingReconciliation",
                    "object is awaiting reconciliation",
                );
                put(all, kind, waits, generation, created);
            }
        }
    }
    root(claim, now);
}

/// Sets a condition of a NodePool that its root does not depend on.
pub(crate) fn set_pool(pool: &mut NodePool, kind: &str, status: Status, now: Timestamp) {
    let generation = pool.metadata.generation;
    put(&mut pool.status.conditions, kind, status, generation, now);
}

fn root(claim: &mut NodeClaim, now: Timestamp) {
    let generation = claim.metadata.generation;
    let held: Vec<(&str, String)> = DEPENDENTS
        .iter()
        .map(|kind| {
            let c = claim.status.conditions.iter().find(|c| c.type_ == *kind);
            let current = c.filter(|c| c.observed_generation == generation);
            (
                *kind,
                current.map_or_else(|| "Unknown".to_owned(), |c| c.status.clone()),
            )
        })
        .collect();
    let message = held
        .iter()
        .filter(|(_, s)| s != "True")
        .map(|(k, s)| format!("{k}={s}"))
        .collect::<Vec<_>>()
        .join(", ");
    let status = if held.iter().all(|(_, s)| s == "True") {
        Status::True
    } else if held.iter().any(|(_, s)| s == "False") {
        Status::failed("UnhealthyDependents", &message)
    } else {
        Status::unknown("ReconcilingDependents", &message)
    };
    put(
        &mut claim.status.conditions,
        "Ready",
        status,
        generation,
        now,
    );
}

fn put(
    all: &mut Vec<Condition>,
    kind: &str,
    status: Status,
    generation: Option<i64>,
    now: Timestamp,
) {
    let text = status.as_str();
    let (reason, message) = match status {
        Status::True => (kind.to_owned(), String::new()),
        Status::TrueBecause(r, m) | Status::False(r, m) | Status::Unknown(r, m) => (r, m),
    };
    let now = Time(now);
    match all.iter_mut().find(|c| c.type_ == kind) {
        Some(held) => {
            if held.status != text {
                held.last_transition_time = now;
            }
            held.status = text.to_owned();
            held.reason = reason;
            held.message = message;
            held.observed_generation = generation;
        }
        None => all.push(Condition {
            type_: kind.to_owned(),
            status: text.to_owned(),
            reason,
            message,
            observed_generation: generation,
            last_transition_time: now,
        }),
    }
}
