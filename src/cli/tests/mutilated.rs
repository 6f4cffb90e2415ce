//! Input that somebody or something has mutilated: cut off, flipped, swapped, with absurd values. Whatever it is, a
//! command neither panics nor hangs nor eats the machine, and what it refuses it refuses with a word about it.
//! `MUTILATIONS=2000 cargo test -p karpenter-cli --test mutilated` looks further; a failure leaves its input behind.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // Helpers of tests are tests.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use karpenter_runtime::RngTree;
use karpenter_runtime::rng::Rng;
use rstest::rstest;
use serde_json::{Value, json};

/// Inputs a door, unless told otherwise.
const MUTILATIONS: u64 = 25;
/// Longest that one may take; a debug build on a busy machine is slow.
const LIMIT: Duration = Duration::from_secs(120);

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// Files that a door takes as they are.
fn inputs(door: &str) -> Vec<PathBuf> {
    let stories = || {
        let folders = std::fs::read_dir(fixtures().join("scenarios")).unwrap();
        folders.map(|e| e.unwrap().path().join("scenario.yaml"))
    };
    let manifests = || {
        let files = std::fs::read_dir(fixtures().join("manifests")).unwrap();
        files.map(|e| e.unwrap().path())
    };
    let mut all: Vec<PathBuf> = match door {
        "simulate" => stories().collect(),
        "plan" => manifests().chain(stories()).collect(),
        _ => manifests().collect(),
    };
    // Stories with files beside them would only tell that those are missing; the stormy ones take long.
    all.retain(|p| {
        let text = std::fs::read_to_string(p).unwrap();
        !text.contains("\nfiles:") && !p.display().to_string().contains("weather")
    });
    all.sort();
    all
}

fn pick<T: Clone>(rng: &mut Rng, all: &[T]) -> T {
    all[usize::try_from(rng.below(all.len() as u64)).unwrap()].clone()
}

fn below(rng: &mut Rng, n: usize) -> usize {
    usize::try_from(rng.below(n as u64)).unwrap()
}

fn absurd() -> Vec<Value> {
    vec![
        Value::Null,
        json!(-1),
        json!(0),
        json!(1e308),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(i32::MAX),
        json!(true),
        json!([]),
        json!({}),
        json!([[[]]]),
        json!({ "a": { "b": 1 } }),
        json!(""),
        json!("9999999999999999999Ei"),
        json!("-5"),
        json!("1e1000"),
        json!("NaN"),
        json!("é\u{202e}😀\u{0}"),
        json!("a".repeat(5000)),
        json!("100000%"),
        json!("-1h"),
        json!("99999999999999h"),
        json!("99999999999d"),
        json!("* * * * *"),
        json!("Exists"),
        json!("1e-30"),
    ]
}

/// Every place in a document, as JSON pointers.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(map) => {
            for (key, below) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                places(below, &format!("{at}/{key}"), out);
            }
        }
        Value::Array(items) => {
            for (index, below) in items.iter().enumerate() {
                places(below, &format!("{at}/{index}"), out);
            }
        }
        _ => {}
    }
}

/// Absurd values, lost and misspelt fields, parts in each other's place.
fn mutilate_fields(rng: &mut Rng, document: &mut Value) {
    for _ in 0..=below(rng, 3) {
        let mut all = Vec::new();
        places(document, "", &mut all);
        let (one, other) = (pick(rng, &all), pick(rng, &all));
        match rng.below(5) {
            0..3 => *document.pointer_mut(&one).unwrap() = pick(rng, &absurd()),
            3 => {
                let other_value = document.pointer(&other).unwrap().clone();
                let value = std::mem::replace(document.pointer_mut(&one).unwrap(), other_value);
                // Gone, where the one was around it.
                if let Some(place) = document.pointer_mut(&other) {
                    *place = value;
                }
            }
            _ => {
                let Some(Value::Object(map)) = document.pointer_mut(&one) else {
                    continue;
                };
                let keys: Vec<String> = map.keys().cloned().collect();
                if let Some(value) = keys.first().and_then(|k| map.remove(k))
                    && rng.chance(0.5)
                {
                    map.insert(format!("{}x", keys[0]), value);
                }
            }
        }
    }
}

