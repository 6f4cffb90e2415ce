//! What to buy. One machine at a time, filled before the next is opened: of all types that could take the pod at
//! the head of the queue, the one whose price buys most work from the queue. Looking at price per work done, not at
//! whether one more pod fits, is what keeps machines from growing dear or staying small. Room that is left over on
//! machines already chosen is used first, as long as it costs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_model::Problem;

use crate::catalog::Catalog;
use crate::choose::{Candidate, ports_clash};
use crate::class::{Class, Classes, DemandId};
use crate::dense::{Dense, add, count_of, minus, times};
use crate::domains::Keys;
use crate::existing::Existing;
use crate::ledger::Ledger;
use crate::machine::{Load, Machine, booking, takes};
use crate::reserved::Units;
use crate::rooms::Rooms;
use crate::sets::{SetId, Sets};
use crate::topology::{Combination, DomainId, KeyId};
use crate::{Budget, Queue};

/// Most queue positions behind the head that are considered for its machine; bounds the work on a queue of one-offs.
const MAX_COMPANIONS: usize = 64;

/// Everything that buying changes.
pub(crate) struct Buyer<'a, 'p> {
    pub(crate) problem: &'p Problem,
    pub(crate) classes: &'a Classes,
    pub(crate) catalog: &'a mut Catalog,
    pub(crate) queue: &'a mut Queue,
    pub(crate) budget: &'a mut Budget,
    pub(crate) sets: Sets<'p>,
    /// By class: what a pod is worth, dollars per hour.
    pub(crate) worths: Vec<f64>,
    /// In the order they were opened; those whose pods went elsewhere stay where they are.
    pub(crate) machines: Vec<Machine>,
    /// Room that the chosen types of the machines have left.
    pub(crate) spare: Rooms,
    pub(crate) ledger: Ledger<'a>,
    pub(crate) existing: Existing<'a>,
    /// Domains of keys that can be bought, by demand and labels that are needed besides.
    pub(crate) purchasable: BTreeMap<(DemandId, KeyId, Keys), Arc<Vec<DomainId>>>,
    /// Whether there are or can be bought places without a label.
    pub(crate) nowhere: BTreeMap<KeyId, bool>,
    /// What reservations have left.
    pub(crate) units: Units,
}

impl Buyer<'_, '_> {
    /// Serves the queue from front to back; what no machine may be bought for goes onto those bought for others.
    pub(crate) fn run(&mut self) {
        // Pods that rules of others count but that have none themselves: whoever has rules then sees them.
        for position in 0..self.queue.late {
            let free = self.queue.class(position).is_some_and(|c| {
                self.ledger.concerns(c) && self.classes.get(c).is_some_and(|c| c.rules.is_empty())
            });
            if free {
                self.place_ruled(position);
            }
        }
        loop {
            self.serve();
            // A pod may wait for one that came after it, or for one that made a machine larger.
            loop {
                while self.place_left_over() {}
                if !self.squeeze() {
                    break;
                }
            }
            // A merged machine may have room, and may have given limits back, for pods that were left over.
            let left = self.left();
            let merged = self.merge();
            let moved = self.improve();
            // What was moved may have left two that cost less as one.
            let again = moved && self.merge();
            if !(merged || moved || again) || left == 0 {
                return;
            }
        }
    }

    /// Pods that are not placed.
    fn left(&self) -> usize {
        self.queue.counts().map(|(_, _, n)| n).sum()
    }

    /// Every position in its turn: room that is there, then machines.
    fn serve(&mut self) {
        for position in 0..self.queue.waiting.len() {
            let Some(class) = self.queue.class(position) else {
                continue;
            };
            if self.ledger.concerns(class) {
                self.place_ruled(position);
                continue;
            }
            if position >= self.queue.late {
                let (queue, budget) = (&mut *self.queue, &mut *self.budget);
                self.existing.fill(self.classes, position, queue, budget);
            }
            let Some(c) = self.classes.get(class) else {
                continue;
            };
            for attempt in &c.attempts {
                if self.queue.count(position) == 0 {
                    break;
                }
                self.fill_gaps(position, class, attempt.demand);
                while self.queue.count(position) > 0 && !self.budget.exhausted() {
                    let Some(candidate) = self.best(position, attempt.demand) else {
                        break;
                    };
                    self.open(candidate);
                }
            }
        }
    }

    /// Tries pods that rules are about once more; whether any was placed.
    fn place_left_over(&mut self) -> bool {
        let mut any = false;
        for position in 0..self.queue.waiting.len() {
            let ruled = self
                .queue
                .class(position)
                .is_some_and(|c| self.ledger.concerns(c));
            if ruled && self.queue.count(position) > 0 && !self.budget.exhausted() {
                any |= self.place_ruled(position);
            }
        }
        any
    }

