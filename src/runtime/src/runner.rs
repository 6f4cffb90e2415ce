//! The keyed runner: a sorted, deduplicating, rate-limited queue in front of a reconciler.
//!
//! Keys that are due run in sorted order, each at most once at a time; an error backs off per key with jitter
//! from the seeded tree; `RequeueAfter` waits on tokio time. A key added while it runs runs once more.
//!
//! Sorted, yet fair: keys due at one moment form a round, a round is worked off in order, and what becomes due
//! meanwhile waits for the next round, so that a busy `a` cannot starve `z`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::metrics::Metrics;
use crate::queue::Shared;
use crate::rng::Rng;
use crate::{Clock, Key, RngTree};

pub use crate::queue::Queue;

tokio::task_local! {
    static CONTROLLER: &'static str;
}

/// Name of the controller whose reconcile we are in; empty outside of one. Label of the cloud's metrics.
#[must_use]
pub fn current_controller() -> &'static str {
    CONTROLLER.try_with(|name| *name).unwrap_or_default()
}

/// Runs `body` as the controller `name`.
async fn as_controller<F: Future>(name: &'static str, body: F) -> F::Output {
    CONTROLLER.scope(name, body).await
}

/// The rounds of a loop that is not keyed, such as the provisioner's. What is done in one has the context that a keyed
/// reconcile has: its log lines name controller and round, the cloud's metrics the controller.
#[derive(Debug)]
pub struct Rounds {
    name: &'static str,
    ids: Rng,
}

impl Rounds {
    /// For the controller `name`. Its rounds are numbered from a generator of its own, so that a seed tells the same
    /// ones whatever other controllers do.
    #[must_use]
    pub fn new(name: &'static str, rng: &RngTree) -> Self {
        Self {
            name,
            ids: reconcile_ids(&tree_of(rng, name)),
        }
    }

    /// The next round. It may be run in a task of its own, beside later ones.
    pub fn begin(&mut self) -> Round {
        Round {
            name: self.name,
            reconcile_id: self.ids.uuid(),
        }
    }
}

/// One round of a loop that is not keyed.
#[derive(Debug)]
#[must_use = "a round is there to be run"]
pub struct Round {
    name: &'static str,
    reconcile_id: String,
}

impl Round {
    /// Does `body` as this round.
    pub async fn run<F: Future>(self, body: F) -> F::Output {
        // At error level, so that the context is there whatever the log level is.
        let span = tracing::error_span!(
            "reconcile",
            controller = self.name,
            namespace = "",
            name = "",
            reconcileID = self.reconcile_id,
        );
        as_controller(self.name, body.instrument(span)).await
    }
}

/// The part of the tree that belongs to a controller's runner.
fn tree_of(rng: &RngTree, name: &str) -> RngTree {
    rng.child("runner", name)
}

fn reconcile_ids(tree: &RngTree) -> Rng {
    tree.child("reconcile-id", "").rng()
}

/// Conflicts in a row that are retried at once; more of them wait like errors do (without counting as such), so
/// that a reader lagging behind the API does not turn into a busy loop.
const IMMEDIATE_CONFLICT_RETRIES: u32 = 3;

/// Values of label `result`.
const RESULTS: [&str; 4] = ["success", "error", "requeue", "requeue_after"];

/// Part of a back-off that jitter may take away.
const JITTER_FRACTION: f64 = 0.25;

/// What a successful reconcile wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing until something changes.
    AwaitChange,
    /// Another look after this time, or at a change before it.
    RequeueAfter(Duration),
}

/// The body of a keyed loop.
#[async_trait]
pub trait Reconciler: Send + Sync + 'static {
    /// Controller name as in logs and metrics, such as `nodeclaim.lifecycle`.
    fn name(&self) -> &'static str;
    /// Group and kind of the objects the keys name, such as `("karpenter.sh", "NodeClaim")`: context of log lines.
    /// Both empty for loops without an object.
    fn group_kind(&self) -> (&'static str, &'static str) {
        ("", "")
    }
    /// Where the runner counts reconciles and queue depth; none = nowhere.
    fn metrics(&self) -> Option<&Metrics> {
        None
    }
    /// Brings one object closer to what it should be. Level-triggered: may run twice, may be cut off anywhere.
    ///
    /// # Errors
    /// Anything that should be tried again with back-off; it is logged and counted by the runner.
    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError>;
}

