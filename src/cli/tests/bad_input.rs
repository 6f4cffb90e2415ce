//! Bad input through the doors that a user has for it, one clear error each, naming object, field and expectation; the
//! rest is done all the same where there is a rest. The door of the API server is tested in `e2e/tests/bad_input.rs`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // Helpers of tests are tests.

use std::path::PathBuf;
use std::process::{Command, Output};

use rstest::rstest;
use serde_json::Value;

/// A sound cluster: a class, a pool and a pod that it can buy a machine for.
const SOUND: &str = r#"
apiVersion: karpenter.kwok.sh/v1alpha1
kind: KWOKNodeClass
metadata: { name: default }
---
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: { name: default }
spec:
  disruption: { consolidationPolicy: WhenEmpty, consolidateAfter: 30s, budgets: [ { nodes: "1" } ] }
  template:
    spec:
      nodeClassRef: { group: karpenter.kwok.sh, kind: KWOKNodeClass, name: default }
      requirements: [ { key: kubernetes.io/os, operator: In, values: [linux] } ]
---
apiVersion: v1
kind: Pod
metadata: { name: web }
spec: { containers: [ { name: c, image: pause, resources: { requests: { cpu: "1" } } } ] }
"#;

/// Instance types in the KWOK provider's format, one with an odd price.
const TYPES: &str = r#"[{"name": "good", "offerings": [{"price": 0.1, "available": true, "requirements": [
  {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
  {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["zone-a"]}]}],
  "architecture": "amd64", "operatingSystems": ["linux"], "resources": {"cpu": "4", "memory": "8Gi", "pods": "10"}},
 {"name": "odd", "offerings": [{"price": -1, "available": true, "requirements": [
  {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
  {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["zone-a"]}]}],
  "architecture": "amd64", "operatingSystems": ["linux"], "resources": {"cpu": "4", "memory": "8Gi", "pods": "10"}}]"#;

fn run(arguments: &[&str]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_kubectl-karpenter"))
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    (output, said)
}

fn file(name: &str, bytes: &[u8]) -> String {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(own());
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("bad-{name}"));
    std::fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

/// A name that no other test has: they run side by side.
fn own() -> String {
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    name.replace("::", "-")
}

/// [`SOUND`] with `from` made `to`.
fn spoilt(from: &str, to: &str) -> String {
    assert!(SOUND.contains(from), "{from}");
    SOUND.replacen(from, to, 1)
}

/// The first half of a gzip stream, as a download that broke off leaves it.
fn half_a_gzip(text: &str) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    let whole = encoder.finish().unwrap();
    whole[..whole.len() / 2].to_vec()
}

const MISSPELT: (&str, &str) = (
    "consolidateAfter: 30s",
    "consolidateAfter: 30s, colour: red",
);
const NO_POLICY: (&str, &str) = ("WhenEmpty", "WhenFull");
const NO_OPERATOR: (&str, &str) = ("operator: In", "operator: Inn");
const NO_TIME: (&str, &str) = (
    "nodes: \"1\"",
    "nodes: \"1\", schedule: \"99 * * * *\", duration: 1h",
);
const NO_CLASS: (&str, &str) = (
    "KWOKNodeClass, name: default",
    "KWOKNodeClass, name: missing",
);
const POD_MISSPELT: (&str, &str) = ("resources:", "resuorces:");

#[rstest]
#[case::unknown_field(
    MISSPELT,
    "error: NodePool default: spec.disruption.colour: unknown field; expected one that karpenter.sh/v1 NodePool has"
)]
#[case::unknown_field_of_a_pod(
    POD_MISSPELT,
    "error: Pod web: spec.containers[0].resuorces: unknown field; expected one that v1 Pod has"
)]
#[case::wrong_enum(
    NO_POLICY,
    "error: NodePool default: spec.disruption.consolidationPolicy: Unsupported value: \"WhenFull\": supported values: \"WhenEmpty\""
)]
#[case::broken_cron(
    NO_TIME,
    "error: NodePool default: spec.disruption.budgets[0].schedule: \"99 * * * *\" is not a schedule: minute \"99\": expected a range within 0 to 59"
)]
#[case::missing_class(
    NO_CLASS,
    "error: NodePool default: spec.template.spec.nodeClassRef.name: \"missing\" is not among the files; expected one of the KWOKNodeClass there: default"
)]
fn plan_says_what_is_wrong_and_plans_the_rest(
    #[case] (from, to): (&str, &str),
    #[case] complaint: &str,
) {
    let input = file(
        &format!("plan-{}.yaml", to.len()),
        spoilt(from, to).as_bytes(),
    );
    let (output, said) = run(&["plan", "-f", &input]);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let errors: Vec<&str> = said.lines().filter(|l| l.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "one error: {said}");
    assert!(errors[0].starts_with(complaint), "{said}");
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        plan["newNodes"][0]["pods"],
        serde_json::json!(["default/web"])
    );
}

