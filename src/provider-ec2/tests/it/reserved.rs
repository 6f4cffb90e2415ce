//! Capacity reservations: what a class selects, what is offered and launched out of them, and what becomes of machines when
//! a reservation is changed, is taken, or ends.

use std::time::Duration;

use karpenter_api::labels as keys;
use karpenter_cloud::CloudError;
use karpenter_ec2_api::reservation::CAPACITY_BLOCK;
use karpenter_ec2_api::{CapacityReservation, Tags};
use karpenter_fake_kube::server::gr;
use karpenter_model::{InstanceType, Offering};
use karpenter_provider_ec2::{Ec2Settings, labels as l};
use serde_json::{Value, json};

use crate::world::{CLAIMS, CLASSES, World, class, id, is_in, settings};

const ZONE: &str = "us-east-1a";

fn reservation(id: &str, instance_type: &str, machines: u32) -> CapacityReservation {
    CapacityReservation {
        id: id.to_owned(),
        instance_type: instance_type.into(),
        zone: ZONE.into(),
        owner_id: "123456789012".to_owned(),
        instance_match_criteria: "targeted".to_owned(),
        available_instance_count: machines,
        tags: Tags::from([("team".to_owned(), "a".to_owned())]),
        ..CapacityReservation::default()
    }
}

/// A world whose class selects `terms` of these reservations.
async fn world(all: Vec<CapacityReservation>, terms: Value, settings: Ec2Settings) -> World {
    let world = World::told(1, settings).await;
    world.engine.edit_account(|a| a.capacity_reservations = all);
    let mut class = class();
    if terms != json!([]) {
        class["spec"]["capacityReservationSelectorTerms"] = terms;
    }
    world.server.create(CLASSES, None, class).unwrap();
    world.pass(2.0).await;
    world
}

/// A world whose class selects one reservation, with room for one machine.
async fn with_one() -> World {
    world(
        vec![reservation("cr-0a", "m5.large", 1)],
        tagged(),
        settings(),
    )
    .await
}

fn tagged() -> Value {
    json!([{ "tags": { "team": "a" } }])
}

async fn sold(world: &World, name: &str) -> InstanceType {
    let cloud = &world.provider.cloud;
    let types = cloud.instance_types(&World::pool()).await.unwrap();
    let found = types.iter().find(|t| &*t.name == name);
    InstanceType::clone(found.unwrap())
}

fn reserved(of: &InstanceType) -> Vec<&Offering> {
    of.offerings.iter().filter(|o| o.is_reserved()).collect()
}

fn reserved_first(types: &[&str]) -> Value {
    json!([
        is_in(keys::INSTANCE_TYPE, types),
        is_in(keys::CAPACITY_TYPE, &["reserved", "on-demand"])
    ])
}

