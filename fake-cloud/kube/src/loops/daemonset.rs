//! DaemonSets: one pod on every node that may run it, through a node affinity on the node's name, so that the
//! scheduler places it; rolling updates node by node.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::NodeSelector;
use karpenter_runtime::Key;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::events::Events;
use super::feed::{Controller, Dirty, Mirror, parts};
use super::object::{self, at, int, text};
use super::pods::{self, available, count, earlier, int_or_percent};
use super::replicaset::{mark_owner, write_status};
use super::resource::{DAEMON_SETS, NODES, PODS};
use super::selector::{Taint, Toleration, node_selector_matches, tolerated};
use crate::server::{ApiError, ApiServer, Change, Gr};

const KIND: (&str, &str) = ("apps/v1", "DaemonSet");
const HASH_LABEL: &str = "controller-revision-hash";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// What every daemon pod tolerates: key and effect.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// And on the host's network this one too.
const TOLERATED_ON_HOST_NETWORK: (&str, &str) =
    ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// The template of a DaemonSet's pods with the tolerations that all of them get.
#[must_use]
pub fn template(set: &Value) -> Value {
    let mut template = at(set, &["spec", "template"]).clone();
    let host_network = object::flag(&template, &["spec", "hostNetwork"]);
    let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) else {
        return template;
    };
    let list = spec.entry("tolerations").or_insert_with(|| json!([]));
    if let Some(list) = list.as_array_mut() {
        let more = host_network.then_some(TOLERATED_ON_HOST_NETWORK);
        for (key, effect) in TOLERATED.into_iter().chain(more) {
            let same = |t: &Value| text(t, &["key"]) == key && text(t, &["effect"]) == effect;
            list.retain(|t| !same(t));
            list.push(json!({"key": key, "operator": "Exists", "effect": effect}));
        }
    }
    template
}

/// A daemon pod's affinity for one node, in place of what the template says of nodes.
fn pin(pod: &mut Value, node: &str) {
    let term =
        json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]});
    let mut spec = pod.get_mut("spec").and_then(Value::as_object_mut);
    let affinity = spec
        .as_mut()
        .map(|s| s.entry("affinity").or_insert_with(|| json!({})))
        .and_then(Value::as_object_mut);
    if let Some(affinity) = affinity {
        let of_nodes = affinity.entry("nodeAffinity").or_insert_with(|| json!({}));
        if let Some(of_nodes) = of_nodes.as_object_mut() {
            of_nodes.insert(REQUIRED.to_owned(), json!({"nodeSelectorTerms": [term]}));
        }
    }
}

/// The node that a daemon pod is on or meant for.
fn target(pod: &Value) -> &str {
    let bound = text(pod, &["spec", "nodeName"]);
    if !bound.is_empty() {
        return bound;
    }
    let terms = [
        "spec",
        "affinity",
        "nodeAffinity",
        REQUIRED,
        "nodeSelectorTerms",
    ];
    object::items(pod, &terms)
        .iter()
        .flat_map(|t| object::items(t, &["matchFields"]))
        .filter(|f| text(f, &["key"]) == "metadata.name")
        .find_map(|f| object::items(f, &["values"]).first()?.as_str())
        .unwrap_or_default()
}

/// Which pods a DaemonSet may have where: read once, asked of every node.
struct Eligibility {
    node_name: String,
    node_selector: object::Labels,
    affinity: Option<NodeSelector>,
    tolerations: Vec<Toleration>,
}

impl Eligibility {
    fn new(template: &Value) -> Self {
        let affinity = at(template, &["spec", "affinity", "nodeAffinity", REQUIRED]);
        Self {
            node_name: text(template, &["spec", "nodeName"]).to_owned(),
            node_selector: object::texts(template, &["spec", "nodeSelector"]),
            affinity: NodeSelector::deserialize(affinity).ok(),
            tolerations: Toleration::of_pod(template),
        }
    }

