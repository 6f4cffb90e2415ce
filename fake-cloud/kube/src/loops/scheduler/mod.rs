//! The scheduler: pods without a node get the best one that will do, or are told why there is none. A model of
//! kube-scheduler's default profile; deterministic (ties go by name).

mod cluster;
mod filter;
mod pod;
mod preemption;
mod queue;
mod score;
mod topology;
mod volumes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use karpenter_runtime::Key;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::cluster::{Cluster, Node};
use self::filter::Refusal;
use self::pod::Pod;
use self::preemption::{Preemption, Victims};
use self::queue::Queue;
use self::topology::PodRules;
use self::volumes::{PodVolumes, Volumes};
use super::events::Events;
use super::feed::{Feed, Mirror, gone_is_fine, parts};
use super::object;
use super::resource::{CSI_NODES, NAMESPACES, NODES, PDBS, PODS, PVCS, PVS, STORAGE_CLASSES};
use super::storage::SELECTED_NODE;
use crate::server::{ApiError, ApiServer, Change, Gr, PatchKind};

/// The name pods call this scheduler by.
pub const NAME: &str = "default-scheduler";
/// Wait after a refused write before the pod is tried again.
const RETRY_SECONDS: u64 = 1;

const WATCHES: [Gr<'static>; 8] = [
    NAMESPACES,
    STORAGE_CLASSES,
    PVS,
    PVCS,
    CSI_NODES,
    PDBS,
    NODES,
    PODS,
];

/// Where a pod goes, or why nowhere.
enum Verdict {
    Node(String, Vec<String>),
    None(String),
    /// Nowhere before these have gone.
    Preempt(Victims, String),
}

/// Decides for one pod. Pure: the cluster is afterwards what it was before. `nominated` are pods for which room is being
/// made on a node; those that are not less important are counted there.
fn decide(
    cluster: &mut Cluster,
    preemption: &Preemption<'_>,
    pod: &Pod,
    nominated: &[Arc<Pod>],
) -> Verdict {
    let total = cluster.nodes().count();
    if total == 0 {
        return Verdict::None("no nodes available to schedule pods".to_owned());
    }
    let volumes = preemption.volumes;
    let demands = match volumes.of(pod) {
        Ok(demands) => demands,
        Err(reason) => {
            return Verdict::None(format!(
                "0/{total} nodes are available: {reason}. preemption: 0/{total} nodes are available: {total} Preemption is not helpful for scheduling."
            ));
        }
    };
    let generation = cluster.generation();
    let counted: Vec<&Arc<Pod>> = nominated
        .iter()
        .filter(|n| n.priority >= pod.priority && n.key != pod.key)
        .filter(|n| cluster.place_of(&n.key).is_none())
        .collect();
    // What relies on a nominated pod being there must do without it, too.
    let mut refusals = if counted.is_empty() {
        BTreeMap::new()
    } else {
        refused(cluster, volumes, pod, &demands)
    };
    for other in &counted {
        cluster.place(Arc::clone(other));
    }
    refusals.extend(refused(cluster, volumes, pod, &demands));
    let feasible: Vec<&Node> = cluster
        .nodes()
        .filter(|n| !refusals.contains_key(&n.name))
        .collect();
    let best = score::best(cluster, pod, &feasible).map(|node| node.name.clone());
    let verdict = match best {
        Some(node) => Verdict::Node(node, demands.waiting),
        None => {
            let refusals: Vec<_> = refusals.into_iter().collect();
            nowhere(cluster, preemption, pod, &demands, &refusals)
        }
    };
    for other in &counted {
        cluster.unplace(&other.key);
    }
    cluster.back_to(generation);
    verdict
}

/// Nodes that a filter refuses, and why.
fn refused(
    cluster: &Cluster,
    volumes: &Volumes,
    pod: &Pod,
    demands: &PodVolumes,
) -> BTreeMap<String, Refusal> {
    let rules = PodRules::new(cluster, pod);
    let check = |node| filter::check(pod, node, cluster, &rules, (volumes, demands));
    cluster
        .nodes()
        .filter_map(|node| Some((node.name.clone(), check(node).err()?)))
        .collect()
}

