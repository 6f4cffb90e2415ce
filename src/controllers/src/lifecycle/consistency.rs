//! `nodeclaim.consistency`: tells when a machine turned out smaller than it was bought as
//! (`lifecycle-and-disruption.md` §3.1). Upstream looks every ten minutes; what it looks at is watched, so this one
//! looks when it changes.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Node;
use karpenter_api::kinds::RawQuantity;
use karpenter_api::{NodeClaim, Quantity};
use karpenter_model::ResourceList;
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::runner::ReconcileError;
use karpenter_runtime::{Action, Key, Reconciler};

use super::objects::{condition, conditions, is_deleting, is_managed_claim, is_true};
use super::status::{self, Status};
use super::{events, write};
use crate::Context;

/// Least share of the expected capacity that a node must have (percent).
const LEAST_PERCENT: i128 = 90;

/// The reconciler.
pub(crate) struct Consistency {
    pub(crate) ctx: Context,
}

/// What is missing, in words; none = all is there (or it is too early or too late to tell).
fn shortfall(claim: &NodeClaim, node: &Node) -> Option<String> {
    let usable = is_true(&claim.status.conditions, conditions::INITIALIZED);
    if !usable || is_deleting(&claim.metadata) {
        return None;
    }
    let amounts = |raw: Option<&std::collections::BTreeMap<String, RawQuantity>>| {
        raw.and_then(|r| ResourceList::from_raw(r).ok())
            .unwrap_or_default()
    };
    let requested = amounts(Some(&claim.spec.resources.requests));
    let expected = amounts(Some(&claim.status.capacity));
    let there = amounts(node.status.as_ref().and_then(|s| s.capacity.as_ref()));
    requested
        .iter()
        .filter(|(_, amount)| *amount != Quantity::ZERO)
        .map(|(name, _)| (name, expected.get(name), there.get(name)))
        .find(|(_, expected, there)| {
            *expected != Quantity::ZERO
                && there.nanos().saturating_mul(100)
                    < expected.nanos().saturating_mul(LEAST_PERCENT)
        })
        .map(|(name, expected, there)| {
            format!("expected {expected} of resource {name}, but found {there}")
        })
}

#[async_trait]
impl Reconciler for Consistency {
    fn name(&self) -> &'static str {
        "nodeclaim.consistency"
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
        let nodes = self
            .ctx
            .state
            .nodes_by_provider_id(&claim.status.provider_id);
        let [node] = nodes.as_slice() else {
            return Ok(Action::AwaitChange);
        };
        let status = match shortfall(&claim, node) {
            None => Status::True,
            Some(text) => {
                let known = condition(&claim.status.conditions, conditions::CONSISTENT_STATE_FOUND)
                    .is_some_and(|c| c.message == text);
                if !known {
                    tracing::error!(error = %text, "failed consistency check");
                }
                self.ctx
                    .events
                    .publish(events::failed_consistency_check(&claim, &text));
                Status::failed("ConsistencyCheckFailed", &text)
            }
        };
        let mut wanted = (*claim).clone();
        let now = self.ctx.clock.wall();
        status::set(&mut wanted, conditions::CONSISTENT_STATE_FOUND, status, now);
        write::claim(&self.ctx, &claim, &wanted).await?;
        Ok(Action::AwaitChange)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::enough("True", "9Gi", None)]
    #[case::exactly_the_least("True", "9437184Ki", None)]
    #[case::too_little("True", "8Gi", Some("memory"))]
    #[case::too_early_to_tell("Unknown", "8Gi", None)]
    fn a_smaller_machine_is_told(
        #[case] initialized: &str,
        #[case] memory: &str,
        #[case] expected: Option<&str>,
    ) {
        let claim: NodeClaim = serde_json::from_value(json!({
            "metadata": {"name": "c"},
            "spec": {"resources": {"requests": {"memory": "1Gi", "cpu": "0", "fpga": "1"}}},
            "status": {
                "capacity": {"memory": "10Gi", "cpu": "4"},
                "conditions": [{"type": "Initialized", "status": initialized, "reason": "r",
                                "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
            }
        }))
        .expect("a claim");
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n"}, "status": {"capacity": {"memory": memory, "cpu": "1"}}
        }))
        .expect("a node");
        let found = shortfall(&claim, &node);
        assert_eq!(found.is_some(), expected.is_some(), "{found:?}");
        if let (Some(found), Some(word)) = (found, expected) {
            assert!(found.contains(word), "{found}");
        }
    }
}
