//! What of a run can be carried out whose plan breaks a rule. The solver and plan-check disagree then, which is a fault of
//! one of them; pods that have nothing to do with it must not wait for its mending. So kinds of pods are tried together
//! and in ever smaller parts, and what breaks the rule is left out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use karpenter_model::plan::Unschedulable;
use karpenter_model::{Plan, Pod, Problem};

/// Most plans that are made on the way; what has not been tried by then is left out.
const MOST_PLANS: usize = 40;

/// Pods that are told apart by nobody but their names.
type Kind = Vec<Arc<Pod>>;

/// A plan that breaks no rule, and whom it is not for.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) plan: Plan,
    pub(super) left_out: Vec<Arc<Pod>>,
}

impl Part {
    /// The plan, which says of those it is not for why it is not.
    pub(super) fn told(self) -> Plan {
        let mut plan = self.plan;
        let left_out = self.left_out.iter().map(|pod| Unschedulable {
            pod: pod.key.clone(),
            reason: "a plan for it breaks a rule that plans are checked against, which is a fault of karpenter-rs (its log says \
                     which); please report it"
                .to_owned(),
            pools: Vec::new(),
        });
        plan.unschedulable.extend(left_out);
        plan.unschedulable.sort_by(|a, b| a.pod.cmp(&b.pod));
        plan
    }
}

/// The plan for as many kinds of the problem's pods as go together, as far as a few plans can tell; `planned` plans for a
/// problem, and has none if that would break a rule, as it does for all pods. Where no kind can be planned for all are left out.
pub(super) fn sound_part(
    problem: &Problem,
    mut planned: impl FnMut(&Problem) -> Option<Plan>,
) -> Part {
    let kinds = kinds(problem);
    let (mut kept, mut left_out) = (Vec::new(), Vec::new());
    let mut found = Plan::default();
    let mut open = VecDeque::from(halves(kinds));
    let mut plans = 0;
    while let Some(part) = open.pop_front() {
        let pods = part.iter().flatten().cloned();
        if plans == MOST_PLANS {
            left_out.extend(pods);
            continue;
        }
        plans += 1;
        let mut asked = problem.clone();
        asked.pods = kept.iter().cloned().chain(pods.clone()).collect();
        if let Some(plan) = planned(&asked) {
            kept = asked.pods;
            found = plan;
        } else if part.len() > 1 {
            for half in halves(part).into_iter().rev() {
                open.push_front(half);
            }
        } else {
            left_out.extend(pods);
        }
    }
    Part {
        plan: found,
        left_out,
    }
}

/// Pods with the same labels in the same namespace, in the order of their first one.
fn kinds(problem: &Problem) -> Vec<Kind> {
    let mut index = BTreeMap::new();
    let mut kinds: Vec<Kind> = Vec::new();
    for pod in &problem.pods {
        let at = *index
            .entry((&pod.key.namespace, &pod.labels))
            .or_insert(kinds.len());
        match kinds.get_mut(at) {
            Some(kind) => kind.push(Arc::clone(pod)),
            None => kinds.push(vec![Arc::clone(pod)]),
        }
    }
    kinds
}

/// The first half and the second; none of them is empty.
fn halves(mut kinds: Vec<Kind>) -> Vec<Vec<Kind>> {
    let second = kinds.split_off(kinds.len() / 2);
    let both = [kinds, second].into_iter();
    both.filter(|half| !half.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use karpenter_model::PodKey;
    use rstest::rstest;

    use super::*;

    fn problem(kinds: &[&str]) -> Problem {
        let pod = |(at, kind): (usize, &&str)| {
            Arc::new(Pod {
                key: PodKey {
                    namespace: "default".into(),
                    name: format!("{kind}-{at}").into(),
                },
                labels: [("app".to_owned(), (*kind).to_owned())].into(),
                ..Pod::default()
            })
        };
        Problem {
            pods: kinds.iter().enumerate().map(pod).collect(),
            ..Problem::default()
        }
    }

    fn apps(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter().map(|p| p.labels["app"].as_str()).collect()
    }

    /// A plan that names all pods it is for.
    fn plan(problem: &Problem) -> Plan {
        let named = problem.pods.iter().map(|p| Unschedulable {
            pod: p.key.clone(),
            reason: String::new(),
            pools: Vec::new(),
        });
        Plan {
            unschedulable: named.collect(),
            ..Plan::default()
        }
    }

    #[rstest]
    #[case::the_first(&["odd", "a", "b", "c", "d"], &["odd"])]
    #[case::the_last(&["a", "b", "c", "odd"], &["odd"])]
    #[case::one_of_two(&["odd", "a"], &["odd"])]
    #[case::several_pods(&["a", "odd", "b", "odd", "a"], &["odd", "odd"])]
    #[case::only_together(&["a", "left", "b", "right", "c"], &["right"])]
    fn what_breaks_the_rule_is_left_out(#[case] kinds: &[&str], #[case] expected: &[&str]) {
        let problem = problem(kinds);
        let planned = |asked: &Problem| {
            let apps = apps(&asked.pods);
            let both = apps.contains(&"left") && apps.contains(&"right");
            (!apps.contains(&"odd") && !both).then(|| plan(asked))
        };
        let part = sound_part(&problem, planned);
        assert_eq!(apps(&part.left_out), expected);
        let all = part.plan.unschedulable.len() + part.left_out.len();
        assert_eq!(all, kinds.len(), "nobody is lost");
    }

    #[test]
    fn where_nothing_can_be_planned_everybody_is_told() {
        let part = sound_part(&problem(&["a", "b", "c"]), |_| None);
        assert_eq!(apps(&part.left_out), ["a", "b", "c"]);
        let told = part.told();
        assert_eq!(told.unschedulable.len(), 3);
        assert!(told.new_nodes.is_empty() && told.existing.is_empty());
        let none = sound_part(&problem(&[]), |asked| Some(plan(asked)));
        assert!(none.told().unschedulable.is_empty());
    }

    #[test]
    fn no_more_plans_are_made_than_are_worth_it() {
        let names: Vec<String> = (0..500).map(|i| format!("kind-{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let problem = problem(&names);
        let mut plans = 0;
        let part = sound_part(&problem, |asked| {
            plans += 1;
            (asked.pods.len() < 20).then(|| plan(asked))
        });
        assert_eq!(plans, MOST_PLANS);
        assert_eq!(part.plan.unschedulable.len() + part.left_out.len(), 500);
    }
}
