//! What a plan says of prices: the offering that a launch is expected to buy and the next best one are real, at the
//! price that is asked for them now, which NodeOverlays may have changed, and nothing else would be cheaper.

use karpenter_model::plan::{PlannedNode, PricedOffering};
use karpenter_model::{InstanceType, Offering, PoolView};

use crate::Findings;
use crate::claims::{PRICE_EPSILON, offers};
use crate::labels::only_value;

pub(crate) fn check(pool: &PoolView, node: &PlannedNode, what: &str, findings: &mut Findings) {
    // Of several types of a name it is the first.
    let named = |name: &str| pool.instance_types.iter().find(|t| &*t.name == name);
    let best = |sold: &InstanceType| {
        let all = offers(&node.requirements.map, sold).into_iter();
        all.map(|o| o.price).min_by(f64::total_cmp)
    };
    let is_sold = |said: &PricedOffering| {
        let listed = node.instance_types.contains(&said.instance_type);
        let sold = named(&said.instance_type).filter(|_| listed);
        sold.is_some_and(|t| {
            let mut all = offers(&node.requirements.map, t).into_iter();
            all.any(|o| is_meant(said, o))
        })
    };
    for (which, said) in [
        ("cheapest", Some(&node.cheapest)),
        ("next best", node.runner_up.as_ref()),
    ] {
        if let Some(said) = said.filter(|said| !is_sold(said)) {
            findings.error(
                "prices",
                format!(
                    "{what} says that its {which} offering is {} {} in {} at {}, which is not sold",
                    said.instance_type, said.capacity_type, said.zone, said.price
                ),
            );
        }
    }
    let others = node.instance_types.iter();
    let others = others.filter(|name| **name != node.cheapest.instance_type);
    let next = others
        .filter_map(|name| best(named(name)?))
        .min_by(f64::total_cmp);
    let said = node.runner_up.as_ref().map(|o| o.price);
    let agree = match (said, next) {
        (Some(said), Some(next)) => (said - next).abs() <= PRICE_EPSILON,
        (None, None) => true,
        _ => false,
    };
    if !agree {
        let text = |price: Option<f64>| price.map_or("nothing".to_owned(), |p| p.to_string());
        findings.error(
            "prices",
            format!(
                "{what} says its next best offering costs {}, it costs {}",
                text(said),
                text(next)
            ),
        );
    }
}

/// Whether an offering is the one that is spoken of.
fn is_meant(said: &PricedOffering, offering: &Offering) -> bool {
    let is = |key: &str, value: &str| {
        let have = offering.requirements.map.get(key);
        have.and_then(only_value) == Some(value)
    };
    is(karpenter_api::labels::ZONE, &said.zone)
        && is(karpenter_api::labels::CAPACITY_TYPE, &said.capacity_type)
        && (offering.price - said.price).abs() <= PRICE_EPSILON
}
