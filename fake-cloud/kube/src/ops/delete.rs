//! Deleting objects: preconditions, finalizers, propagation, and the grace pods are given.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{State, Target};
use crate::crd::removal;
use crate::error::{ApiError, Result};
use crate::loops::resource::CRDS;
use crate::meta::{self, at, text};
use crate::{admission, ops::replace};

/// What becomes of an object's dependents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// The collector removes them afterwards.
    #[default]
    Background,
    /// They go first; the object waits with the finalizer `foregroundDeletion`.
    Foreground,
    /// They stay; the object waits with the finalizer `orphan` until they are cut loose.
    Orphan,
}

/// How a deletion is to be done.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Grace in seconds; none = the object's own.
    pub grace_seconds: Option<i64>,
    /// Only if the object has this UID.
    pub uid: Option<String>,
    /// Only if the object has this resourceVersion.
    pub version: Option<String>,
    /// Dependents.
    pub propagation: Option<Propagation>,
    /// Check and answer only.
    pub dry_run: bool,
}

/// What a deletion came to.
#[derive(Clone, Debug)]
pub enum Deleted {
    /// The object is gone.
    Gone(Arc<Value>),
    /// The object stays for now: finalizers or its grace hold it.
    Pending(Arc<Value>),
}

/// DELETE.
///
/// # Errors
/// 404, 409.
pub fn delete(
    state: &mut State,
    target: &Target,
    name: &str,
    options: &DeleteOptions,
) -> Result<Deleted> {
    let old = state.require(target, name)?;
    check(target, &old, options)?;
    let mut new = Value::clone(&old);
    let grace = grace_of(target, &old, options.grace_seconds);
    propagate(&mut new, options.propagation);
    let held = meta::finalizers(&new).next().is_some();

    if target.info.is("", "namespaces")
        && at(&old, &["spec", "finalizers"])
            .and_then(Value::as_array)
            .is_some_and(|f| !f.is_empty())
    {
        if meta::is_deleting(&old) {
            return Ok(Deleted::Pending(old));
        }
        mark(state, &mut new, 0);
        meta::as_map(meta::child(&mut new, "status")).insert("phase".into(), "Terminating".into());
        meta::metadata(&mut new).remove("deletionGracePeriodSeconds");
        return Ok(store(state, target, &old, new, options));
    }
    let definitions = target.info.is(CRDS.group, CRDS.resource);
    if definitions && !meta::is_deleting(&old) {
        let mut new = Value::clone(&old);
        removal::mark(&mut new, &state.now());
        let marked = store(state, target, &old, new, options);
        if let (Deleted::Pending(crd), false) = (&marked, options.dry_run) {
            removal::clean(state, crd)?;
        }
        return Ok(marked);
    }
    // What is going already goes on as it was told to, unless a shorter grace is asked for.
    if target.info.is("", "pods") && meta::is_deleting(&old) && options.grace_seconds.is_none() {
        return Ok(Deleted::Pending(old));
    }
    if meta::is_deleting(&old) {
        let already = at(&old, &["metadata", "deletionGracePeriodSeconds"])
            .and_then(Value::as_i64)
            .unwrap_or(0);
        if grace < already {
            mark(state, &mut new, grace);
        }
    } else if grace > 0 || held {
        mark(state, &mut new, grace);
    }
    if grace == 0 && !held {
        // Pods tell that they were deleted, and with what grace; other kinds go without a word.
        if target.info.is("", "pods") && !meta::is_deleting(&new) {
            mark(state, &mut new, 0);
        }
        if options.dry_run {
            return Ok(Deleted::Gone(old));
        }
        let (namespace, name) = (
            meta::namespace(&old).to_owned(),
            meta::name(&old).to_owned(),
        );
        if new != *old {
            // The end of a pod's grace is a change first, as every change of it is.
            state.store.put(&target.key, &namespace, &name, new.clone());
        }
        let gone = state
            .store
            .remove(&target.key, &namespace, &name, Some(new))
            .unwrap_or(old);
        admission::after_delete(state, target, &gone);
        return Ok(Deleted::Gone(gone));
    }
    Ok(store(state, target, &old, new, options))
}

