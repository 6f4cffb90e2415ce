//! `nodeclaim.lifecycle`: launch, registration, initialization and liveness of a claim, in that order, each a thin
//! hand around a pure decision (`lifecycle-and-disruption.md` §3).

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use karpenter_api::{NodeClaim, labels};
use karpenter_cloud::CloudError;
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::runner::ReconcileError;
use karpenter_runtime::{Action, Key, Queue, Reconciler};

use super::health::Health;
use super::hooks;
use super::initialization::{first_lack, initialized};
use super::launch::{self, Bought};
use super::liveness::{Liveness, liveness};
use super::objects::{
    condition, conditions, has_finalizer, is_deleting, is_managed_claim, is_true, label_or_empty,
    name, until,
};
use super::registration;
use super::status::{self, Status};
use super::{events, pool_health, write};
use crate::Context;

/// A launch that failed and is tried again.
#[derive(Debug, thiserror::Error)]
#[error("launching NodeClaim {claim}: {source}")]
struct LaunchError {
    claim: String,
    #[source]
    source: CloudError,
}

/// The reconciler.
pub(crate) struct Lifecycle {
    pub(crate) ctx: Context,
    pub(crate) bought: Bought,
    pub(crate) health: Arc<Health>,
    /// The loop's own queue, for deadlines that hold beside an error's back-off.
    pub(crate) queue: Arc<OnceLock<Queue>>,
}

/// Whether a claim is still wanted.
enum Lives {
    Yes,
    /// It was given up and deleted.
    No,
}

/// What a step leaves to do.
#[derive(Default)]
struct Pass {
    /// The claim was given up: nothing more is to be written to it.
    deleted: bool,
    /// Another look then, at the latest.
    again: Option<Duration>,
    /// What went wrong, told after all steps have been taken and written.
    error: Option<ReconcileError>,
}

#[async_trait]
impl Reconciler for Lifecycle {
    fn name(&self) -> &'static str {
        "nodeclaim.lifecycle"
    }
    fn group_kind(&self) -> (&'static str, &'static str) {
        ("karpenter.sh", "NodeClaim")
    }
    fn metrics(&self) -> Option<&Metrics> {
        Some(&self.ctx.metrics)
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let Some(claim) = self.ctx.state.node_claim(&key.name) else {
            return Ok(Action::AwaitChange);
        };
        if !is_managed_claim(&claim, &self.ctx.provider.node_class) {
            return Ok(Action::AwaitChange);
        }
        if is_deleting(&claim.metadata) {
            let Some(claim) = self.remember_machine(&claim).await? else {
                return Ok(Action::AwaitChange);
            };
            return super::finalize::finalize(&self.ctx, &claim).await;
        }
        let Some(claim) = self.ensure_finalizer(&claim).await? else {
            return Ok(Action::AwaitChange);
        };
        let claim = claim.as_ref();
        let mut wanted = claim.clone();
        status::settle(&mut wanted, self.ctx.clock.wall());
        let pass = self.advance(&mut wanted).await;
        if pass.deleted {
            return pass.error.map_or(Ok(Action::AwaitChange), Err);
        }
        if let Some(written) = write::claim(&self.ctx, claim, &wanted).await? {
            announce(&self.ctx, claim, &written);
            if is_true(&written.status.conditions, conditions::LAUNCHED) {
                let uid = claim.metadata.uid.as_deref().unwrap_or_default();
                self.bought.forget(uid);
            }
        }
        match (pass.error, pass.again) {
            (Some(error), wait) => {
                // The back-off of an error must not carry a claim past its deadline.
                if let (Some(queue), Some(wait)) = (self.queue.get(), wait) {
                    queue.add_after(key.clone(), wait);
                }
                Err(error)
            }
            (None, Some(wait)) => Ok(Action::RequeueAfter(wait)),
            (None, None) => Ok(Action::AwaitChange),
        }
    }
}

