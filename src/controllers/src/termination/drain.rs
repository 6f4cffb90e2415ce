//! What a drain does next (`lifecycle-and-disruption.md` §4 "Drain order"): a pure decision over the node's pods.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use karpenter_model::Pod;

/// Priority classes whose pods go last.
const CRITICAL_CLASSES: [&str; 2] = ["system-cluster-critical", "system-node-critical"];

/// How much later than a pod's becoming stuck to look again: "stuck" means more than a minute.
const PAST_STUCK: SignedDuration = SignedDuration::from_millis(1);

/// Shortest grace a forced deletion grants (s): zero would delete the object under a running container.
pub(crate) const MIN_FORCED_GRACE_SECS: u32 = 1;

/// The state of a drain and what is to be done about it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drain {
    /// Pods that still have to go, in key order.
    pub(crate) waiting: Vec<Arc<Pod>>,
    /// Those whose time before the deadline is up, whatever their tier.
    pub(crate) force: Vec<Arc<Pod>>,
    /// Those of the first tier that is not empty and that are not going yet.
    pub(crate) evict: Vec<Arc<Pod>>,
    /// When to look again though nothing changed.
    pub(crate) wake: Option<Timestamp>,
}

/// Decides on a node with `pods` that must be empty by `deadline` (none: whenever it is).
pub(crate) fn drain(pods: &[Arc<Pod>], deadline: Option<Timestamp>, now: Timestamp) -> Drain {
    let waiting: Vec<Arc<Pod>> = pods
        .iter()
        .filter(|p| p.is_waiting_eviction(now))
        .cloned()
        .collect();
    let (force, rest): (Vec<_>, Vec<_>) = waiting
        .iter()
        .cloned()
        .partition(|p| deadline.is_some_and(|d| must_be_forced(p, d, now)));
    let tier = rest.iter().map(|p| tier(p)).min();
    let evict = rest
        .iter()
        .filter(|p| Some(self::tier(p)) == tier && p.is_active())
        .cloned()
        .collect();
    let wake = waiting
        .iter()
        .flat_map(|p| [stuck_wake(p), deadline.and_then(|d| force_at(p, d))])
        .flatten()
        .filter(|at| *at > now)
        .min();
    Drain {
        waiting,
        force,
        evict,
        wake,
    }
}

/// Tiers go one after the other: pods before DaemonSets' pods, the critical ones of both last.
fn tier(pod: &Pod) -> u8 {
    let critical = pod
        .priority_class
        .as_deref()
        .is_some_and(|class| CRITICAL_CLASSES.contains(&class));
    u8::from(critical) * 2 + u8::from(pod.is_daemon())
}

/// When a pod must begin to go so that its grace period ends at the deadline.
fn force_at(pod: &Pod, deadline: Timestamp) -> Option<Timestamp> {
    if pod.is_terminating() {
        return None;
    }
    let grace = SignedDuration::from_secs(pod.grace_seconds.max(0));
    Some(deadline.checked_sub(grace).unwrap_or(Timestamp::MIN))
}

fn stuck_wake(pod: &Pod) -> Option<Timestamp> {
    pod.stuck_at()?.checked_add(PAST_STUCK).ok()
}

/// Whether only a forced deletion gets the pod out by the deadline: one that is not going must begin now, one that
/// is going takes longer than there is.
pub(crate) fn must_be_forced(pod: &Pod, deadline: Timestamp, now: Timestamp) -> bool {
    match pod.deleted {
        None => force_at(pod, deadline).is_some_and(|at| now >= at),
        Some(at) => {
            // A second deletion can only shorten: nothing is gained once less than the least grace is left.
            let least = i64::from(MIN_FORCED_GRACE_SECS);
            pod.needs_forced_eviction(deadline)
                && at.duration_since(now) > SignedDuration::from_secs(least)
        }
    }
}

