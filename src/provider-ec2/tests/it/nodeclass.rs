//! EC2NodeClass readiness: what is found, what is said when it is not, and how a class goes.

use karpenter_cloud::CloudError;
use karpenter_fake_ec2::{CallFault, CallFaultKind};
use karpenter_provider_ec2::labels as l;
use rstest::rstest;
use serde_json::{Value, json};

use crate::world::{CLASSES, World, class};

#[tokio::test(start_paused = true)]
async fn the_tutorials_class_becomes_ready() {
    let world = World::ready(1).await;
    let class = world.class();
    let status = &class["status"];
    let zones: Vec<_> = status["subnets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["zone"].clone())
        .collect();
    assert_eq!(zones.len(), 3);
    assert_eq!(status["securityGroups"].as_array().unwrap().len(), 1);
    let amis = status["amis"].as_array().unwrap();
    assert_eq!(amis.len(), 5, "{amis:#?}");
    assert!(
        amis.iter()
            .all(|a| a["name"].as_str().unwrap().contains("al2023"))
    );
    assert!(
        status["instanceProfile"]
            .as_str()
            .unwrap()
            .starts_with("demo_")
    );
    assert_eq!(class["metadata"]["finalizers"], json!([l::FINALIZER]));
    assert_eq!(class["metadata"]["annotations"][l::HASH_VERSION], "v5");
    for kind in [
        "AMIsReady",
        "SubnetsReady",
        "SecurityGroupsReady",
        "InstanceProfileReady",
        "PlacementGroupReady",
        "ValidationSucceeded",
    ] {
        assert_eq!(world.condition(kind).0, "True", "{kind}");
    }
}

#[rstest]
#[case::subnets(json!({"subnetSelectorTerms": [{"tags": {"a": "b"}}]}), "SubnetsReady", "SubnetsNotFound")]
#[case::groups(json!({"securityGroupSelectorTerms": [{"id": "sg-0"}]}), "SecurityGroupsReady", "SecurityGroupsNotFound")]
#[case::images(json!({"amiFamily": "AL2023", "amiSelectorTerms": [{"id": "ami-0"}]}), "AMIsReady", "AMINotFound")]
#[case::alias(json!({"amiSelectorTerms": [{"alias": "al2@latest"}]}), "AMIsReady", "UnsupportedAlias")]
#[case::group(json!({"placementGroupSelector": {"name": "x"}}), "PlacementGroupReady", "PlacementGroupResolutionFailed")]
#[tokio::test(start_paused = true)]
async fn what_is_not_found_is_said_and_recovers(
    #[case] spec: Value,
    #[case] kind: &str,
    #[case] reason: &str,
) {
    let world = World::ready(1).await;
    let pristine = class();
    world.patch_class(&json!({ "spec": spec }));
    world.pass(2.0).await;
    assert_eq!(world.condition(kind), ("False".into(), reason.into()));
    assert_eq!(world.condition("Ready").0, "False");
    let error = world
        .create(&world.claim("a", json!([])))
        .await
        .unwrap_err();
    assert!(matches!(error, CloudError::NodeClassNotReady(_)), "{error}");

    let mut back = json!({ "amiFamily": null, "placementGroupSelector": null });
    for (key, value) in pristine["spec"].as_object().unwrap() {
        back[key] = value.clone();
    }
    world.patch_class(&json!({ "spec": back }));
    world.pass(2.0).await;
    assert_eq!(world.condition("Ready").0, "True", "{:#?}", world.class());
    world.create(&world.claim("b", json!([]))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_api_error_leaves_the_condition_and_is_tried_again() {
    let world = World::empty(1).await;
    world.engine.fail_calls(CallFault {
        call: "DescribeSubnets".into(),
        kind: CallFaultKind::Throttle,
        times: Some(3),
        until: None,
    });
    world.server.create(CLASSES, None, class()).unwrap();
    world.pass(0.05).await;
    assert_eq!(world.condition("SubnetsReady").0, "Unknown");
    assert_eq!(world.condition("SecurityGroupsReady").0, "True");
    assert_eq!(
        world.condition("ValidationSucceeded"),
        ("Unknown".into(), "DependenciesNotReady".into())
    );
    world.pass(5.0).await;
    assert_eq!(world.condition("Ready").0, "True");
}

#[tokio::test(start_paused = true)]
async fn a_class_that_is_not_there_or_not_looked_at_yet_launches_nothing() {
    let world = World::empty(1).await;
    let claim = world.claim("a", json!([]));
    let error = world.create(&claim).await.unwrap_err();
    assert!(
        matches!(error, CloudError::InsufficientCapacity(_)),
        "{error}"
    );
    assert!(
        world
            .provider
            .cloud
            .instance_types(&World::pool())
            .await
            .is_err()
    );
    assert!(world.engine.live_instances().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_class_waits_for_its_claims_and_takes_its_things_along() {
    use karpenter_ec2_api::Ec2 as _;
    let world = World::ready(1).await;
    let claim = world.claim("a", json!([]));
    world.create(&claim).await.unwrap();
    let profiles = || async {
        let found = world.engine.list_instance_profiles("/karpenter/").await;
        found.unwrap().len()
    };
    assert_eq!(profiles().await, 1);
    world.server.delete(CLASSES, None, "default", None).unwrap();
    world.pass(60.0).await;
    assert!(
        world.server.get(CLASSES, None, "default").is_ok(),
        "a claim is left"
    );
    world
        .server
        .delete(crate::world::CLAIMS, None, "a", None)
        .unwrap();
    world.pass(2.0).await;
    assert!(world.server.get(CLASSES, None, "default").is_err());
    assert_eq!(profiles().await, 0);
    assert!(
        world
            .engine
            .describe_launch_templates(&[])
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn a_quiet_month_is_quiet() {
    let world = World::ready(1).await;
    world.pass(3600.0).await;
    let (version, calls) = (world.server.resource_version(), total(&world));
    world.pass(30.0 * 86_400.0).await;
    assert_eq!(
        world.server.resource_version(),
        version,
        "nothing is written"
    );
    let made = total(&world) - calls;
    assert!(made < 25_000, "{made} calls");
}

fn total(world: &World) -> u64 {
    world.engine.calls().values().sum()
}
