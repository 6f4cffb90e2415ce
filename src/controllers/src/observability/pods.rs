//! `karpenter_pods_*`: what state pods are in, how long they wait, and how long they have waited. Times are taken when a
//! change is heard of; the API server's own are no finer than a second.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use karpenter_api::labels;
use karpenter_model::pod::Phase;
use karpenter_model::{NodeView, Pod, PodKey};
use karpenter_runtime::metrics::Metrics;
use karpenter_state::Store;

use super::seconds;

/// Pods that were seen before they had come that far, by UID.
#[derive(Debug, Default)]
pub(super) struct Pods {
    unbound: BTreeMap<PodKey, Arc<str>>,
    unstarted: BTreeMap<PodKey, Arc<str>>,
}

impl Pods {
    /// Takes note of a change of a pod.
    pub(super) fn observe(
        &mut self,
        metrics: &Metrics,
        state: &Store,
        key: &PodKey,
        now: Timestamp,
    ) {
        let Some(pod) = state.pod(key) else {
            self.unbound.remove(key);
            self.unstarted.remove(key);
            return;
        };
        let created = pod.created.map(|at| seconds(at, now));
        let placed = state.verdict(key).and_then(|v| v.placed);
        let placed = placed.map(|at| seconds(at, now));
        let observe = |name, value: Option<f64>| {
            if let Some(value) = value {
                metrics.observe(name, &[], value);
            }
        };
        if passed(&mut self.unbound, &pod, pod.node_name.is_some()) {
            observe("karpenter_pods_bound_duration_seconds", created);
            let name = "karpenter_pods_provisioning_bound_duration_seconds";
            observe(name, placed);
        }
        if ended(&pod) {
            // It has run, but nobody saw since when.
            self.unstarted.remove(key);
        } else if passed(&mut self.unstarted, &pod, pod.ready) {
            observe("karpenter_pods_startup_duration_seconds", created);
            let name = "karpenter_pods_provisioning_startup_duration_seconds";
            observe(name, placed);
        }
    }

    fn is_unstarted(&self, pod: &Pod) -> bool {
        self.unstarted.get(&pod.key) == Some(&pod.uid)
    }
}

/// Whether the pod has just come `there`, having been seen before it had.
fn passed(waiting: &mut BTreeMap<PodKey, Arc<str>>, pod: &Pod, there: bool) -> bool {
    if there {
        return waiting.remove(&pod.key).as_ref() == Some(&pod.uid);
    }
    // One that has run already and is not ready now is no new one.
    let starts = pod.phase == Phase::Pending && waiting.get(&pod.key) != Some(&pod.uid);
    if starts {
        waiting.insert(pod.key.clone(), pod.uid.clone());
    }
    false
}

fn ended(pod: &Pod) -> bool {
    matches!(pod.phase, Phase::Succeeded | Phase::Failed)
}

/// Sets the gauges of all pods.
pub(super) fn tell(metrics: &Metrics, state: &Store, seen: &Pods, now: Timestamp) {
    let views = state.node_views();
    let nodes: BTreeMap<&str, &NodeView> = views.iter().map(|v| (&*v.name, &**v)).collect();
    let (mut states, mut unbound, mut unstarted) = (Vec::new(), Vec::new(), Vec::new());
    let (mut placed_unbound, mut placed_unstarted) = (Vec::new(), Vec::new());
    let mut undecided = Vec::new();
    for pod in state.pods() {
        let node = pod.node_name.as_deref().and_then(|n| nodes.get(n).copied());
        states.push((state_labels(&pod, node), 1.0));
        if ended(&pod) {
            continue;
        }
        let who =
            || -> Vec<Box<str>> { vec![(&*pod.key.name).into(), (&*pod.key.namespace).into()] };
        let created = pod.created.map(|at| seconds(at, now));
        let verdict = state.verdict(&pod.key);
        let placed = verdict.and_then(|v| v.placed).map(|at| seconds(at, now));
        if pod.node_name.is_none() {
            unbound.extend(created.map(|s| (who(), s)));
            placed_unbound.extend(placed.map(|s| (who(), s)));
            let waits = verdict.filter(|v| v.decided.is_none());
            undecided.extend(waits.map(|v| (who(), seconds(v.seen, now))));
        }
        if pod.phase == Phase::Pending || seen.is_unstarted(&pod) {
            unstarted.extend(created.map(|s| (who(), s)));
            placed_unstarted.extend(placed.map(|s| (who(), s)));
        }
    }
    for (name, samples) in [
        ("karpenter_pods_state", states),
        ("karpenter_pods_unbound_time_seconds", unbound),
        ("karpenter_pods_unstarted_time_seconds", unstarted),
        (
            "karpenter_pods_provisioning_unbound_time_seconds",
            placed_unbound,
        ),
        (
            "karpenter_pods_provisioning_unstarted_time_seconds",
            placed_unstarted,
        ),
        (
            "karpenter_pods_provisioning_scheduling_undecided_time_seconds",
            undecided,
        ),
    ] {
        metrics.replace(name, samples);
    }
}

/// Values of the labels of `karpenter_pods_state`, in the order of its row.
fn state_labels(pod: &Pod, node: Option<&NodeView>) -> Vec<Box<str>> {
    let of_node = |key: &str| -> Box<str> {
        let value = node.and_then(|n| n.labels.get(key)).map(String::as_str);
        value.unwrap_or_default().into()
    };
    let flag = |is: bool| -> Box<str> { if is { "true" } else { "false" }.into() };
    vec![
        (&*pod.key.name).into(),
        (&*pod.key.namespace).into(),
        owner(pod).into_boxed_str(),
        pod.node_name.as_deref().unwrap_or_default().into(),
        flag(pod.node_name.is_some()),
        of_node(labels::NODEPOOL),
        of_node(labels::ZONE),
        of_node(labels::ARCH),
        of_node(labels::CAPACITY_TYPE),
        of_node(labels::INSTANCE_TYPE),
        phase(pod.phase).into(),
        flag(pod.ready),
        flag(node.is_some_and(|n| n.managed)),
    ]
}

/// The owner as a path of the API, as the label has always had it.
fn owner(pod: &Pod) -> String {
    let (Some((kind, name)), Some(version)) = (&pod.controller, &pod.controller_version) else {
        return String::new();
    };
    let kind = kind.to_lowercase();
    format!(
        "/apis/{version}/namespaces/{}/{kind}s/{name}",
        pod.key.namespace
    )
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "Pending",
        Phase::Running => "Running",
        Phase::Succeeded => "Succeeded",
        Phase::Failed => "Failed",
        Phase::Unknown => "Unknown",
    }
}
