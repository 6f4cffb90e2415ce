//! The cluster as a plain struct that watch events are applied to, with cheap snapshots for decisions. No I/O.
//!
//! [`Store`] is the shared handle: reflectors (and controllers, after a write of their own) feed it objects,
//! loops read it and subscribe to its changes. An object older than the one held (by resourceVersion) is ignored,
//! so that events may come in any order and a controller sees its own writes at once.

use std::sync::Arc;

mod buffers;
mod cluster;
mod daemons;
mod leaving;
mod namespaces;
mod plans;
mod spread;
mod standing;
mod storage;
mod store;
mod table;
mod taken_off;
mod verdicts;
mod view;
mod watched;

pub use buffers::{Chunks, Fit, MAX_CHUNKS, Resolution, Workload};
pub use leaving::condition_is_true;
pub use standing::{PoolCount, Reservation, Standing};
pub use store::Store;
pub use verdicts::Verdict;
pub use watched::Watched;

/// Kinds of objects the state holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// core/v1 Pod, held as [`karpenter_model::Pod`].
    Pod,
    /// core/v1 Node.
    Node,
    /// NodeClaim.
    NodeClaim,
    /// NodePool.
    NodePool,
    /// The provider's NodeClass.
    NodeClass,
    /// apps/v1 DaemonSet.
    DaemonSet,
    /// policy/v1 PodDisruptionBudget.
    PodDisruptionBudget,
    /// storage.k8s.io VolumeAttachment.
    VolumeAttachment,
    /// core/v1 PersistentVolumeClaim, held as [`karpenter_model::storage::Claim`].
    PersistentVolumeClaim,
    /// core/v1 PersistentVolume, held as [`karpenter_model::storage::Volume`].
    PersistentVolume,
    /// storage.k8s.io StorageClass, held as [`karpenter_model::storage::Class`].
    StorageClass,
    /// storage.k8s.io CSINode, held as [`karpenter_model::storage::VolumeLimits`].
    CSINode,
    /// core/v1 Namespace, of which only the labels are held.
    Namespace,
    /// core/v1 LimitRange.
    LimitRange,
    /// CapacityBuffer; also: what one comes to, or where its chunks found room.
    CapacityBuffer,
    /// NodeOverlay.
    NodeOverlay,
    /// core/v1 PodTemplate.
    PodTemplate,
    /// apps/v1 Deployment, held as [`Workload`].
    Deployment,
    /// apps/v1 StatefulSet, held as [`Workload`].
    StatefulSet,
    /// apps/v1 ReplicaSet, held as [`Workload`].
    ReplicaSet,
    /// core/v1 Service, of which only the selector is held.
    Service,
    /// core/v1 ReplicationController, of which only the selector is held.
    ReplicationController,
    /// No object: what the provider sells, or for how much.
    Catalog,
}

impl Kind {
    /// The kinds without which nothing can be decided; a state is synced once each of them was listed. LimitRanges are
    /// not among them: a role that lacks them must not stop the controller.
    pub const ALL: [Self; 13] = [
        Self::Pod,
        Self::Node,
        Self::NodeClaim,
        Self::NodePool,
        Self::NodeClass,
        Self::DaemonSet,
        Self::PodDisruptionBudget,
        Self::VolumeAttachment,
        Self::PersistentVolumeClaim,
        Self::PersistentVolume,
        Self::StorageClass,
        Self::CSINode,
        Self::Namespace,
    ];
    /// The kinds that capacity buffers need besides.
    pub const OF_BUFFERS: [Self; 5] = [
        Self::CapacityBuffer,
        Self::PodTemplate,
        Self::Deployment,
        Self::StatefulSet,
        Self::ReplicaSet,
    ];
    /// The kind that overlays need besides.
    pub const OF_OVERLAYS: [Self; 1] = [Self::NodeOverlay];
    /// The kinds that tell whom the cluster's default topology spread is about.
    pub const OF_SPREAD_DEFAULTS: [Self; 4] = [
        Self::Service,
        Self::ReplicationController,
        Self::ReplicaSet,
        Self::StatefulSet,
    ];
}

/// One change of one object, as subscribers see it. Read the store for the object itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Kind.
    pub kind: Kind,
    /// Namespace, empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Whether it is gone.
    pub deleted: bool,
}
