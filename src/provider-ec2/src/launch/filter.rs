//! Which types and offerings a launch asks for (`aws-provider.md` §4.2, §4.3): the filters in their order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_api::Quantity;
use karpenter_api::labels::{CAPACITY_ON_DEMAND, CAPACITY_RESERVED, CAPACITY_SPOT, CAPACITY_TYPE};
use karpenter_model::instance::by_price;
use karpenter_model::{InstanceType, LabelRegistry, Offering, Requirements, ResourceList};

use crate::labels::{SIZE, TENANCY, resources as r};
use crate::reservations::Reserved;

/// Most types a fleet request names.
pub(crate) const MAX_TYPES: usize = 60;

/// Why no type is left.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NothingLeft {
    /// All filtered out.
    #[error("all requested instance types were unavailable during launch")]
    Unavailable,
    /// The cheapest types do not have enough distinct values.
    #[error("minValues of {key} is {wanted}, the {MAX_TYPES} cheapest instance types have {got}")]
    MinValues {
        /// Label key.
        key: String,
        /// Asked for.
        wanted: i64,
        /// There.
        got: usize,
    },
}

/// Applies the filters; the result is in order of price.
pub(crate) fn filter(
    types: &[Arc<InstanceType>],
    reqs: &Requirements,
    requests: &ResourceList,
    labels: &LabelRegistry,
    best_effort_min_values: bool,
) -> Result<Vec<Arc<InstanceType>>, NothingLeft> {
    let compatible = |t: &&Arc<InstanceType>| {
        reqs.is_compatible(
            &t.requirements,
            karpenter_model::Undefined::WellKnown(labels),
        ) && requests.fits(&t.allocatable)
            && t.offers(reqs, labels).next().is_some()
    };
    let mut left: Vec<Arc<InstanceType>> = types.iter().filter(compatible).cloned().collect();
    if reqs.allows(CAPACITY_TYPE, CAPACITY_RESERVED) {
        keep_reserved(&mut left, reqs, labels);
    }
    if !reqs.has_min_values() {
        drop_exotic(&mut left);
        drop_dear_spot(&mut left, reqs, labels);
    }
    let mut left: Vec<Arc<InstanceType>> = by_price(&left, reqs, labels)
        .into_iter()
        .map(|(t, _)| t.clone())
        .collect();
    left.truncate(MAX_TYPES);
    if left.is_empty() {
        return Err(NothingLeft::Unavailable);
    }
    if !best_effort_min_values {
        check_min_values(&left, reqs)?;
    }
    Ok(left)
}

/// Where a reservation has a machine, reserved machines only, and of one kind, for a fleet buys one kind: that with the
/// cheapest one. Of a block exactly one pool; else in each zone of a type the reservation that has most left.
fn keep_reserved(types: &mut Vec<Arc<InstanceType>>, reqs: &Requirements, labels: &LabelRegistry) {
    let usable = |o: &&Offering| o.is_reserved() && o.reservation_capacity > 0;
    let mut best: Option<(f64, u8, Arc<str>, Offering)> = None;
    for held in types.iter() {
        for offer in held.offers(reqs, labels).filter(usable) {
            let Some(reserved) = Reserved::of(offer) else {
                continue;
            };
            let better = best.as_ref().is_none_or(|(price, order, ..)| {
                let ours = (offer.price, class(&reserved));
                ours.0
                    .total_cmp(price)
                    .then_with(|| ours.1.cmp(order))
                    .is_lt()
            });
            if better {
                let found = (
                    offer.price,
                    class(&reserved),
                    held.name.clone(),
                    offer.clone(),
                );
                best = Some(found);
            }
        }
    }
    let Some((_, chosen, only, cheapest)) = best else {
        return;
    };
    let block = Reserved::of(&cheapest).is_some_and(|r| r.is_block());
    let kept = |held: &Arc<InstanceType>| {
        let mut of_zone: BTreeMap<&str, &Offering> = BTreeMap::new();
        for offer in held.offers(reqs, labels).filter(usable) {
            let fits = Reserved::of(offer).is_some_and(|r| class(&r) == chosen);
            let named = !block || (held.name == only && is_same(offer, &cheapest));
            let more = of_zone
                .get(offer.zone())
                .is_none_or(|o| offer.reservation_capacity > o.reservation_capacity);
            if fits && named && more {
                of_zone.insert(offer.zone(), offer);
            }
        }
        let offerings: Vec<Offering> = of_zone.into_values().cloned().collect();
        (!offerings.is_empty()).then(|| {
            let mut held = InstanceType::clone(held);
            held.offerings = offerings;
            Arc::new(held)
        })
    };
    *types = types.iter().filter_map(kept).collect();
}

