//! Pods that rules between pods are about: placed domain by domain, the emptiest first, so that every step keeps every
//! rule. Nodes that exist come first, then machines already chosen, then a new one in that domain, sized for all of its
//! class that will come there. Whatever the class, one pod more or less never breaks a rule that held before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_api::labels::{CAPACITY_TYPE, HOSTNAME, ZONE};

use crate::buy::Buyer;
use crate::ledger::{Domain, domain_of, host_of_machine};
use crate::rules::Demand;
use crate::sets::SetId;

/// Most combinations of domains of several keys that are tried for one step.
const MAX_COMBINATIONS: usize = 64;

/// Domains that are asked for, by key.
type Combination = BTreeMap<Arc<str>, Domain>;

/// A domain that may take pods: how many, and how full it is.
struct Choice {
    domain: Domain,
    headroom: usize,
    count: usize,
}

impl Buyer<'_, '_> {
    /// Places what can be placed of a queue position; whether anything was.
    pub(crate) fn place_ruled(&mut self, position: usize) -> bool {
        let Some(class) = self.queue.class(position) else {
            return false;
        };
        let attempts = self.classes.get(class).map_or(0, |c| c.attempts.len());
        let wishes = self
            .classes
            .get(class)
            .is_some_and(|c| c.rules.iter().any(|r| !r.required));
        let mut any = false;
        // Wishes are given up last of all: they only decide between places that are there to be had.
        for soft in if wishes {
            &[true, false][..]
        } else {
            &[false][..]
        } {
            for attempt in 0..attempts {
                while self.queue.count(position) > 0
                    && !self.budget.exhausted()
                    && self.step(position, class, attempt, *soft)
                {
                    any = true;
                }
            }
        }
        any
    }

    /// Places some pods in one domain, the emptiest that has a place for them.
    fn step(&mut self, position: usize, class: usize, attempt: usize, soft: bool) -> bool {
        let Some(combinations) = self.combinations(class, attempt, soft) else {
            return false;
        };
        let left = self.queue.count(position);
        // A machine is chosen for all that will come to its domain, not for the step.
        let hint = left.div_ceil(combinations.len().max(1)).max(1);
        for (combination, headroom) in combinations {
            let limit = headroom.min(left);
            if limit == 0 {
                continue;
            }
            // A host that all of a kind have to share is not worth having without room for all of them.
            let whole = self.ledger.chooses_host(class);
            let least = if whole { left } else { 1 };
            let range = (least, limit);
            let hint = hint.max(limit.min(left));
            if self.on_nodes(position, class, attempt, &combination, range, soft)
                || self.on_machines(position, class, attempt, &combination, range, soft)
                || self.on_new(position, class, attempt, &combination, limit, hint)
            {
                return true;
            }
            let any = (1, limit);
            if whole
                && (self.on_nodes(position, class, attempt, &combination, any, soft)
                    || self.on_machines(position, class, attempt, &combination, any, soft))
            {
                return true;
            }
            if self.budget.exhausted() {
                return false;
            }
        }
        false
    }

    /// What may be tried, the emptiest first, with the number of pods that may go there; none if a rule has no domain.
    fn combinations(
        &mut self,
        class: usize,
        attempt: usize,
        soft: bool,
    ) -> Option<Vec<(Combination, usize)>> {
        let mut by_key: BTreeMap<Arc<str>, Vec<Choice>> = BTreeMap::new();
        let ruled: BTreeSet<Arc<str>> = self
            .ledger
            .groups(class)
            .iter()
            .filter(|g| !g.rule.is_by_host() && (g.rule.required || soft))
            .map(|g| g.rule.key.clone())
            .chain(self.ledger.holding_keys(class))
            .collect();
        for key in ruled {
            let choices = self.choices(class, attempt, &key, soft);
            if choices.is_empty() {
                return None;
            }
            by_key.insert(key, choices);
        }
        let mut out: Vec<(Combination, usize, usize)> = vec![(Combination::new(), usize::MAX, 0)];
        for (key, choices) in by_key {
            let mut next = Vec::new();
            for (combination, headroom, rank) in &out {
                for choice in &choices {
                    let mut combination = combination.clone();
                    combination.insert(key.clone(), choice.domain.clone());
                    next.push((
                        combination,
                        choice.headroom.min(*headroom),
                        rank + choice.count,
                    ));
                }
            }
            next.sort_by_key(|(_, _, rank)| *rank);
            next.truncate(MAX_COMBINATIONS);
            out = next;
        }
        Some(
            out.into_iter()
                .map(|(c, headroom, _)| (c, headroom))
                .collect(),
        )
    }

