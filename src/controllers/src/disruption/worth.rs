//! Whether a move pays: what it saves over the time that its machines can be expected to live, against what it costs to
//! make it. Without this a cluster is moved about for cents (`lifecycle-and-disruption.md` §11).

use std::time::Duration;

use jiff::Timestamp;

use super::method::Command;
use crate::lifecycle::expiration::expires;

/// How far ahead a saving is counted: pods, prices and what is sold are others tomorrow.
const HORIZON: Duration = Duration::from_secs(24 * 3600);
/// How long a replacement is paid for beside what it replaces: it boots, and then they are drained.
const BOTH_RUN: Duration = Duration::from_secs(10 * 60);
/// How long the pods of a machine do no work, while they come up on another one.
const PODS_RESTART: Duration = Duration::from_secs(60);

/// Why `command` is not worth its while at `now`; fine if it is.
pub(super) fn check(command: &Command, now: Timestamp) -> Result<(), String> {
    let before: f64 = command.candidates.iter().map(|c| c.price).sum();
    let after = before - command.savings();
    // Machines whose price nobody knows are not kept for money.
    if before <= 0.0 {
        return Ok(());
    }
    let lives = command
        .candidates
        .iter()
        .map(|c| life(expires(&c.claim), now));
    let life = lives.min().unwrap_or(HORIZON);
    let cost = after * hours(BOTH_RUN) + before * hours(PODS_RESTART);
    let saved = command.savings() * hours(life);
    if saved < cost {
        return Err(format!(
            "The move would save ${saved:.4} within {:.1} hours and cost ${cost:.4}",
            hours(life)
        ));
    }
    Ok(())
}

/// How long a machine that expires then is counted on.
fn life(expires: Option<Timestamp>, now: Timestamp) -> Duration {
    let Some(expires) = expires else {
        return HORIZON;
    };
    let left = expires.duration_since(now);
    Duration::try_from(left).unwrap_or_default().min(HORIZON)
}

fn hours(duration: Duration) -> f64 {
    duration.as_secs_f64() / 3600.0
}
