//! A small world for the provider: the embedded API server, the EC2 engine, the provider and its loops, no core.

use std::sync::Arc;
use std::time::Duration;

use karpenter_api::{NodeClaim, NodePool};
use karpenter_cloud::{CloudError, Launched, Provider, ProviderContext};
use karpenter_fake_ec2::{Catalog, Engine, EngineOptions};
use karpenter_fake_kube::server::{Gr, PatchKind, gr};
use karpenter_fake_kube::{ApiServer, ServerOptions};
use karpenter_provider_ec2::{Ec2Settings, nodeclass, provider};
use karpenter_runtime::reflector::ReflectorOptions;
use karpenter_runtime::{Clock, EventRecorder, RngTree};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub(crate) const CLASSES: Gr<'static> = gr("karpenter.k8s.aws", "ec2nodeclasses");
pub(crate) const CLAIMS: Gr<'static> = gr("karpenter.sh", "nodeclaims");

pub(crate) struct World {
    pub(crate) server: ApiServer,
    pub(crate) engine: Engine,
    pub(crate) clock: Clock,
    pub(crate) provider: Provider,
    pub(crate) catalog_changed: Arc<Notify>,
    rng: RngTree,
    settings: Ec2Settings,
    stop: CancellationToken,
}

pub(crate) fn settings() -> Ec2Settings {
    Ec2Settings {
        cluster_name: "demo".into(),
        cluster_endpoint: "https://demo.example".into(),
        cluster_ca_bundle: "Y2E=".into(),
        cluster_cidr: "10.100.0.0/16".into(),
        kubernetes_version: Some("1.34".into()),
        ..Ec2Settings::default()
    }
}

/// The class of the tutorial.
pub(crate) fn class() -> Value {
    let discovery = json!([{ "tags": { "karpenter.sh/discovery": "demo" } }]);
    json!({
        "apiVersion": "karpenter.k8s.aws/v1",
        "kind": "EC2NodeClass",
        "metadata": { "name": "default" },
        "spec": {
            "role": "KarpenterNodeRole-demo",
            "amiSelectorTerms": [{ "alias": "al2023@latest" }],
            "subnetSelectorTerms": discovery,
            "securityGroupSelectorTerms": discovery,
            "tags": { "team": "a" },
        },
    })
}

impl World {
    /// A world without a class yet, with a few families of instance types.
    pub(crate) async fn empty(seed: u64) -> Self {
        Self::told(seed, settings()).await
    }

    /// The same with settings of its own.
    pub(crate) async fn told(seed: u64, settings: Ec2Settings) -> Self {
        let mut few = (*Catalog::builtin()).clone();
        let families = ["c5.", "m5.", "m6g.", "r5.", "p5."];
        few.types
            .retain(|name, _| families.iter().any(|f| name.starts_with(f)));
        Self::empty_with(seed, Arc::new(few), settings).await
    }

    async fn empty_with(seed: u64, catalog: Arc<Catalog>, settings: Ec2Settings) -> Self {
        let clock = Clock::starting_at("2026-01-15T00:00:00Z".parse().unwrap());
        let rng = RngTree::new(seed);
        let server = ApiServer::new(ServerOptions {
            clock: clock.clone(),
            rng: rng.child("apiserver", ""),
        });
        let mut crds = karpenter_api::crd::core(&[nodeclass::label_domain()]);
        crds.push(nodeclass::crd());
        for crd in crds {
            let kind = gr("apiextensions.k8s.io", "customresourcedefinitions");
            server.create(kind, None, crd).unwrap();
        }
        let engine = Engine::new(EngineOptions {
            catalog,
            ..EngineOptions::new(clock.clone(), &rng, "demo")
        });
        let made = make(&engine, &server, &clock, &rng, &settings);
        let mut world = Self {
            provider: made,
            catalog_changed: Arc::new(Notify::new()),
            stop: CancellationToken::new(),
            server,
            engine,
            clock,
            rng,
            settings,
        };
        world.start().await;
        world
    }

    /// A world with the tutorial's class, ready.
    pub(crate) async fn ready(seed: u64) -> Self {
        Self::empty(seed).await.with_class().await
    }

    /// The same with everything that EC2 sells.
    pub(crate) async fn full(seed: u64) -> Self {
        let world = Self::empty_with(seed, Catalog::builtin(), settings()).await;
        world.with_class().await
    }

    async fn with_class(self) -> Self {
        let world = self;
        world.server.create(CLASSES, None, class()).unwrap();
        world.pass(2.0).await;
        assert_eq!(
            world.condition("Ready"),
            ("True".into(), "Ready".into()),
            "{:#?}",
            world.class()
        );
        world
    }

