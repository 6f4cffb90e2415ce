//! The engine as a caller sees it: allocation, capacity, faults, the life of an instance, cost and determinism.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use karpenter_ec2_api::{
    AllocationStrategy, CreateFleetInput, CreateFleetOutput, Ec2, ErrorClass, Filter,
    FleetLaunchTemplateConfig, FleetOverride, FleetTarget, InstanceState, LaunchTemplateData,
    NetworkInterfaceSpec, TagSpecification, Tags,
};
use karpenter_fake_ec2::{
    CallFault, CallFaultKind, Engine, EngineOptions, InstanceEvent, PoolLimit, PoolMatch, PoolRule,
};
use karpenter_runtime::{Clock, RngTree};
use rstest::rstest;

const IMAGE_PARAMETER: &str =
    "/aws/service/eks/optimized-ami/1.34/amazon-linux-2023/x86_64/standard/recommended/image_id";

struct World {
    engine: Engine,
    clock: Clock,
}

impl World {
    async fn new(seed: u64) -> Self {
        let clock = Clock::starting_at("2026-01-15T00:00:00Z".parse().unwrap());
        let engine = Engine::new(EngineOptions::new(
            clock.clone(),
            &RngTree::new(seed),
            "demo",
        ));
        let group = engine
            .describe_security_groups(&[Filter::for_tag("karpenter.sh/discovery", "demo")])
            .await
            .unwrap();
        let data = LaunchTemplateData {
            image_id: engine.get_parameter(IMAGE_PARAMETER).await.unwrap(),
            user_data: "aGVsbG8=".into(),
            network_interfaces: vec![NetworkInterfaceSpec {
                groups: group.into_iter().map(|g| g.id).collect(),
                ..NetworkInterfaceSpec::default()
            }],
            ..LaunchTemplateData::default()
        };
        engine
            .create_launch_template("t", &data, &Tags::new())
            .await
            .unwrap();
        Self { engine, clock }
    }

    /// A request for one machine out of `types` in every zone, priorities in the order given.
    async fn request(
        &self,
        types: &[&str],
        target: FleetTarget,
        strategy: AllocationStrategy,
    ) -> CreateFleetInput {
        let subnets = self
            .engine
            .describe_subnets(&[Filter::for_tag("karpenter.sh/discovery", "demo")])
            .await
            .unwrap();
        let mut overrides = Vec::new();
        for (priority, t) in types.iter().enumerate() {
            for subnet in &subnets {
                overrides.push(FleetOverride {
                    instance_type: Arc::from(*t),
                    subnet_id: Arc::from(subnet.id.as_str()),
                    zone: Arc::from(subnet.zone.as_str()),
                    image_id: Arc::from(""),
                    priority: priority as f64,
                });
            }
        }
        CreateFleetInput {
            configs: vec![FleetLaunchTemplateConfig {
                launch_template_name: "t".into(),
                overrides,
            }],
            total_target_capacity: 1,
            target,
            strategy,
            tag_specifications: vec![TagSpecification {
                resource_type: "instance".into(),
                tags: Tags::from([("owner".to_owned(), "test".to_owned())]),
            }],
            context: None,
            dry_run: false,
        }
    }

    async fn buy(&self, types: &[&str], target: FleetTarget) -> CreateFleetOutput {
        let strategy = match target {
            FleetTarget::Spot => AllocationStrategy::PriceCapacityOptimized,
            FleetTarget::OnDemand | FleetTarget::CapacityBlock | FleetTarget::ReservedCapacity => {
                AllocationStrategy::LowestPrice
            }
        };
        let request = self.request(types, target, strategy).await;
        self.engine.create_fleet(&request).await.unwrap()
    }

    async fn state(&self, id: &str) -> InstanceState {
        let found = self.engine.describe_instances(&[id.to_owned()], &[]).await;
        found.unwrap().first().unwrap().state
    }
}

fn bought(output: &CreateFleetOutput) -> &FleetOverride {
    &output.instances[0].pool
}

fn id(output: &CreateFleetOutput) -> String {
    output.instances[0].ids[0].clone()
}

