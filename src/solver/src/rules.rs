//! Rules between pods as the solver works with them: topology spread and pod (anti-)affinity, read once per class.
//! Preferences come as rules that need not hold.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PodAffinityTerm, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use karpenter_api::labels::HOSTNAME;
use karpenter_model::{Pod, Problem, Selector};

/// Which pods a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Who {
    /// None = any.
    namespaces: Option<BTreeSet<String>>,
    selector: Selector,
}

impl Who {
    /// Those that both are about.
    fn and(self, other: Self) -> Self {
        let namespaces = match (self.namespaces, other.namespaces) {
            (Some(a), Some(b)) => Some(a.intersection(&b).cloned().collect()),
            (a, b) => a.or(b),
        };
        Self {
            namespaces,
            selector: self.selector.and_all(other.selector),
        }
    }

    /// A label and the one value of it that all of them have, if there is one.
    pub(crate) fn label(&self) -> Option<(&str, &str)> {
        self.selector.label()
    }

    pub(crate) fn means(&self, pod: &Pod) -> bool {
        self.namespaces
            .as_ref()
            .is_none_or(|n| n.contains(&*pod.key.namespace))
            && self.selector.matches(&pod.labels)
    }
}

/// What a rule demands of the domain a pod goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Demand {
    /// No domain may hold more than `max_skew` pods more than the emptiest.
    Spread {
        max_skew: usize,
        /// Fewer domains than this make the emptiest count as empty.
        min_domains: usize,
        /// Whether domains of nodes that the pod may not go to count.
        honor_affinity: bool,
        /// The same for nodes whose taints it does not tolerate.
        honor_taints: bool,
    },
    /// Some of those meant are there.
    Together,
    /// None of those meant is there.
    Apart,
}

/// A rule of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) key: Arc<str>,
    pub(crate) who: Who,
    pub(crate) demand: Demand,
    /// Whether it must hold.
    pub(crate) required: bool,
}

impl Rule {
    /// Whether it counts a pod that is on a node. As kube-scheduler: a spread leaves out who is on the way out.
    pub(crate) fn counts(&self, pod: &Pod) -> bool {
        let is_spread = matches!(self.demand, Demand::Spread { .. });
        !(is_spread && pod.deleted.is_some()) && self.who.means(pod)
    }

    /// Whether every node is a domain of its own.
    pub(crate) fn is_by_host(&self) -> bool {
        &*self.key == HOSTNAME
    }

    /// Whether it must be where some of those meant are.
    pub(crate) fn is_bond(&self) -> bool {
        self.required && self.demand == Demand::Together
    }

    /// For a person.
    pub(crate) fn text(&self) -> String {
        let what = match self.demand {
            Demand::Spread { max_skew, .. } => format!("topology spread (maxSkew {max_skew})"),
            Demand::Together => "pod affinity".to_owned(),
            Demand::Apart => "pod anti-affinity".to_owned(),
        };
        format!("{what} over {}", self.key)
    }
}

/// All rules of a pod. Preferences over hostnames are left out: to heed them would be to buy a machine for a wish.
pub(crate) fn of(problem: &Problem, pod: &Pod) -> Vec<Rule> {
    let mut rules: Vec<Rule> = pod.spread.iter().map(|c| spread(pod, c)).collect();
    let affinity = pod.affinity.as_deref();
    let together = affinity.and_then(|a| a.pod_affinity.as_ref());
    let apart = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
    let term = |t: &PodAffinityTerm, demand, required| Rule {
        key: t.topology_key.as_str().into(),
        who: who(problem, pod, t),
        demand,
        required,
    };
    if let Some(a) = together {
        let required = a.required_during_scheduling_ignored_during_execution.iter();
        let own = rules.len();
        rules.extend(required.flatten().map(|t| term(t, Demand::Together, true)));
        all_mean_the_same(rules.get_mut(own..).unwrap_or_default());
        let preferred = a
            .preferred_during_scheduling_ignored_during_execution
            .iter();
        let preferred = preferred.flatten().map(|w| &w.pod_affinity_term);
        rules.extend(preferred.map(|t| term(t, Demand::Together, false)));
    }
    if let Some(a) = apart {
        let required = a.required_during_scheduling_ignored_during_execution.iter();
        rules.extend(required.flatten().map(|t| term(t, Demand::Apart, true)));
        let preferred = a
            .preferred_during_scheduling_ignored_during_execution
            .iter();
        let preferred = preferred.flatten().map(|w| &w.pod_affinity_term);
        rules.extend(preferred.map(|t| term(t, Demand::Apart, false)));
    }
    rules.retain(|r| r.required || (problem.options.respect_preferences && !r.is_by_host()));
    rules
}

