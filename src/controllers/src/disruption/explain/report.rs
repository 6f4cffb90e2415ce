//! What explanations say.

use serde::Serialize;

/// Why a node stays, and what will end it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// Node, empty if none has joined.
    pub node: String,
    /// NodeClaim.
    pub node_claim: String,
    /// NodePool.
    pub node_pool: String,
    /// What it was bought as: type, capacity type, zone.
    pub machine: [String; 3],
    /// Dollars; none if the type is not sold to the pool.
    pub price_per_hour: Option<f64>,
    /// Pods on it, and those of them that would come back elsewhere.
    pub pods: usize,
    /// See `pods`.
    pub pods_to_move: usize,
    /// What will end it, or is ending it, whatever the methods say.
    pub ends: Vec<String>,
    /// What each way of giving it back comes to.
    pub alternatives: Vec<Alternative>,
}

/// A way of giving a node back.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Alternative {
    /// `Empty`, `Drifted` or `Underutilized`.
    pub reason: &'static str,
    /// Whether it would be done now.
    pub goes: bool,
    /// What would be done, or the first thing that stops it.
    pub why: String,
    /// Dollars per hour of what would go and of what would come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_before: Option<f64>,
    /// See `price_before`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_after: Option<f64>,
    /// Machines that would be bought.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replacements: Vec<String>,
}

/// Where a pod is or goes, and what it holds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodReport {
    /// Namespace and name.
    pub pod: String,
    /// Its node; empty if it has none.
    pub node: String,
    /// One sentence on what becomes of it.
    pub outcome: String,
    /// What it keeps its node from.
    pub holds: Vec<String>,
    /// Dollars per hour of a machine that would be bought.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_per_hour: Option<f64>,
    /// Per NodePool what each constraint left over, nearest miss first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub node_pools: Vec<Funnel>,
}

/// What the constraints left over of a pool's instance types.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Funnel {
    /// NodePool.
    pub node_pool: String,
    /// `constraint left N of M instance types`, in the order applied.
    pub steps: Vec<String>,
}

/// What a pool's budgets let go.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolReport {
    /// NodePool.
    pub node_pool: String,
    /// `consolidationPolicy`.
    pub consolidation_policy: String,
    /// `consolidateAfter`.
    pub consolidate_after: String,
    /// Nodes that budgets count.
    pub nodes: usize,
    /// Of those, not available now.
    pub disrupting: usize,
    /// Dollars of all its nodes.
    pub price_per_hour: f64,
    /// What each reason may do now.
    pub now: Vec<Allowed>,
    /// The same from now on, window by window.
    pub windows: Vec<WindowReport>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// What one reason may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Allowed {
    /// Reason.
    pub reason: &'static str,
    /// Nodes at once; none = as many as there are.
    pub allowed: Option<usize>,
    /// What is left of it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<usize>,
}

/// A time in which budgets allow the same.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WindowReport {
    /// From then.
    pub from: String,
    /// Until then; none = beyond what is told.
    pub until: Option<String>,
    /// By reason.
    pub allowed: Vec<Allowed>,
}
