//! Pods onto nodes that exist or are on their way: first that takes the pod, initialized ones first, then by name.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_model::Undefined;
use karpenter_model::plan::ExistingPlacement;
use karpenter_model::pod::HostPort;
use karpenter_model::taints::first_untolerated;
use karpenter_model::{NodeView, PodKey, Problem, Requirement, Requirements, ResourceList};

use crate::class::{Attempt, Class, Classes};
use crate::dense::{Dense, Names, add, minus, times};
use crate::ledger::Ledger;
use crate::{Budget, Queue, mounts};

/// A node and what is left of it.
pub(crate) struct Node {
    pub(crate) view: Arc<NodeView>,
    labels: Requirements,
    room: Dense,
    ports: Vec<HostPort>,
    /// Claims that are attached, by the position of their driver.
    attached: BTreeMap<usize, BTreeSet<PodKey>>,
}

impl Node {
    /// Takes `n` pods of a class on.
    pub(crate) fn take(&mut self, class: &Class, n: usize) {
        let n = i128::try_from(n).unwrap_or(0);
        add(&mut self.room, &class.requests, -n);
        if n > 0 {
            self.ports.extend(class.ports.iter().cloned());
            add(
                &mut self.room,
                &mounts::more_on(&self.attached, &class.shared),
                -1,
            );
            for (at, claims) in &class.shared {
                let here = self.attached.entry(*at).or_default();
                here.extend(claims.iter().cloned());
            }
        }
    }
}

/// Nodes that exist, in the order they are tried, and what was put on them.
pub(crate) struct Existing {
    pub(crate) nodes: Vec<Node>,
    pub(crate) placed: BTreeMap<Arc<str>, Vec<PodKey>>,
}

impl Existing {
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
        let mut count = queue.count(position);
        for attempt in &class.attempts {
            for node in &mut self.nodes {
                if count == 0 || !budget.spend(1) {
                    break;
                }
                let taken = how_many(class, attempt, node, count);
                if taken == 0 {
                    continue;
                }
                let pods = queue.take_many(position, taken);
                let here = self.placed.entry(Arc::clone(&node.view.name)).or_default();
                here.extend(pods);
                node.take(class, taken);
                count -= taken;
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
    let mut existing = Existing {
        nodes,
        placed: BTreeMap::new(),
    };
    for position in 0..queue.late {
        if queue.class(position).is_some_and(|c| !ledger.concerns(c)) {
            existing.fill(classes, position, queue, budget);
        }
    }
    existing
}

/// How many pods of a class a node takes, at most `count`.
pub(crate) fn how_many(class: &Class, attempt: &Attempt, node: &Node, count: usize) -> usize {
    let count = if class.ports.is_empty() {
        count
    } else {
        count.min(1)
    };
    let fit = if class.shared.is_empty() {
        times(&class.requests, &node.room, count)
    } else {
        let more = mounts::more_on(&node.attached, &class.shared);
        times(&class.requests, &minus(&node.room, &more), count)
    };
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
    let (limits, used) = match view.volumes.as_deref() {
        Some(volumes) => (Some(&volumes.limits), &volumes.used),
        None => (None, &BTreeMap::new()),
    };
    mounts::set_room(names, &mut room, limits, used);
    Node {
        view: Arc::clone(view),
        labels,
        room,
        ports: view.host_ports.clone(),
        attached: mounts::by_position(names, used),
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
