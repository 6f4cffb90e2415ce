//! A world in one process: the embedded cluster, a cloud, machines and the controller, on one clock and one seed.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use karpenter_core::{Controller, Options, Parts, Phase};
use karpenter_fake_kube::deletes::PodDelete;
use karpenter_fake_kube::flaky::{ClientFaults, Flaky};
use karpenter_fake_kube::server::{
    ApiError, ApiServer, InsideFaults, PatchKind, ServerOptions, gr,
};
use karpenter_runtime::leader::LeaderOptions;
use karpenter_runtime::{Clock, RngTree, Settings};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cloud::{Cloud, Surroundings};
use crate::kinds;
use crate::observe::{self, Observed};
use crate::scenario::faults::{ApiFaults, CloudFault, MachineFault};

pub use crate::cloud::{CloudKind, Ec2Account, LiveMachine};

/// Civil time at which every world in virtual time begins.
pub const EPOCH: &str = "2026-01-01T00:00:00Z";
/// Longest that a controller may take to come up.
const START_LIMIT: Duration = Duration::from_secs(60);
/// The same where it has to wait for a lease that another one holds or has left behind.
const ELECTION_LIMIT: Duration = Duration::from_secs(10 * 60);
/// Name and namespace of the lease.
const LEASE: (&str, &str) = ("karpenter-leader-election", "kube-system");

/// How to make a world.
#[derive(Clone)]
pub struct WorldOptions {
    /// The only randomness.
    pub seed: u64,
    /// Clock; worlds in virtual time start at [`EPOCH`].
    pub clock: Clock,
    /// Settings of the controller.
    pub settings: Settings,
    /// Cloud.
    pub cloud: CloudKind,
}

/// Why a world cannot be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// A kind nobody serves.
    #[error("{object}: kind {kind} is not known here")]
    UnknownKind {
        /// Object.
        object: String,
        /// Kind.
        kind: String,
    },
    /// The API server refused an object.
    #[error("{object}: {source}")]
    Refused {
        /// Object.
        object: String,
        /// Why.
        source: Box<ApiError>,
    },
    /// The CustomResourceDefinitions cannot be installed.
    #[error("CustomResourceDefinition {name}: {source}")]
    Crd {
        /// Name.
        name: String,
        /// Why.
        source: Box<ApiError>,
    },
    /// A running cluster refuses something.
    #[error("{0}")]
    Cluster(String),
    /// The controller does not come up.
    #[error("the controller did not come up within {0:?}")]
    Controller(Duration),
    /// The controller has a fault of its own.
    #[error("the controller ended: {0}")]
    Died(#[source] karpenter_core::RunError),
    /// A controller runs on without its lease.
    #[error("the controller did not end within {0:?} of losing its lease")]
    Holds(Duration),
}

/// A cluster of real components, in real time.
pub struct LiveCluster {
    /// Its client.
    pub client: kube::Client,
    /// The same without retries, for evictions and leases.
    pub client_no_retry: kube::Client,
}

/// A running world.
pub struct World {
    /// The cluster.
    pub api: ApiServer,
    /// The clock.
    pub clock: Clock,
    /// What has been seen so far.
    pub observed: Arc<Mutex<Observed>>,
    pub(crate) around: Surroundings,
    cloud: Cloud,
    flaky: Flaky,
    no_retry: Option<kube::Client>,
    controller: Option<Controller>,
    elections: bool,
    starts: u32,
    tasks: Vec<JoinHandle<()>>,
    began: tokio::time::Instant,
}

/// The clock of a world in virtual time.
#[must_use]
pub fn virtual_clock() -> Clock {
    Clock::starting_at(EPOCH.parse().unwrap_or(Timestamp::UNIX_EPOCH))
}

/// The runtime of a world in virtual time: one thread, and a clock that jumps from event to event.
///
/// # Errors
/// When it cannot be made.
pub fn virtual_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
}

