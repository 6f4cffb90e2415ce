//! What steps do to a world's objects: to the embedded cluster at once, to a running one through its API.

use std::sync::Arc;
use std::time::Duration;

use karpenter_fake_kube::server::PatchKind;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use crate::json::{name, text};
use crate::kinds;
use crate::mirror;
use crate::world::World;

/// Longest that a story's waiting takes on a running cluster.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long what a story waits for may take on a running cluster.
const PATIENCE: Duration = Duration::from_secs(150);
/// What a story's NodePools wait there before they consolidate, at most.
const CONSOLIDATE_AFTER: &str = "3s";

impl World {
    /// Whether this world is a running cluster, in real time.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.around.live.is_some()
    }

    /// A story's time in this world: all of it in virtual time, a pause in real time.
    pub(crate) fn pace(&self, duration: Duration) -> Duration {
        if self.is_live() {
            duration.min(PAUSE_MAX)
        } else {
            duration
        }
    }

    /// How long is waited for what should come within `timeout`, and what should be so now.
    pub(crate) fn patience(&self, timeout: Option<Duration>) -> Duration {
        if self.is_live() {
            PATIENCE
        } else {
            timeout.unwrap_or_default()
        }
    }

    fn live_api(&self, kind: &str, namespace: Option<&str>) -> Result<Api<DynamicObject>, String> {
        let resource = mirror::resource(kind).ok_or_else(|| unknown(kind))?;
        let client = self.around.client();
        Ok(match namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        })
    }

    /// Applies an object to a running cluster.
    ///
    /// # Errors
    /// When the kind is unknown or the object is refused.
    pub(crate) async fn put(&self, object: &Value) -> Result<(), String> {
        let kind = text(object, "/kind");
        let namespace = namespace_of(kind, object)?;
        let api = self.live_api(kind, namespace.as_deref())?;
        let shown = format!("{kind} {}", name(object));
        let parameters = PatchParams::apply("scenario").force();
        let object = hurried(object);
        api.patch(name(&object), &parameters, &Patch::Apply(&object))
            .await
            .map(|_| ())
            .map_err(|e| format!("{shown}: {e}"))
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// When it is refused.
    pub(crate) async fn remove(&self, kind: &str, object: &Value) -> Result<(), String> {
        let namespace = namespace_of(kind, object)?;
        let shown = |why: String| format!("{kind} {}: {why}", name(object));
        if self.is_live() {
            let api = self.live_api(kind, namespace.as_deref())?;
            return api
                .delete(name(object), &DeleteParams::background())
                .await
                .map(|_| ())
                .map_err(|e| shown(e.to_string()));
        }
        let place = kinds::of(kind).ok_or_else(|| unknown(kind))?;
        self.api
            .delete(place.resource, namespace.as_deref(), name(object), None)
            .map_err(|e| e.to_string())
    }

    /// Patches an object or one of its subresources.
    ///
    /// # Errors
    /// When it is refused.
    pub(crate) async fn merge(
        &self,
        kind: &str,
        object: &Arc<Value>,
        subresource: &str,
        patch: Value,
    ) -> Result<(), String> {
        let namespace = namespace_of(kind, object)?;
        let name = name(object);
        if self.is_live() {
            let api = self.live_api(kind, namespace.as_deref())?;
            let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
            let done = match subresource {
                "" => api.patch(name, &parameters, &patch).await.map(|_| ()),
                "status" => api
                    .patch_status(name, &parameters, &patch)
                    .await
                    .map(|_| ()),
                _ => api.patch_scale(name, &parameters, &patch).await.map(|_| ()),
            };
            return done.map_err(|e| format!("{kind} {name}: {e}"));
        }
        let place = kinds::of(kind).ok_or_else(|| unknown(kind))?;
        let (resource, kind_of) = (place.resource, PatchKind::Merge);
        self.api
            .patch(
                resource,
                namespace.as_deref(),
                name,
                subresource,
                kind_of,
                patch,
            )
            .map(|_| ())
            .map_err(|e| format!("{kind} {name}: {e}"))
    }
}

fn unknown(kind: &str) -> String {
    format!("kind {kind} is not known here")
}

fn namespace_of(kind: &str, object: &Value) -> Result<Option<String>, String> {
    let place = kinds::of(kind).ok_or_else(|| unknown(kind))?;
    Ok(place
        .namespaced
        .then(|| match text(object, "/metadata/namespace") {
            "" => "default".to_owned(),
            given => given.to_owned(),
        }))
}

/// A NodePool that does not keep a story waiting.
fn hurried(object: &Value) -> Value {
    let mut object = object.clone();
    let is_pool = text(&object, "/kind") == "NodePool";
    let after = object.pointer_mut("/spec/disruption/consolidateAfter");
    if let (true, Some(after)) = (is_pool, after)
        && !matches!(after.as_str(), Some("Never" | "0s"))
    {
        *after = json!(CONSOLIDATE_AFTER);
    }
    // What a dump of a cluster says of an object is not what is applied.
    if let Some(map) = object.as_object_mut() {
        map.remove("status");
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_hurry_and_nothing_else_does() {
        let pool = |after: &str| json!({"kind": "NodePool", "spec": {"disruption": {"consolidateAfter": after}}});
        assert_eq!(hurried(&pool("5m")), pool("3s"));
        assert_eq!(hurried(&pool("Never")), pool("Never"));
        let other =
            json!({"kind": "Deployment", "spec": {"disruption": {"consolidateAfter": "5m"}}});
        assert_eq!(hurried(&other), other);
    }
}