#[test]
fn a_pool_that_cannot_be_planned_with_is_named_once() {
    let input = file(
        "operator.yaml",
        spoilt(NO_OPERATOR.0, NO_OPERATOR.1).as_bytes(),
    );
    let (output, said) = run(&["plan", "-f", &input]);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let complaint = "error: NodePool default: spec.template.spec.requirements[0]: operator \"Inn\"; expected one of In,";
    assert_eq!(said.matches("error: ").count(), 1, "{said}");
    assert!(said.contains(complaint), "{said}");
}

#[test]
fn a_plan_sees_prices_through_overlays_and_names_the_one_that_changes_nothing() {
    let overlay = |name: &str, spec: &str| {
        format!(
            "---\napiVersion: karpenter.sh/v1alpha1\nkind: NodeOverlay\nmetadata: {{ name: {name} }}\nspec: {{ requirements: [ {{ key: node.kubernetes.io/instance-type, operator: In, values: [m-8x-arm64-linux] }} ], {spec} }}\n"
        )
    };
    let discount = overlay("discount", "price: \"0.001\", weight: 7");
    let same_weight = overlay("another", "priceAdjustment: \"+1\", weight: 7");
    let native = overlay("native", "capacity: { memory: 1Ti }");
    let input = file("overlays.yaml", format!("{SOUND}{discount}").as_bytes());
    let (output, said) = run(&["plan", "-f", &input]);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["newNodes"][0]["instanceType"], "m-8x-arm64-linux");
    assert_eq!(plan["pricePerHourUsd"], 0.001);

    let all = format!("{SOUND}{discount}{same_weight}{native}");
    let input = file("conflict.yaml", all.as_bytes());
    let (output, said) = run(&["plan", "-f", &input]);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let complaints = [
        "error: NodeOverlay another: NodeOverlay \"discount\" of the same weight 7 sets the price of m-8x-arm64-linux for NodePool \"default\" already; expected another weight or other requirements; planned without it",
        "error: NodeOverlay native: spec.capacity[memory]: the provider tells of it itself; expected an extended resource; planned without it",
    ];
    for complaint in complaints {
        assert_eq!(said.matches(complaint).count(), 1, "{said}");
    }
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["newNodes"][0]["instanceType"], "m-8x-arm64-linux");
}

#[test]
fn a_negative_price_takes_its_type_away_and_leaves_the_others() {
    let input = file("sound.yaml", SOUND.as_bytes());
    let types = file("types.json", TYPES.as_bytes());
    let (output, said) = run(&["plan", "-f", &input, "--instance-types", &types]);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let complaint =
        "error: instance type odd: offerings[0].price: expected a number of 0 or more, got -1\n";
    assert_eq!(said, complaint);
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["newNodes"][0]["instanceType"], "good");
    let scenario = file("types.yaml", b"cloud: { instanceTypes: bad-types.json }\n");
    let (output, said) = run(&["simulate", &scenario]);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(said, complaint);
}

#[rstest]
#[case::plan(&["plan", "-f"])]
#[case::convert(&["convert", "-f"])]
#[case::instance_types(&["plan", "-f", "SOUND", "--instance-types"])]
#[case::simulate(&["simulate"])]
fn a_gzip_stream_that_is_cut_off_is_named(#[case] door: &[&str]) {
    let sound = file("beside-gzip.yaml", SOUND.as_bytes());
    let cut = file("cut.yaml.gz", &half_a_gzip(SOUND));
    let scenario = file("cut-scenario.yaml", b"files: [bad-cut.yaml.gz]\n");
    let mut arguments: Vec<&str> = door.to_vec();
    for argument in &mut arguments {
        if *argument == "SOUND" {
            *argument = &sound;
        }
    }
    arguments.push(if door == ["simulate"] {
        &scenario
    } else {
        &cut
    });
    let (output, said) = run(&arguments);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(output.stdout.is_empty());
    assert_eq!(said.lines().count(), 1, "{said}");
    let complaint = "bad-cut.yaml.gz: expected a whole gzip stream, but it is broken or cut off";
    assert!(said.contains(complaint), "{said}");
}

