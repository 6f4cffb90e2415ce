//! What makes the provisioner look again, and what does not.
//!
//! Upstream asks about every pending pod each 10 seconds. Here a run happens when its result can differ from the
//! last one's: a pod became provisionable or asks for something else; a pod waits (or sits on a node that leaves)
//! and something about nodes, claims, pools or DaemonSets changed that plans depend on (the state counts that, so
//! heartbeats do not get here), which is also how room that a capacity buffer has lost is bought again; the catalogue changed, which is how an offering that is to be had again gets heard;
//! the last run failed in part, which time alone may mend; or the loop starts and finds pods that wait. Nothing else makes it run, however long pods wait.
//! A pod for which we bought twice, and whose machine came up but takes it no more or is gone again (a taint that comes
//! late, say), waits before it makes us buy again, [`REBUY_AFTER`] at first and twice as long each time: each node may
//! fare like the last one. A machine that never came up is no reason to wait: the next may be one that does.
//! Nominations lapse with time, so nodes that pods are planned onto are nominated again while the pods wait.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use karpenter_api::condition::node_claim;
use karpenter_model::{Plan, Pod, PodKey};
use karpenter_runtime::Clock;
use karpenter_runtime::metrics::Metrics;
use karpenter_state::{Changed, Kind, Store, condition_is_true};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::batch::Triggers;
use super::problem::{self, Pods};

/// How long the second purchase for a pod keeps changes from making us buy a third time.
const REBUY_AFTER: Duration = Duration::from_secs(10);
/// Most doublings of that.
const MAX_DOUBLINGS: u32 = 5;

/// What was bought for a pod, and when.
#[derive(Debug)]
struct Purchase {
    claim: Arc<str>,
    at: Instant,
    /// The pod as it was then: one that has moved since needs a place anew.
    pod: Arc<Pod>,
    /// How many had been bought for it shortly before, one after the other.
    before: u32,
}

impl Purchase {
    /// How long it keeps changes from making us buy again.
    fn hold(&self) -> Duration {
        match self.before.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => REBUY_AFTER * 2u32.pow(doublings.min(MAX_DOUBLINGS)),
        }
    }
}

/// What the last run leaves behind for the next trigger.
#[derive(Debug, Default)]
pub(super) struct LastRun {
    /// The state's planning generation that it saw.
    pub(super) generation: u64,
    /// The pods it was about, by UID.
    pub(super) pods: BTreeMap<Arc<str>, Arc<Pod>>,
    /// Nodes it planned pods onto.
    pub(super) nominated: Vec<Arc<str>>,
    /// When to run again although nothing changed.
    pub(super) retry_at: Option<Instant>,
    /// Whether a chunk of a capacity buffer found no place.
    pub(super) chunk_is_missing: bool,
}

impl LastRun {
    /// A run that saw `generation` and dealt with `pods`.
    pub(super) fn about(generation: u64, pods: &Pods) -> Self {
        let refused = pods.refused.iter().map(|(pod, _)| pod);
        Self {
            generation,
            pods: pods
                .all()
                .chain(refused)
                .map(|p| (p.uid.clone(), p.clone()))
                .collect(),
            ..Self::default()
        }
    }
}

/// The source of triggers.
pub(super) struct Feed {
    pub(super) state: Arc<Store>,
    pub(super) clock: Clock,
    pub(super) changes: UnboundedReceiver<Changed>,
    pub(super) catalog: UnboundedReceiver<()>,
    pub(super) stop: CancellationToken,
    pub(super) nomination_window: Duration,
    pub(super) last: LastRun,
    renew_at: Option<Instant>,
    /// The generation that was last found not to concern any pod.
    dismissed: Option<u64>,
    /// Whether the next run has been asked for on account of the cluster. Asking again does not keep its window open, so that
    /// the pods of a large cluster need not be looked at for each further change.
    asked: bool,
    /// What was bought lately, by the UIDs of the pods it was bought for.
    purchases: BTreeMap<Arc<str>, Purchase>,
    /// Claims whose machine has come up, purchases among them.
    arrived: BTreeSet<Arc<str>>,
    /// When pods held back because of a purchase are looked at again.
    release_at: Option<Instant>,
    /// Whether what was there at the start has been looked at: nothing may ever change of it.
    begun: bool,
}

