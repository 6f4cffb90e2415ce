//! The shared handle on the cluster: one lock around the plain struct, and the subscribers to its changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    LimitRange, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod as RawPod,
    PodTemplate, ReplicationController, Service, TopologySpreadConstraint,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::{CSINode, StorageClass, VolumeAttachment};
use karpenter_api::{CapacityBuffer, NodeClaim, NodeOverlay, NodePool};
use karpenter_model::storage::{StorageObjects, VolumeLimits};
use karpenter_model::{LabelRegistry, Namespaces, NodeView, Pod, PodKey, ResourceList};
use kube::core::{DynamicObject, ObjectMeta};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, watch};

use crate::buffers::{Fit, Resolution, Workload};
use crate::cluster::Cluster;
use crate::table::version;
use crate::{Changed, Kind, daemons};

/// The shared cluster state.
#[derive(Debug)]
pub struct Store {
    cluster: RwLock<Cluster>,
    subscribers: Mutex<Vec<mpsc::UnboundedSender<Changed>>>,
    node_subscribers: Mutex<Vec<mpsc::UnboundedSender<Arc<Node>>>>,
    synced: watch::Sender<bool>,
    /// Kinds that are watched besides [`Kind::ALL`], and waited for.
    besides: Vec<Kind>,
}

impl Default for Store {
    fn default() -> Self {
        Self::waiting_for([])
    }
}

fn key(meta: &ObjectMeta) -> PodKey {
    PodKey {
        namespace: meta.namespace.as_deref().unwrap_or_default().into(),
        name: meta.name.as_deref().unwrap_or_default().into(),
    }
}

/// What those of `views` that are a pool's hold.
fn capacity<'a>(views: impl Iterator<Item = &'a Arc<NodeView>>, pool: &str) -> ResourceList {
    let mut total = ResourceList::new();
    for view in views.filter(|v| v.node_pool.as_deref() == Some(pool)) {
        total.add(&view.capacity);
    }
    total
}

fn name(meta: &ObjectMeta) -> Arc<str> {
    meta.name.as_deref().unwrap_or_default().into()
}

/// The public face of a kind: apply, delete, reset.
macro_rules! feed {
    ($what:literal, $obj:ty, $keyed:ident; $apply:ident = $in_apply:ident, $delete:ident = $in_delete:ident, $reset:ident = $in_reset:ident) => {
        #[doc = concat!("Applies a ", $what, " as read or just written; ignored if something as new is held.")]
        pub fn $apply(&self, object: $obj) {
            self.change(|c| c.$in_apply(object));
        }
        #[doc = concat!("Applies the deletion of a ", $what, ": its last state with the deletion's resourceVersion.")]
        pub fn $delete(&self, object: &$obj) {
            let meta = &object.metadata;
            let at = version(meta.resource_version.as_deref());
            self.change(|c| c.$in_delete($keyed(meta), at));
        }
        #[doc = concat!("Applies a complete list of every ", $what, ", taken at resourceVersion `list`: what it lacks is gone.")]
        pub fn $reset(&self, objects: Vec<$obj>, list: &str) {
            self.change(|c| c.$in_reset(objects, version(Some(list))));
        }
    };
}

/// The same for kinds of which only a part is kept.
macro_rules! feed_trimmed {
    ($what:literal, $obj:ty, $keyed:ident; $apply:ident = $in_apply:ident, $delete:ident = $in_delete:ident, $reset:ident = $in_reset:ident) => {
        #[doc = concat!("Applies a ", $what, " as read or just written; ignored if something as new is held.")]
        pub fn $apply(&self, object: $obj) {
            self.change(|c| c.$in_apply(&object));
        }
        #[doc = concat!("Applies the deletion of a ", $what, ": its last state with the deletion's resourceVersion.")]
        pub fn $delete(&self, object: &$obj) {
            let meta = &object.metadata;
            let at = version(meta.resource_version.as_deref());
            self.change(|c| c.$in_delete($keyed(meta), at));
        }
        #[doc = concat!("Applies a complete list of every ", $what, ", taken at resourceVersion `list`: what it lacks is gone.")]
        pub fn $reset(&self, objects: Vec<$obj>, list: &str) {
            self.change(|c| c.$in_reset(&objects, version(Some(list))));
        }
    };
}

