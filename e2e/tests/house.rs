//! House rules that no lint holds: file sizes, first lines, goldens with their inputs, the scenario schema in the tree.

#![allow(clippy::unwrap_used, clippy::panic)] // A test may fail loudly.

use std::path::{Path, PathBuf};

use karpenter_e2e::scenario::Scenario;
use karpenter_e2e::scenario::load::parse;
use rstest::rstest;

/// Most lines of a code file.
const MAX_CODE_LINES: usize = 600;
/// Most lines of a test file.
const MAX_TEST_LINES: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn rust_files(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_none_or(|n| n != "target") {
            rust_files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

fn all_rust_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in ["src", "fake-cloud", "e2e"] {
        rust_files(&root().join(folder), &mut files);
    }
    assert!(files.len() > 100, "the tree was not found");
    files
}

#[test]
fn files_are_small_and_say_what_they_are_for() {
    let mut bad = Vec::new();
    for file in all_rust_files() {
        let text = std::fs::read_to_string(&file).unwrap();
        let lines = text.lines().count();
        let shown = file.display().to_string();
        let is_test =
            shown.contains("/tests/") || shown.contains("tests.rs") || shown.contains("/benches/");
        let most = if is_test {
            MAX_TEST_LINES
        } else {
            MAX_CODE_LINES
        };
        if lines > most {
            bad.push(format!("{shown}: {lines} lines, at most {most}"));
        }
        if !text.starts_with("//!") {
            bad.push(format!(
                "{shown}: does not open with a //! line on what it is for"
            ));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn every_scenario_has_a_golden_and_every_golden_a_scenario() {
    for entry in std::fs::read_dir(root().join("fixtures/scenarios"))
        .unwrap()
        .map(Result::unwrap)
    {
        for file in ["scenario.yaml", "golden.txt"] {
            assert!(
                entry.path().join(file).exists(),
                "{} has no {file}",
                entry.path().display()
            );
        }
    }
}

#[test]
fn the_scenario_schema_in_the_tree_is_that_of_the_types() {
    let made = serde_json::to_string_pretty(&schemars::schema_for!(Scenario)).unwrap() + "\n";
    let file = root().join("fixtures/scenario.schema.json");
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(&file, &made).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(&file).unwrap_or_default(),
        made,
        "UPDATE_GOLDENS=1 rewrites it"
    );
}

#[rstest]
#[case::unknown_field("seed: 1\ncolour: red\n", &["line 2", "colour"])]
#[case::wrong_word("cloud: { provider: azure }\n", &["line 1", "azure"])]
#[case::two_actions("steps:\n  - { controller: crash, scale: { name: a, replicas: 1 } }\n", &["steps[0]", "exactly one", "scale, controller"])]
#[case::no_action("steps:\n  - { at: 1s }\n", &["steps[0]", "got none"])]
#[case::time_goes_back("steps:\n  - { at: 5m, controller: crash }\n  - { at: 1m, controller: start }\n", &["steps[1]", "at: 1m"])]
#[case::negative_price("steps:\n  - { cloud: { price: { factor: -1 } } }\n", &["cloud.price.factor", "0 or more"])]
#[case::nothing_held("steps:\n  - { wait: { for: 1m, holding: {} } }\n", &["steps[0]", "wait.holding", "podsRunning"])]
#[case::endless("steps:\n  - { wait: { for: 99999999d } }\n", &["99999999d", "at most 3650d"])]
#[case::too_many("steps:\n  - { scale: { name: web, replicas: 9223372036854775807 } }\n", &["steps[0]", "scale.replicas", "0 to 200000"])]
#[case::too_many_by_patch("steps:\n  - { patch: { target: { kind: NodePool, name: a }, patch: { spec: { replicas: 1e18 } } } }\n", &["steps[0]", "patch.patch.spec.replicas", "0 to 200000"])]
#[case::no_span("steps:\n  - { wait: { for: soon } }\n", &["soon", "length of time"])]
fn what_cannot_be_meant_is_refused(#[case] text: &str, #[case] says: &[&str]) {
    let error = parse(text, "scenario.yaml").unwrap_err().to_string();
    for part in says {
        assert!(error.contains(part), "expected {part:?} in: {error}");
    }
}

/// Metrics of the contract that nobody writes yet, and why.
const UNWRITTEN: &[(&str, &str)] = &[
    (
        "karpenter_cloudprovider_instance_",
        "EC2: told by a loop of the provider that is not there yet",
    ),
    (
        "karpenter_cloudprovider_batcher_",
        "EC2: calls are not batched yet",
    ),
    (
        "karpenter_interruption_",
        "EC2: there is no interruption queue yet",
    ),
    (
        "karpenter_ec2nodeclasses_userdata_bytes",
        "EC2: told by a loop of the provider that is not there yet",
    ),
];

#[test]
fn every_metric_of_the_table_is_written_by_somebody() {
    let mut sources = Vec::new();
    rust_files(&root().join("src"), &mut sources);
    sources.retain(|file| {
        let shown = file.display().to_string();
        !shown.contains("/tests/") && !shown.ends_with("tests.rs") && !shown.ends_with("table.rs")
    });
    let text: String = sources
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        // What only a test names is not written.
        .map(|text| match text.split_once("#[cfg(test)]\nmod ") {
            Some((code, _)) => code.to_owned(),
            None => text,
        })
        .collect();
    let mut wrong = Vec::new();
    let table = karpenter_runtime::metrics::table::TABLE;
    for (name, _) in UNWRITTEN {
        if !table.iter().any(|row| row.name.starts_with(name)) {
            wrong.push(format!("{name}: excused, and no metric is called so"));
        }
    }
    for row in table {
        let written = text.contains(&format!("\"{}\"", row.name));
        let excused = UNWRITTEN.iter().any(|(name, _)| row.name.starts_with(name));
        if written == excused {
            wrong.push(format!(
                "{}: written {written}, excused {excused}",
                row.name
            ));
        }
    }
    // What is not in the table is told to nobody, and ends a debug build.
    for name in text.split('"').filter(|t| is_metric(t)) {
        if !table.iter().any(|row| row.name == name) {
            wrong.push(format!("{name}: written, and not in the table"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whether a text can be nothing but the whole name of a metric.
fn is_metric(text: &str) -> bool {
    let tail = text.strip_prefix("karpenter_").unwrap_or_default();
    let ends = ["_total", "_seconds", "_count", "_percent", "_bytes"];
    ends.iter().any(|end| tail.ends_with(end))
        && tail.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

/// Cases (see below) that nothing here can come to: why.
const NO_SUCH_CASE: [(usize, &str); 1] = [(
    18,
    "offerings do not override capacity: no provider here sells any that do",
)];

/// Karpenter's own test suites come to 64 cases that define how scheduling behaves (selectors, packing, minValues, nodes
/// that exist, topology, provisioning, reservations and state). Each is told by a test that carries its number, which is
/// `case`, two digits and what is given and expected in words.
#[test]
fn every_numbered_case_of_scheduling_has_a_test() {
    let texts: Vec<String> = all_rust_files()
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    let has = |n: usize| {
        // Put together, so that this file does not count itself.
        let name = format!("{}_{n:02}_", "case");
        texts.iter().any(|t| t.contains(&name))
    };
    let missing: Vec<usize> = (1..=64).filter(|n| !has(*n)).collect();
    let excused: Vec<usize> = NO_SUCH_CASE.iter().map(|(n, _)| *n).collect();
    assert_eq!(missing, excused);
}
