//! One decision is told in one way wherever it is told: the plan as text and as JSON, and the events of a simulation of
//! the same objects, which are the controller's own, name the same constraints, numbers, offers and remedies.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

use rstest::rstest;
use serde_json::{Value, json};

const POOLS: &str = r#"
- apiVersion: karpenter.sh/v1
  kind: NodePool
  metadata: { name: default }
  spec:
    limits: { cpu: "1000" }
    template:
      spec:
        nodeClassRef: { group: karpenter.kwok.sh, kind: KWOKNodeClass, name: default }
        requirements:
          - { key: kubernetes.io/arch, operator: In, values: [amd64] }
          - { key: kubernetes.io/os, operator: In, values: [linux] }
- apiVersion: karpenter.sh/v1
  kind: NodePool
  metadata: { name: kept }
  spec:
    template:
      spec:
        nodeClassRef: { group: karpenter.kwok.sh, kind: KWOKNodeClass, name: default }
        taints: [ { key: team, value: a, effect: NoSchedule } ]
        requirements:
          - { key: kubernetes.io/os, operator: In, values: [linux] }
- apiVersion: karpenter.kwok.sh/v1alpha1
  kind: KWOKNodeClass
  metadata: { name: default }
"#;

/// The pools, and a Deployment whose pods are like this.
fn objects(replicas: usize, spec: &Value) -> Vec<Value> {
    let mut all: Vec<Value> = serde_saphyr::from_str(POOLS).unwrap();
    all.push(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": spec}},
    }));
    all
}

fn pod(requests: Value, more: Value) -> Value {
    let mut spec = json!({"containers": [{"name": "web", "image": "pause", "resources": {"requests": requests}}]});
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    spec
}

fn run(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-karpenter"));
    let output = command.args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The same objects, planned as JSON and as text, and simulated for half a minute.
fn told(case: &str, objects: &[Value]) -> (Value, String, Value) {
    let folder: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("told-{case}"));
    std::fs::create_dir_all(&folder).unwrap();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let file = folder.join("objects.json");
    std::fs::write(&file, list.to_string()).unwrap();
    let scenario =
        json!({"description": "told", "seed": 1, "settle": "30s", "objects": objects, "steps": []});
    std::fs::write(folder.join("scenario.yaml"), scenario.to_string()).unwrap();
    let (file, folder) = (file.display().to_string(), folder.display().to_string());
    let plan = ["plan", "--catalog", "kwok", "-f", &file, "-o"];
    let as_json = run(&[&plan[..], &["json"]].concat());
    let as_text = run(&[&plan[..], &["text"]].concat());
    let simulated = run(&["simulate", &folder, "-o", "json"]);
    let read = |text: &str| serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    (read(&as_json), as_text, read(&simulated))
}

/// A step of a funnel in the words of events.
fn words(step: &Value) -> String {
    let (left, removed) = (
        step["left"].as_u64().unwrap(),
        step["removed"].as_u64().unwrap(),
    );
    let before = left + removed;
    let constraint = step["constraint"].as_str().unwrap();
    format!("{constraint} left {left} of {before} instance types")
}

#[rstest]
#[case::too_large("large", json!({"cpu": "500"}), json!({}), "the most to be had is")]
#[case::no_such_label("label", json!({"cpu": "1"}), json!({"nodeSelector": {"team": "x"}}), "does not define")]
#[case::not_tolerated("taint", json!({"cpu": "1"}), json!({"nodeSelector": {"karpenter.sh/nodepool": "kept"}}), "tolerate it to use this pool")]
#[case::other_arch("arch", json!({"cpu": "1"}), json!({"nodeSelector": {"kubernetes.io/arch": "riscv64"}}), "")]
fn a_pod_that_goes_nowhere(
    #[case] case: &str,
    #[case] requests: Value,
    #[case] more: Value,
    #[case] remedy: &str,
) {
    let (plan, text, simulated) = told(case, &objects(40, &pod(requests, more)));
    let all = plan["unschedulable"].as_array().unwrap();
    assert_eq!(all.len(), 40, "{plan:#}");
    let first = &all[0];
    let reason = first["reason"].as_str().unwrap();
    assert!(reason.contains(remedy), "{reason}");
    // As text: one line for all of them, and every step of the funnel.
    let line = format!(
        "nowhere: {} and 39 more: {reason}",
        first["pod"].as_str().unwrap()
    );
    assert_eq!(
        text.lines()
            .filter(|l| l.starts_with("nowhere"))
            .collect::<Vec<_>>(),
        [line]
    );
    let pools = first["nodePools"].as_array().unwrap();
    assert_eq!(pools.len(), 2);
    for pool in pools {
        for step in pool["steps"].as_array().unwrap() {
            let line = format!("    {}: {}", pool["name"].as_str().unwrap(), words(step));
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
    // As the event: the sentence, and every step that took something away, pools in the same order.
    let mut expected = format!("Failed to schedule pod, {reason}");
    for pool in pools {
        let steps = pool["steps"].as_array().unwrap().iter();
        let took = steps.filter(|s| s["removed"].as_u64() > Some(0)).map(words);
        let took: Vec<String> = took.collect();
        if !took.is_empty() {
            let name = pool["name"].as_str().unwrap();
            expected.push_str(&format!("; nodepool {name}: {}", took.join(", ")));
        }
    }
    let pending = simulated["final"]["pods"]["pending"].as_array().unwrap();
    assert_eq!(pending.len(), 40);
    for pod in pending {
        assert_eq!(pod["reason"].as_str().unwrap(), expected);
    }
    // And as a milestone: one for all of them.
    let timeline = simulated["timeline"].as_array().unwrap().iter();
    let told: Vec<&Value> = timeline
        .filter(|e| e["message"].as_str().unwrap().contains("FailedScheduling"))
        .collect();
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0]["message"].as_str().unwrap().ends_with(&expected));
    assert!(told[0]["object"].as_str().unwrap().ends_with("and 39 more"));
}

#[test]
fn a_node_that_is_bought() {
    let spec = pod(json!({"cpu": "1500m", "memory": "2Gi"}), json!({}));
    let (plan, text, simulated) = told("bought", &objects(3, &spec));
    let nodes = plan["newNodes"].as_array().unwrap();
    let timeline = simulated["timeline"].as_array().unwrap().iter();
    let planned: Vec<&str> = timeline
        .filter_map(|e| e["message"].as_str().unwrap().strip_prefix("Planned: "))
        .collect();
    assert_eq!(planned.len(), nodes.len());
    let offer = |o: &Value| {
        let text = |key: &str| o[key].as_str().unwrap().to_owned();
        let price = o["pricePerHour"].as_f64().unwrap();
        let (name, kind) = (text("instanceType"), text("capacityType"));
        format!("{name} {kind} in {} at ${price:.4}/h", text("zone"))
    };
    for node in nodes {
        let steps: Vec<String> = node["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(words)
            .collect();
        assert!(!steps.is_empty());
        let next = offer(&node["nextBest"]);
        let expected = format!(
            "Cheapest of {} instance types for {} pod(s) is {}, next {next}; {}",
            node["instanceTypes"].as_array().unwrap().len(),
            node["pods"].as_array().unwrap().len(),
            offer(node),
            steps.join(", ")
        );
        assert!(
            planned.contains(&expected.as_str()),
            "{expected}\n{planned:#?}"
        );
        let price = node["pricePerHour"].as_f64().unwrap();
        assert!(text.contains(&format!("at ${price:.4}/h")), "{text}");
        for line in [format!("    next best: {next}")]
            .into_iter()
            .chain(steps.iter().map(|s| format!("    {s}")))
        {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
