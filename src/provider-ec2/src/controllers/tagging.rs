//! The `nodeclaim.tagging` controller (`aws-provider.md` §23): the node's name as a tag, once it is known, and the tags
//! that machines of older versions lack.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use karpenter_api::NodeClaim;
use karpenter_ec2_api::{Ec2Error, Tags};
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::runner::ReconcileError;
use karpenter_runtime::{Action, Key, Reconciler};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::labels as l;
use crate::shared::{Shared, instance_id};

/// Pause after a call: EC2 allows few CreateTags a second.
const PAUSE: Duration = Duration::from_secs(1);

/// The controller; run it with one worker.
pub(crate) struct TaggingController {
    pub(crate) shared: Arc<Shared>,
    pub(crate) metrics: Metrics,
}

#[derive(Debug, thiserror::Error)]
#[error("tagging instance {instance}: {source}")]
struct TaggingError {
    instance: String,
    source: Ec2Error,
}

#[async_trait]
impl Reconciler for TaggingController {
    fn name(&self) -> &'static str {
        "nodeclaim.tagging"
    }

    fn group_kind(&self) -> (&'static str, &'static str) {
        ("karpenter.sh", "NodeClaim")
    }

    fn metrics(&self) -> Option<&Metrics> {
        Some(&self.metrics)
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let api = self.shared.claim_api();
        let Some(claim) = self.shared.claims.get(&api, &key.name).await? else {
            return Ok(Action::AwaitChange);
        };
        let (true, Some(id)) = (is_due(&claim), instance_id(&claim.status.provider_id)) else {
            return Ok(Action::AwaitChange);
        };
        let failed = |source| {
            ReconcileError::Retry(Box::new(TaggingError {
                instance: id.to_owned(),
                source,
            }))
        };
        let ids = [id.to_owned()];
        let has = match self.shared.ec2.describe_instances(&ids, &[]).await {
            Ok(found) => match found.into_iter().next() {
                Some(instance) => instance.tags,
                None => return Ok(Action::AwaitChange),
            },
            Err(e) if e.is_not_found() => return Ok(Action::AwaitChange),
            Err(e) => return Err(failed(e)),
        };
        let wanted: Tags = [
            ("Name", claim.status.node_name.clone()),
            (l::NODE_CLAIM_TAG, key.name.to_string()),
            (l::CLUSTER_TAG, self.shared.settings.cluster_name.clone()),
        ]
        .into_iter()
        .filter(|(k, v)| has.get(*k) != Some(v) && (*k == "Name" || !has.contains_key(*k)))
        .map(|(k, v)| (k.to_owned(), v))
        .collect();
        if !wanted.is_empty() {
            let tagged = self.shared.ec2.create_tags(&ids, &wanted).await;
            match tagged {
                Err(e) if e.is_not_found() => return Ok(Action::AwaitChange),
                result => result.map_err(failed)?,
            }
        }
        let patch = json!({
            "metadata": { "annotations": { l::TAGGED: "true", l::CLUSTER_NAME_TAGGED: "true" } },
        });
        match api
            .patch(&key.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
        {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            result => {
                result?;
            }
        }
        if !wanted.is_empty() {
            self.shared.clock.sleep(PAUSE).await;
        }
        Ok(Action::AwaitChange)
    }
}

/// Whether a claim's machine has a node and not all its tags.
pub(crate) fn is_due(claim: &NodeClaim) -> bool {
    let done = |key: &str| {
        let annotations = claim.metadata.annotations.as_ref();
        annotations
            .and_then(|a| a.get(key))
            .is_some_and(|v| v == "true")
    };
    !claim.status.node_name.is_empty()
        && claim.metadata.deletion_timestamp.is_none()
        && !(done(l::TAGGED) && done(l::CLUSTER_NAME_TAGGED))
}