    /// Whether a pod should be made for `node`, and whether one that is there may stay.
    fn of(&self, node: &Value) -> (bool, bool) {
        let labels = object::labels(node);
        let name = object::name(node);
        let admitted = (self.node_name.is_empty() || self.node_name == name)
            && self
                .node_selector
                .iter()
                .all(|(k, v)| labels.get(k) == Some(v))
            && self
                .affinity
                .as_ref()
                .is_none_or(|a| node_selector_matches(a, &labels, name));
        if !admitted {
            return (false, false);
        }
        let taints = Taint::of_node(node);
        let untolerated = |effect: &str| {
            taints
                .iter()
                .any(|t| t.effect == effect && !tolerated(&self.tolerations, t))
        };
        let may_stay = !untolerated("NoExecute");
        (may_stay && !untolerated("NoSchedule"), may_stay)
    }
}

/// What is to be done for a DaemonSet.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Nodes to make a pod for.
    pub(crate) create: Vec<String>,
    /// Names of pods to delete.
    pub(crate) delete: Vec<String>,
    pub(crate) status: Value,
    pub(crate) again: Option<Timestamp>,
}

/// Decides for a DaemonSet whose completed template is `template`.
pub(crate) fn plan<'a>(
    set: &Value,
    template: &Value,
    nodes: impl Iterator<Item = &'a Value>,
    owned: &[&Arc<Value>],
    now: Timestamp,
) -> Plan {
    let hash = object::template_hash(at(set, &["spec", "template"]));
    let min_ready = int(set, &["spec", "minReadySeconds"]).unwrap_or(0);
    let mut by_node: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for pod in owned {
        by_node.entry(target(pod)).or_default().push(pod);
    }
    let eligibility = Eligibility::new(template);
    let mut plan = Plan::default();
    let (
        mut desired,
        mut scheduled,
        mut misplaced,
        mut ready_count,
        mut available_count,
        mut updated,
    ) = (0, 0, 0, 0, 0, 0);
    // Running pods of an old template, those that are not available first.
    let mut outdated: Vec<(bool, &Value)> = Vec::new();
    let mut unavailable = 0;
    for node in nodes {
        let (should, may_stay) = eligibility.of(node);
        let here = by_node.remove(object::name(node)).unwrap_or_default();
        desired += i64::from(should);
        let mut live: Vec<&Value> = Vec::new();
        for pod in here {
            if object::deleting(pod) {
                continue;
            }
            // A finished daemon makes room for a fresh one.
            if !may_stay || object::terminal(pod) {
                plan.delete.push(object::name(pod).to_owned());
            } else {
                live.push(pod);
            }
        }
        if !should && !may_stay {
            continue;
        }
        live.sort_by_key(|p| {
            (
                !object::pod_ready(p),
                object::created(p),
                object::name(p).to_owned(),
            )
        });
        let Some((keep, surplus)) = live.split_first() else {
            if should {
                unavailable += 1;
                let being_replaced = owned
                    .iter()
                    .any(|p| object::deleting(p) && target(p) == object::name(node));
                if !being_replaced {
                    plan.create.push(object::name(node).to_owned());
                }
            }
            continue;
        };
        plan.delete
            .extend(surplus.iter().map(|p| object::name(p).to_owned()));
        if !should {
            misplaced += 1;
            continue;
        }
        scheduled += 1;
        let (is_available, when) = available(keep, min_ready, now);
        plan.again = earlier(plan.again, when);
        ready_count += i64::from(object::pod_ready(keep));
        available_count += i64::from(is_available);
        unavailable += i64::from(!is_available);
        if object::label(keep, HASH_LABEL) == hash {
            updated += 1;
        } else {
            outdated.push((is_available, keep));
        }
    }
    // Pods of nodes that are gone are the pod collector's, but what was never bound is ours.
    for pod in by_node.into_values().flatten() {
        if text(pod, &["spec", "nodeName"]).is_empty() && !object::deleting(pod) {
            plan.delete.push(object::name(pod).to_owned());
        }
    }
    if text(set, &["spec", "updateStrategy", "type"]) != "OnDelete" {
        let limit = at(
            set,
            &["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"],
        );
        let limit = int_or_percent(limit, desired, true).unwrap_or(1).max(1);
        outdated.sort_by_key(|(is_available, p)| (*is_available, object::name(p).to_owned()));
        let mut room = limit - unavailable;
        for (is_available, pod) in outdated {
            if is_available {
                if room <= 0 {
                    break;
                }
                room -= 1;
            }
            plan.delete.push(object::name(pod).to_owned());
        }
    }
    if object::deleting(set) {
        plan.create.clear();
        plan.delete.clear();
    }
    plan.status = json!({
        "currentNumberScheduled": scheduled,
        "desiredNumberScheduled": desired,
        "numberMisscheduled": misplaced,
        "numberReady": ready_count,
        "numberAvailable": available_count,
        "numberUnavailable": desired - available_count,
        "updatedNumberScheduled": updated,
        "observedGeneration": at(set, &["metadata", "generation"]),
    });
    plan
}

