//! The nodes of a cluster made ready for plans. What is worked out here depends on nodes and the pods on them alone, so
//! that whoever asks many questions about one cluster (what if this node were gone, and that one) pays for it once, and
//! each question costs what its own pods cost.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use karpenter_api::labels::HOSTNAME;
use karpenter_model::{NodeView, Pod, PodKey, Problem, ResourceList};
use parking_lot::Mutex;

use crate::class::{Demand, SameDemand};
use crate::dense::{Names, gcd};
use crate::keepers::Keepers;
use crate::ledger::{Counted, Same};
use crate::node_rooms::Known;
use crate::rooms::{BLOCK, Bits};
use crate::rules::Who;
use crate::stock::Stock;
use crate::topology::{Domain, DomainId, Place};

/// Nodes in the order they are tried: initialized ones first, then by name. A node keeps its place in questions that
/// leave others out.
#[derive(Debug, Default)]
pub struct Cluster {
    pub(crate) nodes: Vec<Arc<NodeView>>,
    /// The place of each node as they were given.
    places: Vec<Place>,
    /// The most that any node of a block has of each resource.
    pub(crate) most: Vec<ResourceList>,
    /// Nodes with taints that pods would rather avoid.
    soft: Vec<Place>,
    /// Nodes that share a host name: the first of them, which stands for the host.
    pub(crate) twin_of: BTreeMap<Place, Place>,
    /// All places of hosts that have several.
    pub(crate) twins: BTreeMap<Place, Vec<Place>>,
    /// Places by name.
    index: OnceLock<HashMap<Arc<str>, Place>>,
    kinds: OnceLock<Vec<Kind>>,
    kinds_by_label: Mutex<BTreeMap<String, BTreeMap<String, Vec<usize>>>>,
    keepers: OnceLock<Keepers>,
    keys: Mutex<BTreeMap<Arc<str>, Arc<Domains>>>,
    /// What rules count that were asked about.
    counted: Mutex<BTreeMap<Same, Arc<Counted>>>,
    /// Whether one question is asked only, so that what helps others is not worked out.
    once: bool,
    /// What the pods' requests are multiples of, by resource.
    units: OnceLock<BTreeMap<String, i128>>,
    /// Rooms, by the resources that were asked for.
    rooms: Mutex<BTreeMap<Names, Arc<Known>>>,
    suitable: Mutex<BTreeMap<SameDemand, Arc<Suitable>>>,
    /// What is sold, by the resources that were asked for.
    stock: Mutex<BTreeMap<Names, Arc<Mutex<Stock>>>>,
    /// Claims that are attached, and where.
    attached: OnceLock<HashMap<PodKey, Vec<Place>>>,
}

/// The nodes that meet a demand, by block; none where it was never asked, as of nodes without room.
#[derive(Debug)]
pub(crate) struct Suitable(Vec<OnceLock<u64>>);

impl Suitable {
    /// Those of a block, found out if nobody has asked yet.
    pub(crate) fn word(&self, block: usize, find: impl FnOnce() -> u64) -> u64 {
        self.0.get(block).map_or(0, |word| *word.get_or_init(find))
    }
}

/// Fewer nodes than this are not worth a thread.
const NODES_PER_THREAD: usize = 256;

/// Most sets of resources that things are kept by; nearly all pods ask for the same.
const KEPT: usize = 16;

/// Pods of one namespace with the same labels: no rule about others can tell them apart.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) example: Arc<Pod>,
    /// Where they are, and how many.
    pub(crate) at: Vec<(Place, usize)>,
}

/// The values that a label has.
#[derive(Debug, Default)]
pub(crate) struct Domains {
    pub(crate) names: Vec<Domain>,
    pub(crate) index: BTreeMap<Domain, DomainId>,
    /// By place; none where the node has no such label.
    pub(crate) of: Vec<Option<DomainId>>,
    /// Places by domain.
    pub(crate) places: Vec<Bits>,
    /// How many nodes are in each domain.
    pub(crate) nodes: Vec<usize>,
}

impl Cluster {
    /// Of these nodes.
    #[must_use]
    pub fn new(given: &[Arc<NodeView>]) -> Self {
        let mut order: Vec<usize> = (0..given.len()).collect();
        let rank = |at: &usize| given.get(*at).map(|n| (Reverse(n.initialized), &n.name));
        order.sort_by(|a, b| rank(a).cmp(&rank(b)));
        let nodes: Vec<Arc<NodeView>> = order
            .iter()
            .filter_map(|at| given.get(*at).cloned())
            .collect();
        let mut places = vec![0; given.len()];
        for (place, at) in order.into_iter().enumerate() {
            if let Some(slot) = places.get_mut(at) {
                *slot = place;
            }
        }
        let mut out = Self {
            places,
            most: nodes.chunks(BLOCK).map(most).collect(),
            soft: soft(&nodes),
            nodes,
            ..Self::default()
        };
        out.pair();
        out
    }

