//! The kubelet model: runs the pods bound to its hosts, in no more writes than a quiet kubelet needs: one when a pod
//! runs, one when it ends, one when it is gone. A host that is down does nothing; its pods stay as they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_fake_kube::ApiServer;
use karpenter_fake_kube::loops::attach;
use karpenter_fake_kube::loops::feed::{
    Dirty, Feed, Mirror, at as wait_until, gone_is_fine, parts,
};
use karpenter_fake_kube::loops::index::Index;
use karpenter_fake_kube::loops::object::{self, items, text};
use karpenter_fake_kube::loops::resource::{NODES, PODS, VOLUME_ATTACHMENTS};
use karpenter_fake_kube::server::{ApiError, Change, PatchKind};
use karpenter_runtime::{Key, RngTree};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::hosts::Hosts;
use crate::images::Images;
use crate::options::KubeletOptions;
use crate::outages::Programs;
use crate::podrun::{self, Due, Place, Run};
pub use crate::podrun::{EXIT_CODE, IGNORES_SIGTERM, RUN_SECONDS, UNREADY};
pub use crate::probes::{UNLIVE, UNSTARTED};

/// Wait before the volumes of a pod are looked at again.
const VOLUMES_AGAIN: std::time::Duration = std::time::Duration::from_secs(30);

struct Kubelet {
    api: ApiServer,
    hosts: Hosts,
    programs: Programs,
    options: KubeletOptions,
    rng: RngTree,
    pods: Mirror,
    by_node: Index<String>,
    host_ips: BTreeMap<String, String>,
    runs: BTreeMap<Key, Run>,
    images: Images,
    pod_ips: u32,
}

/// Runs pods on `hosts` until `stop`; their programs are as well as `programs` says.
pub async fn run(
    api: ApiServer,
    (hosts, programs): (Hosts, Programs),
    options: KubeletOptions,
    rng: RngTree,
    stop: CancellationToken,
) {
    let mut feed = Feed::new(&api, &[NODES, PODS, VOLUME_ATTACHMENTS]);
    let mut kubelet = Kubelet {
        api,
        hosts: hosts.clone(),
        programs: programs.clone(),
        options,
        rng,
        pods: Mirror::default(),
        by_node: Index::default(),
        host_ips: BTreeMap::new(),
        runs: BTreeMap::new(),
        images: Images::default(),
        pod_ips: 0,
    };
    let mut dirty = Dirty::default();
    loop {
        let deadline = dirty.deadline();
        let changes = tokio::select! {
            biased;
            changes = feed.next(None, &stop) => match changes {
                Some(changes) => changes,
                None => return,
            },
            () = hosts.changed() => Vec::new(),
            () = programs.changed() => {
                kubelet.pods.iter().for_each(|(k, _)| dirty.add(k.clone()));
                Vec::new()
            }
            () = wait_until(deadline) => Vec::new(),
        };
        for (watch, change) in &changes {
            match watch {
                0 => kubelet.observe_node(change),
                1 => kubelet.observe_pod(change, &mut dirty),
                _ => kubelet.observe_attachment(change, &mut dirty),
            }
        }
        for node in hosts.take_changed() {
            kubelet.host_changed(&node, &mut dirty);
        }
        for key in dirty.take_due(Instant::now()) {
            match kubelet.sync(&key) {
                Ok(again) => {
                    dirty.succeeded(&key);
                    if let Some(when) = again {
                        dirty.add_at(key, when);
                    }
                }
                Err(error) => {
                    tracing::debug!(pod = %key, %error, "kubelet write refused, will retry");
                    dirty.failed(key);
                }
            }
        }
    }
}

