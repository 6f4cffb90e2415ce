//! Tells stories in which everything goes wrong, of as many seeds as are asked for, on all cores:
//! `chaos [SEEDS=50] [FROM=1] [EVERY=1]`. Of each seed: the story that is drawn from it, and the two storms that somebody
//! wrote. A failure prints its seed, the command that tells it again, and the fewest steps that still fail; the last line
//! counts seeds. `SHOW=1` prints the drawn stories as they went. With `WRITE=FOLDER` that of FROM is written there
//! instead, as a scenario for `kubectl-karpenter simulate`.
#![allow(clippy::print_stdout, clippy::print_stderr)] // What it is for.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use karpenter_e2e::run::{self, RunError};
use karpenter_e2e::scenario::schema::Span;
use karpenter_e2e::storm::shrink::shrink;
use karpenter_e2e::storm::tell::{Outcome, Story, tell};
use karpenter_e2e::world::virtual_runtime;

/// Simulation is full of short-lived JSON; a quarter of the time went into the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The storms that somebody wrote.
const WRITTEN: [&str; 2] = ["rough-weather", "static-rough-weather"];
/// Longest that nothing may be heard of any story, in the machine's own time: one that takes longer hangs.
const HANGS_AFTER: Duration = Duration::from_secs(180);
/// How often it is said how far things have come, in seeds.
const TOLD_AT_EVERY: u64 = 10;
/// Most stories that are shortened: each is told some dozens of times on the way.
const MAX_SHORTENED: u64 = 3;

/// What is asked for.
struct Asked {
    seeds: u64,
    from: u64,
    every: u64,
    show: bool,
    folder: Option<PathBuf>,
}

