//! Reads a [`Pod`] from Kubernetes' objects.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Container, Pod as RawPod, PodSpec, PodStatus, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use karpenter_api::labels;

use crate::pod::{HostPort, Owner, Phase, PodVolume};
use crate::pod_requests;
use crate::resources::BadResource;
use crate::{ContainerDefaults, Pod, PodKey};

/// `spec.terminationGracePeriodSeconds` when unset.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// A pod that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pod {pod}: {source}")]
pub struct BadPod {
    /// The pod.
    pub pod: PodKey,
    /// What is wrong with it.
    pub source: BadResource,
}

impl Pod {
    /// From a Kubernetes pod. What cannot be read is kept in [`Pod::invalid`], so that a watch loses no pod;
    /// use [`Pod::try_from_k8s`] where the user can be told at once.
    #[must_use]
    pub fn from_k8s(raw: &RawPod) -> Self {
        let spec = raw.spec.clone().unwrap_or_default();
        let mut pod = read(&raw.metadata, &spec, raw.status.as_ref());
        if let Err(error) = fill_resources(&mut pod, &spec, raw.status.as_ref()) {
            pod.invalid = Some(error.to_string().into());
        }
        pod
    }

    /// From a Kubernetes pod.
    ///
    /// # Errors
    /// A resource amount that is no quantity.
    pub fn try_from_k8s(raw: &RawPod) -> Result<Self, BadPod> {
        let spec = raw.spec.clone().unwrap_or_default();
        let mut pod = read(&raw.metadata, &spec, raw.status.as_ref());
        match fill_resources(&mut pod, &spec, raw.status.as_ref()) {
            Ok(()) => Ok(pod),
            Err(source) => Err(BadPod {
                pod: pod.key,
                source,
            }),
        }
    }

    /// The pod that a DaemonSet's template would make, for nodes on which none runs yet: named after the
    /// DaemonSet, with the requests it would be admitted with.
    #[must_use]
    pub fn from_template(
        template: &PodTemplateSpec,
        daemon_set: &DaemonSet,
        defaults: &ContainerDefaults,
    ) -> Self {
        let mut spec = template.spec.clone().unwrap_or_default();
        defaults.admit(&mut spec);
        let owner = &daemon_set.metadata;
        let mut meta = template.metadata.clone().unwrap_or_default();
        meta.namespace.clone_from(&owner.namespace);
        meta.name.clone_from(&owner.name);
        meta.uid.clone_from(&owner.uid);
        let mut pod = read(&meta, &spec, None);
        pod.owner = Owner::DaemonSet;
        pod.controller = Some((
            "DaemonSet".into(),
            owner.name.as_deref().unwrap_or_default().into(),
        ));
        if let Err(error) = fill_resources(&mut pod, &spec, None) {
            pod.invalid = Some(error.to_string().into());
        }
        pod
    }
}

pub(crate) fn fill_resources(
    pod: &mut Pod,
    spec: &PodSpec,
    status: Option<&PodStatus>,
) -> Result<(), BadResource> {
    pod.requests = pod_requests::requests(spec, status)?;
    pod.limits = pod_requests::limits(spec)?;
    Ok(())
}

pub(crate) fn read(meta: &ObjectMeta, spec: &PodSpec, status: Option<&PodStatus>) -> Pod {
    let name = meta.name.as_deref().unwrap_or_default();
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    let controller = owners.iter().find(|o| o.controller == Some(true));
    Pod {
        key: PodKey {
            namespace: meta.namespace.as_deref().unwrap_or_default().into(),
            name: name.into(),
        },
        uid: text(meta.uid.as_deref()).unwrap_or_default(),
        labels: meta.labels.clone().unwrap_or_default(),
        annotations: kept_annotations(meta),
        owner: owner(owners),
        controller: controller.map(|o| (o.kind.as_str().into(), o.name.as_str().into())),
        controller_version: controller.map(|o| o.api_version.as_str().into()),
        node_name: text(spec.node_name.as_deref()),
        nominated_node: text(status.and_then(|s| s.nominated_node_name.as_deref())),
        phase: phase(status.and_then(|s| s.phase.as_deref())),
        unschedulable: condition(status, "PodScheduled")
            .is_some_and(|(_, reason)| reason == "Unschedulable"),
        ready: condition(status, "Ready").is_some_and(|(status, _)| status == "True"),
        created: meta.creation_timestamp.as_ref().map(|t| t.0),
        deleted: meta.deletion_timestamp.as_ref().map(|t| t.0),
        started: status.and_then(|s| s.start_time.as_ref()).map(|t| t.0),
        priority: spec.priority.unwrap_or(0),
        priority_class: text(spec.priority_class_name.as_deref()),
        grace_seconds: spec
            .termination_grace_period_seconds
            .unwrap_or(DEFAULT_GRACE_SECONDS),
        tolerations: spec.tolerations.clone().unwrap_or_default(),
        node_selector: spec.node_selector.clone().unwrap_or_default(),
        affinity: spec.affinity.clone().map(Arc::new),
        spread: spec.topology_spread_constraints.clone().unwrap_or_default(),
        host_ports: host_ports(spec),
        volumes: volumes(name, spec),
        has_resource_claims: has_resource_claims(spec),
        ..Pod::default()
    }
}

