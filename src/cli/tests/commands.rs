//! The command line as its user runs it: output, exit codes and complaints of the real binary.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rstest::rstest;
use serde_json::Value;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kubectl-karpenter"))
        .args(arguments)
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!("{e}: {}", String::from_utf8_lossy(&output.stderr));
    })
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn fixture(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    root.join(name).display().to_string()
}

/// Writes `text` to a file of this test's own.
fn file(name: &str, text: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

const PODS: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  replicas: 7
  template:
    metadata: { labels: { app: web } }
    spec:
      containers: [{ name: web, image: pause, resources: { requests: { cpu: "1" } } }]
"#;

fn class(spec: &str, status: &str) -> String {
    format!(
        r#"
apiVersion: karpenter.k8s.aws/v1
kind: EC2NodeClass
metadata: {{ name: default }}
spec:
  role: my-role
  amiFamily: AL2023
  amiSelectorTerms: [{{ id: ami-0123456789abcdef0 }}]
  subnetSelectorTerms: [{{ id: subnet-0123456789abcdef0 }}]
  securityGroupSelectorTerms: [{{ name: mine }}]
{spec}
{status}
"#
    )
}

const POOL: &str = r#"
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: { name: default }
spec:
  template:
    spec:
      nodeClassRef: { group: karpenter.k8s.aws, kind: EC2NodeClass, name: default }
      requirements:
        - { key: karpenter.sh/capacity-type, operator: In, values: [on-demand] }
        - { key: karpenter.k8s.aws/instance-family, operator: In, values: [m5] }
"#;

#[test]
fn a_plan_of_the_tutorial_buys_what_ec2_sells_cheapest() {
    let pods = file(
        "tutorial-pods.yaml",
        &PODS.replace("name: web }", "name: more }"),
    );
    let plan = run(&[
        "plan",
        "-f",
        &fixture("manifests/tutorial-v1beta1.yaml"),
        &pods,
    ]);
    assert!(plan.status.success(), "{}", stderr(&plan));
    let plan = json(&plan);
    let node = &plan["newNodes"][0];
    assert_eq!(plan["newNodes"].as_array().unwrap().len(), 1, "{plan:#}");
    assert_eq!(node["pods"].as_array().unwrap().len(), 7);
    assert_eq!(node["capacityType"], "spot");
    assert_eq!(node["instanceType"], node["instanceTypes"][0]);
    assert_eq!(plan["pricePerHourUsd"], node["pricePerHour"]);
    assert!(plan["unschedulable"].as_array().unwrap().is_empty());
}

#[test]
fn a_class_of_an_account_that_is_not_ours_is_planned_for_all_the_same() {
    let files = [
        file("own-class.yaml", &class("", "")),
        file("own-pool.yaml", POOL),
        file("own-pods.yaml", PODS),
    ];
    let plan = run(&["plan", "-f", &files[0], &files[1], &files[2]]);
    assert!(plan.status.success(), "{}", stderr(&plan));
    let plan = json(&plan);
    // Seven CPUs beside what the system keeps: eight cores, $0.096 for each two of them on demand.
    assert_eq!(plan["newNodes"][0]["instanceType"], "m5.2xlarge");
    assert_eq!(plan["newNodes"][0]["pricePerHour"], 0.384);
}

#[test]
fn a_dumped_class_is_sold_to_in_its_own_zones() {
    let status = "status:\n  subnets: [{ id: subnet-1, zone: us-east-1d, zoneID: use1-az6 }]";
    let files = [
        file("dump-class.yaml", &class("", status)),
        file("dump-pool.yaml", POOL),
        file("dump-pods.yaml", PODS),
    ];
    let plan = run(&["plan", "-f", &files[0], &files[1], &files[2]]);
    assert!(plan.status.success(), "{}", stderr(&plan));
    assert_eq!(json(&plan)["newNodes"][0]["zone"], "us-east-1d");
}

#[test]
fn a_class_that_is_refused_takes_its_pools_with_it_and_says_so() {
    let files = [
        file("bad-class.yaml", &class("  kubelet: { maxPods: -3 }", "")),
        file("bad-pool.yaml", POOL),
        file("bad-pods.yaml", PODS),
    ];
    let plan = run(&["plan", "-f", &files[0], &files[1], &files[2]]);
    assert_eq!(plan.status.code(), Some(2));
    let said = stderr(&plan);
    assert!(
        said.contains("EC2NodeClass default") && said.contains("maxPods"),
        "{said}"
    );
    assert_eq!(json(&plan)["unschedulable"].as_array().unwrap().len(), 7);
}

#[rstest]
#[case::unknown("ec3", "expected kwok, ec2 or ec2:REGION, got \"ec3\"")]
#[case::no_region("ec2:", "expected kwok, ec2 or ec2:REGION, got \"ec2:\"")]
#[case::kwok_has_none("kwok:x", "expected kwok, ec2 or ec2:REGION, got \"kwok:x\"")]
fn an_unknown_catalogue_is_refused(#[case] catalog: &str, #[case] complaint: &str) {
    let pods = file("catalog-pods.yaml", PODS);
    let plan = run(&["plan", "-f", &pods, "--catalog", catalog]);
    assert_eq!(plan.status.code(), Some(2));
    assert!(stderr(&plan).contains(complaint), "{}", stderr(&plan));
}

#[test]
fn prices_that_are_not_known_are_named() {
    let files = [
        file("region-pool.yaml", POOL),
        file("region-pods.yaml", PODS),
    ];
    let plan = run(&[
        "plan",
        "-f",
        &files[0],
        &files[1],
        "--catalog",
        "ec2:eu-west-1",
    ]);
    let said = stderr(&plan);
    assert!(
        said.contains("region eu-west-1: there is no price list"),
        "{said}"
    );
    let plan = json(&plan);
    let zone = plan["newNodes"][0]["zone"].as_str().unwrap();
    assert!(zone.starts_with("eu-west-1"), "{zone}");
}

#[test]
fn a_story_told_twice_is_the_same_to_the_byte_and_ends_well() {
    let scenario = fixture("scenarios/first-node");
    let (first, second) = (run(&["simulate", &scenario]), run(&["simulate", &scenario]));
    assert!(first.status.success(), "{}", stderr(&first));
    assert_eq!(first.stdout, second.stdout);
    let report = json(&first);
    assert_eq!(report["final"]["pods"]["pending"], Value::Array(Vec::new()));
    assert_eq!(report["violations"], Value::Array(Vec::new()));
}

#[test]
fn an_expectation_that_fails_is_exit_code_one_and_bad_input_two() {
    let failing = file(
        "scenario-failing.yaml",
        "steps: [{ expect: { nodes: 3 } }]\n",
    );
    let failed = run(&["simulate", &failing]);
    assert_eq!(failed.status.code(), Some(1), "{}", stderr(&failed));
    assert_eq!(json(&failed)["expectations"][0]["ok"], false);
    let bad = run(&["simulate", &file("scenario-bad.yaml", "stepps: []\n")]);
    assert_eq!(bad.status.code(), Some(2));
    assert!(stderr(&bad).contains("stepps"), "{}", stderr(&bad));
}

#[test]
fn convert_writes_v1() {
    let converted = run(&["convert", "-f", &fixture("manifests/tutorial-v1beta1.yaml")]);
    assert!(converted.status.success(), "{}", stderr(&converted));
    let text = String::from_utf8_lossy(&converted.stdout).into_owned();
    assert!(text.contains("apiVersion: karpenter.sh/v1\n"), "{text}");
    assert!(
        text.contains("consolidationPolicy: WhenEmptyOrUnderutilized"),
        "{text}"
    );
    assert!(!text.contains("v1beta1"), "{text}");
}

#[test]
fn a_broken_budget_is_named_and_the_rest_is_planned() {
    let broken = POOL.to_owned()
        + "  disruption: { budgets: [{ nodes: \"1\", schedule: every tuesday, duration: 1h }] }\n";
    let files = [
        file("cron-pool.yaml", &broken),
        file("cron-pods.yaml", PODS),
    ];
    let plan = run(&["plan", "-f", &files[0], &files[1]]);
    assert_eq!(plan.status.code(), Some(2));
    let said = stderr(&plan);
    let complaint = "NodePool default: spec.disruption.budgets[0].schedule: \"every tuesday\" is not a schedule: expected 5 fields";
    assert!(said.contains(complaint), "{said}");
    assert_eq!(
        json(&plan)["newNodes"][0]["pods"].as_array().unwrap().len(),
        7
    );
}

#[test]
fn buffers_and_limit_ranges_are_planned_for() {
    let objects = r#"
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: { name: default }
spec: { template: { spec: { nodeClassRef: { group: karpenter.kwok.sh, kind: KWOKNodeClass, name: default }, requirements: [] } } }
---
apiVersion: v1
kind: LimitRange
metadata: { name: defaults }
spec: { limits: [ { type: Container, default: { cpu: "2" } } ] }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  replicas: 4
  selector: { matchLabels: { app: web } }
  template: { metadata: { labels: { app: web } }, spec: { containers: [ { name: web, image: pause } ] } }
---
apiVersion: autoscaling.x-k8s.io/v1beta1
kind: CapacityBuffer
metadata: { name: spare }
spec: { scalableRef: { kind: Deployment, name: web }, percentage: 50 }
---
apiVersion: autoscaling.x-k8s.io/v1beta1
kind: CapacityBuffer
metadata: { name: lost }
spec: { podTemplateRef: { name: nowhere }, replicas: 1 }
"#;
    let output = run(&["plan", "-f", &file("buffers.yaml", objects)]);
    let told = stderr(&output);
    assert!(
        told.contains("CapacityBuffer lost: PodTemplate \"nowhere\" not found"),
        "{told}"
    );
    let plan = json(&output);
    let machines = plan["newNodes"].as_array().unwrap();
    let pods: Vec<&str> = machines
        .iter()
        .flat_map(|m| m["pods"].as_array().unwrap())
        .map(|p| p.as_str().unwrap())
        .collect();
    let chunks = pods.iter().filter(|p| p.contains("capacity-buffer-spare#"));
    assert_eq!((pods.len(), chunks.count()), (6, 2), "{plan:#}");
    let text = plan.to_string();
    assert!(
        text.contains("\"cpu\":\"12\""),
        "two CPUs for each of six: {plan:#}"
    );
}

const ARCHIVE: &str = r#"
apiVersion: v1
kind: Pod
metadata: { name: archive }
spec:
  volumes: [ { name: data, persistentVolumeClaim: { claimName: archive } } ]
  containers: [ { name: c, image: pause, resources: { requests: { cpu: "1" } } } ]
"#;

const BOUND: &str = r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: { name: archive, annotations: { pv.kubernetes.io/bind-completed: "yes" } }
spec: { volumeName: archive }
---
apiVersion: v1
kind: PersistentVolume
metadata: { name: archive }
spec:
  csi: { driver: ebs.csi.aws.com, volumeHandle: vol-1 }
  nodeAffinity:
    required:
      nodeSelectorTerms:
        - matchExpressions: [ { key: topology.ebs.csi.aws.com/zone, operator: In, values: [us-east-1c] } ]
"#;

fn plan_of(case: &str, objects: &[&str]) -> (Value, String) {
    let all = [POOL, &class("", "")].map(str::to_owned).into_iter();
    let all: Vec<String> = all.chain(objects.iter().map(|o| (*o).to_owned())).collect();
    let objects = file(&format!("{case}.yaml"), &all.join("\n---\n"));
    let plan = run(&["plan", "-f", &objects]);
    (json(&plan), stderr(&plan))
}

#[test]
fn a_plan_buys_where_the_volume_is() {
    let (plan, _) = plan_of("bound-volume", &[ARCHIVE, BOUND]);
    assert_eq!(plan["newNodes"][0]["zone"], "us-east-1c", "{plan:#}");
}

#[test]
fn a_plan_makes_the_claims_of_stateful_sets_where_their_class_allows() {
    let set = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: { name: db }
spec:
  replicas: 2
  volumeClaimTemplates: [ { metadata: { name: data }, spec: { accessModes: [ReadWriteOnce] } } ]
  template:
    spec: { containers: [ { name: c, image: pause, resources: { requests: { cpu: "1" } } } ] }
"#;
    let storage = r#"
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: { name: fast, annotations: { storageclass.kubernetes.io/is-default-class: "true" } }
provisioner: ebs.csi.aws.com
volumeBindingMode: WaitForFirstConsumer
allowedTopologies: [ { matchLabelExpressions: [ { key: topology.kubernetes.io/zone, values: [us-east-1d] } ] } ]
"#;
    let (plan, said) = plan_of("stateful-set", &[set, storage]);
    assert_eq!(plan["newNodes"][0]["zone"], "us-east-1d", "{plan:#} {said}");
    assert_eq!(plan["newNodes"][0]["pods"].as_array().unwrap().len(), 2);
    let immediate = storage.replace("WaitForFirstConsumer", "Immediate");
    let (plan, _) = plan_of("stateful-set-immediate", &[set, &immediate]);
    let reason = plan["unschedulable"][1]["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("PersistentVolumeClaim default/data-db-1: it is not bound, and StorageClass fast binds at once"),
        "{reason}"
    );
}

#[test]
fn a_claim_that_is_missing_counts_only_where_claims_were_given() {
    let (plan, said) = plan_of("no-claims", &[ARCHIVE]);
    assert_eq!(plan["newNodes"].as_array().unwrap().len(), 1);
    assert!(
        said.contains(
            "PersistentVolumeClaim default/archive is not among the files, nor is any other"
        ),
        "{said}"
    );
    let other = BOUND.replace("name: archive,", "name: other,");
    let (plan, _) = plan_of("other-claims", &[ARCHIVE, &other]);
    assert_eq!(
        plan["unschedulable"][0]["reason"],
        "PersistentVolumeClaim default/archive: it does not exist"
    );
}

#[test]
fn a_node_at_its_volume_limit_gets_no_more() {
    let node = r#"
apiVersion: v1
kind: Node
metadata: { name: there, labels: { topology.kubernetes.io/zone: us-east-1c } }
status: { capacity: { cpu: "8", memory: 16Gi, pods: "110" }, allocatable: { cpu: "8", memory: 16Gi, pods: "110" } }
"#;
    let limit = |count: u32| {
        format!(
            "apiVersion: storage.k8s.io/v1\nkind: CSINode\nmetadata: {{ name: there }}\nspec: {{ drivers: [ {{ name: ebs.csi.aws.com, nodeID: i, allocatable: {{ count: {count} }} }} ] }}"
        )
    };
    let (plan, _) = plan_of("volume-room", &[ARCHIVE, BOUND, node, &limit(1)]);
    assert_eq!(plan["existingNodes"][0]["name"], "there", "{plan:#}");
    let (plan, _) = plan_of("no-volume-room", &[ARCHIVE, BOUND, node, &limit(0)]);
    assert_eq!(plan["newNodes"][0]["zone"], "us-east-1c", "{plan:#}");
}
