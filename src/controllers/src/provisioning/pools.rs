//! Which NodePools may be bought from, and what they look like to the solver (`scheduling.md` §6.3, §7.1).

use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_api::{NodePool, labels};
use karpenter_cloud::NodeClassKind;
use karpenter_model::requirement::RequirementError;
use karpenter_model::resources::BadResource;
use karpenter_model::{
    InstanceType, LabelRegistry, PoolView, Requirement, Requirements, ResourceList,
};
use karpenter_state::condition_is_true;

/// Why a pool is not bought from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Its NodeClass is of a kind that another provider looks after.
    Unmanaged,
    /// It has `replicas`: pods do not make it grow.
    Static,
    /// Condition Ready is not True.
    NotReady,
    /// It is being deleted.
    Deleting,
}

/// Whether pods may be planned onto new machines of `pool`.
#[must_use]
pub fn unusable(pool: &NodePool, kind: &NodeClassKind) -> Option<Unusable> {
    match not_launchable(pool, kind) {
        Some(Unusable::Unmanaged) => Some(Unusable::Unmanaged),
        _ if pool.spec.replicas.is_some() => Some(Unusable::Static),
        other => other,
    }
}

/// Whether machines of `pool` may be launched at all, for pods or to hold its size.
#[must_use]
pub fn not_launchable(pool: &NodePool, kind: &NodeClassKind) -> Option<Unusable> {
    let class = &pool.spec.template.spec.node_class_ref;
    if class.group != kind.group || class.kind != kind.kind {
        Some(Unusable::Unmanaged)
    } else if pool.metadata.deletion_timestamp.is_some() {
        Some(Unusable::Deleting)
    } else if condition_is_true(&pool.status.conditions, "Ready") {
        None
    } else {
        Some(Unusable::NotReady)
    }
}

/// Why a pool's spec cannot be planned with.
#[derive(Debug, thiserror::Error)]
pub enum BadPool {
    /// A requirement of the template.
    #[error("nodepool {pool}: spec.template.spec.requirements: {source}")]
    Requirement {
        /// NodePool.
        pool: String,
        /// What is wrong with it.
        source: RequirementError,
    },
    /// A limit.
    #[error("nodepool {pool}: spec.limits: {source}")]
    Limit {
        /// NodePool.
        pool: String,
        /// What is wrong with it.
        source: BadResource,
    },
}

/// Label that names the NodeClass: `<group>/<kind in lower case>`.
#[must_use]
pub fn node_class_label(pool: &NodePool) -> String {
    let class = &pool.spec.template.spec.node_class_ref;
    format!("{}/{}", class.group, class.kind.to_lowercase())
}

/// The labels that every claim of the pool gets: the template's, the pool's and the NodeClass's.
#[must_use]
pub fn claim_labels(pool: &NodePool) -> BTreeMap<String, String> {
    let template = &pool.spec.template;
    let mut all = template.metadata.labels.clone().unwrap_or_default();
    let name = pool.metadata.name.clone().unwrap_or_default();
    all.insert(labels::NODEPOOL.to_owned(), name);
    all.insert(
        node_class_label(pool),
        template.spec.node_class_ref.name.clone(),
    );
    all
}

/// The pool as the solver sees it, selling `instance_types`, with machines of `usage` now.
///
/// # Errors
/// When requirements or limits cannot be read (validation refuses such pools, so that they are not Ready).
pub fn pool_view(
    pool: &NodePool,
    instance_types: Vec<Arc<InstanceType>>,
    usage: ResourceList,
    registry: &LabelRegistry,
) -> Result<PoolView, BadPool> {
    let name = pool.metadata.name.clone().unwrap_or_default();
    let template = &pool.spec.template;
    let labels = claim_labels(pool);
    let mut requirements = Requirements::from_specs(&template.spec.requirements, registry)
        .map_err(|source| BadPool::Requirement {
            pool: name.clone(),
            source,
        })?;
    for (key, value) in &labels {
        requirements.add(Requirement::is_in(registry.normalize(key), [value]));
    }
    let limits = pool
        .spec
        .limits
        .as_ref()
        .map(ResourceList::from_raw)
        .transpose()
        .map_err(|source| BadPool::Limit {
            pool: name.clone(),
            source,
        })?;
    Ok(PoolView {
        name: name.as_str().into(),
        uid: pool.metadata.uid.as_deref().unwrap_or_default().into(),
        weight: pool.spec.weight.unwrap_or(0),
        requirements,
        annotations: claim_annotations(pool),
        labels,
        taints: template.spec.taints.clone(),
        startup_taints: template.spec.startup_taints.clone(),
        node_class: template.spec.node_class_ref.clone(),
        expire_after: template.spec.expire_after.clone(),
        termination_grace_period: template.spec.termination_grace_period.clone(),
        instance_types,
        limits,
        usage,
    })
}

/// The annotations that every claim of the pool gets: the template's and the hash of this very state of the pool.
fn claim_annotations(pool: &NodePool) -> BTreeMap<String, String> {
    let template = &pool.spec.template;
    let mut all = template.metadata.annotations.clone().unwrap_or_default();
    let version = labels::NODEPOOL_HASH_VERSION_VALUE;
    all.insert(
        labels::NODEPOOL_HASH.to_owned(),
        crate::nodepool::hash::of(pool),
    );
    all.insert(labels::NODEPOOL_HASH_VERSION.to_owned(), version.to_owned());
    all
}
