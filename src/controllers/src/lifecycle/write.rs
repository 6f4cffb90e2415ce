//! Writing to the API: the smallest merge patch that turns what was read into what is wanted, always under the
//! resourceVersion it was read at, and the answer straight into the state, so that a loop sees its own writes.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::Node;
use karpenter_api::{CapacityBuffer, NodeClaim, NodeOverlay, NodePool, labels};
use karpenter_runtime::runner::ReconcileError;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::objects::{self, label_or_empty, name};
use crate::Context;

/// The RFC 7396 patch that turns `before` into `after`; none if they are equal. Lists are replaced whole, which is
/// why every patch carries the resourceVersion.
pub(crate) fn merge_patch(before: &Value, after: &Value) -> Option<Value> {
    if before == after {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        return Some(after.clone());
    };
    let mut patch = Map::new();
    for key in old.keys().filter(|k| !new.contains_key(*k)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        match old.get(key) {
            None => {
                patch.insert(key.clone(), value.clone());
            }
            Some(held) => {
                if let Some(part) = merge_patch(held, value) {
                    patch.insert(key.clone(), part);
                }
            }
        }
    }
    Some(Value::Object(patch))
}

fn difference<T: Serialize + PartialEq>(
    before: &T,
    after: &T,
) -> Result<Option<Value>, ReconcileError> {
    // Most passes change nothing: that must not cost two serialisations.
    if before == after {
        return Ok(None);
    }
    let value = |x: &T| serde_json::to_value(x).map_err(|e| ReconcileError::Retry(Box::new(e)));
    Ok(merge_patch(&value(before)?, &value(after)?))
}

/// Drops the resourceVersion, which differs between two states of an object without anybody wanting it to.
fn without_version(meta: &kube::core::ObjectMeta) -> kube::core::ObjectMeta {
    kube::core::ObjectMeta {
        resource_version: None,
        managed_fields: None,
        ..meta.clone()
    }
}

/// What differs in metadata but for the version: most passes change nothing, and must not cost two copies.
fn meta_difference(
    before: &kube::core::ObjectMeta,
    after: &kube::core::ObjectMeta,
) -> Result<Option<Value>, ReconcileError> {
    if before == after {
        return Ok(None);
    }
    difference(&without_version(before), &without_version(after))
}

/// None if the object is gone, which for all writes here means: nothing left to do.
fn unless_gone<T>(result: Result<T, kube::Error>) -> Result<Option<T>, ReconcileError> {
    match result {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn guarded(version: Option<&str>, field: &str, part: Value) -> Value {
    if field == "metadata" {
        let mut part = part;
        if let (Some(map), Some(v)) = (part.as_object_mut(), version) {
            map.insert("resourceVersion".to_owned(), v.into());
        }
        return json!({ "metadata": part });
    }
    match version {
        Some(v) => json!({ "metadata": { "resourceVersion": v }, field: part }),
        None => json!({ field: part }),
    }
}

/// Writes what differs in a claim's metadata, then in its status. Returns the claim as it is then, borrowed where nothing
/// was written; none if it is gone.
pub(crate) async fn claim<'a>(
    ctx: &Context,
    before: &'a NodeClaim,
    after: &NodeClaim,
) -> Result<Option<Cow<'a, NodeClaim>>, ReconcileError> {
    let api: Api<NodeClaim> = Api::all(ctx.client.clone());
    let claim_name = name(&before.metadata);
    let params = PatchParams::default();
    let mut current = Cow::Borrowed(before);
    if let Some(part) = meta_difference(&before.metadata, &after.metadata)? {
        let version = current.metadata.resource_version.as_deref();
        let patch = Patch::Merge(guarded(version, "metadata", part));
        match unless_gone(api.patch(claim_name, &params, &patch).await)? {
            Some(answer) => {
                ctx.state.apply_node_claim(answer.clone());
                current = Cow::Owned(answer);
            }
            None => return Ok(claim_is_gone(ctx, claim_name)),
        }
    }
    if let Some(part) = difference(&before.status, &after.status)? {
        let version = current.metadata.resource_version.as_deref();
        let patch = Patch::Merge(guarded(version, "status", part));
        match unless_gone(api.patch_status(claim_name, &params, &patch).await)? {
            Some(answer) => {
                ctx.state.apply_node_claim(answer.clone());
                current = Cow::Owned(answer);
            }
            None => return Ok(claim_is_gone(ctx, claim_name)),
        }
    }
    Ok(Some(current))
}

