//! One pass of the disruption loop over 5 000 nodes and 100 000 pods, of which nothing comes: every method looks at all it
//! may look at. Prints what it measures and fails past the bound: 10 s on two cores.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types
)] // A bench measures in the machine's own time, prints, and may fail loudly.

#[path = "../src/disruption/kit.rs"]
mod kit;

use std::sync::Arc;
use std::time::{Duration, Instant};

use karpenter_controllers::explain::Cluster;
use karpenter_model::LabelRegistry;
use serde_json::json;

use kit::{KIND, Kit, now, sold};

const PODS_PER_NODE: usize = 20;
const PASS_MAX: Duration = Duration::from_secs(10);
const ZONES: [&str; 3] = ["a", "b", "c"];
/// Cores of the types there are; a node of the bench has sixteen.
const CORES: [u32; 6] = [2, 4, 8, 16, 32, 64];

fn main() {
    for nodes in [1_250, 2_500, 5_000] {
        let began = Instant::now();
        let cluster = cluster(nodes);
        let taken = began.elapsed();
        let began = Instant::now();
        let found = cluster.pass();
        let pass = began.elapsed();
        println!(
            "{nodes} nodes, {} pods: filled and read in {taken:.1?}, a pass takes {pass:.2?} and finds {found:?}",
            nodes * PODS_PER_NODE
        );
        assert!(
            pass < PASS_MAX,
            "a pass takes {pass:?}, expected under {PASS_MAX:?}"
        );
    }
}

/// Nodes of sixteen cores that are full to the last pod: no two fit on one, and none on a smaller one.
fn cluster(nodes: usize) -> Cluster {
    let types = CORES.into_iter().map(|cores| {
        let price = 0.05 * f64::from(cores);
        sold(
            &format!("m{cores}"),
            cores,
            &ZONES.map(|zone| (zone, "on-demand", price)),
        )
    });
    let kit = Kit::new(types.collect());
    for n in 0..nodes {
        let name = format!("node-{n:05}");
        let zone =
            json!({"metadata": {"labels": {"topology.kubernetes.io/zone": ZONES.get(n % 3)}}});
        kit.machine(&name, "m16", "on-demand", &zone, &zone);
        for p in 0..PODS_PER_NODE {
            // Ten shapes, as if of ten Deployments; together they fill a node to 15.5 of its cores.
            let cpu = format!("{}m", 550 + 50 * (p % 10));
            let more = json!({"metadata": {"labels": {"app": format!("web{}", p % 10)}},
                "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}}}]}});
            kit.pod(&format!("pod-{n}-{p}"), &name, &cpu, &more);
        }
    }
    let labels = Arc::new(LabelRegistry::default());
    let sold = kit.sold();
    Cluster::new(kit.state, labels, &KIND, &kit.settings, &sold, now())
}
