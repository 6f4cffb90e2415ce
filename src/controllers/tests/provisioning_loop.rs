//! The provisioner and the NodePool controllers against the embedded API server, in virtual time. Launches and
//! nodes are played by the test; what is proved is what gets created, when, and that nothing is created twice.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // Panicking is how a test fails.

mod buffers;
mod world;

use std::time::Duration;

use karpenter_runtime::Clock;
use karpenter_runtime::log::{self, MemorySink, Sink};
use karpenter_runtime::settings::LogLevel;
use serde_json::{Value, json};
use world::{Fault, World};

#[tokio::test(start_paused = true)]
async fn a_pending_pod_gets_a_claim_and_only_one() {
    let world = World::start().await;
    world.pool("default", json!({})).await;
    world.pending_pod("web", "1");
    world.pass(0.9).await;
    assert_eq!(world.claims().len(), 0, "the batch is still open");
    world.pass(0.5).await;
    let claims = world.claims();
    assert_eq!(claims.len(), 1);
    let claim = &claims[0];
    assert!(
        claim
            .metadata
            .name
            .as_ref()
            .unwrap()
            .starts_with("default-")
    );
    assert_eq!(
        claim.metadata.labels.as_ref().unwrap()["karpenter.sh/nodepool"],
        "default"
    );
    assert_eq!(claim.spec.resources.requests["cpu"].0, "1");
    world.pass(600.0).await;
    assert_eq!(
        world.claims().len(),
        1,
        "the pod has its claim, however long the launch takes"
    );
    assert_eq!(world.events_about("web"), ["Nominated"]);
    let page = world.metrics_page();
    assert!(
        page.contains("karpenter_pods_scheduling_decision_duration_seconds_count 1\n"),
        "decided once"
    );
    assert!(
        page.contains("karpenter_pods_scheduling_decision_duration_seconds_sum 1\n"),
        "after one idle time"
    );
    assert_eq!(
        world.metric(
            "karpenter_nodeclaims_created_total",
            &[
                ("reason", "provisioned"),
                ("nodepool", "default"),
                ("min_values_relaxed", "false")
            ]
        ),
        Some(1.0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_later_pod_uses_the_room_of_a_claim_under_way() {
    let world = World::start().await;
    world.pool("default", json!({})).await;
    world.pending_pod("first", "1");
    world.pass(3.0).await;
    world.pending_pod("fits-beside", "500m");
    world.pass(3.0).await;
    assert_eq!(world.claims().len(), 1, "2 cores hold both");
    world.pending_pod("does-not", "1500m");
    world.pass(3.0).await;
    assert_eq!(world.claims().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn pods_that_come_together_are_planned_together() {
    let world = World::start().await;
    world.pool("default", json!({})).await;
    for i in 0..5 {
        world.pending_pod(&format!("web-{i}"), "1");
        world.pass(0.8).await;
    }
    world.pass(2.0).await;
    let claims = world.claims();
    // How many machines is the solver's business; that they are bought at one moment for all pods is ours.
    let born: std::collections::BTreeSet<_> = claims
        .iter()
        .map(|c| c.metadata.creation_timestamp.clone().map(|t| t.0))
        .collect();
    assert_eq!(born.len(), 1, "one window, one purchase for all");
    let cores: i64 = claims
        .iter()
        .map(|c| c.spec.resources.requests["cpu"].0.parse::<i64>().unwrap())
        .sum();
    assert_eq!(cores, 5);
}

#[tokio::test(start_paused = true)]
async fn limits_hold_across_batches_and_the_pod_is_told() {
    let world = World::start().await;
    world
        .pool("default", json!({"spec": {"limits": {"nodes": "1"}}}))
        .await;
    world.pending_pod("first", "1500m");
    world.pass(3.0).await;
    assert_eq!(world.claims().len(), 1);
    world.pending_pod("second", "1500m");
    world.pass(30.0).await;
    assert_eq!(world.claims().len(), 1);
    assert_eq!(world.events_about("second"), ["FailedScheduling"]);
    world.patch_pool("default", json!({"spec": {"limits": {"nodes": "2"}}}));
    world.pass(3.0).await;
    assert_eq!(
        world.claims().len(),
        2,
        "the raised limit is noticed without waiting"
    );
}

/// Name of a machine that pod `web` runs on, and that is marked for a command.
async fn marked_with_a_pod(world: &World) -> String {
    world.pending_pod("web", "1");
    world.pass(2.0).await;
    let name = world.claims()[0].metadata.name.clone().unwrap();
    world.launch(&name, "2");
    world.join(&name, "2", true);
    world.bind("web", &name);
    world.pass(5.0).await;
    world.store().mark_for_deletion(&name);
    name
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_may_stay_yet_counts_towards_limits_until_it_is_told_to_go() {
    let world = World::start().await;
    world
        .pool("default", json!({"spec": {"limits": {"nodes": "1"}}}))
        .await;
    let old = marked_with_a_pod(&world).await;
    world.pass(60.0).await;
    assert_eq!(world.claims().len(), 1, "its command may be given up");
    let keep = json!({"metadata": {"finalizers": ["test/keep"]}});
    world.patch("karpenter.sh", "nodeclaims", &old, keep);
    world.delete_claim(&old);
    world.pass(3.0).await;
    assert_eq!(world.claims().len(), 2, "noticed without waiting");
}

#[tokio::test(start_paused = true)]
async fn a_pool_is_used_once_its_class_is_ready() {
    let world = World::start().await;
    world.class("plain", "False");
    world.create_pool("default", json!({}));
    world.pass(1.0).await;
    world.pending_pod("web", "1");
    world.pass(60.0).await;
    assert_eq!(world.claims().len(), 0);
    assert_eq!(world.pool_condition("default", "Ready").status, "False");
    assert_eq!(
        world.pool_condition("default", "NodeClassReady").reason,
        "TestSaysSo"
    );
    world.class("plain", "True");
    world.pass(3.0).await;
    assert_eq!(world.pool_condition("default", "Ready").status, "True");
    assert_eq!(world.claims().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_24_pods_of_a_claim_that_goes_are_planned_again_at_once() {
    let world = World::start().await;
    world.pool("default", json!({})).await;
    world.pending_pod("web", "1");
    world.pass(2.0).await;
    let first = world.claims()[0].metadata.name.clone().unwrap();
    world.delete_claim(&first);
    world.pass(2.5).await;
    let claims = world.claims();
    assert_eq!(claims.len(), 1);
    assert_ne!(claims[0].metadata.name.as_ref().unwrap(), &first);
}

#[tokio::test(start_paused = true)]
async fn from_launch_to_bound_pod_nothing_more_is_bought() {
    let world = World::start().await;
    world.pool("default", json!({})).await;
    world.pending_pod("web", "1");
    world.pass(2.0).await;
    let claim = world.claims()[0].metadata.name.clone().unwrap();
    world.launch(&claim, "2");
    world.pass(15.0).await;
    world.join(&claim, "2", false);
    world.pass(15.0).await;
    world.join(&claim, "2", true);
    world.pass(0.9).await;
    assert!(
        world.nominated(&claim),
        "kept from disruption until its pod is there"
    );
    world.pass(60.0).await;
    assert!(world.nominated(&claim), "for as long as the pod waits");
    world.bind("web", &claim);
    world.pass(120.0).await;
    assert_eq!(world.claims().len(), 1);
    assert!(!world.nominated(&claim));
    let status = world.store().node_pool("default").unwrap().status.clone();
    assert_eq!(
        (status.nodes, status.resources["cpu"].0.as_str()),
        (Some(1), "2")
    );
}

#[tokio::test(start_paused = true)]
async fn a_restarted_provisioner_does_not_buy_again_what_is_under_way() {
    let mut world = World::start().await;
    world.pool("default", json!({})).await;
    world.pending_pod_with(
        "zonal",
        "1",
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a", "b"]}]}]}}}}),
    );
    world.pass(2.0).await;
    assert_eq!(world.claims().len(), 1);
    world.restart().await;
    world.pass(30.0).await;
    assert_eq!(world.claims().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn pods_that_wait_at_the_start_are_served_although_nothing_changes_after_it() {
    let mut world = World::start().await;
    world.pool("default", json!({})).await;
    world.pending_pod("web", "1");
    // Ended before the batch is: nobody has bought anything, and every status is as it will stay.
    world.pass(0.5).await;
    world.restart().await;
    world.pass(3.0).await;
    assert_eq!(world.claims().len(), 1);
    assert_eq!(world.events_about("web"), ["Nominated"]);
}

#[tokio::test(start_paused = true)]
async fn pods_on_a_leaving_node_get_their_next_place_before_they_go() {
    let world = World::start().await;
    world.pool("default", json!({})).await;
    let old = marked_with_a_pod(&world).await;
    world.pass(3.0).await;
    assert_eq!(world.claims().len(), 2, "one that leaves, one that comes");
    world.pass(60.0).await;
    assert_eq!(world.claims().len(), 2);
    world.store().unmark_for_deletion(&old);
    world.pass(60.0).await;
    assert_eq!(world.claims().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_can_be_had_again_is_noticed() {
    let world = World::start().await;
    world.sold_out(true);
    world.pool("default", json!({})).await;
    world.pending_pod("web", "1");
    world.pass(60.0).await;
    assert_eq!(world.claims().len(), 0);
    let runs = world.catalog_reads();
    world.pass(3600.0).await;
    assert_eq!(
        world.catalog_reads(),
        runs,
        "nothing changed, nothing is asked"
    );
    world.sold_out(false);
    world.pass(2.0).await;
    assert_eq!(world.claims().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn quiet_days_cost_nothing() {
    let world = World::start().await;
    world.pool("default", json!({})).await;
    world.pending_pod("web", "1");
    world.pass(2.0).await;
    let claim = world.claims()[0].metadata.name.clone().unwrap();
    world.launch(&claim, "2");
    world.join(&claim, "2", true);
    world.bind("web", &claim);
    world.pass(60.0).await;
    let (version, reads) = (world.version(), world.catalog_reads());
    tokio::time::sleep(Duration::from_secs(30 * 24 * 3600)).await;
    assert_eq!((world.version(), world.catalog_reads()), (version, reads));
}

#[tokio::test(start_paused = true)]
async fn a_refused_creation_is_tried_again() {
    let world = World::start().await;
    world.pool("default", json!({})).await;
    world.fault(Fault::Refused);
    world.pending_pod("web", "1");
    world.pass(9.0).await;
    assert_eq!(world.claims().len(), 0);
    world.pass(5.0).await;
    assert_eq!(world.claims().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_creation_whose_reply_was_lost_is_not_repeated() {
    let world = World::start().await;
    world.pool("default", json!({})).await;
    world.fault(Fault::ReplyLost);
    world.pending_pod("web", "1");
    world.pass(60.0).await;
    assert_eq!(world.claims().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn pods_that_no_machine_can_serve_are_told_and_hold_up_nobody() {
    let world = World::start().await;
    world.pool("default", json!({})).await;
    world.pending_pod_with(
        "by-host",
        "1",
        json!({"nodeSelector": {"kubernetes.io/hostname": "n1"}}),
    );
    world.pending_pod_with(
        "opted-out",
        "1",
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "karpenter.sh/nodepool", "operator": "DoesNotExist"}]}]}}}}),
    );
    world.pending_pod("too-big", "64");
    world.pending_pod("web", "1");
    world.pass(5.0).await;
    assert_eq!(world.claims().len(), 1);
    assert_eq!(world.events_about("by-host"), ["FailedScheduling"]);
    assert_eq!(world.events_about("too-big"), ["FailedScheduling"]);
    assert_eq!(world.events_about("opted-out"), Vec::<String>::new());
    assert_eq!(
        world.metric("karpenter_scheduler_ignored_pods_count", &[]),
        Some(2.0)
    );
    let controller = [("controller", "provisioner")];
    let name = "karpenter_scheduler_unschedulable_pods_count";
    assert_eq!(world.metric(name, &controller), Some(1.0));
}

/// The log says what the events say, and of equal pods once.
#[tokio::test(start_paused = true)]
async fn the_log_says_what_events_say_and_of_equal_pods_once() {
    let memory = MemorySink::default();
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let outputs = vec![Sink::Memory(memory.clone())];
    // While there is only one subscriber, what tests of other threads come to first is off for this one, too.
    let _second = tracing::Dispatch::new(log::subscriber(LogLevel::Info, clock.clone(), vec![]));
    let _log = tracing::subscriber::set_default(log::subscriber(LogLevel::Info, clock, outputs));
    let world = World::start().await;
    world.pool("default", json!({})).await;
    for i in 0..40 {
        world.pending_pod(&format!("huge-{i:02}"), "64");
    }
    world.pending_pod("vast", "128");
    world.pending_pod("web", "1");
    world.pass(30.0).await;
    let lines: Vec<Value> = memory
        .lines()
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let about = |message: &str| -> Vec<&Value> {
        let all = lines.iter();
        all.filter(|l| l["message"] == message).collect()
    };
    let failed = about("could not schedule pod");
    assert_eq!(failed.len(), 2, "{failed:#?}");
    let [many] = failed
        .iter()
        .filter(|l| l["Pods"].is_string())
        .collect::<Vec<_>>()[..]
    else {
        panic!("{failed:#?}")
    };
    let named = many["Pods"].as_str().unwrap();
    assert!(
        named.starts_with("default/huge-00, ") && named.ends_with(" and 35 other(s)"),
        "{named}"
    );
    let said = format!(
        "Failed to schedule pod, {}",
        many["error"].as_str().unwrap()
    );
    assert!(said.contains("the most to be had is"), "{said}");
    for i in [0, 17, 39] {
        assert_eq!(world.told_about(&format!("huge-{i:02}")), [said.as_str()]);
    }
    let [one] = failed
        .iter()
        .filter(|l| l["Pod"]["name"] == "vast")
        .collect::<Vec<_>>()[..]
    else {
        panic!("{failed:#?}")
    };
    let said = format!("Failed to schedule pod, {}", one["error"].as_str().unwrap());
    assert_eq!(world.told_about("vast"), [said]);
    let [bought] = about("created nodeclaim")[..] else {
        panic!("{lines:#?}")
    };
    let told = world.told_about(bought["NodeClaim"]["name"].as_str().unwrap());
    let why = bought["why"].as_str().unwrap().to_owned();
    assert!(
        why.contains(", next ") && told.contains(&why),
        "{why}\n{told:#?}"
    );
}

/// What runs on devices (DRA) is told that it is left out, counted among what has no place, and holds up nobody; that it
/// says how much CPU it wants buys it nothing.
#[tokio::test(start_paused = true)]
async fn pods_with_resource_claims_are_told_and_counted() {
    let world = World::start().await;
    world.pool("default", json!({})).await;
    world.pending_pod_with(
        "on-a-device",
        "1",
        json!({"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "gpu"}]}),
    );
    world.pass(5.0).await;
    assert_eq!(world.claims().len(), 0);
    assert_eq!(world.events_about("on-a-device"), ["FailedScheduling"]);
    let count = || {
        let controller = [("controller", "provisioner")];
        world.metric("karpenter_scheduler_unschedulable_pods_count", &controller)
    };
    assert_eq!(count(), Some(1.0));
    world.pending_pod("web", "1");
    world.pass(5.0).await;
    assert_eq!(world.claims().len(), 1);
    assert_eq!(count(), Some(1.0), "still one, and web is not");
    world.delete("", "pods", "on-a-device");
    world.pending_pod("api", "1");
    world.pass(5.0).await;
    assert_eq!(count(), Some(0.0), "gone as of the next run");
}

/// Somebody taints every new node against the pod it was bought for, for so many half seconds; `given_back`: and what is
/// empty goes half a second later. How many were bought: nothing can help the pod, and buying without a pause would only
/// burn money.
async fn spoil(world: &World, half_seconds: usize, given_back: bool) -> usize {
    world.pool("default", json!({})).await;
    world.pending_pod("web", "1");
    let mut joined = std::collections::BTreeSet::new();
    for _ in 0..half_seconds {
        world.pass(0.5).await;
        for claim in world.claims() {
            let name = claim.metadata.name.unwrap();
            if joined.insert(name.clone()) {
                world.launch(&name, "2");
                world.join(&name, "2", true);
                world.taint(&name, "spoiled");
                if given_back {
                    world.register(&name);
                }
            } else if given_back {
                world.delete_claim(&name);
                world.lose(&name);
            }
        }
    }
    joined.len()
}

#[tokio::test(start_paused = true)]
async fn nodes_spoiled_one_after_the_other_are_not_bought_without_a_pause() {
    let world = World::start().await;
    // Two at once, then after 10, 20 and 40 seconds; a minute of them back to back would be about forty.
    let bought = spoil(&world, 120, false).await;
    assert!((4..=5).contains(&bought), "{bought} bought in a minute");
}

/// The next is bought no sooner because what stays empty is given back at once.
#[tokio::test(start_paused = true)]
async fn spoiled_nodes_that_are_given_back_are_not_bought_anew_at_once() {
    let world = World::start().await;
    let bought = spoil(&world, 600, true).await;
    assert!((5..=7).contains(&bought), "{bought} bought in five minutes");
}

/// Machines that never come up are no reason to wait: whatever is bought next may.
#[tokio::test(start_paused = true)]
async fn launches_that_fail_are_followed_by_others_without_a_pause() {
    let world = World::start().await;
    world.pool("default", json!({})).await;
    world.pending_pod("web", "1");
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        world.pass(0.5).await;
        for claim in world.claims() {
            let name = claim.metadata.name.unwrap();
            if !seen.insert(name.clone()) {
                world.delete_claim(&name);
            }
        }
    }
    assert!(seen.len() >= 4, "{} bought in ten seconds", seen.len());
}
