//! Nodes as scheduling sees them (`scheduling.md` §5 "Views"): a Node, the claim behind it, or both made one.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};
use karpenter_api::kinds::RawQuantity;
use karpenter_api::{NodeClaim, Quantity, labels};
use karpenter_model::pod::{Owner, Phase};
use karpenter_model::resources::names;
use karpenter_model::{NodeView, Pod, ResourceList, taints};
use kube::core::ObjectMeta;

use crate::cluster::Cluster;

/// What a view is about: a claim (with its Node, if it has one), or a Node that no claim stands behind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Entity {
    Claim(Arc<str>),
    Node(Arc<str>),
}

/// Whether the label is there with value `true`.
pub(crate) fn has_label(meta: &ObjectMeta, key: &str) -> bool {
    meta.labels
        .as_ref()
        .and_then(|l| l.get(key))
        .is_some_and(|v| v == "true")
}

/// Amounts of an API map. The API server admits quantities only; a text that is none counts as missing.
pub(crate) fn amounts(raw: &BTreeMap<String, RawQuantity>) -> ResourceList {
    ResourceList::from_raw(raw).unwrap_or_else(|_| {
        let mut all = ResourceList::new();
        for (name, text) in raw {
            let one = BTreeMap::from([(name.clone(), text.clone())]);
            if let Ok(one) = ResourceList::from_raw(&one) {
                all.add(&one);
            }
        }
        all
    })
}

/// The view of `entity`; none if there is nothing to see (yet).
pub(crate) fn build(cluster: &Cluster, entity: &Entity) -> Option<NodeView> {
    match entity {
        Entity::Claim(name) => {
            let claim = cluster.claims.get(name)?;
            let node = cluster.nodes_of_provider(&claim.status.provider_id).next();
            let pods: Vec<Arc<Pod>> = match node {
                Some(n) => pods_of(cluster.pods_on(n.metadata.name.as_deref().unwrap_or_default())),
                None => pods_of(cluster.pods_planned_for(name)),
            };
            let on = node.and_then(|n| n.metadata.name.as_deref());
            let volumes = cluster.storage.room(on, &pods);
            let view = managed(claim, node.map(|n| &**n), pods);
            Some(NodeView { volumes, ..view })
        }
        Entity::Node(name) => {
            let node = cluster.nodes.get(name)?;
            let id = node
                .spec
                .as_ref()
                .and_then(|s| s.provider_id.as_deref())
                .unwrap_or_default();
            if cluster.claims_of_provider(id).next().is_some() || is_incomplete(node, id) {
                return None;
            }
            let pods = pods_of(cluster.pods_on(name));
            let volumes = cluster.storage.room(Some(name), &pods);
            let view = unmanaged(node, id, pods);
            Some(NodeView { volumes, ..view })
        }
    }
}

/// A node of ours that has not got its identity yet: its claim speaks for it until then.
fn is_incomplete(node: &Node, provider_id: &str) -> bool {
    let has = |key: &str| {
        node.metadata
            .labels
            .as_ref()
            .is_some_and(|l| l.contains_key(key))
    };
    has(labels::NODEPOOL)
        && (provider_id.is_empty()
            || (!has(labels::INSTANCE_TYPE) && !has_label(&node.metadata, labels::INITIALIZED)))
}

fn pods_of<'a>(pods: impl Iterator<Item = &'a Arc<Pod>>) -> Vec<Arc<Pod>> {
    pods.filter(|p| !matches!(p.phase, Phase::Succeeded | Phase::Failed))
        .cloned()
        .collect()
}

