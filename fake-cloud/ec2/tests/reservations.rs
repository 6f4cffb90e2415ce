//! Capacity reservations of the engine: who finds them, what they give and take back, and what their end does to machines.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use karpenter_ec2_api::reservation::CAPACITY_BLOCK;
use karpenter_ec2_api::{
    AllocationStrategy, CapacityLifecycle, CapacityReservation, CreateFleetInput,
    CreateFleetOutput, Ec2, Filter, FleetLaunchTemplateConfig, FleetOverride, FleetTarget,
    InstanceState, LaunchTemplateData, ReservationUse, Tags,
};
use karpenter_fake_ec2::{Engine, EngineOptions};
use karpenter_runtime::{Clock, RngTree};
use rstest::rstest;

const IMAGE_PARAMETER: &str =
    "/aws/service/eks/optimized-ami/1.34/amazon-linux-2023/x86_64/standard/recommended/image_id";
const ZONE: &str = "us-east-1a";

fn reservation(id: &str, machines: u32) -> CapacityReservation {
    CapacityReservation {
        id: id.to_owned(),
        instance_type: "m5.large".into(),
        zone: ZONE.into(),
        owner_id: "1".to_owned(),
        instance_match_criteria: "targeted".to_owned(),
        available_instance_count: machines,
        tags: Tags::from([("team".to_owned(), "a".to_owned())]),
        ..CapacityReservation::default()
    }
}

/// An account with a template for each use.
async fn account(all: Vec<CapacityReservation>) -> Engine {
    let clock = Clock::starting_at("2026-01-15T00:00:00Z".parse().unwrap());
    let engine = Engine::new(EngineOptions::new(clock, &RngTree::new(1), "demo"));
    for one in &all {
        let data = LaunchTemplateData {
            image_id: engine.get_parameter(IMAGE_PARAMETER).await.unwrap(),
            user_data: "aGVsbG8=".into(),
            capacity_reservation: ReservationUse::Only(one.id.clone()),
            market_type: (one.reservation_type == CAPACITY_BLOCK)
                .then(|| "capacity-block".to_owned()),
            ..LaunchTemplateData::default()
        };
        engine
            .create_launch_template(&one.id, &data, &Tags::new())
            .await
            .unwrap();
    }
    engine.edit_account(|a| a.capacity_reservations = all);
    engine
}

async fn buy(
    engine: &Engine,
    id: &str,
    instance_type: &str,
    target: FleetTarget,
) -> CreateFleetOutput {
    let subnets = engine
        .describe_subnets(&[Filter::for_tag("karpenter.sh/discovery", "demo")])
        .await
        .unwrap();
    let subnet = subnets.iter().find(|s| s.zone == ZONE).unwrap();
    let input = CreateFleetInput {
        configs: vec![FleetLaunchTemplateConfig {
            launch_template_name: id.to_owned(),
            overrides: vec![FleetOverride {
                instance_type: Arc::from(instance_type),
                subnet_id: Arc::from(subnet.id.as_str()),
                zone: Arc::from(ZONE),
                image_id: Arc::from(""),
                priority: 0.0,
            }],
        }],
        total_target_capacity: 1,
        target,
        strategy: AllocationStrategy::LowestPrice,
        tag_specifications: Vec::new(),
        context: None,
        dry_run: false,
    };
    engine.create_fleet(&input).await.unwrap()
}

async fn left(engine: &Engine, id: &str) -> u32 {
    let ids = [id.to_owned()];
    let found = engine.describe_capacity_reservations(&ids, &[]).await;
    found.unwrap()[0].available_instance_count
}

#[tokio::test(start_paused = true)]
async fn they_are_found_by_id_state_owner_criteria_and_tag() {
    let mut over = reservation("cr-2", 1);
    over.end_date = "2026-01-14T00:00:00Z".parse().ok();
    let mut open = reservation("cr-3", 1);
    open.instance_match_criteria = "open".to_owned();
    open.owner_id = "2".to_owned();
    open.tags.clear();
    let engine = account(vec![reservation("cr-1", 1), over, open]).await;
    let find = async |filters: &[Filter]| {
        let found = engine.describe_capacity_reservations(&[], filters).await;
        let found = found.unwrap().into_iter().map(|r| r.id);
        found.collect::<Vec<_>>()
    };
    assert_eq!(find(&[]).await, ["cr-1", "cr-2", "cr-3"]);
    assert_eq!(
        find(&[Filter::new("state", ["active"])]).await,
        ["cr-1", "cr-3"]
    );
    assert_eq!(find(&[Filter::new("owner-id", ["2"])]).await, ["cr-3"]);
    let open = Filter::new("instance-match-criteria", ["open"]);
    assert_eq!(find(&[open]).await, ["cr-3"]);
    assert_eq!(
        find(&[Filter::for_tag("team", "a")]).await,
        ["cr-1", "cr-2"]
    );
    let ids = ["cr-1".to_owned(), "cr-4".to_owned()];
    let missing = engine.describe_capacity_reservations(&ids, &[]).await;
    assert!(missing.unwrap_err().is_not_found());
}

