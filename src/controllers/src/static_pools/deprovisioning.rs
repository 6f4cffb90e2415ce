//! `static.deprovisioning`: deletes the claims that a static NodePool has too many, those first that are missed least.
//! That a pool is scaled down is its owner's wish: no budget holds it, only the drain takes its time.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use karpenter_api::{NodeClaim, duration, labels};
use karpenter_model::Pod;
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::runner::ReconcileError;
use karpenter_runtime::{Action, Key, Reconciler};

use super::provisioning::Launches;
use super::replicas;
use crate::Context;
use crate::lifecycle::objects::{annotation, conditions, is_deleting, is_true, name};
use crate::lifecycle::{reread, write};
use crate::provisioning::pools::{self, Unusable};

/// The reconciler, keyed by NodePool.
pub(super) struct Deprovisioning {
    pub(super) ctx: Context,
    pub(super) launches: Arc<Launches>,
}

#[async_trait]
impl Reconciler for Deprovisioning {
    fn name(&self) -> &'static str {
        "static.deprovisioning"
    }
    fn group_kind(&self) -> (&'static str, &'static str) {
        ("karpenter.sh", "NodePool")
    }
    fn metrics(&self) -> Option<&Metrics> {
        Some(&self.ctx.metrics)
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let ctx = &self.ctx;
        let Some(pool) = ctx.state.node_pool(&key.name) else {
            return Ok(Action::AwaitChange);
        };
        let foreign =
            pools::not_launchable(&pool, &ctx.provider.node_class) == Some(Unusable::Unmanaged);
        let Some(replicas) = replicas(&pool).filter(|_| !foreign) else {
            return Ok(Action::AwaitChange);
        };
        if is_deleting(&pool.metadata) {
            // All its claims go with it.
            return Ok(Action::AwaitChange);
        }
        let active = ctx.state.active_claims(&key.name);
        let excess = active.len().saturating_sub(replicas);
        if excess == 0 {
            return Ok(Action::AwaitChange);
        }
        for member in least_missed(ctx, &active, excess).await? {
            let claim_name = name(&member.claim.metadata);
            self.launches.not_needed(claim_name);
            if write::delete_claim(ctx, &member.claim).await? {
                tracing::info!(
                    NodePool = %key.name,
                    NodeClaim = claim_name,
                    replicas,
                    "deleted nodeclaim of static nodepool, scaling down"
                );
            }
        }
        Ok(Action::AwaitChange)
    }
}

/// So many claims that are missed least. The machines behind them are looked at anew before that is said: the change of the
/// pool may be here before the news of pods that came before it.
async fn least_missed(
    ctx: &Context,
    active: &[Arc<NodeClaim>],
    count: usize,
) -> Result<Vec<Member>, ReconcileError> {
    let mut seen = BTreeSet::new();
    loop {
        let now = ctx.clock.wall();
        let judged = active.iter().map(|c| Member::of(ctx, c.clone(), now));
        let mut members: Vec<Member> = judged.collect();
        members.sort_by(Member::least_missed_first);
        members.truncate(count);
        let nodes = members.iter().filter_map(|m| m.node.clone());
        let unseen: Vec<String> = nodes.filter(|n| seen.insert(n.clone())).collect();
        if unseen.is_empty() {
            return Ok(members);
        }
        for node in unseen {
            reread::pods_on(ctx, &node).await?;
        }
    }
}

/// How much of a machine there is to miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    /// There is no machine yet.
    Unlaunched,
    /// Nothing but DaemonSets' pods runs on it.
    Empty,
    /// Pods run on it.
    Used,
}

/// A claim with what it is ranked by.
#[derive(Clone, Debug)]
struct Member {
    claim: Arc<NodeClaim>,
    /// Name of its Node, if it has one.
    node: Option<String>,
    use_: Use,
    /// Whether it or a pod on it is protected from disruption.
    protected: bool,
    /// What evicting its pods costs, less for a machine that is old anyway.
    cost: f64,
}

impl Member {
    fn of(ctx: &Context, claim: Arc<NodeClaim>, now: Timestamp) -> Self {
        let mut nodes = ctx.state.nodes_by_provider_id(&claim.status.provider_id);
        let node = nodes.pop();
        let pods = node
            .as_ref()
            .map_or_else(Vec::new, |n| ctx.state.pods_on(name(&n.metadata)));
        Self::judged(claim, node.as_deref(), &pods, now)
    }

    fn judged(
        claim: Arc<NodeClaim>,
        node: Option<&Node>,
        pods: &[Arc<Pod>],
        now: Timestamp,
    ) -> Self {
        let running = || pods.iter().filter(|p| !p.is_terminal());
        let guarded = running().any(|p| !p.is_disruptable(now));
        let use_ = if claim.status.provider_id.is_empty() {
            Use::Unlaunched
        } else if running().all(|p| p.is_daemon()) && !guarded {
            Use::Empty
        } else {
            Use::Used
        };
        let marked =
            node.and_then(|n| annotation(&n.metadata, labels::DO_NOT_DISRUPT)) == Some("true");
        let evictions: f64 = running().map(|p| p.eviction_cost()).sum();
        Self {
            cost: evictions * lifetime_left(&claim, now),
            use_,
            protected: guarded || marked,
            node: node.map(|n| name(&n.metadata).to_owned()),
            claim,
        }
    }