impl Store {
    /// A store that is synced once `besides` were listed too.
    #[must_use]
    pub fn waiting_for(besides: impl Into<Vec<Kind>>) -> Self {
        Self {
            cluster: RwLock::default(),
            subscribers: Mutex::default(),
            node_subscribers: Mutex::default(),
            synced: watch::channel(false).0,
            besides: besides.into(),
        }
    }

    feed!("Node", Node, name; apply_node = apply_node, delete_node = delete_node, reset_nodes = reset_nodes);
    feed!("NodeClaim", NodeClaim, name; apply_node_claim = apply_claim, delete_node_claim = delete_claim, reset_node_claims = reset_claims);
    feed!("NodePool", NodePool, name; apply_node_pool = apply_pool, delete_node_pool = delete_pool, reset_node_pools = reset_pools);
    feed!("NodeClass", DynamicObject, name; apply_node_class = apply_class, delete_node_class = delete_class, reset_node_classes = reset_classes);
    feed!("DaemonSet", DaemonSet, key; apply_daemon_set = apply_daemon_set, delete_daemon_set = delete_daemon_set, reset_daemon_sets = reset_daemon_sets);
    feed!("PodDisruptionBudget", PodDisruptionBudget, key; apply_budget = apply_budget, delete_budget = delete_budget, reset_budgets = reset_budgets);
    feed!("VolumeAttachment", VolumeAttachment, name; apply_volume_attachment = apply_attachment, delete_volume_attachment = delete_attachment, reset_volume_attachments = reset_attachments);
    feed!("LimitRange", LimitRange, key; apply_limit_range = apply_limit_range, delete_limit_range = delete_limit_range, reset_limit_ranges = reset_limit_ranges);
    feed!("CapacityBuffer", CapacityBuffer, key; apply_capacity_buffer = apply_buffer, delete_capacity_buffer = delete_buffer, reset_capacity_buffers = reset_buffers);
    feed!("NodeOverlay", NodeOverlay, name; apply_node_overlay = apply_overlay, delete_node_overlay = delete_overlay, reset_node_overlays = reset_overlays);
    feed!("PodTemplate", PodTemplate, key; apply_pod_template = apply_template, delete_pod_template = delete_template, reset_pod_templates = reset_templates);

    feed_trimmed!("Pod", RawPod, key; apply_pod = apply_pod, delete_pod = delete_pod, reset_pods = reset_pods);
    feed_trimmed!("Namespace", Namespace, name; apply_namespace = apply_namespace, delete_namespace = delete_namespace, reset_namespaces = reset_namespaces);
    feed_trimmed!("PersistentVolumeClaim", PersistentVolumeClaim, key; apply_volume_claim = apply_volume_claim, delete_volume_claim = delete_volume_claim, reset_volume_claims = reset_volume_claims);
    feed_trimmed!("PersistentVolume", PersistentVolume, name; apply_volume = apply_volume, delete_volume = delete_volume, reset_volumes = reset_volumes);
    feed_trimmed!("StorageClass", StorageClass, name; apply_storage_class = apply_storage_class, delete_storage_class = delete_storage_class, reset_storage_classes = reset_storage_classes);
    feed_trimmed!("Service", Service, key; apply_service = apply_service, delete_service = delete_service, reset_services = reset_services);
    feed_trimmed!("ReplicationController", ReplicationController, key; apply_replication_controller = apply_replication_controller, delete_replication_controller = delete_replication_controller, reset_replication_controllers = reset_replication_controllers);
    feed_trimmed!("CSINode", CSINode, name; apply_csi_node = apply_csi_node, delete_csi_node = delete_csi_node, reset_csi_nodes = reset_csi_nodes);

    /// Drops a NodeClaim that the API server says is not there; the held state of it never comes back.
    pub fn forget_node_claim(&self, claim: &str) {
        self.change(|c| c.delete_claim(claim.into(), None));
    }
    /// Drops a Node that the API server says is not there; the held state of it never comes back.
    pub fn forget_node(&self, node: &str) {
        self.change(|c| c.delete_node(node.into(), None));
    }

