//! The controller as a whole: what it is made of, the order it starts in, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use karpenter_cloud::{Provider, ProviderContext};
use karpenter_controllers::Context;
use karpenter_runtime::leader::{self, LeaderOptions, Leadership};
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::{Clock, EventRecorder, ReflectorOptions, RngTree, Settings};
use karpenter_state::Store;
use kube::Client;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::crds::missing_kinds;
use crate::metered::Metered;
use crate::scrape;
use crate::watches::Watches;

/// First wait before the cluster is asked again for kinds it does not serve.
const KINDS_WAIT: Duration = Duration::from_secs(1);

/// Longest wait of that sort.
const KINDS_WAIT_MAX: Duration = Duration::from_secs(30);

/// Longest that events still queued at the end are waited for.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// How to run, apart from what operators set.
#[derive(Clone)]
pub struct Options {
    /// How watches are run.
    pub reflector: ReflectorOptions,
    /// The lease to hold while running; none = run at once.
    pub election: Option<LeaderOptions>,
    /// Client for the lease, if not the one that does not retry: requests of the loops must not hold up a renewal.
    pub lease_client: Option<Client>,
    /// Where everything is counted.
    pub metrics: Metrics,
    /// Longest that loops may take to finish what they have begun, at the end.
    pub shutdown_grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            reflector: ReflectorOptions::default(),
            election: None,
            lease_client: None,
            metrics: Metrics::default(),
            // Below the 30 s that a pod is given.
            shutdown_grace: Duration::from_secs(20),
        }
    }
}

impl Options {
    /// For a world in one process and in virtual time: no lease, and watches that last for ever.
    #[must_use]
    pub fn embedded() -> Self {
        Self {
            reflector: ReflectorOptions {
                watch_timeout: None,
                ..ReflectorOptions::default()
            },
            ..Self::default()
        }
    }
}

/// What a controller is made of.
#[derive(Clone)]
pub struct Parts {
    /// The cloud and what it brings along.
    pub provider: Provider,
    /// API client that retries.
    pub client: Client,
    /// API client that does not: evictions and leases must hear a refusal at once.
    pub client_no_retry: Client,
    /// What operators set.
    pub settings: Settings,
    /// The one clock.
    pub clock: Clock,
    /// Randomness. A controller started again in the same world should get another child of the world's tree, or it
    /// will draw the names it drew before.
    pub rng: RngTree,
    /// How to run.
    pub options: Options,
}

/// How far a controller has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waits until the cluster serves our kinds.
    Kinds,
    /// Waits for the lease; another process runs the loops.
    Standby,
    /// Waits for the first list of every kind.
    Syncing,
    /// The loops run.
    Running,
    /// Is ending, or has ended.
    Stopped,
}

/// Why a controller ended other than by being asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The lease went to another process.
    #[error("leader lease {lease} was lost")]
    LeaseLost {
        /// Namespace and name.
        lease: String,
    },
    /// A loop panicked.
    #[error("a loop died: {0}")]
    LoopDied(#[source] tokio::task::JoinError),
}

/// A running controller.
pub struct Controller {
    stop: CancellationToken,
    supervisor: JoinHandle<Result<(), RunError>>,
    tasks: Tasks,
    events: EventRecorder,
    phase: watch::Receiver<Phase>,
    store: Arc<Store>,
    metrics: Metrics,
    warmup: bool,
}

/// Everything that must die at once when a controller is killed.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<Vec<AbortHandle>>>);

impl Tasks {
    fn add<'a, T: 'a>(&self, handles: impl IntoIterator<Item = &'a JoinHandle<T>>) {
        let mut held = self.0.lock();
        held.extend(handles.into_iter().map(JoinHandle::abort_handle));
    }
    fn abort(&self) {
        for task in self.0.lock().drain(..) {
            task.abort();
        }
    }
}

impl Controller {
    /// Ends it in order: loops finish what they have begun, events are written, the lease is given back.
    ///
    /// # Errors
    /// When it had ended before, and badly.
    pub async fn shutdown(mut self) -> Result<(), RunError> {
        self.stop.cancel();
        self.wait().await
    }

