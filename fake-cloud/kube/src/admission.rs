//! What the server itself adds to and asks of objects between decoding and storing: defaults, admission plugins,
//! and what follows from a write (a definition that becomes a resource).

pub mod account;
pub mod amount;
pub mod limits;
pub mod quota;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::access::rules;
use crate::crd::definition;
use crate::error::{ApiError, Result};
use crate::loops::{nodelifecycle, storage};
use crate::meta::{self, text};
use crate::ops::{Part, State, Target, WriteOptions};
use crate::{crd, defaults};

/// Fills in defaults and drops what the schema does not know.
///
/// # Errors
/// 400 for unknown fields under strict field validation.
pub fn default(
    state: &mut State,
    target: &Target,
    object: &mut Value,
    old: Option<&Value>,
    options: &mut WriteOptions,
) -> Result<()> {
    if target.info.custom {
        return crd::admit(target, object, options);
    }
    defaults::apply(target, object);
    if let Some(old) = old.filter(|_| target.info.is("apps", "daemonsets")) {
        defaults::workloads::keep_template_generation(object, old);
    }
    if target
        .info
        .is("apiextensions.k8s.io", "customresourcedefinitions")
        && !meta::is_deleting(object)
    {
        definition::default_definition(object);
        let now = state.now();
        if let Some(status) = old.and_then(|o| o.get("status")) {
            meta::as_map(object).insert("status".into(), status.clone());
        }
        let conflict = definition::conflict(object, &state.registry);
        definition::establish(object, &now, conflict);
    }
    Ok(())
}

/// Admission of a new object: its namespace must be there and not on its way out; pods get their priority.
///
/// # Errors
/// 403, 404.
pub fn admit_create(
    state: &mut State,
    target: &Target,
    object: &mut Value,
    options: &WriteOptions,
) -> Result<()> {
    crd::removal::check_new(target, object)?;
    if target.info.namespaced {
        let Some(namespace) = state.store.get("namespaces.", "", &target.namespace) else {
            return Err(ApiError::not_found_named(
                "",
                "namespaces",
                &target.namespace,
            ));
        };
        if meta::is_deleting(namespace) {
            let why = format!(
                "unable to create new content in namespace {} because it is being terminated",
                target.namespace
            );
            let mut error = ApiError::forbidden(&target.info, meta::name(object), &why);
            if let Some(details) = error.details.as_object_mut() {
                let message = format!("namespace {} is being terminated", target.namespace);
                details.insert(
                    "causes".into(),
                    json!([{"reason": "NamespaceTerminating", "message": message, "field": "metadata.namespace"}]),
                );
            }
            return Err(error);
        }
    }
    if target.info.is("", "pods") {
        account::admit(state, target, object)?;
        limits::give(state, target, object);
        admit_pod(state, target, object)?;
        let class = defaults::pod::qos_class(object.get("spec").unwrap_or(&Value::Null));
        meta::as_map(meta::child(object, "status")).insert("qosClass".into(), class.into());
    }
    limits::check(state, target, object)?;
    if let Some(user) = &options.user {
        rules::check_escalation(state, target, user, object)?;
    }
    Ok(())
}

/// Admission of a change.
///
/// # Errors
/// 403.
pub fn admit_update(
    state: &State,
    target: &Target,
    new: &mut Value,
    old: &Value,
    part: Part,
    options: &WriteOptions,
) -> Result<()> {
    if let Some(user) = &options.user {
        rules::check_escalation(state, target, user, new)?;
    }
    if target.info.is("", "persistentvolumes") && part == Part::Status {
        let phase = |o: &Value| text(o, &["status", "phase"]).to_owned();
        if phase(new) != phase(old) {
            let status = meta::as_map(meta::child(new, "status"));
            status.insert("lastPhaseTransitionTime".into(), state.now().into());
        }
    }
    if target.info.is("", "pods") && part == Part::Main {
        // Computed by the server at creation and never a client's to drop.
        let spec = meta::as_map(meta::child(new, "spec"));
        for key in ["priority", "preemptionPolicy"] {
            if let Some(value) = old.get("spec").and_then(|s| s.get(key)) {
                meta::default_to(spec, key, value.clone());
            }
        }
        defaults::pod::tolerations(spec);
    }
    Ok(())
}