#[rstest]
#[case::of_a_pod(
    "image: pause",
    "image: 5",
    "error: Pod web: spec.containers[0].image: invalid type: integer `5`, expected a string"
)]
#[case::of_ours(
    "consolidateAfter: 30s",
    "consolidateAfter: -1",
    "error: NodePool default: spec.disruption.consolidateAfter: invalid type: integer `-1`, expected a string"
)]
fn a_value_of_another_type_is_named_once_with_its_field(
    #[case] from: &str,
    #[case] to: &str,
    #[case] complaint: &str,
) {
    let input = file(
        &format!("type-{}.yaml", to.len()),
        spoilt(from, to).as_bytes(),
    );
    let (output, said) = run(&["plan", "-f", &input]);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let errors: Vec<&str> = said.lines().filter(|l| l.starts_with("error: ")).collect();
    assert_eq!(errors, [complaint]);
}

#[test]
fn convert_writes_what_it_can_and_says_what_will_be_refused() {
    let old = "{ apiVersion: karpenter.sh/v1beta1, kind: NodePool, metadata: { name: a }, spec: { weight: heavy, template: { spec: { nodeClassRef: { name: default }, requirements: [] } } } }";
    let (output, said) = run(&["convert", "-f", &file("old.yaml", old.as_bytes())]);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let complaint = "error: NodePool a: spec.weight: Invalid value: ";
    assert!(said.contains(complaint), "{said}");
    let written = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        written.contains("apiVersion: karpenter.sh/v1\n"),
        "{written}"
    );
}

fn scenario(name: &str, (from, to): (&str, &str)) -> String {
    let beside = format!("{name}-objects.yaml");
    file(&beside, spoilt(from, to).as_bytes());
    let story = format!("files: [bad-{beside}]\nsteps: [ {{ wait: {{ for: 2m }} }} ]\n");
    file(&format!("{name}.yaml"), story.as_bytes())
}

#[rstest]
#[case::unknown_field(
    "unknown",
    MISSPELT,
    "NodePool default: spec.disruption.colour: unknown field; expected one that karpenter.sh/v1 NodePool has"
)]
#[case::unknown_field_of_a_pod(
    "pod",
    POD_MISSPELT,
    "Pod web: spec.containers[0].resuorces: unknown field; expected one that v1 Pod has"
)]
#[case::wrong_enum(
    "enum",
    NO_POLICY,
    "spec.disruption.consolidationPolicy: Unsupported value: \"WhenFull\": supported values: \"WhenEmpty\""
)]
#[case::wrong_operator(
    "operator",
    NO_OPERATOR,
    "spec.template.spec.requirements[0].operator: Unsupported value: \"Inn\": supported values: \"In\""
)]
fn simulate_refuses_what_a_strict_api_server_would(
    #[case] name: &str,
    #[case] change: (&str, &str),
    #[case] complaint: &str,
) {
    let (output, said) = run(&["simulate", &scenario(name, change)]);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(complaint), "{said}");
}

#[rstest]
#[case::broken_cron(
    "cron",
    NO_TIME,
    "NodePool default: InvalidBudget: spec.disruption.budgets[0].schedule: \"99 * * * *\" is not a schedule: minute \"99\": expected a range within 0 to 59",
    1
)]
#[case::missing_class(
    "class",
    NO_CLASS,
    "NodePool default: not ready: NodeClassNotFound: NodeClass not found on cluster (KWOKNodeClass missing)",
    0
)]
fn simulate_tells_of_what_only_a_controller_can_know(
    #[case] name: &str,
    #[case] change: (&str, &str),
    #[case] line: &str,
    #[case] running: u64,
) {
    let (output, said) = run(&["simulate", &scenario(name, change), "-o", "text"]);
    assert!(output.status.success(), "{said}");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(told.matches(line).count(), 1, "{told}");
    let end = format!("pods: {running} running");
    assert!(told.contains(&end), "the rest keeps working: {told}");
}

#[test]
fn steps_are_looked_at_as_strictly() {
    let step = r#"steps: [ { apply: { objects: [ { apiVersion: v1, kind: ConfigMap, metadata: { name: a }, dtaa: { a: b } } ] } } ]"#;
    let (output, said) = run(&["simulate", &file("step.yaml", step.as_bytes())]);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let complaint =
        "steps[0]: apply: ConfigMap a: dtaa: unknown field; expected one that v1 ConfigMap has";
    assert!(said.contains(complaint), "{said}");
}
