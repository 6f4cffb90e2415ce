//! Bad input through the API server's door, as `kubectl apply` knocks at it: what the definitions refuse is refused with
//! field and expectation, what only the controller can know stands in the object's conditions or events, and the rest of
//! the cluster keeps working. The command line's doors are tested in `src/cli/tests/bad_input.rs`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // A test may fail loudly.

use std::time::Duration;

use karpenter_e2e::world::{CloudKind, World, WorldOptions, virtual_clock};
use karpenter_fake_kube::server::gr;
use karpenter_runtime::Settings;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use rstest::rstest;
use serde_json::{Value, json};

async fn world() -> World {
    let mut world = World::new(WorldOptions {
        seed: 1,
        clock: virtual_clock(),
        settings: Settings::default(),
        cloud: CloudKind::Kwok {
            catalog: karpenter_provider_kwok::catalog::builtin(),
        },
    })
    .unwrap();
    world
        .apply(&json!({ "apiVersion": "karpenter.kwok.sh/v1alpha1", "kind": "KWOKNodeClass", "metadata": { "name": "default" } }))
        .unwrap();
    world.apply(&pool("good", &json!({}))).unwrap();
    world.start_controller().await.unwrap();
    world
}

fn pool(name: &str, change: &Value) -> Value {
    let mut pool = json!({
        "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": { "name": name },
        "spec": {
            "disruption": { "consolidateAfter": "30s" },
            "template": { "spec": {
                "nodeClassRef": { "group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "default" },
                "requirements": [{ "key": "kubernetes.io/os", "operator": "In", "values": ["linux"] }],
            } },
        },
    });
    json_patch::merge(&mut pool, change);
    pool
}

/// Applies it as kubectl does: on the server's side, strictly.
async fn apply(world: &World, object: &Value) -> Result<(), String> {
    let version = object["apiVersion"].as_str().unwrap();
    let (group, short) = version.split_once('/').unwrap();
    let kind = object["kind"].as_str().unwrap();
    let resource = ApiResource {
        group: group.to_owned(),
        version: short.to_owned(),
        api_version: version.to_owned(),
        kind: kind.to_owned(),
        plural: format!("{}s", kind.to_lowercase()),
    };
    let api: Api<DynamicObject> = Api::all_with(world.api.client(), &resource);
    let params = PatchParams::apply("kubectl").validation_strict();
    let name = object["metadata"]["name"].as_str().unwrap();
    let applied = api.patch(name, &params, &Patch::Apply(object)).await;
    applied.map(|_| ()).map_err(|e| e.to_string())
}

fn condition(world: &World, name: &str, kind: &str) -> Value {
    let pool = world.api.get(gr("karpenter.sh", "nodepools"), None, name);
    let conditions = pool.unwrap()["status"]["conditions"].clone();
    let conditions = conditions.as_array().cloned().unwrap_or_default();
    let found = conditions.into_iter().find(|c| c["type"] == kind);
    found.unwrap_or_default()
}

/// A pod beside what is wrong gets its machine from the sound pool.
async fn the_rest_works(world: &World) {
    world
        .apply(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "web", "namespace": "default" },
            "spec": { "containers": [{ "name": "c", "image": "pause", "resources": { "requests": { "cpu": "1" } } }] },
        }))
        .unwrap();
    world.clock.sleep(Duration::from_secs(60)).await;
    let pod = world.api.get(gr("", "pods"), Some("default"), "web");
    assert_eq!(pod.unwrap()["status"]["phase"], "Running");
}

fn disruption(change: Value) -> Value {
    pool("bad", &json!({ "spec": { "disruption": change } }))
}

fn budget(schedule: &str) -> Value {
    disruption(json!({ "budgets": [{ "nodes": "1", "schedule": schedule, "duration": "1h" }] }))
}

fn overlay(price: &str) -> Value {
    json!({
        "apiVersion": "karpenter.sh/v1alpha1", "kind": "NodeOverlay", "metadata": { "name": "bad" },
        "spec": { "requirements": [{ "key": "kubernetes.io/os", "operator": "In", "values": ["linux"] }], "price": price },
    })
}

#[rstest]
#[case::unknown_field(disruption(json!({ "colour": "red" })), &["NodePool", "unknown field \"spec.disruption.colour\""])]
#[case::wrong_enum(disruption(json!({ "consolidationPolicy": "WhenFull" })), &["NodePool", "\"bad\"", "spec.disruption.consolidationPolicy", "supported values: \"WhenEmpty\""])]
#[case::no_cron(budget("every tuesday"), &["NodePool", "\"bad\"", "spec.disruption.budgets[0].schedule", "should match"])]
#[case::negative_price(overlay("-1"), &["NodeOverlay", "\"bad\"", "spec.price", "should match"])]
#[tokio::test(start_paused = true)]
async fn what_the_definitions_refuse(#[case] object: Value, #[case] says: &[&str]) {
    let world = world().await;
    let refusal = apply(&world, &object).await.unwrap_err();
    for part in says {
        assert!(refusal.contains(part), "expected {part} in: {refusal}");
    }
    the_rest_works(&world).await;
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_cron_that_only_looks_like_one_is_named_in_an_event_and_nothing_is_disrupted() {
    let world = world().await;
    apply(&world, &budget("99 * * * *")).await.unwrap();
    the_rest_works(&world).await;
    let events = world.api.list(gr("", "events"), None);
    let told: Vec<&Value> = events
        .iter()
        .map(|e| &**e)
        .filter(|e| e["reason"] == "InvalidBudget")
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["type"], "Warning");
    assert_eq!(told[0]["involvedObject"]["name"], "bad");
    let expected = "spec.disruption.budgets[0].schedule: \"99 * * * *\" is not a schedule: minute \"99\": expected a range within 0 to 59; no node is disrupted until it can be read";
    assert_eq!(told[0]["message"], expected);
    // It is no reason to stop buying.
    assert_eq!(condition(&world, "bad", "Ready")["status"], "True");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_class_that_is_not_there_is_named_in_the_conditions() {
    let world = world().await;
    let class =
        json!({ "spec": { "template": { "spec": { "nodeClassRef": { "name": "missing" } } } } });
    apply(&world, &pool("bad", &class)).await.unwrap();
    the_rest_works(&world).await;
    let found = condition(&world, "bad", "NodeClassReady");
    assert_eq!(found["status"], "False");
    assert_eq!(found["reason"], "NodeClassNotFound");
    assert_eq!(condition(&world, "bad", "Ready")["status"], "False");
    world.end().await;
}
