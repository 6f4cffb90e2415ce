//! `node.termination`: from the deletion of a Node to its end (`lifecycle-and-disruption.md` §4).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use karpenter_api::{NodeClaim, duration, labels};
use karpenter_cloud::CloudError;
use karpenter_model::taints;
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::runner::ReconcileError;
use karpenter_runtime::{Action, Key, Reconciler};

use super::drain::drain;
use super::eviction::Evictions;
use super::{TerminationError, events, volumes};
use crate::Context;
use crate::lifecycle::objects::{
    self, annotation, condition, conditions, has_finalizer, is_deleting, is_managed_node, is_ready,
    is_true, label_or_empty, later, name, provider_id, transition, until,
};
use crate::lifecycle::status::{self, Status};
use crate::lifecycle::write;

/// Shortest drain: pods may still be bound in the moment the taint goes on.
const MIN_DRAIN: Duration = Duration::from_secs(5);
/// How often the cloud is asked whether an instance is gone: it does not tell.
pub(crate) const INSTANCE_POLL: Duration = Duration::from_secs(5);
/// How often a drain that stands still says so again: events are forgotten after an hour.
const DRAIN_REMINDER: Duration = Duration::from_secs(120);

/// The reconciler.
pub(crate) struct NodeTermination {
    pub(crate) ctx: Context,
    pub(crate) evictions: Evictions,
}

/// How a phase of a termination ended.
enum Phase {
    /// On to the next one.
    Done,
    /// Not yet; another look then, or when something changes.
    Wait(Option<Duration>),
}

#[async_trait]
impl Reconciler for NodeTermination {
    fn name(&self) -> &'static str {
        "node.termination"
    }
    fn group_kind(&self) -> (&'static str, &'static str) {
        ("", "Node")
    }
    fn metrics(&self) -> Option<&Metrics> {
        Some(&self.ctx.metrics)
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let state = &self.ctx.state;
        let Some(node) = state.node(&key.name) else {
            return Ok(Action::AwaitChange);
        };
        let ours = is_managed_node(&node, &self.ctx.provider.node_class);
        if !is_deleting(&node.metadata) || !has_finalizer(&node.metadata) || !ours {
            return Ok(Action::AwaitChange);
        }
        let claims = state.claims_by_provider_id(provider_id(&node));
        // None or several: the Node goes alone, whoever owns the instance sees to that.
        let claim = match claims.as_slice() {
            [claim] => Some(claim.clone()),
            _ => None,
        };
        if let Some(claim) = &claim
            && !is_deleting(&claim.metadata)
        {
            write::delete_claim(&self.ctx, claim).await?;
            // The deletion comes back as a change of the claim; its deadline may come with it.
            return Ok(Action::AwaitChange);
        }
        if let Some(claim) = &claim
            && !is_ready(&node)
            && self.instance_is_gone(claim).await?
        {
            return self.finish(&node, Some(claim)).await;
        }
        let Some(node) = self.mark(&node).await? else {
            return Ok(Action::AwaitChange);
        };
        let mut wanted = claim.as_deref().cloned();
        let phase = self.advance(&node, &mut wanted).await;
        if let (Some(before), Some(after)) = (&claim, &wanted) {
            let written = write::claim(&self.ctx, before, after).await?;
            let drained = |c: &NodeClaim| is_true(&c.status.conditions, conditions::DRAINED);
            // Told once it is written down, so that a repeated pass does not count again.
            if written.is_some_and(|c| drained(&c)) && !drained(before) {
                let pool = label_or_empty(&node.metadata, labels::NODEPOOL);
                let labels = [("nodepool", pool)];
                self.ctx
                    .metrics
                    .inc("karpenter_nodes_drained_total", &labels);
            }
        }
        match phase? {
            Phase::Done => self.finish(&node, claim.as_deref()).await,
            Phase::Wait(Some(wait)) => Ok(Action::RequeueAfter(wait)),
            Phase::Wait(None) => Ok(Action::AwaitChange),
        }
    }
}

