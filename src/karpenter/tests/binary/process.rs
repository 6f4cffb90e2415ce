//! A cluster of this process's own on a socket, and the binary as a process that uses it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use karpenter_core::install_crds;
use karpenter_fake_kube::{ApiServer, ServerOptions};
use karpenter_runtime::{Clock, RngTree};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, PostParams};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::{CancellationToken, DropGuard};

const LIMIT: Duration = Duration::from_secs(180);

pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_karpenter"));
    command.env_clear();
    command
}

/// The embedded API server with its control loops on a loopback socket, for one test.
pub(crate) struct Cluster {
    pub(crate) server: ApiServer,
    pub(crate) stop: CancellationToken,
    /// What the binary logs.
    pub(crate) log: PathBuf,
    directory: PathBuf,
    kubeconfig: PathBuf,
    _stop: DropGuard,
}

impl Cluster {
    pub(crate) async fn start(name: &str) -> Self {
        let server = ApiServer::new(ServerOptions {
            clock: Clock::real(),
            rng: RngTree::new(1),
        });
        let stop = CancellationToken::new();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = (server.clone(), stop.clone());
        tokio::spawn(async move { serving.0.serve(listener, serving.1).await });
        let _ = karpenter_fake_kube::loops::start_all(&server, stop.clone());
        let directory = format!("karpenter-binary-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(directory);
        std::fs::create_dir_all(&directory).unwrap();
        let (kubeconfig, log) = (directory.join("kubeconfig"), directory.join("log"));
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        Self {
            server,
            _stop: stop.clone().drop_guard(),
            stop,
            log,
            directory,
            kubeconfig,
        }
    }

    /// Starts the binary with the KWOK provider; ports of metrics and of probes.
    pub(crate) fn karpenter(&self, (metrics, probes): (u16, u16), env: &[(&str, &str)]) -> Process {
        let child = binary()
            .args([
                "--provider=kwok",
                "--batch-idle-duration=100ms",
                "-log-level",
                "debug",
            ])
            .env("KUBECONFIG", &self.kubeconfig)
            .env("METRICS_PORT", metrics.to_string())
            .env("HEALTH_PROBE_PORT", probes.to_string())
            .env("LEADER_ELECTION_NAMESPACE", "kube-system")
            .env("LOG_OUTPUT_PATHS", &self.log)
            .envs(env.iter().copied())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let directory = self.directory.clone();
        Process { child, directory }
    }

    /// Creates NodePool `default` with its NodeClass; `template` is `spec.template.spec` without the reference to that.
    pub(crate) async fn node_pool(&self, mut template: Value, disruption: Value) {
        let client = self.server.client();
        let (group, version) = ("karpenter.kwok.sh", "v1alpha1");
        let classes = api(&client, group, version, "KWOKNodeClass", "kwoknodeclasses");
        create(&classes, json!({"apiVersion": "karpenter.kwok.sh/v1alpha1", "kind": "KWOKNodeClass", "metadata": {"name": "default"}})).await;
        template["nodeClassRef"] =
            json!({"group": group, "kind": "KWOKNodeClass", "name": "default"});
        let pools = api(&client, "karpenter.sh", "v1", "NodePool", "nodepools");
        create(&pools, json!({
            "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "default"},
            "spec": {"template": {"spec": template}, "disruption": disruption},
        })).await;
    }

    /// Installs what the binary waits for.
    pub(crate) async fn install_crds(&self) {
        let mut crds = karpenter_api::crd::core(&[]);
        crds.push(karpenter_provider_kwok::nodeclass::crd());
        install_crds(self.server.client(), &crds).await.unwrap();
    }
}

/// A process that is ended when the test is.
pub(crate) struct Process {
    pub(crate) child: Child,
    directory: PathBuf,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already, and the directory may be gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

pub(crate) async fn http(port: u16, path: &str) -> Option<String> {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

pub(crate) async fn eventually<T>(
    what: &str,
    log: &PathBuf,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        if tokio::time::Instant::now() > deadline {
            panic!(
                "no {what}; log:\n{}",
                std::fs::read_to_string(log).unwrap_or_default()
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub(crate) fn api(
    client: &kube::Client,
    group: &str,
    version: &str,
    kind: &str,
    plural: &str,
) -> Api<DynamicObject> {
    let resource =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    if matches!(kind, "Pod" | "Lease") {
        Api::namespaced_with(
            client.clone(),
            if kind == "Lease" {
                "kube-system"
            } else {
                "default"
            },
            &resource,
        )
    } else {
        Api::all_with(client.clone(), &resource)
    }
}

pub(crate) async fn create(api: &Api<DynamicObject>, object: Value) {
    let object = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
}
