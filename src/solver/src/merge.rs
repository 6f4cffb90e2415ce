//! Machines that cost less as one: what is left after every machine was filled for itself. Two machines of the same
//! requirements become one when some type takes the pods of both for less than the two cost, the cost of a node of its
//! own counted in; again and again, until no pair is left that would.

use std::collections::BTreeMap;

use karpenter_api::Quantity;
use karpenter_model::resources::names::NODES;

use crate::buy::Buyer;
use crate::choose::ports_clash;
use crate::dense::add;
use crate::machine::{Booking, Machine, booking, takes};
use crate::sets::{NODE_COST, SetId};

/// Least that a merge has to save, dollars per hour: below it lies rounding.
const LEAST_SAVING: f64 = 1e-7;
/// More than any machine costs, dollars per hour.
const ANY_PRICE: f64 = 1e6;
/// Machines of a set that are looked at, the cheapest ones; the dear ones are full of what they were bought for.
const MAX_MACHINES: usize = 48;

/// Two machines to become one.
struct Merge {
    keep: usize,
    give_up: usize,
    saving: f64,
    chosen: usize,
    price: f64,
    booking: Booking,
}

impl Buyer<'_, '_> {
    /// Merges until nothing is saved any more; whether anything was.
    pub(crate) fn merge(&mut self) -> bool {
        let mut by_set: BTreeMap<SetId, Vec<usize>> = BTreeMap::new();
        for (index, machine) in self.machines.iter().enumerate().filter(|(_, m)| !m.gone()) {
            by_set.entry(machine.set).or_default().push(index);
        }
        let mut any = false;
        for mut members in by_set.into_values().filter(|m| m.len() > 1) {
            self.cheapest_first(&mut members);
            members.truncate(MAX_MACHINES);
            while let Some(merge) = self.best_merge(&members) {
                members.retain(|m| *m != merge.give_up);
                self.apply(merge);
                any = true;
                self.cheapest_first(&mut members);
            }
        }
        any
    }

    fn cheapest_first(&self, members: &mut [usize]) {
        let price = |m: &usize| self.machines.get(*m).map_or(0.0, |m| m.price);
        members.sort_by(|a, b| price(a).total_cmp(&price(b)).then(a.cmp(b)));
    }

    /// The pair that saves most, of those with the cheapest machine that has any.
    fn best_merge(&mut self, members: &[usize]) -> Option<Merge> {
        for (at, first) in members.iter().enumerate() {
            let mut best: Option<Merge> = None;
            for second in members.iter().skip(at + 1) {
                // The older one stays, so that plans read in the order in which pods were served.
                let (keep, give_up) = (*first.min(second), *first.max(second));
                let Some(merge) = self.try_merge(keep, give_up) else {
                    continue;
                };
                if best.as_ref().is_none_or(|b| merge.saving > b.saving) {
                    best = Some(merge);
                }
            }
            if best.is_some() {
                return best;
            }
        }
        None
    }

    fn try_merge(&mut self, keep: usize, give_up: usize) -> Option<Merge> {
        if !self.budget.spend(1) {
            return None;
        }
        let (a, b) = (self.machines.get(keep)?, self.machines.get(give_up)?);
        let (pool, set) = (self.catalog.pools.get(a.pool)?, self.sets.get(a.set)?);
        if self.minds_hosts(a) || self.minds_hosts(b) || ports_clash(&a.ports, &b.ports) {
            return None;
        }
        let mut need = a.need.clone();
        add(&mut need, &b.need, 1);
        let ports: Vec<_> = a.ports.iter().chain(&b.ports).cloned().collect();
        let mut held = a.booked.clone();
        held.add(&b.booked);
        // Offers come cheapest first: the first that takes both is the one.
        let node_cost = if self.problem.options.fewest_machines {
            ANY_PRICE
        } else {
            NODE_COST
        };
        let most = a.price + b.price + node_cost - LEAST_SAVING;
        let cheap_enough = set.with_room(&need).take_while(|o| o.price < most);
        let offer = { cheap_enough }.find(|o| {
            let sold = pool.types.get(o.at);
            sold.is_some_and(|s| takes(s, &need, &ports))
        })?;
        let booking = booking(pool, set, offer.at, &need, &ports, Some(&held))?;
        (!booking.short_of_variety).then_some(Merge {
            keep,
            give_up,
            saving: most - offer.price,
            chosen: offer.at,
            price: offer.price,
            booking,
        })
    }

    /// Whether rules say which pods may share the machine, so that it must not become one with another.
    fn minds_hosts(&self, machine: &Machine) -> bool {
        machine
            .pods
            .iter()
            .any(|(class, _)| self.ledger.minds_hosts(*class))
    }

    fn apply(&mut self, merge: Merge) {
        let Some(given_up) = self.machines.get_mut(merge.give_up) else {
            return;
        };
        let (need, ports) = (given_up.need.clone(), std::mem::take(&mut given_up.ports));
        let (pods, booked) = (
            std::mem::take(&mut given_up.pods),
            std::mem::take(&mut given_up.booked),
        );
        let Some(machine) = self.machines.get_mut(merge.keep) else {
            return;
        };
        let Some(pool) = self.catalog.pools.get_mut(machine.pool) else {
            return;
        };
        if let Some(left) = &mut pool.left {
            let back = left
                .iter()
                .map(|(name, _)| {
                    let amount = if name == NODES {
                        Quantity::from_units(1)
                    } else {
                        booked.get(name)
                    };
                    (name, amount)
                })
                .collect();
            left.add(&back);
        }
        pool.rebook(&mut machine.booked, merge.booking.amount);
        add(&mut machine.need, &need, 1);
        machine.ports.extend(ports);
        machine.pods.extend(pods);
        machine.chosen = merge.chosen;
        machine.price = merge.price;
        self.remeasure(merge.keep);
        self.remeasure(merge.give_up);
    }
}
