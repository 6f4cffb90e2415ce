//! Preemption: a pod that fits nowhere may take the place of pods of lower priority. Which go is decided as the
//! DefaultPreemption plugin decides it: on each node that eviction could help, all less important pods go in thought and
//! come back one by one, the most important first, as long as the new pod still fits; and of all nodes that one is taken
//! where the least is lost.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use karpenter_runtime::Key;
use serde_json::Value;

use super::cluster::Cluster;
use super::filter::{self, Refusal};
use super::pod::Pod;
use super::topology::PodRules;
use super::volumes::{PodVolumes, Volumes};
use crate::loops::feed::Mirror;
use crate::loops::object::{self, at};
use crate::loops::selector::{label_selector, selects};

/// Nodes that are tried at least, and their share of all in percent.
const CANDIDATES_MIN: usize = 100;
const CANDIDATES_PERCENT: usize = 10;
/// What is added to every victim's priority, so that fewer victims of negative priority are better than more.
const PRIORITY_OFFSET: i64 = 1 << 31;

/// Why a node is not tried, and why it is of no use.
pub(crate) const HELPLESS: &str = "Preemption is not helpful for scheduling";
pub(crate) const NO_VICTIMS: &str = "No preemption victims found for incoming pod";

/// Who would have to go from a node.
#[derive(Clone, Debug)]
pub(crate) struct Victims {
    pub(crate) node: String,
    /// The most important first.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// How many of them a disruption budget would have kept.
    pub(crate) violations: usize,
}

/// What preemption came to.
pub(crate) struct Outcome {
    pub(crate) best: Option<Victims>,
    /// Why a node of those that were tried is of no use, a text each.
    pub(crate) reasons: Vec<Cow<'static, str>>,
}

/// What preemption looks at beside the cluster.
pub(crate) struct Preemption<'a> {
    pub(crate) volumes: &'a Volumes,
    pub(crate) budgets: &'a Mirror,
    /// Since when a pod runs; who does not yet counts as just begun.
    pub(crate) started: &'a dyn Fn(&Key) -> Timestamp,
}