impl Feed {
    pub(super) fn new(
        state: Arc<Store>,
        clock: Clock,
        catalog: UnboundedReceiver<()>,
        stop: CancellationToken,
        nomination_window: Duration,
    ) -> Self {
        let changes = state.subscribe();
        Self {
            state,
            clock,
            changes,
            catalog,
            stop,
            nomination_window,
            last: LastRun::default(),
            renew_at: None,
            dismissed: None,
            asked: false,
            purchases: BTreeMap::new(),
            arrived: BTreeSet::new(),
            release_at: None,
            begun: false,
        }
    }

    /// Takes note of a run that has just ended.
    pub(super) fn ran(&mut self, last: LastRun) {
        self.renew_at =
            (!last.nominated.is_empty()).then(|| Instant::now() + self.nomination_window / 2);
        self.dismissed = None;
        self.asked = false;
        self.release_at = None;
        self.last = last;
        self.note_purchases();
    }

    fn note_purchases(&mut self) {
        let now = Instant::now();
        self.purchases
            .retain(|_, bought| now < bought.at + bought.hold() * 2 + REBUY_AFTER);
        for (uid, pod) in &self.last.pods {
            let Some(claim) = self.state.planned_claim(&pod.key) else {
                continue;
            };
            let known = self.purchases.get(uid);
            // Planned onto the same claim again is not bought again.
            if known.is_none_or(|known| known.claim != claim) {
                let bought = Purchase {
                    claim,
                    at: now,
                    before: known
                        .filter(|known| known.pod.node_name == pod.node_name)
                        .map_or(0, |known| known.before.saturating_add(1)),
                    pod: pod.clone(),
                };
                self.purchases.insert(uid.clone(), bought);
            }
        }
        let bought: BTreeSet<&Arc<str>> = self.purchases.values().map(|p| &p.claim).collect();
        self.arrived.retain(|claim| bought.contains(claim));
    }

    /// Takes note of machines that come up.
    fn note_arrival(&mut self, change: &Changed) {
        if change.kind != Kind::NodeClaim || self.arrived.contains(&change.name) {
            return;
        }
        let claim = self.state.node_claim(&change.name);
        if claim.is_some_and(|c| condition_is_true(&c.status.conditions, node_claim::REGISTERED)) {
            self.arrived.insert(change.name.clone());
        }
    }

    /// Until when a pod has to make do with what was bought for it; none if that is long ago or failed to come up.
    fn held_until(&self, pod: &Pod) -> Option<Instant> {
        let bought = self.purchases.get(&pod.uid)?;
        let until = bought.at + bought.hold();
        let stayed = bought.pod.node_name == pod.node_name;
        let on_its_way = || {
            let claim = self.state.node_claim(&bought.claim);
            claim.is_some_and(|c| c.metadata.deletion_timestamp.is_none())
        };
        let counts = self.arrived.contains(&bought.claim) || on_its_way();
        (stayed && counts && Instant::now() < until).then_some(until)
    }