fn pools(instance_type: &str) -> PoolMatch {
    PoolMatch {
        instance_type: Some(instance_type.to_owned()),
        ..PoolMatch::default()
    }
}

#[rstest]
#[case::cheapest_first(AllocationStrategy::LowestPrice, FleetTarget::OnDemand, "c5.large")]
#[case::first_by_priority(AllocationStrategy::Prioritized, FleetTarget::OnDemand, "m5.xlarge")]
#[case::cheapest_of_the_deep(
    AllocationStrategy::PriceCapacityOptimized,
    FleetTarget::Spot,
    "m5.large"
)]
#[case::priority_among_the_deep(
    AllocationStrategy::CapacityOptimizedPrioritized,
    FleetTarget::Spot,
    "m5.xlarge"
)]
#[tokio::test(start_paused = true)]
async fn strategies(
    #[case] strategy: AllocationStrategy,
    #[case] target: FleetTarget,
    #[case] want: &str,
) {
    let world = World::new(1).await;
    // c5.large is by far the cheapest; as spot there are few of it, which only the spot strategies look at.
    world.engine.change_prices(pools("c5.large"), 0.2);
    world.engine.limit_pools(PoolRule {
        pools: PoolMatch {
            capacity_type: Some(FleetTarget::Spot),
            ..pools("c5.large")
        },
        limit: PoolLimit::Total(3),
        until: None,
        code: "InsufficientInstanceCapacity".into(),
    });
    let request = world
        .request(&["m5.xlarge", "m5.large", "c5.large"], target, strategy)
        .await;
    let output = world.engine.create_fleet(&request).await.unwrap();
    assert_eq!(&*bought(&output).instance_type, want);
    assert_eq!(output.errors, []);
}

#[tokio::test(start_paused = true)]
async fn an_empty_pool_is_reported_with_its_override_and_the_next_one_serves() {
    let world = World::new(1).await;
    let until = "2026-01-15T00:05:00Z".parse().unwrap();
    world.engine.capacity_out(pools("c5.large"), Some(until));
    let output = world
        .buy(&["c5.large", "m5.large"], FleetTarget::OnDemand)
        .await;
    assert_eq!(&*bought(&output).instance_type, "m5.large");
    assert_eq!(output.errors.len(), 3, "one for each zone");
    for error in &output.errors {
        assert_eq!(error.code, "InsufficientInstanceCapacity");
        let pool = error.pool.as_ref().unwrap();
        assert_eq!(&*pool.instance_type, "c5.large");
        assert!(pool.zone.starts_with("us-east-1"));
    }
    let none = world.buy(&["c5.large"], FleetTarget::OnDemand).await;
    assert_eq!((none.instances.len(), none.errors.len()), (0, 3));

    tokio::time::sleep(Duration::from_secs(300)).await;
    let again = world.buy(&["c5.large"], FleetTarget::OnDemand).await;
    assert_eq!(again.instances.len(), 1, "it ends when it was to end");
}

#[tokio::test(start_paused = true)]
async fn a_counted_pool_gives_out_so_many_and_takes_them_back() {
    let world = World::new(1).await;
    world.engine.limit_pools(PoolRule {
        pools: pools("m5.large"),
        limit: PoolLimit::Total(1),
        until: None,
        code: "InsufficientInstanceCapacity".into(),
    });
    let mut request = world
        .request(
            &["m5.large"],
            FleetTarget::OnDemand,
            AllocationStrategy::LowestPrice,
        )
        .await;
    request.total_target_capacity = 5;
    let output = world.engine.create_fleet(&request).await.unwrap();
    let zones: Vec<_> = output.instances.iter().map(|i| &*i.pool.zone).collect();
    assert_eq!(
        zones,
        ["us-east-1a", "us-east-1b", "us-east-1c"],
        "a partial fill"
    );
    assert_eq!(output.errors.len(), 3);
    world
        .engine
        .terminate_instances(&[id(&output)])
        .await
        .unwrap();
    let again = world.buy(&["m5.large"], FleetTarget::OnDemand).await;
    assert_eq!(&*bought(&again).zone, "us-east-1a");
}