fn managed(claim: &NodeClaim, node: Option<&Node>, pods: Vec<Arc<Pod>>) -> NodeView {
    let registered = node.is_some_and(|n| has_label(&n.metadata, labels::REGISTERED));
    let initialized = node.is_some_and(|n| has_label(&n.metadata, labels::INITIALIZED));
    let claim_name: Arc<str> = claim.metadata.name.as_deref().unwrap_or_default().into();

    let labels_of = |meta: &ObjectMeta| meta.labels.clone().unwrap_or_default();
    let node_labels = match node {
        Some(node) if registered => labels_of(&node.metadata),
        _ => labels_of(&claim.metadata),
    };
    let mut node_taints_now = match node {
        Some(node) if registered => node_taints(node),
        _ => claim.spec.taints.clone(),
    };
    if !initialized {
        node_taints_now.retain(|t| {
            !taints::is_ephemeral(t)
                && !claim.spec.startup_taints.iter().any(|s| taints::same(s, t))
        });
    }

    let planned = amounts(&claim.spec.resources.requests);
    let launched = !claim.status.provider_id.is_empty();
    let promised = |status: &BTreeMap<String, RawQuantity>| {
        // Nothing is known of a machine that is not bought yet but that it will hold what was asked for.
        if launched || !status.is_empty() {
            amounts(status)
        } else {
            planned.clone()
        }
    };
    let (mut capacity, allocatable) = match node {
        Some(node) if initialized => (status_capacity(node), status_allocatable(node)),
        Some(node) => (
            filled(status_capacity(node), &promised(&claim.status.capacity)),
            filled(
                status_allocatable(node),
                &promised(&claim.status.allocatable),
            ),
        ),
        None => (
            promised(&claim.status.capacity),
            promised(&claim.status.allocatable),
        ),
    };
    capacity.set(names::NODES, Quantity::from_units(1));

    let pool = claim
        .metadata
        .labels
        .as_ref()
        .and_then(|l| l.get(labels::NODEPOOL));
    let view = NodeView {
        name: node
            .and_then(|n| n.metadata.name.as_deref())
            .map_or_else(|| claim_name.clone(), Into::into),
        node_claim: Some(claim_name),
        node_pool: pool.map(|p| p.as_str().into()),
        provider_id: claim.status.provider_id.as_str().into(),
        labels: node_labels,
        taints: node_taints_now,
        capacity,
        allocatable,
        initialized,
        managed: true,
        ..NodeView::default()
    };
    with_pods(view, pods)
}

fn unmanaged(node: &Node, provider_id: &str, pods: Vec<Arc<Pod>>) -> NodeView {
    let mut capacity = status_capacity(node);
    capacity.set(names::NODES, Quantity::from_units(1));
    let node_labels = node.metadata.labels.clone().unwrap_or_default();
    let view = NodeView {
        name: node.metadata.name.as_deref().unwrap_or_default().into(),
        node_pool: node_labels.get(labels::NODEPOOL).map(|p| p.as_str().into()),
        provider_id: provider_id.into(),
        taints: node_taints(node),
        capacity,
        allocatable: status_allocatable(node),
        initialized: true,
        managed: false,
        labels: node_labels,
        ..NodeView::default()
    };
    with_pods(view, pods)
}

/// Puts pods onto a view: what is left, what DaemonSets use, which host ports are taken.
pub(crate) fn with_pods(mut view: NodeView, pods: Vec<Arc<Pod>>) -> NodeView {
    let (mut used, mut daemons) = (ResourceList::new(), ResourceList::new());
    for pod in &pods {
        used.add(&pod.requests);
        if pod.owner == Owner::DaemonSet {
            daemons.add(&pod.requests);
        }
        view.host_ports.extend(pod.host_ports.iter().cloned());
    }
    view.available = view.allocatable.clone();
    view.available.subtract(&used);
    view.daemon_requests = daemons;
    view.pods = pods;
    view
}

/// Whether two views of one entity leave a plan the same. Which pods are on it counts, and which of them are on their way
/// out, not what they are doing.
pub(crate) fn plan_alike(a: &NodeView, b: &NodeView) -> bool {
    let pods = |v: &NodeView| -> Vec<(Arc<str>, bool)> {
        let pods = v.pods.iter();
        pods.map(|p| (p.uid.clone(), p.deleted.is_some())).collect()
    };
    a.name == b.name
        && a.labels == b.labels
        && a.taints == b.taints
        && a.capacity == b.capacity
        && a.available == b.available
        && a.initialized == b.initialized
        && a.provider_id == b.provider_id
        && a.volumes == b.volumes
        && pods(a) == pods(b)
}

fn node_taints(node: &Node) -> Vec<Taint> {
    node.spec
        .as_ref()
        .and_then(|s| s.taints.clone())
        .unwrap_or_default()
}

fn status_capacity(node: &Node) -> ResourceList {
    let raw = node.status.as_ref().and_then(|s| s.capacity.as_ref());
    raw.map(amounts).unwrap_or_default()
}

fn status_allocatable(node: &Node) -> ResourceList {
    let raw = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
    raw.map(amounts).unwrap_or_default()
}

/// `own` with missing and zero entries taken from `promised`: a kubelet reports extended resources as zero until
/// their device plugin has registered.
fn filled(mut own: ResourceList, promised: &ResourceList) -> ResourceList {
    for (name, amount) in promised.iter() {
        if own.get(name) == Quantity::ZERO {
            own.set(name, amount);
        }
    }
    own
}
