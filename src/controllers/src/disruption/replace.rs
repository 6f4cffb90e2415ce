//! Replacements of a command: ordered before any candidate goes, waited for until they can take pods.

use std::sync::Arc;
use std::time::Duration;

use karpenter_api::NodeClaim;
use karpenter_model::Pod;
use tokio::time::Instant;

use super::events;
use super::method::{Command, Replacement};
use crate::Context;
use crate::lifecycle::objects::{self, conditions, is_deleting, is_true};
use crate::lifecycle::{reread, write};
use crate::provisioning::{claim, execute};
use crate::static_pools;
use crate::termination::node::nodes_of;

/// How often a replacement is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long the deletion of replacements that are not needed any more is tried.
const TAKE_BACK_TIME: Duration = Duration::from_secs(60);
/// Waits between tries at deleting one.
const TAKE_BACK_BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Why replacements will not come.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub(super) struct Lost {
    /// Replacements that never became ready.
    pub(super) missing: usize,
    /// Those that may still become so: they have joined or may join, and there was no more time to wait.
    pub(super) late: Vec<Arc<str>>,
    why: String,
}

/// Creates the claims of a command's replacements; their names, or none if one could not be created. Then those that
/// were created before it are taken back, and so is that one, should it have been created all the same.
pub(super) async fn buy(ctx: &Context, command: &Command) -> Option<Vec<Arc<str>>> {
    let mut names = Vec::new();
    for replacement in &command.replacements {
        match buy_one(ctx, replacement, command, names.len()).await {
            Ok(name) => {
                if let Some(claim) = ctx.state.node_claim(&name) {
                    ctx.events
                        .publish(events::launching(&claim, command.reason));
                }
                names.push(name);
            }
            Err(perhaps) => {
                names.extend(perhaps);
                take_back(ctx, &names).await;
                return None;
            }
        }
    }
    Some(names)
}

/// Buys the replacement at `index` of a command. The error, which is in the log already, names the claim if nobody knows
/// whether it was created.
async fn buy_one(
    ctx: &Context,
    replacement: &Replacement,
    command: &Command,
    index: usize,
) -> Result<Arc<str>, Option<Arc<str>>> {
    let Replacement {
        planned,
        pool,
        from_template,
    } = replacement;
    let reason = command.reason.metric();
    if *from_template {
        // The pool holds its own size: what was created all the same is one too many, and goes first.
        let created = static_pools::create(ctx, pool, reason).await;
        return created.map_err(|_| None);
    }
    // The name is ours, not the server's: a claim whose creation was answered with an error can be asked for by it.
    let first = command.candidates.first().map_or("", |c| &*c.name);
    let owner = format!("{first}/{index}/{}", ctx.clock.wall());
    let name = claim::name(&pool.name, &mut ctx.rng.child("replacement", &owner).rng());
    let created = execute::create_claim(ctx, pool, planned, Some(&name), reason).await;
    created.map_err(|error| execute::was_perhaps_done(&error).then(|| name.into()))
}

/// Deletes replacements that nothing needs any more: no pod is on them or planned onto them. Of those in `names` some
/// may not be there.
pub(super) async fn take_back(ctx: &Context, names: &[Arc<str>]) {
    let deadline = ctx.clock.now() + TAKE_BACK_TIME;
    for name in names {
        if is_needed(ctx, name).await {
            continue;
        }
        let claim = ctx.state.node_claim(name);
        if claim.as_ref().is_some_and(|c| is_deleting(&c.metadata)) {
            continue;
        }
        // One that the watch has not told of is asked for by its name alone.
        let claim = claim.map_or_else(|| named(name), |c| (*c).clone());
        let mut wait = TAKE_BACK_BACKOFF.0;
        loop {
            match write::delete_claim(ctx, &claim).await {
                Ok(true) => {
                    tracing::info!(
                        NodeClaim = &**name,
                        "deleted replacement that is not needed"
                    );
                    break;
                }
                Ok(false) => break,
                Err(error) if ctx.clock.now() + wait < deadline => {
                    tracing::debug!(NodeClaim = &**name, error = %error, "failed deleting replacement, retrying");
                    ctx.clock.sleep(wait).await;
                    wait = wait.saturating_mul(2).min(TAKE_BACK_BACKOFF.1);
                }
                Err(error) => {
                    tracing::error!(
                        NodeClaim = &**name, error = %error,
                        "failed deleting replacement that is not needed, it is left to emptiness"
                    );
                    break;
                }
            }
        }
    }
}

