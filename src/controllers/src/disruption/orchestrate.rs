//! Carrying a command out (`lifecycle-and-disruption.md` §6.8): taint, say why, look once more, mark, delete; and
//! undoing what a command that did not come to its end has left on nodes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use karpenter_api::labels;
use karpenter_runtime::runner::ReconcileError;
use serde_json::json;

use super::candidate::{Candidate, node_name};
use super::events;
use super::method::{Command, Method, Rejection};
use super::moves::Moves;
use super::under_way::UnderWay;
use super::{replace, snapshot};
use crate::Context;
use crate::lifecycle::objects::{
    condition, conditions, is_deleting, is_managed_claim, is_managed_node, is_true, label_or_empty,
    name, provider_id,
};
use crate::lifecycle::status::{self, Status};
use crate::lifecycle::{reread, write};
use crate::provisioning::meter::Meter;
use crate::termination::node::{tainted, untainted};

/// Tries at marking a candidate.
const MARK_ATTEMPTS: u32 = 4;
/// Wait before the second try; each further one is five times as long.
const MARK_BACKOFF: Duration = Duration::from_millis(10);
/// Waits between tries at deleting a claim.
const DELETE_BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Time a command has: per candidate under way, within these bounds.
const DEADLINE_PER_CANDIDATE: Duration = Duration::from_millis(80);
const DEADLINE_BOUNDS: (Duration, Duration) =
    (Duration::from_secs(10 * 60), Duration::from_secs(60 * 60));

/// How long a command may take while `under_way` candidates are waited for.
fn time_allowed(under_way: usize) -> Duration {
    let count = u32::try_from(under_way).unwrap_or(u32::MAX);
    DEADLINE_PER_CANDIDATE
        .saturating_mul(count)
        .clamp(DEADLINE_BOUNDS.0, DEADLINE_BOUNDS.1)
}

/// Marks the candidates of a command and looks at them once more, now that nothing new is bound to them. Returns
/// what there is left to carry out, under way and off limits for all other methods.
pub(crate) async fn begin(
    ctx: &Context,
    meter: &Meter,
    under_way: &UnderWay,
    method: &dyn Method,
    command: Command,
) -> Result<Begun, Rejection> {
    let mut marked = Vec::new();
    let wanted = command.candidates.len();
    for candidate in command.candidates {
        match mark(ctx, &candidate, method).await {
            Ok(()) => marked.push(candidate),
            Err(error) => {
                tracing::error!(NodeClaim = &*candidate.name, error = %error, "failed marking candidate");
                restore(ctx, &candidate).await;
            }
        }
    }
    if marked.len() < wanted && !command.replacements.is_empty() {
        // What was to be bought was to be bought for all of them.
        for candidate in &marked {
            restore(ctx, candidate).await;
        }
        return Err(Rejection::Unknown);
    }
    for candidate in &marked {
        // The watch may lag behind what was bound in the moment before the taint.
        if let Err(error) = reread::pods_on(ctx, node_name(candidate)).await {
            tracing::error!(NodeClaim = &*candidate.name, error = %error, "failed listing pods");
        }
    }
    let snapshot = snapshot::take(ctx, meter, &under_way.now()).await;
    let marked = Command {
        candidates: marked,
        replacements: command.replacements,
        ..command
    };
    let revised = method.revise(&marked, &snapshot, ctx.clock.wall());
    let kept: BTreeSet<Arc<str>> = revised
        .iter()
        .flat_map(|c| c.candidates.iter().map(|c| c.name.clone()))
        .collect();
    for candidate in marked.candidates.iter().filter(|c| !kept.contains(&c.name)) {
        restore(ctx, candidate).await;
    }
    let command = revised?;
    // Before there is a replacement: else a static pool would seem to have one machine too many for a moment.
    for candidate in &command.candidates {
        ctx.state.expect_disruption(&candidate.name);
    }
    let Some(replacements) = replace::buy(ctx, &command).await else {
        for candidate in &command.candidates {
            restore(ctx, candidate).await;
        }
        under_way.hold(&command.candidates, ctx.clock.wall());
        return Err(Rejection::Unknown);
    };
    // Only now: pods of a leaving node are planned for, and the plan must find what was bought for them.
    for candidate in &command.candidates {
        ctx.state.mark_for_deletion(&candidate.name);
    }
    under_way.add(&command.candidates);
    announce(ctx, &command, &replacements);
    Ok(Begun {
        command,
        replacements,
    })
}

/// A command whose candidates are marked and whose replacements are ordered.
pub(crate) struct Begun {
    command: Command,
    /// Names of the replacements' claims.
    replacements: Vec<Arc<str>>,
}

