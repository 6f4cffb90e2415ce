//! Writes through typed clients: status, apply, evictions, deletions, pages, dry runs.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use karpenter_fake_kube::server::{PatchKind, gr};
use kube::api::{
    Api, DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams, Preconditions,
    PropagationPolicy,
};
use kube::core::Status;
use serde_json::{Value, json};

use crate::client::{pod, server};

fn status_of(error: kube::Error) -> Box<Status> {
    match error {
        kube::Error::Api(status) => status,
        other => panic!("{other}"),
    }
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

#[tokio::test(start_paused = true)]
async fn spec_and_status_are_written_apart_and_generation_counts_specs() {
    let server = server();
    let deployments: Api<Deployment> = Api::default_namespaced(server.client());
    let deployment: Deployment = read(json!({
        "metadata": {"name": "d"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
        "status": {"replicas": 7},
    }));
    let made = deployments
        .create(&PostParams::default(), &deployment)
        .await
        .unwrap();
    assert_eq!(made.metadata.generation, Some(1));
    assert_eq!(
        made.status.unwrap().replicas,
        None,
        "a client does not start the status"
    );
    let params = PatchParams::default();
    let status = json!({"spec": {"replicas": 9}, "status": {"replicas": 2}});
    let patched = deployments
        .patch_status("d", &params, &Patch::Merge(status.clone()))
        .await
        .unwrap();
    assert_eq!(patched.status.as_ref().unwrap().replicas, Some(2));
    assert_eq!(
        (patched.spec.unwrap().replicas, patched.metadata.generation),
        (Some(2), Some(1))
    );
    let patched = deployments
        .patch("d", &params, &Patch::Merge(status))
        .await
        .unwrap();
    assert_eq!(
        (patched.spec.unwrap().replicas, patched.metadata.generation),
        (Some(9), Some(2))
    );
    let same = deployments
        .patch(
            "d",
            &params,
            &Patch::Merge(json!({"spec": {"replicas": 9}})),
        )
        .await
        .unwrap();
    assert_eq!(
        same.metadata.resource_version, patched.metadata.resource_version,
        "nothing changed"
    );
    let scale = deployments.get_scale("d").await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(9));
    assert_eq!(scale.status.unwrap().selector.as_deref(), Some("a=b"));
    deployments
        .patch_scale(
            "d",
            &params,
            &Patch::Merge(json!({"spec": {"replicas": 0}})),
        )
        .await
        .unwrap();
    assert_eq!(
        deployments.get("d").await.unwrap().spec.unwrap().replicas,
        Some(0)
    );
}

#[tokio::test(start_paused = true)]
async fn json_and_strategic_patches() {
    let server = server();
    let nodes: Api<Node> = Api::all(server.client());
    nodes
        .create(
            &PostParams::default(),
            &read(json!({"metadata": {"name": "n", "labels": {"a": "1"}}})),
        )
        .await
        .unwrap();
    let turn = |from: &str| {
        let patch = json!([{"op": "test", "path": "/metadata/labels/a", "value": from},
                           {"op": "replace", "path": "/metadata/labels/a", "value": "2"}]);
        server.patch(gr("", "nodes"), None, "n", "", PatchKind::Json, patch)
    };
    assert_eq!(turn("9").unwrap_err().code, 422);
    assert_eq!(turn("1").unwrap()["metadata"]["labels"]["a"], "2");
    let ready = |kind: &str| json!({"status": {"conditions": [{"type": kind, "status": "True"}]}});
    for kind in ["Ready", "Other"] {
        nodes
            .patch_status("n", &PatchParams::default(), &Patch::Strategic(ready(kind)))
            .await
            .unwrap();
    }
    let node = nodes.get("n").await.unwrap();
    assert_eq!(node.status.unwrap().conditions.unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn apply_conflicts_name_the_owner() {
    let server = server();
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    let data = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"k": value}});
    let params = |manager: &str| PatchParams::apply(manager);
    maps.patch("m", &params("one"), &Patch::Apply(data("1")))
        .await
        .unwrap();
    let error = maps
        .patch("m", &params("two"), &Patch::Apply(data("2")))
        .await
        .unwrap_err();
    let status = status_of(error);
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    assert_eq!(
        status.message,
        "Apply failed with 1 conflict: conflict with \"one\": .data.k"
    );
    assert_eq!(status.details.unwrap().causes[0].field, ".data.k");
    let forced = maps
        .patch("m", &params("two").force(), &Patch::Apply(data("2")))
        .await
        .unwrap();
    assert_eq!(forced.data.unwrap()["k"], "2");
}

