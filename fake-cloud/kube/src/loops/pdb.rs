//! PodDisruptionBudgets' status: how many pods a budget covers, how many of them are healthy, and how many may be
//! disrupted. The eviction subresource decides by what is written here.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use karpenter_runtime::Key;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::feed::{Controller, Dirty, Mirror, gone_is_fine, parts};
use super::object::{self, at, int, text};
use super::pods::{self, count, earlier, int_or_percent};
use super::resource::{
    DEPLOYMENTS, PDBS, PODS, REPLICA_SETS, REPLICATION_CONTROLLERS, STATEFUL_SETS,
};
use super::selector;
use crate::server::{ApiError, ApiServer, Change, Gr, PatchKind};

/// How long an eviction may take to become a deletion before the budget stops counting on it.
const DELETION_TIMEOUT_SECONDS: i64 = 120;

/// Status of a budget, and when an eviction that it counts on runs out.
/// `expected_scale` is the number of pods that the covered pods' controllers want, or why it cannot be told.
pub(crate) fn status(
    budget: &Value,
    covered: &[&Arc<Value>],
    expected_scale: Result<i64, String>,
    now: Timestamp,
) -> (Value, Option<Timestamp>) {
    let max_unavailable = at(budget, &["spec", "maxUnavailable"]);
    let min_available = at(budget, &["spec", "minAvailable"]);
    let is_percent = |v: &Value| v.is_string();
    let have = count(covered);
    let wanted = if !max_unavailable.is_null() {
        expected_scale.map(|expected| {
            let down = int_or_percent(max_unavailable, expected, true).unwrap_or(0);
            (expected, (expected - down).max(0))
        })
    } else if is_percent(min_available) {
        expected_scale.map(|expected| {
            (
                expected,
                int_or_percent(min_available, expected, true).unwrap_or(expected),
            )
        })
    } else if min_available.is_null() {
        Ok((have, 1))
    } else {
        Ok((have, int(budget, &["spec", "minAvailable"]).unwrap_or(0)))
    };

    let mut disrupted: BTreeMap<String, Value> = BTreeMap::new();
    let mut again: Option<Timestamp> = None;
    let recorded = at(budget, &["status", "disruptedPods"]);
    let mut healthy = 0;
    for pod in covered {
        if object::deleting(pod) {
            continue;
        }
        let since = recorded.get(object::name(pod)).filter(|v| !v.is_null());
        let expires = since
            .and_then(|v| v.as_str()?.parse::<Timestamp>().ok())
            .and_then(|t| {
                t.checked_add(SignedDuration::from_secs(DELETION_TIMEOUT_SECONDS))
                    .ok()
            });
        if let (Some(since), Some(expires)) = (since, expires)
            && expires > now
        {
            disrupted.insert(object::name(pod).to_owned(), since.clone());
            again = earlier(again, Some(expires));
            continue;
        }
        healthy += i64::from(object::pod_ready(pod));
    }
    let (expected, desired, failure) = match wanted {
        Ok((expected, desired)) => (expected, desired, None),
        Err(why) => (0, 0, Some(why)),
    };
    let allowed = if failure.is_some() || expected <= 0 {
        0
    } else {
        (healthy - desired).max(0)
    };
    let condition = match &failure {
        Some(why) => {
            json!({"type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed", "message": why})
        }
        None if allowed > 0 => {
            json!({"type": "DisruptionAllowed", "status": "True", "reason": "SufficientPods", "message": ""})
        }
        None => {
            json!({"type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": ""})
        }
    };
    let generation = at(budget, &["metadata", "generation"]);
    let conditions = object::merge_condition(budget, &condition, now).map_or_else(
        || object::items(budget, &["status", "conditions"]).to_vec(),
        |mut list| {
            for c in list.iter_mut().filter_map(Value::as_object_mut) {
                c.insert("observedGeneration".to_owned(), generation.clone());
            }
            list
        },
    );
    let status = json!({
        "observedGeneration": generation,
        "expectedPods": expected,
        "desiredHealthy": desired,
        "currentHealthy": healthy,
        "disruptionsAllowed": allowed,
        "disruptedPods": disrupted,
        "conditions": conditions,
    });
    (status, again)
}

