//! The plain struct behind the store: tables of objects, the indexes over them, and what is known in memory only.
//! Every change goes through an `apply_`, `delete_` or `reset_` and ends up in `changes` for the subscribers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{LimitRange, Node, PodTemplate};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use karpenter_api::{CapacityBuffer, NodeClaim, NodeOverlay, NodePool, labels};
use karpenter_model::{Namespaces, NodeView, Pod, PodKey};
use kube::core::{DynamicObject, ObjectMeta};

use crate::buffers::Buffers;
use crate::daemons::LivePods;
use crate::leaving::{claim_is_leaving, condition_is_true, node_is_leaving};
use crate::plans::Plans;
use crate::spread::SpreadTables;
use crate::standing::pool_of;
use crate::storage::StorageTables;
use crate::table::{Step, Table, Version, version};
use crate::verdicts::Verdicts;
use crate::view::{self, Entity};
use crate::{Changed, Kind};

/// A cluster-scoped object's key.
type Name = Arc<str>;

#[derive(Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) pods: Table<PodKey, Pod>,
    pub(crate) nodes: Table<Name, Node>,
    pub(crate) claims: Table<Name, NodeClaim>,
    pub(crate) pools: Table<Name, NodePool>,
    pub(crate) classes: Table<Name, DynamicObject>,
    pub(crate) daemon_sets: Table<PodKey, DaemonSet>,
    pub(crate) budgets: Table<PodKey, PodDisruptionBudget>,
    pub(crate) attachments: Table<Name, VolumeAttachment>,
    pub(crate) limit_ranges: Table<PodKey, LimitRange>,
    pub(crate) overlays: Table<Name, NodeOverlay>,
    pub(crate) buffers: Buffers,
    pub(crate) storage: StorageTables,
    pub(crate) spread: SpreadTables,
    pub(crate) namespaces: Table<Name, BTreeMap<String, String>>,
    /// All of them, until one changes.
    pub(crate) labels_of_namespaces: Option<Arc<Namespaces>>,

    /// Pods of DaemonSets.
    pub(crate) live: LivePods,
    pods_by_node: BTreeMap<Name, BTreeSet<PodKey>>,
    plans: Plans,
    pub(crate) verdicts: Verdicts,
    nodes_by_provider: BTreeMap<String, BTreeSet<Name>>,
    claims_by_provider: BTreeMap<String, BTreeSet<Name>>,
    pub(crate) claims_by_pool: BTreeMap<String, BTreeSet<Name>>,

    /// Claims that are to go although their objects do not say so yet.
    marked: BTreeSet<Name>,
    /// Claims that are to go once what replaces them, which may not exist yet, is ready.
    pub(crate) pending_disruption: BTreeSet<Name>,
    /// Places kept for claims that are being created, by pool.
    pub(crate) reserved: BTreeMap<Name, usize>,
    /// Taints (key and effect) that somebody took off a Node before it registered.
    pub(crate) taken_off: BTreeMap<Name, BTreeSet<(String, String)>>,
    /// Node (or claim) name to the end of its nomination.
    nominated: BTreeMap<Name, Timestamp>,
    /// Counts what may make a consolidation possible that was not before.
    pub(crate) consolidation_generation: u64,

    views: BTreeMap<Entity, Arc<NodeView>>,
    /// Those of the views whose machine is leaving.
    leaving: BTreeSet<Entity>,
    /// Views to be built anew, and to be asked anew whether they leave.
    dirty: BTreeSet<Entity>,
    /// Counts what may make a plan come out differently; heartbeats and the like do not.
    planning_generation: u64,
    pub(crate) changes: Vec<Changed>,
    /// Versions of Nodes since they were last told of.
    pub(crate) node_versions: Vec<Arc<Node>>,
}

/// Name of an object, for a table of cluster-scoped ones.
pub(crate) fn name_of(meta: &ObjectMeta) -> Name {
    meta.name.as_deref().unwrap_or_default().into()
}