fn budget(name: &str) -> PodDisruptionBudget {
    read(
        json!({"metadata": {"name": name}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}}),
    )
}

#[tokio::test(start_paused = true)]
async fn evictions_spend_budgets() {
    let server = server();
    let client = server.client();
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let budgets: Api<PodDisruptionBudget> = Api::default_namespaced(client.clone());
    for name in ["a", "b", "c"] {
        pods.create(&PostParams::default(), &pod(name))
            .await
            .unwrap();
        server.bind("default", name, "n").unwrap();
        let running = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(running))
            .await
            .unwrap();
    }
    assert!(
        server
            .bind("default", "a", "m")
            .unwrap_err()
            .message
            .contains("is already assigned to node \"n\"")
    );
    budgets
        .create(&PostParams::default(), &budget("web"))
        .await
        .unwrap();
    let evict = |name: &'static str| {
        let pods = pods.clone();
        async move { pods.evict(name, &EvictParams::default()).await }
    };
    let unseen = status_of(evict("a").await.unwrap_err());
    assert_eq!(unseen.code, 429, "the budget was not looked at yet");
    let seen = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 3, "desiredHealthy": 2, "expectedPods": 3}});
    budgets
        .patch_status("web", &PatchParams::default(), &Patch::Merge(seen))
        .await
        .unwrap();
    evict("a").await.unwrap();
    let evicted = pods.get("a").await.unwrap();
    assert_eq!(evicted.metadata.deletion_grace_period_seconds, Some(30));
    let status = budgets.get("web").await.unwrap().status.unwrap();
    assert_eq!(status.disruptions_allowed, Some(0));
    assert!(status.disrupted_pods.unwrap().contains_key("a"));
    let refused = status_of(evict("b").await.unwrap_err());
    assert_eq!(
        (refused.code, refused.reason.as_str()),
        (429, "TooManyRequests")
    );
    assert_eq!(
        refused.message,
        "Cannot evict pod as it would violate the pod's disruption budget."
    );
    let cause = &refused.details.unwrap().causes[0];
    assert_eq!(cause.reason, "DisruptionBudget");
    assert_eq!(
        cause.message,
        "The disruption budget web needs 2 healthy pods and has 3 currently"
    );
    budgets
        .create(&PostParams::default(), &budget("second"))
        .await
        .unwrap();
    let two = status_of(evict("b").await.unwrap_err());
    assert_eq!(two.code, 500);
    assert!(
        two.message.contains("more than one PodDisruptionBudget"),
        "{}",
        two.message
    );
    // A pod that runs nothing yet costs no availability.
    pods.create(&PostParams::default(), &pod("d"))
        .await
        .unwrap();
    evict("d").await.unwrap();
    assert!(pods.get_opt("d").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn deletions_wait_for_kubelets_finalizers_and_propagation() {
    let server = server();
    let client = server.client();
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    pods.create(&PostParams::default(), &pod("p"))
        .await
        .unwrap();
    server.bind("default", "p", "n").unwrap();
    pods.delete("p", &DeleteParams::default()).await.unwrap();
    let dying = pods.get("p").await.unwrap();
    assert_eq!(
        dying.metadata.deletion_timestamp.unwrap().0.to_string(),
        "2026-01-01T00:00:30Z"
    );
    pods.delete("p", &DeleteParams::default().grace_period(5))
        .await
        .unwrap();
    let sooner = pods.get("p").await.unwrap();
    assert_eq!(sooner.metadata.deletion_grace_period_seconds, Some(5));
    assert_eq!(
        sooner.metadata.deletion_timestamp.unwrap().0.to_string(),
        "2026-01-01T00:00:05Z"
    );
    pods.delete("p", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    assert!(pods.get_opt("p").await.unwrap().is_none());

    let map: ConfigMap =
        read(json!({"metadata": {"name": "m", "finalizers": ["example.com/hold"]}}));
    let made = maps.create(&PostParams::default(), &map).await.unwrap();
    let wrong = DeleteParams::default().preconditions(Preconditions {
        uid: Some("other".to_owned()),
        resource_version: None,
    });
    assert!(status_of(maps.delete("m", &wrong).await.unwrap_err()).is_conflict());
    maps.delete("m", &DeleteParams::default()).await.unwrap();
    let held = maps.get("m").await.unwrap();
    assert!(held.metadata.deletion_timestamp.is_some());
    let more = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}});
    let error = maps
        .patch("m", &PatchParams::default(), &Patch::Merge(more))
        .await
        .unwrap_err();
    assert!(status_of(error).is_invalid());
    let none = json!({"metadata": {"finalizers": null}});
    maps.patch("m", &PatchParams::default(), &Patch::Merge(none))
        .await
        .unwrap();
    assert!(maps.get_opt("m").await.unwrap().is_none());
    assert!(made.metadata.uid.is_some());

    maps.create(
        &PostParams::default(),
        &read(json!({"metadata": {"name": "f"}})),
    )
    .await
    .unwrap();
    let foreground = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Foreground),
        ..DeleteParams::default()
    };
    maps.delete("f", &foreground).await.unwrap();
    assert_eq!(
        maps.get("f").await.unwrap().metadata.finalizers.unwrap(),
        ["foregroundDeletion"]
    );

    let namespaces: Api<Namespace> = Api::all(client);
    namespaces
        .create(
            &PostParams::default(),
            &read(json!({"metadata": {"name": "gone"}})),
        )
        .await
        .unwrap();
    namespaces
        .delete("gone", &DeleteParams::default())
        .await
        .unwrap();
    assert_eq!(
        namespaces
            .get("gone")
            .await
            .unwrap()
            .status
            .unwrap()
            .phase
            .as_deref(),
        Some("Terminating")
    );
    let there: Api<ConfigMap> = Api::namespaced(server.client(), "gone");
    let late = there
        .create(
            &PostParams::default(),
            &read(json!({"metadata": {"name": "x"}})),
        )
        .await;
    assert_eq!(status_of(late.unwrap_err()).code, 403);
}

