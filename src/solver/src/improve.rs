//! Pods that are better off elsewhere: where a machine could be a smaller one but for a pod, and that pod has room on
//! another machine at the price this one has, it goes there. Domains stay what they are, so that only rules about hosts
//! have to be asked again. Only what really gets cheaper by it is moved, so that it comes to an end.

use karpenter_model::ResourceList;

use crate::buy::Buyer;
use crate::class::DemandId;
use crate::machine::{Load, Machine, booking, lets_in};
use crate::merge::LEAST_SAVING;
use crate::topology::Combination;

/// Times that every machine is looked at.
const MAX_PASSES: usize = 3;

/// A pod that would leave its machine, and what that saves.
struct Leaver {
    /// Position among the machine's pods.
    at: usize,
    class: usize,
    saving: f64,
}

impl Buyer<'_, '_> {
    /// Moves pods until nothing is saved any more, or often enough; whether any was moved.
    pub(crate) fn improve(&mut self) -> bool {
        let mut any = false;
        for _ in 0..MAX_PASSES {
            let mut moved = false;
            for index in 0..self.machines.len() {
                while self.relieve(index) {
                    moved = true;
                }
            }
            any |= moved;
            if !moved || self.budget.exhausted() {
                break;
            }
        }
        any
    }

    /// Moves the pod of a machine that saves most and has a place elsewhere; whether there is one.
    fn relieve(&mut self, index: usize) -> bool {
        let mut leavers = self.leavers(index);
        leavers.sort_by(|a, b| b.saving.total_cmp(&a.saving).then(a.at.cmp(&b.at)));
        leavers
            .iter()
            .any(|leaver| self.budget.spend(1) && self.resettle(index, leaver))
    }

    /// The pods without which a machine would cost less, one for each class.
    fn leavers(&self, index: usize) -> Vec<Leaver> {
        let mut out: Vec<Leaver> = Vec::new();
        let Some(machine) = self.machines.get(index).filter(|m| !m.gone()) else {
            return out;
        };
        if (self.sets.get(machine.set)).is_none_or(|set| set.has_min_values) {
            return out;
        }
        let place = self.ledger.topology.machine(index);
        if machine.pods.len() == 1 && self.ledger.is_relied_on(place) {
            return out;
        }
        for (at, (class, _)) in machine.pods.iter().enumerate() {
            let Some(c) = self.classes.get(*class) else {
                continue;
            };
            // A host that others of its kind are bound to keeps them together.
            if self.ledger.sticks(*class) || out.iter().any(|l| l.class == *class) {
                continue;
            }
            let saving = if machine.pods.len() == 1 {
                machine.price + self.problem.options.node_cost
            } else {
                let others = machine
                    .pods
                    .iter()
                    .enumerate()
                    .filter(|(other, _)| *other != at);
                let others = others.filter_map(|(_, (class, _))| self.classes.get(*class));
                let smaller = self.cheapest(machine, &machine.load.without(c, others));
                smaller.map_or(0.0, |s| machine.price - s.price)
            };
            if saving > LEAST_SAVING {
                out.push(Leaver {
                    at,
                    class: *class,
                    saving,
                });
            }
        }
        out
    }

    /// Moves a pod to the first machine that has room for it; whether there is one.
    fn resettle(&mut self, from: usize, leaver: &Leaver) -> bool {
        let Some(c) = self.classes.get(leaver.class) else {
            return false;
        };
        let Some(demand) = self.demand_met(from, leaver.class) else {
            return false;
        };
        let topology = &self.ledger.topology;
        let here = topology.machine(from);
        let wanted = self
            .ledger
            .keys(leaver.class)
            .iter()
            .filter_map(|key| Some((*key, topology.standing(*key, here)?)))
            .collect();
        let mut start = 0;
        while self.budget.spend(1) {
            let ledger = &self.ledger;
            let first = ledger.topology.machine_block();
            let allowed = |block: usize| {
                ledger.open(leaver.class, first + block)
                    & ledger.topology.inside(&wanted, first + block)
            };
            let end = self.machines.len();
            let found = self.spare.find(start, end, &c.requests, &allowed);
            let Some(to) = found else {
                return false;
            };
            start = to + 1;
            if to != from && self.try_move(from, to, leaver, demand) {
                return true;
            }
        }
        false
    }

    /// The demand of a class that a machine meets as it is, the best one.
    fn demand_met(&mut self, index: usize, class: usize) -> Option<DemandId> {
        let set = self.machines.get(index)?.set;
        let attempts = &self.classes.get(class)?.attempts;
        let mut demands = attempts.iter().map(|a| a.demand);
        demands.find(|d| self.sets.join(self.catalog, self.classes, set, *d) == Some(set))
    }

    fn try_move(&mut self, from: usize, to: usize, leaver: &Leaver, demand: DemandId) -> bool {
        let who = (leaver.class, demand);
        let joined = self.joined(to, who, &Combination::new());
        let (Some(c), Some(id)) = (self.classes.get(leaver.class), joined) else {
            return false;
        };
        if self.sets.get(id).is_none_or(|s| s.has_min_values) {
            return false;
        }
        let ruled = self.ledger.concerns(leaver.class);
        if ruled {
            let topology = &self.ledger.topology;
            let (here, there) = (topology.machine(from), topology.machine(to));
            self.ledger.taken_back(leaver.class, here);
            if self.ledger.host_cap(leaver.class, there) == 0 {
                self.ledger.placed(leaver.class, 1, here);
                return false;
            }
        }
        if let Some(target) = self.machines.get_mut(to) {
            target.set = id;
        }
        if ruled {
            self.settle(to, leaver.class, 1);
        }
        let Some(machine) = self.machines.get_mut(from) else {
            return false;
        };
        let (_, pod) = machine.pods.remove(leaver.at);
        let left = machine.pods.iter();
        let left = left.filter_map(|(class, _)| self.classes.get(*class));
        machine.load = machine.load.without(c, left);
        self.take_on(to, leaver.class, vec![pod]);
        self.shrink(from);
        true
    }

    /// Takes the cheapest type that a machine's pods have room on, or gives the machine up if it has none.
    fn shrink(&mut self, index: usize) {
        let Some(machine) = self.machines.get(index) else {
            return;
        };
        if machine.gone() {
            self.release(index);
            return;
        }
        let smaller = self.cheapest(machine, &machine.load);
        if let Some(smaller) = smaller.filter(|s| s.price <= machine.price)
            && let Some(machine) = self.machines.get_mut(index)
            && let Some(pool) = self.catalog.pools.get_mut(machine.pool)
        {
            pool.rebook(&mut machine.booked, smaller.amount);
            machine.chosen = smaller.at;
            machine.price = smaller.price;
        }
        self.remeasure(index);
    }

    /// The cheapest type that a machine could be if its pods asked for this: what they have room on, ports and limits
    /// permitting.
    fn cheapest(&self, machine: &Machine, load: &Load) -> Option<Smaller> {
        let pool = self.catalog.pools.get(machine.pool)?;
        let set = self.sets.get(machine.set)?;
        set.with_room(&load.need).find_map(|offer| {
            let sold = pool.types.get(offer.at())?;
            if !lets_in(sold, set, load) {
                return None;
            }
            let booked = booking(pool, set, offer.at(), load, Some(&machine.booked))?;
            Some(Smaller {
                at: offer.at(),
                price: offer.price,
                amount: booked.amount,
            })
        })
    }
}

/// A type that a machine could be.
struct Smaller {
    at: usize,
    price: f64,
    /// What it would hold of the limits.
    amount: ResourceList,
}
