//! The words of the provisioner's events (`operations.md` §4): functions that return values.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use karpenter_api::kinds::ManagedKind;
use karpenter_api::{NodeClaim, NodePool};
use karpenter_model::Pod;
use karpenter_model::plan::{PlannedNode, Unschedulable};
use karpenter_runtime::events::{DEFAULT_DEDUPE_WINDOW, Event, EventType};

/// Most pools named in one event.
const MAX_POOLS_NAMED: usize = 3;
/// Most steps of a pool's funnel named in one event.
const MAX_STEPS_NAMED: usize = 4;

fn about_pod(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.key.namespace.to_string()),
        name: Some(pod.key.name.to_string()),
        uid: Some(pod.uid.to_string()),
        ..ObjectReference::default()
    }
}

/// A pod has a place: a claim, a node, or a claim that has a node.
pub(super) fn nominated(pod: &Pod, claim: Option<&str>, node: Option<&str>) -> Event {
    let named = [("nodeclaim", claim), ("node", node)];
    let target: Vec<String> = named
        .iter()
        .filter_map(|(kind, name)| name.map(|n| format!("{kind}/{n}")))
        .collect();
    Event {
        about: about_pod(pod),
        kind: EventType::Normal,
        reason: "Nominated",
        message: format!("Pod should schedule on: {}", target.join(", ")),
        dedupe: vec![pod.uid.to_string()],
        window: DEFAULT_DEDUPE_WINDOW,
    }
}

/// A pod has no place, and why.
pub(super) fn failed_scheduling(pod: &Pod, why: &str) -> Event {
    Event {
        about: about_pod(pod),
        kind: EventType::Warning,
        reason: "FailedScheduling",
        message: format!("Failed to schedule pod, {why}"),
        dedupe: vec![pod.uid.to_string()],
        window: Duration::from_secs(5 * 60),
    }
}

/// Nothing that a pool's requirements admit can be bought.
pub(super) fn no_compatible_instance_types(pool: &NodePool, why: &str) -> Event {
    Event {
        about: ObjectReference {
            api_version: Some(format!("{}/{}", NodePool::GROUP, NodePool::VERSION)),
            kind: Some(NodePool::KIND.to_owned()),
            name: pool.metadata.name.clone(),
            uid: pool.metadata.uid.clone(),
            ..ObjectReference::default()
        },
        kind: EventType::Warning,
        reason: "NoCompatibleInstanceTypes",
        message: format!("No instance type can be bought for this NodePool: {why}"),
        dedupe: Vec::new(),
        window: Duration::from_secs(60),
    }
}

/// The reason of an unschedulable pod with the funnel of each pool behind it.
pub(super) fn why(failure: &Unschedulable) -> String {
    let mut text = failure.reason.clone();
    for pool in failure.pools.iter().take(MAX_POOLS_NAMED) {
        // The steps that took nothing away explain nothing.
        let steps: Vec<String> = pool
            .steps
            .iter()
            .filter(|s| s.removed > 0)
            .take(MAX_STEPS_NAMED)
            .map(ToString::to_string)
            .collect();
        if !steps.is_empty() {
            text.push_str(&format!("; nodepool {}: {}", pool.pool, steps.join(", ")));
        }
    }
    let more = failure.pools.len().saturating_sub(MAX_POOLS_NAMED);
    if more > 0 {
        text.push_str(&format!(" and {more} other nodepool(s)"));
    }
    text
}

/// What was decided for a claim, and why: an event of ours on the claim, where `kubectl describe` shows it.
pub(super) fn planned(claim: &NodeClaim, planned: &PlannedNode) -> Event {
    Event {
        about: ObjectReference {
            api_version: Some(format!("{}/{}", NodeClaim::GROUP, NodeClaim::VERSION)),
            kind: Some(NodeClaim::KIND.to_owned()),
            name: claim.metadata.name.clone(),
            uid: claim.metadata.uid.clone(),
            ..ObjectReference::default()
        },
        kind: EventType::Normal,
        reason: "Planned",
        message: why_this(planned),
        dedupe: Vec::new(),
        window: DEFAULT_DEDUPE_WINDOW,
    }
}

/// Why this machine: its price, the next best one's, and what each constraint left over.
pub(super) fn why_this(planned: &PlannedNode) -> String {
    let mut text = format!(
        "Cheapest of {} instance types for {} pod(s) is {}",
        planned.instance_types.len(),
        planned.pods.len(),
        planned.cheapest
    );
    if let Some(next) = &planned.runner_up {
        text.push_str(&format!(", next {next}"));
    }
    let steps: Vec<String> = planned.funnel.iter().map(ToString::to_string).collect();
    if !steps.is_empty() {
        text.push_str(&format!("; {}", steps.join(", ")));
    }
    text
}
