//! DaemonSets as rules between pods see them. Their pods come to every node that they belong on, without being asked for:
//! to machines still to be bought and to nodes on their way, too. Who wants to be with one of them may rely on that, and who
//! keeps away from one, or is kept away by one, must not be put where one will be.

use std::sync::{Arc, OnceLock};

use k8s_openapi::api::core::v1::Toleration;
use karpenter_api::labels::{HOSTNAME, INITIALIZED, REGISTERED};
use karpenter_model::pod::Owner;
use karpenter_model::taints::first_in_the_way;
use karpenter_model::{NodeView, Pod, Problem, Requirement, Requirements};

use crate::existing::meets;
use crate::keepers::Held;
use crate::rooms::Bits;
use crate::rules::{self, Demand};

/// Which DaemonSet: its position in the problem, which is the same in all questions about a cluster.
pub(crate) type DaemonId = usize;

/// Most ways that are tried around a DaemonSet.
pub(crate) const MAX_WAYS: usize = 8;

/// A DaemonSet whose pod another must not share a domain of a key with: it bars types that the DaemonSet may run on.
pub(crate) type Bar = (DaemonId, Arc<str>);

/// A DaemonSet pod and where it runs.
#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) id: DaemonId,
    pub(crate) pod: Arc<Pod>,
    /// Node requirements, one of which has to be met.
    pub(crate) alternatives: Vec<Requirements>,
    /// The same of nodes that are ours, which all get the labels that tell that they are up.
    ours: Vec<Requirements>,
    /// Whom it keeps away, by key.
    pub(crate) held: Vec<Held>,
    /// Whether it is there for certain where its node requirements, taints and room admit it: nothing of it depends on
    /// what other pods do.
    pub(crate) is_certain: bool,
    /// Nodes that it belongs on, as far as somebody has asked.
    places: OnceLock<Bits>,
}

/// All DaemonSets of a cluster that take part in plans.
#[derive(Debug, Default)]
pub(crate) struct Daemons {
    all: Vec<Daemon>,
}

impl Daemons {
    pub(crate) fn new(problem: &Problem) -> Self {
        let ignored = |p: &Pod| p.has_resource_claims && problem.options.ignore_dra;
        let all = problem.daemons.iter().enumerate();
        let daemons = all.filter(|(_, pod)| !ignored(pod));
        let mut all: Vec<Daemon> = daemons
            .filter_map(|(id, pod)| {
                let alternatives = pod.node_demands(&problem.labels).ok()?.alternatives;
                Some(Daemon {
                    id,
                    pod: Arc::clone(pod),
                    ours: alternatives.iter().filter_map(without_stages).collect(),
                    alternatives,
                    held: rules::held(problem, pod).collect(),
                    is_certain: stands_alone(problem, pod),
                    places: OnceLock::new(),
                })
            })
            .collect();
        // One of two that exclude each other is there, and nobody knows which.
        let is_excluded: Vec<bool> = { all.iter() }
            .map(|one| {
                let mut others = all.iter().filter(|o| o.id != one.id);
                others.any(|o| o.excludes(&one.pod) || one.excludes(&o.pod))
            })
            .collect();
        for (daemon, is_excluded) in all.iter_mut().zip(is_excluded) {
            daemon.is_certain &= !is_excluded;
        }
        Self { all }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Daemon> {
        self.all.iter()
    }
}

/// Whether a pod goes to its node whoever else is in the cluster. Whom it keeps off its own host does not matter: such pods
/// are planned for elsewhere.
fn stands_alone(problem: &Problem, pod: &Pod) -> bool {
    let by_host_only = |r: &rules::Rule| r.demand == Demand::Apart && r.is_by_host();
    let rules = rules::of(problem, pod);
    let mut required = rules.iter().filter(|r| r.required);
    required.all(by_host_only) && pod.volumes.is_empty() && !pod.has_resource_claims
}

impl Daemon {
    /// Whether it puts up with taints; those that are only to be avoided keep no DaemonSet off.
    pub(crate) fn tolerates(&self, taints: &[k8s_openapi::api::core::v1::Taint]) -> bool {
        first_in_the_way(taints, &self.pod.tolerations, true).is_none()
    }

