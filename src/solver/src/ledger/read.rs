//! Reads the rules of all classes and of the pods that are on nodes, and counts where those meant are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_model::taints::first_in_the_way;
use karpenter_model::{NodeView, Pod, PodKey, Problem, Requirements};
use smallvec::SmallVec;

use super::{Concern, Group, GroupId, Heeded, Held, Ledger, Over, change};
use crate::class::{Class, Classes};
use crate::cluster::Cluster;
use crate::existing::meets;
use crate::rooms::Bits;
use crate::rules::{self, Demand, Rule, Who};
use crate::topology::{Place, Topology};

/// Whom rules are about, each once.
#[derive(Default)]
struct Whos {
    all: Vec<Who>,
    index: BTreeMap<Who, usize>,
    /// Those that ask for a value of a label, by label and value.
    by_label: BTreeMap<String, BTreeMap<String, Vec<usize>>>,
    /// The others.
    rest: Vec<usize>,
}

impl Whos {
    fn id(&mut self, who: &Who) -> usize {
        if let Some(known) = self.index.get(who) {
            return *known;
        }
        let id = self.all.len();
        self.all.push(who.clone());
        self.index.insert(who.clone(), id);
        match who.label() {
            Some((key, value)) => {
                let values = self.by_label.entry(key.to_owned()).or_default();
                values.entry(value.to_owned()).or_default().push(id);
            }
            None => self.rest.push(id),
        }
        id
    }

    /// All that mean a pod.
    fn meaning(&self, pod: &Pod) -> SmallVec<[usize; 8]> {
        let by_label = self.by_label.iter().flat_map(|(key, values)| {
            let value = pod.labels.get(key);
            value.and_then(|v| values.get(v)).into_iter().flatten()
        });
        by_label
            .chain(&self.rest)
            .copied()
            .filter(|id| self.all.get(*id).is_some_and(|w| w.means(pod)))
            .collect()
    }
}

/// What of a class decides which nodes' domains count for one of its spreads.
type Filter = Option<(Vec<Requirements>, Option<String>)>;

fn filter_of(class: &Class, rule: &Rule) -> Filter {
    let Demand::Spread {
        honor_affinity,
        honor_taints,
        ..
    } = rule.demand
    else {
        return None;
    };
    let affinity = honor_affinity && class.required.iter().any(|r| !r.is_empty());
    (affinity || honor_taints).then(|| {
        let required = if affinity {
            class.required.clone()
        } else {
            Vec::new()
        };
        let tolerations = honor_taints.then(|| format!("{:?}", class.tolerations));
        (required, tolerations)
    })
}

/// The same, as machines are judged by it.
fn heeded(class: &Class, filter: &Filter) -> Option<Heeded> {
    let (required, tolerations) = filter.as_ref()?;
    Some(Heeded {
        required: required.clone(),
        tolerations: tolerations.as_ref().map(|_| class.tolerations.clone()),
    })
}

/// What of a rule has to be the same for two to share their counts.
type Same = (Arc<str>, usize, Demand, bool, Filter);

struct Reading<'a> {
    problem: &'a Problem,
    cluster: &'a Cluster,
    gone: &'a Bits,
    whos: Whos,
    /// By whom a rule is about: how many pods that stay are meant, by place.
    there: BTreeMap<usize, BTreeMap<Place, usize>>,
    /// Nodes that do not count, by what decides it.
    passed_over: BTreeMap<Filter, Bits>,
}

