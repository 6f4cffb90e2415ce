//! Typed `kube` clients on the server in memory, in virtual time.

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use karpenter_fake_kube::{ApiServer, ServerOptions};
use karpenter_runtime::{Clock, RngTree};
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use serde_json::json;

pub(crate) fn server() -> ApiServer {
    ApiServer::new(ServerOptions {
        clock: Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap()),
        rng: RngTree::new(1),
    })
}

pub(crate) fn pod(name: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "image": "pause:3.9", "resources": {"requests": {"cpu": "1"}}}]},
    }))
    .unwrap()
}

#[tokio::test(start_paused = true)]
async fn create_get_list_update_delete() {
    let server = server();
    let pods: Api<Pod> = Api::default_namespaced(server.client());
    let made = pods
        .create(&PostParams::default(), &pod("a"))
        .await
        .unwrap();
    let spec = made.spec.clone().unwrap();
    assert_eq!(spec.restart_policy.as_deref(), Some("Always"));
    assert_eq!(spec.tolerations.unwrap().len(), 2);
    assert_eq!(
        made.status.clone().unwrap().phase.as_deref(),
        Some("Pending")
    );
    assert!(made.metadata.uid.is_some());

    let again = pods
        .create(&PostParams::default(), &pod("a"))
        .await
        .unwrap_err();
    let kube::Error::Api(status) = again else {
        panic!("{again}")
    };
    assert_eq!(
        (status.code, status.reason.as_str()),
        (409, "AlreadyExists")
    );
    assert_eq!(status.message, "pods \"a\" already exists");

    let missing = pods.get("zz").await.unwrap_err();
    let kube::Error::Api(status) = missing else {
        panic!("{missing}")
    };
    assert!(status.is_not_found());
    assert_eq!(status.message, "pods \"zz\" not found");

    let stale = made.clone();
    let patched = pods
        .patch(
            "a",
            &PatchParams::default(),
            &Patch::Merge(json!({"metadata": {"labels": {"x": "1"}}})),
        )
        .await
        .unwrap();
    assert_ne!(
        patched.metadata.resource_version,
        stale.metadata.resource_version
    );
    let conflict = pods
        .replace("a", &PostParams::default(), &stale)
        .await
        .unwrap_err();
    let kube::Error::Api(status) = conflict else {
        panic!("{conflict}")
    };
    assert!(status.is_conflict());

    let listed = pods
        .list(&ListParams::default().labels("x=1"))
        .await
        .unwrap();
    assert_eq!(listed.items.len(), 1);
    assert!(
        pods.list(&ListParams::default().fields("spec.nodeName=n"))
            .await
            .unwrap()
            .items
            .is_empty()
    );
    let bad = pods
        .list(&ListParams::default().fields("spec.foo=n"))
        .await
        .unwrap_err();
    let kube::Error::Api(status) = bad else {
        panic!("{bad}")
    };
    assert_eq!(status.code, 400);

    pods.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(pods.get_opt("a").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn watch_from_a_version_sees_each_change_once_and_ends_in_virtual_time() {
    let server = server();
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    let map = |name: &str, on: &str| -> ConfigMap {
        serde_json::from_value(json!({"metadata": {"name": name, "labels": {"on": on}}})).unwrap()
    };
    maps.create(&PostParams::default(), &map("a", "yes"))
        .await
        .unwrap();
    let version = maps
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    let params = WatchParams::default().labels("on=yes").timeout(200);
    let watch = maps.watch(&params, &version).await.unwrap();
    for (name, on) in [("b", "yes"), ("c", "no")] {
        maps.create(&PostParams::default(), &map(name, on))
            .await
            .unwrap();
    }
    let turn = |on: &str| Patch::Merge(json!({"metadata": {"labels": {"on": on}}}));
    maps.patch("c", &PatchParams::default(), &turn("yes"))
        .await
        .unwrap();
    maps.patch("a", &PatchParams::default(), &turn("no"))
        .await
        .unwrap();
    maps.delete("b", &DeleteParams::default()).await.unwrap();
    let started = tokio::time::Instant::now();
    let events: Vec<_> = watch.try_collect().await.unwrap();
    let told: Vec<String> = events
        .iter()
        .map(|event| match event {
            WatchEvent::Added(o) => format!("+{}", o.metadata.name.as_deref().unwrap()),
            WatchEvent::Modified(o) => format!("~{}", o.metadata.name.as_deref().unwrap()),
            WatchEvent::Deleted(o) => format!("-{}", o.metadata.name.as_deref().unwrap()),
            WatchEvent::Bookmark(_) => "bookmark".to_owned(),
            WatchEvent::Error(e) => format!("error {}", e.code),
        })
        .collect();
    assert_eq!(told, ["+b", "+c", "-a", "-b"]);
    assert_eq!(started.elapsed().as_secs(), 200);
}

#[tokio::test(start_paused = true)]
async fn watch_from_a_forgotten_version_is_gone() {
    let server = server();
    let nodes: Api<Node> = Api::all(server.client());
    let version = server.resource_version().to_string();
    nodes
        .create(
            &PostParams::default(),
            &serde_json::from_value(json!({"metadata": {"name": "n"}})).unwrap(),
        )
        .await
        .unwrap();
    server.compact();
    let mut watch = nodes
        .watch(&WatchParams::default(), &version)
        .await
        .unwrap()
        .boxed();
    let Some(Ok(WatchEvent::Error(error))) = watch.next().await else {
        panic!("no error")
    };
    assert_eq!((error.code, error.reason.as_str()), (410, "Expired"));
}