    /// Ends it as a crash would: nothing more is written, the lease is left to run out.
    pub fn kill(self) {
        self.supervisor.abort();
        self.tasks.abort();
        self.events.abort();
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn wait(&mut self) -> Result<(), RunError> {
        match (&mut self.supervisor).await {
            Ok(result) => result,
            Err(error) if error.is_cancelled() => Ok(()),
            Err(error) => Err(RunError::LoopDied(error)),
        }
    }

    /// Waits until the loops run; false if it ended before.
    pub async fn wait_running(&mut self) -> bool {
        let reached = |phase: &Phase| matches!(phase, Phase::Running | Phase::Stopped);
        let phase = self.phase.wait_for(reached).await.map(|phase| *phase);
        phase.is_ok_and(|phase| phase == Phase::Running)
    }

    /// How far it has come.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// The cluster as it sees it.
    #[must_use]
    pub fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store)
    }

    /// Its metrics.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// A check for `/readyz`: our kinds are served, and the watches have brought what there is. A process that waits
    /// for the lease is ready, as it could take over.
    #[must_use]
    pub fn ready_check(&self) -> karpenter_runtime::health::ReadyCheck {
        let (phase, store, warmup) = (self.phase.clone(), Arc::clone(&self.store), self.warmup);
        Arc::new(move || {
            let not = |why: &str| Some(why.to_owned());
            match *phase.borrow() {
                Phase::Kinds => not("the cluster does not serve Karpenter's kinds (CRDs)"),
                Phase::Standby if warmup && !store.synced() => not("the watches are not synced"),
                Phase::Syncing => not("the watches are not synced"),
                Phase::Standby | Phase::Running => None,
                Phase::Stopped => not("stopped"),
            }
        })
    }
}

/// Starts a controller in tasks of its own.
#[must_use]
pub fn start(parts: Parts) -> Controller {
    let stop = CancellationToken::new();
    let store = Arc::new(Store::waiting_for(Watches::besides(&parts.settings)));
    store.set_spread_defaults(parts.settings.spread_defaults.clone());
    let metrics = parts.options.metrics.clone();
    let events = EventRecorder::new(parts.client.clone(), parts.clock.clone(), &parts.rng);
    scrape::register(&metrics, &store, parts.clock.clone());
    let (tell, phase) = watch::channel(Phase::Kinds);
    let tasks = Tasks::default();
    let warmup = !parts.settings.disable_controller_warmup;
    let supervisor = Supervisor {
        loops: stop.child_token(),
        // Watches outlive the loops, which read what they bring until the end.
        watches: CancellationToken::new(),
        stop: stop.clone(),
        store: Arc::clone(&store),
        events: events.clone(),
        tasks: tasks.clone(),
        phase: tell,
        warmup,
        parts,
    };
    Controller {
        supervisor: tokio::spawn(supervisor.run()),
        stop,
        tasks,
        events,
        phase,
        store,
        metrics,
        warmup,
    }
}

/// Runs a controller until `stop` is cancelled.
///
/// # Errors
/// See [`RunError`].
pub async fn run(parts: Parts, stop: CancellationToken) -> Result<(), RunError> {
    let mut controller = start(parts);
    tokio::select! {
        biased;
        () = stop.cancelled() => controller.shutdown().await,
        ended = controller.wait() => ended,
    }
}

struct Supervisor {
    parts: Parts,
    stop: CancellationToken,
    loops: CancellationToken,
    watches: CancellationToken,
    store: Arc<Store>,
    events: EventRecorder,
    tasks: Tasks,
    phase: watch::Sender<Phase>,
    warmup: bool,
}

impl Supervisor {
    async fn run(self) -> Result<(), RunError> {
        let stop = self.stop.clone();
        let mut leadership = None;
        let mut running = Vec::new();
        let started = tokio::select! {
            biased;
            () = stop.cancelled() => false,
            () = self.begin(&mut leadership, &mut running) => true,
        };
        let result = if started {
            self.supervise(leadership.as_ref(), &mut running).await
        } else {
            Ok(())
        };
        if matches!(result, Err(RunError::LeaseLost { .. })) {
            self.cut();
        } else {
            self.end(leadership, running).await;
        }
        result
    }

    /// Everything up to running loops.
    async fn begin(&self, leadership: &mut Option<Leadership>, running: &mut Vec<JoinHandle<()>>) {
        self.wait_for_kinds().await;
        if self.warmup {
            self.start_watches();
        }
        if let Some(options) = &self.parts.options.election {
            self.phase.send_replace(Phase::Standby);
            let client = self.parts.options.lease_client.as_ref();
            let held = leader::acquire(
                client.unwrap_or(&self.parts.client_no_retry).clone(),
                options.clone(),
                self.parts.clock.clone(),
                &self.parts.rng,
                self.parts.options.metrics.clone(),
            )
            .await;
            self.tasks.0.lock().push(held.abort_handle());
            *leadership = Some(held);
        }
        if !self.warmup {
            self.start_watches();
        }
        self.phase.send_replace(Phase::Syncing);
        self.store.wait_synced().await;
        running.extend(self.start_loops().await);
        self.tasks.add(running.iter());
        self.phase.send_replace(Phase::Running);
    }