/// Waits for the replacements of a command that has begun and deletes its claims. If that does not succeed in time
/// everything is undone, and replacements that no pod needs go; only those that are merely late stay: they are looked at
/// again once they are ready, and are the liveness check's to give up.
pub(super) async fn carry_out(ctx: Context, under_way: UnderWay, moves: Moves, begun: Begun) {
    let Begun {
        command,
        replacements,
    } = begun;
    let deadline = ctx.clock.now() + time_allowed(under_way.len());
    if let Err(lost) = replace::wait(&ctx, &command, &replacements, deadline).await {
        tracing::error!(
            error = %lost,
            "failed terminating nodes while executing a disruption command"
        );
        ctx.metrics.add(
            "karpenter_voluntary_disruption_queue_failures_total",
            &[
                ("decision", command.decision()),
                ("reason", command.reason.metric()),
                ("consolidation_type", command.consolidation_type),
            ],
            f64::from(u32::try_from(lost.missing).unwrap_or(u32::MAX)),
        );
        for candidate in &command.candidates {
            ctx.state.unmark_for_deletion(&candidate.name);
        }
        let mut idle = replacements;
        idle.retain(|name| !lost.late.contains(name));
        replace::take_back(&ctx, &idle).await;
        for candidate in &command.candidates {
            restore(&ctx, candidate).await;
        }
        if lost.late.is_empty() {
            under_way.hold(&command.candidates, ctx.clock.wall());
        }
        under_way.remove(&command.candidates);
        return;
    }
    let mut kept = 0;
    for candidate in &command.candidates {
        // It may have expired, failed or been deleted meanwhile: then that took it, and that is what is told and counted.
        let held = ctx.state.node_claim(&candidate.name);
        if held.is_some_and(|c| is_deleting(&c.metadata)) {
            continue;
        }
        let mut wait = DELETE_BACKOFF.0;
        loop {
            match write::disrupt_claim(&ctx, &candidate.claim, command.reason.metric()).await {
                Ok(taken) => {
                    if taken {
                        moves.add(candidate, command.reason, ctx.clock.now());
                        for event in events::terminating(candidate, command.reason) {
                            ctx.events.publish(event);
                        }
                    }
                    break;
                }
                Err(error) if ctx.clock.now() + wait < deadline => {
                    tracing::debug!(NodeClaim = &*candidate.name, error = %error, "failed deleting, retrying");
                    ctx.clock.sleep(wait).await;
                    wait = wait.saturating_mul(2).min(DELETE_BACKOFF.1);
                }
                Err(error) => {
                    tracing::error!(
                        NodeClaim = &*candidate.name,
                        error = %error,
                        "failed terminating nodes while executing a disruption command"
                    );
                    ctx.state.unmark_for_deletion(&candidate.name);
                    restore(&ctx, candidate).await;
                    kept += 1;
                    break;
                }
            }
        }
    }
    if kept == command.candidates.len() {
        replace::take_back(&ctx, &replacements).await;
    }
    under_way.remove(&command.candidates);
    tracing::debug!("command succeeded");
}

async fn mark(
    ctx: &Context,
    candidate: &Candidate,
    method: &dyn Method,
) -> Result<(), ReconcileError> {
    let mut wait = MARK_BACKOFF;
    let mut attempt = 1;
    loop {
        match try_mark(ctx, candidate, method).await {
            Err(_) if attempt < MARK_ATTEMPTS => {
                ctx.clock.sleep(wait).await;
                wait = wait.saturating_mul(5);
                attempt += 1;
            }
            result => return result,
        }
    }
}

async fn try_mark(
    ctx: &Context,
    candidate: &Candidate,
    method: &dyn Method,
) -> Result<(), ReconcileError> {
    if let Some(node) = ctx.state.node(node_name(candidate)) {
        write::node(ctx, &node, &tainted(&node)).await?;
    }
    if let Some(claim) = ctx.state.node_claim(&candidate.name) {
        let mut wanted = (*claim).clone();
        let reason = method.reason().as_str();
        let because = Status::true_because(reason, reason);
        status::set(
            &mut wanted,
            conditions::DISRUPTION_REASON,
            because,
            ctx.clock.wall(),
        );
        write::claim(ctx, &claim, &wanted).await?;
    }
    Ok(())
}

/// Takes the marks off a candidate; what cannot be taken off now the next pass finds.
async fn restore(ctx: &Context, candidate: &Candidate) {
    ctx.state.unexpect_disruption(&candidate.name);
    if let Err(error) = heal(ctx, &candidate.name, node_name(candidate)).await {
        tracing::debug!(NodeClaim = &*candidate.name, error = %error, "failed removing marks");
    }
}