/// Kinds of reservations in the order in which equal prices choose.
fn class(reserved: &Reserved) -> u8 {
    match (reserved.is_block(), reserved.interruptible) {
        (false, false) => 0,
        (true, _) => 1,
        (false, true) => 2,
    }
}

fn is_same(a: &Offering, b: &Offering) -> bool {
    Reserved::of(a) == Reserved::of(b)
}

/// Metal and accelerated machines only when there is nothing else: nobody who needs one leaves the others possible.
fn drop_exotic(types: &mut Vec<Arc<InstanceType>>) {
    let exotic = |t: &InstanceType| {
        let metal = t
            .requirements
            .get(SIZE)
            .and_then(|s| s.single())
            .is_some_and(|s| s.contains("metal"));
        metal
            || [
                r::NEURON,
                r::NEURON_CORE,
                r::AMD_GPU,
                r::NVIDIA_GPU,
                r::GAUDI,
            ]
            .iter()
            .any(|name| t.capacity.get(name) > Quantity::ZERO)
    };
    if types.iter().any(|t| !exotic(t)) {
        types.retain(|t| !exotic(t));
    }
}

/// Spot that costs more than the cheapest on-demand offering is not worth its risk.
fn drop_dear_spot(types: &mut Vec<Arc<InstanceType>>, reqs: &Requirements, labels: &LabelRegistry) {
    if !reqs.allows(CAPACITY_TYPE, CAPACITY_SPOT) || !reqs.allows(CAPACITY_TYPE, CAPACITY_ON_DEMAND)
    {
        return;
    }
    let cheapest = |kind: &str| {
        types
            .iter()
            .flat_map(|t| t.offers(reqs, labels))
            .filter(|o| o.capacity_type() == kind)
            .map(|o| o.price)
            .min_by(f64::total_cmp)
    };
    let (Some(limit), Some(_)) = (cheapest(CAPACITY_ON_DEMAND), cheapest(CAPACITY_SPOT)) else {
        return;
    };
    let dear = |o: &Offering| o.capacity_type() == CAPACITY_SPOT && o.price > limit;
    for held in types.iter_mut() {
        if held.offerings.iter().any(dear) {
            // A copy: the list that this came from is shared.
            Arc::make_mut(held).offerings.retain(|o| !dear(o));
        }
    }
    types.retain(|t| t.offers(reqs, labels).next().is_some());
}

fn check_min_values(types: &[Arc<InstanceType>], reqs: &Requirements) -> Result<(), NothingLeft> {
    for req in reqs.iter() {
        let Some(wanted) = req.min_values else {
            continue;
        };
        let values: BTreeSet<&Arc<str>> = types
            .iter()
            .filter_map(|t| t.requirements.get(&req.key))
            .flat_map(|own| own.values.iter().filter(|v| req.has(v)))
            .collect();
        if i64::try_from(values.len()).is_ok_and(|n| n < wanted) {
            return Err(NothingLeft::MinValues {
                key: req.key.to_string(),
                wanted,
                got: values.len(),
            });
        }
    }
    Ok(())
}

/// Reserved or else spot if it is allowed and to be had, else on-demand.
pub(crate) fn capacity_type(
    types: &[Arc<InstanceType>],
    reqs: &Requirements,
    labels: &LabelRegistry,
) -> &'static str {
    let offered = |kind: &&'static str| {
        let mut offers = types.iter().flat_map(|t| t.offers(reqs, labels));
        reqs.allows(CAPACITY_TYPE, kind) && offers.any(|o| o.capacity_type() == *kind)
    };
    let preferred = [CAPACITY_RESERVED, CAPACITY_SPOT].into_iter().find(offered);
    preferred.unwrap_or(CAPACITY_ON_DEMAND)
}

/// Default tenancy unless only dedicated is allowed.
pub(crate) fn tenancy(reqs: &Requirements) -> &'static str {
    if !reqs.allows(TENANCY, "default") && reqs.allows(TENANCY, "dedicated") {
        "dedicated"
    } else {
        "default"
    }
}

