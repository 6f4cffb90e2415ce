//! `CreateFleet` of type instant: which pool a machine comes from, and what is said about the pools it does not.
//!
//! Pools are ranked over the overrides of all configs. `lowest-price`: by price. `prioritized`: by priority.
//! `price-capacity-optimized`: deep pools first, then by price. `capacity-optimized-prioritized`: deep pools first,
//! then by priority. A pool counts as deep when it is unlimited or has at least [`DEEP_POOL`] machines left; EC2 does
//! not publish its measure of depth. Ties keep the order of the request. Each pool that is tried and cannot serve
//! yields one error with the override echoed; pools behind the one that serves are not tried.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use karpenter_ec2_api::error::SUBNET_FULL;
use karpenter_ec2_api::{
    AllocationStrategy, CreateFleetInput, CreateFleetOutput, Ec2Error, FleetError, FleetInstance,
    FleetOverride, FleetTarget, LaunchTemplateData, ReservationUse, Subnet, Tags, reservation,
};

use crate::account::hex17;
use crate::engine::{Inner, later};
use crate::events::InstanceEvent;
use crate::facts;
use crate::faults::PoolLimit;
use crate::record::InstanceRecord;
use crate::state::State;

/// Machines left from which a pool counts as deep.
pub const DEEP_POOL: u32 = 10;
/// How long before the end of a capacity block its machines are told to go.
const BLOCK_ENDS_EARLY: Duration = Duration::from_secs(30 * 60);

/// A pool of the request with what ranks it.
struct Candidate {
    pool: FleetOverride,
    template: Arc<LaunchTemplateData>,
    subnet: Option<Subnet>,
    price: f64,
    deep: bool,
}

/// Launches what can be launched.
pub(crate) fn create(
    inner: &Inner,
    state: &mut State,
    input: &CreateFleetInput,
    now: Timestamp,
) -> Result<CreateFleetOutput, Ec2Error> {
    state.sweep(now);
    let mut candidates = candidates(inner, state, input, now)?;
    rank(&mut candidates, input.strategy);
    let mut output = CreateFleetOutput {
        fleet_id: format!("fleet-{}", hex17(state.ids.next_u64())),
        ..CreateFleetOutput::default()
    };
    let mut from = 0;
    for _ in 0..input.total_target_capacity {
        // What failed for one machine of a request fails for the next: go on where the last one was found.
        while let Some(candidate) = candidates.get(from) {
            match refusal(inner, state, candidate, input.target, now) {
                None => break,
                Some((code, message)) => {
                    output.errors.push(FleetError {
                        code,
                        message,
                        pool: Some(candidate.pool.clone()),
                    });
                    from += 1;
                }
            }
        }
        let Some(candidate) = candidates.get(from) else {
            break;
        };
        let id = launch(inner, state, candidate, input, now);
        match output.instances.last_mut() {
            Some(last) if last.pool == candidate.pool => last.ids.push(id),
            _ => output.instances.push(FleetInstance {
                ids: vec![id],
                lifecycle: input.target,
                pool: candidate.pool.clone(),
            }),
        }
    }
    Ok(output)
}

fn candidates(
    inner: &Inner,
    state: &State,
    input: &CreateFleetInput,
    now: Timestamp,
) -> Result<Vec<Candidate>, Ec2Error> {
    let mut candidates = Vec::new();
    for config in &input.configs {
        let Some((_, template)) = state.templates.get(&config.launch_template_name) else {
            return Err(Ec2Error::new(
                "InvalidLaunchTemplateName.NotFoundException",
                format!(
                    "launch template {} does not exist",
                    config.launch_template_name
                ),
            ));
        };
        for wanted in &config.overrides {
            let subnet = state
                .account
                .subnets
                .iter()
                .find(|s| *s.id == *wanted.subnet_id)
                .cloned();
            let mut pool = wanted.clone();
            if let Some(subnet) = &subnet {
                pool.zone = Arc::from(subnet.zone.as_str());
            }
            if pool.image_id.is_empty() {
                pool.image_id = Arc::from(template.image_id.as_str());
            }
            let deep = match state
                .faults
                .pool(&pool.instance_type, &pool.zone, input.target, now)
            {
                None => true,
                Some(rule) => match rule.limit {
                    PoolLimit::Out => false,
                    PoolLimit::Total(total) => {
                        let pool = (&*pool.instance_type, &*pool.zone, input.target);
                        total.saturating_sub(state.in_use(pool, now)) >= DEEP_POOL
                    }
                },
            };
            candidates.push(Candidate {
                price: state
                    .prices
                    .of(&pool.instance_type, &pool.zone, input.target, now)
                    .unwrap_or(f64::INFINITY),
                template: template.clone(),
                subnet,
                pool,
                deep,
            });
        }
    }
    if candidates.is_empty() {
        return Err(Ec2Error::new(
            "InvalidParameter",
            "CreateFleet: no overrides",
        ));
    }
    if inner.zones.is_empty() {
        return Err(Ec2Error::server("InternalError", "no zones"));
    }
    Ok(candidates)
}

