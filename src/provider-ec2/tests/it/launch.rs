//! Launches: what is bought and how it is labelled and tagged, what happens when it cannot be had, and that no crash or
//! lost answer buys twice.

use std::sync::Arc;

use karpenter_api::labels as keys;
use karpenter_cloud::CloudError;
use karpenter_ec2_api::FleetTarget;
use karpenter_fake_ec2::{CallFault, CallFaultKind, PoolMatch};
use karpenter_model::Requirements;
use karpenter_model::overlay::{Shelf, evaluate};
use karpenter_provider_ec2::labels as l;
use serde_json::json;

use crate::world::{World, id, is_in};

fn pools(instance_type: &str, capacity_type: FleetTarget) -> PoolMatch {
    PoolMatch {
        instance_type: Some(instance_type.to_owned()),
        capacity_type: Some(capacity_type),
        ..PoolMatch::default()
    }
}

fn fault(call: &str, kind: CallFaultKind) -> CallFault {
    CallFault {
        call: call.to_owned(),
        kind,
        times: Some(1),
        until: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_launch_buys_the_cheapest_and_says_what_it_is() {
    let world = World::ready(1).await;
    let claim = world.claim(
        "pool-abcde",
        json!([is_in(keys::INSTANCE_TYPE, &["m5.large", "m5.xlarge"])]),
    );
    let launched = world.create(&claim).await.unwrap();

    let instances = world.engine.live_instances();
    assert_eq!(instances.len(), 1);
    let instance = &instances[0];
    assert_eq!(&*instance.instance_type, "m5.large");
    let zones = world.engine.zones().iter();
    let cheapest = zones
        .map(|z| {
            (
                world
                    .engine
                    .price("m5.large", &z.name, FleetTarget::Spot)
                    .unwrap(),
                z.name.clone(),
            )
        })
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .unwrap();
    assert_eq!(
        (instance.price_per_hour, instance.zone.to_string()),
        cheapest
    );

    assert_eq!(
        launched.provider_id,
        format!("aws:///{}/{}", instance.zone, instance.id)
    );
    assert_eq!(launched.image_id, instance.image_id);
    for (key, value) in [
        (keys::INSTANCE_TYPE, "m5.large"),
        (keys::ARCH, "amd64"),
        (keys::OS, "linux"),
        (keys::CAPACITY_TYPE, "spot"),
        (keys::REGION, "us-east-1"),
        (keys::ZONE, &*instance.zone),
        (l::ZONE_ID, &*instance.zone_id),
        (l::TENANCY, "default"),
        (l::CPU, "2"),
        (l::CATEGORY, "m"),
    ] {
        assert_eq!(
            launched.labels.get(key).map(String::as_str),
            Some(value),
            "{key}"
        );
    }
    assert!(!launched.labels.contains_key(l::RESERVATION_ID));
    assert_eq!(launched.annotations[l::HASH_VERSION], "v5");
    assert!(launched.annotations.contains_key(l::INSTANCE_PROFILE_NAME));
    let cpu = launched.allocatable.get("cpu");
    assert_eq!(cpu, "1930m".parse().unwrap());
    assert!(!launched.capacity.contains("nvidia.com/gpu"));

    for (key, value) in [
        ("karpenter.sh/nodeclaim", "pool-abcde"),
        ("karpenter.sh/nodepool", "pool"),
        ("karpenter.k8s.aws/ec2nodeclass", "default"),
        ("eks:eks-cluster-name", "demo"),
        ("kubernetes.io/cluster/demo", "owned"),
        ("team", "a"),
    ] {
        assert_eq!(
            instance.tags.get(key).map(String::as_str),
            Some(value),
            "{key}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn spot_that_is_out_leads_to_the_next_pool_then_to_on_demand() {
    let world = World::ready(1).await;
    let only = json!([is_in(keys::INSTANCE_TYPE, &["m5.large", "c5.large"])]);
    world
        .engine
        .capacity_out(pools("c5.large", FleetTarget::Spot), None);
    let launched = world.create(&world.claim("a", only.clone())).await.unwrap();
    assert_eq!(launched.labels[keys::INSTANCE_TYPE], "m5.large");
    assert_eq!(launched.labels[keys::CAPACITY_TYPE], "spot");

    world
        .engine
        .capacity_out(pools("m5.large", FleetTarget::Spot), None);
    let claim = world.claim("b", only.clone());
    let error = world.create(&claim).await.unwrap_err();
    assert!(
        matches!(error, CloudError::InsufficientCapacity(_)),
        "{error}"
    );
    let launched = world.create(&world.claim("c", only.clone())).await.unwrap();
    assert_eq!(launched.labels[keys::CAPACITY_TYPE], "on-demand");

    // After three minutes it is worth another try; the offerings say so and somebody is told.
    world.engine.heal();
    world.pass(181.0).await;
    tokio::time::timeout(std::time::Duration::ZERO, world.catalog_changed.notified())
        .await
        .unwrap();
    let launched = world.create(&world.claim("d", only)).await.unwrap();
    assert_eq!(launched.labels[keys::CAPACITY_TYPE], "spot");
}

#[tokio::test(start_paused = true)]
async fn what_is_out_is_listed_as_unavailable_and_only_that_type_is_rebuilt() {
    let world = World::full(1).await;
    let cloud = &world.provider.cloud;
    let before = cloud.instance_types(&World::pool()).await.unwrap();
    let again = cloud.instance_types(&World::pool()).await.unwrap();
    assert!(Arc::ptr_eq(&before, &again), "unchanged lists are shared");
    assert_eq!(before.len(), 1363);

    world
        .engine
        .capacity_out(pools("c5.large", FleetTarget::Spot), None);
    let claim = world.claim(
        "a",
        json!([
            is_in(keys::INSTANCE_TYPE, &["c5.large"]),
            is_in(keys::CAPACITY_TYPE, &["spot"])
        ]),
    );
    world.create(&claim).await.unwrap_err();
    let after = cloud.instance_types(&World::pool()).await.unwrap();
    let available = |list: &[Arc<karpenter_model::InstanceType>], name: &str, kind: &str| {
        let held = list.iter().find(|t| &*t.name == name).unwrap();
        held.offerings
            .iter()
            .filter(|o| o.available && o.capacity_type() == kind)
            .count()
    };
    assert_eq!(available(&before, "c5.large", "spot"), 3);
    assert_eq!(available(&after, "c5.large", "spot"), 0);
    assert_eq!(available(&after, "c5.large", "on-demand"), 3);
    let changed = before
        .iter()
        .zip(after.iter())
        .filter(|(a, b)| !Arc::ptr_eq(a, b));
    let changed: Vec<_> = changed.map(|(a, _)| &*a.name).collect();
    assert_eq!(changed, ["c5.large"]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_adopted_and_not_bought_twice() {
    let world = World::ready(1).await;
    let claim = world.claim("a", json!([is_in(keys::INSTANCE_TYPE, &["m5.large"])]));
    // Past the time in which every claim may be another process'.
    world.pass(120.0).await;
    let claim2 = world.claim("b", json!([is_in(keys::INSTANCE_TYPE, &["m5.large"])]));
    for claim in [&claim, &claim2] {
        world
            .engine
            .fail_calls(fault("CreateFleet", CallFaultKind::LostResponse));
        world.create(claim).await.unwrap_err();
        let launched = world.create(claim).await.unwrap();
        let own: Vec<_> = world
            .engine
            .live_instances()
            .into_iter()
            .filter(|i| i.tags.get(l::NODE_CLAIM_TAG) == claim.metadata.name.as_ref())
            .collect();
        assert_eq!(own.len(), 1, "one machine for each claim");
        assert_eq!(id(&launched), own[0].id);
        assert_eq!(launched.labels[keys::CAPACITY_TYPE], "spot");
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_the_launch_is_adopted_by_the_next_process() {
    let mut world = World::ready(1).await;
    world.pass(600.0).await;
    let claim = world.claim("a", json!([]));
    let first = world.create(&claim).await.unwrap();
    world.restart().await;
    let second = world.create(&claim).await.unwrap();
    assert_eq!(first.provider_id, second.provider_id);
    assert_eq!(world.engine.live_instances().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn errors_say_what_to_do() {
    let world = World::ready(1).await;
    let throttle = fault("CreateFleet", CallFaultKind::Throttle);
    world.engine.fail_calls(throttle);
    let claim = world.claim("a", json!([]));
    let error = world.create(&claim).await.unwrap_err();
    let CloudError::Create { reason, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(reason, "RequestLimitExceeded");
    world.create(&claim).await.unwrap();

    let denied = CallFaultKind::Error {
        code: "UnauthorizedOperation".into(),
        message: "no identity-based policy allows it".into(),
    };
    world.engine.fail_calls(fault("CreateFleet", denied));
    let error = world
        .create(&world.claim("b", json!([])))
        .await
        .unwrap_err();
    assert!(matches!(error, CloudError::Create { reason, .. } if reason == "Unauthorized"));

    let nothing = world.claim("c", json!([is_in(keys::INSTANCE_TYPE, &["nonesuch"])]));
    let error = world.create(&nothing).await.unwrap_err();
    assert!(
        matches!(error, CloudError::InsufficientCapacity(_)),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_template_deleted_by_hand_is_made_again() {
    use karpenter_ec2_api::Ec2 as _;
    let world = World::ready(1).await;
    world.create(&world.claim("a", json!([]))).await.unwrap();
    for template in world.engine.describe_launch_templates(&[]).await.unwrap() {
        world
            .engine
            .delete_launch_template(&template.name)
            .await
            .unwrap();
    }
    world.create(&world.claim("b", json!([]))).await.unwrap();
    let fleets = world.engine.calls()["CreateFleet"];
    assert_eq!(fleets, 3, "the second launch was tried twice");
}

#[tokio::test(start_paused = true)]
async fn get_list_and_delete_are_idempotent_and_end_in_not_found() {
    let world = World::ready(1).await;
    let cloud = &world.provider.cloud;
    let claim = world.claim("a", json!([is_in(keys::CAPACITY_TYPE, &["on-demand"])]));
    let launched = world.create(&claim).await.unwrap();
    let claim = world.record(&claim, &launched);
    let machine = cloud.get(&launched.provider_id).await.unwrap();
    assert_eq!(machine.node_pool.as_deref(), Some("pool"));
    assert_eq!(machine.labels[keys::CAPACITY_TYPE], "on-demand");
    assert!(!machine.terminating);
    assert_eq!(cloud.list().await.unwrap(), [machine]);

    cloud.delete(&claim).await.unwrap();
    cloud.delete(&claim).await.unwrap();
    assert_eq!(world.engine.calls()["TerminateInstances"], 1);
    assert!(cloud.get(&launched.provider_id).await.unwrap().terminating);
    world.pass(60.0).await;
    assert!(matches!(
        cloud.delete(&claim).await,
        Err(CloudError::NotFound(_))
    ));
    assert!(matches!(
        cloud.get(&launched.provider_id).await,
        Err(CloudError::NotFound(_))
    ));
    assert_eq!(cloud.list().await.unwrap(), []);
    assert!(cloud.get("nonsense").await.is_err());
}

/// What a run buys, as text.
async fn story(seed: u64) -> String {
    let world = World::ready(seed).await;
    for name in ["a", "b", "c"] {
        let launched = world.create(&world.claim(name, json!([]))).await.unwrap();
        if name == "b" {
            world.engine.interrupt(&id(&launched)).unwrap();
        }
        world.pass(3600.0).await;
    }
    world.pass(86_400.0).await;
    format!("{:?}\n{:#}", world.engine.instances(), world.class())
}

#[tokio::test(start_paused = true)]
async fn one_seed_one_story() {
    assert_eq!(story(3).await, story(3).await);
}

/// What NodeOverlays say of prices decides what is bought, though EC2 itself knows better.
#[tokio::test(start_paused = true)]
async fn a_launch_among_overlaid_types_buys_what_is_cheapest_there() {
    let world = World::ready(1).await;
    let sold = world
        .provider
        .cloud
        .instance_types(&World::pool())
        .await
        .unwrap();
    let overlay = json!({
        "metadata": { "name": "discount" },
        "spec": {
            "requirements": [is_in(keys::INSTANCE_TYPE, &["m5.xlarge"])],
            "price": "0.0001", "capacity": { "smarter-devices/fuse": "1" },
        },
    });
    let overlay = serde_json::from_value(overlay).unwrap();
    let shelf = Shelf {
        pool: "pool".into(),
        labels: Requirements::default(),
        types: sold,
    };
    let seen = evaluate([&overlay], &[shelf], &world.provider.labels);
    assert_eq!(seen.verdicts["discount"], Ok(()));
    let mut claim = world.claim(
        "pool-abcde",
        json!([
            is_in(keys::INSTANCE_TYPE, &["m5.large", "m5.xlarge"]),
            is_in(keys::CAPACITY_TYPE, &["on-demand"]),
        ]),
    );
    let annotations = claim.metadata.annotations.get_or_insert_default();
    annotations.insert(keys::PRICE_OVERLAY_APPLIED.to_owned(), "true".to_owned());
    let cloud = &world.provider.cloud;
    let launched = cloud.create_among(&claim, &seen.types[0]).await.unwrap();
    assert_eq!(launched.labels[keys::INSTANCE_TYPE], "m5.xlarge");
    assert_eq!(launched.capacity.get("smarter-devices/fuse").units(), 1);
}