#[cfg(test)]
mod tests {
    use karpenter_api::labels::ZONE;
    use karpenter_model::Requirement;
    use karpenter_model::resources::names;
    use rstest::rstest;

    use super::*;

    fn held(name: &str, gpus: i64, offers: &[(&str, f64)]) -> Arc<InstanceType> {
        let size = name.split_once('.').unwrap().1;
        let reqs = [
            Requirement::is_in(karpenter_api::labels::INSTANCE_TYPE, [name]),
            Requirement::is_in(SIZE, [size]),
            Requirement::is_in(ZONE, ["a"]),
            Requirement::is_in(CAPACITY_TYPE, ["spot", "on-demand"]),
        ];
        let capacity = [
            (names::CPU, Quantity::from_units(4)),
            (r::NVIDIA_GPU, Quantity::from_units(gpus)),
        ];
        Arc::new(InstanceType::new(
            name,
            reqs.into_iter().collect(),
            offers
                .iter()
                .map(|(kind, price)| Offering::new("a", kind, *price))
                .collect(),
            capacity.into_iter().collect(),
            karpenter_model::instance::Overhead::default(),
        ))
    }

    fn run(types: &[Arc<InstanceType>], reqs: &Requirements) -> Result<Vec<String>, NothingLeft> {
        let requests = [(names::CPU, Quantity::from_units(2))]
            .into_iter()
            .collect();
        let left = filter(types, reqs, &requests, &crate::labels::registry(), false)?;
        Ok(left.iter().map(|t| t.name.to_string()).collect())
    }

    fn reqs(of: Vec<Requirement>) -> Requirements {
        of.into_iter().collect()
    }

    #[rstest]
    #[case::by_price(vec![("b.l", 0, 2.0), ("a.l", 0, 1.0)], &["a.l", "b.l"])]
    #[case::no_exotic(vec![("a.metal", 0, 1.0), ("g.l", 1, 1.0), ("b.l", 0, 2.0)], &["b.l"])]
    #[case::only_exotic(vec![("a.metal", 0, 1.0), ("g.l", 1, 2.0)], &["a.metal", "g.l"])]
    fn left(#[case] types: Vec<(&str, i64, f64)>, #[case] want: &[&str]) {
        let types: Vec<_> = types
            .into_iter()
            .map(|(name, gpus, price)| held(name, gpus, &[("on-demand", price)]))
            .collect();
        assert_eq!(run(&types, &Requirements::new()).unwrap(), want);
    }

    #[test]
    fn spot_dearer_than_on_demand_goes_and_equal_stays() {
        let types = [
            held("a.l", 0, &[("spot", 3.0), ("on-demand", 2.0)]),
            held("b.l", 0, &[("spot", 2.0)]),
            held("c.l", 0, &[("spot", 2.1)]),
        ];
        assert_eq!(run(&types, &Requirements::new()).unwrap(), ["a.l", "b.l"]);
        let spot_only = reqs(vec![Requirement::is_in(CAPACITY_TYPE, ["spot"])]);
        assert_eq!(run(&types, &spot_only).unwrap(), ["b.l", "c.l", "a.l"]);
        assert_eq!(types[0].offerings.len(), 2, "the shared type is untouched");
    }

    #[test]
    fn min_values_are_checked_and_switch_two_filters_off() {
        let types = [
            held("a.metal", 0, &[("on-demand", 1.0)]),
            held("b.l", 0, &[("on-demand", 2.0)]),
        ];
        let min = |n| {
            let mut req = Requirement::exists(karpenter_api::labels::INSTANCE_TYPE);
            req.min_values = Some(n);
            reqs(vec![req])
        };
        assert_eq!(run(&types, &min(2)).unwrap(), ["a.metal", "b.l"]);
        let error = run(&types, &min(3)).unwrap_err();
        assert!(matches!(
            error,
            NothingLeft::MinValues {
                wanted: 3,
                got: 2,
                ..
            }
        ));
    }

    /// An offering out of a reservation.
    fn out_of(
        zone: &str,
        id: &str,
        kind: &str,
        interruptible: bool,
        left: u32,
        price: f64,
    ) -> Offering {
        use crate::labels as l;
        let mut offering = Offering::new(zone, CAPACITY_RESERVED, price);
        let interruptible = interruptible.to_string();
        for (key, value) in [
            (l::RESERVATION_ID, id),
            (l::RESERVATION_TYPE, kind),
            (l::RESERVATION_INTERRUPTIBLE, &interruptible),
        ] {
            offering.requirements.set(Requirement::is_in(key, [value]));
        }
        offering.reservation_capacity = left;
        offering.available = left > 0;
        offering
    }

