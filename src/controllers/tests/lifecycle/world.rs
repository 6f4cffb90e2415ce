//! A cluster to live a claim's life in: the embedded API server, a cloud whose machines boot, join and run pods, and
//! the loops under test, all in virtual time.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::{CSINode, StorageClass, VolumeAttachment};
use karpenter_api::{NodeClaim, NodePool};
use karpenter_cloud::{
    CloudError, CloudProvider, Launched, Machine, NodeClassKind, Provider, ProviderContext,
    ProviderControllers, RegistrationHook, RepairPolicy,
};
use karpenter_controllers::{Context, start_lifecycle, start_provisioning};
use karpenter_fake_kube::flaky::{ClientFaults, Flaky};
use karpenter_fake_kube::loops::{Loop, LoopOptions};
use karpenter_fake_kube::server::{Change, PatchKind, gr};
use karpenter_fake_kube::{ApiServer, ServerOptions, loops};
use karpenter_model::{InstanceType, LabelRegistry, Offering, Requirements, ResourceList};
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::reflector::reflect_versions;
use karpenter_runtime::{
    Clock, EventRecorder, ReflectorEvent, ReflectorOptions, RngTree, Settings,
};
use karpenter_state::{Store, Watched};
use kube::api::{Api, ApiResource, DynamicObject};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::answers::{Answers, client};

const KIND: NodeClassKind = NodeClassKind {
    group: "test.karpenter.sh",
    version: "v1",
    kind: "TestNodeClass",
    plural: "testnodeclasses",
};

/// How long a machine takes to join.
pub(crate) const BOOT: Duration = Duration::from_secs(30);
/// How long the cloud takes to tell of a purchase.
const ANSWER: Duration = Duration::from_secs(2);
/// How long a machine takes to end.
const SHUTDOWN: Duration = Duration::from_secs(12);

/// What the next launches are answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Launch {
    /// A machine that boots and joins.
    Joins,
    /// A machine that boots and never joins.
    NeverJoins,
    /// A machine whose purchase is not told: the answer is an error.
    SoldOut,
    /// An error that names its reason.
    Unauthorized,
    /// The class is not ready.
    NotReady,
}

#[derive(Clone, Debug)]
struct Owned {
    ends: Option<tokio::time::Instant>,
}

/// The cloud.
pub(crate) struct Cloud {
    server: ApiServer,
    pub(crate) launch: Mutex<Launch>,
    machines: Mutex<BTreeMap<String, Owned>>,
    pub(crate) created: Mutex<Vec<String>>,
    pub(crate) lists: Mutex<usize>,
    /// Whether the type that all machines are of is not sold any more.
    pub(crate) withdrawn: AtomicBool,
}

impl Cloud {
    /// Machines that have not been told to end.
    pub(crate) fn running(&self) -> usize {
        self.machines
            .lock()
            .values()
            .filter(|m| m.ends.is_none())
            .count()
    }
    /// A machine vanishes and its kubelet with it.
    pub(crate) fn lose(&self, provider_id: &str) {
        self.machines.lock().remove(provider_id);
    }
    fn is_gone(&self, provider_id: &str) -> bool {
        let mut all = self.machines.lock();
        let now = tokio::time::Instant::now();
        all.retain(|_, m| m.ends.is_none_or(|at| at > now));
        !all.contains_key(provider_id)
    }
}