    /// Applies a workload that buffers may refer to.
    pub fn apply_workload(&self, workload: Workload) {
        self.change(|c| c.apply_workload(workload));
    }
    /// Applies the deletion of a workload.
    pub fn delete_workload(&self, workload: &Workload) {
        self.change(|c| c.delete_workload(workload));
    }
    /// Applies a complete list of the workloads of a kind, taken at resourceVersion `list`.
    pub fn reset_workloads(&self, kind: Kind, all: Vec<Workload>, list: &str) {
        self.change(|c| c.reset_workloads(kind, all, version(Some(list))));
    }

    /// A CapacityBuffer.
    #[must_use]
    pub fn capacity_buffer(&self, key: &PodKey) -> Option<Arc<CapacityBuffer>> {
        self.cluster.read().buffers.objects.get(key).cloned()
    }
    /// Keys of all CapacityBuffers, in order.
    #[must_use]
    pub fn capacity_buffers(&self) -> Vec<PodKey> {
        let cluster = self.cluster.read();
        cluster
            .buffers
            .objects
            .iter()
            .map(|(k, _)| k.clone())
            .collect()
    }
    /// What a buffer comes to now; none if it is gone or going.
    #[must_use]
    pub fn resolution(&self, buffer: &PodKey) -> Option<Arc<Resolution>> {
        self.cluster.read().buffers.resolution(buffer).cloned()
    }
    /// Where its chunks found room in the last plan that was about them.
    #[must_use]
    pub fn buffer_fit(&self, buffer: &PodKey) -> Option<Fit> {
        self.cluster.read().buffers.fit(buffer).cloned()
    }
    /// What each buffer comes to, in key order; those that are gone or going are left out.
    #[must_use]
    pub fn resolutions(&self) -> Vec<(PodKey, Arc<Resolution>)> {
        let cluster = self.cluster.read();
        let all = cluster.buffers.resolutions();
        all.map(|(key, r)| (key.clone(), r.clone())).collect()
    }
    /// The chunks of all buffers, as pods that exist in plans only; in key order of the buffers.
    #[must_use]
    pub fn virtual_pods(&self) -> Vec<Arc<Pod>> {
        self.cluster.read().buffers.pods().cloned().collect()
    }
    /// Whether a buffer has chunks.
    #[must_use]
    pub fn has_virtual_pods(&self) -> bool {
        self.cluster.read().buffers.pods().next().is_some()
    }
    /// Takes note of where chunks found room: by buffer, what it came to when the plan was made, and the outcome.
    pub fn set_buffer_fits(&self, fits: BTreeMap<PodKey, (Arc<Resolution>, Fit)>) {
        self.change(|c| c.set_fits(fits));
    }

