//! The built-in resources, as a table.

use super::{Generation, ResourceInfo, ScalePaths, VersionInfo};

/// A row: the facts of a built-in resource that differ from row to row.
struct Row {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    /// Singular is the kind in lower case everywhere.
    short: &'static [&'static str],
    categories: &'static [&'static str],
    /// Letters: `n` namespaced, `s` status subresource, `g` generation, `c` scale, `o` create only.
    traits: &'static str,
    extra: &'static [&'static str],
}

const fn row(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    traits: &'static str,
    short: &'static [&'static str],
) -> Row {
    Row {
        group,
        version,
        kind,
        plural,
        short,
        categories: &[],
        traits,
        extra: &[],
    }
}

impl Row {
    const fn all(mut self) -> Self {
        self.categories = &["all"];
        self
    }
    const fn extra(mut self, extra: &'static [&'static str]) -> Self {
        self.extra = extra;
        self
    }
}

const RBAC: &str = "rbac.authorization.k8s.io";

const ROWS: &[Row] = &[
    row("", "v1", "Binding", "bindings", "no", &[]),
    row("", "v1", "ConfigMap", "configmaps", "n", &["cm"]),
    row("", "v1", "Endpoints", "endpoints", "n", &["ep"]),
    row("", "v1", "Event", "events", "n", &["ev"]),
    row("", "v1", "LimitRange", "limitranges", "n", &["limits"]),
    row("", "v1", "Namespace", "namespaces", "s", &["ns"]).extra(&["finalize"]),
    row("", "v1", "Node", "nodes", "s", &["no"]),
    row(
        "",
        "v1",
        "PersistentVolume",
        "persistentvolumes",
        "s",
        &["pv"],
    ),
    row(
        "",
        "v1",
        "PersistentVolumeClaim",
        "persistentvolumeclaims",
        "ns",
        &["pvc"],
    ),
    row("", "v1", "Pod", "pods", "nsg", &["po"]).all().extra(&[
        "binding",
        "ephemeralcontainers",
        "eviction",
    ]),
    row("", "v1", "PodTemplate", "podtemplates", "ng", &[]),
    row(
        "",
        "v1",
        "ReplicationController",
        "replicationcontrollers",
        "nsgc",
        &["rc"],
    )
    .all(),
    row(
        "",
        "v1",
        "ResourceQuota",
        "resourcequotas",
        "ns",
        &["quota"],
    ),
    row("", "v1", "Secret", "secrets", "n", &[]),
    row("", "v1", "Service", "services", "ns", &["svc"]).all(),
    row("", "v1", "ServiceAccount", "serviceaccounts", "n", &["sa"]).extra(&["token"]),
    row(
        "admissionregistration.k8s.io",
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        "g",
        &[],
    ),
    row(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        "g",
        &[],
    ),
    row(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        "sg",
        &["crd", "crds"],
    ),
    row(
        "apps",
        "v1",
        "ControllerRevision",
        "controllerrevisions",
        "n",
        &[],
    ),
    row("apps", "v1", "DaemonSet", "daemonsets", "nsg", &["ds"]).all(),
    row(
        "apps",
        "v1",
        "Deployment",
        "deployments",
        "nsgc",
        &["deploy"],
    )
    .all(),
    row("apps", "v1", "ReplicaSet", "replicasets", "nsgc", &["rs"]).all(),
    row(
        "apps",
        "v1",
        "StatefulSet",
        "statefulsets",
        "nsgc",
        &["sts"],
    )
    .all(),
    row(
        "authentication.k8s.io",
        "v1",
        "SelfSubjectReview",
        "selfsubjectreviews",
        "o",
        &[],
    ),
    row(
        "authentication.k8s.io",
        "v1",
        "TokenReview",
        "tokenreviews",
        "o",
        &[],
    ),
    row(
        "authorization.k8s.io",
        "v1",
        "LocalSubjectAccessReview",
        "localsubjectaccessreviews",
        "no",
        &[],
    ),
    row(
        "authorization.k8s.io",
        "v1",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        "o",
        &[],
    ),
    row(
        "authorization.k8s.io",
        "v1",
        "SelfSubjectRulesReview",
        "selfsubjectrulesreviews",
        "o",
        &[],
    ),
    row(
        "authorization.k8s.io",
        "v1",
        "SubjectAccessReview",
        "subjectaccessreviews",
        "o",
        &[],
    ),
    row(
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        "ns",
        &["hpa"],
    )
    .all(),
    row("batch", "v1", "CronJob", "cronjobs", "nsg", &["cj"]).all(),
    row("batch", "v1", "Job", "jobs", "nsg", &[]).all(),
    row("coordination.k8s.io", "v1", "Lease", "leases", "n", &[]),
    row(
        "discovery.k8s.io",
        "v1",
        "EndpointSlice",
        "endpointslices",
        "ng",
        &[],
    ),
    row("events.k8s.io", "v1", "Event", "events", "n", &["ev"]),
    row(
        "networking.k8s.io",
        "v1",
        "IngressClass",
        "ingressclasses",
        "g",
        &[],
    ),
    row(
        "networking.k8s.io",
        "v1",
        "Ingress",
        "ingresses",
        "nsg",
        &["ing"],
    ),
    row(
        "networking.k8s.io",
        "v1",
        "NetworkPolicy",
        "networkpolicies",
        "ng",
        &["netpol"],
    ),
    row(
        "node.k8s.io",
        "v1",
        "RuntimeClass",
        "runtimeclasses",
        "",
        &[],
    ),
    row(
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        "nsg",
        &["pdb"],
    ),
    row(RBAC, "v1", "ClusterRole", "clusterroles", "", &[]),
    row(
        RBAC,
        "v1",
        "ClusterRoleBinding",
        "clusterrolebindings",
        "",
        &[],
    ),
    row(RBAC, "v1", "Role", "roles", "n", &[]),
    row(RBAC, "v1", "RoleBinding", "rolebindings", "n", &[]),
    row(
        "scheduling.k8s.io",
        "v1",
        "PriorityClass",
        "priorityclasses",
        "g",
        &["pc"],
    ),
    row("storage.k8s.io", "v1", "CSIDriver", "csidrivers", "g", &[]),
    row("storage.k8s.io", "v1", "CSINode", "csinodes", "", &[]),
    row(
        "storage.k8s.io",
        "v1",
        "CSIStorageCapacity",
        "csistoragecapacities",
        "n",
        &[],
    ),
    row(
        "storage.k8s.io",
        "v1",
        "StorageClass",
        "storageclasses",
        "",
        &["sc"],
    ),
    row(
        "storage.k8s.io",
        "v1",
        "VolumeAttachment",
        "volumeattachments",
        "s",
        &[],
    ),
];

