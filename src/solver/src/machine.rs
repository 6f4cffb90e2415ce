//! Machines to buy while they are being filled, and what of a pool's limits they hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_model::plan::MAX_INSTANCE_TYPES_PER_CLAIM;
use karpenter_model::pod::HostPort;
use karpenter_model::{PodKey, ResourceList};

use crate::catalog::{Pool, Sold};
use crate::choose::ports_clash;
use crate::class::Class;
use crate::daemons::Bar;
use crate::dense::{Dense, add, count_of, fits, minus};
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
    /// What its pods ask of it.
    pub(crate) load: Load,
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

/// What pods ask of a machine that they share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Load {
    /// Their requests.
    pub(crate) need: Dense,
    /// Their host ports.
    pub(crate) ports: Vec<HostPort>,
    /// DaemonSets that must not run there.
    pub(crate) bars: Vec<Bar>,
}

impl Load {
    /// Adds pods of a class.
    pub(crate) fn add(&mut self, class: &Class, n: usize) {
        add(&mut self.need, &class.requests, count_of(n));
        self.ports.extend(class.ports.iter().cloned());
        self.bar(&class.bars);
    }

    /// Adds what others ask.
    pub(crate) fn join(&mut self, other: &Self) {
        add(&mut self.need, &other.need, 1);
        self.ports.extend(other.ports.iter().cloned());
        self.bar(&other.bars);
    }

    fn bar(&mut self, bars: &[Bar]) {
        for bar in bars {
            if !self.bars.contains(bar) {
                self.bars.push(bar.clone());
            }
        }
    }

    /// What is left without a pod of a class, of pods of these classes.
    pub(crate) fn without<'a>(&self, class: &Class, left: impl Iterator<Item = &'a Class>) -> Self {
        let mut out = Self {
            need: minus(&self.need, &class.requests),
            ports: self.ports.clone(),
            bars: Vec::new(),
        };
        for port in &class.ports {
            if let Some(at) = out.ports.iter().position(|p| p == port) {
                out.ports.swap_remove(at);
            }
        }
        if !self.bars.is_empty() {
            left.for_each(|c| out.bar(&c.bars));
        }
        out
    }
}

/// What a machine would hold of the limits.
pub(crate) struct Booking {
    pub(crate) amount: ResourceList,
    /// Whether the variety asked for is not there.
    pub(crate) short_of_variety: bool,
}

/// Whether a type of a set takes pods that ask this.
pub(crate) fn takes(sold: &Sold, set: &Set, load: &Load) -> bool {
    fits(&load.need, &sold.room) && lets_in(sold, set, load)
}

/// The same where there is room for them.
pub(crate) fn lets_in(sold: &Sold, set: &Set, load: &Load) -> bool {
    (sold.ports.is_empty() || !ports_clash(&load.ports, &sold.ports))
        && !sold.is_barred(&load.bars, &set.requirements)
}

/// What has to be booked so that the launch may pick any type that has to be listed: the chosen one's capacity, and
/// with minValues the most of the cheapest types that together have the variety. None if limits do not allow it.
pub(crate) fn booking(
    pool: &Pool,
    set: &Set,
    chosen: usize,
    load: &Load,
    held: Option<&ResourceList>,
) -> Option<Booking> {
    let own = &pool.types.get(chosen)?.instance_type.capacity;
    let mut amount = own.clone();
    let mut short_of_variety = false;
    if set.has_min_values {
        let fitting: Vec<&Sold> = set
            .offers
            .iter()
            .filter_map(|o| pool.types.get(o.at()).map(|s| &**s))
            .filter(|s| takes(s, set, load) && pool.admits(&s.instance_type.capacity, held))
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
