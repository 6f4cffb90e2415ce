//! Where a pod's PersistentVolumeClaims let it go, and what they take of a node's CSI limits (`scheduling.md` §2
//! "Volume limits" and §11). Of each storage object only what this needs is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    NodeSelectorRequirement, PersistentVolume, PersistentVolumeClaim, TopologySelectorTerm,
};
use k8s_openapi::api::storage::v1::{CSINode, StorageClass};
use karpenter_api::labels::HOSTNAME;

use crate::requirement::RequirementError;
use crate::{LabelRegistry, Pod, PodKey, Requirement, Requirements};

/// Driver of EBS volumes, whether their object names it or the plugin it replaced.
const EBS_DRIVER: &str = "ebs.csi.aws.com";
/// Set once a claim and its volume name each other.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Where a claim names its class if the field does not.
const LEGACY_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// Volume plugins that were part of Kubernetes, and the CSI drivers that took their place.
const MIGRATED: [(&str, &str); 7] = [
    ("kubernetes.io/aws-ebs", EBS_DRIVER),
    ("kubernetes.io/azure-disk", "disk.csi.azure.com"),
    ("kubernetes.io/azure-file", "file.csi.azure.com"),
    ("kubernetes.io/cinder", "cinder.csi.openstack.org"),
    ("kubernetes.io/gce-pd", "pd.csi.storage.gke.io"),
    ("kubernetes.io/portworx-volume", "pxd.portworx.com"),
    ("kubernetes.io/vsphere-volume", "csi.vsphere.vmware.com"),
];

/// Claims by the driver that attaches their volumes.
pub type Attached = BTreeMap<Arc<str>, BTreeSet<PodKey>>;

/// A PersistentVolumeClaim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// `spec.volumeName`.
    pub volume: Option<Arc<str>>,
    /// Whether the volume names the claim, too.
    pub bound: bool,
    /// Whether its volume is gone (phase `Lost`).
    pub lost: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Its StorageClass.
    pub class: Option<Arc<str>>,
}

impl From<&PersistentVolumeClaim> for Claim {
    fn from(raw: &PersistentVolumeClaim) -> Self {
        let annotation = |key| raw.metadata.annotations.as_ref()?.get(key);
        let spec = raw.spec.as_ref();
        let class = spec.and_then(|s| s.storage_class_name.as_ref());
        let phase = raw.status.as_ref().and_then(|s| s.phase.as_deref());
        Self {
            volume: filled(spec.and_then(|s| s.volume_name.as_ref())),
            bound: annotation(BIND_COMPLETED).is_some(),
            lost: phase == Some("Lost"),
            deleting: raw.metadata.deletion_timestamp.is_some(),
            class: filled(annotation(LEGACY_CLASS).or(class)),
        }
    }
}

/// A PersistentVolume.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Volume {
    /// CSI driver that attaches it; none if its kind is not limited.
    pub driver: Option<Arc<str>>,
    /// Terms of its node affinity, of which one has to hold. Those without expressions are left out; of a volume on
    /// a node's own disk the hostname is, because a machine of that name will not come back.
    pub terms: Vec<Vec<NodeSelectorRequirement>>,
    /// The claim it is meant for.
    pub claim: Option<PodKey>,
    /// Whether it is being deleted.
    pub deleting: bool,
}

impl From<&PersistentVolume> for Volume {
    fn from(raw: &PersistentVolume) -> Self {
        let spec = raw.spec.clone().unwrap_or_default();
        let csi = spec.csi.map(|csi| csi.driver.into());
        let ebs = spec.aws_elastic_block_store.map(|_| EBS_DRIVER.into());
        let own_disk = spec.local.is_some() || spec.host_path.is_some();
        let required = spec.node_affinity.and_then(|a| a.required);
        let terms = required.map(|r| r.node_selector_terms).unwrap_or_default();
        Self {
            driver: csi.or(ebs),
            claim: spec.claim_ref.map(|r| PodKey {
                namespace: r.namespace.unwrap_or_default().into(),
                name: r.name.unwrap_or_default().into(),
            }),
            terms: terms
                .into_iter()
                .filter_map(|t| t.match_expressions.filter(|e| !e.is_empty()))
                .map(|mut expressions| {
                    expressions.retain(|e| !(own_disk && e.key == HOSTNAME));
                    expressions
                })
                .collect(),
            deleting: raw.metadata.deletion_timestamp.is_some(),
        }
    }
}

