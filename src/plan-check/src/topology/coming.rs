//! Pods of DaemonSets that nobody plans: they come to every node that they belong on. Whom they exclude, and who excludes
//! them, must not be planned for a place where one may come to be; who wants to be with one may rely on one that is sure to come.

use std::collections::BTreeMap;

use karpenter_api::labels as names;
use karpenter_model::{NodeView, Pod, Problem};

use super::meant;
use super::places::{Place, Places};
use crate::Findings;
use crate::case::{Case, Purchase};
use crate::claims::tolerant_daemons;
use crate::labels::{admits, is_unsure};
use crate::nodes::{daemons, daemons_on};

/// DaemonSets' pods that may come to a place.
#[derive(Default)]
pub(crate) struct Coming<'a> {
    /// All of them.
    pub(crate) possible: Vec<&'a Pod>,
    /// Those among them that will be there, whatever happens.
    pub(crate) sure: Vec<&'a Pod>,
}

impl<'a> Coming<'a> {
    /// To every node, then to every machine to be bought.
    pub(crate) fn of(case: &Case<'a>) -> Vec<Self> {
        let problem = case.problem;
        let nodes = problem.nodes.iter().map(|node| to_node(problem, node));
        let machines = case.purchases.iter().map(|p| to_machine(problem, p));
        nodes.chain(machines).collect()
    }
}

fn to_node<'a>(problem: &'a Problem, node: &'a NodeView) -> Coming<'a> {
    let is_here = |key: &str| key == names::HOSTNAME || node.labels.contains_key(key);
    let excludes = |one: &Pod, other: &Pod| meant::excludes(problem, one, other, is_here);
    // Where somebody is whom it excludes, or who excludes it, it does not come.
    let is_kept_off = |daemon: &Pod| {
        let mut others = node
            .pods
            .iter()
            .filter(|p| p.controller.is_none() || p.controller != daemon.controller);
        others.any(|p| excludes(p, daemon) || excludes(daemon, p))
    };
    let possible = daemons_on(problem, node).map(|d| &**d);
    let possible: Vec<&Pod> = possible.filter(|d| !is_kept_off(d)).collect();
    let sure = possible.iter().copied();
    Coming {
        sure: sure.filter(|d| stands_alone(problem, d)).collect(),
        possible,
    }
}

fn to_machine<'a>(problem: &'a Problem, purchase: &Purchase<'a>) -> Coming<'a> {
    let mut coming = Coming::default();
    let labels = &problem.labels;
    for daemon in tolerant_daemons(problem, purchase.pool) {
        let nodes = || purchase.sold.iter().flat_map(|sold| purchase.nodes(sold));
        if nodes().any(|n| admits(&n, daemon, labels)) {
            coming.possible.push(daemon);
        }
        if nodes().all(|n| admits(&n, daemon, labels) && !is_unsure(&n, daemon, labels))
            && stands_alone(problem, daemon)
        {
            coming.sure.push(daemon);
        }
    }
    coming
}

/// Whether nothing but its node decides whether a DaemonSet's pod is there. Whom it keeps off its host is not planned there.
fn stands_alone(problem: &Problem, daemon: &Pod) -> bool {
    let apart = |t: &k8s_openapi::api::core::v1::PodAffinityTerm| t.topology_key == names::HOSTNAME;
    let excludes = |one: &Pod, other: &Pod| meant::excludes(problem, one, other, |_| true);
    let mut others = daemons(problem).filter(|d| d.key != daemon.key);
    meant::together(daemon).is_empty()
        && meant::apart(daemon).iter().all(apart)
        && meant::spread(daemon).next().is_none()
        && daemon.volumes.is_empty()
        && !daemon.has_resource_claims
        && !others.any(|d| excludes(d, daemon) || excludes(daemon, d))
}

/// Judges what planned pods and DaemonSets' pods exclude of each other on the same place.
pub(crate) fn apart(problem: &Problem, places: &Places<'_>, findings: &mut Findings) {
    let excludes = |here: &Place<'_>, one: &Pod, other: &Pod| {
        let is_here = |key: &str| !here.domains(key).is_empty();
        meant::excludes(problem, one, other, is_here)
    };
    for place in &places.all {
        for daemon in &place.coming.possible {
            for pod in place.pods.values().flat_map(|group| &group.planned) {
                if excludes(place, pod, daemon) || excludes(place, daemon, pod) {
                    findings.error(
                        "anti-affinity",
                        format!(
                            "pod {} may share a node with DaemonSet pod {} although one excludes the other",
                            pod.key, daemon.key
                        ),
                    );
                }
            }
        }
    }
}

/// Adds the domains of a key in which a DaemonSet's pod will be that all terms of a pod mean.
pub(crate) fn add_certain<'p>(
    problem: &Problem,
    places: &'p Places<'_>,
    owner: &Pod,
    key: &str,
    certain: &mut BTreeMap<&'p str, usize>,
) {
    let terms = meant::together(owner);
    for place in &places.all {
        let sure = place.coming.sure.iter();
        let meant = sure.filter(|d| terms.iter().all(|t| meant::by_term(problem, t, owner, d)));
        let n = meant.count();
        if let Some(domain) = place.domain(key).filter(|_| n > 0) {
            *certain.entry(domain).or_default() += n;
        }
    }
}
