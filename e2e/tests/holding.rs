//! `wait.holding` through a scenario's door: what does not hold in between fails it, although all is well at its end.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // A test may fail loudly.

use karpenter_e2e::{report, run, scenario};

/// Two pods lose their node; `least` of them must run all the while.
const STORY: &str = r#"
cloud: { provider: kwok }
objects:
  - apiVersion: karpenter.kwok.sh/v1alpha1
    kind: KWOKNodeClass
    metadata: { name: default }
  - apiVersion: karpenter.sh/v1
    kind: NodePool
    metadata: { name: default }
    spec:
      template:
        spec:
          nodeClassRef: { group: karpenter.kwok.sh, kind: KWOKNodeClass, name: default }
          requirements: [ { key: kubernetes.io/os, operator: In, values: [linux] } ]
  - apiVersion: apps/v1
    kind: Deployment
    metadata: { name: web, namespace: default }
    spec:
      replicas: 2
      selector: { matchLabels: { app: web } }
      template:
        metadata: { labels: { app: web } }
        spec: { containers: [ { name: c, image: pause, resources: { requests: { cpu: "1" } } } ] }
steps:
  - { wait: { until: { podsRunning: 2 }, timeout: 2m } }
  - { at: 1m, machine: { dies: { first: true } } }
  - { wait: { for: 20m, holding: { podsRunning: { min: {least} } } } }
  - { expect: { podsRunning: 2 } }
"#;

async fn told(least: u32) -> report::Report {
    let text = STORY.replace("{least}", &least.to_string());
    let scenario = scenario::load::parse(&text, "scenario.yaml").unwrap();
    let loaded = scenario::Loaded::of("holding", scenario);
    run::run(&loaded, None).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_breach_fails_the_scenario_and_tells_when_it_began() {
    let report = told(1).await;
    assert!(!report::passed(&report));
    let failed: Vec<_> = report.expectations.iter().filter(|e| !e.ok).collect();
    assert_eq!(failed.len(), 1, "{:?}", report.expectations);
    assert_eq!(failed[0].expect, "holding podsRunning: >=1");
    assert_eq!(failed[0].saw, "0");
    assert!(
        failed[0].at >= 60.0 && failed[0].at < 1260.0,
        "{:?}",
        failed[0]
    );
    let text = report::text_of(&report);
    assert!(
        text.contains("FAIL holding podsRunning: >=1, saw 0"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_holds_passes() {
    let report = told(0).await;
    assert!(report::passed(&report), "{}", report::text_of(&report));
}
