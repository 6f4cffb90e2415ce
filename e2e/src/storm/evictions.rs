//! The rule about pods that are made to go: nobody is evicted beyond a PodDisruptionBudget, and the controller deletes a pod
//! without asking budgets only once its node has a deadline that the pod's own grace would outlast. Worked out from pods,
//! budgets and workloads as they are in the API; what budgets say of themselves is not read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use karpenter_api::labels;
use karpenter_fake_kube::deletes::PodDelete;
use karpenter_fake_kube::selectors::LabelSelector;
use karpenter_fake_kube::server::{ApiServer, Change, Subscription, gr};
use serde_json::Value;

use crate::json::{condition, condition_field, name, text};

/// How far back an eviction may have been allowed by what was there then: budgets are worked out by a loop whose writes
/// can fail, too.
const LAG_SECONDS: i64 = 5;
/// By how much the controller's clock may be ahead of what it knows of deadlines.
const SLACK: SignedDuration = SignedDuration::from_secs(2);
/// Grace of a pod that says none.
const DEFAULT_GRACE_SECONDS: i64 = 30;
/// Kinds that pods are owned by, and that say how many there should be.
const SCALED: [&str; 3] = ["replicasets", "deployments", "statefulsets"];

/// What is seen of a budget at a moment.
#[derive(Clone, Copy, Debug)]
struct Sight {
    at: Timestamp,
    healthy: i64,
    desired: i64,
}

/// A budget, and its last seconds.
#[derive(Debug, Default)]
struct Budget {
    object: Arc<Value>,
    sights: VecDeque<Sight>,
    evicted: VecDeque<Timestamp>,
}

/// Which pods a budget is about.
struct Covers<'a> {
    namespace: &'a str,
    selector: LabelSelector,
}

impl<'a> Covers<'a> {
    fn of(budget: &'a Value) -> Option<Self> {
        Some(Self {
            namespace: text(budget, "/metadata/namespace"),
            selector: LabelSelector::from_object(budget.pointer("/spec/selector")?)?,
        })
    }

    fn has(&self, pod: &Value) -> bool {
        text(pod, "/metadata/namespace") == self.namespace && self.selector.matches(pod)
    }
}

/// A workload's size, and who owns it.
#[derive(Clone, Debug)]
struct Scaled {
    replicas: i64,
    owner: Option<String>,
}

/// When a node's time runs out, by the name of the node.
type Deadlines = BTreeMap<String, Option<Timestamp>>;

/// See the module.
pub(super) struct Evictions {
    pods: BTreeMap<String, Arc<Value>>,
    budgets: BTreeMap<String, Budget>,
    /// By UID.
    workloads: BTreeMap<String, Scaled>,
    deadlines: Deadlines,
    pod_changes: Subscription,
    budget_changes: Subscription,
    workload_changes: Vec<Subscription>,
    claim_changes: Subscription,
}

