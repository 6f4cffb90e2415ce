//! Machines to buy while they are being filled, and what of a pool's limits they hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_model::plan::MAX_INSTANCE_TYPES_PER_CLAIM;
use karpenter_model::pod::HostPort;
use karpenter_model::{PodKey, ResourceList};

use crate::catalog::{Pool, Sold};
use crate::choose::ports_clash;
use crate::dense::{Dense, fits};
use crate::sets::{Set, SetId};

/// A machine to buy.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) set: SetId,
    pub(crate) pool: usize,
    /// The type it is filled for, by position in the pool.
    pub(crate) chosen: usize,
    /// What that type costs.
    pub(crate) price: f64,
    /// Requests of its pods.
    pub(crate) need: Dense,
    /// Host ports of its pods.
    pub(crate) ports: Vec<HostPort>,
    /// Its pods with their classes.
    pub(crate) pods: Vec<(usize, PodKey)>,
    /// What it holds of the pool's limits.
    pub(crate) booked: ResourceList,
}

impl Machine {
    /// Whether its pods went elsewhere.
    pub(crate) fn gone(&self) -> bool {
        self.pods.is_empty()
    }
}

/// What a machine would hold of the limits.
pub(crate) struct Booking {
    pub(crate) amount: ResourceList,
    /// Whether the variety asked for is not there.
    pub(crate) short_of_variety: bool,
}

/// Whether a type takes pods of this need and these ports.
pub(crate) fn takes(sold: &Sold, need: &[i64], ports: &[HostPort]) -> bool {
    fits(need, &sold.room) && (sold.ports.is_empty() || !ports_clash(ports, &sold.ports))
}

/// What has to be booked so that the launch may pick any type that has to be listed: the chosen one's capacity, and
/// with minValues the most of the cheapest types that together have the variety. None if limits do not allow it.
pub(crate) fn booking(
    pool: &Pool,
    set: &Set,
    chosen: usize,
    need: &[i64],
    ports: &[HostPort],
    held: Option<&ResourceList>,
) -> Option<Booking> {
    let own = &pool.types.get(chosen)?.instance_type.capacity;
    let mut amount = own.clone();
    let mut short_of_variety = false;
    if set.has_min_values {
        let fitting: Vec<&Sold> = set
            .offers
            .iter()
            .filter_map(|o| pool.types.get(o.at).map(|s| &**s))
            .filter(|s| takes(s, need, ports) && pool.admits(&s.instance_type.capacity, held))
            .take(MAX_INSTANCE_TYPES_PER_CLAIM)
            .collect();
        match enough(set, &fitting) {
            Some(listed) => {
                let all = listed.iter().map(|s| &s.instance_type.capacity);
                amount.max_with(&ResourceList::max(all));
            }
            None => short_of_variety = true,
        }
    }
    pool.admits(&amount, held).then_some(Booking {
        amount,
        short_of_variety,
    })
}

/// The shortest run of types from the front that has as many distinct values of each key as minValues asks.
fn enough<'a, 'b>(set: &Set, types: &'b [&'a Sold]) -> Option<&'b [&'a Sold]> {
    let mut wanted: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for n in 0..=types.len() {
        let met = set.requirements.iter().all(|r| {
            r.min_values.is_none_or(|least| {
                let have = wanted.get(r.key.as_ref()).map_or(0, BTreeSet::len);
                i64::try_from(have).unwrap_or(i64::MAX) >= least
            })
        });
        if met {
            return types.get(..n);
        }
        for requirement in set.requirements.iter().filter(|r| r.min_values.is_some()) {
            let own = types
                .get(n)?
                .instance_type
                .requirements
                .get(&requirement.key);
            let values = own.into_iter().flat_map(|r| &r.values);
            wanted.entry(requirement.key.as_ref()).or_default().extend(
                values
                    .filter(|v| requirement.has(v))
                    .map(|v: &Arc<str>| v.as_ref()),
            );
        }
    }
    None
}
