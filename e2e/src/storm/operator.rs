//! What happens to a random cluster: an operator who scales, rolls out, edits and deletes, a cloud and machines that fail,
//! an API server that is slow, and a controller that dies. Then everything heals.

use std::time::Duration;

use karpenter_runtime::RngTree;
use karpenter_runtime::rng::Rng;
use serde_json::{Value, json};

use super::cluster::{Cluster, budgets};
use super::{one, word};
use crate::scenario::faults::{
    ApiFaults, CallFault, CloudFault, MachineFault, OfferingSelector, PriceChange,
};
use crate::scenario::schema::{
    ControllerAction, NodeSelector, PatchStep, ProviderName, Scale, Span, Step, Target,
};

/// How long things go wrong.
pub const STORM: Duration = Duration::from_secs(25 * 60);
/// Fewest and most things that happen in it.
const EVENTS: (u64, u64) = (8, 22);
/// Longest that the controller stays away (s).
const AWAY_SECONDS: u64 = 90;
/// Delay of a KWOK node that is given up before it joins.
const NEVER_BOOTS: &str = "3h";
/// Most by which the API server's clock is ahead or behind (s).
const SKEW_MAX_SECONDS: u64 = 20;

/// Calls of EC2 that go wrong.
const CALLS: [&str; 8] = [
    "CreateFleet",
    "CreateFleet",
    "CreateFleet",
    "DescribeInstances",
    "TerminateInstances",
    "CreateTags",
    "CreateLaunchTemplate",
    "DescribeSubnets",
];

/// Draws the storm; the steps are in order of time.
#[must_use]
pub fn storm(tree: &RngTree, cluster: &Cluster) -> Vec<Step> {
    let mut rng = tree.child("random-operator", "").rng();
    let rng = &mut rng;
    let mut steps = vec![at(
        2,
        Step {
            api: Some(faults(rng)),
            ..Step::default()
        },
    )];
    let count = EVENTS.0 + rng.below(EVENTS.1 - EVENTS.0 + 1);
    for _ in 0..count {
        let second = 5 + rng.below(STORM.as_secs() - 5 - AWAY_SECONDS);
        match rng.below(100) {
            0..40 => steps.push(at(second, workload(rng, cluster))),
            40..60 => steps.push(at(second, pool(rng, cluster))),
            60..75 => steps.push(at(second, machine(rng, cluster))),
            75..87 => steps.push(at(second, cloud(rng, cluster))),
            87..95 => {
                let action = if cluster.elections && rng.chance(0.4) {
                    ControllerAction::Takeover
                } else {
                    ControllerAction::Restart
                };
                let step = Step {
                    controller: Some(action),
                    ..Step::default()
                };
                steps.push(moment(rng, second, step));
            }
            95..97 => {
                let action = *one(rng, &[ControllerAction::Crash, ControllerAction::Stop])
                    .unwrap_or(&ControllerAction::Crash);
                let away = Step {
                    controller: Some(action),
                    ..Step::default()
                };
                steps.push(moment(rng, second, away));
                let back = second + 1 + rng.below(AWAY_SECONDS);
                steps.push(at(
                    back,
                    Step {
                        controller: Some(ControllerAction::Start),
                        ..Step::default()
                    },
                ));
            }
            _ => steps.push(at(
                second,
                Step {
                    api: Some(faults(rng)),
                    ..Step::default()
                },
            )),
        }
    }
    steps.sort_by_key(|s| s.at);
    steps
}

/// Undoes everything that a storm can leave broken, and takes away what may block a node for ever.
#[must_use]
pub fn healing(cluster: &Cluster) -> Vec<Step> {
    let mut steps = vec![
        Step {
            api: Some(ApiFaults::default()),
            note: "the storm is over".to_owned(),
            ..Step::default()
        },
        Step {
            controller: Some(ControllerAction::Start),
            ..Step::default()
        },
        Step {
            cloud: Some(CloudFault {
                capacity_back: Some(OfferingSelector::default()),
                ..CloudFault::default()
            }),
            ..Step::default()
        },
    ];
    let booting = (cluster.provider == ProviderName::Ec2).then_some(false);
    let machine = MachineFault {
        never_boots: booting,
        ready: Some(NodeSelector::default()),
        ..MachineFault::default()
    };
    steps.push(Step {
        machine: Some(machine),
        ..Step::default()
    });
    if cluster.provider == ProviderName::Kwok {
        let patch = json!({"spec": {"nodeRegistrationDelay": "15s"}});
        steps.push(patched("KWOKNodeClass", "default", patch));
    }
    for name in &cluster.pools {
        let patch = json!({"spec": {"template": {"spec": {"expireAfter": "Never"}}}});
        steps.push(patched("NodePool", name, patch));
    }
    for name in &cluster.budgets {
        let patch = json!({"spec": {"minAvailable": null, "maxUnavailable": "50%"}});
        steps.push(patched("PodDisruptionBudget", name, patch));
    }
    for workload in cluster.workloads.iter().filter(|w| w.protected) {
        let patch = json!({"spec": {"template": {"metadata": {"annotations": {"karpenter.sh/do-not-disrupt": null}}}}});
        steps.push(patched(workload.kind, &workload.name, patch));
    }
    let start = Some(Span(STORM));
    steps.into_iter().map(|s| Step { at: start, ..s }).collect()
}

