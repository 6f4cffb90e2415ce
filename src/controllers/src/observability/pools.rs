//! `karpenter_nodepools_limit` and `_usage`.

use karpenter_model::ResourceList;
use karpenter_runtime::metrics::Metrics;
use karpenter_state::Store;

use super::{amount, resource_label};
use crate::lifecycle::objects::name;

/// Sets the gauges of all NodePools.
pub(super) fn tell(metrics: &Metrics, state: &Store) {
    let (mut limits, mut usage) = (Vec::new(), Vec::new());
    for pool in state.node_pools() {
        let pool_name = name(&pool.metadata);
        let samples = |to: &mut Vec<(Vec<Box<str>>, f64)>, amounts: &ResourceList| {
            to.extend(amounts.iter().map(|(resource, quantity)| {
                let values = vec![resource_label(resource).into(), pool_name.into()];
                (values, amount(quantity))
            }));
        };
        // What cannot be read is told as the NodePool's condition.
        let limit = pool.spec.limits.as_ref().map(ResourceList::from_raw);
        if let Some(Ok(limit)) = limit {
            samples(&mut limits, &limit);
        }
        if let Ok(used) = ResourceList::from_raw(&pool.status.resources) {
            samples(&mut usage, &used);
        }
    }
    metrics.replace("karpenter_nodepools_limit", limits);
    metrics.replace("karpenter_nodepools_usage", usage);
}
