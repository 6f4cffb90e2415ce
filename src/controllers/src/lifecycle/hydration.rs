//! `nodeclaim.hydration` and `node.hydration`: put the NodeClass label onto claims and Nodes from before it existed,
//! without which a Node does not count as ours (`lifecycle-and-disruption.md` §3.1).

use async_trait::async_trait;
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::runner::ReconcileError;
use karpenter_runtime::{Action, Key, Reconciler};

use super::objects::{is_managed_claim, label};
use super::write;
use crate::Context;

/// The reconciler over claims; their Nodes come along.
pub(crate) struct Hydration {
    pub(crate) ctx: Context,
}

#[async_trait]
impl Reconciler for Hydration {
    fn name(&self) -> &'static str {
        "nodeclaim.hydration"
    }
    fn group_kind(&self) -> (&'static str, &'static str) {
        ("karpenter.sh", "NodeClaim")
    }
    fn metrics(&self) -> Option<&Metrics> {
        Some(&self.ctx.metrics)
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let kind = &self.ctx.provider.node_class;
        let Some(claim) = self.ctx.state.node_claim(&key.name) else {
            return Ok(Action::AwaitChange);
        };
        if !is_managed_claim(&claim, kind) {
            return Ok(Action::AwaitChange);
        }
        let (label_key, class) = (kind.label(), &claim.spec.node_class_ref.name);
        if label(&claim.metadata, &label_key).is_none() {
            let mut wanted = (*claim).clone();
            let all = wanted.metadata.labels.get_or_insert_default();
            all.insert(label_key.clone(), class.clone());
            write::claim(&self.ctx, &claim, &wanted).await?;
        }
        // Registration copies the label; a Node that has been registered before is given it here.
        for node in self
            .ctx
            .state
            .nodes_by_provider_id(&claim.status.provider_id)
        {
            let registered = label(&node.metadata, karpenter_api::labels::REGISTERED).is_some();
            if registered && label(&node.metadata, &label_key).is_none() {
                let mut wanted = (*node).clone();
                let all = wanted.metadata.labels.get_or_insert_default();
                all.insert(label_key.clone(), class.clone());
                write::node(&self.ctx, &node, &wanted).await?;
            }
        }
        Ok(Action::AwaitChange)
    }
}
