//! The words of a claim's life.

use karpenter_api::NodeClaim;
use karpenter_runtime::events::{DEFAULT_DEDUPE_WINDOW, Event, EventType};

use super::objects::{claim_reference, name};

fn warning(claim: &NodeClaim, reason: &'static str, message: String) -> Event {
    Event {
        about: claim_reference(claim),
        kind: EventType::Warning,
        reason,
        message,
        dedupe: vec![name(&claim.metadata).to_owned()],
        window: DEFAULT_DEDUPE_WINDOW,
    }
}

pub(crate) fn insufficient_capacity(claim: &NodeClaim, error: &str) -> Event {
    let message = format!("NodeClaim {} event: {error}", name(&claim.metadata));
    warning(claim, "InsufficientCapacityError", message)
}

pub(crate) fn unregistered_taint_missing(claim: &NodeClaim, node: &str) -> Event {
    let message = format!(
        "Node {node} joined without the taint {}:NoExecute: pods may be bound before it is ready for them",
        karpenter_api::labels::UNREGISTERED_TAINT
    );
    warning(claim, "UnregisteredTaintMissing", message)
}

pub(crate) fn failed_consistency_check(claim: &NodeClaim, message: &str) -> Event {
    Event {
        dedupe: vec![name(&claim.metadata).to_owned(), message.to_owned()],
        ..warning(claim, "FailedConsistencyCheck", message.to_owned())
    }
}
