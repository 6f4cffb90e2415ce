//! Pods that rules between pods are about: placed domain by domain, the emptiest first, so that every step keeps every
//! rule. Nodes that exist come first, then machines already chosen, then a new one in that domain, sized for all of its
//! class that will come there. Whatever the class, one pod more or less never breaks a rule that held before.

use std::sync::Arc;

use karpenter_api::labels::{CAPACITY_TYPE, ZONE};

use crate::buy::Buyer;
use crate::choose::Candidate;
use crate::class::DemandId;
use crate::rooms::BLOCK;
use crate::sets::SetId;
use crate::topology::{Combination, DomainId, KeyId, NOWHERE};

/// A class being placed, in one of its ways.
#[derive(Clone, Copy)]
pub(crate) struct Turn {
    position: usize,
    pub(crate) class: usize,
    pub(crate) demand: DemandId,
    /// Whether wishes count as if they were rules.
    pub(crate) soft: bool,
    /// Whether its affinity is taken care of by a DaemonSet's pod that will be there.
    pub(crate) beside: bool,
}

impl Buyer<'_, '_> {
    /// Places what can be placed of a queue position; whether anything was.
    pub(crate) fn place_ruled(&mut self, position: usize) -> bool {
        let Some(class) = self.queue.class(position) else {
            return false;
        };
        let Some(c) = self.classes.get(class) else {
            return false;
        };
        let wishes = c.rules.iter().any(|r| !r.required);
        let mut any = false;
        // Wishes are given up last of all: they only decide between places that are there to be had.
        let softness = if wishes {
            &[true, false][..]
        } else {
            &[false][..]
        };
        // With whom is there anyway before with whom a machine would bring along.
        for (beside, soft) in [false, true]
            .into_iter()
            .flat_map(|beside| softness.iter().map(move |soft| (beside, *soft)))
        {
            let (own, others) = if beside {
                (&[][..], &c.beside)
            } else {
                (&*c.attempts, &c.around)
            };
            let demands = own.iter().map(|a| a.demand);
            for demand in demands.chain(others.iter().copied()) {
                let turn = Turn {
                    position,
                    class,
                    demand,
                    soft,
                    beside,
                };
                while self.queue.count(position) > 0 && !self.budget.exhausted() && self.step(turn)
                {
                    any = true;
                }
            }
        }
        any
    }

    /// Places some pods in one domain, the emptiest that has a place for them.
    fn step(&mut self, turn: Turn) -> bool {
        let Some(combinations) = self.combinations(turn) else {
            return false;
        };
        let left = self.queue.count(turn.position);
        // A machine is chosen for all that will come to its domain, not for the step.
        let hint = left.div_ceil(combinations.len().max(1)).max(1);
        // Who may go to places without a label can go to many at once: none is bought while there is room in any domain.
        let nowhere = |c: &Combination| c.iter().any(|(_, domain)| *domain == NOWHERE);
        if combinations.iter().any(|(c, _)| nowhere(c)) {
            for (combination, headroom) in &combinations {
                let range = (1, (*headroom).min(left));
                if (!turn.beside && self.on_nodes(turn, combination, range))
                    || self.on_machines(turn, combination, range)
                {
                    return true;
                }
            }
        }
        for (combination, headroom) in combinations {
            let limit = headroom.min(left);
            if limit == 0 {
                continue;
            }
            // A host that all of a kind have to share is not worth having without room for all of them.
            let whole = !turn.beside && self.ledger.chooses_host(turn.class);
            let least = if whole { left } else { 1 };
            let range = (least, limit);
            let hint = hint.max(limit.min(left));
            if (!turn.beside && self.on_nodes(turn, &combination, range))
                || self.on_machines(turn, &combination, range)
                || self.on_new(turn, &combination, limit, hint)
            {
                return true;
            }
            let any = (1, limit);
            if whole
                && (self.on_nodes(turn, &combination, any)
                    || self.on_machines(turn, &combination, any))
            {
                return true;
            }
            if self.budget.exhausted() {
                return false;
            }
        }
        false
    }