impl Lifecycle {
    /// Nothing is bought for a claim that could vanish without a trace.
    async fn ensure_finalizer<'a>(
        &self,
        claim: &'a NodeClaim,
    ) -> Result<Option<Cow<'a, NodeClaim>>, ReconcileError> {
        if has_finalizer(&claim.metadata) {
            return Ok(Some(Cow::Borrowed(claim)));
        }
        let mut wanted = claim.clone();
        let finalizers = wanted.metadata.finalizers.get_or_insert_default();
        finalizers.push(labels::TERMINATION_FINALIZER.to_owned());
        write::claim(&self.ctx, claim, &wanted).await
    }

    /// A claim that was deleted while its launch was under way has a machine that its status does not know of.
    async fn remember_machine(
        &self,
        claim: &NodeClaim,
    ) -> Result<Option<NodeClaim>, ReconcileError> {
        let uid = claim.metadata.uid.as_deref().unwrap_or_default();
        let mut wanted = claim.clone();
        if wanted.status.provider_id.is_empty()
            && let Some(launched) = self.bought.get(uid, self.ctx.clock.now())
        {
            launch::record(&mut wanted, &launched);
            let now = self.ctx.clock.wall();
            status::set(&mut wanted, conditions::LAUNCHED, Status::True, now);
        }
        let written = write::claim(&self.ctx, claim, &wanted).await?;
        self.bought.forget(uid);
        Ok(written.map(Cow::into_owned))
    }

    async fn advance(&self, claim: &mut NodeClaim) -> Pass {
        let mut pass = Pass::default();
        match self.launch(claim).await {
            Ok(Lives::Yes) => {}
            Ok(Lives::No) => {
                pass.deleted = true;
                return pass;
            }
            Err(error) => pass.error = Some(error),
        }
        // A launch takes its time: what follows happens after it.
        let now = self.ctx.clock.wall();
        let mut hooks_wait = None;
        match self.register(claim, now).await {
            Ok(wait) => hooks_wait = wait,
            Err(error) => {
                pass.error.get_or_insert(error);
            }
        }
        if let Err(error) = self.initialize(claim, now).await {
            pass.error.get_or_insert(error);
        }
        match liveness(&claim.status.conditions, created(claim, now), now) {
            Liveness::Settled => {}
            Liveness::Until(deadline) => {
                let wait = until(deadline, now);
                pass.again = Some(hooks_wait.map_or(wait, |h: Duration| h.min(wait)));
            }
            Liveness::TimedOut { reason, timeout } => {
                match self.time_out(claim, reason, timeout).await {
                    // Whatever else went wrong does not matter any more.
                    Ok(()) => {
                        pass.deleted = true;
                        pass.error = None;
                    }
                    Err(error) => {
                        pass.error.get_or_insert(error);
                    }
                }
            }
        }
        pass
    }

    async fn launch(&self, claim: &mut NodeClaim) -> Result<Lives, ReconcileError> {
        let settled = condition(&claim.status.conditions, conditions::LAUNCHED)
            .is_some_and(|c| c.status != "Unknown");
        if settled {
            return Ok(Lives::Yes);
        }
        let uid = claim.metadata.uid.clone().unwrap_or_default();
        let answer = match self.bought.get(&uid, self.ctx.clock.now()) {
            Some(launched) => Ok(launched),
            None => self.ctx.provider.cloud.create(claim).await,
        };
        let now = self.ctx.clock.wall();
        match (launch::outcome(&answer), answer) {
            (launch::Outcome::Launched, Ok(launched)) => {
                self.bought
                    .put(&uid, launched.clone(), self.ctx.clock.now());
                launch::record(claim, &launched);
                status::set(claim, conditions::LAUNCHED, Status::True, now);
                Ok(Lives::Yes)
            }
            (launch::Outcome::GiveUp { reason, event }, Err(error)) => {
                tracing::error!(
                    NodeClaim = name(&claim.metadata),
                    error = %error,
                    "failed launching nodeclaim"
                );
                if let Some(text) = event {
                    self.ctx
                        .events
                        .publish(events::insufficient_capacity(claim, &text));
                }
                write::disrupt_claim(&self.ctx, claim, reason).await?;
                Ok(Lives::No)
            }
            (launch::Outcome::Retry { reason, message }, Err(source)) => {
                let failed = Status::unknown(&reason, &message);
                status::set(claim, conditions::LAUNCHED, failed, now);
                Err(ReconcileError::Retry(Box::new(LaunchError {
                    claim: name(&claim.metadata).to_owned(),
                    source,
                })))
            }
            // An answer and its own outcome always agree.
            _ => Ok(Lives::Yes),
        }
    }

    /// Returns when to look again at hooks that are not done.
    async fn register(
        &self,
        claim: &mut NodeClaim,
        now: Timestamp,
    ) -> Result<Option<Duration>, ReconcileError> {
        let open = condition(&claim.status.conditions, conditions::REGISTERED)
            .is_some_and(|c| c.status == "Unknown");
        if !open {
            return Ok(None);
        }
        if !is_true(&claim.status.conditions, conditions::LAUNCHED) {
            let waits = Status::unknown("AwaitingReconciliation", "");
            status::set(claim, conditions::REGISTERED, waits, now);
            return Ok(None);
        }
        let nodes = self
            .ctx
            .state
            .nodes_by_provider_id(&claim.status.provider_id);
        match registration::outcome(&nodes) {
            registration::Outcome::NodeNotFound => {
                let waits =
                    Status::unknown("NodeNotFound", "no node has joined with the provider id");
                status::set(claim, conditions::REGISTERED, waits, now);
                Ok(None)
            }
            registration::Outcome::MultipleNodesFound => {
                let text = "more than one node has joined with the provider id";
                let failed = Status::failed("MultipleNodesFound", text);
                status::set(claim, conditions::REGISTERED, failed, now);
                Ok(None)
            }
            registration::Outcome::Join {
                node,
                taint_was_missing,
            } => {
                let node_name = name(&node.metadata);
                if taint_was_missing {
                    tracing::error!(
                        Node = name(&node.metadata),
                        taint = labels::UNREGISTERED_TAINT,
                        "node joined without the taint that keeps pods off until registration"
                    );
                    let event = events::unregistered_taint_missing(claim, node_name);
                    self.ctx.events.publish(event);
                }
                let taken_off = self.ctx.state.taints_taken_off(node_name);
                let asked = &self.ctx.provider.registration_hooks;
                if let Some(pending) = hooks::ask(asked, claim).await {
                    let wanted = registration::synced(claim, &node, &taken_off);
                    write::node(&self.ctx, &node, &wanted).await?;
                    let waits = Status::unknown("RegistrationHookPending", &pending.message);
                    status::set(claim, conditions::REGISTERED, waits, now);
                    return Ok(Some(pending.wait));
                }
                // Only now: hooks may have given the claim labels.
                let wanted = registration::joined(claim, &node, &taken_off);
                if write::node(&self.ctx, &node, &wanted).await?.is_none() {
                    return Ok(None);
                }
                status::set(claim, conditions::REGISTERED, Status::True, now);
                claim.status.node_name = node_name.to_owned();
                pool_health::record(&self.ctx, &self.health, claim, None).await?;
                Ok(None)
            }
        }
    }

    async fn initialize(
        &self,
        claim: &mut NodeClaim,
        now: Timestamp,
    ) -> Result<(), ReconcileError> {
        let all = &claim.status.conditions;
        if is_true(all, conditions::INITIALIZED) || !is_true(all, conditions::REGISTERED) {
            return Ok(());
        }
        let nodes = self
            .ctx
            .state
            .nodes_by_provider_id(&claim.status.provider_id);
        let node = match nodes.as_slice() {
            [node] => Some(node),
            _ => None,
        };
        if let Some(lack) = first_lack(claim, node.map(|n| &**n)) {
            let waits = Status::unknown(lack.reason, &lack.message);
            status::set(claim, conditions::INITIALIZED, waits, now);
            return Ok(());
        }
        if let Some(node) = node {
            if write::node(&self.ctx, node, &initialized(node))
                .await?
                .is_none()
            {
                return Ok(());
            }
            status::set(claim, conditions::INITIALIZED, Status::True, now);
        }
        Ok(())
    }

    /// Deletes a claim that gets nowhere.
    async fn time_out(
        &self,
        claim: &NodeClaim,
        reason: &'static str,
        timeout: Duration,
    ) -> Result<(), ReconcileError> {
        pool_health::record(&self.ctx, &self.health, claim, Some(reason)).await?;
        write::disrupt_claim(&self.ctx, claim, reason).await?;
        tracing::info!(
            timeout = %format!("{}s", timeout.as_secs()),
            reason,
            "terminating due to timeout"
        );
        Ok(())
    }
}

