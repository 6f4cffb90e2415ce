//! The words of draining and terminating.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use karpenter_api::NodeClaim;
use karpenter_model::{DoNotDisrupt, Pod};
use karpenter_runtime::events::{DEFAULT_DEDUPE_WINDOW, Event, EventType};

use crate::lifecycle::objects::{claim_reference, name, node_reference, pod_reference};

/// Attachments an event names; more are counted.
const MAX_NAMED_ATTACHMENTS: usize = 5;

fn event(
    about: k8s_openapi::api::core::v1::ObjectReference,
    kind: EventType,
    reason: &'static str,
    message: String,
    dedupe: Vec<String>,
) -> Event {
    Event {
        about,
        kind,
        reason,
        message,
        dedupe,
        window: DEFAULT_DEDUPE_WINDOW,
    }
}

pub(crate) fn evicted(pod: &Pod, reason: &str) -> Event {
    event(
        pod_reference(pod),
        EventType::Normal,
        "Evicted",
        format!("Evicted pod: {reason}"),
        vec![pod.uid.to_string()],
    )
}

pub(crate) fn force_deleted(pod: &Pod, deadline: Timestamp, grace: u32) -> Event {
    event(
        pod_reference(pod),
        EventType::Normal,
        "Disrupted",
        format!(
            "Deleting the pod to meet the node's termination time {deadline}: granted {grace} seconds of its own {}",
            pod.grace_seconds
        ),
        vec![pod.uid.to_string()],
    )
}

/// What a pod's do-not-disrupt annotation means, if it is more than a yes or no.
pub(crate) fn protection(pod: &Pod, now: Timestamp) -> Option<Event> {
    let key = karpenter_api::labels::DO_NOT_DISRUPT;
    let (kind, reason, message) = match pod.do_not_disrupt(now) {
        DoNotDisrupt::Absent | DoNotDisrupt::Always => return None,
        DoNotDisrupt::Until(end) => (
            EventType::Normal,
            "DoNotDisruptUntil",
            format!("Annotation {key} protects the pod until {end}"),
        ),
        DoNotDisrupt::Elapsed(end) => (
            EventType::Normal,
            "DoNotDisruptGracePeriodElapsed",
            format!("Annotation {key} protected the pod until {end}"),
        ),
        DoNotDisrupt::Invalid(text) => (
            EventType::Warning,
            "InvalidDoNotDisruptAnnotation",
            format!(
                "Annotation {key} is {text:?}, expected \"true\" or a positive duration such as 30m"
            ),
        ),
    };
    let dedupe = vec![pod.uid.to_string()];
    Some(event(pod_reference(pod), kind, reason, message, dedupe))
}

pub(crate) fn eviction_refused(node: &Node, pod: &Pod, why: &str) -> Event {
    event(
        node_reference(node),
        EventType::Warning,
        "FailedDraining",
        format!("Failed to evict pod {}: {why}", pod.key),
        vec![name(&node.metadata).to_owned(), pod.key.to_string()],
    )
}

pub(crate) fn failed_draining(node: &Node, waiting: usize) -> Event {
    event(
        node_reference(node),
        EventType::Warning,
        "FailedDraining",
        format!("Failed to drain node, {waiting} pods are waiting to be evicted"),
        vec![name(&node.metadata).to_owned()],
    )
}

pub(crate) fn awaiting_volumes<'a>(
    node: &Node,
    volumes: impl ExactSizeIterator<Item = &'a String>,
) -> Event {
    let count = volumes.len();
    let mut named: Vec<&str> = volumes
        .map(String::as_str)
        .take(MAX_NAMED_ATTACHMENTS)
        .collect();
    let more = count.saturating_sub(named.len());
    let tail = format!("and {more} other(s)");
    if more > 0 {
        named.push(&tail);
    }
    event(
        node_reference(node),
        EventType::Normal,
        "AwaitingVolumeDetachment",
        format!(
            "Awaiting deletion of VolumeAttachments of volumes {}",
            named.join(", ")
        ),
        vec![name(&node.metadata).to_owned()],
    )
}

fn deadline_text(deadline: &str) -> String {
    format!("All pods will be deleted by {deadline}")
}

pub(crate) fn node_deadline(node: &Node, deadline: &str) -> Event {
    event(
        node_reference(node),
        EventType::Warning,
        "TerminationGracePeriodExpiring",
        deadline_text(deadline),
        vec![name(&node.metadata).to_owned()],
    )
}

/// The time by which a Node must be empty cannot be read.
pub(crate) fn bad_deadline(node: &Node, error: &str) -> Event {
    event(
        node_reference(node),
        EventType::Warning,
        "InvalidTerminationTimestamp",
        error.to_owned(),
        vec![name(&node.metadata).to_owned()],
    )
}

pub(crate) fn claim_deadline(claim: &NodeClaim, deadline: &str) -> Event {
    event(
        claim_reference(claim),
        EventType::Warning,
        "TerminationGracePeriodExpiring",
        deadline_text(deadline),
        vec![name(&claim.metadata).to_owned()],
    )
}