    /// A NodeClaim.
    #[must_use]
    pub fn node_claim(&self, name: &str) -> Option<Arc<NodeClaim>> {
        self.cluster.read().claims.get(name).cloned()
    }
    /// All NodeClaims in name order.
    #[must_use]
    pub fn node_claims(&self) -> Vec<Arc<NodeClaim>> {
        self.cluster.read().claims.values().cloned().collect()
    }
    /// The NodeClaims with this providerID (an empty id matches nothing).
    #[must_use]
    pub fn claims_by_provider_id(&self, provider_id: &str) -> Vec<Arc<NodeClaim>> {
        let cluster = self.cluster.read();
        cluster.claims_of_provider(provider_id).cloned().collect()
    }
    /// A NodePool.
    #[must_use]
    pub fn node_pool(&self, name: &str) -> Option<Arc<NodePool>> {
        self.cluster.read().pools.get(name).cloned()
    }
    /// All NodePools in name order.
    #[must_use]
    pub fn node_pools(&self) -> Vec<Arc<NodePool>> {
        self.cluster.read().pools.values().cloned().collect()
    }
    /// A NodeOverlay.
    #[must_use]
    pub fn node_overlay(&self, name: &str) -> Option<Arc<NodeOverlay>> {
        self.cluster.read().overlays.get(name).cloned()
    }
    /// All NodeOverlays in name order, those being deleted left out.
    #[must_use]
    pub fn node_overlays(&self) -> Vec<Arc<NodeOverlay>> {
        let cluster = self.cluster.read();
        let all = cluster.overlays.values();
        all.filter(|o| o.metadata.deletion_timestamp.is_none())
            .cloned()
            .collect()
    }
    /// A NodeClass of the provider's kind.
    #[must_use]
    pub fn node_class(&self, name: &str) -> Option<Arc<DynamicObject>> {
        self.cluster.read().classes.get(name).cloned()
    }
    /// All NodeClasses in name order.
    #[must_use]
    pub fn node_classes(&self) -> Vec<Arc<DynamicObject>> {
        self.cluster.read().classes.values().cloned().collect()
    }
    /// A Node.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<Arc<Node>> {
        self.cluster.read().nodes.get(name).cloned()
    }
    /// All Nodes in name order.
    #[must_use]
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.cluster.read().nodes.values().cloned().collect()
    }
    /// The Nodes with this providerID (an empty id matches nothing).
    #[must_use]
    pub fn nodes_by_provider_id(&self, provider_id: &str) -> Vec<Arc<Node>> {
        let cluster = self.cluster.read();
        cluster.nodes_of_provider(provider_id).cloned().collect()
    }
    /// A Pod.
    #[must_use]
    pub fn pod(&self, key: &PodKey) -> Option<Arc<Pod>> {
        self.cluster.read().pods.get(key).cloned()
    }
    /// All Pods in key order.
    #[must_use]
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.cluster.read().pods.values().cloned().collect()
    }
    /// Pods bound to a node, in key order.
    #[must_use]
    pub fn pods_on(&self, node: &str) -> Vec<Arc<Pod>> {
        self.cluster.read().pods_on(node).cloned().collect()
    }
    /// Pods that kube-scheduler found no node for and that a new one could serve, in key order.
    #[must_use]
    pub fn provisionable_pods(&self) -> Vec<Arc<Pod>> {
        self.cluster.read().provisionable().cloned().collect()
    }
    /// Those of [`Store::provisionable_pods`] that no claim under way was made for.
    #[must_use]
    pub fn unplanned_pods(&self) -> Vec<Arc<Pod>> {
        self.cluster.read().unplanned().cloned().collect()
    }
    /// PodDisruptionBudgets of a namespace, in name order.
    #[must_use]
    pub fn budgets_in(&self, namespace: &str) -> Vec<Arc<PodDisruptionBudget>> {
        let cluster = self.cluster.read();
        let all = cluster.budgets.iter();
        all.filter(|(k, _)| &*k.namespace == namespace)
            .map(|(_, b)| b.clone())
            .collect()
    }
    /// VolumeAttachments to a node, in name order.
    #[must_use]
    pub fn volume_attachments_on(&self, node: &str) -> Vec<Arc<VolumeAttachment>> {
        let cluster = self.cluster.read();
        let all = cluster.attachments.values();
        all.filter(|a| a.spec.node_name == node).cloned().collect()
    }
    /// One pod per DaemonSet, in key order of the DaemonSets: its newest live one without the pin to its node, or
    /// one made from its template.
    #[must_use]
    pub fn daemons(&self) -> Vec<Arc<Pod>> {
        daemons::daemons(&self.cluster.read())
    }

    /// Nodes and in-flight claims that may take pods: those leaving are left out, and so are the claims in
    /// `without`. Claims first, then nodes that are not ours, each in name order.
    #[must_use]
    pub fn problem_nodes(&self, without: &BTreeSet<Arc<str>>) -> Vec<Arc<NodeView>> {
        let mut cluster = self.cluster.write();
        cluster.views();
        let cluster = &*cluster;
        cluster
            .staying()
            .filter(|v| v.node_claim.as_ref().is_none_or(|c| !without.contains(c)))
            .map(|view| cluster.with_expected_limits(view))
            .collect()
    }
    /// Whether a PersistentVolumeClaim is held.
    #[must_use]
    pub fn has_volume_claim(&self, claim: &PodKey) -> bool {
        self.cluster.read().storage.claim(claim).is_some()
    }
    /// The StorageClass that is to make the volume of a claim, if there is no volume yet.
    #[must_use]
    pub fn class_wanted(&self, claim: &PodKey) -> Option<Arc<str>> {
        let claim = self.cluster.read().storage.claim(claim)?;
        let unbound = claim.volume.is_none();
        claim.class.clone().filter(|_| unbound)
    }
    /// The PersistentVolume that a claim names.
    #[must_use]
    pub fn volume_of(&self, claim: &PodKey) -> Option<Arc<str>> {
        self.cluster.read().storage.claim(claim)?.volume.clone()
    }
    /// Sets the topology spread that the cluster gives to pods without one of their own.
    pub fn set_spread_defaults(&self, defaults: Vec<TopologySpreadConstraint>) {
        self.change(|c| c.set_spread_defaults(defaults));
    }
    /// The pods as plans are to see them: their claims looked up, the cluster's topology spread on those without one.
    #[must_use]
    pub fn for_planning(&self, pods: Vec<Arc<Pod>>, labels: &LabelRegistry) -> Vec<Arc<Pod>> {
        let cluster = self.cluster.read();
        let pods = cluster.with_spread_defaults(pods);
        if pods.iter().all(|p| p.volumes.is_empty()) {
            return pods;
        }
        let resolve = |pod| cluster.storage.resolve(pod, labels);
        pods.into_iter().map(resolve).collect()
    }
    /// Labels by namespace.
    #[must_use]
    pub fn namespaces(&self) -> Arc<Namespaces> {
        self.cluster.write().labels_of_namespaces()
    }
    /// Most volumes that machines of an instance type have attached, as far as nodes of it have told.
    #[must_use]
    pub fn volume_limits(&self) -> Arc<BTreeMap<Arc<str>, VolumeLimits>> {
        Arc::new(self.cluster.read().storage.limits_by_type())
    }
    /// All nodes and claims, leaving ones too, in the order of [`Store::problem_nodes`].
    #[must_use]
    pub fn node_views(&self) -> Vec<Arc<NodeView>> {
        self.cluster.write().views().values().cloned().collect()
    }
    /// Nodes and claims that leave, in the order of [`Store::problem_nodes`].
    #[must_use]
    pub fn leaving_nodes(&self) -> Vec<Arc<NodeView>> {
        let mut cluster = self.cluster.write();
        cluster.views();
        cluster.leaving().cloned().collect()
    }
    /// Those of [`Store::leaving_nodes`] that are marked and not deleted: they run on if their command is given up.
    #[must_use]
    pub fn marked_nodes(&self) -> Vec<Arc<NodeView>> {
        let mut cluster = self.cluster.write();
        cluster.views();
        cluster.marked().cloned().collect()
    }
    /// Capacity of a pool's machines, `nodes` included; in-flight ones count (with what was asked for until their
    /// launch tells), leaving ones do not.
    #[must_use]
    pub fn usage(&self, pool: &str) -> ResourceList {
        let mut cluster = self.cluster.write();
        cluster.views();
        capacity(cluster.staying(), pool)
    }
    /// What counts towards a pool's limits: [`Store::usage`] and the machines that are marked only, which stay if their
    /// command is given up.
    #[must_use]
    pub fn usage_with_marked(&self, pool: &str) -> ResourceList {
        let mut cluster = self.cluster.write();
        cluster.views();
        let cluster = &*cluster;
        capacity(cluster.staying().chain(cluster.marked()), pool)
    }

    /// Changes from now on (every subscriber gets all; unbounded). A mark or its removal counts as a change of its
    /// NodeClaim.
    #[must_use]
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<Changed> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.subscribers.lock().push(sender);
        receiver
    }
    /// Every version of every Node that is applied from now on, also those that another has followed when they are
    /// read: what was true for a moment only is told, too.
    #[must_use]
    pub fn subscribe_nodes(&self) -> mpsc::UnboundedReceiver<Arc<Node>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.node_subscribers.lock().push(sender);
        receiver
    }
    /// Whether a complete list of `kind` was applied.
    #[must_use]
    pub fn listed(&self, kind: Kind) -> bool {
        self.cluster.read().listed(kind)
    }
    /// Whether a complete list of every kind was applied. Claims without a machine do not hold it up: they are
    /// planned with as what they will be.
    #[must_use]
    pub fn synced(&self) -> bool {
        *self.synced.borrow()
    }
    /// Waits until [`Store::synced`].
    pub async fn wait_synced(&self) {
        let mut synced = self.synced.subscribe();
        // The sender lives as long as `self`, so this ends in no other way.
        let _ = synced.wait_for(|s| *s).await;
    }

    /// Marks a claim as leaving although its object does not say so yet; true if it was not marked.
    pub fn mark_for_deletion(&self, claim: &str) -> bool {
        self.change(|c| c.mark(claim))
    }
    /// Takes note that types, prices or availability are not what they were.
    pub fn catalog_changed(&self) {
        self.change(Cluster::catalog_changed);
    }
    /// Takes the mark back.
    pub fn unmark_for_deletion(&self, claim: &str) {
        self.change(|c| c.unmark(claim));
    }
    /// Whether a claim is leaving: marked, deleting, or its instance terminating; one not held has left.
    #[must_use]
    pub fn is_leaving(&self, claim: &str) -> bool {
        self.cluster.read().is_leaving(claim)
    }
    /// Keeps a node from disruption until `until`, because pods were planned onto it.
    pub fn nominate(&self, node: &str, until: Timestamp) {
        self.cluster.write().nominate(node, until);
    }
    /// Taints, as key and effect, that somebody took off a Node that has not registered yet.
    #[must_use]
    pub fn taints_taken_off(&self, node: &str) -> BTreeSet<(String, String)> {
        let cluster = self.cluster.read();
        cluster.taken_off.get(node).cloned().unwrap_or_default()
    }
    /// Whether it is nominated at `now`.
    #[must_use]
    pub fn is_nominated(&self, node: &str, now: Timestamp) -> bool {
        self.cluster.read().is_nominated(node, now)
    }
    /// Remembers that `claim` was made for `pods`: until it is launched or goes, its view carries them and
    /// [`Store::planned_claim`] names it, so that nothing is bought twice for them.
    pub fn plan(&self, claim: &str, pods: impl IntoIterator<Item = PodKey>) {
        self.cluster.write().plan(claim, pods);
    }
    /// The claim, not launched yet, that was made for a pod.
    #[must_use]
    pub fn planned_claim(&self, pod: &PodKey) -> Option<Arc<str>> {
        self.cluster.read().planned_claim(pod).cloned()
    }
    /// Grows whenever something happened that may make a consolidation possible that was not before: a pod bound or
    /// gone, a node or claim seen, initialized, marked or gone, a NodePool's spec changed.
    #[must_use]
    pub fn consolidation_generation(&self) -> u64 {
        self.cluster.read().consolidation_generation
    }
    /// Grows whenever something happened that may make a plan for the same pods come out differently: views of
    /// nodes and claims, marks, NodePools' specs and readiness, DaemonSets, LimitRanges, claims that pods use with their volumes and
    /// classes, volume limits, labels of namespaces, what buffers come to, NodeOverlays' specs. Pods that are bound nowhere and the
    /// catalogue are not in it.
    #[must_use]
    pub fn planning_generation(&self) -> u64 {
        self.cluster.write().planning_generation()
    }

    /// Reads the plain struct.
    pub(crate) fn read_cluster<R>(&self, read: impl FnOnce(&Cluster) -> R) -> R {
        read(&self.cluster.read())
    }
    /// Changes what no subscriber wants to hear of.
    pub(crate) fn with_cluster<R>(&self, change: impl FnOnce(&mut Cluster) -> R) -> R {
        change(&mut self.cluster.write())
    }

    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut Cluster) -> R) -> R {
        let (result, changes, versions, synced) = {
            let mut cluster = self.cluster.write();
            let result = change(&mut cluster);
            let mut needed = Kind::ALL.iter().chain(&self.besides);
            let synced = needed.all(|k| cluster.listed(*k));
            let changes = std::mem::take(&mut cluster.changes);
            let versions = std::mem::take(&mut cluster.node_versions);
            (result, changes, versions, synced)
        };
        if synced {
            self.synced
                .send_if_modified(|s| !std::mem::replace(s, true));
        }
        if !versions.is_empty() {
            self.node_subscribers
                .lock()
                .retain(|s| versions.iter().all(|v| s.send(v.clone()).is_ok()));
        }
        if !changes.is_empty() {
            self.subscribers
                .lock()
                .retain(|s| changes.iter().all(|c| s.send(c.clone()).is_ok()));
        }
        result
    }
}
