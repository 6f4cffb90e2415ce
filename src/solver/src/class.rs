//! Pods that ask for the same are one class: whatever holds for one of them holds for all. Cost grows with
//! distinct shapes, not with pods.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Toleration;
use karpenter_model::pod::HostPort;
use karpenter_model::resources::names::{CPU, MEMORY};
use karpenter_model::{Pod, PodKey, Problem, Requirements, ResourceList};

use crate::catalog::{Sold, UnitPrices};
use crate::cluster::Cluster;
use crate::dense::{Dense, Names};
use crate::keepers::{HeldId, Keepers};
use crate::ledger::Whos;
use crate::mounts::{Mounts, Shared};
use crate::rooms::Bits;
use crate::rules::{self, Rule, Who};
use crate::{Queue, soft_taints};

/// Which demand.
pub(crate) type DemandId = usize;

/// What pods demand of a place, whoever they are; many classes have the same.
#[derive(Debug)]
pub(crate) struct Demand {
    /// Node requirements.
    pub(crate) requirements: Requirements,
    /// Whether PreferNoSchedule taints are put up with.
    pub(crate) soft: bool,
    /// Tolerations.
    pub(crate) tolerations: Vec<Toleration>,
    /// What makes it the same as another.
    pub(crate) same: SameDemand,
}

/// Whether PreferNoSchedule taints are put up with, requirements, and tolerations as text.
pub(crate) type SameDemand = (bool, Requirements, String);

/// One way a class may be served. The first is what it would like best, the last what it can do with.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) demand: DemandId,
    /// Those of its keys that volumes have something to say about.
    pub(crate) of_volumes: BTreeSet<Arc<str>>,
}

/// Pods that ask for the same.
#[derive(Debug)]
pub(crate) struct Class {
    /// One of them.
    pub(crate) example: Arc<Pod>,
    /// What one of them asks for, volumes that only it uses among it.
    pub(crate) asked: ResourceList,
    /// The same by position.
    pub(crate) requests: Dense,
    /// Claims that others use, too.
    pub(crate) shared: Shared,
    /// Ways to serve them, best first.
    pub(crate) attempts: Vec<Attempt>,
    /// Tolerations.
    pub(crate) tolerations: Vec<Toleration>,
    /// Host ports.
    pub(crate) ports: Vec<HostPort>,
    /// Node requirements that must hold, one of them.
    pub(crate) required: Vec<Requirements>,
    /// Rules between pods.
    pub(crate) rules: Vec<Rule>,
    /// Whom it keeps away, by key.
    pub(crate) held: Vec<(Arc<str>, Who)>,
    members: Vec<Arc<Pod>>,
}

impl Class {
    /// Whether its anti-affinity keeps it off every machine of a type, as a DaemonSet will have a pod there.
    pub(crate) fn keeps_off(&self, sold: &Sold) -> bool {
        let apart = |r: &&Rule| r.required && r.is_by_host() && r.demand == rules::Demand::Apart;
        let mut rules = self.rules.iter().filter(apart);
        !sold.running.is_empty() && rules.any(|r| sold.running.iter().any(|d| r.who.means(d)))
    }
}

/// All classes of a problem.
#[derive(Debug)]
pub(crate) struct Classes {
    all: Vec<Class>,
    demands: Vec<Demand>,
}

/// Demands met so far, by what they say.
#[derive(Default)]
struct Demands {
    all: Vec<Demand>,
    index: BTreeMap<SameDemand, DemandId>,
}

impl Demands {
    fn id(&mut self, soft: bool, requirements: Requirements, pod: &Pod) -> DemandId {
        let tolerations = if pod.tolerations.is_empty() {
            String::new()
        } else {
            format!("{:?}", pod.tolerations)
        };
        let next = self.all.len();
        let key = (soft, requirements, tolerations);
        if let Some(known) = self.index.get(&key) {
            return *known;
        }
        self.all.push(Demand {
            requirements: key.1.clone(),
            soft,
            tolerations: pod.tolerations.clone(),
            same: key.clone(),
        });
        self.index.insert(key, next);
        next
    }
}