fn created(claim: &NodeClaim, now: Timestamp) -> Timestamp {
    claim
        .metadata
        .creation_timestamp
        .as_ref()
        .map_or(now, |t| t.0)
}

/// Tells what a claim has come to, once that is written down: a pass that is repeated because of another writer is
/// told once.
fn announce(ctx: &Context, before: &NodeClaim, after: &NodeClaim) {
    let (meta, status) = (&after.metadata, &after.status);
    let turned =
        |kind| is_true(&status.conditions, kind) && !is_true(&before.status.conditions, kind);
    let allocatable = || serde_json::to_string(&status.allocatable).unwrap_or_default();
    if turned(conditions::LAUNCHED) {
        tracing::info!(
            "provider-id" = %status.provider_id,
            "instance-type" = label_or_empty(meta, labels::INSTANCE_TYPE),
            zone = label_or_empty(meta, labels::ZONE),
            "capacity-type" = label_or_empty(meta, labels::CAPACITY_TYPE),
            allocatable = %allocatable(),
            "launched nodeclaim"
        );
    }
    if turned(conditions::REGISTERED) {
        tracing::info!(Node = %status.node_name, "registered nodeclaim");
        ctx.metrics.inc(
            "karpenter_nodes_created_total",
            &[
                ("nodepool", label_or_empty(meta, labels::NODEPOOL)),
                ("zone", label_or_empty(meta, labels::ZONE)),
            ],
        );
    }
    if turned(conditions::INITIALIZED) {
        let node = ctx.state.node(&status.node_name);
        let real = node.and_then(|n| n.status.as_ref()?.allocatable.clone());
        let real = real.map(|r| serde_json::to_string(&r).unwrap_or_default());
        tracing::info!(
            allocatable = %real.unwrap_or_else(allocatable),
            "initialized nodeclaim"
        );
    }
}
