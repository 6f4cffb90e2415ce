//! The cluster as a plain struct that watch events are applied to, with cheap snapshots for decisions. No I/O.
//!
//! [`Store`] is the shared handle: reflectors (and controllers, after a write of their own) feed it objects,
//! loops read it and subscribe to its changes. An object older than the one held (by resourceVersion) is ignored.

use std::sync::Arc;

use karpenter_api::{NodeClaim, NodePool};
use karpenter_model::Pod;

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

/// The shared cluster state.
#[derive(Debug, Default)]
pub struct Store {
    // INTERFACE: the state author fills this in.
}

#[allow(unused_variables, clippy::unused_self)]
impl Store {
    /// Applies a NodeClaim as read or just written.
    pub fn apply_node_claim(&self, claim: NodeClaim) {}
    /// A NodeClaim.
    #[must_use]
    pub fn node_claim(&self, name: &str) -> Option<Arc<NodeClaim>> {
        None
    }
    /// All NodeClaims in name order.
    #[must_use]
    pub fn node_claims(&self) -> Vec<Arc<NodeClaim>> {
        Vec::new()
    }
    /// A NodePool.
    #[must_use]
    pub fn node_pool(&self, name: &str) -> Option<Arc<NodePool>> {
        None
    }
    /// All NodePools in name order.
    #[must_use]
    pub fn node_pools(&self) -> Vec<Arc<NodePool>> {
        Vec::new()
    }
    /// A Node.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<Arc<k8s_openapi::api::core::v1::Node>> {
        None
    }
    /// The Nodes with this providerID (an empty id matches nothing).
    #[must_use]
    pub fn nodes_by_provider_id(
        &self,
        provider_id: &str,
    ) -> Vec<Arc<k8s_openapi::api::core::v1::Node>> {
        Vec::new()
    }
    /// Pods bound to a node, in key order.
    #[must_use]
    pub fn pods_on(&self, node: &str) -> Vec<Arc<Pod>> {
        Vec::new()
    }
    /// PodDisruptionBudgets of a namespace.
    #[must_use]
    pub fn budgets_in(
        &self,
        namespace: &str,
    ) -> Vec<Arc<k8s_openapi::api::policy::v1::PodDisruptionBudget>> {
        Vec::new()
    }
    /// Changes from now on (every subscriber gets all; unbounded).
    #[must_use]
    pub fn subscribe(&self) -> tokio::sync::mpsc::UnboundedReceiver<Changed> {
        tokio::sync::mpsc::unbounded_channel().1
    }
    /// Marks a claim as leaving although its object does not say so yet; true if it was not marked.
    pub fn mark_for_deletion(&self, claim: &str) -> bool {
        true
    }
    /// Takes the mark back.
    pub fn unmark_for_deletion(&self, claim: &str) {}
    /// Whether a claim is leaving: marked, deleting, or its instance terminating.
    #[must_use]
    pub fn is_leaving(&self, claim: &str) -> bool {
        false
    }
    /// Keeps a node from disruption until `until`, because pods were planned onto it.
    pub fn nominate(&self, node: &str, until: jiff::Timestamp) {}
    /// Whether it is nominated at `now`.
    #[must_use]
    pub fn is_nominated(&self, node: &str, now: jiff::Timestamp) -> bool {
        false
    }
}