    /// On the first node that takes at least so many; whether there is one.
    fn on_nodes(
        &mut self,
        turn: Turn,
        wanted: &Combination,
        (least, limit): (usize, usize),
    ) -> bool {
        let Some(c) = self.classes.get(turn.class) else {
            return false;
        };
        let mut from = 0;
        while self.budget.spend(1) {
            let ledger = &self.ledger;
            let allowed = |block: usize| {
                ledger.open(turn.class, block) & ledger.topology.inside(wanted, block)
            };
            let range = (from, limit);
            let found = self
                .existing
                .find(self.classes, c, turn.demand, range, &allowed);
            let Some((at, fit)) = found else {
                return false;
            };
            from = at + 1;
            let n = fit.min(self.ledger.host_cap(turn.class, at));
            if n == 0 || n < least {
                continue;
            }
            let pods = self.queue.take_many(turn.position, n);
            self.ledger.placed(turn.class, pods.len(), at);
            self.existing.put(c, at, pods);
            return true;
        }
        false
    }

    /// On the first machine that is to be bought anyway and takes at least so many; whether there is one.
    fn on_machines(
        &mut self,
        turn: Turn,
        wanted: &Combination,
        (least, limit): (usize, usize),
    ) -> bool {
        let Some(c) = self.classes.get(turn.class) else {
            return false;
        };
        let mut from = 0;
        while self.budget.spend(1) {
            let ledger = &self.ledger;
            let first = ledger.topology.machine_block();
            let allowed = |block: usize| {
                ledger.open_as(turn.class, first + block, turn.beside)
                    & ledger.topology.not_outside(wanted, first + block)
            };
            let end = self.machines.len();
            let Some(index) = self.spare.find(from, end, &c.requests, &allowed) else {
                return false;
            };
            from = index + 1;
            let place = ledger.topology.machine(index);
            let cap = { ledger.host_cap_as(turn.class, place, turn.beside) }.min(limit);
            if cap == 0 || cap < least {
                continue;
            }
            let who = (turn.class, turn.demand);
            let n = self.add_to(index, turn.position, who, wanted, (least, cap));
            if n > 0 {
                self.settle(index, turn.class, n);
                return true;
            }
        }
        false
    }

    /// On a new machine, chosen for `hint` pods of the class and filled with at most `limit`.
    fn on_new(&mut self, turn: Turn, wanted: &Combination, limit: usize, hint: usize) -> bool {
        let index = self.machines.len();
        let cap = self.ledger.fresh_cap(turn.class, turn.beside);
        if cap == 0 {
            return false;
        }
        let mut best: Option<Candidate> = None;
        let mut weight = None;
        for pool in 0..self.catalog.pools.len() {
            let own = self.catalog.pools.get(pool).map(|p| p.view.weight);
            if weight.is_some_and(|w| Some(w) != own) && best.is_some() {
                break;
            }
            weight = own;
            let Some(set) = self.narrowed(pool, turn.demand, wanted) else {
                continue;
            };
            let sharers = [(turn.position, turn.class, hint.min(cap))];
            let Some(candidate) = self.of_pool(pool, set, &sharers) else {
                continue;
            };
            if best.as_ref().is_none_or(|b| candidate.score < b.score) {
                best = Some(candidate);
            }
        }
        let Some(mut candidate) = best else {
            return false;
        };
        candidate.at_most(limit.min(cap));
        self.open(candidate);
        let placed = self.machines.get(index).map_or(0, |m| m.pods.len());
        if placed > 0 {
            self.settle(index, turn.class, placed);
        }
        placed > 0
    }

