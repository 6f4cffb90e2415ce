//! The cluster as a plain struct that watch events are applied to, with cheap snapshots for decisions. No I/O.
//!
//! [`Store`] is the shared handle: reflectors (and controllers, after a write of their own) feed it objects,
//! loops read it and subscribe to its changes. An object older than the one held (by resourceVersion) is ignored,
//! so that events may come in any order and a controller sees its own writes at once.

use std::sync::Arc;

mod cluster;
mod daemons;
mod leaving;
mod standing;
mod store;
mod table;
mod view;
mod watched;

pub use leaving::condition_is_true;
pub use standing::{PoolCount, Reservation, Standing};
pub use store::Store;
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
    /// No object: what the provider sells, or for how much.
    Catalog,
}

impl Kind {
    /// All kinds of objects; a state is synced once each of them was listed.
    pub const ALL: [Self; 8] = [
        Self::Pod,
        Self::Node,
        Self::NodeClaim,
        Self::NodePool,
        Self::NodeClass,
        Self::DaemonSet,
        Self::PodDisruptionBudget,
        Self::VolumeAttachment,
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