    /// By class: why rules between pods left pods over.
    pub(crate) fn ruled_out_all(&mut self) -> BTreeMap<usize, String> {
        let left: BTreeSet<usize> = self
            .queue
            .counts()
            .filter(|(_, class, n)| *n > 0 && self.ledger.concerns(*class))
            .map(|(_, class, _)| class)
            .collect();
        left.into_iter()
            .filter_map(|class| Some((class, self.ruled_out(class)?)))
            .collect()
    }

    /// Puts pods where the chosen type has room for them at the price it has now.
    fn fill_gaps(&mut self, position: usize, class: usize, demand: DemandId) {
        let Some(c) = self.classes.get(class) else {
            return;
        };
        let mut from = 0;
        loop {
            let count = self.queue.count(position);
            if count == 0 || !self.budget.spend(1) {
                return;
            }
            let end = self.machines.len();
            let Some(index) = self.spare.find(from, end, &c.requests, &|_| u64::MAX) else {
                return;
            };
            let nowhere = Combination::new();
            self.add_to(index, position, (class, demand), &nowhere, (1, count));
            from = index + 1;
        }
    }

    /// Puts from `least` to `most` pods on a machine whose chosen type has room for them, in the wanted domains, at the
    /// price it has now; how many.
    pub(crate) fn add_to(
        &mut self,
        index: usize,
        position: usize,
        (class, demand): (usize, DemandId),
        wanted: &Combination,
        (least, most): (usize, usize),
    ) -> usize {
        let (Some(c), Some(spare)) = (self.classes.get(class), self.spare.get(index)) else {
            return 0;
        };
        let most = if c.ports.is_empty() {
            most
        } else {
            most.min(1)
        };
        let n = times(&c.requests, spare, most);
        if n == 0 || n < least {
            return 0;
        }
        let joined = self.joined(index, (class, demand), wanted);
        let (Some(machine), Some((id, set))) = (
            self.machines.get_mut(index),
            joined.and_then(|id| Some((id, self.sets.get(id)?))),
        ) else {
            return 0;
        };
        let Some(pool) = self.catalog.pools.get_mut(machine.pool) else {
            return 0;
        };
        let chosen = machine.chosen;
        if set.has_min_values {
            let load = with(machine, c, n);
            let held = Some(&machine.booked);
            match booking(pool, set, chosen, &load, held) {
                Some(b) if !b.short_of_variety || self.problem.options.best_effort_min_values => {
                    pool.rebook(&mut machine.booked, b.amount);
                }
                _ => return 0,
            }
        }
        machine.set = id;
        let pods = self.queue.take_many(position, n);
        self.take_on(index, class, pods);
        n
    }

    /// The set that a machine comes to have once a pod of the class with the demand joins it in the wanted domains; none if
    /// ports, requirements or the price that it has now are against it. Room is not asked.
    pub(crate) fn joined(
        &mut self,
        index: usize,
        (class, demand): (usize, DemandId),
        wanted: &Combination,
    ) -> Option<SetId> {
        let (c, machine) = (self.classes.get(class)?, self.machines.get(index)?);
        if machine.gone() || ports_clash(&c.ports, &machine.load.ports) {
            return None;
        }
        let id = self.narrowed_to(index, demand, wanted)?;
        let (c, machine) = (self.classes.get(class)?, self.machines.get(index)?);
        let pool = self.catalog.pools.get(machine.pool)?;
        let sold = pool.types.get(machine.chosen)?;
        let price = self.sets.get(id)?.price(machine.chosen)?;
        // A machine does not move into a reservation: that would take a unit.
        let stays = self.sets.pinned_alike(id, machine.set);
        let requirements = &self.sets.get(id)?.requirements;
        let free = !ports_clash(&c.ports, &sold.ports) && !c.keeps_off(sold, requirements);
        let fits = stays && price <= machine.price && free;
        fits.then_some(id)
    }

    /// Gives back what a machine holds of limits and reservations: its pods went elsewhere.
    pub(crate) fn release(&mut self, index: usize) {
        let Some(machine) = self.machines.get_mut(index) else {
            return;
        };
        let pinned = self.sets.get(machine.set).and_then(|s| s.pinned.as_ref());
        if let Some(id) = pinned {
            self.units.give_back(id);
        }
        if let Some(pool) = self.catalog.pools.get_mut(machine.pool) {
            pool.close(&std::mem::take(&mut machine.booked));
        }
        machine.load = Load::default();
        let place = self.ledger.topology.machine(index);
        self.ledger.stays_away(place);
        self.remeasure(index);
    }

