//! How dear and how fast whole plans are, beside what is recorded of Karpenter's own solver: one table, every case once
//! for its plan and several times for its time. One thread, as the recorded figures with one worker are.
//!
//! `cargo bench -p karpenter-solver --bench plans -- [check] [part of a case's name]`; with `check` plan-check judges every
//! plan, which takes its time. `-- curve`: price against nodes for values of the cost of a node.

// A bench reports to a person and may fail loudly.
#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::cast_precision_loss
)]

#[path = "cases/files.rs"]
mod files;
#[path = "cases/made.rs"]
mod made;
#[path = "cases/measure.rs"]
mod measure;

use std::alloc::System;
use std::hint::black_box;
use std::sync::Arc;

use karpenter_model::{Pod, Problem};
use measure::{cpu, memory};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static MEMORY: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Longest that a case is timed, seconds of CPU; at least once.
const TIMED: f64 = 2.0;
/// Most runs of a case.
const MOST: u32 = 200;

/// What is recorded of Karpenter's solver and of the least that any plan can cost.
#[derive(Clone, Copy, Default)]
struct Theirs {
    /// Dollars per hour.
    price: Option<f64>,
    nodes: Option<usize>,
    /// Dollars per hour.
    floor: Option<f64>,
    /// Pods per second with one worker on one thread.
    speed: Option<f64>,
}

/// A case; its problem is made when it is its turn.
struct Case {
    name: String,
    make: Box<dyn Fn() -> Option<(Problem, Theirs)>>,
}

impl Case {
    fn new(
        name: impl Into<String>,
        make: impl Fn() -> Option<(Problem, Theirs)> + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            make: Box::new(make),
        }
    }
}

fn recorded(out: &mut Vec<Case>) {
    for (name, floor, speed) in [
        ("diverse-100-400", 22.243, Some(1_773.0)),
        ("diverse-1000-400", 208.841, Some(1_278.0)),
        ("diverse-5000-400", 1_041.763, Some(782.0)),
        ("generic-1000-400", 211.258, Some(4_338.0)),
        ("respect-500-400", 314.752, Some(293.0)),
        ("diverse-100-aws", 0.313, None),
        ("diverse-1000-aws", 3.028, Some(445.0)),
        ("generic-1000-aws", 3.084, Some(7_478.0)),
    ] {
        out.push(Case::new(name, move || {
            let read = files::recorded(&format!("{name}.json.gz"))?;
            let theirs = Theirs {
                price: Some(read.price),
                nodes: Some(read.nodes),
                floor: Some(floor),
                speed,
            };
            Some((read.problem, theirs))
        }));
    }
}

fn made_up(out: &mut Vec<Case>) {
    type Make = fn(usize) -> Vec<Arc<Pod>>;
    let mut on_400 = |name: String, count: usize, make: Make, speed: Option<f64>| {
        out.push(Case::new(name, move || {
            let pools = vec![made::pool("default", made::types(400))];
            let theirs = Theirs {
                speed,
                ..Theirs::default()
            };
            Some((made::problem(make(count), pools), theirs))
        }));
    };
    for (count, speed) in [
        (1, None),
        (50, Some(1_600.0)),
        (500, Some(1_208.0)),
        (1_000, Some(1_278.0)),
        (2_000, Some(1_206.0)),
        (5_000, Some(782.0)),
        (10_000, Some(596.0)),
        (20_000, None),
        (100_000, None),
    ] {
        on_400(format!("made-diverse-{count}"), count, made::diverse, speed);
    }
    // Theirs with five workers, the only figure there is: 38 pods a second at best.
    let wishes = "made-wishes-4000".to_owned();
    on_400(wishes, 4_000, made::wishful, Some(38.4));
    for count in [1_000, 10_000] {
        let plain: Make = |n| made::plain(n, false);
        on_400(format!("made-30-shapes-{count}"), count, plain, None);
        let jitter: Make = |n| made::plain(n, true);
        on_400(format!("made-all-different-{count}"), count, jitter, None);
    }
    for (pods, nodes) in [(10_000, 2_000), (0, 5_000), (100, 5_000)] {
        out.push(Case::new(
            format!("platform-{pods}-on-{nodes}"),
            move || {
                let real = files::recorded("generic-1000-aws.json.gz");
                let sold = real.map_or_else(
                    || made::types(400),
                    |r| r.problem.pools[0].instance_types.clone(),
                );
                Some((made::platform(pods, nodes, &sold), Theirs::default()))
            },
        ));
    }
}

