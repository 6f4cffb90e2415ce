//! Where the pods are that rules are about: counts by rule and domain, kept up to date while pods are placed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_api::labels::HOSTNAME;
use karpenter_model::taints::first_untolerated;
use karpenter_model::{NodeView, Pod, Problem, Requirements, Undefined};

use crate::class::{Class, Classes};
use crate::rules::{self, Demand, Rule, Who};

/// Value of a topology key. Machines to be bought have host names of their own, see [`host_of_machine`].
pub(crate) type Domain = Arc<str>;

/// The host name that stands for a machine to be bought.
pub(crate) fn host_of_machine(id: usize) -> Domain {
    // No label value can hold a colon.
    format!("machine:{id}").into()
}

/// A rule of a class with what is known about its domains.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) rule: Rule,
    /// Pods that are meant, by domain.
    pub(crate) counts: BTreeMap<Domain, usize>,
    /// Domains of nodes that exist and count.
    pub(crate) domains: BTreeSet<Domain>,
    /// By class: whether its pods are meant.
    meant: Vec<bool>,
}

/// Anti-affinity that pods hold against others.
#[derive(Debug)]
struct Held {
    key: Arc<str>,
    who: Who,
    /// How many holders there are by domain.
    holders: BTreeMap<Domain, usize>,
    /// By class: whether its pods must keep away.
    bound: Vec<bool>,
}

/// All rules that pods to be placed have or are concerned by.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// By class.
    groups: Vec<Vec<Group>>,
    held: Vec<Held>,
    /// By class: keys whose domain has to be known of every place its pods go to.
    keys: Vec<BTreeSet<Arc<str>>>,
    /// By class: whether any rule is about it.
    concerned: Vec<bool>,
}

impl Ledger {
    /// Of all classes and the pods that are there.
    pub(crate) fn new(problem: &Problem, classes: &Classes) -> Self {
        let mut ledger = Self::default();
        let moving: BTreeSet<_> = problem.pods.iter().map(|p| &p.key).collect();
        // Read once: there may be many rules, and more nodes.
        let any_rule = classes.iter().any(|c| !c.rules.is_empty());
        let there: Vec<There<'_>> = problem
            .nodes
            .iter()
            .map(|node| There {
                node,
                labels: if any_rule {
                    Requirements::from_labels(&node.labels, &problem.labels)
                } else {
                    Requirements::new()
                },
                pods: node
                    .pods
                    .iter()
                    .filter(|p| !moving.contains(&p.key))
                    .collect(),
            })
            .collect();
        let mut held: BTreeMap<(Arc<str>, Who), BTreeMap<Domain, usize>> = BTreeMap::new();
        for place in &there {
            for pod in &place.pods {
                for (key, who) in rules::held(problem, pod) {
                    if let Some(domain) = domain_of(place.node, &key) {
                        *held
                            .entry((key, who))
                            .or_default()
                            .entry(domain)
                            .or_default() += 1;
                    }
                }
            }
        }
        for class in classes.iter() {
            for rule in &class.held {
                held.entry(rule.clone()).or_default();
            }
        }
        let examples: Vec<&Arc<Pod>> = classes.iter().map(|c| &c.example).collect();
        let by_class = |who: &Who| -> Vec<bool> { examples.iter().map(|p| who.means(p)).collect() };
        ledger.held = held
            .into_iter()
            .map(|((key, who), holders)| Held {
                bound: by_class(&who),
                key,
                who,
                holders,
            })
            .collect();
        for class in classes.iter() {
            let groups = class.rules.iter().map(|rule| {
                let mut group = Group {
                    meant: by_class(&rule.who),
                    rule: rule.clone(),
                    counts: BTreeMap::new(),
                    domains: BTreeSet::new(),
                };
                for place in there.iter().filter(|t| counts(class, rule, t)) {
                    let Some(domain) = domain_of(place.node, &rule.key) else {
                        continue;
                    };
                    let meant = place.pods.iter().filter(|p| rule.who.means(p)).count();
                    group.domains.insert(domain.clone());
                    if meant > 0 {
                        *group.counts.entry(domain).or_default() += meant;
                    }
                }
                group
            });
            ledger.groups.push(groups.collect());
        }
        ledger.index(classes.len());
        ledger
    }

    fn index(&mut self, classes: usize) {
        for class in 0..classes {
            let is = |flags: &Vec<bool>| flags.get(class).copied().unwrap_or(false);
            let mut keys: BTreeSet<Arc<str>> = BTreeSet::new();
            let own = self.groups.get(class).into_iter().flatten();
            keys.extend(own.map(|g| g.rule.key.clone()));
            let meant = self.groups.iter().flatten().filter(|g| is(&g.meant));
            keys.extend(meant.map(|g| g.rule.key.clone()));
            let bound = self.held.iter().filter(|h| is(&h.bound));
            keys.extend(bound.map(|h| h.key.clone()));
            self.concerned.push(!keys.is_empty());
            self.keys.push(keys);
        }
    }

    /// Whether any rule is about pods of the class.
    pub(crate) fn concerns(&self, class: usize) -> bool {
        self.concerned.get(class).copied().unwrap_or(false)
    }

    /// Whether it matters which pods of the class share a host with which others.
    pub(crate) fn minds_hosts(&self, class: usize) -> bool {
        self.keys.get(class).is_some_and(|k| k.contains(HOSTNAME))
    }

