//! The control-plane loops around the embedded API server: the scheduler and the controllers that a cluster's
//! behaviour comes from. Each is a documented model of the real component: it wakes on changes and on deadlines it
//! knows, and does nothing while nothing changes.

pub mod attach;
pub mod clusterroles;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod ephemeral;
pub mod events;
pub mod feed;
pub mod index;
pub mod job;
pub mod kinds;
pub mod namespaces;
pub mod nodelifecycle;
pub mod object;
pub mod ownergc;
pub mod pdb;
pub mod podgc;
pub mod pods;
pub mod quota;
pub mod replicaset;
pub mod resource;
pub mod resources;
pub mod rolling;
pub mod scheduler;
pub mod selector;
pub mod statefulset;
pub mod storage;
mod tally;

use std::collections::BTreeSet;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::server::ApiServer;

/// One of the loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Loop {
    /// kube-scheduler.
    Scheduler,
    /// Deployments.
    Deployment,
    /// `ReplicaSets`.
    ReplicaSet,
    /// `DaemonSets`.
    DaemonSet,
    /// `StatefulSets`.
    StatefulSet,
    /// Jobs.
    Job,
    /// `CronJobs`.
    CronJob,
    /// Status of `PodDisruptionBudgets`.
    Disruption,
    /// Objects whose owners are gone.
    GarbageCollector,
    /// Pods that nobody will clean up.
    PodGarbageCollector,
    /// Contents of namespaces that are deleted.
    Namespace,
    /// Taints by condition and evictions by taint.
    NodeLifecycle,
    /// Volume binding and provisioning.
    Storage,
    /// Attaching and detaching of volumes.
    Attach,
    /// Claims of generic ephemeral volumes.
    Ephemeral,
    /// Rules of aggregated `ClusterRoles`.
    ClusterRole,
    /// What is used of `ResourceQuotas`.
    Quota,
}

impl Loop {
    /// All loops, in the order in which they start.
    pub const ALL: [Self; 17] = [
        Self::Namespace,
        Self::ClusterRole,
        Self::Quota,
        Self::GarbageCollector,
        Self::NodeLifecycle,
        Self::PodGarbageCollector,
        Self::Deployment,
        Self::ReplicaSet,
        Self::StatefulSet,
        Self::DaemonSet,
        Self::Job,
        Self::CronJob,
        Self::Disruption,
        Self::Ephemeral,
        Self::Storage,
        Self::Attach,
        Self::Scheduler,
    ];
}

/// Which loops to run.
#[derive(Clone, Debug, Default)]
pub struct LoopOptions {
    /// Loops that are left off.
    pub off: BTreeSet<Loop>,
}

impl LoopOptions {
    /// All loops but `off`.
    #[must_use]
    pub fn without(off: impl IntoIterator<Item = Loop>) -> Self {
        Self {
            off: off.into_iter().collect(),
        }
    }
}

/// Starts all loops; each ends when `stop` is cancelled.
#[must_use]
pub fn start_all(api: &ApiServer, stop: CancellationToken) -> Vec<JoinHandle<()>> {
    start(api, &LoopOptions::default(), &stop)
}

/// Starts the loops that `options` leaves on; each ends when `stop` is cancelled.
#[must_use]
pub fn start(
    api: &ApiServer,
    options: &LoopOptions,
    stop: &CancellationToken,
) -> Vec<JoinHandle<()>> {
    Loop::ALL
        .into_iter()
        .filter(|l| !options.off.contains(l))
        .map(|l| start_one(l, api.inside(), stop.clone()))
        .collect()
}

fn start_one(which: Loop, api: ApiServer, stop: CancellationToken) -> JoinHandle<()> {
    match which {
        Loop::Scheduler => tokio::spawn(scheduler::run(api, stop)),
        Loop::Deployment => tokio::spawn(feed::run(deployment::Deployments::default(), api, stop)),
        Loop::ReplicaSet => tokio::spawn(feed::run(replicaset::ReplicaSets::default(), api, stop)),
        Loop::DaemonSet => tokio::spawn(feed::run(daemonset::DaemonSets::default(), api, stop)),
        Loop::StatefulSet => {
            tokio::spawn(feed::run(statefulset::StatefulSets::default(), api, stop))
        }
        Loop::Job => tokio::spawn(feed::run(job::Jobs::default(), api, stop)),
        Loop::CronJob => tokio::spawn(feed::run(cronjob::CronJobs::default(), api, stop)),
        Loop::Disruption => tokio::spawn(feed::run(pdb::Pdbs::default(), api, stop)),
        Loop::GarbageCollector => tokio::spawn(ownergc::run(api, stop)),
        Loop::PodGarbageCollector => tokio::spawn(feed::run(podgc::PodGc::default(), api, stop)),
        Loop::Namespace => tokio::spawn(namespaces::run(api, stop)),
        Loop::NodeLifecycle => tokio::spawn(feed::run(
            nodelifecycle::NodeLifecycle::default(),
            api,
            stop,
        )),
        Loop::Quota => tokio::spawn(feed::run(quota::Quotas::default(), api, stop)),
        Loop::Storage => tokio::spawn(feed::run(storage::Storage::default(), api, stop)),
        Loop::ClusterRole => {
            tokio::spawn(feed::run(clusterroles::ClusterRoles::default(), api, stop))
        }
        Loop::Ephemeral => tokio::spawn(feed::run(ephemeral::Ephemeral::default(), api, stop)),
        Loop::Attach => tokio::spawn(feed::run(attach::Attacher::default(), api, stop)),
    }
}
