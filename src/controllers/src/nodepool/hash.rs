//! The drift hash of a NodePool's template.

use karpenter_api::{NodePool, labels};

/// The hash as the pool stands.
#[must_use]
pub(crate) fn of(pool: &NodePool) -> String {
    pool.metadata
        .annotations
        .as_ref()
        .and_then(|a| a.get(labels::NODEPOOL_HASH))
        .cloned()
        .unwrap_or_default()
}
