//! Validation where users and controllers meet it.

pub mod access;
pub mod definition;
pub mod ephemeral;
pub mod names;
pub mod objects;
mod placing;
pub mod pods;
pub mod selectors;
pub mod storage;
pub mod volumes;
pub mod workloads;

use serde_json::Value;

use crate::error::FieldError;
use crate::meta;
use crate::ops::{Part, Target};

/// Errors of a new object.
#[must_use]
pub fn create(target: &Target, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    names::metadata(target, object, &mut errors);
    if target.info.custom {
        errors.extend(crate::crd::validate(target, object, None));
    }
    if target.info.is("", "pods") {
        ephemeral::create(object, &mut errors);
    }
    kind(target, object, &mut errors);
    errors
}

/// Errors of a change. What is written with the status was validated before.
#[must_use]
pub fn update(target: &Target, new: &Value, old: &Value, part: Part) -> Vec<FieldError> {
    let mut errors = Vec::new();
    names::kept(new, old, &mut errors);
    names::labels(new, &mut errors);
    if target.info.custom {
        let mut found = crate::crd::validate(target, new, Some(old));
        if part == Part::Status {
            // What is written with the status is looked at from there.
            for error in &mut found {
                if let Some(rest) = error.detail.strip_prefix("status.") {
                    error.detail = rest.to_owned();
                }
            }
        }
        errors.extend(found);
    }
    if target
        .info
        .is("apiextensions.k8s.io", "customresourcedefinitions")
    {
        if new.get("spec") != old.get("spec") {
            definition::update(new, old, &mut errors);
        }
    } else if part == Part::Main && new.get("spec") != old.get("spec") {
        kind(target, new, &mut errors);
        kind_update(target, new, old, &mut errors);
    }
    if part == Part::Status {
        status(target, new, &mut errors);
    }
    if target.info.is("storage.k8s.io", "storageclasses") {
        storage::class_update(new, old, &mut errors);
    }
    if part == Part::EphemeralContainers {
        ephemeral::update(new, old, &mut errors);
    }
    if target.info.is("scheduling.k8s.io", "priorityclasses") {
        objects::priority_class_update(new, old, &mut errors);
    }
    if target.info.group == "rbac.authorization.k8s.io" {
        kind(target, new, &mut errors);
        access::binding_update(new, old, &mut errors);
    }
    if target.info.is("", "configmaps") || target.info.is("", "secrets") {
        kind(target, new, &mut errors);
        objects::kept_data(new, old, &mut errors);
    }
    if meta::is_deleting(old) {
        // All kinds are asked, and each kind asks again.
        finalizers(new, old, &mut errors);
        finalizers(new, old, &mut errors);
    }
    errors
}

fn kind(target: &Target, object: &Value, errors: &mut Vec<FieldError>) {
    match (target.info.group.as_str(), target.info.plural.as_str()) {
        ("", "pods") => pods::spec(object.get("spec").unwrap_or(&Value::Null), "spec", errors),
        ("", "nodes") => objects::node(object, errors),
        ("apps", "controllerrevisions") => objects::revision(object, errors),
        ("apps" | "batch", _) => workloads::check(target, object, errors),
        ("rbac.authorization.k8s.io", "roles" | "clusterroles") => {
            access::role(target, object, errors)
        }
        ("rbac.authorization.k8s.io", _) => access::binding(target, object, errors),
        ("", "limitranges") => access::limit_range(object, errors),
        ("", "resourcequotas") => access::quota(object, errors),
        ("", "events") => objects::event(object, errors),
        (crate::events::GROUP, "events") => crate::events::check(object, errors),
        ("", "persistentvolumeclaims") => objects::claim(object, errors),
        ("", "services") => objects::service(object, errors),
        ("", "configmaps") => objects::data_keys(object, errors),
        ("", "secrets") => {
            objects::data_keys(object, errors);
            objects::secret(object, errors);
        }

        ("networking.k8s.io", "networkpolicies") => selectors::network_policy(object, errors),
        ("", "persistentvolumes") => storage::volume(object, errors),
        ("coordination.k8s.io", "leases") => objects::lease(object, errors),
        ("storage.k8s.io", "volumeattachments") => storage::attachment(object, errors),
        ("storage.k8s.io", "csinodes") => storage::csi_node(object, errors),
        ("scheduling.k8s.io", "priorityclasses") => objects::priority_class(object, errors),
        ("policy", "poddisruptionbudgets") => objects::budget(object, errors),
        ("apiextensions.k8s.io", "customresourcedefinitions") => {
            definition::definition(object, errors)
        }
        _ => {}
    }
}

/// What is written with the status and looked at.
fn status(target: &Target, object: &Value, errors: &mut Vec<FieldError>) {
    match (target.info.group.as_str(), target.info.plural.as_str()) {
        ("", "nodes") => objects::node_resources(object, errors),
        ("apps", "deployments" | "replicasets") => workloads::counts(object, errors),
        _ => {}
    }
}

fn kind_update(target: &Target, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    match (target.info.group.as_str(), target.info.plural.as_str()) {
        ("", "pods") => pods::update(new, old, errors),
        ("", "nodes") => objects::node_update(new, old, errors),
        ("", "persistentvolumeclaims") => objects::claim_update(new, old, errors),
        ("storage.k8s.io", "volumeattachments") => storage::attachment_update(new, old, errors),
        ("storage.k8s.io", "csinodes") => storage::csi_node_update(new, old, errors),
        ("apps" | "batch", _) => workloads::update(target, new, old, errors),
        _ => {}
    }
}

/// What is being deleted gets no new finalizers.
fn finalizers(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let before: Vec<&str> = meta::finalizers(old).collect();
    let added: Vec<String> = meta::finalizers(new)
        .filter(|f| !before.contains(f))
        .map(|f| format!("{f:?}"))
        .collect();
    if !added.is_empty() {
        errors.push(FieldError::forbidden(
            "metadata.finalizers",
            format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            ),
        ));
    }
}