    /// Keys other than the host name whose domain has to be known of every place its pods go to.
    pub(crate) fn keys(&self, class: usize) -> impl Iterator<Item = &Arc<str>> {
        self.keys
            .get(class)
            .into_iter()
            .flatten()
            .filter(|k| &***k != HOSTNAME)
    }

    /// The rules of a class.
    pub(crate) fn groups(&self, class: usize) -> &[Group] {
        self.groups.get(class).map_or(&[], Vec::as_slice)
    }

    /// Whether pods of the class must keep away from a domain because of what others there hold against them.
    pub(crate) fn is_forbidden(&self, class: usize, key: &str, domain: &str) -> bool {
        self.held.iter().any(|h| {
            &*h.key == key
                && h.bound.get(class).copied().unwrap_or(false)
                && h.holders.get(domain).is_some_and(|n| *n > 0)
        })
    }

    /// Keys other than the host name by which others hold something against the class.
    pub(crate) fn holding_keys(&self, class: usize) -> BTreeSet<Arc<str>> {
        let bound = |h: &&Held| h.bound.get(class).copied().unwrap_or(false);
        let keys = self.held.iter().filter(bound).map(|h| h.key.clone());
        keys.filter(|k| &**k != HOSTNAME).collect()
    }

    /// Most pods of the class that a host may take on, by rules about hosts alone.
    pub(crate) fn host_cap(&self, class: usize, host: &str, soft: bool) -> usize {
        if self.is_forbidden(class, HOSTNAME, host) {
            return 0;
        }
        let mut cap = usize::MAX;
        for group in self.groups(class) {
            if group.rule.is_by_host() && (group.rule.required || soft) {
                let here = group.counts.get(host).copied().unwrap_or(0);
                // A machine can always be bought, and is empty: the emptiest host has none.
                cap = cap.min(group.headroom(class, here, 0));
            }
        }
        cap
    }

    /// Whether the next pod of the class decides which host all of its kind go to.
    pub(crate) fn chooses_host(&self, class: usize) -> bool {
        self.groups(class).iter().any(|g| {
            g.rule.required
                && g.rule.is_by_host()
                && g.rule.demand == Demand::Together
                && !g.counts.values().any(|n| *n > 0)
        })
    }

    /// Takes note of `n` pods of a class at a place whose domains are known.
    pub(crate) fn placed(
        &mut self,
        class: &Class,
        index: usize,
        n: usize,
        domain: &dyn Fn(&str) -> Option<Domain>,
    ) {
        let is = |flags: &Vec<bool>| flags.get(index).copied().unwrap_or(false);
        for group in self.groups.iter_mut().flatten().filter(|g| is(&g.meant)) {
            if let Some(domain) = domain(&group.rule.key) {
                *group.counts.entry(domain).or_default() += n;
            }
        }
        for (key, who) in &class.held {
            for held in &mut self.held {
                if held.key == *key
                    && held.who == *who
                    && let Some(domain) = domain(key)
                {
                    *held.holders.entry(domain).or_default() += n;
                }
            }
        }
    }
}

impl Group {
    /// Most pods of the class that a domain with `here` pods may take on while the emptiest domain has `least`.
    pub(crate) fn headroom(&self, class: usize, here: usize, least: usize) -> usize {
        let itself = self.meant.get(class).copied().unwrap_or(false);
        let all_if = |holds: bool| if holds { usize::MAX } else { 0 };
        match self.rule.demand {
            Demand::Spread { max_skew, .. } if itself => {
                least.saturating_add(max_skew).saturating_sub(here)
            }
            Demand::Spread { max_skew, .. } => all_if(here <= least.saturating_add(max_skew)),
            // The first of a group that means itself may go anywhere.
            Demand::Together => {
                all_if(here > 0 || (itself && !self.counts.values().any(|n| *n > 0)))
            }
            Demand::Apart if here > 0 => 0,
            Demand::Apart => {
                if itself {
                    1
                } else {
                    usize::MAX
                }
            }
        }
    }

    /// The least count among `domains`, as the rule sees it.
    pub(crate) fn least(&self, domains: &BTreeSet<Domain>) -> usize {
        if let Demand::Spread { min_domains, .. } = self.rule.demand
            && domains.len() < min_domains
        {
            return 0;
        }
        let counts = domains.iter().map(|d| self.count(d));
        counts.min().unwrap_or(0)
    }

    pub(crate) fn count(&self, domain: &str) -> usize {
        self.counts.get(domain).copied().unwrap_or(0)
    }
}

/// The domain a node is in; its name stands for a host name that is not there.
pub(crate) fn domain_of(node: &NodeView, key: &str) -> Option<Domain> {
    match node.labels.get(key) {
        Some(value) => Some(value.as_str().into()),
        None if key == HOSTNAME => Some(node.name.clone()),
        None => None,
    }
}

/// A node with what stays on it.
struct There<'a> {
    node: &'a NodeView,
    labels: Requirements,
    pods: Vec<&'a Arc<Pod>>,
}

/// Whether a node's domain and pods count for a rule of the class.
fn counts(class: &Class, rule: &Rule, there: &There<'_>) -> bool {
    let Demand::Spread {
        honor_affinity,
        honor_taints,
        ..
    } = rule.demand
    else {
        return true;
    };
    if honor_taints && first_untolerated(there.node.taints.iter(), &class.tolerations).is_some() {
        return false;
    }
    if !honor_affinity || class.attempts.is_empty() {
        return true;
    }
    // What it can do with is what it requires.
    class
        .required
        .iter()
        .any(|r| there.labels.is_compatible(r, Undefined::Refused))
}
