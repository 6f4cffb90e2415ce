//! The installed kubectl on a loopback socket, in real time. Skipped, loudly, where there is none.

use std::path::PathBuf;
use std::process::Stdio;

use karpenter_fake_kube::server::gr;
use karpenter_fake_kube::{ApiServer, ServerOptions};
use karpenter_runtime::{Clock, RngTree};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

struct Session {
    server: ApiServer,
    url: String,
    home: PathBuf,
    stop: CancellationToken,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stop.cancel();
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

impl Session {
    #[allow(clippy::print_stderr)]
    async fn start(name: &str) -> Option<Self> {
        let probe = Command::new("kubectl")
            .args(["version", "--client"])
            .output()
            .await;
        if !probe.is_ok_and(|o| o.status.success()) {
            eprintln!("SKIPPED: {name}: no kubectl here");
            return None;
        }
        let server = ApiServer::new(ServerOptions {
            clock: Clock::real(),
            rng: RngTree::new(1),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let home = std::env::temp_dir().join(format!("fake-kube-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&home).unwrap();
        let stop = CancellationToken::new();
        let (serving, token) = (server.clone(), stop.clone());
        tokio::spawn(async move { serving.serve(listener, token).await });
        Some(Self {
            server,
            url,
            home,
            stop,
        })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .env("HOME", &self.home)
            .env_remove("KUBECONFIG")
            .args(["--server", &self.url])
            .args(args)
            .kill_on_drop(true);
        command
    }

    async fn run(&self, args: &[&str], input: &str) -> (bool, String, String) {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    /// Standard output of a command that must succeed without a word on standard error.
    async fn ok(&self, args: &[&str]) -> String {
        self.apply(args, "").await
    }

    async fn apply(&self, args: &[&str], input: &str) -> String {
        let (ok, out, err) = self.run(args, input).await;
        assert!(ok && err.is_empty(), "kubectl {args:?}: {out}{err}");
        out
    }

    /// Standard error of a command that must fail.
    async fn refused(&self, args: &[&str], input: &str) -> String {
        let (ok, out, err) = self.run(args, input).await;
        assert!(!ok, "kubectl {args:?} went through: {out}");
        err
    }
}

const DEPLOYMENT: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: inflate}
spec:
  replicas: 0
  selector: {matchLabels: {app: inflate}}
  template:
    metadata: {labels: {app: inflate}}
    spec:
      containers:
        - {name: inflate, image: 'pause:3.7', resources: {requests: {cpu: '1'}}}
";

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: pools.example.com}
spec:
  group: example.com
  scope: Cluster
  names: {kind: Pool, plural: pools, shortNames: [pl]}
  versions:
    - name: v1
      served: true
      storage: true
      subresources: {status: {}, scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.nodes}}
      additionalPrinterColumns:
        - {name: Ready, type: string, jsonPath: '.status.conditions[?(@.type=="Ready")].status'}
        - {name: Weight, type: integer, jsonPath: .spec.weight, priority: 1}
        - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec:
              type: object
              description: What is wanted.
              x-kubernetes-validations: [{rule: 'self.weight != 13', message: unlucky}]
              properties:
                weight: {type: integer, minimum: 1, maximum: 100, default: 10}
                replicas: {type: integer}
            status: {type: object, x-kubernetes-preserve-unknown-fields: true}
"#;

fn columns(table: &str) -> Vec<Vec<String>> {
    table
        .lines()
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .collect()
}

#[tokio::test]
async fn a_workload_from_apply_to_delete() {
    let Some(session) = Session::start("workload").await else {
        return;
    };
    assert_eq!(
        session.apply(&["apply", "-f", "-"], DEPLOYMENT).await,
        "deployment.apps/inflate created\n"
    );
    assert_eq!(
        session.apply(&["apply", "-f", "-"], DEPLOYMENT).await,
        "deployment.apps/inflate unchanged\n"
    );
    let changed = DEPLOYMENT.replace("pause:3.7", "pause:3.9");
    assert_eq!(
        session.apply(&["apply", "-f", "-"], &changed).await,
        "deployment.apps/inflate configured\n"
    );
    assert_eq!(
        session
            .ok(&["scale", "deployment", "inflate", "--replicas=3"])
            .await,
        "deployment.apps/inflate scaled\n"
    );
    let table = columns(&session.ok(&["get", "deploy", "-o", "wide"]).await);
    assert_eq!(
        table[0],
        [
            "NAME",
            "READY",
            "UP-TO-DATE",
            "AVAILABLE",
            "AGE",
            "CONTAINERS",
            "IMAGES",
            "SELECTOR"
        ]
    );
    assert_eq!(table[1][..2], ["inflate", "0/3"]);
    assert_eq!(table[1][6..], ["pause:3.9", "app=inflate"]);
    let yaml = session
        .ok(&["get", "deployments.apps", "inflate", "-o", "yaml"])
        .await;
    assert!(yaml.contains("\n  replicas: 3\n"), "{yaml}");
    let described = session.ok(&["describe", "deployment", "inflate"]).await;
    assert!(
        described.contains("Replicas:               3 desired | 0 updated"),
        "{described}"
    );
    let strict = DEPLOYMENT.replace("replicas: 0", "replicas: -1");
    let error = session.refused(&["apply", "-f", "-"], &strict).await;
    assert!(
        error.contains("The Deployment \"inflate\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        "{error}"
    );
    let set = session
        .ok(&["set", "image", "deployment/inflate", "inflate=pause:4"])
        .await;
    assert_eq!(set, "deployment.apps/inflate image updated\n");
    let error = session
        .refused(&["apply", "--server-side", "-f", "-"], DEPLOYMENT)
        .await;
    assert!(error.contains("Apply failed with"), "{error}");
    let applied = session
        .apply(
            &["apply", "--server-side", "--force-conflicts", "-f", "-"],
            DEPLOYMENT,
        )
        .await;
    assert_eq!(applied, "deployment.apps/inflate serverside-applied\n");
    assert_eq!(
        session.ok(&["delete", "deployment", "inflate"]).await,
        "deployment.apps \"inflate\" deleted\n"
    );
    let error = session.refused(&["get", "deployment", "inflate"], "").await;
    assert_eq!(
        error,
        "Error from server (NotFound): deployments.apps \"inflate\" not found\n"
    );
}

#[tokio::test]
async fn nodes_pods_and_events() {
    let Some(session) = Session::start("nodes").await else {
        return;
    };
    let node = json!({
        "metadata": {"name": "n1", "labels": {"node-role.kubernetes.io/worker": ""}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.36.1"},
                   "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}], "capacity": {"cpu": "4"}},
    });
    session.server.create(gr("", "nodes"), None, node).unwrap();
    assert_eq!(session.ok(&["cordon", "n1"]).await, "node/n1 cordoned\n");
    assert_eq!(
        session
            .ok(&["taint", "node", "n1", "dedicated=gpu:NoSchedule"])
            .await,
        "node/n1 tainted\n"
    );
    assert_eq!(
        session.ok(&["label", "node", "n1", "team=a"]).await,
        "node/n1 labeled\n"
    );
    let table = columns(&session.ok(&["get", "nodes", "-o", "wide"]).await);
    assert_eq!(table[1][..3], ["n1", "Ready,SchedulingDisabled", "worker"]);
    assert_eq!(table[1][4..6], ["v1.36.1", "10.0.0.1"]);

    assert_eq!(
        session.ok(&["run", "web", "--image=nginx"]).await,
        "pod/web created\n"
    );
    session.server.bind("default", "web", "n1").unwrap();
    let event = json!({
        "metadata": {"generateName": "web."}, "type": "Normal", "reason": "Scheduled", "message": "Assigned to n1",
        "involvedObject": {"kind": "Pod", "name": "web", "namespace": "default", "uid": session.server.get(gr("", "pods"), Some("default"), "web").unwrap()["metadata"]["uid"]},
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z", "count": 1, "source": {"component": "scheduler"},
    });
    session
        .server
        .create(gr("", "events"), Some("default"), event)
        .unwrap();
    let table = columns(&session.ok(&["get", "pods", "-A", "-o", "wide"]).await);
    assert_eq!(table[1][..4], ["default", "web", "0/1", "Pending"]);
    assert_eq!(table[1][7], "n1");
    let described = session.ok(&["describe", "pod", "web"]).await;
    assert!(
        described.contains("Assigned to n1") && described.contains("QoS Class:"),
        "{described}"
    );
    let events = session.ok(&["get", "events"]).await;
    assert!(
        events.contains("pod/web") && events.contains("Scheduled"),
        "{events}"
    );
    let selected = session
        .ok(&[
            "get",
            "pods",
            "--field-selector",
            "spec.nodeName=n1",
            "-l",
            "run=web",
            "-o",
            "name",
        ])
        .await;
    assert_eq!(selected, "pod/web\n");

    let mut watch = session
        .command(&["get", "pods", "-w", "--no-headers"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    assert!(
        lines
            .next_line()
            .await
            .unwrap()
            .unwrap()
            .contains("Pending")
    );
    let running = json!({"status": {"phase": "Running", "containerStatuses": [
        {"name": "web", "ready": true, "restartCount": 0, "image": "nginx", "imageID": "", "state": {"running": {}}}]}});
    let kind = karpenter_fake_kube::server::PatchKind::Merge;
    session
        .server
        .patch(
            gr("", "pods"),
            Some("default"),
            "web",
            "status",
            kind,
            running,
        )
        .unwrap();
    let line = lines.next_line().await.unwrap().unwrap();
    assert_eq!(columns(&line)[0][..3], ["web", "1/1", "Running"]);
    watch.kill().await.unwrap();

    assert_eq!(
        session.ok(&["delete", "pod", "web", "--wait=false"]).await,
        "pod \"web\" deleted\n"
    );
    let table = columns(&session.ok(&["get", "pods"]).await);
    assert_eq!(
        table[1][2], "Terminating",
        "a bound pod waits for its kubelet"
    );
    session
        .server
        .delete(gr("", "pods"), Some("default"), "web", Some(0))
        .unwrap();
    let (_, out, err) = session.run(&["get", "pods"], "").await;
    assert_eq!(
        (out.as_str(), err.as_str()),
        ("", "No resources found in default namespace.\n")
    );
}

#[tokio::test]
async fn definitions_and_their_objects() {
    let Some(session) = Session::start("definitions").await else {
        return;
    };
    session.apply(&["apply", "-f", "-"], DEFINITION).await;
    let pool = "apiVersion: example.com/v1\nkind: Pool\nmetadata: {name: a}\nspec: {}\n";
    assert_eq!(
        session.apply(&["apply", "-f", "-"], pool).await,
        "pool.example.com/a created\n"
    );
    assert_eq!(
        session
            .ok(&["get", "pl", "a", "-o", "jsonpath={.spec.weight}"])
            .await,
        "10"
    );
    assert_eq!(
        session.ok(&["scale", "pool", "a", "--replicas=4"]).await,
        "pool.example.com/a scaled\n"
    );
    assert_eq!(
        session
            .ok(&["get", "pools", "-o", "jsonpath={.items[0].spec.replicas}"])
            .await,
        "4"
    );
    let table = columns(&session.ok(&["get", "pools", "-o", "wide"]).await);
    assert_eq!(table[0], ["NAME", "READY", "WEIGHT", "AGE"]);
    assert_eq!(table[1][..2], ["a", "10"]);
    let unlucky = pool.replace("{}", "{weight: 13}");
    let error = session.refused(&["apply", "-f", "-"], &unlucky).await;
    assert_eq!(
        error,
        "The Pool \"a\" is invalid: spec: Invalid value: unlucky\n"
    );
    let unknown = pool.replace("{}", "{wieght: 3}");
    let error = session.refused(&["apply", "-f", "-"], &unknown).await;
    assert!(
        error.contains("strict decoding error: unknown field \"spec.wieght\""),
        "{error}"
    );
    let explained = session.ok(&["explain", "pool.spec"]).await;
    assert!(explained.contains("What is wanted."), "{explained}");
    let resources = session
        .ok(&["api-resources", "--api-group=example.com", "-o", "name"])
        .await;
    assert_eq!(resources, "pools.example.com\n");
    assert_eq!(
        session.ok(&["delete", "pool", "--all"]).await,
        "pool.example.com \"a\" deleted\n"
    );
}
