//! Pods that are put on nodes that exist: taints, labels, room, ports.

use std::sync::Arc;

use karpenter_api::labels as names;
use karpenter_model::{NodeView, Pod, Problem, ResourceList};

use crate::Findings;
use crate::case::Case;
use crate::fits::{ports_clash, short_of, untolerated};
use crate::labels::{Labelled, admits};

pub(crate) fn check(case: &Case<'_>, findings: &mut Findings) {
    let soft = has_soft_taints(case.problem);
    for placement in &case.plan.existing {
        let Some(node) = case.nodes.get(placement.node.as_ref()) else {
            findings.error(
                "bookkeeping",
                format!(
                    "node {} is in the plan but not in the problem",
                    placement.node
                ),
            );
            continue;
        };
        let placed = case.pods_of(&placement.pods);
        on_node(case.problem, node, &placed, soft, findings);
    }
}

/// Whether any pool or node carries PreferNoSchedule, so that pods may have been given that toleration.
pub(crate) fn has_soft_taints(problem: &Problem) -> bool {
    problem
        .pools
        .iter()
        .flat_map(|p| &p.taints)
        .any(|t| t.effect == "PreferNoSchedule")
}

/// A node with the labels that every node of ours gets before pods come to it.
struct OnceUp<'a>(&'a NodeView);

impl Labelled for OnceUp<'_> {
    fn label(&self, key: &str) -> Option<Option<&str>> {
        let stage = self.0.managed && [names::REGISTERED, names::INITIALIZED].contains(&key);
        let own = self.0.labels.label(key);
        own.or_else(|| stage.then_some(Some("true")))
    }
}

/// The DaemonSets that take part in plans.
pub(crate) fn daemons(problem: &Problem) -> impl Iterator<Item = &Arc<Pod>> {
    let ignored = |d: &Pod| d.has_resource_claims && problem.options.ignore_dra;
    problem.daemons.iter().filter(move |d| !ignored(d))
}

/// The DaemonSets that belong on a node.
pub(crate) fn daemons_on<'a>(
    problem: &'a Problem,
    node: &'a NodeView,
) -> impl Iterator<Item = &'a Arc<Pod>> {
    daemons(problem).filter(move |daemon| {
        admits(&OnceUp(node), daemon, &problem.labels)
            && untolerated(&node.taints, daemon, true).is_none()
    })
}

fn on_node(
    problem: &Problem,
    node: &NodeView,
    placed: &[&Arc<Pod>],
    soft: bool,
    findings: &mut Findings,
) {
    let mut need = ResourceList::new();
    let mut ports = node.host_ports.clone();
    // A port that a DaemonSet will take is taken, be its pod there or not.
    for daemon in daemons_on(problem, node) {
        ports.extend(daemon.host_ports.iter().cloned());
    }
    for pod in placed {
        if let Some(taint) = untolerated(&node.taints, pod, soft) {
            findings.error(
                "taints",
                format!(
                    "pod {} does not tolerate {}:{} of node {}",
                    pod.key, taint.key, taint.effect, node.name
                ),
            );
        }
        if !admits(&node.labels, pod, &problem.labels) {
            findings.error(
                "selectors",
                format!(
                    "node {} does not satisfy the node selectors of pod {}",
                    node.name, pod.key
                ),
            );
        }
        need.add(&pod.requests);
        for port in &pod.host_ports {
            if ports.iter().any(|taken| ports_clash(taken, port)) {
                findings.error(
                    "host-ports",
                    format!(
                        "pod {} wants port {} that is taken on node {}",
                        pod.key, port.port, node.name
                    ),
                );
            }
        }
        ports.extend(pod.host_ports.iter().cloned());
    }
    if let Some((resource, wants, has)) = short_of(&need, &node.available) {
        findings.error(
            "resources",
            format!(
                "node {} has {has} of {resource} left but is given pods that want {wants}",
                node.name
            ),
        );
    }
}