    /// Puts pods of a class on a machine that has room for them.
    pub(crate) fn take_on(
        &mut self,
        index: usize,
        class: usize,
        pods: Vec<karpenter_model::PodKey>,
    ) {
        let (Some(c), Some(machine)) = (self.classes.get(class), self.machines.get_mut(index))
        else {
            return;
        };
        let n = count_of(pods.len());
        machine.load.add(c, pods.len());
        machine.pods.extend(pods.into_iter().map(|p| (class, p)));
        let mut spare = self.spare.get(index).cloned().unwrap_or_default();
        add(&mut spare, &c.requests, -n);
        self.spare.set(index, spare);
        self.daemons_come(index);
    }

    /// Reckons anew what the chosen type of a machine has left.
    pub(crate) fn remeasure(&mut self, index: usize) {
        let Some(machine) = self.machines.get(index) else {
            return;
        };
        let pool = self.catalog.pools.get(machine.pool);
        let Some(sold) = pool.and_then(|p| p.types.get(machine.chosen)) else {
            return;
        };
        let spare = if machine.gone() {
            Dense::from_elem(-1, 1)
        } else {
            minus(&sold.room, &machine.load.need)
        };
        self.spare.set(index, spare);
    }

    /// Where limits let no machine be bought, or rules let none be of use: puts left-over pods on machines that are there,
    /// even if that makes them larger. Whether any was placed.
    fn squeeze(&mut self) -> bool {
        let mut any = false;
        for position in 0..self.queue.waiting.len() {
            let Some(class) = self.queue.class(position) else {
                continue;
            };
            if self.queue.count(position) == 0 {
                continue;
            }
            if self.ledger.concerns(class) {
                any |= self.squeeze_ruled(position);
                continue;
            }
            let Some(c) = self.classes.get(class) else {
                continue;
            };
            for attempt in &c.attempts {
                for index in 0..self.machines.len() {
                    let count = self.queue.count(position);
                    if count == 0 || !self.budget.spend(1) {
                        break;
                    }
                    let who = (class, attempt.demand);
                    let is_limited = self.machines.get(index).is_some_and(|m| {
                        let pool = self.catalog.pools.get(m.pool);
                        pool.is_some_and(|p| p.left.is_some())
                    });
                    any |= is_limited
                        && self.grow(index, position, who, &Combination::new(), count) > 0;
                }
            }
        }
        any
    }

    /// Puts at most so many pods on a machine in the wanted domains, as another type of its set if need be; how many.
    pub(crate) fn grow(
        &mut self,
        index: usize,
        position: usize,
        (class, demand): (usize, DemandId),
        wanted: &Combination,
        most: usize,
    ) -> usize {
        let (Some(c), Some(machine)) = (self.classes.get(class), self.machines.get(index)) else {
            return 0;
        };
        if machine.gone() || ports_clash(&c.ports, &machine.load.ports) {
            return 0;
        }
        let (held, at) = (machine.set, machine.pool);
        let Some(id) = self.narrowed_to(index, demand, wanted) else {
            return 0;
        };
        let stays = self.sets.pinned_alike(id, held);
        let (Some(set), Some(pool), Some(machine)) = (
            self.sets.get(id).filter(|_| stays),
            self.catalog.pools.get_mut(at),
            self.machines.get_mut(index),
        ) else {
            return 0;
        };
        let most = if c.ports.is_empty() {
            most
        } else {
            most.min(1)
        };
        // The cheapest of the types that take most.
        let mut best: Option<(usize, usize, f64)> = None;
        for offer in &set.offers {
            let Some(sold) = pool.types.get(offer.at()) else {
                continue;
            };
            if c.keeps_off(sold, &set.requirements)
                || !pool.admits(&sold.instance_type.capacity, Some(&machine.booked))
            {
                continue;
            }
            let n = times(&c.requests, &minus(&sold.room, &machine.load.need), most);
            let is_more = n > best.map_or(0, |(most, _, _)| most);
            if is_more && takes(sold, set, &with(machine, c, n)) {
                best = Some((n, offer.at(), offer.price));
            }
        }
        let Some((n, chosen, price)) = best else {
            return 0;
        };
        let load = with(machine, c, n);
        let booked = Some(&machine.booked);
        let Some(booking) = booking(pool, set, chosen, &load, booked) else {
            return 0;
        };
        if booking.short_of_variety && !self.problem.options.best_effort_min_values {
            return 0;
        }
        pool.rebook(&mut machine.booked, booking.amount);
        machine.set = id;
        machine.chosen = chosen;
        machine.price = price;
        let pods = self.queue.take_many(position, n);
        self.take_on(index, class, pods);
        self.remeasure(index);
        n
    }