/// All built-in resources.
#[must_use]
pub fn all() -> Vec<ResourceInfo> {
    ROWS.iter().map(info).collect()
}

fn info(row: &Row) -> ResourceInfo {
    let has = |letter: char| row.traits.contains(letter);
    let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    let path = |segments: [&str; 2]| segments.map(str::to_owned).to_vec();
    ResourceInfo {
        group: row.group.to_owned(),
        plural: row.plural.to_owned(),
        singular: row.kind.to_ascii_lowercase(),
        kind: row.kind.to_owned(),
        list_kind: format!("{}List", row.kind),
        namespaced: has('n'),
        short_names: strings(row.short),
        categories: strings(row.categories),
        extra: row.extra,
        versions: vec![VersionInfo {
            name: row.version.to_owned(),
            served: true,
            schema: None,
            columns: Vec::new(),
            status: has('s'),
            scale: has('c').then(|| ScalePaths {
                spec: path(["spec", "replicas"]),
                status: path(["status", "replicas"]),
                // Built-in selectors are objects, not strings; `ops::scale` renders them.
                selector: None,
            }),
            deprecation: (row.plural == "endpoints").then(|| {
                "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"
                    .to_owned()
            }),
            selectable: Vec::new(),
        }],
        storage: 0,
        generation: if has('g') {
            Generation::Spec
        } else {
            Generation::None
        },
        custom: false,
        terminating: false,
        create_only: has('o'),
    }
}
