//! Capacity buffers (`scheduling.md` §13): what each of them comes to, computed from the objects that are there
//! whenever one of those changes. Nothing is carried over from a pass of some loop: a buffer that is gone, or being
//! deleted, has no chunks from that moment on.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{LimitRange, PodTemplate, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use karpenter_api::CapacityBuffer;
use karpenter_api::capacitybuffer::ScalableRef;
use karpenter_api::condition::capacity_buffer::reasons;
use karpenter_model::{ContainerDefaults, Pod, PodKey};
use kube::core::ObjectMeta;

use crate::Kind;
use crate::cluster::{Cluster, key_of, version_of};
use crate::table::{Step, Table, Version};

/// Most chunks of one buffer: limits of a petabyte over chunks of a megabyte are a typing error, not a wish.
pub const MAX_CHUNKS: usize = 10_000;

/// A workload, as far as buffers that refer to it look at it, and whom it selects.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    kind: Kind,
    key: PodKey,
    version: Version,
    replicas: i32,
    template: PodTemplateSpec,
    selector: LabelSelector,
}

impl Workload {
    fn new(
        kind: Kind,
        meta: &ObjectMeta,
        replicas: Option<i32>,
        template: Option<PodTemplateSpec>,
        selector: LabelSelector,
    ) -> Self {
        Self {
            kind,
            key: key_of(meta),
            version: version_of(meta),
            replicas: replicas.unwrap_or(1),
            template: template.unwrap_or_default(),
            selector,
        }
    }
}

impl From<Deployment> for Workload {
    fn from(from: Deployment) -> Self {
        let spec = from.spec.unwrap_or_default();
        let (replicas, template) = (spec.replicas, Some(spec.template));
        let (kind, meta) = (Kind::Deployment, &from.metadata);
        Self::new(kind, meta, replicas, template, spec.selector)
    }
}

impl From<StatefulSet> for Workload {
    fn from(from: StatefulSet) -> Self {
        let spec = from.spec.unwrap_or_default();
        let (replicas, template) = (spec.replicas, Some(spec.template));
        let (kind, meta) = (Kind::StatefulSet, &from.metadata);
        Self::new(kind, meta, replicas, template, spec.selector)
    }
}

impl From<ReplicaSet> for Workload {
    fn from(from: ReplicaSet) -> Self {
        let spec = from.spec.unwrap_or_default();
        let (replicas, template) = (spec.replicas, spec.template);
        let (kind, meta) = (Kind::ReplicaSet, &from.metadata);
        Self::new(kind, meta, replicas, template, spec.selector)
    }
}

/// What a buffer comes to.
#[derive(Clone, Debug)]
pub enum Resolution {
    /// It is known what a chunk looks like and how many there are.
    Ready(Chunks),
    /// It is not.
    NotReady {
        /// Reason of the condition `ReadyForProvisioning`.
        reason: &'static str,
        /// Text.
        message: String,
    },
}

/// The chunks of a buffer.
#[derive(Clone, Debug, Default)]
pub struct Chunks {
    /// Name and generation of the PodTemplate they are made from; none if a workload is what they look like.
    pub template: Option<(Arc<str>, Option<i64>)>,
    /// A virtual pod for each.
    pub pods: Vec<Arc<Pod>>,
    /// How many were asked for, if that is more than there may be ([`MAX_CHUNKS`]).
    pub asked: Option<i64>,
}

impl Resolution {
    /// Its chunks; none while it is not ready.
    #[must_use]
    pub fn pods(&self) -> &[Arc<Pod>] {
        match self {
            Self::Ready(chunks) => &chunks.pods,
            Self::NotReady { .. } => &[],
        }
    }
}

/// Where the chunks of a buffer found room in a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fit {
    /// Chunks on nodes that could take a pod now.
    pub there: usize,
    /// Chunks on nodes that are on their way, or to be bought.
    pub coming: usize,
    /// Chunks without a place.
    pub missing: usize,
    /// Why, for one of those.
    pub why: Option<String>,
}

/// All that is known about buffers.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    pub(crate) objects: Table<PodKey, CapacityBuffer>,
    pub(crate) templates: Table<PodKey, PodTemplate>,
    workloads: BTreeMap<Kind, Table<PodKey, Workload>>,
    resolved: BTreeMap<PodKey, Arc<Resolution>>,
    /// Of the last plan, as long as the chunks it was about are the present ones.
    fits: BTreeMap<PodKey, Fit>,
}

