//! The built binary on a real control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler and KWOK on
//! loopback, in real time. Runs where LOCAL_CONTROL_PLANE names the executable of `e2e/local-control-plane` (`just
//! e2e local` sees to that), and says aloud that it skips where it does not.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // Helpers of tests are tests.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Longest that anything here may take.
const LIMIT: Duration = Duration::from_secs(90);

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // SIGTERM, not SIGKILL: the control plane ends its children and removes its folder. Both ends take seconds.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// A cluster with the controller running on it.
struct Cluster {
    client: Client,
    log: PathBuf,
    _controller: Process,
    _plane: Process,
    _folder: Folder,
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The executable, or none with a word about it.
fn executable() -> Option<PathBuf> {
    let named = std::env::var_os("LOCAL_CONTROL_PLANE").map(PathBuf::from);
    if named.is_none() {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: LOCAL_CONTROL_PLANE is not set; `just e2e local` builds the real control plane and runs this"
        );
    }
    named
}

async fn wait_for(file: &Path) {
    let deadline = Instant::now() + LIMIT;
    while !file.exists() {
        assert!(
            Instant::now() < deadline,
            "{} does not appear",
            file.display()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Cluster {
    async fn start(executable: &Path) -> Self {
        let folder = std::env::temp_dir().join(format!("karpenter-local-{}", std::process::id()));
        let state = folder.join("state");
        std::fs::create_dir_all(&folder).unwrap();
        let plane = Command::new(executable)
            .args(["run", "-state"])
            .arg(&state)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let plane = Process(plane);
        wait_for(&state.join("ready")).await;
        let kubeconfig = state.join("admin.kubeconfig");
        let config = Kubeconfig::read_from(&kubeconfig).unwrap();
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(config, &options).await;
        let client = Client::try_from(config.unwrap()).unwrap();
        let mut crds = karpenter_api::crd::core(&[]);
        crds.push(karpenter_provider_kwok::nodeclass::crd());
        karpenter_core::install_crds(client.clone(), &crds)
            .await
            .unwrap();
        let log = folder.join("karpenter.log");
        let controller = Command::new(env!("CARGO_BIN_EXE_karpenter"))
            .env_clear()
            .args([
                "--provider=kwok",
                "--batch-idle-duration=300ms",
                "--log-level=debug",
            ])
            .env("KUBECONFIG", &kubeconfig)
            .env("METRICS_PORT", free_port().to_string())
            .env("HEALTH_PROBE_PORT", free_port().to_string())
            .env("LEADER_ELECTION_NAMESPACE", "kube-system")
            .env("FEATURE_GATES", "CapacityBuffer=true")
            .env("LOG_OUTPUT_PATHS", &log)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            client,
            log,
            _controller: Process(controller),
            _plane: plane,
            _folder: Folder(folder),
        }
    }

    fn api(&self, api_version: &str, kind: &str) -> Api<DynamicObject> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        match kind {
            "Pod"
            | "Deployment"
            | "DaemonSet"
            | "PodDisruptionBudget"
            | "PodTemplate"
            | "LimitRange"
            | "CapacityBuffer" => Api::default_namespaced_with(self.client.clone(), &resource),
            _ => Api::all_with(self.client.clone(), &resource),
        }
    }

    async fn create(&self, object: Value) -> Result<(), kube::Error> {
        let version = object["apiVersion"].as_str().unwrap();
        let api = self.api(version, object["kind"].as_str().unwrap());
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        api.create(&PostParams::default(), &object)
            .await
            .map(|_| ())
    }

    async fn list(&self, api_version: &str, kind: &str) -> Vec<Value> {
        let api = self.api(api_version, kind);
        let items = api.list(&ListParams::default()).await.unwrap().items;
        items
            .into_iter()
            .map(|o| serde_json::to_value(o).unwrap())
            .collect()
    }

    async fn claims(&self) -> Vec<Value> {
        self.list("karpenter.sh/v1", "NodeClaim").await
    }

    async fn nodes(&self) -> Vec<Value> {
        self.list("v1", "Node").await
    }

    async fn running(&self) -> usize {
        let pods = self.list("v1", "Pod").await;
        let runs = |p: &&Value| {
            p["status"]["phase"] == "Running" && p["metadata"]["deletionTimestamp"].is_null()
        };
        pods.iter().filter(runs).count()
    }

    async fn merge(&self, api_version: &str, kind: &str, name: &str, patch: Value) {
        let api = self.api(api_version, kind);
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
    }

    async fn scale(&self, replicas: u32) {
        self.merge(
            "apps/v1",
            "Deployment",
            "web",
            json!({ "spec": { "replicas": replicas } }),
        )
        .await;
    }

    async fn delete(&self, api_version: &str, kind: &str, name: &str) {
        let api = self.api(api_version, kind);
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// A buffer's number of chunks, and of a condition status and reason.
    async fn buffer(&self, condition: &str) -> (Option<i64>, String) {
        let all = self.list(BUFFERS, "CapacityBuffer").await;
        let status = &all[0]["status"];
        let conditions = status["conditions"].as_array();
        let found = conditions.into_iter().flatten();
        let text = found
            .filter(|c| c["type"] == condition)
            .map(|c| format!("{} {}", c["status"], c["reason"]).replace('"', ""))
            .collect();
        (status["replicas"].as_i64(), text)
    }

    async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !holds().await {
            assert!(
                Instant::now() < deadline,
                "{what}: not within {LIMIT:?}; claims {:#?}; log:\n{}",
                self.claims().await,
                std::fs::read_to_string(&self.log).unwrap_or_default()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

const BUFFERS: &str = "autoscaling.x-k8s.io/v1beta1";

/// Room for two pods is kept free: bought, used, bought again, and given back with the buffer.
async fn the_story_of_a_buffer(c: &Cluster) {
    let buffer = |spec: Value| json!({ "apiVersion": BUFFERS, "kind": "CapacityBuffer", "metadata": { "name": "spare" }, "spec": spec });
    let lonely = buffer(json!({ "podTemplateRef": { "name": "web" } }));
    let refused = c.create(lonely).await.unwrap_err().to_string();
    assert!(refused.contains("needs replicas or limits"), "{refused}");
    let template = deployment()["spec"]["template"].clone();
    let template = json!({ "apiVersion": "v1", "kind": "PodTemplate", "metadata": { "name": "web" }, "template": template });
    c.create(template).await.unwrap();
    c.create(buffer(
        json!({ "podTemplateRef": { "name": "web" }, "replicas": 2 }),
    ))
    .await
    .unwrap();
    let full = (Some(2), "True FitsExistingCapacity".to_owned());
    c.until("there is room for the buffer", async || {
        c.buffer("Provisioning").await == full
    })
    .await;
    assert_eq!(c.running().await, 0, "chunks are no pods");
    let before = c.claims().await.len();
    c.scale(2).await;
    c.until("two pods run", async || c.running().await == 2)
        .await;
    c.until("the room is bought again", async || {
        c.claims().await.len() > before && c.buffer("Provisioning").await == full
    })
    .await;
    let larger = json!({ "template": { "metadata": { "labels": { "size": "larger" } } } });
    c.merge("v1", "PodTemplate", "web", larger).await;
    c.until("the template's generation is told", async || {
        let all = c.list(BUFFERS, "CapacityBuffer").await;
        all[0]["status"]["podTemplateGeneration"] == 2
    })
    .await;
    c.scale(0).await;
    c.delete(BUFFERS, "CapacityBuffer", "spare").await;
    c.until("the buffer's machines are given back", async || {
        c.claims().await.is_empty() && c.nodes().await.is_empty()
    })
    .await;
}

/// A DaemonSet that asks for nothing in a namespace that gives it two CPUs: the first machine is large enough.
async fn the_story_of_a_limit_range(c: &Cluster) {
    let range = json!({ "apiVersion": "v1", "kind": "LimitRange", "metadata": { "name": "defaults" },
        "spec": { "limits": [{ "type": "Container", "default": { "cpu": "2" } }] } });
    c.create(range).await.unwrap();
    let set = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": "agent" },
        "spec": { "selector": { "matchLabels": { "app": "agent" } }, "template": {
            "metadata": { "labels": { "app": "agent" } },
            "spec": { "terminationGracePeriodSeconds": 1, "tolerations": [{ "operator": "Exists" }],
                "containers": [{ "name": "agent", "image": "pause" }] },
        } },
    });
    c.create(set).await.unwrap();
    c.scale(1).await;
    c.until("the pod and the daemon run", async || {
        c.running().await == 2
    })
    .await;
    assert_eq!(c.claims().await.len(), 1, "one machine was enough");
    c.delete("apps/v1", "DaemonSet", "agent").await;
    c.delete("v1", "LimitRange", "defaults").await;
    c.scale(0).await;
    c.until("its machine is given back", async || {
        c.claims().await.is_empty()
    })
    .await;
}

/// A machine without a NodePool comes, stays, and goes with its Node.
async fn the_story_of_a_claim_of_its_own(c: &Cluster) {
    c.create(json!({
        "apiVersion": "karpenter.sh/v1", "kind": "NodeClaim",
        "metadata": { "name": "alone", "labels": { "team": "blue" } },
        "spec": {
            "nodeClassRef": { "group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "default" },
            "requirements": [{ "key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["c-16x-arm64-linux"] }],
        },
    }))
    .await
    .unwrap();
    c.until("it is a node", async || {
        let nodes = c.nodes().await;
        nodes.iter().any(|n| {
            let labels = &n["metadata"]["labels"];
            labels["karpenter.sh/initialized"] == "true" && labels["team"] == "blue"
        })
    })
    .await;
    let node = c.nodes().await[0]["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    c.delete("v1", "Node", &node).await;
    c.until("both are gone", async || {
        c.claims().await.is_empty() && c.nodes().await.is_empty()
    })
    .await;
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
        "spec": {
            "replicas": 0,
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{ "name": "web", "image": "pause", "resources": { "requests": { "cpu": "1" } } }],
                },
            },
        },
    })
}

fn pool(requirements: Value) -> Value {
    json!({
        "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": { "name": "default" },
        "spec": {
            "template": { "spec": {
                "nodeClassRef": { "group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "default" },
                "requirements": requirements,
            } },
            "disruption": { "consolidationPolicy": "WhenEmpty", "consolidateAfter": "1s", "budgets": [{ "nodes": "100%" }] },
        },
    })
}

#[tokio::test]
async fn the_story_of_a_deployment_on_a_real_cluster() {
    let Some(executable) = executable() else {
        return;
    };
    let cluster = Cluster::start(&executable).await;
    let c = &cluster;
    let class = json!({ "apiVersion": "karpenter.kwok.sh/v1alpha1", "kind": "KWOKNodeClass", "metadata": { "name": "default" } });
    c.create(class).await.unwrap();

    // The real server's CEL has its say about our definitions.
    let bad = pool(json!([{ "key": "kubernetes.io/hostname", "operator": "In", "values": ["a"] }]));
    let refused = c.create(bad).await.unwrap_err().to_string();
    assert!(refused.contains("restricted"), "{refused}");
    c.create(pool(
        json!([{ "key": "kubernetes.io/os", "operator": "In", "values": ["linux"] }]),
    ))
    .await
    .unwrap();
    c.create(deployment()).await.unwrap();
    c.scale(20).await;
    c.until("20 pods run", async || c.running().await == 20)
        .await;
    for claim in c.claims().await {
        for condition in ["Launched", "Registered", "Initialized", "Ready"] {
            let conditions = claim["status"]["conditions"].as_array().unwrap();
            let held = conditions.iter().find(|x| x["type"] == condition);
            assert_eq!(
                held.map(|x| &x["status"]),
                Some(&json!("True")),
                "{claim:#}"
            );
        }
    }
    let nodes = c.nodes().await;
    assert!(
        nodes
            .iter()
            .all(|n| n["metadata"]["labels"]["karpenter.sh/initialized"] == "true")
    );

    // A machine that is taken back while a budget watches: its pods move one at a time, none is lost.
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": "web" },
        "spec": { "maxUnavailable": 4, "selector": { "matchLabels": { "app": "web" } } },
    });
    c.create(budget).await.unwrap();
    let first = c.claims().await[0]["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    c.api("karpenter.sh/v1", "NodeClaim")
        .delete(&first, &DeleteParams::default())
        .await
        .unwrap();
    c.until("the claim is gone and 20 pods run elsewhere", async || {
        let claims = c.claims().await;
        claims.iter().all(|x| x["metadata"]["name"] != first) && c.running().await == 20
    })
    .await;

    c.scale(0).await;
    c.until("every machine is given back", async || {
        c.claims().await.is_empty() && c.nodes().await.is_empty()
    })
    .await;

    the_story_of_a_buffer(c).await;
    the_story_of_a_limit_range(c).await;
    the_story_of_a_claim_of_its_own(c).await;
}
