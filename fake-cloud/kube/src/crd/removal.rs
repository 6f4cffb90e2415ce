//! The end of a definition: it is marked and held by a finalizer, its objects are deleted, and with the last of them it
//! goes. The real server looks every five seconds whether any is left; here it is seen at once.

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::loops::resource::CRDS;
use crate::meta::{self, text};
use crate::ops::delete::{self, DeleteOptions};
use crate::ops::{State, Target, replace};

/// What holds a definition until its objects are gone.
const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
const CONDITION: &str = "Terminating";

/// Whether a definition is on its way out, so that nothing of its kind is made any more.
#[must_use]
pub fn is_terminating(crd: &Value) -> bool {
    meta::items(crd, &["status", "conditions"])
        .any(|c| text(c, &["type"]) == CONDITION && text(c, &["status"]) == "True")
}

/// Marks a definition that is asked to go.
pub fn mark(crd: &mut Value, now: &str) {
    meta::metadata(crd).insert("deletionTimestamp".into(), now.into());
    if !meta::finalizers(crd).any(|f| f == FINALIZER) {
        meta::push(
            meta::child(meta::child(crd, "metadata"), "finalizers"),
            FINALIZER.into(),
        );
    }
    condition(
        crd,
        now,
        "True",
        "InstanceDeletionPending",
        "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
    );
}

fn condition(crd: &mut Value, now: &str, status: &str, reason: &str, message: &str) {
    let wanted = json!({
        "type": CONDITION, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": now,
    });
    crate::ops::binding::set_condition(meta::child(crd, "status"), wanted);
}

/// Deletes the objects of a definition that was marked, and lets it go if none is left.
///
/// # Errors
/// When an object cannot be deleted.
pub fn clean(state: &mut State, crd: &Value) -> Result<(), ApiError> {
    let now = state.now();
    let mut going = crd.clone();
    condition(
        &mut going,
        &now,
        "True",
        "InstanceDeletionInProgress",
        "CustomResource deletion is in progress",
    );
    store(state, going)?;
    let (group, plural) = (
        text(crd, &["spec", "group"]),
        text(crd, &["spec", "names", "plural"]),
    );
    let Ok(objects) = state.target(group, plural, None) else {
        // Its names were never accepted.
        return release(state, meta::name(crd));
    };
    let all: Vec<(String, String)> = state
        .store
        .iter(&objects.key, None, None)
        .map(|o| (meta::namespace(o).to_owned(), meta::name(o).to_owned()))
        .collect();
    for (namespace, name) in all {
        let target = Target {
            namespace,
            ..objects.clone()
        };
        // With the last one the definition goes, and some may go with their owners.
        if state.require(&target, &name).is_ok() {
            delete::delete(state, &target, &name, &DeleteOptions::default())?;
        }
    }
    finish(state, &objects)
}

/// Lets the definition of a kind go if it is on its way out and no object of the kind is left.
///
/// # Errors
/// None that the definition could be the cause of.
pub fn finish(state: &mut State, objects: &Target) -> Result<(), ApiError> {
    if state.store.is_empty(&objects.key) {
        return release(state, &objects.key);
    }
    Ok(())
}

fn release(state: &mut State, name: &str) -> Result<(), ApiError> {
    let target = state.target(CRDS.group, CRDS.resource, None)?;
    let Ok(crd) = state.require(&target, name) else {
        return Ok(());
    };
    if !meta::finalizers(&crd).any(|f| f == FINALIZER) || !meta::is_deleting(&crd) {
        return Ok(());
    }
    let now = state.now();
    let mut crd = Value::clone(&crd);
    let left: Vec<Value> = meta::finalizers(&crd)
        .filter(|f| *f != FINALIZER)
        .map(Value::from)
        .collect();
    let left = (!left.is_empty()).then_some(Value::Array(left));
    meta::set(meta::metadata(&mut crd), "finalizers", left);
    condition(
        &mut crd,
        &now,
        "False",
        "InstanceDeletionCompleted",
        "removed all instances",
    );
    store(state, crd)
}

fn store(state: &mut State, crd: Value) -> Result<(), ApiError> {
    let target = state.target(CRDS.group, CRDS.resource, None)?;
    let old = state.require(&target, meta::name(&crd))?;
    replace::commit(
        state,
        &target,
        &old,
        crd,
        &crate::ops::WriteOptions::default(),
    )?;
    Ok(())
}

/// Refuses an object of a kind whose definition is on its way out.
///
/// # Errors
/// 403.
pub fn check_new(target: &Target, object: &Value) -> Result<(), ApiError> {
    if target.info.terminating {
        let why = "create not allowed while custom resource definition is terminating";
        return Err(ApiError::forbidden(&target.info, meta::name(object), why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use karpenter_runtime::{Clock, RngTree};

    use super::*;
    use crate::server::{ApiServer, PatchKind, ServerOptions, gr};

    #[tokio::test(start_paused = true)]
    async fn a_definition_goes_with_its_last_object_and_after_whoever_holds_it() {
        let server = ApiServer::new(ServerOptions {
            clock: Clock::real(),
            rng: RngTree::new(1),
        });
        let definition = |finalizers: Value| {
            json!({"metadata": {"name": "widgets.x.io", "finalizers": finalizers}, "spec": {"group": "x.io", "scope": "Namespaced",
                "names": {"plural": "widgets", "kind": "Widget"}, "versions": [{"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object"}}}]}})
        };
        let widget =
            |finalizers: Value| json!({"metadata": {"name": "a", "finalizers": finalizers}});
        let widgets = gr("x.io", "widgets");
        let free = |of, namespace, name: &str| {
            let patch = json!({"metadata": {"finalizers": null}});
            server
                .patch(of, namespace, name, "", PatchKind::Merge, patch)
                .unwrap();
        };
        let terminating = || {
            let crd = server.get(CRDS, None, "widgets.x.io").unwrap();
            meta::items(&crd, &["status", "conditions"])
                .find(|c| text(c, &["type"]) == CONDITION)
                .map(|c| {
                    (
                        text(c, &["status"]).to_owned(),
                        text(c, &["reason"]).to_owned(),
                    )
                })
                .unwrap()
        };
        let told = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
        server
            .create(CRDS, None, definition(json!(["x.io/mine"])))
            .unwrap();
        server
            .create(widgets, Some("default"), widget(json!(["x.io/held"])))
            .unwrap();
        server.delete(CRDS, None, "widgets.x.io", None).unwrap();
        assert_eq!(terminating(), told("True", "InstanceDeletionInProgress"));
        let refused = server.create(widgets, Some("default"), json!({"metadata": {"name": "b"}}));
        assert_eq!(refused.unwrap_err().code, 403);
        // The object goes, and the definition waits for whoever else holds it.
        free(widgets, Some("default"), "a");
        assert_eq!(terminating(), told("False", "InstanceDeletionCompleted"));
        free(CRDS, None, "widgets.x.io");
        assert_eq!(
            server.get(CRDS, None, "widgets.x.io").unwrap_err().code,
            404
        );
        assert_eq!(
            server.get(widgets, Some("default"), "a").unwrap_err().code,
            404
        );
        // The same again, with nobody who holds anything.
        server.create(CRDS, None, definition(Value::Null)).unwrap();
        server
            .create(widgets, Some("default"), widget(Value::Null))
            .unwrap();
        server.delete(CRDS, None, "widgets.x.io", None).unwrap();
        assert_eq!(
            server.get(CRDS, None, "widgets.x.io").unwrap_err().code,
            404
        );
    }
}
