//! The engine's answers to the provider's calls.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use jiff::Timestamp;
use karpenter_ec2_api::error::Result;
use karpenter_ec2_api::{
    CapacityReservation, CreateFleetInput, CreateFleetOutput, DescribeImagesInput, Ec2, Ec2Error,
    Filter, Image, Instance, InstanceProfile, InstanceState, InstanceTypeInfo, LaunchTemplate,
    LaunchTemplateData, OnDemandPrice, SecurityGroup, SpotPrice, StateChange, Subnet, Tags,
    Tenancy, TypeOffering,
};

use crate::account::hex17;
use crate::engine::Engine;
use crate::fleet;
use crate::prices::spot_price_since;
use crate::state::{State, has_ended};

/// Most bytes of user data before base64.
const USER_DATA_LIMIT_BYTES: usize = 16384;

impl Engine {
    /// Runs a call: counts it, lets faults have their say, answers under the lock.
    async fn call<T: Send>(
        &self,
        name: &'static str,
        answer: impl FnOnce(&mut State, Timestamp) -> Result<T> + Send,
    ) -> Result<T> {
        let verdict = self.inner.enter(name)?;
        let now = self.inner.clock.wall();
        let result = answer(&mut self.inner.state.lock(), now);
        self.inner.leave(name, verdict, result).await
    }
}

#[async_trait]
impl Ec2 for Engine {
    async fn describe_instance_types(
        &self,
        filters: &[Filter],
    ) -> Result<Vec<Arc<InstanceTypeInfo>>> {
        let types = &self.inner.catalog.types;
        self.call("DescribeInstanceTypes", |_, _| {
            select(types.values().cloned(), filters, |filter, t| {
                match filter.name.as_str() {
                    // Every type of the catalogue is of this kind.
                    "supported-virtualization-type" => Some(filter.accepts("hvm")),
                    "processor-info.supported-architecture" => {
                        Some(t.architectures.iter().any(|a| filter.accepts(a)))
                    }
                    "instance-type" => Some(filter.accepts(&t.name)),
                    _ => None,
                }
            })
        })
        .await
    }

    async fn describe_instance_type_offerings(&self) -> Result<Vec<TypeOffering>> {
        let offered = &self.inner.offered;
        self.call("DescribeInstanceTypeOfferings", |_, _| {
            let pairs = offered.iter().flat_map(|(t, zones)| {
                zones.iter().map(|z| TypeOffering {
                    instance_type: t.clone(),
                    zone: z.clone(),
                })
            });
            Ok(pairs.collect())
        })
        .await
    }

    async fn describe_spot_price_history(
        &self,
        _start: Timestamp,
        _product_descriptions: &[&str],
    ) -> Result<Vec<SpotPrice>> {
        // From now on means: the prices that hold now. Linux is the only product.
        let inner = &self.inner;
        self.call("DescribeSpotPriceHistory", |state, now| {
            let mut prices = Vec::new();
            for (instance_type, zones) in &inner.offered {
                let sold = inner.catalog.types.get(instance_type);
                if !sold.is_some_and(|t| t.usage_classes.iter().any(|c| c == "spot")) {
                    continue;
                }
                for zone in zones {
                    if let Some(price) = state.prices.spot(instance_type, zone, now) {
                        prices.push(SpotPrice {
                            instance_type: instance_type.clone(),
                            zone: zone.clone(),
                            usd_per_hour: price,
                            timestamp: spot_price_since(now),
                        });
                    }
                }
            }
            Ok(prices)
        })
        .await
    }

    async fn get_products(&self, _region: &str, tenancy: Tenancy) -> Result<Vec<OnDemandPrice>> {
        let types = &self.inner.catalog.types;
        self.call("GetProducts", |state, _| {
            let metal = tenancy == Tenancy::DedicatedBareMetal;
            let listed = state.prices.on_demand_prices();
            Ok(listed
                .filter(|(t, _)| types.get(*t).is_some_and(|t| t.bare_metal == metal))
                .map(|(t, price)| OnDemandPrice {
                    instance_type: t.clone(),
                    usd_per_hour: price,
                })
                .collect())
        })
        .await
    }