impl Buffers {
    pub(crate) fn workloads_listed(&self, kind: Kind) -> bool {
        self.workloads.get(&kind).is_some_and(|t| t.listed)
    }
    /// Whom a workload selects, by the name of its kind.
    pub(crate) fn selector(&self, kind: &str, key: &PodKey) -> Option<&LabelSelector> {
        let kind = match kind {
            "Deployment" => Kind::Deployment,
            "StatefulSet" => Kind::StatefulSet,
            "ReplicaSet" => Kind::ReplicaSet,
            _ => return None,
        };
        Some(&self.workloads.get(&kind)?.get(key)?.selector)
    }
    pub(crate) fn resolution(&self, buffer: &PodKey) -> Option<&Arc<Resolution>> {
        self.resolved.get(buffer)
    }
    pub(crate) fn fit(&self, buffer: &PodKey) -> Option<&Fit> {
        self.fits.get(buffer)
    }
    pub(crate) fn resolutions(&self) -> impl Iterator<Item = (&PodKey, &Arc<Resolution>)> {
        self.resolved.iter()
    }
    /// All chunks, in key order of the buffers.
    pub(crate) fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.resolved.values().flat_map(|r| r.pods())
    }

    fn resolve(&self, buffer: &CapacityBuffer, defaults: &ContainerDefaults) -> Resolution {
        match self.chunks(buffer, defaults) {
            Ok(chunks) => Resolution::Ready(chunks),
            Err((reason, message)) => Resolution::NotReady { reason, message },
        }
    }

    fn chunks(
        &self,
        buffer: &CapacityBuffer,
        defaults: &ContainerDefaults,
    ) -> Result<Chunks, (&'static str, String)> {
        let failed = |message: String| (reasons::RESOLUTION_FAILED, message);
        let place = |name: &str| PodKey {
            namespace: key_of(&buffer.metadata).namespace,
            name: name.into(),
        };
        let (template, spec, replicas) =
            match (&buffer.spec.pod_template_ref, &buffer.spec.scalable_ref) {
                (Some(reference), None) => {
                    let Some(found) = self.templates.get(&place(&reference.name)) else {
                        let message = format!("PodTemplate {:?} not found", reference.name);
                        return Err((reasons::POD_TEMPLATE_NOT_FOUND, message));
                    };
                    let named = (reference.name.as_str().into(), found.metadata.generation);
                    (Some(named), found.template.clone().unwrap_or_default(), 0)
                }
                (None, Some(reference)) => {
                    let kind = scalable(reference).map_err(failed)?;
                    let all = self.workloads.get(&kind);
                    let Some(found) = all.and_then(|t| t.get(&place(&reference.name))) else {
                        let message = format!("{} {:?} not found", reference.kind, reference.name);
                        return Err((reasons::SCALABLE_REF_NOT_FOUND, message));
                    };
                    (None, found.template.clone(), found.replicas)
                }
                (None, None) => {
                    return Err(failed(
                        "neither podTemplateRef nor scalableRef is set".to_owned(),
                    ));
                }
                (Some(_), Some(_)) => {
                    return Err(failed(
                        "podTemplateRef and scalableRef exclude each other".to_owned(),
                    ));
                }
            };
        let chunk = Pod::chunk(&spec, &buffer.metadata, defaults);
        if let Some(why) = &chunk.invalid {
            return Err(failed(format!("a chunk cannot be read: {why}")));
        }
        let each = chunk.requests.iter().map(|(name, q)| (name.to_owned(), q));
        let wanted = buffer.spec.chunks(&each.collect(), replicas);
        let count = usize::try_from(wanted).unwrap_or_default();
        Ok(Chunks {
            template,
            pods: (1..=count.min(MAX_CHUNKS))
                .map(|i| Arc::new(chunk.numbered(i)))
                .collect(),
            asked: (count > MAX_CHUNKS).then_some(wanted),
        })
    }
}

/// The kind of workload that is meant.
fn scalable(reference: &ScalableRef) -> Result<Kind, String> {
    let kind = match reference.kind.as_str() {
        "Deployment" => Kind::Deployment,
        "StatefulSet" => Kind::StatefulSet,
        "ReplicaSet" => Kind::ReplicaSet,
        _ => Kind::Catalog,
    };
    if kind == Kind::Catalog || !matches!(reference.api_group.as_str(), "" | "apps") {
        return Err(format!(
            "scalableRef: expected a Deployment, StatefulSet or ReplicaSet of group apps, got {} of group {:?}",
            reference.kind, reference.api_group
        ));
    }
    Ok(kind)
}

impl Cluster {
    pub(crate) fn apply_workload(&mut self, workload: Workload) {
        let (kind, key, version) = (workload.kind, workload.key.clone(), workload.version);
        let table = self.buffers.workloads.entry(kind).or_default();
        if let Some(step) = table.apply(key, version, || workload) {
            self.workload_changed(kind, &step);
        }
    }
    pub(crate) fn delete_workload(&mut self, workload: &Workload) {
        let table = self.buffers.workloads.entry(workload.kind).or_default();
        if let Some(step) = table.delete(workload.key.clone(), workload.version) {
            self.workload_changed(workload.kind, &step);
        }
    }
    pub(crate) fn reset_workloads(&mut self, kind: Kind, all: Vec<Workload>, list: Version) {
        let table = self.buffers.workloads.entry(kind).or_default();
        let rows = all
            .into_iter()
            .map(|w| (w.key.clone(), w.version, w))
            .collect();
        for step in table.reset(list, rows) {
            self.workload_changed(kind, &step);
        }
    }

