//! Node lifecycle: conditions become taints, pods leave nodes whose NoExecute taints they do not tolerate (or no
//! longer do), pods on nodes that are not ready are marked so, and a kubelet that fell silent is noticed.
//!
//! Silence: leases of simulated kubelets are written once and count as renewed for ever, so that a quiet cluster
//! writes nothing. A kubelet that stops says so with [`STOPPED_RENEWING`] on its lease, which stands for the renewals
//! that no longer come; the grace period runs from there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use karpenter_runtime::Key;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::events::Events;
use super::feed::{Controller, Dirty, Mirror, gone_is_fine, parts};
use super::index::Index;
use super::object::{self, at, text};
use super::pods::look_at;
use super::resource::{LEASES, NODES, PODS};
use super::selector::{Taint, Toleration};
use crate::server::{ApiError, ApiServer, Change, Gr, PatchKind};

/// Annotation on a lease in `kube-node-lease`: since when it is no longer renewed.
pub const STOPPED_RENEWING: &str = "karpenter-rs.test/stopped-renewing";
/// Namespace of node leases.
pub const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Silence after which a node's conditions turn Unknown (`--node-monitor-grace-period`).
const GRACE_SECONDS: i64 = 50;

/// Taint of nodes whose Ready condition is False.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Taint of nodes whose Ready condition is Unknown.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Taint of cordoned nodes.
pub const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that taint while they are True.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    (
        "NetworkUnavailable",
        "node.kubernetes.io/network-unavailable",
    ),
];

/// The taints a node should have by its conditions, out of those that this loop manages: key and effect.
/// While no node at all is ready, nothing is evicted: it is more likely that the control plane cannot see.
fn wanted_taints(node: &Value, all_down: bool) -> BTreeSet<(&'static str, &'static str)> {
    let mut taints = BTreeSet::new();
    let ready = match object::condition_status(node, "Ready") {
        "True" => None,
        "Unknown" => Some(UNREACHABLE),
        _ => Some(NOT_READY),
    };
    if let Some(key) = ready {
        taints.insert((key, "NoSchedule"));
        if !all_down && object::condition(node, "Ready").is_some() {
            taints.insert((key, "NoExecute"));
        }
    }
    for (condition, key) in PRESSURES {
        if object::condition_status(node, condition) == "True" {
            taints.insert((key, "NoSchedule"));
        }
    }
    if object::flag(node, &["spec", "unschedulable"]) {
        taints.insert((UNSCHEDULABLE, "NoSchedule"));
    }
    taints
}

fn managed(taint: &Value) -> bool {
    let key = text(taint, &["key"]);
    matches!(key, NOT_READY | UNREACHABLE | UNSCHEDULABLE)
        && text(taint, &["effect"]) != "PreferNoSchedule"
        || PRESSURES.iter().any(|(_, k)| *k == key)
}

/// The node's taints with those that this loop manages put right; none when they are.
fn corrected_taints(node: &Value, all_down: bool, now: Timestamp) -> Option<Vec<Value>> {
    let mut wanted = wanted_taints(node, all_down);
    let before = object::items(node, &["spec", "taints"]);
    let mut after: Vec<Value> = before
        .iter()
        .filter(|t| {
            !managed(t) || {
                let (key, effect) = (text(t, &["key"]), text(t, &["effect"]));
                let found = wanted.iter().find(|w| **w == (key, effect)).copied();
                found.is_some_and(|w| wanted.remove(&w))
            }
        })
        .cloned()
        .collect();
    for (key, effect) in wanted {
        let mut taint = json!({"key": key, "effect": effect});
        if let (Some(map), "NoExecute") = (taint.as_object_mut(), effect) {
            map.insert("timeAdded".to_owned(), json!(object::stamp(now)));
        }
        after.push(taint);
    }
    (after != before).then_some(after)
}