impl Kubelet {
    fn observe_node(&mut self, change: &Change) {
        let (node, there) = parts(change);
        if !there {
            self.host_ips.remove(object::name(node));
            self.images.forget(object::name(node));
            return;
        }
        let ip = items(node, &["status", "addresses"])
            .iter()
            .find(|a| text(a, &["type"]) == "InternalIP")
            .map_or("", |a| text(a, &["address"]));
        if self.host_ips.get(object::name(node)).map(String::as_str) != Some(ip) {
            self.host_ips
                .insert(object::name(node).to_owned(), ip.to_owned());
        }
    }

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
        self.by_node.moved(key.clone(), was, is);
        let replaced = self
            .runs
            .get(&key)
            .is_some_and(|r| r.uid != object::uid(pod));
        if !there || replaced {
            self.runs.remove(&key);
        }
        if there && !is.is_empty() && self.hosts.is_up(is) {
            dirty.add(key);
        }
    }

    /// A volume is attached: pods of that node may have waited for it.
    fn observe_attachment(&self, change: &Change, dirty: &mut Dirty) {
        let (attachment, _) = parts(change);
        if !object::flag(attachment, &["status", "attached"]) {
            return;
        }
        let node = text(attachment, &["spec", "nodeName"]);
        for key in self.by_node.of(node) {
            if self.runs.get(key).is_some_and(|r| !r.attached) {
                dirty.add(key.clone());
            }
        }
    }

    fn host_changed(&mut self, node: &str, dirty: &mut Dirty) {
        let pods: Vec<Key> = self.by_node.of(node).cloned().collect();
        if self.hosts.is_up(node) {
            pods.into_iter().for_each(|k| dirty.add(k));
        }
    }

    fn sync(&mut self, key: &Key) -> Result<Option<Instant>, ApiError> {
        let Some(pod) = self.pods.get(key).map(Arc::clone) else {
            return Ok(None);
        };
        let node = text(&pod, &["spec", "nodeName"]).to_owned();
        if !self.hosts.is_up(&node) {
            return Ok(None);
        }
        let now = Instant::now();
        let (options, rng) = (self.options, &self.rng);
        let run = self
            .runs
            .entry(key.clone())
            .or_insert_with(|| Run::new(&pod, &options, rng, now));
        let restarting = run.restarts > 0;
        let running = text(&pod, &["status", "phase"]) == "Running";
        if run.started.is_none() && running && !restarting {
            // It ran before this kubelet was there to see it.
            (run.started, run.attached) = (Some(now), true);
        }
        if run.due(&pod, now).0 == Due::Attach {
            if !attach::all_attached(&self.api, &pod) {
                // Looked at again when one is attached, and now and then for those that need not be.
                return Ok(Some(now + VOLUMES_AGAIN));
            }
            run.attached = true;
        }
        if run.started.is_none() && run.attached && !run.pulls && !object::deleting(&pod) {
            let pull = (self.options.pull, &self.rng);
            run.pulled(self.images.there_at(&node, &pod, pull, now));
        }
        run.plan_outage(&pod, self.programs.outages(), &self.rng, now);
        let (due, again) = run.due(&pod, now);
        let wall = self.api.clock().wall();
        match due {
            Due::Nothing | Due::Attach => return Ok(again),
            Due::Restart(code) => {
                // What was not written has not happened: it is due again.
                let mut after = run.clone();
                let when = after.restarting(now);
                let status = podrun::backing_off(&pod, &after.killed, code, wall);
                self.patch_status(&pod, status)?;
                self.runs.insert(key.clone(), after);
                return Ok(Some(when));
            }
            Due::Start => {
                run.started = Some(now);
                let (_, again) = run.due(&pod, now);
                // Not ready yet if the next look is for readiness: a probe that waits, or one that fails.
                let ready = run.due(&pod, now).0 == Due::Ready;
                let status = if run.restarts > 0 {
                    podrun::restarted(&pod, &run.killed, ready, wall)
                } else {
                    self.pod_ips = self.pod_ips.wrapping_add(1);
                    let [_, high, mid, low] = self.pod_ips.to_be_bytes();
                    let place = Place {
                        host_ip: self.host_ips.get(&node).map_or("", String::as_str),
                        // 10.64.0.0/10, as large clusters have.
                        pod_ip: format!("10.{}.{mid}.{low}", 64 + high % 64),
                    };
                    podrun::running(&pod, &place, ready, wall)
                };
                if let Err(error) = self.patch_status(&pod, status) {
                    if let Some(run) = self.runs.get_mut(key) {
                        run.started = None;
                    }
                    return Err(error);
                }
                return Ok(again);
            }
            Due::Ready => self.patch_status(&pod, podrun::readiness(&pod, true, wall))?,
            Due::Unready => self.patch_status(&pod, podrun::readiness(&pod, false, wall))?,
            Due::Finish(code) => self.patch_status(&pod, podrun::ended(&pod, code, wall))?,
            Due::Stop => {
                self.stop(&pod, wall)?;
                if let Some(run) = self.runs.get_mut(key) {
                    run.stopped = true;
                }
            }
        }
        Ok(again)
    }

    /// The pod has ended: says so where someone waits to hear it, and lets the object go.
    fn stop(&self, pod: &Value, wall: jiff::Timestamp) -> Result<(), ApiError> {
        let awaited = !items(pod, &["metadata", "finalizers"]).is_empty();
        if awaited && !object::terminal(pod) {
            self.patch_status(pod, podrun::ended(pod, podrun::SIGTERM_EXIT_CODE, wall))?;
        }
        let (ns, name) = (object::namespace(pod), object::name(pod));
        gone_is_fine(self.api.delete(PODS, Some(ns), name, Some(0)))
    }

    fn patch_status(&self, pod: &Value, status: Value) -> Result<(), ApiError> {
        let (ns, name) = (object::namespace(pod), object::name(pod));
        let patch = json!({"status": status});
        gone_is_fine(
            self.api
                .patch(PODS, Some(ns), name, "status", PatchKind::Merge, patch),
        )
    }
}
