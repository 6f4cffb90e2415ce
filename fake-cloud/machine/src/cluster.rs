//! A whole cluster in this process, for tests of programs that talk to Kubernetes: the API server, every control-plane
//! loop, and KWOK nodes that run what is bound to them.

use std::net::SocketAddr;

use jiff::Timestamp;
use karpenter_fake_kube::server::{ApiError, gr};
use karpenter_fake_kube::{ApiServer, ServerOptions, loops};
use karpenter_runtime::{Clock, RngTree};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::kwok::NODE;
use crate::{Kwok, KwokOptions, Programs};

/// Civil time at which a cluster begins.
const EPOCH: &str = "2026-01-01T00:00:00Z";

/// A running cluster; it ends with the value.
///
/// It lives in tokio's time: in a paused runtime (`start_paused = true`) hours of its life take as long as computing
/// them does, and the same seed tells the same story.
pub struct Cluster {
    api: ApiServer,
    programs: Programs,
    stop: CancellationToken,
}

impl Cluster {
    /// An empty cluster with everything running. Must be called in a tokio runtime.
    #[must_use]
    pub fn start() -> Self {
        Self::seeded(1)
    }

    /// The same from another seed: of identities, generated names and all delays.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let rng = RngTree::new(seed);
        let clock = Clock::starting_at(EPOCH.parse().unwrap_or(Timestamp::UNIX_EPOCH));
        let api = ApiServer::new(ServerOptions {
            clock,
            rng: rng.child("api-server", ""),
        });
        let stop = CancellationToken::new();
        // They run until `stop`.
        drop(loops::start_all(&api, stop.clone()));
        let programs = Programs::default();
        drop(Kwok::start_with(
            api.clone(),
            KwokOptions::default(),
            programs.clone(),
            rng.child("machines", "kwok"),
            stop.clone(),
        ));
        Self {
            api,
            programs,
            stop,
        }
    }

    /// A client, as cluster admin, in memory.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        self.api.client()
    }

    /// The API server: reads and writes without HTTP, other users' clients, faults.
    #[must_use]
    pub const fn api(&self) -> &ApiServer {
        &self.api
    }

    /// The programs that run on its nodes, which can be made to fail.
    #[must_use]
    pub const fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Adds a node that KWOK keeps Ready, with `cpu` and `memory` as quantities (`"4"`, `"8Gi"`).
    ///
    /// # Errors
    /// As the API server refuses it: the name is taken, say.
    pub fn add_node(&self, name: &str, cpu: &str, memory: &str) -> Result<(), ApiError> {
        let amounts = json!({"cpu": cpu, "memory": memory, "pods": "110"});
        let node = json!({
            "metadata": {
                "name": name,
                "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"},
                "annotations": {NODE: "fake"},
            },
            "status": {"capacity": amounts, "allocatable": amounts},
        });
        self.api.create(gr("", "nodes"), None, node).map(|_| ())
    }

    /// Serves the cluster on a free port of 127.0.0.1, for kubectl and other processes: `http://ADDRESS`.
    ///
    /// # Errors
    /// When there is no port to be had.
    pub async fn serve(&self) -> std::io::Result<SocketAddr> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (api, stop) = (self.api.clone(), self.stop.clone());
        tokio::spawn(async move {
            if let Err(error) = api.serve(listener, stop).await {
                tracing::error!(%error, "the socket of the cluster failed");
            }
        });
        Ok(address)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The examples of docs/harness.md.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/harness.md")]
struct Guide;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_months_life_is_a_blink_and_its_end_is_quiet() {
        let cluster = Cluster::start();
        cluster.add_node("n", "4", "8Gi").unwrap();
        assert_eq!(cluster.add_node("n", "4", "8Gi").unwrap_err().code, 409);
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        cluster
            .api()
            .create(gr("", "pods"), Some("default"), pod)
            .unwrap();
        tokio::time::sleep(Duration::from_secs(30 * 24 * 3600)).await;
        let pod = cluster.api().get(gr("", "pods"), Some("default"), "p");
        let pod = pod.unwrap();
        assert_eq!(pod["spec"]["nodeName"], "n");
        assert_eq!(pod["status"]["phase"], "Running");
        let node = cluster.api().get(gr("", "nodes"), None, "n").unwrap();
        let ready = node["status"]["conditions"].as_array().unwrap().iter();
        let ready: Vec<_> = ready.filter(|c| c["type"] == "Ready").collect();
        assert_eq!(ready[0]["status"], "True", "{node:#}");
    }

    /// Six jobs in half an hour, each run by a machine, the last three kept.
    #[tokio::test(start_paused = true)]
    async fn a_cron_job_runs_by_its_schedule() {
        let cluster = Cluster::start();
        cluster.add_node("n", "4", "8Gi").unwrap();
        let crons = gr("batch", "cronjobs");
        let cron = json!({"metadata": {"name": "tick"}, "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {
            "template": {"metadata": {"annotations": {"karpenter-rs.test/run-seconds": "20"}},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}},
        }}}});
        cluster.api().create(crons, Some("default"), cron).unwrap();
        tokio::time::sleep(Duration::from_secs(31 * 60)).await;
        let jobs = cluster.api().list(gr("batch", "jobs"), Some("default"));
        assert_eq!(jobs.len(), 3, "{jobs:#?}");
        for job in &jobs {
            assert_eq!(job["status"]["succeeded"], 1, "{job:#}");
        }
        let cron = cluster.api().get(crons, Some("default"), "tick").unwrap();
        assert_eq!(cron["status"]["lastScheduleTime"], "2026-01-01T00:30:00Z");
        assert!(cron["status"]["lastSuccessfulTime"].is_string(), "{cron:#}");
        assert!(cron["status"].get("active").is_none(), "{cron:#}");
        let events = cluster.api().list(gr("", "events"), Some("default"));
        let started = events.iter().filter(|e| {
            e["reason"] == "SuccessfulCreate" && e["involvedObject"]["kind"] == "CronJob"
        });
        assert_eq!(started.count(), 6);
    }

    #[tokio::test]
    async fn it_is_served_to_other_processes() {
        let cluster = Cluster::start();
        let address = cluster.serve().await.unwrap();
        let config = kube::Config::new(format!("http://{address}").parse().unwrap());
        let client = kube::Client::try_from(config).unwrap();
        let version = client.apiserver_version().await.unwrap();
        assert_eq!(version.major, "1");
    }
}