fn check(target: &Target, old: &Value, options: &DeleteOptions) -> Result<()> {
    let name = meta::name(old);
    let checks = [
        (
            "UID",
            options.uid.as_deref(),
            meta::uid(old),
            "deleted and then recreated",
        ),
        (
            "ResourceVersion",
            options.version.as_deref(),
            meta::version(old),
            "modified",
        ),
    ];
    for (what, wanted, is, happened) in checks {
        if let Some(wanted) = wanted
            && wanted != is
        {
            // Definitions are looked at before they are marked, in words of their own.
            if target.info.is(CRDS.group, CRDS.resource) && !meta::is_deleting(old) {
                let why = format!(
                    "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {is}"
                );
                return Err(ApiError::conflict(&target.info, name, &why));
            }
            let why = format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({is}). The object might have been {happened}"
            );
            return Err(ApiError::precondition(&target.info, name, &why));
        }
    }
    // A cluster cannot do without these.
    if target.info.is("", "namespaces") && matches!(name, "default" | "kube-system" | "kube-public")
    {
        let why = "this namespace may not be deleted";
        return Err(ApiError::forbidden(&target.info, name, why));
    }
    Ok(())
}

/// Seconds of grace: only pods have any, and only those that a kubelet runs.
fn grace_of(target: &Target, object: &Value, asked: Option<i64>) -> i64 {
    if !target.info.is("", "pods") {
        return 0;
    }
    let unbound = text(object, &["spec", "nodeName"]).is_empty();
    let finished = matches!(text(object, &["status", "phase"]), "Succeeded" | "Failed");
    if unbound || finished {
        return 0;
    }
    let grace = asked.unwrap_or_else(|| {
        at(object, &["spec", "terminationGracePeriodSeconds"])
            .and_then(Value::as_i64)
            .unwrap_or(30)
    });
    // The real server reads a negative grace as "as soon as possible", one second.
    if grace < 0 { 1 } else { grace }
}

fn propagate(object: &mut Value, propagation: Option<Propagation>) {
    const FOREGROUND: &str = "foregroundDeletion";
    const ORPHAN: &str = "orphan";
    let Some(propagation) = propagation else {
        return;
    };
    let mut finalizers: Vec<String> = meta::finalizers(object)
        .filter(|f| *f != FOREGROUND && *f != ORPHAN)
        .map(str::to_owned)
        .collect();
    match propagation {
        Propagation::Background => {}
        Propagation::Foreground => finalizers.push(FOREGROUND.to_owned()),
        Propagation::Orphan => finalizers.push(ORPHAN.to_owned()),
    }
    let value = (!finalizers.is_empty()).then(|| finalizers.into());
    meta::set(meta::metadata(object), "finalizers", value);
}

/// Marks an object as being deleted, `grace` seconds from now; a grace that is cut short counts from when the first
/// deletion was asked for.
fn mark(state: &State, object: &mut Value, grace: i64) {
    let now = state.clock.wall();
    let already = meta::is_deleting(object);
    let asked = if already {
        let held = at(object, &["metadata", "deletionGracePeriodSeconds"])
            .and_then(Value::as_i64)
            .unwrap_or(0);
        text(object, &["metadata", "deletionTimestamp"])
            .parse::<Timestamp>()
            .ok()
            .and_then(|until| until.checked_sub(SignedDuration::from_secs(held)).ok())
            .unwrap_or(now)
    } else {
        now
    };
    let when = asked
        .checked_add(SignedDuration::from_secs(grace))
        .unwrap_or(now);
    let metadata = meta::metadata(object);
    metadata.insert("deletionTimestamp".into(), meta::time(when).into());
    metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
    if !already && let Some(generation) = metadata.get("generation").and_then(Value::as_i64) {
        metadata.insert("generation".into(), (generation + 1).into());
    }
}

fn store(
    state: &mut State,
    target: &Target,
    old: &Arc<Value>,
    new: Value,
    options: &DeleteOptions,
) -> Deleted {
    if new == **old {
        return Deleted::Pending(Arc::clone(old));
    }
    if options.dry_run {
        return Deleted::Pending(Arc::new(new));
    }
    let (namespace, name) = (meta::namespace(old).to_owned(), meta::name(old).to_owned());
    if replace::released(target, &new) {
        let gone = state
            .store
            .remove(&target.key, &namespace, &name, Some(new));
        let gone = gone.unwrap_or_else(|| Arc::clone(old));
        admission::after_delete(state, target, &gone);
        return Deleted::Gone(gone);
    }
    let stored = state.store.put(&target.key, &namespace, &name, new);
    admission::after_write(state, target, Some(&stored));
    Deleted::Pending(stored)
}