/// A StorageClass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// Driver that will attach its volumes.
    pub driver: Arc<str>,
    /// Whether volumes are made before a pod has a node (`volumeBindingMode: Immediate`, or none).
    pub immediate: bool,
    /// Where volumes can be made: key and values, all of a term, one of the terms.
    pub topologies: Vec<Vec<(String, Vec<String>)>>,
}

impl From<&StorageClass> for Class {
    fn from(raw: &StorageClass) -> Self {
        let expressions = |term: &TopologySelectorTerm| -> Vec<_> {
            let all = term.match_label_expressions.iter().flatten();
            all.map(|e| (e.key.clone(), e.values.clone())).collect()
        };
        let terms = raw.allowed_topologies.iter().flatten().map(expressions);
        Self {
            driver: migrated(&raw.provisioner).into(),
            immediate: raw.volume_binding_mode.as_deref() != Some("WaitForFirstConsumer"),
            topologies: terms.filter(|t| !t.is_empty()).collect(),
        }
    }
}

/// Most volumes that can be attached to a node, by driver; drivers without a limit are left out.
pub type VolumeLimits = BTreeMap<Arc<str>, usize>;

/// The limits that a CSINode tells of.
#[must_use]
pub fn limits(raw: &CSINode) -> VolumeLimits {
    let limit = |d: &k8s_openapi::api::storage::v1::CSINodeDriver| {
        let count = d.allocatable.as_ref()?.count?;
        // A negative count is none that a driver means.
        Some((
            d.name.as_str().into(),
            usize::try_from(count).unwrap_or_default(),
        ))
    };
    raw.spec.drivers.iter().filter_map(limit).collect()
}

/// What is attached to a node and what can be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeRoom {
    /// Limits.
    pub limits: VolumeLimits,
    /// Claims of the pods that are on it.
    pub used: Attached,
}

/// Reads the storage objects of a cluster.
pub trait StorageObjects {
    /// A PersistentVolumeClaim.
    fn claim(&self, key: &PodKey) -> Option<Arc<Claim>>;
    /// A PersistentVolume.
    fn volume(&self, name: &str) -> Option<Arc<Volume>>;
    /// A StorageClass.
    fn class(&self, name: &str) -> Option<Arc<Class>>;
}

/// Why no plan can be made for a pod because of a claim of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PersistentVolumeClaim {claim}: {fault}")]
pub struct StorageRefusal {
    /// The claim.
    pub claim: PodKey,
    /// What is wrong with it.
    pub fault: StorageFault,
}

/// What is wrong with a claim.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageFault {
    /// No such claim.
    #[error("it does not exist")]
    Missing,
    /// It goes.
    #[error("it is being deleted")]
    Deleting,
    /// Its volume went.
    #[error("it has lost its volume (phase Lost)")]
    Lost,
    /// It names a volume that does not name it.
    #[error("it names PersistentVolume {0} but is not bound to it yet")]
    NotBound(Arc<str>),
    /// No such volume.
    #[error("its PersistentVolume {0} does not exist")]
    VolumeMissing(Arc<str>),
    /// The volume goes.
    #[error("its PersistentVolume {0} is being deleted")]
    VolumeDeleting(Arc<str>),
    /// Nobody will make a volume.
    #[error("it is not bound and names no StorageClass, so that no volume will be made for it")]
    NoClass,
    /// No such class.
    #[error("its StorageClass {0} does not exist")]
    ClassMissing(Arc<str>),
    /// Its volume is made whether or not there is a pod.
    #[error(
        "it is not bound, and StorageClass {0} binds at once (volumeBindingMode Immediate): where its volume will be is not known yet"
    )]
    Immediate(Arc<str>),
    /// A term of a node affinity that is no requirement.
    #[error("where its volume can be used cannot be read: {0}")]
    Requirement(#[from] RequirementError),
    /// Where this claim lets the pod go, another does not.
    #[error("its volume can be used in no place where the pod's other volumes can")]
    Disjoint,
}

/// What a pod's claims come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Storage {
    /// What nodes must be like, one of these; empty = whatever.
    pub alternatives: Vec<Requirements>,
    /// Volumes that will be attached.
    pub attached: Attached,
    /// Why no plan can be made for the pod.
    pub refusal: Option<StorageRefusal>,
}