fn claim_is_gone<'a>(ctx: &Context, claim: &str) -> Option<Cow<'a, NodeClaim>> {
    ctx.state.forget_node_claim(claim);
    None
}

/// Writes what differs in a Node's metadata and spec, in one patch. None if it is gone.
pub(crate) async fn node(
    ctx: &Context,
    before: &Node,
    after: &Node,
) -> Result<Option<Node>, ReconcileError> {
    let api: Api<Node> = Api::all(ctx.client.clone());
    let node_name = name(&before.metadata);
    let meta = meta_difference(&before.metadata, &after.metadata)?;
    let spec = difference(&before.spec, &after.spec)?;
    if meta.is_none() && spec.is_none() {
        return Ok(Some(before.clone()));
    }
    let version = before.metadata.resource_version.as_deref();
    let mut patch = guarded(version, "metadata", meta.unwrap_or_else(|| json!({})));
    if let (Some(map), Some(spec)) = (patch.as_object_mut(), spec) {
        map.insert("spec".to_owned(), spec);
    }
    let answer = api
        .patch(node_name, &PatchParams::default(), &Patch::Merge(patch))
        .await;
    Ok(take_node(ctx, node_name, unless_gone(answer)?))
}

/// Puts the answer to a write of a Node into the state.
fn take_node(ctx: &Context, node_name: &str, answer: Option<Node>) -> Option<Node> {
    let Some(answer) = answer else {
        ctx.state.forget_node(node_name);
        return None;
    };
    // The last finalizer's removal answers with the object that has just gone.
    if objects::is_deleting(&answer.metadata) && no_finalizers(&answer.metadata) {
        ctx.state.delete_node(&answer);
    } else {
        ctx.state.apply_node(answer.clone());
    }
    Some(answer)
}

/// Takes our finalizer off a Node; true if it was there until now.
///
/// The one write without a resourceVersion: a Node is written to all the time by others (its kubelet, the garbage
/// collector, whoever asks again for its deletion), and many that go at once would only ever meet conflicts. The
/// patch names the finalizer to drop instead of the list that is left, so that nobody's write is lost.
pub(crate) async fn remove_node_finalizer(
    ctx: &Context,
    node: &Node,
) -> Result<bool, ReconcileError> {
    let api: Api<Node> = Api::all(ctx.client.clone());
    let node_name = name(&node.metadata);
    let patch = Patch::Strategic(without_finalizer(node.metadata.uid.as_deref()));
    let answer = api.patch(node_name, &PatchParams::default(), &patch).await;
    Ok(take_node(ctx, node_name, unless_gone(answer)?).is_some())
}

/// The UID, which cannot be changed, keeps the patch from another Node of the same name.
fn without_finalizer(uid: Option<&str>) -> Value {
    let mut meta =
        json!({ "$deleteFromPrimitiveList/finalizers": [labels::TERMINATION_FINALIZER] });
    if let (Some(map), Some(uid)) = (meta.as_object_mut(), uid) {
        map.insert("uid".to_owned(), uid.into());
    }
    json!({ "metadata": meta })
}

fn no_finalizers(meta: &kube::core::ObjectMeta) -> bool {
    meta.finalizers.as_ref().is_none_or(Vec::is_empty)
}

/// Writes what differs in a NodePool's status. None if it is gone.
pub(crate) async fn pool_status(
    ctx: &Context,
    before: &NodePool,
    after: &NodePool,
) -> Result<Option<NodePool>, ReconcileError> {
    let part = difference(&before.status, &after.status)?;
    let api = Api::all(ctx.client.clone());
    let written = status(&api, before, part).await?;
    let keep = |pool: &NodePool| ctx.state.apply_node_pool(pool.clone());
    Ok(written.inspect(keep))
}

