//! ReplicaSets: as many pods as wanted; when there are too many, the least useful go first.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use karpenter_runtime::Key;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::events::Events;
use super::feed::{Controller, Dirty, Mirror, gone_is_fine, parts};
use super::object::{self, at, int, text};
use super::pods::{self, available, earlier};
use super::resource::{PODS, REPLICA_SETS};
use super::tally::{Tallies, Tally};
use crate::server::{ApiError, ApiServer, Change, Gr, PatchKind};

const KIND: (&str, &str) = ("apps/v1", "ReplicaSet");
/// Annotation that makes a pod dearer (or cheaper) to delete than others.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What is to be done for a ReplicaSet.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) create: i64,
    /// Names of pods to delete, in order.
    pub(crate) delete: Vec<String>,
    pub(crate) status: Value,
    /// When availability changes by time alone.
    pub(crate) again: Option<Timestamp>,
}

/// Decides for a ReplicaSet with what it has, and with the pods that it controls where it has to choose among them.
pub(crate) fn plan<'a>(
    set: &Value,
    tally: &Tally,
    owned: impl Fn() -> Vec<&'a Arc<Value>>,
    now: Timestamp,
) -> Plan {
    let active = || -> Vec<&Value> {
        let owned = owned().into_iter().map(AsRef::as_ref);
        owned.filter(|p| object::active(p)).collect()
    };
    let wanted = int(set, &["spec", "replicas"]).unwrap_or(1);
    let have = tally.active;
    let mut plan = Plan::default();
    if !object::deleting(set) {
        if have < wanted {
            plan.create = wanted - have;
        } else if have > wanted {
            let surplus = usize::try_from(have - wanted).unwrap_or(0);
            plan.delete = deletion_order(&active())
                .into_iter()
                .take(surplus)
                .map(|p| object::name(p).to_owned())
                .collect();
        }
    }
    let min_ready = int(set, &["spec", "minReadySeconds"]).unwrap_or(0);
    let mut ready_long_enough = tally.ready;
    if min_ready != 0 {
        ready_long_enough = 0;
        for pod in active() {
            let (is_available, when) = available(pod, min_ready, now);
            ready_long_enough += i64::from(is_available);
            plan.again = earlier(plan.again, when);
        }
    }
    let template = object::texts(set, &["spec", "template", "metadata", "labels"]);
    plan.status = json!({
        "replicas": have,
        "fullyLabeledReplicas": tally.labelled(&template),
        "readyReplicas": tally.ready,
        "availableReplicas": ready_long_enough,
        "observedGeneration": at(set, &["metadata", "generation"]),
    });
    plan
}

/// Pods in the order in which they would be given up: without a node, pending, not ready, cheap, on crowded nodes,
/// ready for a short time, restarted often, young; then by name.
fn deletion_order<'a>(pods: &[&'a Value]) -> Vec<&'a Value> {
    let mut per_node: BTreeMap<&str, i64> = BTreeMap::new();
    for pod in pods {
        *per_node
            .entry(text(pod, &["spec", "nodeName"]))
            .or_insert(0) += 1;
    }
    let mut order = pods.to_vec();
    order.sort_by_cached_key(|pod| {
        let node = text(pod, &["spec", "nodeName"]);
        let phase = match text(pod, &["status", "phase"]) {
            "" | "Pending" => 0,
            "Unknown" => 1,
            _ => 2,
        };
        let cost: i64 = object::annotation(pod, DELETION_COST).parse().unwrap_or(0);
        let crowd = per_node.get(node).copied().unwrap_or(0);
        let restarts: i64 = object::items(pod, &["status", "containerStatuses"])
            .iter()
            .filter_map(|c| int(c, &["restartCount"]))
            .sum();
        (
            (
                !node.is_empty(),
                phase,
                object::pod_ready(pod),
                cost,
                Reverse(crowd),
            ),
            object::ready_since(pod).map(Reverse),
            Reverse(restarts),
            Reverse(object::created(pod)),
            object::name(pod).to_owned(),
        )
    });
    order
}

/// The loop.
pub struct ReplicaSets {
    sets: Mirror,
    pods: Mirror,
    tallies: Tallies,
    events: Events,
}

impl Default for ReplicaSets {
    fn default() -> Self {
        Self {
            sets: Mirror::default(),
            pods: Mirror::default(),
            tallies: Tallies::default(),
            events: Events::new("replicaset-controller"),
        }
    }
}

impl Controller for ReplicaSets {
    const NAME: &'static str = "replicaset";
    const WATCHES: &'static [Gr<'static>] = &[REPLICA_SETS, PODS];

    fn observe(&mut self, watch: usize, change: &Change, dirty: &mut Dirty) {
        let (object, there) = parts(change);
        if watch == 0 {
            self.sets.apply(change);
            dirty.add(object::key(object));
            return;
        }
        let before = self.pods.apply(change);
        // Most of what happens to a pod (it is bound, gets an address) is no reason to look at its set.
        let counts_alike = before.as_ref().is_some_and(|b| counts(b) == counts(object));
        if there && counts_alike {
            return;
        }
        (self.tallies).moved(before.as_deref(), there.then_some(object.as_ref()));
        for pod in before.iter().chain([object]) {
            mark_owner(pod, "ReplicaSet", dirty);
        }
    }

    fn reconcile(&mut self, api: &ApiServer, key: &Key) -> Result<Option<Instant>, ApiError> {
        let Some(set) = self.sets.get(key) else {
            return Ok(None);
        };
        let uid = object::uid(set);
        let none = Tally::default();
        let tally = self.tallies.of(uid).unwrap_or(&none);
        let plan = plan(
            set,
            tally,
            || self.pods.controlled_by(uid),
            api.clock().wall(),
        );
        let namespace = object::namespace(set);
        let by_name = |name: &String| self.pods.get(&Key::namespaced(namespace, name));
        for pod in plan.delete.iter().filter_map(by_name) {
            pods::delete(api, &mut self.events, KIND, set, pod)?;
        }
        let mut result = Ok(());
        for _ in 0..plan.create {
            let reference = object::owner_reference(KIND.0, KIND.1, set);
            let pod = pods::from_template(at(set, &["spec", "template"]), set, reference, None);
            result = pods::create(api, &mut self.events, KIND, set, pod);
            if result.is_err() {
                break;
            }
        }
        write_status(api, REPLICA_SETS, set, plan.status)?;
        result.map(|()| pods::look_at(api, plan.again))
    }
}