/// The pod fits nowhere as it is: does it after some have gone?
fn nowhere(
    cluster: &mut Cluster,
    preemption: &Preemption<'_>,
    pod: &Pod,
    demands: &PodVolumes,
    refusals: &[(String, Refusal)],
) -> Verdict {
    let none = |why: &str| Verdict::None(filter::message(refusals, Some(why)));
    if pod.never_preempts {
        return none("not eligible due to preemptionPolicy=Never.");
    }
    // The node that room is being made on, if the pod will fit there then.
    let made = refusals
        .iter()
        .find(|(node, refusal)| *node == pod.nominated && !refusal.unresolvable);
    let leaving = made.is_some_and(|(node, _)| {
        let lesser = cluster.lesser(node, pod.priority);
        lesser.iter().any(|p| p.terminating)
    });
    if leaving {
        return none("not eligible due to a terminating pod on the nominated node.");
    }
    let outcome = preemption.find(cluster, pod, demands, refusals);
    match outcome.best {
        Some(victims) => Verdict::Preempt(victims, filter::message(refusals, None)),
        None => none(&filter::no_preemption(refusals.len(), &outcome.reasons)),
    }
}

struct Scheduler {
    api: ApiServer,
    cluster: Cluster,
    volumes: Volumes,
    queue: Queue,
    events: Events,
    budgets: Mirror,
    /// Pods for which room is being made, each as if it were on its node.
    nominated: BTreeMap<Key, Arc<Pod>>,
    /// Pods whose node is chosen and whose claims are not bound yet.
    awaiting_volumes: BTreeMap<Key, (Arc<Value>, Arc<Pod>)>,
    /// Verdict by shape, good for one state of the cluster.
    verdicts: BTreeMap<u64, (u64, String)>,
    /// Whether a pod was bound since those that look at other pods were woken.
    has_bound: bool,
}

/// Whether other pods have a say in where a pod goes.
fn is_sociable(pod: &Pod) -> bool {
    !(pod.affinity.is_empty() && pod.spread.is_empty())
}

/// Which of the waiting pods a batch of changes may help.
#[derive(Default)]
struct Helped {
    everyone: bool,
    /// A pod was placed or changed labels: only those that look at other pods.
    sociable: bool,
}

impl Scheduler {
    fn observe(&mut self, watch: usize, change: &Change, helped: &mut Helped) {
        let (object, there) = parts(change);
        match WATCHES.get(watch) {
            Some(&PODS) => self.observe_pod(object, there, helped),
            Some(&NODES) => {
                if !there {
                    self.cluster.remove_node(object::name(object));
                    self.release_volumes_of(object::name(object));
                    self.nominated.retain(|_, p| p.node != object::name(object));
                    // Fewer nodes can help a spread.
                    helped.sociable = true;
                } else if self.cluster.set_node(object) {
                    helped.everyone = true;
                }
            }
            Some(&NAMESPACES) => {
                let labels = there.then(|| object::labels(object));
                self.cluster.set_namespace(object::name(object), labels);
            }
            Some(&PVCS) => {
                self.volumes.claims.apply(change);
                helped.everyone = true;
            }
            Some(&CSI_NODES) => {
                self.volumes.csi_nodes.apply(change);
                helped.everyone = true;
            }
            Some(&PDBS) => {
                self.budgets.apply(change);
            }
            Some(&PVS) => {
                self.volumes.volumes.apply(change);
                helped.everyone = true;
            }
            _ => {
                self.volumes.classes.apply(change);
                helped.everyone = true;
            }
        }
    }

