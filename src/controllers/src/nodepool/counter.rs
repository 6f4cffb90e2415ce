//! `nodepool.counter`: what a pool's machines add up to, in its status (`lifecycle-and-disruption.md` §3.2).

use std::time::Duration;

use async_trait::async_trait;
use karpenter_api::{NodePool, Quantity};
use karpenter_model::ResourceList;
use karpenter_model::resources::names;
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::runner::ReconcileError;
use karpenter_runtime::{Action, Key, Reconciler};

use super::cost::Cost;
use crate::Context;
use crate::lifecycle::write;

/// How long changes are gathered before the status is written: a scale-up is one write, not one a machine.
pub(super) const GATHER: Duration = Duration::from_secs(1);

/// Resources that are in the status even when there are none.
const ALWAYS: [&str; 5] = [
    names::CPU,
    names::MEMORY,
    names::PODS,
    names::EPHEMERAL_STORAGE,
    names::NODES,
];

pub(super) struct Counter {
    pub(super) ctx: Context,
    pub(super) cost: Cost,
}

#[async_trait]
impl Reconciler for Counter {
    fn name(&self) -> &'static str {
        "nodepool.counter"
    }
    fn group_kind(&self) -> (&'static str, &'static str) {
        ("karpenter.sh", "NodePool")
    }
    fn metrics(&self) -> Option<&Metrics> {
        Some(&self.ctx.metrics)
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let Some(pool) = self.ctx.state.node_pool(&key.name) else {
            self.cost.forget(&self.ctx, &key.name);
            return Ok(Action::AwaitChange);
        };
        if super::is_managed(&pool, &self.ctx.provider.node_class) {
            self.cost.tell(&self.ctx, &pool).await;
            let wanted = counted(&pool, self.ctx.state.usage(&key.name));
            write::pool_status(&self.ctx, &pool, &wanted).await?;
        }
        Ok(Action::AwaitChange)
    }
}

/// `pool` with `usage` in its status. Amounts that are equal keep their text.
fn counted(pool: &NodePool, mut usage: ResourceList) -> NodePool {
    for name in ALWAYS {
        if !usage.contains(name) {
            usage.set(name, Quantity::ZERO);
        }
    }
    let mut wanted = pool.clone();
    wanted.status.nodes = Some(usage.get(names::NODES).units());
    if ResourceList::from_raw(&pool.status.resources).ok().as_ref() != Some(&usage) {
        wanted.status.resources = usage.to_raw();
    }
    wanted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pool_without_machines_counts_zero_of_everything() {
        let pool = counted(&NodePool::default(), ResourceList::new());
        let status = serde_json::to_value(&pool.status).unwrap();
        assert_eq!(
            status,
            json!({"nodes": 0, "resources": {"cpu": "0", "memory": "0", "pods": "0", "ephemeral-storage": "0", "nodes": "0"}})
        );
    }

    #[test]
    fn counting_again_changes_nothing_even_if_the_text_is_another() {
        let usage = || -> ResourceList {
            [
                ("cpu", Quantity::from_units(2)),
                ("nodes", Quantity::from_units(1)),
            ]
            .into_iter()
            .collect()
        };
        let mut pool = counted(&NodePool::default(), usage());
        assert_eq!(pool.status.nodes, Some(1));
        pool.status.resources.insert(
            "cpu".to_owned(),
            karpenter_api::kinds::RawQuantity("2000m".to_owned()),
        );
        assert_eq!(counted(&pool, usage()), pool);
    }
}
