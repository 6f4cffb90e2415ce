//! Requirements of an instance type: what EC2 says of it, as labels (`aws-provider.md` §9.2).

use std::sync::Arc;

use karpenter_api::labels as keys;
use karpenter_ec2_api::InstanceTypeInfo;
use karpenter_model::{Requirement, Requirements};

use crate::labels as l;
use crate::limits::Limits;

/// Where a type can be had, under a class.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places<'a> {
    /// Region.
    pub(crate) region: &'a str,
    /// Zones that offer the type and that the class has a subnet in: names and ids.
    pub(crate) zones: &'a [(Arc<str>, Arc<str>)],
}

/// EC2's architecture name as Kubernetes' one.
pub(crate) fn arch(ec2: &str) -> Option<&'static str> {
    match ec2 {
        "x86_64" => Some("amd64"),
        "arm64" => Some("arm64"),
        _ => None,
    }
}

/// First architecture of a type that Kubernetes knows.
pub(crate) fn arch_of(info: &InstanceTypeInfo) -> Option<&'static str> {
    info.architectures.iter().find_map(|a| arch(a))
}

/// Requirements of a type; none if its architecture is not supported.
pub(crate) fn requirements(
    info: &InstanceTypeInfo,
    limits: Limits,
    places: Places<'_>,
) -> Option<Requirements> {
    let mut reqs = Requirements::new();
    let mut put = |key: &'static str, value: Option<String>| {
        reqs.set(match value {
            Some(value) => Requirement::is_in(key, [value]),
            None => Requirement::does_not_exist(key),
        });
    };
    let (family, size) = info.name.split_once('.').unwrap_or((&info.name, ""));
    let (category, generation) = category_and_generation(&info.name);
    put(keys::INSTANCE_TYPE, Some(info.name.to_string()));
    put(keys::ARCH, Some(arch_of(info)?.to_owned()));
    put(keys::OS, Some("linux".to_owned()));
    put(keys::REGION, Some(places.region.to_owned()));
    put(keys::WINDOWS_BUILD, None);
    put(l::CPU, Some(info.vcpus.to_string()));
    put(l::MEMORY, Some(info.memory_mib.to_string()));
    put(l::CPU_MANUFACTURER, Some(kebab(&info.cpu_manufacturer)));
    put(l::CPU_CLOCK, Some(info.cpu_clock_mhz.to_string()));
    put(
        l::EBS_BANDWIDTH,
        info.ebs_bandwidth_mbps.map(|b| b.to_string()),
    );
    put(
        l::NETWORK_BANDWIDTH,
        limits.bandwidth_mbps.map(|b| b.to_string()),
    );
    put(l::CATEGORY, category);
    put(l::GENERATION, generation);
    put(l::FAMILY, Some(family.to_owned()));
    put(l::SIZE, Some(size.to_owned()));
    put(
        l::CAPABILITY_FLEX,
        Some(family.contains("-flex").to_string()),
    );
    put(l::LOCAL_NVME, info.local_nvme_gb.map(|g| g.to_string()));
    put(l::HYPERVISOR, Some(info.hypervisor.clone()));
    put(
        l::ENCRYPTION_IN_TRANSIT,
        Some(info.encryption_in_transit.to_string()),
    );
    let gpu = match info.gpus.as_slice() {
        [gpu] => Some(gpu),
        _ => None,
    };
    put(l::GPU_NAME, gpu.map(|g| kebab(&g.name)));
    put(l::GPU_MANUFACTURER, gpu.map(|g| kebab(&g.manufacturer)));
    put(l::GPU_COUNT, gpu.map(|g| g.count.to_string()));
    put(l::GPU_MEMORY, gpu.map(|g| g.memory_mib.to_string()));
    let accelerator = match (info.accelerators.as_slice(), info.neuron_devices.as_slice()) {
        ([one], []) => Some((kebab(&one.name), kebab(&one.manufacturer), one.count)),
        (_, [one]) => Some((kebab(&one.name), "aws".to_owned(), one.count)),
        _ => None,
    };
    put(
        l::ACCELERATOR_NAME,
        accelerator.as_ref().map(|(name, ..)| name.clone()),
    );
    put(
        l::ACCELERATOR_MANUFACTURER,
        accelerator.as_ref().map(|(_, m, _)| m.clone()),
    );
    put(
        l::ACCELERATOR_COUNT,
        accelerator.map(|(.., count)| count.to_string()),
    );
    for key in [
        l::RESERVATION_ID,
        l::RESERVATION_TYPE,
        l::RESERVATION_INTERRUPTIBLE,
    ] {
        put(key, None);
    }
    reqs.set(Requirement::is_in(l::TENANCY, ["default", "dedicated"]));
    reqs.set(Requirement::is_in(
        keys::CAPACITY_TYPE,
        info.usage_classes
            .iter()
            .filter(|c| [keys::CAPACITY_ON_DEMAND, keys::CAPACITY_SPOT].contains(&c.as_str())),
    ));
    reqs.set(Requirement::is_in(
        keys::ZONE,
        places.zones.iter().map(|(name, _)| name),
    ));
    if !places.zones.is_empty() {
        reqs.set(Requirement::is_in(
            l::ZONE_ID,
            places.zones.iter().map(|(_, id)| id),
        ));
    }
    Some(reqs)
}

/// `m` and `5` of `m5.large`, `u` and `1` of `u-6tb1.metal`: letters, perhaps `-<n>tb`, a number, then the rest up to
/// the last dot. Both absent when the name is of another form.
fn category_and_generation(name: &str) -> (Option<String>, Option<String>) {
    let parse = || {
        let (head, _) = name.rsplit_once('.')?;
        let letters = head
            .find(|c: char| !c.is_ascii_lowercase())
            .unwrap_or(head.len());
        let (category, rest) = head.split_at(letters);
        if category.is_empty() {
            return None;
        }
        let rest = rest
            .strip_prefix('-')
            .and_then(|r| r.split_once("tb"))
            .filter(|(n, _)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
            .map_or(rest, |(_, r)| r);
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (generation, _) = rest.split_at(digits);
        (!generation.is_empty()).then(|| (category.to_owned(), generation.to_owned()))
    };
    parse().unzip()
}

/// Lower case, dashes for spaces.
fn kebab(text: &str) -> String {
    text.to_lowercase().replace(' ', "-")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("m5.large", Some(("m", "5")))]
    #[case("c6gn.16xlarge", Some(("c", "6")))]
    #[case("u-6tb1.56xlarge", Some(("u", "1")))]
    #[case("u7in-16tb.224xlarge", Some(("u", "7")))]
    #[case("c7i-flex.large", Some(("c", "7")))]
    #[case("nonsense", None)]
    #[case("7x.large", None)]
    fn categories(#[case] name: &str, #[case] want: Option<(&str, &str)>) {
        let (category, generation) = category_and_generation(name);
        assert_eq!(category.as_deref(), want.map(|w| w.0));
        assert_eq!(generation.as_deref(), want.map(|w| w.1));
    }
}