    /// Statuses and annotations of workloads change all the time; chunks only look at these two.
    fn workload_changed(&mut self, kind: Kind, step: &Step<PodKey, Workload>) {
        let selects = |w: &Option<Arc<Workload>>| w.as_ref().map(|w| w.selector.clone());
        if self.spread.has_defaults() && selects(&step.before) != selects(&step.after) {
            self.plans_differ();
        }
        let seen = |w: &Option<Arc<Workload>>| w.as_ref().map(|w| (w.replicas, w.template.clone()));
        if seen(&step.before) == seen(&step.after) {
            return;
        }
        self.resolve_where(&step.key.namespace, |buffer| {
            buffer
                .spec
                .scalable_ref
                .as_ref()
                .is_some_and(|r| r.name == *step.key.name && scalable(r).is_ok_and(|k| k == kind))
        });
    }

    pub(crate) fn template_changed(&mut self, step: Step<PodKey, PodTemplate>) {
        self.resolve_where(&step.key.namespace, |buffer| {
            let reference = buffer.spec.pod_template_ref.as_ref();
            reference.is_some_and(|r| r.name == *step.key.name)
        });
    }

    pub(crate) fn limit_range_changed(&mut self, step: Step<PodKey, LimitRange>) {
        let spec = |r: &Option<Arc<LimitRange>>| r.as_ref().map(|r| r.spec.clone());
        if spec(&step.before) != spec(&step.after) {
            // DaemonSets of the namespace ask for something else on nodes to come.
            self.plans_differ();
            self.resolve_where(&step.key.namespace, |_| true);
        }
    }

    pub(crate) fn buffer_changed(&mut self, step: Step<PodKey, CapacityBuffer>) {
        let seen = |b: &Option<Arc<CapacityBuffer>>| {
            b.as_ref().map(|b| {
                let meta = &b.metadata;
                let deleting = meta.deletion_timestamp.is_some();
                (b.spec.clone(), deleting, meta.uid.clone())
            })
        };
        if seen(&step.before) == seen(&step.after) {
            // Its status: the loop that writes it wants to know, plans do not care.
            self.note(Kind::CapacityBuffer, &step.key, false);
        } else {
            self.resolve(&step.key);
        }
    }

    fn resolve_where(&mut self, namespace: &str, concerned: impl Fn(&CapacityBuffer) -> bool) {
        let objects = self.buffers.objects.iter();
        let keys: Vec<PodKey> = objects
            .filter(|(key, buffer)| &*key.namespace == namespace && concerned(buffer))
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.resolve(&key);
        }
    }

    /// Works out anew what a buffer comes to.
    fn resolve(&mut self, key: &PodKey) {
        let held = self.buffers.objects.get(key).cloned();
        let live = held
            .as_ref()
            .filter(|b| b.metadata.deletion_timestamp.is_none());
        let now = live.map(|buffer| {
            let defaults = self.container_defaults(&key.namespace);
            Arc::new(self.buffers.resolve(buffer, &defaults))
        });
        let empty = |r: Option<&Arc<Resolution>>| r.is_none_or(|r| r.pods().is_empty());
        let idle = empty(now.as_ref()) && empty(self.buffers.resolved.get(key));
        match now {
            Some(now) => self.buffers.resolved.insert(key.clone(), now),
            None => self.buffers.resolved.remove(key),
        };
        self.buffers.fits.remove(key);
        if !idle {
            self.plans_differ();
        }
        self.note(Kind::CapacityBuffer, key, held.is_none());
    }

    /// What LimitRanges of a namespace give containers.
    pub(crate) fn container_defaults(&self, namespace: &str) -> ContainerDefaults {
        let here = self.limit_ranges.iter();
        let here = here.filter(|(key, _)| &*key.namespace == namespace);
        ContainerDefaults::of(here.map(|(_, range)| &**range))
    }

    /// Takes note of where the chunks of all buffers found room. A buffer whose chunks are not those of the plan any
    /// more (`planned` says for which it was made) keeps none.
    pub(crate) fn set_fits(&mut self, fits: BTreeMap<PodKey, (Arc<Resolution>, Fit)>) {
        for (key, (planned, fit)) in fits {
            let present = self.buffers.resolved.get(&key);
            if !present.is_some_and(|r| Arc::ptr_eq(r, &planned)) {
                continue;
            }
            if self.buffers.fits.get(&key) != Some(&fit) {
                self.buffers.fits.insert(key.clone(), fit);
                self.note(Kind::CapacityBuffer, &key, false);
            }
        }
    }
}
