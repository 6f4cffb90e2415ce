//! `node.health` (gate NodeRepair): replaces machines whose Nodes have been in a bad condition for longer than the
//! provider puts up with (`lifecycle-and-disruption.md` §5). Nothing holds it, neither budgets nor protections, except
//! that too many bad Nodes at once speak of another trouble, which repair would make worse.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use karpenter_api::{NodeClaim, labels};
use karpenter_cloud::RepairPolicy;
use karpenter_runtime::events::{Event, EventType};
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::runner::{self, ReconcileError, RunnerOptions};
use karpenter_runtime::{Action, Key, Queue, Reconciler};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::Context;
use crate::hearing::{Hearer, listen};
use crate::lifecycle::objects::{
    annotation, is_deleting, is_managed_node, label, label_or_empty, later, name, node_reference,
    provider_id, until,
};
use crate::lifecycle::write;

/// Bad Nodes that are put up with before nothing is repaired any more, in percent, rounded up.
const MOST_UNHEALTHY_PERCENT: usize = 20;
/// When a Node that was not repaired because of the others is looked at again.
const BLOCKED_RETRY: Duration = Duration::from_secs(5 * 60);
/// Window of event `NodeRepairBlocked`.
const BLOCKED_WINDOW: Duration = Duration::from_secs(15 * 60);

/// A condition that is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bad {
    condition: &'static str,
    /// When the machine is to be replaced.
    due: Timestamp,
}

/// The bad condition that is due first.
fn bad_condition(node: &Node, policies: &[RepairPolicy]) -> Option<Bad> {
    let matching = policies.iter().filter_map(|policy| {
        let found = conditions(node).find(|c| is(policy, c))?;
        let since = found.last_transition_time.as_ref()?.0;
        Some(Bad {
            condition: policy.condition,
            due: later(since, policy.toleration),
        })
    });
    matching.min_by_key(|bad| bad.due)
}

fn conditions(node: &Node) -> impl Iterator<Item = &NodeCondition> {
    let status = node.status.as_ref();
    status
        .and_then(|s| s.conditions.as_ref())
        .into_iter()
        .flatten()
}

fn is(policy: &RepairPolicy, condition: &NodeCondition) -> bool {
    condition.type_ == policy.condition && condition.status == policy.status
}

/// Whether a Node is in any bad condition, for however short a time.
fn is_bad(node: &Node, policies: &[RepairPolicy]) -> bool {
    policies.iter().any(|p| conditions(node).any(|c| is(p, c)))
}

/// Whether so many of `all` may be bad that single ones are worth repairing.
fn is_sound(bad: usize, all: usize) -> bool {
    bad <= all.saturating_mul(MOST_UNHEALTHY_PERCENT).div_ceil(100)
}

/// Starts it, if the gate is open and the provider has policies.
pub(crate) fn start(ctx: &Context) -> Vec<JoinHandle<()>> {
    let policies: Arc<[RepairPolicy]> = ctx.provider.cloud.repair_policies().into();
    if !ctx.settings.feature_gates.node_repair || policies.is_empty() {
        return Vec::new();
    }
    let versions = ctx.state.subscribe_nodes();
    let overdue = Overdue::default();
    let repair = Repair {
        ctx: ctx.clone(),
        policies: policies.clone(),
        overdue: overdue.clone(),
    };
    let options = RunnerOptions {
        concurrency: 10,
        backoff_base: Duration::from_millis(100),
        backoff_max: Duration::from_secs(60),
    };
    let (clock, stop) = (ctx.clock.clone(), ctx.stop.clone());
    let (queue, task) = runner::spawn(Arc::new(repair), options, clock, &ctx.rng, stop);
    let watcher = Watcher {
        ctx: ctx.clone(),
        policies,
        overdue,
        queue,
        seen: BTreeMap::new(),
    };
    vec![task, tokio::spawn(listen(ctx.clone(), versions, watcher))]
}

/// Conditions that were due when they were seen, by Node, with its UID. A kubelet that reports itself healthy again a
/// moment later must not hide that it was not for all the time before.
type Overdue = Arc<Mutex<BTreeMap<Arc<str>, (String, Bad)>>>;

/// Looks at every version of every Node.
struct Watcher {
    ctx: Context,
    policies: Arc<[RepairPolicy]>,
    overdue: Overdue,
    queue: Queue,
    /// What was last seen of each bad Node: heartbeats say nothing new.
    seen: BTreeMap<Arc<str>, Bad>,
}

impl Hearer<Arc<Node>> for Watcher {
    const HEARS_ALL: bool = true;