/// What was broken: the rule, and what about.
pub(super) type Breach = (&'static str, String);

impl Evictions {
    /// Watches from now on.
    pub(super) fn new(api: &ApiServer) -> Self {
        let workloads = SCALED.map(|kind| api.subscribe(gr("apps", kind)));
        Self {
            pods: BTreeMap::new(),
            budgets: BTreeMap::new(),
            workloads: BTreeMap::new(),
            deadlines: BTreeMap::new(),
            pod_changes: api.subscribe(gr("", "pods")),
            budget_changes: api.subscribe(gr("policy", "poddisruptionbudgets")),
            workload_changes: workloads.into(),
            claim_changes: api.subscribe(gr("karpenter.sh", "nodeclaims")),
        }
    }

    /// Takes in what has happened since the last look; `deletes` are those that the controller has asked for.
    pub(super) fn look(&mut self, deletes: &[PodDelete], now: Timestamp) -> Vec<Breach> {
        let mut broken = Vec::new();
        self.forget(now);
        self.read_others();
        // Pods are still what they were at the last look, before they were told to go.
        for delete in deletes {
            broken.extend(self.forced(delete, now));
        }
        while let Some(change) = self.pod_changes.try_next() {
            self.pod(&change, now, &mut broken);
        }
        self.remember(now);
        broken
    }

    fn read_others(&mut self) {
        while let Some(change) = self.budget_changes.try_next() {
            match change {
                Change::Added(object) | Change::Modified(object) => {
                    let name = key(&object);
                    self.budgets.entry(name).or_default().object = object;
                }
                Change::Deleted(object) => {
                    self.budgets.remove(&key(&object));
                }
            }
        }
        for changes in &mut self.workload_changes {
            while let Some(change) = changes.try_next() {
                // What is gone is still what its last pods were owned by.
                let (Change::Added(o) | Change::Modified(o) | Change::Deleted(o)) = change;
                let scaled = Scaled {
                    replicas: o
                        .pointer("/spec/replicas")
                        .and_then(Value::as_i64)
                        .unwrap_or(1),
                    owner: controller(&o),
                };
                self.workloads
                    .insert(text(&o, "/metadata/uid").to_owned(), scaled);
            }
        }
        while let Some(change) = self.claim_changes.try_next() {
            let (Change::Added(o) | Change::Modified(o) | Change::Deleted(o)) = change;
            let annotations = o.pointer("/metadata/annotations");
            let deadline = annotations
                .and_then(|a| a.get(labels::TERMINATION_TIMESTAMP)?.as_str()?.parse().ok());
            self.deadlines
                .insert(text(&o, "/status/nodeName").to_owned(), deadline);
        }
    }

    fn pod(&mut self, change: &Change, now: Timestamp, broken: &mut Vec<Breach>) {
        match change {
            Change::Added(pod) | Change::Modified(pod) => {
                let key = key(pod);
                let before = self.pods.get(&key).cloned();
                if let Some(before) = before
                    && is_evicted(pod)
                    && !is_evicted(&before)
                {
                    broken.extend(self.evicted(&before, now));
                }
                self.pods.insert(key, pod.clone());
            }
            Change::Deleted(pod) => {
                self.pods.remove(&key(pod));
            }
        }
    }

    /// A pod has just been evicted that was like this.
    fn evicted(&mut self, pod: &Value, now: Timestamp) -> Vec<Breach> {
        let mut broken = Vec::new();
        let names: Vec<String> = self.budgets.keys().cloned().collect();
        for budget_name in names {
            let Some(sight) = self.sight(&budget_name, pod, now) else {
                continue;
            };
            let Some(budget) = self.budgets.get_mut(&budget_name) else {
                continue;
            };
            let since = |at: Timestamp| {
                let later = budget.evicted.iter().filter(|e| **e > at);
                i64::try_from(later.count()).unwrap_or(i64::MAX)
            };
            let before = budget.sights.iter().map(|s| s.healthy - since(s.at));
            let healthy = before.chain([sight.healthy]).max().unwrap_or_default();
            let asked = budget.sights.iter().map(|s| s.desired);
            let desired = asked.chain([sight.desired]).min().unwrap_or_default();
            let left = healthy - i64::from(is_ready(pod));
            let always = text(&budget.object, "/spec/unhealthyPodEvictionPolicy") == "AlwaysAllow";
            let free = matches!(
                text(pod, "/status/phase"),
                "Pending" | "Succeeded" | "Failed"
            ) || is_leaving(pod)
                || (always && !is_ready(pod));
            if !free {
                budget.evicted.push_back(now);
            }
            if !free && left < desired {
                let what = format!(
                    "{} was evicted: {left} healthy pods are left to PodDisruptionBudget {budget_name}, of {desired}",
                    key(pod)
                );
                broken.push(("PodDisruptionBudgets are kept", what));
            }
        }
        broken
    }

    /// How a budget stands, if it covers that pod and says how many it wants.
    fn sight(&self, budget: &str, pod: &Value, now: Timestamp) -> Option<Sight> {
        let covers = Covers::of(&self.budgets.get(budget)?.object)?;
        if !covers.has(pod) {
            return None;
        }
        self.stands(budget, now)
    }

    fn stands(&self, budget: &str, at: Timestamp) -> Option<Sight> {
        let object = &self.budgets.get(budget)?.object;
        let covers = Covers::of(object)?;
        let all = self.pods.values();
        let covered: Vec<&Arc<Value>> = all.filter(|p| covers.has(p)).collect();
        let healthy = covered
            .iter()
            .filter(|p| is_ready(p) && !is_leaving(p) && !is_evicted(p))
            .count();
        let expected = self.expected(&covered);
        let have = i64::try_from(covered.len()).unwrap_or(i64::MAX);
        let desired = match (
            object
                .pointer("/spec/minAvailable")
                .filter(|v| !v.is_null()),
            object
                .pointer("/spec/maxUnavailable")
                .filter(|v| !v.is_null()),
        ) {
            (_, Some(down)) => (expected? - part(down, expected?)?).max(0),
            (Some(Value::Number(least)), None) => least.as_i64()?,
            (Some(least), None) => part(least, expected?)?,
            (None, None) => have.min(1),
        };
        let healthy = i64::try_from(healthy).unwrap_or(i64::MAX);
        Some(Sight {
            at,
            healthy,
            desired,
        })
    }

    /// How many pods the controllers of these want; none where one of them is not known.
    fn expected(&self, pods: &[&Arc<Value>]) -> Option<i64> {
        let mut wanted: BTreeMap<String, i64> = BTreeMap::new();
        for pod in pods {
            let mut uid = controller(pod)?;
            let mut workload = self.workloads.get(&uid)?;
            while let Some(owner) = &workload.owner
                && let Some(above) = self.workloads.get(owner)
            {
                uid.clone_from(owner);
                workload = above;
            }
            wanted.insert(uid, workload.replicas);
        }
        Some(wanted.values().sum())
    }

    /// What is too long ago excuses nothing any more.
    fn forget(&mut self, now: Timestamp) {
        let old = |at: Timestamp| now.duration_since(at).as_secs() > LAG_SECONDS;
        for budget in self.budgets.values_mut() {
            budget.sights.retain(|s| !old(s.at));
            budget.evicted.retain(|at| !old(*at));
        }
    }

    fn remember(&mut self, now: Timestamp) {
        let names: Vec<String> = self.budgets.keys().cloned().collect();
        for name in names {
            let sight = self.stands(&name, now);
            if let Some(budget) = self.budgets.get_mut(&name) {
                budget.sights.extend(sight);
            }
        }
    }

    /// What is wrong with a deletion by the controller.
    fn forced(&self, delete: &PodDelete, now: Timestamp) -> Option<Breach> {
        if delete.grace_seconds == Some(0) {
            return Some(("a pod is never forced without grace", delete.pod.clone()));
        }
        let mut path = delete.pod.rsplit('/');
        let (pod_name, _, namespace) = (path.next()?, path.next()?, path.next()?);
        let key = format!("{namespace}/{pod_name}");
        let pod = self.pods.get(&key)?;
        // Meant for one that was there before, it is refused.
        if (delete.uid.as_ref()).is_some_and(|uid| uid != text(pod, "/metadata/uid")) {
            return None;
        }
        let node = text(pod, "/spec/nodeName");
        let grace = pod.pointer("/spec/terminationGracePeriodSeconds");
        let grace = grace
            .and_then(Value::as_i64)
            .unwrap_or(DEFAULT_GRACE_SECONDS);
        let deadline = self.deadlines.get(node).copied().flatten();
        let early = deadline.is_none_or(|deadline| {
            let from = deadline - SignedDuration::from_secs(grace) - SLACK;
            now < from && !is_leaving(pod)
        });
        early.then(|| {
            let until = deadline.map_or("none".to_owned(), |d| d.to_string());
            let what =
                format!("{key} on {node}, whose deadline is {until}, with {grace}s of grace");
            ("pods are forced only when their node's time runs out", what)
        })
    }
}

fn key(object: &Value) -> String {
    format!("{}/{}", text(object, "/metadata/namespace"), name(object))
}

/// UID of the controller of an object.
fn controller(object: &Value) -> Option<String> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    let controls = |o: &&Value| o.get("controller").and_then(Value::as_bool) == Some(true);
    Some(text(owners.iter().find(controls)?, "/uid").to_owned())
}