/// Owners with a scale, by kind: watch index in [`Pdbs`].
const SCALED: [(&str, Gr<'static>); 4] = [
    ("ReplicaSet", REPLICA_SETS),
    ("ReplicationController", REPLICATION_CONTROLLERS),
    ("StatefulSet", STATEFUL_SETS),
    ("Deployment", DEPLOYMENTS),
];

/// The loop.
#[derive(Default)]
pub struct Pdbs {
    budgets: Mirror,
    pods: Mirror,
    owners: [Mirror; SCALED.len()],
}

impl Pdbs {
    fn owner(&self, namespace: &str, reference: &Value) -> Option<&Arc<Value>> {
        let kind = text(reference, &["kind"]);
        let index = SCALED.iter().position(|(k, _)| *k == kind)?;
        let owner = self
            .owners
            .get(index)?
            .get(&Key::namespaced(namespace, text(reference, &["name"])))?;
        (object::uid(owner) == text(reference, &["uid"])).then_some(owner)
    }

    /// What the controllers of `covered` want in all: the top of each chain of owners counts once.
    fn expected_scale(&self, covered: &[&Arc<Value>]) -> Result<i64, String> {
        let mut wanted: BTreeMap<String, i64> = BTreeMap::new();
        for pod in covered {
            let name = object::name(pod);
            let Some(reference) = object::controller(pod) else {
                return Err(format!("found no controller ref for pod {name:?}"));
            };
            let namespace = object::namespace(pod);
            let Some(owner) = self.owner(namespace, reference) else {
                return Err(format!("found no controllers for pod {name:?}"));
            };
            let top = object::controller(owner)
                .and_then(|r| self.owner(namespace, r))
                .unwrap_or(owner);
            let replicas = int(top, &["spec", "replicas"]).unwrap_or(1);
            wanted.insert(object::uid(top).to_owned(), replicas);
        }
        Ok(wanted.values().sum())
    }

    fn mark_namespace(&self, namespace: &str, dirty: &mut Dirty) {
        for budget in self.budgets.in_namespace(namespace) {
            dirty.add(object::key(budget));
        }
    }
}

impl Controller for Pdbs {
    const NAME: &'static str = "disruption";
    const WATCHES: &'static [Gr<'static>] = &[
        PDBS,
        PODS,
        REPLICA_SETS,
        REPLICATION_CONTROLLERS,
        STATEFUL_SETS,
        DEPLOYMENTS,
    ];

    fn observe(&mut self, watch: usize, change: &Change, dirty: &mut Dirty) {
        let (object, there) = parts(change);
        match watch {
            0 => {
                self.budgets.apply(change);
                dirty.add(object::key(object));
            }
            1 => {
                let before = self.pods.apply(change);
                let labels = object::labels(object);
                let before = before.as_deref();
                for budget in self.budgets.in_namespace(object::namespace(object)) {
                    let Some(selector) =
                        selector::label_selector(at(budget, &["spec", "selector"]))
                    else {
                        continue;
                    };
                    let was =
                        before.is_some_and(|b| selector::selects(&selector, &object::labels(b)));
                    let is = there && selector::selects(&selector, &labels);
                    if was || is {
                        dirty.add(object::key(budget));
                    }
                }
            }
            owner => {
                let Some(mirror) = self.owners.get_mut(owner - 2) else {
                    return;
                };
                let before = mirror.apply(change);
                let replicas = |o: &Value| int(o, &["spec", "replicas"]);
                if !there || before.as_deref().and_then(replicas) != replicas(object) {
                    self.mark_namespace(object::namespace(object), dirty);
                }
            }
        }
    }

    fn reconcile(&mut self, api: &ApiServer, key: &Key) -> Result<Option<Instant>, ApiError> {
        let Some(budget) = self.budgets.get(key) else {
            return Ok(None);
        };
        let namespace = object::namespace(budget);
        let selector = selector::label_selector(at(budget, &["spec", "selector"]));
        let covered: Vec<&Arc<Value>> = self
            .pods
            .in_namespace(namespace)
            .filter(|p| {
                selector
                    .as_ref()
                    .is_some_and(|s| selector::selects(s, &object::labels(p)))
            })
            .collect();
        let expected = self.expected_scale(&covered);
        let (status, again) = status(budget, &covered, expected, api.clock().wall());
        let differs = status
            .as_object()
            .is_some_and(|m| m.iter().any(|(k, v)| !same(at(budget, &["status", k]), v)));
        if differs {
            // A merge patch would keep pods that left the map: they are nulled.
            let mut patch = json!({"status": status});
            let gone = at(budget, &["status", "disruptedPods"]).as_object();
            for name in gone.into_iter().flat_map(|m| m.keys()) {
                let map = patch
                    .pointer_mut("/status/disruptedPods")
                    .and_then(Value::as_object_mut);
                if let Some(map) = map {
                    map.entry(name.clone()).or_insert(Value::Null);
                }
            }
            let (ns, name) = (Some(namespace), object::name(budget));
            gone_is_fine(api.patch(PDBS, ns, name, "status", PatchKind::Merge, patch))?;
        }
        Ok(pods::look_at(api, again))
    }
}

