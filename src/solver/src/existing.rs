//! Pods onto nodes that exist or are on their way: the first that takes the pod. What a node has left is worked out when
//! it is looked at, so that nodes without room cost nothing, and once for all questions about a cluster.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_api::labels::HOSTNAME;
use karpenter_model::plan::ExistingPlacement;
use karpenter_model::pod::HostPort;
use karpenter_model::taints::first_in_the_way;
use karpenter_model::{LabelRegistry, NodeView, PodKey, Problem, Requirements, ResourceList};

use crate::class::{Class, Classes, Demand, DemandId};
use crate::cluster::{Cluster, Suitable};
use crate::daemons::Daemons;
use crate::dense::{Dense, Names, add, count_of, minus, times};
use crate::ledger::Ledger;
use crate::node_rooms::{Known, NodeRooms};
use crate::rooms::{BLOCK, Bits};
use crate::{Budget, Queue, mounts};

/// What of a node changes while pods are put on it, its room apart.
struct Node {
    ports: Vec<HostPort>,
    /// Claims that are attached, by the position of their driver.
    attached: BTreeMap<usize, BTreeSet<PodKey>>,
}

/// Nodes that exist, in the order they are tried, and what was put on them.
pub(crate) struct Existing<'a> {
    problem: &'a Problem,
    names: &'a Names,
    cluster: &'a Cluster,
    daemons: &'a Daemons,
    /// Those that something was put on.
    changed: BTreeMap<usize, Node>,
    rooms: NodeRooms,
    /// By demand.
    suitable: Vec<Arc<Suitable>>,
    placed: BTreeMap<Arc<str>, Vec<PodKey>>,
}

impl<'a> Existing<'a> {
    pub(crate) fn new(
        problem: &'a Problem,
        names: &'a Names,
        classes: &Classes,
        cluster: &'a Cluster,
        gone: &Bits,
    ) -> Self {
        let known = cluster.rooms(names, || {
            let most = cluster.most.iter().map(|list| {
                let mut most = names.room(list);
                mounts::set_room(names, &mut most, None, &BTreeMap::new());
                most
            });
            Known::new(most)
        });
        let daemons = cluster.daemons(problem);
        let rooms = {
            let read = reader(problem, names, cluster, daemons);
            NodeRooms::new(known, gone, &read)
        };
        Self {
            rooms,
            suitable: classes.each_demand(|d| cluster.suitable(d)),
            problem,
            names,
            cluster,
            daemons,
            changed: BTreeMap::new(),
            placed: BTreeMap::new(),
        }
    }

    /// The nodes, those that are gone among them.
    pub(crate) fn views(&self) -> &'a [Arc<NodeView>] {
        &self.cluster.nodes
    }

    fn read(&self, block: usize) -> Vec<Dense> {
        reader(self.problem, self.names, self.cluster, self.daemons)(block)
    }

    /// Host ports that are taken on a node.
    fn ports(&self, at: usize) -> Cow<'_, [HostPort]> {
        match (self.changed.get(&at), self.views().get(at)) {
            (Some(node), _) => Cow::Borrowed(&node.ports),
            (None, Some(view)) => ports_of(self.problem, view, self.daemons).into(),
            (None, None) => Cow::default(),
        }
    }

    /// Claims that are attached to a node, by the position of their driver.
    fn attached(&self, at: usize) -> BTreeMap<usize, BTreeSet<PodKey>> {
        if let Some(node) = self.changed.get(&at) {
            return node.attached.clone();
        }
        let volumes = self.views().get(at).and_then(|v| v.volumes.as_deref());
        let used = volumes.map(|v| mounts::by_position(self.names, &v.used));
        used.unwrap_or_default()
    }

    /// The nodes of a block that meet a demand.
    fn suitable(&self, classes: &Classes, id: DemandId, block: usize) -> u64 {
        let (Some(suitable), Some(demand)) = (self.suitable.get(id), classes.demand(id)) else {
            return 0;
        };
        suitable.word(block, || {
            let nodes = self.views().iter().skip(block * BLOCK).take(BLOCK);
            nodes.enumerate().fold(0, |word, (bit, view)| {
                word | u64::from(suits(view, demand, &self.problem.labels)) << bit
            })
        })
    }

    /// The first node from `from` on that takes a pod of the class with the demand, and how many of `count`; `allowed`
    /// says of each block of 64 which ones are in question.
    pub(crate) fn find(
        &self,
        classes: &Classes,
        class: &Class,
        demand: DemandId,
        (from, count): (usize, usize),
        allowed: &dyn Fn(usize) -> u64,
    ) -> Option<(usize, usize)> {
        let all = |block: usize| match allowed(block) {
            0 => 0,
            open => open & self.suitable(classes, demand, block),
        };
        let read = |block: usize| self.read(block);
        let mut from = from;
        loop {
            let at = self.rooms.find(from, &class.requests, &all, &read)?;
            let fit = self.how_many(class, at, count);
            if fit > 0 {
                return Some((at, fit));
            }
            from = at + 1;
        }
    }

    /// How many pods of a class have room on a node, at most `count`.
    fn how_many(&self, class: &Class, at: usize, count: usize) -> usize {
        let Some(room) = self.rooms.get(at, &|block| self.read(block)) else {
            return 0;
        };
        let count = if class.ports.is_empty() {
            count
        } else if crate::choose::ports_clash(&class.ports, &self.ports(at)) {
            0
        } else {
            count.min(1)
        };
        if class.shared.is_empty() {
            return times(&class.requests, room, count);
        }
        let more = mounts::more_on(&self.attached(at), &class.shared);
        times(&class.requests, &minus(room, &more), count)
    }

    /// Puts pods of a class on a node.
    pub(crate) fn put(&mut self, class: &Class, at: usize, pods: Vec<PodKey>) {
        let Some(view) = self.views().get(at) else {
            return;
        };
        if pods.is_empty() {
            return;
        }
        let read = reader(self.problem, self.names, self.cluster, self.daemons);
        let mut room = self.rooms.get(at, &read).cloned().unwrap_or_default();
        add(&mut room, &class.requests, -count_of(pods.len()));
        let mut node = match self.changed.remove(&at) {
            Some(node) => node,
            None => Node {
                ports: self.ports(at).into_owned(),
                attached: self.attached(at),
            },
        };
        node.ports.extend(class.ports.iter().cloned());
        if !class.shared.is_empty() {
            let more = mounts::more_on(&node.attached, &class.shared);
            add(&mut room, &more, -1);
            for (at, claims) in &class.shared {
                let here = node.attached.entry(*at).or_default();
                here.extend(claims.iter().cloned());
            }
        }
        self.changed.insert(at, node);
        self.rooms.set(at, room, &read);
        let here = self.placed.entry(Arc::clone(&view.name)).or_default();
        here.extend(pods);
    }

    /// Puts pods of a queue position where there is room.
    pub(crate) fn fill(
        &mut self,
        classes: &Classes,
        position: usize,
        queue: &mut Queue,
        budget: &mut Budget,
    ) {
        let Some(class) = queue.class(position).and_then(|c| classes.get(c)) else {
            return;
        };
        for attempt in &class.attempts {
            let mut from = 0;
            loop {
                let count = queue.count(position);
                if count == 0 || !budget.spend(1) {
                    break;
                }
                let everywhere = |_: usize| u64::MAX;
                let range = (from, count);
                let Some((at, fit)) = self.find(classes, class, attempt.demand, range, &everywhere)
                else {
                    break;
                };
                self.put(class, at, queue.take_many(position, fit));
                from = at + 1;
            }
        }
    }

    pub(crate) fn placements(self) -> Vec<ExistingPlacement> {
        self.placed
            .into_iter()
            .map(|(node, pods)| ExistingPlacement { node, pods })
            .collect()
    }
}

