//! A launch: from a claim to an instance, through templates and one `CreateFleet` (`aws-provider.md` §4).
//!
//! Other than upstream, the instance carries the claim's name as a tag from the start. After a crash or a lost answer
//! the next attempt looks for that tag first and adopts what it finds, so that a claim never buys two machines. The
//! price is that launches of different claims cannot be merged into one call.

pub(crate) mod filter;
pub(crate) mod reasons;
pub(crate) mod subnets;

use std::collections::BTreeSet;
use std::sync::Arc;

use karpenter_api::NodeClaim;
use karpenter_api::labels as keys;
use karpenter_cloud::CloudError;
use karpenter_ec2_api::error::{SPOT_ROLE_NOT_PERMITTED, SUBNET_FULL, is_unfulfillable_code};
use karpenter_ec2_api::{
    AllocationStrategy, CreateFleetInput, CreateFleetOutput, Ec2, Ec2Error, ErrorClass, FleetError,
    FleetLaunchTemplateConfig, FleetOverride, FleetTarget, TagSpecification, Tags,
};
use karpenter_model::resources::names;
use karpenter_model::{InstanceType, LabelRegistry, Requirement, Requirements, ResourceList};
use karpenter_runtime::Clock;

use self::subnets::{Chosen, FreeAddresses};
use crate::labels as l;
use crate::market::Market;
use crate::nodeclass::NodeClass;
use crate::reservations::Reserved;
use crate::settings::Ec2Settings;
use crate::template::{self, Group, Launch, Templates};
use crate::userdata::UserDataError;

/// What a launch works with.
#[derive(Clone, Copy)]
pub(crate) struct Launcher<'a> {
    pub(crate) ec2: &'a dyn Ec2,
    pub(crate) clock: &'a Clock,
    pub(crate) settings: &'a Ec2Settings,
    pub(crate) labels: &'a LabelRegistry,
    pub(crate) market: &'a Market,
    pub(crate) templates: &'a Templates,
    pub(crate) addresses: &'a FreeAddresses,
}

/// A machine just bought.
#[derive(Clone, Debug)]
pub(crate) struct Bought {
    pub(crate) id: String,
    pub(crate) image_id: String,
    pub(crate) instance_type: Arc<InstanceType>,
    pub(crate) zone: Arc<str>,
    pub(crate) capacity_type: &'static str,
    pub(crate) tenancy: &'static str,
    /// The reservation that it is out of.
    pub(crate) reserved: Option<Reserved>,
}

/// Tags of everything a class launches (§2): the class', then Karpenter's, which win.
pub(crate) fn launch_tags(cluster: &str, class: &NodeClass, node_pool: &str) -> Tags {
    let mut tags = class.spec.tags.clone().into_inner();
    tags.insert(l::cluster_owned_tag(cluster), "owned".to_owned());
    tags.insert(keys::NODEPOOL.to_owned(), node_pool.to_owned());
    tags.insert(l::CLUSTER_TAG.to_owned(), cluster.to_owned());
    let name = class.metadata.name.clone().unwrap_or_default();
    tags.insert(l::NODE_CLASS.to_owned(), name);
    tags
}

/// The first of a class' tags that it may not set.
pub(crate) fn forbidden_tag(class: &NodeClass) -> Option<&str> {
    class.spec.tags.keys().map(String::as_str).find(|key| {
        key.is_empty()
            || [
                keys::NODEPOOL,
                l::CLUSTER_TAG,
                l::NODE_CLASS,
                l::NODE_CLAIM_TAG,
            ]
            .contains(key)
            || key.starts_with("kubernetes.io/cluster/")
    })
}

