//! The CloudProvider of EC2 (`aws-provider.md` §4.1, §5, §22).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use karpenter_api::labels as keys;
use karpenter_api::{NodeClaim, NodePool, Quantity};
use karpenter_cloud::{CloudError, CloudProvider, Launched, Machine, RepairPolicy};
use karpenter_ec2_api::reservation::{CAPACITY_BLOCK, DEFAULT};
use karpenter_ec2_api::{
    CapacityLifecycle, Ec2Error, Filter, Instance, InstanceState, live_states,
};
use karpenter_model::{InstanceType, ResourceList};

use crate::drift;
use crate::labels as l;
use crate::launch::{Bought, create_error, forbidden_tag};
use crate::nodeclass::NodeClass;
use crate::reservations::Reserved;
use crate::shape::{self, Readiness};
use crate::shared::{Shared, instance_id, provider_id};

/// Labels of machines out of reservations.
const RESERVATION_LABELS: [&str; 3] = [
    l::RESERVATION_ID,
    l::RESERVATION_TYPE,
    l::RESERVATION_INTERRUPTIBLE,
];

/// EC2 as a cloud.
pub(crate) struct Ec2Cloud {
    pub(crate) shared: Arc<Shared>,
}

#[async_trait]
impl CloudProvider for Ec2Cloud {
    fn name(&self) -> &'static str {
        "aws"
    }

    async fn create(&self, claim: &NodeClaim) -> Result<Launched, CloudError> {
        self.buy(claim, None).await
    }

    async fn create_among(
        &self,
        claim: &NodeClaim,
        types: &Arc<Vec<Arc<InstanceType>>>,
    ) -> Result<Launched, CloudError> {
        self.buy(claim, Some(types)).await
    }

    async fn delete(&self, claim: &NodeClaim) -> Result<(), CloudError> {
        let id = parse(&claim.status.provider_id)?;
        let instance = self.describe(id).await;
        if let Err(CloudError::NotFound(_)) = &instance {
            let labels = claim.metadata.labels.as_ref();
            if let Some(reservation) = labels.and_then(|l| l.get(l::RESERVATION_ID)) {
                self.shared.market.reservations.returned(reservation);
            }
        }
        let instance = instance?;
        shared_notify(&self.shared);
        if instance.state == InstanceState::ShuttingDown {
            return Ok(());
        }
        match self.shared.ec2.terminate_instances(&[id.to_owned()]).await {
            Ok(_) => Ok(()),
            Err(e) if e.is_not_found() => Err(CloudError::NotFound(e.to_string())),
            Err(e) => Err(other("terminating", id, &e)),
        }
    }

    async fn get(&self, provider_id: &str) -> Result<Machine, CloudError> {
        let instance = self.describe(parse(provider_id)?).await?;
        Ok(machine(&instance, self.gate()))
    }

    async fn list(&self) -> Result<Vec<Machine>, CloudError> {
        let instances = self.shared.instances().await;
        let instances = instances.map_err(|e| CloudError::Other(format!("listing: {e}")))?;
        Ok(instances.iter().map(|i| machine(i, self.gate())).collect())
    }

    async fn instance_types(
        &self,
        pool: &NodePool,
    ) -> Result<Arc<Vec<Arc<InstanceType>>>, CloudError> {
        let name = &pool.spec.template.spec.node_class_ref.name;
        let class = self.shared.class(name).await?;
        let class = class
            .ok_or_else(|| CloudError::Other(format!("EC2NodeClass {name} does not exist")))?;
        self.shared.market.types(&*self.shared.ec2, &class).await
    }

    async fn is_drifted(&self, claim: &NodeClaim) -> Result<Option<String>, CloudError> {
        let Some(class) = self.shared.class(&claim.spec.node_class_ref.name).await? else {
            return Ok(None);
        };
        if let Some(reason) = drift::of_class(&class, claim) {
            return Ok(Some(reason.to_owned()));
        }
        let types = self.shared.market.types(&*self.shared.ec2, &class).await?;
        if drift::of_image(&class, claim, &types, &self.shared.labels)? {
            return Ok(Some(drift::AMI.to_owned()));
        }
        let instance = self.describe(parse(&claim.status.provider_id)?).await?;
        let reserved = reservation(&instance, self.gate());
        let reserved = reserved.as_ref().map(|r| r.id.as_str());
        Ok(drift::of_instance(&class, &instance, reserved)?.map(str::to_owned))
    }

    fn repair_policies(&self) -> Vec<RepairPolicy> {
        let policy = |condition, status, minutes: u64| RepairPolicy {
            condition,
            status,
            toleration: Duration::from_secs(minutes * 60),
        };
        vec![
            policy("Ready", "False", 30),
            policy("Ready", "Unknown", 30),
            policy("AcceleratedHardwareReady", "False", 10),
            policy("StorageReady", "False", 30),
            policy("NetworkingReady", "False", 30),
            policy("KernelReady", "False", 30),
            policy("ContainerRuntimeReady", "False", 30),
        ]
    }
}

