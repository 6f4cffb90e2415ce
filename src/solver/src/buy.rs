//! What to buy. One machine at a time, filled before the next is opened: of all types that could take the pod at
//! the head of the queue, the one whose price buys most work from the queue. Looking at price per work done, not at
//! whether one more pod fits, is what keeps machines from growing dear or staying small. Room that is left over on
//! machines already chosen is used first, as long as it costs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_model::Problem;
use karpenter_model::pod::HostPort;
use karpenter_model::resources::names::{CPU, MEMORY};

use crate::catalog::{Catalog, UnitPrices};
use crate::class::{Class, Classes};
use crate::dense::{Dense, add, minus, times};
use crate::existing::Existing;
use crate::ledger::Ledger;
use crate::machine::{Booking, Machine, booking, takes};
use crate::sets::{SetId, Sets};
use crate::{Budget, Queue};

/// What a machine costs beyond its price, dollars per hour: daemons, addresses, attention. Small enough that it only
/// decides between prices that are nearly equal.
pub(crate) const NODE_COST: f64 = 0.002;
/// Worth of a pod that asks for nothing, so that it counts at all.
const POD_WORTH: f64 = 1e-6;
/// Most queue positions behind the head that are considered for its machine; bounds the work on a queue of one-offs.
const MAX_COMPANIONS: usize = 64;

/// A class of the queue as it would share a machine.
struct Sharer<'a> {
    position: usize,
    class: &'a Class,
    count: usize,
    worth: f64,
}

/// Price per worth of work, type, price, and how many pods of which queue positions.
type Scored = (f64, usize, f64, Vec<(usize, usize)>);

