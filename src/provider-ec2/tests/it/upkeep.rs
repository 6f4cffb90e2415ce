//! What happens to machines after launch: tags, garbage collection, drift, prices.

use karpenter_api::labels as keys;
use karpenter_fake_ec2::PoolMatch;
use karpenter_fake_kube::server::PatchKind;
use karpenter_provider_ec2::labels as l;
use serde_json::json;

use crate::world::{CLAIMS, World, id, is_in};

#[tokio::test(start_paused = true)]
async fn the_nodes_name_becomes_a_tag_once_it_is_known() {
    let world = World::ready(1).await;
    let claim = world.claim("a", json!([]));
    let launched = world.create(&claim).await.unwrap();
    world.record(&claim, &launched);
    world.pass(5.0).await;
    let annotations = |key: &str| {
        let claim = world.server.get(CLAIMS, None, "a").unwrap();
        claim["metadata"]["annotations"][key].clone()
    };
    assert_eq!(annotations(l::TAGGED), json!(null));
    let mut object = (*world.server.get(CLAIMS, None, "a").unwrap()).clone();
    object["status"]["nodeName"] = json!("ip-10-0-0-4.ec2.internal");
    world.server.update_status(CLAIMS, None, object).unwrap();
    world.pass(5.0).await;
    assert_eq!(annotations(l::TAGGED), "true");
    assert_eq!(annotations(l::CLUSTER_NAME_TAGGED), "true");
    let tags = &world.engine.live_instances()[0].tags;
    assert_eq!(tags["Name"], "ip-10-0-0-4.ec2.internal");
    assert_eq!(world.engine.calls()["CreateTags"], 1);
}

#[tokio::test(start_paused = true)]
async fn machines_without_a_claim_are_given_back_and_others_are_not() {
    let world = World::ready(1).await;
    let kept = world.claim("kept", json!([]));
    let launched = world.create(&kept).await.unwrap();
    world.record(&kept, &launched);
    let lost = world.claim("lost", json!([]));
    world.create(&lost).await.unwrap();
    assert_eq!(world.engine.live_instances().len(), 2);
    world.pass(25.0).await;
    assert_eq!(
        world.engine.live_instances().len(),
        2,
        "young ones are left alone"
    );
    world.pass(300.0).await;
    let left: Vec<_> = world
        .engine
        .live_instances()
        .into_iter()
        .map(|i| i.id)
        .collect();
    assert_eq!(left, [id(&launched)]);
    world.pass(86_400.0).await;
    assert_eq!(world.engine.live_instances().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn drift_has_its_reasons() {
    let world = World::ready(1).await;
    let cloud = &world.provider.cloud;
    let claim = world.claim("a", json!([is_in(keys::INSTANCE_TYPE, &["m5.large"])]));
    let launched = world.create(&claim).await.unwrap();
    let claim = world.record(&claim, &launched);
    let drift = async || cloud.is_drifted(&claim).await.unwrap();
    assert_eq!(drift().await, None);

    // A security group more.
    world.engine.edit_account(|a| {
        let found = a.security_groups[0].tags.clone();
        a.security_groups[1].tags = found;
    });
    world.patch_class(&json!({ "metadata": { "labels": { "poke": "1" } } }));
    world.pass(5.0).await;
    assert_eq!(drift().await.as_deref(), Some("SecurityGroupDrift"));
    world
        .engine
        .edit_account(|a| a.security_groups[1].tags.clear());
    world.patch_class(&json!({ "metadata": { "labels": { "poke": "2" } } }));
    world.pass(5.0).await;
    assert_eq!(drift().await, None);

    // The subnet no longer selected.
    let own = world.engine.live_instances()[0].subnet_id.clone();
    world.engine.edit_account(|a| {
        let subnet = a.subnets.iter_mut().find(|s| s.id == own).unwrap();
        subnet.tags.clear();
    });
    world.patch_class(&json!({ "metadata": { "labels": { "poke": "3" } } }));
    world.pass(5.0).await;
    assert_eq!(drift().await.as_deref(), Some("SubnetDrift"));

    // A new image, which a parameter's day-long cache hides until it ends.
    world.engine.release_images();
    world.pass(2.0 * 86_400.0).await;
    assert_eq!(drift().await.as_deref(), Some("AMIDrift"));

    // A static field.
    world.patch_class(&json!({ "spec": { "userData": "echo hi" } }));
    world.pass(5.0).await;
    assert_eq!(drift().await.as_deref(), Some("NodeClassDrift"));
}

#[tokio::test(start_paused = true)]
async fn prices_follow_the_market_twice_a_day_and_say_so() {
    let world = World::ready(1).await;
    let spot = async || {
        let types = world
            .provider
            .cloud
            .instance_types(&World::pool())
            .await
            .unwrap();
        let m5 = types.iter().find(|t| &*t.name == "m5.large").unwrap();
        m5.offering("us-east-1a", "spot").unwrap().price
    };
    let engine = || {
        let kind = karpenter_ec2_api::FleetTarget::Spot;
        world.engine.price("m5.large", "us-east-1a", kind).unwrap()
    };
    let before = spot().await;
    assert!((before - engine()).abs() < 1e-9);
    let m5 = PoolMatch {
        instance_type: Some("m5.*".into()),
        ..PoolMatch::default()
    };
    world.engine.change_prices(m5, 2.0);
    assert!((spot().await - before).abs() < 1e-9, "not known yet");
    let _ = tokio::time::timeout(std::time::Duration::ZERO, world.catalog_changed.notified()).await;
    world.pass(12.0 * 3600.0 + 1.0).await;
    assert!((spot().await - engine()).abs() < 1e-9);
    assert!(spot().await > before * 1.5);
    tokio::time::timeout(std::time::Duration::ZERO, world.catalog_changed.notified())
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_claim_being_patched_is_no_reason_to_look_again() {
    let world = World::ready(1).await;
    let claim = world.claim("a", json!([]));
    let launched = world.create(&claim).await.unwrap();
    world.record(&claim, &launched);
    world.pass(3600.0).await;
    let before = world.engine.calls().values().sum::<u64>();
    let patch = json!({ "metadata": { "annotations": { "x": "y" } } });
    world
        .server
        .patch(CLAIMS, None, "a", "", PatchKind::Merge, patch)
        .unwrap();
    world.pass(1.0).await;
    assert_eq!(world.engine.calls().values().sum::<u64>(), before);
}
