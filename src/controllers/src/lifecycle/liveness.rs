//! Claims that do not get anywhere (`lifecycle-and-disruption.md` §3 "Liveness"). Times count from the conditions'
//! last change, not from the claim's creation: a claim whose launch took four minutes has fifteen more to register.

use std::time::Duration;

use jiff::Timestamp;
use karpenter_api::kinds::Condition;

use super::objects::{conditions, is_true, later, transition};

/// Longest a launch may take.
pub(crate) const LAUNCH_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// Longest a launched machine may take to join.
pub(crate) const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Whether a claim may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liveness {
    /// Registered: nothing to watch for any more.
    Settled,
    /// It has until then.
    Until(Timestamp),
    /// It had its time.
    TimedOut {
        /// `reason` of the disruption metric.
        reason: &'static str,
        /// How long it had.
        timeout: Duration,
    },
}

/// Judges a claim; `created` stands in for a condition that was never written.
pub(crate) fn liveness(all: &[Condition], created: Timestamp, now: Timestamp) -> Liveness {
    if is_true(all, conditions::REGISTERED) {
        return Liveness::Settled;
    }
    let (kind, timeout, reason) = if is_true(all, conditions::LAUNCHED) {
        (
            conditions::REGISTERED,
            REGISTRATION_TIMEOUT,
            "registration_timeout",
        )
    } else {
        (conditions::LAUNCHED, LAUNCH_TIMEOUT, "launch_timeout")
    };
    let deadline = later(transition(all, kind).unwrap_or(created), timeout);
    if now >= deadline {
        Liveness::TimedOut { reason, timeout }
    } else {
        Liveness::Until(deadline)
    }
}

#[cfg(test)]
mod tests {
    use karpenter_api::kinds::Time;
    use rstest::rstest;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("a time")
    }

    fn condition(kind: &str, status: &str, since: i64) -> Condition {
        Condition {
            type_: kind.into(),
            status: status.into(),
            last_transition_time: Time(at(since)),
            message: String::new(),
            observed_generation: None,
            reason: kind.into(),
        }
    }

    const LAUNCH_OUT: Liveness = Liveness::TimedOut {
        reason: "launch_timeout",
        timeout: LAUNCH_TIMEOUT,
    };
    const REGISTRATION_OUT: Liveness = Liveness::TimedOut {
        reason: "registration_timeout",
        timeout: REGISTRATION_TIMEOUT,
    };

    #[rstest]
    #[case::no_conditions_count_from_creation(vec![], 299, Liveness::Until(at(300)))]
    #[case::no_conditions_time_out(vec![], 300, LAUNCH_OUT)]
    #[case::launch_counts_from_its_condition(vec![("Launched", "Unknown", 60)], 359, Liveness::Until(at(360)))]
    #[case::launch_times_out(vec![("Launched", "Unknown", 60)], 360, LAUNCH_OUT)]
    #[case::launched_has_fifteen_minutes(
        vec![("Launched", "True", 200), ("Registered", "Unknown", 10)], 909, Liveness::Until(at(910)))]
    #[case::registration_times_out(
        vec![("Launched", "True", 200), ("Registered", "Unknown", 10)], 910, REGISTRATION_OUT)]
    #[case::duplicates_time_out_too(
        vec![("Launched", "True", 200), ("Registered", "False", 300)], 1200, REGISTRATION_OUT)]
    #[case::registered_is_settled(
        vec![("Launched", "True", 200), ("Registered", "True", 300)], 99_999, Liveness::Settled)]
    fn a_claim_has_its_time(
        #[case] all: Vec<(&str, &str, i64)>,
        #[case] now: i64,
        #[case] expected: Liveness,
    ) {
        let all: Vec<Condition> = all.iter().map(|(k, s, t)| condition(k, s, *t)).collect();
        assert_eq!(liveness(&all, at(0), at(now)), expected);
    }
}
