//! Leader election on a `coordination.k8s.io/v1` Lease: at most one process runs the loops. No crate does this for
//! the kube version we are on.
//!
//! Whether another's lease has run out is judged by how long *we* have not seen it change, never by comparing its
//! timestamps with our clock: clocks differ.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::rng::Rng;
use crate::{Clock, RngTree};

/// Part of the retry period that jitter may add.
const JITTER_FRACTION: f64 = 0.2;

/// How long a released lease is still good for (s): as good as not at all, but the API wants a positive number.
const RELEASED_SECONDS: i32 = 1;

/// How the lease is held.
#[derive(Clone, Debug)]
pub struct LeaderOptions {
    /// Name of the Lease.
    pub name: String,
    /// Namespace of the Lease.
    pub namespace: String,
    /// Who we are; unique among contenders, and not used again after a restart.
    pub identity: String,
    /// How long a lease is good for without being renewed.
    pub lease_duration: Duration,
    /// How long the holder tries to renew it before it gives up.
    pub renew_deadline: Duration,
    /// Wait between tries.
    pub retry_period: Duration,
}

impl LeaderOptions {
    /// With the times of `operations.md` §2: 15 s, 10 s, 2 s.
    #[must_use]
    pub fn new(name: &str, namespace: &str, identity: &str) -> Self {
        Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            identity: identity.to_owned(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// Renewals that did not succeed at once.
const RENEWALS_REPEATED: &str = "leader_election_slowpath_total";

/// The lease while it is held.
#[derive(Debug)]
pub struct Leadership {
    lost: CancellationToken,
    release: CancellationToken,
    task: JoinHandle<()>,
}

impl Leadership {
    /// Cancelled when the lease is lost: everything it allowed must stop at once.
    #[must_use]
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Gives the lease back, so that the next holder need not wait for it to run out.
    pub async fn release(self) {
        self.release.cancel();
        // A panic in there has been reported; there is nothing left to give back.
        let _ = self.task.await;
    }

    /// Aborting this stops renewing without giving the lease back, as a crash would.
    #[must_use]
    pub fn abort_handle(&self) -> tokio::task::AbortHandle {
        self.task.abort_handle()
    }
}

/// Waits until the lease is ours and keeps it renewed in a task of its own. `client` must not retry on its own:
/// a late renewal is worse than none.
pub async fn acquire(
    client: kube::Client,
    options: LeaderOptions,
    clock: Clock,
    rng: &RngTree,
    metrics: Metrics,
) -> Leadership {
    let mut contender = Contender {
        api: Api::namespaced(client, &options.namespace),
        jitter: rng.child("leader", &options.identity).rng(),
        clock,
        seen: None,
        metrics: metrics.clone(),
        options,
    };
    let label = [("name", contender.options.name.as_str())];
    metrics.set("leader_election_master_status", &label, 0.0);
    metrics.add(RENEWALS_REPEATED, &label, 0.0);
    tracing::info!(
        lock = %format_args!("{}/{}", contender.options.namespace, contender.options.name),
        "attempting to acquire leader lease..."
    );
    while !contender.try_hold().await {
        contender.pause().await;
    }
    tracing::info!(
        lock = %format_args!("{}/{}", contender.options.namespace, contender.options.name),
        "successfully acquired lease"
    );
    let name = contender.options.name.clone();
    metrics.set("leader_election_master_status", &[("name", &name)], 1.0);
    let lost = CancellationToken::new();
    let release = CancellationToken::new();
    let task = tokio::spawn({
        let (lost, release) = (lost.clone(), release.clone());
        async move {
            contender.keep(&release).await;
            metrics.set("leader_election_master_status", &[("name", &name)], 0.0);
            lost.cancel();
        }
    });
    Leadership {
        lost,
        release,
        task,
    }
}

/// A lease as last seen, and since when it has looked like that.
struct Seen {
    holder: String,
    renewed: Option<MicroTime>,
    good_for: Duration,
    since: Instant,
}

struct Contender {
    api: Api<Lease>,
    options: LeaderOptions,
    clock: Clock,
    jitter: Rng,
    seen: Option<Seen>,
    metrics: Metrics,
}

impl Contender {
    /// Renews until that fails for too long or the lease is to be given back.
    async fn keep(&mut self, release: &CancellationToken) {
        let mut renewed = self.clock.now();
        loop {
            tokio::select! {
                biased;
                () = release.cancelled() => return self.give_back().await,
                () = self.pause() => {}
            }
            let left =
                (renewed + self.options.renew_deadline).saturating_duration_since(self.clock.now());
            let began = self.clock.now();
            match tokio::time::timeout(left, self.try_hold()).await {
                Ok(true) => renewed = began,
                Ok(false) if self.held_by_another() => {
                    tracing::error!(lock = self.options.name, "leader lease was taken");
                    return;
                }
                Ok(false) if self.clock.now() < renewed + self.options.renew_deadline => {
                    let label = [("name", self.options.name.as_str())];
                    self.metrics.inc(RENEWALS_REPEATED, &label);
                }
                Ok(false) | Err(_) => {
                    tracing::error!(
                        lock = self.options.name,
                        "failed to renew leader lease in time"
                    );
                    return;
                }
            }
        }
    }

    fn held_by_another(&self) -> bool {
        self.seen
            .as_ref()
            .is_some_and(|seen| !seen.holder.is_empty() && seen.holder != self.options.identity)
    }

    /// One try to take or renew the lease.
    async fn try_hold(&mut self) -> bool {
        match self.hold().await {
            Ok(held) => held,
            Err(error) => {
                // Another contender was faster, or the API server has its moments.
                tracing::debug!(lock = self.options.name, error = %error, "failed holding lease");
                false
            }
        }
    }

    async fn hold(&mut self) -> Result<bool, kube::Error> {
        let Some(lease) = self.api.get_opt(&self.options.name).await? else {
            let now = MicroTime(self.clock.wall());
            let lease: Lease = Lease {
                metadata: kube::core::ObjectMeta {
                    name: Some(self.options.name.clone()),
                    namespace: Some(self.options.namespace.clone()),
                    ..kube::core::ObjectMeta::default()
                },
                spec: Some(k8s_openapi::api::coordination::v1::LeaseSpec {
                    holder_identity: Some(self.options.identity.clone()),
                    lease_duration_seconds: Some(self.duration_seconds()),
                    acquire_time: Some(now.clone()),
                    renew_time: Some(now),
                    lease_transitions: Some(0),
                    ..Default::default()
                }),
            };
            let made = self.api.create(&PostParams::default(), &lease).await?;
            self.observe(&made);
            return Ok(true);
        };
        self.observe(&lease);
        let mine = self
            .seen
            .as_ref()
            .is_some_and(|seen| seen.holder == self.options.identity);
        if !mine && !self.has_run_out() {
            return Ok(false);
        }
        let spec = lease.spec.unwrap_or_default();
        let now = MicroTime(self.clock.wall());
        let transitions = spec.lease_transitions.unwrap_or(0) + i32::from(!mine);
        let acquired = if mine { spec.acquire_time } else { None }.unwrap_or_else(|| now.clone());
        let patch = json!({
            // Guards against another contender that read the same lease.
            "metadata": { "resourceVersion": lease.metadata.resource_version },
            "spec": {
                "holderIdentity": self.options.identity,
                "leaseDurationSeconds": self.duration_seconds(),
                "acquireTime": acquired,
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        });
        let held = self.write(&patch).await?;
        self.observe(&held);
        Ok(true)
    }

    async fn write(&self, patch: &serde_json::Value) -> Result<Lease, kube::Error> {
        let params = PatchParams::default();
        self.api
            .patch(&self.options.name, &params, &Patch::Merge(patch))
            .await
    }

    fn observe(&mut self, lease: &Lease) {
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.unwrap_or_default();
        let seconds = spec.lease_duration_seconds.unwrap_or(0);
        let unchanged = self
            .seen
            .as_ref()
            .is_some_and(|seen| seen.holder == holder && seen.renewed == spec.renew_time);
        if !unchanged {
            self.seen = Some(Seen {
                holder,
                renewed: spec.renew_time,
                good_for: Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
                since: self.clock.now(),
            });
        }
    }

    fn has_run_out(&self) -> bool {
        self.seen.as_ref().is_none_or(|seen| {
            seen.holder.is_empty() || self.clock.now() >= seen.since + seen.good_for
        })
    }

    async fn give_back(&mut self) {
        let lease = match self.api.get_opt(&self.options.name).await {
            Ok(Some(lease)) => lease,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(lock = self.options.name, error = %error, "failed releasing lease");
                return;
            }
        };
        self.observe(&lease);
        if self.held_by_another() {
            return;
        }
        let now = MicroTime(self.clock.wall());
        let patch = json!({
            "metadata": { "resourceVersion": lease.metadata.resource_version },
            "spec": {
                "holderIdentity": "",
                "leaseDurationSeconds": RELEASED_SECONDS,
                "acquireTime": now,
                "renewTime": now,
            },
        });
        if let Err(error) = self.write(&patch).await {
            tracing::debug!(lock = self.options.name, error = %error, "failed releasing lease");
        }
    }

    fn duration_seconds(&self) -> i32 {
        i32::try_from(self.options.lease_duration.as_secs()).unwrap_or(i32::MAX)
    }

    async fn pause(&mut self) {
        let more = 1.0 + JITTER_FRACTION * self.jitter.unit();
        self.clock
            .sleep(self.options.retry_period.mul_f64(more))
            .await;
    }
}