pub(super) fn ledger<'a>(
    problem: &Problem,
    cluster: &'a Cluster,
    gone: &Bits,
    classes: &Classes,
) -> Ledger<'a> {
    let mut whos = Whos::default();
    // Pods that are to be placed do not stay.
    let moving: BTreeSet<&PodKey> = problem
        .pods
        .iter()
        .filter(|p| p.node_name.is_some())
        .map(|p| &p.key)
        .collect();
    let mut holders: BTreeMap<(Arc<str>, usize), Vec<usize>> = BTreeMap::new();
    for (place, pod) in cluster.keepers() {
        if gone.has(*place) || moving.contains(&pod.key) {
            continue;
        }
        for (key, who) in rules::held(problem, pod) {
            let who = whos.id(&who);
            holders.entry((key, who)).or_default().push(*place);
        }
    }
    for class in classes.iter() {
        for (key, who) in &class.held {
            let who = whos.id(who);
            holders.entry((key.clone(), who)).or_default();
        }
        for rule in &class.rules {
            whos.id(&rule.who);
        }
    }
    let all_rules = classes.iter().flat_map(|c| &c.rules).map(|r| &r.key);
    let keys = all_rules.chain(holders.keys().map(|(key, _)| key));
    let topology = Topology::new(cluster, gone, keys);
    let ruled = classes.iter().any(|c| !c.rules.is_empty());
    let mut reading = Reading {
        problem,
        cluster,
        gone,
        whos,
        there: BTreeMap::new(),
        passed_over: BTreeMap::new(),
    };
    if ruled {
        reading.count();
    }
    let mut ledger = Ledger {
        topology,
        groups: Vec::new(),
        held: Vec::new(),
        by_class: Vec::new(),
    };
    let held_by: BTreeMap<(Arc<str>, usize), usize> = holders
        .into_iter()
        .enumerate()
        .map(|(id, (rule, places))| {
            let held = reading.held(&ledger.topology, &rule.0, &places);
            ledger.held.push(held);
            (rule, id)
        })
        .collect();
    let group_of = reading.groups(&mut ledger, classes);
    for (class, groups) in classes.iter().zip(group_of) {
        let concern = reading.concern(&ledger, class, groups, &held_by);
        ledger.by_class.push(concern);
    }
    reading.meant_by(&mut ledger, classes);
    ledger
}

fn over(topology: &Topology<'_>, key: &str) -> Over {
    topology.key(key).map_or(Over::Hosts, Over::Key)
}

