//! Pods of DaemonSets that will be on nodes and machines, as rules count them.

use karpenter_model::Requirements;
use smallvec::SmallVec;

use super::{Group, GroupId, Ledger, Over, change};
use crate::daemons::Daemon;
use crate::rules::{Demand, Rule};
use crate::topology::Place;

/// A DaemonSet that rules are about.
#[derive(Debug)]
pub(crate) struct Minded<'a> {
    pub(crate) daemon: &'a Daemon,
    /// Rules that mean its pods, spreads left out: they even out what is asked for.
    pub(super) meant_by: SmallVec<[GroupId; 2]>,
    /// What it holds against pods to be placed.
    pub(super) holds: SmallVec<[usize; 2]>,
}

/// Whether a rule counts a DaemonSet's pod before it is there: affinity relies on it only if it is certain to come.
pub(super) fn counts(rule: &Rule, daemon: &Daemon) -> bool {
    let of_concern = match rule.demand {
        Demand::Spread { .. } => false,
        Demand::Together => daemon.is_certain,
        Demand::Apart => true,
    };
    of_concern && rule.who.means(&daemon.pod)
}

impl<'a> Ledger<'a> {
    /// The DaemonSets that rules are about.
    pub(crate) fn daemons(&self) -> impl Iterator<Item = (usize, &'a Daemon)> {
        self.daemons.iter().map(|m| m.daemon).enumerate()
    }

    /// Takes note of a DaemonSet's pod that will be on a machine, in the domains that are known of it by now or that its
    /// requirements say.
    pub(crate) fn comes(&mut self, at: usize, place: Place, requirements: Option<&Requirements>) {
        for over in self.overs(at) {
            if let Over::Key(key) = over
                && self.topology.domain(key, place).is_none()
                && let Some(name) = self.topology.key_name(key)
                && let Some(value) = requirements.and_then(|r| r.get(name)?.single())
            {
                let domain = self.topology.domain_id(key, value);
                self.topology.pin(key, domain, place);
            }
            if self.position(over, place).is_some() && self.come.insert((place, at, over)) {
                self.recount(at, over, place, |n| *n += 1);
            }
        }
    }

    /// Takes note that a machine is not bought after all, nor are DaemonSets' pods on it.
    pub(crate) fn stays_away(&mut self, place: Place) {
        let here = (place, 0, Over::Hosts)..(place + 1, 0, Over::Hosts);
        let here: Vec<_> = self.come.range(here).copied().collect();
        for entry in here {
            self.come.remove(&entry);
            self.recount(entry.1, entry.2, place, |n| *n = n.saturating_sub(1));
        }
    }

    /// Whether pods elsewhere in its domain may rely on a DaemonSet's pod that comes to a machine.
    pub(crate) fn is_relied_on(&self, place: Place) -> bool {
        let here = (place, 0, Over::Hosts)..(place + 1, 0, Over::Hosts);
        let mut here = self.come.range(here);
        here.any(|(_, at, over)| {
            let mut groups = self.daemons.get(*at).into_iter().flat_map(|m| &m.meant_by);
            let bond = |g: &Group| g.over == *over && g.rule.is_bond();
            *over != Over::Hosts && groups.any(|id| self.groups.get(*id).is_some_and(bond))
        })
    }

    /// What the domains are of rules that are about a DaemonSet, each once.
    fn overs(&self, at: usize) -> SmallVec<[Over; 2]> {
        let Some(minded) = self.daemons.get(at) else {
            return SmallVec::new();
        };
        let meant = minded.meant_by.iter();
        let meant = meant.filter_map(|id| Some(self.groups.get(*id)?.over));
        let held = minded.holds.iter();
        let held = held.filter_map(|id| Some(self.held.get(*id)?.over));
        let mut overs: SmallVec<[Over; 2]> = meant.chain(held).collect();
        overs.sort_unstable();
        overs.dedup();
        overs
    }

    fn position(&self, over: Over, place: Place) -> Option<usize> {
        match over {
            Over::Hosts => Some(self.topology.host(place)),
            Over::Key(key) => self.topology.domain(key, place),
        }
    }

    fn recount(&mut self, at: usize, over: Over, place: Place, how: impl Fn(&mut usize)) {
        let position = self.position(over, place);
        let (Some(minded), Some(position)) = (self.daemons.get(at), position) else {
            return;
        };
        for id in &minded.meant_by {
            if let Some(group) = self.groups.get_mut(*id).filter(|g| g.over == over) {
                change(&mut group.counts, position, &how);
                how(&mut group.total);
                group.mark(position, &self.topology);
            }
        }
        for id in &minded.holds {
            if let Some(held) = self.held.get_mut(*id).filter(|h| h.over == over) {
                change(&mut held.holders, position, &how);
                held.mark(position, &self.topology);
            }
        }
    }
}
