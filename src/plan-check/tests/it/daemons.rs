//! What plans may rely on of DaemonSets whose pods are still to come, and what they must not do to them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Affinity, PodAffinity, PodAffinityTerm, PodAntiAffinity};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use karpenter_api::labels as names;
use karpenter_model::pod::Owner;
use karpenter_model::{Plan, Pod, Problem};
use karpenter_plan_check::check;

use crate::world::{edit, good, node, pod, pool, taint};

fn terms(key: &str, app: &str) -> Option<Vec<PodAffinityTerm>> {
    Some(vec![PodAffinityTerm {
        topology_key: key.to_owned(),
        label_selector: Some(LabelSelector {
            match_labels: Some([("app".to_owned(), app.to_owned())].into()),
            ..LabelSelector::default()
        }),
        ..PodAffinityTerm::default()
    }])
}

fn with(key: &str, app: &str) -> Option<Arc<Affinity>> {
    Some(Arc::new(Affinity {
        pod_affinity: Some(PodAffinity {
            required_during_scheduling_ignored_during_execution: terms(key, app),
            ..PodAffinity::default()
        }),
        ..Affinity::default()
    }))
}

fn without(key: &str, app: &str) -> Option<Arc<Affinity>> {
    Some(Arc::new(Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: terms(key, app),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }))
}

/// A good plan in a cluster with a DaemonSet.
fn with_agent(change: impl FnOnce(&mut Pod)) -> (Problem, Plan) {
    let (mut problem, plan) = good();
    let mut agent = Pod::clone(&pod("agent", 10, 1));
    agent.owner = Owner::DaemonSet;
    agent.labels = [("app".to_owned(), "agent".to_owned())].into();
    change(&mut agent);
    problem.daemons = vec![Arc::new(agent)];
    (problem, plan)
}

fn rules(problem: &Problem, plan: &Plan) -> Vec<&'static str> {
    let mut rules: Vec<_> = check(problem, plan).iter().map(|f| f.rule).collect();
    rules.dedup();
    rules
}

#[test]
fn affinity_to_a_daemon_that_will_be_there_is_met() {
    for name in ["a", "b"] {
        let (mut problem, plan) = with_agent(|_| ());
        edit(&mut problem, name).affinity = with(names::HOSTNAME, "agent");
        assert_eq!(check(&problem, &plan), [], "{name}");
    }
}

#[test]
fn affinity_to_a_daemon_that_may_not_be_there_is_not_met() {
    type Change = fn(&mut Pod);
    let changes: [(&str, Change); 5] = [
        ("of zone 1, and the machine may be in another", |d| {
            d.node_selector = [(names::ZONE.to_owned(), "zone-1".to_owned())].into();
        }),
        ("of other nodes", |d| {
            d.node_selector = [("team".to_owned(), "x".to_owned())].into();
        }),
        ("that waits for another", |d| {
            d.affinity = with(names::HOSTNAME, "cache")
        }),
        ("that excludes a zone's pods", |d| {
            d.affinity = without(names::ZONE, "cache")
        }),
        ("with devices", |d| d.has_resource_claims = true),
    ];
    for (what, change) in changes {
        let (mut problem, plan) = with_agent(change);
        edit(&mut problem, "b").affinity = with(names::HOSTNAME, "agent");
        assert_eq!(rules(&problem, &plan), ["affinity"], "{what}");
    }
    let (mut problem, plan) = with_agent(|_| ());
    edit(&mut problem, "b").affinity = with(names::HOSTNAME, "agent");
    let kept = taint("kept", "", "NoSchedule");
    pool(&mut problem).taints = vec![kept.clone()];
    for name in ["b", "c"] {
        let toleration = k8s_openapi::api::core::v1::Toleration {
            operator: Some("Exists".to_owned()),
            ..Default::default()
        };
        edit(&mut problem, name).tolerations = vec![toleration];
    }
    assert_eq!(rules(&problem, &plan), ["affinity"], "not tolerated");
}

#[test]
fn one_of_two_that_exclude_each_other_may_be_missing() {
    let (mut problem, plan) = with_agent(|_| ());
    edit(&mut problem, "b").affinity = with(names::HOSTNAME, "agent");
    let mut rival = Pod::clone(&pod("rival", 10, 1));
    rival.affinity = without(names::HOSTNAME, "agent");
    rival.labels.clear();
    problem.daemons.push(Arc::new(rival));
    assert_eq!(rules(&problem, &plan), ["affinity"]);
}

#[test]
fn a_pod_and_a_daemon_that_exclude_each_other_are_kept_apart() {
    for name in ["a", "b"] {
        let (mut problem, plan) = with_agent(|_| ());
        edit(&mut problem, name).affinity = without(names::HOSTNAME, "agent");
        assert_eq!(rules(&problem, &plan), ["anti-affinity"], "{name}");

        let excluding = |d: &mut Pod| d.affinity = without(names::HOSTNAME, "lonely");
        let (mut problem, plan) = with_agent(excluding);
        edit(&mut problem, name).labels = [("app".to_owned(), "lonely".to_owned())].into();
        assert_eq!(rules(&problem, &plan), ["anti-affinity"], "{name}");
    }
}

#[test]
fn a_daemon_that_runs_elsewhere_or_is_kept_off_excludes_nobody() {
    let elsewhere = |d: &mut Pod| {
        d.node_selector = [("team".to_owned(), "x".to_owned())].into();
    };
    let (mut problem, plan) = with_agent(elsewhere);
    edit(&mut problem, "b").affinity = without(names::HOSTNAME, "agent");
    assert_eq!(check(&problem, &plan), []);

    // Somebody who excludes it was on the node before it.
    let (mut problem, plan) = with_agent(|_| ());
    edit(&mut problem, "a").affinity = without(names::HOSTNAME, "agent");
    let mut shy = Pod::clone(&pod("shy", 10, 1));
    shy.affinity = without(names::HOSTNAME, "agent");
    node(&mut problem).pods = vec![Arc::new(shy)];
    assert_eq!(check(&problem, &plan), []);
}