/// The loop.
pub struct DaemonSets {
    sets: Mirror,
    pods: Mirror,
    nodes: Mirror,
    events: Events,
}

impl Default for DaemonSets {
    fn default() -> Self {
        Self {
            sets: Mirror::default(),
            pods: Mirror::default(),
            nodes: Mirror::default(),
            events: Events::new("daemonset-controller"),
        }
    }
}

impl Controller for DaemonSets {
    const NAME: &'static str = "daemonset";
    const WATCHES: &'static [Gr<'static>] = &[DAEMON_SETS, NODES, PODS];

    fn observe(&mut self, watch: usize, change: &Change, dirty: &mut Dirty) {
        let (object, there) = parts(change);
        match watch {
            0 => {
                self.sets.apply(change);
                dirty.add(object::key(object));
            }
            1 => {
                let before = self.nodes.apply(change);
                // Heartbeats and statuses are nothing to a daemon.
                let same = there
                    && before.is_some_and(|b| {
                        let equal = |path: &[&str]| at(&b, path) == at(object, path);
                        equal(&["metadata", "labels"]) && equal(&["spec"])
                    });
                if !same {
                    for (key, _) in self.sets.iter() {
                        dirty.add(key.clone());
                    }
                }
            }
            _ => {
                self.pods.apply(change);
                mark_owner(object, "DaemonSet", dirty);
            }
        }
    }

    fn reconcile(&mut self, api: &ApiServer, key: &Key) -> Result<Option<Instant>, ApiError> {
        let Some(set) = self.sets.get(key) else {
            return Ok(None);
        };
        let owned = self.pods.controlled_by(object::uid(set));
        let template = template(set);
        let nodes = self.nodes.iter().map(|(_, n)| n.as_ref());
        let plan = plan(set, &template, nodes, &owned, api.clock().wall());
        let by_name = |name: &String| owned.iter().find(|p| object::name(p) == name);
        for pod in plan.delete.iter().filter_map(by_name) {
            pods::delete(api, &mut self.events, KIND, set, pod)?;
        }
        let hash = object::template_hash(at(set, &["spec", "template"]));
        let mut result = Ok(());
        for node in &plan.create {
            let reference = object::owner_reference(KIND.0, KIND.1, set);
            let mut pod = pods::from_template(&template, set, reference, None);
            pods::set_label(&mut pod, HASH_LABEL, &hash);
            pin(&mut pod, node);
            result = pods::create(api, &mut self.events, KIND, set, pod);
            if result.is_err() {
                break;
            }
        }
        write_status(api, DAEMON_SETS, set, plan.status)?;
        result.map(|()| pods::look_at(api, plan.again))
    }
}