/// When a pod must leave because of NoExecute taints, counted from `since` for each taint; none: it may stay.
fn eviction_time(taints: &[(Taint, Timestamp)], tolerations: &[Toleration]) -> Option<Timestamp> {
    let mut earliest: Option<Timestamp> = None;
    for (taint, since) in taints {
        let tolerating: Vec<&Toleration> =
            tolerations.iter().filter(|t| t.tolerates(taint)).collect();
        let leave = if tolerating.is_empty() {
            Some(*since)
        } else {
            // The shortest that is given; who gives none tolerates for ever.
            tolerating
                .iter()
                .filter_map(|t| t.seconds)
                .min()
                .and_then(|s| since.checked_add(SignedDuration::from_secs(s.max(0))).ok())
        };
        earliest = super::pods::earlier(earliest, leave);
    }
    earliest
}

/// The loop.
pub struct NodeLifecycle {
    nodes: Mirror,
    pods: Mirror,
    leases: Mirror,
    pods_by_node: Index<String>,
    /// Since when each node has each of its NoExecute taints, for those that carry no time.
    tainted_since: BTreeMap<(String, Taint), Timestamp>,
    /// Pods to mark not ready: those of a node that turned so, and those that came to one that is. Each is marked
    /// once; what its kubelet says after that stands, or the two would contradict each other for ever.
    to_mark: BTreeSet<Key>,
    all_down: bool,
    events: Events,
}

impl Default for NodeLifecycle {
    fn default() -> Self {
        Self {
            nodes: Mirror::default(),
            pods: Mirror::default(),
            leases: Mirror::default(),
            pods_by_node: Index::default(),
            tainted_since: BTreeMap::new(),
            to_mark: BTreeSet::new(),
            all_down: false,
            events: Events::new("node-controller"),
        }
    }
}

impl NodeLifecycle {
    fn observe_pod(&mut self, change: &Change, dirty: &mut Dirty) {
        let before = self.pods.apply(change);
        let (pod, there) = parts(change);
        let key = object::key(pod);
        let was = before
            .as_deref()
            .map_or("", |p| text(p, &["spec", "nodeName"]));
        let is = if there {
            text(pod, &["spec", "nodeName"])
        } else {
            ""
        };
        self.pods_by_node.moved(key.clone(), was, is);
        if !there {
            self.to_mark.remove(&key);
            return;
        }
        // Only pods on troubled nodes need a look.
        let Some(node) = self.nodes.get(&Key::cluster(is)) else {
            return;
        };
        let not_ready = object::condition_status(node, "Ready") != "True";
        if not_ready && was != is {
            self.to_mark.insert(key.clone());
        }
        if not_ready || has_no_execute(node) {
            dirty.add(key);
        }
    }

    fn observe_node(&mut self, change: &Change, dirty: &mut Dirty) {
        let (node, there) = parts(change);
        let before = self.nodes.apply(change);
        let name = object::name(node).to_owned();
        if there {
            let taints = Taint::of_node(node);
            self.tainted_since
                .retain(|(n, t), _| *n != name || taints.contains(t));
            dirty.add(object::key(node));
            let ready = |n: &Value| object::condition_status(n, "Ready") == "True";
            let turned = before.as_deref().is_none_or(|b| ready(b) != ready(node));
            let same = before
                .is_some_and(|b| at(&b, &["spec", "taints"]) == at(node, &["spec", "taints"]));
            let pods = self.pods_by_node.of(&name);
            if turned && !ready(node) {
                self.to_mark.extend(pods.clone().cloned());
            }
            if (turned || !same) && (has_no_execute(node) || !ready(node)) {
                pods.for_each(|k| dirty.add(k.clone()));
            }
        } else {
            self.tainted_since.retain(|(n, _), _| *n != name);
        }
    }

    /// Looks whether any node is ready; when that changes, all nodes' taints may.
    fn update_all_down(&mut self, dirty: &mut Dirty) {
        let ready = |n: &Arc<Value>| object::condition_status(n, "Ready") == "True";
        let all_down = !self.nodes.is_empty() && !self.nodes.iter().any(|(_, n)| ready(n));
        if all_down != self.all_down {
            self.all_down = all_down;
            self.nodes.iter().for_each(|(k, _)| dirty.add(k.clone()));
        }
    }