/// A failed reconcile.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Another writer was faster: try again at once, without counting an error.
    #[error("conflict")]
    Conflict,
    /// Try again with back-off.
    #[error("{0}")]
    Retry(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<kube::Error> for ReconcileError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.is_conflict() => Self::Conflict,
            _ => Self::Retry(Box::new(error)),
        }
    }
}

/// How a runner behaves.
#[derive(Clone, Copy, Debug)]
pub struct RunnerOptions {
    /// Most keys that run at once.
    pub concurrency: usize,
    /// First back-off after an error.
    pub backoff_base: Duration,
    /// Longest back-off.
    pub backoff_max: Duration,
}

impl Default for RunnerOptions {
    fn default() -> Self {
        Self {
            concurrency: 10,
            backoff_base: Duration::from_millis(100),
            backoff_max: Duration::from_secs(60),
        }
    }
}

impl RunnerOptions {
    /// Back-off after the `failures`-th failure in a row: doubling from the base to the maximum, less up to a
    /// quarter of jitter (`unit` in `0.0..1.0`).
    #[must_use]
    pub fn backoff(&self, failures: u32, unit: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let full = self
            .backoff_base
            .saturating_mul(1_u32 << doublings)
            .min(self.backoff_max);
        full.mul_f64(1.0 - JITTER_FRACTION * unit.clamp(0.0, 1.0))
    }
}

/// Starts a runner for `reconciler` as a tokio task that ends, its reconciles finished, when `stop` is cancelled.
/// Returns the handle to feed it. Aborting the task aborts the reconciles too.
pub fn spawn<R: Reconciler>(
    reconciler: Arc<R>,
    options: RunnerOptions,
    clock: Clock,
    rng: &RngTree,
    stop: CancellationToken,
) -> (Queue, tokio::task::JoinHandle<()>) {
    let metrics = reconciler.metrics().cloned().unwrap_or_default();
    let shared = Arc::new(Shared::new(reconciler.name(), metrics.clone()));
    let running = Arc::downgrade(&shared);
    metrics.on_scrape_while(move |metrics| {
        running.upgrade().is_some_and(|shared| {
            shared.report_running(metrics);
            true
        })
    });
    let tree = tree_of(rng, reconciler.name());
    let runner = Runner {
        ids: reconcile_ids(&tree),
        tree,
        reconciler,
        options,
        clock,
        metrics,
        shared: Arc::clone(&shared),
        running: JoinSet::new(),
        started: BTreeMap::new(),
        failures: BTreeMap::new(),
        conflicts: BTreeMap::new(),
    };
    let task = tokio::spawn(runner.run(stop));
    (Queue::new(shared), task)
}

/// A reconcile's end: its result, or how its task died.
type Finished = Result<(Id, Result<Action, ReconcileError>), JoinError>;

struct Runner<R> {
    reconciler: Arc<R>,
    options: RunnerOptions,
    clock: Clock,
    tree: RngTree,
    ids: Rng,
    metrics: Metrics,
    shared: Arc<Shared>,
    running: JoinSet<Result<Action, ReconcileError>>,
    started: BTreeMap<Id, (Key, Instant)>,
    failures: BTreeMap<Key, u32>,
    conflicts: BTreeMap<Key, u32>,
}