impl Ec2Cloud {
    /// Whether capacity reservations are used.
    fn gate(&self) -> bool {
        self.shared.settings.reserved_capacity
    }

    /// Launches for `claim` out of `types`, or of what is sold to its class.
    async fn buy(
        &self,
        claim: &NodeClaim,
        types: Option<&Arc<Vec<Arc<InstanceType>>>>,
    ) -> Result<Launched, CloudError> {
        let shared = &*self.shared;
        let name = &claim.spec.node_class_ref.name;
        let class = shared.class(name).await?.filter(|c| !shape::is_deleting(c));
        let class = class.ok_or_else(|| {
            CloudError::InsufficientCapacity(format!("EC2NodeClass {name} is gone or going"))
        })?;
        match shape::readiness(&class) {
            Readiness::Ready => {}
            Readiness::NotReady(message) => return Err(CloudError::NodeClassNotReady(message)),
            Readiness::Unknown => {
                return Err(CloudError::Create {
                    reason: "NodeClassReadinessUnknown".to_owned(),
                    message: format!("EC2NodeClass {name} has not been looked at yet"),
                });
            }
        }
        if let Some(tag) = forbidden_tag(&class) {
            return Err(CloudError::NodeClassNotReady(format!(
                "EC2NodeClass {name}: spec.tags: {tag:?} is Karpenter's own"
            )));
        }
        let types = match types {
            Some(types) => types.clone(),
            None => shared
                .market
                .types(&*shared.ec2, &class)
                .await
                .map_err(|e| CloudError::Create {
                    reason: "InstanceTypeResolutionFailed".to_owned(),
                    message: e.to_string(),
                })?,
        };
        if shared.may_have_launched(claim)
            && let Some(bought) = self.earlier(claim, &types).await?
        {
            return Ok(self.launched(&class, bought));
        }
        let bought = shared.launcher().launch(&class, claim, &types).await?;
        shared.machines_changed.notify_one();
        shared.forget_claim(claim.metadata.uid.as_deref().unwrap_or_default());
        Ok(self.launched(&class, bought))
    }

    /// A live instance, past any cache.
    async fn describe(&self, id: &str) -> Result<Instance, CloudError> {
        let filter = Filter::new("instance-state-name", live_states());
        match self
            .shared
            .ec2
            .describe_instances(&[id.to_owned()], &[filter])
            .await
        {
            Ok(found) => found
                .into_iter()
                .next()
                .ok_or_else(|| CloudError::NotFound(format!("instance {id} is terminated"))),
            Err(e) if e.is_not_found() => Err(CloudError::NotFound(e.to_string())),
            Err(e) => Err(other("describing", id, &e)),
        }
    }

    /// A machine that an earlier attempt bought for the claim, the oldest if there are several.
    async fn earlier(
        &self,
        claim: &NodeClaim,
        types: &[Arc<InstanceType>],
    ) -> Result<Option<Bought>, CloudError> {
        let name = claim.metadata.name.clone().unwrap_or_default();
        let filters = [
            Filter::new(format!("tag:{}", l::NODE_CLAIM_TAG), [name]),
            Filter::new(
                format!("tag:{}", l::CLUSTER_TAG),
                [&*self.shared.settings.cluster_name],
            ),
            Filter::new("instance-state-name", ["pending", "running"]),
        ];
        let found = self.shared.ec2.describe_instances(&[], &filters).await;
        let found = found.map_err(|e| create_error(&e))?;
        let oldest = found
            .into_iter()
            .min_by(|a, b| (a.launch_time, &a.id).cmp(&(b.launch_time, &b.id)));
        let bought = oldest.and_then(|i| {
            let held = types.iter().find(|t| t.name == i.instance_type)?;
            Some(Bought {
                capacity_type: capacity_type(&i, self.gate()),
                reserved: reservation(&i, self.gate()),
                tenancy: if i.tenancy == "dedicated" {
                    "dedicated"
                } else {
                    "default"
                },
                instance_type: held.clone(),
                id: i.id,
                image_id: i.image_id,
                zone: i.zone,
            })
        });
        if let Some(bought) = &bought {
            tracing::info!(
                instance = bought.id,
                "adopted the machine of an earlier attempt"
            );
        }
        Ok(bought)
    }

