//! `nodeclaim.disruption`: the conditions Drifted and Consolidatable, which the disruption methods act on
//! (`lifecycle-and-disruption.md` §3.3 and §3.4). Everything they depend on is watched, so nothing is looked at
//! merely because time passed; `consolidateAfter` is waited for to the instant.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use karpenter_api::{NodeClaim, NodePool, labels};
use karpenter_cloud::CloudError;
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::runner::ReconcileError;
use karpenter_runtime::{Action, Key, Reconciler};

use super::objects::{
    annotation, conditions, is_deleting, is_managed_claim, is_true, label, later, name, transition,
    until,
};
use super::status::{self, Status};
use super::write;
use crate::Context;
use karpenter_api::duration;
use karpenter_model::{LabelRegistry, Requirements, Undefined};

/// Drift could not be judged.
#[derive(Debug, thiserror::Error)]
#[error("judging the drift of NodeClaim {claim}: {source}")]
struct DriftError {
    claim: String,
    #[source]
    source: CloudError,
}

/// Age from which a claim's instance type is looked up in the catalogue.
const TYPE_CHECK_AGE: Duration = Duration::from_secs(60 * 60);

/// The reconciler.
pub(crate) struct Disruptable {
    pub(crate) ctx: Context,
}

/// Whether a claim's node has been quiet for long enough to be consolidated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quiet {
    /// It does not count: not initialized, or never to be consolidated.
    No,
    /// It will be then, if nothing happens before.
    Until(Timestamp),
    /// It has been.
    Yes,
}

/// Judges a claim of `pool` at `now`.
pub(crate) fn quiet(claim: &NodeClaim, pool: &NodePool, now: Timestamp) -> Quiet {
    let is_static = pool.spec.replicas.is_some();
    let all = &claim.status.conditions;
    let initialized = is_true(all, conditions::INITIALIZED);
    // `Never` is no duration.
    let wait = duration::parse_hms(&pool.spec.disruption.consolidate_after).ok();
    let (Some(wait), true, false) = (wait, initialized, is_static) else {
        return Quiet::No;
    };
    let since = claim.status.last_pod_event_time.as_ref().map(|t| t.0);
    let Some(since) = since.or_else(|| transition(all, conditions::INITIALIZED)) else {
        return Quiet::No;
    };
    let at = later(since, wait);
    if now >= at {
        Quiet::Yes
    } else {
        Quiet::Until(at)
    }
}

/// Whether the template the claim was made from is another one now: both carry a hash of the same algorithm, and
/// the hashes differ.
fn template_has_changed(claim: &NodeClaim, pool: &NodePool) -> bool {
    let of = |key: &str| {
        (
            annotation(&claim.metadata, key),
            annotation(&pool.metadata, key),
        )
    };
    match (of(labels::NODEPOOL_HASH_VERSION), of(labels::NODEPOOL_HASH)) {
        ((Some(v1), Some(v2)), (Some(h1), Some(h2))) => v1 == v2 && h1 != h2,
        _ => false,
    }
}

#[async_trait]
impl Reconciler for Disruptable {
    fn name(&self) -> &'static str {
        "nodeclaim.disruption"
    }
    fn group_kind(&self) -> (&'static str, &'static str) {
        ("karpenter.sh", "NodeClaim")
    }
    fn metrics(&self) -> Option<&Metrics> {
        Some(&self.ctx.metrics)
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let Some(claim) = self.ctx.state.node_claim(&key.name) else {
            return Ok(Action::AwaitChange);
        };
        let ours = is_managed_claim(&claim, &self.ctx.provider.node_class);
        if !ours || is_deleting(&claim.metadata) {
            return Ok(Action::AwaitChange);
        }
        let pool = label(&claim.metadata, labels::NODEPOOL)
            .and_then(|name| self.ctx.state.node_pool(name));
        let Some(pool) = pool else {
            return Ok(Action::AwaitChange);
        };
        let mut wanted = (*claim).clone();
        let drift = self.drift(&claim, &pool).await;
        let now = self.ctx.clock.wall();
        match &drift {
            Ok(None) => status::clear(&mut wanted, conditions::DRIFTED),
            Ok(Some(reason)) => {
                let drifted = Status::true_because(reason, reason);
                status::set(&mut wanted, conditions::DRIFTED, drifted, now);
            }
            // What is known stays until more is known.
            Err(_) => {}
        }
        let mut again: Option<Duration> = None;
        match quiet(&claim, &pool, now) {
            Quiet::Yes => status::set(&mut wanted, conditions::CONSOLIDATABLE, Status::True, now),
            Quiet::No => status::clear(&mut wanted, conditions::CONSOLIDATABLE),
            Quiet::Until(at) => {
                status::clear(&mut wanted, conditions::CONSOLIDATABLE);
                again = Some(until(at, now));
            }
        }
        if let Some(at) = self.type_check(&claim) {
            let wait = until(at, now);
            again = Some(again.map_or(wait, |a| a.min(wait)));
        }
        write::claim(&self.ctx, &claim, &wanted).await?;
        drift?;
        Ok(again.map_or(Action::AwaitChange, Action::RequeueAfter))
    }
}