    fn observe_pod(&mut self, object: &Arc<Value>, there: bool, helped: &mut Helped) {
        let key = object::key(object);
        let node = object::text(object, &["spec", "nodeName"]);
        let running = there && !object::terminal(object);
        if !running || !node.is_empty() {
            self.nominated.remove(&key);
        }
        if running && !node.is_empty() {
            self.queue.remove(&key);
            self.awaiting_volumes.remove(&key);
            // Our own binding comes back to us here; it changes nothing.
            let known = self.cluster.place_of(&key) == Some(node);
            if !known || self.placed_differs(object) {
                self.cluster.place(Arc::new(Pod::read(object)));
                helped.sociable = true;
            }
            return;
        }
        if running && let Some((held, _)) = self.awaiting_volumes.get_mut(&key) {
            if !object::deleting(object) {
                *held = Arc::clone(object);
                return;
            }
            self.awaiting_volumes.remove(&key);
        }
        if self.cluster.unplace(&key) {
            helped.everyone = true;
        }
        self.awaiting_volumes.remove(&key);
        let scheduler = object::text(object, &["spec", "schedulerName"]);
        let ours = scheduler.is_empty() || scheduler == NAME;
        if running && ours && !object::deleting(object) {
            self.queue.upsert(object);
        } else {
            self.queue.remove(&key);
        }
    }

    /// Whether a placed pod changed in what scheduling looks at: labels, being deleted, or resized requests.
    fn placed_differs(&self, object: &Value) -> bool {
        self.cluster
            .placed(&object::key(object))
            .is_none_or(|known| {
                known.terminating != object::deleting(object)
                    || known.labels != object::labels(object)
                    || known.requests != super::resources::pod_requests(object)
            })
    }

    /// The node that pods with unbound claims were headed for is gone: they look for another.
    fn release_volumes_of(&mut self, node: &str) {
        let lost: Vec<Key> = self
            .awaiting_volumes
            .iter()
            .filter(|(_, (_, pod))| pod.node == node)
            .map(|(k, _)| k.clone())
            .collect();
        for key in lost {
            if let Some((object, _)) = self.awaiting_volumes.remove(&key) {
                self.cluster.unplace(&key);
                self.queue.upsert(&object);
            }
        }
    }

    /// Tries everything that is due.
    fn schedule(&mut self) {
        self.queue.promote(Instant::now());
        while let Some(key) = self.queue.pop() {
            self.try_pod(&key);
        }
        self.bind_those_with_volumes();
        if std::mem::take(&mut self.has_bound) {
            // Those who look at other pods may have been tried before the pod they look for had its place.
            self.queue.wake(Instant::now(), is_sociable);
        }
    }

    fn try_pod(&mut self, key: &Key) {
        let Some(pending) = self.queue.get(key) else {
            return;
        };
        if !object::items(&pending.object, &["spec", "schedulingGates"]).is_empty() {
            let object = Arc::clone(&pending.object);
            let message = "Scheduling is blocked due to non-empty scheduling gates";
            if let Err(error) = self.write_condition(&object, "SchedulingGated", message) {
                tracing::debug!(pod = %key, %error, "condition refused");
                self.try_later(key);
            }
            return;
        }
        let (object, pod, shape) = (
            Arc::clone(&pending.object),
            Arc::clone(&pending.pod),
            pending.shape,
        );
        let generation = self.cluster.generation();
        // A pod just like this one found nothing, and nothing has changed since.
        let known = shape
            .and_then(|s| self.verdicts.get(&s))
            .filter(|(g, _)| *g == generation)
            .map(|(_, message)| message.clone());
        let verdict = match known {
            Some(message) => Verdict::None(message),
            None => self.decide(&pod),
        };
        match verdict {
            Verdict::Node(node, claims) => self.assign(key, &object, &pod, node, &claims),
            Verdict::None(message) => {
                if let Some(shape) = shape {
                    self.verdicts.insert(shape, (generation, message.clone()));
                }
                self.refuse(key, &object, message);
            }
            Verdict::Preempt(victims, message) => {
                self.refuse(key, &object, message);
                if let Err(error) = self.preempt(&object, &pod, &victims) {
                    tracing::debug!(pod = %key, node = victims.node, %error, "preemption refused");
                    self.try_later(key);
                }
            }
        }
    }

