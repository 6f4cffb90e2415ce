//! What a class can buy now: discovery of types and zones (`aws-provider.md` §9.1), compatibility with the class
//! (§9.5), offerings (§10). Lists are shared and rebuilt only as far as something changed: the class, the catalogue,
//! a price, an availability. A type whose availability changed is rebuilt alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_api::labels::{CAPACITY_ON_DEMAND, CAPACITY_SPOT, CAPACITY_TYPE, ZONE};
use karpenter_cloud::CloudError;
use karpenter_ec2_api::{Ec2, Ec2Error, Filter, InstanceTypeInfo};
use karpenter_model::{InstanceType, Offering, Requirement, Requirements};
use karpenter_runtime::Clock;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use crate::labels as l;
use crate::limits;
use crate::nodeclass::{CapacityReservationStatus, NodeClass, SubnetStatus};
use crate::pricing::Pricing;
use crate::reservations::{Reservations, Sold};
use crate::settings::Ec2Settings;
use crate::shape;
use crate::types::Family;
use crate::types::capacity::{ClassShape, Tuning, capacity, overhead};
use crate::types::requirements::{Places, requirements};
use crate::unavailable::Unavailable;

/// A list of types as callers share it.
pub(crate) type Types = Arc<Vec<Arc<InstanceType>>>;

/// Types, prices and availability of a region.
#[derive(Debug)]
pub(crate) struct Market {
    pub(crate) pricing: Pricing,
    pub(crate) unavailable: Unavailable,
    pub(crate) reservations: Reservations,
    /// Whether capacity reservations are used.
    reserved_capacity: bool,
    region: String,
    tuning: Tuning,
    clock: Clock,
    discovered: RwLock<Arc<Discovered>>,
    /// One discovery at a time.
    discovery: tokio::sync::Mutex<()>,
    /// Last list of each class by name.
    lists: Mutex<BTreeMap<String, List>>,
}

/// What EC2 sells in the region.
#[derive(Debug, Default)]
struct Discovered {
    version: u64,
    types: Vec<Arc<InstanceTypeInfo>>,
    zones_of: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    zones: BTreeSet<Arc<str>>,
}

/// What of a class a list depends on.
#[derive(Clone, Debug, PartialEq)]
struct Inputs {
    shape: ClassShape,
    compatibility: Compatibility,
    subnets: Vec<SubnetStatus>,
    discovered: u64,
}

#[derive(Debug)]
struct List {
    inputs: Inputs,
    prices: u64,
    availability: u64,
    types: Types,
    /// Types that the class rules out.
    incompatible: BTreeSet<Arc<str>>,
    /// The same types with what reservations add to them.
    reserved: Option<WithReserved>,
}

/// A list with reserved offerings, and what it was made of.
#[derive(Debug)]
struct WithReserved {
    found: Vec<CapacityReservationStatus>,
    left: Vec<u32>,
    types: Types,
}

impl Market {
    pub(crate) fn new(settings: &Ec2Settings, clock: Clock) -> Self {
        Self {
            pricing: Pricing::new(&settings.region, settings.isolated_vpc),
            unavailable: Unavailable::default(),
            reservations: Reservations::default(),
            reserved_capacity: settings.reserved_capacity,
            region: settings.region.clone(),
            tuning: Tuning {
                vm_memory_overhead: settings.vm_memory_overhead_percent,
                reserved_enis: settings.reserved_enis,
            },
            clock,
            discovered: RwLock::default(),
            discovery: tokio::sync::Mutex::new(()),
            lists: Mutex::default(),
        }
    }