/// What came of a seed.
struct Told {
    seed: u64,
    drawn: Outcome,
    /// What was broken in the written storms, with their names.
    written: Vec<(&'static str, String)>,
}

fn main() -> ExitCode {
    let asked = match asked(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(argument) => {
            eprintln!(
                "chaos: expected SEEDS=N, FROM=N, EVERY=N, SHOW=1 or WRITE=FOLDER, got {argument}"
            );
            return ExitCode::from(2);
        }
    };
    if let Some(folder) = &asked.folder {
        return written(asked.from, folder);
    }
    let Some((passed, failed)) = all(&asked) else {
        return ExitCode::from(1);
    };
    println!("chaos: {passed} passed, {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

fn asked(arguments: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut asked = Asked {
        seeds: 50,
        from: 1,
        every: 1,
        show: false,
        folder: None,
    };
    for argument in arguments {
        let (key, value) = argument.split_once('=').unwrap_or((&argument, ""));
        match (key, value.parse::<u64>()) {
            ("WRITE", _) if !value.is_empty() => asked.folder = Some(PathBuf::from(value)),
            ("SEEDS", Ok(n)) => asked.seeds = n,
            ("FROM", Ok(n)) => asked.from = n,
            ("EVERY", Ok(n)) if n > 0 => asked.every = n,
            ("SHOW", Ok(n)) => asked.show = n > 0,
            _ => return Err(argument),
        }
    }
    Ok(asked)
}

/// Tells all seeds; how many passed and failed. None if a story hangs.
fn all(asked: &Asked) -> Option<(u64, u64)> {
    let next = AtomicU64::new(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (send, receive) = mpsc::channel();
    let seed = |index: u64| asked.from.saturating_add(index.saturating_mul(asked.every));
    std::thread::scope(|scope| {
        for _ in 0..cores {
            let (send, next) = (send.clone(), &next);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= asked.seeds || send.send(of_seed(seed(index))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        let (mut passed, mut failed) = (0_u64, 0_u64);
        let (mut moves, mut nodes) = (0, 0);
        for heard in 0..asked.seeds {
            let told = match receive.recv_timeout(HANGS_AFTER) {
                Ok(told) => told,
                Err(_) => {
                    let begun = next.load(Ordering::Relaxed).min(asked.seeds);
                    println!(
                        "a story hangs: of the seeds {} to {}, {} have not ended within {HANGS_AFTER:?}",
                        seed(0),
                        seed(begun.saturating_sub(1)),
                        begun - heard
                    );
                    // A thread that computes for ever cannot be ended by itself.
                    std::process::exit(1);
                }
            };
            if (heard + 1) % TOLD_AT_EVERY == 0 {
                println!("chaos: {} of {} seeds told", heard + 1, asked.seeds);
            }
            moves += told.drawn.moves;
            nodes += told.drawn.nodes;
            if asked.show {
                show(&told);
            }
            if told.drawn.broken.is_empty() && told.written.is_empty() {
                passed += 1;
            } else {
                failed += 1;
                complain(&told, failed <= MAX_SHORTENED);
            }
        }
        println!("chaos: {nodes} machines joined, {moves} disruption commands were begun");
        Some((passed, failed))
    })
}

fn of_seed(seed: u64) -> Told {
    let drawn = told(&Story::of(seed));
    let broken = WRITTEN.iter().flat_map(|name| {
        let broken = storm(name, seed).unwrap_or_else(|error| vec![error]);
        broken.into_iter().map(|b| (*name, b))
    });
    Told {
        seed,
        drawn,
        written: broken.collect(),
    }
}

/// What a written storm broke under a seed.
fn storm(name: &str, seed: u64) -> Result<Vec<String>, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fixtures/scenarios")
        .join(name);
    let report = run::run_at(&folder, Some(seed))?;
    let mut broken = report.violations;
    let failed = report.expectations.iter().filter(|e| !e.ok);
    broken.extend(failed.map(|e| format!("{:.3}s {}, saw {}", e.at, e.expect, e.saw)));
    Ok(broken)
}

fn complain(told: &Told, shorten: bool) {
    let seed = told.seed;
    println!("seed {seed}: just chaos SEEDS=1 FROM={seed}");
    for (name, broken) in &told.written {
        println!("  {name}: {broken}");
    }
    for broken in &told.drawn.broken {
        println!("  {broken}");
    }
    if shorten && !told.drawn.broken.is_empty() {
        shortened(&Story::of(seed), &told.drawn);
    }
}

/// Prints what a drawn story was, and how it went.
fn show(told: &Told) {
    println!("seed {}:", told.seed);
    for step in Story::of(told.seed).steps {
        println!("  - {}", serde_json::to_string(&step).unwrap_or_default());
    }
    for entry in &told.drawn.timeline {
        let (kind, object) = (&entry.kind, &entry.object);
        println!("  {:>9.3}s {kind} {object} {}", entry.at, entry.message);
    }
}

/// Writes the story of `seed`, which is YAML as JSON is.
fn written(seed: u64, folder: &Path) -> ExitCode {
    let mut scenario = Story::of(seed).loaded().scenario;
    scenario.settle = Span::seconds(2 * 3600);
    let text = serde_json::to_string_pretty(&scenario).unwrap_or_default();
    let done = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(folder.join("scenario.yaml"), text));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chaos: {}: {error}", folder.display());
            ExitCode::from(2)
        }
    }
}

/// Prints the fewest steps that still break what `outcome` broke first.
fn shortened(story: &Story, outcome: &Outcome) {
    let first = rule(outcome.broken.first().map_or("", String::as_str));
    let fails = |steps: &[usize]| {
        let outcome = told(&story.with_steps(steps));
        outcome.broken.iter().any(|b| rule(b) == first)
    };
    let kept = shrink(story.steps.len(), fails);
    println!(
        "  the fewest of its {} steps that still break \"{first}\":",
        story.steps.len()
    );
    for step in story.with_steps(&kept).steps {
        let shown = serde_json::to_string(&step).unwrap_or_default();
        println!("    - {shown}");
    }
}

/// The rule of a breach: without its time and what it was about.
fn rule(broken: &str) -> &str {
    let text = match broken.split_once("s ") {
        Some((time, rest)) if time.parse::<f64>().is_ok() => rest,
        _ => broken,
    };
    text.split(':').next().unwrap_or_default()
}

fn told(story: &Story) -> Outcome {
    let told = match virtual_runtime() {
        Ok(runtime) => runtime.block_on(tell(story)),
        Err(error) => Err(RunError::Settings(error.to_string())),
    };
    told.unwrap_or_else(|error| Outcome {
        broken: vec![format!("the story cannot be told: {error}")],
        ..Outcome::default()
    })
}
