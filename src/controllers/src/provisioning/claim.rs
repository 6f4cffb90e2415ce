//! The NodeClaim that a planned node becomes (`scheduling.md` §10): data in, object out.

use std::collections::BTreeSet;

use karpenter_api::kinds::{ManagedKind, ObjectMeta, OwnerReference, TypeInfo};
use karpenter_api::nodeclaim::{NodeClaimSpec, NodeClaimStatus};
use karpenter_api::{NodeClaim, NodePool, labels};
use karpenter_model::plan::PlannedNode;
use karpenter_model::{LabelRegistry, PoolView, Requirement, Requirements};
use karpenter_runtime::Rng;

/// Keys that only a simulation knows: they become true of a node later, and are never asked of a claim.
const NOT_WRITTEN: [&str; 3] = [labels::HOSTNAME, labels::REGISTERED, labels::INITIALIZED];

/// The claim to create for `planned`, a node of `pool`.
#[must_use]
pub fn node_claim(planned: &PlannedNode, pool: &PoolView, registry: &LabelRegistry) -> NodeClaim {
    let mut requirements = planned.requirements.clone();
    // `add` intersects and keeps the larger minValues, so the key's own one survives the list.
    requirements.add(Requirement::is_in(
        labels::INSTANCE_TYPE,
        planned.instance_types.iter(),
    ));
    if !planned.capacity_types.is_empty() {
        requirements.add(Requirement::is_in(
            labels::CAPACITY_TYPE,
            planned.capacity_types.iter(),
        ));
    }
    let mut claim = template_claim(pool, requirements, registry);
    let annotations = claim.metadata.annotations.get_or_insert_default();
    annotations.insert(
        labels::MIN_VALUES_RELAXED.to_owned(),
        planned.min_values_relaxed.to_string(),
    );
    for (key, applied) in overlaid(planned, pool, registry) {
        if applied {
            annotations.insert(key.to_owned(), "true".to_owned());
        }
    }
    claim.spec.resources.requests = planned.requests.to_raw();
    claim
}

/// Whether NodeOverlays have a part in what may be launched: in its price, and in its resources.
fn overlaid(
    planned: &PlannedNode,
    pool: &PoolView,
    registry: &LabelRegistry,
) -> [(&'static str, bool); 2] {
    let chosen: BTreeSet<&str> = planned.instance_types.iter().map(|t| &**t).collect();
    let types = pool.instance_types.iter();
    let chosen = types.filter(|t| chosen.contains(&*t.name));
    let (mut price, mut capacity) = (false, false);
    for chosen in chosen {
        capacity |= chosen.overlaid;
        let mut offers = chosen.offers(&planned.requirements, registry);
        price |= offers.any(|o| o.overlaid);
    }
    [
        (labels::PRICE_OVERLAY_APPLIED, price),
        (labels::CAPACITY_OVERLAY_APPLIED, capacity),
    ]
}

/// Most characters of a pool's name in those of its claims: what the API server leaves of a `generateName`.
const NAME_BASE_LENGTH: usize = 58;
/// Characters that the API server appends to a `generateName`.
const NAME_SUFFIX_LENGTH: usize = 5;

/// A name for a claim of `pool`, as the API server would make it of a `generateName`.
#[must_use]
pub(crate) fn name(pool: &str, rng: &mut Rng) -> String {
    let base = format!("{pool}-");
    let base = base.chars().take(NAME_BASE_LENGTH).collect::<String>();
    base + &rng.suffix(NAME_SUFFIX_LENGTH)
}

/// The claim of a static pool: its template and nothing else. The provider chooses the machine.
#[must_use]
pub fn static_claim(pool: &PoolView, registry: &LabelRegistry) -> NodeClaim {
    template_claim(pool, pool.requirements.clone(), registry)
}

fn template_claim(
    pool: &PoolView,
    mut requirements: Requirements,
    registry: &LabelRegistry,
) -> NodeClaim {
    for key in NOT_WRITTEN {
        requirements.remove(key);
    }
    let mut claim_labels = pool.labels.clone();
    for requirement in requirements.iter() {
        let key = &*requirement.key;
        if registry.is_well_known(key) || claim_labels.contains_key(key) {
            continue;
        }
        if let Some(value) = requirement.any() {
            claim_labels.insert(key.to_owned(), value.to_string());
        }
    }
    NodeClaim {
        types: TypeInfo {
            api_version: format!("{}/{}", NodeClaim::GROUP, NodeClaim::VERSION),
            kind: NodeClaim::KIND.to_owned(),
        },
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", pool.name)),
            labels: Some(claim_labels),
            annotations: Some(pool.annotations.clone()),
            owner_references: Some(vec![OwnerReference {
                api_version: format!("{}/{}", NodePool::GROUP, NodePool::VERSION),
                kind: NodePool::KIND.to_owned(),
                name: pool.name.to_string(),
                uid: pool.uid.to_string(),
                block_owner_deletion: Some(true),
                controller: None,
            }]),
            ..ObjectMeta::default()
        },
        spec: NodeClaimSpec {
            taints: pool.taints.clone(),
            startup_taints: pool.startup_taints.clone(),
            requirements: requirements.to_specs(),
            node_class_ref: pool.node_class.clone(),
            termination_grace_period: pool.termination_grace_period.clone(),
            expire_after: pool.expire_after.clone(),
            ..NodeClaimSpec::default()
        },
        status: NodeClaimStatus::default(),
    }
}
