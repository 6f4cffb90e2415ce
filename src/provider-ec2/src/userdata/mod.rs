//! User data of a machine by AMI family (`aws-provider.md` §15). All results are base64.

mod al2;
mod al2023;
mod bottlerocket;
pub(crate) mod kubelet;
mod mime;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Taint;
use karpenter_api::labels as keys;

use crate::nodeclass::Kubelet;
use crate::settings::Ec2Settings;
use crate::types::Family;

/// Domains whose labels a kubelet may not set on itself.
const KUBELET_FORBIDDEN_DOMAINS: [&str; 3] =
    ["node-restriction.kubernetes.io", "kubernetes.io", "k8s.io"];

/// Why user data cannot be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum UserDataError {
    /// The user's part does not parse.
    #[error("spec.userData: {0}")]
    Custom(String),
    /// The family is not supported yet.
    #[error("user data of family {0:?} is not supported")]
    Family(Family),
    /// AL2023 needs the service network.
    #[error("the cluster's service network (CIDR) is not known, which AL2023 needs")]
    NoClusterCidr,
}

/// What user data is made from.
#[derive(Clone, Debug)]
pub(crate) struct Inputs<'a> {
    pub(crate) settings: &'a Ec2Settings,
    pub(crate) family: Family,
    /// Version of a Bottlerocket image, if it can be told.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) taints: Vec<Taint>,
    /// The class' settings, maxPods and clusterDNS filled in.
    pub(crate) kubelet: Kubelet,
    pub(crate) raid0: bool,
    pub(crate) custom: Option<&'a str>,
}

/// Labels a machine gives itself: the claim's and the capacity type, less those that a kubelet may not set.
pub(crate) fn labels(
    claim: &BTreeMap<String, String>,
    capacity_type: &str,
    family: Family,
) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> = claim
        .iter()
        .filter(|(key, _)| !is_forbidden(key))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    labels.insert(keys::CAPACITY_TYPE.to_owned(), capacity_type.to_owned());
    if family != Family::Custom {
        // The taints are in the user data: Karpenter need not set them again.
        labels.insert(keys::DO_NOT_SYNC_TAINTS.to_owned(), "true".to_owned());
    }
    labels
}

fn is_forbidden(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(d, _)| d);
    KUBELET_FORBIDDEN_DOMAINS.iter().any(|f| {
        domain == *f
            || domain
                .strip_suffix(f)
                .is_some_and(|rest| rest.ends_with('.'))
    })
}

/// Taints a machine registers with: the claim's, its startup ones, and `unregistered`.
pub(crate) fn taints(taints: &[Taint], startup: &[Taint]) -> Vec<Taint> {
    let mut all: Vec<Taint> = taints.iter().chain(startup).cloned().collect();
    let unregistered = karpenter_model::taints::unregistered_taint();
    if !all
        .iter()
        .any(|t| t.key == unregistered.key && t.effect == unregistered.effect)
    {
        all.push(unregistered);
    }
    all
}

/// The user data, base64.
pub(crate) fn render(inputs: &Inputs<'_>) -> Result<String, UserDataError> {
    let text = match inputs.family {
        Family::Al2 => al2::render(inputs)?,
        Family::Al2023 => al2023::render(inputs)?,
        Family::Bottlerocket => bottlerocket::render(inputs)?,
        Family::Custom => inputs.custom.unwrap_or_default().to_owned(),
        Family::Windows => return Err(UserDataError::Family(inputs.family)),
    };
    Ok(STANDARD.encode(text))
}

#[cfg(test)]
mod tests;