    /// Asks EC2 what it sells; says whether that changed.
    ///
    /// # Errors
    /// When either call fails; what was known stays.
    pub(crate) async fn discover(&self, ec2: &dyn Ec2) -> Result<bool, Ec2Error> {
        let types = ec2
            .describe_instance_types(&[
                Filter::new("supported-virtualization-type", ["hvm"]),
                Filter::new("processor-info.supported-architecture", ["x86_64", "arm64"]),
            ])
            .await?;
        let offerings = ec2.describe_instance_type_offerings().await?;
        let mut zones_of: BTreeMap<Arc<str>, BTreeSet<Arc<str>>> = BTreeMap::new();
        for offering in offerings {
            zones_of
                .entry(offering.instance_type)
                .or_default()
                .insert(offering.zone);
        }
        let mut discovered = self.discovered.write();
        if discovered.types == types && discovered.zones_of == zones_of {
            return Ok(false);
        }
        *discovered = Arc::new(Discovered {
            version: discovered.version + 1,
            zones: zones_of.values().flatten().cloned().collect(),
            types,
            zones_of,
        });
        Ok(true)
    }

    /// Asks EC2 what it sells and for how much, unless that is known.
    ///
    /// # Errors
    /// When what it sells cannot be told. Prices have a built-in start and may fail.
    pub(crate) async fn hydrate(&self, ec2: &dyn Ec2) -> Result<(), Ec2Error> {
        if self.discovered.read().version > 0 {
            return Ok(());
        }
        let _one = self.discovery.lock().await;
        if self.discovered.read().version > 0 {
            return Ok(());
        }
        if let Err(error) = self.pricing.refresh(ec2, &self.clock).await {
            tracing::warn!(%error, "cannot refresh prices, going on with those there are");
        }
        self.discover(ec2).await.map(|_| ())
    }

    /// All types of a class with their offerings, available or not.
    ///
    /// # Errors
    /// When the class has no subnets or EC2 does not say what it sells.
    pub(crate) async fn types(
        &self,
        ec2: &dyn Ec2,
        class: &NodeClass,
    ) -> Result<Types, CloudError> {
        self.hydrate(ec2)
            .await
            .map_err(|e| CloudError::Other(format!("discovering instance types: {e}")))?;
        if class.status.subnets.is_empty() {
            let name = class.metadata.name.as_deref().unwrap_or_default();
            return Err(CloudError::Other(format!(
                "EC2NodeClass {name}: no subnets in its status"
            )));
        }
        Ok(self.list(class))
    }

    fn list(&self, class: &NodeClass) -> Types {
        let discovered = self.discovered.read().clone();
        let inputs = Inputs {
            shape: shape::capacity_shape(class),
            compatibility: Compatibility::of(class),
            subnets: class.status.subnets.clone(),
            discovered: discovered.version,
        };
        let now = self.clock.now();
        let prices = self.pricing.version();
        let availability = self.unavailable.version(now);
        let name = class.metadata.name.clone().unwrap_or_default();
        let mut lists = self.lists.lock();
        let held = lists.remove(&name).filter(|l| l.inputs == inputs);
        let list = match held {
            Some(list) if list.prices == prices && list.availability == availability => list,
            Some(list) => self.reprice(list, prices, availability, now),
            None => {
                // Whatever was touched so far is seen now.
                self.unavailable.touched_since(availability);
                let compatibility = &inputs.compatibility;
                let incompatible: BTreeSet<Arc<str>> = discovered
                    .types
                    .iter()
                    .filter(|t| !compatibility.admits(t))
                    .map(|t| t.name.clone())
                    .collect();
                List {
                    types: Arc::new(self.build(&discovered, &inputs, &incompatible, now)),
                    inputs,
                    prices,
                    availability,
                    incompatible,
                    reserved: None,
                }
            }
        };
        let mut list = list;
        let types = self.with_reserved(&mut list, class);
        lists.insert(name, list);
        types
    }

    /// The list's types, with offerings of the class' reservations.
    fn with_reserved(&self, list: &mut List, class: &NodeClass) -> Types {
        let found = &class.status.capacity_reservations;
        if !self.reserved_capacity || found.is_empty() {
            list.reserved = None;
            return list.types.clone();
        }
        let left: Vec<u32> = found
            .iter()
            .map(|r| self.reservations.left(&r.id))
            .collect();
        if let Some(made) = &list.reserved
            && made.found == *found
            && made.left == left
        {
            return made.types.clone();
        }
        let zone_ids = list.inputs.subnets.iter();
        let zone_ids = zone_ids.map(|s| (s.zone.as_str().into(), s.zone_id.as_str().into()));
        let sold = Sold {
            found,
            left: &left,
            zone_ids: &zone_ids.collect(),
        };
        let types = list.types.iter().map(|held| {
            let compatible = !list.incompatible.contains(&held.name);
            let with = sold.add(held, compatible, self.pricing.on_demand(&held.name));
            with.map_or_else(|| held.clone(), Arc::new)
        });
        let types: Types = Arc::new(types.collect());
        list.reserved = Some(WithReserved {
            found: found.clone(),
            left,
            types: types.clone(),
        });
        types
    }