fn rank(candidates: &mut [Candidate], strategy: AllocationStrategy) {
    let by_price = |a: &Candidate, b: &Candidate| a.price.total_cmp(&b.price);
    let by_priority = |a: &Candidate, b: &Candidate| a.pool.priority.total_cmp(&b.pool.priority);
    let by_depth = |a: &Candidate, b: &Candidate| b.deep.cmp(&a.deep);
    candidates.sort_by(|a, b| -> Ordering {
        match strategy {
            AllocationStrategy::LowestPrice => by_price(a, b),
            AllocationStrategy::Prioritized => by_priority(a, b),
            AllocationStrategy::PriceCapacityOptimized => by_depth(a, b).then(by_price(a, b)),
            AllocationStrategy::CapacityOptimizedPrioritized => {
                by_depth(a, b).then(by_priority(a, b))
            }
        }
    });
}

/// A code and what is said with it.
fn because(code: &str, message: String) -> Option<(String, String)> {
    Some((code.to_owned(), message))
}

/// Why a machine cannot come from a pool now.
fn refusal(
    inner: &Inner,
    state: &State,
    candidate: &Candidate,
    target: FleetTarget,
    now: Timestamp,
) -> Option<(String, String)> {
    let FleetOverride {
        instance_type,
        image_id,
        subnet_id,
        ..
    } = &candidate.pool;
    let Some(info) = inner.catalog.types.get(instance_type) else {
        return because(
            "InvalidParameterValue",
            format!("instance type {instance_type} does not exist"),
        );
    };
    let Some(subnet) = &candidate.subnet else {
        return because(
            "InvalidSubnetID.NotFound",
            format!("subnet {subnet_id} does not exist"),
        );
    };
    let Some(image) = state.account.images.get(&**image_id) else {
        return because(
            "InvalidAMIID.NotFound",
            format!("image {image_id} does not exist"),
        );
    };
    if !info.architectures.contains(&image.architecture) {
        return because(
            "InvalidParameterCombination",
            format!(
                "image {image_id} is for {}, {instance_type} is not",
                image.architecture
            ),
        );
    }
    let profile = &candidate.template.instance_profile;
    if !profile.is_empty() && !state.account.profiles.contains_key(profile) {
        return because(
            "InvalidParameterValue",
            format!(
                "value ({profile}) for iamInstanceProfile.name: Invalid IAM Instance Profile name"
            ),
        );
    }
    for group in candidate
        .template
        .network_interfaces
        .iter()
        .flat_map(|n| &n.groups)
    {
        if !state.account.security_groups.iter().any(|g| g.id == *group) {
            return because(
                "InvalidGroup.NotFound",
                format!("group {group} does not exist"),
            );
        }
    }
    let refused = match &candidate.template.capacity_reservation {
        ReservationUse::Only(id) => reservation_refusal(state, id, candidate, target, now),
        ReservationUse::Unset | ReservationUse::Never => {
            pool_refusal(inner, state, &candidate.pool, target, now)
        }
    };
    if refused.is_some() {
        return refused;
    }
    if state.free_addresses(&subnet.id, subnet.available_ips, now) == 0 {
        return because(
            SUBNET_FULL,
            format!("no free address in subnet {}", subnet.id),
        );
    }
    None
}

/// Why a machine cannot be had by the hour from a pool now.
fn pool_refusal(
    inner: &Inner,
    state: &State,
    pool: &FleetOverride,
    target: FleetTarget,
    now: Timestamp,
) -> Option<(String, String)> {
    let FleetOverride {
        instance_type,
        zone,
        ..
    } = pool;
    let info = inner.catalog.types.get(instance_type);
    let classes = info.into_iter().flat_map(|i| &i.usage_classes);
    let sold = { classes }.any(|c| c == target.as_str());
    let here = inner
        .offered
        .get(instance_type)
        .is_some_and(|zones| zones.contains(zone));
    if !sold || !here {
        return because(
            "Unsupported",
            format!(
                "{instance_type} is not offered as {} in {zone}",
                target.as_str()
            ),
        );
    }
    if let Some(rule) = state.faults.pool(instance_type, zone, target, now) {
        let left = match rule.limit {
            PoolLimit::Out => 0,
            PoolLimit::Total(total) => {
                total.saturating_sub(state.in_use((instance_type, zone, target), now))
            }
        };
        if left == 0 {
            return because(
                &rule.code,
                format!(
                    "no {instance_type} capacity left in {zone} as {}",
                    target.as_str()
                ),
            );
        }
    }
    None
}

