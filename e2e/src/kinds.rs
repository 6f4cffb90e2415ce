//! Where objects of a kind live: what scenarios and stories need to apply a manifest without asking discovery.

use karpenter_fake_kube::server::{Gr, gr};

/// A kind's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Group and plural.
    pub resource: Gr<'static>,
    /// Whether it lives in namespaces.
    pub namespaced: bool,
}

const fn place(
    kind: &'static str,
    group: &'static str,
    plural: &'static str,
    namespaced: bool,
) -> (&'static str, Place) {
    (
        kind,
        Place {
            resource: gr(group, plural),
            namespaced,
        },
    )
}

const KINDS: [(&str, Place); 31] = [
    place("Pod", "", "pods", true),
    place("Node", "", "nodes", false),
    place("Namespace", "", "namespaces", false),
    place("Service", "", "services", true),
    place("ConfigMap", "", "configmaps", true),
    place("Secret", "", "secrets", true),
    place("ServiceAccount", "", "serviceaccounts", true),
    place("Event", "", "events", true),
    place("PodTemplate", "", "podtemplates", true),
    place("LimitRange", "", "limitranges", true),
    place("PersistentVolume", "", "persistentvolumes", false),
    place("PersistentVolumeClaim", "", "persistentvolumeclaims", true),
    place("Deployment", "apps", "deployments", true),
    place("ReplicaSet", "apps", "replicasets", true),
    place("StatefulSet", "apps", "statefulsets", true),
    place("DaemonSet", "apps", "daemonsets", true),
    place("Job", "batch", "jobs", true),
    place(
        "PodDisruptionBudget",
        "policy",
        "poddisruptionbudgets",
        true,
    ),
    place(
        "PriorityClass",
        "scheduling.k8s.io",
        "priorityclasses",
        false,
    ),
    place("StorageClass", "storage.k8s.io", "storageclasses", false),
    place("CSINode", "storage.k8s.io", "csinodes", false),
    place(
        "VolumeAttachment",
        "storage.k8s.io",
        "volumeattachments",
        false,
    ),
    place("Lease", "coordination.k8s.io", "leases", true),
    place(
        "CustomResourceDefinition",
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        false,
    ),
    place("NodePool", "karpenter.sh", "nodepools", false),
    place("NodeClaim", "karpenter.sh", "nodeclaims", false),
    place("NodeOverlay", "karpenter.sh", "nodeoverlays", false),
    place(
        "CapacityBuffer",
        "autoscaling.x-k8s.io",
        "capacitybuffers",
        true,
    ),
    place("EC2NodeClass", "karpenter.k8s.aws", "ec2nodeclasses", false),
    place(
        "KWOKNodeClass",
        "karpenter.kwok.sh",
        "kwoknodeclasses",
        false,
    ),
    place("ControllerRevision", "apps", "controllerrevisions", true),
];

/// The place of a kind; none if stories cannot speak of it.
#[must_use]
pub fn of(kind: &str) -> Option<Place> {
    KINDS
        .iter()
        .find(|(k, _)| *k == kind)
        .map(|(_, place)| *place)
}