fn ratio(ours: f64, theirs: Option<f64>) -> String {
    theirs.map_or("-".to_owned(), |t| format!("{:.2}", ours / t))
}

fn number(n: Option<f64>) -> String {
    n.map_or("-".to_owned(), |n| format!("{n:.3}"))
}

fn run(name: &str, problem: &Problem, t: Theirs, check: bool) {
    let region = Region::new(MEMORY);
    let plan = karpenter_solver::solve(problem);
    let allocated = region.change().bytes_allocated;
    let price: f64 = plan.new_nodes.iter().map(|n| n.cheapest.price).sum();
    let begun = cpu();
    let mut runs = 0_u32;
    while runs == 0 || (runs < MOST && cpu() - begun < TIMED) {
        black_box(karpenter_solver::solve(problem));
        runs += 1;
    }
    let mean = (cpu() - begun) / f64::from(runs);
    let pods = problem.pods.len();
    let speed = pods as f64 / mean;
    println!(
        "{:<24} {:>9.3} {:>9} {:>6} {:>7} {:>6} {:>6} {:>6} {:>10.1} {:>9.0} {:>7} {:>8.1} {:>10}",
        name,
        price,
        number(t.price),
        ratio(price, t.price),
        ratio(price, t.floor),
        plan.new_nodes.len(),
        t.nodes.map_or("-".to_owned(), |n| n.to_string()),
        plan.unschedulable.len(),
        mean * 1e3,
        speed,
        ratio(speed, t.speed),
        allocated as f64 / 1e6,
        plan.work,
    );
    if check {
        let findings = karpenter_plan_check::check(problem, &plan);
        println!("  plan-check: {} findings {findings:?}", findings.len());
    }
}

/// Price against nodes for values of the cost of a node.
fn curve() {
    println!(
        "{:<18} {:>9} {:>10} {:>7}",
        "case", "node cost", "$/h", "nodes"
    );
    for name in [
        "diverse-1000-400",
        "diverse-1000-aws",
        "generic-1000-400",
        "generic-1000-aws",
    ] {
        let Some(read) = files::recorded(&format!("{name}.json.gz")) else {
            continue;
        };
        for cost in [0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2] {
            let mut problem = read.problem.clone();
            problem.options.node_cost = cost;
            let plan = karpenter_solver::solve(&problem);
            let price: f64 = plan.new_nodes.iter().map(|n| n.cheapest.price).sum();
            let nodes = plan.new_nodes.len();
            println!("{name:<18} {cost:>9.3} {price:>10.3} {nodes:>7}");
        }
    }
}

fn main() {
    let mut wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    let check = wanted.iter().any(|w| w == "check");
    wanted.retain(|w| w != "check");
    if wanted.iter().any(|w| w == "curve") {
        curve();
        return;
    }
    let mut cases = Vec::new();
    recorded(&mut cases);
    made_up(&mut cases);
    println!(
        "{:<24} {:>9} {:>9} {:>6} {:>7} {:>6} {:>6} {:>6} {:>10} {:>9} {:>7} {:>8} {:>10}",
        "case",
        "$/h",
        "theirs",
        "ratio",
        "/floor",
        "nodes",
        "theirs",
        "left",
        "CPU ms",
        "pods/s",
        "ratio",
        "MB",
        "work"
    );
    for case in &cases {
        let asked_for = wanted.is_empty() || wanted.iter().any(|w| case.name.contains(w));
        if asked_for && let Some((problem, theirs)) = (case.make)() {
            run(&case.name, &problem, theirs, check);
        }
    }
    println!("whole process, the problem included: {}", memory("VmHWM"));
}
