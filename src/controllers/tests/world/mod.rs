//! An embedded API server with a provider of two instance types, the state fed by watches, and the loops under test.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // Panicking is how a test fails.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{
    LimitRange, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, PodTemplate,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::{CSINode, StorageClass, VolumeAttachment};
use karpenter_api::kinds::Condition;
use karpenter_api::{CapacityBuffer, NodeClaim, NodePool};
use karpenter_cloud::{
    CloudError, CloudProvider, Launched, Machine, NodeClassKind, Provider, ProviderContext,
    ProviderControllers, RepairPolicy,
};
use karpenter_controllers::{Context, start_provisioning};
use karpenter_fake_kube::server::{PatchKind, gr};
use karpenter_fake_kube::{ApiServer, ServerOptions};
use karpenter_model::{InstanceType, LabelRegistry, Offering, Requirement, ResourceList};
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::reflector::reflect_versions;
use karpenter_runtime::{
    Clock, EventRecorder, ReflectorEvent, ReflectorOptions, RngTree, Settings,
};
use karpenter_state::{Kind, Store, Watched};
use kube::api::{Api, ApiResource, DynamicObject};
use kube::client::Body;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

const KIND: NodeClassKind = NodeClassKind {
    group: "test.karpenter.sh",
    version: "v1",
    kind: "TestNodeClass",
    plural: "testnodeclasses",
};

/// What happens to a request that creates a NodeClaim.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// It is refused.
    Refused,
    /// It is carried out, and nobody hears of it.
    ReplyLost,
}

/// What the test, its provider and its network share.
#[derive(Default)]
struct Market {
    faults: Mutex<VecDeque<Fault>>,
    sold_out: AtomicBool,
    reads: AtomicUsize,
}

struct TestCloud(Arc<Market>);

#[async_trait]
impl CloudProvider for TestCloud {
    fn name(&self) -> &'static str {
        "test"
    }
    async fn create(&self, _: &NodeClaim) -> Result<Launched, CloudError> {
        Err(CloudError::Other(
            "launches are played by the test".to_owned(),
        ))
    }
    async fn delete(&self, claim: &NodeClaim) -> Result<(), CloudError> {
        Err(CloudError::NotFound(claim.status.provider_id.clone()))
    }
    async fn get(&self, id: &str) -> Result<Machine, CloudError> {
        Err(CloudError::NotFound(id.to_owned()))
    }
    async fn list(&self) -> Result<Vec<Machine>, CloudError> {
        Ok(vec![])
    }
    async fn instance_types(
        &self,
        _: &NodePool,
    ) -> Result<Arc<Vec<Arc<InstanceType>>>, CloudError> {
        self.0.reads.fetch_add(1, Ordering::Relaxed);
        let sold_out = self.0.sold_out.load(Ordering::Relaxed);
        Ok(Arc::new(vec![
            machine("small", 2, sold_out),
            machine("large", 8, sold_out),
        ]))
    }
    async fn is_drifted(&self, _: &NodeClaim) -> Result<Option<String>, CloudError> {
        Ok(None)
    }
    fn repair_policies(&self) -> Vec<RepairPolicy> {
        vec![]
    }
}

struct NoControllers;

#[async_trait]
impl ProviderControllers for NoControllers {
    async fn start(&self, _: ProviderContext) -> Vec<tokio::task::JoinHandle<()>> {
        vec![]
    }
}

fn machine(name: &str, cores: u32, sold_out: bool) -> Arc<InstanceType> {
    let zones = ["a", "b"];
    let offerings = zones.map(|zone| Offering {
        available: !sold_out,
        ..Offering::new(zone, "on-demand", f64::from(cores))
    });
    let requirements = [
        Requirement::is_in("node.kubernetes.io/instance-type", [name]),
        Requirement::is_in("kubernetes.io/arch", ["amd64"]),
        Requirement::is_in("kubernetes.io/os", ["linux"]),
        Requirement::is_in("topology.kubernetes.io/zone", zones),
        Requirement::is_in("karpenter.sh/capacity-type", ["on-demand"]),
    ];
    Arc::new(InstanceType::new(
        name,
        requirements.into_iter().collect(),
        offerings.into(),
        resources(&cores.to_string()),
        karpenter_model::instance::Overhead::default(),
    ))
}

