//! Limits of a NodePool, looked at once more before each claim is created (`scheduling.md` §6.5).

use std::collections::BTreeMap;

use karpenter_api::kinds::RawQuantity;
use karpenter_api::{NodePool, Quantity};
use karpenter_model::ResourceList;
use karpenter_model::resources::{self, BadResource};

/// The pool's limit of machines; none = there is none. One that cannot be read lets nothing be bought.
#[must_use]
pub fn of_nodes(pool: &NodePool) -> Option<u64> {
    let raw = pool.spec.limits.as_ref()?.get(resources::names::NODES)?;
    let limit = raw
        .0
        .parse::<Quantity>()
        .map_or(0, |q| q.nanos() / 1_000_000_000);
    Some(u64::try_from(limit).unwrap_or(0))
}

/// The first limit that `usage` is over, as `<resource> <usage> of <limit>`; none = all hold.
///
/// # Errors
/// A limit that is no quantity: nothing must be bought under a limit that cannot be read.
pub fn exceeded(
    limits: Option<&BTreeMap<String, RawQuantity>>,
    usage: &ResourceList,
) -> Result<Option<String>, BadResource> {
    let Some(limits) = limits else {
        return Ok(None);
    };
    let limits = ResourceList::from_raw(limits)?;
    let over = limits.iter().find(|(name, most)| usage.get(name) > *most);
    Ok(over.map(|(name, most)| {
        let (have, most) = (
            resources::text(name, usage.get(name)),
            resources::text(name, most),
        );
        format!("{name} {have} of {most}")
    }))
}
