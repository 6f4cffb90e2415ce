//! The drift hash that claims of a NodePool are created with.

use karpenter_api::{NodePool, labels};

/// The hash as the pool stands; none if nobody has hashed it.
pub(crate) fn of(pool: &NodePool) -> Option<String> {
    let annotations = pool.metadata.annotations.as_ref();
    annotations.and_then(|a| a.get(labels::NODEPOOL_HASH).cloned())
}
