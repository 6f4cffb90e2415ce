//! Instance types of the KWOK provider: the built-in list and files in the same JSON format (gzip or not), which
//! `kubectl karpenter plan --instance-types` reads too. Format and figures follow Karpenter's KWOK provider; on top
//! of it a type may carry `allocatable`, `kubeReserved` and `requirements[]`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_api::Quantity;
use karpenter_api::kinds::{RawQuantity, RequirementSpec};
use karpenter_api::labels as names;
use karpenter_model::instance::Overhead;
use karpenter_model::{
    InstanceType, LabelRegistry, Offering, Requirement, Requirements, ResourceList,
};
use karpenter_runtime::gzip::{self, GzipError};
use serde::Deserialize;

/// Label: `small`, `2xlarge`, or the number of cores where names have no size.
pub const INSTANCE_SIZE: &str = "karpenter.kwok.sh/instance-size";
/// Label: first part of the name.
pub const INSTANCE_FAMILY: &str = "karpenter.kwok.sh/instance-family";
/// Label: cores.
pub const INSTANCE_CPU: &str = "karpenter.kwok.sh/instance-cpu";
/// Label: memory.
pub const INSTANCE_MEMORY: &str = "karpenter.kwok.sh/instance-memory";
/// Label: the reservation that a reserved machine is out of.
pub const RESERVATION_ID: &str = "karpenter.kwok.sh/capacity-reservation-id";

/// Pods of a type whose file does not say.
const DEFAULT_PODS: i64 = 110;

/// Types and the label keys they add to the well-known ones.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// In the order listed.
    pub types: Vec<Arc<InstanceType>>,
    /// Label registry with the provider's keys and all keys that offerings or types define.
    pub labels: Arc<LabelRegistry>,
    /// Types that were left out, and why.
    pub rejected: Vec<BadType>,
}

/// Why a file is no catalogue.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// It cannot be decompressed.
    #[error(transparent)]
    Gzip(#[from] GzipError),
    /// Not a list of types.
    #[error(
        "{file}: expected a JSON list of instance types {{name, offerings, architecture, operatingSystems, resources}}: {source}"
    )]
    Json {
        /// File.
        file: String,
        /// Why, with line and column.
        source: serde_json::Error,
    },
}

