//! What the catalogue does not say and a cloud has to decide: which zones offer a type, and what the operating system
//! of a machine finds.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use karpenter_ec2_api::InstanceTypeInfo;
use karpenter_runtime::RngTree;

use crate::catalog::Catalog;
use crate::engine::Inner;
use crate::events::LaunchedInstance;
use crate::record::InstanceRecord;

/// Root volume of a template that names none, in GiB.
const DEFAULT_ROOT_GIB: u64 = 20;
/// Part of the hardware's memory that firmware and kernel leave, in thousandths.
const VISIBLE_MEMORY_PER_MILLE: u64 = 965;

/// Zones by type. A model, not a fact: accelerated, HPC, FPGA and high-memory families are in one or two zones, one
/// family in twelve of the others misses one zone. Depends on names only, so that every seed has the same map.
pub(crate) fn offered(catalog: &Catalog, zones: &[Arc<str>]) -> BTreeMap<Arc<str>, Vec<Arc<str>>> {
    let rng = RngTree::new(0).child("offered", "");
    catalog
        .types
        .values()
        .map(|t| {
            let family = t.name.split('.').next().unwrap_or_default();
            let mut draw = rng.child("family", family).rng();
            let count = zones.len() as u64;
            let first = usize::try_from(draw.below(count.max(1))).unwrap_or(0);
            let rare = ["p", "trn", "inf", "dl", "f", "hpc", "u-", "u7"]
                .iter()
                .any(|p| family.starts_with(p));
            let kept = if rare {
                1 + draw.below(2)
            } else if draw.below(12) == 0 {
                count.saturating_sub(1).max(1)
            } else {
                count
            };
            let kept = usize::try_from(kept).unwrap_or(1);
            let mut of: Vec<Arc<str>> = zones
                .iter()
                .cycle()
                .skip(first)
                .take(kept.min(zones.len()))
                .cloned()
                .collect();
            of.sort();
            (t.name.clone(), of)
        })
        .collect()
}

/// Most pods by the network interface limit.
pub(crate) fn eni_pods(info: &InstanceTypeInfo) -> u32 {
    let interfaces = info
        .network_cards
        .iter()
        .find(|c| c.index == info.default_network_card)
        .map_or(0, |c| c.max_interfaces);
    if interfaces == 0 {
        return 0;
    }
    interfaces * info.ipv4_per_interface.saturating_sub(1) + 2
}

/// What a machine model needs to know of a fresh instance.
pub(crate) fn launched(inner: &Inner, record: &InstanceRecord) -> Option<LaunchedInstance> {
    let data = &record.template;
    let info = inner.catalog.types.get(&record.instance_type)?;
    let user_data = base64::engine::general_purpose::STANDARD
        .decode(&data.user_data)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let root_gib = data
        .block_device_mappings
        .iter()
        // Bottlerocket keeps pods on its second disk.
        .rfind(|m| m.device_name == "/dev/xvdb" || m.device_name == "/dev/xvda")
        .or(data.block_device_mappings.first())
        .and_then(|m| m.ebs.as_ref()?.volume_size_gib)
        .and_then(|g| u64::try_from(g).ok())
        .unwrap_or(DEFAULT_ROOT_GIB);
    Some(LaunchedInstance {
        id: record.id.clone(),
        provider_id: format!("aws:///{}/{}", record.zone, record.id),
        private_dns_name: record.private_dns_name.clone(),
        instance_type: record.instance_type.to_string(),
        region: inner.region.clone(),
        zone: record.zone.to_string(),
        zone_id: record.zone_id.to_string(),
        arch: match info.architectures.first().map(String::as_str) {
            Some("arm64") => "arm64".to_owned(),
            _ => "amd64".to_owned(),
        },
        vcpus: info.vcpus,
        memory_bytes: info.memory_mib * 1024 * 1024 / 1000 * VISIBLE_MEMORY_PER_MILLE,
        storage_bytes: root_gib << 30,
        extended_resources: devices(info),
        user_data,
        eni_pods: eni_pods(info),
    })
}

fn devices(info: &InstanceTypeInfo) -> BTreeMap<String, u64> {
    let mut devices = BTreeMap::new();
    let mut add = |name: &str, count: u32| {
        if count > 0 {
            *devices.entry(name.to_owned()).or_default() += u64::from(count);
        }
    };
    for gpu in &info.gpus {
        match gpu.manufacturer.as_str() {
            "NVIDIA" => add("nvidia.com/gpu", gpu.count),
            "AMD" => add("amd.com/gpu", gpu.count),
            "Habana" => add("habana.ai/gaudi", gpu.count),
            _ => {}
        }
    }
    for device in &info.neuron_devices {
        add("aws.amazon.com/neuron", device.count);
        add("aws.amazon.com/neuroncore", device.count * device.cores);
    }
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_types_are_everywhere_and_rare_ones_are_not() {
        let zones: Vec<Arc<str>> = ["a", "b", "c"].map(Arc::from).to_vec();
        let catalog = Catalog::builtin();
        let offered = offered(&catalog, &zones);
        assert_eq!(offered.len(), catalog.types.len());
        assert!(offered.values().all(|z| !z.is_empty()));
        let everywhere = offered.values().filter(|z| z.len() == 3).count();
        assert!(everywhere * 10 > offered.len() * 8, "{everywhere}");
        assert!(offered["p5.48xlarge"].len() < 3);
    }
}
