//! The KWOK cloud: machines are Node objects that this provider makes in the cluster itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Node;
use karpenter_api::labels as names;
use karpenter_api::{NodeClaim, NodePool};
use karpenter_cloud::{CloudError, CloudProvider, Launched, Machine, RepairPolicy};
use karpenter_model::instance::by_price;
use karpenter_model::{InstanceType, Offering, Requirements, ResourceList};
use karpenter_runtime::Clock;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::catalog::Catalog;
use crate::market::{Market, OfferingKey};
use crate::node::{self, KWOK_NODE, PROVIDER_ID_PREFIX};
use crate::nodeclass::KwokNodeClass;
use crate::reservations::{self, Booting, Machines, Used};

/// How long an offering that could not be had counts as unavailable; as the EC2 provider's cache.
pub const UNAVAILABLE_FOR: Duration = Duration::from_secs(180);
/// How long a Node in a bad state is put up with before repair.
const REPAIR_TOLERATION: Duration = Duration::from_secs(600);
/// How often making a Node is tried before it is given up (the claim then times out).
const MAX_CREATE_ATTEMPTS: u32 = 10;
/// First wait between those tries.
const CREATE_BACKOFF: Duration = Duration::from_millis(100);

/// The provider's cloud.
pub struct KwokCloud {
    client: kube::Client,
    clock: Clock,
    catalog: Catalog,
    market: Market,
    /// Offerings that a launch found sold out, until when.
    unavailable: Arc<Mutex<BTreeMap<OfferingKey, Instant>>>,
    /// Types as they were last handed out, with the market change and the offerings they reflect.
    current: RwLock<Option<Current>>,
    catalog_changed: RwLock<Option<Arc<Notify>>>,
    /// Nodes as watched; none until the watch has listed them.
    pub(crate) machines: Machines,
    /// Machines out of reservations that have not joined yet.
    pub(crate) booting: Arc<Booting>,
}

struct Current {
    changes: u64,
    unavailable: BTreeMap<OfferingKey, Instant>,
    used: Used,
    types: Arc<Vec<Arc<InstanceType>>>,
}

impl KwokCloud {
    /// A cloud that sells `catalog` on `market`.
    #[must_use]
    pub fn new(client: kube::Client, clock: Clock, catalog: Catalog, market: Market) -> Self {
        Self {
            client,
            clock,
            catalog,
            market,
            unavailable: Arc::default(),
            current: RwLock::default(),
            catalog_changed: RwLock::default(),
            machines: Arc::default(),
            booting: Arc::default(),
        }
    }

    /// Whom to tell when availability changes.
    pub(crate) fn notify(&self, notify: Arc<Notify>) {
        *self.catalog_changed.write() = Some(notify);
    }

    fn nodes(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }

    /// Types at today's prices and availability; the same `Arc` until something changes.
    fn types(&self) -> Arc<Vec<Arc<InstanceType>>> {
        let now = self.clock.now();
        let unavailable = {
            let mut all = self.unavailable.lock();
            all.retain(|_, until| *until > now);
            all.clone()
        };
        let used = self.used(None);
        let changes = self.market.changes();
        if let Some(c) = self.current.read().as_ref()
            && c.changes == changes
            && c.unavailable == unavailable
            && c.used == used
        {
            return Arc::clone(&c.types);
        }
        let types = self.market.apply(&self.catalog.types, &unavailable);
        let types = Arc::new(reservations::apply(types, &used));
        *self.current.write() = Some(Current {
            changes,
            unavailable,
            used,
            types: Arc::clone(&types),
        });
        types
    }

    /// Machines out of reservations; nothing to look for where there are none.
    fn used(&self, but: Option<&str>) -> Used {
        if reservations::any(&self.catalog.types) {
            self.booting.used(&self.machines, but)
        } else {
            Some(BTreeMap::new())
        }
    }

    /// Whether the machine `own` can still be had from an offering: what types say of reservations may be a while old.
    fn is_left(&self, own: &str, sold: &InstanceType, offering: &Offering) -> bool {
        let types = self.catalog.types.iter();
        let listed = types.filter(|t| t.name == sold.name);
        let id = |o: &Offering| o.reservation(&self.catalog.labels).cloned();
        let same = |o: &&Offering| {
            o.capacity_type() == offering.capacity_type()
                && o.zone() == offering.zone()
                && id(o) == id(offering)
        };
        let used = self.used(Some(own));
        let mut listed = listed.flat_map(|t| t.offerings.iter()).filter(same);
        listed.all(|o| reservations::has(o, &used))
    }

