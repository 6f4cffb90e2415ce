//! `nodeclaim.podevents`: stamps a claim whenever a pod comes to its node or leaves it; `consolidateAfter` counts
//! from that stamp (`lifecycle-and-disruption.md` §3.1).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use karpenter_model::{Pod, PodKey};
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::runner::ReconcileError;
use karpenter_runtime::{Action, Key, Queue, Reconciler};
use parking_lot::Mutex;

use super::objects::{Time, is_managed_claim, later, provider_id};
use super::write;
use crate::Context;

/// Shortest time between two stamps of a claim. Below the fifteen seconds that a disruption is validated for, so
/// that a pod that came in the meantime shows.
const STAMP_INTERVAL: Duration = Duration::from_secs(10);

/// What was last seen of a pod, as far as it decides on stamps.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    uid: Arc<str>,
    node: Option<Arc<str>>,
    terminal: bool,
    terminating: bool,
}

impl Seen {
    fn of(pod: &Pod) -> Self {
        Self {
            uid: pod.uid.clone(),
            node: pod.node_name.clone(),
            terminal: pod.is_terminal(),
            terminating: pod.is_terminating(),
        }
    }
}

/// Whether a pod's change is one that a claim is stamped for.
fn counts(before: Option<&Seen>, after: &Seen) -> bool {
    if after.node.is_none() {
        return false;
    }
    match before.filter(|b| b.uid == after.uid) {
        // Seen for the first time, be it because we have just started.
        None => true,
        Some(before) => {
            before.node.is_none()
                || (after.terminal && !before.terminal)
                || (after.terminating && !before.terminating)
        }
    }
}

/// Turns changes of pods into stamps to be written.
#[derive(Debug, Default)]
pub(crate) struct PodEvents {
    seen: Mutex<BTreeMap<PodKey, Seen>>,
    /// Claim to the time to stamp it with.
    due: Mutex<BTreeMap<Arc<str>, Timestamp>>,
}

impl PodEvents {
    /// Takes a pod as it is now (none: it is gone, which does not count: it was terminating before). Returns the
    /// node it is on, or was on last.
    pub(crate) fn observe(
        &self,
        ctx: &Context,
        key: &PodKey,
        pod: Option<&Pod>,
        queue: &Queue,
    ) -> Option<Arc<str>> {
        let mut seen = self.seen.lock();
        let Some(pod) = pod else {
            return seen.remove(key)?.node;
        };
        let now_seen = Seen::of(pod);
        let node_name = now_seen.node.clone();
        if !pod.is_daemon() && counts(seen.get(key), &now_seen) {
            let Some(node) = node_name.as_deref().and_then(|n| ctx.state.node(n)) else {
                // The Node is not known yet: the pod is looked at again as if for the first time.
                return node_name;
            };
            let at = ctx.clock.wall();
            for claim in ctx.state.claims_by_provider_id(provider_id(&node)) {
                let name: Arc<str> = super::objects::name(&claim.metadata).into();
                self.due.lock().insert(name.clone(), at);
                queue.add(Key::cluster(&name));
            }
        }
        seen.insert(key.clone(), now_seen);
        node_name
    }
}

/// The reconciler: writes the stamps.
pub(crate) struct PodEventStamps {
    pub(crate) ctx: Context,
    pub(crate) events: Arc<PodEvents>,
}

#[async_trait]
impl Reconciler for PodEventStamps {
    fn name(&self) -> &'static str {
        "nodeclaim.podevents"
    }
    fn group_kind(&self) -> (&'static str, &'static str) {
        ("karpenter.sh", "NodeClaim")
    }
    fn metrics(&self) -> Option<&Metrics> {
        Some(&self.ctx.metrics)
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let Some(at) = self.events.due.lock().get(&key.name).copied() else {
            return Ok(Action::AwaitChange);
        };
        let claim = self.ctx.state.node_claim(&key.name);
        let claim = claim.filter(|c| is_managed_claim(c, &self.ctx.provider.node_class));
        if let Some(claim) = claim
            && is_due(claim.status.last_pod_event_time.as_ref().map(|t| t.0), at)
        {
            let mut wanted = (*claim).clone();
            wanted.status.last_pod_event_time = Some(Time(at));
            write::claim(&self.ctx, &claim, &wanted).await?;
        }
        let mut due = self.events.due.lock();
        if due.get(&key.name) == Some(&at) {
            due.remove(&key.name);
        }
        Ok(Action::AwaitChange)
    }
}

fn is_due(last: Option<Timestamp>, at: Timestamp) -> bool {
    last.is_none_or(|last| at >= later(last, STAMP_INTERVAL))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn seen(uid: &str, node: Option<&str>, terminal: bool, terminating: bool) -> Seen {
        Seen {
            uid: uid.into(),
            node: node.map(Into::into),
            terminal,
            terminating,
        }
    }

    #[rstest]
    #[case::pending(None, seen("u", None, false, false), false)]
    #[case::first_seen_bound(None, seen("u", Some("n"), false, false), true)]
    #[case::bound(
        Some(seen("u", None, false, false)),
        seen("u", Some("n"), false, false),
        true
    )]
    #[case::nothing_new(
        Some(seen("u", Some("n"), false, false)),
        seen("u", Some("n"), false, false),
        false
    )]
    #[case::ended(
        Some(seen("u", Some("n"), false, false)),
        seen("u", Some("n"), true, false),
        true
    )]
    #[case::going(
        Some(seen("u", Some("n"), false, false)),
        seen("u", Some("n"), false, true),
        true
    )]
    #[case::going_after_its_end(
        Some(seen("u", Some("n"), true, false)),
        seen("u", Some("n"), true, true),
        true
    )]
    #[case::another_of_the_name(
        Some(seen("u", Some("n"), false, true)),
        seen("v", Some("n"), false, false),
        true
    )]
    fn some_changes_count(
        #[case] before: Option<Seen>,
        #[case] after: Seen,
        #[case] expected: bool,
    ) {
        assert_eq!(counts(before.as_ref(), &after), expected);
    }

    #[rstest]
    #[case::never_stamped(None, 100, true)]
    #[case::too_soon(Some(91), 100, false)]
    #[case::long_enough(Some(90), 100, true)]
    fn stamps_keep_their_distance(
        #[case] last: Option<i64>,
        #[case] at: i64,
        #[case] expected: bool,
    ) {
        let time = |s: i64| Timestamp::from_second(s).expect("a time");
        assert_eq!(is_due(last.map(time), time(at)), expected);
    }
}