/// Of several terms of required affinity kube-scheduler counts only pods that all of them mean.
fn all_mean_the_same(terms: &mut [Rule]) {
    if let Some(who) = terms.iter().map(|r| r.who.clone()).reduce(Who::and) {
        for rule in terms {
            rule.who = who.clone();
        }
    }
}

/// The anti-affinity that a pod holds against others, which binds those others too.
pub(crate) fn held<'a>(
    problem: &'a Problem,
    pod: &'a Pod,
) -> impl Iterator<Item = (Arc<str>, Who)> + 'a {
    let apart = pod
        .affinity
        .iter()
        .filter_map(|a| a.pod_anti_affinity.as_ref());
    apart
        .filter_map(|a| {
            a.required_during_scheduling_ignored_during_execution
                .as_ref()
        })
        .flatten()
        .map(|t| (t.topology_key.as_str().into(), who(problem, pod, t)))
}

fn who(problem: &Problem, pod: &Pod, term: &PodAffinityTerm) -> Who {
    let mut selector = term
        .label_selector
        .as_ref()
        .map_or_else(Selector::nothing, Selector::from_k8s);
    for key in term.match_label_keys.iter().flatten() {
        if let Some(value) = pod.labels.get(key) {
            selector = selector.and(key, value);
        }
    }
    for key in term.mismatch_label_keys.iter().flatten() {
        if let Some(value) = pod.labels.get(key) {
            selector = selector.and_not(key, value);
        }
    }
    Who {
        namespaces: namespaces(problem, pod, term),
        selector,
    }
}

/// The namespaces that a term is about: those it names and those it selects, its pod's own if it does neither; none = any.
/// Where nobody knows namespaces' labels, every one is taken to be selected.
fn namespaces(problem: &Problem, pod: &Pod, term: &PodAffinityTerm) -> Option<BTreeSet<String>> {
    let mut named: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
    match &term.namespace_selector {
        None if named.is_empty() => {
            named.insert(pod.key.namespace.to_string());
        }
        None => {}
        Some(_) if problem.namespaces.is_empty() => return None,
        Some(raw) => {
            let selector = Selector::from_k8s(raw);
            if selector == Selector::from_k8s(&LabelSelector::default()) {
                return None;
            }
            let selected = problem.namespaces.iter();
            let selected = selected.filter(|(_, labels)| selector.matches(labels));
            named.extend(selected.map(|(name, _)| name.to_string()));
        }
    }
    Some(named)
}

fn spread(pod: &Pod, constraint: &TopologySpreadConstraint) -> Rule {
    let mut selector = constraint
        .label_selector
        .as_ref()
        .map_or_else(Selector::nothing, Selector::from_k8s);
    for key in constraint.match_label_keys.iter().flatten() {
        if let Some(value) = pod.labels.get(key) {
            selector = selector.and(key, value);
        }
    }
    let number = |n: i32| usize::try_from(n).unwrap_or(0);
    Rule {
        key: constraint.topology_key.as_str().into(),
        who: Who {
            namespaces: Some(BTreeSet::from([pod.key.namespace.to_string()])),
            selector,
        },
        demand: Demand::Spread {
            max_skew: number(constraint.max_skew).max(1),
            min_domains: constraint.min_domains.map_or(1, number),
            honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        },
        required: constraint.when_unsatisfiable == "DoNotSchedule",
    }
}
