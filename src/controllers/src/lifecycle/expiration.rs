//! `nodeclaim.expiration`: gives a machine back when it is as old as its claim allows (`lifecycle-and-disruption.md`
//! §3.1). No budget holds it; only the drain takes its time.

use async_trait::async_trait;
use jiff::Timestamp;
use karpenter_api::NodeClaim;
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::runner::ReconcileError;
use karpenter_runtime::{Action, Key, Reconciler};

use super::objects::{is_deleting, is_managed_claim, later, until};
use super::write;
use crate::Context;
use karpenter_api::duration;

/// The reconciler.
pub(crate) struct Expiration {
    pub(crate) ctx: Context,
}

/// When the claim expires; none = never.
pub(crate) fn expires(claim: &NodeClaim) -> Option<Timestamp> {
    let created = claim.metadata.creation_timestamp.as_ref()?.0;
    // `Never` is no duration.
    let age = duration::parse_hms(claim.spec.expire_after.as_deref()?).ok()?;
    Some(later(created, age))
}

#[async_trait]
impl Reconciler for Expiration {
    fn name(&self) -> &'static str {
        "nodeclaim.expiration"
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
        let ours = is_managed_claim(&claim, &self.ctx.provider.node_class);
        if !ours || is_deleting(&claim.metadata) {
            return Ok(Action::AwaitChange);
        }
        let Some(at) = expires(&claim) else {
            return Ok(Action::AwaitChange);
        };
        let left = until(at, self.ctx.clock.wall());
        if left.is_zero() {
            write::disrupt_claim(&self.ctx, &claim, "expired").await?;
            return Ok(Action::AwaitChange);
        }
        Ok(Action::RequeueAfter(left))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::never("Never", None)]
    #[case::days("720h", Some("2026-01-31T00:00:00Z"))]
    #[case::mixed("1h30m", Some("2026-01-01T01:30:00Z"))]
    fn a_claim_expires_at_its_age(#[case] age: &str, #[case] expected: Option<&str>) {
        let claim: NodeClaim = serde_json::from_value(json!({
            "metadata": {"name": "c", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"expireAfter": age}
        }))
        .expect("a claim");
        assert_eq!(
            expires(&claim),
            expected.map(|t| t.parse().expect("a time"))
        );
    }
}