    async fn describe_subnets(&self, filters: &[Filter]) -> Result<Vec<Subnet>> {
        self.call("DescribeSubnets", |state, now| {
            let mut found = select(
                state.account.subnets.iter().cloned(),
                filters,
                |f, s| match f.name.as_str() {
                    "subnet-id" => Some(f.accepts(&s.id)),
                    _ => f.accepts_tags(&s.tags),
                },
            )?;
            for subnet in &mut found {
                subnet.available_ips = state.free_addresses(&subnet.id, subnet.available_ips, now);
            }
            Ok(found)
        })
        .await
    }

    async fn describe_security_groups(&self, filters: &[Filter]) -> Result<Vec<SecurityGroup>> {
        self.call("DescribeSecurityGroups", |state, _| {
            select(
                state.account.security_groups.iter().cloned(),
                filters,
                |f, g| match f.name.as_str() {
                    "group-id" => Some(f.accepts(&g.id)),
                    "group-name" => Some(f.accepts(&g.name)),
                    _ => f.accepts_tags(&g.tags),
                },
            )
        })
        .await
    }

    async fn describe_capacity_reservations(
        &self,
        ids: &[String],
        filters: &[Filter],
    ) -> Result<Vec<CapacityReservation>> {
        self.call("DescribeCapacityReservations", |state, now| {
            let all = &state.account.capacity_reservations;
            let known = |id: &&String| all.iter().any(|r| r.id == **id);
            if let Some(unknown) = ids.iter().find(|id| !known(id)) {
                return Err(Ec2Error::new(
                    "InvalidCapacityReservationId.NotFound",
                    format!("capacity reservation {unknown} does not exist"),
                ));
            }
            let wanted = all.iter().filter(|r| ids.is_empty() || ids.contains(&r.id));
            let found = select(wanted, filters, |f, r| match f.name.as_str() {
                "state" => Some(f.accepts(if has_ended(r, now) {
                    "expired"
                } else {
                    "active"
                })),
                "owner-id" => Some(f.accepts(&r.owner_id)),
                "instance-match-criteria" => Some(f.accepts(&r.instance_match_criteria)),
                "instance-type" => Some(f.accepts(&r.instance_type)),
                _ => f.accepts_tags(&r.tags),
            })?;
            let shown = |r: &CapacityReservation| {
                state
                    .reservation(&r.id, now)
                    .unwrap_or_else(|| CapacityReservation {
                        available_instance_count: 0,
                        ..r.clone()
                    })
            };
            Ok(found.into_iter().map(shown).collect())
        })
        .await
    }

    async fn describe_images(&self, input: &DescribeImagesInput) -> Result<Vec<Image>> {
        self.call("DescribeImages", |state, now| {
            let all = &state.account.images;
            // Ids take no wildcards: most questions are for a few of hundreds.
            let ids = input.filters.iter().find(|f| f.name == "image-id");
            let named: Vec<&Image> = match ids {
                Some(ids) => ids.values.iter().filter_map(|id| all.get(id)).collect(),
                None => all.values().collect(),
            };
            let images = named
                .into_iter()
                .filter(|i| input.owners.is_empty() || input.owners.contains(&i.owner))
                .filter(|i| {
                    input.include_deprecated || i.deprecation_time.is_none_or(|at| at > now)
                });
            let found = select(images, &input.filters, |f, i| match f.name.as_str() {
                "image-id" => Some(true),
                "name" => Some(f.accepts(&i.name)),
                "state" => Some(f.accepts("available")),
                _ => f.accepts_tags(&i.tags),
            })?;
            Ok(found.into_iter().cloned().collect())
        })
        .await
    }

    async fn get_parameter(&self, name: &str) -> Result<String> {
        self.call("GetParameter", |state, _| {
            state.account.parameters.get(name).cloned().ok_or_else(|| {
                Ec2Error::new(
                    "ParameterNotFound",
                    format!("parameter {name} does not exist"),
                )
            })
        })
        .await
    }

    async fn create_launch_template(
        &self,
        name: &str,
        data: &LaunchTemplateData,
        tags: &Tags,
    ) -> Result<LaunchTemplate> {
        self.call("CreateLaunchTemplate", |state, _| {
            if state.templates.contains_key(name) {
                return Err(Ec2Error::new(
                    "InvalidLaunchTemplateName.AlreadyExistsException",
                    format!("launch template {name} exists"),
                ));
            }
            let user_data = base64::engine::general_purpose::STANDARD
                .decode(&data.user_data)
                .map_err(|e| {
                    Ec2Error::new("InvalidUserData.Malformed", format!("no base64: {e}"))
                })?;
            if user_data.len() > USER_DATA_LIMIT_BYTES {
                return Err(Ec2Error::new(
                    "InvalidUserData.Malformed",
                    format!("User data is limited to {USER_DATA_LIMIT_BYTES} bytes"),
                ));
            }
            let template = LaunchTemplate {
                id: format!("lt-{}", hex17(state.ids.next_u64())),
                name: name.to_owned(),
                tags: tags.clone(),
            };
            let entry = (template.clone(), Arc::new(data.clone()));
            state.templates.insert(name.to_owned(), entry);
            Ok(template)
        })
        .await
    }