    /// Has pods planned anew, as reservations may have more left than they had.
    pub(crate) fn reservations_changed(&self) {
        if reservations::any(&self.catalog.types)
            && let Some(notify) = self.catalog_changed.read().clone()
        {
            notify.notify_waiters();
        }
    }

    /// Remembers that offerings are sold out and has pods planned anew when that memory ends.
    fn mark_unavailable(&self, keys: impl IntoIterator<Item = OfferingKey>) {
        let until = self.clock.now() + UNAVAILABLE_FOR;
        self.unavailable
            .lock()
            .extend(keys.into_iter().map(|k| (k, until)));
        let Some(notify) = self.catalog_changed.read().clone() else {
            return;
        };
        notify.notify_waiters();
        let clock = self.clock.clone();
        tokio::spawn(async move {
            clock.sleep(UNAVAILABLE_FOR).await;
            notify.notify_waiters();
        });
    }

    async fn node_class(&self, claim: &NodeClaim) -> Result<KwokNodeClass, CloudError> {
        let name = &claim.spec.node_class_ref.name;
        let api: Api<KwokNodeClass> = Api::all(self.client.clone());
        let found = api.get_opt(name).await.map_err(other)?;
        let class = found.ok_or_else(|| {
            CloudError::InsufficientCapacity(format!("KWOKNodeClass {name} does not exist"))
        })?;
        if class.is_ready() == Some(false) {
            return Err(CloudError::NodeClassNotReady(format!(
                "KWOKNodeClass {name} has condition Ready=False"
            )));
        }
        Ok(class)
    }

    /// Makes the Node after `delay`, in a task of its own: the claim is launched before the machine has booted. A
    /// machine whose claim has gone by then was terminated before it joined.
    pub(crate) fn register_later(&self, node: Node, claim: String, delay: Duration) {
        let (api, clock) = (self.nodes(), self.clock.clone());
        let claims: Api<NodeClaim> = Api::all(self.client.clone());
        tokio::spawn(async move {
            clock.sleep(delay).await;
            if let Ok(found) = claims.get_opt(&claim).await
                && found.is_none_or(|c| c.metadata.deletion_timestamp.is_some())
            {
                return;
            }
            let mut wait = CREATE_BACKOFF;
            for _ in 0..MAX_CREATE_ATTEMPTS {
                match api.create(&PostParams::default(), &node).await {
                    Ok(_) => return,
                    Err(kube::Error::Api(status)) if status.is_already_exists() => return,
                    Err(error) => {
                        tracing::error!(node = node.metadata.name, %error, "failed creating node");
                        clock.sleep(wait).await;
                        wait *= 2;
                    }
                }
            }
        });
    }
}

fn other(error: kube::Error) -> CloudError {
    CloudError::Other(error.to_string())
}

/// Name of the Node that is the machine of this id; there is none for an id that we did not give.
fn node_of(provider_id: &str) -> Result<&str, CloudError> {
    provider_id
        .strip_prefix(PROVIDER_ID_PREFIX)
        .filter(|name| !name.is_empty())
        .ok_or_else(|| CloudError::NotFound(format!("{provider_id:?} is no machine of KWOK")))
}

/// A Node as a machine.
pub(crate) fn machine(node: &Node) -> Option<Machine> {
    let provider_id = node.spec.as_ref()?.provider_id.clone()?;
    if !provider_id.starts_with(PROVIDER_ID_PREFIX) {
        return None;
    }
    let labels = node.metadata.labels.clone().unwrap_or_default();
    Some(Machine {
        provider_id,
        node_pool: labels.get(names::NODEPOOL).cloned(),
        launched: node.metadata.creation_timestamp.as_ref().map(|t| t.0),
        terminating: node.metadata.deletion_timestamp.is_some(),
        labels,
        image_id: String::new(),
    })
}