    fn bring_node(&self, api: &ApiServer, node: &Value) -> Result<Option<Instant>, ApiError> {
        let now = api.clock().wall();
        let name = object::name(node);
        let mut again = None;
        let lease = self.leases.get(&Key::namespaced(LEASE_NAMESPACE, name));
        let silent_since = lease.and_then(|l| {
            object::annotation(l, STOPPED_RENEWING)
                .parse::<Timestamp>()
                .ok()
        });
        if let Some(since) = silent_since {
            let due = since
                .checked_add(SignedDuration::from_secs(GRACE_SECONDS))
                .unwrap_or(since);
            if due > now {
                again = Some(due);
            } else if object::condition_status(node, "Ready") != "Unknown" {
                return set_unknown(api, node, now).map(|()| None);
            }
        }
        if let Some(taints) = corrected_taints(node, self.all_down, now) {
            let patch = json!({
                "metadata": {"resourceVersion": at(node, &["metadata", "resourceVersion"])},
                "spec": {"taints": taints},
            });
            // A conflict is tried again, too: nobody says that a change by somebody else will bring us back.
            gone_is_fine(api.patch(NODES, None, name, "", PatchKind::Merge, patch))?;
        }
        Ok(look_at(api, again))
    }

    fn bring_pod(&mut self, api: &ApiServer, key: &Key) -> Result<Option<Instant>, ApiError> {
        let Some(pod) = self.pods.get(key).map(Arc::clone) else {
            return Ok(None);
        };
        let node_key = Key::cluster(text(&pod, &["spec", "nodeName"]));
        let Some(node) = self.nodes.get(&node_key).map(Arc::clone) else {
            return Ok(None);
        };
        let now = api.clock().wall();
        let node_ready = object::condition_status(&node, "Ready");
        let told = node_ready != "True" && !node_ready.is_empty();
        if told && self.to_mark.contains(key) {
            if object::pod_ready(&pod) {
                mark_not_ready(api, &pod, now)?;
            }
            self.to_mark.remove(key);
        }
        if object::deleting(&pod) {
            return Ok(None);
        }
        let taints: Vec<(Taint, Timestamp)> = Taint::of_node(&node)
            .into_iter()
            .filter(|t| t.effect == "NoExecute")
            .map(|t| {
                let slot = (object::name(&node).to_owned(), t.clone());
                (t, *self.tainted_since.entry(slot).or_insert(now))
            })
            .collect();
        let Some(due) = eviction_time(&taints, &Toleration::of_pod(&pod)) else {
            return Ok(None);
        };
        if due > now {
            return Ok(look_at(api, Some(due)));
        }
        self.evict(api, &pod, now).map(|()| None)
    }

    fn evict(&mut self, api: &ApiServer, pod: &Value, now: Timestamp) -> Result<(), ApiError> {
        let (ns, name) = (object::namespace(pod), object::name(pod));
        let message = format!("Marking for deletion Pod {ns}/{name}");
        let said = ("Normal", "TaintManagerEviction");
        self.events.write(api, ("v1", "Pod"), pod, said, &message);
        let wanted = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint"});
        if let Some(list) = object::merge_condition(pod, &wanted, now) {
            let patch = json!({"status": {"conditions": list}});
            gone_is_fine(api.patch(PODS, Some(ns), name, "status", PatchKind::Merge, patch))?;
        }
        gone_is_fine(api.delete(PODS, Some(ns), name, None))
    }
}

fn has_no_execute(node: &Value) -> bool {
    Taint::of_node(node).iter().any(|t| t.effect == "NoExecute")
}

/// The kubelet fell silent: what it last said no longer counts.
fn set_unknown(api: &ApiServer, node: &Value, now: Timestamp) -> Result<(), ApiError> {
    let mut silenced = node.clone();
    for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        let wanted = json!({"type": kind, "status": "Unknown", "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status."});
        if let Some(list) = object::merge_condition(&silenced, &wanted, now)
            && let Some(status) = silenced.get_mut("status").and_then(Value::as_object_mut)
        {
            status.insert("conditions".to_owned(), Value::Array(list));
        }
    }
    let patch = json!({"status": {"conditions": at(&silenced, &["status", "conditions"])}});
    gone_is_fine(api.patch(
        NODES,
        None,
        object::name(node),
        "status",
        PatchKind::Merge,
        patch,
    ))
}

