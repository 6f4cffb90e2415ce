//! Which domains may take pods that rules between pods are about: for each key that rules name how many pods each of its
//! domains may take on, and the combinations of several keys' domains, the emptiest first.

use std::collections::BTreeSet;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::buy::Buyer;
use crate::class::DemandId;
use crate::ledger::{Group, Over};
use crate::ruled::Turn;
use crate::rules::Demand;
use crate::sets::SetId;
use crate::topology::{Combination, DomainId, KeyId, NOWHERE};

/// Most combinations of domains of several keys that are tried for one step.
const MAX_COMBINATIONS: usize = 64;

/// Keys that rules name.
pub(crate) type Keys = SmallVec<[KeyId; 2]>;

/// A domain that may take pods: how many, and how full it is.
struct Choice {
    domain: DomainId,
    headroom: usize,
    count: usize,
}

impl Buyer<'_, '_> {
    /// What may be tried, the emptiest first, with the number of pods that may go there; none if a rule has no domain.
    pub(crate) fn combinations(&mut self, turn: Turn) -> Option<Vec<(Combination, usize)>> {
        let mut keys: Vec<KeyId> = self
            .ledger
            .groups(turn.class)
            .filter(|(g, _)| g.rule.required || turn.soft)
            .filter_map(|(g, _)| match g.over {
                Over::Key(key) => Some(key),
                Over::Hosts => None,
            })
            .chain(self.ledger.holding_keys(turn.class))
            .collect();
        let topology = &self.ledger.topology;
        keys.sort_by_key(|key| topology.key_name(*key));
        keys.dedup();
        let mut out: Vec<(Combination, usize, usize)> = vec![(Combination::new(), usize::MAX, 0)];
        for key in keys {
            let choices = self.choices(turn, key);
            if choices.is_empty() {
                return None;
            }
            let mut next = Vec::with_capacity(out.len() * choices.len());
            for (combination, headroom, rank) in &out {
                for choice in &choices {
                    let mut combination = combination.clone();
                    combination.push((key, choice.domain));
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

    /// Whether the class may go to places without a label: it only has pods to keep away from by it, and where nobody is in
    /// any domain, nobody is in the same one. A spread or an affinity needs nodes that have the label.
    fn may_be_nowhere(&mut self, turn: Turn, key: KeyId) -> bool {
        let needs = |g: &Group| g.over == Over::Key(key) && g.rule.demand != Demand::Apart;
        let heeded = |g: &Group| g.rule.required || turn.soft;
        let ledger = &self.ledger;
        if { ledger.groups(turn.class) }.any(|(g, _)| heeded(g) && needs(g)) {
            return false;
        }
        if let Some(known) = self.nowhere.get(&key) {
            return *known;
        }
        let mut pools = 0..self.catalog.pools.len();
        let found = self.ledger.topology.is_lacked(key)
            || pools.any(|pool| {
                let root = self.sets.root(pool);
                root.is_some_and(|set| self.pinned(set, key, NOWHERE).is_some())
            });
        self.nowhere.insert(key, found);
        found
    }

    /// The domains of a key that may take pods of the class, the emptiest first.
    fn choices(&mut self, turn: Turn, key: KeyId) -> Vec<Choice> {
        let class = turn.class;
        // What a pod merely prefers makes no zone less of a domain, and where its volumes are does neither: kube-scheduler
        // spreads it over what its node affinity admits. Of that, zones without nodes count that others of its kind may
        // come to, whose volumes are elsewhere.
        let mut to_buy: BTreeSet<DomainId> = BTreeSet::new();
        let needed = self.ledger.spread_keys(class);
        let own = self.classes.get(class);
        let others = if own.is_some_and(|c| c.attempts.iter().any(|a| !a.of_volumes.is_empty())) {
            self.ledger.companions(class, key)
        } else {
            Vec::new()
        };
        for class in others.into_iter().chain([class]) {
            let attempts = self.classes.get(class).map_or(&[][..], |c| &c.attempts);
            for attempt in attempts {
                let bought = self.purchasable(attempt.demand, key, &needed);
                to_buy.extend(bought.iter().copied());
            }
        }
        let nowhere = self.may_be_nowhere(turn, key);
        let bought = if turn.beside {
            self.purchasable(turn.demand, key, &needed)
        } else {
            Arc::default()
        };
        let ledger = &self.ledger;
        // Every domain that is known: nodes are there, or machines can be bought.
        let mut choices: Vec<Choice> = (ledger.topology.domains(key))
            .filter(|d| !ledger.is_forbidden(class, key, *d))
            .map(|domain| Choice {
                domain,
                headroom: usize::MAX,
                count: 0,
            })
            .collect();
        for (group, itself) in ledger.groups(class) {
            if group.over != Over::Key(key) || !(group.rule.required || turn.soft) {
                continue;
            }
            if turn.beside && group.rule.is_bond() {
                choices.retain(|c| bought.contains(&c.domain));
                continue;
            }
            let is_spread = matches!(group.rule.demand, Demand::Spread { .. });
            let eligible: Vec<DomainId> = if is_spread {
                let known = ledger.topology.domains(key);
                known
                    .filter(|d| group.domains.has(*d) || to_buy.contains(d))
                    .collect()
            } else {
                Vec::new()
            };
            let least = group.least(&eligible);
            for choice in &mut choices {
                let here = group.count(choice.domain);
                choice.headroom = choice.headroom.min(group.headroom(itself, here, least));
                // Fuller domains of a spread come later; those of an affinity are not worse for being full.
                choice.count += if is_spread { here } else { 0 };
                if is_spread && !eligible.contains(&choice.domain) {
                    choice.headroom = 0;
                }
            }
        }
        choices.retain(|c| c.headroom > 0);
        if nowhere {
            choices.push(Choice {
                domain: NOWHERE,
                headroom: usize::MAX,
                count: 0,
            });
        }
        let ledger = &self.ledger;
        let name = |c: &Choice| ledger.topology.domain_name(key, c.domain);
        choices.sort_by(|a, b| a.count.cmp(&b.count).then_with(|| name(a).cmp(&name(b))));
        choices
    }

    /// Domains of a key that machines bought for a demand can be in, if they can have the labels that are needed besides.
    fn purchasable(&mut self, demand: DemandId, key: KeyId, needed: &Keys) -> Arc<Vec<DomainId>> {
        let asked = (demand, key, needed.clone());
        if let Some(known) = self.purchasable.get(&asked) {
            return Arc::clone(known);
        }
        let mut values: BTreeSet<Arc<str>> = BTreeSet::new();
        let name = self.ledger.topology.key_name(key).cloned();
        for index in 0..self.catalog.pools.len() {
            let (Some(root), Some(name)) = (self.sets.root(index), &name) else {
                continue;
            };
            let joined = self.sets.join(self.catalog, self.classes, root, demand);
            if let Some(set) = joined
                && needed.iter().all(|key| self.can_have(set, *key))
            {
                let own = self.sets.values(self.catalog, set, key, name);
                values.extend(own.iter().cloned());
            }
        }
        let topology = &mut self.ledger.topology;
        let out: Vec<DomainId> = values.iter().map(|v| topology.domain_id(key, v)).collect();
        let out = Arc::new(out);
        self.purchasable.insert(asked, Arc::clone(&out));
        out
    }

    /// Whether machines of a set can have a label.
    fn can_have(&mut self, set: SetId, key: KeyId) -> bool {
        let name = self.ledger.topology.key_name(key).cloned();
        name.is_some_and(|name| !self.sets.values(self.catalog, set, key, &name).is_empty())
    }
}
