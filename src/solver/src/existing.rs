//! Pods onto nodes that exist or are on their way: first that takes the pod, initialized ones first, then by name.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_model::Undefined;
use karpenter_model::plan::ExistingPlacement;
use karpenter_model::pod::HostPort;
use karpenter_model::taints::first_untolerated;
use karpenter_model::{NodeView, Problem, Requirement, Requirements, ResourceList};

use crate::class::{Attempt, Class, Classes};
use crate::dense::{Dense, Names, add, times};
use crate::ledger::Ledger;
use crate::{Budget, Queue};

/// A node and what is left of it.
pub(crate) struct Node {
    pub(crate) view: Arc<NodeView>,
    labels: Requirements,
    room: Dense,
    ports: Vec<HostPort>,
}

impl Node {
    /// Takes `n` pods of a class on.
    pub(crate) fn take(&mut self, class: &Class, n: usize) {
        let n = i128::try_from(n).unwrap_or(0);
        add(&mut self.room, &class.requests, -n);
        if n > 0 {
            self.ports.extend(class.ports.iter().cloned());
        }
    }
}

/// Nodes that exist, in the order they are tried, and what was put on them.
pub(crate) struct Existing {
    pub(crate) nodes: Vec<Node>,
    pub(crate) placed: BTreeMap<Arc<str>, Vec<karpenter_model::PodKey>>,
}

impl Existing {
    pub(crate) fn placements(self) -> Vec<ExistingPlacement> {
        self.placed
            .into_iter()
            .map(|(node, pods)| ExistingPlacement { node, pods })
            .collect()
    }
}

/// Places the pods that no rule between pods is about.
pub(crate) fn place(
    problem: &Problem,
    names: &Names,
    classes: &Classes,
    ledger: &Ledger,
    queue: &mut Queue,
    budget: &mut Budget,
) -> Existing {
    let mut nodes: Vec<Node> = problem
        .nodes
        .iter()
        .map(|n| node(problem, names, n))
        .collect();
    nodes.sort_by_key(|n| (Reverse(n.view.initialized), Arc::clone(&n.view.name)));
    let mut placed: BTreeMap<Arc<str>, Vec<karpenter_model::PodKey>> = BTreeMap::new();
    let rows: Vec<(usize, usize, usize)> = queue.counts().collect();
    for (position, class, mut count) in rows {
        if ledger.concerns(class) {
            continue;
        }
        let Some(class) = classes.get(class) else {
            continue;
        };
        for attempt in &class.attempts {
            for node in &mut nodes {
                if count == 0 || !budget.spend(1) {
                    break;
                }
                let taken = how_many(class, attempt, node, count);
                for _ in 0..taken {
                    let Some(pod) = queue.take(position) else {
                        break;
                    };
                    placed
                        .entry(Arc::clone(&node.view.name))
                        .or_default()
                        .push(pod);
                }
                node.take(class, taken);
                count -= taken;
            }
        }
    }
    Existing { nodes, placed }
}

/// How many pods of a class a node takes, at most `count`.
pub(crate) fn how_many(class: &Class, attempt: &Attempt, node: &Node, count: usize) -> usize {
    let count = if class.ports.is_empty() {
        count
    } else {
        count.min(1)
    };
    let fit = times(&class.requests, &node.room, count);
    if fit == 0 || crate::buy::ports_clash(&class.ports, &node.ports) {
        return 0;
    }
    let taints = node
        .view
        .taints
        .iter()
        .filter(|t| !(attempt.soft && t.effect == "PreferNoSchedule"));
    if first_untolerated(taints, &class.tolerations).is_some() {
        return 0;
    }
    if node
        .labels
        .is_compatible(&attempt.requirements, Undefined::Refused)
    {
        fit
    } else {
        0
    }
}

fn node(problem: &Problem, names: &Names, view: &Arc<NodeView>) -> Node {
    let mut labels = Requirements::from_labels(&view.labels, &problem.labels);
    if !labels.contains(karpenter_api::labels::HOSTNAME) {
        labels.set(Requirement::is_in(
            karpenter_api::labels::HOSTNAME,
            [view.name.as_ref()],
        ));
    }
    let mut room = names.known(&view.available);
    add(
        &mut room,
        &names.known(&coming_daemons(problem, view, &labels)),
        -1,
    );
    Node {
        view: Arc::clone(view),
        labels,
        room,
        ports: view.host_ports.clone(),
    }
}

/// What DaemonSets will still take: the requests of those that belong on the node minus those that are on it.
fn coming_daemons(problem: &Problem, view: &NodeView, labels: &Requirements) -> ResourceList {
    let mut all = ResourceList::new();
    let hard: Vec<_> = view
        .taints
        .iter()
        .filter(|t| t.effect != "PreferNoSchedule")
        .collect();
    for daemon in &problem.daemons {
        if daemon.has_resource_claims && problem.options.ignore_dra {
            continue;
        }
        let tolerated = first_untolerated(hard.iter().copied(), &daemon.tolerations).is_none();
        let wanted = daemon.node_demands(&problem.labels).is_ok_and(|d| {
            d.alternatives
                .iter()
                .any(|r| labels.is_compatible(r, Undefined::Refused))
        });
        if tolerated && wanted {
            all.add(&daemon.requests);
        }
    }
    all.subtract(&view.daemon_requests);
    all.floored()
}