    async fn describe_launch_templates_by_name(
        &self,
        names: &[String],
    ) -> Result<Vec<LaunchTemplate>> {
        self.call("DescribeLaunchTemplates", |state, _| {
            let find = |name: &String| {
                let found = state.templates.get(name).map(|(t, _)| t.clone());
                found.ok_or_else(|| no_template(name))
            };
            names.iter().map(find).collect()
        })
        .await
    }

    async fn describe_launch_templates(&self, filters: &[Filter]) -> Result<Vec<LaunchTemplate>> {
        self.call("DescribeLaunchTemplates", |state, _| {
            let all = state.templates.values().map(|(t, _)| t.clone());
            select(all, filters, |f, t| match f.name.as_str() {
                "launch-template-name" => Some(f.accepts(&t.name)),
                _ => f.accepts_tags(&t.tags),
            })
        })
        .await
    }

    async fn delete_launch_template(&self, name: &str) -> Result<()> {
        self.call("DeleteLaunchTemplate", |state, _| {
            let gone = state.templates.remove(name);
            gone.map(|_| ()).ok_or_else(|| no_template(name))
        })
        .await
    }

    async fn create_fleet(&self, input: &CreateFleetInput) -> Result<CreateFleetOutput> {
        let inner = &self.inner;
        let mut ending = Vec::new();
        let output = self.call("CreateFleet", |state, now| {
            if input.dry_run {
                return Err(Ec2Error::new("DryRunOperation", "it would have worked"));
            }
            let output = fleet::create(inner, state, input, now)?;
            ending = fleet::ends(state, &output, now);
            Ok(output)
        });
        let output = output.await;
        for (id, left) in ending {
            inner.end(&id, left);
        }
        output
    }

    async fn describe_instances(
        &self,
        ids: &[String],
        filters: &[Filter],
    ) -> Result<Vec<Instance>> {
        self.call("DescribeInstances", |state, now| {
            state.sweep(now);
            if let Some(unknown) = ids.iter().find(|id| !state.visible.contains_key(*id)) {
                return Err(no_instance(unknown));
            }
            let wanted: Vec<Instance> = if ids.is_empty() {
                state
                    .visible_records()
                    .map(|r| state.show(r, now))
                    .collect()
            } else {
                ids.iter()
                    .filter_map(|id| state.describe(id, now))
                    .collect()
            };
            select(wanted.into_iter(), filters, |f, i| match f.name.as_str() {
                "instance-state-name" => Some(f.accepts(i.state.as_str())),
                "instance-type" => Some(f.accepts(&i.instance_type)),
                "availability-zone" => Some(f.accepts(&i.zone)),
                "subnet-id" => Some(f.accepts(&i.subnet_id)),
                _ => f.accepts_tags(&i.tags),
            })
        })
        .await
    }

    async fn terminate_instances(&self, ids: &[String]) -> Result<Vec<StateChange>> {
        let verdict = self.inner.enter("TerminateInstances")?;
        let now = self.inner.clock.wall();
        let state_of = |id: &str| {
            let state = self.inner.state.lock();
            state.record(id).map(|r| r.state(now))
        };
        // All or nothing, as EC2 does within a zone.
        if let Some(unknown) = ids.iter().find(|id| state_of(id).is_none()) {
            return Err(no_instance(unknown));
        }
        let mut changes = Vec::new();
        for id in ids {
            let previous = state_of(id).unwrap_or(InstanceState::Terminated);
            self.inner.end(id, std::time::Duration::ZERO);
            changes.push(StateChange {
                id: id.clone(),
                current: state_of(id).unwrap_or(InstanceState::Terminated),
                previous,
            });
        }
        self.inner
            .leave("TerminateInstances", verdict, Ok(changes))
            .await
    }