impl Reading<'_> {
    /// Counts the pods that are there and stay.
    fn count(&mut self) {
        for kind in self.cluster.kinds() {
            for who in self.whos.meaning(&kind.example) {
                let there = self.there.entry(who).or_default();
                for (place, n) in kind.at.iter().filter(|(p, _)| !self.gone.has(*p)) {
                    *there.entry(*place).or_default() += n;
                }
            }
        }
        for pod in &self.problem.pods {
            let Some(node) = &pod.node_name else { continue };
            let place = self.cluster.place(node, pod).filter(|p| !self.gone.has(*p));
            let Some(place) = place else { continue };
            for who in self.whos.meaning(pod) {
                let there = self.there.get_mut(&who).and_then(|t| t.get_mut(&place));
                if let Some(n) = there {
                    *n = n.saturating_sub(1);
                }
            }
        }
    }

    fn held(&self, topology: &Topology<'_>, key: &str, places: &[usize]) -> Held {
        let over = over(topology, key);
        let mut held = Held {
            over,
            holders: Vec::new(),
            places: Bits::default(),
        };
        for place in places {
            let position = match over {
                Over::Hosts => Some(topology.host(*place)),
                Over::Key(key) => topology.domain(key, *place),
            };
            if let Some(position) = position {
                change(&mut held.holders, position, |n| *n += 1);
                held.mark(position, topology);
            }
        }
        held
    }

    /// The groups of every class, with the rules that they come from.
    fn groups(&mut self, ledger: &mut Ledger<'_>, classes: &Classes) -> Vec<Vec<(GroupId, usize)>> {
        let mut index: BTreeMap<Same, GroupId> = BTreeMap::new();
        let mut out = Vec::new();
        for class in classes.iter() {
            let mut own = Vec::new();
            for rule in &class.rules {
                let who = self.whos.id(&rule.who);
                let filter = filter_of(class, rule);
                let same = (rule.key.clone(), who, rule.demand, rule.required, filter);
                let next = ledger.groups.len();
                let id = *index.entry(same).or_insert(next);
                if id == next {
                    let group = self.group(&ledger.topology, class, rule, who);
                    ledger.groups.push(group);
                }
                own.push((id, who));
            }
            out.push(own);
        }
        out
    }

    fn group(&mut self, topology: &Topology<'_>, class: &Class, rule: &Rule, who: usize) -> Group {
        let over = over(topology, &rule.key);
        let deciding: SmallVec<[usize; 2]> = match rule.demand {
            Demand::Spread { max_skew, .. } => {
                SmallVec::from_slice(&[max_skew, max_skew.saturating_add(1)])
            }
            Demand::Together | Demand::Apart => SmallVec::from_slice(&[1]),
        };
        let filter = filter_of(class, rule);
        let passed_over = self.passed_over(class, rule, &filter);
        let mut group = Group {
            rule: rule.clone(),
            over,
            counts: Vec::new(),
            total: 0,
            domains: Bits::default(),
            heeds: heeded(class, &filter),
            decided: Bits::default(),
            passed_over,
            reached: deciding
                .into_iter()
                .map(|least| (least, Bits::default()))
                .collect(),
        };
        if let Over::Key(key) = over {
            group.domains = topology.of_nodes(key, &group.passed_over);
        }
        for (place, meant) in self.there.get(&who).into_iter().flatten() {
            let position = match over {
                Over::Hosts => Some(topology.host(*place)),
                Over::Key(key) => topology.domain(key, *place),
            };
            let counts = *meant > 0 && !group.passed_over.has(*place);
            let Some(position) = position.filter(|_| counts) else {
                continue;
            };
            change(&mut group.counts, position, |n| *n += meant);
            group.total += meant;
            group.mark(position, topology);
        }
        group
    }

    /// Nodes that do not count for a rule of the class, those that are gone among them.
    fn passed_over(&mut self, class: &Class, rule: &Rule, filter: &Filter) -> Bits {
        if filter.is_none() {
            return self.gone.clone();
        }
        if let Some(known) = self.passed_over.get(filter) {
            return known.clone();
        }
        let mut bits = Bits::default();
        for (place, node) in self.cluster.nodes.iter().enumerate() {
            let counts = !self.gone.has(place) && self.counts(class, rule, node);
            bits.set(place, !counts);
        }
        self.passed_over.insert(filter.clone(), bits.clone());
        bits
    }

    /// Whether a node's domain and pods count for a spread of the class.
    fn counts(&self, class: &Class, rule: &Rule, node: &NodeView) -> bool {
        let Demand::Spread {
            honor_affinity,
            honor_taints,
            ..
        } = rule.demand
        else {
            return true;
        };
        // As kube-scheduler: what is only to be avoided counts.
        if honor_taints && first_in_the_way(&node.taints, &class.tolerations, true).is_some() {
            return false;
        }
        if !honor_affinity || class.attempts.is_empty() {
            return true;
        }
        // What it can do with is what it requires.
        let labels = &self.problem.labels;
        class.required.iter().any(|r| meets(node, r, labels))
    }

    /// What rules have to do with a class, except which rules of others mean it.
    fn concern(
        &mut self,
        ledger: &Ledger<'_>,
        class: &Class,
        groups: Vec<(GroupId, usize)>,
        held_by: &BTreeMap<(Arc<str>, usize), usize>,
    ) -> Concern {
        let mut concern = Concern::default();
        let meaning = self.whos.meaning(&class.example);
        for (id, who) in groups {
            concern.groups.push((id, meaning.contains(&who)));
        }
        for (key, who) in &class.held {
            let who = self.whos.id(who);
            concern
                .holds
                .extend(held_by.get(&(key.clone(), who)).copied());
        }
        for ((_, who), id) in held_by {
            if meaning.contains(who) {
                concern.bound.push(*id);
            }
        }
        let own = concern.groups.iter().map(|(id, _)| *id);
        let overs = own
            .filter_map(|id| Some(ledger.groups.get(id)?.over))
            .chain(
                concern
                    .bound
                    .iter()
                    .filter_map(|id| Some(ledger.held.get(*id)?.over)),
            );
        for over in overs.collect::<Vec<_>>() {
            concern.minds(over);
        }
        concern
    }

    /// Adds the rules that mean each class.
    fn meant_by(&mut self, ledger: &mut Ledger<'_>, classes: &Classes) {
        let mut by_who: BTreeMap<usize, Vec<GroupId>> = BTreeMap::new();
        for (id, group) in ledger.groups.iter().enumerate() {
            by_who
                .entry(self.whos.id(&group.rule.who))
                .or_default()
                .push(id);
        }
        for (class, concern) in classes.iter().zip(&mut ledger.by_class) {
            for who in self.whos.meaning(&class.example) {
                for id in by_who.get(&who).into_iter().flatten() {
                    concern.meant_by.push(*id);
                    if let Some(group) = ledger.groups.get(*id) {
                        concern.minds(group.over);
                    }
                }
            }
            let own = concern.groups.iter().map(|(id, _)| id);
            concern.sticks = own.chain(&concern.meant_by).any(|id| {
                let group = ledger.groups.get(*id);
                group.is_some_and(|g| g.over == Over::Hosts && g.rule.demand == Demand::Together)
            });
        }
    }
}

impl Concern {
    /// Takes note that the domains of a rule matter to the class.
    fn minds(&mut self, over: Over) {
        match over {
            Over::Hosts => self.minds_hosts = true,
            Over::Key(key) if !self.keys.contains(&key) => self.keys.push(key),
            Over::Key(_) => {}
        }
    }
}
