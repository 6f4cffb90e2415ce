//! The contract of every provider, kept by this one.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // A test may fail loudly.

use std::sync::Arc;

use async_trait::async_trait;
use karpenter_api::{NodeClaim, NodePool};
use karpenter_cloud::conformance::{Subject, check};
use karpenter_cloud::{CloudError, CloudProvider, Launched, Provider, ProviderContext};
use karpenter_fake_kube::server::{Gr, PatchKind, gr};
use karpenter_fake_kube::{ApiServer, ServerOptions};
use karpenter_model::LabelRegistry;
use karpenter_provider_kwok::{Market, catalog, nodeclass};
use karpenter_runtime::reflector::ReflectorOptions;
use karpenter_runtime::{Clock, EventRecorder, RngTree};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const CLAIMS: Gr<'static> = gr("karpenter.sh", "nodeclaims");

struct World {
    server: ApiServer,
    clock: Clock,
    provider: Provider,
}

fn reference() -> Value {
    json!({ "group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "default" })
}

impl World {
    async fn new() -> Self {
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let rng = RngTree::new(1);
        let server = ApiServer::new(ServerOptions {
            clock: clock.clone(),
            rng: rng.child("apiserver", ""),
        });
        let mut crds = karpenter_api::crd::core(&[]);
        crds.push(nodeclass::crd());
        for crd in crds {
            let kind = gr("apiextensions.k8s.io", "customresourcedefinitions");
            server.create(kind, None, crd).unwrap();
        }
        let class = json!({ "apiVersion": "karpenter.kwok.sh/v1alpha1", "kind": "KWOKNodeClass", "metadata": { "name": "default" } });
        let classes = gr("karpenter.kwok.sh", "kwoknodeclasses");
        server.create(classes, None, class).unwrap();
        let provider = karpenter_provider_kwok::provider(
            server.client(),
            clock.clone(),
            catalog::builtin(),
            Market::default(),
        );
        let context = ProviderContext {
            client: server.client(),
            clock: clock.clone(),
            rng: rng.clone(),
            events: EventRecorder::new(server.client(), clock.clone(), &rng),
            metrics: karpenter_runtime::metrics::Metrics::default(),
            reflector: ReflectorOptions {
                watch_timeout: None,
                ..ReflectorOptions::default()
            },
            stop: CancellationToken::new(),
            catalog_changed: Arc::new(Notify::new()),
        };
        provider.controllers.start(context).await;
        Self {
            server,
            clock,
            provider,
        }
    }
}

#[async_trait]
impl Subject for World {
    fn cloud(&self) -> Arc<dyn CloudProvider> {
        self.provider.cloud.clone()
    }
    fn labels(&self) -> Arc<LabelRegistry> {
        self.provider.labels.clone()
    }
    fn clock(&self) -> Clock {
        self.clock.clone()
    }
    fn pool(&self) -> NodePool {
        serde_json::from_value(json!({
            "metadata": { "name": "pool" },
            "spec": { "template": { "spec": { "nodeClassRef": reference() } } },
        }))
        .unwrap()
    }
    async fn claim(&self, name: &str, instance_types: &[Arc<str>]) -> NodeClaim {
        let types: Vec<&str> = instance_types.iter().map(|t| &**t).collect();
        let claim = json!({
            "apiVersion": "karpenter.sh/v1",
            "kind": "NodeClaim",
            "metadata": { "name": name, "labels": { "karpenter.sh/nodepool": "pool" } },
            "spec": {
                "nodeClassRef": reference(),
                "requirements": [{ "key": "node.kubernetes.io/instance-type", "operator": "In", "values": types }],
            },
        });
        let made = self.server.create(CLAIMS, None, claim).unwrap();
        serde_json::from_value((*made).clone()).unwrap()
    }
    async fn record(&self, claim: &NodeClaim, launched: &Launched) -> NodeClaim {
        let name = claim.metadata.name.clone().unwrap();
        let meta = json!({ "metadata": { "labels": launched.labels, "annotations": launched.annotations } });
        self.server
            .patch(CLAIMS, None, &name, "", PatchKind::Merge, meta)
            .unwrap();
        let mut object = (*self.server.get(CLAIMS, None, &name).unwrap()).clone();
        object["status"] = json!({ "providerID": launched.provider_id });
        let object = self.server.update_status(CLAIMS, None, object).unwrap();
        serde_json::from_value((*object).clone()).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn ids_of_others_are_no_machines() {
    let world = World::new().await;
    let mut claim = world.claim("a", &["c-4x-amd64-linux".into()]).await;
    for id in [
        "",
        "kwok://",
        "Provider:///AZ/i-01234567890123456",
        "../pods",
    ] {
        claim.status.provider_id = id.to_owned();
        let deleted = world.cloud().delete(&claim).await;
        assert!(
            matches!(deleted, Err(CloudError::NotFound(_))),
            "{id}: {deleted:?}"
        );
        let found = world.cloud().get(id).await;
        assert!(
            matches!(found, Err(CloudError::NotFound(_))),
            "{id}: {found:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_class_that_is_missing_or_not_ready_sells_nothing() {
    let world = World::new().await;
    let claim = world.claim("a", &["c-4x-amd64-linux".into()]).await;
    let classes = gr("karpenter.kwok.sh", "kwoknodeclasses");
    let status = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False", "reason": "TestingNotReady",
        "message": "NodeClass is not ready", "lastTransitionTime": "2026-01-01T00:00:00Z" }] } });
    world
        .server
        .patch(classes, None, "default", "status", PatchKind::Merge, status)
        .unwrap();
    let refused = world.cloud().create(&claim).await;
    assert!(
        matches!(refused, Err(CloudError::NodeClassNotReady(_))),
        "{refused:?}"
    );
    world.server.delete(classes, None, "default", None).unwrap();
    let refused = world.cloud().create(&claim).await;
    assert!(
        matches!(refused, Err(CloudError::InsufficientCapacity(_))),
        "{refused:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_contract_is_kept() {
    let broken = check(&World::new().await).await;
    assert!(broken.is_empty(), "{broken:#?}");
}
