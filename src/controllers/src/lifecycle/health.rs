//! Whether machines of a NodePool come up (`NodeRegistrationHealthy`): the last four launches of each pool, in
//! memory (`lifecycle-and-disruption.md` §3 "NP registration health").

use std::collections::{BTreeMap, VecDeque};

use parking_lot::Mutex;

/// Results remembered per NodePool.
const RING_RESULTS: usize = 4;
/// Failures among them that make a pool unhealthy: half of the ring.
const UNHEALTHY_FAILURES: usize = 2;

/// What the results say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Unknown,
    Healthy,
    Unhealthy,
}

/// One result; which claim it is of keeps a repeated reconcile from counting twice.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Result {
    claim_uid: String,
    registered: bool,
}

fn verdict<'a>(results: impl Iterator<Item = &'a Result>) -> Verdict {
    let (mut all, mut failed) = (0_usize, 0_usize);
    for result in results {
        all += 1;
        failed += usize::from(!result.registered);
    }
    match (all, failed) {
        (0, _) => Verdict::Unknown,
        (_, f) if f >= UNHEALTHY_FAILURES => Verdict::Unhealthy,
        _ => Verdict::Healthy,
    }
}

/// The rings of all pools, by the pools' UIDs.
#[derive(Debug, Default)]
pub(crate) struct Health {
    rings: Mutex<BTreeMap<String, VecDeque<Result>>>,
}

impl Health {
    /// What the pool's results say.
    #[cfg(test)]
    pub(crate) fn verdict(&self, pool_uid: &str) -> Verdict {
        let rings = self.rings.lock();
        verdict(rings.get(pool_uid).into_iter().flatten())
    }

    /// Adds how a claim fared and returns what the results say with it. The same claim faring the same again
    /// changes nothing.
    pub(crate) fn record(&self, pool_uid: &str, claim_uid: &str, registered: bool) -> Verdict {
        let mut rings = self.rings.lock();
        let ring = rings.entry(pool_uid.to_owned()).or_default();
        let result = Result {
            claim_uid: claim_uid.to_owned(),
            registered,
        };
        if !ring.contains(&result) {
            ring.push_back(result);
            while ring.len() > RING_RESULTS {
                ring.pop_front();
            }
        }
        verdict(ring.iter())
    }

    /// Forgets a pool's results: it, or its NodeClass, is another one now.
    pub(crate) fn reset(&self, pool_uid: &str) {
        self.rings.lock().remove(pool_uid);
    }

    /// After a restart the condition is all that is left of the results: enough of them to say the same.
    pub(crate) fn rehydrate(&self, pool_uid: &str, healthy: bool) {
        let count = if healthy { 1 } else { UNHEALTHY_FAILURES };
        let mut rings = self.rings.lock();
        let ring = rings.entry(pool_uid.to_owned()).or_default();
        if ring.is_empty() {
            ring.extend((0..count).map(|i| Result {
                claim_uid: format!("before-restart-{i}"),
                registered: healthy,
            }));
        }
    }

    /// Drops the rings of pools that are no more.
    pub(crate) fn keep_only(&self, pool_uids: &[String]) {
        self.rings.lock().retain(|uid, _| pool_uids.contains(uid));
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::nothing_known("", Verdict::Unknown)]
    #[case::one_success("t", Verdict::Healthy)]
    #[case::one_failure_is_bad_luck("f", Verdict::Healthy)]
    #[case::two_failures("ff", Verdict::Unhealthy)]
    #[case::a_success_after_two_failures_is_not_enough("fft", Verdict::Unhealthy)]
    #[case::half_failed("tfft", Verdict::Unhealthy)]
    #[case::old_failures_roll_out("fftttt", Verdict::Healthy)]
    #[case::one_old_failure_left("ffttt", Verdict::Healthy)]
    fn the_last_four_decide(#[case] results: &str, #[case] expected: Verdict) {
        let health = Health::default();
        for (i, result) in results.chars().enumerate() {
            health.record("pool", &format!("claim-{i}"), result == 't');
        }
        assert_eq!(health.verdict("pool"), expected);
    }

    #[test]
    fn a_repeated_reconcile_counts_once() {
        let health = Health::default();
        assert_eq!(health.record("pool", "claim", false), Verdict::Healthy);
        assert_eq!(health.record("pool", "claim", false), Verdict::Healthy);
        assert_eq!(health.record("pool", "other", false), Verdict::Unhealthy);
    }

    #[test]
    fn a_restart_keeps_the_verdict_and_a_reset_does_not() {
        let health = Health::default();
        health.rehydrate("bad", false);
        health.rehydrate("good", true);
        assert_eq!(health.verdict("bad"), Verdict::Unhealthy);
        assert_eq!(health.verdict("good"), Verdict::Healthy);
        health.rehydrate("bad", true);
        assert_eq!(
            health.verdict("bad"),
            Verdict::Unhealthy,
            "only an empty ring is filled"
        );
        health.reset("bad");
        assert_eq!(health.verdict("bad"), Verdict::Unknown);
        health.keep_only(&["bad".to_owned()]);
        assert_eq!(health.verdict("good"), Verdict::Unknown);
    }
}
