//! What LimitRanges give containers that ask for nothing themselves, as admission does it (`LimitRanger`): needed for
//! pods that nobody has admitted yet, DaemonSet pods of nodes to come and the chunks of capacity buffers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem, PodSpec};
use karpenter_api::kinds::RawQuantity;

use crate::pod_requests;

type Raw = BTreeMap<String, RawQuantity>;

/// The item type whose defaults go into containers.
const CONTAINER: &str = "Container";

/// Defaults for the containers of one namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerDefaults {
    requests: Raw,
    limits: Raw,
}

impl ContainerDefaults {
    /// Of all LimitRanges of a namespace: where two give the same resource, the first does.
    #[must_use]
    pub fn of<'a>(ranges: impl IntoIterator<Item = &'a LimitRange>) -> Self {
        let mut defaults = Self::default();
        for spec in ranges.into_iter().filter_map(|r| r.spec.as_ref()) {
            for item in spec.limits.iter().filter(|i| i.type_ == CONTAINER) {
                let (requests, limits) = given_by(item);
                merge(&mut defaults.requests, &requests);
                merge(&mut defaults.limits, &limits);
            }
        }
        defaults
    }

    /// Gives a pod the requests and limits that it would be admitted with: limits stand in for missing requests, then
    /// what the namespace gives is filled in.
    pub fn admit(&self, spec: &mut PodSpec) {
        pod_requests::default_requests(spec);
        self.fill(spec);
    }

    /// Fills in what the containers, init containers too, do not say.
    fn fill(&self, spec: &mut PodSpec) {
        if self.requests.is_empty() && self.limits.is_empty() {
            return;
        }
        let init = spec.init_containers.iter_mut().flatten();
        for container in spec.containers.iter_mut().chain(init) {
            let resources = container.resources.get_or_insert_default();
            merge(resources.requests.get_or_insert_default(), &self.requests);
            merge(resources.limits.get_or_insert_default(), &self.limits);
        }
    }
}

/// Requests and limits that one item gives. A live LimitRange has these filled in by the API server; one from a file
/// may not: limits default to the maximum, requests to the limits, then to the minimum.
fn given_by(item: &LimitRangeItem) -> (Raw, Raw) {
    let mut limits = item.default.clone().unwrap_or_default();
    merge(&mut limits, item.max.as_ref().unwrap_or(&Raw::new()));
    let mut requests = item.default_request.clone().unwrap_or_default();
    merge(&mut requests, &limits);
    merge(&mut requests, item.min.as_ref().unwrap_or(&Raw::new()));
    (requests, limits)
}

/// Adds what is missing.
fn merge(into: &mut Raw, from: &Raw) {
    for (name, amount) in from {
        into.entry(name.clone()).or_insert_with(|| amount.clone());
    }
}