/// Places the pods that no rule between pods is about, those that exist in plans only left for later.
pub(crate) fn place(
    existing: &mut Existing<'_>,
    classes: &Classes,
    ledger: &Ledger<'_>,
    queue: &mut Queue,
    budget: &mut Budget,
) {
    for position in 0..queue.late {
        if queue.class(position).is_some_and(|c| !ledger.concerns(c)) {
            existing.fill(classes, position, queue, budget);
        }
    }
}

/// Whether a node meets a demand: it has the labels that it has, and its taints are put up with.
fn suits(view: &NodeView, demand: &Demand, labels: &LabelRegistry) -> bool {
    first_in_the_way(&view.taints, &demand.tolerations, demand.soft).is_none()
        && meets(view, &demand.requirements, labels)
}

/// Whether a node's labels meet requirements. Its name stands for a host name that is not there.
pub(crate) fn meets(view: &NodeView, requirements: &Requirements, labels: &LabelRegistry) -> bool {
    requirements.iter().all(|asked| {
        let own = view.labels.get(&*asked.key).map(String::as_str);
        let value = own.or_else(|| {
            let mut aliased = labels.aliases.iter().filter(|(_, key)| **key == *asked.key);
            aliased.find_map(|(alias, _)| Some(view.labels.get(alias)?.as_str()))
        });
        let value = value.or_else(|| (&*asked.key == HOSTNAME).then_some(&*view.name));
        match value {
            Some(value) => asked.has(value),
            None => asked.allows_absence(),
        }
    })
}

/// Tells the rooms of a block of nodes before anything is put on them.
fn reader(
    problem: &Problem,
    names: &Names,
    cluster: &Cluster,
    daemons: &Daemons,
) -> impl Fn(usize) -> Vec<Dense> {
    move |block| {
        let nodes = cluster.nodes.iter().skip(block * BLOCK).take(BLOCK);
        nodes
            .map(|view| room(problem, names, view, daemons))
            .collect()
    }
}

/// The room that a node has before anything is put on it.
fn room(problem: &Problem, names: &Names, view: &NodeView, daemons: &Daemons) -> Dense {
    let mut left = view.available.clone();
    if daemons.iter().next().is_some() {
        left.deduct(&coming(problem, view, daemons));
    }
    let mut room = names.room(&left);
    let nothing = BTreeMap::new();
    let (limits, used) = match view.volumes.as_deref() {
        Some(volumes) => (Some(&volumes.limits), &volumes.used),
        None => (None, &nothing),
    };
    mounts::set_room(names, &mut room, limits, used);
    room
}

/// What DaemonSets will still take: the requests of those that belong on the node minus those that are on it.
fn coming(problem: &Problem, view: &NodeView, daemons: &Daemons) -> ResourceList {
    let mut all = ResourceList::new();
    for daemon in daemons.iter().filter(|d| d.runs_on(problem, view)) {
        all.add(&daemon.pod.requests);
    }
    all.subtract(&view.daemon_requests);
    all.floored()
}

/// Host ports that are taken on a node, those among them that DaemonSets will take: a pod in their place would keep them
/// off.
fn ports_of(problem: &Problem, view: &NodeView, daemons: &Daemons) -> Vec<HostPort> {
    let with_ports = daemons.iter().filter(|d| !d.pod.host_ports.is_empty());
    let coming = with_ports.filter(|d| d.runs_on(problem, view));
    let mut ports = view.host_ports.clone();
    ports.extend(coming.flat_map(|d| d.pod.host_ports.iter().cloned()));
    ports
}