/// What of a pod decides about how many there are to be, and about a set's status.
fn counts(pod: &Value) -> (&str, bool, Option<Timestamp>, &Value) {
    (
        object::controller_uid(pod),
        object::active(pod),
        object::ready_since(pod),
        at(pod, &["metadata", "labels"]),
    )
}

/// Marks the controlling owner of `kind`, if that is what the object has.
pub(crate) fn mark_owner(object: &Value, kind: &str, dirty: &mut Dirty) {
    if let Some(owner) = object::controller(object).filter(|o| text(o, &["kind"]) == kind) {
        dirty.add(Key::namespaced(
            object::namespace(object),
            text(owner, &["name"]),
        ));
    }
}

/// Writes the fields of `status` that differ from what is there.
pub(crate) fn write_status(
    api: &ApiServer,
    resource: Gr<'_>,
    object: &Value,
    status: Value,
) -> Result<(), ApiError> {
    let differs = status
        .as_object()
        .is_some_and(|m| m.iter().any(|(k, v)| at(object, &["status", k]) != v));
    if !differs {
        return Ok(());
    }
    let (ns, name) = (object::namespace(object), object::name(object));
    let patch = json!({"status": status});
    gone_is_fine(api.patch(resource, Some(ns), name, "status", PatchKind::Merge, patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: &str, phase: &str, ready_since: Option<&str>, created: &str) -> Value {
        let mut pod = json!({
            "metadata": {"name": name, "creationTimestamp": created},
            "spec": {"nodeName": node}, "status": {"phase": phase},
        });
        if let Some(since) = ready_since {
            pod["status"]["conditions"] =
                json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}]);
        }
        pod
    }

    #[test]
    fn least_useful_pods_go_first() {
        let (t1, t2, t3) = (
            "2026-01-01T00:00:01Z",
            "2026-01-01T00:00:02Z",
            "2026-01-01T00:00:03Z",
        );
        let mut cheap = pod("cheap", "n1", "Running", Some(t1), t1);
        cheap["metadata"]["annotations"] = json!({DELETION_COST: "-5"});
        let pods = [
            pod("old", "n2", "Running", Some(t1), t1),
            pod("young", "n4", "Running", Some(t1), t2),
            pod("fresh", "n3", "Running", Some(t3), t1),
            cheap,
            pod("crowded", "n1", "Running", Some(t1), t1),
            pod("unready", "n2", "Running", None, t1),
            pod("pending", "n3", "Pending", None, t1),
            pod("homeless", "", "Pending", None, t1),
        ];
        let order = deletion_order(&pods.iter().collect::<Vec<_>>());
        let names: Vec<&str> = order.iter().map(|p| object::name(p)).collect();
        // n1, n2 and n3 hold two pods each, n4 one.
        assert_eq!(
            names,
            [
                "homeless", "pending", "unready", "cheap", "fresh", "crowded", "old", "young"
            ]
        );
    }

    #[test]
    fn plans_follow_the_wanted_number() {
        let now: Timestamp = "2026-01-01T00:00:05Z".parse().unwrap();
        let set = |replicas: i64, min_ready: i64| {
            json!({"metadata": {"name": "s", "generation": 3},
                "spec": {"replicas": replicas, "minReadySeconds": min_ready}})
        };
        let then = "2026-01-01T00:00:00Z";
        let of_s = |mut pod: Value| {
            pod["metadata"]["ownerReferences"] = json!([{"controller": true, "uid": "s"}]);
            Arc::new(pod)
        };
        let ready = of_s(pod("a", "n", "Running", Some(then), then));
        let done = of_s(pod("b", "n", "Succeeded", None, then));
        let mut tallies = Tallies::default();
        tallies.moved(None, Some(&ready));
        tallies.moved(None, Some(&done));
        let tally = tallies.of("s").unwrap();
        let owned = || vec![&ready, &done];
        let up = plan(&set(3, 10), tally, owned, now);
        assert_eq!((up.create, up.delete.len()), (2, 0));
        assert_eq!(up.status["replicas"], 1);
        assert_eq!(
            (&up.status["readyReplicas"], &up.status["availableReplicas"]),
            (&json!(1), &json!(0))
        );
        assert_eq!(up.again, Some("2026-01-01T00:00:10Z".parse().unwrap()));
        let down = plan(&set(0, 0), tally, owned, now);
        assert_eq!((down.create, down.delete), (0, vec!["a".to_owned()]));
    }
}