    fn build(
        &self,
        discovered: &Discovered,
        inputs: &Inputs,
        incompatible: &BTreeSet<Arc<str>>,
        now: Instant,
    ) -> Vec<Arc<InstanceType>> {
        let zones = Zones::new(discovered, &inputs.subnets);
        let mut types = Vec::with_capacity(discovered.types.len());
        for info in &discovered.types {
            let none = BTreeSet::new();
            let offered = discovered.zones_of.get(&info.name).unwrap_or(&none);
            let places: Vec<_> = zones
                .with_subnet
                .iter()
                .filter(|(zone, _)| offered.contains(zone))
                .cloned()
                .collect();
            let limits = limits::of(&info.name);
            let Some(reqs) = requirements(
                info,
                limits,
                Places {
                    region: &self.region,
                    zones: &places,
                },
            ) else {
                continue;
            };
            let capacity = capacity(info, limits, &inputs.shape, self.tuning);
            let overhead = overhead(info, &inputs.shape, &capacity);
            let mut offerings = Vec::new();
            for kind in [CAPACITY_ON_DEMAND, CAPACITY_SPOT] {
                if !info.usage_classes.iter().any(|c| c == kind) {
                    continue;
                }
                for zone in &discovered.zones {
                    offerings.push(Offering {
                        requirements: zones.requirements(zone, kind),
                        price: 0.0,
                        available: false,
                        reservation_capacity: 0,
                        overlaid: false,
                    });
                }
            }
            let mut built =
                InstanceType::new(info.name.clone(), reqs, offerings, capacity, overhead);
            self.set_offerings(&mut built, &zones.subnets_of, incompatible, now);
            types.push(Arc::new(built));
        }
        types
    }

    /// Brings prices and availability of a list up to date, types that nobody else holds in place.
    fn reprice(&self, mut list: List, prices: u64, availability: u64, now: Instant) -> List {
        // What shares the types would have them copied.
        list.reserved = None;
        let touched = self.unavailable.touched_since(list.availability);
        let only = touched.filter(|_| list.prices == prices);
        let subnets_of = subnets_of(&list.inputs.subnets);
        for held in Arc::make_mut(&mut list.types) {
            if only
                .as_ref()
                .is_some_and(|names| !names.contains(&held.name))
            {
                continue;
            }
            self.set_offerings(Arc::make_mut(held), &subnets_of, &list.incompatible, now);
        }
        List {
            prices,
            availability,
            ..list
        }
    }

    fn set_offerings(
        &self,
        held: &mut InstanceType,
        subnets_of: &BTreeMap<Arc<str>, Vec<String>>,
        incompatible: &BTreeSet<Arc<str>>,
        now: Instant,
    ) {
        let name = held.name.clone();
        let compatible = !incompatible.contains(&name);
        let zones = held.requirements.effective(ZONE).into_owned();
        for offering in &mut held.offerings {
            let zone = offering
                .requirements
                .get(ZONE)
                .and_then(Requirement::single);
            let Some(zone) = zone.cloned() else { continue };
            let (kind, price) = if offering.capacity_type() == CAPACITY_SPOT {
                (CAPACITY_SPOT, self.pricing.spot(&name, &zone))
            } else {
                (CAPACITY_ON_DEMAND, self.pricing.on_demand(&name))
            };
            let subnets = subnets_of.get(&zone).map_or(&[][..], Vec::as_slice);
            offering.available = compatible
                && price.is_some()
                && zones.has(&zone)
                && !self
                    .unavailable
                    .is_unavailable(&name, &zone, kind, subnets, now);
            offering.price = price.unwrap_or(0.0);
        }
    }
}