/// Namespace and name of an object.
pub(crate) fn key_of(meta: &ObjectMeta) -> PodKey {
    PodKey {
        namespace: meta.namespace.as_deref().unwrap_or_default().into(),
        name: name_of(meta),
    }
}

pub(crate) fn version_of(meta: &ObjectMeta) -> Version {
    version(meta.resource_version.as_deref())
}

fn provider_id_of(node: &Node) -> &str {
    node.spec
        .as_ref()
        .and_then(|s| s.provider_id.as_deref())
        .unwrap_or_default()
}

fn add_to(index: &mut BTreeMap<String, BTreeSet<Name>>, id: &str, name: &Name) {
    if !id.is_empty() {
        index.entry(id.to_owned()).or_default().insert(name.clone());
    }
}

fn remove_from(index: &mut BTreeMap<String, BTreeSet<Name>>, id: &str, name: &str) {
    if let Some(names) = index.get_mut(id) {
        names.remove(name);
        if names.is_empty() {
            index.remove(id);
        }
    }
}

/// The three ways into a table whose changes need an index kept or only noted.
macro_rules! feeds {
    ($($table:ident).+: $key:ty, $obj:ty, $keyed:ident, $after:ident; $apply:ident, $delete:ident, $reset:ident) => {
        pub(crate) fn $apply(&mut self, object: $obj) {
            let (key, version) = ($keyed(&object.metadata), version_of(&object.metadata));
            if let Some(step) = self.$($table).+.apply(key, version, || object) {
                self.$after(step);
            }
        }
        pub(crate) fn $delete(&mut self, key: $key, version: Version) {
            if let Some(step) = self.$($table).+.delete(key, version) {
                self.$after(step);
            }
        }
        pub(crate) fn $reset(&mut self, objects: Vec<$obj>, list: Version) {
            let rows = objects
                .into_iter()
                .map(|o| ($keyed(&o.metadata), version_of(&o.metadata), o))
                .collect();
            for step in self.$($table).+.reset(list, rows) {
                self.$after(step);
            }
        }
    };
}

impl Cluster {
    feeds!(nodes: Name, Node, name_of, node_changed; apply_node, delete_node, reset_nodes);
    feeds!(claims: Name, NodeClaim, name_of, claim_changed; apply_claim, delete_claim, reset_claims);
    feeds!(pools: Name, NodePool, name_of, pool_changed; apply_pool, delete_pool, reset_pools);
    feeds!(classes: Name, DynamicObject, name_of, class_changed; apply_class, delete_class, reset_classes);
    feeds!(daemon_sets: PodKey, DaemonSet, key_of, daemon_set_changed; apply_daemon_set, delete_daemon_set, reset_daemon_sets);
    feeds!(budgets: PodKey, PodDisruptionBudget, key_of, budget_changed; apply_budget, delete_budget, reset_budgets);
    feeds!(attachments: Name, VolumeAttachment, name_of, attachment_changed; apply_attachment, delete_attachment, reset_attachments);
    feeds!(limit_ranges: PodKey, LimitRange, key_of, limit_range_changed; apply_limit_range, delete_limit_range, reset_limit_ranges);
    feeds!(overlays: Name, NodeOverlay, name_of, overlay_changed; apply_overlay, delete_overlay, reset_overlays);
    feeds!(buffers.objects: PodKey, CapacityBuffer, key_of, buffer_changed; apply_buffer, delete_buffer, reset_buffers);
    feeds!(buffers.templates: PodKey, PodTemplate, key_of, template_changed; apply_template, delete_template, reset_templates);

    pub(crate) fn apply_pod(&mut self, pod: &k8s_openapi::api::core::v1::Pod) {
        let (key, version) = (key_of(&pod.metadata), version_of(&pod.metadata));
        if let Some(step) = self.pods.apply(key, version, || Pod::from_k8s(pod)) {
            self.pod_changed(step);
        }
    }
    pub(crate) fn delete_pod(&mut self, key: PodKey, version: Version) {
        if let Some(step) = self.pods.delete(key, version) {
            self.pod_changed(step);
        }
    }
    pub(crate) fn reset_pods(&mut self, pods: &[k8s_openapi::api::core::v1::Pod], list: Version) {
        let rows = pods
            .iter()
            .map(|p| {
                (
                    key_of(&p.metadata),
                    version_of(&p.metadata),
                    Pod::from_k8s(p),
                )
            })
            .collect();
        for step in self.pods.reset(list, rows) {
            self.pod_changed(step);
        }
    }