/// A number, or a percentage of `whole`, rounded up.
fn part(value: &Value, whole: i64) -> Option<i64> {
    match value {
        Value::String(share) => {
            let share: i64 = share.strip_suffix('%')?.parse().ok()?;
            Some((whole * share + 99) / 100)
        }
        value => value.as_i64(),
    }
}

fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready") == "True"
}

fn is_leaving(pod: &Value) -> bool {
    !text(pod, "/metadata/deletionTimestamp").is_empty()
}

fn is_evicted(pod: &Value) -> bool {
    condition_field(pod, "DisruptionTarget", "reason") == "EvictionByEvictionAPI"
}

#[cfg(test)]
mod tests {
    use karpenter_fake_kube::server::{PatchKind, ServerOptions};
    use karpenter_runtime::RngTree;
    use serde_json::json;

    use super::*;
    use crate::world::virtual_clock;

    /// Three pods of a ReplicaSet, all ready, of which a budget wants two.
    fn cluster() -> (ApiServer, Evictions) {
        let rng = RngTree::new(1).child("api", "");
        let clock = virtual_clock();
        let api = ApiServer::new(ServerOptions { clock, rng });
        let evictions = Evictions::new(&api);
        let labels = json!({"app": "web"});
        let selector = json!({"matchLabels": labels});
        let containers = json!([{"name": "c", "image": "pause"}]);
        let create = |group: &'static str, resource: &'static str, object: Value| {
            let made = api.create(gr(group, resource), Some("default"), object);
            made.unwrap()
        };
        let set = create(
            "apps",
            "replicasets",
            json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web"}, "spec": {"replicas": 3,
                "selector": selector, "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}}}}),
        );
        let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "controller": true,
            "uid": text(&set, "/metadata/uid")}]);
        for pod in ["a", "b", "c"] {
            create(
                "",
                "pods",
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "labels": labels, "ownerReferences": owner},
                    "spec": {"containers": containers, "nodeName": "n"}}),
            );
            becomes(&api, pod, "Ready", "True", "");
        }
        create(
            "policy",
            "poddisruptionbudgets",
            json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"},
                "spec": {"maxUnavailable": "33%", "selector": selector}}),
        );
        (api, evictions)
    }

    fn becomes(api: &ApiServer, pod: &str, condition: &str, status: &str, reason: &str) {
        let condition = json!({"type": condition, "status": status, "reason": reason});
        let patch = json!({"status": {"phase": "Running", "conditions": [condition]}});
        let pods = gr("", "pods");
        api.patch(
            pods,
            Some("default"),
            pod,
            "status",
            PatchKind::Strategic,
            patch,
        )
        .unwrap();
    }

    fn evict(api: &ApiServer, pod: &str) {
        becomes(
            api,
            pod,
            "DisruptionTarget",
            "True",
            "EvictionByEvictionAPI",
        );
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + second).unwrap()
    }

    fn rules(broken: &[Breach]) -> Vec<&str> {
        broken.iter().map(|(rule, _)| *rule).collect()
    }

    #[test]
    fn who_is_evicted_beyond_a_budget_is_seen() {
        let (api, mut evictions) = cluster();
        assert!(evictions.look(&[], at(0)).is_empty());
        evict(&api, "a");
        assert!(evictions.look(&[], at(1)).is_empty());
        evict(&api, "b");
        let broken = evictions.look(&[], at(2));
        assert_eq!(
            rules(&broken),
            ["PodDisruptionBudgets are kept"],
            "{broken:?}"
        );
        assert!(
            broken[0].1.contains("1 healthy pods are left"),
            "{broken:?}"
        );
    }

    #[test]
    fn what_a_budget_allowed_a_moment_ago_is_no_breach_and_what_it_allowed_long_ago_is() {
        for (later, breaches) in [(3, 0), (LAG_SECONDS + 2, 1)] {
            let (api, mut evictions) = cluster();
            evictions.look(&[], at(0));
            becomes(&api, "c", "Ready", "False", "");
            evictions.look(&[], at(1));
            evict(&api, "a");
            let broken = evictions.look(&[], at(later));
            assert_eq!(broken.len(), breaches, "{later}: {broken:?}");
        }
    }

    #[test]
    fn a_pod_is_forced_only_once_its_grace_outlasts_the_deadline() {
        let (api, mut evictions) = cluster();
        evictions.look(&[], at(0));
        let delete = |grace| PodDelete {
            pod: "/api/v1/namespaces/default/pods/a".to_owned(),
            uid: None,
            grace_seconds: Some(grace),
        };
        let forced = ["pods are forced only when their node's time runs out"];
        assert_eq!(
            rules(&evictions.look(&[delete(5)], at(0))),
            forced,
            "no deadline"
        );
        let mut of_another = delete(5);
        of_another.uid = Some("it was there before".to_owned());
        assert!(evictions.look(&[of_another], at(0)).is_empty());
        evictions.deadlines.insert("n".to_owned(), Some(at(100)));
        assert_eq!(rules(&evictions.look(&[delete(5)], at(60))), forced);
        assert!(evictions.look(&[delete(5)], at(71)).is_empty());
        let broken = evictions.look(&[delete(0)], at(71));
        assert_eq!(rules(&broken), ["a pod is never forced without grace"]);
        // Heard of only after the pod has gone.
        api.delete(gr("", "pods"), Some("default"), "a", Some(0))
            .unwrap();
        assert_eq!(rules(&evictions.look(&[delete(5)], at(60))), forced);
    }
}
