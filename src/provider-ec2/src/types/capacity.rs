//! Capacity and overhead of an instance type (`aws-provider.md` §9.3, §9.4), exactly: integers and exact quantities.

use std::collections::BTreeMap;

use karpenter_api::Quantity;
use karpenter_ec2_api::InstanceTypeInfo;
use karpenter_model::ResourceList;
use karpenter_model::instance::Overhead;
use karpenter_model::resources::names;

use super::family::Family;
use super::requirements::arch_of;
use crate::labels::resources as r;
use crate::limits::Limits;

/// What a class says about its machines, as far as capacity depends on it. Quantities are parsed already.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ClassShape {
    /// Family.
    pub(crate) family: Option<Family>,
    /// `kubelet.maxPods`.
    pub(crate) max_pods: Option<u32>,
    /// `kubelet.podsPerCore`.
    pub(crate) pods_per_core: Option<u32>,
    /// `kubelet.kubeReserved`.
    pub(crate) kube_reserved: ResourceList,
    /// `kubelet.systemReserved`.
    pub(crate) system_reserved: ResourceList,
    /// `kubelet.evictionHard` as written.
    pub(crate) eviction_hard: BTreeMap<String, String>,
    /// Whether instance storage is joined into one volume for pods.
    pub(crate) raid0: bool,
    /// Size of the volume marked as root.
    pub(crate) root_volume: Option<Quantity>,
    /// Volumes: device and size.
    pub(crate) volumes: Vec<(String, Option<Quantity>)>,
    /// Number of `efa-only` interfaces, and of those on network card 0; none when the class lists no interfaces.
    pub(crate) efa_only: Option<(u32, u32)>,
}

impl ClassShape {
    fn family(&self) -> Family {
        self.family.unwrap_or(Family::Custom)
    }
}

/// Provider-wide inputs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    /// Fraction of memory expected to be missing.
    pub(crate) vm_memory_overhead: f64,
    /// Interfaces that pods cannot use.
    pub(crate) reserved_enis: u32,
}

const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;
/// Pods of machines that interfaces do not limit.
const DEFAULT_PODS: u32 = 110;
/// Storage of machines that no volume tells of.
const DEFAULT_STORAGE_BYTES: i64 = 20 * GIB;

/// Total resources of a type under a class. Zero device counts are listed, as upstream does.
pub(crate) fn capacity(
    info: &InstanceTypeInfo,
    limits: Limits,
    class: &ClassShape,
    tuning: Tuning,
) -> ResourceList {
    let count = |n: u32| Quantity::from_units(i64::from(n));
    let gpus = |maker: &str| {
        let of_maker = info.gpus.iter().filter(|g| g.manufacturer == maker);
        count(of_maker.map(|g| g.count).sum())
    };
    let neurons: u32 = info.neuron_devices.iter().map(|d| d.count).sum();
    // Cores are read off the first kind of device only.
    let cores = info.neuron_devices.first().map_or(0, |d| d.count * d.cores);
    let efa = class
        .efa_only
        .map_or(info.max_efa_interfaces, |(all, _)| all);
    [
        (names::CPU, count(info.vcpus)),
        (names::MEMORY, memory(info, tuning.vm_memory_overhead)),
        (names::EPHEMERAL_STORAGE, storage(info, class)),
        (names::PODS, count(pods(info, class, tuning.reserved_enis))),
        (r::POD_ENI, count(limits.branch_interfaces)),
        (r::NVIDIA_GPU, gpus("NVIDIA")),
        (r::AMD_GPU, gpus("AMD")),
        (r::GAUDI, gpus("Habana")),
        (r::NEURON, count(neurons)),
        (r::NEURON_CORE, count(cores)),
        (r::EFA, count(efa)),
    ]
    .into_iter()
    .collect()
}

/// What kubelet, system and eviction take away.
pub(crate) fn overhead(
    info: &InstanceTypeInfo,
    class: &ClassShape,
    capacity: &ResourceList,
) -> Overhead {
    let pods = if class.family().reserves_for_eni_pods() {
        eni_pods(info, 0, class)
    } else {
        u32::try_from(capacity.get(names::PODS).units()).unwrap_or(u32::MAX)
    };
    let mut kube_reserved: ResourceList = [
        (
            names::CPU,
            Quantity::from_millis(reserved_millicores(info.vcpus)),
        ),
        (
            names::MEMORY,
            Quantity::from_units((11 * i64::from(pods) + 255) * MIB),
        ),
        (names::EPHEMERAL_STORAGE, Quantity::from_units(GIB)),
    ]
    .into_iter()
    .collect();
    for (name, amount) in class.kube_reserved.iter() {
        kube_reserved.set(name, amount);
    }
    Overhead {
        kube_reserved,
        system_reserved: class.system_reserved.clone(),
        eviction_threshold: eviction(class, capacity),
    }
}