/// How many pods a DaemonSet of this template would have on the given nodes.
#[must_use]
pub fn eligible_nodes<'a>(set: &Value, nodes: impl Iterator<Item = &'a Value>) -> i64 {
    let eligibility = Eligibility::new(&template(set));
    count(nodes.filter(|n| eligibility.of(n).0))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn set(spec: Value) -> Value {
        json!({"metadata": {"name": "d", "namespace": "default", "uid": "u"}, "spec": {"template": {"spec": spec}}})
    }

    fn node(name: &str, taints: Value) -> Value {
        json!({"metadata": {"name": name, "labels": {"gpu": name}}, "spec": {"taints": taints}})
    }

    fn pod_on(set: &Value, node: &str, ready: bool) -> Arc<Value> {
        let hash = object::template_hash(at(set, &["spec", "template"]));
        let mut pod = json!({"metadata": {"name": format!("d-{node}"), "labels": {HASH_LABEL: hash}}, "spec": {}});
        pin(&mut pod, node);
        if ready {
            pod["status"] = json!({"conditions": [{"type": "Ready", "status": "True",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        }
        Arc::new(pod)
    }

    fn now() -> Timestamp {
        "2026-01-01T00:01:00Z".parse().unwrap()
    }

    #[rstest]
    #[case::plain(json!({}), json!([]), true)]
    #[case::selector(json!({"nodeSelector": {"gpu": "n"}}), json!([]), true)]
    #[case::other_selector(json!({"nodeSelector": {"gpu": "m"}}), json!([]), false)]
    #[case::taint(json!({}), json!([{"key": "a", "effect": "NoSchedule"}]), false)]
    #[case::soft_taint(json!({}), json!([{"key": "a", "effect": "PreferNoSchedule"}]), true)]
    #[case::tolerated(json!({"tolerations": [{"operator": "Exists"}]}), json!([{"key": "a", "effect": "NoSchedule"}]), true)]
    #[case::cordoned(json!({}), json!([{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]), true)]
    #[case::not_ready(json!({}), json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]), true)]
    #[case::unregistered(json!({}), json!([{"key": "karpenter.sh/unregistered", "effect": "NoExecute"}]), false)]
    fn one_pod_where_it_may_run(#[case] spec: Value, #[case] taints: Value, #[case] want: bool) {
        let (set, node) = (set(spec), node("n", taints));
        let plan = plan(&set, &template(&set), [&node].into_iter(), &[], now());
        assert_eq!(plan.create, if want { vec!["n"] } else { vec![] });
        assert_eq!(plan.status["desiredNumberScheduled"], i64::from(want));
    }

    #[test]
    fn a_no_execute_taint_ends_what_runs_and_a_no_schedule_taint_does_not() {
        let set = set(json!({}));
        let nodes = [
            node("hard", json!([{"key": "a", "effect": "NoExecute"}])),
            node("mild", json!([{"key": "a", "effect": "NoSchedule"}])),
        ];
        let (hard, mild) = (pod_on(&set, "hard", true), pod_on(&set, "mild", true));
        let plan = plan(&set, &template(&set), nodes.iter(), &[&hard, &mild], now());
        assert_eq!(
            (plan.delete, plan.create),
            (vec!["d-hard".to_owned()], vec![])
        );
        assert_eq!(plan.status["numberMisscheduled"], 1);
    }

    #[test]
    fn an_update_goes_one_available_pod_at_a_time() {
        let (old, new) = (set(json!({"hostNetwork": true})), set(json!({})));
        let nodes = ["a", "b", "c"].map(|n| node(n, json!([])));
        let pods = [
            pod_on(&old, "a", true),
            pod_on(&old, "b", true),
            pod_on(&new, "c", true),
        ];
        let step = |pods: &[Arc<Value>]| {
            plan(
                &new,
                &template(&new),
                nodes.iter(),
                &pods.iter().collect::<Vec<_>>(),
                now(),
            )
        };
        assert_eq!(step(&pods).delete, ["d-a"]);
        let waiting = [
            pod_on(&new, "a", false),
            Arc::clone(&pods[1]),
            Arc::clone(&pods[2]),
        ];
        assert_eq!(step(&waiting).delete, Vec::<String>::new());
        let broken = [
            pod_on(&old, "a", false),
            Arc::clone(&pods[1]),
            Arc::clone(&pods[2]),
        ];
        assert_eq!(
            step(&broken).delete,
            ["d-a"],
            "what is down anyway does not cost anything"
        );
    }
}
