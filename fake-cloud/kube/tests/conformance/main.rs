//! Conformance: one table of API behaviours, asked of the embedded server on a socket and of a real kube-apiserver.
//!
//! `table/*.yaml` says what is asked, `table/*.golden.txt` what the real server answered when it was last asked
//! (`UPDATE_GOLDENS=1` with LOCAL_CONTROL_PLANE set asks it again; nothing else writes them). Both servers must answer
//! as recorded. Where the embedded one may not, docs/harness.md lists the check with the reason; a check that is listed
//! and no longer differs fails, too. `just conformance` builds the real server and ends with one line of numbers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)] // A test may fail loudly, and this one has no harness that would print for it.

mod ask;
mod golden;
mod project;
mod real;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use karpenter_fake_kube::{ApiServer, ServerOptions};
use karpenter_runtime::{Clock, RngTree};
use kube::Client;
use tokio_util::sync::CancellationToken;

use golden::Answers;
use table::Area;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/table")
}

/// The embedded server on a loopback socket.
async fn embedded(stop: &CancellationToken) -> Client {
    let server = ApiServer::new(ServerOptions {
        clock: Clock::real(),
        rng: RngTree::new(1),
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = stop.clone();
    tokio::spawn(async move { server.serve(listener, stop).await });
    client(kube::Config::new(url.parse().unwrap()))
}

/// A client that asks once: what is answered 429 is compared, not asked again.
pub(crate) fn client(mut config: kube::Config) -> Client {
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

/// Checks that docs/harness.md lists as different, with their reasons: rows whose first cell is a check's name in
/// backticks, below the heading.
fn listed() -> BTreeMap<String, String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/harness.md");
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    text.lines()
        .skip_while(|l| *l != "## Listed differences")
        .skip(1)
        .take_while(|l| !l.starts_with("## "))
        .filter_map(|l| {
            let (name, reason) = l.strip_prefix("| `")?.split_once("` | ")?;
            Some((name.to_owned(), reason.trim_end_matches(" |").to_owned()))
        })
        .collect()
}

fn main() -> ExitCode {
    let mut filters: Vec<String> = std::env::args().skip(1).collect();
    if filters.iter().any(|a| a == "--list") {
        return ExitCode::SUCCESS;
    }
    filters.retain(|a| !a.starts_with('-'));
    let mut areas = table::load(&folder());
    for area in &mut areas {
        area.checks
            .retain(|c| filters.is_empty() || filters.iter().any(|f| c.name.contains(f.as_str())));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let failed = runtime.block_on(run(&areas, filters.is_empty()));
    ExitCode::from(u8::from(failed > 0))
}

async fn run(areas: &[Area], whole: bool) -> usize {
    let listed = listed();
    let real = real::Cluster::start().await;
    let mut failures: Vec<String> = Vec::new();
    let mut recorded = golden::read(&folder());
    if let Some(real) = &real {
        let answers = ask::all(&real.client, areas).await;
        if std::env::var_os("UPDATE_GOLDENS").is_some() {
            golden::write(&folder(), areas, &answers, whole);
            recorded = golden::read(&folder());
        }
        for (name, answer) in &answers {
            if let Some((step, reply)) = answer.first().filter(|(s, _)| s.starts_with("given ")) {
                failures.push(format!("{name}: the real server refuses: {step}: {reply}"));
            }
            let differences = golden::differences(recorded.get(name), answer);
            if !differences.is_empty() {
                failures.push(format!(
                    "{name}: the real server no longer answers as recorded\n{differences}"
                ));
            }
        }
    }
    let stop = CancellationToken::new();
    let answers = ask::all(&embedded(&stop).await, areas).await;
    stop.cancel();
    let different = judge(&answers, &recorded, &listed, &mut failures);
    if whole {
        let unknown = listed.keys().filter(|n| !answers.contains_key(*n));
        failures.extend(unknown.map(|n| format!("{n}: listed in docs/harness.md, but no check")));
        let orphans = recorded.keys().filter(|n| !answers.contains_key(*n));
        failures.extend(orphans.map(|n| format!("{n}: recorded, but no check")));
    }
    for failure in &failures {
        println!("FAILED {failure}\n");
    }
    println!(
        "conformance: {} checks, {different} listed differences, {} failed",
        answers.len(),
        failures.len()
    );
    failures.len()
}

/// Compares the embedded server's answers with the recorded ones; answers how many listed differences there are.
fn judge(
    answers: &Answers,
    recorded: &Answers,
    listed: &BTreeMap<String, String>,
    failures: &mut Vec<String>,
) -> usize {
    let mut different = 0;
    for (name, answer) in answers {
        let differences = golden::differences(recorded.get(name), answer);
        match (differences.is_empty(), listed.get(name)) {
            (true, None) => {}
            (true, Some(_)) => failures.push(format!(
                "{name}: listed in docs/harness.md as different, and is not"
            )),
            (false, None) => failures.push(format!("{name}\n{differences}")),
            (false, Some(reason)) if reason.is_empty() => {
                failures.push(format!("{name}: listed without a reason"));
            }
            (false, Some(_)) => different += 1,
        }
    }
    different
}