fn memory(info: &InstanceTypeInfo, overhead: f64) -> Quantity {
    let mut mib = i64::try_from(info.memory_mib).unwrap_or(i64::MAX / MIB);
    // Firmware of arm64 machines keeps some for itself.
    if arch_of(info) == Some("arm64") {
        mib -= 64;
    }
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    // Bytes of memory fit into a double's 53 bits.
    let missing = ((mib * MIB) as f64 * overhead / 1024.0 / 1024.0).ceil() as i64;
    Quantity::from_units((mib - missing).max(0) * MIB)
}

fn storage(info: &InstanceTypeInfo, class: &ClassShape) -> Quantity {
    let device = class.family().ephemeral_device();
    let of_device = |device: &str| class.volumes.iter().find(|(d, _)| d == device);
    if class.raid0
        && let Some(gb) = info.local_nvme_gb.and_then(|g| i64::try_from(g).ok())
    {
        return Quantity::from_units(gb.saturating_mul(1_000_000_000));
    }
    if let Some(size) = class.root_volume {
        return size;
    }
    if class.family() == Family::Custom
        && let Some((_, size)) = class.volumes.last()
    {
        return size.unwrap_or(Quantity::from_units(DEFAULT_STORAGE_BYTES));
    }
    if let Some(size) = device.and_then(of_device).and_then(|(_, size)| *size) {
        return size;
    }
    let default = class
        .family()
        .default_volumes()
        .iter()
        .find(|(d, _)| Some(*d) == device);
    Quantity::from_units(default.map_or(DEFAULT_STORAGE_BYTES, |(_, gib)| gib * GIB))
}

fn pods(info: &InstanceTypeInfo, class: &ClassShape, reserved_enis: u32) -> u32 {
    let family = class.family();
    let most = match class.max_pods {
        Some(pods) => pods,
        None if family.limits_pods_by_eni() => eni_pods(info, reserved_enis, class),
        None => DEFAULT_PODS,
    };
    match class.pods_per_core {
        Some(per_core) if per_core > 0 && family.supports_pods_per_core() => {
            most.min(per_core.saturating_mul(info.vcpus))
        }
        _ => most,
    }
}

/// Most pods by the interfaces of the default network card.
fn eni_pods(info: &InstanceTypeInfo, reserved: u32, class: &ClassShape) -> u32 {
    let interfaces = info
        .network_cards
        .iter()
        .find(|c| c.index == info.default_network_card)
        .map_or(0, |c| c.max_interfaces);
    let efa_only = class.efa_only.map_or(0, |(_, on_card_0)| on_card_0);
    match interfaces.saturating_sub(reserved).saturating_sub(efa_only) {
        0 => 0,
        usable => usable * info.ipv4_per_interface.saturating_sub(1) + 2,
    }
}

/// Thousandths of a core for the kubelet: a falling share of each band of the machine's CPU, each cut to an integer.
fn reserved_millicores(vcpus: u32) -> i64 {
    // Upper end of the band in millicores, and the share in units of 0.01 percent.
    const BANDS: [(i64, i64, i64); 4] = [
        (0, 1000, 600),
        (1000, 2000, 100),
        (2000, 4000, 50),
        (4000, i64::MAX, 25),
    ];
    let total = i64::from(vcpus) * 1000;
    BANDS
        .iter()
        .map(|(from, to, share)| (total.min(*to) - from).max(0) * share / 10_000)
        .sum()
}

fn eviction(class: &ClassShape, capacity: &ResourceList) -> ResourceList {
    let storage = capacity.get(names::EPHEMERAL_STORAGE);
    let threshold = |signal: &str, total: Quantity, default: Quantity| {
        class
            .eviction_hard
            .get(signal)
            .and_then(|text| parse_threshold(text, total))
            .unwrap_or(default)
    };
    // ceil(storage / 100 · 10), in whole bytes.
    let tenth = Quantity::from_units(percent(storage.units(), 10, 1));
    [
        (
            names::MEMORY,
            threshold(
                "memory.available",
                capacity.get(names::MEMORY),
                Quantity::from_units(100 * MIB),
            ),
        ),
        (
            names::EPHEMERAL_STORAGE,
            threshold("nodefs.available", storage, tenth),
        ),
    ]
    .into_iter()
    .collect()
}

/// A quantity, or `p%` of `total`, rounded up; 100 percent means "off" and is zero.
fn parse_threshold(text: &str, total: Quantity) -> Option<Quantity> {
    let Some(number) = text.strip_suffix('%') else {
        return text.parse().ok();
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = u32::try_from(fraction.len()).ok().filter(|d| *d <= 6)?;
    let scale = 10_i64.pow(digits);
    let parts: i64 = format!("{whole}{fraction}").parse().ok()?;
    if parts >= 100 * scale {
        return Some(Quantity::ZERO);
    }
    Some(Quantity::from_units(percent(total.units(), parts, scale)))
}

/// ceil(`of` · `parts` / `scale` percent).
fn percent(of: i64, parts: i64, scale: i64) -> i64 {
    let (product, divisor) = (i128::from(of) * i128::from(parts), 100 * i128::from(scale));
    let up = product.div_euclid(divisor) + i128::from(product.rem_euclid(divisor) != 0);
    i64::try_from(up).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "capacity_tests.rs"]
mod tests;
