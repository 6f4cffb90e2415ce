//! The embedded server with 5 000 nodes and 100 000 pods: memory, the time of a full list, the cost of a change to those
//! who watch, and 10 000 pods from their creation to their node. Prints what it measures and fails past the bounds that
//! the harness promises.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types
)] // A bench measures in the machine's own time, prints, and may fail loudly.

use std::time::{Duration, Instant};

use http::Request;
use http_body_util::BodyExt as _;
use karpenter_fake_kube::server::gr;
use karpenter_fake_kube::{ApiServer, ServerOptions, loops};
use karpenter_runtime::{Clock, RngTree};
use kube::client::Body;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const NODES: usize = 5_000;
const PODS: usize = 100_000;
const BOUND: usize = 10_000;
const WATCHERS: usize = 50;
const CHANGES: usize = 1_000;

/// What is promised.
const MEMORY_MIB_MAX: u64 = 2_048;
const LIST_MAX: Duration = Duration::from_secs(1);
const BOUND_MAX: Duration = Duration::from_secs(20);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        full().await;
        bound().await;
    });
}

fn server() -> ApiServer {
    ApiServer::new(ServerOptions {
        clock: Clock::real(),
        rng: RngTree::new(1),
    })
}

/// Memory of this process in MiB, where the system tells.
fn memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024)
}

fn node(n: usize) -> Value {
    let name = format!(
        "ip-10-{}-{}-{}.ec2.internal",
        n / 65_536,
        n / 256 % 256,
        n % 256
    );
    json!({
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/zone": format!("us-east-1{}", ["a", "b", "c"][n % 3]),
            "node.kubernetes.io/instance-type": "m5.2xlarge", "karpenter.sh/nodepool": "default",
        }},
        "spec": {"providerID": format!("aws:///us-east-1a/i-{n:017x}")},
        "status": {
            "capacity": {"cpu": "8", "memory": "32Gi", "pods": "58"},
            "allocatable": {"cpu": "7910m", "memory": "30Gi", "pods": "58"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        },
    })
}

fn pod(n: usize, on: Option<&str>) -> Value {
    let mut pod = json!({
        "metadata": {"name": format!("web-{n}"), "labels": {"app": format!("web-{}", n % 200), "pod-template-hash": "5969cb6f5d"}},
        "spec": {"containers": [{
            "name": "web", "image": "registry.example.com/web:1.0", "ports": [{"containerPort": 8080}],
            "env": [{"name": "MODE", "value": "production"}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        }]},
    });
    if let (Some(node), Some(spec)) = (on, pod["spec"].as_object_mut()) {
        spec.insert("nodeName".into(), node.into());
    }
    pod
}

async fn list(api: &ApiServer, path: &str) -> (usize, Duration) {
    let client = api.client();
    let began = Instant::now();
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = client.send(request).await.unwrap();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (bytes.len(), began.elapsed())
}

async fn full() {
    let before = memory();
    let api = server();
    let began = Instant::now();
    let mut names = Vec::with_capacity(NODES);
    for n in 0..NODES {
        let node = api.create(gr("", "nodes"), None, node(n)).unwrap();
        names.push(node["metadata"]["name"].as_str().unwrap().to_owned());
    }
    for n in 0..PODS {
        let on = names.get(n % NODES).map(String::as_str);
        api.create(gr("", "pods"), Some("default"), pod(n, on))
            .unwrap();
    }
    let took = began.elapsed();
    println!("{NODES} nodes and {PODS} pods created in {took:.2?}");
    if let (Some(before), Some(now)) = (before, memory()) {
        println!("memory: {} MiB", now - before);
        assert!(
            now - before < MEMORY_MIB_MAX,
            "more than {MEMORY_MIB_MAX} MiB"
        );
    }
    let (bytes, took) = list(&api, "/api/v1/pods").await;
    println!("full list of the pods: {took:.2?}, {} MiB", bytes >> 20);
    assert!(took < LIST_MAX, "a full list takes more than {LIST_MAX:?}");
    let (_, took) = list(
        &api,
        "/api/v1/pods?fieldSelector=spec.nodeName=ip-10-0-0-7.ec2.internal",
    )
    .await;
    println!("list of one node's pods: {took:.2?}");
    let (_, took) = list(&api, "/api/v1/pods?limit=500").await;
    println!("first page of 500: {took:.2?}");
    let mut watchers: Vec<_> = (0..WATCHERS)
        .map(|_| api.subscribe(gr("", "pods")))
        .collect();
    for watcher in &mut watchers {
        while watcher.try_next().is_some() {}
    }
    let began = Instant::now();
    for n in 0..CHANGES {
        let patch = json!({"metadata": {"labels": {"round": n.to_string()}}});
        let kind = karpenter_fake_kube::server::PatchKind::Merge;
        let name = format!("web-{n}");
        api.patch(gr("", "pods"), Some("default"), &name, "", kind, patch)
            .unwrap();
    }
    let mut told = 0;
    for watcher in &mut watchers {
        while watcher.try_next().is_some() {
            told += 1;
        }
    }
    let each = began.elapsed() / u32::try_from(CHANGES).unwrap();
    println!("a change told to {WATCHERS} watchers among {PODS} pods: {each:.2?}");
    assert_eq!(told, CHANGES * WATCHERS);
}

async fn bound() {
    let api = server();
    let stop = CancellationToken::new();
    drop(loops::start_all(&api, stop.clone()));
    for n in 0..BOUND / 50 {
        api.create(gr("", "nodes"), None, node(n)).unwrap();
    }
    let mut changes = api.subscribe(gr("", "pods"));
    let began = Instant::now();
    for n in 0..BOUND {
        api.create(gr("", "pods"), Some("default"), pod(n, None))
            .unwrap();
    }
    let created = began.elapsed();
    let mut placed = std::collections::BTreeSet::new();
    while placed.len() < BOUND {
        assert!(
            began.elapsed() < 10 * BOUND_MAX,
            "only {} are bound",
            placed.len()
        );
        let change = tokio::time::timeout(BOUND_MAX, changes.next()).await;
        let Ok(Some(karpenter_fake_kube::server::Change::Modified(pod))) = change else {
            continue;
        };
        if pod["spec"]["nodeName"].is_string() {
            placed.insert(pod["metadata"]["name"].as_str().unwrap().to_owned());
        }
    }
    let took = began.elapsed();
    println!("{BOUND} pods created in {created:.2?}, bound in {took:.2?}");
    stop.cancel();
    assert!(took < BOUND_MAX, "more than {BOUND_MAX:?}");
}