fn named(name: &str) -> NodeClaim {
    let mut claim = NodeClaim::default();
    claim.metadata.name = Some(name.to_owned());
    claim
}

/// Whether pods are on a replacement or on their way to it, so that it has to stay whatever it was bought for. Before it is
/// said that none are, the API server is asked: what was bound a moment ago the watch may not have told yet.
async fn is_needed(ctx: &Context, name: &str) -> bool {
    if is_known_to_be_needed(ctx, name) {
        return true;
    }
    for node in nodes_of(ctx, name) {
        if let Err(error) = reread::pods_on(ctx, objects::name(&node.metadata)).await {
            tracing::error!(NodeClaim = name, error = %error, "failed listing pods");
        }
    }
    is_known_to_be_needed(ctx, name)
}

fn is_known_to_be_needed(ctx: &Context, name: &str) -> bool {
    if ctx.state.node_claim(name).is_none() {
        return false;
    }
    let mut names = vec![name.to_owned()];
    let nodes = nodes_of(ctx, name);
    names.extend(nodes.iter().map(|n| objects::name(&n.metadata).to_owned()));
    let in_use = names.iter().any(|n| {
        let pods = ctx.state.pods_on(n);
        pods.iter().any(|p| p.is_reschedulable())
    });
    if in_use {
        return true;
    }
    // Pods of the candidates were planned onto it, too, and stay where they are: those that wait or have to leave count.
    let now = ctx.clock.wall();
    let has_place = |p: &Arc<Pod>| {
        let verdict = ctx.state.verdict(&p.key);
        verdict.is_some_and(|v| v.placed.is_some())
    };
    names.iter().any(|n| ctx.state.is_nominated(n, now))
        && (ctx.state.provisionable_pods().iter().any(has_place)
            || (ctx.state.leaving_nodes().iter())
                .flat_map(|node| &node.pods)
                .any(|p| p.node_name.is_some() && p.is_reschedulable()))
}

/// Waits until every replacement is initialized.
pub(super) async fn wait(
    ctx: &Context,
    command: &Command,
    names: &[Arc<str>],
    deadline: Instant,
) -> Result<(), Lost> {
    let mut waiting: Vec<&Arc<str>> = names.iter().collect();
    loop {
        let mut left = Vec::new();
        let missing = waiting.len();
        for name in waiting {
            let claim = ctx.state.node_claim(name);
            let Some(claim) = claim.filter(|c| !is_deleting(&c.metadata)) else {
                return Err(Lost {
                    missing,
                    late: Vec::new(),
                    why: format!("replacement {name} is gone before it was ready"),
                });
            };
            if !is_true(&claim.status.conditions, conditions::INITIALIZED) {
                ctx.events.publish(events::waiting(&claim));
                left.push(name);
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        if ctx.clock.now() + LOOK_EVERY > deadline {
            let why = format!(
                "command {} of {} node(s): replacements are not ready in time",
                command.reason.as_str(),
                command.candidates.len()
            );
            return Err(Lost {
                missing: left.len(),
                late: left.into_iter().cloned().collect(),
                why,
            });
        }
        waiting = left;
        ctx.clock.sleep(LOOK_EVERY).await;
    }
}

/// The machine that a replacement is most likely to be.
pub(super) fn machine(replacement: &Replacement) -> String {
    let best = &replacement.planned.cheapest;
    format!(
        "{} {} in {} at ${:.4}/h",
        best.instance_type, best.capacity_type, best.zone, best.price
    )
}

/// The replacements in words; empty without any.
pub(super) fn words(replacements: &[Replacement]) -> String {
    if replacements.is_empty() {
        return String::new();
    }
    let each: Vec<String> = replacements.iter().map(machine).collect();
    format!(" -> [{}]", each.join(", "))
}