/// Scales every workload anew, for a cluster whose nodes fit no more.
#[must_use]
pub fn rescale(tree: &RngTree, cluster: &Cluster, round: u64, most: u64) -> Vec<Step> {
    let mut rng = tree.child("random-scale", &round.to_string()).rng();
    let all = cluster.workloads.iter();
    all.map(|w| {
        scaled(
            w.kind,
            &w.name,
            i64::try_from(rng.below(most + 1)).unwrap_or_default(),
        )
    })
    .collect()
}

fn at(second: u64, step: Step) -> Step {
    Step {
        at: Some(Span::seconds(second)),
        ..step
    }
}

/// At some millisecond of that second: wherever the controller stands then.
fn moment(rng: &mut Rng, second: u64, step: Step) -> Step {
    let millis = second * 1000 + rng.below(1000);
    Step {
        at: Some(Span(Duration::from_millis(millis))),
        ..step
    }
}

fn named(kind: &str, name: &str) -> Target {
    Target {
        kind: kind.to_owned(),
        name: Some(name.to_owned()),
        ..Target::default()
    }
}

fn patched(kind: &str, name: &str, patch: Value) -> Step {
    let patch = PatchStep {
        target: named(kind, name),
        patch,
        subresource: String::new(),
    };
    Step {
        patch: Some(patch),
        ..Step::default()
    }
}

fn scaled(kind: &str, name: &str, replicas: i64) -> Step {
    let scale = Scale {
        kind: kind.to_owned(),
        name: name.to_owned(),
        namespace: None,
        replicas,
    };
    Step {
        scale: Some(scale),
        ..Step::default()
    }
}

fn faults(rng: &mut Rng) -> ApiFaults {
    if rng.chance(0.2) {
        return ApiFaults::default();
    }
    let skewed = rng.chance(0.4);
    let ahead = i32::try_from(rng.below(2 * SKEW_MAX_SECONDS + 1)).unwrap_or_default();
    let most = i32::try_from(SKEW_MAX_SECONDS).unwrap_or_default();
    let mut rate = |most: u64| u32::try_from(rng.below(most + 1)).unwrap_or_default();
    ApiFaults {
        delayed: rate(100),
        conflicts: rate(80),
        throttled: rate(60),
        failed_before: rate(50),
        failed_after: rate(50),
        watches_dropped: rate(300),
        watches_late: rate(300),
        watches_stalled: rate(150),
        lists_stale: rate(200),
        inside: rate(40),
        clock_ahead_seconds: if skewed { ahead - most } else { 0 },
    }
}

fn workload(rng: &mut Rng, cluster: &Cluster) -> Step {
    let Some(workload) = one(rng, &cluster.workloads) else {
        return Step::default();
    };
    if rng.chance(0.2) {
        return Step {
            roll_out: Some(named(workload.kind, &workload.name)),
            ..Step::default()
        };
    }
    let replicas = if rng.chance(0.2) { 0 } else { rng.below(13) };
    scaled(
        workload.kind,
        &workload.name,
        i64::try_from(replicas).unwrap_or_default(),
    )
}

fn pool(rng: &mut Rng, cluster: &Cluster) -> Step {
    let Some(name) = one(rng, &cluster.pools) else {
        return Step::default();
    };
    let patch = match rng.below(6) {
        0 | 1 => {
            json!({"spec": {"template": {"metadata": {"labels": {"example.com/color": word(rng, &["red", "green", "blue"])}}}}})
        }
        2 => json!({"spec": {"disruption": {"budgets": budgets(rng, true)}}}),
        3 => {
            json!({"spec": {"disruption": {"consolidateAfter": word(rng, &["0s", "1m", "Never"])}}})
        }
        4 => {
            json!({"spec": {"disruption": {"consolidationPolicy": word(rng, &["WhenEmpty", "WhenEmptyOrUnderutilized", "Balanced"])}}})
        }
        _ => {
            json!({"spec": {"template": {"spec": {"terminationGracePeriod": word(rng, &["90s", "4m"])}}}})
        }
    };
    patched("NodePool", name, patch)
}