    /// On a machine that becomes larger for it, which is the last resort: no other place keeps the rules. Whether any
    /// pod was placed.
    pub(crate) fn squeeze_ruled(&mut self, position: usize) -> bool {
        let Some(class) = self.queue.class(position) else {
            return false;
        };
        let attempts = self.classes.get(class).map_or(&[][..], |c| &c.attempts);
        for attempt in attempts {
            let turn = Turn {
                position,
                class,
                demand: attempt.demand,
                soft: false,
                beside: false,
            };
            for (wanted, headroom) in self.combinations(turn).unwrap_or_default() {
                for index in 0..self.machines.len() {
                    let topology = &self.ledger.topology;
                    let place = topology.machine(index);
                    let (block, bit) = (place / BLOCK, place % BLOCK);
                    let open =
                        self.ledger.open(class, block) & topology.not_outside(&wanted, block);
                    let cap = self.ledger.host_cap(class, place).min(headroom);
                    if open >> bit & 1 == 0 || cap == 0 {
                        continue;
                    }
                    if !self.budget.spend(1) {
                        return false;
                    }
                    let most = cap.min(self.queue.count(position));
                    let n = self.grow(index, position, (class, attempt.demand), &wanted, most);
                    if n > 0 {
                        self.settle(index, class, n);
                        return true;
                    }
                }
            }
        }
        false
    }

    /// The set of a new machine of a pool for a demand in the wanted domains.
    fn narrowed(&mut self, pool: usize, demand: DemandId, wanted: &Combination) -> Option<SetId> {
        let root = self.sets.root(pool)?;
        let mut set = self.sets.join(self.catalog, self.classes, root, demand)?;
        for (key, domain) in wanted {
            set = self.pinned(set, *key, *domain)?;
        }
        Some(set)
    }

    /// A set with a key pinned to one of its domains.
    pub(crate) fn pinned(&mut self, set: SetId, key: KeyId, domain: DomainId) -> Option<SetId> {
        let topology = &self.ledger.topology;
        let name = topology.key_name(key)?;
        if domain == NOWHERE {
            return self.sets.without(self.catalog, set, key, name);
        }
        let value = topology.domain_name(key, domain)?;
        self.sets
            .narrow(self.catalog, set, (key, domain), name, value)
    }

    /// Fixes the domains of a machine that pods of the class have joined, and takes note of them there.
    pub(crate) fn settle(&mut self, index: usize, class: usize, n: usize) {
        let place = self.ledger.topology.machine(index);
        for at in 0..self.ledger.keys(class).len() {
            let Some(key) = self.ledger.keys(class).get(at).copied() else {
                return;
            };
            if self.ledger.topology.domain(key, place).is_some() {
                continue;
            }
            let Some(value) = self.value_of(index, key) else {
                let set = self.machines.get(index).map(|m| m.set);
                if set.is_some_and(|set| self.pinned(set, key, NOWHERE) == Some(set)) {
                    self.ledger.topology.pin_nowhere(key, place);
                }
                continue;
            };
            let domain = self.ledger.topology.domain_id(key, &value);
            let set = self.machines.get(index).map(|m| m.set);
            if let Some(set) = set.and_then(|s| self.pinned(s, key, domain))
                && let Some(machine) = self.machines.get_mut(index)
            {
                machine.set = set;
                self.ledger.topology.pin(key, domain, place);
            }
        }
        self.daemons_come(index);
        self.decide(index, class);
        self.ledger.placed(class, n, place);
    }

    /// Takes note of DaemonSets' pods that rules are about and that will be on a machine, whatever it becomes.
    pub(crate) fn daemons_come(&mut self, index: usize) {
        let Some(set) = self.machines.get(index).map(|m| m.set) else {
            return;
        };
        let place = self.ledger.topology.machine(index);
        let minded: Vec<_> = self.ledger.daemons().collect();
        for (at, daemon) in minded {
            if self.sets.runs(self.catalog, set, daemon) {
                let requirements = self.sets.get(set).map(|s| &s.requirements);
                self.ledger.comes(at, place, requirements);
            }
        }
    }

    /// Finds out for which spreads a machine counts that pods of the class come to: as long as it may become a node that
    /// a spread heeds, it does.
    fn decide(&mut self, index: usize, class: usize) {
        let place = self.ledger.topology.machine(index);
        let Some(machine) = self.machines.get(index) else {
            return;
        };
        let (Some(set), Some(pool)) = (
            self.sets.get(machine.set),
            self.catalog.pools.get(machine.pool),
        ) else {
            return;
        };
        let labels = &self.problem.labels;
        self.ledger
            .decide(class, place, |heeded| heeded.may_have(pool, set, labels));
    }