impl World {
    /// Makes a world and starts everything in it but the controller.
    ///
    /// # Errors
    /// When the definitions of our kinds are refused.
    pub fn new(options: WorldOptions) -> Result<Self, WorldError> {
        let rng = RngTree::new(options.seed);
        let clock = options.clock.clone();
        let api = ApiServer::new(ServerOptions {
            clock: clock.with_own_skew(),
            rng: rng.child("api-server", ""),
        });
        let around = Surroundings {
            api: api.clone(),
            clock: clock.clone(),
            rng,
            settings: options.settings,
            stop: CancellationToken::new(),
            live: None,
        };
        let (cloud, machines) = Cloud::start(&options.cloud, &around);
        for crd in cloud.crds(&around) {
            let name = crate::json::name(&crd).to_owned();
            let kind = gr("apiextensions.k8s.io", "customresourcedefinitions");
            api.create(kind, None, crd)
                .map_err(Box::new)
                .map_err(|source| WorldError::Crd { name, source })?;
        }
        let (observed, observer) =
            observe::start(&api, clock.clone(), cloud.prices(), around.stop.clone());
        let mut tasks = vec![observer];
        tasks.extend(karpenter_fake_kube::loops::start_all(
            &api,
            around.stop.clone(),
        ));
        tasks.extend(machines);
        Ok(Self {
            began: clock.now(),
            observed,
            api,
            clock,
            cloud,
            flaky: Flaky::new(around.clock.clone(), &around.rng),
            around,
            no_retry: None,
            controller: None,
            elections: false,
            starts: 0,
            tasks,
        })
    }

    /// A world on a running cluster with KWOK: what is seen of it is seen in a mirror, what is done is done to it.
    ///
    /// # Errors
    /// When the definitions of our kinds are refused.
    pub async fn on_cluster(options: WorldOptions, live: LiveCluster) -> Result<Self, WorldError> {
        let rng = RngTree::new(options.seed);
        let clock = options.clock.clone();
        let api = ApiServer::new(ServerOptions {
            clock: clock.clone(),
            rng: rng.child("mirror", ""),
        });
        let around = Surroundings {
            api: api.clone(),
            clock: clock.clone(),
            rng,
            settings: options.settings,
            stop: CancellationToken::new(),
            live: Some(live.client.clone()),
        };
        let (cloud, mut tasks) = Cloud::start(&options.cloud, &around);
        karpenter_core::install_crds(live.client.clone(), &cloud.crds(&around))
            .await
            .map_err(|e| WorldError::Cluster(e.to_string()))?;
        tasks.extend(crate::mirror::start(&api, &live.client, &around.stop));
        let (observed, observer) =
            observe::start(&api, clock.clone(), cloud.prices(), around.stop.clone());
        tasks.push(observer);
        Ok(Self {
            began: clock.now(),
            observed,
            api,
            clock,
            cloud,
            flaky: Flaky::new(around.clock.clone(), &around.rng),
            around,
            no_retry: Some(live.client_no_retry),
            controller: None,
            elections: false,
            starts: 0,
            tasks,
        })
    }

    /// Machines that were bought and not yet told to go, as their seller counts them.
    #[must_use]
    pub fn machines(&self) -> Vec<LiveMachine> {
        self.cloud.machines(&self.around)
    }

    /// Makes faults of the cloud happen.
    ///
    /// # Errors
    /// When this world's cloud has no such fault.
    pub fn cloud_fault(&self, fault: &CloudFault) -> Result<(), String> {
        self.cloud.cloud_fault(&self.around, fault)
    }

    /// Dollars per hour of an offering now; 0 where it is not sold.
    #[must_use]
    pub fn price(&self, instance_type: &str, zone: &str, capacity_type: &str) -> f64 {
        (self.cloud.prices())(instance_type, zone, capacity_type).unwrap_or_default()
    }

    /// Pods whose deletion the controller has asked for since this was last asked, evictions left aside.
    #[must_use]
    pub fn pod_deletes(&self) -> Vec<PodDelete> {
        self.flaky.pod_deletes()
    }

