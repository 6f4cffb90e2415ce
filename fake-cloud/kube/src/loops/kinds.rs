//! Which resources there are: the built-in ones that own or are owned, and those that definitions add. The garbage
//! collector and namespace deletion go through all of them.

use serde_json::Value;

use super::feed::parts;
use super::object::{self, text};
use super::resource::CRDS;
use crate::server::{Change, Gr, gr};

/// A resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// API group.
    pub group: String,
    /// Plural.
    pub plural: String,
    /// Kind.
    pub kind: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

impl Kind {
    /// Its resource.
    #[must_use]
    pub fn gr(&self) -> Gr<'_> {
        gr(&self.group, &self.plural)
    }
}

/// Group, plural, kind, namespaced. Events are left out of ownership on purpose: nothing owns them, and there are
/// many; namespace deletion adds them.
const BUILTIN: &[(&str, &str, &str, bool)] = &[
    ("", "pods", "Pod", true),
    ("", "nodes", "Node", false),
    ("", "namespaces", "Namespace", false),
    ("", "configmaps", "ConfigMap", true),
    ("", "secrets", "Secret", true),
    ("", "services", "Service", true),
    ("", "endpoints", "Endpoints", true),
    ("", "serviceaccounts", "ServiceAccount", true),
    ("", "persistentvolumeclaims", "PersistentVolumeClaim", true),
    ("", "persistentvolumes", "PersistentVolume", false),
    ("", "replicationcontrollers", "ReplicationController", true),
    ("", "podtemplates", "PodTemplate", true),
    ("", "resourcequotas", "ResourceQuota", true),
    ("", "limitranges", "LimitRange", true),
    ("apps", "controllerrevisions", "ControllerRevision", true),
    ("apps", "daemonsets", "DaemonSet", true),
    ("apps", "deployments", "Deployment", true),
    ("apps", "replicasets", "ReplicaSet", true),
    ("apps", "statefulsets", "StatefulSet", true),
    (
        "autoscaling",
        "horizontalpodautoscalers",
        "HorizontalPodAutoscaler",
        true,
    ),
    ("batch", "cronjobs", "CronJob", true),
    ("batch", "jobs", "Job", true),
    ("coordination.k8s.io", "leases", "Lease", true),
    ("discovery.k8s.io", "endpointslices", "EndpointSlice", true),
    ("networking.k8s.io", "ingresses", "Ingress", true),
    (
        "networking.k8s.io",
        "networkpolicies",
        "NetworkPolicy",
        true,
    ),
    (
        "policy",
        "poddisruptionbudgets",
        "PodDisruptionBudget",
        true,
    ),
    ("rbac.authorization.k8s.io", "roles", "Role", true),
    (
        "rbac.authorization.k8s.io",
        "rolebindings",
        "RoleBinding",
        true,
    ),
    (
        "rbac.authorization.k8s.io",
        "clusterroles",
        "ClusterRole",
        false,
    ),
    (
        "rbac.authorization.k8s.io",
        "clusterrolebindings",
        "ClusterRoleBinding",
        false,
    ),
    ("storage.k8s.io", "storageclasses", "StorageClass", false),
    ("storage.k8s.io", "csinodes", "CSINode", false),
    (
        "storage.k8s.io",
        "volumeattachments",
        "VolumeAttachment",
        false,
    ),
    (
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        false,
    ),
];

/// The table, growing with definitions.
#[derive(Clone, Debug)]
pub struct Kinds {
    kinds: Vec<Kind>,
}

impl Kinds {
    /// The built-in ones.
    #[must_use]
    pub fn builtin() -> Self {
        let kinds = BUILTIN
            .iter()
            .map(|(group, plural, kind, namespaced)| Kind {
                group: (*group).to_owned(),
                plural: (*plural).to_owned(),
                kind: (*kind).to_owned(),
                namespaced: *namespaced,
            })
            .collect();
        Self { kinds }
    }

    /// All of them, in the order of their indexes.
    pub fn iter(&self) -> impl Iterator<Item = &Kind> {
        self.kinds.iter()
    }

    /// By index.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&Kind> {
        self.kinds.get(index)
    }

    /// By group and kind.
    #[must_use]
    pub fn find(&self, group: &str, kind: &str) -> Option<&Kind> {
        self.kinds
            .iter()
            .find(|k| k.group == group && k.kind == kind)
    }

    /// Takes in a change of the kind at `index`: a definition of a resource that was not known adds it.
    pub fn learn(&mut self, index: usize, change: &Change) -> Option<Kind> {
        if self.get(index)?.gr() != CRDS {
            return None;
        }
        let (definition, there) = parts(change);
        let kind = defined(definition).filter(|_| there)?;
        if self.kinds.contains(&kind) {
            return None;
        }
        self.kinds.push(kind.clone());
        Some(kind)
    }
}

/// The resource that a definition defines.
#[must_use]
pub fn defined(definition: &Value) -> Option<Kind> {
    let field = |path: &[&str]| {
        let value = text(definition, path);
        (!value.is_empty()).then(|| value.to_owned())
    };
    Some(Kind {
        group: field(&["spec", "group"])?,
        plural: field(&["spec", "names", "plural"])?,
        kind: field(&["spec", "names", "kind"])?,
        namespaced: object::text(definition, &["spec", "scope"]) == "Namespaced",
    })
}