/// A type that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("instance type {name}: {field}: {message}")]
pub struct BadType {
    /// Its name.
    pub name: String,
    /// Offending field.
    pub field: String,
    /// What was expected.
    pub message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawType {
    #[serde(default)]
    name: String,
    #[serde(default)]
    offerings: Vec<RawOffering>,
    architecture: Option<String>,
    #[serde(default)]
    operating_systems: Vec<String>,
    #[serde(default, alias = "capacity")]
    resources: BTreeMap<String, RawQuantity>,
    allocatable: Option<BTreeMap<String, RawQuantity>>,
    kube_reserved: Option<BTreeMap<String, RawQuantity>>,
    #[serde(default)]
    requirements: Vec<RequirementSpec>,
}

#[derive(Deserialize)]
struct RawOffering {
    #[serde(alias = "Price")]
    price: Option<f64>,
    // Upstream forces every offering of a file available; a file that says false means it here.
    #[serde(default = "yes", alias = "Available")]
    available: bool,
    #[serde(default, alias = "Requirements")]
    requirements: Vec<RequirementSpec>,
    #[serde(default, alias = "ReservationCapacity", alias = "reservationCapacity")]
    reservation_capacity: u32,
}

fn yes() -> bool {
    true
}

/// The KWOK provider's own label keys on top of the core's.
#[must_use]
pub fn label_registry() -> LabelRegistry {
    let mut labels = LabelRegistry::default();
    labels.restricted_domains.insert(crate::GROUP.to_owned());
    labels.well_known.extend(
        [
            INSTANCE_SIZE,
            INSTANCE_FAMILY,
            INSTANCE_CPU,
            INSTANCE_MEMORY,
            RESERVATION_ID,
        ]
        .map(str::to_owned),
    );
    labels.reservation_id = Some(RESERVATION_ID.to_owned());
    labels
}

/// Reads a catalogue from the bytes of `file`. Types that cannot be used are left out and listed.
///
/// # Errors
/// When it is no catalogue at all.
pub fn parse(bytes: &[u8], file: &str) -> Result<Catalog, CatalogError> {
    let bytes = gzip::unpack(bytes, file)?;
    let raw: Vec<RawType> =
        serde_json::from_slice(&bytes).map_err(|source| CatalogError::Json {
            file: file.to_owned(),
            source,
        })?;
    Ok(build(raw))
}

fn build(raw: Vec<RawType>) -> Catalog {
    let mut labels = label_registry();
    for t in &raw {
        let keys = t
            .offerings
            .iter()
            .flat_map(|o| &o.requirements)
            .chain(&t.requirements);
        let known: Vec<String> = keys.map(|r| labels.normalize(&r.key).to_owned()).collect();
        labels.well_known.extend(known);
    }
    let (mut types, mut rejected, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (index, t) in raw.into_iter().enumerate() {
        let name = if t.name.is_empty() {
            format!("[{index}]")
        } else {
            t.name.clone()
        };
        if t.name.is_empty() {
            rejected.push(bad(&name, "name", "expected a name, got none".to_owned()));
        } else if !seen.insert(name.clone()) {
            rejected.push(bad(
                &name,
                "name",
                "expected distinct names, but this one is listed twice".to_owned(),
            ));
        } else {
            match instance_type(t, &labels) {
                Ok(t) => types.push(Arc::new(t)),
                Err(e) => rejected.push(e),
            }
        }
    }
    Catalog {
        types,
        labels: Arc::new(labels),
        rejected,
    }
}

fn bad(name: &str, field: impl Into<String>, message: String) -> BadType {
    BadType {
        name: name.to_owned(),
        field: field.into(),
        message,
    }
}

fn instance_type(t: RawType, labels: &LabelRegistry) -> Result<InstanceType, BadType> {
    let name = t.name.as_str();
    let list = |field: &str, raw: &BTreeMap<String, RawQuantity>| {
        let list = ResourceList::from_raw(raw).map_err(|e| bad(name, field, e.to_string()))?;
        let negative = list
            .iter()
            .find(|(_, amount)| *amount < Quantity::ZERO)
            .map(|(resource, _)| resource.to_owned());
        match negative {
            Some(resource) => Err(bad(
                name,
                format!("{field}.{resource}"),
                "expected an amount of 0 or more".to_owned(),
            )),
            None => Ok(list),
        }
    };
    let mut capacity = list("resources", &t.resources)?;
    if !capacity.contains("pods") {
        capacity.set("pods", Quantity::from_units(DEFAULT_PODS));
    }
    if t.offerings.is_empty() {
        return Err(bad(name, "offerings", "expected at least one".to_owned()));
    }
    let mut offerings = Vec::new();
    for (i, o) in t.offerings.iter().enumerate() {
        let field = format!("offerings[{i}]");
        let price = o.price.ok_or_else(|| {
            bad(
                name,
                format!("{field}.price"),
                "expected a number, got none".to_owned(),
            )
        })?;
        if !price.is_finite() || price < 0.0 {
            return Err(bad(
                name,
                format!("{field}.price"),
                format!("expected a number of 0 or more, got {price}"),
            ));
        }
        let requirements = Requirements::from_specs(&o.requirements, labels)
            .map_err(|e| bad(name, format!("{field}.requirements"), e.to_string()))?;
        for key in [names::ZONE, names::CAPACITY_TYPE] {
            if requirements.get(key).is_none_or(|r| r.single().is_none()) {
                return Err(bad(
                    name,
                    format!("{field}.requirements"),
                    format!("expected one value of {key}"),
                ));
            }
        }
        offerings.push(Offering {
            requirements,
            price,
            available: o.available,
            reservation_capacity: o.reservation_capacity,
            overlaid: false,
        });
    }
    if offerings.iter().any(Offering::is_reserved) {
        for offering in offerings.iter_mut().filter(|o| !o.is_reserved()) {
            let none = Requirement::does_not_exist(RESERVATION_ID);
            offering.requirements.set(none);
        }
    }
    let given = Requirements::from_specs(&t.requirements, labels)
        .map_err(|e| bad(name, "requirements", e.to_string()))?;
    let requirements = requirements_of(&t, &capacity, &offerings, given, labels);
    let mut built = InstanceType::new(
        name,
        requirements,
        offerings,
        capacity,
        overhead(&t, &list)?,
    );
    if let Some(allocatable) = &t.allocatable {
        built.allocatable = list("allocatable", allocatable)?;
    }
    Ok(built)
}

/// Reads the resource list of a field.
type ReadList<'a> =
    dyn Fn(&str, &BTreeMap<String, RawQuantity>) -> Result<ResourceList, BadType> + 'a;

fn overhead(t: &RawType, list: &ReadList<'_>) -> Result<Overhead, BadType> {
    let kube_reserved = match &t.kube_reserved {
        Some(raw) => list("kubeReserved", raw)?,
        None => ResourceList::from_iter([
            ("cpu", Quantity::from_millis(100)),
            ("memory", Quantity::from_units(10 << 20)),
        ]),
    };
    Ok(Overhead {
        kube_reserved,
        ..Overhead::default()
    })
}

/// Every well-known key: from the type itself, from its offerings, or that it has none.
fn requirements_of(
    t: &RawType,
    capacity: &ResourceList,
    offerings: &[Offering],
    given: Requirements,
    labels: &LabelRegistry,
) -> Requirements {
    let name = t.name.as_str();
    let mut out = Requirements::new();
    let cpu = capacity.get("cpu").units().to_string();
    // `m5.2xlarge` has its size after the dot; names without a dot are told apart by their cores.
    let size = name
        .split_once('.')
        .map_or(cpu.as_str(), |(_, size)| size)
        .to_owned();
    let family = name
        .split(['.', '-'])
        .next()
        .filter(|f| f.len() < name.len());
    let family = family.map_or_else(|| name.chars().take(1).collect::<String>(), str::to_owned);
    let memory = karpenter_model::resources::text("memory", capacity.get("memory"));
    out.set(Requirement::is_in(names::INSTANCE_TYPE, [name]));
    if let Some(arch) = &t.architecture {
        out.set(Requirement::is_in(names::ARCH, [arch]));
    }
    if !t.operating_systems.is_empty() {
        out.set(Requirement::is_in(names::OS, &t.operating_systems));
    }
    out.set(Requirement::is_in(INSTANCE_SIZE, [size]));
    out.set(Requirement::is_in(INSTANCE_FAMILY, [family]));
    out.set(Requirement::is_in(INSTANCE_CPU, [cpu]));
    out.set(Requirement::is_in(INSTANCE_MEMORY, [memory]));
    let mut offered: BTreeMap<Arc<str>, BTreeSet<Arc<str>>> = BTreeMap::new();
    for requirement in offerings.iter().flat_map(|o| o.requirements.iter()) {
        offered
            .entry(Arc::clone(&requirement.key))
            .or_default()
            .extend(requirement.values.iter().cloned());
    }
    for (key, values) in offered {
        out.set(Requirement::is_in(key, values));
    }
    for requirement in given.iter() {
        out.set(requirement.clone());
    }
    for key in &labels.well_known {
        // The pool's name is not the type's to know.
        if key != names::NODEPOOL && !out.contains(key) {
            out.set(Requirement::does_not_exist(key.as_str()));
        }
    }
    out
}

/// The built-in 144 types: 12 sizes, 3 shapes, 2 systems, 2 architectures, in 4 zones, spot and on-demand.
#[must_use]
pub fn builtin() -> Catalog {
    const CPUS: [i64; 12] = [1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256];
    const ZONES: [&str; 4] = ["test-zone-a", "test-zone-b", "test-zone-c", "test-zone-d"];
    let mut raw = Vec::new();
    for cpu in CPUS {
        for (factor, family) in [(2, "c"), (4, "s"), (8, "m")] {
            for os in ["linux", "windows"] {
                for arch in ["amd64", "arm64"] {
                    raw.push(builtin_type(
                        cpu,
                        cpu * factor,
                        &format!("{family}-{cpu}x-{arch}-{os}"),
                        os,
                        arch,
                        &ZONES,
                    ));
                }
            }
        }
    }
    build(raw)
}

fn builtin_type(
    cpu: i64,
    memory_gib: i64,
    name: &str,
    os: &str,
    arch: &str,
    zones: &[&str],
) -> RawType {
    #[allow(clippy::cast_precision_loss)] // Up to 2 TiB in bytes is exact in an f64.
    let price = 0.025 * cpu as f64 + 0.001 * (memory_gib << 30) as f64 / 1e9;
    let spec = |key: &str, value: &str| RequirementSpec {
        key: key.to_owned(),
        operator: "In".to_owned(),
        values: vec![value.to_owned()],
        min_values: None,
    };
    let offering = |zone: &str, capacity_type: &str, price| RawOffering {
        price: Some(price),
        available: true,
        requirements: vec![
            spec(names::CAPACITY_TYPE, capacity_type),
            spec(names::ZONE, zone),
        ],
        reservation_capacity: 0,
    };
    RawType {
        name: name.to_owned(),
        offerings: zones
            .iter()
            .flat_map(|zone| {
                [
                    offering(zone, names::CAPACITY_SPOT, price * 0.7),
                    offering(zone, names::CAPACITY_ON_DEMAND, price),
                ]
            })
            .collect(),
        architecture: Some(arch.to_owned()),
        operating_systems: vec![os.to_owned()],
        resources: [
            ("cpu", cpu.to_string()),
            ("memory", format!("{memory_gib}Gi")),
            ("pods", (16 * cpu).min(1024).to_string()),
            ("ephemeral-storage", "20Gi".to_owned()),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), RawQuantity(v)))
        .collect(),
        allocatable: None,
        kube_reserved: None,
        requirements: Vec::new(),
    }
}
