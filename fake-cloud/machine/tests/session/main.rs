//! A session with the installed kubectl on a cluster in this process: API server on a socket, all loops, fake nodes by
//! KWOK. `script.yaml` says what is typed, `session.golden.txt` what was answered (`UPDATE_GOLDENS=1` writes it; read the
//! diff). Skipped, loudly, where there is no kubectl; the words are compared where it is the version that was recorded.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // Helpers of tests are tests.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use karpenter_fake_kube::{ApiServer, ServerOptions, loops};
use karpenter_fake_machine::{Kwok, KwokOptions};
use karpenter_runtime::{Clock, RngTree};
use regex::Regex;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Longest that one command may take, and that is waited for what it should say.
const LIMIT: Duration = Duration::from_secs(30);
const TRY_AGAIN: Duration = Duration::from_millis(100);

struct Session {
    /// The first line of `kubectl version --client` up to the minor version.
    kubectl: String,
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
    async fn start() -> Option<Self> {
        let probe = Command::new("kubectl")
            .args(["version", "--client"])
            .output()
            .await;
        let Some(probe) = probe.ok().filter(|o| o.status.success()) else {
            let _ = writeln!(std::io::stderr(), "SKIPPED: no kubectl here");
            return None;
        };
        let kubectl = String::from_utf8_lossy(&probe.stdout);
        let kubectl: Vec<&str> = kubectl
            .lines()
            .next()
            .unwrap_or("")
            .splitn(3, '.')
            .collect();
        let kubectl = kubectl[..kubectl.len().min(2)].join(".");
        let clock = Clock::real();
        let rng = RngTree::new(7);
        let server = ApiServer::new(ServerOptions {
            clock,
            rng: rng.clone(),
        });
        let stop = CancellationToken::new();
        // They run until `stop`.
        drop(loops::start_all(&server, stop.clone()));
        drop(Kwok::start(
            server.clone(),
            KwokOptions::default(),
            rng,
            stop.clone(),
        ));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let home = std::env::temp_dir().join(format!("kubectl-session-{}", std::process::id()));
        std::fs::create_dir_all(&home).unwrap();
        let token = stop.clone();
        tokio::spawn(async move { server.serve(listener, token).await });
        Some(Self {
            kubectl,
            url,
            home,
            stop,
        })
    }

    /// What a command says on both outputs, and whether it succeeded.
    async fn run(&self, line: &str, input: &str) -> (bool, String) {
        let mut child = Command::new("kubectl")
            .env("HOME", &self.home)
            .env("KUBECTL_EXTERNAL_DIFF", "diff -N -U0")
            .env_remove("KUBECONFIG")
            .current_dir(&self.home)
            .args(["--server", &self.url])
            .args(words(line))
            .kill_on_drop(true)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that does not read its input may be gone already.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = tokio::time::timeout(LIMIT, child.wait_with_output())
            .await
            .unwrap_or_else(|_| panic!("kubectl {line} does not end"))
            .unwrap();
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        (output.status.success(), said)
    }
}

/// Splits a line at spaces outside single quotes.
fn words(line: &str) -> Vec<String> {
    let (mut all, mut word, mut quoted, mut any) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        match c {
            '\'' => (quoted, any) = (!quoted, true),
            ' ' if !quoted => {
                if any || !word.is_empty() {
                    all.push(std::mem::take(&mut word));
                }
                any = false;
            }
            c => word.push(c),
        }
    }
    if any || !word.is_empty() {
        all.push(word);
    }
    all
}

/// What is named alike, and how.
fn names() -> Vec<(Regex, &'static str)> {
    let rules = [
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>"),
        (
            r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}",
            "<time>",
        ),
        (
            r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
            "<uid>",
        ),
        (r#"resourceVersion: "\d+""#, "resourceVersion: <version>"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ [+-]\d{4}", "<time>"),
        (r"(LIVE|MERGED)-\d+", "$1"),
        (r"/tmp/\S*", "<file>"),
        (r"\b(\d+m)?\d+(\.\d+)?m?s\b|\b\d+m\b", "<age>"),
        (r"10\.\d+\.\d+\.\d+", "<ip>"),
        (r" {2,}", "  "),
        (r"[ \t]+\n", "\n"),
    ];
    let read = |(pattern, with)| (Regex::new(pattern).unwrap(), with);
    rules.into_iter().map(read).collect()
}

/// Ages, times, identities and addresses named alike; runs of spaces, which follow from their widths, made one.
fn plain(text: &str, url: &str, names: &[(Regex, &str)]) -> String {
    let text = text.replace(url, "<server>");
    names.iter().fold(text, |text, (pattern, with)| {
        pattern.replace_all(&text, *with).into_owned()
    })
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/session")
}

#[tokio::test]
async fn a_session_goes_as_it_went() {
    let Some(session) = Session::start().await else {
        return;
    };
    let script = std::fs::read_to_string(folder().join("script.yaml")).unwrap();
    let options = serde_saphyr::options! { strict_booleans: true };
    let script: Vec<Value> = serde_saphyr::from_str_with_options(&script, options).unwrap();
    let mut told = format!("# {}\n\n", session.kubectl);
    let names = names();
    for step in &script {
        let text = |key: &str| step[key].as_str().unwrap_or("");
        let line = text("run");
        let until = step["until"].as_str().map(|u| Regex::new(u).unwrap());
        let deadline = Instant::now() + LIMIT;
        let said = loop {
            let (ok, said) = session.run(line, text("stdin")).await;
            let fails = step["fails"] == true;
            assert_eq!(ok, !fails, "kubectl {line}: {said}");
            match &until {
                Some(until) if !until.is_match(&said) => {
                    assert!(
                        Instant::now() < deadline,
                        "kubectl {line} keeps saying: {said}"
                    );
                    tokio::time::sleep(TRY_AGAIN).await;
                }
                _ => break said,
            }
        };
        let mut said = plain(&said, &session.url, &names);
        if step["sorted"] == true {
            let mut lines: Vec<&str> = said.lines().collect();
            lines.sort_unstable();
            said = lines.join("\n");
        }
        if let Some(lines) = step["lines"].as_u64() {
            let kept: Vec<&str> = said.lines().take(usize::try_from(lines).unwrap()).collect();
            said = kept.join("\n");
        }
        writeln!(told, "$ kubectl {line}\n{}\n", said.trim_end()).unwrap();
    }
    assert!(script.len() >= 60, "the session shrank");
    let golden = folder().join("session.golden.txt");
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(&golden, &told).unwrap();
    }
    let wanted = std::fs::read_to_string(&golden).unwrap_or_default();
    if told.lines().next() != wanted.lines().next() {
        // Each version words some answers its own way; that every command did as it should was seen above.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: the words are those of another kubectl than {}",
            session.kubectl
        );
        return;
    }
    let differs = told
        .split("$ kubectl ")
        .zip(wanted.split("$ kubectl "))
        .find(|(a, b)| a != b);
    if let Some((now, then)) = differs {
        panic!("now:\n$ kubectl {now}\nrecorded:\n$ kubectl {then}");
    }
    assert_eq!(told, wanted, "UPDATE_GOLDENS=1 rewrites it");
}
