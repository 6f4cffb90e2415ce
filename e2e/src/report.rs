//! What a run leaves: one JSON document, the same bytes for the same seed.

use std::collections::BTreeMap;

use karpenter_api::labels;
use karpenter_fake_kube::server::gr;
use serde::Serialize;

use crate::json::{condition_field, is_daemon, is_ours, is_running, label, name, text};
use crate::observe::Entry;
use crate::world::World;

/// Age from which a machine without a NodeClaim counts as lost: a launch writes its claim's status long before, and
/// garbage collection takes what is left within this time.
const OWNERLESS_SECONDS: i64 = 300;

/// The result of a scenario.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Name.
    pub scenario: String,
    /// Seed.
    pub seed: u64,
    /// Seconds that passed in the world.
    pub virtual_seconds: f64,
    /// Money spent.
    pub cost: Cost,
    /// Milestones.
    pub timeline: Vec<Entry>,
    /// The end state.
    pub r#final: Final,
    /// What was expected and seen.
    pub expectations: Vec<Expectation>,
    /// Rules that were broken, whatever the scenario expected.
    pub violations: Vec<String>,
}

/// US dollars.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// In all.
    pub total_usd: f64,
    /// By NodePool.
    pub by_node_pool: BTreeMap<String, f64>,
}

/// The end state.
#[derive(Clone, Debug, Serialize)]
pub struct Final {
    /// Nodes in name order.
    pub nodes: Vec<FinalNode>,
    /// Pods.
    pub pods: FinalPods,
}

/// A node at the end.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FinalNode {
    /// Name.
    pub name: String,
    /// NodePool.
    pub node_pool: String,
    /// Instance type.
    pub instance_type: String,
    /// Zone.
    pub zone: String,
    /// Capacity type.
    pub capacity_type: String,
    /// US dollars per hour.
    pub price_per_hour: Option<f64>,
    /// Pods on it, DaemonSet pods included.
    pub pods: Vec<String>,
}

/// Pods at the end, DaemonSet pods left out.
#[derive(Clone, Debug, Serialize)]
pub struct FinalPods {
    /// Running.
    pub running: usize,
    /// Without a node.
    pub pending: Vec<PendingPod>,
}

/// A pod without a node.
#[derive(Clone, Debug, Serialize)]
pub struct PendingPod {
    /// Namespace and name.
    pub pod: String,
    /// What Karpenter said about it last, else the scheduler.
    pub reason: String,
}

/// An expectation and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Expectation {
    /// Seconds since the start.
    pub at: f64,
    /// What was expected.
    pub expect: String,
    /// Whether it held.
    pub ok: bool,
    /// What was there.
    pub saw: String,
}

/// To the ten-thousandth of a dollar.
pub(crate) fn cents(dollars: f64) -> f64 {
    // Adding zero turns a negative zero (an empty sum) into a plain one.
    (dollars * 10_000.0).round() / 10_000.0 + 0.0
}

/// Reads the end state and the money.
#[must_use]
pub fn end_state(world: &World) -> (Cost, Final) {
    let observed = world.observed.lock();
    let spent = observed.ledger().spent(world.elapsed());
    let cost = Cost {
        total_usd: cents(spent.values().sum()),
        by_node_pool: spent
            .into_iter()
            .map(|(pool, usd)| (pool, cents(usd)))
            .collect(),
    };
    let pods = world.api.list(gr("", "pods"), None);
    let nodes = world.api.list(gr("", "nodes"), None);
    let claims = world.api.list(gr("karpenter.sh", "nodeclaims"), None);
    let final_nodes = nodes
        .iter()
        .map(|n| FinalNode {
            name: name(n).to_owned(),
            node_pool: label(n, labels::NODEPOOL).to_owned(),
            instance_type: label(n, labels::INSTANCE_TYPE).to_owned(),
            zone: label(n, labels::ZONE).to_owned(),
            capacity_type: label(n, labels::CAPACITY_TYPE).to_owned(),
            price_per_hour: claims
                .iter()
                .find(|c| text(c, "/status/nodeName") == name(n))
                .and_then(|c| observed.ledger().price_of(name(c)))
                .map(cents),
            pods: pods
                .iter()
                .filter(|p| text(p, "/spec/nodeName") == name(n))
                .map(|p| key(p))
                .collect(),
        })
        .collect();
    let pending = pods
        .iter()
        .filter(|p| {
            !is_daemon(p)
                && text(p, "/spec/nodeName").is_empty()
                && text(p, "/status/phase") == "Pending"
        })
        .map(|p| PendingPod {
            pod: key(p),
            reason: why_pending(world, p),
        })
        .collect();
    let running = pods
        .iter()
        .filter(|p| !is_daemon(p) && is_running(p))
        .count();
    (
        cost,
        Final {
            nodes: final_nodes,
            pods: FinalPods { running, pending },
        },
    )
}

