//! Where the pods are that rules are about: counts by rule and domain, kept up to date while pods are placed. Pods whose
//! rules say the same share their counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Toleration;
use karpenter_api::labels::HOSTNAME;
use karpenter_model::taints::first_in_the_way;
use karpenter_model::{LabelRegistry, NodeView, Problem, Requirements, Undefined};
use smallvec::SmallVec;

use crate::catalog::Pool;
use crate::class::Classes;
use crate::cluster::Cluster;
use crate::daemons::may_have;
use crate::existing::meets;
use crate::rooms::{BLOCK, Bits};
use crate::rules::{Demand, Rule};
use crate::sets::Set;
use crate::topology::{DomainId, KeyId, Place, Topology};

mod coming;
mod counted;
mod read;
mod whos;

use coming::Minded;
pub(crate) use counted::{Counted, Same};
pub(crate) use whos::Whos;

/// Which rule with its counts.
pub(crate) type GroupId = usize;

/// What the domains of a rule are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Over {
    /// Every host is one.
    Hosts,
    /// Values of a key.
    Key(KeyId),
}

/// What a spread asks of a node so that the node and its pods count for it.
#[derive(Debug)]
pub(crate) struct Heeded {
    /// One of these; none: whatever its labels are.
    pub(crate) required: Vec<Requirements>,
    /// That these put up with its taints; none: whatever they are.
    pub(crate) tolerations: Option<Vec<Toleration>>,
    /// That it has these labels: those of all spreads of the pod that must hold.
    pub(crate) labels: Vec<Arc<str>>,
}

impl Heeded {
    /// Whether a node is heeded. As kube-scheduler: what is only to be avoided counts.
    fn has(&self, node: &NodeView, labels: &LabelRegistry) -> bool {
        let tolerated = |own: &[Toleration]| first_in_the_way(&node.taints, own, true).is_none();
        self.tolerations.as_deref().is_none_or(tolerated)
            && (self.required.is_empty() || self.required.iter().any(|r| meets(node, r, labels)))
            && { self.labels.iter() }.all(|key| node.labels.contains_key(&**key))
    }

    /// Whether a machine of a set may become a node that is.
    pub(crate) fn may_have(&self, pool: &Pool, set: &Set, labels: &LabelRegistry) -> bool {
        let taints = &pool.view.taints;
        let tolerated = |own: &[Toleration]| first_in_the_way(taints, own, true).is_none();
        let may_meet = |r: &Requirements| {
            let mut types = set.offers.iter().filter_map(|o| pool.types.get(o.at()));
            set.requirements
                .is_compatible(r, Undefined::WellKnown(labels))
                && types.any(|s| s.instance_type.requirements.does_intersect(r))
        };
        let labelled = |key: &Arc<str>| {
            let mut types = set.offers.iter().filter_map(|o| pool.types.get(o.at()));
            types.any(|s| may_have(key, &set.requirements, &s.instance_type.requirements))
        };
        self.tolerations.as_deref().is_none_or(tolerated)
            && (self.required.is_empty() || self.required.iter().any(may_meet))
            && self.labels.iter().all(labelled)
    }
}

/// A rule with what is known about its domains.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) rule: Rule,
    pub(crate) over: Over,
    /// Pods that are meant, by domain, or by place that stands for a host.
    counts: Vec<usize>,
    /// All of them.
    total: usize,
    /// Domains of nodes that exist and count.
    pub(crate) domains: Bits,
    /// What makes a place count; none: all do.
    heeds: Option<Heeded>,
    /// Places that do not: of nodes, and of machines that were looked at.
    passed_over: Bits,
    /// Machines that were looked at, which is when the first pod that is meant comes.
    decided: Bits,
    /// Places where at least so many are, for the numbers that decide.
    reached: SmallVec<[(usize, Bits); 2]>,
}

/// Anti-affinity that pods hold against others.
#[derive(Debug)]
struct Held {
    over: Over,
    /// How many holders there are, by domain or place that stands for a host.
    holders: Vec<usize>,
    /// Places with any, of those over hosts.
    places: Bits,
}

/// What rules have to do with a class.
#[derive(Debug, Default)]
struct Concern {
    /// Its own rules, and whether its pods are among those meant.
    groups: SmallVec<[(GroupId, bool); 2]>,
    /// Rules of any class that mean its pods.
    meant_by: SmallVec<[GroupId; 4]>,
    /// What is held against it.
    bound: SmallVec<[usize; 2]>,
    /// What it holds against others.
    holds: SmallVec<[usize; 2]>,
    /// Keys whose domain has to be known of every place its pods go to.
    keys: SmallVec<[KeyId; 2]>,
    /// Whether it matters which of its pods share a host with which others.
    minds_hosts: bool,
    /// Whether a host is where others of a kind have to be, too.
    sticks: bool,
}

