//! Faults inside: the cluster's own components meet refusals and lost answers, and come to the same end.

use karpenter_fake_kube::server::{InsideFaults, gr};
use karpenter_fake_machine::Cluster;
use serde_json::{Value, json};

use crate::support::{Asks as _, CLAIMS, NODES, PODS, pod, seconds, tainted, with_claim};

/// One write in five goes wrong for ten minutes while a Deployment, a Job and a pod with a volume are made.
#[tokio::test(start_paused = true)]
async fn what_goes_wrong_inside_delays_and_loses_nothing() {
    for seed in 1..=5 {
        let cluster = Cluster::seeded(seed);
        cluster.api().set_inside_faults(InsideFaults {
            failed_before: 70,
            failed_after: 70,
            conflicts: 70,
        });
        for name in ["n1", "n2", "n3"] {
            cluster.add_node(name, "4", "8Gi").unwrap();
        }
        let web = json!({"metadata": {"name": "web"}, "spec": {"replicas": 12, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        cluster.make(gr("apps", "deployments"), web);
        let job = json!({"metadata": {"name": "job"}, "spec": {"completions": 4, "parallelism": 2, "template": {
            "metadata": {"annotations": {"karpenter-rs.test/run-seconds": "20"}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
        cluster.make(gr("batch", "jobs"), job);
        let class = json!({"metadata": {"name": "cloud"}, "provisioner": "ebs.csi.aws.com",
            "volumeBindingMode": "WaitForFirstConsumer"});
        cluster
            .api()
            .create(gr("storage.k8s.io", "storageclasses"), None, class)
            .unwrap();
        let claim = json!({"metadata": {"name": "data"}, "spec": {"storageClassName": "cloud",
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        cluster.make(CLAIMS, claim);
        cluster.make(PODS, with_claim(pod("db", "1"), "data"));
        seconds(600).await;
        cluster.api().set_inside_faults(InsideFaults::default());
        // The longest back-off after refusals.
        seconds(1200).await;
        let pods = cluster.api().list(PODS, Some("default"));
        let running = |app: &str| {
            let of = |p: &&std::sync::Arc<Value>| p["metadata"]["labels"]["app"] == app;
            let runs = |p: &&std::sync::Arc<Value>| p["status"]["phase"] == "Running";
            pods.iter().filter(of).filter(runs).count()
        };
        assert_eq!((running("web"), running("db")), (12, 1), "seed {seed}");
        let job = cluster.there(gr("batch", "jobs"), "job").unwrap();
        assert_eq!(job["status"]["succeeded"], 4, "seed {seed}: {job:#}");
        let web = cluster.there(gr("apps", "deployments"), "web").unwrap();
        assert_eq!(web["status"]["readyReplicas"], 12, "seed {seed}");
        assert_eq!(
            cluster.api().list(gr("", "persistentvolumes"), None).len(),
            1
        );
    }
}

/// Every write inside fails while a pod is found to fit nowhere and a node turns ready: both are said afterwards.
#[tokio::test(start_paused = true)]
async fn what_could_not_be_said_is_said_later() {
    for faults in [
        InsideFaults {
            conflicts: 1000,
            ..InsideFaults::default()
        },
        InsideFaults {
            failed_before: 1000,
            ..InsideFaults::default()
        },
    ] {
        let cluster = Cluster::seeded(1);
        cluster.add_node("n1", "4", "8Gi").unwrap();
        cluster.api().set_inside_faults(faults);
        cluster.make(PODS, pod("large", "16"));
        seconds(120).await;
        let condition = |pod: &Value| pod["status"]["conditions"][0]["reason"].clone();
        let large = cluster.there(PODS, "large").unwrap();
        assert_eq!(condition(&large), Value::Null, "{faults:?}");
        cluster.api().set_inside_faults(InsideFaults::default());
        seconds(120).await;
        let large = cluster.there(PODS, "large").unwrap();
        assert_eq!(condition(&large), "Unschedulable", "{faults:?}");
        let node = cluster.api().get(NODES, None, "n1").unwrap();
        assert_eq!(tainted(&node), [] as [&str; 0], "{faults:?}");
    }
}
