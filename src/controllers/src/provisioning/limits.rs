//! Limits of a NodePool, looked at once more before each claim is created (`scheduling.md` §6.5).

use std::collections::BTreeMap;

use karpenter_api::kinds::RawQuantity;
use karpenter_model::ResourceList;
use karpenter_model::resources::{self, BadResource};

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
