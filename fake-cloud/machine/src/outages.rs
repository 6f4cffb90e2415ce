//! Programs that are not well for a time, by themselves and from the seed, and what their probes make of it.

use std::sync::Arc;
use std::time::Duration;

use karpenter_fake_kube::loops::object;
use karpenter_runtime::RngTree;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::options::Span;
use crate::probes;

/// How often programs are not well, and for how long. Only those with a readiness or a liveness probe are so, as nobody
/// would hear of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outages {
    /// From well to not well.
    pub every: Span,
    /// From not well to well. What is shorter than a probe's patience is not noticed.
    pub lasts: Span,
}

impl Default for Outages {
    fn default() -> Self {
        Self {
            every: Span::seconds(300, 1800),
            lasts: Span::seconds(5, 300),
        }
    }
}

/// Handle on the programs of a kubelet model: whether they are always well, as they are at first, or not. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    outages: Mutex<Option<Outages>>,
    wake: Notify,
}

impl Programs {
    /// From now on programs are not well now and then, or always well again; what has begun comes to its end.
    pub fn fail(&self, outages: Option<Outages>) {
        *self.inner.outages.lock() = outages;
        self.inner.wake.notify_one();
    }

    pub(crate) fn outages(&self) -> Option<Outages> {
        *self.inner.outages.lock()
    }

    /// Waits until it was said anew.
    pub(crate) async fn changed(&self) {
        self.inner.wake.notified().await;
    }
}

/// Which probe fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    Readiness,
    Liveness,
}

/// A time in which a container's program is not well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outage {
    probe: Probe,
    container: String,
    pub(crate) from: Instant,
    /// When the probe has failed often enough.
    noticed: Instant,
    pub(crate) until: Instant,
}

impl Outage {
    /// The nth of a pod's; none where it has no such probe.
    pub(crate) fn plan(
        pod: &Value,
        outages: &Outages,
        rng: &RngTree,
        n: u32,
        now: Instant,
    ) -> Option<Self> {
        let probes = [
            (Probe::Readiness, "readinessProbe"),
            (Probe::Liveness, "livenessProbe"),
        ];
        let probed = probes.into_iter().flat_map(|(probe, key)| {
            let with = probes::probed(pod, key);
            with.map(move |c| (probe, object::text(c, &["name"]), probes::patience(c, key)))
        });
        let probed: Vec<(Probe, &str, Duration)> = probed.collect();
        let whom = format!("{}/{n}", object::uid(pod));
        let which = rng.child("outage-of", &whom).rng();
        let count = u64::try_from(probed.len()).ok().filter(|c| *c > 0)?;
        let which = usize::try_from({ which }.below(count)).ok()?;
        let (probe, container, patience) = *probed.get(which)?;
        let from = now + outages.every.draw(rng, "outage-after", &whom);
        let until = from + outages.lasts.draw(rng, "outage-for", &whom);
        Some(Self {
            probe,
            container: container.to_owned(),
            from,
            noticed: from + patience,
            until,
        })
    }

    /// Whether the readiness probe has failed often enough and has not succeeded since.
    pub(crate) fn is_unready(&self, now: Instant) -> bool {
        self.probe == Probe::Readiness && now >= self.noticed && now < self.until
    }

    /// When a container is killed for it, and which.
    pub(crate) fn kills(&self) -> Option<(Instant, Vec<String>)> {
        let killed = self.probe == Probe::Liveness && self.noticed < self.until;
        killed.then(|| (self.noticed, vec![self.container.clone()]))
    }

    /// When there is something to see next.
    pub(crate) fn changes_after(&self, now: Instant) -> Option<Instant> {
        let times = [self.noticed, self.until];
        times.into_iter().filter(|t| *t > now).min()
    }
}