    /// Finds the nodes that share a host name.
    fn pair(&mut self) {
        let mut hosts: HashMap<&str, Place> = HashMap::with_capacity(self.nodes.len());
        for (place, node) in self.nodes.iter().enumerate() {
            // A node's name stands for a host name that is not there.
            let host = node.labels.get(HOSTNAME).map_or(&*node.name, |h| h);
            let first = *hosts.entry(host).or_insert(place);
            if first != place {
                self.twin_of.insert(place, first);
                let twins = self.twins.entry(first).or_insert_with(|| vec![first]);
                twins.push(place);
            }
        }
    }

    /// The same for one question.
    pub(crate) fn once(given: &[Arc<NodeView>]) -> Self {
        Self {
            once: true,
            ..Self::new(given)
        }
    }

    /// What all pods' requests of a resource are multiples of, so that questions about different pods reckon alike; 0 if
    /// that is all the same.
    pub(crate) fn unit(&self, name: &str) -> i128 {
        if self.once {
            return 0;
        }
        let units = self.units.get_or_init(|| units(&self.nodes));
        units.get(name).copied().unwrap_or(0)
    }

    /// What room nodes have of these resources.
    pub(crate) fn rooms(&self, names: &Names, make: impl FnOnce() -> Known) -> Arc<Known> {
        let mut all = self.rooms.lock();
        if let Some(known) = all.get(names) {
            return Arc::clone(known);
        }
        let made = Arc::new(make());
        if all.len() < KEPT {
            all.insert(names.clone(), Arc::clone(&made));
        }
        made
    }

    /// What questions have found out about what is sold, in terms of these resources.
    pub(crate) fn stock(&self, names: &Names) -> Arc<Mutex<Stock>> {
        let mut all = self.stock.lock();
        if let Some(known) = all.get(names) {
            return Arc::clone(known);
        }
        let made = Arc::default();
        if all.len() < KEPT {
            all.insert(names.clone(), Arc::clone(&made));
        }
        made
    }

    /// The nodes that meet a demand, as far as anybody has asked.
    pub(crate) fn suitable(&self, demand: &Demand) -> Arc<Suitable> {
        let mut all = self.suitable.lock();
        if let Some(known) = all.get(&demand.same) {
            return Arc::clone(known);
        }
        let blocks = self.most.iter().map(|_| OnceLock::new());
        let made = Arc::new(Suitable(blocks.collect()));
        all.insert(demand.same.clone(), Arc::clone(&made));
        made
    }

    /// On how many nodes a claim is attached, some of them gone.
    pub(crate) fn attachments(&self, claim: &PodKey, gone: &Bits) -> usize {
        let all = self.attached.get_or_init(|| {
            let mut all: HashMap<PodKey, Vec<Place>> = HashMap::new();
            for (place, node) in self.nodes.iter().enumerate() {
                let used = node.volumes.iter().flat_map(|v| v.used.values());
                for claim in used.flatten() {
                    all.entry(claim.clone()).or_default().push(place);
                }
            }
            all
        });
        let places = all.get(claim).map_or(&[][..], Vec::as_slice);
        places.iter().filter(|place| !gone.has(**place)).count()
    }

    /// The places of some nodes, by their positions as they were given.
    pub(crate) fn places_of(&self, positions: &[usize]) -> Bits {
        let mut places = Bits::default();
        for place in positions.iter().filter_map(|at| self.places.get(*at)) {
            places.set(*place, true);
        }
        places
    }

    /// The nodes that are not gone.
    pub(crate) fn left(&self, gone: &Bits) -> impl Iterator<Item = &Arc<NodeView>> {
        let nodes = self.nodes.iter().enumerate();
        nodes.filter(|(place, _)| !gone.has(*place)).map(|(_, n)| n)
    }

    /// The place of the node that a pod is on, if it is there by that name and has it.
    pub(crate) fn place(&self, name: &str, pod: &Pod) -> Option<Place> {
        let index = self.index.get_or_init(|| {
            let nodes = self.nodes.iter().enumerate();
            nodes
                .map(|(place, n)| (Arc::clone(&n.name), place))
                .collect()
        });
        let place = *index.get(name)?;
        let node = self.nodes.get(place)?;
        node.pods.iter().any(|p| p.key == pod.key).then_some(place)
    }