/// What was said last about a pod that waits.
pub(crate) fn why_pending(world: &World, pod: &serde_json::Value) -> String {
    let events = world.api.list(gr("", "events"), None);
    let said = events
        .iter()
        .filter(|e| text(e, "/involvedObject/uid") == text(pod, "/metadata/uid"))
        .filter(|e| {
            text(e, "/reason") == "FailedScheduling" && text(e, "/source/component") == "karpenter"
        })
        .max_by_key(|e| text(e, "/lastTimestamp").to_owned());
    said.map_or_else(
        || condition_field(pod, "PodScheduled", "message").to_owned(),
        |e| text(e, "/message").to_owned(),
    )
}

fn key(pod: &serde_json::Value) -> String {
    format!("{}/{}", text(pod, "/metadata/namespace"), name(pod))
}

/// Rules that hold whatever a scenario expects, judged at its end.
#[must_use]
pub fn violations(world: &World) -> Vec<String> {
    let mut out = Vec::new();
    let claims = world.api.list(gr("karpenter.sh", "nodeclaims"), None);
    let mut owners: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for claim in &claims {
        let id = text(claim, "/status/providerID");
        if !id.is_empty() {
            owners
                .entry(id.to_owned())
                .or_default()
                .push(name(claim).to_owned());
        }
    }
    for (id, names) in &owners {
        if names.len() > 1 {
            out.push(format!(
                "machine {id} has several NodeClaims: {}",
                names.join(", ")
            ));
        }
    }
    for node in world.api.list(gr("", "nodes"), None) {
        let id = text(&node, "/spec/providerID");
        if is_ours(&node) && !owners.contains_key(id) {
            out.push(format!("node {} ({id}) has no NodeClaim", name(&node)));
        }
    }
    let now = world.clock.wall();
    for machine in world.machines() {
        let id = &machine.provider_id;
        let old = machine
            .launched
            .is_none_or(|at| now.duration_since(at).as_secs() > OWNERLESS_SECONDS);
        if old && !owners.contains_key(id) {
            out.push(format!("machine {id} is paid for and has no NodeClaim"));
        }
    }
    for pool in world.api.list(gr("karpenter.sh", "nodepools"), None) {
        let limits = pool
            .pointer("/spec/limits")
            .and_then(serde_json::Value::as_object);
        let amount = |v: &serde_json::Value| match v {
            serde_json::Value::String(s) => s.parse::<karpenter_api::Quantity>().ok(),
            serde_json::Value::Number(n) => n.to_string().parse::<karpenter_api::Quantity>().ok(),
            _ => None,
        };
        for (resource, limit) in limits.into_iter().flatten() {
            let used = pool
                .pointer("/status/resources")
                .and_then(|r| r.get(resource))
                .and_then(amount);
            if let (Some(used), Some(limit)) = (used, amount(limit))
                && used > limit
            {
                out.push(format!(
                    "NodePool {} uses {used} of {resource}, its limit is {limit}",
                    name(&pool)
                ));
            }
        }
    }
    out
}

/// The report as lines: what the golden files hold and a person reads.
#[must_use]
pub fn text_of(report: &Report) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "scenario {} seed {}", report.scenario, report.seed);
    for entry in &report.timeline {
        let object = if entry.object.is_empty() {
            String::new()
        } else {
            format!(" {}", entry.object)
        };
        let _ = writeln!(
            out,
            "{:>12.3}s {}{object}: {}",
            entry.at, entry.kind, entry.message
        );
    }
    for e in &report.expectations {
        let _ = writeln!(
            out,
            "{:>12.3}s {} {}, saw {}",
            e.at,
            if e.ok { "ok  " } else { "FAIL" },
            e.expect,
            e.saw
        );
    }
    for node in &report.r#final.nodes {
        let price = node
            .price_per_hour
            .map_or(String::new(), |p| format!(" ${p}/h"));
        let _ = writeln!(
            out,
            "node {} pool {} {} {} {}{price}: {} pods",
            node.name,
            node.node_pool,
            node.instance_type,
            node.zone,
            node.capacity_type,
            node.pods.len()
        );
    }
    let _ = writeln!(
        out,
        "pods: {} running, {} pending",
        report.r#final.pods.running,
        report.r#final.pods.pending.len()
    );
    for pod in &report.r#final.pods.pending {
        let _ = writeln!(out, "pending {}: {}", pod.pod, pod.reason);
    }
    for violation in &report.violations {
        let _ = writeln!(out, "VIOLATION {violation}");
    }
    let _ = writeln!(
        out,
        "cost ${} in {}s",
        report.cost.total_usd, report.virtual_seconds
    );
    out
}

/// Whether every expectation held and no rule was broken.
#[must_use]
pub fn passed(report: &Report) -> bool {
    report.violations.is_empty() && report.expectations.iter().all(|e| e.ok)
}
