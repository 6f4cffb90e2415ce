//! The controller as a whole on the embedded API server, under paused time: how it comes up, ends, and is killed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // Helpers of tests are tests.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::coordination::v1::Lease;
use karpenter_api::{NodeClaim, NodePool};
use karpenter_cloud::{
    CloudError, CloudProvider, Launched, Machine, NodeClassKind, Provider, ProviderContext,
    ProviderControllers, RepairPolicy,
};
use karpenter_core::{Controller, CrdError, Options, Parts, Phase, install_crds, start};
use karpenter_fake_kube::{ApiServer, ServerOptions};
use karpenter_model::{InstanceType, LabelRegistry};
use karpenter_runtime::leader::LeaderOptions;
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::{Clock, RngTree, Settings};
use kube::Api;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// A cloud that has nothing to sell.
struct EmptyCloud;

#[async_trait]
impl CloudProvider for EmptyCloud {
    fn name(&self) -> &'static str {
        "empty"
    }
    async fn create(&self, _: &NodeClaim) -> Result<Launched, CloudError> {
        Err(CloudError::InsufficientCapacity(
            "nothing to sell".to_owned(),
        ))
    }
    async fn delete(&self, _: &NodeClaim) -> Result<(), CloudError> {
        Err(CloudError::NotFound("never sold".to_owned()))
    }
    async fn get(&self, _: &str) -> Result<Machine, CloudError> {
        Err(CloudError::NotFound("never sold".to_owned()))
    }
    async fn list(&self) -> Result<Vec<Machine>, CloudError> {
        Ok(Vec::new())
    }
    async fn instance_types(
        &self,
        _: &NodePool,
    ) -> Result<Arc<Vec<Arc<InstanceType>>>, CloudError> {
        Ok(Arc::default())
    }
    async fn is_drifted(&self, _: &NodeClaim) -> Result<Option<String>, CloudError> {
        Ok(None)
    }
    fn repair_policies(&self) -> Vec<RepairPolicy> {
        Vec::new()
    }
}

/// Provider loops that note how they ended, and need a while to finish.
#[derive(Clone, Default)]
struct Loops {
    notes: Arc<Mutex<Vec<&'static str>>>,
}

#[async_trait]
impl ProviderControllers for Loops {
    async fn start(&self, context: ProviderContext) -> Vec<JoinHandle<()>> {
        let notes = Arc::clone(&self.notes);
        vec![tokio::spawn(async move {
            notes.lock().push("started");
            context.stop.cancelled().await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            notes.lock().push("finished");
        })]
    }
}