#[tokio::test(start_paused = true)]
async fn full_subnets_and_bad_requests_are_said_to_be_so() {
    let world = World::new(1).await;
    world
        .engine
        .edit_account(|a| a.subnets[0].available_ips = 0);
    let output = world.buy(&["m5.large"], FleetTarget::OnDemand).await;
    assert_eq!(output.errors[0].code, "InsufficientFreeAddressesInSubnet");
    assert_eq!(&*bought(&output).zone, "us-east-1b");

    let arm = world.buy(&["m6g.large"], FleetTarget::OnDemand).await;
    assert_eq!(arm.errors[0].code, "InvalidParameterCombination");
    let spot = world.buy(&["u-6tb1.metal"], FleetTarget::Spot).await;
    assert!(spot.instances.is_empty());

    let mut request = world
        .request(
            &["m5.large"],
            FleetTarget::Spot,
            AllocationStrategy::LowestPrice,
        )
        .await;
    request.configs[0].launch_template_name = "nonesuch".into();
    let error = world.engine.create_fleet(&request).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::LaunchTemplateNotFound);
    request.dry_run = true;
    let error = world.engine.create_fleet(&request).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::DryRunOk);
}

#[tokio::test(start_paused = true)]
async fn an_instance_lives_and_dies_by_the_clock_and_its_events_follow() {
    let world = World::new(3).await;
    let mut events = world.engine.subscribe();
    let output = world.buy(&["m5.large"], FleetTarget::Spot).await;
    let id = id(&output);
    let InstanceEvent::Launched(launched) = events.try_recv().unwrap() else {
        panic!("no launch");
    };
    assert_eq!(launched.id, id);
    assert_eq!(launched.user_data, "hello");
    assert_eq!(
        launched.provider_id,
        format!("aws:///{}/{id}", launched.zone)
    );
    assert_eq!((launched.vcpus, launched.eni_pods), (2, 29));
    assert!(launched.private_dns_name.ends_with(".ec2.internal"));

    assert_eq!(world.state(&id).await, InstanceState::Pending);
    tokio::time::sleep(Duration::from_secs(16)).await;
    assert_eq!(world.state(&id).await, InstanceState::Running);

    let change = world
        .engine
        .terminate_instances(std::slice::from_ref(&id))
        .await
        .unwrap();
    assert_eq!(change[0].current, InstanceState::ShuttingDown);
    assert_eq!(change[0].previous, InstanceState::Running);
    assert_eq!(
        events.try_recv().unwrap(),
        InstanceEvent::Terminating { id: id.clone() }
    );
    world
        .engine
        .terminate_instances(std::slice::from_ref(&id))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(46)).await;
    assert_eq!(world.state(&id).await, InstanceState::Terminated);
    assert_eq!(
        events.try_recv().unwrap(),
        InstanceEvent::Terminated { id: id.clone() }
    );
    assert!(events.try_recv().is_err(), "once each");

    tokio::time::sleep(Duration::from_secs(3600)).await;
    let error = world
        .engine
        .describe_instances(&[id], &[])
        .await
        .unwrap_err();
    assert!(error.is_not_found(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn cost_is_price_at_launch_by_the_second_until_told_to_go() {
    let world = World::new(1).await;
    let start = world.clock.wall();
    let output = world.buy(&["m5.large"], FleetTarget::OnDemand).await;
    assert!((world.engine.price_per_hour() - 0.096).abs() < 1e-9);
    world.engine.change_prices(pools("m5.large"), 3.0);
    tokio::time::sleep(Duration::from_secs(1800)).await;
    world
        .engine
        .terminate_instances(&[id(&output)])
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(1800)).await;
    assert!((world.engine.cost_usd_since(start) - 0.048).abs() < 1e-9);
    assert!(world.engine.cost_usd_since(world.clock.wall()) < 1e-12);
    assert!(world.engine.price_per_hour() < 1e-12);
}

#[tokio::test(start_paused = true)]
async fn a_spot_interruption_gives_notice_and_then_takes_it() {
    let world = World::new(1).await;
    let mut events = world.engine.subscribe();
    let spot = id(&world.buy(&["m5.large"], FleetTarget::Spot).await);
    let on_demand = id(&world.buy(&["m5.large"], FleetTarget::OnDemand).await);
    assert!(world.engine.interrupt(&on_demand).is_err());
    tokio::time::sleep(Duration::from_secs(60)).await;
    world.engine.interrupt(&spot).unwrap();
    tokio::time::sleep(Duration::from_secs(119)).await;
    assert_eq!(world.state(&spot).await, InstanceState::Running);
    while let Ok(InstanceEvent::Launched(_)) = events.try_recv() {}
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.state(&spot).await, InstanceState::ShuttingDown);
    assert_eq!(
        events.try_recv().unwrap(),
        InstanceEvent::Terminating { id: spot }
    );
}

