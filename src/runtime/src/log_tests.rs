//! Golden lines: what users' tools match on.

use super::*;
use crate::RngTree;
use crate::runner::Rounds;

/// What `body` logs from 2026-01-02T03:04:05.678Z on.
fn lines(level: LogLevel, body: impl FnOnce()) -> Vec<String> {
    let memory = MemorySink::default();
    let clock = Clock::starting_at("2026-01-02T03:04:05.678Z".parse().unwrap());
    // The time of a golden line must not move.
    let subscriber = subscriber(level, clock, vec![Sink::Memory(memory.clone())]);
    tracing::subscriber::with_default(subscriber, body);
    memory.lines()
}

#[tokio::test(start_paused = true)]
async fn lines_of_the_contract() {
    let lines = lines(LogLevel::Info, || {
        let provisioner = tracing::error_span!(
            "reconcile",
            controller = "provisioner",
            controllerGroup = "",
            controllerKind = "",
            namespace = "",
            name = "",
            reconcileID = "0-0"
        );
        provisioner.in_scope(|| {
            tracing::info!(
                Pods = "default/inflate-a, default/inflate-b",
                duration = "12ms",
                "found provisionable pod(s)"
            );
            tracing::info!(
                nodeclaims = 1,
                pods = 2_u64,
                "computed new nodeclaim(s) to fit pod(s)"
            );
            tracing::info!(
                NodePool = "default",
                NodeClaim = "default-x7k2p",
                requests = %r#"{"cpu":"2150m","pods":"6"}"#,
                instance_types = "c5.xlarge, c6a.xlarge and 53 other(s)",
                "created nodeclaim"
            );
        });
        let lifecycle = tracing::error_span!(
            "reconcile",
            controller = "nodeclaim.lifecycle",
            controllerGroup = "karpenter.sh",
            controllerKind = "NodeClaim",
            namespace = "",
            name = "default-x7k2p",
            reconcileID = "0-1"
        );
        lifecycle.in_scope(|| {
            tracing::info!("provider-id" = "aws:///us-east-1a/i-0", "instance-type" = "c5.xlarge", zone = "us-east-1a", "capacity-type" = "spot", allocatable = %r#"{"cpu":"3920m"}"#, "launched nodeclaim");
            tracing::info!(Node = %r#"{"name":"ip-10-0-0-1"}"#, NodeClaim = %r#"{"name":"default-x7k2p"}"#, "registered nodeclaim");
            tracing::error!(error = %"boom \"quoted\"\n", after = 1.5, Pod = "default/web-0", "Reconciler error");
        });
        tracing::info!(
            "taint.Key" = "karpenter.sh/disrupted",
            "taint.Value" = "",
            "taint.Effect" = "NoSchedule",
            Node = "n1",
            "tainted node"
        );
    });
    insta::assert_snapshot!("log_lines", lines.join("\n"));
    for line in &lines {
        let _: serde_json::Value = serde_json::from_str(line).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn debug_level_adds_the_caller() {
    let lines = lines(LogLevel::Debug, || tracing::debug!("command succeeded"));
    let caller = "\"caller\":\"src/runtime/src/log_tests.rs:";
    let before =
        "{\"level\":\"DEBUG\",\"time\":\"2026-01-02T03:04:05.678Z\",\"logger\":\"controller\",";
    assert!(
        lines[0].starts_with(&format!("{before}{caller}")),
        "{}",
        lines[0]
    );
}

#[rstest::rstest]
#[case(LogLevel::Debug, "edit")]
#[case(LogLevel::Info, "eit")]
#[case(LogLevel::Error, "et")]
#[tokio::test(start_paused = true)]
async fn levels(#[case] level: LogLevel, #[case] heard: &str) {
    let lines = lines(level, || {
        tracing::error!("e");
        tracing::debug!("d");
        tracing::info!("i");
        tracing::warn!("t");
        tracing::error!(target: "hyper::client", "not ours");
    });
    let messages: Vec<String> = lines
        .iter()
        .map(|l| {
            serde_json::from_str::<serde_json::Value>(l).unwrap()["message"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(messages.concat(), heard);
}

#[tokio::test(start_paused = true)]
async fn the_context_is_there_at_every_level_and_may_be_amended() {
    let lines = lines(LogLevel::Error, || {
        let span =
            tracing::error_span!("reconcile", controller = "a", name = tracing::field::Empty);
        span.record("name", "late");
        span.in_scope(|| {
            let inner = tracing::error_span!("inner", name = "closer");
            inner.in_scope(|| tracing::error!("m"));
        });
        span.in_scope(|| tracing::error!("n"));
    });
    assert!(
        lines[0].ends_with(r#""controller":"a","name":"closer"}"#),
        "{}",
        lines[0]
    );
    assert!(
        lines[1].ends_with(r#""controller":"a","name":"late"}"#),
        "{}",
        lines[1]
    );
}

#[tokio::test(start_paused = true)]
async fn loops_without_keys_have_a_context_too() {
    let memory = MemorySink::default();
    let subscriber = subscriber(
        LogLevel::Info,
        Clock::real(),
        vec![Sink::Memory(memory.clone())],
    );
    let _guard = tracing::subscriber::set_default(subscriber);
    let body = async {
        tracing::info!("m");
        crate::runner::current_controller()
    };
    let mut rounds = Rounds::new("provisioner", &RngTree::new(7));
    assert_eq!(rounds.begin().run(body).await, "provisioner");
    assert_eq!(crate::runner::current_controller(), "");
    let context = r#""controller":"provisioner","namespace":"","name":"","reconcileID":""#;
    assert!(memory.lines()[0].contains(context), "{:?}", memory.lines());
}

#[tokio::test(start_paused = true)]
async fn rounds_are_told_apart_and_the_same_for_a_seed() {
    async fn told(seed: u64, names: [&'static str; 2]) -> Vec<String> {
        let memory = MemorySink::default();
        let sinks = vec![Sink::Memory(memory.clone())];
        let subscriber = subscriber(LogLevel::Info, Clock::real(), sinks);
        let _guard = tracing::subscriber::set_default(subscriber);
        let tree = RngTree::new(seed);
        let mut loops = names.map(|name| Rounds::new(name, &tree));
        for _ in 0..2 {
            for rounds in &mut loops {
                rounds.begin().run(async { tracing::info!("m") }).await;
            }
        }
        let id = |line: &String| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["reconcileID"].as_str().unwrap().to_owned()
        };
        memory.lines().iter().map(id).collect()
    }
    let first = told(7, ["provisioner", "disruption"]).await;
    let different: std::collections::BTreeSet<&String> = first.iter().collect();
    assert_eq!(different.len(), 4, "{first:?}");
    assert_eq!(told(7, ["provisioner", "disruption"]).await, first);
    // What other loops there are makes no difference.
    let beside = told(7, ["provisioner", "other"]).await;
    assert_eq!([&beside[0], &beside[2]], [&first[0], &first[2]]);
    assert_ne!(told(8, ["provisioner", "disruption"]).await, first);
}

#[tokio::test(start_paused = true)]
async fn repeated_lines_are_thinned_out_each_second() {
    let memory = MemorySink::default();
    let subscriber = subscriber(
        LogLevel::Info,
        Clock::real(),
        vec![Sink::Memory(memory.clone())],
    );
    let _guard = tracing::subscriber::set_default(subscriber);
    for i in 0..350 {
        tracing::info!(i, "same");
    }
    tracing::info!("other");
    assert_eq!(memory.lines().len(), 100 + 2 + 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    tracing::info!("same");
    assert_eq!(memory.lines().len(), 104);
}

#[tokio::test(start_paused = true)]
async fn or_not_at_all() {
    let memory = MemorySink::default();
    let layer = JsonLines::new(
        LogLevel::Info,
        Clock::real(),
        vec![Sink::Memory(memory.clone())],
    );
    let subscriber = Registry::default().with(layer.unsampled());
    tracing::subscriber::with_default(subscriber, || {
        for i in 0..350 {
            tracing::info!(i, "same");
        }
    });
    assert_eq!(memory.lines().len(), 350);
}

#[tokio::test(start_paused = true)]
async fn errors_come_with_their_causes() {
    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::fmt::Error);
    let lines = lines(LogLevel::Info, || {
        let error = Outer(std::fmt::Error);
        tracing::error!(error = &error as &dyn std::error::Error, "m");
    });
    assert!(
        lines[0].contains(r#""error":"outer: an error occurred"#),
        "{}",
        lines[0]
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_is_told_where_complaints_go() {
    let directory = std::env::temp_dir();
    let path = directory.join(format!("karpenter-log-full-{}", std::process::id()));
    std::fs::write(&path, "").unwrap();
    // Opened to be read only, every write to it fails.
    let broken = std::fs::File::open(&path).unwrap();
    let (lines, complaints) = (MemorySink::default(), MemorySink::default());
    let outputs = Outputs {
        lines: vec![
            Sink::File(std::sync::Arc::new(Mutex::new(broken))),
            Sink::Memory(lines.clone()),
        ],
        complaints: vec![Sink::Memory(complaints.clone())],
    };
    let clock = Clock::starting_at("2026-01-02T03:04:05.678Z".parse().unwrap());
    let subscriber = subscriber(LogLevel::Info, clock, outputs);
    tracing::subscriber::with_default(subscriber, || tracing::info!("m"));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(lines.lines().len(), 1, "other places get theirs");
    let complaints = complaints.lines();
    let start = "2026-01-02T03:04:05.678Z write error: ";
    assert!(
        complaints.len() == 1 && complaints[0].starts_with(start),
        "{complaints:?}"
    );
}

#[test]
fn files_are_appended_to_and_bad_paths_named() {
    let directory = std::env::temp_dir().join(format!("karpenter-log-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("log").display().to_string();
    for line in ["one", "two"] {
        let sinks = Sink::open(&["stdout".to_owned(), path.clone()]).unwrap();
        sinks[1].write(line).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    std::fs::remove_dir_all(&directory).unwrap();
    let error = Sink::open(std::slice::from_ref(&path)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("log output {path} cannot be opened")
    );
}