    /// Whether a node that is not gone has taints that pods would rather avoid.
    pub(crate) fn has_soft_taints(&self, gone: &Bits) -> bool {
        self.soft.iter().any(|place| !gone.has(*place))
    }

    /// Who is where, found out on so many threads.
    pub(crate) fn kinds(&self, threads: usize) -> &[Kind] {
        self.kinds.get_or_init(|| {
            let each = self.nodes.len().div_ceil(threads.max(1));
            if threads <= 1 || each < NODES_PER_THREAD {
                return kinds_of(&self.nodes, 0);
            }
            let parts: Vec<Vec<Kind>> = std::thread::scope(|scope| {
                let parts = self.nodes.chunks(each).enumerate();
                let asked: Vec<_> = parts
                    .map(|(n, nodes)| scope.spawn(move || kinds_of(nodes, n * each)))
                    .collect();
                let told = asked.into_iter().map(std::thread::ScopedJoinHandle::join);
                told.map(|part| part.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                    .collect()
            });
            joined(parts)
        })
    }

    /// Pods that keep others away.
    pub(crate) fn keepers(&self, problem: &Problem) -> &Keepers {
        let make = || Keepers::new(&self.nodes, problem);
        self.keepers.get_or_init(make)
    }

    /// What a rule counts here, made if nobody has asked yet.
    pub(crate) fn counted(&self, same: &Same, make: impl FnOnce() -> Counted) -> Arc<Counted> {
        let mut known = self.counted.lock();
        if let Some(known) = known.get(same) {
            return Arc::clone(known);
        }
        let made = Arc::new(make());
        known.insert(same.clone(), Arc::clone(&made));
        made
    }

    /// The pods that somebody means, by kind.
    pub(crate) fn meant(&self, who: &Who, threads: usize) -> impl Iterator<Item = &Kind> {
        let kinds = self.kinds(threads);
        let all = match who.label() {
            None => (0..kinds.len()).collect(),
            Some((key, value)) => {
                let mut known = self.kinds_by_label.lock();
                let by_value = known
                    .entry(key.to_owned())
                    .or_insert_with(|| by_value(kinds, key));
                by_value.get(value).cloned().unwrap_or_default()
            }
        };
        let meant = move |kind: &&Kind| who.means(&kind.example);
        all.into_iter().filter_map(|at| kinds.get(at)).filter(meant)
    }

    /// The values of a label.
    pub(crate) fn domains(&self, key: &Arc<str>) -> Arc<Domains> {
        let mut known = self.keys.lock();
        let made = known
            .entry(Arc::clone(key))
            .or_insert_with(|| Arc::new(Domains::new(&self.nodes, key)));
        Arc::clone(made)
    }
}

impl Domains {
    fn new(nodes: &[Arc<NodeView>], key: &str) -> Self {
        let mut out = Self::default();
        for (place, node) in nodes.iter().enumerate() {
            let domain = node.labels.get(key).map(|value| out.id(value));
            if let Some(domain) = domain {
                if let Some(bits) = out.places.get_mut(domain) {
                    bits.set(place, true);
                }
                if let Some(n) = out.nodes.get_mut(domain) {
                    *n += 1;
                }
            }
            out.of.push(domain);
        }
        out
    }

    /// How many nodes are in each domain, some of them left out.
    pub(crate) fn without(&self, some: &Bits) -> Vec<usize> {
        let mut left = self.nodes.clone();
        self.take(&mut left, some.iter());
        left
    }

    /// Takes nodes off the counts of their domains.
    pub(crate) fn take(&self, counts: &mut [usize], some: impl Iterator<Item = Place>) {
        for place in some {
            let domain = self.of.get(place).copied().flatten();
            if let Some(n) = domain.and_then(|d| counts.get_mut(d)) {
                *n = n.saturating_sub(1);
            }
        }
    }