/// All rules that pods to be placed have or are concerned by.
#[derive(Debug)]
pub(crate) struct Ledger<'a> {
    pub(crate) topology: Topology<'a>,
    groups: Vec<Group>,
    /// The groups for which not everything counts.
    heeding: Vec<GroupId>,
    held: Vec<Held>,
    by_class: Vec<Concern>,
    /// DaemonSets that rules are about.
    daemons: Vec<Minded<'a>>,
    /// Machines with domains that they are counted in.
    come: BTreeSet<(Place, usize, Over)>,
}

impl<'a> Ledger<'a> {
    /// Of all classes and the pods that are on nodes.
    pub(crate) fn new(
        problem: &'a Problem,
        cluster: &'a Cluster,
        gone: &'a Bits,
        classes: &Classes,
    ) -> Self {
        read::ledger(problem, cluster, gone, classes)
    }

    fn concern(&self, class: usize) -> Option<&Concern> {
        self.by_class.get(class)
    }

    /// Whether any rule is about pods of the class.
    pub(crate) fn concerns(&self, class: usize) -> bool {
        self.concern(class)
            .is_some_and(|c| c.minds_hosts || !c.keys.is_empty())
    }

    /// Whether it matters which pods of the class share a host with which others.
    pub(crate) fn minds_hosts(&self, class: usize) -> bool {
        self.concern(class).is_some_and(|c| c.minds_hosts)
    }

    /// Whether pods of the class are bound to a host that others of a kind are on, or others to theirs.
    pub(crate) fn sticks(&self, class: usize) -> bool {
        self.concern(class).is_some_and(|c| c.sticks)
    }

    /// Keys other than the host name whose domain has to be known of every place its pods go to.
    pub(crate) fn keys(&self, class: usize) -> &[KeyId] {
        self.concern(class).map_or(&[], |c| &c.keys)
    }

    /// The rules of a class, and whether its own pods are among those meant.
    pub(crate) fn groups(&self, class: usize) -> impl Iterator<Item = (&Group, bool)> {
        let own = self.concern(class).into_iter().flat_map(|c| &c.groups);
        let own = own.filter_map(|(id, itself)| Some((self.groups.get(*id)?, *itself)));
        // The first of a group is nobody's partner by any key.
        let is_first = move |g: &Group| !g.rule.is_bond() || self.is_first(class);
        own.map(move |(g, itself)| (g, itself && is_first(g)))
    }

    /// Whether nobody whom the affinity of a class means is in any domain of its keys.
    fn is_first(&self, class: usize) -> bool {
        let own = self.concern(class).into_iter().flat_map(|c| &c.groups);
        let mut bonds = own.filter_map(|(id, _)| self.groups.get(*id).filter(|g| g.rule.is_bond()));
        bonds.all(|g| g.total == 0)
    }

    /// Keys of a class's spreads that must hold, if there are several: nodes need all of these labels to count for any.
    pub(crate) fn spread_keys(&self, class: usize) -> SmallVec<[KeyId; 2]> {
        let is_hard = |g: &Group| g.rule.required && matches!(g.rule.demand, Demand::Spread { .. });
        let hard = self.groups(class).filter(|(g, _)| is_hard(g));
        let keys = hard.filter_map(|(g, _)| match g.over {
            Over::Key(key) => Some(key),
            Over::Hosts => None,
        });
        let mut keys: SmallVec<[KeyId; 2]> = keys.collect();
        keys.sort_unstable();
        keys.dedup();
        if keys.len() < 2 {
            keys.clear();
        }
        keys
    }

    /// Other classes that have a rule over a key in common with this one.
    pub(crate) fn companions(&self, class: usize, key: KeyId) -> Vec<usize> {
        let over_key = |id: &GroupId| {
            let group = self.groups.get(*id);
            group.is_some_and(|g| g.over == Over::Key(key))
        };
        let own = self.concern(class).into_iter().flat_map(|c| &c.groups);
        let own: Vec<GroupId> = own.map(|(id, _)| *id).filter(over_key).collect();
        let shares = |c: &Concern| c.groups.iter().any(|(id, _)| own.contains(id));
        let all = self.by_class.iter().enumerate();
        all.filter(|(other, c)| *other != class && shares(c))
            .map(|(other, _)| other)
            .collect()
    }

    fn bound(&self, class: usize) -> impl Iterator<Item = &Held> {
        let ids = self.concern(class).into_iter().flat_map(|c| &c.bound);
        ids.filter_map(|id| self.held.get(*id))
    }

