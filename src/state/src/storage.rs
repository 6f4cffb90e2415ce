//! Storage objects, trimmed to what scheduling asks of them, and which pods use which claims.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{CSINode, StorageClass};
use karpenter_api::labels;
use karpenter_model::storage::{
    self, Attached, Claim, Class, StorageObjects, Volume, VolumeLimits, VolumeRoom,
};
use karpenter_model::{LabelRegistry, NodeView, Pod, PodKey, Storage};

use crate::Kind;
use crate::cluster::{Cluster, key_of, name_of, version_of};
use crate::table::{Step, Table, Version};

type Name = Arc<str>;

/// Tables and indexes.
#[derive(Debug, Default)]
pub(crate) struct StorageTables {
    claims: Table<PodKey, Claim>,
    volumes: Table<Name, Volume>,
    classes: Table<Name, Class>,
    limits: Table<Name, VolumeLimits>,
    /// Pods by the claims they use.
    users: BTreeMap<PodKey, BTreeSet<PodKey>>,
    /// Nodes whose limits are known, by instance type.
    known: BTreeMap<String, BTreeSet<Name>>,
    /// The instance type under which each of those nodes is known.
    type_of: BTreeMap<Name, String>,
}

impl StorageObjects for StorageTables {
    fn claim(&self, key: &PodKey) -> Option<Arc<Claim>> {
        self.claims.get(key).cloned()
    }
    fn volume(&self, name: &str) -> Option<Arc<Volume>> {
        self.volumes.get(name).cloned()
    }
    fn class(&self, name: &str) -> Option<Arc<Class>> {
        self.classes.get(name).cloned()
    }
}

impl StorageTables {
    pub(crate) fn listed(&self, kind: Kind) -> bool {
        match kind {
            Kind::PersistentVolumeClaim => self.claims.listed,
            Kind::PersistentVolume => self.volumes.listed,
            Kind::StorageClass => self.classes.listed,
            Kind::CSINode => self.limits.listed,
            _ => false,
        }
    }

    /// A pod is what it was not before: takes note of the claims it uses now.
    pub(crate) fn pod_changed(&mut self, before: Option<&Pod>, after: Option<&Pod>) {
        let claims = |pod: Option<&Pod>| -> BTreeSet<PodKey> {
            pod.map(Pod::claims).into_iter().flatten().collect()
        };
        let (old, new) = (claims(before), claims(after));
        let Some(pod) = before.or(after).map(|p| p.key.clone()) else {
            return;
        };
        for gone in old.difference(&new) {
            if let Some(users) = self.users.get_mut(gone) {
                users.remove(&pod);
                if users.is_empty() {
                    self.users.remove(gone);
                }
            }
        }
        for claim in new.difference(&old) {
            let users = self.users.entry(claim.clone()).or_default();
            users.insert(pod.clone());
        }
    }

    /// Brings the index of nodes by type up to date with one node.
    fn index(&mut self, node: &Name, instance_type: Option<&String>) {
        let told = self.limits.get(node).is_some_and(|l| !l.is_empty());
        let instance_type = instance_type.filter(|_| told);
        if self.type_of.get(node) == instance_type {
            return;
        }
        if let Some(old) = self.type_of.remove(node)
            && let Some(nodes) = self.known.get_mut(&old)
        {
            nodes.remove(node);
            if nodes.is_empty() {
                self.known.remove(&old);
            }
        }
        if let Some(instance_type) = instance_type {
            let nodes = self.known.entry(instance_type.clone()).or_default();
            nodes.insert(node.clone());
            self.type_of.insert(node.clone(), instance_type.clone());
        }
    }

    /// What is attached for `pods` on a node and what can be; none where there is nothing to tell.
    pub(crate) fn room(&self, node: Option<&str>, pods: &[Arc<Pod>]) -> Option<Arc<VolumeRoom>> {
        let limits = node.and_then(|n| self.limits.get(n));
        let mut used = Attached::new();
        for pod in pods.iter().filter(|p| !p.volumes.is_empty()) {
            for (driver, claims) in storage::attached(pod, self) {
                used.entry(driver).or_default().extend(claims);
            }
        }
        (limits.is_some() || !used.is_empty()).then(|| {
            Arc::new(VolumeRoom {
                limits: limits.map(|l| VolumeLimits::clone(l)).unwrap_or_default(),
                used,
            })
        })
    }

    /// The limits that a node of a type will have as far as others of that type tell.
    pub(crate) fn expected(&self, instance_type: &str) -> Option<&VolumeLimits> {
        let first = self.known.get(instance_type)?.first()?;
        self.limits.get(first).map(|l| &**l)
    }

    /// By instance type, as far as anything is known and anybody asks for volumes.
    pub(crate) fn limits_by_type(&self) -> BTreeMap<Arc<str>, VolumeLimits> {
        let known = self.known.keys().filter(|_| !self.is_unused());
        let limits = |t: &String| Some((t.as_str().into(), self.expected(t)?.clone()));
        known.filter_map(limits).collect()
    }

    /// Whether no pod uses any claim.
    pub(crate) fn is_unused(&self) -> bool {
        self.users.is_empty()
    }

