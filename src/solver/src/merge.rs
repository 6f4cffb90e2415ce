//! Machines that cost less as one: what is left after every machine was filled for itself. Two machines of the same
//! requirements become one when some type takes the pods of both for less than the two cost, the cost of a node of its
//! own counted in, and no rule keeps their pods apart; again and again, until no pair is left that would.

use std::collections::BTreeMap;

use crate::buy::Buyer;
use crate::choose::ports_clash;
use crate::machine::{Booking, booking, takes};
use crate::sets::SetId;

/// Least that a merge or a move has to save, dollars per hour: below it lies rounding.
pub(crate) const LEAST_SAVING: f64 = 1e-7;
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
            // Machines that may still find a partner. One that has found none is looked at again by those that change.
            let mut open = members.clone();
            open.reverse();
            while let Some(first) = open.pop() {
                let Some(merge) = self.best_merge(first, &members) else {
                    continue;
                };
                members.retain(|m| *m != merge.give_up);
                open.retain(|m| *m != merge.give_up && *m != merge.keep);
                open.push(merge.keep);
                self.apply(merge);
                any = true;
                self.cheapest_first(&mut open);
                open.reverse();
            }
        }
        any
    }

    fn cheapest_first(&self, members: &mut [usize]) {
        let price = |m: &usize| self.machines.get(*m).map_or(0.0, |m| m.price);
        members.sort_by(|a, b| price(a).total_cmp(&price(b)).then(a.cmp(b)));
    }

    /// The partner with which a machine saves most.
    fn best_merge(&mut self, first: usize, members: &[usize]) -> Option<Merge> {
        let mut best: Option<Merge> = None;
        for second in members.iter().filter(|m| **m != first) {
            // The older one stays, so that plans read in the order in which pods were served.
            let (keep, give_up) = (first.min(*second), first.max(*second));
            let Some(merge) = self.try_merge(keep, give_up) else {
                continue;
            };
            if best.as_ref().is_none_or(|b| merge.saving > b.saving)
                && self.may_share(keep, give_up)
            {
                best = Some(merge);
            }
        }
        best
    }

    fn try_merge(&mut self, keep: usize, give_up: usize) -> Option<Merge> {
        if !self.budget.spend(1) {
            return None;
        }
        let (a, b) = (self.machines.get(keep)?, self.machines.get(give_up)?);
        let (pool, set) = (self.catalog.pools.get(a.pool)?, self.sets.get(a.set)?);
        let mut load = a.load.clone();
        load.join(&b.load);
        // Offers come cheapest first: the first that takes both is the one.
        let node_cost = if self.problem.options.fewest_machines {
            ANY_PRICE
        } else {
            self.problem.options.node_cost
        };
        let most = a.price + b.price + node_cost - LEAST_SAVING;
        set.with_room(&load.need)
            .next()
            .filter(|o| o.price < most)?;
        if ports_clash(&a.load.ports, &b.load.ports) {
            return None;
        }
        let mut held = a.booked.clone();
        held.add(&b.booked);
        let cheap_enough = set.with_room(&load.need).take_while(|o| o.price < most);
        let offer = { cheap_enough }.find(|o| {
            let sold = pool.types.get(o.at());
            sold.is_some_and(|s| takes(s, set, &load))
        })?;
        let booking = booking(pool, set, offer.at(), &load, Some(&held))?;
        (!booking.short_of_variety).then_some(Merge {
            keep,
            give_up,
            saving: most - offer.price,
            chosen: offer.at(),
            price: offer.price,
            booking,
        })
    }

    /// Whether rules about hosts let the pods of one machine join those of another: tried one by one, and taken back.
    fn may_share(&mut self, keep: usize, give_up: usize) -> bool {
        let classes: Vec<usize> = {
            let given_up = self.machines.get(give_up).map_or(&[][..], |m| &m.pods);
            let minding = given_up.iter().map(|(class, _)| *class);
            minding.filter(|c| self.ledger.minds_hosts(*c)).collect()
        };
        let topology = &self.ledger.topology;
        let (to, from) = (topology.machine(keep), topology.machine(give_up));
        if !classes.iter().all(|c| self.ledger.is_open(*c, to)) {
            return false;
        }
        let mut moved = 0;
        for class in &classes {
            self.ledger.taken_back(*class, from);
            if self.ledger.host_cap(*class, to) == 0 {
                self.ledger.placed(*class, 1, from);
                break;
            }
            self.ledger.placed(*class, 1, to);
            moved += 1;
        }
        for class in classes.iter().take(moved) {
            self.ledger.taken_back(*class, to);
            self.ledger.placed(*class, 1, from);
        }
        moved == classes.len()
    }

    fn apply(&mut self, merge: Merge) {
        let Some(given_up) = self.machines.get_mut(merge.give_up) else {
            return;
        };
        let load = std::mem::take(&mut given_up.load);
        let pods = std::mem::take(&mut given_up.pods);
        let joining: Vec<usize> = pods.iter().map(|(class, _)| *class).collect();
        self.release(merge.give_up);
        let Some(machine) = self.machines.get_mut(merge.keep) else {
            return;
        };
        let Some(pool) = self.catalog.pools.get_mut(machine.pool) else {
            return;
        };
        pool.rebook(&mut machine.booked, merge.booking.amount);
        machine.load.join(&load);
        machine.pods.extend(pods);
        machine.chosen = merge.chosen;
        machine.price = merge.price;
        self.remeasure(merge.keep);
        let from = self.ledger.topology.machine(merge.give_up);
        for class in joining {
            if self.ledger.concerns(class) {
                self.ledger.taken_back(class, from);
                self.settle(merge.keep, class, 1);
            }
        }
    }
}
