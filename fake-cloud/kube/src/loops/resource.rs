//! The resources that the loops speak of, by name.

use crate::server::{Gr, gr};

/// Pods.
pub const PODS: Gr<'static> = gr("", "pods");
/// Nodes.
pub const NODES: Gr<'static> = gr("", "nodes");
/// Namespaces.
pub const NAMESPACES: Gr<'static> = gr("", "namespaces");
/// `PersistentVolumeClaims`.
pub const PVCS: Gr<'static> = gr("", "persistentvolumeclaims");
/// `PersistentVolumes`.
pub const PVS: Gr<'static> = gr("", "persistentvolumes");
/// `StorageClasses`.
pub const STORAGE_CLASSES: Gr<'static> = gr("storage.k8s.io", "storageclasses");
/// `VolumeAttachments`.
pub const VOLUME_ATTACHMENTS: Gr<'static> = gr("storage.k8s.io", "volumeattachments");
/// `CSIDrivers`.
pub const CSI_DRIVERS: Gr<'static> = gr("storage.k8s.io", "csidrivers");
/// `CSINodes`.
pub const CSI_NODES: Gr<'static> = gr("storage.k8s.io", "csinodes");
/// Deployments.
pub const DEPLOYMENTS: Gr<'static> = gr("apps", "deployments");
/// `ReplicaSets`.
pub const REPLICA_SETS: Gr<'static> = gr("apps", "replicasets");
/// `DaemonSets`.
pub const DAEMON_SETS: Gr<'static> = gr("apps", "daemonsets");
/// `StatefulSets`.
pub const STATEFUL_SETS: Gr<'static> = gr("apps", "statefulsets");
/// `ReplicationControllers`.
pub const REPLICATION_CONTROLLERS: Gr<'static> = gr("", "replicationcontrollers");
/// Jobs.
pub const JOBS: Gr<'static> = gr("batch", "jobs");
/// `CronJobs`.
pub const CRON_JOBS: Gr<'static> = gr("batch", "cronjobs");
/// `PodDisruptionBudgets`.
pub const PDBS: Gr<'static> = gr("policy", "poddisruptionbudgets");
/// Leases.
pub const LEASES: Gr<'static> = gr("coordination.k8s.io", "leases");
/// `ClusterRoles`.
pub const CLUSTER_ROLES: Gr<'static> = gr("rbac.authorization.k8s.io", "clusterroles");
/// `CustomResourceDefinitions`.
pub const CRDS: Gr<'static> = gr("apiextensions.k8s.io", "customresourcedefinitions");