    /// The chart installs CRDs, but nothing says that it has finished before we start.
    async fn wait_for_kinds(&self) {
        let mut wait = KINDS_WAIT;
        loop {
            let (client, parts) = (&self.parts.client, &self.parts);
            let gates = &parts.settings.feature_gates;
            match missing_kinds(client, &parts.provider.node_class, gates).await {
                Ok(missing) if missing.is_empty() => return,
                Ok(missing) => tracing::error!(
                    missing = missing.join(", "),
                    "the cluster does not serve kinds we need, are the CRDs installed?"
                ),
                Err(error) => {
                    tracing::error!(error = %error, "asking for the kinds the cluster serves failed")
                }
            }
            self.parts.clock.sleep(wait).await;
            wait = (wait * 2).min(KINDS_WAIT_MAX);
        }
    }

    fn start_watches(&self) {
        let watches = Watches {
            client: self.parts.client.clone(),
            options: self.parts.options.reflector.clone(),
            clock: self.parts.clock.clone(),
            rng: self.parts.rng.clone(),
            stop: self.watches.clone(),
            store: Arc::clone(&self.store),
        };
        let settings = &self.parts.settings;
        self.tasks
            .add(&watches.start(&self.parts.provider.node_class, settings));
    }

    async fn start_loops(&self) -> Vec<JoinHandle<()>> {
        let parts = &self.parts;
        let metrics = parts.options.metrics.clone();
        let catalog_changed = Arc::new(Notify::new());
        let mut provider = parts.provider.clone();
        provider.cloud = Arc::new(Metered {
            cloud: Arc::clone(&provider.cloud),
            metrics: metrics.clone(),
            clock: parts.clock.clone(),
        });
        let mut handles = parts
            .provider
            .controllers
            .start(ProviderContext {
                client: parts.client.clone(),
                clock: parts.clock.clone(),
                rng: parts.rng.clone(),
                events: self.events.clone(),
                metrics: metrics.clone(),
                reflector: parts.options.reflector.clone(),
                stop: self.loops.clone(),
                catalog_changed: Arc::clone(&catalog_changed),
            })
            .await;
        let context = Context {
            client: parts.client.clone(),
            client_no_retry: parts.client_no_retry.clone(),
            state: Arc::clone(&self.store),
            provider: Arc::new(provider),
            clock: parts.clock.clone(),
            rng: parts.rng.clone(),
            settings: Arc::new(parts.settings.clone()),
            events: self.events.clone(),
            metrics,
            stop: self.loops.clone(),
            catalog_changed,
            overlays: None,
            wares: Default::default(),
        }
        .with_overlays();
        handles.extend(karpenter_controllers::start_lifecycle(&context));
        handles.extend(karpenter_controllers::start_provisioning(&context));
        handles
    }

    /// Waits for a reason to end.
    async fn supervise(
        &self,
        leadership: Option<&Leadership>,
        running: &mut Vec<JoinHandle<()>>,
    ) -> Result<(), RunError> {
        let lost = leadership.map(Leadership::lost).unwrap_or_default();
        let mut loops: FuturesUnordered<_> = running.iter_mut().collect();
        let died = async {
            while let Some(ended) = loops.next().await {
                if let Err(error) = ended
                    && error.is_panic()
                {
                    return error;
                }
            }
            // All ended in peace: what is left to wait for is the stop.
            std::future::pending().await
        };
        let result = tokio::select! {
            biased;
            () = self.stop.cancelled() => Ok(()),
            () = lost.cancelled() => Err(RunError::LeaseLost { lease: self.lease() }),
            error = died => Err(RunError::LoopDied(error)),
        };
        drop(loops);
        // A handle must not be polled again once it has given its result.
        running.retain(|handle| !handle.is_finished());
        result
    }

    /// Without the lease nothing may be written any more, not even the rest of what was begun: the next holder may be
    /// at work a few seconds from now, and takes what it finds as it would after a crash.
    fn cut(self) {
        self.phase.send_replace(Phase::Stopped);
        self.tasks.abort();
        self.events.abort();
        self.loops.cancel();
        self.watches.cancel();
    }

    async fn end(self, leadership: Option<Leadership>, running: Vec<JoinHandle<()>>) {
        self.phase.send_replace(Phase::Stopped);
        self.loops.cancel();
        let finished = async {
            for handle in running {
                // A panic now changes nothing.
                let _ = handle.await;
            }
        };
        let grace = self.parts.options.shutdown_grace;
        if tokio::time::timeout(grace, finished).await.is_err() {
            tracing::error!("loops did not finish in time, cutting them off");
        }
        self.watches.cancel();
        // Too late is as good as never, here.
        let _ = tokio::time::timeout(FLUSH_LIMIT, self.events.flush()).await;
        if let Some(leadership) = leadership {
            let _ = tokio::time::timeout(FLUSH_LIMIT, leadership.release()).await;
        }
        self.tasks.abort();
        self.events.abort();
    }

    fn lease(&self) -> String {
        let options = self.parts.options.election.as_ref();
        options.map_or_else(String::new, |o| format!("{}/{}", o.namespace, o.name))
    }
}
