//! Leader election between contenders on the embedded API server, under paused time.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // Helpers of tests are tests.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use karpenter_fake_kube::{ApiServer, ServerOptions};
use karpenter_runtime::leader::{LeaderOptions, Leadership, acquire};
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::{Clock, RngTree};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::Instant;

struct World {
    server: ApiServer,
    clock: Clock,
    begun: Instant,
}

impl World {
    fn new() -> Self {
        let clock = Clock::starting_at("2026-01-02T03:04:05Z".parse().unwrap());
        let rng = RngTree::new(1);
        let server = ApiServer::new(ServerOptions {
            clock: clock.clone(),
            rng,
        });
        Self {
            server,
            clock,
            begun: Instant::now(),
        }
    }

    fn contend(&self, identity: &str) -> JoinHandle<Leadership> {
        let options = LeaderOptions::new("karpenter-leader-election", "kube-system", identity);
        let (client, clock) = (self.server.client(), self.clock.clone());
        tokio::spawn(async move {
            acquire(client, options, clock, &RngTree::new(7), Metrics::default()).await
        })
    }

    fn api(&self) -> Api<Lease> {
        Api::namespaced(self.server.client(), "kube-system")
    }

    async fn lease(&self) -> LeaseSpec {
        let lease = self.api().get("karpenter-leader-election").await.unwrap();
        lease.spec.unwrap()
    }

    fn seconds(&self) -> u64 {
        self.begun.elapsed().as_secs()
    }
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_the_other_follows_at_once_when_it_is_released() {
    let world = World::new();
    let first = world.contend("a").await.unwrap();
    let second = world.contend("b");
    pass(300).await;
    assert!(!second.is_finished() && !first.lost().is_cancelled());
    let lease = world.lease().await;
    assert_eq!(lease.holder_identity.as_deref(), Some("a"));
    assert_eq!(lease.lease_duration_seconds, Some(15));
    assert_eq!(lease.lease_transitions, Some(0));
    let renewed = lease.renew_time.unwrap().0;
    assert!(
        world.clock.wall().duration_since(renewed).as_secs() < 3,
        "renewed every 2 s"
    );
    first.release().await;
    assert_eq!(world.lease().await.holder_identity.as_deref(), Some(""));
    let _second = second.await.unwrap();
    assert!(world.seconds() <= 303, "{}", world.seconds());
    let lease = world.lease().await;
    assert_eq!(lease.holder_identity.as_deref(), Some("b"));
    assert_eq!(lease.lease_transitions, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_dead_leaders_lease_runs_out() {
    let world = World::new();
    let first = world.contend("a").await.unwrap();
    let second = world.contend("b");
    pass(60).await;
    first.abort_handle().abort();
    let _second = second.await.unwrap();
    let waited = world.seconds() - 60;
    assert!((12..=20).contains(&waited), "{waited}");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_wrong_does_not_steal_a_live_lease() {
    let world = World::new();
    let first = world.contend("a").await.unwrap();
    let late = Clock::starting_at("2027-01-01T00:00:00Z".parse().unwrap());
    let skewed = World {
        server: world.server.clone(),
        clock: late,
        begun: world.begun,
    };
    let second = skewed.contend("b");
    pass(120).await;
    assert!(!second.is_finished() && !first.lost().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn who_loses_the_lease_hears_of_it() {
    let world = World::new();
    let first = world.contend("a").await.unwrap();
    pass(10).await;
    let stolen =
        json!({"spec": {"holderIdentity": "thief", "renewTime": "2026-01-02T03:05:00.000000Z"}});
    let params = PatchParams::default();
    world
        .api()
        .patch("karpenter-leader-election", &params, &Patch::Merge(stolen))
        .await
        .unwrap();
    tokio::time::timeout(Duration::from_secs(5), first.lost().cancelled())
        .await
        .unwrap();
    first.release().await;
    assert_eq!(
        world.lease().await.holder_identity.as_deref(),
        Some("thief"),
        "another's is not given back"
    );
}
