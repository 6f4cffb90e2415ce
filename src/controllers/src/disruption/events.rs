//! The words of disruption.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use karpenter_api::{NodeClaim, NodePool};
use karpenter_runtime::events::{DEFAULT_DEDUPE_WINDOW, Event, EventType};
use kube::Resource as _;

use super::candidate::{Candidate, Refusal};
use super::method::{Command, Reason, Rejection};
use super::orchestrate;
use super::snapshot::Member;
use crate::lifecycle::objects::{claim_reference, node_reference};

/// Window of `Unconsolidatable`, whatever its text.
const UNCONSOLIDATABLE_WINDOW: Duration = Duration::from_secs(15 * 60);
/// Window of a NodePool's `DisruptionBlocked`.
const BUDGET_WINDOW: Duration = Duration::from_secs(60);

fn normal(
    about: ObjectReference,
    reason: &'static str,
    message: String,
    window: Duration,
) -> Event {
    let dedupe = vec![about.uid.clone().unwrap_or_default()];
    Event {
        about,
        kind: EventType::Normal,
        reason,
        message,
        dedupe,
        window,
    }
}

fn both(claim: ObjectReference, node: Option<ObjectReference>) -> Vec<ObjectReference> {
    std::iter::once(claim).chain(node).collect()
}

/// Why a node is no candidate, on it and on its claim.
pub(crate) fn refused(member: &Member, refusal: &Refusal) -> Vec<Event> {
    let (reason, message, window) = match refusal {
        Refusal::Silent => return Vec::new(),
        Refusal::Blocked { message, .. } => (
            "DisruptionBlocked",
            capitalized(message),
            DEFAULT_DEDUPE_WINDOW,
        ),
        Refusal::Unconsolidatable(message) => {
            ("Unconsolidatable", message.clone(), UNCONSOLIDATABLE_WINDOW)
        }
    };
    let node = member.node.as_ref().map(|n| node_reference(n));
    both(claim_reference(&member.claim), node)
        .into_iter()
        .map(|about| {
            let mut event = normal(about, reason, message.clone(), window);
            if let Refusal::Blocked { message, .. } = refusal {
                // This loop does not come by every ten seconds: another obstacle has to be told when it is met.
                event.dedupe.push(message.clone());
            }
            event
        })
        .collect()
}

/// That a node can be given back, alone or with others, and what that saves.
pub(crate) fn candidate(member: &Member, savings: f64) -> Vec<Event> {
    let node = member.node.as_ref().map(|n| node_reference(n));
    both(claim_reference(&member.claim), node)
        .into_iter()
        .map(|about| {
            let message =
                format!("Node is a candidate for consolidation (savings: ${savings:.4}/h)");
            normal(
                about,
                "ConsolidationCandidate",
                message,
                UNCONSOLIDATABLE_WINDOW,
            )
        })
        .collect()
}

/// That a command which was found is not carried out.
pub(crate) fn rejected(command: &Command, why: Rejection) -> Vec<Event> {
    let text = format!("{}: {}", orchestrate::words(command), why.as_str());
    let each = command.candidates.iter().flat_map(|candidate| {
        let node = Some(node_reference(&candidate.node));
        both(claim_reference(&candidate.claim), node)
    });
    each.map(|about| {
        let mut event = normal(
            about,
            "ConsolidationRejected",
            text.clone(),
            DEFAULT_DEDUPE_WINDOW,
        );
        event.dedupe.push(why.as_str().to_owned());
        event
    })
    .collect()
}

/// That a Balanced pool approves of a move of this node.
pub(crate) fn approved(member: &Member, words: &str) -> Vec<Event> {
    let node = member.node.as_ref().map(|n| node_reference(n));
    both(claim_reference(&member.claim), node)
        .into_iter()
        .map(|about| approval(about, words))
        .collect()
}

/// That a Balanced pool approves of a move of several of its nodes.
pub(crate) fn pool_approved(pool: &NodePool, words: &str) -> Event {
    approval(pool.object_ref(&()), words)
}

fn approval(about: ObjectReference, words: &str) -> Event {
    let text = capitalized(words);
    normal(about, "ConsolidationApproved", text, DEFAULT_DEDUPE_WINDOW)
}

/// That a replacement has been ordered.
pub(crate) fn launching(claim: &NodeClaim, reason: Reason) -> Event {
    let message = format!("Launching NodeClaim: {}", reason.as_str());
    let about = claim_reference(claim);
    normal(about, "DisruptionLaunching", message, DEFAULT_DEDUPE_WINDOW)
}

/// That a replacement is not ready yet.
pub(crate) fn waiting(claim: &NodeClaim) -> Event {
    normal(
        claim_reference(claim),
        "DisruptionWaitingReadiness",
        "Waiting on readiness to continue disruption".to_owned(),
        DEFAULT_DEDUPE_WINDOW,
    )
}

/// That a candidate goes.
pub(crate) fn terminating(candidate: &Candidate, reason: Reason) -> Vec<Event> {
    let message = format!("Disrupting Node: {}", reason.as_str());
    let node = Some(node_reference(&candidate.node));
    both(claim_reference(&candidate.claim), node)
        .into_iter()
        .map(|about| {
            normal(
                about,
                "DisruptionTerminating",
                message.clone(),
                DEFAULT_DEDUPE_WINDOW,
            )
        })
        .collect()
}

/// That a pool's budgets let nothing be disrupted.
pub(crate) fn budget_blocks(pool: &NodePool, reason: Reason) -> Event {
    let mut event = normal(
        pool.object_ref(&()),
        "DisruptionBlocked",
        format!(
            "No allowed disruptions for disruption reason {} due to blocking budget",
            reason.as_str()
        ),
        BUDGET_WINDOW,
    );
    event.dedupe.push(reason.as_str().to_owned());
    event
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_letter_is_raised() {
        assert_eq!(
            capitalized("node isn't initialized"),
            "Node isn't initialized"
        );
        assert_eq!(capitalized(""), "");
    }
}