    /// Ties go to machines that never came up, then to those that have drifted, which are to go anyway.
    fn least_missed_first(&self, other: &Self) -> Ordering {
        let is = |m: &Self, kind| is_true(&m.claim.status.conditions, kind);
        let rank = |m: &Self| (m.use_, m.protected);
        let tie = |m: &Self| {
            (
                is(m, conditions::INITIALIZED),
                !is(m, conditions::DRIFTED),
                name(&m.claim.metadata).to_owned(),
            )
        };
        rank(self)
            .cmp(&rank(other))
            .then_with(|| self.cost.total_cmp(&other.cost))
            .then_with(|| tie(self).cmp(&tie(other)))
    }
}

/// How much of its life a machine has before it, from 1 to 0; 1 if it never expires.
fn lifetime_left(claim: &NodeClaim, now: Timestamp) -> f64 {
    let created = claim.metadata.creation_timestamp.as_ref().map(|t| t.0);
    // `Never` is no duration.
    let life = claim.spec.expire_after.as_deref();
    let life = life.and_then(|text| duration::parse_hms(text).ok());
    let (Some(created), Some(life)) = (created, life) else {
        return 1.0;
    };
    if life.is_zero() {
        return 0.0;
    }
    let age = now.duration_since(created).as_secs_f64();
    (1.0 - age / life.as_secs_f64()).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use karpenter_model::pod::{Owner, Phase};
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T12:00:00Z".parse().expect("a time")
    }

    fn claim(name: &str, patch: Value) -> Arc<NodeClaim> {
        let mut claim = json!({
            "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"expireAfter": "24h"},
            "status": {"providerID": "x", "conditions": [{"type": "Initialized", "status": "True",
                "reason": "Initialized", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
        });
        for (key, value) in patch.as_object().expect("an object") {
            claim[key] = value.clone();
        }
        Arc::new(serde_json::from_value(claim).expect("a claim"))
    }

    fn pod(owner: Owner, annotations: &[(&str, &str)], phase: Phase) -> Arc<Pod> {
        let annotations = annotations
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Arc::new(Pod {
            owner,
            phase,
            annotations: annotations.collect(),
            ..Pod::default()
        })
    }

    fn order(members: &mut [Member]) -> Vec<&str> {
        members.sort_by(Member::least_missed_first);
        members.iter().map(|m| name(&m.claim.metadata)).collect()
    }

    #[test]
    fn what_is_missed_least_goes_first() {
        let dnd = (labels::DO_NOT_DISRUPT, "true");
        let plain = || pod(Owner::Other, &[], Phase::Running);
        let dear = (labels::POD_DELETION_COST, "134217728");
        let held: Node = serde_json::from_value(
            json!({"metadata": {"annotations": {labels::DO_NOT_DISRUPT: "true"}}}),
        )
        .expect("a node");
        let of =
            |name, pods: &[Arc<Pod>]| Member::judged(claim(name, json!({})), None, pods, now());
        let mut members = [
            of("h-guarded", &[pod(Owner::Other, &[dnd], Phase::Running)]),
            of(
                "g-guarded-daemon",
                &[pod(Owner::DaemonSet, &[dnd], Phase::Running)],
            ),
            of("f-dear", &[pod(Owner::Other, &[dear], Phase::Running)]),
            of("e-two", &[plain(), plain()]),
            of("d-one", &[plain()]),
            of("c-ended", &[pod(Owner::Other, &[dnd], Phase::Succeeded)]),
            of("b-daemons", &[pod(Owner::DaemonSet, &[], Phase::Running)]),
            Member::judged(claim("i-held", json!({})), Some(&held), &[], now()),
            Member::judged(
                claim("z-unlaunched", json!({"status": {}})),
                None,
                &[],
                now(),
            ),
        ];
        assert_eq!(
            order(&mut members),
            [
                "z-unlaunched",
                "c-ended",
                "b-daemons",
                "i-held",
                "d-one",
                "e-two",
                "f-dear",
                "g-guarded-daemon",
                "h-guarded",
            ]
        );
    }

    #[test]
    fn ties_go_to_the_broken_then_to_the_drifted() {
        let condition = |kind: &str| {
            json!({"type": kind, "status": "True", "reason": kind, "message": "",
                   "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        let with = |name, kinds: &[&str]| {
            let all: Vec<Value> = kinds.iter().map(|k| condition(k)).collect();
            let patch = json!({"status": {"providerID": "x", "conditions": all}});
            Member::judged(claim(name, patch), None, &[], now())
        };
        let mut members = [
            with("a", &["Initialized"]),
            with("b", &["Initialized", "Drifted"]),
            with("c", &[]),
        ];
        assert_eq!(order(&mut members), ["c", "b", "a"]);
    }

    #[rstest]
    #[case::half("24h", 0.5)]
    #[case::past("1h", 0.0)]
    #[case::none("0s", 0.0)]
    #[case::never("Never", 1.0)]
    fn an_old_machine_is_missed_less(#[case] expire_after: &str, #[case] left: f64) {
        let claim = claim("a", json!({"spec": {"expireAfter": expire_after}}));
        assert!((lifetime_left(&claim, now()) - left).abs() < 1e-9);
        let pods = [pod(Owner::Other, &[], Phase::Running)];
        let member = Member::judged(claim, None, &pods, now());
        assert!((member.cost - left).abs() < 1e-9);
    }
}