    /// A machine's set joined by pods of a demand, in the wanted domains; none if nothing is left then, or if pods on the
    /// machine that were counted for a spread would not count any more.
    fn narrowed_to(
        &mut self,
        index: usize,
        demand: DemandId,
        wanted: &Combination,
    ) -> Option<SetId> {
        let set = self.machines.get(index)?.set;
        let mut id = self.sets.join(self.catalog, self.classes, set, demand)?;
        for (key, domain) in wanted {
            id = self.pinned(id, *key, *domain)?;
        }
        (id == set || self.keeps_counting(index, id)).then_some(id)
    }

    /// The best purchase for the head of the queue, over the pools of the highest weight that can serve it at all.
    fn best(&mut self, position: usize, demand: DemandId) -> Option<Candidate> {
        let mut best: Option<Candidate> = None;
        let mut weight = None;
        for index in 0..self.catalog.pools.len() {
            let own = self.catalog.pools.get(index).map(|p| p.view.weight);
            if weight.is_some_and(|w| Some(w) != own) && best.is_some() {
                break;
            }
            weight = own;
            let root = self.sets.root(index)?;
            let joined = self.sets.join(self.catalog, self.classes, root, demand);
            let Some(set) = joined else { continue };
            let sharers = self.sharers(position, set, demand);
            let Some(candidate) = self.of_pool(index, set, &sharers) else {
                continue;
            };
            if best.as_ref().is_none_or(|b| candidate.score < b.score) {
                best = Some(candidate);
            }
        }
        best
    }

    /// The head and the classes behind it that ask for nothing the claim does not already say: they can share its
    /// machine without narrowing it. Positions with class and count.
    fn sharers(&mut self, head: usize, set: SetId, demand: DemandId) -> Vec<(usize, usize, usize)> {
        let mut out = Vec::new();
        let soft = |classes: &Classes, demand| classes.demand(demand).map(|d| d.soft);
        let head_soft = soft(self.classes, demand);
        for position in self.companions(head) {
            let Some(class) = self.queue.class(position) else {
                continue;
            };
            let first = self.classes.get(class).and_then(|c| c.attempts.first());
            let shares = position == head
                || !self.ledger.concerns(class)
                    && first.is_some_and(|first| {
                        soft(self.classes, first.demand) == head_soft
                            && self
                                .sets
                                .join(self.catalog, self.classes, set, first.demand)
                                == Some(set)
                    });
            if shares {
                out.push((position, class, self.queue.count(position)));
            }
        }
        out
    }

    /// The head and the positions behind it that are looked at for its machine: all while they are few, else some
    /// from all over the queue, so that large and small, memory-heavy and CPU-heavy ones are among them.
    fn companions(&self, head: usize) -> Vec<usize> {
        // What is late may still find room that is there: no machine is made larger for it.
        let all = self.queue.waiting.len();
        let end = if head < self.queue.late {
            self.queue.late
        } else {
            all
        };
        let behind = head + 1..end;
        let waiting: Vec<usize> = behind.filter(|p| self.queue.count(*p) > 0).collect();
        let step = waiting.len().div_ceil(MAX_COMPANIONS).max(1);
        std::iter::once(head)
            .chain(waiting.into_iter().step_by(step))
            .collect()
    }

    /// Takes the pods off the queue and books the limits.
    pub(crate) fn open(&mut self, candidate: Candidate) {
        let Some(set) = self.sets.get(candidate.set) else {
            return;
        };
        let Some(pool) = self.catalog.pools.get_mut(set.pool) else {
            return;
        };
        let Some(sold) = pool.types.get(candidate.chosen) else {
            return;
        };
        let index = self.machines.len();
        self.spare.set(index, sold.room.clone());
        let machine = Machine {
            set: candidate.set,
            pool: set.pool,
            chosen: candidate.chosen,
            price: candidate.price,
            load: Load::default(),
            pods: Vec::new(),
            booked: candidate.booking.amount,
        };
        pool.open(&machine.booked);
        if let Some(id) = &set.pinned {
            self.units.take(id);
        }
        self.machines.push(machine);
        for (position, n) in candidate.filled {
            if let Some(class) = self.queue.class(position) {
                let pods = self.queue.take_many(position, n);
                self.take_on(index, class, pods);
            }
        }
    }
}

/// What a machine's pods would ask for once more join.
fn with(machine: &Machine, class: &Class, n: usize) -> Load {
    let mut load = machine.load.clone();
    load.add(class, n);
    load
}
