//! Machines out of reservations: whatever the launches pick, no reservation gives more machines than it has.

use std::collections::{BTreeMap, BTreeSet};

use karpenter_api::labels::{CAPACITY_RESERVED, CAPACITY_TYPE};
use karpenter_model::{Offering, Plan, Problem};

use crate::Findings;
use crate::case::Case;

pub(crate) fn check(case: &Case<'_>, findings: &mut Findings) {
    let problem = case.problem;
    let key = problem.labels.reservation_id.as_deref().unwrap_or_default();
    // Every reservation that a machine could come out of counts it.
    let mut held: BTreeMap<String, usize> = BTreeMap::new();
    for purchase in &case.purchases {
        let what = &purchase.what;
        let mut ids: BTreeSet<Option<String>> = BTreeSet::new();
        let mut otherwise = false;
        for offer in purchase.sold.iter().flat_map(|s| &s.offers) {
            if value(offer, CAPACITY_TYPE) == Some(CAPACITY_RESERVED) {
                ids.insert(value(offer, key).map(str::to_owned));
            } else {
                otherwise = true;
            }
        }
        // A unit is counted for it: the launch must not be free to leave it, or to take another's.
        if ids.len() > 1 || (otherwise && !ids.is_empty()) {
            let mut from: Vec<&str> = ids.iter().flatten().map(String::as_str).collect();
            from.extend(otherwise.then_some("none"));
            findings.error(
                "reservations",
                format!(
                    "{what} could come out of reservation {}; one is to be settled",
                    from.join(" or ")
                ),
            );
        }
        for id in ids {
            match id {
                _ if !problem.options.reserved_capacity => findings.error(
                    "reservations",
                    format!("{what} could come out of a reservation, which the settings forbid"),
                ),
                None => findings.error(
                    "reservations",
                    format!("{what} could come out of a reservation that has no name"),
                ),
                Some(id) => *held.entry(id).or_default() += 1,
            }
        }
    }
    for (id, bought) in held {
        let (has, coming) = units(problem, &id);
        if u32::try_from(bought + coming).is_ok_and(|n| n > has) {
            findings.error(
                "reservations",
                format!(
                    "{bought} new nodes and {coming} under way could come out of reservation {id}, which has {has} machines left"
                ),
            );
        }
    }
}

/// What a reservation has left, and how many claims that are not launched yet are to come out of it.
fn units(problem: &Problem, id: &str) -> (u32, usize) {
    let key = problem.labels.reservation_id.as_deref().unwrap_or_default();
    let under_way = problem.nodes.iter().filter(|n| {
        let has = |key: &str, value: &str| n.labels.get(key).is_some_and(|own| own == value);
        n.managed
            && n.provider_id.is_empty()
            && has(key, id)
            && has(CAPACITY_TYPE, CAPACITY_RESERVED)
    });
    let of_id = problem
        .pools
        .iter()
        .flat_map(|p| &p.instance_types)
        .flat_map(|t| &t.offerings)
        .filter(|o| o.available && value(o, key) == Some(id));
    let has = of_id.map(|o| o.reservation_capacity).min().unwrap_or(0);
    (has, under_way.count())
}

/// Whether a machine could still be bought from an offering once the plan is carried out, as far as reservations go.
pub(crate) fn is_left(problem: &Problem, plan: &Plan, offering: &Offering) -> bool {
    if value(offering, CAPACITY_TYPE) != Some(CAPACITY_RESERVED) {
        return true;
    }
    let key = problem.labels.reservation_id.as_deref().unwrap_or_default();
    let Some(id) = value(offering, key) else {
        return false;
    };
    let pinned = plan.new_nodes.iter().filter(|n| {
        let held = n.requirements.map.get(key);
        held.is_some_and(|r| !r.complement && r.values.iter().any(|v| &**v == id))
    });
    let (has, coming) = units(problem, id);
    problem.options.reserved_capacity
        && u32::try_from(pinned.count() + coming).is_ok_and(|n| n < has)
}

fn value<'a>(offering: &'a Offering, key: &str) -> Option<&'a str> {
    let requirement = offering.requirements.map.get(key)?;
    let mut values = requirement.values.iter();
    let first = values.next()?;
    (!requirement.complement && values.next().is_none()).then_some(&**first)
}
