//! One trait over the kinds that are watched, so that a reflector is written once.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{
    LimitRange, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, PodTemplate,
    ReplicationController, Service,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::{CSINode, StorageClass, VolumeAttachment};
use karpenter_api::{CapacityBuffer, NodeClaim, NodeOverlay, NodePool};
use kube::core::DynamicObject;

use crate::{Kind, Store};

/// An object that can be fed to a [`Store`]. `DynamicObject` stands for the provider's NodeClass.
pub trait Watched: Sized {
    /// What it is held as.
    const KIND: Kind;
    /// Takes it as read, or as just written.
    fn apply(self, store: &Store);
    /// Takes the deletion of it; `self` is the last state, with the deletion's resourceVersion.
    fn delete(&self, store: &Store);
    /// Replaces everything of the kind by a complete list taken at `version` (the list's resourceVersion).
    fn reset(objects: Vec<Self>, version: &str, store: &Store);
}

macro_rules! watched {
    ($ty:ty, $kind:ident, $apply:ident, $delete:ident, $reset:ident) => {
        impl Watched for $ty {
            const KIND: Kind = Kind::$kind;
            fn apply(self, store: &Store) {
                store.$apply(self);
            }
            fn delete(&self, store: &Store) {
                store.$delete(self);
            }
            fn reset(objects: Vec<Self>, version: &str, store: &Store) {
                store.$reset(objects, version);
            }
        }
    };
}

watched!(Pod, Pod, apply_pod, delete_pod, reset_pods);
watched!(Node, Node, apply_node, delete_node, reset_nodes);
watched!(
    NodeClaim,
    NodeClaim,
    apply_node_claim,
    delete_node_claim,
    reset_node_claims
);
watched!(
    NodePool,
    NodePool,
    apply_node_pool,
    delete_node_pool,
    reset_node_pools
);
watched!(
    DynamicObject,
    NodeClass,
    apply_node_class,
    delete_node_class,
    reset_node_classes
);
watched!(
    DaemonSet,
    DaemonSet,
    apply_daemon_set,
    delete_daemon_set,
    reset_daemon_sets
);
watched!(
    PodDisruptionBudget,
    PodDisruptionBudget,
    apply_budget,
    delete_budget,
    reset_budgets
);
watched!(
    VolumeAttachment,
    VolumeAttachment,
    apply_volume_attachment,
    delete_volume_attachment,
    reset_volume_attachments
);
watched!(
    Namespace,
    Namespace,
    apply_namespace,
    delete_namespace,
    reset_namespaces
);
watched!(
    PersistentVolumeClaim,
    PersistentVolumeClaim,
    apply_volume_claim,
    delete_volume_claim,
    reset_volume_claims
);
watched!(
    PersistentVolume,
    PersistentVolume,
    apply_volume,
    delete_volume,
    reset_volumes
);
watched!(
    StorageClass,
    StorageClass,
    apply_storage_class,
    delete_storage_class,
    reset_storage_classes
);
watched!(
    CSINode,
    CSINode,
    apply_csi_node,
    delete_csi_node,
    reset_csi_nodes
);
watched!(
    LimitRange,
    LimitRange,
    apply_limit_range,
    delete_limit_range,
    reset_limit_ranges
);
watched!(
    CapacityBuffer,
    CapacityBuffer,
    apply_capacity_buffer,
    delete_capacity_buffer,
    reset_capacity_buffers
);
watched!(
    NodeOverlay,
    NodeOverlay,
    apply_node_overlay,
    delete_node_overlay,
    reset_node_overlays
);
watched!(
    Service,
    Service,
    apply_service,
    delete_service,
    reset_services
);
watched!(
    ReplicationController,
    ReplicationController,
    apply_replication_controller,
    delete_replication_controller,
    reset_replication_controllers
);
watched!(
    PodTemplate,
    PodTemplate,
    apply_pod_template,
    delete_pod_template,
    reset_pod_templates
);

/// Kinds of which only what buffers and the default topology spread look at is kept.
macro_rules! watched_workload {
    ($($ty:ident),*) => {$(
        impl Watched for $ty {
            const KIND: Kind = Kind::$ty;
            fn apply(self, store: &Store) {
                store.apply_workload(self.into());
            }
            fn delete(&self, store: &Store) {
                store.delete_workload(&self.clone().into());
            }
            fn reset(objects: Vec<Self>, version: &str, store: &Store) {
                let all = objects.into_iter().map(Into::into).collect();
                store.reset_workloads(Self::KIND, all, version);
            }
        }
    )*};
}

watched_workload!(Deployment, StatefulSet, ReplicaSet);