    /// The domains of a key that may take pods of the class, the emptiest first.
    fn choices(&mut self, class: usize, attempt: usize, key: &str, soft: bool) -> Vec<Choice> {
        let to_buy = self.purchasable(class, attempt, key);
        let mut domains: BTreeSet<Domain> = to_buy.clone();
        for node in &self.existing.nodes {
            domains.extend(domain_of(&node.view, key));
        }
        let mut choices: Vec<Choice> = domains
            .into_iter()
            .filter(|d| !self.ledger.is_forbidden(class, key, d))
            .map(|domain| Choice {
                domain,
                headroom: usize::MAX,
                count: 0,
            })
            .collect();
        for group in self.ledger.groups(class) {
            if &*group.rule.key != key || !(group.rule.required || soft) {
                continue;
            }
            let eligible: BTreeSet<Domain> = group.domains.union(&to_buy).cloned().collect();
            let least = group.least(&eligible);
            let is_spread = matches!(group.rule.demand, Demand::Spread { .. });
            for choice in &mut choices {
                let here = group.count(&choice.domain);
                choice.headroom = choice.headroom.min(group.headroom(class, here, least));
                // Fuller domains of a spread come later; those of an affinity are not worse for being full.
                choice.count += if is_spread { here } else { 0 };
                if is_spread && !eligible.contains(&choice.domain) {
                    choice.headroom = 0;
                }
            }
        }
        choices.retain(|c| c.headroom > 0);
        choices.sort_by(|a, b| a.count.cmp(&b.count).then_with(|| a.domain.cmp(&b.domain)));
        choices
    }

    /// Values of a key that machines bought for the class can have.
    fn purchasable(&mut self, class: usize, attempt: usize, key: &str) -> BTreeSet<Domain> {
        let known = (class, attempt, Arc::<str>::from(key));
        if let Some(values) = self.purchasable.get(&known) {
            return values.clone();
        }
        let mut out = BTreeSet::new();
        for index in 0..self.catalog.pools.len() {
            let Some(root) = self.sets.root(index) else {
                continue;
            };
            let joined = self
                .sets
                .join(self.catalog, self.classes, root, class, attempt);
            if let Some(set) = joined {
                out.extend(self.sets.values(self.catalog, set, key));
            }
        }
        self.purchasable.insert(known, out.clone());
        out
    }

    /// On the first node that takes at least so many; whether there is one.
    fn on_nodes(
        &mut self,
        position: usize,
        class: usize,
        attempt: usize,
        wanted: &Combination,
        (least, limit): (usize, usize),
        soft: bool,
    ) -> bool {
        let (Some(c), Some(a)) = (
            self.classes.get(class),
            self.classes
                .get(class)
                .and_then(|c| c.attempts.get(attempt)),
        ) else {
            return false;
        };
        for node in &mut self.existing.nodes {
            if !self.budget.spend(1) {
                return false;
            }
            let there = wanted
                .iter()
                .all(|(key, domain)| domain_of(&node.view, key).as_ref() == Some(domain));
            if !there {
                continue;
            }
            let fit = crate::existing::how_many(c, a, node, limit);
            if fit == 0 {
                continue;
            }
            let host = domain_of(&node.view, HOSTNAME).unwrap_or_default();
            let n = fit.min(self.ledger.host_cap(class, &host, soft));
            if n == 0 || n < least {
                continue;
            }
            let pods = self.queue.take_many(position, n);
            node.take(c, pods.len());
            let view = node.view.clone();
            self.ledger
                .placed(c, class, pods.len(), &|key| domain_of(&view, key));
            self.existing
                .placed
                .entry(view.name.clone())
                .or_default()
                .extend(pods);
            return true;
        }
        false
    }

    /// On the first machine that is to be bought anyway and takes at least so many; whether there is one.
    fn on_machines(
        &mut self,
        position: usize,
        class: usize,
        attempt: usize,
        wanted: &Combination,
        (least, limit): (usize, usize),
        soft: bool,
    ) -> bool {
        for index in 0..self.machines.len() {
            if !self.budget.spend(1) {
                return false;
            }
            let host = self.machines.get(index).map(|m| host_of_machine(m.id));
            let cap = self
                .ledger
                .host_cap(class, &host.unwrap_or_default(), soft)
                .min(limit);
            if cap == 0 || cap < least {
                continue;
            }
            let n = self.add_to(index, position, class, attempt, wanted, (least, cap));
            if n > 0 {
                self.settle(index, class, n);
                return true;
            }
        }
        false
    }