    /// A plan was made for these pods.
    pub(super) fn decided<'a>(
        &self,
        metrics: &Metrics,
        pods: impl Iterator<Item = &'a Arc<Pod>>,
        plan: &Plan,
    ) {
        let homeless: BTreeSet<&PodKey> = plan.unschedulable.iter().map(|u| &u.pod).collect();
        let now = self.clock.wall();
        for pod in pods {
            let placed = !homeless.contains(&pod.key);
            if let Some(seen) = self.state.note_decision(&pod.key, placed, now) {
                metrics.observe(
                    "karpenter_pods_scheduling_decision_duration_seconds",
                    &[],
                    now.duration_since(seen).as_secs_f64(),
                );
            }
        }
    }

    /// Pods were planned onto these nodes: keeps them from disruption for one window from now.
    pub(super) fn nominate(&self, nodes: &[Arc<str>]) {
        let window = SignedDuration::try_from(self.nomination_window).unwrap_or_default();
        let now = self.clock.wall();
        let until = now.checked_add(window).unwrap_or(now);
        for node in nodes {
            self.state.nominate(node, until);
        }
    }

    fn renew(&mut self) {
        if self.waiting() {
            self.nominate(&self.last.nominated);
            self.renew_at = Some(Instant::now() + self.nomination_window / 2);
        } else {
            self.renew_at = None;
        }
    }

    /// Whether a pod of the last run still has no node of its own.
    fn waiting(&self) -> bool {
        self.last.pods.values().any(|was| {
            self.state
                .pod(&was.key)
                .is_some_and(|is| is.uid == was.uid && is.node_name == was.node_name)
        })
    }

    fn trigger(&mut self, change: &Changed) -> Option<Arc<str>> {
        self.note_arrival(change);
        if change.kind == Kind::Pod && !change.deleted {
            let key = PodKey {
                namespace: change.namespace.clone(),
                name: change.name.clone(),
            };
            let pod = self.state.pod(&key)?;
            if pod.is_provisionable() && pod.is_active() {
                let known = self.last.pods.get(&pod.uid);
                self.state.note_waiting(&pod, self.clock.wall());
                let wants_more = match known {
                    Some(known) => !asks_alike(known, &pod),
                    None => self.held_until(&pod).is_none(),
                };
                if wants_more && self.state.planned_claim(&key).is_none() {
                    return Some(pod.uid.clone());
                }
            }
        }
        self.cluster_changed()
    }

    /// Whether there is a pod to plan for already.
    fn begin(&mut self) -> Option<Arc<str>> {
        self.begun = true;
        for pod in self.state.provisionable_pods() {
            self.state.note_waiting(&pod, self.clock.wall());
        }
        self.cluster_changed()
    }

    /// Whether a plan could come out differently, and there is a pod to plan for.
    fn cluster_changed(&mut self) -> Option<Arc<str>> {
        let generation = self.state.planning_generation();
        if generation == self.last.generation || self.dismissed == Some(generation) {
            return None;
        }
        self.asked = self.asked || self.state.has_virtual_pods() || self.concerns_a_pod();
        if self.asked {
            return Some("cluster".into());
        }
        self.dismissed = Some(generation);
        None
    }

    /// Whether there is a pod to plan for now; if not, when there will be one again.
    fn concerns_a_pod(&mut self) -> bool {
        let (mut concerned, mut release_at) = (false, None);
        // One pod is enough: all of them are looked at only where none is concerned.
        let mut look = |pod: &Arc<Pod>| {
            match self.held_until(pod) {
                None => concerned = true,
                Some(until) => release_at = Some(release_at.map_or(until, |at| until.min(at))),
            }
            if concerned {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        };
        let open = self.state.unplanned_pods();
        if open.iter().try_for_each(&mut look).is_continue() {
            problem::leaving(&self.state, self.clock.wall(), look);
        }
        if !concerned {
            self.release_at = release_at;
        }
        concerned
    }
}

impl Triggers for Feed {
    async fn next(&mut self) -> Option<Arc<str>> {
        if !self.begun
            && let Some(trigger) = self.begin()
        {
            return Some(trigger);
        }
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                Some(change) = self.changes.recv() => {
                    if let Some(trigger) = self.trigger(&change) {
                        return Some(trigger);
                    }
                }
                Some(()) = self.catalog.recv() => {
                    let open = self.state.provisionable_pods();
                    if self.last.chunk_is_missing
                        || open.iter().any(|p| self.held_until(p).is_none())
                    {
                        return Some("catalog".into());
                    }
                }
                () = until(self.last.retry_at) => {
                    self.last.retry_at = None;
                    return Some("retry".into());
                }
                () = until(self.release_at) => {
                    self.release_at = None;
                    self.dismissed = None;
                    if let Some(trigger) = self.cluster_changed() {
                        return Some(trigger);
                    }
                }
                () = until(self.renew_at) => self.renew(),
            }
        }
    }
}

async fn until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// Whether two states of a pod want the same of a node. Its topology spread cannot change; the cluster's, which it may
/// have been planned with, is not in the pod.
fn asks_alike(a: &Pod, b: &Pod) -> bool {
    a.labels == b.labels
        && a.annotations == b.annotations
        && a.requests == b.requests
        && a.tolerations == b.tolerations
        && a.node_selector == b.node_selector
        && a.affinity == b.affinity
        && a.host_ports == b.host_ports
        && a.volumes == b.volumes
}