/// The Priority and DefaultTolerationSeconds plugins.
fn admit_pod(state: &State, target: &Target, pod: &mut Value) -> Result<()> {
    let name = meta::name(pod).to_owned();
    let class_name = text(pod, &["spec", "priorityClassName"]).to_owned();
    let class = if class_name.is_empty() {
        state
            .store
            .iter("priorityclasses.scheduling.k8s.io", None, None)
            .find(|c| c.get("globalDefault") == Some(&Value::Bool(true)))
            .cloned()
    } else {
        let found = state
            .store
            .get("priorityclasses.scheduling.k8s.io", "", &class_name)
            .cloned();
        if found.is_none() {
            return Err(ApiError::forbidden(
                &target.info,
                &name,
                &format!("no PriorityClass with name {class_name} was found"),
            ));
        }
        found
    };
    let (value, policy) = class.as_ref().map_or((0, "PreemptLowerPriority"), |c| {
        let policy = match text(c, &["preemptionPolicy"]) {
            "" => "PreemptLowerPriority",
            set => set,
        };
        (c.get("value").and_then(Value::as_i64).unwrap_or(0), policy)
    });
    let given = meta::at(pod, &["spec", "priority"]).and_then(Value::as_i64);
    if let Some(given) = given.filter(|given| *given != value) {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
        );
        return Err(ApiError::forbidden(&target.info, &name, &why));
    }
    let spec = meta::as_map(meta::child(pod, "spec"));
    if let (Some(class), true) = (&class, class_name.is_empty()) {
        spec.insert("priorityClassName".into(), meta::name(class).into());
    }
    spec.insert("priority".into(), value.into());
    meta::default_to(spec, "preemptionPolicy", policy);
    defaults::pod::tolerations(spec);
    Ok(())
}

/// What a new object begins with that its maker does not own.
pub fn begin(state: &State, target: &Target, object: &mut Value) {
    if target.info.is("", "namespaces") {
        let spec = meta::as_map(meta::child(object, "spec"));
        meta::default_to(spec, "finalizers", json!(["kubernetes"]));
    }
    if target.info.is("apps", "daemonsets") {
        defaults::workloads::count_template(object, None);
    }
    if target.info.is("", "services") {
        defaults::headless(object);
    }
    if target.info.is("", "nodes") {
        taint_new(object);
    }
    if target.info.is("", "persistentvolumeclaims") {
        protect(object, storage::CLAIM_PROTECTION);
    }
    if target.info.is("", "persistentvolumes") {
        protect(object, storage::VOLUME_PROTECTION);
        let now = state.now();
        let status = meta::as_map(meta::child(object, "status"));
        status.insert("lastPhaseTransitionTime".into(), now.into());
    }
    let gated = meta::at(object, &["spec", "schedulingGates"])
        .and_then(Value::as_array)
        .is_some_and(|gates| !gates.is_empty());
    if target.info.is("", "pods") && gated {
        let now = state.now();
        crate::ops::binding::set_condition(
            meta::child(object, "status"),
            json!({
                "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastProbeTime": null, "lastTransitionTime": now,
            }),
        );
    }
}

/// The TaintNodesByCondition plugin: nothing is to go to a node before its conditions were looked at.
fn taint_new(node: &mut Value) {
    let is = |t: &Value| {
        text(t, &["key"]) == nodelifecycle::NOT_READY && text(t, &["effect"]) == "NoSchedule"
    };
    if !meta::items(node, &["spec", "taints"]).any(is) {
        let taints = meta::child(meta::child(node, "spec"), "taints");
        let taint = json!({"key": nodelifecycle::NOT_READY, "effect": "NoSchedule"});
        meta::push(taints, taint);
    }
}

/// The StorageObjectInUseProtection plugin.
fn protect(object: &mut Value, finalizer: &str) {
    if !meta::finalizers(object).any(|f| f == finalizer) {
        let finalizers = meta::child(meta::child(object, "metadata"), "finalizers");
        meta::push(finalizers, finalizer.into());
    }
}

/// What follows from a create or update.
pub fn after_write(state: &mut State, target: &Target, object: Option<&Arc<Value>>) {
    // A namespace has its account at once: the controller that makes it elsewhere is part of the server here.
    if let Some(namespace) = object
        && target.info.is("", "namespaces")
        && !meta::is_deleting(namespace)
    {
        let name = meta::name(namespace).to_owned();
        let missing = state
            .store
            .get("serviceaccounts.", &name, "default")
            .is_none();
        if missing && let Ok(accounts) = state.target("", "serviceaccounts", Some(&name)) {
            let account = json!({"metadata": {"name": "default"}});
            let made =
                crate::ops::create::create(state, &accounts, account, &mut WriteOptions::default());
            if let Err(error) = made {
                tracing::error!(%error, name, "could not create a namespace's account");
            }
        }
    }
    if let Some(crd) = object
        && target
            .info
            .is("apiextensions.k8s.io", "customresourcedefinitions")
        && definition::is_established(crd)
        && let Some(info) = definition::resource_of(crd)
    {
        // What is stored is read through the new schema from now on.
        let again = |object: &mut Value| crd::versions::read_again(&info, object);
        state.store.reshape(&info.key(), again);
        state.registry.insert(info);
    }
}

/// What follows from an object's end.
pub fn after_delete(state: &mut State, target: &Target, object: &Arc<Value>) {
    let info = state.registry.get(&target.info.group, &target.info.plural);
    if info.is_some_and(|info| info.terminating)
        && let Err(error) = crd::removal::finish(state, target)
    {
        tracing::error!(%error, definition = target.key, "could not let a definition go");
    }
    if target
        .info
        .is("apiextensions.k8s.io", "customresourcedefinitions")
        && definition::is_established(object)
        && let Some(info) = definition::resource_of(object)
    {
        state.registry.remove(&info.group, &info.plural);
        state.store.drop_resource(&info.key());
    }
}
