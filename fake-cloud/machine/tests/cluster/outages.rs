//! Programs that are not well by themselves: readiness probes that fail and recover, liveness probes that have their
//! containers restarted.

use karpenter_fake_kube::loops::object::{items, pod_ready};
use karpenter_fake_machine::{Cluster, Outages, Span};
use serde_json::{Value, json};

use crate::support::{Asks as _, PODS, seconds};

const NAMES: [&str; 3] = ["reads", "lives", "plain"];

fn pods(cluster: &Cluster) {
    cluster.add_node("n", "4", "8Gi").unwrap();
    let probe = json!({"periodSeconds": 5, "failureThreshold": 2});
    let containers = [
        json!([{"name": "c", "image": "i", "readinessProbe": probe}]),
        json!([{"name": "c", "image": "i", "livenessProbe": probe}, {"name": "beside", "image": "i"}]),
        json!([{"name": "c", "image": "i"}]),
    ];
    for (name, containers) in NAMES.into_iter().zip(containers) {
        let pod = json!({"metadata": {"name": name}, "spec": {"containers": containers}});
        cluster.make(PODS, pod);
    }
}

/// How often a container was restarted.
fn restarts(pod: &Value, container: &str) -> i64 {
    let mut containers = items(pod, &["status", "containerStatuses"]).iter();
    let found = containers.find(|c| c["name"] == container).unwrap();
    found["restartCount"].as_i64().unwrap()
}

/// What was seen of each pod in four hours: how often it came to be unready, and how often its first container was restarted.
async fn watched(cluster: &Cluster) -> Vec<(u32, i64)> {
    let mut seen = vec![(0, 0); NAMES.len()];
    let mut ready = [true; NAMES.len()];
    for _ in 0..4 * 360 {
        seconds(10).await;
        for (i, name) in NAMES.iter().enumerate() {
            let pod = cluster.there(PODS, name).unwrap();
            let is_ready = pod_ready(&pod);
            if ready[i] && !is_ready {
                seen[i].0 += 1;
            }
            ready[i] = is_ready;
            seen[i].1 = restarts(&pod, "c");
        }
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn probes_fail_by_themselves_and_recover_while_they_are_told_to() {
    let told = |seed: u64| async move {
        let cluster = Cluster::seeded(seed);
        pods(&cluster);
        seconds(60).await;
        let quiet = cluster.api().resource_version();
        seconds(3600).await;
        assert_eq!(
            cluster.api().resource_version(),
            quiet,
            "well unless told otherwise"
        );
        cluster.programs().fail(Some(Outages::default()));
        let seen = watched(&cluster).await;
        // What has begun comes to its end, and after that there is nothing.
        cluster.programs().fail(None);
        seconds(900).await;
        let well = cluster.api().resource_version();
        for name in NAMES {
            assert!(pod_ready(&cluster.there(PODS, name).unwrap()), "{name}");
        }
        seconds(24 * 3600).await;
        assert_eq!(cluster.api().resource_version(), well, "well again");
        let lives = cluster.there(PODS, "lives").unwrap();
        assert_eq!(
            restarts(&lives, "beside"),
            0,
            "only what is probed is killed"
        );
        seen
    };
    let seen = told(1).await;
    let [reads, lives, plain] = seen[..] else {
        panic!("{seen:?}");
    };
    // Every five to thirty minutes, where it lasts longer than ten seconds.
    assert!((6..=30).contains(&reads.0) && reads.1 == 0, "{seen:?}");
    assert!((6..=30).contains(&lives.1), "{seen:?}");
    assert_eq!(plain, (0, 0), "nobody hears of what has no probe");
    assert_eq!(told(1).await, seen, "the same seed tells the same");
    assert_ne!(told(2).await, seen);
}

#[tokio::test(start_paused = true)]
async fn what_a_probe_is_patient_with_is_not_noticed() {
    let cluster = Cluster::start();
    pods(&cluster);
    seconds(60).await;
    let quiet = cluster.api().resource_version();
    cluster.programs().fail(Some(Outages {
        every: Span::seconds(60, 120),
        lasts: Span::seconds(1, 9),
    }));
    seconds(6 * 3600).await;
    assert_eq!(cluster.api().resource_version(), quiet);
}