fn crd(group: &str, kind: &str, plural: &str, version: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group,
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
            "scope": "Cluster",
            "versions": [{
                "name": version, "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}

fn crds() -> Vec<Value> {
    vec![
        crd("karpenter.sh", "NodePool", "nodepools", "v1"),
        crd("karpenter.sh", "NodeClaim", "nodeclaims", "v1"),
        crd(
            "example.com",
            "ExampleNodeClass",
            "examplenodeclasses",
            "v1alpha1",
        ),
    ]
}

struct World {
    server: ApiServer,
    clock: Clock,
    loops: Loops,
    metrics: Metrics,
}

impl World {
    fn new() -> Self {
        let clock = Clock::starting_at("2026-01-02T03:04:05Z".parse().unwrap());
        let rng = RngTree::new(1);
        let server = ApiServer::new(ServerOptions {
            clock: clock.clone(),
            rng,
        });
        Self {
            server,
            clock,
            loops: Loops::default(),
            metrics: Metrics::default(),
        }
    }

    fn start(&self, identity: Option<&str>) -> Controller {
        let election =
            identity.map(|id| LeaderOptions::new("karpenter-leader-election", "kube-system", id));
        start(Parts {
            provider: Provider {
                cloud: Arc::new(EmptyCloud),
                node_class: NodeClassKind {
                    group: "example.com",
                    version: "v1alpha1",
                    kind: "ExampleNodeClass",
                    plural: "examplenodeclasses",
                },
                crds: Vec::new(),
                labels: Arc::new(LabelRegistry::default()),
                controllers: Arc::new(self.loops.clone()),
                registration_hooks: vec![],
            },
            client: self.server.client(),
            client_no_retry: self.server.client(),
            settings: Settings::default(),
            clock: self.clock.clone(),
            rng: RngTree::new(2),
            options: Options {
                election,
                metrics: self.metrics.clone(),
                ..Options::embedded()
            },
        })
    }

    async fn holder(&self) -> String {
        let api: Api<Lease> = Api::namespaced(self.server.client(), "kube-system");
        let lease = api.get("karpenter-leader-election").await.unwrap();
        lease.spec.unwrap().holder_identity.unwrap_or_default()
    }

    fn notes(&self) -> Vec<&'static str> {
        self.loops.notes.lock().clone()
    }
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn waits_for_its_kinds_then_runs() {
    let world = World::new();
    let mut controller = world.start(None);
    pass(60).await;
    assert_eq!(controller.phase(), Phase::Kinds);
    assert!(controller.ready_check()().unwrap().contains("CRDs"));
    install_crds(world.server.client(), &crds()).await.unwrap();
    assert!(controller.wait_running().await);
    assert_eq!(controller.ready_check()(), None);
    assert!(controller.store().synced());
    let page = world.metrics.render();
    assert!(
        page.contains("karpenter_cluster_state_synced 1\n"),
        "{page}"
    );
    controller.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_lets_loops_finish_and_gives_the_lease_back() {
    let world = World::new();
    install_crds(world.server.client(), &crds()).await.unwrap();
    let mut controller = world.start(Some("a"));
    assert!(controller.wait_running().await);
    assert_eq!(world.holder().await, "a");
    controller.shutdown().await.unwrap();
    assert_eq!(world.notes(), ["started", "finished"]);
    assert_eq!(world.holder().await, "");
}

#[tokio::test(start_paused = true)]
async fn a_kill_is_a_crash_and_another_can_start_after_it() {
    let world = World::new();
    install_crds(world.server.client(), &crds()).await.unwrap();
    let mut first = world.start(Some("a"));
    assert!(first.wait_running().await);
    // Running says that loops were started, not that each has had its first turn.
    pass(1).await;
    first.kill();
    pass(5).await;
    assert_eq!(world.notes(), ["started"], "nothing was let finish");
    assert_eq!(world.holder().await, "a", "the lease is left to run out");
    let version = world.server.resource_version();
    pass(300).await;
    assert_eq!(
        world.server.resource_version(),
        version,
        "the dead write nothing"
    );
    let mut second = world.start(Some("b"));
    assert!(second.wait_running().await);
    assert_eq!(world.holder().await, "b");
}

#[tokio::test(start_paused = true)]
async fn a_standby_is_ready_and_takes_over() {
    let world = World::new();
    install_crds(world.server.client(), &crds()).await.unwrap();
    let mut first = world.start(Some("a"));
    assert!(first.wait_running().await);
    let mut second = world.start(Some("b"));
    pass(60).await;
    assert_eq!(second.phase(), Phase::Standby);
    assert_eq!(second.ready_check()(), None);
    first.shutdown().await.unwrap();
    assert!(second.wait_running().await);
    assert_eq!(world.holder().await, "b");
}

#[tokio::test(start_paused = true)]
async fn losing_the_lease_ends_everything() {
    let world = World::new();
    install_crds(world.server.client(), &crds()).await.unwrap();
    let mut controller = world.start(Some("a"));
    assert!(controller.wait_running().await);
    let stolen =
        json!({"spec": {"holderIdentity": "thief", "renewTime": "2026-01-02T03:05:00.000000Z"}});
    let api: Api<Lease> = Api::namespaced(world.server.client(), "kube-system");
    let patch = kube::api::Patch::Merge(stolen);
    api.patch(
        "karpenter-leader-election",
        &kube::api::PatchParams::default(),
        &patch,
    )
    .await
    .unwrap();
    let error = controller.wait().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "leader lease kube-system/karpenter-leader-election was lost"
    );
    // Another may hold it already: what the loops had begun is cut off, as by a crash, and nothing follows.
    assert_eq!(world.notes(), ["started"]);
    pass(60).await;
    assert_eq!(world.notes(), ["started"]);
    assert_eq!(controller.phase(), Phase::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_month_writes_nothing() {
    let world = World::new();
    install_crds(world.server.client(), &crds()).await.unwrap();
    let mut controller = world.start(None);
    assert!(controller.wait_running().await);
    pass(60).await;
    let (version, requests) = (
        world.server.resource_version(),
        world
            .metrics
            .value("controller_runtime_reconcile_total", &[]),
    );
    pass(30 * 86_400).await;
    assert_eq!(world.server.resource_version(), version);
    assert_eq!(
        world
            .metrics
            .value("controller_runtime_reconcile_total", &[]),
        requests
    );
}

#[tokio::test(start_paused = true)]
async fn crds_are_installed_once_and_brought_up_to_date() {
    let world = World::new();
    let client = world.server.client();
    install_crds(client.clone(), &crds()).await.unwrap();
    let mut changed = crds();
    changed[0]["spec"]["names"]["shortNames"] = json!(["np"]);
    install_crds(client.clone(), &changed).await.unwrap();
    let malformed = install_crds(client, &[json!({"metadata": 1})])
        .await
        .unwrap_err();
    assert!(
        matches!(malformed, CrdError::Malformed { .. }),
        "{malformed}"
    );
}
