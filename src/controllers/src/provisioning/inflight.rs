//! What a claim without a machine will most likely become, so that planning goes on while launches are under way
//! (`scheduling.md` §20 #7). The guess is the cheapest offering that the claim admits: whatever fits the claim's
//! requirements fits every pod the claim was made for, and once the launch tells, the guess is forgotten.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_api::{NodeClaim, Quantity, labels};
use karpenter_model::resources::names;
use karpenter_model::{
    InstanceType, LabelRegistry, NodeView, Offering, Requirement, Requirements, ResourceList,
};

/// Whether the claim has no machine yet.
#[must_use]
pub fn is_unlaunched(view: &NodeView) -> bool {
    view.managed && view.provider_id.is_empty()
}

/// `view` of the unlaunched `claim` with labels and resources of the machine it will most likely be. Unchanged when
/// none of `types` is it.
#[must_use]
pub fn guess(
    view: &NodeView,
    claim: &NodeClaim,
    types: &[Arc<InstanceType>],
    registry: &LabelRegistry,
) -> NodeView {
    let mut out = view.clone();
    let Ok(asked) = Requirements::from_specs(&claim.spec.requirements, registry) else {
        return out;
    };
    add_single_values(&mut out.labels, &asked);
    let Some((chosen, offering)) = likeliest(types, &asked, &view.allocatable, registry) else {
        return out;
    };
    add_single_values(&mut out.labels, &offering.requirements);
    add_single_values(&mut out.labels, &chosen.requirements_as(offering));
    out.labels
        .insert(labels::INSTANCE_TYPE.to_owned(), chosen.name.to_string());
    out.capacity = chosen.capacity.clone();
    out.capacity.set(names::NODES, Quantity::from_units(1));
    out.allocatable = chosen.allocatable.clone();
    out.available = out.allocatable.clone();
    for pod in &out.pods {
        out.available.subtract(&pod.requests);
    }
    out
}

/// The most that an unlaunched claim may turn out to hold: the maximum over the types it admits, by resource.
#[must_use]
pub fn largest(
    claim: &NodeClaim,
    types: &[Arc<InstanceType>],
    registry: &LabelRegistry,
) -> Option<ResourceList> {
    let asked = Requirements::from_specs(&claim.spec.requirements, registry).ok()?;
    let fitting = types.iter().filter(|t| admits(t, &asked));
    let mut most = ResourceList::max(fitting.map(|t| &t.capacity));
    if most.is_empty() {
        return None;
    }
    most.set(names::NODES, Quantity::from_units(1));
    Some(most)
}

fn admits(t: &InstanceType, asked: &Requirements) -> bool {
    asked.allows(labels::INSTANCE_TYPE, &t.name) && t.requirements.does_intersect(asked)
}

/// The cheapest offering, of those that can be had if there are any, that `asked` admits and that holds `needed`.
pub(crate) fn likeliest<'a>(
    types: &'a [Arc<InstanceType>],
    asked: &Requirements,
    needed: &ResourceList,
    registry: &LabelRegistry,
) -> Option<(&'a Arc<InstanceType>, &'a Offering)> {
    types
        .iter()
        .filter(|t| admits(t, asked) && needed.fits(&t.allocatable))
        .flat_map(|t| t.offerings.iter().map(move |o| (t, o)))
        .filter(|(_, o)| o.suits(asked, registry))
        .min_by(|(a, x), (b, y)| {
            // What cannot be had now may still be what a launch in progress got.
            y.available
                .cmp(&x.available)
                .then_with(|| x.price.total_cmp(&y.price))
                .then_with(|| a.name.cmp(&b.name))
                .then_with(|| x.cmp_by_price(y))
                .then(Ordering::Equal)
        })
}

fn add_single_values(labels: &mut BTreeMap<String, String>, requirements: &Requirements) {
    for requirement in requirements.iter() {
        if let Some(value) = Requirement::single(requirement) {
            labels
                .entry(requirement.key.to_string())
                .or_insert_with(|| value.to_string());
        }
    }
}
