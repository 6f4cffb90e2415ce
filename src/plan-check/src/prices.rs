//! What a plan says of prices: the offering that a launch is expected to buy and the next best one are real, at the
//! price that is asked for them now, which NodeOverlays may have changed, and nothing else would be cheaper.

use karpenter_model::Offering;
use karpenter_model::plan::PricedOffering;

use crate::Findings;
use crate::case::{Purchase, Sold};
use crate::claims::PRICE_EPSILON;
use crate::labels::only_value;

pub(crate) fn check(purchase: &Purchase<'_>, findings: &mut Findings) {
    let (what, node) = (&purchase.what, purchase.node);
    let best = |sold: &Sold<'_>| {
        let all = sold.offers.iter();
        all.map(|o| o.price).min_by(f64::total_cmp)
    };
    let is_sold = |said: &PricedOffering| {
        let mut listed = purchase.sold.iter();
        let sold = listed.find(|s| s.instance_type.name == said.instance_type);
        sold.is_some_and(|s| s.offers.iter().any(|o| is_meant(said, o)))
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
    let others = purchase.sold.iter();
    let others = others.filter(|s| s.instance_type.name != node.cheapest.instance_type);
    let next = others.filter_map(best).min_by(f64::total_cmp);
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
