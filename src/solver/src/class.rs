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
use crate::daemons::{Bar, Daemon, Daemons, MAX_WAYS};
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
    /// Tolerations of a DaemonSet whose pod has to be there, too.
    pub(crate) beside: Option<Vec<Toleration>>,
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
    /// DaemonSets that it excludes or that exclude it.
    pub(crate) bars: Vec<Bar>,
    /// Ways to serve it on machines that those do not run on because of what is asked for besides.
    pub(crate) around: Vec<DemandId>,
    /// Ways to serve it on machines to be bought where a DaemonSet's pod will be whom its affinity wants.
    pub(crate) beside: Vec<DemandId>,
    members: Vec<Arc<Pod>>,
}

impl Class {
    /// Whether a DaemonSet that it excludes, or that excludes it, may run on machines of a type that are bought under
    /// requirements.
    pub(crate) fn keeps_off(&self, sold: &Sold, requirements: &Requirements) -> bool {
        sold.is_barred(&self.bars, requirements)
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
        self.known((soft, requirements, tolerations), &pod.tolerations, None)
    }

    /// A demand with more requirements, beside a DaemonSet's pod that has to be there, too; none if they do not go together.
    fn stricter(
        &mut self,
        demand: DemandId,
        asked: &Requirements,
        beside: Option<&Daemon>,
    ) -> Option<DemandId> {
        let demand = self.all.get(demand)?;
        if !demand.requirements.does_intersect(asked) {
            return None;
        }
        let (soft, mut requirements, mut text) = demand.same.clone();
        requirements.add_all(asked);
        if let Some(daemon) = beside {
            // Writing to a String cannot fail.
            let _ = write!(text, "|{:?}", daemon.tolerations());
        }
        let tolerations = demand.tolerations.clone();
        Some(self.known((soft, requirements, text), &tolerations, beside))
    }

    fn known(&mut self, key: SameDemand, own: &[Toleration], beside: Option<&Daemon>) -> DemandId {
        let next = self.all.len();
        if let Some(known) = self.index.get(&key) {
            return *known;
        }
        self.all.push(Demand {
            requirements: key.1.clone(),
            soft: key.0,
            tolerations: own.to_vec(),
            beside: beside.map(|d| d.tolerations().to_vec()),
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
        let daemons = cluster.daemons(problem);
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
                    let rules = rules::of(problem, pod);
                    let bars = bars(daemons, pod, &rules);
                    let around = around(daemons, &bars, &attempts, &mut demands);
                    let own = attempts.iter().map(|a| a.demand);
                    let ways: Vec<DemandId> = own.chain(around.iter().copied()).collect();
                    all.push(Class {
                        around,
                        bars,
                        beside: beside(daemons, &ways, &rules, &mut demands),
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
                        rules,
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
    daemons: &'a Daemons,
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
            daemons: cluster.daemons(problem),
        }
    }

    fn has(&self, pod: &Pod) -> bool {
        let mut held = self.keepers.against(pod);
        !self.by_placed.meaning(pod).is_empty()
            || held.any(|id| self.keepers.stays(id, &self.on_gone))
            || self.daemons.iter().any(|d| d.excludes(pod))
    }
}

/// DaemonSets that a pod excludes or that exclude it.
fn bars(daemons: &Daemons, pod: &Pod, rules: &[Rule]) -> Vec<Bar> {
    let apart = |r: &&Rule| r.required && r.demand == rules::Demand::Apart;
    let mut bars = Vec::new();
    for daemon in daemons.iter() {
        let excluded = rules.iter().filter(apart);
        let excluded = excluded
            .filter(|r| r.who.means(&daemon.pod))
            .map(|r| &r.key);
        let excluding = daemon.held.iter().filter(|(_, who)| who.means(pod));
        for key in excluded.chain(excluding.map(|(key, _)| key)) {
            let bar = (daemon.id, Arc::clone(key));
            if !bars.contains(&bar) {
                bars.push(bar);
            }
        }
    }
    bars
}

/// Ways to serve a class on machines that DaemonSets do not run on which it must not meet: around each of them, and around
/// all at once.
fn around(
    daemons: &Daemons,
    bars: &[Bar],
    attempts: &[Attempt],
    known: &mut Demands,
) -> Vec<DemandId> {
    let barred = daemons
        .iter()
        .filter(|d| bars.iter().any(|(id, _)| *id == d.id));
    let mut barred: Vec<&Daemon> = barred.collect();
    barred.sort_by_key(|d| &d.pod.key);
    let each: Vec<Vec<Requirements>> = barred.iter().map(|d| d.ways_around()).collect();
    let mut ways: Vec<Requirements> = each.concat();
    let some: Vec<_> = each.iter().filter(|ways| !ways.is_empty()).collect();
    if some.len() > 1 {
        let mut all = vec![Requirements::new()];
        for own in some {
            let step = all.iter().flat_map(|way| {
                let both = |more: &Requirements| {
                    let mut way = way.clone();
                    way.add_all(more);
                    way
                };
                own.iter().map(both).collect::<Vec<_>>()
            });
            all = step.take(MAX_WAYS).collect();
        }
        ways.extend(all);
    }
    let mut out = Vec::new();
    for attempt in attempts {
        out.extend(
            ways.iter()
                .filter_map(|way| known.stricter(attempt.demand, way, None)),
        );
    }
    out
}

/// Ways to serve a class on machines to be bought where it finds whom its affinity wants in a DaemonSet's pod: one is enough,
/// for all terms, as all of them mean the same pods.
fn beside(
    daemons: &Daemons,
    ways: &[DemandId],
    rules: &[Rule],
    known: &mut Demands,
) -> Vec<DemandId> {
    let mut together = rules.iter().filter(|r| r.is_bond());
    let Some(wanted) = together.next() else {
        return Vec::new();
    };
    let certain = daemons.iter().filter(|d| d.is_certain);
    let mut partners: Vec<&Daemon> = certain.filter(|d| wanted.who.means(&d.pod)).collect();
    partners.sort_by_key(|d| &d.pod.key);
    let mut out = Vec::new();
    for way in ways {
        for partner in &partners {
            let asked = partner.asks();
            out.extend(asked.filter_map(|asked| known.stricter(*way, asked, Some(partner))));
        }
    }
    out
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