async fn heal(ctx: &Context, claim: &str, node: &str) -> Result<(), ReconcileError> {
    if let Some(node) = ctx.state.node(node)
        && !is_deleting(&node.metadata)
    {
        write::node(ctx, &node, &untainted(&node)).await?;
    }
    if let Some(claim) = ctx.state.node_claim(claim)
        && condition(&claim.status.conditions, conditions::DISRUPTION_REASON).is_some()
        && is_true(&claim.status.conditions, conditions::INITIALIZED)
    {
        let mut wanted = (*claim).clone();
        status::clear(&mut wanted, conditions::DISRUPTION_REASON);
        write::claim(ctx, &claim, &wanted).await?;
    }
    Ok(())
}

/// Takes off what commands have left that nobody carries out any more: those of a controller that has ended.
pub(crate) async fn heal_leftovers(
    ctx: &Context,
    under_way: &UnderWay,
) -> Result<(), ReconcileError> {
    let kind = &ctx.provider.node_class;
    let queued = under_way.now().queued;
    under_way.keep_held(|claim| ctx.state.node_claim(claim).is_some());
    for claim in ctx.state.node_claims() {
        let claim_name = name(&claim.metadata);
        if !is_managed_claim(&claim, kind)
            || queued.contains(claim_name)
            || ctx.state.is_leaving(claim_name)
        {
            continue;
        }
        let mut nodes = ctx.state.nodes_by_provider_id(&claim.status.provider_id);
        let node = nodes.pop().map(|n| name(&n.metadata).to_owned());
        heal(ctx, claim_name, &node.unwrap_or_default()).await?;
    }
    for node in ctx.state.nodes() {
        let orphaned = is_managed_node(&node, kind)
            && ctx
                .state
                .claims_by_provider_id(provider_id(&node))
                .is_empty();
        if orphaned {
            heal(ctx, "", name(&node.metadata)).await?;
        }
    }
    Ok(())
}

/// Log line and metrics of a command that has begun.
fn announce(ctx: &Context, command: &Command, replacements: &[Arc<str>]) {
    let decision = command.decision();
    let reason = command.reason.metric();
    let kind = command.consolidation_type;
    let pools: BTreeSet<&str> = command.candidates.iter().map(|c| &*c.pool_name).collect();
    let mut labels = vec![
        ("decision", decision),
        ("reason", reason),
        ("consolidation_type", kind),
    ];
    ctx.metrics
        .inc("karpenter_voluntary_disruption_decisions_total", &labels);
    for pool in &pools {
        labels.push(("nodepool", pool));
        let name = "karpenter_voluntary_disruption_decisions_by_nodepool_total";
        ctx.metrics.inc(name, &labels);
        labels.pop();
    }
    let nodes: Vec<_> = command
        .candidates
        .iter()
        .map(|c| {
            json!({
                "Node": {"name": node_name(c)},
                "NodeClaim": {"name": &*c.name},
                "instance-type": label_or_empty(&c.node.metadata, labels::INSTANCE_TYPE),
                "capacity-type": label_or_empty(&c.node.metadata, labels::CAPACITY_TYPE),
            })
        })
        .collect();
    let bought: Vec<_> = command
        .replacements
        .iter()
        .zip(replacements)
        .map(|(r, claim)| {
            json!({
                "NodeClaim": {"name": &**claim},
                "instance-types": r.planned.instance_types.len(),
                "capacity-type": r.planned.capacity_types.join(","),
            })
        })
        .collect();
    let pods: usize = command.candidates.iter().map(Candidate::pods_to_move).sum();
    let first = command.candidates.first().map_or("", |c| &*c.name);
    let id = ctx.rng.child("disruption-command", first).rng().uuid();
    let text = format!("{}/{id}: {}", command.reason.as_str(), words(command));
    tracing::info!(
        command = %text,
        decision,
        "disrupted-node-count" = command.candidates.len(),
        "replacement-node-count" = replacements.len(),
        "pod-count" = pods,
        "disrupted-nodes" = %json!(nodes),
        "replacement-nodes" = %json!(bought),
        "disrupting node(s)"
    );
}

/// The command as a log line and an event name it.
pub(super) fn words(command: &Command) -> String {
    let pools: BTreeSet<&str> = command.candidates.iter().map(|c| &*c.pool_name).collect();
    let pools: Vec<&str> = pools.into_iter().collect();
    let nodes: Vec<&str> = command.candidates.iter().map(node_name).collect();
    format!(
        "{}: nodepools=[{}]: [{}]{} (savings: ${:.2})",
        command.decision(),
        pools.join(","),
        nodes.join(", "),
        replace::words(&command.replacements),
        command.savings()
    )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::few(100, 10 * 60)]
    #[case::many(10_000, 13 * 60 + 20)]
    #[case::very_many(80_000, 60 * 60)]
    fn time_grows_with_the_queue(#[case] under_way: usize, #[case] seconds: u64) {
        assert_eq!(time_allowed(under_way), Duration::from_secs(seconds));
    }
}
