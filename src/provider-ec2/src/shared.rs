//! What the cloud and the controllers share: AWS, the API, the market, and what is remembered between calls.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use karpenter_api::NodeClaim;
use karpenter_cloud::CloudError;
use karpenter_ec2_api::{Ec2, Filter, Instance, live_states};
use karpenter_model::LabelRegistry;
use karpenter_runtime::{Clock, RngTree};
use kube::Api;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::cache::Cache;
use crate::image::Images;
use crate::labels as l;
use crate::launch::Launcher;
use crate::launch::subnets::FreeAddresses;
use crate::market::Market;
use crate::nodeclass::NodeClass;
use crate::settings::Ec2Settings;
use crate::store::Store;
use crate::template::Templates;

/// How long the API server's version is believed.
const VERSION_TTL: Duration = Duration::from_secs(300);
/// Claims made up to so long before this process took over may have been tried by another one.
const TAKE_OVER_MARGIN: SignedDuration = SignedDuration::from_secs(60);

/// The provider's state.
pub(crate) struct Shared {
    pub(crate) ec2: Arc<dyn Ec2>,
    pub(crate) settings: Ec2Settings,
    pub(crate) clock: Clock,
    pub(crate) rng: RngTree,
    pub(crate) client: kube::Client,
    pub(crate) labels: Arc<LabelRegistry>,
    pub(crate) market: Market,
    pub(crate) images: Images,
    pub(crate) templates: Templates,
    pub(crate) addresses: FreeAddresses,
    pub(crate) classes: Store<NodeClass>,
    pub(crate) claims: Store<NodeClaim>,
    /// Notified when a claim is out of a reservation.
    pub(crate) reserved_changed: Notify,
    /// Notified when machines come or go: the garbage collector then looks more often.
    pub(crate) machines_changed: Notify,
    version: Cache<(), String>,
    /// Claims (UIDs) that a launch was tried for by this process.
    tried: Mutex<BTreeSet<String>>,
    /// Since when this process acts.
    acting_since: RwLock<Timestamp>,
}

impl Shared {
    pub(crate) fn new(
        ec2: Arc<dyn Ec2>,
        settings: Ec2Settings,
        clock: Clock,
        rng: RngTree,
        client: kube::Client,
    ) -> Self {
        Self {
            market: Market::new(&settings, clock.clone()),
            labels: Arc::new(l::registry()),
            images: Images::default(),
            templates: Templates::default(),
            addresses: FreeAddresses::default(),
            classes: Store::default(),
            claims: Store::default(),
            machines_changed: Notify::new(),
            reserved_changed: Notify::new(),
            version: Cache::new(VERSION_TTL),
            tried: Mutex::default(),
            acting_since: RwLock::new(clock.wall()),
            ec2,
            settings,
            clock,
            rng,
            client,
        }
    }

    pub(crate) fn class_api(&self) -> Api<NodeClass> {
        Api::all(self.client.clone())
    }

    pub(crate) fn claim_api(&self) -> Api<NodeClaim> {
        Api::all(self.client.clone())
    }

    pub(crate) async fn class(&self, name: &str) -> Result<Option<Arc<NodeClass>>, CloudError> {
        self.classes
            .get(&self.class_api(), name)
            .await
            .map_err(|e| CloudError::Other(format!("reading EC2NodeClass {name}: {e}")))
    }

    pub(crate) fn launcher(&self) -> Launcher<'_> {
        Launcher {
            ec2: &*self.ec2,
            clock: &self.clock,
            settings: &self.settings,
            labels: &self.labels,
            market: &self.market,
            templates: &self.templates,
            addresses: &self.addresses,
        }
    }

    /// Kubernetes version as `major.minor`.
    pub(crate) async fn kubernetes_version(&self) -> kube::Result<String> {
        if let Some(version) = &self.settings.kubernetes_version {
            return Ok(version.clone());
        }
        if let Some(version) = self.version.get(&(), self.clock.now()) {
            return Ok(version);
        }
        let info = self.client.apiserver_version().await?;
        let version = format!("{}.{}", info.major, info.minor.trim_end_matches('+'));
        self.version.put((), version.clone(), self.clock.now());
        Ok(version)
    }

    /// This process acts from now on: it became leader.
    pub(crate) fn take_over(&self) {
        *self.acting_since.write() = self.clock.wall();
    }

    /// Whether an earlier attempt may have bought a machine for a claim; remembers that there was one now.
    pub(crate) fn may_have_launched(&self, claim: &NodeClaim) -> bool {
        let uid = claim.metadata.uid.clone().unwrap_or_default();
        let again = !self.tried.lock().insert(uid);
        let since = *self.acting_since.read();
        let created = claim.metadata.creation_timestamp.as_ref().map(|t| t.0);
        let before =
            created.is_none_or(|c| c < since.checked_add(TAKE_OVER_MARGIN).unwrap_or(since));
        again || before
    }

    /// A claim is done with: launched, or gone.
    pub(crate) fn forget_claim(&self, uid: &str) {
        self.tried.lock().remove(uid);
    }

    /// Filters for this cluster's live machines.
    pub(crate) fn own_filters(&self) -> Vec<Filter> {
        vec![
            Filter::new("tag-key", [karpenter_api::labels::NODEPOOL]),
            Filter::new("tag-key", [l::NODE_CLASS]),
            Filter::new(
                format!("tag:{}", l::CLUSTER_TAG),
                [&*self.settings.cluster_name],
            ),
            Filter::new("instance-state-name", live_states()),
        ]
    }

    /// This cluster's live machines.
    pub(crate) async fn instances(&self) -> karpenter_ec2_api::Result<Vec<Instance>> {
        self.ec2.describe_instances(&[], &self.own_filters()).await
    }
}

/// Instance id of a provider id `<scheme>:///<zone>/<id>`.
pub(crate) fn instance_id(provider_id: &str) -> Option<&str> {
    let (_, rest) = provider_id.split_once(":///")?;
    let (zone, id) = rest.split_once('/')?;
    (!zone.is_empty() && !id.is_empty() && !id.contains('/')).then_some(id)
}

/// Provider id of an instance.
pub(crate) fn provider_id(zone: &str, id: &str) -> String {
    format!("aws:///{zone}/{id}")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("aws:///us-east-1a/i-1", Some("i-1"))]
    #[case("kwok-aws:///us-east-1a/i-1", Some("i-1"))]
    #[case("aws:///i-1", None)]
    #[case("kwok://node", None)]
    #[case("", None)]
    fn ids(#[case] text: &str, #[case] want: Option<&str>) {
        assert_eq!(instance_id(text), want);
    }
}
