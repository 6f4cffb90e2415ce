//! Tells the random stories of seeds: chaos [SEEDS=50] [FROM=1] [EVERY=1]. A failure prints its seed, the command that
//! tells it again, and the fewest steps that still fail. The last line counts. With WRITE=FOLDER the story of FROM is
//! written there instead, as a scenario for `kubectl-karpenter simulate`.
#![allow(clippy::print_stdout, clippy::print_stderr)] // What it is for.

use std::process::ExitCode;

use karpenter_e2e::run::RunError;
use karpenter_e2e::scenario::schema::Span;
use karpenter_e2e::storm::shrink::shrink;
use karpenter_e2e::storm::tell::{Outcome, Story, tell};
use karpenter_e2e::world::virtual_runtime;

fn main() -> ExitCode {
    let (mut seeds, mut from, mut every) = (50, 1, 1);
    let mut folder = None;
    for argument in std::env::args().skip(1) {
        let (key, value) = argument.split_once('=').unwrap_or((&argument, ""));
        if key == "WRITE" {
            folder = Some(std::path::PathBuf::from(value));
            continue;
        }
        match (key, value.parse::<u64>()) {
            ("SEEDS", Ok(n)) => seeds = n,
            ("FROM", Ok(n)) => from = n,
            ("EVERY", Ok(n)) if n > 0 => every = n,
            _ => {
                eprintln!(
                    "chaos: expected SEEDS=N, FROM=N, EVERY=N or WRITE=FOLDER, got {argument}"
                );
                return ExitCode::from(2);
            }
        }
    }
    if let Some(folder) = folder {
        return written(from, &folder);
    }
    let (mut passed, mut failed) = (0_u64, 0_u64);
    let (mut moves, mut nodes) = (0, 0);
    for index in 0..seeds {
        let seed = from.saturating_add(index.saturating_mul(every));
        let story = Story::of(seed);
        let outcome = told(&story);
        moves += outcome.moves;
        nodes += outcome.nodes;
        if outcome.broken.is_empty() {
            passed += 1;
            continue;
        }
        failed += 1;
        println!(
            "seed {seed}: cargo run --release -p karpenter-e2e --bin chaos -- SEEDS=1 FROM={seed}"
        );
        for broken in &outcome.broken {
            println!("  {broken}");
        }
        shortened(&story, &outcome);
    }
    println!("chaos: {nodes} machines joined, {moves} disruption commands were begun");
    println!("chaos: {passed} passed, {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

/// Writes the story of `seed`, which is YAML as JSON is.
fn written(seed: u64, folder: &std::path::Path) -> ExitCode {
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
