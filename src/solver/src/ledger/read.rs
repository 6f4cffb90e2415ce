//! Reads the rules of all classes and of the pods that are on nodes, and counts where those meant are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_model::{Pod, Problem};

use super::coming::{Minded, counts};
use super::counted::Counting;
use super::{Concern, Group, GroupId, Ledger, Over, Same, Whos, change};
use crate::class::{Class, Classes};
use crate::cluster::Cluster;
use crate::keepers::{Held, HeldId};
use crate::rooms::Bits;
use crate::rules::{Demand, Rule};
use crate::topology::{Place, Topology};

struct Reading<'a> {
    problem: &'a Problem,
    cluster: &'a Cluster,
    gone: &'a Bits,
    /// Whom the rules of classes and what is held against them are about.
    whos: Whos,
    /// Pods that are to be placed and are on nodes that stay: they do not.
    moving: Vec<(Place, &'a Arc<Pod>)>,
}

pub(super) fn ledger<'a>(
    problem: &'a Problem,
    cluster: &'a Cluster,
    gone: &'a Bits,
    classes: &Classes,
) -> Ledger<'a> {
    let holders = holders(problem, cluster, gone, classes);
    let mut whos = Whos::default();
    for rule in classes.iter().flat_map(|c| &c.rules) {
        whos.id(&rule.who);
    }
    let all_rules = classes.iter().flat_map(|c| &c.rules).map(|r| &r.key);
    let keys = all_rules.chain(holders.keys().map(|(key, _)| key));
    let topology = Topology::new(cluster, gone, keys);
    let mut reading = Reading {
        problem,
        cluster,
        gone,
        whos,
        moving: moving(problem, cluster, gone),
    };
    let mut ledger = Ledger {
        topology,
        groups: Vec::new(),
        heeding: Vec::new(),
        held: Vec::new(),
        by_class: Vec::new(),
        daemons: Vec::new(),
        come: BTreeSet::new(),
    };
    let mut by_rule: BTreeMap<Held, usize> = BTreeMap::new();
    let mut by_who: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (id, (rule, places)) in holders.into_iter().enumerate() {
        ledger
            .held
            .push(held_at(&ledger.topology, &rule.0, &places));
        let who = reading.whos.id(&rule.1);
        by_who.entry(who).or_default().push(id);
        by_rule.insert(rule, id);
    }
    let group_of = reading.groups(&mut ledger, classes);
    let groups = ledger.groups.iter().enumerate();
    let heeding = groups.filter(|(_, g)| g.heeds.is_some()).map(|(id, _)| id);
    ledger.heeding = heeding.collect();
    for (class, groups) in classes.iter().zip(group_of) {
        let concern = reading.concern(&ledger, class, groups, &by_rule, &by_who);
        ledger.by_class.push(concern);
    }
    reading.meant_by(&mut ledger, classes);
    ledger.daemons = reading.minded(&ledger, &by_rule);
    ledger
}

/// What is held against pods of the classes, and what they hold themselves, with the places where it is held by pods that
/// stay.
fn holders(
    problem: &Problem,
    cluster: &Cluster,
    gone: &Bits,
    classes: &Classes,
) -> BTreeMap<Held, Vec<Place>> {
    let keepers = cluster.keepers(problem);
    let mut asked: BTreeSet<HeldId> = BTreeSet::new();
    let mut out: BTreeMap<Held, Vec<Place>> = BTreeMap::new();
    for class in classes.iter() {
        asked.extend(keepers.against(&class.example));
        for held in &class.held {
            asked.extend(keepers.number(held));
            out.entry(held.clone()).or_default();
        }
    }
    // Pods that are to be placed do not stay.
    let mut moving: BTreeMap<HeldId, Vec<Place>> = BTreeMap::new();
    for pod in problem.pods.iter().filter(|p| p.node_name.is_some()) {
        let (place, held) = keepers.pod(&pod.key).unwrap_or_default();
        for id in held.iter().filter(|_| !gone.has(place)) {
            moving.entry(*id).or_default().push(place);
        }
    }
    for id in asked {
        let mut places: Vec<Place> = keepers.places(id).to_vec();
        places.retain(|place| !gone.has(*place));
        for place in moving.get(&id).into_iter().flatten() {
            if let Some(at) = places.iter().position(|p| p == place) {
                places.swap_remove(at);
            }
        }
        let Some(held) = keepers.held(id).filter(|_| !places.is_empty()) else {
            continue;
        };
        out.entry(held.clone()).or_default().extend(places);
    }
    for daemon in cluster.daemons(problem).iter() {
        for held in &daemon.held {
            if classes.iter().any(|c| held.1.means(&c.example)) {
                let coming = daemon.places(problem, &cluster.nodes).iter();
                let places = out.entry(held.clone()).or_default();
                places.extend(coming.filter(|place| !gone.has(*place)));
            }
        }
    }
    out
}

/// Pods that are to be placed and are on nodes that stay, and where.
fn moving<'a>(problem: &'a Problem, cluster: &Cluster, gone: &Bits) -> Vec<(Place, &'a Arc<Pod>)> {
    let place = |pod: &Pod| cluster.place(pod.node_name.as_ref()?, pod);
    let all = problem.pods.iter().filter_map(|p| Some((place(p)?, p)));
    all.filter(|(place, _)| !gone.has(*place)).collect()
}