    fn everything(&mut self) {
        for node in self.ctx.state.nodes() {
            self.look(&node);
        }
    }
    fn hear(&mut self, version: Arc<Node>) {
        self.look(&version);
    }
}

impl Watcher {
    fn look(&mut self, node: &Node) {
        if !is_managed_node(node, &self.ctx.provider.node_class) {
            return;
        }
        let node_name: Arc<str> = name(&node.metadata).into();
        let Some(bad) = bad_condition(node, &self.policies) else {
            self.seen.remove(&node_name);
            return;
        };
        if self.seen.insert(node_name.clone(), bad) == Some(bad) {
            return;
        }
        // Nodes that went while they were bad, of which no version tells.
        let state = &self.ctx.state;
        self.seen.retain(|n, _| state.node(n).is_some());
        if bad.due <= self.ctx.clock.wall() {
            let uid = node.metadata.uid.clone().unwrap_or_default();
            self.overdue.lock().insert(node_name.clone(), (uid, bad));
        }
        self.queue.add(Key::cluster(&node_name));
    }
}

/// The reconciler, keyed by Node.
struct Repair {
    ctx: Context,
    policies: Arc<[RepairPolicy]>,
    overdue: Overdue,
}

#[async_trait]
impl Reconciler for Repair {
    fn name(&self) -> &'static str {
        "node.health"
    }
    fn group_kind(&self) -> (&'static str, &'static str) {
        ("", "Node")
    }
    fn metrics(&self) -> Option<&Metrics> {
        Some(&self.ctx.metrics)
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let action = self.judge(&key.name).await?;
        // Only a verdict ends it: an error is tried again with what was seen.
        self.overdue.lock().remove(&key.name);
        Ok(action)
    }
}

impl Repair {
    async fn judge(&self, node_name: &str) -> Result<Action, ReconcileError> {
        let ctx = &self.ctx;
        let Some(node) = ctx.state.node(node_name) else {
            return Ok(Action::AwaitChange);
        };
        let mut claims = ctx.state.claims_by_provider_id(provider_id(&node));
        let Some(claim) = claims.pop().filter(|_| claims.is_empty()) else {
            return Ok(Action::AwaitChange);
        };
        let now = ctx.clock.wall();
        let held = self.overdue.lock().get(node_name).cloned();
        let held = held.filter(|(uid, _)| node.metadata.uid.as_ref() == Some(uid));
        let current = bad_condition(&node, &self.policies);
        let Some(bad) = held.map(|(_, bad)| bad).or(current) else {
            return Ok(Action::AwaitChange);
        };
        if now < bad.due {
            return Ok(Action::RequeueAfter(until(bad.due, now)));
        }
        if let Some(why) = self.trouble(&claim) {
            ctx.events.publish(blocked(&node, why));
            return Ok(Action::RequeueAfter(BLOCKED_RETRY));
        }
        self.replace(&claim, bad, now).await?;
        Ok(Action::AwaitChange)
    }

    /// Why nothing is repaired: the Nodes of the claim's pool, or of the cluster if it has none, are bad together.
    fn trouble(&self, claim: &NodeClaim) -> Option<&'static str> {
        let pool = label(&claim.metadata, labels::NODEPOOL);
        let overdue = self.overdue.lock().clone();
        let (mut bad, mut all) = (0, 0);
        for node in self.ctx.state.nodes() {
            if pool.is_some() && label(&node.metadata, labels::NODEPOOL) != pool {
                continue;
            }
            all += 1;
            let is_held = overdue.contains_key(name(&node.metadata));
            bad += usize::from(is_held || is_bad(&node, &self.policies));
        }
        if is_sound(bad, all) {
            None
        } else if pool.is_some() {
            Some("more than 20% nodes are unhealthy in the nodepool")
        } else {
            Some("more than 20% nodes are unhealthy in the cluster")
        }
    }

    /// Ends the machine without delay: its pods have until now.
    async fn replace(
        &self,
        claim: &NodeClaim,
        bad: Bad,
        now: Timestamp,
    ) -> Result<(), ReconcileError> {
        let ctx = &self.ctx;
        let Some(claim) = self.forbid_delay(claim, now).await? else {
            return Ok(());
        };
        if is_deleting(&claim.metadata) || !write::disrupt_claim(ctx, &claim, "unhealthy").await? {
            return Ok(());
        }
        let meta = &claim.metadata;
        tracing::info!(
            NodeClaim = name(meta),
            condition = bad.condition,
            "deleted nodeclaim of an unhealthy node"
        );
        ctx.metrics.inc(
            "karpenter_nodeclaims_unhealthy_disrupted_total",
            &[
                ("condition", &snake_case(bad.condition)),
                ("nodepool", label_or_empty(meta, labels::NODEPOOL)),
                ("capacity_type", label_or_empty(meta, labels::CAPACITY_TYPE)),
                ("image_id", &claim.status.image_id),
            ],
        );
        Ok(())
    }

    /// Sets the end of the drain to now, unless it has come already. None if the claim is gone.
    async fn forbid_delay(
        &self,
        claim: &NodeClaim,
        now: Timestamp,
    ) -> Result<Option<NodeClaim>, ReconcileError> {
        let set = annotation(&claim.metadata, labels::TERMINATION_TIMESTAMP);
        let passed = set.and_then(|text| text.parse::<Timestamp>().ok());
        if passed.is_some_and(|at| at <= now) {
            return Ok(Some(claim.clone()));
        }
        let mut wanted = claim.clone();
        let all = wanted.metadata.annotations.get_or_insert_default();
        let text = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        all.insert(labels::TERMINATION_TIMESTAMP.to_owned(), text);
        let written = write::claim(&self.ctx, claim, &wanted).await?;
        Ok(written.map(Cow::into_owned))
    }
}