/// Zones of the region as a class sees them.
struct Zones {
    /// Zones with a subnet: name and id.
    with_subnet: Vec<(Arc<str>, Arc<str>)>,
    /// Offering requirements by zone and capacity type, made once and cloned.
    templates: BTreeMap<(Arc<str>, &'static str), Requirements>,
    subnets_of: BTreeMap<Arc<str>, Vec<String>>,
}

impl Zones {
    fn new(discovered: &Discovered, subnets: &[SubnetStatus]) -> Self {
        let ids: BTreeMap<Arc<str>, Arc<str>> = subnets
            .iter()
            .map(|s| (Arc::from(s.zone.as_str()), Arc::from(s.zone_id.as_str())))
            .collect();
        let mut templates = BTreeMap::new();
        for zone in &discovered.zones {
            for kind in [CAPACITY_ON_DEMAND, CAPACITY_SPOT] {
                let mut reqs = Requirements::new();
                reqs.set(Requirement::is_in(CAPACITY_TYPE, [kind]));
                reqs.set(Requirement::is_in(ZONE, [zone]));
                if let Some(id) = ids.get(zone) {
                    reqs.set(Requirement::is_in(l::ZONE_ID, [id]));
                }
                for key in [
                    l::RESERVATION_ID,
                    l::RESERVATION_TYPE,
                    l::RESERVATION_INTERRUPTIBLE,
                ] {
                    reqs.set(Requirement::does_not_exist(key));
                }
                templates.insert((zone.clone(), kind), reqs);
            }
        }
        Self {
            with_subnet: ids.into_iter().collect(),
            templates,
            subnets_of: subnets_of(subnets),
        }
    }

    fn requirements(&self, zone: &Arc<str>, kind: &'static str) -> Requirements {
        self.templates
            .get(&(zone.clone(), kind))
            .cloned()
            .unwrap_or_default()
    }
}

fn subnets_of(subnets: &[SubnetStatus]) -> BTreeMap<Arc<str>, Vec<String>> {
    let mut of: BTreeMap<Arc<str>, Vec<String>> = BTreeMap::new();
    for subnet in subnets {
        of.entry(Arc::from(subnet.zone.as_str()))
            .or_default()
            .push(subnet.id.clone());
    }
    of
}

/// What a class asks of a type beyond labels (§9.5).
#[derive(Clone, Debug, Default, PartialEq)]
struct Compatibility {
    al2023: bool,
    /// Card, device, and whether it is `efa-only`.
    interfaces: Vec<(u32, u32, bool)>,
    nested_virtualization: bool,
    connection_tracking: bool,
}

impl Compatibility {
    fn of(class: &NodeClass) -> Self {
        let index = |i: i32| u32::try_from(i).unwrap_or(u32::MAX);
        let cpu = class.spec.cpu_options.as_ref();
        Self {
            al2023: shape::family(class) == Family::Al2023,
            interfaces: class
                .spec
                .network_interfaces
                .iter()
                .map(|n| {
                    let efa_only = n.interface_type == "efa-only";
                    (index(n.network_card_index), index(n.device_index), efa_only)
                })
                .collect(),
            nested_virtualization: cpu
                .is_some_and(|c| c.nested_virtualization.as_deref() == Some("enabled")),
            connection_tracking: class.spec.connection_tracking.is_some(),
        }
    }

    fn admits(&self, info: &InstanceTypeInfo) -> bool {
        let efa_only = self.interfaces.iter().filter(|(.., efa)| *efa).count();
        let interface_fits = |(card, device, _): &(u32, u32, bool)| {
            info.network_cards
                .iter()
                .any(|c| c.index == *card && *device < c.max_interfaces)
        };
        !(self.al2023 && info.name.starts_with("a1."))
            && (self.interfaces.is_empty() || info.ena)
            && self.interfaces.iter().all(interface_fits)
            && u32::try_from(efa_only).is_ok_and(|n| n <= info.max_efa_interfaces)
            && (!self.nested_virtualization || info.nested_virtualization)
            && (!self.connection_tracking || info.hypervisor == "nitro")
    }
}
