//! One look at a world: its nodes, pods, money and how many milestones there were. Read from the API and the
//! observer, as a user would see it.

use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_api::labels;
use karpenter_e2e::json::{condition, is_daemon, label, name, text};
use karpenter_e2e::observe::{Entry, PodCounts};
use karpenter_e2e::world::World;
use karpenter_fake_kube::server::gr;
use serde_json::Value;

/// What is seen at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Frame {
    /// Seconds since the start.
    pub(crate) at: f64,
    /// Nodes and the claims that are not nodes yet, in order of creation. Shared with the frame before when equal.
    pub(crate) nodes: Arc<Vec<NodeRow>>,
    /// Pods, DaemonSet pods left out.
    pub(crate) pods: PodCounts,
    /// US dollars per hour of all that runs.
    pub(crate) per_hour: f64,
    /// US dollars spent so far.
    pub(crate) spent: f64,
    /// How many milestones there were.
    pub(crate) entries: usize,
}

/// A line of the node table.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct NodeRow {
    /// The node's name, the claim's while there is no node.
    pub(crate) name: String,
    /// Instance type.
    pub(crate) instance_type: String,
    /// Zone.
    pub(crate) zone: String,
    /// Capacity type.
    pub(crate) capacity_type: String,
    /// US dollars per hour.
    pub(crate) price: Option<f64>,
    /// Allocatable CPU as the node words it.
    pub(crate) cpu: String,
    /// Pods on it, DaemonSet pods left out.
    pub(crate) pods: usize,
    /// How far it is.
    pub(crate) state: NodeState,
}

/// How far a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum NodeState {
    /// Decided, not bought yet.
    #[default]
    Launching,
    /// Bought, not joined yet.
    Booting,
    /// Joined, not initialized or not ready yet.
    Joining,
    /// Takes pods.
    Ready,
    /// Initialized once, and does not answer now.
    NotReady,
    /// On its way out.
    Leaving,
}

impl NodeState {
    /// In a word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Launching => "launching",
            Self::Booting => "booting",
            Self::Joining => "joining",
            Self::Ready => "ready",
            Self::NotReady => "not ready",
            Self::Leaving => "leaving",
        }
    }
}

/// A story as it was seen: frames in the order of time, and its milestones.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    /// Frames.
    pub(crate) frames: Vec<Frame>,
    /// Milestones; each frame says how many of them there were.
    pub(crate) entries: Vec<Entry>,
}

impl Recording {
    /// Looks at the world once more.
    pub(crate) fn record(&mut self, world: &World) {
        let mut frame = capture(world);
        if let Some(last) = self.frames.last()
            && last.nodes == frame.nodes
        {
            frame.nodes = Arc::clone(&last.nodes);
        }
        self.frames.push(frame);
    }

    /// The last frame at or before second `at`.
    pub(crate) fn at(&self, at: f64) -> Option<&Frame> {
        let after = self.frames.partition_point(|f| f.at <= at);
        self.frames.get(after.saturating_sub(1))
    }

    /// Second of the last frame.
    pub(crate) fn end(&self) -> f64 {
        self.frames.last().map_or(0.0, |f| f.at)
    }
}

/// Looks at a world.
pub(crate) fn capture(world: &World) -> Frame {
    let at = world.elapsed();
    let pods = world.api.list(gr("", "pods"), None);
    let mut on: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in pods.iter().filter(|p| !is_daemon(p)) {
        *on.entry(text(pod, "/spec/nodeName")).or_default() += 1;
    }
    let nodes = world.api.list(gr("", "nodes"), None);
    let claims = world.api.list(gr("karpenter.sh", "nodeclaims"), None);
    let observed = world.observed.lock();
    let mut rows: Vec<(&str, NodeRow)> = Vec::new();
    for claim in &claims {
        let node = nodes
            .iter()
            .find(|n| name(n) == text(claim, "/status/nodeName"))
            .map(|n| &**n);
        let mut row = row(claim, node, &on);
        row.price = observed.ledger().price_of(name(claim));
        rows.push((text(claim, "/metadata/creationTimestamp"), row));
    }
    for node in &nodes {
        if !claims
            .iter()
            .any(|c| text(c, "/status/nodeName") == name(node))
        {
            rows.push((
                text(node, "/metadata/creationTimestamp"),
                row(node, Some(node), &on),
            ));
        }
    }
    rows.sort_by(|(a, x), (b, y)| a.cmp(b).then_with(|| x.name.cmp(&y.name)));
    Frame {
        at,
        nodes: Arc::new(rows.into_iter().map(|(_, row)| row).collect()),
        pods: observed.pod_counts(),
        per_hour: observed.ledger().per_hour(),
        spent: observed.ledger().spent(at).values().sum(),
        entries: observed.entries().len(),
    }
}

/// The line of `owner`: a claim, or a node that has none.
fn row(owner: &Value, node: Option<&Value>, on: &BTreeMap<&str, usize>) -> NodeRow {
    let ready = node.is_some_and(|n| condition(n, "Ready") == "True");
    let leaving = |o: &Value| !text(o, "/metadata/deletionTimestamp").is_empty();
    let claim = text(owner, "/kind") == "NodeClaim";
    let state = if leaving(owner) || node.is_some_and(leaving) {
        NodeState::Leaving
    } else if !claim {
        if ready {
            NodeState::Ready
        } else {
            NodeState::NotReady
        }
    } else if condition(owner, "Launched") != "True" {
        NodeState::Launching
    } else if condition(owner, "Registered") != "True" {
        NodeState::Booting
    } else if condition(owner, "Initialized") != "True" {
        NodeState::Joining
    } else if ready {
        NodeState::Ready
    } else {
        NodeState::NotReady
    };
    NodeRow {
        name: name(node.unwrap_or(owner)).to_owned(),
        instance_type: label(owner, labels::INSTANCE_TYPE).to_owned(),
        zone: label(owner, labels::ZONE).to_owned(),
        capacity_type: label(owner, labels::CAPACITY_TYPE).to_owned(),
        price: None,
        cpu: text(owner, "/status/allocatable/cpu").to_owned(),
        pods: node
            .and_then(|n| on.get(name(n)).copied())
            .unwrap_or_default(),
        state,
    }
}