    fn id(&mut self, value: &str) -> DomainId {
        if let Some(known) = self.index.get(value) {
            return *known;
        }
        let id = self.names.len();
        let value: Domain = value.into();
        self.index.insert(Arc::clone(&value), id);
        self.names.push(value);
        self.places.push(Bits::default());
        self.nodes.push(0);
        id
    }
}

fn units(nodes: &[Arc<NodeView>]) -> BTreeMap<String, i128> {
    let mut units: BTreeMap<String, i128> = BTreeMap::new();
    for (name, amount) in nodes
        .iter()
        .flat_map(|n| &n.pods)
        .flat_map(|p| p.requests.iter())
    {
        let amount = amount.nanos();
        match units.get_mut(name) {
            // Mostly it is, and dividing once is enough to know.
            Some(unit) if *unit != 0 && amount % *unit == 0 => {}
            Some(unit) => *unit = gcd(*unit, amount),
            None => {
                units.insert(name.to_owned(), gcd(0, amount));
            }
        }
    }
    units
}

/// Tells kinds apart.
fn who(pod: &Pod) -> (&str, &BTreeMap<String, String>) {
    (pod.key.namespace.as_ref(), &pod.labels)
}

/// The kinds on nodes whose places begin at `first`, in the order of their first pods.
fn kinds_of(nodes: &[Arc<NodeView>], first: Place) -> Vec<Kind> {
    let mut all: Vec<Kind> = Vec::new();
    let mut index: HashMap<(&str, &BTreeMap<String, String>), usize> = HashMap::new();
    for (place, node) in (first..).zip(nodes) {
        for pod in &node.pods {
            let next = all.len();
            let kind = *index.entry(who(pod)).or_insert(next);
            if kind == next {
                all.push(Kind {
                    example: Arc::clone(pod),
                    at: Vec::new(),
                });
            }
            let Some(kind) = all.get_mut(kind) else {
                continue;
            };
            match kind.at.last_mut() {
                Some((at, n)) if *at == place => *n += 1,
                _ => kind.at.push((place, 1)),
            }
        }
    }
    all
}

/// Kinds of one part of the nodes after another, as if all had been looked at together.
fn joined(parts: Vec<Vec<Kind>>) -> Vec<Kind> {
    let mut parts = parts.into_iter();
    let mut all = parts.next().unwrap_or_default();
    for part in parts {
        let examples: Vec<Arc<Pod>> = all.iter().map(|k| Arc::clone(&k.example)).collect();
        let index = examples.iter().enumerate().map(|(at, pod)| (who(pod), at));
        let index: HashMap<_, usize> = index.collect();
        for kind in part {
            match index
                .get(&who(&kind.example))
                .and_then(|at| all.get_mut(*at))
            {
                Some(known) => known.at.extend(kind.at),
                None => all.push(kind),
            }
        }
    }
    all
}

/// Kinds by the value that they have of a label.
fn by_value(kinds: &[Kind], key: &str) -> BTreeMap<String, Vec<usize>> {
    let mut out: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (at, kind) in kinds.iter().enumerate() {
        if let Some(value) = kind.example.labels.get(key) {
            match out.get_mut(value) {
                Some(own) => own.push(at),
                None => {
                    out.insert(value.clone(), vec![at]);
                }
            }
        }
    }
    out
}

fn most(nodes: &[Arc<NodeView>]) -> ResourceList {
    let mut most = ResourceList::new();
    for (name, amount) in nodes.iter().flat_map(|n| n.available.iter()) {
        if amount > most.get(name) {
            most.set(name, amount);
        }
    }
    most
}

fn soft(nodes: &[Arc<NodeView>]) -> Vec<Place> {
    let nodes = nodes.iter().enumerate();
    nodes
        .filter(|(_, n)| n.taints.iter().any(|t| t.effect == "PreferNoSchedule"))
        .map(|(place, _)| place)
        .collect()
}

#[cfg(test)]
mod tests {
    use karpenter_model::PodKey;

    use super::*;

    fn nodes(count: usize) -> Vec<Arc<NodeView>> {
        let pod = |at: usize, n: usize| {
            let app = format!("app-{}", at * (n + 1) % 7);
            Arc::new(Pod {
                key: PodKey {
                    namespace: "d".into(),
                    name: format!("pod-{at}-{n}").into(),
                },
                labels: BTreeMap::from([("app".to_owned(), app)]),
                ..Pod::default()
            })
        };
        let node = |at: usize| {
            Arc::new(NodeView {
                name: format!("node-{at:05}").into(),
                pods: (0..3).map(|n| pod(at, n)).collect(),
                ..NodeView::default()
            })
        };
        (0..count).map(node).collect()
    }

    #[test]
    fn several_threads_find_the_kinds_that_one_finds() {
        let nodes = nodes(4 * NODES_PER_THREAD + 1);
        let found = |threads: usize| {
            let cluster = Cluster::new(&nodes);
            let kinds = cluster.kinds(threads).iter();
            kinds
                .map(|k| (k.example.key.clone(), k.at.clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(found(1).len(), 7);
        for threads in [2, 3, 4, 1000] {
            assert_eq!(found(threads), found(1), "{threads} threads");
        }
    }
}
