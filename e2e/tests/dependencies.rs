//! What the command line is built of: no AWS SDK, whose one EC2 crate takes more memory and time to compile than all the
//! rest. Read from the lock file, so that no cargo and no network is asked. Dependencies of tests do not count, as nobody
//! who runs `cargo demo` builds them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // A test may fail loudly.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

/// What each package is built of, by name; of a package that is there in several versions, of all of them.
type Graph = BTreeMap<String, BTreeSet<String>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The text between the first two quotes of a line.
fn quoted(line: &str) -> &str {
    line.split('"').nth(1).unwrap_or_default()
}

/// The graph of a lock file: entries with a `name` and a list of `dependencies`, which may carry a version.
fn graph(lock: &str) -> Graph {
    let mut graph = Graph::new();
    for entry in lock.split("[[package]]").skip(1) {
        let name = entry.lines().find(|l| l.starts_with("name = ")).unwrap();
        let listed = entry.split("dependencies = [").nth(1).unwrap_or_default();
        let listed = listed.split(']').next().unwrap_or_default();
        let names = listed.lines().filter(|l| l.contains('"'));
        let names = names.filter_map(|l| quoted(l).split(' ').next());
        let dependencies = graph.entry(quoted(name).to_owned()).or_default();
        dependencies.extend(names.map(str::to_owned));
    }
    graph
}

/// Leaves out what a package of ours names for its tests alone: the lock file does not tell the kinds apart.
fn forget_tests(graph: &mut Graph, manifest: &str) {
    let (mut section, mut package, mut built) = ("", "", BTreeSet::new());
    for line in manifest.lines() {
        if line.starts_with('[') {
            assert!(!line.starts_with("[dependencies."), "not read here: {line}");
            section = line;
        } else if section == "[package]" && line.starts_with("name") {
            package = quoted(line);
        } else if section.ends_with("dependencies]") && !section.contains("dev-") {
            built.extend(line.split(['.', ' ', '=']).next());
        }
    }
    let dependencies = graph.get_mut(package).unwrap();
    dependencies.retain(|name| built.contains(name.as_str()));
}

/// The shortest way from the package `from` to one whose name starts with `prefix`.
fn path(graph: &Graph, from: &str, prefix: &str) -> Option<String> {
    let mut came_from = BTreeMap::from([(from, None)]);
    let mut queue = VecDeque::from([from]);
    while let Some(name) = queue.pop_front() {
        if name.starts_with(prefix) {
            let mut way: Vec<&str> = std::iter::successors(Some(name), |n| came_from[n]).collect();
            way.reverse();
            return Some(way.join(" -> "));
        }
        for next in &graph[name] {
            if !came_from.contains_key(next.as_str()) {
                came_from.insert(next, Some(name));
                queue.push_back(next);
            }
        }
    }
    None
}

fn tree() -> Graph {
    let read = |file: &Path| std::fs::read_to_string(root().join(file)).unwrap();
    let mut graph = graph(&read(Path::new("Cargo.lock")));
    let workspace = read(Path::new("Cargo.toml"));
    let members = workspace.split("members = [").nth(1).unwrap();
    let members = members.split(']').next().unwrap();
    for member in members.lines().filter(|l| l.contains('"')) {
        forget_tests(
            &mut graph,
            &read(&Path::new(quoted(member)).join("Cargo.toml")),
        );
    }
    graph
}

#[test]
fn the_command_line_is_built_without_an_aws_sdk() {
    let tree = tree();
    for sdk in ["aws-sdk-", "aws-config", "aws-smithy-", "rusoto_"] {
        let path = path(&tree, "karpenter-cli", sdk);
        assert_eq!(path, None, "cargo demo would compile an AWS SDK");
    }
}

#[test]
fn what_is_there_is_found_and_what_only_tests_use_is_not() {
    let mut tree = tree();
    let found = path(&tree, "karpenter-cli", "kube-client").unwrap();
    assert!(found.starts_with("karpenter-cli -> "), "{found}");
    assert!(found.ends_with(" -> kube -> kube-client"), "{found}");
    assert_eq!(path(&tree, "karpenter-cli", "proptest"), None);
    assert!(path(&tree, "proptest", "rand").is_some());
    let ec2 = tree.get_mut("karpenter-provider-ec2").unwrap();
    ec2.insert("aws-sdk-ec2".to_owned());
    tree.insert("aws-sdk-ec2".to_owned(), BTreeSet::new());
    let found = path(&tree, "karpenter-cli", "aws-sdk-").unwrap();
    assert!(
        found.ends_with("karpenter-provider-ec2 -> aws-sdk-ec2"),
        "{found}"
    );
}