/// Why a machine cannot come out of a reservation now. Other pools do not matter for it.
fn reservation_refusal(
    state: &State,
    id: &str,
    candidate: &Candidate,
    target: FleetTarget,
    now: Timestamp,
) -> Option<(String, String)> {
    let pool = &candidate.pool;
    let Some(found) = state.reservation(id, now) else {
        return because(
            "ReservationCapacityExceeded",
            format!("capacity reservation {id} is not there or has ended"),
        );
    };
    let wanted = match (&*found.reservation_type, found.interruptible) {
        (reservation::CAPACITY_BLOCK, _) => FleetTarget::CapacityBlock,
        (_, true) => FleetTarget::ReservedCapacity,
        (_, false) => FleetTarget::OnDemand,
    };
    let market = match wanted {
        FleetTarget::CapacityBlock => Some(reservation::MARKET_BLOCK),
        FleetTarget::ReservedCapacity => Some(reservation::MARKET_INTERRUPTIBLE),
        FleetTarget::OnDemand | FleetTarget::Spot => None,
    };
    if target != wanted || candidate.template.market_type.as_deref() != market {
        return because(
            "InvalidParameterCombination",
            format!(
                "capacity reservation {id} is used with target {} and market type {market:?}",
                wanted.as_str()
            ),
        );
    }
    if found.instance_type != pool.instance_type || found.zone != pool.zone {
        return because(
            "InvalidParameterCombination",
            format!(
                "capacity reservation {id} is for {} in {}",
                found.instance_type, found.zone
            ),
        );
    }
    if found.available_instance_count == 0 {
        return because(
            "ReservationCapacityExceeded",
            format!("capacity reservation {id} has no machine left"),
        );
    }
    None
}

/// When machines that were just launched are told to go, if that is known: those of capacity blocks.
pub(crate) fn ends(
    state: &State,
    output: &CreateFleetOutput,
    now: Timestamp,
) -> Vec<(String, Duration)> {
    let ids = output.instances.iter().flat_map(|i| &i.ids);
    let end = |id: &String| {
        let record = state.record(id)?;
        if record.capacity_type != FleetTarget::CapacityBlock {
            return None;
        }
        let end = state
            .reservation(record.reservation.as_deref()?, now)?
            .end_date?;
        let left = Duration::try_from(end.duration_since(now)).unwrap_or_default();
        Some((id.clone(), left.saturating_sub(BLOCK_ENDS_EARLY)))
    };
    ids.filter_map(end).collect()
}

fn launch(
    inner: &Inner,
    state: &mut State,
    candidate: &Candidate,
    input: &CreateFleetInput,
    now: Timestamp,
) -> String {
    let subnet = candidate.subnet.clone().unwrap_or_default();
    let id = format!("i-{}", hex17(state.ids.next_u64()));
    let address = state.take_address(&subnet.id, now);
    let template = &candidate.template;
    let specs = template
        .tag_specifications
        .iter()
        .chain(&input.tag_specifications);
    let tags: Tags = specs
        .filter(|s| s.resource_type == "instance")
        .flat_map(|s| s.tags.clone())
        .collect();
    let mut groups: Vec<String> = template
        .network_interfaces
        .iter()
        .flat_map(|n| n.groups.clone())
        .collect();
    groups.sort();
    groups.dedup();
    let spot = input.target == FleetTarget::Spot;
    let reservation = match &template.capacity_reservation {
        ReservationUse::Only(id) => Some(id.clone()),
        ReservationUse::Unset | ReservationUse::Never => None,
    };
    let record = InstanceRecord {
        instance_type: candidate.pool.instance_type.clone(),
        zone: candidate.pool.zone.clone(),
        zone_id: Arc::from(subnet.zone_id.as_str()),
        capacity_type: input.target,
        // What is reserved is paid for already.
        price_per_hour: if candidate.price.is_finite() && reservation.is_none() {
            candidate.price
        } else {
            0.0
        },
        image_id: candidate.pool.image_id.to_string(),
        private_dns_name: private_dns_name(inner, &candidate.pool.zone, address),
        subnet_id: subnet.id,
        security_group_ids: groups,
        address,
        tags,
        tenancy: if template.tenancy.is_empty() {
            "default".to_owned()
        } else {
            template.tenancy.clone()
        },
        interface_types: template
            .network_interfaces
            .iter()
            .map(|n| {
                n.interface_type
                    .clone()
                    .unwrap_or_else(|| "interface".to_owned())
            })
            .collect(),
        spot_request_id: spot.then(|| format!("sir-{}", &hex17(state.ids.next_u64())[..8])),
        reservation,
        launched: now,
        running: later(now, Duration::from_secs(6 + state.delays.below(10))),
        end: None,
        template: template.clone(),
        id: id.clone(),
    };
    let event = facts::launched(inner, &record);
    state.visible.insert(id.clone(), state.records.len());
    state.records.push(record);
    if let Some(launched) = event {
        state.tell(&InstanceEvent::Launched(launched));
    }
    id
}

/// The name EC2 gives by address: 10.0.0.0/16, a /19 for each zone.
fn private_dns_name(inner: &Inner, zone: &str, address: u32) -> String {
    let index = inner.zones.iter().position(|z| z.name == zone).unwrap_or(0);
    // The first four addresses of a subnet are AWS' own.
    let host = u32::try_from(index).unwrap_or(0) * 8192 + address + 3;
    let domain = match inner.region.as_str() {
        "us-east-1" => "ec2.internal".to_owned(),
        region => format!("{region}.compute.internal"),
    };
    format!("ip-10-0-{}-{}.{domain}", host / 256, host % 256)
}