    /// Whether pods of the class must keep away from a domain because of what others there hold against them.
    pub(crate) fn is_forbidden(&self, class: usize, key: KeyId, domain: DomainId) -> bool {
        self.bound(class)
            .any(|h| h.over == Over::Key(key) && at(&h.holders, domain) > 0)
    }

    /// Keys other than the host name by which others hold something against the class.
    pub(crate) fn holding_keys(&self, class: usize) -> impl Iterator<Item = KeyId> {
        self.bound(class).filter_map(|h| match h.over {
            Over::Key(key) => Some(key),
            Over::Hosts => None,
        })
    }

    /// The places of a block that rules about hosts leave open to the class.
    pub(crate) fn open(&self, class: usize, block: usize) -> u64 {
        self.open_as(class, block, false)
    }

    /// The same where its affinity is taken care of if it is `beside` a DaemonSet's pod.
    pub(crate) fn open_as(&self, class: usize, block: usize, beside: bool) -> u64 {
        let Some(concern) = self.concern(class) else {
            return u64::MAX;
        };
        if !concern.minds_hosts {
            return u64::MAX;
        }
        let mut open = u64::MAX;
        for (group, itself) in self.over_hosts(class, beside) {
            open &= group.open(itself, block);
        }
        for held in self.bound(class) {
            open &= !held.places.word(block);
        }
        open
    }

    /// Whether rules about hosts leave a place open to the class.
    pub(crate) fn is_open(&self, class: usize, place: Place) -> bool {
        self.open(class, place / BLOCK) >> (place % BLOCK) & 1 == 1
    }

    /// The rules of a class over hosts, those left out that are taken care of beside a DaemonSet's pod.
    fn over_hosts(&self, class: usize, beside: bool) -> impl Iterator<Item = (&Group, bool)> {
        let all = self.groups(class).filter(|(g, _)| g.over == Over::Hosts);
        all.filter(move |(g, _)| !(beside && g.rule.is_bond()))
    }

    /// Most pods of the class that a host may take on, by rules about hosts alone.
    pub(crate) fn host_cap(&self, class: usize, place: Place) -> usize {
        self.host_cap_as(class, place, false)
    }

    /// The same where its affinity is taken care of if it is `beside` a DaemonSet's pod.
    pub(crate) fn host_cap_as(&self, class: usize, place: Place, beside: bool) -> usize {
        let host = self.topology.host(place);
        let forbidden = |h: &Held| h.over == Over::Hosts && at(&h.holders, host) > 0;
        if self.bound(class).any(forbidden) {
            return 0;
        }
        self.cap(class, beside, |group| at(&group.counts, host))
    }

    /// Most pods of the class that a machine without pods may take on.
    pub(crate) fn fresh_cap(&self, class: usize, beside: bool) -> usize {
        self.cap(class, beside, |_| 0)
    }

    fn cap(&self, class: usize, beside: bool, here: impl Fn(&Group) -> usize) -> usize {
        let hosts = self.over_hosts(class, beside);
        // A machine can always be bought, and is empty: the emptiest host has none.
        let caps = hosts.map(|(g, itself)| g.headroom(itself, here(g), 0));
        caps.min().unwrap_or(usize::MAX)
    }

    /// Whether the next pod of the class decides which host all of its kind go to.
    pub(crate) fn chooses_host(&self, class: usize) -> bool {
        self.groups(class).any(|(g, _)| {
            g.over == Over::Hosts && g.rule.demand == Demand::Together && g.total == 0
        })
    }

    /// Finds out whether a machine counts for the spreads that mean pods of a class, as far as nobody has yet.
    pub(crate) fn decide(&mut self, class: usize, place: Place, counts: impl Fn(&Heeded) -> bool) {
        let meant_by = self.by_class.get(class).map_or(&[][..], |c| &c.meant_by);
        for id in meant_by {
            if let Some(group) = self.groups.get_mut(*id)
                && let Some(heeded) = &group.heeds
                && !group.decided.has(place)
            {
                group.passed_over.set(place, !counts(heeded));
                group.decided.set(place, true);
            }
        }
    }

    /// What spreads heed that a machine counts for.
    pub(crate) fn heeded(&self, place: Place) -> impl Iterator<Item = &Heeded> {
        let groups = self.heeding.iter().filter_map(|id| self.groups.get(*id));
        let here = move |g: &&Group| g.decided.has(place) && !g.passed_over.has(place);
        groups.filter(here).filter_map(|g| g.heeds.as_ref())
    }

    /// Takes note of `n` more pods of a class at a place whose domains are known.
    pub(crate) fn placed(&mut self, class: usize, n: usize, place: Place) {
        self.change(class, place, |count| *count += n);
    }

    /// Takes note of a pod of a class that goes from a place after all.
    pub(crate) fn taken_back(&mut self, class: usize, place: Place) {
        self.change(class, place, |count| *count = count.saturating_sub(1));
    }