#[async_trait]
impl CloudProvider for Cloud {
    fn name(&self) -> &'static str {
        "test"
    }
    async fn create(&self, claim: &NodeClaim) -> Result<Launched, CloudError> {
        let name = claim.metadata.name.clone().unwrap();
        self.created.lock().push(name.clone());
        let joins = match *self.launch.lock() {
            Launch::Joins => true,
            Launch::NeverJoins => false,
            Launch::NotReady => {
                return Err(CloudError::NodeClassNotReady("not ready yet".into()));
            }
            Launch::SoldOut => return Err(CloudError::InsufficientCapacity("all sold".into())),
            Launch::Unauthorized => {
                return Err(CloudError::Create {
                    reason: "Unauthorized".into(),
                    message: "not allowed to buy".into(),
                });
            }
        };
        let uid = claim.metadata.uid.clone().unwrap();
        // The claim's UID is the idempotency token: asked twice, the cloud sells once.
        let provider_id = format!("test:///z/{uid}");
        let owned = Owned { ends: None };
        let new = self
            .machines
            .lock()
            .insert(provider_id.clone(), owned)
            .is_none();
        if joins && new {
            let (server, id) = (self.server.clone(), provider_id.clone());
            tokio::spawn(async move {
                tokio::time::sleep(BOOT).await;
                join(&server, &name, &id);
            });
        }
        // The machine is bought; the answer takes its time.
        tokio::time::sleep(ANSWER).await;
        Ok(Launched {
            provider_id,
            labels: BTreeMap::from([
                ("node.kubernetes.io/instance-type".into(), "small".into()),
                ("topology.kubernetes.io/zone".into(), "z".into()),
                ("karpenter.sh/capacity-type".into(), "spot".into()),
            ]),
            capacity: resources(),
            allocatable: resources(),
            ..Launched::default()
        })
    }
    async fn delete(&self, claim: &NodeClaim) -> Result<(), CloudError> {
        let id = &claim.status.provider_id;
        if self.is_gone(id) {
            return Err(CloudError::NotFound(id.clone()));
        }
        if let Some(machine) = self.machines.lock().get_mut(id) {
            machine
                .ends
                .get_or_insert(tokio::time::Instant::now() + SHUTDOWN);
        }
        Ok(())
    }
    async fn get(&self, id: &str) -> Result<Machine, CloudError> {
        if self.is_gone(id) {
            return Err(CloudError::NotFound(id.to_owned()));
        }
        Ok(Machine {
            provider_id: id.to_owned(),
            ..Machine::default()
        })
    }
    async fn list(&self) -> Result<Vec<Machine>, CloudError> {
        *self.lists.lock() += 1;
        let ids: Vec<String> = self.machines.lock().keys().cloned().collect();
        let there = ids.into_iter().filter(|id| !self.is_gone(id));
        Ok(there
            .map(|provider_id| Machine {
                provider_id,
                ..Machine::default()
            })
            .collect())
    }
    async fn instance_types(
        &self,
        _: &NodePool,
    ) -> Result<Arc<Vec<Arc<InstanceType>>>, CloudError> {
        let withdrawn = self.withdrawn.load(Ordering::Relaxed);
        Ok(Arc::new(vec![Arc::new(InstanceType::new(
            if withdrawn { "other" } else { "small" },
            Requirements::new(),
            vec![Offering::new("z", "spot", 0.1)],
            resources(),
            Default::default(),
        ))]))
    }
    async fn is_drifted(&self, _: &NodeClaim) -> Result<Option<String>, CloudError> {
        Ok(None)
    }
    fn repair_policies(&self) -> Vec<RepairPolicy> {
        ["False", "Unknown"]
            .map(|status| RepairPolicy {
                condition: "Ready",
                status,
                toleration: Duration::from_secs(600),
            })
            .to_vec()
    }
}

struct NoControllers;

#[async_trait]
impl ProviderControllers for NoControllers {
    async fn start(&self, _: ProviderContext) -> Vec<JoinHandle<()>> {
        vec![]
    }
}

fn amounts() -> Value {
    json!({"cpu": "4", "memory": "16Gi", "pods": "50"})
}

fn resources() -> ResourceList {
    ResourceList::from_raw(&serde_json::from_value(amounts()).unwrap()).unwrap()
}

/// A kubelet comes up.
pub(crate) fn join(server: &ApiServer, claim: &str, provider_id: &str) {
    let node = json!({
        "metadata": {"name": format!("node-{claim}"), "labels": {"kubernetes.io/hostname": claim}},
        "spec": {
            "providerID": provider_id,
            "taints": [{"key": "karpenter.sh/unregistered", "effect": "NoExecute"}]
        }
    });
    if server.create(gr("", "nodes"), None, node).is_ok() {
        ready(server, &format!("node-{claim}"), "True");
    }
}

