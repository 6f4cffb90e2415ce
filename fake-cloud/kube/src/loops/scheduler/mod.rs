//! The scheduler: pods without a node get the best one that will do, or are told why there is none. A model of
//! kube-scheduler's default profile without preemption; deterministic (ties go by name).

mod cluster;
mod filter;
mod pod;
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
use self::pod::Pod;
use self::queue::Queue;
use self::topology::PodRules;
use self::volumes::Volumes;
use super::events::Events;
use super::feed::{Feed, parts};
use super::object;
use super::resource::{NAMESPACES, NODES, PODS, PVCS, PVS, STORAGE_CLASSES};
use super::storage::SELECTED_NODE;
use crate::server::{ApiServer, Change, Gr, PatchKind};

/// The name pods call this scheduler by.
pub const NAME: &str = "default-scheduler";
/// Wait after a refused write before the pod is tried again.
const RETRY_SECONDS: u64 = 1;

const WATCHES: [Gr<'static>; 6] = [NAMESPACES, STORAGE_CLASSES, PVS, PVCS, NODES, PODS];

/// Where a pod goes, or why nowhere.
enum Verdict {
    Node(String, Vec<String>),
    None(String),
}

/// Decides for one pod. Pure.
fn decide(cluster: &Cluster, volumes: &Volumes, pod: &Pod) -> Verdict {
    let total = cluster.nodes().count();
    if total == 0 {
        return Verdict::None("no nodes available to schedule pods".to_owned());
    }
    let demands = match volumes.of(pod) {
        Ok(demands) => demands,
        Err(reason) => {
            return Verdict::None(format!(
                "0/{total} nodes are available: {reason}. preemption: 0/{total} nodes are available: {total} Preemption is not helpful for scheduling."
            ));
        }
    };
    let rules = PodRules::new(cluster, pod);
    let mut feasible: Vec<&Node> = Vec::new();
    let mut refusals = Vec::new();
    for node in cluster.nodes() {
        match filter::check(pod, node, &rules, &demands) {
            Ok(()) => feasible.push(node),
            Err(refusal) => refusals.push(refusal),
        }
    }
    match score::best(cluster, pod, &feasible) {
        Some(node) => Verdict::Node(node.name.clone(), demands.waiting),
        None => Verdict::None(filter::message(cluster, pod, &refusals)),
    }
}

struct Scheduler {
    api: ApiServer,
    cluster: Cluster,
    volumes: Volumes,
    queue: Queue,
    events: Events,
    /// Pods whose node is chosen and whose claims are not bound yet.
    awaiting_volumes: BTreeMap<Key, (Arc<Value>, Arc<Pod>)>,
    /// Verdict by shape, good for one state of the cluster.
    verdicts: BTreeMap<u64, (u64, String)>,
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
    }

    fn try_pod(&mut self, key: &Key) {
        let Some(pending) = self.queue.get(key) else {
            return;
        };
        if !object::items(&pending.object, &["spec", "schedulingGates"]).is_empty() {
            let object = Arc::clone(&pending.object);
            let message = "Scheduling is blocked due to non-empty scheduling gates";
            self.write_condition(&object, "SchedulingGated", message);
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
            None => decide(&self.cluster, &self.volumes, &pod),
        };
        match verdict {
            Verdict::Node(node, claims) => self.assign(key, &object, &pod, node, &claims),
            Verdict::None(message) => {
                if let Some(shape) = shape {
                    self.verdicts.insert(shape, (generation, message.clone()));
                }
                self.refuse(key, &object, message);
            }
        }
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
        let Some(pending) = self.queue.get_mut(key) else {
            return;
        };
        if pending.verdict == message {
            return;
        }
        pending.verdict.clone_from(&message);
        self.write_condition(object, "Unschedulable", &message);
        let said = ("Warning", "FailedScheduling");
        self.events
            .write(&self.api, ("v1", "Pod"), object, said, &message);
    }

    fn write_condition(&self, object: &Value, reason: &str, message: &str) {
        let wanted = json!({"type": "PodScheduled", "status": "False", "reason": reason, "message": message});
        let now = self.api.clock().wall();
        let Some(conditions) = object::merge_condition(object, &wanted, now) else {
            return;
        };
        let patch = json!({"status": {"conditions": conditions}});
        let (namespace, name) = (object::namespace(object), object::name(object));
        let result = self.api.patch(
            PODS,
            Some(namespace),
            name,
            "status",
            PatchKind::Merge,
            patch,
        );
        if let Err(error) = result {
            tracing::debug!(namespace, name, %error, "condition refused");
        }
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
            scheduler.queue.wake(Instant::now(), |pod| {
                !(pod.affinity.is_empty() && pod.spread.is_empty())
            });
        }
        scheduler.schedule();
    }
}

#[cfg(test)]
mod judged_tests;
#[cfg(test)]
mod tests;