/// A machine that could be bought for the head of the queue.
pub(crate) struct Candidate {
    /// Price per worth of work.
    pub(crate) score: f64,
    set: SetId,
    chosen: usize,
    price: f64,
    /// Queue position and number of pods.
    filled: Vec<(usize, usize)>,
    booking: Booking,
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

/// Everything that buying changes.
pub(crate) struct Buyer<'a, 'p> {
    pub(crate) problem: &'p Problem,
    pub(crate) classes: &'a Classes,
    pub(crate) catalog: &'a mut Catalog,
    pub(crate) queue: &'a mut Queue,
    pub(crate) budget: &'a mut Budget,
    pub(crate) sets: Sets<'p>,
    pub(crate) prices: UnitPrices,
    pub(crate) machines: Vec<Machine>,
    /// How many machines were ever opened.
    pub(crate) opened: usize,
    pub(crate) ledger: Ledger,
    pub(crate) existing: Existing,
    /// Values of keys that can be bought, by class and attempt.
    pub(crate) purchasable: BTreeMap<(usize, usize, Arc<str>), BTreeSet<Arc<str>>>,
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
            // A pod may wait for one that came after it.
            while self.place_left_over() {}
            while self.squeeze() {}
            // A merged machine may have room, and may have given limits back, for pods that were left over.
            let left = self.left();
            if !self.merge() || left == 0 {
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
            let attempts = self.classes.get(class).map_or(0, |c| c.attempts.len());
            for attempt in 0..attempts {
                self.fill_gaps(position, class, attempt);
                while self.queue.count(position) > 0 && !self.budget.exhausted() {
                    let Some(candidate) = self.best(position, class, attempt) else {
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
    fn fill_gaps(&mut self, position: usize, class: usize, attempt: usize) {
        let Some(c) = self.classes.get(class) else {
            return;
        };
        for index in 0..self.machines.len() {
            let count = self.queue.count(position);
            if count == 0 || !self.budget.spend(1) {
                return;
            }
            let most = if c.ports.is_empty() { count } else { 1 };
            self.add_to(index, position, class, attempt, &BTreeMap::new(), (1, most));
        }
    }

    /// Puts from `least` to `most` pods on a machine whose chosen type has room for them, in the wanted domains, at the price it
    /// has now; how many.
    pub(crate) fn add_to(
        &mut self,
        index: usize,
        position: usize,
        class: usize,
        attempt: usize,
        wanted: &BTreeMap<Arc<str>, Arc<str>>,
        (least, most): (usize, usize),
    ) -> usize {
        let (Some(c), Some(machine)) = (self.classes.get(class), self.machines.get_mut(index))
        else {
            return 0;
        };
        let most = if c.ports.is_empty() {
            most
        } else {
            most.min(1)
        };
        let n = times(&c.requests, &machine.spare, most);
        let clash = !c.ports.is_empty() && ports_clash(&c.ports, &machine.ports);
        if n == 0 || n < least || clash {
            return 0;
        }
        let mut joined = self
            .sets
            .join(self.catalog, self.classes, machine.set, class, attempt);
        for (key, value) in wanted {
            joined = joined.and_then(|id| self.sets.narrow(self.catalog, id, key, value));
        }
        let Some((id, set)) = joined.and_then(|id| Some((id, self.sets.get(id)?))) else {
            return 0;
        };
        if set.price(machine.chosen).is_none_or(|p| p > machine.price) {
            return 0;
        }
        let Some(pool) = self.catalog.pools.get_mut(machine.pool) else {
            return 0;
        };
        let needs = Needs::with(machine, c, n);
        let chosen = machine.chosen;
        if pool
            .types
            .get(chosen)
            .is_none_or(|s| !takes(s, &needs.need, &needs.ports))
        {
            return 0;
        }
        if set.has_min_values {
            let held = Some(&machine.booked);
            match booking(pool, set, chosen, &needs.need, &needs.ports, held) {
                Some(b) if !b.short_of_variety || self.problem.options.best_effort_min_values => {
                    pool.rebook(&mut machine.booked, b.amount);
                }
                _ => return 0,
            }
        }
        add(&mut machine.spare, &c.requests, -count_of(n));
        machine.set = id;
        needs.put(machine);
        machine.pods.extend(self.queue.take_many(position, n));
        n
    }

    /// Where limits let no machine be bought: puts left-over pods on machines of such pools, even if that makes
    /// them larger. Whether any was placed.
    fn squeeze(&mut self) -> bool {
        let mut any = false;
        for position in 0..self.queue.waiting.len() {
            let Some(class) = self.queue.class(position) else {
                continue;
            };
            if self.ledger.concerns(class) {
                continue;
            }
            let Some(c) = self.classes.get(class) else {
                continue;
            };
            for attempt in 0..c.attempts.len() {
                for index in 0..self.machines.len() {
                    if self.queue.count(position) == 0 || !self.budget.spend(1) {
                        break;
                    }
                    any |= self.grow(index, position, class, attempt);
                }
            }
        }
        any
    }

    fn grow(&mut self, index: usize, position: usize, class: usize, attempt: usize) -> bool {
        let (Some(c), Some(machine)) = (self.classes.get(class), self.machines.get_mut(index))
        else {
            return false;
        };
        let Some(pool) = self.catalog.pools.get(machine.pool) else {
            return false;
        };
        if pool.left.is_none() || ports_clash(&c.ports, &machine.ports) {
            return false;
        }
        let joined = self
            .sets
            .join(self.catalog, self.classes, machine.set, class, attempt);
        let Some((id, set)) = joined.and_then(|id| Some((id, self.sets.get(id)?))) else {
            return false;
        };
        let count = self.queue.count(position);
        let most = if c.ports.is_empty() { count } else { 1 };
        // The cheapest of the types that take most.
        let mut best: Option<(usize, usize, f64)> = None;
        for offer in &set.offers {
            let Some(sold) = pool.types.get(offer.at) else {
                continue;
            };
            if !pool.admits(&sold.instance_type.capacity, Some(&machine.booked)) {
                continue;
            }
            let n = times(&c.requests, &minus(&sold.room, &machine.need), most);
            if n > best.map_or(0, |(most, _, _)| most) {
                let needs = Needs::with(machine, c, n);
                if takes(sold, &needs.need, &needs.ports) {
                    best = Some((n, offer.at, offer.price));
                }
            }
        }
        let Some((n, chosen, price)) = best else {
            return false;
        };
        let needs = Needs::with(machine, c, n);
        let held = Some(&machine.booked);
        let Some(booking) = booking(pool, set, chosen, &needs.need, &needs.ports, held) else {
            return false;
        };
        if booking.short_of_variety && !self.problem.options.best_effort_min_values {
            return false;
        }
        let Some(pool) = self.catalog.pools.get_mut(machine.pool) else {
            return false;
        };
        pool.rebook(&mut machine.booked, booking.amount);
        machine.set = id;
        machine.chosen = chosen;
        machine.price = price;
        needs.put(machine);
        if let Some(sold) = pool.types.get(chosen) {
            machine.spare = minus(&sold.room, &machine.need);
        }
        machine.pods.extend(self.queue.take_many(position, n));
        true
    }

    /// The best purchase for the head of the queue, over the pools of the highest weight that can serve it at all.
    fn best(&mut self, position: usize, class: usize, attempt: usize) -> Option<Candidate> {
        let mut best: Option<Candidate> = None;
        let mut weight = None;
        for index in 0..self.catalog.pools.len() {
            let own = self.catalog.pools.get(index).map(|p| p.view.weight);
            if weight.is_some_and(|w| Some(w) != own) && best.is_some() {
                break;
            }
            weight = own;
            let root = self.sets.root(index)?;
            let joined = self
                .sets
                .join(self.catalog, self.classes, root, class, attempt);
            let Some(set) = joined else { continue };
            let sharers = self.sharers(position, set, attempt);
            let Some(candidate) = self.in_pool(index, set, &sharers) else {
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
    fn sharers(&mut self, head: usize, set: SetId, attempt: usize) -> Vec<(usize, usize, usize)> {
        let mut out = Vec::new();
        let soft = |classes: &Classes, class: usize, attempt: usize| {
            let attempts = classes.get(class).map(|c| &c.attempts);
            attempts.and_then(|a| a.get(attempt)).map(|a| a.soft)
        };
        let head_class = self.queue.class(head).unwrap_or_default();
        let head_soft = soft(self.classes, head_class, attempt);
        for position in self.companions(head) {
            let Some(class) = self.queue.class(position) else {
                continue;
            };
            let shares = position == head
                || !self.ledger.concerns(class)
                    && (soft(self.classes, class, 0) == head_soft
                        && self.sets.join(self.catalog, self.classes, set, class, 0) == Some(set));
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

    /// The best purchase in one pool.
    pub(crate) fn in_pool(
        &mut self,
        index: usize,
        id: SetId,
        sharers: &[(usize, usize, usize)],
    ) -> Option<Candidate> {
        let (pool, set) = (self.catalog.pools.get(index)?, self.sets.get(id)?);
        let units = u64::try_from(set.offers.len()).unwrap_or(u64::MAX);
        if !self.budget.spend(units.max(1)) {
            return None;
        }
        let sharers: Vec<Sharer<'_>> = sharers
            .iter()
            .filter_map(|(position, class, count)| {
                let class = self.classes.get(*class)?;
                let asked = &class.example.requests;
                Some(Sharer {
                    position: *position,
                    class,
                    count: *count,
                    worth: POD_WORTH + self.prices.dollars(asked.get(CPU), asked.get(MEMORY)),
                })
            })
            .collect();
        let head = sharers.first()?.position;
        let mut scored: Vec<Scored> = Vec::new();
        for offer in &set.offers {
            let Some(sold) = pool.types.get(offer.at) else {
                continue;
            };
            if !pool.admits(&sold.instance_type.capacity, None) {
                continue;
            }
            let (worth, filled) = fill(&sold.room, &sold.ports, &sharers);
            // The head has to be served, or the machine is not for it.
            if filled
                .first()
                .is_some_and(|(position, _)| *position == head)
            {
                scored.push((
                    (offer.price + NODE_COST) / worth,
                    offer.at,
                    offer.price,
                    filled,
                ));
            }
        }
        // Offers come cheapest first and by name; equal scores keep that order.
        scored.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut relaxed: Option<Candidate> = None;
        for (score, chosen, price, filled) in scored {
            let (need, ports) = needed(&sharers, &filled);
            let Some(booking) = booking(pool, set, chosen, &need, &ports, None) else {
                continue;
            };
            let short = booking.short_of_variety;
            let candidate = Candidate {
                score,
                set: id,
                chosen,
                price,
                filled,
                booking,
            };
            if !short {
                return Some(candidate);
            }
            // Fewer pods leave more types: one of the next may have the variety that is wanted.
            if self.problem.options.best_effort_min_values && relaxed.is_none() {
                relaxed = Some(candidate);
            }
        }
        relaxed
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
        let mut machine = Machine {
            set: candidate.set,
            pool: set.pool,
            chosen: candidate.chosen,
            price: candidate.price,
            need: Dense::new(),
            spare: sold.room.clone(),
            ports: Vec::new(),
            pods: Vec::new(),
            alone: false,
            id: self.opened,
            booked: candidate.booking.amount,
        };
        self.opened += 1;
        pool.open(&machine.booked);
        for (position, n) in candidate.filled {
            let class = self.queue.class(position).and_then(|c| self.classes.get(c));
            if let Some(class) = class {
                add(&mut machine.spare, &class.requests, -count_of(n));
                Needs::with(&machine, class, n).put(&mut machine);
            }
            machine.pods.extend(self.queue.take_many(position, n));
        }
        self.machines.push(machine);
    }
}

/// What a machine's pods would ask for once more join.
struct Needs {
    need: Dense,
    ports: Vec<HostPort>,
}

impl Needs {
    fn with(machine: &Machine, class: &Class, n: usize) -> Self {
        let mut need = machine.need.clone();
        add(&mut need, &class.requests, count_of(n));
        let mut ports = machine.ports.clone();
        ports.extend(class.ports.iter().cloned());
        Self { need, ports }
    }
    fn put(self, machine: &mut Machine) {
        machine.need = self.need;
        machine.ports = self.ports;
    }
}

fn count_of(n: usize) -> i128 {
    i128::try_from(n).unwrap_or(i128::MAX)
}

/// How many pods of each sharer a machine with this room takes, and what they are worth.
fn fill(room: &Dense, taken: &[HostPort], sharers: &[Sharer<'_>]) -> (f64, Vec<(usize, usize)>) {
    let mut room = room.clone();
    let mut ports: Vec<HostPort> = taken.to_vec();
    let mut worth = 0.0;
    let mut filled = Vec::new();
    for sharer in sharers {
        let most = if sharer.class.ports.is_empty() {
            sharer.count
        } else if ports_clash(&sharer.class.ports, &ports) {
            0
        } else {
            1
        };
        let n = times(&sharer.class.requests, &room, most);
        if n == 0 {
            continue;
        }
        add(&mut room, &sharer.class.requests, -count_of(n));
        ports.extend(sharer.class.ports.iter().cloned());
        #[allow(clippy::cast_precision_loss)] // Counts of pods.
        let gained = sharer.worth * n as f64;
        worth += gained;
        filled.push((sharer.position, n));
    }
    (worth, filled)
}

/// Requests and host ports of what was filled.
fn needed(sharers: &[Sharer<'_>], filled: &[(usize, usize)]) -> (Dense, Vec<HostPort>) {
    let mut need = Dense::new();
    let mut ports = Vec::new();
    for (position, n) in filled {
        if let Some(sharer) = sharers.iter().find(|s| s.position == *position) {
            add(&mut need, &sharer.class.requests, count_of(*n));
            ports.extend(sharer.class.ports.iter().cloned());
        }
    }
    (need, ports)
}

/// Whether any two ports of the lists exclude each other.
pub(crate) fn ports_clash(a: &[HostPort], b: &[HostPort]) -> bool {
    let any = |p: &HostPort| matches!(p.ip.as_ref(), "0.0.0.0" | "::");
    a.iter().any(|p| {
        b.iter().any(|q| {
            p.port == q.port && p.protocol == q.protocol && (any(p) || any(q) || p.ip == q.ip)
        })
    })
}
