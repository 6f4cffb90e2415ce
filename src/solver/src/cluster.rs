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
use crate::daemons::Daemons;
use crate::dense::{Names, gcd};
use crate::keepers::Keepers;
use crate::kept::Kept;
use crate::kinds::{Kind, Kinds};
use crate::ledger::{Counted, Same};
use crate::node_rooms::Known;
use crate::rooms::{BLOCK, Bits};
use crate::rules::Who;
use crate::stock::Stock;
use crate::topology::{Domain, DomainId, Place};
use crate::wares::Wares;

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
    kinds: OnceLock<Kinds>,
    keepers: OnceLock<Keepers>,
    daemons: OnceLock<Daemons>,
    keys: Kept<Arc<str>, Domains>,
    /// What rules count that were asked about.
    counted: Kept<Same, Counted>,
    /// Whether one question is asked only, so that what helps others is not worked out.
    once: bool,
    /// What the pods' requests are multiples of, by resource.
    units: OnceLock<BTreeMap<String, i128>>,
    /// Rooms, by the resources that were asked for.
    rooms: Kept<Names, Known>,
    suitable: Kept<SameDemand, Suitable>,
    /// What is known of what is sold.
    pub(crate) wares: Wares,
    /// The same in terms of what was asked for, by the resources that were.
    stock: Kept<Names, Mutex<Stock>>,
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

/// Most sets of resources that things are kept by; nearly all pods ask for the same.
const KEPT: usize = 16;

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
    /// Places of nodes without the label.
    pub(crate) without: Bits,
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
            rooms: Kept::at_most(KEPT),
            stock: Kept::at_most(KEPT),
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

    /// The same with what questions about other clusters have found out about what is sold.
    #[must_use]
    pub fn knowing(mut self, wares: &Wares) -> Self {
        wares.begin();
        self.wares = wares.clone();
        self
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
        self.rooms.get(names, make)
    }

    /// What questions have found out about what is sold, in terms of these resources.
    pub(crate) fn stock(&self, names: &Names) -> Arc<Mutex<Stock>> {
        self.stock.get(names, Mutex::default)
    }

    /// The nodes that meet a demand, as far as anybody has asked.
    pub(crate) fn suitable(&self, demand: &Demand) -> Arc<Suitable> {
        let blocks = self.most.iter().map(|_| OnceLock::new());
        self.suitable
            .get(&demand.same, || Suitable(blocks.collect()))
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

    /// Pods that keep others away.
    pub(crate) fn keepers(&self, problem: &Problem) -> &Keepers {
        let make = || Keepers::new(&self.nodes, problem);
        self.keepers.get_or_init(make)
    }

    /// The DaemonSets.
    pub(crate) fn daemons(&self, problem: &Problem) -> &Daemons {
        self.daemons.get_or_init(|| Daemons::new(problem))
    }

    /// What a rule counts here, made if nobody has asked yet.
    pub(crate) fn counted(&self, same: &Same, make: impl FnOnce() -> Counted) -> Arc<Counted> {
        self.counted.get(same, make)
    }

    /// The pods that somebody means, by kind; found on so many threads.
    pub(crate) fn meant(&self, who: &Who, threads: usize) -> impl Iterator<Item = &Kind> {
        let kinds = self.kinds.get_or_init(|| Kinds::new(&self.nodes, threads));
        kinds.meant(who)
    }

    /// The values of a label.
    pub(crate) fn domains(&self, key: &Arc<str>) -> Arc<Domains> {
        self.keys.get(key, || Domains::new(&self.nodes, key))
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
            out.without.set(place, domain.is_none());
            out.of.push(domain);
        }
        out
    }

    /// How many nodes are in each domain, some of them left out.
    pub(crate) fn left(&self, some: &Bits) -> Vec<usize> {
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

/// What the pods' requests are multiples of, by resource.
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