/// Cut off, flipped, swapped and repeated bytes.
fn mutilate_bytes(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..=below(rng, 4) {
        if bytes.is_empty() {
            return;
        }
        let (one, other) = (below(rng, bytes.len()), below(rng, bytes.len()));
        match rng.below(4) {
            0 => bytes.truncate(one),
            1 => bytes[one] ^= 1 << rng.below(8),
            2 => bytes.swap(one, other),
            _ => {
                let end = (other + below(rng, 200)).min(bytes.len());
                let repeated = bytes[other..end].to_vec();
                bytes.splice(one..one, repeated);
            }
        }
    }
}

fn mutilated(rng: &mut Rng, door: &str) -> Vec<u8> {
    let file = pick(rng, &inputs(door));
    let text = std::fs::read_to_string(&file).unwrap();
    if rng.chance(0.3) {
        let mut bytes = text.into_bytes();
        mutilate_bytes(rng, &mut bytes);
        return bytes;
    }
    let mut documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let is_story = file.ends_with("scenario.yaml");
    let mut document = match (is_story, door) {
        (true, "simulate") => documents.remove(0),
        (true, _) => documents[0]["objects"].take(),
        _ => Value::Array(documents),
    };
    mutilate_fields(rng, &mut document);
    serde_json::to_vec(&document).unwrap()
}

/// Runs it to its end; what it said, and its code unless a signal ended it.
async fn run(arguments: &[&str], said: &Path) -> (Option<i32>, String) {
    let file = std::fs::File::create(said).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_kubectl-karpenter"))
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(file)
        .spawn()
        .unwrap();
    let deadline = tokio::time::Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if tokio::time::Instant::now() > deadline {
            child.kill().unwrap();
            break child.wait().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let said = String::from_utf8_lossy(&std::fs::read(said).unwrap()).into_owned();
    (status.code(), said)
}

#[rstest]
#[case::plan("plan")]
#[case::convert("convert")]
#[case::simulate("simulate")]
#[tokio::test]
async fn no_input_makes_it_panic_or_fall_silent(#[case] door: &str) {
    let asked = std::env::var("MUTILATIONS").ok();
    let count = asked.and_then(|n| n.parse().ok()).unwrap_or(MUTILATIONS);
    let tree = RngTree::new(1).child("mutilated", door);
    let mut refused = 0;
    for index in 0..count {
        let mut rng = tree.child("input", &index.to_string()).rng();
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let input = folder.join(format!("mutilated-{door}-{index}.yaml"));
        let bytes = mutilated(&mut rng, door);
        std::fs::write(&input, bytes).unwrap();
        let shown = input.display().to_string();
        let arguments = match door {
            "simulate" => vec![door, &shown],
            _ => vec![door, "-f", &shown],
        };
        let (code, said) = run(&arguments, &input.with_extension("said")).await;
        let failure = format!("{door} of {shown} ended with {code:?}: {said}");
        assert!(!said.contains("panicked"), "{failure}");
        match code {
            Some(0 | 1) => {}
            Some(2) => {
                refused += 1;
                // What is wrong with what: a field, an object, a line or the file, and a word about it.
                let mut errors = said.lines().filter_map(|l| l.strip_prefix("error: "));
                assert!(
                    errors.all(|e| e.split_once(": ").is_some_and(|(of, what)| {
                        !of.trim().is_empty() && !what.trim().is_empty()
                    })),
                    "{failure}"
                );
                assert!(said.contains("error: "), "{failure}");
            }
            _ => panic!("{failure}"),
        }
        std::fs::remove_file(input.with_extension("said")).unwrap();
        std::fs::remove_file(input).unwrap();
    }
    assert!(
        refused > count / 10,
        "hardly anything was mutilated: {refused} of {count}"
    );
}
