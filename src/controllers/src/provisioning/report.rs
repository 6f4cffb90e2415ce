//! What a run tells the world: log lines, metrics and events about pods (`operations.md` §2, §3, §4). Repetition is
//! kept down here: a pod's fate is logged when it is news.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use karpenter_model::plan::Unschedulable;
use karpenter_model::{Plan, Pod, PodKey, PodRefusal, Problem};

use super::{CONTROLLER, events};
use crate::Context;

/// Pods named in a log line.
const PODS_NAMED: usize = 5;

/// Remembers what was told.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    /// Pods without a place and why, as last logged.
    unschedulable: BTreeMap<PodKey, String>,
    /// Pods left out and why, as last logged.
    refused: BTreeMap<PodKey, String>,
    /// Pods that were said to stand in the way of consolidation, by UID.
    clinging: BTreeSet<Arc<str>>,
    /// Pods that were there in the last run.
    pending: BTreeSet<PodKey>,
}

impl Reporter {
    /// Pods that are not planned for.
    pub(super) fn refused(&mut self, ctx: &Context, refused: &[(Arc<Pod>, PodRefusal)]) {
        ctx.metrics.set(
            "karpenter_scheduler_ignored_pods_count",
            &[],
            count(refused.len()),
        );
        let before = std::mem::take(&mut self.refused);
        for (pod, why) in refused {
            let text = why.to_string();
            if before.get(&pod.key) != Some(&text) {
                tracing::debug!(Pod = %pod.key, error = %text, "ignoring pod");
            }
            if *why != PodRefusal::OptedOut {
                ctx.events.publish(events::failed_scheduling(pod, &text));
            }
            self.refused.insert(pod.key.clone(), text);
        }
    }

    /// There was nothing to plan for.
    pub(super) fn nothing_pending(&mut self, ctx: &Context) {
        self.unschedulable.clear();
        self.pending.clear();
        ctx.metrics.set(
            "karpenter_scheduler_unschedulable_pods_count",
            &[("controller", CONTROLLER)],
            0.0,
        );
    }

    /// A plan was made in `took`.
    pub(super) fn planned(
        &mut self,
        ctx: &Context,
        problem: &Problem,
        plan: &Plan,
        took: Duration,
    ) {
        ctx.metrics.set(
            "karpenter_scheduler_unschedulable_pods_count",
            &[("controller", CONTROLLER)],
            count(missing(problem, plan).count()),
        );
        let real: Vec<&PodKey> = exist(problem).map(|p| &p.key).collect();
        let news = !real.iter().all(|key| self.pending.contains(*key));
        self.pending = real.iter().map(|key| (*key).clone()).collect();
        if news || !plan.new_nodes.is_empty() {
            let chunks = problem.pods.len().saturating_sub(real.len());
            tracing::info!(
                Pods = %names(real.into_iter()),
                buffer_pods = (chunks > 0).then_some(chunks),
                duration = %format_args!("{}s", took.as_secs_f64()),
                "found provisionable pod(s)"
            );
        }
        if !plan.new_nodes.is_empty() {
            tracing::info!(
                nodeclaims = plan.new_nodes.len(),
                pods = plan.new_nodes.iter().map(|n| n.pods.len()).sum::<usize>(),
                "computed new nodeclaim(s) to fit pod(s)"
            );
        }
        let starting: BTreeSet<&str> = problem
            .nodes
            .iter()
            .filter(|n| !n.initialized)
            .map(|n| &*n.name)
            .collect();
        let coming: Vec<usize> = plan
            .existing
            .iter()
            .filter(|e| starting.contains(&*e.node) && !e.pods.is_empty())
            .map(|e| e.pods.len())
            .collect();
        if news && !coming.is_empty() {
            tracing::info!(
                nodes = coming.len(),
                pods = coming.iter().sum::<usize>(),
                "computed unready node(s) will fit pod(s)"
            );
        }
        if ctx.settings.respect_preferences {
            self.preferences(problem);
        }
        self.failures(ctx, problem, plan);
        for skipped in &plan.skipped_pools {
            tracing::info!(
                NodePool = %skipped.pool,
                reason = %skipped.reason,
                "skipping, nodepool requirements filtered out all instance types"
            );
            if let Some(pool) = ctx.state.node_pool(&skipped.pool) {
                ctx.events
                    .publish(events::no_compatible_instance_types(&pool, &skipped.reason));
            }
        }
    }