impl NodeTermination {
    /// A Node that is not ready and whose instance is gone will never drain.
    async fn instance_is_gone(&self, claim: &NodeClaim) -> Result<bool, ReconcileError> {
        match self.ctx.provider.cloud.get(&claim.status.provider_id).await {
            Ok(_) => Ok(false),
            Err(CloudError::NotFound(_)) => Ok(true),
            Err(source) => Err(cloud_error(claim, source)),
        }
    }

    /// Keeps new pods and load balancers off the Node.
    async fn mark(&self, node: &Node) -> Result<Option<Node>, ReconcileError> {
        let wanted = marked(node);
        let had_taint = has_disrupted_taint(node);
        let written = write::node(&self.ctx, node, &wanted).await?;
        if written.is_some() && !had_taint {
            let taint = taints::disrupted_taint();
            tracing::info!(
                Node = name(&node.metadata),
                taint.Key = %taint.key,
                taint.Value = "",
                taint.Effect = %taint.effect,
                "tainted node"
            );
        }
        Ok(written)
    }

    async fn advance(
        &self,
        node: &Node,
        claim: &mut Option<NodeClaim>,
    ) -> Result<Phase, ReconcileError> {
        let now = self.ctx.clock.wall();
        let told = claim.as_ref().map(|claim| (claim, deadline(claim)));
        let deadline = match told {
            None => None,
            Some((_, Ok(deadline))) => deadline,
            Some((claim, Err(error))) => {
                tracing::error!(Node = name(&node.metadata), error = %error, "draining by the grace period instead");
                self.ctx
                    .events
                    .publish(events::bad_deadline(node, &error.to_string()));
                graceful_end(claim)
            }
        };
        if let Some(deadline) = deadline {
            let event = events::node_deadline(node, &deadline.to_string());
            self.ctx.events.publish(event);
        }
        match self.await_drain(node, claim.as_mut(), deadline, now) {
            Phase::Done => {}
            wait @ Phase::Wait(_) => return Ok(wait),
        }
        match self
            .await_volumes(node, claim.as_mut(), deadline, now)
            .await?
        {
            Phase::Done => {}
            wait @ Phase::Wait(_) => return Ok(wait),
        }
        match claim {
            Some(claim) => self.await_instance(claim, now).await,
            None => Ok(Phase::Done),
        }
    }

    fn await_drain(
        &self,
        node: &Node,
        claim: Option<&mut NodeClaim>,
        deadline: Option<Timestamp>,
        now: Timestamp,
    ) -> Phase {
        let pods = self.ctx.state.pods_on(name(&node.metadata));
        let next = drain(&pods, deadline, now);
        for pod in next.force.iter().chain(&next.evict) {
            self.evictions.add(pod, deadline);
        }
        let drained = claim
            .as_deref()
            .is_some_and(|c| is_true(&c.status.conditions, conditions::DRAINED));
        if let Some(claim) = claim
            && !drained
        {
            if condition(&claim.status.conditions, conditions::DRAINED).is_none() {
                status::set(
                    claim,
                    conditions::DRAINED,
                    Status::unknown("Draining", ""),
                    now,
                );
            }
            if next.waiting.is_empty() {
                let since =
                    transition(&claim.status.conditions, conditions::DRAINED).unwrap_or(now);
                let left = until(later(since, MIN_DRAIN), now);
                if !left.is_zero() {
                    return Phase::Wait(Some(left));
                }
                status::set(claim, conditions::DRAINED, Status::True, now);
            }
        }
        if next.waiting.is_empty() {
            return Phase::Done;
        }
        self.ctx
            .events
            .publish(events::failed_draining(node, next.waiting.len()));
        let reminder = later(now, DRAIN_REMINDER);
        let wake = next.wake.map_or(reminder, |at| at.min(reminder));
        Phase::Wait(Some(until(wake, now)))
    }