#[async_trait]
impl CloudProvider for KwokCloud {
    fn name(&self) -> &'static str {
        "kwok"
    }

    async fn create(&self, claim: &NodeClaim) -> Result<Launched, CloudError> {
        self.create_among(claim, &self.types()).await
    }

    async fn create_among(
        &self,
        claim: &NodeClaim,
        types: &Arc<Vec<Arc<InstanceType>>>,
    ) -> Result<Launched, CloudError> {
        let class = self.node_class(claim).await?;
        let labels = &self.catalog.labels;
        let wanted = Requirements::from_specs(&claim.spec.requirements, labels).map_err(|e| {
            CloudError::Create {
                reason: "LaunchFailed".to_owned(),
                message: e.to_string(),
            }
        })?;
        let requests = ResourceList::from_raw(&claim.spec.resources.requests).map_err(|e| {
            CloudError::Create {
                reason: "LaunchFailed".to_owned(),
                message: e.to_string(),
            }
        })?;
        let suitable = types
            .iter()
            .filter(|t| t.requirements.does_intersect(&wanted) && requests.fits(&t.allocatable));
        let own = format!("{PROVIDER_ID_PREFIX}{}", node::node_name(claim));
        let (mut sold_out, mut tried) = (Vec::new(), 0);
        for (instance_type, _) in by_price(suitable, &wanted, labels) {
            let mut offers: Vec<_> = instance_type.offers(&wanted, labels).collect();
            offers.sort_by(|a, b| a.cmp_by_price(b));
            for offering in offers {
                if !self.is_left(&own, instance_type, offering) {
                    tried += 1;
                    continue;
                }
                if !self
                    .market
                    .has(&instance_type.name, offering, self.clock.now())
                {
                    sold_out.push(OfferingKey::of(&instance_type.name, offering));
                    continue;
                }
                self.mark_sold_out(sold_out);
                let launched = node::launched(claim, &wanted, instance_type, offering, labels);
                let name = claim.metadata.name.clone().unwrap_or_default();
                self.booting.add(&launched.provider_id, &launched.labels);
                self.register_later(node::node(&launched), name, class.registration_delay());
                return Ok(launched);
            }
        }
        tried += sold_out.len();
        self.mark_sold_out(sold_out);
        Err(CloudError::InsufficientCapacity(format!(
            "all requested instance types were unavailable during launch ({tried} offerings sold out)"
        )))
    }

    async fn delete(&self, claim: &NodeClaim) -> Result<(), CloudError> {
        let name = node_of(&claim.status.provider_id)?;
        if self.booting.remove(&claim.status.provider_id) {
            self.reservations_changed();
        }
        let gone = || CloudError::NotFound(format!("node {name} is deleted"));
        match self.nodes().delete(name, &DeleteParams::default()).await {
            // The Node may stay for its finalizers; the machine behind it is off, and that is what counts here.
            Ok(_) => Err(gone()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Err(gone()),
            Err(error) => Err(other(error)),
        }
    }

    async fn get(&self, provider_id: &str) -> Result<Machine, CloudError> {
        let name = node_of(provider_id)?;
        let node = self.nodes().get_opt(name).await.map_err(other)?;
        node.as_ref()
            .and_then(machine)
            .filter(|m| !m.terminating)
            .ok_or_else(|| CloudError::NotFound(format!("node {name} does not exist")))
    }

    async fn list(&self) -> Result<Vec<Machine>, CloudError> {
        if let Some(machines) = self.machines.read().as_ref() {
            return Ok(machines.values().cloned().collect());
        }
        let params = ListParams::default().labels(&format!("{KWOK_NODE}=fake"));
        let nodes = self.nodes().list(&params).await.map_err(other)?;
        Ok(nodes.items.iter().filter_map(machine).collect())
    }

    async fn instance_types(
        &self,
        _pool: &NodePool,
    ) -> Result<Arc<Vec<Arc<InstanceType>>>, CloudError> {
        Ok(self.types())
    }

    async fn is_drifted(&self, _claim: &NodeClaim) -> Result<Option<String>, CloudError> {
        Ok(None)
    }

    fn repair_policies(&self) -> Vec<RepairPolicy> {
        ["False", "Unknown"]
            .map(|status| RepairPolicy {
                condition: "Ready",
                status,
                toleration: REPAIR_TOLERATION,
            })
            .to_vec()
    }
}

impl KwokCloud {
    /// Makes the Node of a claim that was launched before, from what the launch wrote into it.
    pub(crate) async fn relaunch(&self, claim: &NodeClaim) {
        let delay = self
            .node_class(claim)
            .await
            .map_or(Duration::ZERO, |class| class.registration_delay());
        let list = |raw| ResourceList::from_raw(raw).unwrap_or_default();
        let launched = Launched {
            provider_id: claim.status.provider_id.clone(),
            image_id: String::new(),
            labels: claim.metadata.labels.clone().unwrap_or_default(),
            annotations: claim.metadata.annotations.clone().unwrap_or_default(),
            capacity: list(&claim.status.capacity),
            allocatable: list(&claim.status.allocatable),
        };
        let name = claim.metadata.name.clone().unwrap_or_default();
        self.booting.add(&launched.provider_id, &launched.labels);
        self.register_later(node::node(&launched), name, delay);
    }

    fn mark_sold_out(&self, keys: Vec<OfferingKey>) {
        if !keys.is_empty() {
            self.mark_unavailable(keys);
        }
    }
}