fn selected(world: &World) -> Vec<String> {
    let class = world.class();
    let all = class["status"]["capacityReservations"].as_array();
    let ids = all.into_iter().flatten().filter_map(|r| r["id"].as_str());
    ids.map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn terms_select_by_id_tag_owner_and_criteria() {
    let mut open = reservation("cr-0c", "m5.large", 1);
    open.instance_match_criteria = "open".to_owned();
    open.tags.clear();
    let mut foreign = reservation("cr-0d", "m5.large", 1);
    foreign.owner_id = "210987654321".to_owned();
    let mut over = reservation("cr-0e", "m5.large", 1);
    over.end_date = "2026-01-14T00:00:00Z".parse().ok();
    let mut odd = reservation("cr-0f", "m5.large", 1);
    odd.reservation_type = "of-tomorrow".to_owned();
    let all = vec![
        reservation("cr-0b", "m5.large", 1),
        open,
        foreign,
        over,
        odd,
    ];
    for (terms, want) in [
        (json!([]), vec![]),
        (
            json!([{ "id": "cr-0c" }, { "id": "cr-404" }]),
            vec!["cr-0c"],
        ),
        (tagged(), vec!["cr-0b", "cr-0d"]),
        (
            json!([{ "tags": { "team": "*" }, "ownerID": "210987654321" }]),
            vec!["cr-0d"],
        ),
        (json!([{ "instanceMatchCriteria": "open" }]), vec!["cr-0c"]),
        (
            json!([{ "id": "cr-0d" }, { "instanceMatchCriteria": "open" }]),
            vec!["cr-0c", "cr-0d"],
        ),
    ] {
        let world = world(all.clone(), terms.clone(), settings()).await;
        assert_eq!(selected(&world), want, "{terms}");
        let (status, _) = world.condition("CapacityReservationsReady");
        assert_eq!(status, "True", "{terms}");
        assert_eq!(world.condition("Ready").0, "True");
        let asked = world
            .engine
            .calls()
            .contains_key("DescribeCapacityReservations");
        assert_eq!(asked, terms != json!([]), "no terms, no question");
    }
}

#[tokio::test(start_paused = true)]
async fn the_status_tells_what_a_reservation_is() {
    let mut block = reservation("cr-0a", "p5.48xlarge", 1);
    block.reservation_type = CAPACITY_BLOCK.to_owned();
    block.end_date = "2026-01-15T02:00:00Z".parse().ok();
    let world = world(vec![block], tagged(), settings()).await;
    let shown = |world: &World| world.class()["status"]["capacityReservations"][0].clone();
    let mut want = json!({
        "id": "cr-0a", "availabilityZone": ZONE, "instanceMatchCriteria": "targeted", "instanceType": "p5.48xlarge",
        "ownerID": "123456789012", "endTime": "2026-01-15T02:00:00Z", "reservationType": "capacity-block",
        "interruptible": false, "state": "active",
    });
    assert_eq!(shown(&world), want);
    world.pass(80.0 * 60.0).await;
    want["state"] = json!("expiring");
    assert_eq!(shown(&world), want, "forty minutes before the end");
    world.pass(41.0 * 60.0).await;
    assert_eq!(shown(&world), Value::Null, "it has ended");
}

#[tokio::test(start_paused = true)]
async fn types_are_offered_out_of_their_reservations() {
    let all = vec![
        reservation("cr-0a", "m5.large", 2),
        reservation("cr-0b", "m5.large", 0),
    ];
    let world = world(all, tagged(), settings()).await;
    let m5 = sold(&world, "m5.large").await;
    let offers = reserved(&m5);
    let told: Vec<_> = offers
        .iter()
        .map(|o| {
            let id = o.requirements.get(l::RESERVATION_ID).unwrap().single();
            (id.unwrap().to_string(), o.available, o.reservation_capacity)
        })
        .collect();
    let want = [
        ("cr-0a".to_owned(), true, 2),
        ("cr-0b".to_owned(), false, 0),
    ];
    assert_eq!(told, want);
    let by_the_hour = m5.offering(ZONE, "on-demand").unwrap();
    let share = offers[0].price / by_the_hour.price;
    assert!((share - 1e-7).abs() < 1e-12, "{share}");
    let kinds = m5.requirements.get(keys::CAPACITY_TYPE).unwrap();
    assert!(kinds.has("reserved") && kinds.has("spot"));
    assert!(
        !by_the_hour
            .requirements
            .get(l::RESERVATION_ID)
            .unwrap()
            .has("cr-0a")
    );
    assert!(reserved(&sold(&world, "m5.xlarge").await).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_launch_is_pinned_to_a_reservation_and_takes_a_machine_of_it() {
    let world = with_one().await;
    let first = world.claim("first", reserved_first(&["m5.large", "c5.large"]));
    let launched = world.create(&first).await.unwrap();
    let label = |key: &str| launched.labels.get(key).map(String::as_str);
    assert_eq!(label(keys::CAPACITY_TYPE), Some("reserved"));
    assert_eq!(label(keys::INSTANCE_TYPE), Some("m5.large"));
    assert_eq!(label(l::RESERVATION_ID), Some("cr-0a"));
    assert_eq!(label(l::RESERVATION_TYPE), Some("default"));
    assert_eq!(label(l::RESERVATION_INTERRUPTIBLE), Some("false"));
    let bought = &world.engine.live_instances()[0];
    assert_eq!(bought.reservation.as_deref(), Some("cr-0a"));
    let listed = world.provider.cloud.list().await.unwrap();
    assert_eq!(listed[0].labels[l::RESERVATION_ID], "cr-0a");
    assert_eq!(listed[0].labels[keys::CAPACITY_TYPE], "reserved");
    // The next one is known to have no place there before anybody asks again.
    let m5 = sold(&world, "m5.large").await;
    assert!(!reserved(&m5)[0].available);
    let second = world.claim("second", reserved_first(&["m5.large"]));
    let launched = world.create(&second).await.unwrap();
    assert_eq!(launched.labels[keys::CAPACITY_TYPE], "on-demand");
    assert!(!launched.labels.contains_key(l::RESERVATION_ID));
    assert_eq!(world.engine.instances()[1].reservation, None);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_gone_comes_back_to_its_reservation() {
    let world = with_one().await;
    let claim = world.claim("a", reserved_first(&["m5.large"]));
    let launched = world.create(&claim).await.unwrap();
    let claim = world.record(&claim, &launched);
    let cloud = &world.provider.cloud;
    cloud.delete(&claim).await.unwrap();
    let gone = loop {
        world.pass(1.0).await;
        if let Err(error) = cloud.delete(&claim).await {
            break error;
        }
    };
    assert!(matches!(gone, CloudError::NotFound(_)), "{gone}");
    assert_eq!(
        reserved(&sold(&world, "m5.large").await)[0].reservation_capacity,
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_reservation_that_others_have_used_up_is_not_asked_twice() {
    let world = with_one().await;
    world
        .engine
        .edit_account(|a| a.capacity_reservations[0].available_instance_count = 0);
    let only = json!([
        is_in(keys::INSTANCE_TYPE, &["m5.large"]),
        is_in(keys::CAPACITY_TYPE, &["reserved"])
    ]);
    let claim = world.claim("a", only);
    let error = world.create(&claim).await.unwrap_err();
    assert!(
        matches!(error, CloudError::InsufficientCapacity(_)),
        "{error}"
    );
    assert!(
        error.to_string().contains("ReservationCapacityExceeded"),
        "{error}"
    );
    let m5 = sold(&world, "m5.large").await;
    assert!(!reserved(&m5)[0].available);
    let by_the_hour = m5.offering(ZONE, "on-demand").unwrap();
    assert!(
        by_the_hour.available,
        "what is bought by the hour is not blamed"
    );
    // Within a minute it is known that there is one again.
    world
        .engine
        .edit_account(|a| a.capacity_reservations[0].available_instance_count = 3);
    world.pass(61.0).await;
    let m5 = sold(&world, "m5.large").await;
    assert_eq!(reserved(&m5)[0].reservation_capacity, 3);
}

#[tokio::test(start_paused = true)]
async fn a_reservation_that_is_no_longer_selected_is_drift() {
    let world = with_one().await;
    let claim = world.claim("a", reserved_first(&["m5.large"]));
    let launched = world.create(&claim).await.unwrap();
    let claim = world.record(&claim, &launched);
    let drift = async || world.provider.cloud.is_drifted(&claim).await.unwrap();
    assert_eq!(drift().await, None);
    let reworded = json!([{ "id": "cr-0a" }]);
    world.patch_class(&json!({ "spec": { "capacityReservationSelectorTerms": reworded } }));
    world.pass(2.0).await;
    assert_eq!(drift().await, None, "the same by another name");
    world.patch_class(&json!({ "spec": { "capacityReservationSelectorTerms": null } }));
    world.pass(2.0).await;
    assert_eq!(drift().await.as_deref(), Some("CapacityReservationDrift"));
}

#[tokio::test(start_paused = true)]
async fn a_machine_whose_reservation_ends_is_an_on_demand_one() {
    let mut ending = reservation("cr-0a", "m5.large", 1);
    ending.end_date = "2026-01-15T01:00:00Z".parse().ok();
    let world = world(vec![ending], tagged(), settings()).await;
    let claim = world.claim("a", reserved_first(&["m5.large"]));
    let launched = world.create(&claim).await.unwrap();
    let mut labels = json!(launched.labels);
    labels[keys::REGISTERED] = json!("true");
    labels["mine"] = json!("kept");
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "labels": labels},
        "spec": {"providerID": launched.provider_id}});
    world.server.create(gr("", "nodes"), None, node).unwrap();
    world.record(&claim, &launched);
    let mut object = (*world.server.get(CLAIMS, None, "a").unwrap()).clone();
    object["status"]["nodeName"] = json!("n");
    world.server.update_status(CLAIMS, None, object).unwrap();
    let label = |kind, name: &str, key: &str| {
        let object = world.server.get(kind, None, name).unwrap();
        object["metadata"]["labels"][key].clone()
    };
    world.pass(59.0 * 60.0).await;
    assert_eq!(label(CLAIMS, "a", keys::CAPACITY_TYPE), "reserved");
    world.pass(3.0 * 60.0).await;
    for (kind, name) in [(CLAIMS, "a"), (gr("", "nodes"), "n")] {
        assert_eq!(
            label(kind, name, keys::CAPACITY_TYPE),
            "on-demand",
            "{name}"
        );
        for key in [
            l::RESERVATION_ID,
            l::RESERVATION_TYPE,
            l::RESERVATION_INTERRUPTIBLE,
        ] {
            assert_eq!(label(kind, name, key), Value::Null, "{name} {key}");
        }
    }
    assert_eq!(label(gr("", "nodes"), "n", "mine"), "kept");
    let object = (*world.server.get(CLAIMS, None, "a").unwrap()).clone();
    let claim = serde_json::from_value(object).unwrap();
    let drift = world.provider.cloud.is_drifted(&claim).await.unwrap();
    assert_eq!(drift, None, "it runs on");
    // Nobody is looked at any more.
    let calls = || world.engine.calls().get("DescribeInstances").copied();
    world.pass(7200.0).await;
    let before = calls();
    world.pass(1500.0).await;
    let after = calls();
    assert!(after <= before.map(|n| n + 1), "{before:?} {after:?}");
}

#[tokio::test(start_paused = true)]
async fn machines_of_a_capacity_block_go_before_it_ends() {
    let mut block = reservation("cr-0a", "m5.large", 2);
    block.reservation_type = CAPACITY_BLOCK.to_owned();
    block.end_date = "2026-01-15T02:00:00Z".parse().ok();
    let world = world(vec![block], tagged(), settings()).await;
    let claim = world.claim("a", reserved_first(&["m5.large"]));
    let launched = world.create(&claim).await.unwrap();
    assert_eq!(launched.labels[l::RESERVATION_TYPE], CAPACITY_BLOCK);
    world.record(&claim, &launched);
    world.pass(79.0 * 60.0).await;
    assert!(world.server.get(CLAIMS, None, "a").is_ok());
    world.pass(3.0 * 60.0).await;
    assert!(
        world.server.get(CLAIMS, None, "a").is_err(),
        "its claim is deleted while it expires"
    );
    let m5 = sold(&world, "m5.large").await;
    assert!(reserved(&m5).iter().all(|o| !o.available));
    // Had nobody done so, EC2 would have.
    let told = world.engine.instances()[0].end.unwrap().0;
    assert!(told <= "2026-01-15T01:30:00Z".parse().unwrap(), "{told}");
}

#[tokio::test(start_paused = true)]
async fn with_the_gate_closed_reservations_are_nothing() {
    let closed = Ec2Settings {
        reserved_capacity: false,
        ..settings()
    };
    let world = world(vec![reservation("cr-0a", "m5.large", 1)], tagged(), closed).await;
    assert_eq!(selected(&world), Vec::<String>::new());
    assert_eq!(world.condition("CapacityReservationsReady").0, "");
    assert_eq!(world.condition("Ready").0, "True");
    assert!(reserved(&sold(&world, "m5.large").await).is_empty());
    let claim = world.claim("a", reserved_first(&["m5.large"]));
    let launched = world.create(&claim).await.unwrap();
    assert_eq!(launched.labels[keys::CAPACITY_TYPE], "on-demand");
    assert!(!id(&launched).is_empty());
    world.pass(Duration::from_secs(3600).as_secs_f64()).await;
    assert!(
        !world
            .engine
            .calls()
            .contains_key("DescribeCapacityReservations")
    );
}

#[tokio::test(start_paused = true)]
async fn a_launch_after_a_crash_adopts_the_reserved_machine() {
    let mut world = world(
        vec![reservation("cr-0a", "m5.large", 2)],
        tagged(),
        settings(),
    )
    .await;
    let claim = world.claim("a", reserved_first(&["m5.large"]));
    let launched = world.create(&claim).await.unwrap();
    world.restart().await;
    let again = world.create(&claim).await.unwrap();
    assert_eq!(again.provider_id, launched.provider_id);
    assert_eq!(again.labels, launched.labels);
    assert_eq!(world.engine.live_instances().len(), 1);
}
