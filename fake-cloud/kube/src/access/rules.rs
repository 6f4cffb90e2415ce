//! RBAC: which rules a user has, whether one of them allows something, and whether somebody gives away more than that.

use serde_json::Value;

use super::{Attributes, User};
use crate::error::ApiError;
use crate::meta::{self, at, text};
use crate::ops::{State, Target};

const GROUP: &str = "rbac.authorization.k8s.io";

/// What came of a question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// By what.
    pub reason: String,
}

/// Whether a user may do something.
#[must_use]
pub fn decide(state: &State, user: &User, wanted: &Attributes) -> Decision {
    if user.is_master() {
        return Decision {
            allowed: true,
            reason: String::new(),
        };
    }
    let namespace = match wanted {
        Attributes::Resource { namespace, .. } => namespace.as_str(),
        Attributes::Path { .. } => "",
    };
    let grants = grants(state, user, namespace);
    let found = grants
        .iter()
        .find(|grant| grant.rules.iter().any(|rule| allows(rule, wanted)));
    found.map_or_else(Decision::default, |grant| Decision {
        allowed: true,
        reason: format!("RBAC: allowed by {}", grant.text),
    })
}

/// All rules that a user has in a namespace and everywhere.
#[must_use]
pub fn rules_of(state: &State, user: &User, namespace: &str) -> Vec<Value> {
    let grants = grants(state, user, namespace);
    grants.into_iter().flat_map(|grant| grant.rules).collect()
}

/// A binding that is the user's, and what its role says.
struct Grant {
    text: String,
    rules: Vec<Value>,
}

fn grants(state: &State, user: &User, namespace: &str) -> Vec<Grant> {
    let everywhere = state
        .store
        .iter("clusterrolebindings.rbac.authorization.k8s.io", None, None);
    let here = state
        .store
        .iter(
            "rolebindings.rbac.authorization.k8s.io",
            Some(namespace),
            None,
        )
        .filter(|_| !namespace.is_empty());
    let mut grants = Vec::new();
    for binding in everywhere.chain(here) {
        let Some(subject) = subject_of(binding, user) else {
            continue;
        };
        let (kind, role) = (
            text(binding, &["roleRef", "kind"]),
            text(binding, &["roleRef", "name"]),
        );
        let Some(rules) = role_rules(state, kind, role, meta::namespace(binding)) else {
            continue;
        };
        let (of, name) = (meta::namespace(binding), meta::name(binding));
        let text = if of.is_empty() {
            format!("ClusterRoleBinding {name:?} of {kind} {role:?} to {subject}")
        } else {
            format!(
                "RoleBinding {:?} of {kind} {role:?} to {subject}",
                format!("{name}/{of}")
            )
        };
        grants.push(Grant { text, rules });
    }
    grants
}

fn role_rules(state: &State, kind: &str, name: &str, namespace: &str) -> Option<Vec<Value>> {
    let (plural, namespace) = match kind {
        "Role" => ("roles", namespace),
        _ => ("clusterroles", ""),
    };
    let role = state
        .store
        .get(&format!("{plural}.{GROUP}"), namespace, name)?;
    Some(
        role.get("rules")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default(),
    )
}

/// The subject of a binding that is the user, as messages name it.
fn subject_of(binding: &Value, user: &User) -> Option<String> {
    let subjects = binding.get("subjects").and_then(Value::as_array)?;
    subjects.iter().find_map(|subject| {
        let (kind, name) = (text(subject, &["kind"]), text(subject, &["name"]));
        match kind {
            "User" if user.name == name => Some(format!("User {name:?}")),
            "Group" if user.groups.iter().any(|g| g == name) => Some(format!("Group {name:?}")),
            "ServiceAccount" => {
                let namespace = match text(subject, &["namespace"]) {
                    "" => meta::namespace(binding),
                    set => set,
                };
                let is = user.name == format!("system:serviceaccount:{namespace}:{name}");
                is.then(|| format!("ServiceAccount {:?}", format!("{name}/{namespace}")))
            }
            _ => None,
        }
    })
}

fn strings<'a>(rule: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    rule.get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

fn has(rule: &Value, key: &str, wanted: &str) -> bool {
    strings(rule, key).any(|s| s == "*" || s == wanted)
}

/// Whether a rule allows something.
#[must_use]
pub fn allows(rule: &Value, wanted: &Attributes) -> bool {
    match wanted {
        Attributes::Path { verb, path } => {
            let matches = |pattern: &str| match pattern.strip_suffix('*') {
                Some(prefix) => path.starts_with(prefix),
                None => pattern == path,
            };
            has(rule, "verbs", verb) && strings(rule, "nonResourceURLs").any(matches)
        }
        Attributes::Resource {
            verb,
            group,
            resource,
            name,
            ..
        } => {
            let subresource = resource.split_once('/').map(|(_, sub)| sub);
            let is_resource = strings(rule, "resources").any(|r| {
                r == "*"
                    || r == resource
                    || subresource.is_some() && r.strip_prefix("*/") == subresource
            });
            let named = strings(rule, "resourceNames").any(|n| n == name);
            has(rule, "verbs", verb)
                && has(rule, "apiGroups", group)
                && is_resource
                && (named || strings(rule, "resourceNames").next().is_none())
        }
    }
}