    async fn await_volumes(
        &self,
        node: &Node,
        claim: Option<&mut NodeClaim>,
        deadline: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Phase, ReconcileError> {
        let node_name = name(&node.metadata);
        let attachments = self.ctx.state.volume_attachments_on(node_name);
        let waited = if attachments.is_empty() {
            Default::default()
        } else {
            let pods = self.ctx.state.pods_on(node_name);
            let staying = volumes::of_staying_pods(&self.ctx.state, &pods, now);
            volumes::waited_for(&attachments, &staying)
        };
        let set = |claim: Option<&mut NodeClaim>, status: Status| {
            if let Some(claim) = claim {
                status::set(claim, conditions::VOLUMES_DETACHED, status, now);
            }
        };
        if waited.is_empty() {
            set(claim, Status::True);
            return Ok(Phase::Done);
        }
        match deadline {
            Some(deadline) if now >= deadline => {
                set(claim, Status::failed("TerminationGracePeriodElapsed", ""));
                Ok(Phase::Done)
            }
            _ => {
                self.ctx
                    .events
                    .publish(events::awaiting_volumes(node, waited.iter()));
                set(claim, Status::unknown("AwaitingVolumeDetachment", ""));
                let reminder = later(now, DRAIN_REMINDER);
                let wake = deadline.map_or(reminder, |at| at.min(reminder));
                Ok(Phase::Wait(Some(until(wake, now))))
            }
        }
    }

    async fn await_instance(
        &self,
        claim: &mut NodeClaim,
        now: Timestamp,
    ) -> Result<Phase, ReconcileError> {
        let gone = match self.ctx.provider.cloud.delete(claim).await {
            Ok(()) => false,
            Err(CloudError::NotFound(_)) => true,
            Err(source) => return Err(cloud_error(claim, source)),
        };
        status::set(claim, conditions::INSTANCE_TERMINATING, Status::True, now);
        Ok(if gone {
            Phase::Done
        } else {
            Phase::Wait(Some(INSTANCE_POLL))
        })
    }

    /// Lets the Node go and says so.
    async fn finish(
        &self,
        node: &Node,
        claim: Option<&NodeClaim>,
    ) -> Result<Action, ReconcileError> {
        if !write::remove_node_finalizer(&self.ctx, node).await? {
            return Ok(Action::AwaitChange);
        }
        tracing::info!(
            Node = name(&node.metadata),
            NodeClaim = claim.map_or("", |c| name(&c.metadata)),
            "deleted node"
        );
        let (now, metrics) = (self.ctx.clock.wall(), &self.ctx.metrics);
        let pool = label_or_empty(&node.metadata, labels::NODEPOOL);
        let zone = label_or_empty(&node.metadata, labels::ZONE);
        metrics.inc(
            "karpenter_nodes_terminated_total",
            &[("nodepool", pool), ("zone", zone)],
        );
        let seconds = |since: &Option<objects::Time>| {
            since
                .as_ref()
                .map(|t| now.duration_since(t.0).as_secs_f64())
        };
        if let Some(taken) = seconds(&node.metadata.deletion_timestamp) {
            let name = "karpenter_nodes_termination_duration_seconds";
            metrics.observe(name, &[("nodepool", pool)], taken);
        }
        if let Some(lived) = seconds(&node.metadata.creation_timestamp) {
            let name = "karpenter_nodes_lifetime_duration_seconds";
            metrics.observe(name, &[("nodepool", pool)], lived);
        }
        Ok(Action::AwaitChange)
    }
}

fn cloud_error(claim: &NodeClaim, source: CloudError) -> ReconcileError {
    TerminationError::Cloud {
        claim: name(&claim.metadata).to_owned(),
        source,
    }
    .into()
}

fn has_disrupted_taint(node: &Node) -> bool {
    let all = node.spec.as_ref().and_then(|s| s.taints.as_ref());
    let wanted = taints::disrupted_taint();
    all.into_iter().flatten().any(|t| taints::same(t, &wanted))
}

/// The Node with the taint that keeps pods off and the label that keeps load balancers off.
fn marked(node: &Node) -> Node {
    let mut node = tainted(node);
    let all = node.metadata.labels.get_or_insert_default();
    all.insert(labels::EXCLUDE_FROM_LB.to_owned(), "karpenter".to_owned());
    node
}

/// The Node with the disrupted taint; one with the same key and another effect makes place for it.
pub(crate) fn tainted(node: &Node) -> Node {
    if has_disrupted_taint(node) {
        return node.clone();
    }
    let mut node = node.clone();
    let all = node
        .spec
        .get_or_insert_default()
        .taints
        .get_or_insert_default();
    all.retain(|t| t.key != labels::DISRUPTED_TAINT);
    all.push(taints::disrupted_taint());
    node
}

/// The Node without the disrupted taint.
pub(crate) fn untainted(node: &Node) -> Node {
    let mut node = node.clone();
    if let Some(spec) = &mut node.spec
        && let Some(all) = &mut spec.taints
    {
        all.retain(|t| t.key != labels::DISRUPTED_TAINT);
        if all.is_empty() {
            spec.taints = None;
        }
    }
    node
}

/// The deadline that a claim would have been given: by its own terminationGracePeriod.
fn graceful_end(claim: &NodeClaim) -> Option<Timestamp> {
    let deleted = claim.metadata.deletion_timestamp.as_ref()?.0;
    let grace = duration::parse_hms(claim.spec.termination_grace_period.as_deref()?).ok()?;
    Some(later(deleted, grace))
}

/// When a claim's Node must be empty, if there is such a time.
pub(crate) fn deadline(claim: &NodeClaim) -> Result<Option<Timestamp>, TerminationError> {
    let Some(text) = annotation(&claim.metadata, labels::TERMINATION_TIMESTAMP) else {
        return Ok(None);
    };
    let parsed = text.parse().map(Some);
    parsed.map_err(|source| TerminationError::BadDeadline {
        claim: name(&claim.metadata).to_owned(),
        text: text.to_owned(),
        source,
    })
}

/// Claims and nodes are looked at together: what happens to one matters to the other.
pub(crate) fn nodes_of(ctx: &Context, claim: &str) -> Vec<Arc<Node>> {
    ctx.state.node_claim(claim).map_or_else(Vec::new, |claim| {
        ctx.state.nodes_by_provider_id(&claim.status.provider_id)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node() -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n"},
            "spec": {"taints": [
                {"key": "karpenter.sh/disrupted", "effect": "NoExecute"},
                {"key": "team", "effect": "NoSchedule"}
            ]}
        }))
        .expect("a node")
    }

    #[test]
    fn marking_replaces_the_other_effect_and_is_idempotent() {
        let once = marked(&node());
        assert_eq!(
            serde_json::to_value(&once).expect("json"),
            json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": "n", "labels": {
                    "node.kubernetes.io/exclude-from-external-load-balancers": "karpenter"
                }},
                "spec": {"taints": [
                    {"key": "team", "effect": "NoSchedule"},
                    {"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}
                ]}
            })
        );
        assert_eq!(marked(&once), once);
        assert!(!has_disrupted_taint(&untainted(&once)));
    }

    #[test]
    fn a_deadline_is_read_or_told_to_be_none() {
        let mut claim = NodeClaim::default();
        claim.metadata.name = Some("c".into());
        assert_eq!(deadline(&claim).expect("none"), None);
        let mut with = |text: &str| {
            let all = claim.metadata.annotations.get_or_insert_default();
            all.insert(labels::TERMINATION_TIMESTAMP.into(), text.into());
            deadline(&claim)
        };
        assert_eq!(
            with("2026-01-02T03:04:05Z").expect("a time"),
            Some("2026-01-02T03:04:05Z".parse().expect("a time"))
        );
        let error = with("tomorrow").expect_err("no time").to_string();
        assert!(
            error.contains("NodeClaim c") && error.contains("\"tomorrow\""),
            "{error}"
        );
    }
}
