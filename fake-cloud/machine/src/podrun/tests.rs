//! The life of a pod, told by hand.

use rstest::rstest;

use super::*;
use crate::options::Span;
use crate::probes::UNLIVE;

const OPTIONS: KubeletOptions = KubeletOptions {
    pull: Span::millis(0),
    start: Span::millis(1000),
    exit: Span::millis(2000),
    job_run: Span::millis(30_000),
};

fn pod(extra: Value) -> Value {
    let mut p = json!({"metadata": {"name": "p", "namespace": "default", "uid": "u"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (path, value) in extra.as_object().unwrap() {
        let mut spot = &mut p;
        for step in path.split('/') {
            spot = &mut spot[step];
        }
        *spot = value.clone();
    }
    p
}

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

#[tokio::test(start_paused = true)]
async fn starts_then_stays_ready() {
    let now = Instant::now();
    let p = pod(json!({}));
    let mut run = Run::new(&p, &OPTIONS, &RngTree::new(1), now);
    assert_eq!(run.due(&p, now), (Due::Nothing, Some(now + secs(1))));
    assert_eq!(run.due(&p, now + secs(1)).0, Due::Start);
    run.started = Some(now + secs(1));
    assert_eq!(run.due(&p, now + secs(1)), (Due::Ready, None));
    let failing = pod(json!({"metadata/annotations": {UNREADY: "true"},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}}));
    assert_eq!(run.due(&failing, now + secs(2)).0, Due::Unready);
}

#[rstest]
#[case::heeds(json!({}), 30, 2)]
#[case::short_grace(json!({}), 1, 1)]
#[case::at_once(json!({}), 0, 0)]
#[case::ignores(json!({"metadata/annotations": {IGNORES_SIGTERM: "true"}}), 30, 30)]
#[case::pre_stop(json!({"spec/containers": [{"lifecycle": {"preStop": {"sleep": {"seconds": 10}}}}]}), 30, 12)]
#[tokio::test(start_paused = true)]
async fn stops_within_its_grace(#[case] extra: Value, #[case] grace: u64, #[case] want: u64) {
    let now = Instant::now();
    let mut p = pod(extra);
    let mut run = Run::new(&p, &OPTIONS, &RngTree::new(1), now);
    run.started = Some(now);
    p["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    p["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
    let (due, again) = run.due(&p, now);
    if want == 0 {
        assert_eq!(due, Due::Stop);
    } else {
        assert_eq!((due, again), (Due::Nothing, Some(now + secs(want))));
        // The grace is cut short by a second deletion.
        p["metadata"]["deletionGracePeriodSeconds"] = json!(0);
        assert_eq!(run.due(&p, now + secs(1)).0, Due::Stop);
    }
}

#[tokio::test(start_paused = true)]
async fn starts_again_after_waits_that_double_until_it_runs_for_long() {
    let begun = Instant::now();
    let p = pod(
        json!({"metadata/annotations": {RUN_SECONDS: "5", EXIT_CODE: "1"}, "spec/restartPolicy": "Always"}),
    );
    let mut run = Run::new(&p, &OPTIONS, &RngTree::new(1), begun);
    let mut now = begun;
    let mut waits = Vec::new();
    for _ in 0..7 {
        run.started = Some(now);
        now += secs(5);
        assert_eq!(run.due(&p, now).0, Due::Restart(1));
        let next = run.restarting(now);
        waits.push((next - now).as_secs());
        assert_eq!(run.due(&p, now), (Due::Nothing, Some(next)));
        now = next;
        assert_eq!(run.due(&p, now).0, Due::Start);
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
    run.started = Some(now);
    now += secs(600);
    assert_eq!(run.restarting(now) - now, secs(10));
    assert_eq!(run.restarts, 8);
}

#[tokio::test(start_paused = true)]
async fn pulls_its_images_once_its_volumes_are_there() {
    let now = Instant::now();
    let p =
        pod(json!({"spec/volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "v"}}]}));
    let mut run = Run::new(&p, &OPTIONS, &RngTree::new(1), now);
    assert_eq!(run.due(&p, now + secs(60)), (Due::Attach, None));
    run.attached = true;
    run.pulled(now + secs(60));
    assert_eq!(
        run.due(&p, now + secs(60)),
        (Due::Nothing, Some(now + secs(61)))
    );
    assert_eq!(run.due(&p, now + secs(61)).0, Due::Start);
}

#[tokio::test(start_paused = true)]
async fn probes_that_fail_have_their_containers_killed() {
    let now = Instant::now();
    let probed = |policy: &str, annotation: &str| {
        pod(
            json!({"metadata/annotations": {annotation: "true"}, "spec/restartPolicy": policy,
            "spec/containers": [{"name": "c", "livenessProbe": {"periodSeconds": 5, "failureThreshold": 2, "initialDelaySeconds": 20}}, {"name": "d"}],
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
        )
    };
    let (well, ill) = (probed("Always", "other"), probed("Always", UNLIVE));
    let mut run = Run::new(&well, &OPTIONS, &RngTree::new(1), now);
    run.started = Some(now);
    assert_eq!(run.due(&well, now + secs(60)), (Due::Nothing, None));
    // It fails from when it is seen to, and is forgotten when it is well again.
    assert_eq!(
        run.due(&ill, now + secs(60)),
        (Due::Nothing, Some(now + secs(70)))
    );
    assert_eq!(run.due(&well, now + secs(69)), (Due::Nothing, None));
    assert_eq!(
        run.due(&ill, now + secs(80)),
        (Due::Nothing, Some(now + secs(90)))
    );
    assert_eq!(run.due(&ill, now + secs(90)).0, Due::Restart(143));
    assert_eq!(run.killed, ["c"]);
    let next = run.restarting(now + secs(90));
    assert_eq!(next - now, secs(100));
    run.started = Some(next);
    // The first probe comes after its delay.
    assert_eq!(run.due(&ill, next), (Due::Nothing, Some(next + secs(30))));
    let mut once = Run::new(&well, &OPTIONS, &RngTree::new(1), now);
    once.started = Some(now);
    let never = probed("Never", UNLIVE);
    assert_eq!(once.due(&never, now), (Due::Nothing, Some(now + secs(30))));
    assert_eq!(once.due(&never, now + secs(30)).0, Due::Finish(143));
}

#[rstest]
#[case::always(json!({"spec/restartPolicy": "Always"}), None)]
#[case::bare(json!({"spec/restartPolicy": "Never"}), None)]
#[case::annotated(json!({"spec/restartPolicy": "Never", "metadata/annotations": {RUN_SECONDS: "5"}}), Some(5))]
#[case::job(json!({"spec/restartPolicy": "OnFailure",
    "metadata/ownerReferences": [{"controller": true, "kind": "Job"}]}), Some(30))]
#[tokio::test(start_paused = true)]
async fn ends_by_itself(#[case] extra: Value, #[case] want: Option<u64>) {
    let now = Instant::now();
    let mut p = pod(extra);
    p["status"] = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    let mut run = Run::new(&p, &OPTIONS, &RngTree::new(1), now);
    run.started = Some(now);
    assert_eq!(
        run.due(&p, now),
        (Due::Nothing, want.map(|s| now + secs(s)))
    );
    if let Some(s) = want {
        p["metadata"]["annotations"][EXIT_CODE] = json!("3");
        let again = p["spec"]["restartPolicy"] == "OnFailure";
        let want = if again {
            Due::Restart(3)
        } else {
            Due::Finish(3)
        };
        assert_eq!(run.due(&p, now + secs(s)).0, want);
        p["metadata"]["annotations"][EXIT_CODE] = json!("0");
        assert_eq!(run.due(&p, now + secs(s)).0, Due::Finish(0));
    }
}