impl Disruptable {
    /// Why the claim's machine is not what is asked for now, the cheapest reasons first; none = it is, or cannot be
    /// told without its NodePool's NodeClass.
    async fn drift(
        &self,
        claim: &NodeClaim,
        pool: &NodePool,
    ) -> Result<Option<String>, ReconcileError> {
        if !is_true(&claim.status.conditions, conditions::LAUNCHED) {
            return Ok(None);
        }
        if template_has_changed(claim, pool) {
            return Ok(Some("NodePoolDrifted".to_owned()));
        }
        if requirements_have_changed(claim, pool, &self.ctx.provider.labels) {
            return Ok(Some("RequirementsDrifted".to_owned()));
        }
        if self.type_is_gone(claim, pool).await {
            return Ok(Some("InstanceTypeNotFound".to_owned()));
        }
        let class = &claim.spec.node_class_ref.name;
        if self.ctx.state.node_class(class).is_none() {
            return Ok(None);
        }
        let answer = self.ctx.provider.cloud.is_drifted(claim).await;
        match answer {
            Ok(reason) => Ok(reason),
            // The machine is gone: others see to that.
            Err(CloudError::NotFound(_)) => Ok(None),
            Err(source) => Err(ReconcileError::Retry(Box::new(DriftError {
                claim: name(&claim.metadata).to_owned(),
                source,
            }))),
        }
    }

    /// When a claim that is too young for it now has its type looked up; none if it is not, or has no type to look up.
    fn type_check(&self, claim: &NodeClaim) -> Option<Timestamp> {
        type_known_at(claim).filter(|at| *at > self.ctx.clock.wall())
    }

    /// Whether what the claim was bought as is not sold any more: its type, or any offering that its labels fit.
    /// Availability is not asked. Young claims are not: catalogues may lag behind a launch.
    async fn type_is_gone(&self, claim: &NodeClaim, pool: &NodePool) -> bool {
        if type_known_at(claim).is_none_or(|at| at > self.ctx.clock.wall()) {
            return false;
        }
        let Ok(types) = self.ctx.provider.cloud.instance_types(pool).await else {
            // Not to know is not to have drifted.
            return false;
        };
        let value = |key| label(&claim.metadata, key).unwrap_or_default();
        let bought = value(labels::INSTANCE_TYPE);
        let (zone, capacity_type) = (value(labels::ZONE), value(labels::CAPACITY_TYPE));
        let sold = types.iter().find(|t| &*t.name == bought);
        !sold.is_some_and(|t| {
            let sold_as = |kind| t.offering(zone, kind).is_some();
            // A reservation that is over leaves a machine behind that is paid for by the hour.
            let reserved = capacity_type == labels::CAPACITY_RESERVED;
            sold_as(capacity_type) || (reserved && sold_as(labels::CAPACITY_ON_DEMAND))
        })
    }
}

/// When a claim is old enough for its type to be looked up; none if it has none.
fn type_known_at(claim: &NodeClaim) -> Option<Timestamp> {
    label(&claim.metadata, labels::INSTANCE_TYPE)?;
    let created = claim.metadata.creation_timestamp.as_ref()?.0;
    Some(later(created, TYPE_CHECK_AGE))
}