fn capacity(cpu: &str) -> Value {
    json!({"cpu": cpu, "memory": "16Gi", "pods": "50", "ephemeral-storage": "20Gi"})
}

fn resources(cpu: &str) -> ResourceList {
    let raw = serde_json::from_value(capacity(cpu)).unwrap();
    ResourceList::from_raw(&raw).unwrap()
}

pub(crate) struct World {
    server: ApiServer,
    clock: Clock,
    rng: RngTree,
    market: Arc<Market>,
    settings: Settings,
    context: Context,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(Settings::default()).await
    }
    /// With capacity buffers on.
    pub(crate) async fn with_buffers() -> Self {
        let mut settings = Settings::default();
        settings.feature_gates.capacity_buffer = true;
        Self::with(settings).await
    }
    async fn with(settings: Settings) -> Self {
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let rng = RngTree::new(1);
        let server = ApiServer::new(ServerOptions {
            clock: clock.clone(),
            rng: rng.child("apiserver", ""),
        });
        for (group, version, kind, plural, scope) in [
            ("karpenter.sh", "v1", "NodePool", "nodepools", "Cluster"),
            ("karpenter.sh", "v1", "NodeClaim", "nodeclaims", "Cluster"),
            (KIND.group, KIND.version, KIND.kind, KIND.plural, "Cluster"),
            (
                "autoscaling.x-k8s.io",
                "v1beta1",
                "CapacityBuffer",
                "capacitybuffers",
                "Namespaced",
            ),
        ] {
            let mut crd = definition(group, version, kind, plural);
            crd["spec"]["scope"] = scope.into();
            let crds = gr("apiextensions.k8s.io", "customresourcedefinitions");
            server.create(crds, None, crd).unwrap();
        }
        let market = Arc::new(Market::default());
        let context = boot(&server, &clock, &rng, &market, &settings).await;
        Self {
            server,
            clock,
            rng,
            market,
            settings,
            context,
        }
    }

    /// Kills the controller and starts another one, which knows nothing.
    pub(crate) async fn restart(&mut self) {
        self.context.stop.cancel();
        self.pass(0.1).await;
        let (rng, settings) = (&self.rng, &self.settings);
        self.context = boot(&self.server, &self.clock, rng, &self.market, settings).await;
    }

    pub(crate) fn store(&self) -> &Store {
        &self.context.state
    }
    pub(crate) async fn pass(&self, seconds: f64) {
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    }
    pub(crate) fn version(&self) -> u64 {
        self.server.resource_version()
    }
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.context.metrics.value(name, labels)
    }
    pub(crate) fn metrics_page(&self) -> String {
        self.context.metrics.render()
    }
    pub(crate) fn catalog_reads(&self) -> usize {
        self.market.reads.load(Ordering::Relaxed)
    }
    pub(crate) fn sold_out(&self, sold_out: bool) {
        self.market.sold_out.store(sold_out, Ordering::Relaxed);
        self.context.catalog_changed.notify_waiters();
    }
    pub(crate) fn nominated(&self, node: &str) -> bool {
        self.store().is_nominated(node, self.clock.wall())
    }

    /// The next creation of a NodeClaim goes wrong.
    pub(crate) fn fault(&self, fault: Fault) {
        self.market.faults.lock().push_back(fault);
    }

    pub(crate) fn claims(&self) -> Vec<NodeClaim> {
        let all = self.server.list(gr("karpenter.sh", "nodeclaims"), None);
        all.iter()
            .map(|v| serde_json::from_value((**v).clone()).unwrap())
            .collect()
    }
    pub(crate) fn delete_claim(&self, name: &str) {
        self.server
            .delete(gr("karpenter.sh", "nodeclaims"), None, name, None)
            .unwrap();
    }
    pub(crate) fn taint(&self, node: &str, key: &str) {
        let patch = json!({"spec": {"taints": [{"key": key, "effect": "NoSchedule"}]}});
        self.server
            .patch(gr("", "nodes"), None, node, "", PatchKind::Merge, patch)
            .unwrap();
    }
    /// A Node is gone.
    pub(crate) fn lose(&self, node: &str) {
        self.server
            .delete(gr("", "nodes"), None, node, None)
            .unwrap();
    }
    /// Reasons of the events about a pod, in order of creation.
    pub(crate) fn events_about(&self, object: &str) -> Vec<String> {
        self.of_events_about(object, "reason")
    }
    /// Their messages.
    pub(crate) fn told_about(&self, object: &str) -> Vec<String> {
        self.of_events_about(object, "message")
    }
    fn of_events_about(&self, object: &str, field: &str) -> Vec<String> {
        let all = self.server.list(gr("", "events"), None);
        let about = all.iter().filter(|e| e["involvedObject"]["name"] == object);
        about
            .map(|e| e[field].as_str().unwrap().to_owned())
            .collect()
    }

    /// A NodePool that is ready, with its class.
    pub(crate) async fn pool(&self, name: &str, patch: Value) {
        self.class("plain", "True");
        self.create_pool(name, patch);
        self.pass(1.0).await;
        assert_eq!(self.pool_condition(name, "Ready").status, "True");
    }
    pub(crate) fn create_pool(&self, name: &str, patch: Value) {
        let pool = json!({
            "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": name},
            "spec": {"template": {"spec": {"requirements": [], "expireAfter": "720h",
                "nodeClassRef": {"group": KIND.group, "kind": KIND.kind, "name": "plain"}}}},
        });
        self.server
            .create(gr("karpenter.sh", "nodepools"), None, pool)
            .unwrap();
        self.patch_pool(name, patch);
    }
    pub(crate) fn patch_pool(&self, name: &str, patch: Value) {
        let pools = gr("karpenter.sh", "nodepools");
        self.server
            .patch(pools, None, name, "", PatchKind::Merge, patch)
            .unwrap();
    }
    pub(crate) fn pool_condition(&self, pool: &str, kind: &str) -> Condition {
        let pool = self.store().node_pool(pool).unwrap();
        let mut all = pool.status.conditions.iter();
        all.find(|c| c.type_ == kind)
            .unwrap_or_else(|| panic!("no condition {kind}"))
            .clone()
    }
    /// Creates or changes a NodeClass.
    pub(crate) fn class(&self, name: &str, ready: &str) {
        let classes = gr(KIND.group, KIND.plural);
        if self.server.get(classes, None, name).is_err() {
            let class = json!({"apiVersion": "test.karpenter.sh/v1", "kind": KIND.kind, "metadata": {"name": name}});
            self.server.create(classes, None, class).unwrap();
        }
        let status = json!({"status": {"conditions": [{"type": "Ready", "status": ready, "reason": "TestSaysSo", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        self.server
            .patch(classes, None, name, "status", PatchKind::Merge, status)
            .unwrap();
    }

    /// Creates an object of namespace `default`.
    pub(crate) fn create(&self, group: &str, plural: &str, object: Value) {
        self.server
            .create(gr(group, plural), Some("default"), object)
            .unwrap();
    }
    pub(crate) fn delete(&self, group: &str, plural: &str, name: &str) {
        self.server
            .delete(gr(group, plural), Some("default"), name, None)
            .unwrap();
    }
    pub(crate) fn patch(&self, group: &str, plural: &str, name: &str, patch: Value) {
        let (resource, namespace) = (gr(group, plural), Some("default"));
        self.server
            .patch(resource, namespace, name, "", PatchKind::Merge, patch)
            .unwrap();
    }
    /// Status of a buffer: replicas, and of a condition status and reason.
    pub(crate) fn buffer(&self, name: &str, condition: &str) -> (Option<i64>, String) {
        let buffers = gr("autoscaling.x-k8s.io", "capacitybuffers");
        let held = self.server.get(buffers, Some("default"), name).unwrap();
        let all = held["status"]["conditions"].as_array();
        let found = all.into_iter().flatten().find(|c| c["type"] == condition);
        let text = found.map_or(String::new(), |c| {
            format!(
                "{} {}",
                c["status"].as_str().unwrap(),
                c["reason"].as_str().unwrap()
            )
        });
        (held["status"]["replicas"].as_i64(), text)
    }
    /// Names of all pods there are.
    pub(crate) fn pods(&self) -> Vec<String> {
        let all = self.server.list(gr("", "pods"), None);
        let names = all.iter().map(|p| p["metadata"]["name"].as_str().unwrap());
        names.map(ToOwned::to_owned).collect()
    }
    /// How many events there are of any sort about pods.
    pub(crate) fn pod_events(&self) -> usize {
        let all = self.server.list(gr("", "events"), None);
        let about = all.iter().filter(|e| e["involvedObject"]["kind"] == "Pod");
        about.count()
    }

    /// A pod that kube-scheduler has given up on.
    pub(crate) fn pending_pod(&self, name: &str, cpu: &str) {
        self.pending_pod_with(name, cpu, json!({}));
    }
    /// The same with more in its spec.
    pub(crate) fn pending_pod_with(&self, name: &str, cpu: &str, spec: Value) {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
            "spec": {"containers": [{"name": "c", "image": "pause", "resources": {"requests": {"cpu": cpu}}}]},
        });
        if let (Some(into), Value::Object(more)) = (pod["spec"].as_object_mut(), spec) {
            into.extend(more);
        }
        let pods = gr("", "pods");
        self.server.create(pods, Some("default"), pod).unwrap();
        let status = json!({"status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}});
        self.server
            .patch(
                pods,
                Some("default"),
                name,
                "status",
                PatchKind::Merge,
                status,
            )
            .unwrap();
    }
    pub(crate) fn bind(&self, pod: &str, node: &str) {
        self.server.bind("default", pod, node).unwrap();
        let status = json!({"status": {"phase": "Running"}});
        self.server
            .patch(
                gr("", "pods"),
                Some("default"),
                pod,
                "status",
                PatchKind::Merge,
                status,
            )
            .unwrap();
    }

    /// What the lifecycle does after a launch, as far as planning depends on it.
    pub(crate) fn launch(&self, claim: &str, cpu: &str) {
        let claims = gr("karpenter.sh", "nodeclaims");
        let status = json!({"status": {"providerID": format!("test:///{claim}"), "capacity": capacity(cpu), "allocatable": capacity(cpu)}});
        self.server
            .patch(claims, None, claim, "status", PatchKind::Merge, status)
            .unwrap();
        let labels = json!({"metadata": {"labels": labels(claim)}});
        self.server
            .patch(claims, None, claim, "", PatchKind::Merge, labels)
            .unwrap();
    }
    /// The claim's Node was found to be ours.
    pub(crate) fn register(&self, claim: &str) {
        let condition = json!({"type": "Registered", "status": "True", "reason": "Registered",
            "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let status = json!({"status": {"conditions": [condition]}});
        let claims = gr("karpenter.sh", "nodeclaims");
        self.server
            .patch(claims, None, claim, "status", PatchKind::Merge, status)
            .unwrap();
    }
    /// The claim's Node, named like it, joins or becomes initialized.
    pub(crate) fn join(&self, claim: &str, cpu: &str, initialized: bool) {
        let nodes = gr("", "nodes");
        if self.server.get(nodes, None, claim).is_err() {
            let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": claim},
                "spec": {"providerID": format!("test:///{claim}")}});
            self.server.create(nodes, None, node).unwrap();
            // No loop looks at its conditions here.
            let looked_at = json!({"spec": {"taints": null}});
            self.server
                .patch(nodes, None, claim, "", PatchKind::Merge, looked_at)
                .unwrap();
        }
        let mut all = labels(claim);
        all["karpenter.sh/registered"] = "true".into();
        all["karpenter.sh/nodepool"] = "default".into();
        if initialized {
            all["karpenter.sh/initialized"] = "true".into();
        }
        let meta = json!({"metadata": {"labels": all}});
        self.server
            .patch(nodes, None, claim, "", PatchKind::Merge, meta)
            .unwrap();
        let status = json!({"status": {"capacity": capacity(cpu), "allocatable": capacity(cpu)}});
        self.server
            .patch(nodes, None, claim, "status", PatchKind::Merge, status)
            .unwrap();
    }
}

fn labels(claim: &str) -> Value {
    json!({
        "node.kubernetes.io/instance-type": "small", "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux",
        "topology.kubernetes.io/zone": "a", "karpenter.sh/capacity-type": "on-demand", "kubernetes.io/hostname": claim,
    })
}

fn definition(group: &str, version: &str, kind: &str, plural: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group, "scope": "Cluster",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
            "versions": [{
                "name": version, "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}

/// A client whose requests meet the faults in `market`.
fn client(server: &ApiServer, market: &Arc<Market>) -> kube::Client {
    let (inner, market) = (server.service(), market.clone());
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let creates =
            request.method() == http::Method::POST && request.uri().path().ends_with("/nodeclaims");
        let fault = creates.then(|| market.faults.lock().pop_front()).flatten();
        let mut inner = inner.clone();
        async move {
            if fault == Some(Fault::Refused) {
                return Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
            }
            let Ok(response) = inner.call(request).await;
            match fault {
                Some(_) => Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
                None => Ok(response),
            }
        }
    });
    kube::Client::new(service, "default")
}

async fn boot(
    server: &ApiServer,
    clock: &Clock,
    rng: &RngTree,
    market: &Arc<Market>,
    settings: &Settings,
) -> Context {
    let buffers = settings.feature_gates.capacity_buffer;
    let besides = if buffers {
        Kind::OF_BUFFERS.to_vec()
    } else {
        Vec::new()
    };
    let client = client(server, market);
    let metrics = Metrics::default();
    let context = Context {
        client: client.clone(),
        client_no_retry: client.clone(),
        state: Arc::new(Store::waiting_for(besides)),
        provider: Arc::new(Provider {
            cloud: Arc::new(TestCloud(market.clone())),
            node_class: KIND,
            crds: vec![],
            labels: Arc::new(LabelRegistry::default()),
            controllers: Arc::new(NoControllers),
            registration_hooks: vec![],
        }),
        clock: clock.clone(),
        rng: rng.child("controller", ""),
        settings: Arc::new(settings.clone()),
        events: EventRecorder::new(client.clone(), clock.clone(), rng),
        metrics,
        stop: CancellationToken::new(),
        catalog_changed: Arc::default(),
        overlays: None,
        wares: Default::default(),
    };
    let classes = ApiResource {
        group: KIND.group.to_owned(),
        version: KIND.version.to_owned(),
        api_version: format!("{}/{}", KIND.group, KIND.version),
        kind: KIND.kind.to_owned(),
        plural: KIND.plural.to_owned(),
    };
    watch(&context, Api::<NodePool>::all(client.clone()));
    watch(&context, Api::<NodeClaim>::all(client.clone()));
    watch(
        &context,
        Api::<DynamicObject>::all_with(client.clone(), &classes),
    );
    watch(&context, Api::<Node>::all(client.clone()));
    watch(&context, Api::<Pod>::all(client.clone()));
    watch(&context, Api::<DaemonSet>::all(client.clone()));
    watch(&context, Api::<PodDisruptionBudget>::all(client.clone()));
    watch(&context, Api::<VolumeAttachment>::all(client.clone()));
    watch(&context, Api::<PersistentVolumeClaim>::all(client.clone()));
    watch(&context, Api::<PersistentVolume>::all(client.clone()));
    watch(&context, Api::<StorageClass>::all(client.clone()));
    watch(&context, Api::<CSINode>::all(client.clone()));
    watch(&context, Api::<Namespace>::all(client.clone()));
    watch(&context, Api::<LimitRange>::all(client.clone()));
    if buffers {
        watch(&context, Api::<CapacityBuffer>::all(client.clone()));
        watch(&context, Api::<PodTemplate>::all(client.clone()));
        watch(&context, Api::<Deployment>::all(client.clone()));
        watch(&context, Api::<StatefulSet>::all(client.clone()));
        watch(&context, Api::<ReplicaSet>::all(client));
    }
    // As the controller does it: what is there already is no change that loops would hear of.
    context.state.wait_synced().await;
    let _ = start_provisioning(&context);
    context
}

fn watch<K>(context: &Context, api: Api<K>)
where
    K: Watched + kube::Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let store = context.state.clone();
    let feed = move |event: ReflectorEvent<K>, version: &str| match event {
        ReflectorEvent::Init(objects) => K::reset(objects, version, &store),
        ReflectorEvent::Applied(object) => object.apply(&store),
        ReflectorEvent::Deleted(object) => object.delete(&store),
    };
    let options = ReflectorOptions {
        watch_timeout: None,
        ..ReflectorOptions::default()
    };
    let (clock, stop) = (context.clock.clone(), context.stop.clone());
    let _ = reflect_versions(api, options, feed, clock, &context.rng, stop);
}