    /// Whether it belongs on a node.
    pub(crate) fn runs_on(&self, problem: &Problem, view: &NodeView) -> bool {
        let asked = if view.managed {
            &self.ours
        } else {
            &self.alternatives
        };
        self.tolerates(&view.taints) && asked.iter().any(|r| meets(view, r, &problem.labels))
    }

    /// The nodes that it belongs on and that nobody is on who would not have it there.
    pub(crate) fn places(&self, problem: &Problem, nodes: &[Arc<NodeView>]) -> &Bits {
        self.places.get_or_init(|| {
            let mut places = Bits::default();
            for (place, view) in nodes.iter().enumerate() {
                let welcome = || !view.pods.iter().any(|p| self.clashes(problem, view, p));
                places.set(place, self.runs_on(problem, view) && welcome());
            }
            places
        })
    }

    /// Whether it and a pod on a node exclude each other there.
    fn clashes(&self, problem: &Problem, view: &NodeView, other: &Pod) -> bool {
        let here = |key: &str| key == HOSTNAME || view.labels.contains_key(key);
        let mut own = self.held.iter();
        let is_its_own = other.owner == Owner::DaemonSet
            && other.key.namespace == self.pod.key.namespace
            && other.controller == self.pod.controller;
        !is_its_own
            && (own.any(|(key, who)| here(key) && who.means(other))
                || rules::held(problem, other).any(|(key, who)| here(&key) && who.means(&self.pod)))
    }

    /// What a machine has to meet beside what its pods ask for so that this is there for certain, one way after the other.
    pub(crate) fn asks(&self) -> impl Iterator<Item = &Requirements> {
        self.ours.iter().filter(|asked| !asked.contains(HOSTNAME))
    }

    /// What a machine has to meet so that this does not run there, one way after the other; none where it runs everywhere.
    pub(crate) fn ways_around(&self) -> Vec<Requirements> {
        let mut ways = vec![Requirements::new()];
        for asked in &self.ours {
            let others: Vec<Requirement> = asked.iter().filter_map(other_than).collect();
            let step = ways.iter().flat_map(|way| {
                let with = |other: &Requirement| {
                    let mut way = way.clone();
                    way.add(other.clone());
                    way
                };
                others.iter().map(with).collect::<Vec<_>>()
            });
            ways = step.take(MAX_WAYS).collect();
        }
        if self.ours.is_empty() {
            Vec::new()
        } else {
            ways
        }
    }

    /// Whether it keeps a pod away.
    pub(crate) fn excludes(&self, pod: &Pod) -> bool {
        self.held.iter().any(|(_, who)| who.means(pod))
    }

    pub(crate) fn tolerations(&self) -> &[Toleration] {
        &self.pod.tolerations
    }
}

/// What a requirement does not allow; none where bounds are stated among other things.
fn other_than(asked: &Requirement) -> Option<Requirement> {
    let mut other = Requirement::exists(Arc::clone(&asked.key));
    match (asked.gte, asked.lte) {
        (None, None) => {
            other.complement = !asked.complement;
            other.values.clone_from(&asked.values);
        }
        (Some(gte), None) if asked.values.is_empty() => other.lte = Some(gte.checked_sub(1)?),
        (None, Some(lte)) if asked.values.is_empty() => other.gte = Some(lte.checked_add(1)?),
        _ => return None,
    }
    Some(other)
}

/// The same without the labels that every node of ours gets before any pod comes to it; none if they forbid that.
fn without_stages(asked: &Requirements) -> Option<Requirements> {
    let mut asked = asked.clone();
    for key in [REGISTERED, INITIALIZED] {
        if asked.remove(key).is_some_and(|r| !r.has("true")) {
            return None;
        }
    }
    Some(asked)
}

/// The same with the labels that nodes get before any pod runs on them, so that DaemonSets may wait for them.
pub(crate) fn once_up(requirements: &Requirements) -> Requirements {
    let mut requirements = requirements.clone();
    for key in [REGISTERED, INITIALIZED] {
        requirements.add(Requirement::is_in(key, ["true"]));
    }
    requirements
}

/// Whether a machine of these requirements has a label of a key, or may have one. What is sold says the rest.
pub(crate) fn may_have(key: &str, requirements: &Requirements, sold: &Requirements) -> bool {
    let stated = |all: &Requirements| all.get(key).map(|r| !r.is_empty());
    key == HOSTNAME
        || stated(requirements)
            .or_else(|| stated(sold))
            .unwrap_or(false)
}