impl Classes {
    /// Sorts the problem's pods into classes. Pods that cannot be planned for go to `refused` with the reason.
    pub(crate) fn new(
        problem: &Problem,
        cluster: &Cluster,
        gone: &Bits,
        names: &mut Names,
        refused: &mut BTreeMap<PodKey, String>,
    ) -> Self {
        let mut by_shape: BTreeMap<String, usize> = BTreeMap::new();
        let mut all: Vec<Class> = Vec::new();
        let soft = soft_taints(problem) || cluster.has_soft_taints(gone);
        let meant = Meant::new(problem, cluster, gone);
        let mounts = Mounts::new(problem, cluster, gone);
        let mut demands = Demands::default();
        for pod in &problem.pods {
            if let Some(refusal) = refusal(problem, pod) {
                refused.insert(pod.key.clone(), refusal);
                continue;
            }
            let concerned = meant.has(pod);
            let (asked, shared) = mounts.of(names, pod);
            let shape = shape(pod, &asked, &shared, concerned);
            if let Some(class) = by_shape.get(&shape).and_then(|i| all.get_mut(*i)) {
                class.members.push(Arc::clone(pod));
                continue;
            }
            match attempts(problem, pod, soft, &mut demands) {
                Ok(attempts) => {
                    by_shape.insert(shape, all.len());
                    all.push(Class {
                        requests: Dense::new(),
                        asked,
                        shared,
                        attempts,
                        tolerations: pod.tolerations.clone(),
                        ports: pod.host_ports.clone(),
                        required: pod
                            .node_demands(&problem.labels)
                            .map(|d| d.alternatives)
                            .unwrap_or_default(),
                        rules: rules::of(problem, pod),
                        held: rules::held(problem, pod).collect(),
                        members: vec![Arc::clone(pod)],
                        example: Arc::clone(pod),
                    });
                }
                Err(reason) => {
                    refused.insert(pod.key.clone(), reason);
                }
            }
        }
        names.settle(all.iter().map(|c| &c.asked), |name| cluster.unit(name));
        for class in &mut all {
            class.requests = names.request(&class.asked);
        }
        Self {
            all,
            demands: demands.all,
        }
    }

    /// A demand of some class.
    pub(crate) fn demand(&self, id: DemandId) -> Option<&Demand> {
        self.demands.get(id)
    }

    /// Something of each demand, by its number.
    pub(crate) fn each_demand<T>(&self, of: impl FnMut(&Demand) -> T) -> Vec<T> {
        self.demands.iter().map(of).collect()
    }

    /// How many demands there are.
    pub(crate) fn demands(&self) -> usize {
        self.demands.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Class> {
        self.all.iter()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Class> {
        self.all.get(index)
    }

    /// The order of service: priority, then what a pod's resources are worth, then age, then UID. A class stands
    /// where its first pod stands for each priority, so that equal pods stay together.
    pub(crate) fn queue(&self, prices: &UnitPrices) -> Queue {
        type Order = (Reverse<i32>, Reverse<i64>, Option<Timestamp>, Arc<str>);
        let mut rows: Vec<(Order, usize, Vec<PodKey>)> = Vec::new();
        for (index, class) in self.all.iter().enumerate() {
            let worth = prices.nano_dollars(
                &class.example.requests.get(CPU),
                &class.example.requests.get(MEMORY),
            );
            let mut by_priority: BTreeMap<Reverse<i32>, Vec<&Arc<Pod>>> = BTreeMap::new();
            for pod in &class.members {
                by_priority
                    .entry(Reverse(pod.priority))
                    .or_default()
                    .push(pod);
            }
            for (priority, mut pods) in by_priority {
                pods.sort_by(|a, b| (a.created, &a.uid, &a.key).cmp(&(b.created, &b.uid, &b.key)));
                let Some(first) = pods.first() else { continue };
                let order = (
                    priority,
                    Reverse(worth),
                    first.created,
                    Arc::clone(&first.uid),
                );
                rows.push((
                    order,
                    index,
                    pods.iter().rev().map(|p| p.key.clone()).collect(),
                ));
            }
        }
        rows.sort_by(|a, b| (&a.0, a.2.last()).cmp(&(&b.0, b.2.last())));
        // Nothing has a lower priority than what is not there.
        let is_late = |row: &(Order, usize, Vec<PodKey>)| {
            row.0.0.0 == i32::MIN
                && self
                    .all
                    .get(row.1)
                    .is_some_and(|c| c.members.iter().any(|p| p.is_virtual()))
        };
        Queue {
            late: rows.iter().position(is_late).unwrap_or(rows.len()),
            waiting: rows
                .into_iter()
                .map(|(_, class, pods)| (class, pods))
                .collect(),
        }
    }
}

/// Why no plan is made for a pod, whatever there is.
fn refusal(problem: &Problem, pod: &Pod) -> Option<String> {
    if let Some(refusal) = pod.refusal(&problem.labels) {
        return Some(refusal.to_string());
    }
    // Planned for as if it had none, it would be given machines that kube-scheduler does not put it on.
    let why = if problem.options.ignore_dra {
        "which are ignored (--ignore-dra-requests)"
    } else {
        "and devices are not allocated here yet (--ignore-dra-requests=false)"
    };
    pod.has_resource_claims
        .then(|| format!("it has resource claims (DRA), {why}"))
}

/// Whom rules are about, of pods to be placed and of those that are there.
struct Meant<'a> {
    by_placed: Whos,
    keepers: &'a Keepers,
    on_gone: BTreeMap<HeldId, usize>,
}

impl<'a> Meant<'a> {
    fn new(problem: &Problem, cluster: &'a Cluster, gone: &Bits) -> Self {
        let mut by_placed = Whos::default();
        for rule in problem.pods.iter().flat_map(|p| rules::of(problem, p)) {
            by_placed.id(&rule.who);
        }
        let keepers = cluster.keepers(problem);
        Self {
            by_placed,
            on_gone: keepers.on(gone),
            keepers,
        }
    }

