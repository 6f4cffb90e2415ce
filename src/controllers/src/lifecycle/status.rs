//! Setting conditions of claims and pools, and the root condition of claims (`api.md` §3.4, "Root-condition
//! algorithm").

use jiff::Timestamp;
use karpenter_api::condition::{self, Edit, NODE_CLAIM, NODE_OVERLAY, NODE_POOL};
use karpenter_api::kinds::{Condition, Time};
use karpenter_api::{NodeClaim, NodeOverlay, NodePool};

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
            Self::True | Self::TrueBecause(..) => condition::Status::True.as_str(),
            Self::False(..) => condition::Status::False.as_str(),
            Self::Unknown(..) => condition::Status::Unknown.as_str(),
        }
    }
}

/// Sets a condition of a claim.
pub(crate) fn set(claim: &mut NodeClaim, kind: &str, status: Status, now: Timestamp) {
    let mut edit = NODE_CLAIM.edit(&mut claim.status.conditions, &claim.metadata, now);
    put(&mut edit, kind, status);
}

/// Takes a condition off a claim.
pub(crate) fn clear(claim: &mut NodeClaim, kind: &str) {
    claim.status.conditions.retain(|c| c.type_ != kind);
}

/// Makes sure that a claim has the conditions that every claim has, about its present generation.
pub(crate) fn settle(claim: &mut NodeClaim, now: Timestamp) {
    let mut edit = NODE_CLAIM.edit(&mut claim.status.conditions, &claim.metadata, now);
    for kind in NODE_CLAIM.dependents {
        if let Some(held) = condition::get(edit.all(), kind).cloned() {
            let status = condition::status(edit.all(), kind);
            edit.set(kind, status, &held.reason, &held.message);
        }
    }
}

/// Sets conditions of a NodePool that its root sums up.
pub(crate) fn set_pool(pool: &mut NodePool, kind: &str, status: Status, now: Timestamp) {
    let mut edit = NODE_POOL.edit(&mut pool.status.conditions, &pool.metadata, now);
    put(&mut edit, kind, status);
}

/// Sets a condition of a NodeOverlay.
pub(crate) fn set_overlay(overlay: &mut NodeOverlay, kind: &str, status: Status, now: Timestamp) {
    let mut edit = NODE_OVERLAY.edit(&mut overlay.status.conditions, &overlay.metadata, now);
    put(&mut edit, kind, status);
}

/// Sets a condition of a NodePool that its root does not sum up; what that is made of is left to whoever judges it.
pub(crate) fn set_aside(pool: &mut NodePool, kind: &str, status: Status, now: Timestamp) {
    let text = status.as_str();
    let (reason, message) = match status {
        Status::True => (kind.to_owned(), String::new()),
        Status::TrueBecause(r, m) | Status::False(r, m) | Status::Unknown(r, m) => (r, m),
    };
    let wanted = Condition {
        type_: kind.to_owned(),
        status: text.to_owned(),
        reason,
        message,
        observed_generation: pool.metadata.generation,
        last_transition_time: Time(now),
    };
    condition::merge(&mut pool.status.conditions, wanted);
}

fn put(edit: &mut Edit<'_>, kind: &str, status: Status) {
    match status {
        Status::True => edit.set_true(kind),
        Status::TrueBecause(reason, message) => edit.set_true_because(kind, &reason, &message),
        Status::False(reason, message) => edit.set_false(kind, &reason, &message),
        Status::Unknown(reason, message) => edit.set_unknown(kind, &reason, &message),
    };
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
        for kind in NODE_CLAIM.dependents {
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
