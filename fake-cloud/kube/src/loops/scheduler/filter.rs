//! Whether a pod can go to a node, and in the real scheduler's words why not.

use std::borrow::Cow;

use super::cluster::{Cluster, Node};
use super::pod::Pod;
use super::topology::{Broken, PodRules};
use super::volumes::{PodVolumes, Volumes};
use crate::loops::selector::{Taint, node_selector_matches, tolerated};

/// Taint that a cordoned node carries.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Why a node will not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reasons: Vec<Cow<'static, str>>,
    /// Evicting pods from the node would not help.
    pub(crate) unresolvable: bool,
}

fn refuse(reason: impl Into<Cow<'static, str>>, unresolvable: bool) -> Result<(), Refusal> {
    Err(Refusal {
        reasons: vec![reason.into()],
        unresolvable,
    })
}

/// Whether the pod's node selector and required node affinity admit the node.
pub(crate) fn admitted_by_affinity(pod: &Pod, node: &Node) -> bool {
    pod.node_selector
        .iter()
        .all(|(k, v)| node.labels.get(k) == Some(v))
        && pod
            .required_nodes
            .as_ref()
            .is_none_or(|s| node_selector_matches(s, &node.labels, &node.name))
}

/// Runs the filters in the order of the real scheduler's default profile; the first that refuses ends it.
pub(crate) fn check(
    pod: &Pod,
    node: &Node,
    cluster: &Cluster,
    rules: &PodRules,
    (volumes, demands): (&Volumes, &PodVolumes),
) -> Result<(), Refusal> {
    if node.unschedulable {
        let cordon = Taint {
            key: UNSCHEDULABLE.to_owned(),
            value: String::new(),
            effect: "NoSchedule".to_owned(),
        };
        if !tolerated(&pod.tolerations, &cordon) {
            return refuse("node(s) were unschedulable", true);
        }
    }
    let untolerated = node
        .taints
        .iter()
        .find(|t| t.effect != "PreferNoSchedule" && !tolerated(&pod.tolerations, t));
    if let Some(taint) = untolerated {
        let reason = format!(
            "node(s) had untolerated taint {{{}: {}}}",
            taint.key, taint.value
        );
        return refuse(reason, true);
    }
    if !admitted_by_affinity(pod, node) {
        return refuse("node(s) didn't match Pod's node affinity/selector", true);
    }
    let taken = |port| node.ports.iter().any(|(_, p)| p.conflicts(port));
    if pod.ports.iter().any(taken) {
        return refuse(
            "node(s) didn't have free ports for the requested pod ports",
            false,
        );
    }
    fits(pod, node)?;
    if let Some((reason, unresolvable)) = volumes.refusal(demands, node, cluster) {
        return refuse(reason, unresolvable);
    }
    rules.check(node).or_else(|broken| match broken {
        Broken::Spread => refuse(
            "node(s) didn't match pod topology spread constraints",
            false,
        ),
        Broken::SpreadLabelMissing => refuse(
            "node(s) didn't match pod topology spread constraints (missing required label)",
            true,
        ),
        Broken::Affinity => refuse("node(s) didn't match pod affinity rules", true),
        Broken::AntiAffinity => refuse("node(s) didn't match pod anti-affinity rules", false),
        Broken::ExistingAntiAffinity => refuse(
            "node(s) didn't satisfy existing pods anti-affinity rules",
            false,
        ),
    })
}

/// Whether requests fit beside what is there; names every resource that is short.
fn fits(pod: &Pod, node: &Node) -> Result<(), Refusal> {
    let (want, have, used) = (&pod.requests, &node.allocatable, &node.requested);
    let mut reasons: Vec<Cow<'static, str>> = Vec::new();
    // Short even on the empty node: nothing to gain by preemption.
    let mut never = false;
    if used.pods + want.pods > have.pods {
        reasons.push("Too many pods".into());
    }
    for (name, want, have, used) in [
        ("Insufficient cpu", want.cpu, have.cpu, used.cpu),
        ("Insufficient memory", want.memory, have.memory, used.memory),
        (
            "Insufficient ephemeral-storage",
            want.ephemeral,
            have.ephemeral,
            used.ephemeral,
        ),
    ] {
        if want > 0 && want > have.saturating_sub(used) {
            reasons.push(name.into());
            never |= want > have;
        }
    }
    for (name, want) in &want.other {
        let total = have.other(name);
        if *want > total.saturating_sub(used.other(name)) {
            reasons.push(format!("Insufficient {name}").into());
            never |= *want > total;
        }
    }
    if reasons.is_empty() {
        Ok(())
    } else {
        Err(Refusal {
            reasons,
            unresolvable: never,
        })
    }
}

/// The text of the PodScheduled condition and the FailedScheduling event. `preemption` says why evicting pods is of no
/// use; none: it is, and pods are evicted.
pub(crate) fn message(refusals: &[(String, Refusal)], preemption: Option<&str>) -> String {
    let total = refusals.len();
    let why = histogram(
        refusals
            .iter()
            .flat_map(|(_, r)| r.reasons.iter().map(Cow::as_ref)),
    );
    let why = format!("0/{total} nodes are available: {why}.");
    preemption.map_or_else(|| why.clone(), |p| format!("{why} preemption: {p}"))
}

/// What preemption says when it is of no use.
pub(crate) fn no_preemption(total: usize, reasons: &[Cow<'static, str>]) -> String {
    let why = histogram(reasons.iter().map(Cow::as_ref));
    format!("0/{total} nodes are available: {why}.")
}

fn histogram<'a>(reasons: impl Iterator<Item = &'a str>) -> String {
    let mut counts: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    for reason in reasons {
        *counts.entry(reason).or_insert(0) += 1;
    }
    // Sorted as text with the number in front, as the real one.
    let mut parts: Vec<String> = counts.iter().map(|(r, n)| format!("{n} {r}")).collect();
    parts.sort();
    parts.join(", ")
}