/// Writes what differs in a CapacityBuffer's status. None if it is gone.
pub(crate) async fn buffer_status(
    ctx: &Context,
    before: &CapacityBuffer,
    after: &CapacityBuffer,
) -> Result<Option<CapacityBuffer>, ReconcileError> {
    let part = difference(&before.status, &after.status)?;
    let namespace = before.metadata.namespace.as_deref().unwrap_or_default();
    let api = Api::namespaced(ctx.client.clone(), namespace);
    let written = status(&api, before, part).await?;
    let keep = |buffer: &CapacityBuffer| ctx.state.apply_capacity_buffer(buffer.clone());
    Ok(written.inspect(keep))
}

/// Writes what differs in a NodeOverlay's status. None if it is gone.
pub(crate) async fn overlay_status(
    ctx: &Context,
    before: &NodeOverlay,
    after: &NodeOverlay,
) -> Result<Option<NodeOverlay>, ReconcileError> {
    let part = difference(&before.status, &after.status)?;
    let api = Api::all(ctx.client.clone());
    let written = status(&api, before, part).await?;
    let keep = |overlay: &NodeOverlay| ctx.state.apply_node_overlay(overlay.clone());
    Ok(written.inspect(keep))
}

/// Writes a part of an object's status, if there is any, under the resourceVersion it was read at; the object as it is
/// then, none if it is gone.
async fn status<K>(
    api: &Api<K>,
    before: &K,
    part: Option<Value>,
) -> Result<Option<K>, ReconcileError>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let Some(part) = part else {
        return Ok(Some(before.clone()));
    };
    let meta = before.meta();
    let version = meta.resource_version.as_deref();
    let patch = Patch::Merge(guarded(version, "status", part));
    unless_gone(
        api.patch_status(name(meta), &PatchParams::default(), &patch)
            .await,
    )
}

/// Takes our finalizer off a claim; true if this call did it (and not somebody before us).
pub(crate) async fn remove_claim_finalizer(
    ctx: &Context,
    claim: &NodeClaim,
) -> Result<bool, ReconcileError> {
    let mut meta = without_version(&claim.metadata);
    drop_finalizer(&mut meta);
    let Some(part) = difference(&without_version(&claim.metadata), &meta)? else {
        return Ok(false);
    };
    let api: Api<NodeClaim> = Api::all(ctx.client.clone());
    let claim_name = name(&claim.metadata);
    let version = claim.metadata.resource_version.as_deref();
    let patch = Patch::Merge(guarded(version, "metadata", part));
    let answer = api.patch(claim_name, &PatchParams::default(), &patch).await;
    match unless_gone(answer)? {
        Some(answer) => {
            if no_finalizers(&answer.metadata) {
                ctx.state.delete_node_claim(&answer);
            } else {
                ctx.state.apply_node_claim(answer);
            }
            Ok(true)
        }
        None => {
            ctx.state.forget_node_claim(claim_name);
            Ok(false)
        }
    }
}

/// Takes our finalizer out of the list.
fn drop_finalizer(meta: &mut kube::core::ObjectMeta) {
    if let Some(all) = &mut meta.finalizers {
        all.retain(|f| f != labels::TERMINATION_FINALIZER);
        if all.is_empty() {
            meta.finalizers = None;
        }
    }
}

