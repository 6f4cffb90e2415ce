//! The roles that every cluster starts with, as far as we keep them: who everybody is, who may do everything, and the
//! three that people are given in a namespace, which other roles add to by their labels.

use serde_json::{Value, json};

use super::MASTERS;
use super::users::{AUTHENTICATED, UNAUTHENTICATED};

/// Roles that are given to people, the greater after the lesser, and what each is made of: roles with the label
/// `rbac.authorization.k8s.io/aggregate-to-NAME`.
const AGGREGATED: [&str; 3] = ["view", "edit", "admin"];

/// Label of roles that add to one of [`AGGREGATED`].
fn adds_to(role: &str) -> String {
    format!("rbac.authorization.k8s.io/aggregate-to-{role}")
}

/// What is seen, and what is changed, of a namespace's objects by group: secrets are for those who change.
const CONTENTS: [(&str, &[&str]); 7] = [
    (
        "",
        &[
            "configmaps",
            "endpoints",
            "events",
            "persistentvolumeclaims",
            "pods",
            "replicationcontrollers",
            "serviceaccounts",
            "services",
        ],
    ),
    (
        "apps",
        &["daemonsets", "deployments", "replicasets", "statefulsets"],
    ),
    ("autoscaling", &["horizontalpodautoscalers"]),
    ("batch", &["cronjobs", "jobs"]),
    ("discovery.k8s.io", &["endpointslices"]),
    ("networking.k8s.io", &["ingresses", "networkpolicies"]),
    ("policy", &["poddisruptionbudgets"]),
];

/// The roles of [`AGGREGATED`], which a loop fills with the rules of the roles they select, and those they begin with.
#[must_use]
pub fn aggregated() -> Vec<Value> {
    let mut roles = Vec::new();
    for (role, rules) in parts() {
        let name = format!("system:aggregate-to-{role}");
        let labels = json!({adds_to(role): "true"});
        roles.push(json!({"metadata": {"name": name, "labels": labels}, "rules": rules}));
    }
    for (n, role) in AGGREGATED.into_iter().enumerate() {
        // Who may change may see, and who administers may change.
        let greater = AGGREGATED.get(n + 1);
        let labels = greater.map_or_else(|| json!({}), |g| json!({adds_to(g): "true"}));
        let selector = json!({"matchLabels": {adds_to(role): "true"}});
        roles.push(json!({
            "metadata": {"name": role, "labels": labels},
            "aggregationRule": {"clusterRoleSelectors": [selector]}, "rules": [],
        }));
    }
    roles
}

/// Rules of the roles that [`AGGREGATED`] begin with, by the name of what they add to.
fn parts() -> Vec<(&'static str, Value)> {
    let read = ["get", "list", "watch"];
    let write = ["create", "delete", "deletecollection", "patch", "update"];
    let both = [&read[..], &write[..]].concat();
    let all = |verbs: &[&str]| -> Vec<Value> {
        CONTENTS
            .iter()
            .map(|(group, resources)| json!({"apiGroups": [group], "resources": resources, "verbs": verbs}))
            .collect()
    };
    let mut view = all(&read);
    view.push(json!({"apiGroups": [""], "verbs": read, "resources":
        ["bindings", "limitranges", "namespaces", "namespaces/status", "pods/log", "pods/status", "resourcequotas"]}));
    let mut edit = all(&write);
    edit.push(json!({"apiGroups": [""], "resources": ["secrets"], "verbs": both}));
    edit.push(json!({"apiGroups": [""], "verbs": ["create"],
        "resources": ["pods/eviction", "serviceaccounts/token"]}));
    edit.push(json!({"apiGroups": ["apps"], "verbs": write, "resources":
        ["deployments/rollback", "deployments/scale", "replicasets/scale", "statefulsets/scale"]}));
    let admin = json!([
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["rolebindings", "roles"],
         "verbs": both},
        {"apiGroups": ["authorization.k8s.io"], "resources": ["localsubjectaccessreviews"], "verbs": ["create"]},
    ]);
    vec![
        ("view", view.into()),
        ("edit", edit.into()),
        ("admin", admin),
    ]
}

/// Cluster roles and, for each, the groups that have it.
#[must_use]
pub fn roles() -> Vec<(&'static str, Value, &'static [&'static str])> {
    let health = ["/healthz", "/livez", "/readyz", "/version", "/version/"];
    let discovery = [
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/healthz",
        "/livez",
        "/openapi",
        "/openapi/*",
        "/readyz",
        "/version",
        "/version/",
    ];
    vec![
        (
            "cluster-admin",
            json!([
                {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
                {"nonResourceURLs": ["*"], "verbs": ["*"]},
            ]),
            &[MASTERS],
        ),
        (
            "system:basic-user",
            json!([
                {"apiGroups": ["authorization.k8s.io"], "verbs": ["create"],
                 "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]},
                {"apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"], "verbs": ["create"]},
            ]),
            &[AUTHENTICATED],
        ),
        (
            "system:discovery",
            json!([{"nonResourceURLs": discovery, "verbs": ["get"]}]),
            &[AUTHENTICATED],
        ),
        (
            "system:public-info-viewer",
            json!([{"nonResourceURLs": health, "verbs": ["get"]}]),
            &[AUTHENTICATED, UNAUTHENTICATED],
        ),
    ]
}
