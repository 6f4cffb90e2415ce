//! Loops that keep namespaces and quotas, and access by role, through the server's clients.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ResourceQuota};
use karpenter_fake_kube::access::User;
use karpenter_fake_kube::loops;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::client::{pod, server};

/// Long enough for every loop to have seen what there is.
const SETTLED: Duration = Duration::from_secs(5);

fn refusal(error: kube::Error) -> (u16, String) {
    match error {
        kube::Error::Api(status) => (status.code, status.message.clone()),
        other => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_namespace_is_emptied_and_goes() {
    let server = server();
    let stop = CancellationToken::new();
    let _loops = loops::start_all(&server, stop.clone());
    let client = server.client();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let made = serde_json::from_value(json!({"metadata": {"name": "n"}})).unwrap();
    namespaces
        .create(&PostParams::default(), &made)
        .await
        .unwrap();
    let pods: Api<Pod> = Api::namespaced(client.clone(), "n");
    let maps: Api<ConfigMap> = Api::namespaced(client, "n");
    pods.create(&PostParams::default(), &pod("a"))
        .await
        .unwrap();
    let map = serde_json::from_value(json!({"metadata": {"name": "m", "finalizers": ["x.com/y"]}}))
        .unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    namespaces
        .delete("n", &DeleteParams::default())
        .await
        .unwrap();
    tokio::time::sleep(SETTLED).await;
    let left = namespaces.get("n").await.unwrap();
    assert_eq!(left.status.unwrap().phase.as_deref(), Some("Terminating"));
    assert!(
        pods.list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    let free = kube::api::Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("m", &kube::api::PatchParams::default(), &free)
        .await
        .unwrap();
    // Looks become rarer the longer something holds a namespace.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(namespaces.get_opt("n").await.unwrap().is_none());
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_quota_is_counted_as_pods_come_and_go() {
    let server = server();
    let stop = CancellationToken::new();
    let _loops = loops::start_all(&server, stop.clone());
    let quotas: Api<ResourceQuota> = Api::default_namespaced(server.client());
    let quota =
        json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "2", "requests.cpu": "4"}}});
    let quota = serde_json::from_value(quota).unwrap();
    let pods: Api<Pod> = Api::default_namespaced(server.client());
    pods.create(&PostParams::default(), &pod("a"))
        .await
        .unwrap();
    quotas.create(&PostParams::default(), &quota).await.unwrap();
    tokio::time::sleep(SETTLED).await;
    let used = async || {
        let status = quotas.get("q").await.unwrap().status.unwrap();
        let used = status.used.unwrap();
        (used["pods"].0.clone(), used["requests.cpu"].0.clone())
    };
    assert_eq!(used().await, ("1".to_owned(), "1".to_owned()));
    pods.create(&PostParams::default(), &pod("b"))
        .await
        .unwrap();
    let (code, message) = refusal(
        pods.create(&PostParams::default(), &pod("c"))
            .await
            .unwrap_err(),
    );
    assert_eq!(code, 403);
    assert_eq!(
        message,
        "pods \"c\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"
    );
    pods.delete("a", &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(SETTLED).await;
    assert_eq!(used().await.0, "1");
    pods.create(&PostParams::default(), &pod("c"))
        .await
        .unwrap();
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_somebody_may_do_what_its_roles_say() {
    let server = server();
    let account = User::new("system:serviceaccount:kube-system:karpenter", &[]);
    assert!(
        account
            .groups
            .iter()
            .any(|g| g == "system:serviceaccounts:kube-system")
    );
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client_of(account));
    let (code, message) = refusal(maps.list(&ListParams::default()).await.unwrap_err());
    assert_eq!(code, 403);
    assert!(message.starts_with("configmaps is forbidden: User \"system:serviceaccount:kube-system:karpenter\" cannot list"), "{message}");
    let group = "rbac.authorization.k8s.io";
    let role = json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]});
    let binding = json!({"metadata": {"name": "r"}, "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "r"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "kube-system", "name": "karpenter"}]});
    for (plural, object) in [("clusterroles", role), ("clusterrolebindings", binding)] {
        server
            .create(karpenter_fake_kube::server::gr(group, plural), None, object)
            .unwrap();
    }
    maps.list(&ListParams::default()).await.unwrap();
    assert_eq!(
        refusal(maps.get("a").await.unwrap_err()).0,
        403,
        "listing is not getting"
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_makes_its_bearer_the_account_until_it_runs_out() {
    let server = server();
    let ask = async |token: &str| {
        let request = http::Request::get("/api/v1/namespaces/default/configmaps")
            .header("Authorization", format!("Bearer {token}"))
            .body(kube::client::Body::empty())
            .unwrap();
        let answer = server.client().send(request).await.unwrap();
        answer.status().as_u16()
    };
    let request = http::Request::post("/api/v1/namespaces/default/serviceaccounts/default/token")
        .header("Content-Type", "application/json")
        .body(
            json!({"spec": {"expirationSeconds": 600}})
                .to_string()
                .into_bytes(),
        )
        .unwrap();
    let made: serde_json::Value = server.client().request(request).await.unwrap();
    let token = made["status"]["token"].as_str().unwrap().to_owned();
    assert_eq!(ask(&token).await, 403, "known, and without rights");
    assert_eq!(ask("nonsense").await, 401);
    tokio::time::sleep(Duration::from_secs(601)).await;
    assert_eq!(ask(&token).await, 401, "run out");
}
