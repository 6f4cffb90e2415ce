//! Scenarios on the real control plane (etcd, kube-apiserver, kube-controller-manager, kube-scheduler, KWOK), each on a
//! cluster of its own, since NodePools and the nodes that a story counts belong to a whole cluster. The story is told by the
//! same runner: its waiting is cut short, what it waits for and expects must come, and what is there at its end must be
//! what the embedded cluster ends with: machines by pool, type and capacity type, pods running and pending.
//!
//! Runs where LOCAL_CONTROL_PLANE names the executable (`just e2e local` sees to that), and says that it skips elsewhere.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // Helpers of tests are tests.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use karpenter_e2e::report::Report;
use karpenter_e2e::world::LiveCluster;
use karpenter_e2e::{report, run, scenario, world};
use karpenter_runtime::Clock;
use karpenter_runtime::log::{self, MemorySink, Sink};
use karpenter_runtime::settings::LogLevel;
use kube::config::{KubeConfigOptions, Kubeconfig};
use libtest_mimic::{Arguments, Failed, Trial};

/// Stories whose machines and pods do not hang on virtual time: no faults of machines or requests, no quarter of an hour
/// that the controller itself waits.
/// The longest first, so that none of them is begun when all others have ended.
const STORIES: [&str; 18] = [
    "drift-replaced",
    "static-scale-up-down",
    "consolidation-replace",
    "buffer-fixed",
    "consolidation-delete",
    "daemonset-limitrange",
    "first-node",
    "empty-under-blocking-budget",
    "controller-killed-mid-launch",
    "standalone-nodeclaim",
    "nodepool-deleted",
    "weights",
    "drain-under-pdb",
    "node-deleted-by-hand",
    "limits",
    "taints",
    "no-fit-funnel",
    "daemonset-overhead",
];
/// Longest that a cluster may take to come up.
const BOOT_LIMIT: Duration = Duration::from_secs(90);
/// Clusters at a time.
const AT_ONCE: usize = 4;

fn main() {
    let mut arguments = Arguments::from_args();
    let Some(executable) = std::env::var_os("LOCAL_CONTROL_PLANE").map(PathBuf::from) else {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: LOCAL_CONTROL_PLANE is not set; `just e2e local` builds the real control plane and runs this"
        );
        return;
    };
    arguments.test_threads.get_or_insert(AT_ONCE);
    let trials = STORIES.iter().map(|name| {
        let executable = executable.clone();
        Trial::test(*name, move || test(&executable, name))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

/// A control plane that ends with the value.
struct Plane {
    process: Child,
    folder: PathBuf,
}

impl Drop for Plane {
    fn drop(&mut self) {
        // SIGTERM, not SIGKILL: it ends its children and removes its state.
        let pid = self.process.id().to_string();
        let _ = Command::new("kill").arg(pid).status();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Plane {
    fn start(executable: &Path, name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("story-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let process = Command::new(executable)
            .args(["run", "-state"])
            .arg(folder.join("state"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, folder }
    }

    async fn clients(&self) -> LiveCluster {
        let state = self.folder.join("state");
        let deadline = tokio::time::Instant::now() + BOOT_LIMIT;
        while !state.join("ready").exists() {
            let late = tokio::time::Instant::now() > deadline;
            assert!(!late, "the control plane does not come up");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let config = Kubeconfig::read_from(state.join("admin.kubeconfig")).unwrap();
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(config, &options).await;
        let mut config = config.unwrap();
        let client = kube::Client::try_from(config.clone()).unwrap();
        config.default_retry = false;
        LiveCluster {
            client,
            client_no_retry: kube::Client::try_from(config).unwrap(),
        }
    }
}

fn test(executable: &Path, name: &str) -> Result<(), Failed> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/scenarios");
    let loaded = scenario::load(&folder.join(name)).map_err(|e| e.to_string())?;
    let plane = Plane::start(executable, name);
    let paused = world::virtual_runtime()?;
    let embedded = paused
        .block_on(run::run(&loaded, None))
        .map_err(|e| e.to_string())?;
    // On one thread, so that what the controller logs is this story's alone.
    let real = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let log = MemorySink::default();
    let lines = log::subscriber(
        LogLevel::Debug,
        Clock::real(),
        vec![Sink::Memory(log.clone())],
    );
    let hears = tracing::subscriber::set_default(lines);
    let live = real.block_on(async {
        let clients = plane.clients().await;
        run::run_on(&loaded, clients).await
    });
    drop(hears);
    real.shutdown_background();
    let logged = || format!("the controller's log:\n{}\n", log.lines().join("\n"));
    let live = live.map_err(|e| format!("{e}\n{}", logged()))?;
    let told = format!("{}\n{}", report::text_of(&live), logged());
    if !report::passed(&live) {
        return Err(format!("an expectation failed or a rule was broken:\n{told}").into());
    }
    let (real, ours) = (end(&live), end(&embedded));
    if real != ours {
        let text =
            format!("it ends with\n{real:#?}\nand the embedded cluster with\n{ours:#?}\n{told}");
        return Err(text.into());
    }
    Ok(())
}

/// What is compared of the end: names and zones are drawn.
#[derive(Debug, PartialEq, Eq)]
struct End {
    machines: BTreeMap<String, usize>,
    running: usize,
    pending: usize,
}

fn end(report: &Report) -> End {
    let mut machines = BTreeMap::new();
    for node in &report.r#final.nodes {
        let (pool, kind) = (&node.node_pool, &node.instance_type);
        let what = format!("{pool} {kind} {}", node.capacity_type);
        *machines.entry(what).or_insert(0) += 1;
    }
    End {
        machines,
        running: report.r#final.pods.running,
        pending: report.r#final.pods.pending.len(),
    }
}
