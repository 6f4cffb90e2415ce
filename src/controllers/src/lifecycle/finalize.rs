//! The end of a claim: its Node first, then its instance, then its finalizer (`lifecycle-and-disruption.md` §3
//! "NC finalize").

use std::borrow::Cow;

use jiff::Timestamp;
use karpenter_api::{NodeClaim, labels};
use karpenter_cloud::CloudError;
use karpenter_runtime::Action;
use karpenter_runtime::runner::ReconcileError;

use super::objects::{
    annotation, conditions, has_finalizer, is_deleting, is_true, label_or_empty, later, name,
    transition,
};
use super::status::{self, Status};
use super::write;
use crate::Context;
use crate::termination::node::INSTANCE_POLL;
use crate::termination::{TerminationError, events};
use karpenter_api::duration;

/// When the drain of a deleted claim must be over: none if it has no such time, or has it written down already.
fn new_deadline(claim: &NodeClaim) -> Option<Timestamp> {
    if annotation(&claim.metadata, labels::TERMINATION_TIMESTAMP).is_some() {
        return None;
    }
    let deleted = claim.metadata.deletion_timestamp.as_ref()?.0;
    let grace = duration::parse_hms(claim.spec.termination_grace_period.as_deref()?).ok()?;
    Some(later(deleted, grace))
}

/// One step towards the claim's end.
pub(crate) async fn finalize(ctx: &Context, claim: &NodeClaim) -> Result<Action, ReconcileError> {
    if !has_finalizer(&claim.metadata) {
        return Ok(Action::AwaitChange);
    }
    let Some(claim) = annotate_deadline(ctx, claim).await? else {
        return Ok(Action::AwaitChange);
    };
    if is_true(&claim.status.conditions, conditions::REGISTERED) {
        let nodes = ctx.state.nodes_by_provider_id(&claim.status.provider_id);
        for node in nodes.iter().filter(|n| !is_deleting(&n.metadata)) {
            write::delete_node(ctx, node).await?;
        }
        if !ctx
            .state
            .nodes_by_provider_id(&claim.status.provider_id)
            .is_empty()
        {
            // The Nodes' end comes back as a change of theirs.
            return Ok(Action::AwaitChange);
        }
    }
    let now = ctx.clock.wall();
    let mut claim = claim;
    if !claim.status.provider_id.is_empty() {
        let gone = match ctx.provider.cloud.delete(&claim).await {
            Ok(()) => false,
            Err(CloudError::NotFound(_)) => true,
            Err(source) => {
                let claim = name(&claim.metadata).to_owned();
                return Err(TerminationError::Cloud { claim, source }.into());
            }
        };
        let mut wanted = claim.clone();
        status::set(
            &mut wanted,
            conditions::INSTANCE_TERMINATING,
            Status::True,
            now,
        );
        match write::claim(ctx, &claim, &wanted).await? {
            Some(written) => claim = written.into_owned(),
            None => return Ok(Action::AwaitChange),
        }
        if !gone {
            return Ok(Action::RequeueAfter(INSTANCE_POLL));
        }
    }
    finish(ctx, &claim, now).await
}

async fn annotate_deadline(
    ctx: &Context,
    claim: &NodeClaim,
) -> Result<Option<NodeClaim>, ReconcileError> {
    let Some(deadline) = new_deadline(claim) else {
        return Ok(Some(claim.clone()));
    };
    let text = deadline.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut wanted = claim.clone();
    let all = wanted.metadata.annotations.get_or_insert_default();
    all.insert(labels::TERMINATION_TIMESTAMP.to_owned(), text.clone());
    let written = write::claim(ctx, claim, &wanted).await?;
    if let Some(claim) = &written {
        tracing::info!(
            { labels::TERMINATION_TIMESTAMP } = %text,
            "annotated nodeclaim"
        );
        ctx.events.publish(events::claim_deadline(claim, &text));
    }
    Ok(written.map(Cow::into_owned))
}

async fn finish(
    ctx: &Context,
    claim: &NodeClaim,
    now: Timestamp,
) -> Result<Action, ReconcileError> {
    if !write::remove_claim_finalizer(ctx, claim).await? {
        return Ok(Action::AwaitChange);
    }
    tracing::info!(NodeClaim = name(&claim.metadata), "deleted nodeclaim");
    let meta = &claim.metadata;
    let pool = label_or_empty(meta, labels::NODEPOOL);
    let since = |at: Timestamp| now.duration_since(at).as_secs_f64();
    if let Some(at) = transition(&claim.status.conditions, conditions::INSTANCE_TERMINATING) {
        let name = "karpenter_nodeclaims_instance_termination_duration_seconds";
        ctx.metrics.observe(name, &[("nodepool", pool)], since(at));
    }
    if let Some(at) = &meta.deletion_timestamp {
        let name = "karpenter_nodeclaims_termination_duration_seconds";
        ctx.metrics
            .observe(name, &[("nodepool", pool)], since(at.0));
    }
    ctx.metrics.inc(
        "karpenter_nodeclaims_terminated_total",
        &[
            ("nodepool", pool),
            ("capacity_type", label_or_empty(meta, labels::CAPACITY_TYPE)),
            ("zone", label_or_empty(meta, labels::ZONE)),
        ],
    );
    Ok(Action::AwaitChange)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    #[rstest]
    #[case::no_grace_period(json!({}), json!({}), None)]
    #[case::counts_from_the_deletion(
        json!({}), json!({"terminationGracePeriod": "1h30m"}), Some("2026-01-01T01:30:00Z"))]
    #[case::never_moved(
        json!({"karpenter.sh/nodeclaim-termination-timestamp": "2026-01-01T00:10:00Z"}),
        json!({"terminationGracePeriod": "1h"}), None)]
    #[case::zero_is_at_once(json!({}), json!({"terminationGracePeriod": "0s"}), Some("2026-01-01T00:00:00Z"))]
    fn a_deadline_is_set_once(
        #[case] annotations: Value,
        #[case] spec: Value,
        #[case] expected: Option<&str>,
    ) {
        let claim: NodeClaim = serde_json::from_value(json!({
            "metadata": {
                "name": "c", "deletionTimestamp": "2026-01-01T00:00:00Z", "annotations": annotations
            },
            "spec": spec
        }))
        .expect("a claim");
        let expected = expected.map(|t| t.parse::<Timestamp>().expect("a time"));
        assert_eq!(new_deadline(&claim), expected);
    }
}