impl Preemption<'_> {
    /// Looks for the node on which the least is lost. `refusals` says by node why the pod cannot go there now.
    pub(crate) fn find(
        &self,
        cluster: &mut Cluster,
        pod: &Pod,
        demands: &PodVolumes,
        refusals: &[(String, Refusal)],
    ) -> Outcome {
        let mut outcome = Outcome {
            best: None,
            reasons: Vec::new(),
        };
        let total = refusals.len();
        let wanted = CANDIDATES_MIN.max(total * CANDIDATES_PERCENT / 100);
        let mut candidates = Vec::new();
        for (node, refusal) in refusals {
            if refusal.unresolvable {
                outcome.reasons.push(HELPLESS.into());
                continue;
            }
            if candidates.len() >= wanted {
                continue;
            }
            match self.on_node(cluster, pod, demands, node) {
                Ok(victims) => candidates.push(victims),
                Err(reasons) => outcome.reasons.extend(reasons),
            }
        }
        outcome.best = candidates.into_iter().min_by_key(|v| self.loss(v));
        outcome
    }

    /// Who would have to go from a node, or why that would not help. The cluster is as it was before.
    pub(crate) fn on_node(
        &self,
        cluster: &mut Cluster,
        pod: &Pod,
        demands: &PodVolumes,
        node: &str,
    ) -> Result<Victims, Vec<Cow<'static, str>>> {
        let mut lesser = cluster.lesser(node, pod.priority);
        if lesser.is_empty() {
            return Err(vec![NO_VICTIMS.into()]);
        }
        // Importance: priority, and among equals who runs longer.
        lesser.sort_by_cached_key(|p| (Reverse(p.priority), (self.started)(&p.key), p.key.clone()));
        let generation = cluster.generation();
        for victim in &lesser {
            cluster.unplace(&victim.key);
        }
        let found = match self.fits(cluster, pod, demands, node) {
            Err(refusal) => Err(refusal.reasons),
            Ok(()) => Ok(self.reprieve(cluster, pod, demands, node, &lesser)),
        };
        for victim in lesser {
            cluster.place(victim);
        }
        cluster.back_to(generation);
        found
    }

    /// Takes back one by one those beside whom the pod fits; answers the others.
    fn reprieve(
        &self,
        cluster: &mut Cluster,
        pod: &Pod,
        demands: &PodVolumes,
        node: &str,
        lesser: &[Arc<Pod>],
    ) -> Victims {
        let kept = self.kept_by_budgets(lesser);
        let mut victims = Vec::new();
        let mut violations = 0;
        for violating in [true, false] {
            for (candidate, kept) in lesser.iter().zip(&kept) {
                if *kept != violating {
                    continue;
                }
                cluster.place(Arc::clone(candidate));
                if self.fits(cluster, pod, demands, node).is_err() {
                    cluster.unplace(&candidate.key);
                    victims.push(Arc::clone(candidate));
                    violations += usize::from(violating);
                }
            }
        }
        let rank: BTreeMap<&Key, usize> =
            lesser.iter().zip(0..).map(|(p, i)| (&p.key, i)).collect();
        victims.sort_by_key(|v| rank.get(&v.key).copied());
        Victims {
            node: node.to_owned(),
            pods: victims,
            violations,
        }
    }

    fn fits(
        &self,
        cluster: &Cluster,
        pod: &Pod,
        demands: &PodVolumes,
        node: &str,
    ) -> Result<(), Refusal> {
        let rules = PodRules::new(cluster, pod);
        let Some(node) = cluster.node(node) else {
            return Ok(());
        };
        filter::check(pod, node, cluster, &rules, (self.volumes, demands))
    }

    /// For each pod whether a budget has no disruption left for it, those before it counted.
    fn kept_by_budgets(&self, pods: &[Arc<Pod>]) -> Vec<bool> {
        let mut budgets: Vec<(&Value, i64)> = self
            .budgets
            .iter()
            .map(|(_, b)| {
                let allowed = object::int(b, &["status", "disruptionsAllowed"]).unwrap_or(0);
                (&**b, allowed)
            })
            .collect();
        pods.iter()
            .map(|pod| {
                let mut kept = false;
                for (budget, allowed) in &mut budgets {
                    if !covers(budget, pod) {
                        continue;
                    }
                    *allowed -= 1;
                    kept |= *allowed < 0;
                }
                kept
            })
            .collect()
    }

    /// What is lost on a node, the least first; names decide among equals.
    fn loss(&self, victims: &Victims) -> impl Ord + use<> {
        let highest = victims.pods.iter().map(|p| p.priority).max();
        let sum: i64 = victims
            .pods
            .iter()
            .map(|p| p.priority.saturating_add(PRIORITY_OFFSET))
            .fold(0, i64::saturating_add);
        let oldest = victims
            .pods
            .iter()
            .filter(|p| Some(p.priority) == highest)
            .map(|p| (self.started)(&p.key))
            .min();
        (
            victims.violations,
            highest,
            sum,
            victims.pods.len(),
            Reverse(oldest),
            victims.node.clone(),
        )
    }
}

/// Whether a budget speaks of a pod that it has not let go already.
fn covers(budget: &Value, pod: &Pod) -> bool {
    let selector = at(budget, &["spec", "selector"]);
    let empty =
        ["matchLabels", "matchExpressions"]
            .iter()
            .all(|part| match at(selector, &[part]) {
                Value::Object(labels) => labels.is_empty(),
                Value::Array(expressions) => expressions.is_empty(),
                _ => true,
            });
    object::namespace(budget) == pod.namespace
        && !empty
        && !pod.labels.is_empty()
        && label_selector(selector).is_some_and(|s| selects(&s, &pod.labels))
        && at(budget, &["status", "disruptedPods", &pod.name]).is_null()
}
