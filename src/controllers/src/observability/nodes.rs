//! `karpenter_nodes_*` and `karpenter_cluster_utilization_percent`: what each Node has, what its pods ask of it, how old
//! it is.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use karpenter_model::pod::Owner;
use karpenter_model::{LabelRegistry, NodeView, ResourceList};
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::metrics::table::NODE_LABELS;
use karpenter_state::Store;

use super::{amount, resource_label, seconds};

/// Samples of a gauge.
type Samples = Vec<(Vec<Box<str>>, f64)>;

/// Sets the gauges of all Nodes.
pub(super) fn tell(metrics: &Metrics, state: &Store, registry: &LabelRegistry, now: Timestamp) {
    let mut families: BTreeMap<&'static str, Samples> = [
        "karpenter_nodes_allocatable",
        "karpenter_nodes_total_pod_requests",
        "karpenter_nodes_total_pod_limits",
        "karpenter_nodes_total_daemon_requests",
        "karpenter_nodes_total_daemon_limits",
        "karpenter_nodes_system_overhead",
    ]
    .into_iter()
    .map(|name| (name, Samples::new()))
    .collect();
    let mut ages = Samples::new();
    let (mut used, mut there) = (ResourceList::new(), ResourceList::new());
    for view in state.node_views() {
        // A claim without a Node is told of by its conditions.
        let Some(node) = state.node(&view.name) else {
            continue;
        };
        let labels = labels(&view, &node, registry);
        let sums = Sums::of(&view);
        let mut overhead = view.capacity.clone();
        overhead.subtract(&view.allocatable);
        for (name, amounts) in [
            ("karpenter_nodes_allocatable", &view.allocatable),
            ("karpenter_nodes_total_pod_requests", &sums.pod_requests),
            ("karpenter_nodes_total_pod_limits", &sums.pod_limits),
            (
                "karpenter_nodes_total_daemon_requests",
                &view.daemon_requests,
            ),
            ("karpenter_nodes_total_daemon_limits", &sums.daemon_limits),
            ("karpenter_nodes_system_overhead", &overhead.floored()),
        ] {
            // Node-wide counts belong to pools.
            let told = amounts.iter().filter(|(resource, _)| *resource != "nodes");
            let samples = told.map(|(resource, quantity)| {
                let mut values = vec![resource_label(resource).into_boxed_str()];
                values.extend(labels.iter().cloned());
                (values, amount(quantity))
            });
            families.entry(name).or_default().extend(samples);
        }
        there.add(&view.allocatable);
        used.add(&sums.pod_requests);
        used.add(&view.daemon_requests);
        if let Some(created) = &node.metadata.creation_timestamp {
            ages.push((labels, seconds(created.0, now)));
        }
    }
    for (name, samples) in families {
        metrics.replace(name, samples);
    }
    metrics.replace("karpenter_nodes_current_lifetime_seconds", ages);
    let shares = there.iter().map(|(resource, total)| {
        let total = amount(total);
        let share = if total > 0.0 {
            amount(used.get(resource)) / total * 100.0
        } else {
            0.0
        };
        (vec![resource_label(resource).into_boxed_str()], share)
    });
    metrics.replace("karpenter_cluster_utilization_percent", shares);
}

/// What the pods of a node come to, DaemonSets apart.
#[derive(Default)]
struct Sums {
    pod_requests: ResourceList,
    pod_limits: ResourceList,
    daemon_limits: ResourceList,
}

impl Sums {
    fn of(view: &NodeView) -> Self {
        let mut sums = Self::default();
        for pod in &view.pods {
            if pod.owner == Owner::DaemonSet {
                sums.daemon_limits.add(&pod.limits);
            } else {
                sums.pod_requests.add(&pod.requests);
                sums.pod_limits.add(&pod.limits);
            }
        }
        sums
    }
}

/// Values of [`NODE_LABELS`]: of the well-known labels by the last part of their keys, then of the Node itself.
fn labels(view: &NodeView, node: &Node, registry: &LabelRegistry) -> Vec<Box<str>> {
    let named = |label: &str| -> String {
        let found = view.labels.iter().find(|(key, _)| {
            registry.is_well_known(key) && short(key).is_some_and(|s| same(s, label))
        });
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let phase = node.status.as_ref().and_then(|s| s.phase.clone());
    NODE_LABELS
        .iter()
        .map(|label| match *label {
            "node_name" => view.name.to_string(),
            "phase" => phase.clone().unwrap_or_default(),
            "managed" => view.managed.to_string(),
            label => named(label),
        })
        .map(String::into_boxed_str)
        .collect()
}

fn short(key: &str) -> Option<&str> {
    key.rsplit('/').next()
}

/// Whether a label key's last part is what a metric's label is called.
fn same(part: &str, label: &str) -> bool {
    part.len() == label.len()
        && part
            .bytes()
            .map(|b| if b == b'-' { b'_' } else { b })
            .eq(label.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_well_known_label_of_the_core_has_its_place() {
        for key in karpenter_api::labels::WELL_KNOWN {
            let part = short(key).unwrap();
            assert!(NODE_LABELS.iter().any(|l| same(part, l)), "{key}");
        }
        assert!(!same("instance-type", "instance_typ"));
    }
}
