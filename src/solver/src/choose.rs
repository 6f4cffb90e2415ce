//! Which type to buy for the head of the queue: of all that could take it, the one whose price buys most work. What a
//! unit of work costs at least is known of each type beforehand, so that few types are looked at closely.

use karpenter_model::SolveOptions;
use karpenter_model::pod::HostPort;
use karpenter_model::resources::names::PODS;

use crate::buy::Buyer;
use crate::catalog::{Pool, Sold};
use crate::class::Class;
use crate::dense::{Dense, add, count_of, times};
use crate::machine::{Booking, Load, booking};
use crate::sets::{Set, SetId};
use crate::stock::POD_WORTH;
use crate::wares::Offer;

/// Room for rounding in comparisons of rates that were added up in another order.
const SLACK: f64 = 1.0 - 1e-9;

/// A class of the queue as it would share a machine.
#[derive(Clone, Copy)]
struct Sharer<'a> {
    position: usize,
    class: &'a Class,
    count: usize,
    worth: f64,
}

/// Price per worth of work, offer, and how many pods of which queue positions.
type Scored<'a> = (f64, &'a Offer, Vec<(usize, usize)>);

/// A machine that could be bought for the head of the queue.
pub(crate) struct Candidate {
    /// Price per worth of work.
    pub(crate) score: f64,
    pub(crate) set: SetId,
    pub(crate) chosen: usize,
    pub(crate) price: f64,
    /// Queue position and number of pods.
    pub(crate) filled: Vec<(usize, usize)>,
    pub(crate) booking: Booking,
}

impl Candidate {
    /// Takes no more than `limit` pods, whatever it was chosen for.
    pub(crate) fn at_most(&mut self, limit: usize) {
        let mut left = limit;
        for (_, n) in &mut self.filled {
            *n = (*n).min(left);
            left -= *n;
        }
        self.filled.retain(|(_, n)| *n > 0);
    }
}

impl Buyer<'_, '_> {
    /// The best purchase in one pool for sharers by queue position, class and count; the first of them has to be served.
    pub(crate) fn in_pool(
        &mut self,
        index: usize,
        id: SetId,
        sharers: &[(usize, usize, usize)],
    ) -> Option<Candidate> {
        let (pool, set) = (self.catalog.pools.get(index)?, self.sets.get(id)?);
        if set.pinned.as_ref().is_some_and(|id| !self.units.has(id)) {
            return None;
        }
        let sharers: Vec<Sharer<'_>> = sharers
            .iter()
            .filter_map(|(position, class, count)| {
                Some(Sharer {
                    position: *position,
                    class: self.classes.get(*class)?,
                    count: *count,
                    worth: POD_WORTH + self.worths.get(*class)?,
                })
            })
            .collect();
        if sharers.is_empty() {
            return None;
        }
        let options = &self.problem.options;
        let mut units = 0;
        let found = if set.has_min_values {
            units = set.offers.len();
            with_variety(pool, set, id, &sharers, options)
        } else {
            cheapest_work(pool, set, &sharers, options.node_cost, &mut units).and_then(
                |(score, offer)| {
                    let sold = pool.types.get(offer.at())?;
                    let (_, filled) = fill(sold, set, &sharers, true);
                    let load = needed(&sharers, &filled);
                    Some(Candidate {
                        score,
                        set: id,
                        chosen: offer.at(),
                        price: offer.price,
                        booking: booking(pool, set, offer.at(), &load, None)?,
                        filled,
                    })
                },
            )
        };
        let units = u64::try_from(units).unwrap_or(u64::MAX);
        self.budget.spend(units.max(1)).then_some(found).flatten()
    }
}

/// The offer with the least price per worth of work, and that price; equal ones by their order. `units` counts those
/// that were looked at.
fn cheapest_work<'a>(
    pool: &Pool,
    set: &'a Set,
    sharers: &[Sharer<'_>],
    node_cost: f64,
    units: &mut usize,
) -> Option<(f64, &'a Offer)> {
    #[allow(clippy::cast_precision_loss)] // Counts of pods.
    let waiting: f64 = sharers.iter().map(|s| s.worth * s.count as f64).sum();
    // The rates reckon with the slots for pods.
    let rated = sharers
        .iter()
        .all(|s| s.class.asked.get(PODS) > karpenter_api::Quantity::ZERO);
    let any_size = pool.admits_any();
    let mut best: Option<(f64, usize)> = None;
    for (rate, position) in &set.rates {
        let Some(offer) = set.offers.get(*position) else {
            continue;
        };
        let (least, before) = best.unwrap_or((f64::INFINITY, 0));
        if rated && rate * SLACK > least {
            break;
        }
        if (offer.price + node_cost) / waiting * SLACK > least {
            continue;
        }
        let Some(sold) = pool.types.get(offer.at()) else {
            continue;
        };
        if !any_size && !pool.admits(&sold.instance_type.capacity, None) {
            continue;
        }
        *units += 1;
        let (worth, _) = fill(sold, set, sharers, false);
        if worth <= 0.0 {
            continue;
        }
        let score = (offer.price + node_cost) / worth;
        if score < least || (score <= least && *position < before) {
            best = Some((score, *position));
        }
    }
    best.and_then(|(score, position)| Some((score, set.offers.get(position)?)))
}

