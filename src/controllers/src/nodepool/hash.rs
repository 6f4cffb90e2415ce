//! `nodepool.hash`: the drift hash of a NodePool's template, in its annotations, and the move of claims to a new
//! version of the hash (`lifecycle-and-disruption.md` §3.2).

use async_trait::async_trait;
use karpenter_api::{NodeClaim, NodePool, labels};
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::runner::ReconcileError;
use karpenter_runtime::{Action, Key, Reconciler};
use karpenter_state::condition_is_true;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::Context;
use crate::lifecycle::write;

/// The hash as the pool stands.
#[must_use]
pub(crate) fn of(pool: &NodePool) -> String {
    karpenter_api::hash::node_pool(pool)
}

pub(super) struct Hash {
    pub(super) ctx: Context,
}

#[async_trait]
impl Reconciler for Hash {
    fn name(&self) -> &'static str {
        "nodepool.hash"
    }
    fn group_kind(&self) -> (&'static str, &'static str) {
        ("karpenter.sh", "NodePool")
    }
    fn metrics(&self) -> Option<&Metrics> {
        Some(&self.ctx.metrics)
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let Some(pool) = self.ctx.state.node_pool(&key.name) else {
            return Ok(Action::AwaitChange);
        };
        if !super::is_managed(&pool, &self.ctx.provider.node_class) {
            return Ok(Action::AwaitChange);
        }
        let hash = of(&pool);
        let held = |key: &str| {
            let all = pool.metadata.annotations.as_ref();
            all.and_then(|a| a.get(key)).map(String::as_str)
        };
        let version = labels::NODEPOOL_HASH_VERSION_VALUE;
        if held(labels::NODEPOOL_HASH_VERSION) != Some(version) {
            // Claims first: once the pool says the new version, nobody looks for old claims any more.
            for claim in self.ctx.state.node_claims() {
                if of_pool(&claim, &key.name)
                    && let Some(moved) = migrated(&claim, &hash)
                {
                    write::claim(&self.ctx, &claim, &moved).await?;
                }
            }
        }
        if held(labels::NODEPOOL_HASH) != Some(&*hash)
            || held(labels::NODEPOOL_HASH_VERSION) != Some(version)
        {
            let patch = json!({"metadata": {"annotations": {
                labels::NODEPOOL_HASH: hash,
                labels::NODEPOOL_HASH_VERSION: version,
            }}});
            let api: Api<NodePool> = Api::all(self.ctx.client.clone());
            let params = PatchParams::default();
            match api.patch(&key.name, &params, &Patch::Merge(patch)).await {
                Ok(pool) => self.ctx.state.apply_node_pool(pool),
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Action::AwaitChange)
    }
}

fn of_pool(claim: &NodeClaim, pool: &str) -> bool {
    let all = claim.metadata.labels.as_ref();
    all.and_then(|l| l.get(labels::NODEPOOL))
        .is_some_and(|p| p == pool)
}

/// `claim` moved to this version of the hash; none if it is there. A claim that has drifted keeps its hash, so that
/// it stays drifted.
fn migrated(claim: &NodeClaim, hash: &str) -> Option<NodeClaim> {
    let version = labels::NODEPOOL_HASH_VERSION_VALUE;
    let mut moved = claim.clone();
    let annotations = moved.metadata.annotations.get_or_insert_default();
    if annotations
        .get(labels::NODEPOOL_HASH_VERSION)
        .map(String::as_str)
        == Some(version)
    {
        return None;
    }
    annotations.insert(labels::NODEPOOL_HASH_VERSION.to_owned(), version.to_owned());
    if !condition_is_true(&claim.status.conditions, "Drifted") {
        annotations.insert(labels::NODEPOOL_HASH.to_owned(), hash.to_owned());
    }
    Some(moved)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::old_version("v2", false, Some(("new", "v3")))]
    #[case::drifted_keeps_its_hash("v2", true, Some(("old", "v3")))]
    #[case::there_already("v3", false, None)]
    fn claims_move_to_the_new_version_of_the_hash(
        #[case] version: &str,
        #[case] drifted: bool,
        #[case] expected: Option<(&str, &str)>,
    ) {
        let claim: NodeClaim = serde_json::from_value(json!({
            "metadata": {"name": "c", "annotations": {"karpenter.sh/nodepool-hash": "old", "karpenter.sh/nodepool-hash-version": version}},
            "status": {"conditions": [{"type": "Drifted", "status": if drifted { "True" } else { "False" },
                "reason": "x", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        }))
        .unwrap();
        let moved = migrated(&claim, "new").map(|c| c.metadata.annotations.unwrap());
        let got = moved.as_ref().map(|a| {
            (
                a["karpenter.sh/nodepool-hash"].as_str(),
                a["karpenter.sh/nodepool-hash-version"].as_str(),
            )
        });
        assert_eq!(got, expected);
    }
}
