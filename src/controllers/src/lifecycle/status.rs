//! Setting conditions of claims and pools, and the root condition of claims (`api.md` §3.4, "Root-condition
//! algorithm").

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

/// The condition that sums the others up.
const ROOT: &str = "Ready";

/// Conditions of a claim that its root depends on.
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
    let created = &claim.metadata.creation_timestamp;
    let created = created.as_ref().map_or(now, |t| t.0);
    let generation = claim.metadata.generation;
    for kind in DEPENDENTS {
        let all = &mut claim.status.conditions;
        match all.iter_mut().find(|c| c.type_ == kind) {
            Some(held) => held.observed_generation = generation,
            None => {
                let text = "object is awaiting reconciliation";
                let waits = Status::unknown("AwaitingReconciliation", text);
                put(all, kind, waits, generation, created);
            }
        }
    }
    root(claim, now);
}

/// Sets a condition of a NodePool; its root is its own controller's.
pub(crate) fn set_pool(pool: &mut NodePool, kind: &str, status: Status, now: Timestamp) {
    let generation = pool.metadata.generation;
    put(&mut pool.status.conditions, kind, status, generation, now);
}

/// Sums up: True if every dependent is, about the present generation; False if one is; otherwise Unknown. What is
/// not True is named, the newest change first (`api.md` §3.4).
fn root(claim: &mut NodeClaim, now: Timestamp) {
    let generation = claim.metadata.generation;
    if claim.metadata.deletion_timestamp.is_some() {
        // The deletion was a generation of its own; all that is known is known of it too.
        let all = claim.status.conditions.iter_mut();
        all.for_each(|c| c.observed_generation = generation);
    }
    let all = &claim.status.conditions;
    let mut held: Vec<(Option<Timestamp>, &str, &str)> = DEPENDENTS
        .iter()
        .map(|kind| {
            let current = all
                .iter()
                .find(|c| c.type_ == *kind && c.observed_generation == generation);
            let since = current.map(|c| c.last_transition_time.0);
            (since, *kind, current.map_or("Unknown", |c| &c.status))
        })
        .collect();
    held.sort_by_key(|(since, _, _)| std::cmp::Reverse(*since));
    let others: Vec<String> = held
        .iter()
        .filter(|(_, _, status)| *status != "True")
        .map(|(_, kind, status)| format!("{kind}={status}"))
        .collect();
    let message = others.join(", ");
    let status = if others.is_empty() {
        Status::True
    } else if held.iter().any(|(_, _, status)| *status == "False") {
        Status::failed("UnhealthyDependents", &message)
    } else {
        Status::unknown("ReconcilingDependents", &message)
    };
    put(&mut claim.status.conditions, ROOT, status, generation, now);
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
            // Time-outs count from this: a new reason is no new status.
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
    // By age, the root last. Seconds are all that the API keeps, so more must not decide.
    all.sort_by_key(|c| (c.type_ == ROOT, c.last_transition_time.0.as_second()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn claim() -> NodeClaim {
        let mut claim = NodeClaim::default();
        claim.metadata.generation = Some(1);
        claim.metadata.creation_timestamp = Some(Time(at(0)));
        settle(&mut claim, at(5));
        claim
    }

    fn words(claim: &NodeClaim) -> Vec<String> {
        let all = claim.status.conditions.iter();
        all.map(|c| {
            let since = c.last_transition_time.0.as_second();
            format!(
                "{}={}@{since} {} {}",
                c.type_, c.status, c.reason, c.message
            )
        })
        .collect()
    }

    #[test]
    fn a_new_claim_waits_since_its_creation() {
        let text = "AwaitingReconciliation object is awaiting reconciliation";
        assert_eq!(
            words(&claim()),
            [
                format!("Launched=Unknown@0 {text}"),
                format!("Registered=Unknown@0 {text}"),
                format!("Initialized=Unknown@0 {text}"),
                "Ready=Unknown@5 ReconcilingDependents Launched=Unknown, Registered=Unknown, Initialized=Unknown"
                    .to_owned(),
            ]
        );
    }

    #[test]
    fn the_root_follows_and_names_the_newest_first() {
        let mut claim = claim();
        set(&mut claim, "Launched", Status::True, at(10));
        set(
            &mut claim,
            "Registered",
            Status::failed("MultipleNodesFound", "two"),
            at(20),
        );
        assert_eq!(
            words(&claim),
            [
                "Initialized=Unknown@0 AwaitingReconciliation object is awaiting reconciliation",
                "Launched=True@10 Launched ",
                "Registered=False@20 MultipleNodesFound two",
                "Ready=False@20 UnhealthyDependents Registered=False, Initialized=Unknown",
            ]
        );
        set(&mut claim, "Registered", Status::True, at(30));
        set(&mut claim, "Initialized", Status::True, at(40));
        assert_eq!(
            words(&claim).last().map(String::as_str),
            Some("Ready=True@40 Ready ")
        );
        set(
            &mut claim,
            "Drifted",
            Status::true_because("AMIDrift", "AMIDrift"),
            at(50),
        );
        assert_eq!(
            words(&claim).last().map(String::as_str),
            Some("Ready=True@40 Ready ")
        );
    }

    #[test]
    fn a_new_reason_is_no_new_status() {
        let mut claim = claim();
        set(
            &mut claim,
            "Launched",
            Status::unknown("LaunchFailed", "x"),
            at(10),
        );
        assert!(words(&claim).contains(&"Launched=Unknown@0 LaunchFailed x".to_owned()));
    }

    #[test]
    fn conditions_are_about_a_generation() {
        let mut claim = claim();
        for kind in DEPENDENTS {
            set(&mut claim, kind, Status::True, at(10));
        }
        claim.metadata.generation = Some(2);
        set(&mut claim, "Launched", Status::True, at(20));
        let ready = |c: &NodeClaim| words(c).last().cloned().unwrap_or_default();
        assert!(
            ready(&claim).starts_with("Ready=Unknown@20"),
            "{}",
            ready(&claim)
        );
        settle(&mut claim, at(30));
        assert_eq!(ready(&claim), "Ready=True@30 Ready ");

        claim.metadata.generation = Some(3);
        claim.metadata.deletion_timestamp = Some(Time(at(40)));
        set(
            &mut claim,
            "Drained",
            Status::unknown("Draining", ""),
            at(41),
        );
        assert_eq!(
            ready(&claim),
            "Ready=True@30 Ready ",
            "a deletion makes nothing unknown"
        );
    }
}