/// A kubelet reports; what is ready loses the taint of new nodes, as there is no loop here that looks at it.
pub(crate) fn ready(server: &ApiServer, node: &str, ready: &str) {
    let there = server.get(gr("", "nodes"), None, node).unwrap();
    let taints = there["spec"]["taints"].as_array().into_iter().flatten();
    let kept: Vec<&Value> = taints
        .filter(|t| ready != "True" || t["key"] != "node.kubernetes.io/not-ready")
        .collect();
    let taints = json!({"spec": {"taints": kept}});
    let nodes = gr("", "nodes");
    server
        .patch(nodes, None, node, "", PatchKind::Merge, taints)
        .unwrap();
    let status = json!({"status": {
        "capacity": amounts(), "allocatable": amounts(),
        "conditions": [{"type": "Ready", "status": ready, "reason": "r", "message": ""}]
    }});
    server
        .patch(
            gr("", "nodes"),
            None,
            node,
            "status",
            PatchKind::Merge,
            status,
        )
        .unwrap();
}

/// Runs what is bound and ends what is deleted, once its grace period is over.
async fn kubelets(server: ApiServer) {
    let mut pods = server.subscribe(gr("", "pods"));
    while let Some(change) = pods.next().await {
        let (Change::Added(pod) | Change::Modified(pod)) = change else {
            continue;
        };
        let (namespace, name) = (
            pod["metadata"]["namespace"].as_str().unwrap().to_owned(),
            pod["metadata"]["name"].as_str().unwrap().to_owned(),
        );
        let server = server.clone();
        if pod["spec"]["nodeName"].is_null() {
            continue;
        }
        if let Some(at) = pod["metadata"]["deletionTimestamp"].as_str() {
            let at: Timestamp = at.parse().unwrap();
            tokio::spawn(async move {
                server.clock().sleep_until_wall(at).await;
                let _ = server.delete(gr("", "pods"), Some(&namespace), &name, Some(0));
            });
        } else if pod["status"]["phase"] == "Pending" {
            let status = json!({"status": {"phase": "Running", "startTime": server.clock().wall().to_string(),
                "conditions": [{"type": "Ready", "status": "True"}]}});
            let (ns, kind) = (Some(namespace.as_str()), PatchKind::Merge);
            let _ = server.patch(gr("", "pods"), ns, &name, "status", kind, status);
        }
    }
}

pub(crate) struct World {
    pub(crate) server: ApiServer,
    pub(crate) clock: Clock,
    rng: RngTree,
    pub(crate) cloud: Arc<Cloud>,
    pub(crate) context: Context,
    flaky: Flaky,
    /// How creations of claims are answered.
    pub(crate) answers: Arc<Answers>,
    settings: Settings,
    hooks: Vec<Arc<dyn RegistrationHook>>,
    tasks: Vec<JoinHandle<()>>,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    /// With the loops of static NodePools, and a NodeClass that is ready.
    pub(crate) async fn with_static_pools() -> Self {
        let mut settings = Settings::default();
        settings.feature_gates.static_capacity = true;
        let world = Self::with(settings).await;
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True",
            "reason": "Ready", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        let (class, kind) = (gr(KIND.group, KIND.plural), PatchKind::Merge);
        world
            .server
            .patch(class, None, "plain", "status", kind, ready)
            .unwrap();
        world
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        Self::with_hooks(settings, vec![]).await
    }

    /// With hooks that hold up registrations.
    pub(crate) async fn with_hooks(
        settings: Settings,
        hooks: Vec<Arc<dyn RegistrationHook>>,
    ) -> Self {
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let rng = RngTree::new(1);
        let server = ApiServer::new(ServerOptions {
            clock: clock.clone(),
            rng: rng.child("apiserver", ""),
        });
        for (group, version, kind, plural) in [
            ("karpenter.sh", "v1", "NodePool", "nodepools"),
            ("karpenter.sh", "v1", "NodeClaim", "nodeclaims"),
            (KIND.group, KIND.version, KIND.kind, KIND.plural),
        ] {
            let crds = gr("apiextensions.k8s.io", "customresourcedefinitions");
            let crd = definition(group, version, kind, plural);
            server.create(crds, None, crd).unwrap();
        }
        let priority =
            json!({"metadata": {"name": "system-node-critical"}, "value": 2_000_001_000});
        // Clusters have it from the start.
        let _ = server.create(gr("scheduling.k8s.io", "priorityclasses"), None, priority);
        let class = json!({"apiVersion": "test.karpenter.sh/v1", "kind": KIND.kind, "metadata": {"name": "plain"}});
        server
            .create(gr(KIND.group, KIND.plural), None, class)
            .unwrap();
        let cloud = Arc::new(Cloud {
            server: server.clone(),
            launch: Mutex::new(Launch::Joins),
            machines: Mutex::default(),
            created: Mutex::default(),
            lists: Mutex::default(),
            withdrawn: AtomicBool::default(),
        });
        let on = Loop::ALL.into_iter().filter(|l| *l != Loop::Disruption);
        let _ = loops::start(
            &server,
            &LoopOptions::without(on),
            &CancellationToken::new(),
        );
        tokio::spawn(kubelets(server.clone()));
        let flaky = Flaky::new(clock.clone(), &rng);
        let answers = Arc::default();
        let client = client(&server, &flaky, &answers);
        let (context, tasks) = boot(client, &clock, &rng, &cloud, &settings, hooks.clone()).await;
        Self {
            server,
            flaky,
            answers,
            settings,
            hooks,
            clock,
            rng,
            cloud,
            context,
            tasks,
        }
    }