    fn launched(&self, class: &NodeClass, bought: Bought) -> Launched {
        let held = &bought.instance_type;
        let mut labels: BTreeMap<String, String> = held
            .requirements
            .iter()
            .filter_map(|r| Some((r.key.to_string(), r.single()?.to_string())))
            .filter(|(key, _)| !RESERVATION_LABELS.contains(&key.as_str()))
            .collect();
        let reserved = bought.reserved.iter().flat_map(Reserved::labels);
        labels.extend(reserved.map(|(key, value)| (key.to_owned(), value)));
        labels.insert(keys::ZONE.to_owned(), bought.zone.to_string());
        let subnet = class.status.subnets.iter().find(|s| s.zone == *bought.zone);
        if let Some(subnet) = subnet {
            labels.insert(l::ZONE_ID.to_owned(), subnet.zone_id.clone());
        }
        labels.insert(
            keys::CAPACITY_TYPE.to_owned(),
            bought.capacity_type.to_owned(),
        );
        labels.insert(l::TENANCY.to_owned(), bought.tenancy.to_owned());
        let annotation = |key: &str| {
            let annotations = class.metadata.annotations.as_ref()?;
            Some((key.to_owned(), annotations.get(key)?.clone()))
        };
        let mut annotations: BTreeMap<String, String> =
            [annotation(l::HASH), annotation(l::HASH_VERSION)]
                .into_iter()
                .flatten()
                .collect();
        if let Some(profile) = &class.status.instance_profile {
            annotations.insert(l::INSTANCE_PROFILE_NAME.to_owned(), profile.clone());
        }
        // Machines have EFA adapters only where the class asks for them.
        let efa = class
            .spec
            .network_interfaces
            .iter()
            .any(|n| n.interface_type == "efa-only");
        Launched {
            provider_id: provider_id(&bought.zone, &bought.id),
            image_id: bought.image_id,
            labels,
            annotations,
            capacity: present(&held.capacity, efa),
            allocatable: present(&held.allocatable, efa),
        }
    }
}

/// What of a list is there.
fn present(list: &ResourceList, efa: bool) -> ResourceList {
    list.iter()
        .filter(|(name, amount)| *amount > Quantity::ZERO && (efa || *name != l::resources::EFA))
        .collect()
}

fn shared_notify(shared: &Shared) {
    shared.machines_changed.notify_one();
}

fn parse(provider_id: &str) -> Result<&str, CloudError> {
    instance_id(provider_id).ok_or_else(|| {
        CloudError::Other(format!(
            "provider id {provider_id:?} is not of the form aws:///<zone>/<instance>"
        ))
    })
}

fn other(doing: &str, id: &str, error: &Ec2Error) -> CloudError {
    CloudError::Other(format!("{doing} instance {id}: {error}"))
}

/// `reserved` says whether capacity reservations are used.
pub(crate) fn capacity_type(instance: &Instance, reserved: bool) -> &'static str {
    if instance.lifecycle == CapacityLifecycle::Spot {
        keys::CAPACITY_SPOT
    } else if reservation(instance, reserved).is_some() {
        keys::CAPACITY_RESERVED
    } else {
        keys::CAPACITY_ON_DEMAND
    }
}

/// The reservation that an instance runs in.
fn reservation(instance: &Instance, reserved: bool) -> Option<Reserved> {
    let id = instance.capacity_reservation_id.as_ref();
    let id = id.filter(|_| reserved && instance.reservations_only)?;
    let block = instance.lifecycle == CapacityLifecycle::CapacityBlock;
    let kind = if block { CAPACITY_BLOCK } else { DEFAULT };
    Some(Reserved {
        id: id.clone(),
        kind: kind.to_owned(),
        interruptible: instance.lifecycle == CapacityLifecycle::InterruptibleReservation,
    })
}

/// An instance as the core sees it; `reserved` says whether capacity reservations are used.
pub(crate) fn machine(instance: &Instance, reserved: bool) -> Machine {
    let out_of = reservation(instance, reserved);
    let labels = [
        (keys::INSTANCE_TYPE, instance.instance_type.to_string()),
        (keys::ZONE, instance.zone.to_string()),
        (l::ZONE_ID, instance.zone_id.to_string()),
        (
            keys::CAPACITY_TYPE,
            capacity_type(instance, reserved).to_owned(),
        ),
        (l::TENANCY, instance.tenancy.clone()),
    ];
    Machine {
        provider_id: provider_id(&instance.zone, &instance.id),
        node_pool: instance
            .tags
            .get(keys::NODEPOOL)
            .filter(|p| !p.is_empty())
            .cloned(),
        launched: Some(instance.launch_time),
        terminating: matches!(
            instance.state,
            InstanceState::ShuttingDown | InstanceState::Terminated
        ),
        labels: labels
            .into_iter()
            .chain(out_of.iter().flat_map(Reserved::labels))
            .map(|(k, v)| (k.to_owned(), v))
            .collect(),
        image_id: instance.image_id.clone(),
    }
}
