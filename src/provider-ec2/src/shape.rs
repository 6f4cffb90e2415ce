//! What the rest of the provider reads off an EC2NodeClass: families, user data inputs, capacity inputs, readiness.

use karpenter_api::kinds::{RawQuantity, Time};
use karpenter_model::ResourceList;

use crate::nodeclass::{Kubelet, NodeClass};
use crate::types::Family;
use crate::types::capacity::ClassShape;

/// Alias of a class: family and version.
pub(crate) fn alias(class: &NodeClass) -> Option<(&str, &str)> {
    class
        .spec
        .ami_selector_terms
        .iter()
        .find_map(|t| t.alias.as_deref()?.split_once('@'))
}

/// `spec.amiFamily`, else the alias', else Custom.
pub(crate) fn family(class: &NodeClass) -> Family {
    Family::parse(&family_name(class))
}

/// Name of the family as the drift hash spells it.
pub(crate) fn family_name(class: &NodeClass) -> String {
    if let Some(name) = &class.spec.ami_family {
        return name.clone();
    }
    match alias(class).map(|(family, _)| family.to_lowercase()) {
        Some(family) => match family.as_str() {
            "al2" => "AL2",
            "al2023" => "AL2023",
            "bottlerocket" => "Bottlerocket",
            "windows2019" => "Windows2019",
            "windows2022" => "Windows2022",
            "windows2025" => "Windows2025",
            _ => "Custom",
        }
        .to_owned(),
        None => "Custom".to_owned(),
    }
}

/// Inputs of capacity. Quantities that do not parse are left out: the API refuses them, and a stored one must not
/// blind us to everything else.
pub(crate) fn capacity_shape(class: &NodeClass) -> ClassShape {
    let kubelet = class.spec.kubelet.clone().unwrap_or_default();
    let volumes: Vec<_> = class
        .spec
        .block_device_mappings
        .iter()
        .map(|m| {
            let size = m.ebs.as_ref().and_then(|e| e.volume_size.as_ref());
            let size = size.and_then(|s| s.parse().ok());
            (m, size)
        })
        .collect();
    let nics = &class.spec.network_interfaces;
    let efa_only = |on_card_0: bool| {
        let of = nics.iter().filter(|n| {
            n.interface_type == "efa-only" && (!on_card_0 || n.network_card_index == 0)
        });
        u32::try_from(of.count()).unwrap_or(0)
    };
    ClassShape {
        family: Some(family(class)),
        max_pods: kubelet.max_pods.and_then(|n| u32::try_from(n).ok()),
        pods_per_core: kubelet.pods_per_core.and_then(|n| u32::try_from(n).ok()),
        kube_reserved: resources(&kubelet, |k| &k.kube_reserved),
        system_reserved: resources(&kubelet, |k| &k.system_reserved),
        eviction_hard: kubelet.eviction_hard.clone().into_inner(),
        raid0: class.spec.instance_store_policy.as_deref() == Some("RAID0"),
        root_volume: volumes
            .iter()
            .find(|(m, _)| m.root_volume)
            .and_then(|(_, size)| *size),
        volumes: volumes
            .iter()
            .map(|(m, size)| (m.device_name.clone().unwrap_or_default(), *size))
            .collect(),
        efa_only: (!nics.is_empty()).then(|| (efa_only(false), efa_only(true))),
    }
}

fn resources(
    kubelet: &Kubelet,
    which: impl Fn(&Kubelet) -> &std::collections::BTreeMap<String, String>,
) -> ResourceList {
    let mut list = ResourceList::new();
    for (name, text) in which(kubelet) {
        if let Ok(amount) = (&RawQuantity(text.clone())).try_into() {
            list.set(name, amount);
        }
    }
    list
}

/// Whether a class can be used, as its condition Ready says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// It can.
    Ready,
    /// It cannot: message.
    NotReady(String),
    /// Nobody knows yet.
    Unknown,
}

/// Reads condition Ready.
pub(crate) fn readiness(class: &NodeClass) -> Readiness {
    let Some(ready) = class.status.conditions.iter().find(|c| c.type_ == "Ready") else {
        return Readiness::Unknown;
    };
    let generation = class.metadata.generation;
    match ready.status.as_str() {
        "False" => Readiness::NotReady(ready.message.clone()),
        "True" if ready.observed_generation != generation => {
            Readiness::NotReady("the status is of an older generation".to_owned())
        }
        "True" => Readiness::Ready,
        _ => Readiness::Unknown,
    }
}

/// Whether it is being deleted.
pub(crate) fn is_deleting(class: &NodeClass) -> bool {
    class
        .metadata
        .deletion_timestamp
        .as_ref()
        .is_some_and(|_: &Time| true)
}
