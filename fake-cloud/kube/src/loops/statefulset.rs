//! StatefulSets: pods with names and claims of their own, made and given up in order (or all at once when
//! `podManagementPolicy` is `Parallel`), updated from the last to the first.

use std::sync::Arc;

use jiff::Timestamp;
use karpenter_runtime::Key;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::events::Events;
use super::feed::{Controller, Dirty, Mirror, parts, there_is_fine};
use super::object::{self, at, int, text};
use super::pods::{self, available, count, earlier};
use super::replicaset::{mark_owner, write_status};
use super::resource::{PODS, PVCS, STATEFUL_SETS};
use crate::server::{ApiError, ApiServer, Change, Gr};

const KIND: (&str, &str) = ("apps/v1", "StatefulSet");
const HASH_LABEL: &str = "controller-revision-hash";
const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// What is to be done for a StatefulSet.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Ordinals to make pods for.
    pub(crate) create: Vec<i64>,
    /// Ordinals whose pods go.
    pub(crate) delete: Vec<i64>,
    pub(crate) status: Value,
    pub(crate) again: Option<Timestamp>,
}

fn ordinal(set: &Value, pod: &Value) -> Option<i64> {
    object::name(pod)
        .strip_prefix(object::name(set))?
        .strip_prefix('-')?
        .parse()
        .ok()
}

/// Decides for a StatefulSet with the pods that it controls.
pub(crate) fn plan(set: &Value, owned: &[&Arc<Value>], now: Timestamp) -> Plan {
    let hash = object::template_hash(at(set, &["spec", "template"]));
    let replicas = int(set, &["spec", "replicas"]).unwrap_or(1);
    let start = int(set, &["spec", "ordinals", "start"]).unwrap_or(0);
    let parallel = text(set, &["spec", "podManagementPolicy"]) == "Parallel";
    let min_ready = int(set, &["spec", "minReadySeconds"]).unwrap_or(0);
    let partition = int(
        set,
        &["spec", "updateStrategy", "rollingUpdate", "partition"],
    )
    .unwrap_or(0);
    let on_delete = text(set, &["spec", "updateStrategy", "type"]) == "OnDelete";

    let find = |i: i64| {
        owned
            .iter()
            .find(|p| ordinal(set, p) == Some(i))
            .map(|p| p.as_ref())
    };
    let mut plan = Plan::default();
    // A pod is settled when it is available and stays.
    let mut all_settled = true;
    let mut again = None;
    let mut settled = |pod: &Value| {
        let (is_available, when) = available(pod, min_ready, now);
        again = earlier(again, when);
        is_available && !object::deleting(pod)
    };
    for i in start..start.saturating_add(replicas) {
        match find(i) {
            None => {
                plan.create.push(i);
                all_settled = false;
            }
            Some(pod) if object::terminal(pod) && !object::deleting(pod) => {
                plan.delete.push(i);
                all_settled = false;
            }
            Some(pod) => {
                if settled(pod) {
                    continue;
                }
                all_settled = false;
            }
        }
        if !parallel {
            break;
        }
    }
    let wanted = start..start.saturating_add(replicas);
    let mut surplus: Vec<(i64, &Value)> = owned
        .iter()
        .filter_map(|p| Some((ordinal(set, p)?, p.as_ref())))
        .filter(|(i, _)| !wanted.contains(i))
        .collect();
    surplus.sort_by_key(|(i, _)| std::cmp::Reverse(*i));
    if parallel || all_settled {
        for (i, pod) in &surplus {
            if !object::deleting(pod) {
                plan.delete.push(*i);
            }
            if !parallel {
                break;
            }
        }
    }
    if all_settled && surplus.is_empty() && !on_delete {
        let outdated = wanted.clone().rev().find(|i| {
            *i >= start.saturating_add(partition)
                && find(*i).is_some_and(|p| object::label(p, HASH_LABEL) != hash)
        });
        plan.delete.extend(outdated);
    } else if !on_delete && plan.create.is_empty() && plan.delete.is_empty() {
        // A pod of an old revision that is broken does not come up by waiting for it.
        let broken = wanted.clone().rev().find(|i| {
            *i >= start.saturating_add(partition)
                && find(*i).is_some_and(|p| {
                    object::label(p, HASH_LABEL) != hash
                        && !object::deleting(p)
                        && !object::pod_ready(p)
                })
        });
        plan.delete.extend(broken);
    }
    if object::deleting(set) {
        plan.create.clear();
        plan.delete.clear();
    }
    plan.again = again;
    let there: Vec<&Value> = owned
        .iter()
        .map(|p| p.as_ref())
        .filter(|p| !object::terminal(p))
        .collect();
    let ready = count(there.iter().filter(|p| object::pod_ready(p)));
    let updated = count(
        there
            .iter()
            .filter(|p| object::label(p, HASH_LABEL) == hash),
    );
    let revision = format!("{}-{hash}", object::name(set));
    let before = text(set, &["status", "currentRevision"]).to_owned();
    let current_revision = if before.is_empty() || updated == replicas {
        &revision
    } else {
        &before
    };
    plan.status = json!({
        "replicas": count(&there),
        "readyReplicas": ready,
        "availableReplicas": count(there.iter().filter(|p| available(p, min_ready, now).0)),
        "currentReplicas": count(there.iter().filter(|p| {
            current_revision.ends_with(&format!("-{}", object::label(p, HASH_LABEL)))
        })),
        "updatedReplicas": updated,
        "currentRevision": current_revision,
        "updateRevision": revision,
        "observedGeneration": at(set, &["metadata", "generation"]),
    });
    plan
}