/// Whether the claim's labels do not satisfy the pool's requirements as they are now: changed requirements do not change
/// the template's hash.
fn requirements_have_changed(claim: &NodeClaim, pool: &NodePool, registry: &LabelRegistry) -> bool {
    let Ok(wanted) = Requirements::from_specs(&pool.spec.template.spec.requirements, registry)
    else {
        return false;
    };
    let has = claim.metadata.labels.clone().unwrap_or_default();
    let has = Requirements::from_labels(&has, registry);
    !has.is_compatible(&wanted, Undefined::Refused)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn claim(status: &Value) -> NodeClaim {
        serde_json::from_value(json!({"metadata": {"name": "c"}, "status": status}))
            .expect("a claim")
    }

    fn pool(spec: &Value) -> NodePool {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).expect("a pool")
    }

    fn initialized(status: &str, last_event: Option<&str>) -> Value {
        let mut value = json!({"conditions": [{
            "type": "Initialized", "status": status, "reason": "r", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"
        }]});
        if let Some(text) = last_event {
            value["lastPodEventTime"] = text.into();
        }
        value
    }

    #[rstest]
    #[case::counts_from_initialization(
        initialized("True", None), json!({"disruption": {"consolidateAfter": "30s"}}),
        "2026-01-01T00:00:29Z", Quiet::Until(at("2026-01-01T00:00:30Z")))]
    #[case::to_the_instant(
        initialized("True", None), json!({"disruption": {"consolidateAfter": "30s"}}),
        "2026-01-01T00:00:30Z", Quiet::Yes)]
    #[case::counts_from_the_last_pod_event(
        initialized("True", Some("2026-01-01T00:05:00Z")), json!({"disruption": {"consolidateAfter": "1m"}}),
        "2026-01-01T00:05:30Z", Quiet::Until(at("2026-01-01T00:06:00Z")))]
    #[case::at_once_by_default(initialized("True", None), json!({"disruption": {}}), "2026-01-01T00:00:00Z", Quiet::Yes)]
    #[case::never(
        initialized("True", None), json!({"disruption": {"consolidateAfter": "Never"}}),
        "2026-06-01T00:00:00Z", Quiet::No)]
    #[case::not_initialized(
        initialized("Unknown", None), json!({"disruption": {"consolidateAfter": "0s"}}),
        "2026-06-01T00:00:00Z", Quiet::No)]
    #[case::static_pool(
        initialized("True", None), json!({"replicas": 3, "disruption": {"consolidateAfter": "0s"}}),
        "2026-06-01T00:00:00Z", Quiet::No)]
    fn quiet_nodes_may_be_consolidated(
        #[case] status: Value,
        #[case] spec: Value,
        #[case] now: &str,
        #[case] expected: Quiet,
    ) {
        assert_eq!(quiet(&claim(&status), &pool(&spec), at(now)), expected);
    }

    #[rstest]
    #[case::same(("v3", "1"), ("v3", "1"), false)]
    #[case::other_template(("v3", "1"), ("v3", "2"), true)]
    #[case::other_algorithm(("v2", "1"), ("v3", "2"), false)]
    fn a_changed_template_drifts(
        #[case] of_claim: (&str, &str),
        #[case] of_pool: (&str, &str),
        #[case] expected: bool,
    ) {
        let annotations = |(version, hash): (&str, &str)| {
            Some(std::collections::BTreeMap::from([
                (labels::NODEPOOL_HASH_VERSION.to_owned(), version.to_owned()),
                (labels::NODEPOOL_HASH.to_owned(), hash.to_owned()),
            ]))
        };
        let (mut claim, mut pool) = (NodeClaim::default(), NodePool::default());
        claim.metadata.annotations = annotations(of_claim);
        pool.metadata.annotations = annotations(of_pool);
        assert_eq!(template_has_changed(&claim, &pool), expected);
        claim.metadata.annotations = None;
        assert!(
            !template_has_changed(&claim, &pool),
            "without a hash nothing is known"
        );
    }

    #[rstest]
    #[case::fits(json!([{"key": "team", "operator": "In", "values": ["a", "b"]}]), false)]
    #[case::other_value(json!([{"key": "team", "operator": "In", "values": ["b"]}]), true)]
    #[case::key_that_it_lacks(json!([{"key": "kubernetes.io/arch", "operator": "Exists"}]), true)]
    #[case::key_that_it_may_lack(json!([{"key": "kubernetes.io/arch", "operator": "NotIn", "values": ["arm64"]}]), false)]
    fn changed_requirements_drift(#[case] requirements: Value, #[case] expected: bool) {
        let pool = pool(&json!({"template": {"spec": {"requirements": requirements}}}));
        let mut claim = claim(&json!({}));
        claim.metadata.labels = Some([("team".to_owned(), "a".to_owned())].into());
        let registry = LabelRegistry::default();
        assert_eq!(
            requirements_have_changed(&claim, &pool, &registry),
            expected
        );
    }
}
