//! Probes that fail for long enough to have their containers killed: startup and liveness. Somebody says so by an
//! annotation, and the probes' own periods and thresholds say how long it takes.

use std::time::Duration;

use karpenter_fake_kube::loops::object::{self, at, int, items, text};
use serde_json::Value;

/// Annotation: liveness probes fail while this is `true`.
pub const UNLIVE: &str = "karpenter-rs.test/unlive";
/// Annotation: startup probes fail while this is `true`; until they succeed a pod is not ready.
pub const UNSTARTED: &str = "karpenter-rs.test/unstarted";

/// What probes begin with where they do not say otherwise.
const PERIOD_SECONDS: i64 = 10;
const FAILURES: i64 = 3;

/// Containers whose probe fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failing {
    /// Their names.
    pub(crate) containers: Vec<String>,
    /// From their start to the first probe.
    pub(crate) delay: Duration,
    /// From the first probe that fails to the kill.
    pub(crate) patience: Duration,
}

fn is_true(pod: &Value, annotation: &str) -> bool {
    object::annotation(pod, annotation) == "true"
}

/// Whether a pod has a startup probe that fails.
pub(crate) fn is_unstarted(pod: &Value) -> bool {
    is_true(pod, UNSTARTED) && probed(pod, "startupProbe").next().is_some()
}

/// Containers that have a probe.
pub(crate) fn probed<'a>(pod: &'a Value, probe: &'a str) -> impl Iterator<Item = &'a Value> {
    let containers = items(pod, &["spec", "containers"]).iter();
    containers.filter(move |c| at(c, &[probe]).is_object())
}

fn seconds(n: i64) -> Duration {
    Duration::from_secs(u64::try_from(n).unwrap_or(0))
}

fn number(container: &Value, probe: &str, key: &str, otherwise: i64) -> i64 {
    int(container, &[probe, key]).unwrap_or(otherwise)
}

/// How long a container's probe has to fail until it counts.
pub(crate) fn patience(container: &Value, probe: &str) -> Duration {
    let period = number(container, probe, "periodSeconds", PERIOD_SECONDS).max(1);
    let failures = number(container, probe, "failureThreshold", FAILURES).max(1);
    seconds(period.saturating_mul(failures))
}

/// Which containers a failing probe will have killed, and when; the first of them decides. Until a startup probe has
/// succeeded no other is asked.
pub(crate) fn failing(pod: &Value) -> Option<Failing> {
    let probe = if is_unstarted(pod) {
        "startupProbe"
    } else if is_true(pod, UNLIVE) {
        "livenessProbe"
    } else {
        return None;
    };
    let first = |times: &dyn Fn(&Value) -> Duration| probed(pod, probe).map(times).min();
    let delay = first(&|c| {
        let before = int(c, &["startupProbe", "initialDelaySeconds"]).unwrap_or(0);
        seconds(number(c, probe, "initialDelaySeconds", 0).max(before))
    })?;
    let patience = first(&|c| patience(c, probe))?;
    let containers = probed(pod, probe).map(|c| text(c, &["name"]).to_owned());
    Some(Failing {
        containers: containers.collect(),
        delay,
        patience,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_probes_say_who_is_killed_and_when() {
        let pod = |annotation: &str| {
            json!({"metadata": {"annotations": {annotation: "true"}}, "spec": {"containers": [
                {"name": "a", "livenessProbe": {"periodSeconds": 5, "failureThreshold": 2, "initialDelaySeconds": 7}},
                {"name": "b"},
                {"name": "c", "livenessProbe": {}, "startupProbe": {"periodSeconds": 2, "failureThreshold": 30}},
            ]}})
        };
        let found = failing(&pod(UNLIVE)).unwrap();
        assert_eq!(found.containers, ["a", "c"]);
        assert_eq!((found.delay.as_secs(), found.patience.as_secs()), (0, 10));
        let found = failing(&pod(UNSTARTED)).unwrap();
        assert_eq!(found.containers, ["c"]);
        assert_eq!(found.patience.as_secs(), 60);
        assert_eq!(failing(&pod("other")), None);
        let bare = json!({"metadata": {"annotations": {UNLIVE: "true"}}, "spec": {"containers": [{"name": "b"}]}});
        assert_eq!(failing(&bare), None);
    }
}