/// The pod of one ordinal.
fn pod(set: &Value, ordinal: i64) -> Value {
    let name = format!("{}-{ordinal}", object::name(set));
    let template = at(set, &["spec", "template"]);
    let reference = object::owner_reference(KIND.0, KIND.1, set);
    let mut pod = pods::from_template(template, set, reference, Some(&name));
    pods::set_label(&mut pod, HASH_LABEL, &object::template_hash(template));
    pods::set_label(&mut pod, NAME_LABEL, &name);
    pods::set_label(&mut pod, INDEX_LABEL, &ordinal.to_string());
    if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("hostname".to_owned(), json!(name));
        let service = text(set, &["spec", "serviceName"]);
        if !service.is_empty() {
            spec.insert("subdomain".to_owned(), json!(service));
        }
        let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
        if let Some(volumes) = volumes.as_array_mut() {
            for claim in object::items(set, &["spec", "volumeClaimTemplates"]) {
                let volume = object::name(claim);
                volumes.retain(|v| text(v, &["name"]) != volume);
                volumes.push(json!({
                    "name": volume,
                    "persistentVolumeClaim": {"claimName": claim_name(set, claim, ordinal)},
                }));
            }
        }
    }
    pod
}

fn claim_name(set: &Value, claim: &Value, ordinal: i64) -> String {
    format!("{}-{}-{ordinal}", object::name(claim), object::name(set))
}

/// The loop.
pub struct StatefulSets {
    sets: Mirror,
    pods: Mirror,
    events: Events,
}

impl Default for StatefulSets {
    fn default() -> Self {
        Self {
            sets: Mirror::default(),
            pods: Mirror::default(),
            events: Events::new("statefulset-controller"),
        }
    }
}