#[tokio::test(start_paused = true)]
async fn a_machine_takes_a_unit_and_gives_it_back() {
    let engine = account(vec![reservation("cr-1", 1)]).await;
    let first = buy(&engine, "cr-1", "m5.large", FleetTarget::OnDemand).await;
    let id = first.instances[0].ids[0].clone();
    assert_eq!(left(&engine, "cr-1").await, 0);
    let shown = engine
        .describe_instances(std::slice::from_ref(&id), &[])
        .await
        .unwrap();
    assert_eq!(shown[0].capacity_reservation_id.as_deref(), Some("cr-1"));
    assert!(shown[0].reservations_only);
    assert_eq!(shown[0].lifecycle, CapacityLifecycle::OnDemand);
    assert!(engine.price_per_hour() == 0.0, "it is paid for already");
    let second = buy(&engine, "cr-1", "m5.large", FleetTarget::OnDemand).await;
    assert!(second.instances.is_empty());
    assert_eq!(second.errors[0].code, "ReservationCapacityExceeded");
    engine.terminate_instances(&[id]).await.unwrap();
    assert_eq!(left(&engine, "cr-1").await, 1);
    let third = buy(&engine, "cr-1", "m5.large", FleetTarget::OnDemand).await;
    assert_eq!(third.instances.len(), 1);
}

#[rstest]
#[case::of_another_type("c5.large", FleetTarget::OnDemand)]
#[case::as_spot("m5.large", FleetTarget::Spot)]
#[case::as_a_block("m5.large", FleetTarget::CapacityBlock)]
#[tokio::test(start_paused = true)]
async fn what_does_not_fit_a_reservation_is_refused(
    #[case] instance_type: &str,
    #[case] target: FleetTarget,
) {
    let engine = account(vec![reservation("cr-1", 1)]).await;
    let refused = buy(&engine, "cr-1", instance_type, target).await;
    assert_eq!(refused.errors[0].code, "InvalidParameterCombination");
    assert_eq!(left(&engine, "cr-1").await, 1);
}

#[tokio::test(start_paused = true)]
async fn machines_outlive_a_reservation_and_not_a_block() {
    let end = "2026-01-15T02:00:00Z".parse().ok();
    let mut plain = reservation("cr-1", 1);
    plain.end_date = end;
    let mut block = reservation("cr-2", 1);
    block.end_date = end;
    block.reservation_type = CAPACITY_BLOCK.to_owned();
    let engine = account(vec![plain, block]).await;
    let outlives = buy(&engine, "cr-1", "m5.large", FleetTarget::OnDemand).await;
    let ends = buy(&engine, "cr-2", "m5.large", FleetTarget::CapacityBlock).await;
    let ids = [&outlives, &ends].map(|o| o.instances[0].ids[0].clone());
    let look = async || engine.describe_instances(&ids, &[]).await.unwrap();
    assert_eq!(look().await[1].lifecycle, CapacityLifecycle::CapacityBlock);
    tokio::time::sleep(Duration::from_secs(89 * 60)).await;
    let states: Vec<_> = look().await.iter().map(|i| i.state).collect();
    assert_eq!(states, [InstanceState::Running; 2]);
    tokio::time::sleep(Duration::from_secs(4 * 60)).await;
    let states: Vec<_> = look().await.iter().map(|i| i.state).collect();
    assert_eq!(states, [InstanceState::Running, InstanceState::Terminated]);
    tokio::time::sleep(Duration::from_secs(30 * 60)).await;
    let after = look().await;
    assert_eq!(after[0].capacity_reservation_id, None);
    assert_eq!(after[0].state, InstanceState::Running);
}