    /// From now on the controller's requests suffer from these, and from nothing else. Watches that are open keep what
    /// they drew.
    pub fn api_faults(&self, faults: &ApiFaults) {
        self.flaky.set(ClientFaults {
            delayed: faults.delayed,
            conflicts: faults.conflicts,
            throttled: faults.throttled,
            failed_before: faults.failed_before,
            failed_after: faults.failed_after,
            watches_dropped: faults.watches_dropped,
            watches_late: faults.watches_late,
            watches_stalled: faults.watches_stalled,
            lists_stale: faults.lists_stale,
        });
        self.api.set_inside_faults(InsideFaults {
            failed_before: faults.inside,
            failed_after: faults.inside,
            conflicts: faults.inside,
        });
        let ahead = SignedDuration::from_secs(faults.clock_ahead_seconds.into());
        self.api.clock().set_skew(ahead);
    }

    /// Makes faults of machines happen.
    ///
    /// # Errors
    /// When this world's machines have no such fault.
    pub async fn machine_fault(&self, fault: &MachineFault) -> Result<(), String> {
        self.cloud.machine_fault(&self.around, fault).await
    }

    /// From now on a controller runs while it holds a lease.
    pub fn hold_elections(&mut self) {
        self.elections = true;
    }

    /// Starts the controller, if it is not running, and waits until its loops run.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_controller(&mut self) -> Result<(), WorldError> {
        if self.controller.is_some() {
            return Ok(());
        }
        let next = self.another_controller();
        self.wait_for(next).await
    }

    /// A controller that begins to run, or to wait for the lease.
    fn another_controller(&mut self) -> Controller {
        // Every start draws from a child of its own, or a restarted controller would draw the names it drew before.
        let start = self.starts.to_string();
        self.starts += 1;
        let flaky = || self.api.flaky_client(&self.flaky);
        let identity = format!("karpenter-{start}");
        let election = self
            .elections
            .then(|| LeaderOptions::new(LEASE.0, LEASE.1, &identity));
        karpenter_core::start(Parts {
            provider: self.cloud.provider(&self.around),
            client: self.around.live.clone().unwrap_or_else(flaky),
            client_no_retry: self.no_retry.clone().unwrap_or_else(flaky),
            settings: self.around.settings.clone(),
            clock: self.clock.clone(),
            rng: self.around.rng.child("controller", &start),
            options: Options {
                election,
                ..Options::embedded()
            },
        })
    }

    async fn wait_for(&mut self, mut controller: Controller) -> Result<(), WorldError> {
        let limit = if self.elections {
            ELECTION_LIMIT
        } else {
            START_LIMIT
        };
        let up = tokio::time::timeout(limit, controller.wait_running()).await;
        self.controller = Some(controller);
        if matches!(up, Ok(true)) {
            Ok(())
        } else {
            Err(WorldError::Controller(limit))
        }
    }

    /// The lease goes to somebody else, as if it could not be renewed for a while, and then to a controller that has been
    /// waiting for it. The one that ran has to end by itself.
    ///
    /// # Errors
    /// When it does not, or when the other one does not come up.
    pub async fn hand_over(&mut self) -> Result<(), WorldError> {
        let Some(mut before) = self.controller.take() else {
            return self.start_controller().await;
        };
        let next = self.another_controller();
        let now = self.api.clock().wall();
        let taken =
            json!({"spec": {"holderIdentity": "somebody-else", "renewTime": format!("{now:.6}")}});
        let (name, namespace) = (LEASE.0, Some(LEASE.1));
        let leases = gr("coordination.k8s.io", "leases");
        self.api
            .patch(leases, namespace, name, "", PatchKind::Merge, taken)
            .map_err(|source| WorldError::Refused {
                object: format!("Lease {name}"),
                source: Box::new(source),
            })?;
        let ended = tokio::time::timeout(START_LIMIT, before.wait()).await;
        if !matches!(ended, Ok(Err(karpenter_core::RunError::LeaseLost { .. }))) {
            before.kill();
            return Err(WorldError::Holds(START_LIMIT));
        }
        self.wait_for(next).await
    }

    /// Starts a controller anew that has lost its lease and ended, as a kubelet does.
    ///
    /// # Errors
    /// When it ended for another reason, or the new one does not come up.
    pub async fn mind_controller(&mut self) -> Result<(), WorldError> {
        let ended = |c: &mut Controller| c.phase() == Phase::Stopped;
        let Some(mut ended) = self.controller.take_if(ended) else {
            return Ok(());
        };
        match ended.wait().await {
            Ok(()) | Err(karpenter_core::RunError::LeaseLost { .. }) => {
                self.start_controller().await
            }
            Err(died) => Err(WorldError::Died(died)),
        }
    }

    /// A client of the cluster that hears a refusal at once.
    pub(crate) fn client_no_retry(&self) -> kube::Client {
        self.no_retry.clone().unwrap_or_else(|| self.api.client())
    }

    /// Kills the controller where it stands.
    pub fn crash_controller(&mut self) {
        if let Some(controller) = self.controller.take() {
            controller.kill();
        }
    }

    /// Ends the controller in order.
    pub async fn stop_controller(&mut self) {
        if let Some(controller) = self.controller.take() {
            // How it ended shows in what it leaves behind, which is what is judged.
            let _ = controller.shutdown().await;
        }
    }

    /// The running controller's metrics, as `/metrics` shows them.
    #[must_use]
    pub fn metrics(&self) -> Option<karpenter_runtime::metrics::Metrics> {
        self.controller.as_ref().map(Controller::metrics)
    }

    /// Seconds since the world began.
    #[must_use]
    pub fn elapsed(&self) -> f64 {
        (self
            .clock
            .now()
            .saturating_duration_since(self.began)
            .as_secs_f64()
            * 1000.0)
            .round()
            / 1000.0
    }

    /// Time left until `at`, counted from the beginning.
    #[must_use]
    pub fn until(&self, at: Duration) -> Duration {
        (self.began + at).saturating_duration_since(self.clock.now())
    }

    /// Applies an object on the server's side, as `kubectl apply --server-side` does.
    ///
    /// # Errors
    /// When the kind is unknown or the object is refused.
    pub fn apply(&self, object: &Value) -> Result<(), WorldError> {
        let shown = format!(
            "{} {}",
            crate::json::text(object, "/kind"),
            crate::json::name(object)
        );
        let kind = crate::json::text(object, "/kind");
        let place = kinds::of(kind).ok_or_else(|| WorldError::UnknownKind {
            object: shown.clone(),
            kind: kind.to_owned(),
        })?;
        let namespace =
            place
                .namespaced
                .then(|| match crate::json::text(object, "/metadata/namespace") {
                    "" => "default",
                    given => given,
                });
        let status = object.get("status").cloned();
        let applied = self
            .api
            .apply(place.resource, namespace, "scenario", true, object.clone())
            .map_err(|source| WorldError::Refused {
                object: shown.clone(),
                source: Box::new(source),
            })?;
        // Dumps of a live cluster carry statuses; apply alone would drop them.
        if let Some(status) = status {
            let mut with_status = Value::clone(&applied);
            if let Some(map) = with_status.as_object_mut() {
                map.insert("status".to_owned(), status);
            }
            self.api
                .update_status(place.resource, namespace, with_status)
                .map_err(|source| WorldError::Refused {
                    object: shown,
                    source: Box::new(source),
                })?;
        }
        Ok(())
    }

    /// Ends everything.
    pub async fn end(mut self) {
        self.stop_controller().await;
        self.around.stop.cancel();
        for task in self.tasks.drain(..) {
            // A task that panicked has shown it already; the world ends all the same.
            let _ = task.await;
        }
    }
}