/// Equal, where an empty map and a missing one are the same.
fn same(a: &Value, b: &Value) -> bool {
    let empty = |v: &Value| v.is_null() || v.as_object().is_some_and(serde_json::Map::is_empty);
    a == b || (empty(a) && empty(b))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn pod(name: &str, ready: bool) -> Arc<Value> {
        let status = if ready { "True" } else { "False" };
        Arc::new(
            json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": status}]}}),
        )
    }

    fn now() -> Timestamp {
        "2026-01-01T00:10:00Z".parse().unwrap()
    }

    #[rstest]
    // spec | ready of 4, scale | expected, desired, allowed
    #[case(json!({"minAvailable": 3}), 4, 4, (4, 3, 1))]
    #[case(json!({"minAvailable": 3}), 2, 4, (4, 3, 0))]
    #[case(json!({"minAvailable": "50%"}), 4, 5, (5, 3, 1))]
    #[case(json!({"maxUnavailable": 1}), 4, 5, (5, 4, 0))]
    #[case(json!({"maxUnavailable": "30%"}), 4, 4, (4, 2, 2))]
    #[case(json!({"maxUnavailable": 0}), 4, 4, (4, 4, 0))]
    fn arithmetic(
        #[case] spec: Value,
        #[case] ready: usize,
        #[case] scale: i64,
        #[case] want: (i64, i64, i64),
    ) {
        let pods: Vec<_> = (0..4).map(|i| pod(&format!("p{i}"), i < ready)).collect();
        let budget = json!({"spec": spec, "metadata": {"generation": 7}});
        let (s, _) = status(&budget, &pods.iter().collect::<Vec<_>>(), Ok(scale), now());
        let got = ["expectedPods", "desiredHealthy", "disruptionsAllowed"]
            .map(|f| s[f].as_i64().unwrap());
        assert_eq!(got, [want.0, want.1, want.2]);
        assert_eq!(s["observedGeneration"], 7);
    }

    #[test]
    fn evicted_pods_do_not_count_until_they_prove_to_stay() {
        let pods = [pod("a", true), pod("b", true), pod("c", true)];
        let budget = json!({"spec": {"minAvailable": 1}, "status": {"disruptedPods": {
            "a": "2026-01-01T00:09:00Z", "b": "2026-01-01T00:07:00Z", "gone": "2026-01-01T00:09:59Z"}}});
        let (s, again) = status(&budget, &pods.iter().collect::<Vec<_>>(), Ok(3), now());
        assert_eq!(s["currentHealthy"], 2);
        assert_eq!(s["disruptedPods"], json!({"a": "2026-01-01T00:09:00Z"}));
        assert_eq!(again, Some("2026-01-01T00:11:00Z".parse().unwrap()));
    }

    #[test]
    fn pods_without_a_controller_block_a_budget_by_share() {
        let pods = [pod("a", true)];
        let budget = json!({"spec": {"maxUnavailable": 1}});
        let (s, _) = status(&budget, &[&pods[0]], Err("why".into()), now());
        assert_eq!(
            (&s["disruptionsAllowed"], &s["conditions"][0]["reason"]),
            (&json!(0), &json!("SyncFailed"))
        );
    }
}