fn text(value: Option<&str>) -> Option<Arc<str>> {
    value.filter(|v| !v.is_empty()).map(Arc::from)
}

fn kept_annotations(meta: &ObjectMeta) -> BTreeMap<String, String> {
    let ours = |key: &str| {
        let domain = key.split_once('/').map_or("", |(domain, _)| domain);
        domain == labels::GROUP
            || domain
                .strip_suffix(labels::GROUP)
                .is_some_and(|rest| rest.ends_with('.'))
            || key == labels::POD_DELETION_COST
    };
    meta.annotations
        .iter()
        .flatten()
        .filter(|(key, _)| ours(key))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

fn owner(owners: &[OwnerReference]) -> Owner {
    let owned_by = |api_version: &str, kind: &str| {
        owners
            .iter()
            .any(|o| o.api_version == api_version && o.kind == kind)
    };
    if owned_by("v1", "Node") {
        Owner::Node
    } else if owned_by("apps/v1", "DaemonSet") {
        Owner::DaemonSet
    } else if owned_by("apps/v1", "StatefulSet") {
        Owner::StatefulSet
    } else {
        Owner::Other
    }
}

fn phase(text: Option<&str>) -> Phase {
    match text {
        None | Some("" | "Pending") => Phase::Pending,
        Some("Running") => Phase::Running,
        Some("Succeeded") => Phase::Succeeded,
        Some("Failed") => Phase::Failed,
        Some(_) => Phase::Unknown,
    }
}

/// Status and reason of a condition.
fn condition<'a>(status: Option<&'a PodStatus>, type_: &str) -> Option<(&'a str, &'a str)> {
    status?
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == type_)
        .map(|c| (c.status.as_str(), c.reason.as_deref().unwrap_or_default()))
}

/// Ports of the node itself that app containers ask for; init containers are not looked at, as upstream.
fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let mut out: Vec<_> = spec
        .containers
        .iter()
        .flat_map(|c| c.ports.iter().flatten())
        .filter_map(|p| Some((p, p.host_port.filter(|port| *port != 0)?)))
        .map(|(p, port)| HostPort {
            ip: text(p.host_ip.as_deref()).unwrap_or_else(|| "0.0.0.0".into()),
            port,
            protocol: text(p.protocol.as_deref()).unwrap_or_else(|| "TCP".into()),
        })
        .collect();
    out.sort();
    out.dedup();
    out
}

fn volumes(pod: &str, spec: &PodSpec) -> Vec<PodVolume> {
    spec.volumes
        .iter()
        .flatten()
        .filter_map(|v| {
            let claim = match (&v.persistent_volume_claim, &v.ephemeral) {
                (Some(source), _) => source.claim_name.as_str().into(),
                (None, Some(_)) => format!("{pod}-{}", v.name).into(),
                (None, None) => return None,
            };
            Some(PodVolume {
                name: v.name.as_str().into(),
                claim,
            })
        })
        .collect()
}

fn has_resource_claims(spec: &PodSpec) -> bool {
    let asks = |c: &Container| {
        c.resources
            .as_ref()
            .is_some_and(|r| r.claims.as_ref().is_some_and(|claims| !claims.is_empty()))
    };
    spec.resource_claims.as_ref().is_some_and(|c| !c.is_empty())
        || spec.containers.iter().any(asks)
        || spec.init_containers.iter().flatten().any(asks)
}
