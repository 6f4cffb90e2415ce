//! KWOK: nodes that somebody made by hand and marked as fake come to life, and so do their pods, in next to no time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_fake_kube::ApiServer;
use karpenter_fake_kube::loops::feed::{
    Controller, Dirty, Mirror, gone_is_fine, parts, run as run_controller, there_is_fine,
};
use karpenter_fake_kube::loops::nodelifecycle::LEASE_NAMESPACE;
use karpenter_fake_kube::loops::object::{self, text};
use karpenter_fake_kube::loops::resource::{LEASES, NODES};
use karpenter_fake_kube::server::{ApiError, Change, Gr, PatchKind};
use karpenter_runtime::{Key, RngTree};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::hosts::Hosts;
use crate::options::KwokOptions;
use crate::outages::Programs;
use crate::{kubelet, node};

/// Annotation of nodes that are to be kept alive, with the value `fake`.
pub const NODE: &str = "kwok.x-k8s.io/node";
/// Annotation that makes KWOK leave a node's status alone while it is `true`: for tests that spoil it.
pub const HOLD: &str = "karpenter-rs.test/hold";

/// The KWOK model.
pub struct Kwok {
    options: KwokOptions,
    rng: RngTree,
    hosts: Hosts,
    nodes: Mirror,
    seen: BTreeMap<Key, Instant>,
    leased: BTreeSet<String>,
    addresses: u32,
}

impl Kwok {
    /// Keeps marked nodes and their pods alive until `stop`.
    pub fn start(
        api: ApiServer,
        options: KwokOptions,
        rng: RngTree,
        stop: CancellationToken,
    ) -> JoinHandle<()> {
        Self::start_with(api, options, Programs::default(), rng, stop)
    }

    /// The same with programs that may be made to fail.
    pub fn start_with(
        api: ApiServer,
        options: KwokOptions,
        programs: Programs,
        rng: RngTree,
        stop: CancellationToken,
    ) -> JoinHandle<()> {
        let api = api.inside();
        let hosts = Hosts::default();
        let pods = kubelet::run(
            api.clone(),
            (hosts.clone(), programs),
            options.kubelet,
            rng.child("kubelet", "kwok"),
            stop.clone(),
        );
        let kwok = Self {
            options,
            rng,
            hosts,
            nodes: Mirror::default(),
            seen: BTreeMap::new(),
            leased: BTreeSet::new(),
            addresses: 0,
        };
        tokio::spawn(async move {
            tokio::join!(run_controller(kwok, api, stop), pods);
        })
    }

    fn ours(node: &Value) -> bool {
        object::annotation(node, NODE) == "fake"
    }

    fn bring(
        &mut self,
        api: &ApiServer,
        key: &Key,
        node: &Value,
    ) -> Result<Option<Instant>, ApiError> {
        let name = object::name(node);
        let delay = self.options.ready.draw(&self.rng, "ready", name);
        let due = *self
            .seen
            .entry(key.clone())
            .or_insert_with(|| Instant::now() + delay);
        if Instant::now() < due {
            return Ok(Some(due));
        }
        let held = object::annotation(node, HOLD) == "true";
        self.hosts.set(name, !held);
        if held {
            return Ok(None);
        }
        let now = api.clock().wall();
        if !self.leased.contains(object::uid(node)) {
            let lease = node::lease(node, now);
            there_is_fine(api.create(LEASES, Some(LEASE_NAMESPACE), lease))?;
            self.leased.insert(object::uid(node).to_owned());
        }
        let Some(conditions) = node::reported(node, true, "", now) else {
            return Ok(None);
        };
        let mut status = json!({"conditions": conditions, "phase": "Running"});
        if let Some(map) = status.as_object_mut() {
            if object::items(node, &["status", "addresses"]).is_empty() {
                self.addresses = self.addresses.wrapping_add(1);
                let [_, _, high, low] = self.addresses.to_be_bytes();
                let address = format!("10.32.{high}.{low}");
                map.insert(
                    "addresses".to_owned(),
                    json!([{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]),
                );
            }
            if text(node, &["status", "nodeInfo", "kubeletVersion"]).is_empty() {
                let arch = match object::label(node, "kubernetes.io/arch") {
                    "" => "amd64",
                    arch => arch,
                };
                map.insert("nodeInfo".to_owned(), node::node_info(arch, name));
            }
        }
        let patch = json!({"status": status});
        gone_is_fine(api.patch(NODES, None, name, "status", PatchKind::Merge, patch))?;
        Ok(None)
    }
}

impl Controller for Kwok {
    const NAME: &'static str = "kwok";
    const WATCHES: &'static [Gr<'static>] = &[NODES];

    fn observe(&mut self, _: usize, change: &Change, dirty: &mut Dirty) {
        let (node, there) = parts(change);
        let before = self.nodes.apply(change);
        let key = object::key(node);
        if there && Self::ours(node) {
            dirty.add(key);
        } else if before.is_some_and(|b| Self::ours(&b)) {
            self.seen.remove(&key);
            self.leased.remove(object::uid(node));
            self.hosts.remove(object::name(node));
        }
    }

    fn reconcile(&mut self, api: &ApiServer, key: &Key) -> Result<Option<Instant>, ApiError> {
        match self.nodes.get(key).map(Arc::clone) {
            Some(node) => self.bring(api, key, &node),
            None => Ok(None),
        }
    }
}