impl Controller for StatefulSets {
    const NAME: &'static str = "statefulset";
    const WATCHES: &'static [Gr<'static>] = &[STATEFUL_SETS, PODS];

    fn observe(&mut self, watch: usize, change: &Change, dirty: &mut Dirty) {
        let (object, _) = parts(change);
        if watch == 0 {
            self.sets.apply(change);
            dirty.add(object::key(object));
            return;
        }
        self.pods.apply(change);
        mark_owner(object, "StatefulSet", dirty);
    }

    fn reconcile(&mut self, api: &ApiServer, key: &Key) -> Result<Option<Instant>, ApiError> {
        let Some(set) = self.sets.get(key) else {
            return Ok(None);
        };
        let owned = self.pods.controlled_by(object::uid(set));
        let plan = plan(set, &owned, api.clock().wall());
        for i in &plan.delete {
            if let Some(pod) = owned.iter().find(|p| ordinal(set, p) == Some(*i)) {
                pods::delete(api, &mut self.events, KIND, set, pod)?;
            }
        }
        for i in &plan.create {
            make_claims(api, set, *i)?;
            pods::create(api, &mut self.events, KIND, set, pod(set, *i))?;
        }
        write_status(api, STATEFUL_SETS, set, plan.status)?;
        Ok(pods::look_at(api, plan.again))
    }
}

/// Claims outlive pods: only those that are missing are made.
fn make_claims(api: &ApiServer, set: &Value, ordinal: i64) -> Result<(), ApiError> {
    for template in object::items(set, &["spec", "volumeClaimTemplates"]) {
        let labels = at(set, &["spec", "selector", "matchLabels"]);
        let claim = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": claim_name(set, template, ordinal),
                "namespace": object::namespace(set),
                "labels": labels,
            },
            "spec": at(template, &["spec"]),
        });
        there_is_fine(api.create(PVCS, Some(object::namespace(set)), claim))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(replicas: i64, policy: &str) -> Value {
        json!({"metadata": {"name": "s", "namespace": "default"},
            "spec": {"replicas": replicas, "podManagementPolicy": policy, "template": {"spec": {"a": replicas == 99}}}})
    }

    fn made(set: &Value, ordinal: i64, ready: bool) -> Arc<Value> {
        let mut p = pod(set, ordinal);
        if ready {
            p["status"] = json!({"conditions": [{"type": "Ready", "status": "True",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        }
        Arc::new(p)
    }

    fn step(set: &Value, pods: &[Arc<Value>]) -> (Vec<i64>, Vec<i64>) {
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let plan = plan(set, &pods.iter().collect::<Vec<_>>(), now);
        (plan.create, plan.delete)
    }

    #[test]
    fn in_order_one_waits_for_the_one_before() {
        let s = set(3, "OrderedReady");
        assert_eq!(step(&s, &[]), (vec![0], vec![]));
        assert_eq!(step(&s, &[made(&s, 0, false)]), (vec![], vec![]));
        assert_eq!(step(&s, &[made(&s, 0, true)]), (vec![1], vec![]));
        let all: Vec<_> = (0..3).map(|i| made(&s, i, true)).collect();
        assert_eq!(step(&set(1, "OrderedReady"), &all), (vec![], vec![2]));
    }

    #[test]
    fn in_parallel_all_at_once() {
        let s = set(3, "Parallel");
        assert_eq!(step(&s, &[]), (vec![0, 1, 2], vec![]));
        let all: Vec<_> = (0..3).map(|i| made(&s, i, false)).collect();
        assert_eq!(step(&set(1, "Parallel"), &all), (vec![], vec![2, 1]));
    }

    #[test]
    fn an_update_goes_from_the_last_to_the_first() {
        let (old, new) = (set(99, "OrderedReady"), set(3, "OrderedReady"));
        let pods = [
            made(&old, 0, true),
            made(&old, 1, true),
            made(&new, 2, true),
        ];
        assert_eq!(step(&new, &pods), (vec![], vec![1]));
        let mut held = new.clone();
        held["spec"]["updateStrategy"] = json!({"rollingUpdate": {"partition": 2}});
        assert_eq!(step(&held, &pods), (vec![], vec![]));
    }

    #[test]
    fn pods_use_their_own_claims() {
        let mut s = set(1, "Parallel");
        s["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec": {}}]);
        let p = pod(&s, 4);
        assert_eq!(
            p["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"],
            "data-s-4"
        );
        assert_eq!(
            (object::name(&p), object::label(&p, INDEX_LABEL)),
            ("s-4", "4")
        );
    }
}
