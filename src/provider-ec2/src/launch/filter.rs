//! Which types and offerings a launch asks for (`aws-provider.md` §4.2, §4.3): the filters in their order. Filters for
//! reserved capacity are not here yet: no offering is reserved so far.

use std::collections::BTreeSet;
use std::sync::Arc;

use karpenter_api::Quantity;
use karpenter_api::labels::{CAPACITY_ON_DEMAND, CAPACITY_SPOT, CAPACITY_TYPE};
use karpenter_model::instance::by_price;
use karpenter_model::{InstanceType, LabelRegistry, Requirements, ResourceList};

use crate::labels::{SIZE, TENANCY, resources as r};

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
    let dear =
        |o: &karpenter_model::Offering| o.capacity_type() == CAPACITY_SPOT && o.price > limit;
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

/// Spot if it is allowed and to be had, else on-demand.
pub(crate) fn capacity_type(
    types: &[Arc<InstanceType>],
    reqs: &Requirements,
    labels: &LabelRegistry,
) -> &'static str {
    let offered = types
        .iter()
        .flat_map(|t| t.offers(reqs, labels))
        .any(|o| o.capacity_type() == CAPACITY_SPOT);
    if offered && reqs.allows(CAPACITY_TYPE, CAPACITY_SPOT) {
        CAPACITY_SPOT
    } else {
        CAPACITY_ON_DEMAND
    }
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
    use karpenter_model::resources::names;
    use karpenter_model::{Offering, Requirement};
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
