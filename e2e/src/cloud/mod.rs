//! The cloud of a world: where its machines come from, what they cost, and what can go wrong with them. One face for
//! the KWOK provider (machines are Node objects) and for the EC2 provider (machines boot and join by themselves).

pub(crate) mod ec2;
mod kwok;

use jiff::Timestamp;
use karpenter_cloud::Provider;
use karpenter_fake_kube::server::ApiServer;
use karpenter_provider_kwok::Catalog;
use karpenter_runtime::{Clock, RngTree, Settings};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use ec2::Ec2Account;

use crate::observe::PriceLookup;
use crate::scenario::faults::{CloudFault, MachineFault};

/// What machines come from.
#[derive(Clone)]
pub enum CloudKind {
    /// KWOK nodes of a catalogue.
    Kwok {
        /// What is sold.
        catalog: Catalog,
    },
    /// The EC2 provider over an account in memory that sells the real catalogue.
    Ec2(Ec2Account),
}

/// What a cloud is put into.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) api: ApiServer,
    pub(crate) clock: Clock,
    pub(crate) rng: RngTree,
    pub(crate) settings: Settings,
    pub(crate) stop: CancellationToken,
    /// The cluster that `api` mirrors; none where `api` is the cluster.
    pub(crate) live: Option<kube::Client>,
}

impl Surroundings {
    /// A client of the cluster.
    pub(crate) fn client(&self) -> kube::Client {
        self.live.clone().unwrap_or_else(|| self.api.client())
    }
}

/// A machine that somebody pays for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveMachine {
    /// `spec.providerID` of its Node.
    pub provider_id: String,
    /// When it was bought; none where nobody wrote it down.
    pub launched: Option<Timestamp>,
}

/// The cloud of a running world. Outlives controllers, as clouds do.
pub(crate) enum Cloud {
    Kwok(kwok::KwokCloud),
    Ec2(ec2::Ec2Cloud),
}

impl Cloud {
    /// Opens it for business; the tasks end with `around.stop`.
    pub(crate) fn start(kind: &CloudKind, around: &Surroundings) -> (Self, Vec<JoinHandle<()>>) {
        match kind {
            CloudKind::Kwok { catalog } => {
                let (cloud, tasks) = kwok::KwokCloud::start(catalog.clone(), around);
                (Self::Kwok(cloud), tasks)
            }
            CloudKind::Ec2(account) => {
                let (cloud, tasks) = ec2::Ec2Cloud::start(account.clone(), around);
                (Self::Ec2(cloud), tasks)
            }
        }
    }

    /// Definitions of the kinds that a controller on this cloud serves.
    pub(crate) fn crds(&self, around: &Surroundings) -> Vec<Value> {
        let mut crds = karpenter_api::crd::core(&match self {
            Self::Kwok(_) => Vec::new(),
            Self::Ec2(_) => vec![karpenter_provider_ec2::nodeclass::label_domain()],
        });
        crds.extend(self.provider(around).crds);
        crds
    }

    /// A provider that knows nothing yet, for a controller that starts.
    pub(crate) fn provider(&self, around: &Surroundings) -> Provider {
        match self {
            Self::Kwok(cloud) => cloud.provider(around),
            Self::Ec2(cloud) => cloud.provider(around),
        }
    }

    pub(crate) fn prices(&self) -> PriceLookup {
        match self {
            Self::Kwok(cloud) => cloud.prices(),
            Self::Ec2(cloud) => cloud.prices(),
        }
    }

    /// Machines that were bought and not yet told to go.
    pub(crate) fn machines(&self, around: &Surroundings) -> Vec<LiveMachine> {
        match self {
            Self::Kwok(_) => kwok::machines(&around.api),
            Self::Ec2(cloud) => cloud.machines(),
        }
    }

    /// Makes the cloud's faults of a step happen.
    pub(crate) fn cloud_fault(
        &self,
        around: &Surroundings,
        fault: &CloudFault,
    ) -> Result<(), String> {
        match self {
            Self::Kwok(cloud) => cloud.cloud_fault(around, fault),
            Self::Ec2(cloud) => cloud.cloud_fault(around, fault),
        }
    }

    /// Makes the machines' faults of a step happen.
    pub(crate) async fn machine_fault(
        &self,
        around: &Surroundings,
        fault: &MachineFault,
    ) -> Result<(), String> {
        match self {
            Self::Kwok(cloud) => cloud.machine_fault(around, fault),
            Self::Ec2(cloud) => cloud.machine_fault(around, fault).await,
        }
    }
}