    /// Kills the controller, wherever it is, and starts another one, which knows nothing.
    pub(crate) async fn crash(&mut self) {
        self.tasks.drain(..).for_each(|t| t.abort());
        self.context.stop.cancel();
        self.rng = self.rng.child("next", "");
        let client = client(&self.server, &self.flaky, &self.answers);
        let (context, tasks) = boot(
            client,
            &self.clock,
            &self.rng,
            &self.cloud,
            &self.settings,
            self.hooks.clone(),
        )
        .await;
        self.context = context;
        self.tasks = tasks;
    }

    /// From now on the controller's requests suffer from these.
    pub(crate) fn faults(&self, faults: ClientFaults) {
        self.flaky.set(faults);
    }

    /// From now on the controller hears of no pod any more.
    pub(crate) fn hear_of_no_pods(&self) {
        self.tasks[PODS].abort();
    }
    pub(crate) async fn pass(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    /// Waits for something to become true; returns the virtual seconds it took.
    pub(crate) async fn until(&self, limit: u64, what: &str, done: impl Fn(&Self) -> bool) -> u64 {
        let start = self.clock.now();
        while !done(self) {
            let took = self.clock.now().duration_since(start);
            assert!(
                took < Duration::from_secs(limit),
                "{what}: not within {limit} s"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.clock.now().duration_since(start).as_secs()
    }

    pub(crate) fn pool(&self, disruption: Value) {
        let pool = json!({
            "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "default"},
            "spec": {"disruption": disruption, "template": {"spec": {"requirements": [],
                "nodeClassRef": {"group": KIND.group, "kind": KIND.kind, "name": "plain"}}}},
        });
        self.server
            .create(gr("karpenter.sh", "nodepools"), None, pool)
            .unwrap();
    }
    /// A pool of so many machines, whatever pods ask.
    pub(crate) fn static_pool(&self, replicas: u32, spec: Value) {
        let mut pool = json!({
            "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "default"},
            "spec": {"replicas": replicas, "disruption": {"consolidateAfter": "0s", "budgets": [{"nodes": "100%"}]},
                "template": {"metadata": {"labels": {"team": "red"}}, "spec": {"requirements": [],
                "nodeClassRef": {"group": KIND.group, "kind": KIND.kind, "name": "plain"}}}},
        });
        pool["spec"]
            .as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        self.server
            .create(gr("karpenter.sh", "nodepools"), None, pool)
            .unwrap();
    }
    /// The claims there are, by name.
    pub(crate) fn claims(&self) -> BTreeMap<String, Arc<Value>> {
        let all = self.server.list(gr("karpenter.sh", "nodeclaims"), None);
        all.into_iter()
            .map(|c| (c["metadata"]["name"].as_str().unwrap().to_owned(), c))
            .collect()
    }
    pub(crate) fn claim(&self, name: &str, spec: Value) {
        let pool = self
            .server
            .get(gr("karpenter.sh", "nodepools"), None, "default");
        let uid = pool.map_or(Value::Null, |p| p["metadata"]["uid"].clone());
        let mut claim = json!({
            "apiVersion": "karpenter.sh/v1", "kind": "NodeClaim",
            "metadata": {"name": name, "labels": {"karpenter.sh/nodepool": "default"}},
            "spec": {"requirements": [], "resources": {"requests": {"cpu": "1"}},
                "startupTaints": [{"key": "cni", "effect": "NoSchedule"}],
                "nodeClassRef": {"group": KIND.group, "kind": KIND.kind, "name": "plain"}},
        });
        if !uid.is_null() {
            claim["metadata"]["ownerReferences"] = json!([{"apiVersion": "karpenter.sh/v1",
                "kind": "NodePool", "name": "default", "uid": uid, "blockOwnerDeletion": true}]);
        }
        claim["spec"]
            .as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        self.server
            .create(gr("karpenter.sh", "nodeclaims"), None, claim)
            .unwrap();
    }
    /// A claim that no NodePool owns.
    pub(crate) fn standalone(&self, name: &str, metadata: Value, spec: Value) {
        let mut claim = json!({
            "apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "metadata": metadata,
            "spec": {"requirements": [{"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot"]}],
                "nodeClassRef": {"group": KIND.group, "kind": KIND.kind, "name": "plain"}},
        });
        claim["metadata"]["name"] = name.into();
        let spec = spec.as_object().unwrap().clone();
        claim["spec"].as_object_mut().unwrap().extend(spec);
        self.server
            .create(gr("karpenter.sh", "nodeclaims"), None, claim)
            .unwrap();
    }
    /// A claim without startup taints, waited for until it is initialized.
    pub(crate) async fn node(&self, name: &str, mut spec: Value) {
        spec["startupTaints"] = json!([]);
        self.claim(name, spec);
        self.until(120, "initialized", |w| {
            w.condition(name, "Initialized") == "True"
        })
        .await;
    }
    pub(crate) fn get(&self, resource: &str, name: &str) -> Option<Arc<Value>> {
        let group = if resource == "nodes" {
            ""
        } else {
            "karpenter.sh"
        };
        self.server.get(gr(group, resource), None, name).ok()
    }
    /// Status of a claim's condition, empty if it has none.
    pub(crate) fn condition(&self, claim: &str, kind: &str) -> String {
        self.condition_field(claim, kind, "status")
    }
    pub(crate) fn condition_field(&self, claim: &str, kind: &str, field: &str) -> String {
        let claim = self.get("nodeclaims", claim).unwrap_or_default();
        let mut all = claim["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten();
        let found = all.find(|c| c["type"] == kind);
        found.map_or_else(String::new, |c| c[field].as_str().unwrap().to_owned())
    }
    pub(crate) fn delete(&self, resource: &str, name: &str) {
        let group = if resource == "nodes" {
            ""
        } else {
            "karpenter.sh"
        };
        self.server
            .delete(gr(group, resource), None, name, None)
            .unwrap();
    }
    pub(crate) fn patch(&self, resource: &str, name: &str, patch: Value) {
        let group = if resource == "nodes" {
            ""
        } else {
            "karpenter.sh"
        };
        self.server
            .patch(gr(group, resource), None, name, "", PatchKind::Merge, patch)
            .unwrap();
    }

    /// A pod bound to a node, with labels `app=<name>`.
    pub(crate) fn pod(&self, name: &str, node: &str, meta: Value, spec: Value) {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
            "spec": {"terminationGracePeriodSeconds": 5, "containers": [{"name": "c", "image": "pause"}]},
        });
        pod["metadata"]
            .as_object_mut()
            .unwrap()
            .extend(meta.as_object().unwrap().clone());
        pod["spec"]
            .as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        self.server
            .create(gr("", "pods"), Some("default"), pod)
            .unwrap();
        self.server.bind("default", name, node).unwrap();
    }
    pub(crate) fn has_pod(&self, name: &str) -> bool {
        self.server
            .get(gr("", "pods"), Some("default"), name)
            .is_ok()
    }
    pub(crate) fn pod_is_going(&self, name: &str) -> bool {
        let pod = self.server.get(gr("", "pods"), Some("default"), name);
        pod.is_ok_and(|p| !p["metadata"]["deletionTimestamp"].is_null())
    }
    pub(crate) fn budget(&self, app: &str, min_available: u32) {
        let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": app, "namespace": "default"},
            "spec": {"minAvailable": min_available, "selector": {"matchLabels": {"app": app}}}});
        let budgets = gr("policy", "poddisruptionbudgets");
        self.server
            .create(budgets, Some("default"), budget)
            .unwrap();
    }
    /// A volume is attached to a node.
    pub(crate) fn attach(&self, volume: &str, node: &str) {
        let attachment = json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment",
            "metadata": {"name": volume},
            "spec": {"attacher": "test", "nodeName": node, "source": {"persistentVolumeName": volume}}});
        let attachments = gr("storage.k8s.io", "volumeattachments");
        self.server.create(attachments, None, attachment).unwrap();
    }
    pub(crate) fn detach(&self, volume: &str) {
        let attachments = gr("storage.k8s.io", "volumeattachments");
        self.server.delete(attachments, None, volume, None).unwrap();
    }
    pub(crate) fn drop_budget(&self, app: &str) {
        let budgets = gr("policy", "poddisruptionbudgets");
        self.server
            .delete(budgets, Some("default"), app, None)
            .unwrap();
    }
    /// `reason: message` of the events about an object.
    pub(crate) fn events(&self, about: &str) -> Vec<String> {
        let all = self.server.list(gr("", "events"), None);
        all.iter()
            .filter(|e| e["involvedObject"]["name"] == about)
            .map(|e| {
                format!(
                    "{}: {}",
                    e["reason"].as_str().unwrap(),
                    e["message"].as_str().unwrap()
                )
            })
            .collect()
    }
    pub(crate) fn has_event(&self, about: &str, text: &str) -> bool {
        self.events(about).iter().any(|e| e.contains(text))
    }
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.context.metrics.value(name, labels).unwrap_or(0.0)
    }
    pub(crate) fn disrupted(&self, reason: &str, capacity_type: &str) -> f64 {
        self.metric(
            "karpenter_nodeclaims_disrupted_total",
            &[
                ("reason", reason),
                ("nodepool", "default"),
                ("capacity_type", capacity_type),
            ],
        )
    }
    pub(crate) fn taints(&self, node: &str) -> Vec<String> {
        let node = self.get("nodes", node).unwrap_or_default();
        let all = node["spec"]["taints"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        all.iter()
            .map(|t| t["key"].as_str().unwrap().to_owned())
            .collect()
    }
    pub(crate) fn version(&self) -> u64 {
        self.server.resource_version()
    }
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

/// Which of a world's tasks watches pods.
const PODS: usize = 4;

async fn boot(
    client: kube::Client,
    clock: &Clock,
    rng: &RngTree,
    cloud: &Arc<Cloud>,
    settings: &Settings,
    hooks: Vec<Arc<dyn RegistrationHook>>,
) -> (Context, Vec<JoinHandle<()>>) {
    let context = Context {
        client: client.clone(),
        client_no_retry: client.clone(),
        state: Arc::new(Store::default()),
        provider: Arc::new(Provider {
            cloud: cloud.clone(),
            node_class: KIND,
            crds: vec![],
            labels: Arc::new(LabelRegistry::default()),
            controllers: Arc::new(NoControllers),
            registration_hooks: hooks,
        }),
        clock: clock.clone(),
        rng: rng.child("controller", ""),
        settings: Arc::new(settings.clone()),
        events: EventRecorder::new(client.clone(), clock.clone(), rng),
        metrics: Metrics::default(),
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
    let mut tasks = vec![
        watch(&context, Api::<NodePool>::all(client.clone())),
        watch(&context, Api::<NodeClaim>::all(client.clone())),
        watch(
            &context,
            Api::<DynamicObject>::all_with(client.clone(), &classes),
        ),
        watch(&context, Api::<Node>::all(client.clone())),
        watch(&context, Api::<Pod>::all(client.clone())),
        watch(&context, Api::<DaemonSet>::all(client.clone())),
        watch(&context, Api::<PodDisruptionBudget>::all(client.clone())),
        watch(&context, Api::<VolumeAttachment>::all(client.clone())),
        watch(&context, Api::<PersistentVolumeClaim>::all(client.clone())),
        watch(&context, Api::<PersistentVolume>::all(client.clone())),
        watch(&context, Api::<StorageClass>::all(client.clone())),
        watch(&context, Api::<CSINode>::all(client.clone())),
        watch(&context, Api::<Namespace>::all(client)),
    ];
    // As the controller does it: what is there already is no change that loops would hear of.
    context.state.wait_synced().await;
    tasks.extend(start_lifecycle(&context));
    if settings.feature_gates.static_capacity {
        tasks.extend(start_provisioning(&context));
    }
    (context, tasks)
}

fn watch<K>(context: &Context, api: Api<K>) -> JoinHandle<()>
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
    reflect_versions(api, options, feed, clock, &context.rng, stop).task
}