    fn change(&mut self, class: usize, place: Place, how: impl Fn(&mut usize)) {
        let Some(concern) = self.by_class.get(class) else {
            return;
        };
        let (topology, host) = (&self.topology, self.topology.host(place));
        let position = |over| match over {
            Over::Hosts => Some(host),
            Over::Key(key) => topology.domain(key, place),
        };
        for id in &concern.meant_by {
            if let Some(group) = self.groups.get_mut(*id)
                && let Some(position) = position(group.over)
                && !group.passed_over.has(place)
            {
                change(&mut group.counts, position, &how);
                how(&mut group.total);
                group.mark(position, topology);
            }
        }
        for id in &concern.holds {
            if let Some(held) = self.held.get_mut(*id)
                && let Some(position) = position(held.over)
            {
                change(&mut held.holders, position, &how);
                held.mark(position, topology);
            }
        }
    }
}

fn at(counts: &[usize], position: usize) -> usize {
    counts.get(position).copied().unwrap_or(0)
}

fn change(counts: &mut Vec<usize>, position: usize, how: impl Fn(&mut usize)) {
    if counts.len() <= position {
        counts.resize(position + 1, 0);
    }
    if let Some(slot) = counts.get_mut(position) {
        how(slot);
    }
}

impl Held {
    fn mark(&mut self, position: usize, topology: &Topology<'_>) {
        if self.over == Over::Hosts {
            let any = at(&self.holders, position) > 0;
            for place in topology.places_of_host(position) {
                self.places.set(place, any);
            }
        }
    }
}

impl Group {
    fn mark(&mut self, position: usize, topology: &Topology<'_>) {
        if self.over == Over::Hosts {
            let here = self.count(position);
            for place in topology.places_of_host(position) {
                for (least, bits) in &mut self.reached {
                    bits.set(place, here >= *least);
                }
            }
        }
    }

    /// The places of a block that may take a pod on, of a rule over hosts.
    fn open(&self, itself: bool, block: usize) -> u64 {
        let reached = |least: usize| {
            let bits = self.reached.iter().find(|(n, _)| *n == least);
            bits.map_or(0, |(_, bits)| bits.word(block))
        };
        match self.rule.demand {
            Demand::Spread { max_skew, .. } if itself => !reached(max_skew),
            Demand::Spread { max_skew, .. } => !reached(max_skew.saturating_add(1)),
            Demand::Together if itself && self.total == 0 => u64::MAX,
            Demand::Together => reached(1),
            Demand::Apart => !reached(1),
        }
    }

    /// Most pods that a domain with `here` pods may take on while the emptiest domain has `least`; `itself`: whether those
    /// pods are meant themselves.
    pub(crate) fn headroom(&self, itself: bool, here: usize, least: usize) -> usize {
        let all_if = |holds: bool| if holds { usize::MAX } else { 0 };
        match self.rule.demand {
            Demand::Spread { max_skew, .. } if itself => {
                least.saturating_add(max_skew).saturating_sub(here)
            }
            Demand::Spread { max_skew, .. } => all_if(here <= least.saturating_add(max_skew)),
            // The first of a group that means itself may go anywhere.
            Demand::Together => all_if(here > 0 || (itself && self.total == 0)),
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

    /// The least count among the domains that `eligible` says, as the rule sees it.
    pub(crate) fn least(&self, eligible: &[DomainId]) -> usize {
        if let Demand::Spread { min_domains, .. } = self.rule.demand
            && eligible.len() < min_domains
        {
            return 0;
        }
        let counts = eligible.iter().map(|d| self.count(*d));
        counts.min().unwrap_or(0)
    }

    /// Pods that are meant in a domain.
    pub(crate) fn count(&self, position: usize) -> usize {
        at(&self.counts, position)
    }

    /// Domains with pods and how many, by name.
    pub(crate) fn told(
        &self,
        topology: &Topology<'_>,
        nodes: &[Arc<NodeView>],
    ) -> Vec<(String, usize)> {
        let name = |position: usize| match self.over {
            Over::Key(key) => topology.domain_name(key, position).map(ToString::to_string),
            Over::Hosts => Some(match nodes.get(position) {
                Some(node) => node
                    .labels
                    .get(HOSTNAME)
                    .unwrap_or(&node.name.to_string())
                    .clone(),
                None => "a new machine".to_owned(),
            }),
        };
        let mut out: BTreeMap<String, usize> = BTreeMap::new();
        for (position, n) in self.counts.iter().enumerate().filter(|(_, n)| **n > 0) {
            if let Some(name) = name(position) {
                *out.entry(name).or_default() += n;
            }
        }
        out.into_iter().collect()
    }
}
