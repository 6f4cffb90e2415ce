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

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use karpenter_api::Quantity;
use karpenter_api::labels as l;
use karpenter_model::instance::Overhead;
use karpenter_model::{
    InstanceType, LabelRegistry, Offering, Pod, PoolView, Problem, Requirement, Requirements,
    ResourceList, SolveOptions,
};

const MIB: i64 = 1 << 20;
/// Dollars per hour of a core with its two GiB, as the benchmark prices it.
const CORE_PRICE: f64 = 0.314_748_364_8;

fn list(cpu_millis: i64, memory_mib: i64, pods: i64) -> ResourceList {
    ResourceList::from_iter([
        ("cpu", Quantity::from_millis(cpu_millis)),
        ("memory", Quantity::from_units(memory_mib * MIB)),
        ("pods", Quantity::from_units(pods)),
    ])
}

fn types(count: i64) -> Vec<Arc<InstanceType>> {
    (1..=count)
        .map(|n| {
            let name = format!("fake-it-{}", n - 1);
            let requirements: Requirements = [
                Requirement::is_in(l::INSTANCE_TYPE, [name.as_str()]),
                Requirement::is_in(l::ARCH, ["amd64"]),
                Requirement::is_in(l::OS, ["darwin", "linux", "windows"]),
                Requirement::is_in(l::ZONE, ["test-zone-1", "test-zone-2", "test-zone-3"]),
                Requirement::is_in(l::CAPACITY_TYPE, ["on-demand", "spot"]),
                Requirement::is_in("integer", [n.to_string()]),
            ]
            .into_iter()
            .collect();
            #[allow(clippy::cast_precision_loss)]
            let price = CORE_PRICE * n as f64;
            let offerings = [
                ("test-zone-1", "spot"),
                ("test-zone-2", "spot"),
                ("test-zone-1", "on-demand"),
                ("test-zone-2", "on-demand"),
                ("test-zone-3", "on-demand"),
            ]
            .map(|(zone, capacity_type)| Offering::new(zone, capacity_type, price));
            let overhead = Overhead {
                kube_reserved: ResourceList::from_iter([
                    ("cpu", Quantity::from_millis(100)),
                    ("memory", Quantity::from_units(10 * MIB)),
                ]),
                ..Overhead::default()
            };
            Arc::new(InstanceType::new(
                name,
                requirements,
                offerings.to_vec(),
                list(n * 1000, n * 2048, n * 10),
                overhead,
            ))
        })
        .collect()
}

/// The benchmark's draws, or with `jitter` amounts that hardly any two pods share.
fn pods(count: u64, jitter: bool) -> Vec<Arc<Pod>> {
    let mut state = 42_u64;
    let mut draw = |n: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        i64::try_from((state >> 33) % n).unwrap()
    };
    (0..count)
        .map(|i| {
            let cpu = [100, 250, 500, 1000, 1500][usize::try_from(draw(5)).unwrap()];
            let memory = [100, 256, 512, 1024, 2048, 4096][usize::try_from(draw(6)).unwrap()];
            let (a, b) = if jitter { (draw(97), draw(89)) } else { (0, 0) };
            let mut pod = Pod::default();
            pod.key.namespace = "default".into();
            pod.key.name = format!("pod-{i:05}").into();
            pod.uid = format!("{:016x}", i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into();
            pod.requests = list(cpu + a, memory + b, 1);
            Arc::new(pod)
        })
        .collect()
}

fn problem(pods: Vec<Arc<Pod>>) -> Problem {
    let pool = PoolView {
        name: "default".into(),
        requirements: [Requirement::is_in(l::NODEPOOL, ["default"])]
            .into_iter()
            .collect(),
        instance_types: types(400),
        limits: Some(list(10_000_000_000, 10_000_000 * 1024, i64::from(i32::MAX))),
        ..PoolView::default()
    };
    Problem {
        pods,
        nodes: Vec::new(),
        pools: vec![Arc::new(pool)],
        daemons: Vec::new(),
        volume_limits: Arc::default(),
        namespaces: Arc::default(),
        labels: Arc::new(LabelRegistry::default()),
        options: SolveOptions::default(),
    }
}

fn plain(c: &mut Criterion) {
    let mut group = c.benchmark_group("plain pods on 400 types");
    group.sample_size(10);
    for (count, jitter) in [
        (1_000, false),
        (10_000, false),
        (1_000, true),
        (10_000, true),
    ] {
        let problem = problem(pods(count, jitter));
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
        group.throughput(Throughput::Elements(count));
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