    fn decide(&mut self, pod: &Pod) -> Verdict {
        let (api, now) = (&self.api, self.api.clock().wall());
        let started = |key: &Key| {
            let pod = api.get(PODS, key.namespace.as_deref(), &key.name).ok();
            pod.and_then(|p| object::time(&p, &["status", "startTime"]))
                .unwrap_or(now)
        };
        let preemption = Preemption {
            volumes: &self.volumes,
            budgets: &self.budgets,
            started: &started,
        };
        let nominated: Vec<Arc<Pod>> = self.nominated.values().cloned().collect();
        decide(&mut self.cluster, &preemption, pod, &nominated)
    }

    /// Deletes the victims and keeps their place for the pod.
    fn preempt(&mut self, object: &Value, pod: &Pod, victims: &Victims) -> Result<(), ApiError> {
        let now = self.api.clock().wall();
        for victim in &victims.pods {
            let (namespace, name) = (victim.namespace.as_str(), victim.name.as_str());
            let Ok(there) = self.api.get(PODS, Some(namespace), name) else {
                continue;
            };
            let wanted = json!({"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
                "message": format!("{NAME}: preempting to accommodate a higher priority pod")});
            if let Some(list) = object::merge_condition(&there, &wanted, now) {
                let (namespace, kind) = (Some(namespace), PatchKind::Merge);
                let patch = json!({"status": {"conditions": list}});
                gone_is_fine(self.api.patch(PODS, namespace, name, "status", kind, patch))?;
            }
            if !object::deleting(&there) {
                gone_is_fine(self.api.delete(PODS, Some(namespace), name, None))?;
            }
            let uid = object::uid(object);
            let message = format!("Preempted by pod {uid} on node {}", victims.node);
            let said = ("Normal", "Preempted");
            self.events
                .write(&self.api, ("v1", "Pod"), &there, said, &message);
        }
        // Those of lower priority that room was made for on this node look for another.
        let lesser: Vec<Arc<Pod>> = self
            .nominated
            .values()
            .filter(|n| n.node == victims.node && n.priority < pod.priority)
            .cloned()
            .collect();
        for other in lesser {
            self.nominated.remove(&other.key);
            self.nominate(&other, None)?;
        }
        let mut there = Pod::clone(pod);
        there.node.clone_from(&victims.node);
        self.nominated.insert(pod.key.clone(), Arc::new(there));
        self.nominate(pod, Some(&victims.node))
    }

    fn nominate(&self, pod: &Pod, node: Option<&str>) -> Result<(), ApiError> {
        let patch = json!({"status": {"nominatedNodeName": node}});
        let (namespace, kind) = (Some(pod.namespace.as_str()), PatchKind::Merge);
        let patched = self
            .api
            .patch(PODS, namespace, &pod.name, "status", kind, patch);
        gone_is_fine(patched)
    }

    fn assign(
        &mut self,
        key: &Key,
        object: &Arc<Value>,
        pod: &Arc<Pod>,
        node: String,
        claims: &[String],
    ) {
        let mut assumed = Pod::clone(pod);
        assumed.node = node;
        let assumed = Arc::new(assumed);
        if claims.is_empty() {
            self.bind(key, object, &assumed);
            return;
        }
        // The claims' binder or provisioner takes over; the place is held until they are bound.
        for claim in claims {
            let patch = json!({"metadata": {"annotations": {SELECTED_NODE: assumed.node}}});
            let namespace = Some(pod.namespace.as_str());
            if let Err(error) = self
                .api
                .patch(PVCS, namespace, claim, "", PatchKind::Merge, patch)
            {
                tracing::debug!(pod = %key, claim, %error, "claim not annotated");
                self.try_later(key);
                return;
            }
        }
        self.queue.remove(key);
        self.cluster.place(Arc::clone(&assumed));
        self.awaiting_volumes
            .insert(key.clone(), (Arc::clone(object), assumed));
    }

