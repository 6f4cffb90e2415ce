//! What a pod asks of a node in all: Kubernetes' effective requests and limits (`scheduling.md` §3).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, PodSpec, PodStatus};
use karpenter_api::Quantity;
use karpenter_api::kinds::RawQuantity;

use crate::ResourceList;
use crate::resources::{BadResource, is_hugepages, names};

type Raw = BTreeMap<String, RawQuantity>;

/// Which side of `resources` is summed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Requests,
    Limits,
}

/// Effective requests, `pods: 1` included. With `status`, resizes under way are counted.
pub(crate) fn requests(
    spec: &PodSpec,
    status: Option<&PodStatus>,
) -> Result<ResourceList, BadResource> {
    effective(spec, status, Side::Requests)
}

/// Effective limits, `pods: 1` included.
pub(crate) fn limits(spec: &PodSpec) -> Result<ResourceList, BadResource> {
    effective(spec, None, Side::Limits)
}

/// Copies limits into missing requests, as the API server does when it defaults a pod.
pub(crate) fn default_requests(spec: &mut PodSpec) {
    let init = spec.init_containers.iter_mut().flatten();
    for container in spec.containers.iter_mut().chain(init) {
        let Some(resources) = &mut container.resources else {
            continue;
        };
        let Some(limits) = resources.limits.clone() else {
            continue;
        };
        let requests = resources.requests.get_or_insert_default();
        for (name, amount) in limits {
            requests.entry(name).or_insert(amount);
        }
    }
}

fn effective(
    spec: &PodSpec,
    status: Option<&PodStatus>,
    side: Side,
) -> Result<ResourceList, BadResource> {
    let infeasible = status.is_some_and(resize_is_infeasible);
    let app = status.and_then(|s| s.container_statuses.as_deref());
    let init = status.and_then(|s| s.init_container_statuses.as_deref());

    let mut running = ResourceList::new();
    for container in &spec.containers {
        running.add(&of_container(container, app, infeasible, side)?);
    }
    let mut sidecars = ResourceList::new();
    let mut starting = ResourceList::new();
    for container in spec.init_containers.iter().flatten() {
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&of_container(container, init, infeasible, side)?);
            // While a sidecar starts it runs beside those before it; the sum so far says just that.
            starting.max_with(&sidecars);
        } else {
            let mut alone = of_container(container, None, false, side)?;
            alone.add(&sidecars);
            starting.max_with(&alone);
        }
    }
    running.add(&sidecars);
    running.max_with(&starting);

    if let Some(resources) = &spec.resources {
        for (name, amount) in list(side_of(resources, side))?.iter() {
            if matches!(name, names::CPU | names::MEMORY) || is_hugepages(name) {
                running.set(name, amount);
            }
        }
    }
    for (name, amount) in list(spec.overhead.as_ref())?.iter() {
        let present = running.get(name);
        if side == Side::Requests || present > Quantity::ZERO {
            running.set(
                name,
                Quantity::from_nanos(present.nanos().saturating_add(amount.nanos())),
            );
        }
    }
    running.set(names::PODS, Quantity::from_units(1));
    Ok(running)
}

fn of_container(
    container: &Container,
    statuses: Option<&[ContainerStatus]>,
    resize_infeasible: bool,
    side: Side,
) -> Result<ResourceList, BadResource> {
    let spec = list(
        container
            .resources
            .as_ref()
            .and_then(|resources| side_of(resources, side)),
    )?;
    let actual = statuses
        .into_iter()
        .flatten()
        .find(|s| s.name == container.name)
        .and_then(|s| Some((s, s.resources.as_ref()?)));
    let Some((status, resources)) = actual else {
        return Ok(spec);
    };
    let mut sum = list(resources.requests.as_ref())?;
    sum.max_with(&list(status.allocated_resources.as_ref())?);
    if !resize_infeasible {
        sum.max_with(&spec);
    }
    Ok(sum)
}

fn resize_is_infeasible(status: &PodStatus) -> bool {
    status
        .conditions
        .iter()
        .flatten()
        .any(|c| c.type_ == "PodResizePending" && c.reason.as_deref() == Some("Infeasible"))
}

fn side_of(
    resources: &k8s_openapi::api::core::v1::ResourceRequirements,
    side: Side,
) -> Option<&Raw> {
    match side {
        Side::Requests => resources.requests.as_ref(),
        Side::Limits => resources.limits.as_ref(),
    }
}

fn list(raw: Option<&Raw>) -> Result<ResourceList, BadResource> {
    raw.map_or_else(|| Ok(ResourceList::new()), ResourceList::from_raw)
}