    async fn start(&mut self) {
        let context = ProviderContext {
            client: self.server.client(),
            clock: self.clock.clone(),
            rng: self.rng.clone(),
            events: EventRecorder::new(self.server.client(), self.clock.clone(), &self.rng),
            metrics: karpenter_runtime::metrics::Metrics::default(),
            reflector: ReflectorOptions {
                watch_timeout: None,
                ..ReflectorOptions::default()
            },
            stop: self.stop.clone(),
            catalog_changed: self.catalog_changed.clone(),
        };
        self.provider.controllers.start(context).await;
    }

    /// Kills the provider and starts another one, which knows nothing.
    pub(crate) async fn restart(&mut self) {
        self.stop.cancel();
        self.pass(0.1).await;
        self.stop = CancellationToken::new();
        self.provider = make(
            &self.engine,
            &self.server,
            &self.clock,
            &self.rng,
            &self.settings,
        );
        self.start().await;
        self.pass(0.1).await;
    }

    pub(crate) async fn pass(&self, seconds: f64) {
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    }

    pub(crate) fn class(&self) -> Value {
        (*self.server.get(CLASSES, None, "default").unwrap()).clone()
    }

    /// Status and reason of a condition of the class.
    pub(crate) fn condition(&self, kind: &str) -> (String, String) {
        let class = self.class();
        let all = class["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let found = all.iter().find(|c| c["type"] == kind);
        let text = |key: &str| {
            let text = found.and_then(|c| c[key].as_str());
            text.unwrap_or_default().to_owned()
        };
        (text("status"), text("reason"))
    }

    pub(crate) fn patch_class(&self, patch: &Value) {
        self.server
            .patch(
                CLASSES,
                None,
                "default",
                "",
                PatchKind::Merge,
                patch.clone(),
            )
            .unwrap();
    }

    pub(crate) fn pool() -> NodePool {
        serde_json::from_value(json!({
            "metadata": { "name": "pool" },
            "spec": { "template": { "spec": { "nodeClassRef": reference() } } },
        }))
        .unwrap()
    }

    /// Creates a claim with `requirements` in the API.
    pub(crate) fn claim(&self, name: &str, requirements: Value) -> NodeClaim {
        let claim = json!({
            "apiVersion": "karpenter.sh/v1",
            "kind": "NodeClaim",
            "metadata": { "name": name, "labels": { "karpenter.sh/nodepool": "pool" } },
            "spec": {
                "nodeClassRef": reference(),
                "requirements": requirements,
                "resources": { "requests": { "cpu": "1", "memory": "1Gi", "pods": "3" } },
            },
        });
        let made = self.server.create(CLAIMS, None, claim).unwrap();
        serde_json::from_value((*made).clone()).unwrap()
    }

    pub(crate) async fn create(&self, claim: &NodeClaim) -> Result<Launched, CloudError> {
        self.provider.cloud.create(claim).await
    }

    /// Writes what a launch bought into its claim, as the lifecycle would.
    pub(crate) fn record(&self, claim: &NodeClaim, launched: &Launched) -> NodeClaim {
        let name = claim.metadata.name.clone().unwrap();
        let meta = json!({ "metadata": { "labels": launched.labels, "annotations": launched.annotations } });
        let server = &self.server;
        server
            .patch(CLAIMS, None, &name, "", PatchKind::Merge, meta)
            .unwrap();
        let mut object = (*server.get(CLAIMS, None, &name).unwrap()).clone();
        object["status"] =
            json!({ "providerID": launched.provider_id, "imageID": launched.image_id });
        let object = server.update_status(CLAIMS, None, object).unwrap();
        serde_json::from_value((*object).clone()).unwrap()
    }
}

fn make(
    engine: &Engine,
    server: &ApiServer,
    clock: &Clock,
    rng: &RngTree,
    settings: &Ec2Settings,
) -> Provider {
    let ec2 = Arc::new(engine.clone());
    provider(ec2, settings.clone(), clock.clone(), rng, server.client())
}

pub(crate) fn reference() -> Value {
    json!({ "group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default" })
}

/// An `In` requirement.
pub(crate) fn is_in(key: &str, values: &[&str]) -> Value {
    json!({ "key": key, "operator": "In", "values": values })
}

/// Id of the instance behind a launch.
pub(crate) fn id(launched: &Launched) -> String {
    launched.provider_id.rsplit('/').next().unwrap().to_owned()
}