    async fn create_tags(&self, resources: &[String], tags: &Tags) -> Result<()> {
        self.call("CreateTags", |state, _| {
            if let Some(unknown) = resources.iter().find(|id| state.record(id).is_none()) {
                return Err(no_instance(unknown));
            }
            for id in resources {
                if let Some(record) = state.record_mut(id) {
                    record.tags.extend(tags.clone());
                }
            }
            Ok(())
        })
        .await
    }

    async fn get_instance_profile(&self, name: &str) -> Result<InstanceProfile> {
        self.call("GetInstanceProfile", |state, _| {
            let found = state.account.profiles.get(name).cloned();
            found.ok_or_else(|| no_entity("instance profile", name))
        })
        .await
    }

    async fn create_instance_profile(
        &self,
        name: &str,
        path: &str,
        _tags: &Tags,
    ) -> Result<InstanceProfile> {
        self.call("CreateInstanceProfile", |state, _| {
            if state.account.profiles.contains_key(name) {
                return Err(Ec2Error::new(
                    "EntityAlreadyExists",
                    format!("instance profile {name} exists"),
                ));
            }
            let profile = InstanceProfile {
                name: name.to_owned(),
                path: path.to_owned(),
                roles: Vec::new(),
            };
            state
                .account
                .profiles
                .insert(name.to_owned(), profile.clone());
            Ok(profile)
        })
        .await
    }

    async fn add_role_to_instance_profile(&self, name: &str, role: &str) -> Result<()> {
        self.call("AddRoleToInstanceProfile", |state, _| {
            if state
                .account
                .roles
                .as_ref()
                .is_some_and(|r| !r.contains(role))
            {
                return Err(no_entity("role", role));
            }
            let profile = state.account.profiles.get_mut(name);
            let profile = profile.ok_or_else(|| no_entity("instance profile", name))?;
            if !profile.roles.is_empty() {
                return Err(Ec2Error::new(
                    "LimitExceeded",
                    format!("instance profile {name} has a role already"),
                ));
            }
            profile.roles.push(role.to_owned());
            Ok(())
        })
        .await
    }

    async fn remove_role_from_instance_profile(&self, name: &str, role: &str) -> Result<()> {
        self.call("RemoveRoleFromInstanceProfile", |state, _| {
            let profile = state.account.profiles.get_mut(name);
            let profile = profile.ok_or_else(|| no_entity("instance profile", name))?;
            profile.roles.retain(|r| r != role);
            Ok(())
        })
        .await
    }

    async fn delete_instance_profile(&self, name: &str) -> Result<()> {
        self.call("DeleteInstanceProfile", |state, _| {
            let profile = state.account.profiles.get(name);
            let profile = profile.ok_or_else(|| no_entity("instance profile", name))?;
            if !profile.roles.is_empty() {
                return Err(Ec2Error::new(
                    "DeleteConflict",
                    format!("instance profile {name} has a role"),
                ));
            }
            state.account.profiles.remove(name);
            Ok(())
        })
        .await
    }

    async fn list_instance_profiles(&self, path_prefix: &str) -> Result<Vec<InstanceProfile>> {
        self.call("ListInstanceProfiles", |state, _| {
            let profiles = state.account.profiles.values();
            Ok(profiles
                .filter(|p| p.path.starts_with(path_prefix))
                .cloned()
                .collect())
        })
        .await
    }
}

/// Those that pass all filters; a filter that `test` does not know is the caller's error.
fn select<T>(
    items: impl Iterator<Item = T>,
    filters: &[Filter],
    test: impl Fn(&Filter, &T) -> Option<bool>,
) -> Result<Vec<T>> {
    let mut kept = Vec::new();
    'items: for item in items {
        for filter in filters {
            match test(filter, &item) {
                Some(true) => {}
                Some(false) => continue 'items,
                None => {
                    return Err(Ec2Error::new(
                        "InvalidParameterValue",
                        format!("the filter {} is not known", filter.name),
                    ));
                }
            }
        }
        kept.push(item);
    }
    Ok(kept)
}

fn no_instance(id: &str) -> Ec2Error {
    Ec2Error::new(
        "InvalidInstanceID.NotFound",
        format!("instance {id} does not exist"),
    )
}

fn no_template(name: &str) -> Ec2Error {
    Ec2Error::new(
        "InvalidLaunchTemplateName.NotFoundException",
        format!("launch template {name} does not exist"),
    )
}

fn no_entity(kind: &str, name: &str) -> Ec2Error {
    Ec2Error::new("NoSuchEntity", format!("{kind} {name} does not exist"))
}
