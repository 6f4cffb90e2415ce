//! The built binary as operators run it: a process of its own against an API server on a socket, in real time.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // Helpers of tests are tests.

mod process;
mod story;

use std::process::{Command, Output};

use process::{Cluster, api, binary, create, eventually, free_port, http};
use serde_json::{Value, json};

fn output(args: &[&str], env: &[(&str, &str)]) -> Output {
    binary()
        .args(args)
        .envs(env.iter().copied())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn tells_its_version_and_its_flags() {
    let version = output(&["--version"], &[]);
    assert!(version.status.success());
    assert!(
        text(&version.stdout).starts_with("karpenter 0."),
        "{version:?}"
    );
    let help = output(&["--help"], &[]);
    assert!(help.status.success());
    assert!(text(&help.stdout).contains("--batch-idle-duration (BATCH_IDLE_DURATION, 1s)"));
}

#[test]
fn names_every_bad_setting_and_ends_with_2() {
    let bad = output(&["--preference-policy=Perhaps"], &[("PROVIDER", "gce")]);
    assert_eq!(bad.status.code(), Some(2));
    assert_eq!(
        text(&bad.stderr),
        "karpenter: PROVIDER is \"gce\", expected one of ec2, kwok\n\
         karpenter: --preference-policy is \"Perhaps\", expected one of Respect, Ignore\n\
         karpenter: --cluster-name (CLUSTER_NAME, settings.clusterName) is required with provider ec2\n"
    );
}

#[test]
fn says_what_is_missing_and_ends_with_1() {
    let ec2 = output(&["--cluster-name=c"], &[]);
    assert_eq!(ec2.status.code(), Some(1));
    assert!(
        text(&ec2.stdout).contains("provider ec2 is not in this build"),
        "{ec2:?}"
    );
    let kubeconfig = output(
        &["--provider=kwok"],
        &[("KUBECONFIG", "/nowhere/kubeconfig")],
    );
    assert_eq!(kubeconfig.status.code(), Some(1));
    let log = text(&kubeconfig.stdout);
    assert!(
        log.contains("the kubeconfig that KUBECONFIG names cannot be used"),
        "{log}"
    );
    assert!(log.contains("/nowhere/kubeconfig"), "{log}");
    let none = output(&["--provider=kwok"], &[("HOME", "/nowhere")]);
    assert_eq!(none.status.code(), Some(1));
    assert!(
        text(&none.stdout).contains("no cluster: KUBECONFIG is not set"),
        "{none:?}"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn complains_about_its_log_where_it_was_told_to() {
    let folder = std::env::temp_dir().join(format!("karpenter-complaints-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let complaints = folder.join("complaints").display().to_string();
    let full = output(
        &["--provider=kwok", "--log-output-paths=/dev/full"],
        &[
            ("LOG_ERROR_OUTPUT_PATHS", &complaints),
            ("HOME", "/nowhere"),
        ],
    );
    let written = std::fs::read_to_string(&complaints).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(full.status.code(), Some(1));
    assert!(written.contains("write error: No space left"), "{written}");
    let nowhere = output(
        &["--provider=kwok", "--log-error-output-paths=/nowhere/x"],
        &[],
    );
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(
        text(&nowhere.stderr).contains("log output /nowhere/x cannot be opened"),
        "{nowhere:?}"
    );
}

#[tokio::test]
async fn buys_a_node_for_a_pending_pod_and_ends_in_order() {
    let cluster = Cluster::start("buys").await;
    let (server, log) = (cluster.server.clone(), cluster.log.clone());
    let (metrics, probes) = (free_port(), free_port());
    let ports = (metrics, probes);
    let mut process = cluster.karpenter(ports, &[("ENABLE_PROFILING", "true")]);

    let not_ready = async || {
        http(probes, "/readyz")
            .await
            .filter(|a| a.starts_with("HTTP/1.1 500"))
    };
    let answer = eventually("probe before the CRDs", &log, not_ready).await;
    assert!(answer.contains("CRDs"), "{answer}");
    let client = server.client();
    cluster.install_crds().await;
    let ready = async || {
        http(probes, "/readyz")
            .await
            .filter(|a| a.starts_with("HTTP/1.1 200"))
    };
    eventually("readiness", &log, ready).await;

    cluster
        .node_pool(
            json!({
                "requirements": [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}],
                "expireAfter": "720h",
            }),
            json!({"consolidationPolicy": "WhenEmpty", "consolidateAfter": "Never", "budgets": [{"nodes": "10%"}]}),
        )
        .await;
    let pods = api(&client, "", "v1", "Pod", "pods");
    create(&pods, json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "pause", "resources": {"requests": {"cpu": "1"}}}]},
    })).await;

    let claims = api(&client, "karpenter.sh", "v1", "NodeClaim", "nodeclaims");
    let launched = async || {
        let list = claims.list(&Default::default()).await.unwrap();
        let claim = list.items.into_iter().next()?;
        let id = claim.data.pointer("/status/providerID")?.as_str()?;
        id.starts_with("kwok://").then_some(claim)
    };
    let claim = eventually("launched NodeClaim", &log, launched).await;
    let nodes = api(&client, "", "v1", "Node", "nodes");
    let joined = async || {
        let list = nodes.list(&Default::default()).await.unwrap();
        list.items.into_iter().find(|n| {
            n.data.pointer("/spec/providerID") == claim.data.pointer("/status/providerID")
        })
    };
    eventually("Node", &log, joined).await;

    let page = http(metrics, "/metrics").await.unwrap();
    assert!(page.contains("karpenter_nodeclaims_created_total{min_values_relaxed=\"false\",nodepool=\"default\",reason=\"provisioned\"} 1"), "{page}");
    assert!(
        page.contains("leader_election_master_status{name=\"karpenter-leader-election\"} 1"),
        "{page}"
    );
    assert!(page.contains("karpenter_cloudprovider_duration_seconds_count{controller=\"provisioner\",method=\"GetInstanceTypes\",provider=\"kwok\"}"), "{page}");
    let pid = process.child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    let ended = async || process.child.try_wait().unwrap();
    let status = eventually("end", &log, ended).await;
    let written = std::fs::read_to_string(&log).unwrap();
    assert_eq!(status.code(), Some(0), "{written}");
    for message in [
        "\"message\":\"created nodeclaim\"",
        "\"message\":\"launched nodeclaim\"",
        "\"message\":\"shutting down\"",
    ] {
        assert!(written.contains(message), "{written}");
    }
    let told = "\"message\":\"setting has no effect here\",\"commit\":\"unknown\",\"setting\":\"enable-profiling\"";
    assert_eq!(written.matches(told).count(), 1, "{written}");
    // Loops without keys log and count under their name as the others do.
    let created: Value = written
        .lines()
        .find(|line| line.contains("\"message\":\"created nodeclaim\""))
        .map(|line| serde_json::from_str(line).unwrap())
        .unwrap();
    assert_eq!(created["controller"], "provisioner", "{created}");
    assert_eq!(created["reconcileID"].as_str().unwrap().len(), 36);
    let leases = api(&client, "coordination.k8s.io", "v1", "Lease", "leases");
    let lease = leases.get("karpenter-leader-election").await.unwrap();
    assert_eq!(
        lease.data.pointer("/spec/holderIdentity"),
        Some(&json!("")),
        "given back"
    );
}