/// Deletes a claim; true if the API server took the deletion (false: it was gone, or is another object by now).
pub(crate) async fn delete_claim(ctx: &Context, claim: &NodeClaim) -> Result<bool, ReconcileError> {
    let api: Api<NodeClaim> = Api::all(ctx.client.clone());
    let claim_name = name(&claim.metadata);
    match api.delete(claim_name, &this_one(&claim.metadata)).await {
        Ok(answer) => {
            if let Some(object) = answer.left()
                && objects::is_deleting(&object.metadata)
            {
                if no_finalizers(&object.metadata) {
                    ctx.state.delete_node_claim(&object);
                } else {
                    ctx.state.apply_node_claim(object);
                }
            }
            Ok(true)
        }
        Err(kube::Error::Api(status)) if status.is_not_found() => {
            ctx.state.forget_node_claim(claim_name);
            Ok(false)
        }
        // The UID is another one: the claim that was meant is gone.
        Err(kube::Error::Api(status)) if status.is_conflict() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Deletes a Node; true if the API server took the deletion.
pub(crate) async fn delete_node(ctx: &Context, node: &Node) -> Result<bool, ReconcileError> {
    let api: Api<Node> = Api::all(ctx.client.clone());
    let node_name = name(&node.metadata);
    match api.delete(node_name, &this_one(&node.metadata)).await {
        Ok(answer) => {
            if let Some(object) = answer.left()
                && objects::is_deleting(&object.metadata)
                && !no_finalizers(&object.metadata)
            {
                ctx.state.apply_node(object);
            }
            Ok(true)
        }
        Err(kube::Error::Api(status)) if status.is_not_found() => {
            ctx.state.forget_node(node_name);
            Ok(false)
        }
        Err(kube::Error::Api(status)) if status.is_conflict() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Deletes this very object, not another one of the same name.
fn this_one(meta: &kube::core::ObjectMeta) -> DeleteParams {
    DeleteParams {
        preconditions: Some(Preconditions {
            resource_version: None,
            uid: meta.uid.clone(),
        }),
        ..DeleteParams::default()
    }
}

/// Deletes a claim on behalf of `reason` and counts it, if the API server took it.
pub(crate) async fn disrupt_claim(
    ctx: &Context,
    claim: &NodeClaim,
    reason: &str,
) -> Result<bool, ReconcileError> {
    let taken = delete_claim(ctx, claim).await?;
    if taken {
        let meta = &claim.metadata;
        ctx.metrics.inc(
            "karpenter_nodeclaims_disrupted_total",
            &[
                ("reason", reason),
                ("nodepool", label_or_empty(meta, labels::NODEPOOL)),
                ("capacity_type", label_or_empty(meta, labels::CAPACITY_TYPE)),
            ],
        );
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn apply(target: &mut Value, patch: &Value) {
        let Value::Object(patch) = patch else {
            *target = patch.clone();
            return;
        };
        if !target.is_object() {
            *target = json!({});
        }
        let Some(map) = target.as_object_mut() else {
            return;
        };
        for (key, value) in patch {
            if value.is_null() {
                map.remove(key);
            } else {
                apply(map.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (0..3_i64).prop_map(Value::from),
            prop::collection::vec((0..3_i64).prop_map(Value::from), 0..3).prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop::collection::btree_map("[abc]", inner, 0..3)
                .prop_map(|m| Value::Object(m.into_iter().collect()))
        })
    }

    proptest! {
        #[test]
        fn the_patch_turns_one_into_the_other(before in tree(), after in tree()) {
            let mut result = before.clone();
            match merge_patch(&before, &after) {
                None => prop_assert_eq!(&before, &after),
                Some(patch) => {
                    apply(&mut result, &patch);
                    prop_assert_eq!(&result, &after);
                }
            }
        }
    }

    #[test]
    fn a_patch_names_only_what_differs_and_the_version() {
        let patch = merge_patch(
            &json!({"a": 1, "b": {"c": 2, "d": 3}}),
            &json!({"a": 1, "b": {"c": 4}}),
        );
        assert_eq!(patch, Some(json!({"b": {"c": 4, "d": null}})));
        assert_eq!(
            guarded(Some("7"), "metadata", json!({"labels": {"x": "y"}})),
            json!({"metadata": {"labels": {"x": "y"}, "resourceVersion": "7"}})
        );
        assert_eq!(
            guarded(Some("7"), "status", json!({"nodeName": "n"})),
            json!({"metadata": {"resourceVersion": "7"}, "status": {"nodeName": "n"}})
        );
    }
}