fn blocked(node: &Node, why: &str) -> Event {
    Event {
        about: node_reference(node),
        kind: EventType::Warning,
        reason: "NodeRepairBlocked",
        message: why.to_owned(),
        dedupe: vec![node.metadata.uid.clone().unwrap_or_default()],
        window: BLOCKED_WINDOW,
    }
}

/// `AcceleratedHardwareReady` as metrics spell it.
fn snake_case(condition: &str) -> String {
    let mut out = String::with_capacity(condition.len() + 4);
    for (i, c) in condition.chars().enumerate() {
        if c.is_uppercase() && i > 0 {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn policies() -> Vec<RepairPolicy> {
        let policy = |condition, status, minutes: u64| RepairPolicy {
            condition,
            status,
            toleration: Duration::from_secs(minutes * 60),
        };
        vec![
            policy("Ready", "False", 30),
            policy("Ready", "Unknown", 30),
            policy("AcceleratedHardwareReady", "False", 10),
        ]
    }

    fn node(conditions: &Value) -> Node {
        serde_json::from_value(json!({"status": {"conditions": conditions}})).expect("a node")
    }

    #[rstest]
    #[case::healthy(json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]), None)]
    #[case::other_kind(json!([{"type": "DiskPressure", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}]), None)]
    #[case::no_conditions(json!([]), None)]
    #[case::not_ready(
        json!([{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}]),
        Some(("Ready", "2026-01-01T00:30:00Z")))]
    #[case::unknown(
        json!([{"type": "Ready", "status": "Unknown", "lastTransitionTime": "2026-01-01T00:00:00Z"}]),
        Some(("Ready", "2026-01-01T00:30:00Z")))]
    #[case::the_one_due_first(
        json!([{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"},
               {"type": "AcceleratedHardwareReady", "status": "False", "lastTransitionTime": "2026-01-01T00:15:00Z"}]),
        Some(("AcceleratedHardwareReady", "2026-01-01T00:25:00Z")))]
    fn a_condition_is_bad_as_policies_say(
        #[case] conditions: Value,
        #[case] expected: Option<(&str, &str)>,
    ) {
        let node = node(&conditions);
        let expected = expected.map(|(condition, due)| (condition, due.parse().expect("a time")));
        let found = bad_condition(&node, &policies());
        assert_eq!(found.map(|b| (b.condition, b.due)), expected);
        assert_eq!(is_bad(&node, &policies()), expected.is_some());
    }

    #[rstest]
    #[case::alone(1, 1, true)]
    #[case::one_of_three(1, 3, true)]
    #[case::two_of_three(2, 3, false)]
    #[case::one_of_five(1, 5, true)]
    #[case::two_of_five(2, 5, false)]
    #[case::two_of_six(2, 6, true)]
    #[case::twenty_of_a_hundred(20, 100, true)]
    #[case::one_more(21, 100, false)]
    #[case::none(0, 0, true)]
    fn a_fifth_may_be_bad_rounded_up(#[case] bad: usize, #[case] all: usize, #[case] sound: bool) {
        assert_eq!(is_sound(bad, all), sound);
    }

    #[rstest]
    #[case("Ready", "ready")]
    #[case("AcceleratedHardwareReady", "accelerated_hardware_ready")]
    fn metrics_spell_conditions_in_snake_case(#[case] condition: &str, #[case] expected: &str) {
        assert_eq!(snake_case(condition), expected);
    }
}
