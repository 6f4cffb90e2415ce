//! What the page at `/metrics` tells of single objects, and that it can be told to leave them out.

use karpenter_fake_kube::server::gr;
use karpenter_runtime::Settings;
use serde_json::json;

use crate::world::World;

/// A pool, and a pod that a machine has to be bought for; waits until it runs.
async fn one_pod_on_one_node(mut settings: Settings) -> World {
    // The world has a provisioner only then.
    settings.feature_gates.static_capacity = true;
    let world = World::with(settings).await;
    world.pool(json!({"consolidateAfter": "Never"}));
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True",
        "reason": "Ready", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    let class = gr("test.karpenter.sh", "testnodeclasses");
    let kind = karpenter_fake_kube::server::PatchKind::Merge;
    world
        .server
        .patch(class, None, "plain", "status", kind, ready)
        .unwrap();
    world.patch(
        "nodepools",
        "default",
        json!({"spec": {"limits": {"cpu": "10"}}}),
    );
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default", "ownerReferences": [{"apiVersion": "apps/v1",
            "kind": "ReplicaSet", "name": "web", "uid": "1", "controller": true}]},
        "spec": {"containers": [{"name": "c", "image": "pause",
            "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}}]},
    });
    let pods = || gr("", "pods");
    world.server.create(pods(), Some("default"), pod).unwrap();
    // What a scheduler says of it.
    let waits = json!({"status": {"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}});
    world
        .server
        .patch(pods(), Some("default"), "web", "status", kind, waits)
        .unwrap();
    let all_up = |w: &World| {
        w.claims()
            .keys()
            .any(|c| w.condition(c, "Initialized") == "True")
    };
    world.until(120, "a machine", all_up).await;
    let claim = world.claims().into_keys().next().unwrap();
    let node = format!("node-{claim}");
    world.server.bind("default", "web", &node).unwrap();
    world.pass(5).await;
    world
}

#[tokio::test(start_paused = true)]
async fn single_objects_are_told_of() {
    let world = one_pod_on_one_node(Settings::default()).await;
    let page = world.context.metrics.render();
    let claim = world.claims().into_keys().next().unwrap();
    let node = format!("node-{claim}");
    let value = |name: &str, labels: &[(&str, &str)]| {
        let found = world.context.metrics.value(name, labels);
        found.unwrap_or_else(|| panic!("{name} {labels:?} is not on the page\n{page}"))
    };
    let of_node = |name, resource| {
        value(
            name,
            &[
                ("node_name", &node),
                ("resource_type", resource),
                ("zone", "z"),
                ("instance_type", "small"),
                ("capacity_type", "spot"),
                ("nodepool", "default"),
                ("managed", "true"),
            ],
        )
    };
    assert_eq!(of_node("karpenter_nodes_allocatable", "cpu"), 4.0);
    assert_eq!(of_node("karpenter_nodes_total_pod_requests", "cpu"), 1.0);
    assert_eq!(of_node("karpenter_nodes_total_pod_limits", "cpu"), 2.0);
    assert_eq!(of_node("karpenter_nodes_system_overhead", "cpu"), 0.0);
    let cpu = [("resource_type", "cpu")];
    assert_eq!(value("karpenter_cluster_utilization_percent", &cpu), 25.0);
    let age = value(
        "karpenter_nodes_current_lifetime_seconds",
        &[("node_name", &node)],
    );
    assert!((5.0..60.0).contains(&age), "{age}");

    let state = [
        ("name", "web"),
        ("namespace", "default"),
        ("owner", "/apis/apps/v1/namespaces/default/replicasets/web"),
        ("node", &node),
        ("scheduled", "true"),
        ("nodepool", "default"),
        ("phase", "Running"),
        ("ready", "true"),
        ("managed", "true"),
    ];
    assert_eq!(value("karpenter_pods_state", &state), 1.0);
    for name in [
        "karpenter_pods_bound_duration_seconds",
        "karpenter_pods_startup_duration_seconds",
        "karpenter_pods_provisioning_bound_duration_seconds",
        "karpenter_pods_provisioning_startup_duration_seconds",
        "karpenter_pods_scheduling_decision_duration_seconds",
    ] {
        assert_eq!(value(name, &[]), 1.0, "{name}");
    }
    // Booting takes half a minute, and nothing else does.
    let line = |name: &str| -> f64 {
        let found = page.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        found.trim().parse().unwrap()
    };
    let bound = line("karpenter_pods_bound_duration_seconds_sum");
    let planned = line("karpenter_pods_provisioning_bound_duration_seconds_sum");
    assert!((30.0..45.0).contains(&bound), "{bound}");
    assert!((29.0..=bound).contains(&planned), "{planned}");
    assert!(!page.contains("karpenter_pods_unstarted_time_seconds{"));

    let pool = [("nodepool", "default"), ("resource_type", "cpu")];
    assert_eq!(value("karpenter_nodepools_limit", &pool), 10.0);
    assert_eq!(value("karpenter_nodepools_usage", &pool), 4.0);
    let cost = value("karpenter_nodepools_cost_total", &[("nodepool", "default")]);
    assert!((cost - 0.1).abs() < 1e-9, "{cost}");

    let initialized = [
        ("name", claim.as_str()),
        ("type", "Initialized"),
        ("status", "True"),
        ("karpenter_sh_nodepool", "default"),
    ];
    let count = "operator_nodeclaim_status_condition_count";
    assert_eq!(value(count, &initialized), 1.0);
    let name = "operator_nodeclaim_status_condition_current_status_seconds";
    let since = value(name, &initialized);
    assert!((4.0..10.0).contains(&since), "{since}");
    let entered = [("type", "Initialized"), ("status", "True")];
    let name = "operator_nodeclaim_status_condition_transitions_total";
    assert_eq!(value(name, &entered), 1.0);
    let left = [("type", "Initialized"), ("status", "Unknown")];
    let name = "operator_nodeclaim_status_condition_transition_seconds";
    assert_eq!(value(name, &left), 1.0);
    let older = [
        ("kind", "NodeClaim"),
        ("group", "karpenter.sh"),
        ("type", "Initialized"),
        ("status", "True"),
    ];
    assert_eq!(value("operator_status_condition_count", &older), 1.0);
    let ready = [
        ("name", node.as_str()),
        ("type", "Ready"),
        ("status", "True"),
    ];
    assert_eq!(value("operator_node_status_condition_count", &ready), 1.0);
    let ready = [("name", "default"), ("type", "Ready"), ("status", "True")];
    let name = "operator_nodepool_status_condition_count";
    assert_eq!(value(name, &ready), 1.0);
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_is_timed_and_then_told_of_no_more() {
    let world = one_pod_on_one_node(Settings::default()).await;
    let claim = world.claims().into_keys().next().unwrap();
    world.delete("nodepools", "default");
    world.delete("nodeclaims", &claim);
    world.pass(3).await;
    let _ = world.context.metrics.render();
    let named = [("name", claim.as_str())];
    let going = "operator_nodeclaim_termination_current_time_seconds";
    // Deletion times are whole seconds.
    let since = world.metric(going, &named);
    assert!((3.0..4.0).contains(&since), "{since}");
    world.until(120, "gone", |w| w.claims().is_empty()).await;
    world.pass(1).await;
    let page = world.context.metrics.render();
    assert!(!page.contains(&format!("name=\"{claim}\"")), "{page}");
    let took = "operator_nodeclaim_termination_duration_seconds";
    assert_eq!(world.metric(took, &[]), 1.0);
    assert_eq!(
        world.metric("operator_node_termination_duration_seconds", &[]),
        1.0
    );
    let cost = "karpenter_nodepools_cost_total";
    assert_eq!(world.context.metrics.value(cost, &[]), None);
}

#[tokio::test(start_paused = true)]
async fn single_objects_can_be_left_out() {
    let settings = Settings {
        disable_cluster_state_observability: true,
        ..Settings::default()
    };
    let world = one_pod_on_one_node(settings).await;
    let page = world.context.metrics.render();
    for absent in [
        "karpenter_nodes_allocatable",
        "karpenter_nodes_current_lifetime_seconds",
        "karpenter_cluster_utilization_percent",
        "karpenter_pods_state",
        "karpenter_pods_startup_duration_seconds",
        "karpenter_nodepools_limit",
        "karpenter_nodepools_usage",
        "operator_",
    ] {
        assert!(!page.contains(absent), "{absent}\n{page}");
    }
    assert!(page.contains("karpenter_nodepools_cost_total{nodepool=\"default\"} 0.1\n"));
    assert!(page.contains("karpenter_nodeclaims_created_total"));
}