/// The best purchase where variety is asked for: fewer pods leave more types, so that where no filling has it, the head
/// of the queue by itself may, and a single pod of it.
fn with_variety(
    pool: &Pool,
    set: &Set,
    id: SetId,
    sharers: &[Sharer<'_>],
    options: &SolveOptions,
) -> Option<Candidate> {
    let head = sharers.get(..1)?;
    let one: Vec<Sharer<'_>> = head.iter().map(|s| Sharer { count: 1, ..*s }).collect();
    let mut relaxed: Option<Candidate> = None;
    let mut fillings = vec![sharers, head, &one];
    // Without others the head is all there is, and it may be a single pod.
    fillings
        .dedup_by(|a, b| a.len() == b.len() && a.iter().zip(&**b).all(|(a, b)| a.count == b.count));
    for sharers in fillings {
        for candidate in by_score(pool, set, id, sharers, options) {
            if !candidate.booking.short_of_variety {
                return Some(candidate);
            }
            if options.best_effort_min_values && relaxed.is_none() {
                relaxed = Some(candidate);
            }
        }
    }
    relaxed
}

/// What can be bought for the sharers, best first.
fn by_score(
    pool: &Pool,
    set: &Set,
    id: SetId,
    sharers: &[Sharer<'_>],
    options: &SolveOptions,
) -> impl Iterator<Item = Candidate> {
    let mut scored: Vec<Scored<'_>> = Vec::new();
    for offer in &set.offers {
        let Some(sold) = pool.types.get(offer.at()) else {
            continue;
        };
        if !pool.admits(&sold.instance_type.capacity, None) {
            continue;
        }
        let (worth, filled) = fill(sold, set, sharers, true);
        if worth > 0.0 {
            scored.push(((offer.price + options.node_cost) / worth, offer, filled));
        }
    }
    // Offers come cheapest first and by name; equal scores keep that order.
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
    scored
        .into_iter()
        .filter_map(move |(score, offer, filled)| {
            let load = needed(sharers, &filled);
            let booking = booking(pool, set, offer.at(), &load, None)?;
            Some(Candidate {
                score,
                set: id,
                chosen: offer.at(),
                price: offer.price,
                filled,
                booking,
            })
        })
}

/// What the pods are worth that a machine takes of the sharers, nothing if the first of them finds no room; and how many
/// of which, if that is asked for.
fn fill(sold: &Sold, set: &Set, sharers: &[Sharer<'_>], tell: bool) -> (f64, Vec<(usize, usize)>) {
    let mut room: Dense = sold.room.clone();
    let mut ports: Vec<&HostPort> = sold.ports.iter().collect();
    let mut worth = 0.0;
    let mut filled = Vec::new();
    for (at, sharer) in sharers.iter().enumerate() {
        let most = if sharer.class.keeps_off(sold, &set.requirements) {
            0
        } else if sharer.class.ports.is_empty() {
            sharer.count
        } else if clash(&sharer.class.ports, &ports) {
            0
        } else {
            1
        };
        let n = times(&sharer.class.requests, &room, most);
        if n == 0 {
            // The head has to be served, or the machine is not for it.
            if at == 0 {
                return (0.0, filled);
            }
            continue;
        }
        add(&mut room, &sharer.class.requests, -count_of(n));
        ports.extend(&sharer.class.ports);
        #[allow(clippy::cast_precision_loss)] // Counts of pods.
        let gained = sharer.worth * n as f64;
        worth += gained;
        if tell {
            filled.push((sharer.position, n));
        }
    }
    (worth, filled)
}

/// What the pods ask that were filled in.
fn needed(sharers: &[Sharer<'_>], filled: &[(usize, usize)]) -> Load {
    let mut load = Load::default();
    for (position, n) in filled {
        if let Some(sharer) = sharers.iter().find(|s| s.position == *position) {
            load.add(sharer.class, *n);
        }
    }
    load
}

fn clash(a: &[HostPort], b: &[&HostPort]) -> bool {
    a.iter().any(|p| b.iter().any(|q| excludes(p, q)))
}

/// Whether any two ports of the lists exclude each other.
pub(crate) fn ports_clash(a: &[HostPort], b: &[HostPort]) -> bool {
    a.iter().any(|p| b.iter().any(|q| excludes(p, q)))
}

fn excludes(p: &HostPort, q: &HostPort) -> bool {
    let any = |p: &HostPort| matches!(p.ip.as_ref(), "0.0.0.0" | "::");
    p.port == q.port && p.protocol == q.protocol && (any(p) || any(q) || p.ip == q.ip)
}