fn over(topology: &Topology<'_>, key: &str) -> Over {
    topology.key(key).map_or(Over::Hosts, Over::Key)
}

/// What is held at these places.
fn held_at(topology: &Topology<'_>, key: &str, places: &[Place]) -> super::Held {
    let over = over(topology, key);
    let mut held = super::Held {
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

impl<'a> Reading<'a> {
    /// The groups of every class, with whom each is about.
    fn groups(&mut self, ledger: &mut Ledger<'_>, classes: &Classes) -> Vec<Vec<(GroupId, usize)>> {
        let mut index: BTreeMap<Same, GroupId> = BTreeMap::new();
        let mut out = Vec::new();
        for class in classes.iter() {
            let mut own = Vec::new();
            for rule in &class.rules {
                let same = Same::of(class, rule);
                let next = ledger.groups.len();
                let id = match index.get(&same) {
                    Some(known) => *known,
                    None => {
                        let group = self.group(&ledger.topology, class, rule, &same);
                        ledger.groups.push(group);
                        index.insert(same, next);
                        next
                    }
                };
                own.push((id, self.whos.id(&rule.who)));
            }
            out.push(own);
        }
        out
    }

    fn group(&self, topology: &Topology<'_>, class: &Class, rule: &Rule, same: &Same) -> Group {
        let over = over(topology, &rule.key);
        let all = self.cluster.counted(same, || {
            let of = Counting {
                problem: self.problem,
                cluster: self.cluster,
                topology,
            };
            of.counted(class, rule, same, over)
        });
        let mut passed_over = all.passed_over.clone();
        passed_over.add(self.gone);
        let mut group = Group {
            rule: rule.clone(),
            over,
            counts: all.counts.clone(),
            total: all.total,
            domains: Bits::default(),
            heeds: same.heeded(class),
            decided: Bits::default(),
            passed_over,
            reached: all.reached.clone(),
        };
        if let Over::Key(key) = over
            && let Some(domains) = topology.of_nodes(key)
        {
            let mut left = all.nodes.clone();
            let gone = self.gone.iter().filter(|p| !all.passed_over.has(*p));
            domains.take(&mut left, gone);
            group.domains = Bits::of(&left);
        }
        let nodes = |place: Place| Some((place, self.cluster.nodes.get(place)?));
        let left = (self.gone.iter().filter_map(nodes))
            .flat_map(|(place, node)| node.pods.iter().map(move |pod| (place, pod)));
        for (place, pod) in left.chain(self.moving.iter().copied()) {
            if all.passed_over.has(place) || !rule.counts(pod) {
                continue;
            }
            let position = match over {
                Over::Hosts => Some(topology.host(place)),
                Over::Key(key) => topology.domain(key, place),
            };
            if let Some(position) = position {
                change(&mut group.counts, position, |n| *n = n.saturating_sub(1));
                group.total = group.total.saturating_sub(1);
                group.mark(position, topology);
            }
        }
        let daemons = self.cluster.daemons(self.problem).iter();
        for daemon in daemons.filter(|d| counts(rule, d)) {
            let coming = daemon.places(self.problem, &self.cluster.nodes).iter();
            for place in coming.filter(|place| !self.gone.has(*place)) {
                let position = match over {
                    Over::Hosts => Some(topology.host(place)),
                    Over::Key(key) => topology.domain(key, place),
                };
                if let Some(position) = position {
                    change(&mut group.counts, position, |n| *n += 1);
                    group.total += 1;
                    group.mark(position, topology);
                }
            }
        }
        group
    }

    /// What rules have to do with a class, except which rules of others mean it.
    fn concern(
        &self,
        ledger: &Ledger<'_>,
        class: &Class,
        groups: Vec<(GroupId, usize)>,
        by_rule: &BTreeMap<Held, usize>,
        by_who: &BTreeMap<usize, Vec<usize>>,
    ) -> Concern {
        let mut concern = Concern::default();
        let meaning = self.whos.meaning(&class.example);
        for (id, who) in groups {
            concern.groups.push((id, meaning.contains(&who)));
        }
        for held in &class.held {
            concern.holds.extend(by_rule.get(held).copied());
        }
        let bound = meaning.iter().filter_map(|who| by_who.get(who)).flatten();
        concern.bound.extend(bound.copied());
        concern.bound.sort_unstable();
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

    /// The DaemonSets that rules are about, or that keep pods of the classes away.
    fn minded(&self, ledger: &Ledger<'_>, by_rule: &BTreeMap<Held, usize>) -> Vec<Minded<'a>> {
        let cluster: &'a Cluster = self.cluster;
        let daemons = cluster.daemons(self.problem).iter();
        let minded = daemons.map(|daemon| {
            let groups = ledger.groups.iter().enumerate();
            let meaning = groups.filter(|(_, g)| counts(&g.rule, daemon));
            let held = daemon.held.iter();
            Minded {
                daemon,
                meant_by: meaning.map(|(id, _)| id).collect(),
                holds: held.filter_map(|h| by_rule.get(h).copied()).collect(),
            }
        });
        let any = |m: &Minded<'_>| !m.meant_by.is_empty() || !m.holds.is_empty();
        minded.filter(any).collect()
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