    /// A plan, and with it a consolidation, may come out differently from now on.
    pub(crate) fn plans_differ(&mut self) {
        self.consolidation_generation += 1;
        self.planning_generation += 1;
    }

    pub(crate) fn note(&mut self, kind: Kind, key: &PodKey, deleted: bool) {
        self.changes.push(Changed {
            kind,
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            deleted,
        });
    }
    pub(crate) fn note_name(&mut self, kind: Kind, name: &Name, deleted: bool) {
        self.changes.push(Changed {
            kind,
            namespace: "".into(),
            name: name.clone(),
            deleted,
        });
    }

    fn pod_changed(&mut self, step: Step<PodKey, Pod>) {
        let (before, after) = (step.before.as_deref(), step.after.as_deref());
        self.storage.pod_changed(before, after);
        self.live.pod_changed(before, after);
        let node = |p: &Option<Arc<Pod>>| p.as_ref().and_then(|p| p.node_name.clone());
        let (old, new) = (node(&step.before), node(&step.after));
        if old != new {
            if let Some(old) = &old
                && let Some(pods) = self.pods_by_node.get_mut(old)
            {
                pods.remove(&step.key);
                if pods.is_empty() {
                    self.pods_by_node.remove(old);
                }
            }
            if let Some(new) = &new {
                self.pods_by_node
                    .entry(new.clone())
                    .or_default()
                    .insert(step.key.clone());
                self.consolidation_generation += 1;
            }
        }
        let waits = after.is_some_and(|p| p.is_provisionable() && p.is_active());
        self.plans.waits(&step.key, waits);
        let replaced = match (&step.before, &step.after) {
            (Some(b), Some(a)) => b.uid != a.uid,
            (Some(_), None) => true,
            _ => false,
        };
        if replaced {
            self.consolidation_generation += 1;
            self.verdicts.forget(&step.key);
        }
        if replaced || (old != new && new.is_some()) {
            self.unplan(&step.key);
        } else if let Some(claim) = self.plans.claim_of(&step.key) {
            self.dirty.insert(Entity::Claim(claim.clone()));
        }
        for name in [old, new].into_iter().flatten() {
            self.touch_node(&name);
        }
        self.note(Kind::Pod, &step.key, step.after.is_none());
    }

    fn node_changed(&mut self, step: Step<Name, Node>) {
        let id = |n: &Option<Arc<Node>>| {
            n.as_deref()
                .map(provider_id_of)
                .unwrap_or_default()
                .to_owned()
        };
        let (old, new) = (id(&step.before), id(&step.after));
        if old != new {
            remove_from(&mut self.nodes_by_provider, &old, &step.key);
            add_to(&mut self.nodes_by_provider, &new, &step.key);
        }
        let initialized = |n: &Option<Arc<Node>>| {
            n.as_ref()
                .map(|n| view::has_label(&n.metadata, labels::INITIALIZED))
        };
        let deleting = |n: &Option<Arc<Node>>| n.as_ref().map(|n| node_is_leaving(n));
        if initialized(&step.before) != initialized(&step.after)
            || deleting(&step.before) != deleting(&step.after)
        {
            self.plans_differ();
        }
        if step.after.is_none() {
            self.nominated.remove(&step.key);
        }
        self.note_taken_off(&step);
        self.limits_of_node_matter(&step.key);
        self.dirty.insert(Entity::Node(step.key.clone()));
        self.touch_provider(&old);
        self.touch_provider(&new);
        self.note_name(Kind::Node, &step.key, step.after.is_none());
        self.node_versions.extend(step.after);
    }

