//! Replacements of a command: ordered before any candidate goes, waited for until they can take pods.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::events;
use super::method::{Command, Reason, Replacement};
use crate::Context;
use crate::lifecycle::objects::{conditions, is_deleting, is_true};
use crate::provisioning::execute;
use crate::static_pools;

/// How often a replacement is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why replacements will not come.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub(super) struct Lost {
    /// Replacements that never became ready.
    pub(super) missing: usize,
    why: String,
}

/// Creates the claims of a command's replacements; their names, or none if one could not be created. Those that were
/// created before it stay: pods use them, or emptiness finds them.
pub(super) async fn buy(ctx: &Context, command: &Command) -> Option<Vec<Arc<str>>> {
    let mut names = Vec::new();
    for replacement in &command.replacements {
        let name = buy_one(ctx, replacement, command.reason).await?;
        if let Some(claim) = ctx.state.node_claim(&name) {
            ctx.events
                .publish(events::launching(&claim, command.reason));
        }
        names.push(name);
    }
    Some(names)
}

async fn buy_one(ctx: &Context, replacement: &Replacement, reason: Reason) -> Option<Arc<str>> {
    let Replacement {
        planned,
        pool,
        from_template,
    } = replacement;
    let created = if *from_template {
        static_pools::create(ctx, pool, reason.metric()).await
    } else {
        let created = execute::create_claim(ctx, pool, planned, reason.metric()).await;
        created.map_err(Into::into)
    };
    // The error is in the log already.
    created.ok()
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