    /// Whether a machine counts under another set for all the spreads that it counts for now: pods were placed in view of
    /// that.
    pub(crate) fn keeps_counting(&self, index: usize, set: SetId) -> bool {
        let place = self.ledger.topology.machine(index);
        let Some(set) = self.sets.get(set) else {
            return false;
        };
        let Some(pool) = self.catalog.pools.get(set.pool) else {
            return false;
        };
        let labels = &self.problem.labels;
        let mut heeded = self.ledger.heeded(place);
        heeded.all(|heeded| heeded.may_have(pool, set, labels))
    }

    /// The value of a key that a machine has, or that its cheapest offering gives it.
    fn value_of(&mut self, index: usize, key: KeyId) -> Option<Arc<str>> {
        let machine = self.machines.get(index)?;
        let name = Arc::clone(self.ledger.topology.key_name(key)?);
        let set = self.sets.get(machine.set)?;
        if let Some(value) = set.requirements.get(&name).and_then(|r| r.single()) {
            return Some(value.clone());
        }
        let pool = self.catalog.pools.get(machine.pool)?;
        let offering = pool.offering(set.offer(machine.chosen)?)?;
        let cheapest: Option<Arc<str>> = match &*name {
            ZONE => Some(offering.zone().into()),
            CAPACITY_TYPE => Some(offering.capacity_type().into()),
            _ => None,
        };
        let (id, chosen, price) = (machine.set, machine.chosen, machine.price);
        let place = self.ledger.topology.machine(index);
        if cheapest.is_some() && self.ledger.heeded(place).next().is_none() {
            return cheapest;
        }
        let values = self.sets.values(self.catalog, id, key, &name);
        let mut all = cheapest.iter().chain(values.iter());
        // Where that costs no more, one with which the machine still counts for what it counts for.
        let keeps = |value: &&Arc<str>| {
            let domain = self.ledger.topology.domain_id(key, value);
            self.pinned(id, key, domain).is_some_and(|set| {
                let same = self.sets.get(set).and_then(|s| s.price(chosen)) <= Some(price);
                same && self.keeps_counting(index, set)
            })
        };
        all.find(keeps)
            .cloned()
            .or(cheapest)
            .or_else(|| values.first().cloned())
    }

    /// Why pods of a class that rules are about are left over, where rules may be the reason.
    pub(crate) fn ruled_out(&mut self, class: usize) -> Option<String> {
        let last = self.classes.get(class)?.attempts.last()?.demand;
        let topology = &self.ledger.topology;
        let blocked: Vec<String> = self
            .ledger
            .groups(class)
            .filter(|(g, _)| g.rule.required)
            .map(|(g, _)| {
                let counts: Vec<String> = g
                    .told(topology, self.existing.views())
                    .into_iter()
                    .map(|(d, n)| format!("{d}={n}"))
                    .take(8)
                    .collect();
                format!(
                    "{} (counts {})",
                    g.rule.text(),
                    if counts.is_empty() {
                        "none".to_owned()
                    } else {
                        counts.join(", ")
                    }
                )
            })
            .collect();
        if blocked.is_empty() && self.ledger.holding_keys(class).next().is_none() {
            return None;
        }
        let mut text = format!("no place satisfies its {}", blocked.join(" and "));
        if blocked.is_empty() {
            text =
                "every place is in a domain where a pod holds anti-affinity against it".to_owned();
        }
        // Only where a machine could be had for it if there were no rules.
        let could = (0..self.catalog.pools.len()).any(|pool| {
            self.narrowed(pool, last, &Combination::new())
                .is_some_and(|set| self.of_pool(pool, set, &[(usize::MAX, class, 1)]).is_some())
        });
        could.then_some(text)
    }
}