    fn bind(&mut self, key: &Key, object: &Arc<Value>, pod: &Arc<Pod>) {
        match self.api.bind(&pod.namespace, &pod.name, &pod.node) {
            Ok(()) => {
                self.queue.remove(key);
                self.cluster.place(Arc::clone(pod));
                self.has_bound = true;
                let message = format!(
                    "Successfully assigned {}/{} to {}",
                    pod.namespace, pod.name, pod.node
                );
                let said = ("Normal", "Scheduled");
                self.events
                    .write(&self.api, ("v1", "Pod"), object, said, &message);
            }
            Err(error) => {
                tracing::debug!(pod = %key, node = pod.node, %error, "binding refused");
                self.cluster.unplace(key);
                self.try_later(key);
            }
        }
    }

    fn try_later(&mut self, key: &Key) {
        let when = Instant::now() + Duration::from_secs(RETRY_SECONDS);
        self.queue.retry_at(key, when);
    }

    fn bind_those_with_volumes(&mut self) {
        let ready: Vec<Key> = self
            .awaiting_volumes
            .iter()
            .filter(|(_, (_, pod))| self.volumes.of(pod).is_ok_and(|d| d.waiting.is_empty()))
            .map(|(k, _)| k.clone())
            .collect();
        for key in ready {
            if let Some((object, pod)) = self.awaiting_volumes.remove(&key) {
                self.queue.upsert(&object);
                self.bind(&key, &object, &pod);
            }
        }
    }

    fn refuse(&mut self, key: &Key, object: &Arc<Value>, message: String) {
        self.queue.failed(key, Instant::now());
        if self.queue.get_mut(key).is_none_or(|p| p.verdict == message) {
            return;
        }
        if let Err(error) = self.write_condition(object, "Unschedulable", &message) {
            // Whoever waits to hear that the pod fits nowhere would wait for ever.
            tracing::debug!(pod = %key, %error, "condition refused");
            self.try_later(key);
            return;
        }
        if let Some(pending) = self.queue.get_mut(key) {
            pending.verdict.clone_from(&message);
        }
        let said = ("Warning", "FailedScheduling");
        self.events
            .write(&self.api, ("v1", "Pod"), object, said, &message);
    }

    fn write_condition(&self, object: &Value, reason: &str, message: &str) -> Result<(), ApiError> {
        let wanted = json!({"type": "PodScheduled", "status": "False", "reason": reason, "message": message});
        let now = self.api.clock().wall();
        let Some(conditions) = object::merge_condition(object, &wanted, now) else {
            return Ok(());
        };
        let patch = json!({"status": {"conditions": conditions}});
        let (namespace, name) = (Some(object::namespace(object)), object::name(object));
        let kind = PatchKind::Merge;
        gone_is_fine(self.api.patch(PODS, namespace, name, "status", kind, patch))
    }
}

/// Runs the scheduler until `stop`.
pub async fn run(api: ApiServer, stop: CancellationToken) {
    let mut feed = Feed::new(&api, &WATCHES);
    let mut scheduler = Scheduler {
        events: Events::new(NAME),
        cluster: Cluster::default(),
        volumes: Volumes::default(),
        queue: Queue::default(),
        awaiting_volumes: BTreeMap::new(),
        verdicts: BTreeMap::new(),
        has_bound: false,
        budgets: Mirror::default(),
        nominated: BTreeMap::new(),
        api,
    };
    while let Some(changes) = feed.next(scheduler.queue.deadline(), &stop).await {
        let mut helped = Helped::default();
        for (watch, change) in &changes {
            scheduler.observe(*watch, change, &mut helped);
        }
        if helped.everyone {
            scheduler.queue.wake(Instant::now(), |_| true);
        } else if helped.sociable {
            scheduler.queue.wake(Instant::now(), is_sociable);
        }
        scheduler.schedule();
    }
}

#[cfg(test)]
mod judged_tests;
#[cfg(test)]
mod tests;