#[tokio::test(start_paused = true)]
async fn pages_tell_one_version_and_leave_nothing_out() {
    let server = server();
    let maps: Api<ConfigMap> = Api::all(server.client());
    let here: Api<ConfigMap> = Api::default_namespaced(server.client());
    for i in 0..7 {
        here.create(
            &PostParams::default(),
            &read(json!({"metadata": {"name": format!("m{i}")}})),
        )
        .await
        .unwrap();
    }
    let mut params = ListParams::default().limit(3);
    let (mut names, mut versions) = (Vec::new(), Vec::new());
    loop {
        let page = maps.list(&params).await.unwrap();
        names.extend(page.items.into_iter().filter_map(|m| m.metadata.name));
        versions.push(page.metadata.resource_version);
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() => {
                if versions.len() == 1 {
                    assert_eq!(page.metadata.remaining_item_count, Some(4));
                    here.create(
                        &PostParams::default(),
                        &read(json!({"metadata": {"name": "zz"}})),
                    )
                    .await
                    .unwrap();
                }
                params = ListParams::default().limit(3).continue_token(&token);
            }
            _ => break,
        }
    }
    assert_eq!(
        names,
        ["m0", "m1", "m2", "m3", "m4", "m5", "m6"],
        "what came after the first page is not of this list"
    );
    assert!(versions.windows(2).all(|v| v[0] == v[1]), "{versions:?}");
    here.delete_collection(
        &DeleteParams::default(),
        &ListParams::default().fields("metadata.name!=zz"),
    )
    .await
    .unwrap();
    assert_eq!(
        maps.list(&ListParams::default()).await.unwrap().items.len(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn dry_runs_leave_no_trace_and_names_are_generated_from_the_seed() {
    let maps_of = |server: &karpenter_fake_kube::ApiServer| -> Api<ConfigMap> {
        Api::default_namespaced(server.client())
    };
    let generated: ConfigMap = read(json!({"metadata": {"generateName": "web-"}}));
    let mut names = Vec::new();
    for _ in 0..2 {
        let server = server();
        let maps = maps_of(&server);
        let dry = PostParams {
            dry_run: true,
            field_manager: None,
        };
        let version = server.resource_version();
        maps.create(&dry, &read(json!({"metadata": {"name": "x"}})))
            .await
            .unwrap();
        assert_eq!(server.resource_version(), version);
        assert!(maps.get_opt("x").await.unwrap().is_none());
        let made = maps
            .create(&PostParams::default(), &generated)
            .await
            .unwrap();
        names.push((made.metadata.name.unwrap(), made.metadata.uid.unwrap()));
    }
    assert!(
        names[0].0.starts_with("web-") && names[0].0.len() == 9,
        "{names:?}"
    );
    assert_eq!(names[0], names[1], "one seed, one name");
}

#[tokio::test(start_paused = true)]
async fn invalid_objects_are_refused_with_causes() {
    let server = server();
    let pods: Api<Pod> = Api::default_namespaced(server.client());
    let bad: Pod =
        read(json!({"metadata": {"name": "Bad_Name"}, "spec": {"containers": [{"name": "a"}]}}));
    let status = status_of(pods.create(&PostParams::default(), &bad).await.unwrap_err());
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
    let causes = status.details.unwrap().causes;
    let fields: Vec<_> = causes
        .iter()
        .map(|c| (c.field.as_str(), c.reason.as_str()))
        .collect();
    assert_eq!(
        fields,
        [
            ("metadata.name", "FieldValueInvalid"),
            ("spec.containers[0].image", "FieldValueRequired")
        ]
    );
    let nowhere: Api<Pod> = Api::namespaced(server.client(), "nowhere");
    let status = status_of(
        nowhere
            .create(&PostParams::default(), &pod("a"))
            .await
            .unwrap_err(),
    );
    assert_eq!(
        (status.code, status.message.as_str()),
        (404, "namespaces \"nowhere\" not found")
    );
}

#[tokio::test(start_paused = true)]
async fn a_list_whose_first_page_is_forgotten_goes_on_with_what_is_there_now() {
    let server = server();
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    let make = |name: &str| read(json!({"metadata": {"name": name}}));
    for name in ["a", "b", "d"] {
        maps.create(&PostParams::default(), &make(name))
            .await
            .unwrap();
    }
    let first = maps.list(&ListParams::default().limit(1)).await.unwrap();
    let token = first.metadata.continue_.unwrap();
    maps.create(&PostParams::default(), &make("c"))
        .await
        .unwrap();
    server.compact();
    let next = ListParams::default().limit(5).continue_token(&token);
    let kube::Error::Api(status) = maps.list(&next).await.unwrap_err() else {
        panic!("expected a Status")
    };
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
    let rest = status.metadata.unwrap().continue_.unwrap();
    let next = ListParams::default().limit(5).continue_token(&rest);
    let names: Vec<_> = maps
        .list(&next)
        .await
        .unwrap()
        .items
        .into_iter()
        .filter_map(|m| m.metadata.name)
        .collect();
    assert_eq!(names, ["b", "c", "d"]);
}