    fn has(&self, pod: &Pod) -> bool {
        let mut held = self.keepers.against(pod);
        !self.by_placed.meaning(pod).is_empty()
            || held.any(|id| self.keepers.stays(id, &self.on_gone))
    }
}

/// Everything of a pod that placement looks at, as text: equal text, equal answers. Who the pod is matters only where
/// rules are about it or its own.
fn shape(pod: &Pod, asked: &ResourceList, shared: &Shared, concerned: bool) -> String {
    let affinity = pod.affinity.as_deref();
    let node_affinity = affinity.and_then(|a| a.node_affinity.as_ref());
    let mut shape = format!(
        "{:?}|{:?}|{:?}|{:?}|{:?}",
        asked, pod.node_selector, pod.tolerations, node_affinity, pod.host_ports
    );
    if let Some(storage) = &pod.storage {
        // Writing to a String cannot fail.
        let _ = write!(shape, "|{:?}|{shared:?}", storage.alternatives);
    }
    let between =
        affinity.is_some_and(|a| a.pod_affinity.is_some() || a.pod_anti_affinity.is_some());
    if concerned || between || !pod.spread.is_empty() {
        let _ = write!(
            shape,
            "|{}|{:?}|{:?}|{:?}",
            pod.key.namespace, pod.labels, affinity, pod.spread
        );
    }
    shape
}

/// Ways to serve a pod: where its volumes can be is tried first to last for each; preferences are given up from the lightest on, over all required alternatives, before a
/// PreferNoSchedule taint is put up with.
fn attempts(
    problem: &Problem,
    pod: &Pod,
    soft: bool,
    known: &mut Demands,
) -> Result<Vec<Attempt>, String> {
    let demands = pod
        .node_demands(&problem.labels)
        .map_err(|e| e.to_string())?;
    let preferred: &[(i32, Requirements)] = if problem.options.respect_preferences {
        &demands.preferred
    } else {
        &[]
    };
    let anywhere = [Requirements::new()];
    let places = match pod.storage.as_deref() {
        Some(storage) if !storage.alternatives.is_empty() => &storage.alternatives[..],
        _ => &anywhere[..],
    };
    let mut out = Vec::new();
    for put_up in if soft {
        &[false, true][..]
    } else {
        &[false][..]
    } {
        // All preferences together would be too much to ask at once: as upstream, the heaviest left counts.
        for preference in preferred.iter().map(|(_, r)| Some(r)).chain([None]) {
            for required in &demands.alternatives {
                let mut requirements = required.clone();
                if let Some(preference) = preference {
                    requirements.add_all(preference);
                }
                for place in places.iter().filter(|p| p.does_intersect(required)) {
                    let mut requirements = requirements.clone();
                    requirements.add_all(place);
                    out.push(Attempt {
                        demand: known.id(*put_up, requirements, pod),
                        of_volumes: place.iter().map(|r| r.key.clone()).collect(),
                    });
                }
            }
        }
    }
    if out.is_empty() && !demands.alternatives.is_empty() {
        let text = |all: &[Requirements]| {
            let one = |r: &Requirements| {
                let keys: Vec<String> = r.iter().map(ToString::to_string).collect();
                keys.join(" and ")
            };
            all.iter().map(one).collect::<Vec<_>>().join(", or ")
        };
        return Err(format!(
            "its volumes can be used where {}; its own node requirements are {}",
            text(places),
            text(&demands.alternatives)
        ));
    }
    Ok(out)
}