    fn claim_changed(&mut self, step: Step<Name, NodeClaim>) {
        let id = |c: &Option<Arc<NodeClaim>>| {
            c.as_ref()
                .map(|c| c.status.provider_id.clone())
                .unwrap_or_default()
        };
        let (old, new) = (id(&step.before), id(&step.after));
        if old != new {
            remove_from(&mut self.claims_by_provider, &old, &step.key);
            add_to(&mut self.claims_by_provider, &new, &step.key);
        }
        let pool = |c: &Option<Arc<NodeClaim>>| {
            let pool = c.as_deref().and_then(pool_of);
            pool.unwrap_or_default().to_owned()
        };
        let (old_pool, new_pool) = (pool(&step.before), pool(&step.after));
        if old_pool != new_pool {
            remove_from(&mut self.claims_by_pool, &old_pool, &step.key);
            add_to(&mut self.claims_by_pool, &new_pool, &step.key);
        }
        let leaving = |c: &Option<Arc<NodeClaim>>| c.as_ref().map(|c| claim_is_leaving(c));
        if leaving(&step.before) != leaving(&step.after) {
            self.plans_differ();
        }
        // A plan holds while the claim has no machine yet; after that its Node is what is planned with.
        if !new.is_empty() || leaving(&step.after) != Some(false) {
            self.plans.forget(&step.key);
        }
        if step.after.is_none() {
            self.marked.remove(&step.key);
            self.pending_disruption.remove(&step.key);
            self.nominated.remove(&step.key);
        }
        self.dirty.insert(Entity::Claim(step.key.clone()));
        self.touch_provider(&old);
        self.touch_provider(&new);
        self.note_name(Kind::NodeClaim, &step.key, step.after.is_none());
    }

    fn pool_changed(&mut self, step: Step<Name, NodePool>) {
        let generation = |p: &Option<Arc<NodePool>>| p.as_ref().map(|p| p.metadata.generation);
        let usable = |p: &Option<Arc<NodePool>>| {
            p.as_ref().map(|p| {
                let ready = condition_is_true(&p.status.conditions, "Ready");
                (ready, p.metadata.deletion_timestamp.is_some())
            })
        };
        let edited = generation(&step.before) != generation(&step.after);
        if edited {
            self.consolidation_generation += 1;
        }
        if edited || usable(&step.before) != usable(&step.after) {
            self.planning_generation += 1;
        }
        self.note_name(Kind::NodePool, &step.key, step.after.is_none());
    }
    /// Prices and resources of what can be bought are different ones; what is said in a status changes nothing.
    fn overlay_changed(&mut self, step: Step<Name, NodeOverlay>) {
        let counts = |o: &Option<Arc<NodeOverlay>>| {
            let present = o
                .as_ref()
                .filter(|o| o.metadata.deletion_timestamp.is_none());
            present.map(|o| o.spec.clone())
        };
        if counts(&step.before) != counts(&step.after) {
            self.plans_differ();
        }
        self.note_name(Kind::NodeOverlay, &step.key, step.after.is_none());
    }
    fn class_changed(&mut self, step: Step<Name, DynamicObject>) {
        self.note_name(Kind::NodeClass, &step.key, step.after.is_none());
    }
    fn daemon_set_changed(&mut self, step: Step<PodKey, DaemonSet>) {
        let spec = |d: &Option<Arc<DaemonSet>>| d.as_ref().map(|d| d.metadata.generation);
        if spec(&step.before) != spec(&step.after) {
            self.planning_generation += 1;
        }
        self.note(Kind::DaemonSet, &step.key, step.after.is_none());
    }
    fn budget_changed(&mut self, step: Step<PodKey, PodDisruptionBudget>) {
        self.note(Kind::PodDisruptionBudget, &step.key, step.after.is_none());
    }
    fn attachment_changed(&mut self, step: Step<Name, VolumeAttachment>) {
        self.note_name(Kind::VolumeAttachment, &step.key, step.after.is_none());
    }