    /// Types of zones a and b with one on-demand offering each, and what is left of them: `type reservation, ...`.
    #[rstest]
    // The kind with the cheapest machine, and of that kind what is anywhere.
    #[case::cheapest_kind(
        vec![("a.l", vec![out_of("a", "cr-1", "default", false, 1, 2.0)]),
             ("b.l", vec![out_of("a", "cr-2", "default", true, 1, 1.0)]),
             ("c.l", vec![out_of("a", "cr-3", "default", true, 1, 3.0)])],
        &["b.l cr-2", "c.l cr-3"])]
    #[case::ties_go_to_default(
        vec![("a.l", vec![out_of("a", "cr-1", "default", true, 1, 1.0)]),
             ("b.l", vec![out_of("a", "cr-2", "default", false, 1, 1.0)])],
        &["b.l cr-2"])]
    #[case::one_pool_of_blocks(
        vec![("a.l", vec![out_of("a", "cr-1", "capacity-block", false, 1, 1.0), out_of("b", "cr-2", "capacity-block", false, 9, 1.1)]),
             ("b.l", vec![out_of("a", "cr-3", "capacity-block", false, 9, 2.0)])],
        &["a.l cr-1"])]
    #[case::most_left_of_a_zone(
        vec![("a.l", vec![out_of("a", "cr-1", "default", false, 1, 1.0), out_of("a", "cr-2", "default", false, 7, 1.0),
                          out_of("b", "cr-3", "default", false, 2, 1.0)])],
        &["a.l cr-2 cr-3"])]
    #[case::used_up(
        vec![("a.l", vec![out_of("a", "cr-1", "default", false, 0, 1.0)])],
        &["a.l -"])]
    fn reserved_machines_come_first(
        #[case] types: Vec<(&str, Vec<Offering>)>,
        #[case] want: &[&str],
    ) {
        let types: Vec<_> = types
            .into_iter()
            .map(|(name, offers)| {
                let mut of = InstanceType::clone(&held(name, 0, &[("on-demand", 5.0)]));
                let kinds = ["spot", "on-demand", "reserved"];
                of.requirements
                    .set(Requirement::is_in(CAPACITY_TYPE, kinds));
                of.requirements.set(Requirement::is_in(ZONE, ["a", "b"]));
                of.offerings.extend(offers);
                Arc::new(of)
            })
            .collect();
        let any = reqs(vec![Requirement::is_in(
            CAPACITY_TYPE,
            ["reserved", "on-demand"],
        )]);
        let labels = crate::labels::registry();
        let requests = ResourceList::new();
        let left = filter(&types, &any, &requests, &labels, false).unwrap();
        let told: Vec<String> = left
            .iter()
            .map(|t| {
                let ids = t
                    .offers(&any, &labels)
                    .map(|o| Reserved::of(o).map_or("-".to_owned(), |r| r.id));
                format!("{} {}", t.name, ids.collect::<Vec<_>>().join(" "))
            })
            .collect();
        assert_eq!(told, want);
        let kind = capacity_type(&left, &any, &labels);
        let reserved = want.iter().all(|w| w.contains("cr-"));
        assert_eq!(kind == CAPACITY_RESERVED, reserved);
        let by_the_hour = reqs(vec![Requirement::is_in(CAPACITY_TYPE, ["on-demand"])]);
        let all = filter(&types, &by_the_hour, &requests, &labels, false).unwrap();
        assert_eq!(
            all.len(),
            types.len(),
            "who may not use them is not narrowed"
        );
    }

    #[test]
    fn nothing_left_is_an_error() {
        let types = [held("a.l", 0, &[("spot", 1.0)])];
        let on_demand = reqs(vec![Requirement::is_in(CAPACITY_TYPE, ["on-demand"])]);
        assert_eq!(run(&types, &on_demand), Err(NothingLeft::Unavailable));
    }

    #[test]
    fn the_cheapest_sixty() {
        let types: Vec<_> = (0..80)
            .map(|i| held(&format!("t{i}.l"), 0, &[("on-demand", f64::from(i))]))
            .collect();
        assert_eq!(run(&types, &Requirements::new()).unwrap().len(), MAX_TYPES);
    }
}
