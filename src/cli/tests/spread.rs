//! `plan --scheduler-config`: the cluster's topology spread for pods without one of their own.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

const CLUSTER: &str = r#"
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: { name: default }
spec: { template: { spec: { nodeClassRef: { group: karpenter.kwok.sh, kind: KWOKNodeClass, name: default }, requirements: [] } } }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  replicas: 4
  selector: { matchLabels: { app: web } }
  template: { metadata: { labels: { app: web } }, spec: { containers: [ { name: web, image: pause, resources: { requests: { cpu: "1" } } } ] } }
---
apiVersion: batch/v1
kind: Job
metadata: { name: sums }
spec:
  parallelism: 4
  template: { metadata: { labels: { app: sums } }, spec: { containers: [ { name: sum, image: pause, resources: { requests: { cpu: "1" } } } ] } }
"#;

const SPREAD: &str = r#"
podTopologySpread:
  defaultConstraints: [ { maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule } ]
"#;

fn file(name: &str, text: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn plan(case: &str, cluster: &str, config: &str) -> Output {
    let objects = file(&format!("{case}.yaml"), cluster);
    let config = file(&format!("{case}-scheduler.yaml"), config);
    let arguments = ["plan", "-f", &objects, "--scheduler-config", &config];
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-karpenter"));
    command.args(arguments).output().unwrap()
}

/// The zones that pods of a workload are planned into.
fn zones(output: &Output, workload: &str) -> BTreeSet<String> {
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    let nodes = plan["newNodes"].as_array().unwrap().iter();
    let with = nodes.filter(|n| {
        let mut pods = n["pods"].as_array().unwrap().iter();
        pods.any(|p| p.as_str().unwrap().contains(&format!("/{workload}-")))
    });
    with.map(|n| n["zone"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn pods_of_a_workload_are_spread_and_those_that_nothing_selects_are_not() {
    let spread = plan("spread", CLUSTER, SPREAD);
    assert!(
        zones(&spread, "web").len() >= 3,
        "{:?}",
        zones(&spread, "web")
    );
    let plain = plan("plain", CLUSTER, "");
    assert_eq!(zones(&plain, "web").len(), 1);
    let job = CLUSTER.split("---").filter(|o| !o.contains("Deployment"));
    let job = job.collect::<Vec<_>>().join("---");
    assert_eq!(zones(&plan("job", &job, SPREAD), "sums").len(), 1);
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: { name: sums }\nspec: { selector: { app: sums } }\n";
    let served = plan("served", &format!("{job}{service}"), SPREAD);
    assert!(zones(&served, "sums").len() >= 3, "a Service selects them");
}

#[test]
fn a_bad_configuration_is_named() {
    let output = plan("bad", CLUSTER, &SPREAD.replace("maxSkew: 1", "maxSkew: 0"));
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    let expected =
        "podTopologySpread.defaultConstraints[0].maxSkew: expected a number of at least 1, got 0";
    assert!(
        said.contains("--scheduler-config") && said.contains(expected),
        "{said}"
    );
}