#[tokio::test(start_paused = true)]
async fn a_lost_response_happened_and_a_refusal_did_not() {
    let world = World::new(1).await;
    let fail = |kind| {
        world.engine.fail_calls(CallFault {
            call: "CreateFleet".into(),
            kind,
            times: Some(1),
            until: None,
        });
    };
    let request = world
        .request(
            &["m5.large"],
            FleetTarget::Spot,
            AllocationStrategy::LowestPrice,
        )
        .await;
    fail(CallFaultKind::Throttle);
    let error = world.engine.create_fleet(&request).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::RateLimited);
    assert_eq!(world.engine.live_instances().len(), 0);
    fail(CallFaultKind::LostResponse);
    let error = world.engine.create_fleet(&request).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::NoResponse);
    assert_eq!(world.engine.live_instances().len(), 1);
    assert_eq!(world.engine.calls()["CreateFleet"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_late_subscriber_hears_of_those_alive() {
    let world = World::new(1).await;
    let kept = id(&world.buy(&["m5.large"], FleetTarget::Spot).await);
    let gone = id(&world.buy(&["m5.large"], FleetTarget::Spot).await);
    world.engine.terminate_instances(&[gone]).await.unwrap();
    let mut events = world.engine.subscribe();
    let InstanceEvent::Launched(launched) = events.try_recv().unwrap() else {
        panic!("no launch");
    };
    assert_eq!(launched.id, kept);
    assert!(events.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn filters_are_anded_and_unknown_ones_refused() {
    let world = World::new(1).await;
    let output = world.buy(&["m5.large"], FleetTarget::Spot).await;
    let engine = &world.engine;
    let count = async |filters: &[Filter]| {
        engine
            .describe_instances(&[], filters)
            .await
            .map(|i| i.len())
    };
    let tag = Filter::for_tag("owner", "*");
    assert_eq!(
        count(&[tag.clone(), Filter::new("instance-state-name", ["pending"])]).await,
        Ok(1)
    );
    assert_eq!(
        count(&[tag, Filter::new("instance-state-name", ["running"])]).await,
        Ok(0)
    );
    assert!(count(&[Filter::new("colour", ["red"])]).await.is_err());
    let tags = Tags::from([("Name".to_owned(), "node-1".to_owned())]);
    engine.create_tags(&[id(&output)], &tags).await.unwrap();
    assert_eq!(count(&[Filter::for_tag("Name", "node-?")]).await, Ok(1));
    assert!(engine.create_tags(&["i-0".into()], &tags).await.is_err());
}

/// What a run does, as text.
async fn story(seed: u64) -> String {
    let world = World::new(seed).await;
    let mut events = world.engine.subscribe();
    for types in [&["m5.large", "c5.large"], &["m6i.large", "r5.large"]] {
        let output = world.buy(types, FleetTarget::Spot).await;
        tokio::time::sleep(Duration::from_secs(100)).await;
        world
            .engine
            .terminate_instances(&[id(&output)])
            .await
            .unwrap();
    }
    tokio::time::sleep(Duration::from_secs(100)).await;
    let mut story = format!("{:?}", world.engine.instances());
    while let Ok(event) = events.try_recv() {
        story.push_str(&format!("{event:?}"));
    }
    story
}

#[tokio::test(start_paused = true)]
async fn one_seed_one_story() {
    assert_eq!(story(5).await, story(5).await);
    assert_ne!(story(5).await, story(6).await);
}
