//! `karpenter_nodepools_cost_total`: what the machines of a NodePool cost per hour, as its provider tells prices now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_api::{NodePool, labels};
use karpenter_model::{InstanceType, NodeView};
use parking_lot::Mutex;

use crate::Context;
use crate::lifecycle::objects::name;

const COST: &str = "karpenter_nodepools_cost_total";
const ERRORS: &str = "karpenter_nodepools_cost_tracker_errors_total";

/// Machines whose price could not be told, by pool: each is counted once.
#[derive(Default)]
pub(super) struct Cost {
    unknown: Mutex<BTreeMap<String, BTreeSet<Arc<str>>>>,
}

impl Cost {
    /// Tells what the pool costs now.
    pub(super) async fn tell(&self, ctx: &Context, pool: &NodePool) {
        let pool_name = name(&pool.metadata);
        let Ok(types) = ctx.provider.cloud.instance_types(pool).await else {
            // The error is counted where it came from. What the pool cost before is the best that is known.
            return;
        };
        let types: BTreeMap<&str, &InstanceType> = types.iter().map(|t| (&*t.name, &**t)).collect();
        let mut total = 0.0;
        let mut unknown = BTreeSet::new();
        for view in ctx.state.node_views() {
            // Nothing is paid for what is not launched.
            if view.node_pool.as_deref() != Some(pool_name) || view.provider_id.is_empty() {
                continue;
            }
            match price(&view, &types) {
                Some(price) => total += price,
                None => {
                    unknown.insert(view.name.clone());
                }
            }
        }
        let label = [("nodepool", pool_name)];
        ctx.metrics.set(COST, &label, total);
        let mut known = self.unknown.lock();
        let before = known.insert(pool_name.to_owned(), unknown.clone());
        let before = before.unwrap_or_default();
        let news = unknown.difference(&before).count();
        let news = u32::try_from(news).map_or(f64::MAX, f64::from);
        ctx.metrics.add(ERRORS, &label, news);
    }

    /// The pool is gone.
    pub(super) fn forget(&self, ctx: &Context, pool: &str) {
        ctx.metrics.remove(COST, &[("nodepool", pool)]);
        self.unknown.lock().remove(pool);
    }
}

/// Dollars per hour of the offering that a machine was bought under.
fn price(view: &NodeView, types: &BTreeMap<&str, &InstanceType>) -> Option<f64> {
    let value = |key| view.labels.get(key).map(String::as_str);
    let bought = types.get(value(labels::INSTANCE_TYPE)?)?;
    let offering = bought.offering(value(labels::ZONE)?, value(labels::CAPACITY_TYPE)?)?;
    offering.price.is_finite().then_some(offering.price)
}

#[cfg(test)]
mod tests {
    use karpenter_model::{Offering, Requirements, ResourceList};

    use super::*;

    #[test]
    fn a_price_is_told_for_what_was_bought_and_for_nothing_else() {
        let offers = vec![
            Offering::new("a", "spot", 0.5),
            Offering::new("b", "spot", f64::NAN),
        ];
        let (none, no) = (ResourceList::new, Requirements::new);
        let small = InstanceType::new("small", no(), offers, none(), Default::default());
        let types = BTreeMap::from([("small", &small)]);
        let view = |zone: &str, kind: &str| NodeView {
            labels: [
                (labels::INSTANCE_TYPE.to_owned(), kind.to_owned()),
                (labels::ZONE.to_owned(), zone.to_owned()),
                (labels::CAPACITY_TYPE.to_owned(), "spot".to_owned()),
            ]
            .into(),
            ..NodeView::default()
        };
        assert_eq!(price(&view("a", "small"), &types), Some(0.5));
        assert_eq!(price(&view("b", "small"), &types), None);
        assert_eq!(price(&view("c", "small"), &types), None);
        assert_eq!(price(&view("a", "large"), &types), None);
    }
}