    /// Views to be built anew because something about a node changed.
    pub(crate) fn touch_node(&mut self, name: &Name) {
        self.dirty.insert(Entity::Node(name.clone()));
        let id = self.nodes.get(name).map(|n| provider_id_of(n).to_owned());
        self.touch_provider(&id.unwrap_or_default());
    }
    fn touch_provider(&mut self, id: &str) {
        let claims = self.claims_by_provider.get(id).into_iter().flatten();
        let nodes = self.nodes_by_provider.get(id).into_iter().flatten();
        self.dirty.extend(claims.cloned().map(Entity::Claim));
        self.dirty.extend(nodes.cloned().map(Entity::Node));
    }

    pub(crate) fn claims_of_provider(&self, id: &str) -> impl Iterator<Item = &Arc<NodeClaim>> {
        self.claims_by_provider
            .get(id)
            .into_iter()
            .flatten()
            .filter_map(|n| self.claims.get(n))
    }
    pub(crate) fn nodes_of_provider(&self, id: &str) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes_by_provider
            .get(id)
            .into_iter()
            .flatten()
            .filter_map(|n| self.nodes.get(n))
    }
    pub(crate) fn pods_on(&self, node: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods_by_node
            .get(node)
            .into_iter()
            .flatten()
            .filter_map(|k| self.pods.get(k))
    }
    pub(crate) fn pods_planned_for(&self, claim: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.plans.pods_of(claim).filter_map(|k| self.pods.get(k))
    }

    pub(crate) fn provisionable(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.plans.waiting().filter_map(|k| self.pods.get(k))
    }

    pub(crate) fn unplanned(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.plans.unplanned().filter_map(|k| self.pods.get(k))
    }

    pub(crate) fn mark(&mut self, claim: &str) -> bool {
        let name: Name = claim.into();
        let new = self.marked.insert(name.clone());
        if new {
            self.plans_differ();
            self.dirty.insert(Entity::Claim(name.clone()));
            self.note_name(Kind::NodeClaim, &name, false);
        }
        new
    }
    pub(crate) fn catalog_changed(&mut self) {
        self.consolidation_generation += 1;
        self.note_name(Kind::Catalog, &"".into(), false);
    }
    pub(crate) fn unmark(&mut self, claim: &str) {
        if self.marked.remove(claim) {
            let name: Name = claim.into();
            self.plans_differ();
            self.dirty.insert(Entity::Claim(name.clone()));
            self.note_name(Kind::NodeClaim, &name, false);
        }
    }
    pub(crate) fn is_marked(&self, claim: &str) -> bool {
        self.marked.contains(claim)
    }
    pub(crate) fn set_pending_disruption(&mut self, claim: &str, pending: bool) {
        if pending {
            if self.claims.get(claim).is_some() {
                self.pending_disruption.insert(claim.into());
            }
        } else if self.pending_disruption.remove(claim) {
            // Its pool may have one too many now; that it is about to be replaced is no news to anybody.
            self.note_name(Kind::NodeClaim, &claim.into(), false);
        }
    }
    /// Whether the claim is leaving; one that is not known has left.
    pub(crate) fn is_leaving(&self, claim: &str) -> bool {
        self.marked.contains(claim) || self.claims.get(claim).is_none_or(|c| claim_is_leaving(c))
    }
    fn entity_is_leaving(&self, entity: &Entity) -> bool {
        match entity {
            Entity::Claim(name) => self.is_leaving(name),
            Entity::Node(name) => self.nodes.get(name).is_none_or(|n| node_is_leaving(n)),
        }
    }

    pub(crate) fn nominate(&mut self, node: &str, until: Timestamp) {
        let end = self.nominated.entry(node.into()).or_insert(until);
        *end = until.max(*end);
    }
    pub(crate) fn is_nominated(&self, node: &str, now: Timestamp) -> bool {
        self.nominated.get(node).is_some_and(|until| *until > now)
    }

    /// Remembers that `claim` was made for `pods`, as long as it is neither launched nor leaving.
    pub(crate) fn plan(&mut self, claim: &str, pods: impl IntoIterator<Item = PodKey>) {
        let launchable = self
            .claims
            .get(claim)
            .is_some_and(|c| c.status.provider_id.is_empty() && !claim_is_leaving(c));
        if !launchable {
            return;
        }
        let name: Name = claim.into();
        for pod in pods {
            if self.pods.get(&pod).is_none() {
                continue;
            }
            self.unplan(&pod);
            self.plans.plan(pod, &name);
        }
        self.dirty.insert(Entity::Claim(name));
    }
    fn unplan(&mut self, pod: &PodKey) {
        if let Some(claim) = self.plans.unplan(pod) {
            self.dirty.insert(Entity::Claim(claim));
        }
    }
    pub(crate) fn planned_claim(&self, pod: &PodKey) -> Option<&Name> {
        self.plans.claim_of(pod)
    }

    /// Brings the views up to date and returns them, unmanaged nodes after claims, each in name order.
    pub(crate) fn views(&mut self) -> &BTreeMap<Entity, Arc<NodeView>> {
        for entity in std::mem::take(&mut self.dirty) {
            let new = view::build(self, &entity).map(Arc::new);
            if new.is_some() && self.entity_is_leaving(&entity) {
                self.leaving.insert(entity.clone());
            } else {
                self.leaving.remove(&entity);
            }
            let old = match &new {
                Some(view) => self.views.insert(entity, view.clone()),
                None => self.views.remove(&entity),
            };
            let same = match (&old, &new) {
                (Some(old), Some(new)) => view::plan_alike(old, new),
                (None, None) => true,
                _ => false,
            };
            if !same {
                self.planning_generation += 1;
            }
        }
        &self.views
    }
    pub(crate) fn planning_generation(&mut self) -> u64 {
        self.views();
        self.planning_generation
    }
    /// The views of machines that stay, as of the last [`Cluster::views`].
    pub(crate) fn staying(&self) -> impl Iterator<Item = &Arc<NodeView>> {
        let stays = |(entity, _): &(&Entity, _)| !self.leaving.contains(entity);
        self.views.iter().filter(stays).map(|(_, view)| view)
    }
    /// The views of machines that leave, as of the last [`Cluster::views`].
    pub(crate) fn leaving(&self) -> impl Iterator<Item = &Arc<NodeView>> {
        self.leaving.iter().filter_map(|e| self.views.get(e))
    }
    /// Of those the ones that are marked only: what was said can still be taken back.
    pub(crate) fn marked(&self) -> impl Iterator<Item = &Arc<NodeView>> {
        self.leaving().filter(|view| {
            let claim = view.node_claim.as_ref().and_then(|c| self.claims.get(c));
            claim.is_some_and(|c| !claim_is_leaving(c))
        })
    }

    pub(crate) fn listed(&self, kind: Kind) -> bool {
        match kind {
            Kind::Pod => self.pods.listed,
            Kind::Node => self.nodes.listed,
            Kind::NodeClaim => self.claims.listed,
            Kind::NodePool => self.pools.listed,
            Kind::NodeClass => self.classes.listed,
            Kind::DaemonSet => self.daemon_sets.listed,
            Kind::PodDisruptionBudget => self.budgets.listed,
            Kind::Catalog => true,
            Kind::VolumeAttachment => self.attachments.listed,
            Kind::LimitRange => self.limit_ranges.listed,
            Kind::Namespace => self.namespaces.listed,
            Kind::NodeOverlay => self.overlays.listed,
            Kind::PersistentVolumeClaim
            | Kind::PersistentVolume
            | Kind::StorageClass
            | Kind::CSINode => self.storage.listed(kind),
            Kind::Service => self.spread.services_listed(),
            Kind::ReplicationController => self.spread.controllers_listed(),
            Kind::CapacityBuffer => self.buffers.objects.listed,
            Kind::PodTemplate => self.buffers.templates.listed,
            Kind::Deployment | Kind::StatefulSet | Kind::ReplicaSet => {
                self.buffers.workloads_listed(kind)
            }
        }
    }
}