    /// On a new machine, chosen for `hint` pods of the class and filled with at most `limit`.
    fn on_new(
        &mut self,
        position: usize,
        class: usize,
        attempt: usize,
        wanted: &Combination,
        limit: usize,
        hint: usize,
    ) -> bool {
        let index = self.machines.len();
        // Whether the host is new decides what it may take, not who it is.
        let cap = self
            .ledger
            .host_cap(class, &host_of_machine(self.opened), false);
        if cap == 0 {
            return false;
        }
        let mut best = None;
        let mut weight = None;
        for pool in 0..self.catalog.pools.len() {
            let own = self.catalog.pools.get(pool).map(|p| p.view.weight);
            if weight.is_some_and(|w| Some(w) != own) && best.is_some() {
                break;
            }
            weight = own;
            let Some(set) = self.narrowed(pool, class, attempt, wanted) else {
                continue;
            };
            let sharers = [(position, class, hint.min(cap))];
            let Some(candidate) = self.in_pool(pool, set, &sharers) else {
                continue;
            };
            if best
                .as_ref()
                .is_none_or(|b: &crate::buy::Candidate| candidate.score < b.score)
            {
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
            self.settle(index, class, placed);
        }
        placed > 0
    }

    /// The set of a new machine of a pool for the class in the wanted domains.
    fn narrowed(
        &mut self,
        pool: usize,
        class: usize,
        attempt: usize,
        wanted: &Combination,
    ) -> Option<SetId> {
        let root = self.sets.root(pool)?;
        let mut set = self
            .sets
            .join(self.catalog, self.classes, root, class, attempt)?;
        for (key, domain) in wanted {
            set = self.sets.narrow(self.catalog, set, key, domain)?;
        }
        Some(set)
    }

    /// Fixes the domains of a machine that pods of the class have joined, and takes note of them there.
    fn settle(&mut self, index: usize, class: usize, n: usize) {
        let keys: Vec<Arc<str>> = self.ledger.keys(class).cloned().collect();
        for key in keys {
            let Some(machine) = self.machines.get(index) else {
                return;
            };
            let Some(set) = self.sets.get(machine.set) else {
                return;
            };
            let value = set
                .requirements
                .get(&key)
                .and_then(|r| r.single().cloned())
                .or_else(|| {
                    let offer = set.offers.iter().find(|o| o.at == machine.chosen)?;
                    match &*key {
                        ZONE => Some(offer.zone.clone()),
                        CAPACITY_TYPE => Some(offer.capacity_type.clone()),
                        _ => self
                            .sets
                            .values(self.catalog, machine.set, &key)
                            .into_iter()
                            .next(),
                    }
                });
            let Some(value) = value else {
                continue;
            };
            if let Some(set) = self.sets.narrow(self.catalog, machine.set, &key, &value)
                && let Some(machine) = self.machines.get_mut(index)
            {
                machine.set = set;
            }
        }
        let minds = self.ledger.minds_hosts(class);
        let Some(machine) = self.machines.get_mut(index) else {
            return;
        };
        machine.alone |= minds;
        let host = host_of_machine(machine.id);
        let Some(requirements) = self
            .machines
            .get(index)
            .and_then(|m| self.sets.get(m.set))
            .map(|s| &s.requirements)
        else {
            return;
        };
        let domain = |key: &str| {
            if key == HOSTNAME {
                return Some(host.clone());
            }
            requirements.get(key).and_then(|r| r.single().cloned())
        };
        if let Some(c) = self.classes.get(class) {
            self.ledger.placed(c, class, n, &domain);
        }
    }

    /// Why pods of a class that rules are about are left over, where rules may be the reason.
    pub(crate) fn ruled_out(&mut self, class: usize) -> Option<String> {
        let attempts = self.classes.get(class)?.attempts.len();
        let last = attempts.checked_sub(1)?;
        let blocked: Vec<String> = self
            .ledger
            .groups(class)
            .iter()
            .filter(|g| g.rule.required)
            .map(|g| {
                let counts: Vec<String> = g
                    .counts
                    .iter()
                    .filter(|(_, n)| **n > 0)
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
        let held = self.ledger.holding_keys(class);
        if blocked.is_empty() && held.is_empty() {
            return None;
        }
        let mut text = format!("no place satisfies its {}", blocked.join(" and "));
        if blocked.is_empty() {
            text =
                "every place is in a domain where a pod holds anti-affinity against it".to_owned();
        }
        // Only where a machine could be had for it if there were no rules.
        let could = (0..self.catalog.pools.len()).any(|pool| {
            self.narrowed(pool, class, last, &Combination::new())
                .is_some_and(|set| self.in_pool(pool, set, &[(usize::MAX, class, 1)]).is_some())
        });
        could.then_some(text)
    }
}
