//! The judge: etcd and kube-apiserver on loopback, with nothing around them that writes by itself.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::time::Instant;

/// Longest that it may take to come up.
const BOOT_LIMIT: Duration = Duration::from_secs(90);

/// A running real server; ends with the value.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    process: Child,
    folder: PathBuf,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // SIGTERM, not SIGKILL: it ends its children and removes its state.
        let _ = Command::new("kill")
            .arg(self.process.id().to_string())
            .status();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Cluster {
    /// One of its own, or none with a word about it.
    pub(crate) async fn start() -> Option<Self> {
        let Some(executable) = std::env::var_os("LOCAL_CONTROL_PLANE") else {
            eprintln!(
                "SKIPPED: LOCAL_CONTROL_PLANE is not set: the embedded server is compared with recorded answers only; `just conformance` builds the real one"
            );
            return None;
        };
        let folder = std::env::temp_dir().join(format!("conformance-{}", std::process::id()));
        let state = folder.join("state");
        std::fs::create_dir_all(&folder).unwrap();
        let process = Command::new(executable)
            .args(["run", "-stock", "-api-server-only", "-state"])
            .arg(&state)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + BOOT_LIMIT;
        while !state.join("ready").exists() {
            assert!(
                Instant::now() < deadline,
                "the real server does not come up"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let config = Kubeconfig::read_from(state.join("admin.kubeconfig")).unwrap();
        let config =
            kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await;
        Some(Self {
            client: super::client(config.unwrap()),
            process,
            folder,
        })
    }
}