/// Refuses a role with more rights than its writer has, and a binding to one, unless the writer may do just that.
///
/// # Errors
/// 403, 404 for a binding to a role that is not there.
pub fn check_escalation(
    state: &State,
    target: &Target,
    user: &User,
    object: &Value,
) -> Result<(), ApiError> {
    let plural = target.info.plural.as_str();
    if target.info.group != GROUP || user.is_master() {
        return Ok(());
    }
    let namespace = meta::namespace(object);
    let may = |verb: &str, resource: &str, name: &str| {
        let wanted = Attributes::Resource {
            verb: verb.to_owned(),
            group: GROUP.to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        decide(state, user, &wanted).allowed
    };
    let rules = match plural {
        "roles" | "clusterroles" => {
            if may("escalate", plural, meta::name(object)) {
                return Ok(());
            }
            let rules = object.get("rules").and_then(Value::as_array);
            rules.cloned().unwrap_or_default()
        }
        _ => {
            let (kind, role) = (
                text(object, &["roleRef", "kind"]),
                text(object, &["roleRef", "name"]),
            );
            let resource = if kind == "Role" {
                "roles"
            } else {
                "clusterroles"
            };
            if may("bind", resource, role) {
                return Ok(());
            }
            role_rules(state, kind, role, namespace)
                .ok_or_else(|| ApiError::not_found_named(GROUP, resource, role))?
        }
    };
    let own = rules_of(state, user, namespace);
    let missing: Vec<String> = rules
        .iter()
        .filter(|rule| !covered(rule, &own))
        .map(rule_text)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let groups: Vec<String> = user.groups.iter().map(|g| format!("{g:?}")).collect();
    let why = format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        groups.join(" "),
        missing.join("\n")
    );
    Err(ApiError::forbidden(&target.info, meta::name(object), &why))
}

/// Whether everything that a rule allows is allowed by others, each of its parts by some one of them.
fn covered(rule: &Value, own: &[Value]) -> bool {
    let names: Vec<&str> = strings(rule, "resourceNames").collect();
    let names = if names.is_empty() { vec![""] } else { names };
    let part = |verb: &str, group: &str, resource: &str, name: &str| {
        own.iter().any(|o| {
            let named = strings(o, "resourceNames").any(|n| n == name);
            has(o, "verbs", verb)
                && has(o, "apiGroups", group)
                && has(o, "resources", resource)
                && (named || strings(o, "resourceNames").next().is_none())
        })
    };
    let resources = strings(rule, "verbs").all(|verb| {
        strings(rule, "apiGroups").all(|group| {
            strings(rule, "resources")
                .all(|resource| names.iter().all(|name| part(verb, group, resource, name)))
        })
    });
    let paths = strings(rule, "verbs").all(|verb| {
        strings(rule, "nonResourceURLs").all(|path| {
            own.iter()
                .any(|o| has(o, "verbs", verb) && has(o, "nonResourceURLs", path))
        })
    });
    resources && paths
}

/// A rule as Go prints it.
fn rule_text(rule: &Value) -> String {
    let fields = [
        ("APIGroups", "apiGroups"),
        ("Resources", "resources"),
        ("ResourceNames", "resourceNames"),
        ("NonResourceURLs", "nonResourceURLs"),
        ("Verbs", "verbs"),
    ];
    let parts: Vec<String> = fields
        .iter()
        .filter(|(_, key)| at(rule, &[key]).is_some_and(|v| !v.is_null()))
        .map(|(name, key)| {
            let values: Vec<String> = strings(rule, key).map(|s| format!("{s:?}")).collect();
            format!("{name}:[{}]", values.join(" "))
        })
        .collect();
    format!("{{{}}}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn wanted(verb: &str, group: &str, resource: &str, name: &str) -> Attributes {
        Attributes::Resource {
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            namespace: "n".into(),
            name: name.into(),
        }
    }

    #[rstest]
    #[case(json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}), "get", "", "pods", "", true)]
    #[case(json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}), "list", "", "pods", "", false)]
    #[case(json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]}), "get", "apps", "pods", "", false)]
    #[case(json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}), "get", "x", "y/z", "", true)]
    #[case(json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]}), "get", "", "pods/status", "", false)]
    #[case(json!({"apiGroups": [""], "resources": ["*/status"], "verbs": ["*"]}), "get", "", "pods/status", "", true)]
    #[case(json!({"apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"], "verbs": ["get"]}), "get", "", "pods", "a", true)]
    #[case(json!({"apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"], "verbs": ["get"]}), "get", "", "pods", "", false)]
    fn rules(
        #[case] rule: Value,
        #[case] verb: &str,
        #[case] group: &str,
        #[case] resource: &str,
        #[case] name: &str,
        #[case] expected: bool,
    ) {
        assert_eq!(
            allows(&rule, &wanted(verb, group, resource, name)),
            expected
        );
    }

    #[test]
    fn a_rule_is_covered_part_by_part() {
        let own = [
            json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}),
            json!({"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}),
        ];
        let asked = |verbs: Value| json!({"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": verbs});
        assert!(covered(&asked(json!(["get"])), &own));
        assert!(!covered(&asked(json!(["get", "list"])), &own));
        assert!(!covered(
            &json!({"apiGroups": [""], "resources": ["*"], "verbs": ["get"]}),
            &own
        ));
    }
}
