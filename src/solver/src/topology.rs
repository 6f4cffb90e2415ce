//! Rules between pods: required pod (anti-)affinity and DoNotSchedule spread. Not planned for yet: the pods they
//! concern are named as such instead of being put where they must not go.

use k8s_openapi::api::core::v1::PodAffinityTerm;
use karpenter_model::{Pod, Problem, Selector};

/// The anti-affinity terms that pods of the cluster hold against others.
pub(crate) struct Concerned<'a> {
    held: Vec<(&'a Pod, &'a PodAffinityTerm)>,
}

impl<'a> Concerned<'a> {
    pub(crate) fn new(problem: &'a Problem) -> Self {
        let bound = problem.nodes.iter().flat_map(|n| &n.pods);
        let held = bound
            .flat_map(|p| anti_affinity(p).map(move |term| (p.as_ref(), term)))
            .collect();
        Self { held }
    }

    /// Why a pod cannot be planned for yet, if so.
    pub(crate) fn unsupported(&self, pod: &Pod) -> Option<String> {
        let affinity = pod
            .affinity
            .as_ref()
            .and_then(|a| a.pod_affinity.as_ref())
            .and_then(|a| {
                a.required_during_scheduling_ignored_during_execution
                    .as_ref()
            })
            .is_some_and(|terms| !terms.is_empty());
        if affinity {
            return Some("required pod affinity is not planned for yet".to_owned());
        }
        if anti_affinity(pod).next().is_some() {
            return Some("required pod anti-affinity is not planned for yet".to_owned());
        }
        if pod
            .spread
            .iter()
            .any(|c| c.when_unsatisfiable == "DoNotSchedule")
        {
            return Some("topology spread with DoNotSchedule is not planned for yet".to_owned());
        }
        let (owner, _) = self
            .held
            .iter()
            .find(|(owner, term)| selects(owner, term, pod))?;
        Some(format!(
            "pod {} holds required anti-affinity against it, which is not planned for yet",
            owner.key
        ))
    }
}

fn anti_affinity(pod: &Pod) -> impl Iterator<Item = &PodAffinityTerm> {
    pod.affinity
        .iter()
        .filter_map(|a| a.pod_anti_affinity.as_ref())
        .filter_map(|a| {
            a.required_during_scheduling_ignored_during_execution
                .as_ref()
        })
        .flatten()
}

/// Whether a term of `owner` is about `pod`. A namespace selector is taken to select every namespace: namespaces'
/// labels are not part of the problem, and to err here is to wait, not to break a rule.
fn selects(owner: &Pod, term: &PodAffinityTerm, pod: &Pod) -> bool {
    let listed = term.namespaces.as_deref().unwrap_or_default();
    let namespace = term.namespace_selector.is_some()
        || if listed.is_empty() {
            owner.key.namespace == pod.key.namespace
        } else {
            listed
                .iter()
                .any(|n| n.as_str() == pod.key.namespace.as_ref())
        };
    namespace
        && term
            .label_selector
            .as_ref()
            .is_some_and(|s| Selector::from_k8s(s).matches(&pod.labels))
}
