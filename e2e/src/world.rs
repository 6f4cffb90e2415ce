//! A world in one process: the embedded cluster, a cloud, machines and the controller, on one clock and one seed.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use karpenter_cloud::Provider;
use karpenter_core::{Controller, Options, Parts};
use karpenter_fake_kube::server::{ApiError, ApiServer, ServerOptions};
use karpenter_fake_machine::{Kwok, KwokOptions};
use karpenter_provider_kwok::{Catalog, Market};
use karpenter_runtime::{Clock, RngTree, Settings};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::kinds;
use crate::observe::{self, Observed, PriceLookup};

/// Civil time at which every world in virtual time begins.
pub const EPOCH: &str = "2026-01-01T00:00:00Z";
/// Longest that a controller may take to come up.
const START_LIMIT: Duration = Duration::from_secs(60);

/// What machines come from.
#[derive(Clone)]
pub enum CloudKind {
    /// KWOK nodes of a catalogue.
    Kwok {
        /// What is sold.
        catalog: Catalog,
    },
}

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
        source: ApiError,
    },
    /// The CustomResourceDefinitions cannot be installed.
    #[error("CustomResourceDefinition {name}: {source}")]
    Crd {
        /// Name.
        name: String,
        /// Why.
        source: ApiError,
    },
    /// The controller does not come up.
    #[error("the controller did not come up within {START_LIMIT:?}")]
    Controller,
}

/// A running world.
pub struct World {
    /// The cluster.
    pub api: ApiServer,
    /// The clock.
    pub clock: Clock,
    /// What has been seen so far.
    pub observed: Arc<Mutex<Observed>>,
    /// The KWOK market: capacity and prices.
    pub market: Market,
    options: WorldOptions,
    rng: RngTree,
    controller: Option<Controller>,
    starts: u32,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    began: tokio::time::Instant,
}

/// The clock of a world in virtual time.
#[must_use]
pub fn virtual_clock() -> Clock {
    Clock::starting_at(EPOCH.parse().unwrap_or(Timestamp::UNIX_EPOCH))
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
        let stop = CancellationToken::new();
        let market = Market::default();
        let mut world = Self {
            observed: Arc::default(),
            api,
            clock,
            market,
            rng,
            controller: None,
            starts: 0,
            stop,
            tasks: Vec::new(),
            began: options.clock.now(),
            options,
        };
        for crd in world.crds() {
            let name = crate::json::name(&crd).to_owned();
            world
                .api
                .create(
                    karpenter_fake_kube::server::gr(
                        "apiextensions.k8s.io",
                        "customresourcedefinitions",
                    ),
                    None,
                    crd,
                )
                .map_err(|source| WorldError::Crd { name, source })?;
        }
        let (observed, task) = observe::start(
            &world.api,
            world.clock.clone(),
            world.prices(),
            world.stop.clone(),
        );
        world.observed = observed;
        world.tasks.push(task);
        world.tasks.extend(karpenter_fake_kube::loops::start_all(
            &world.api,
            world.stop.clone(),
        ));
        world.tasks.push(Kwok::start(
            world.api.clone(),
            KwokOptions::default(),
            world.rng.child("machines", "kwok"),
            world.stop.clone(),
        ));
        Ok(world)
    }

    /// Definitions of all kinds a world serves.
    fn crds(&self) -> Vec<Value> {
        let mut crds = karpenter_api::crd::core(&[]);
        crds.extend(self.provider().crds);
        crds
    }

    fn provider(&self) -> Provider {
        match &self.options.cloud {
            CloudKind::Kwok { catalog } => karpenter_provider_kwok::provider(
                self.api.client(),
                self.clock.clone(),
                catalog.clone(),
                self.market.clone(),
            ),
        }
    }

    fn prices(&self) -> PriceLookup {
        let CloudKind::Kwok { catalog } = &self.options.cloud;
        let (catalog, market) = (catalog.clone(), self.market.clone());
        Arc::new(move |instance_type, zone, capacity_type| {
            let t = catalog
                .types
                .iter()
                .find(|t| t.name.as_ref() == instance_type)?;
            t.offering(zone, capacity_type)
                .map(|o| market.price(instance_type, o))
        })
    }

    /// Starts the controller, if it is not running, and waits until its loops run.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_controller(&mut self) -> Result<(), WorldError> {
        if self.controller.is_some() {
            return Ok(());
        }
        // Every start draws from a child of its own, or a restarted controller would draw the names it drew before.
        let start = self.starts.to_string();
        self.starts += 1;
        let mut controller = karpenter_core::start(Parts {
            provider: self.provider(),
            client: self.api.client(),
            client_no_retry: self.api.client(),
            settings: self.options.settings.clone(),
            clock: self.clock.clone(),
            rng: self.rng.child("controller", &start),
            options: Options::embedded(),
        });
        let up = tokio::time::timeout(START_LIMIT, controller.wait_running()).await;
        self.controller = Some(controller);
        if matches!(up, Ok(true)) {
            Ok(())
        } else {
            Err(WorldError::Controller)
        }
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
                source,
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
                    source,
                })?;
        }
        Ok(())
    }

    /// Ends everything.
    pub async fn end(mut self) {
        self.stop_controller().await;
        self.stop.cancel();
        for task in self.tasks.drain(..) {
            // A task that panicked has shown it already; the world ends all the same.
            let _ = task.await;
        }
    }
}