impl Launcher<'_> {
    /// Buys a machine for `claim` out of `types`.
    ///
    /// # Errors
    /// As `CloudProvider::create`.
    pub(crate) async fn launch(
        &self,
        class: &NodeClass,
        claim: &NodeClaim,
        types: &[Arc<InstanceType>],
    ) -> Result<Bought, CloudError> {
        let reqs =
            Requirements::from_specs(&claim.spec.requirements, self.labels).map_err(|e| {
                CloudError::Create {
                    reason: "LaunchFailed".to_owned(),
                    message: format!("spec.requirements: {e}"),
                }
            })?;
        let requests = ResourceList::from_raw(&claim.spec.resources.requests).map_err(|e| {
            CloudError::Create {
                reason: "LaunchFailed".to_owned(),
                message: format!("spec.resources.requests: {e}"),
            }
        })?;
        let best_effort = self.settings.best_effort_min_values;
        let types = filter::filter(types, &reqs, &requests, self.labels, best_effort)
            .map_err(|e| CloudError::InsufficientCapacity(e.to_string()))?;
        let capacity_type = filter::capacity_type(&types, &reqs, self.labels);
        let mut reqs = reqs;
        reqs.add(Requirement::is_in(keys::CAPACITY_TYPE, [capacity_type]));
        let pool = claim
            .metadata
            .labels
            .as_ref()
            .and_then(|l| l.get(keys::NODEPOOL));
        let tags = launch_tags(
            &self.settings.cluster_name,
            class,
            pool.map_or("", String::as_str),
        );
        let launch = Launch {
            class,
            claim,
            capacity_type,
            tenancy: filter::tenancy(&reqs),
            tags: &tags,
        };
        let groups = template::groups(self.settings, self.labels, launch, &types, &reqs).map_err(
            |e| match e {
                UserDataError::NoClusterCidr => CloudError::NodeClassNotReady(e.to_string()),
                e => CloudError::Create {
                    reason: "LaunchTemplateFailed".to_owned(),
                    message: e.to_string(),
                },
            },
        )?;
        let chosen = self.addresses.choose(&class.status.subnets, |zone| {
            self.min_pods(&types, &reqs, zone)
        });
        let result = self.fleet(launch, &reqs, &groups, &chosen).await;
        let used: BTreeSet<Arc<str>> = match &result {
            Ok(output) => output
                .instances
                .iter()
                .map(|i| i.pool.subnet_id.clone())
                .collect(),
            Err(_) => BTreeSet::new(),
        };
        self.addresses.settle(&chosen, &used);
        let output = result?;
        self.learn(&output.errors, capacity_type, &groups, &reqs);
        self.bought(launch, &reqs, &output, &types)
    }

    /// Addresses that the smallest machine of a zone takes.
    fn min_pods(&self, types: &[Arc<InstanceType>], reqs: &Requirements, zone: &str) -> i64 {
        types
            .iter()
            .filter(|t| t.offers(reqs, self.labels).any(|o| o.zone() == zone))
            .map(|t| t.capacity.get(names::PODS).units())
            .min()
            .unwrap_or(0)
    }

    async fn fleet(
        &self,
        launch: Launch<'_>,
        reqs: &Requirements,
        groups: &[Group],
        chosen: &Chosen,
    ) -> Result<CreateFleetOutput, CloudError> {
        let input = self.request(launch, reqs, groups, chosen)?;
        // A template may have been deleted by hand: once more with fresh ones.
        for last in [false, true] {
            for group in groups {
                self.templates
                    .ensure(self.ec2, self.clock, group, launch.tags)
                    .await
                    .map_err(|e| create_error(&e))?;
            }
            match self.ec2.create_fleet(&input).await {
                Ok(output) => return Ok(output),
                Err(e) if e.class() == ErrorClass::LaunchTemplateNotFound && !last => {
                    groups.iter().for_each(|g| self.templates.forget(g));
                }
                Err(e) => return Err(create_error(&e)),
            }
        }
        Err(CloudError::Other("CreateFleet was not tried".to_owned()))
    }

    fn request(
        &self,
        launch: Launch<'_>,
        reqs: &Requirements,
        groups: &[Group],
        chosen: &Chosen,
    ) -> Result<CreateFleetInput, CloudError> {
        let mut configs = Vec::new();
        for group in groups {
            let mut overrides: Vec<FleetOverride> = Vec::new();
            for held in &group.types {
                for offer in held.offers(reqs, self.labels) {
                    if Reserved::of(offer) != group.reserved {
                        continue;
                    }
                    let Some((zone, subnet)) = chosen.by_zone.get_key_value(offer.zone()) else {
                        continue;
                    };
                    overrides.push(FleetOverride {
                        instance_type: held.name.clone(),
                        subnet_id: subnet.clone(),
                        zone: zone.clone(),
                        image_id: group.image.clone(),
                        priority: offer.price,
                    });
                }
            }
            if !overrides.is_empty() {
                configs.push(FleetLaunchTemplateConfig {
                    launch_template_name: group.name.clone(),
                    overrides,
                });
            }
        }
        if configs.is_empty() {
            return Err(CloudError::Create {
                reason: "LaunchFailed".to_owned(),
                message:
                    "no image of the EC2NodeClass suits an instance type in a zone with a subnet"
                        .to_owned(),
            });
        }
        let annotation = |key: &str| {
            let annotations = launch.claim.metadata.annotations.as_ref();
            annotations.and_then(|a| a.get(key)).map(String::as_str)
        };
        let overlay = annotation(keys::PRICE_OVERLAY_APPLIED).is_some();
        // All groups are of one kind of reservation: the filters see to that.
        let reserved = groups.iter().find_map(|g| g.reserved.as_ref());
        let target = match reserved {
            Some(reserved) if reserved.is_block() => FleetTarget::CapacityBlock,
            Some(reserved) if reserved.interruptible => FleetTarget::ReservedCapacity,
            None if launch.capacity_type == keys::CAPACITY_SPOT => FleetTarget::Spot,
            Some(_) | None => FleetTarget::OnDemand,
        };
        let strategy = match (target == FleetTarget::Spot, overlay) {
            (true, false) => AllocationStrategy::PriceCapacityOptimized,
            (true, true) => AllocationStrategy::CapacityOptimizedPrioritized,
            (false, false) => AllocationStrategy::LowestPrice,
            (false, true) => AllocationStrategy::Prioritized,
        };
        let mut own = launch.tags.clone();
        let claim = launch.claim.metadata.name.clone().unwrap_or_default();
        own.insert(l::NODE_CLAIM_TAG.to_owned(), claim);
        let spec = |resource: &str, tags: &Tags| TagSpecification {
            resource_type: resource.to_owned(),
            tags: tags.clone(),
        };
        let relaxed = annotation(keys::MIN_VALUES_RELAXED) == Some("true");
        Ok(CreateFleetInput {
            configs,
            total_target_capacity: 1,
            target,
            strategy,
            tag_specifications: vec![
                spec("instance", &own),
                spec("volume", launch.tags),
                spec("fleet", launch.tags),
            ],
            context: launch.class.spec.context.clone().filter(|_| !relaxed),
            dry_run: false,
        })
    }

    /// Remembers what a fleet could not serve.
    fn learn(
        &self,
        errors: &[FleetError],
        capacity_type: &'static str,
        groups: &[Group],
        reqs: &Requirements,
    ) {
        let now = self.clock.now();
        let marks = &self.market.unavailable;
        for error in errors {
            tracing::debug!(code = error.code, message = error.message, "fleet error");
            if error.code == SPOT_ROLE_NOT_PERMITTED {
                marks.mark_capacity_type(keys::CAPACITY_SPOT, now);
            }
            // EC2 does not always say which pool it was.
            let Some(pool) = &error.pool else { continue };
            if is_unfulfillable_code(&error.code) && capacity_type == keys::CAPACITY_RESERVED {
                let mut types = groups.iter().flat_map(|g| &g.types);
                let held = types.find(|t| t.name == pool.instance_type);
                if let Some(reserved) = held.and_then(|t| self.reservation(t, reqs, &pool.zone)) {
                    self.market.reservations.exhausted(&reserved.id);
                }
            } else if is_unfulfillable_code(&error.code) {
                marks.mark_offering(&pool.instance_type, &pool.zone, capacity_type, now);
            }
            if error.code == SUBNET_FULL && !pool.subnet_id.is_empty() {
                marks.mark_subnet(&pool.subnet_id, now);
                self.addresses.full(&pool.subnet_id);
            }
        }
    }

    /// The reservation that a type's machine in a zone is out of: the filters leave one of each.
    fn reservation(
        &self,
        held: &InstanceType,
        reqs: &Requirements,
        zone: &str,
    ) -> Option<Reserved> {
        let mut offers = held.offers(reqs, self.labels);
        offers.find(|o| o.zone() == zone).and_then(Reserved::of)
    }

    fn bought(
        &self,
        launch: Launch<'_>,
        reqs: &Requirements,
        output: &CreateFleetOutput,
        types: &[Arc<InstanceType>],
    ) -> Result<Bought, CloudError> {
        let Some(instance) = output.instances.first() else {
            return Err(fleet_error(&output.errors));
        };
        let held = types.iter().find(|t| t.name == instance.pool.instance_type);
        let (Some(id), Some(held)) = (instance.ids.first(), held) else {
            return Err(CloudError::Other(format!(
                "CreateFleet answered with {:?}, which was not asked for",
                instance.pool
            )));
        };
        let reserved = self.reservation(held, reqs, &instance.pool.zone);
        if let Some(reserved) = &reserved {
            self.market.reservations.launched(&reserved.id);
        }
        Ok(Bought {
            reserved,
            id: id.clone(),
            image_id: instance.pool.image_id.to_string(),
            instance_type: held.clone(),
            zone: instance.pool.zone.clone(),
            capacity_type: launch.capacity_type,
            tenancy: launch.tenancy,
        })
    }
}

/// A refused call as the claim's condition shows it.
pub(crate) fn create_error(error: &Ec2Error) -> CloudError {
    let text = error.to_string();
    CloudError::Create {
        reason: reasons::reason(&text).to_owned(),
        message: text,
    }
}

/// All errors of a fleet that launched nothing, as one.
fn fleet_error(errors: &[FleetError]) -> CloudError {
    let texts: BTreeSet<String> = errors
        .iter()
        .map(|e| format!("{}: {}", e.code, e.message))
        .collect();
    let text = texts.into_iter().collect::<Vec<_>>().join("; ");
    let no_capacity = errors
        .iter()
        .all(|e| is_unfulfillable_code(&e.code) || e.code == SPOT_ROLE_NOT_PERMITTED);
    if no_capacity {
        return CloudError::InsufficientCapacity(text);
    }
    CloudError::Create {
        reason: reasons::reason(&text).to_owned(),
        message: text,
    }
}