impl Storage {
    /// Looks up the claims of `pod`; none if it has none.
    #[must_use]
    pub fn of(pod: &Pod, objects: &impl StorageObjects, labels: &LabelRegistry) -> Option<Self> {
        if pod.volumes.is_empty() {
            return None;
        }
        let mut storage = Self {
            attached: attached(pod, objects),
            ..Self::default()
        };
        for claim in pod.claims() {
            let alternatives = match places(&claim, objects, labels) {
                Ok(alternatives) => alternatives,
                Err(fault) => {
                    storage.refusal = Some(StorageRefusal { claim, fault });
                    break;
                }
            };
            if !storage.narrow(alternatives) {
                let fault = StorageFault::Disjoint;
                storage.refusal = Some(StorageRefusal { claim, fault });
                break;
            }
        }
        Some(storage)
    }

    /// Keeps of the places so far those that one of `more` has, too; false if there are none.
    fn narrow(&mut self, more: Vec<Requirements>) -> bool {
        if more.is_empty() {
            return true;
        }
        if self.alternatives.is_empty() {
            self.alternatives = more;
            return true;
        }
        let mut both: Vec<Requirements> = Vec::new();
        for a in &self.alternatives {
            for b in more.iter().filter(|b| a.does_intersect(b)) {
                let mut joined = a.clone();
                joined.add_all(b);
                if !both.contains(&joined) {
                    both.push(joined);
                }
            }
        }
        self.alternatives = both;
        !self.alternatives.is_empty()
    }
}

impl Pod {
    /// Its PersistentVolumeClaims, each once, in the order of its volumes.
    #[must_use]
    pub fn claims(&self) -> Vec<PodKey> {
        let mut keys: Vec<PodKey> = Vec::new();
        for volume in &self.volumes {
            let key = PodKey {
                namespace: self.key.namespace.clone(),
                name: volume.claim.clone(),
            };
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }
}

/// Volumes that are, or will be, attached for a pod. What is not known to be limited is not counted.
#[must_use]
pub fn attached(pod: &Pod, objects: &impl StorageObjects) -> Attached {
    let mut all = Attached::new();
    for key in pod.claims() {
        let Some(claim) = objects.claim(&key) else {
            continue;
        };
        let driver = match &claim.volume {
            Some(name) => objects.volume(name).and_then(|v| v.driver.clone()),
            None => (claim.class.as_deref())
                .and_then(|c| objects.class(c))
                .map(|c| c.driver.clone()),
        };
        if let Some(driver) = driver {
            all.entry(driver).or_default().insert(key);
        }
    }
    all
}

/// Where a claim's volume is or can be made; empty = anywhere.
fn places(
    key: &PodKey,
    objects: &impl StorageObjects,
    labels: &LabelRegistry,
) -> Result<Vec<Requirements>, StorageFault> {
    let claim = objects.claim(key).ok_or(StorageFault::Missing)?;
    if claim.deleting {
        return Err(StorageFault::Deleting);
    }
    if claim.lost {
        return Err(StorageFault::Lost);
    }
    if let Some(name) = &claim.volume {
        if !claim.bound {
            return Err(StorageFault::NotBound(name.clone()));
        }
        let volume = objects.volume(name);
        let volume = volume.ok_or_else(|| StorageFault::VolumeMissing(name.clone()))?;
        if volume.deleting {
            return Err(StorageFault::VolumeDeleting(name.clone()));
        }
        let term = |expressions: &Vec<NodeSelectorRequirement>| {
            let read = |e| Requirement::from_selector(e, labels);
            expressions.iter().map(read).collect::<Result<_, _>>()
        };
        let terms: Result<_, RequirementError> = volume.terms.iter().map(term).collect();
        return Ok(terms?);
    }
    let name = claim.class.clone().ok_or(StorageFault::NoClass)?;
    let class = objects.class(&name);
    let class = class.ok_or_else(|| StorageFault::ClassMissing(name.clone()))?;
    if class.immediate {
        return Err(StorageFault::Immediate(name));
    }
    let term = |expressions: &Vec<(String, Vec<String>)>| {
        let mut all = Requirements::new();
        for (key, values) in expressions {
            all.add(Requirement::is_in(labels.normalize(key), values));
        }
        all
    };
    Ok(class.topologies.iter().map(term).collect())
}

fn filled(text: Option<&String>) -> Option<Arc<str>> {
    text.filter(|t| !t.is_empty()).map(|t| t.as_str().into())
}

fn migrated(provisioner: &str) -> &str {
    let by_name = MIGRATED.iter().find(|(plugin, _)| *plugin == provisioner);
    by_name.map_or(provisioner, |(_, driver)| *driver)
}

#[cfg(test)]
mod tests;