/// A node of a pool: the first by name.
fn node(rng: &mut Rng, cluster: &Cluster) -> NodeSelector {
    let pool = one(rng, &cluster.pools).cloned();
    NodeSelector {
        node_pool: pool,
        first: true,
        ..NodeSelector::default()
    }
}

fn machine(rng: &mut Rng, cluster: &Cluster) -> Step {
    let fault = |fault| Step {
        machine: Some(fault),
        ..Step::default()
    };
    let owned = |rng: &mut Rng, kind: &str| {
        let pool = one(rng, &cluster.pools).cloned().unwrap_or_default();
        let selector = Some(format!("karpenter.sh/nodepool={pool}"));
        Step {
            delete: Some(Target {
                kind: kind.to_owned(),
                selector,
                first: true,
                ..Target::default()
            }),
            ..Step::default()
        }
    };
    match rng.below(8) {
        0 => Step {
            cordon: Some(node(rng, cluster)),
            ..Step::default()
        },
        1 => Step {
            drain: Some(node(rng, cluster)),
            ..Step::default()
        },
        2 => fault(MachineFault {
            not_ready: Some(node(rng, cluster)),
            ..MachineFault::default()
        }),
        3 => fault(MachineFault {
            ready: Some(NodeSelector::default()),
            ..MachineFault::default()
        }),
        4 => fault(MachineFault {
            dies: Some(node(rng, cluster)),
            ..MachineFault::default()
        }),
        // Launched from now on: never, late, or as usual again.
        5 if cluster.provider == ProviderName::Ec2 => {
            let how = rng.below(4);
            fault(MachineFault {
                never_boots: (how < 3).then_some(how < 2),
                boots_late: (how == 3).then(|| Span::seconds(60 * (1 + rng.below(12)))),
                ..MachineFault::default()
            })
        }
        5 => {
            let delay = word(rng, &[NEVER_BOOTS, NEVER_BOOTS, "4m", "15s"]);
            patched(
                "KWOKNodeClass",
                "default",
                json!({"spec": {"nodeRegistrationDelay": delay}}),
            )
        }
        6 => owned(rng, "Node"),
        _ => owned(rng, "NodeClaim"),
    }
}

fn cloud(rng: &mut Rng, cluster: &Cluster) -> Step {
    let mut fault = CloudFault::default();
    let kinds = |rng: &mut Rng| {
        vec![
            one(rng, &cluster.capacity_types)
                .copied()
                .unwrap_or_default()
                .to_owned(),
        ]
    };
    let zones = |rng: &mut Rng| vec![word(rng, cluster.zones).to_owned()];
    let ec2 = cluster.provider == ProviderName::Ec2;
    let call = |rng: &mut Rng| {
        let call = word(rng, &CALLS).to_owned();
        // A few calls, or all of them for some minutes.
        let lasts = rng.chance(0.3);
        CallFault {
            call,
            times: (!lasts).then(|| 1 + u32::try_from(rng.below(3)).unwrap_or_default()),
            duration: lasts.then(|| Span::seconds(60 * (1 + rng.below(4)))),
            ..CallFault::default()
        }
    };
    match rng.below(if ec2 { 7 } else { 3 }) {
        0 => {
            let duration = Some(Span::seconds(60 * (1 + rng.below(10))));
            fault.capacity_out = Some(OfferingSelector {
                zones: zones(rng),
                capacity_types: kinds(rng),
                duration,
                ..OfferingSelector::default()
            });
        }
        1 => {
            let factor = *one(rng, &[0.5, 0.8, 1.3, 2.0]).unwrap_or(&1.0);
            fault.price = Some(PriceChange {
                zones: zones(rng),
                capacity_types: kinds(rng),
                factor,
                ..PriceChange::default()
            });
        }
        2 => fault.capacity_back = Some(OfferingSelector::default()),
        3 => fault.interrupt = Some(node(rng, cluster)),
        4 => fault.throttle = Some(call(rng)),
        5 => fault.error = Some(call(rng)),
        _ => fault.lost_response = Some(call(rng)),
    }
    Step {
        cloud: Some(fault),
        ..Step::default()
    }
}
