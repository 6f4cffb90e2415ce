//! Watches on the wire: bookmarks, streaming lists, definitions that come and go; and what many objects cost.

use std::time::Duration;

use futures::StreamExt as _;
use karpenter_fake_kube::server::{Change, gr};
use kube::api::{Api, DynamicObject, PostParams, WatchEvent, WatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use crate::client::server;

fn config_maps(server: &karpenter_fake_kube::ApiServer) -> Api<DynamicObject> {
    let resource = ApiResource::erase::<k8s_openapi::api::core::v1::ConfigMap>(&());
    Api::default_namespaced_with(server.client(), &resource)
}

fn map(name: &str, on: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"on": on}}})
}

#[tokio::test(start_paused = true)]
async fn a_bookmark_tells_the_version_of_what_the_selector_hid() {
    let server = server();
    let version = server.resource_version().to_string();
    let params = WatchParams::default().labels("on=yes").timeout(280);
    let mut watch = config_maps(&server)
        .watch(&params, &version)
        .await
        .unwrap()
        .boxed();
    let hidden = server
        .create(gr("", "configmaps"), Some("default"), map("a", "no"))
        .unwrap();
    let started = tokio::time::Instant::now();
    let Some(Ok(WatchEvent::Bookmark(bookmark))) = watch.next().await else {
        panic!("no bookmark")
    };
    assert_eq!(
        bookmark.metadata.resource_version,
        hidden["metadata"]["resourceVersion"].as_str().unwrap()
    );
    assert_eq!(started.elapsed(), Duration::from_secs(60));
    assert!(watch.next().await.is_none(), "nothing more to tell");
    assert_eq!(started.elapsed(), Duration::from_secs(280));
}

#[tokio::test(start_paused = true)]
async fn a_streaming_list_ends_with_a_marked_bookmark() {
    let server = server();
    for name in ["a", "b"] {
        server
            .create(gr("", "configmaps"), Some("default"), map(name, "yes"))
            .unwrap();
    }
    let params = WatchParams::default().initial_events().timeout(100);
    let mut watch = config_maps(&server)
        .watch(&params, "0")
        .await
        .unwrap()
        .boxed();
    let mut told = Vec::new();
    loop {
        match watch.next().await.unwrap().unwrap() {
            WatchEvent::Added(o) => told.push(o.metadata.name.unwrap()),
            WatchEvent::Bookmark(b) => {
                assert_eq!(b.metadata.annotations["k8s.io/initial-events-end"], "true");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn subscribers_see_the_end_of_a_definitions_objects() {
    let server = server();
    let definition = json!({
        "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Cluster", "names": {"kind": "Thing", "plural": "things"},
                 "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                     "type": "object", "properties": {"spec": {"type": "object", "properties": {"n": {"type": "integer"}}}}}}},
                     {"name": "v1beta1", "served": true, "storage": false, "schema": {"openAPIV3Schema": {
                     "type": "object", "properties": {"spec": {"type": "object", "properties": {"n": {"type": "integer"}}}}}}}]},
    });
    let definitions = gr("apiextensions.k8s.io", "customresourcedefinitions");
    let made = server.create(definitions, None, definition).unwrap();
    assert_eq!(made["status"]["conditions"][1]["type"], "Established");
    let old = GroupVersionKind::gvk("example.com", "v1beta1", "Thing");
    let things: Api<DynamicObject> = Api::all_with(server.client(), &ApiResource::from_gvk(&old));
    let thing: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "example.com/v1beta1", "kind": "Thing", "metadata": {"name": "t"}, "spec": {"n": 1, "gone": 2}}))
    .unwrap();
    let back = things.create(&PostParams::default(), &thing).await.unwrap();
    assert_eq!(back.types.unwrap().api_version, "example.com/v1beta1");
    assert_eq!(back.data["spec"], json!({"n": 1}));
    let mut changes = server.subscribe(gr("example.com", "things"));
    let Some(Change::Added(stored)) = changes.next().await else {
        panic!("not told")
    };
    assert_eq!(stored["apiVersion"], "example.com/v1");
    server
        .delete(definitions, None, "things.example.com", None)
        .unwrap();
    assert!(matches!(changes.next().await, Some(Change::Deleted(_))));
    assert!(changes.next().await.is_none());
    assert_eq!(
        server
            .get(gr("example.com", "things"), None, "t")
            .unwrap_err()
            .code,
        404
    );
}

/// In process a list shares the stored objects, whatever their number, and a change reaches subscribers once.
#[tokio::test(start_paused = true)]
async fn lists_share_objects_and_changes_are_told_once() {
    const PODS: usize = 2000;
    let server = server();
    for i in 0..PODS {
        let pod = json!({"metadata": {"name": format!("p{i:05}")}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        server.create(gr("", "pods"), Some("default"), pod).unwrap();
    }
    let (one, two) = (
        server.list(gr("", "pods"), None),
        server.list(gr("", "pods"), Some("default")),
    );
    assert_eq!(one.len(), PODS);
    assert!(
        one.iter()
            .zip(&two)
            .all(|(a, b)| std::sync::Arc::ptr_eq(a, b))
    );
    let mut changes = server.subscribe(gr("", "pods"));
    for _ in 0..PODS {
        assert!(matches!(changes.try_next(), Some(Change::Added(_))));
    }
    server.bind("default", "p00000", "n").unwrap();
    assert!(matches!(changes.try_next(), Some(Change::Modified(_))));
    assert!(changes.try_next().is_none());
}
