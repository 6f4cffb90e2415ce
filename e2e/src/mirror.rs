//! A cluster seen in a mirror: an embedded API server that shows what a running cluster has, by lists and watches, so that
//! everything which judges and reports reads it as it reads its own.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::TryStreamExt as _;
use karpenter_fake_kube::server::{ApiServer, gr};
use kube::api::{Api, DynamicObject, ListParams, WatchEvent, WatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Error};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::json::{name, text};
use crate::kinds;

/// What stories look at.
const SEEN: [(&str, &str); 13] = [
    ("Node", "v1"),
    ("Pod", "v1"),
    ("Event", "v1"),
    ("LimitRange", "v1"),
    ("PodTemplate", "v1"),
    ("Deployment", "v1"),
    ("DaemonSet", "v1"),
    ("PodDisruptionBudget", "v1"),
    ("NodePool", "v1"),
    ("NodeClaim", "v1"),
    ("NodeOverlay", "v1alpha1"),
    ("KWOKNodeClass", "v1alpha1"),
    ("CapacityBuffer", "v1beta1"),
];
/// Wait before another try: a kind may not be served yet.
const AGAIN: Duration = Duration::from_millis(300);

/// The resource of a kind that stories speak of.
pub(crate) fn resource(kind: &str) -> Option<ApiResource> {
    let place = kinds::of(kind)?;
    let version = SEEN
        .iter()
        .find(|(k, _)| *k == kind)
        .map_or("v1", |(_, v)| v);
    Some(ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk(place.resource.group, version, kind),
        place.resource.resource,
    ))
}

/// Mirrors a cluster until `stop`.
pub(crate) fn start(
    mirror: &ApiServer,
    client: &Client,
    stop: &CancellationToken,
) -> Vec<JoinHandle<()>> {
    SEEN.iter()
        .filter_map(|(kind, _)| resource(kind))
        .map(|resource| {
            let (mirror, client, stop) = (mirror.clone(), client.clone(), stop.clone());
            tokio::spawn(async move {
                let follow = async {
                    loop {
                        // A kind that is not served yet, a watch that broke off: it is listed again.
                        let _ = follow(&mirror, &client, &resource).await;
                        tokio::time::sleep(AGAIN).await;
                    }
                };
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = follow => {}
                }
            })
        })
        .collect()
}

/// Lists a resource and follows its changes until the watch ends.
async fn follow(mirror: &ApiServer, client: &Client, resource: &ApiResource) -> Result<(), Error> {
    let place = gr(&resource.group, &resource.plural);
    let api: Api<DynamicObject> = Api::all_with(client.clone(), resource);
    let list = api.list(&ListParams::default()).await?;
    let version = list.metadata.resource_version.unwrap_or_default();
    let mut there = BTreeSet::new();
    for object in list.items {
        let object = plain(object, resource);
        there.insert(key(&object));
        mirror.show(place, object);
    }
    for object in mirror.list(place, None) {
        let (namespace, name) = key(&object);
        if !there.contains(&(namespace.clone(), name.clone())) {
            mirror.hide(place, &namespace, &name);
        }
    }
    let changes = api.watch(&WatchParams::default(), &version).await?;
    let mut changes = std::pin::pin!(changes);
    while let Some(change) = changes.try_next().await? {
        match change {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                mirror.show(place, plain(object, resource));
            }
            WatchEvent::Deleted(object) => {
                let (namespace, name) = key(&plain(object, resource));
                mirror.hide(place, &namespace, &name);
            }
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(_) => return Ok(()),
        }
    }
    Ok(())
}

fn plain(object: DynamicObject, resource: &ApiResource) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(map) = value.as_object_mut() {
        map.insert("apiVersion".into(), resource.api_version.as_str().into());
        map.insert("kind".into(), resource.kind.as_str().into());
    }
    value
}

fn key(object: &Value) -> (String, String) {
    (
        text(object, "/metadata/namespace").to_owned(),
        name(object).to_owned(),
    )
}