/// Grace of a forced deletion (s): what is left until the deadline, in whole seconds, never zero.
pub(crate) fn forced_grace(deadline: Timestamp, now: Timestamp) -> u32 {
    let left = deadline.duration_since(now).as_secs();
    u32::try_from(left)
        .unwrap_or(if left < 0 { 0 } else { u32::MAX })
        .max(MIN_FORCED_GRACE_SECS)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Toleration;
    use karpenter_model::PodKey;
    use karpenter_model::pod::{Owner, Phase};
    use rstest::rstest;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("a time")
    }

    fn pod(name: &str, change: impl FnOnce(&mut Pod)) -> Arc<Pod> {
        let mut pod = Pod {
            key: PodKey {
                namespace: "ns".into(),
                name: name.into(),
            },
            uid: name.into(),
            phase: Phase::Running,
            grace_seconds: 30,
            ..Pod::default()
        };
        change(&mut pod);
        Arc::new(pod)
    }

    fn critical(pod: &mut Pod) {
        pod.priority_class = Some("system-node-critical".into());
    }
    fn daemon(pod: &mut Pod) {
        pod.owner = Owner::DaemonSet;
    }
    fn going(pod: &mut Pod) {
        pod.deleted = Some(at(1030));
    }

    fn all_tiers() -> Vec<Arc<Pod>> {
        vec![
            pod("critical-daemon", |p| {
                critical(p);
                daemon(p);
            }),
            pod("critical", critical),
            pod("daemon", daemon),
            pod("plain", |_| ()),
        ]
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter().map(|p| &*p.key.name).collect()
    }

    #[rstest]
    #[case::plain_first(4, vec!["plain"])]
    #[case::then_daemons(3, vec!["daemon"])]
    #[case::then_critical(2, vec!["critical"])]
    #[case::critical_daemons_last(1, vec!["critical-daemon"])]
    #[case::nothing_left(0, vec![])]
    fn tiers_go_one_after_the_other(#[case] left: usize, #[case] expected: Vec<&str>) {
        let pods = all_tiers();
        let drain = drain(&pods[..left], None, at(1000));
        assert_eq!(names(&drain.evict), expected);
        assert_eq!(drain.waiting.len(), left);
        assert!(drain.force.is_empty());
    }

    #[test]
    fn a_tier_holds_the_next_until_it_is_gone() {
        let pods = [pod("going", going), pod("daemon", daemon)];
        let first = drain(&pods, None, at(1000));
        assert_eq!(names(&first.evict), Vec::<&str>::new());
        assert_eq!(names(&first.waiting), ["going", "daemon"]);
        assert_eq!(
            first.wake,
            Some(at(1090) + PAST_STUCK),
            "then it counts as stuck"
        );
        let later = drain(&pods, None, at(1090) + PAST_STUCK);
        assert_eq!(names(&later.evict), ["daemon"]);
        assert_eq!(names(&later.waiting), ["daemon"]);
        assert_eq!(later.wake, None);
    }

    #[test]
    fn some_pods_are_never_touched() {
        let tolerates = |p: &mut Pod| {
            p.tolerations = vec![Toleration {
                operator: Some("Exists".into()),
                ..Toleration::default()
            }];
        };
        let pods = [
            pod("tolerates", tolerates),
            pod("mirror", |p| p.owner = Owner::Node),
            pod("done", |p| p.phase = Phase::Succeeded),
            pod("failed", |p| p.phase = Phase::Failed),
        ];
        let drain = drain(&pods, Some(at(0)), at(1000));
        assert_eq!(names(&drain.waiting), Vec::<&str>::new());
        assert!(drain.force.is_empty() && drain.evict.is_empty());
    }

    #[test]
    fn protected_pods_hold_the_drain() {
        let protect = |p: &mut Pod| {
            p.annotations
                .insert("karpenter.sh/do-not-disrupt".into(), "true".into());
        };
        let drain = drain(
            &[pod("protected", protect), pod("daemon", daemon)],
            None,
            at(1000),
        );
        assert_eq!(
            names(&drain.evict),
            ["protected"],
            "the queue holds it, the tier waits"
        );
        assert_eq!(drain.waiting.len(), 2);
    }

    #[rstest]
    #[case::time_left(1031, vec![], Some(1001))]
    #[case::grace_ends_at_the_deadline(1030, vec!["plain"], None)]
    #[case::deadline_passed(900, vec!["plain"], None)]
    fn pods_are_forced_in_time(
        #[case] deadline: i64,
        #[case] forced: Vec<&str>,
        #[case] wake: Option<i64>,
    ) {
        let drain = drain(&[pod("plain", |_| ())], Some(at(deadline)), at(1000));
        assert_eq!(names(&drain.force), forced);
        assert_eq!(drain.wake, wake.map(at));
    }

    #[test]
    fn forcing_knows_no_tiers() {
        let slow = pod("slow-critical", |p| {
            critical(p);
            p.grace_seconds = 600;
        });
        let drain = drain(&[slow, pod("plain", |_| ())], Some(at(1300)), at(1000));
        assert_eq!(names(&drain.force), ["slow-critical"]);
        assert_eq!(
            names(&drain.evict),
            ["plain"],
            "a forced pod holds nobody up"
        );
    }

    #[rstest]
    #[case::goes_in_time(1010, 1020, false)]
    #[case::goes_at_the_deadline(1020, 1020, false)]
    #[case::takes_too_long(1100, 1020, true)]
    #[case::too_late_and_nothing_to_gain(1001, 900, false)]
    #[case::too_late_and_still_long(1060, 900, true)]
    fn pods_that_go_too_slowly_are_hurried(
        #[case] goes: i64,
        #[case] deadline: i64,
        #[case] expected: bool,
    ) {
        let pod = pod("p", |p| p.deleted = Some(at(goes)));
        assert_eq!(must_be_forced(&pod, at(deadline), at(1000)), expected);
    }

    #[rstest]
    #[case::left(1030, 30)]
    #[case::less_than_a_second(1000, 1)]
    #[case::passed(0, 1)]
    fn forced_grace_is_never_zero(#[case] deadline: i64, #[case] expected: u32) {
        assert_eq!(forced_grace(at(deadline), at(1000)), expected);
    }
}
