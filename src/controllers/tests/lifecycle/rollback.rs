//! A command of which a replacement cannot be had leaves nothing behind, and what cannot be had is not asked for all the
//! time.

use std::sync::atomic::Ordering;

use rstest::rstest;
use serde_json::json;

use crate::answers::Wrong;
use crate::world::{Launch, World};

/// A machine whose two pods may not be together, in a pool that asks for another kind of machine by now: drift replaces
/// it by two. Emptiness is off, so that it cannot tidy up.
async fn drifting(world: &World) {
    world.pool(json!({"consolidateAfter": "Never", "budgets": [{"nodes": "100%"}]}));
    world.node("a", json!({})).await;
    for name in ["x", "y"] {
        let apart = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"apart": "yes"}}}]}}});
        world.pod(
            name,
            "node-a",
            json!({"labels": {"app": name, "apart": "yes"}}),
            apart,
        );
    }
    world.pass(30).await;
    assert_eq!(world.claims().len(), 1);
}

fn drift(world: &World) {
    let requirements = json!([{"key": "team", "operator": "In", "values": ["blue"]}]);
    let patch = json!({"spec": {"template": {"spec": {"requirements": requirements}}}});
    world.patch("nodepools", "default", patch);
}

/// Drift has bought both replacements; their names.
async fn replaced(world: &World) -> [String; 2] {
    drift(world);
    world
        .until(60, "both bought", |w| w.cloud.running() == 3)
        .await;
    let claims = world.claims().into_keys().filter(|n| n != "a");
    claims.collect::<Vec<_>>().try_into().unwrap()
}

fn asked(world: &World) -> usize {
    world.answers.asked.load(Ordering::Relaxed)
}

/// Nothing is left but the machine itself, and nothing of a command on it.
fn as_before(world: &World) -> bool {
    world.claims().into_keys().eq(["a".to_owned()])
        && world.cloud.running() == 1
        && world.taints("node-a").is_empty()
        && world.condition("a", "DisruptionReason").is_empty()
}

/// The machine is replaced by two after all.
async fn goes_on(world: &World) {
    world
        .until(700, "replaced by two", |w| {
            w.get("nodeclaims", "a").is_none() && w.claims().len() == 2 && w.cloud.running() == 2
        })
        .await;
}

#[rstest]
#[case::refused(Wrong::Forbidden)]
#[case::failed(Wrong::Failed)]
#[case::created_and_not_told(Wrong::AnswerLost)]
#[tokio::test(start_paused = true)]
async fn a_replacement_that_cannot_be_created_takes_those_before_it_back(#[case] wrong: Wrong) {
    let world = World::with_static_pools().await;
    drifting(&world).await;
    // The first is created, the second and all after it are not, or nobody knows.
    *world.answers.wrong.lock() = Some((1, wrong));
    drift(&world);
    world.until(60, "asked for two", |w| asked(w) >= 2).await;
    world.until(30, "as before", as_before).await;
    assert!(world.has_pod("x") && world.has_pod("y"));
    *world.answers.wrong.lock() = None;
    goes_on(&world).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_had_is_asked_for_more_and_more_rarely() {
    let world = World::with_static_pools().await;
    drifting(&world).await;
    *world.answers.wrong.lock() = Some((0, Wrong::Forbidden));
    drift(&world);
    world.pass(3600).await;
    // After 1, 2, 4, 8 and then every 10 minutes: 1 + 4 + 4 in an hour, and the first one of each fails.
    assert!((8..=10).contains(&asked(&world)), "{} times", asked(&world));
    assert!(as_before(&world));
    world.context.events.flush().await;
    assert!(
        world.has_event(
            "node-a",
            "DisruptionBlocked: Its replacement could not be had"
        ),
        "{:?}",
        world.events("node-a")
    );
    *world.answers.wrong.lock() = None;
    goes_on(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_replacement_that_is_lost_takes_the_others_back() {
    let world = World::with_static_pools().await;
    drifting(&world).await;
    let [lost, other] = replaced(&world).await;
    // Somebody deletes one of them before it has joined.
    world.delete("nodeclaims", &lost);
    world
        .until(60, "the other one goes, too", |w| {
            w.get("nodeclaims", &other)
                .is_none_or(|c| !c["metadata"]["deletionTimestamp"].is_null())
        })
        .await;
    world.until(60, "as before", as_before).await;
    goes_on(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_replacement_that_others_need_stays() {
    let world = World::with_static_pools().await;
    drifting(&world).await;
    let [lost, other] = replaced(&world).await;
    let node = format!("node-{other}");
    world
        .until(120, "joined", |w| w.get("nodes", &node).is_some())
        .await;
    world.pod("z", &node, json!({}), json!({}));
    *world.cloud.launch.lock() = Launch::SoldOut;
    world.delete("nodeclaims", &lost);
    world.pass(120).await;
    let kept = world.get("nodeclaims", &other).unwrap();
    assert!(kept["metadata"]["deletionTimestamp"].is_null());
    assert!(world.has_pod("z"));
    assert!(world.taints("node-a").is_empty());
}

#[rstest]
#[case::first(1)]
#[case::second(2)]
#[tokio::test(start_paused = true)]
async fn a_controller_killed_while_it_buys_ends_where_it_would_have(#[case] bought: usize) {
    let mut world = World::with_static_pools().await;
    drifting(&world).await;
    world.answers.slow.store(true, Ordering::Relaxed);
    drift(&world);
    let there = bought + 1;
    world
        .until(60, "some bought", |w| w.claims().len() == there)
        .await;
    world.crash().await;
    world.answers.slow.store(false, Ordering::Relaxed);
    goes_on(&world).await;
    world.pass(600).await;
    assert_eq!(world.claims().len(), 2);
    assert_eq!(world.cloud.running(), 2);
}