impl<R: Reconciler> Runner<R> {
    async fn run(mut self, stop: CancellationToken) {
        let name = self.reconciler.name();
        let slots = self.options.concurrency.max(1);
        self.metrics.set(
            "controller_runtime_max_concurrent_reconciles",
            &[("controller", name)],
            count(slots),
        );
        self.seed();
        loop {
            let next_deadline = self.shared.promote_due(self.clock.now());
            while self.running.len() < slots {
                let Some(key) = self.shared.take(self.clock.now()) else {
                    break;
                };
                self.start(key);
            }
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(finished) = self.running.join_next_with_id(), if !self.running.is_empty() => {
                    self.finish(finished);
                    // All that ended together is booked before anything new starts, so that order depends on
                    // keys and not on which task was polled first.
                    while let Some(finished) = self.running.try_join_next_with_id() {
                        self.finish(finished);
                    }
                }
                () = shared.changed() => {}
                () = sleep_until(next_deadline) => {}
            }
        }
        self.shared.close();
        while let Some(finished) = self.running.join_next_with_id().await {
            self.finish(finished);
        }
    }

    /// What may never happen counts zero from the start, so that a first time is an increase.
    fn seed(&self) {
        let name = self.reconciler.name();
        for result in RESULTS {
            let labels = [("controller", name), ("result", result)];
            self.metrics
                .add("controller_runtime_reconcile_total", &labels, 0.0);
        }
        for counter in [
            "controller_runtime_reconcile_errors_total",
            "controller_runtime_reconcile_panics_total",
            // Both stay zero: errors are all tried again, and no reconcile is cut off by a clock.
            "controller_runtime_terminal_reconcile_errors_total",
            "controller_runtime_reconcile_timeouts_total",
        ] {
            self.metrics.add(counter, &[("controller", name)], 0.0);
        }
    }

    fn start(&mut self, key: Key) {
        let name = self.reconciler.name();
        let (group, kind) = self.reconciler.group_kind();
        // At error level, so that the context is there whatever the log level is.
        let span = tracing::error_span!(
            "reconcile",
            controller = name,
            controllerGroup = group,
            controllerKind = kind,
            namespace = key.namespace.as_deref().unwrap_or_default(),
            name = &*key.name,
            reconcileID = self.ids.uuid(),
        );
        let reconciler = Arc::clone(&self.reconciler);
        let owned = key.clone();
        let body = async move {
            let result = reconciler.reconcile(&owned).await;
            if let Err(ReconcileError::Retry(error)) = &result {
                tracing::error!(error = %error, "Reconciler error");
            }
            result
        };
        let handle = self
            .running
            .spawn(as_controller(name, body.instrument(span)));
        self.started.insert(handle.id(), (key, self.clock.now()));
        self.report_active();
    }

    fn finish(&mut self, finished: Finished) {
        let (id, result) = match finished {
            Ok((id, result)) => (id, Some(result)),
            Err(error) => {
                if error.is_panic() {
                    tracing::error!(
                        controller = self.reconciler.name(),
                        error = %error,
                        "Observed a panic"
                    );
                }
                (error.id(), None)
            }
        };
        let Some((key, since)) = self.started.remove(&id) else {
            return;
        };
        let name = self.reconciler.name();
        let took = self.clock.now().saturating_duration_since(since);
        let controller = [("controller", name)];
        self.metrics.observe(
            "controller_runtime_reconcile_time_seconds",
            &controller,
            took.as_secs_f64(),
        );
        self.shared.worked(took);
        self.report_active();
        let outcome = match result {
            Some(Ok(action)) => {
                self.failures.remove(&key);
                self.conflicts.remove(&key);
                match action {
                    Action::AwaitChange => {
                        self.shared.done(&key, None);
                        "success"
                    }
                    Action::RequeueAfter(wait) => {
                        self.shared.done(&key, Some(self.clock.now() + wait));
                        "requeue_after"
                    }
                }
            }
            Some(Err(ReconcileError::Conflict)) => {
                let seen = bump(&mut self.conflicts, &key);
                let wait = match seen.checked_sub(IMMEDIATE_CONFLICT_RETRIES) {
                    None | Some(0) => Duration::ZERO,
                    Some(late) => self.backoff(&key, late),
                };
                self.shared.done(&key, Some(self.clock.now() + wait));
                "requeue"
            }
            Some(Err(ReconcileError::Retry(_))) | None => {
                if result.is_none() {
                    self.metrics
                        .inc("controller_runtime_reconcile_panics_total", &controller);
                }
                self.metrics
                    .inc("controller_runtime_reconcile_errors_total", &controller);
                self.shared.retried();
                let failures = bump(&mut self.failures, &key);
                let wait = self.backoff(&key, failures);
                self.shared.done(&key, Some(self.clock.now() + wait));
                "error"
            }
        };
        self.metrics.inc(
            "controller_runtime_reconcile_total",
            &[("controller", name), ("result", outcome)],
        );
    }

    /// Depends on key and failure only, so that one more failing object does not shift the others' retries.
    fn backoff(&self, key: &Key, failures: u32) -> Duration {
        let draw = self
            .tree
            .child("backoff", &format!("{key}#{failures}"))
            .rng()
            .unit();
        self.options.backoff(failures, draw)
    }

    fn report_active(&self) {
        self.metrics.set(
            "controller_runtime_active_workers",
            &[("controller", self.reconciler.name())],
            count(self.running.len()),
        );
    }
}

fn bump(counts: &mut BTreeMap<Key, u32>, key: &Key) -> u32 {
    let count = counts.entry(key.clone()).or_default();
    *count = count.saturating_add(1);
    *count
}

fn count(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::MAX, f64::from)
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
