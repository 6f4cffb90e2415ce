//! How fast and how dear: plain pods of the public scheduling benchmark's sizes (30 shapes, or every pod a shape of
//! its own) on its 400 made-up types. Prints price, nodes and what is left over beside the times.
//!
//! `cargo bench -p karpenter-solver`

// A bench reports to a person and may fail loudly.
#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing
)]

#[path = "cases/made.rs"]
#[allow(dead_code)] // Another bench uses the rest.
mod made;

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use made::CORE_PRICE;

const MIB: i64 = 1 << 20;

fn plain(c: &mut Criterion) {
    let mut group = c.benchmark_group("plain pods on 400 types");
    group.sample_size(10);
    for (count, jitter) in [
        (1_000, false),
        (10_000, false),
        (1_000, true),
        (10_000, true),
    ] {
        let pods = made::plain(count, jitter);
        let throughput = u64::try_from(count).unwrap();
        let problem = made::problem(pods, vec![made::pool("default", made::types(400))]);
        let plan = karpenter_solver::solve(&problem);
        let price: f64 = plan.new_nodes.iter().map(|n| n.cheapest.price).sum();
        let asked = problem.pods.iter().fold((0, 0), |(cpu, memory), p| {
            (
                cpu + p.requests.get("cpu").millis(),
                memory + p.requests.get("memory").units() / MIB,
            )
        });
        #[allow(clippy::cast_precision_loss)]
        let floor = CORE_PRICE * (asked.0 as f64 / 1000.0).max(asked.1 as f64 / 2048.0);
        println!(
            "{count} pods{}: {price:.2} $/h on {} nodes, floor {floor:.2}, unschedulable {}",
            if jitter { " of as many shapes" } else { "" },
            plan.new_nodes.len(),
            plan.unschedulable.len()
        );
        let name = if jitter { "all different" } else { "30 shapes" };
        group.throughput(Throughput::Elements(throughput));
        group.bench_with_input(BenchmarkId::new(name, count), &problem, |b, problem| {
            b.iter_batched(
                || problem,
                |p| black_box(karpenter_solver::solve(p)),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, plain);
criterion_main!(benches);
