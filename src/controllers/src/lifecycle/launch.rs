//! What becomes of a claim once the cloud has answered its launch (`lifecycle-and-disruption.md` §3 "Launch").

use std::collections::BTreeMap;
use std::time::Duration;

use karpenter_api::NodeClaim;
use karpenter_cloud::{CloudError, Launched};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::objects::shortened;

/// How long a bought machine is remembered for a claim whose status could not be written.
const REMEMBER_LAUNCH: Duration = Duration::from_secs(3600);

/// What to do after a launch was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A machine was bought: write it down.
    Launched,
    /// Nothing can be bought now: delete the claim, so that its pods are planned anew.
    GiveUp {
        /// `reason` of the disruption metric.
        reason: &'static str,
        /// Text of the `InsufficientCapacityError` event, if there is to be one.
        event: Option<String>,
    },
    /// Say why on condition Launched and try again with back-off.
    Retry {
        /// Condition reason.
        reason: String,
        /// Condition message.
        message: String,
    },
}

/// Reads the cloud's answer.
pub(crate) fn outcome(answer: &Result<Launched, CloudError>) -> Outcome {
    match answer {
        Ok(_) => Outcome::Launched,
        Err(error @ CloudError::InsufficientCapacity(_)) => Outcome::GiveUp {
            reason: "insufficient_capacity",
            event: Some(shortened(&error.to_string())),
        },
        Err(CloudError::NodeClassNotReady(_)) => Outcome::GiveUp {
            reason: "nodeclass_not_ready",
            event: None,
        },
        Err(CloudError::Create { reason, message }) => Outcome::Retry {
            reason: reason.clone(),
            message: message.clone(),
        },
        Err(error @ (CloudError::NotFound(_) | CloudError::Other(_))) => Outcome::Retry {
            reason: "LaunchFailed".to_owned(),
            message: shortened(&error.to_string()),
        },
    }
}

/// Writes the machine into the claim: the claim's own labels win over the cloud's, the cloud's annotations over the
/// claim's.
pub(crate) fn record(claim: &mut NodeClaim, launched: &Launched) {
    let labels = claim.metadata.labels.get_or_insert_default();
    for (key, value) in &launched.labels {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    if !launched.annotations.is_empty() {
        let annotations = claim.metadata.annotations.get_or_insert_default();
        annotations.extend(launched.annotations.clone());
    }
    claim.status.provider_id.clone_from(&launched.provider_id);
    claim.status.image_id.clone_from(&launched.image_id);
    claim.status.capacity = launched.capacity.to_raw();
    claim.status.allocatable = launched.allocatable.to_raw();
}

/// Machines bought for claims whose status does not say so yet, by claim UID: a lost write must not buy twice.
#[derive(Debug, Default)]
pub(crate) struct Bought {
    by_uid: Mutex<BTreeMap<String, (Instant, Launched)>>,
}

impl Bought {
    /// What was bought for the claim with this UID.
    pub(crate) fn get(&self, uid: &str, now: Instant) -> Option<Launched> {
        let mut all = self.by_uid.lock();
        all.retain(|_, (at, _)| now.saturating_duration_since(*at) < REMEMBER_LAUNCH);
        all.get(uid).map(|(_, launched)| launched.clone())
    }
    pub(crate) fn put(&self, uid: &str, launched: Launched, now: Instant) {
        self.by_uid.lock().insert(uid.to_owned(), (now, launched));
    }
    /// Forgets a claim: its status says it now, or it is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.by_uid.lock().remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn give_up(reason: &'static str, event: Option<&str>) -> Outcome {
        Outcome::GiveUp {
            reason,
            event: event.map(str::to_owned),
        }
    }

    fn retry(reason: &str, message: &str) -> Outcome {
        Outcome::Retry {
            reason: reason.to_owned(),
            message: message.to_owned(),
        }
    }

    #[rstest]
    #[case::bought(Ok(Launched::default()), Outcome::Launched)]
    #[case::no_capacity(
        Err(CloudError::InsufficientCapacity("all offerings out".into())),
        give_up("insufficient_capacity", Some("insufficient capacity, all offerings out"))
    )]
    #[case::class_not_ready(
        Err(CloudError::NodeClassNotReady("no subnets".into())),
        give_up("nodeclass_not_ready", None)
    )]
    #[case::told_why(
        Err(CloudError::Create { reason: "Unauthorized".into(), message: "not allowed".into() }),
        retry("Unauthorized", "not allowed")
    )]
    #[case::anything_else(Err(CloudError::Other("timed out".into())), retry("LaunchFailed", "timed out"))]
    fn an_answer_decides(#[case] answer: Result<Launched, CloudError>, #[case] expected: Outcome) {
        assert_eq!(outcome(&answer), expected);
    }

    #[test]
    fn long_errors_are_cut() {
        let text = "x".repeat(400);
        let Outcome::Retry { message, .. } = outcome(&Err(CloudError::Other(text))) else {
            panic!("expected a retry");
        };
        assert_eq!(message.len(), 303);
        assert!(message.ends_with("..."));
    }

    #[test]
    fn own_labels_win_and_the_clouds_annotations_do() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect()
        };
        let mut claim = NodeClaim::default();
        claim.metadata.labels = Some(map(&[("team", "own")]));
        claim.metadata.annotations = Some(map(&[("note", "own"), ("kept", "own")]));
        let launched = Launched {
            provider_id: "fake:///z/i-1".into(),
            labels: map(&[("team", "cloud"), ("zone", "z")]),
            annotations: map(&[("note", "cloud")]),
            ..Launched::default()
        };
        record(&mut claim, &launched);
        assert_eq!(
            claim.metadata.labels,
            Some(map(&[("team", "own"), ("zone", "z")]))
        );
        assert_eq!(
            claim.metadata.annotations,
            Some(map(&[("note", "cloud"), ("kept", "own")]))
        );
        assert_eq!(claim.status.provider_id, "fake:///z/i-1");
    }

    #[tokio::test(start_paused = true)]
    async fn a_purchase_is_remembered_for_an_hour() {
        let bought = Bought::default();
        let at = Instant::now();
        bought.put("uid", Launched::default(), at);
        assert!(bought.get("uid", at + Duration::from_secs(3599)).is_some());
        assert!(bought.get("uid", at + Duration::from_secs(3600)).is_none());
        bought.put("uid", Launched::default(), at);
        bought.forget("uid");
        assert!(bought.get("uid", at).is_none());
    }
}
