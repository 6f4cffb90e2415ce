//! The pod collector: pods whose node is gone, pods that were given up before they had a node, pods on nodes that are
//! declared out of service, and finished pods beyond a limit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use karpenter_runtime::Key;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::feed::{Controller, Dirty, Mirror, gone_is_fine, parts};
use super::index::Index;
use super::object::{self, text};
use super::resource::{NODES, PODS};
use super::selector::Taint;
use crate::server::{ApiError, ApiServer, Change, Gr, PatchKind};

/// How long a node must have been missing before its pods are given up. The real collector looks every 20 s and
/// waits 40 s from the first look.
const QUARANTINE_SECONDS: u64 = 40;
/// Finished pods that are kept, as `--terminated-pod-gc-threshold` has it.
const TERMINATED_PODS_MAX: usize = 12_500;
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// The loop.
#[derive(Default)]
pub struct PodGc {
    pods: Mirror,
    nodes: Mirror,
    /// Pods by the node that they are bound to.
    by_node: Index<String>,
    /// Since when nodes that pods are bound to are missing.
    missing: BTreeMap<String, Instant>,
    /// Finished pods, oldest first.
    finished: BTreeSet<(Timestamp, Key)>,
}

impl PodGc {
    fn observe_pod(&mut self, change: &Change, dirty: &mut Dirty) {
        let before = self.pods.apply(change);
        let (pod, there) = parts(change);
        let key = object::key(pod);
        let node_of = |p: &Value| text(p, &["spec", "nodeName"]).to_owned();
        if let Some(before) = before {
            self.finished
                .remove(&(object::created(&before), key.clone()));
            let node = node_of(&before);
            self.by_node.remove(&node, &key);
            if !self.by_node.has(&node) {
                self.missing.remove(&node);
            }
        }
        if !there {
            return;
        }
        let node = node_of(pod);
        if !node.is_empty() {
            if !self.nodes_has(&node) {
                self.missing
                    .entry(node.clone())
                    .or_insert_with(Instant::now);
            }
            self.by_node.add(node, key.clone());
        }
        if object::terminal(pod) {
            self.finished.insert((object::created(pod), key.clone()));
            if self.finished.len() > TERMINATED_PODS_MAX
                && let Some((_, oldest)) = self.finished.first()
            {
                dirty.add(oldest.clone());
            }
        }
        dirty.add(key);
    }

    fn nodes_has(&self, name: &str) -> bool {
        self.nodes.get(&Key::cluster(name)).is_some()
    }

    fn observe_node(&mut self, change: &Change, dirty: &mut Dirty) {
        self.nodes.apply(change);
        let (node, there) = parts(change);
        let name = object::name(node);
        if !self.by_node.has(name) {
            return;
        }
        if there {
            self.missing.remove(name);
        } else {
            self.missing
                .entry(name.to_owned())
                .or_insert_with(Instant::now);
        }
        if !there || out_of_service(node) {
            self.by_node.of(name).for_each(|k| dirty.add(k.clone()));
        }
    }

    fn fate(&self, key: &Key, pod: &Value) -> Fate {
        let node = text(pod, &["spec", "nodeName"]);
        if node.is_empty() {
            return if object::deleting(pod) {
                Fate::Delete
            } else {
                Fate::Stay
            };
        }
        if let Some(since) = self.missing.get(node) {
            return Fate::LostAt(*since + Duration::from_secs(QUARANTINE_SECONDS));
        }
        let node = self.nodes.get(&Key::cluster(node));
        let out = node
            .is_some_and(|n| out_of_service(n) && object::condition_status(n, "Ready") != "True");
        if out && object::deleting(pod) {
            return Fate::Delete;
        }
        let surplus = self.finished.len().saturating_sub(TERMINATED_PODS_MAX);
        let too_old = self.finished.iter().take(surplus).any(|(_, k)| k == key);
        if too_old { Fate::Delete } else { Fate::Stay }
    }
}

enum Fate {
    Stay,
    Delete,
    /// Its node is gone: it is lost at that moment unless the node comes back.
    LostAt(Instant),
}

/// Whether somebody vouches that a node is off: nothing there runs or writes to a volume any more.
pub(super) fn out_of_service(node: &Value) -> bool {
    Taint::of_node(node).iter().any(|t| t.key == OUT_OF_SERVICE)
}

impl Controller for PodGc {
    const NAME: &'static str = "pod-garbage-collector";
    const WATCHES: &'static [Gr<'static>] = &[NODES, PODS];

    fn observe(&mut self, watch: usize, change: &Change, dirty: &mut Dirty) {
        if watch == 0 {
            self.observe_node(change, dirty);
        } else {
            self.observe_pod(change, dirty);
        }
    }

    fn reconcile(&mut self, api: &ApiServer, key: &Key) -> Result<Option<Instant>, ApiError> {
        let Some(pod) = self.pods.get(key).map(Arc::clone) else {
            return Ok(None);
        };
        match self.fate(key, &pod) {
            Fate::Stay => return Ok(None),
            Fate::LostAt(when) if when > Instant::now() => return Ok(Some(when)),
            Fate::LostAt(_) => mark_lost(api, &pod)?,
            Fate::Delete => {}
        }
        let (ns, name) = (object::namespace(&pod), object::name(&pod));
        gone_is_fine(api.delete(PODS, Some(ns), name, Some(0))).map(|()| None)
    }
}

/// Says on a pod that it was lost with its node, unless it had ended by itself.
fn mark_lost(api: &ApiServer, pod: &Value) -> Result<(), ApiError> {
    if object::terminal(pod) {
        return Ok(());
    }
    let wanted = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
        "message": "PodGC: node no longer exists"});
    let mut status = json!({"phase": "Failed"});
    if let (Some(list), Some(map)) = (
        object::merge_condition(pod, &wanted, api.clock().wall()),
        status.as_object_mut(),
    ) {
        map.insert("conditions".to_owned(), Value::Array(list));
    }
    let (ns, name) = (object::namespace(pod), object::name(pod));
    let patch = json!({"status": status});
    gone_is_fine(api.patch(PODS, Some(ns), name, "status", PatchKind::Merge, patch))
}