    /// Says once of each pod that its preferences are kept as if they were rules, which keeps nodes from being
    /// consolidated.
    fn preferences(&mut self, problem: &Problem) {
        let (mut repelled, mut spread, mut now) = (Vec::new(), Vec::new(), BTreeSet::new());
        for pod in exist(problem) {
            let (anti, soft) = (prefers_apart(pod), spreads_softly(pod));
            if !anti && !soft {
                continue;
            }
            now.insert(pod.uid.clone());
            if self.clinging.contains(&pod.uid) {
                continue;
            }
            if anti {
                repelled.push(&pod.key);
            }
            if soft {
                spread.push(&pod.key);
            }
        }
        self.clinging = now;
        if !repelled.is_empty() {
            tracing::info!(
                pods = %names(repelled.into_iter()),
                "pod(s) have a preferred Anti-Affinity which can prevent consolidation"
            );
        }
        if !spread.is_empty() {
            tracing::info!(
                pods = %names(spread.into_iter()),
                "pod(s) have a preferred TopologySpreadConstraint which can prevent consolidation"
            );
        }
    }

    fn failures(&mut self, ctx: &Context, problem: &Problem, plan: &Plan) {
        let before = std::mem::take(&mut self.unschedulable);
        let mut news: BTreeMap<String, Vec<&PodKey>> = BTreeMap::new();
        for (pod, failure) in missing(problem, plan) {
            let why = events::why(failure);
            if before.get(&failure.pod) != Some(&why) {
                news.entry(why.clone()).or_default().push(&failure.pod);
            }
            ctx.events.publish(events::failed_scheduling(pod, &why));
            self.unschedulable.insert(failure.pod.clone(), why);
        }
        // A thousand equal pods are one line.
        for (why, pods) in news {
            match pods[..] {
                [pod] => tracing::error!(Pod = %pod, error = %why, "could not schedule pod"),
                _ => tracing::error!(
                    Pods = %names(pods.into_iter()),
                    error = %why,
                    "could not schedule pod"
                ),
            }
        }
    }
}

/// The pods that exist: what becomes of a buffer's chunks is in its status.
fn exist(problem: &Problem) -> impl Iterator<Item = &Arc<Pod>> {
    problem.pods.iter().filter(|p| !p.is_virtual())
}

/// Those of them without a place.
fn missing<'a>(
    problem: &'a Problem,
    plan: &'a Plan,
) -> impl Iterator<Item = (&'a Arc<Pod>, &'a Unschedulable)> {
    let pods: BTreeMap<&PodKey, &Arc<Pod>> = exist(problem).map(|p| (&p.key, p)).collect();
    let all = plan.unschedulable.iter();
    all.filter_map(move |u| Some((*pods.get(&u.pod)?, u)))
}

fn prefers_apart(pod: &Pod) -> bool {
    pod.affinity
        .as_deref()
        .and_then(|a| a.pod_anti_affinity.as_ref())
        .and_then(|a| {
            a.preferred_during_scheduling_ignored_during_execution
                .as_ref()
        })
        .is_some_and(|terms| !terms.is_empty())
}

fn spreads_softly(pod: &Pod) -> bool {
    pod.spread
        .iter()
        .any(|s| s.when_unsatisfiable == "ScheduleAnyway")
}

fn count(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

/// The first pods by name, and how many others.
fn names<'a>(pods: impl ExactSizeIterator<Item = &'a PodKey>) -> String {
    let total = pods.len();
    let named: Vec<String> = pods.take(PODS_NAMED).map(ToString::to_string).collect();
    let others = total.saturating_sub(named.len());
    let mut text = named.join(", ");
    if others > 0 {
        text.push_str(&format!(" and {others} other(s)"));
    }
    text
}