fn mark_not_ready(api: &ApiServer, pod: &Value, now: Timestamp) -> Result<(), ApiError> {
    let wanted = json!({"type": "Ready", "status": "False", "reason": "NodeNotReady",
        "message": "Node is not ready"});
    let Some(list) = object::merge_condition(pod, &wanted, now) else {
        return Ok(());
    };
    let (ns, name) = (object::namespace(pod), object::name(pod));
    let patch = json!({"status": {"conditions": list}});
    gone_is_fine(api.patch(PODS, Some(ns), name, "status", PatchKind::Merge, patch))
}

impl Controller for NodeLifecycle {
    const NAME: &'static str = "node-lifecycle";
    const WATCHES: &'static [Gr<'static>] = &[LEASES, NODES, PODS];

    fn observe(&mut self, watch: usize, change: &Change, dirty: &mut Dirty) {
        match watch {
            0 => {
                let (lease, _) = parts(change);
                if object::namespace(lease) == LEASE_NAMESPACE {
                    self.leases.apply(change);
                    dirty.add(Key::cluster(object::name(lease)));
                }
            }
            1 => {
                self.observe_node(change, dirty);
                self.update_all_down(dirty);
            }
            _ => self.observe_pod(change, dirty),
        }
    }

    fn reconcile(&mut self, api: &ApiServer, key: &Key) -> Result<Option<Instant>, ApiError> {
        if key.namespace.is_some() {
            return self.bring_pod(api, key);
        }
        match self.nodes.get(key).map(Arc::clone) {
            Some(node) => self.bring_node(api, &node),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn node(ready: &str, taints: Value) -> Value {
        let conditions = if ready.is_empty() {
            json!([])
        } else {
            json!([{"type": "Ready", "status": ready}])
        };
        json!({"spec": {"taints": taints}, "status": {"conditions": conditions}})
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    #[rstest]
    #[case::fine("True", false, "")]
    #[case::down(
        "False",
        false,
        "node.kubernetes.io/not-ready:NoExecute node.kubernetes.io/not-ready:NoSchedule"
    )]
    #[case::silent(
        "Unknown",
        false,
        "node.kubernetes.io/unreachable:NoExecute node.kubernetes.io/unreachable:NoSchedule"
    )]
    #[case::new("", false, "node.kubernetes.io/not-ready:NoSchedule")]
    #[case::all_down("False", true, "node.kubernetes.io/not-ready:NoSchedule")]
    fn conditions_become_taints(#[case] ready: &str, #[case] all_down: bool, #[case] want: &str) {
        let got: Vec<String> = wanted_taints(&node(ready, json!([])), all_down)
            .iter()
            .map(|(k, e)| format!("{k}:{e}"))
            .collect();
        assert_eq!(got.join(" "), want);
    }

    #[test]
    fn others_taints_are_left_alone() {
        let foreign = json!({"key": "karpenter.sh/disrupted", "effect": "NoSchedule"});
        let ours = json!({"key": NOT_READY, "effect": "NoSchedule"});
        let healed = node("True", json!([foreign, ours]));
        assert_eq!(
            corrected_taints(&healed, false, now()),
            Some(vec![foreign.clone()])
        );
        assert_eq!(
            corrected_taints(&node("True", json!([foreign])), false, now()),
            None
        );
    }

    #[rstest]
    #[case::none(json!([]), Some(0))]
    #[case::for_ever(json!([{"operator": "Exists"}]), None)]
    #[case::a_while(json!([{"key": NOT_READY, "operator": "Exists", "tolerationSeconds": 300}]), Some(300))]
    #[case::the_shorter(json!([{"key": NOT_READY, "operator": "Exists", "tolerationSeconds": 300},
        {"operator": "Exists", "tolerationSeconds": 5}]), Some(5))]
    #[case::other(json!([{"key": UNREACHABLE, "operator": "Exists"}]), Some(0))]
    fn pods_leave_when_toleration_ends(#[case] tolerations: Value, #[case] after: Option<i64>) {
        let pod = json!({"spec": {"tolerations": tolerations}});
        let taint = Taint::read(&json!({"key": NOT_READY, "effect": "NoExecute"}));
        let want = after.map(|s| now().checked_add(SignedDuration::from_secs(s)).unwrap());
        assert_eq!(
            eviction_time(&[(taint, now())], &Toleration::of_pod(&pod)),
            want
        );
    }
}