    /// The pod with its claims looked up.
    pub(crate) fn resolve(&self, pod: Arc<Pod>, labels: &LabelRegistry) -> Arc<Pod> {
        match Storage::of(&pod, self, labels) {
            None => pod,
            Some(storage) => {
                let mut pod = Pod::clone(&pod);
                pod.storage = Some(Arc::new(storage));
                Arc::new(pod)
            }
        }
    }
}

/// The three ways into a table of trimmed objects.
macro_rules! feeds_trimmed {
    ($($table:ident).+: $key:ty, $raw:ty, $trim:expr, $keyed:ident, $after:ident; $apply:ident, $delete:ident, $reset:ident) => {
        pub(crate) fn $apply(&mut self, object: &$raw) {
            let (key, version) = ($keyed(&object.metadata), version_of(&object.metadata));
            if let Some(step) = self.$($table).+.apply(key, version, || $trim(object)) {
                self.$after(step);
            }
        }
        pub(crate) fn $delete(&mut self, key: $key, version: Version) {
            if let Some(step) = self.$($table).+.delete(key, version) {
                self.$after(step);
            }
        }
        pub(crate) fn $reset(&mut self, objects: &[$raw], list: Version) {
            let rows = objects
                .iter()
                .map(|o| ($keyed(&o.metadata), version_of(&o.metadata), $trim(o)))
                .collect();
            for step in self.$($table).+.reset(list, rows) {
                self.$after(step);
            }
        }
    };
}

pub(crate) use feeds_trimmed;

impl Cluster {
    feeds_trimmed!(storage.claims: PodKey, PersistentVolumeClaim, Claim::from, key_of, volume_claim_changed; apply_volume_claim, delete_volume_claim, reset_volume_claims);
    feeds_trimmed!(storage.volumes: Name, PersistentVolume, Volume::from, name_of, volume_changed; apply_volume, delete_volume, reset_volumes);
    feeds_trimmed!(storage.classes: Name, StorageClass, Class::from, name_of, storage_class_changed; apply_storage_class, delete_storage_class, reset_storage_classes);
    feeds_trimmed!(storage.limits: Name, CSINode, storage::limits, name_of, limits_changed; apply_csi_node, delete_csi_node, reset_csi_nodes);

    fn volume_claim_changed(&mut self, step: Step<PodKey, Claim>) {
        if step.before == step.after {
            return;
        }
        self.claim_matters(&step.key);
        let deleted = step.after.is_none();
        self.note(Kind::PersistentVolumeClaim, &step.key, deleted);
    }

    fn volume_changed(&mut self, step: Step<Name, Volume>) {
        if step.before == step.after {
            return;
        }
        let claims = [&step.before, &step.after].map(|v| v.as_ref()?.claim.clone());
        for claim in claims.into_iter().flatten() {
            self.claim_matters(&claim);
        }
        self.note_name(Kind::PersistentVolume, &step.key, step.after.is_none());
    }

    fn storage_class_changed(&mut self, step: Step<Name, Class>) {
        if step.before == step.after {
            return;
        }
        // Classes hardly ever change; which claims name one is not worth an index.
        let used: Vec<PodKey> = self.storage.users.keys().cloned().collect();
        for claim in used {
            self.claim_matters(&claim);
        }
        self.note_name(Kind::StorageClass, &step.key, step.after.is_none());
    }

    fn limits_changed(&mut self, step: Step<Name, VolumeLimits>) {
        if step.before == step.after {
            return;
        }
        self.limits_of_node_matter(&step.key);
        self.touch_node(&step.key);
        if !self.storage.is_unused() {
            self.plans_differ();
        }
        self.note_name(Kind::CSINode, &step.key, step.after.is_none());
    }

    /// Where the pods that use a claim may go, or what they take of their node, is not what it was.
    fn claim_matters(&mut self, claim: &PodKey) {
        let Some(users) = self.storage.users.get(claim) else {
            return;
        };
        let nodes = |p: &PodKey| self.pods.get(p)?.node_name.clone();
        let nodes: BTreeSet<Name> = users.iter().filter_map(nodes).collect();
        for node in nodes {
            self.touch_node(&node);
        }
        self.plans_differ();
    }

    /// The view; of a machine that has not told its limits yet, with those that others of its type have told.
    pub(crate) fn with_expected_limits(&self, view: &Arc<NodeView>) -> Arc<NodeView> {
        let room = view.volumes.as_deref();
        if self.storage.is_unused() || room.is_some_and(|r| !r.limits.is_empty()) {
            return view.clone();
        }
        let instance_type = view.labels.get(labels::INSTANCE_TYPE);
        let Some(limits) = instance_type.and_then(|t| self.storage.expected(t)) else {
            return view.clone();
        };
        let mut view = NodeView::clone(view);
        view.volumes = Some(Arc::new(VolumeRoom {
            limits: limits.clone(),
            used: room.map(|r| r.used.clone()).unwrap_or_default(),
        }));
        Arc::new(view)
    }

    /// Keeps the limits known by instance type.
    pub(crate) fn limits_of_node_matter(&mut self, node: &Name) {
        let found = self.nodes.get(node);
        let own = found.and_then(|n| n.metadata.labels.as_ref());
        let instance_type = own.and_then(|l| l.get(labels::INSTANCE_TYPE)).cloned();
        self.storage.index(node, instance_type.as_ref());
    }
}
