//! Volumes that can be attached to a node, counted as if they were a resource of it: a pod whose claims nobody else
//! uses asks for some, a node has as many as its limit leaves. A claim that several pods use counts once per node,
//! which only the node itself can tell; see [`Node`](crate::existing::Node).

use std::collections::{BTreeMap, BTreeSet};

use karpenter_api::Quantity;
use karpenter_model::storage::{Attached, VolumeLimits};
use karpenter_model::{Pod, PodKey, Problem, ResourceList};

use crate::cluster::Cluster;
use crate::dense::{AMPLE, Dense, Names, count_of};
use crate::rooms::Bits;

/// No name of a resource has a space in it.
const PREFIX: &str = "volumes of ";
/// 10⁻⁹ units in a whole one; volumes are counted in whole ones.
pub(crate) const NANOS: i128 = 1_000_000_000;

fn resource(driver: &str) -> String {
    format!("{PREFIX}{driver}")
}

/// The driver that a name is about, if it is about volumes.
pub(crate) fn driver(name: &str) -> Option<&str> {
    name.strip_prefix(PREFIX)
}

/// `list` without volumes: what the API knows as resources.
pub(crate) fn without(list: ResourceList) -> ResourceList {
    let resources = list.iter().filter(|(name, _)| driver(name).is_none());
    resources.collect()
}

/// Who uses which claim, of the pods of a problem.
pub(crate) struct Mounts<'a> {
    /// Users of each claim, nodes that it is attached to among them.
    users: BTreeMap<&'a PodKey, usize>,
}

fn claims(attached: &Attached) -> impl Iterator<Item = &PodKey> {
    attached.values().flatten()
}

impl<'a> Mounts<'a> {
    pub(crate) fn new(problem: &'a Problem, cluster: &Cluster, gone: &Bits) -> Self {
        let mut users: BTreeMap<&PodKey, usize> = BTreeMap::new();
        for storage in problem.pods.iter().filter_map(|p| p.storage.as_deref()) {
            for claim in claims(&storage.attached) {
                *users.entry(claim).or_default() += 1;
            }
        }
        for (claim, users) in &mut users {
            *users += cluster.attachments(claim, gone);
        }
        Self { users }
    }

    /// What a pod asks for, the volumes that only it uses among it, and the claims that others use, too.
    pub(crate) fn of(&self, names: &mut Names, pod: &Pod) -> (ResourceList, Shared) {
        let (mut asked, mut shared) = (pod.requests.clone(), Shared::new());
        for (driver, claims) in pod.storage.iter().flat_map(|s| &s.attached) {
            let alone = |c: &&PodKey| self.users.get(c).is_none_or(|n| *n == 1);
            let (own, others): (Vec<_>, Vec<_>) = claims.iter().partition(alone);
            if !own.is_empty() {
                let count = i64::try_from(own.len()).unwrap_or(i64::MAX);
                asked.set(&resource(driver), Quantity::from_units(count));
            }
            if !others.is_empty() {
                let claims = others.into_iter().cloned().collect();
                shared.push((names.position(&resource(driver)), claims));
            }
        }
        (asked, shared)
    }
}

/// Claims that several pods use, by the position of their driver among the resources.
pub(crate) type Shared = Vec<(usize, BTreeSet<PodKey>)>;

/// Sets the room that a node has for volumes: what its limits leave of it. A node that is over its limit takes no
/// more volumes, but other pods (as kube-scheduler has it).
pub(crate) fn set_room(
    names: &Names,
    room: &mut Dense,
    limits: Option<&VolumeLimits>,
    used: &Attached,
) {
    for (name, at) in names.iter() {
        let (Some(driver), Some(slot)) = (driver(name), room.get_mut(at)) else {
            continue;
        };
        let limit = limits.and_then(|l| l.get(driver));
        *slot = limit.map_or(AMPLE, |limit| {
            let left = limit.saturating_sub(used.get(driver).map_or(0, BTreeSet::len));
            count_of(left).min(AMPLE)
        });
    }
}

/// The claims that count against the rooms of a node, by position.
pub(crate) fn by_position(names: &Names, used: &Attached) -> BTreeMap<usize, BTreeSet<PodKey>> {
    let mut out = BTreeMap::new();
    for (name, at) in names.iter() {
        if let Some(claims) = driver(name).and_then(|d| used.get(d)) {
            out.insert(at, claims.clone());
        }
    }
    out
}

/// What claims would take of a node's room beyond what is attached to it already.
pub(crate) fn more_on(attached: &BTreeMap<usize, BTreeSet<PodKey>>, shared: &Shared) -> Dense {
    let mut more = Dense::new();
    for (at, claims) in shared {
        let new = match attached.get(at) {
            Some(there) => claims.difference(there).count(),
            None => claims.len(),
        };
        if more.len() <= *at {
            more.resize(at + 1, 0);
        }
        if let Some(slot) = more.get_mut(*at) {
            *slot = count_of(new);
        }
    }
    more
}
