//! The runner's promises, under paused time.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rstest::rstest;

use super::*;

type Script = Box<dyn Fn(&Key, usize) -> Result<Action, ReconcileError> + Send + Sync>;

/// Notes which key ran when, answers from a script, and takes `takes` for each.
struct Probe {
    script: Script,
    takes: Duration,
    begun: Instant,
    log: Mutex<Vec<(u128, String)>>,
    seen: Mutex<BTreeMap<Key, usize>>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    metrics: Metrics,
}

impl Probe {
    fn new(
        takes: Duration,
        script: impl Fn(&Key, usize) -> Result<Action, ReconcileError> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            script: Box::new(script),
            takes,
            begun: Instant::now(),
            log: Mutex::default(),
            seen: Mutex::default(),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            metrics: Metrics::default(),
        })
    }

    fn log(&self) -> Vec<(u128, String)> {
        self.log.lock().clone()
    }

    fn keys(&self) -> Vec<String> {
        self.log().into_iter().map(|(_, key)| key).collect()
    }

    fn times(&self) -> Vec<u128> {
        self.log().into_iter().map(|(at, _)| at).collect()
    }
}

#[async_trait]
impl Reconciler for Probe {
    fn name(&self) -> &'static str {
        "probe"
    }
    fn metrics(&self) -> Option<&Metrics> {
        Some(&self.metrics)
    }
    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let at_once = self.at_once.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_at_once.fetch_max(at_once, Ordering::Relaxed);
        self.log
            .lock()
            .push((self.begun.elapsed().as_millis(), key.to_string()));
        let nth = {
            let mut seen = self.seen.lock();
            let n = seen.entry(key.clone()).or_default();
            *n += 1;
            *n
        };
        if !self.takes.is_zero() {
            tokio::time::sleep(self.takes).await;
        }
        self.at_once.fetch_sub(1, Ordering::Relaxed);
        (self.script)(key, nth)
    }
}

fn start(
    probe: &Arc<Probe>,
    concurrency: usize,
) -> (Queue, tokio::task::JoinHandle<()>, CancellationToken) {
    let stop = CancellationToken::new();
    let options = RunnerOptions {
        concurrency,
        ..RunnerOptions::default()
    };
    let (queue, task) = spawn(
        Arc::clone(probe),
        options,
        Clock::real(),
        &RngTree::new(1),
        stop.clone(),
    );
    (queue, task, stop)
}

fn fail() -> Result<Action, ReconcileError> {
    Err(ReconcileError::Retry("boom".into()))
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn due_keys_run_sorted_and_once() {
    let probe = Probe::new(Duration::ZERO, |_, _| Ok(Action::AwaitChange));
    let (queue, ..) = start(&probe, 1);
    for name in ["c", "a", "b", "a", "c"] {
        queue.add(Key::cluster(name));
    }
    pass(1).await;
    assert_eq!(probe.keys(), ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_busy_key_does_not_starve_a_later_one() {
    let probe = Probe::new(Duration::from_millis(10), |key, nth| {
        Ok(if &*key.name == "a" && nth < 5 {
            Action::RequeueAfter(Duration::ZERO)
        } else {
            Action::AwaitChange
        })
    });
    let (queue, ..) = start(&probe, 1);
    queue.add(Key::cluster("a"));
    queue.add(Key::cluster("z"));
    pass(1).await;
    assert_eq!(probe.keys(), ["a", "z", "a", "a", "a", "a"]);
}

#[tokio::test(start_paused = true)]
async fn a_key_added_while_it_runs_runs_once_more() {
    let probe = Probe::new(Duration::from_millis(100), |_, _| Ok(Action::AwaitChange));
    let (queue, ..) = start(&probe, 4);
    queue.add(Key::cluster("a"));
    tokio::time::sleep(Duration::from_millis(50)).await;
    for _ in 0..3 {
        queue.add(Key::cluster("a"));
    }
    pass(1).await;
    assert_eq!(
        probe.times(),
        [0, 100],
        "never twice at once, and once more"
    );
}

#[tokio::test(start_paused = true)]
async fn at_most_the_given_number_runs_at_once() {
    let probe = Probe::new(Duration::from_millis(100), |_, _| Ok(Action::AwaitChange));
    let (queue, ..) = start(&probe, 3);
    for i in 0..7 {
        queue.add(Key::cluster(&format!("k{i}")));
    }
    pass(1).await;
    assert_eq!(probe.most_at_once.load(Ordering::Relaxed), 3);
    assert_eq!(probe.times(), [0, 0, 0, 100, 100, 100, 200]);
}

#[rstest]
#[case::earlier_first(&[10, 30], &[10_000])]
#[case::later_first(&[30, 10], &[10_000])]
#[case::now_beats_both(&[30, 0], &[0])]
#[tokio::test(start_paused = true)]
async fn the_earliest_deadline_counts(#[case] waits: &[u64], #[case] runs: &[u128]) {
    let probe = Probe::new(Duration::ZERO, |_, _| Ok(Action::AwaitChange));
    let (queue, ..) = start(&probe, 1);
    for wait in waits {
        queue.add_after(Key::cluster("a"), Duration::from_secs(*wait));
    }
    pass(100).await;
    assert_eq!(probe.times(), runs);
}

#[tokio::test(start_paused = true)]
async fn requeue_after_waits_and_a_change_comes_before_it() {
    let probe = Probe::new(Duration::ZERO, |_, nth| {
        Ok(if nth < 3 {
            Action::RequeueAfter(Duration::from_secs(10))
        } else {
            Action::AwaitChange
        })
    });
    let (queue, ..) = start(&probe, 1);
    queue.add(Key::cluster("a"));
    pass(15).await;
    queue.add(Key::cluster("a"));
    pass(100).await;
    assert_eq!(probe.times(), [0, 10_000, 15_000]);
}

#[tokio::test(start_paused = true)]
async fn errors_back_off_per_key_and_success_resets() {
    let probe = Probe::new(Duration::ZERO, |_, nth| match nth {
        1..=3 | 5 => fail(),
        _ => Ok(Action::AwaitChange),
    });
    let (queue, ..) = start(&probe, 1);
    queue.add(Key::cluster("a"));
    pass(10).await;
    queue.add(Key::cluster("a"));
    pass(10).await;
    let times = probe.times();
    assert_eq!(times.len(), 6, "{times:?}");
    let waits: Vec<u128> = times.windows(2).map(|w| w[1] - w[0]).collect();
    for (wait, full) in [
        (waits[0], 100),
        (waits[1], 200),
        (waits[2], 400),
        (waits[4], 100),
    ] {
        assert!(wait >= full * 3 / 4 && wait <= full + 1, "{waits:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_runs_from_one_seed_wait_alike() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let probe = Probe::new(Duration::ZERO, |_, _| fail());
        let (queue, ..) = start(&probe, 2);
        queue.add(Key::namespaced("ns", "a"));
        queue.add(Key::namespaced("ns", "b"));
        pass(30).await;
        runs.push(probe.log());
    }
    assert!(runs[0].len() > 10);
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test(start_paused = true)]
async fn conflicts_are_retried_at_once_but_not_for_ever() {
    let probe = Probe::new(Duration::ZERO, |_, nth| {
        if nth <= 4 {
            Err(ReconcileError::Conflict)
        } else {
            Ok(Action::AwaitChange)
        }
    });
    let (queue, ..) = start(&probe, 1);
    queue.add(Key::cluster("a"));
    pass(10).await;
    let times = probe.times();
    assert_eq!(times[..4], [0, 0, 0, 0]);
    assert!(times[4] >= 75 && times[4] <= 101, "{times:?}");
    let page = probe.metrics.render();
    assert!(
        page.contains(
            r#"controller_runtime_reconcile_total{controller="probe",result="requeue"} 4"#
        ),
        "{page}"
    );
    let errors = r#"controller_runtime_reconcile_errors_total{controller="probe"} 0"#;
    assert!(page.contains(errors), "{page}");
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_an_error_of_its_key_only() {
    let probe = Probe::new(Duration::ZERO, |key, nth| {
        assert!(&*key.name != "a" || nth > 1, "first run of a");
        Ok(Action::AwaitChange)
    });
    let (queue, ..) = start(&probe, 2);
    queue.add(Key::cluster("a"));
    queue.add(Key::cluster("b"));
    pass(10).await;
    assert_eq!(probe.keys(), ["a", "b", "a"]);
    let page = probe.metrics.render();
    assert!(
        page.contains(r#"controller_runtime_reconcile_panics_total{controller="probe"} 1"#),
        "{page}"
    );
}

#[tokio::test(start_paused = true)]
async fn stopping_finishes_what_runs_and_starts_nothing() {
    let probe = Probe::new(Duration::from_secs(5), |_, _| {
        Ok(Action::RequeueAfter(Duration::ZERO))
    });
    let (queue, task, stop) = start(&probe, 1);
    queue.add(Key::cluster("a"));
    queue.add(Key::cluster("b"));
    pass(1).await;
    stop.cancel();
    task.await.unwrap();
    assert_eq!(probe.keys(), ["a"]);
    assert_eq!(probe.at_once.load(Ordering::Relaxed), 0, "a was let finish");
    assert_eq!(probe.begun.elapsed(), Duration::from_secs(5));
    queue.add(Key::cluster("c"));
    pass(10).await;
    assert_eq!(probe.keys(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn the_page_shows_the_queue_and_what_runs() {
    let probe = Probe::new(Duration::from_secs(5), |_, _| Ok(Action::AwaitChange));
    let (queue, ..) = start(&probe, 2);
    for name in ["a", "b", "c"] {
        queue.add(Key::cluster(name));
    }
    pass(3).await;
    let page = probe.metrics.render();
    let labels = r#"{controller="probe",name="probe"}"#;
    for line in [
        format!("workqueue_depth{labels} 1\n"),
        format!("workqueue_adds_total{labels} 3\n"),
        format!("workqueue_unfinished_work_seconds{labels} 6\n"),
        format!("workqueue_longest_running_processor_seconds{labels} 3\n"),
        "controller_runtime_active_workers{controller=\"probe\"} 2\n".to_owned(),
        "controller_runtime_max_concurrent_reconciles{controller=\"probe\"} 2\n".to_owned(),
    ] {
        assert!(page.contains(&line), "{line} in {page}");
    }
}

#[tokio::test(start_paused = true)]
async fn aborting_cuts_reconciles_off() {
    let probe = Probe::new(Duration::from_secs(5), |_, _| Ok(Action::AwaitChange));
    let (queue, task, _stop) = start(&probe, 1);
    queue.add(Key::cluster("a"));
    pass(1).await;
    task.abort();
    pass(10).await;
    assert_eq!(
        probe.at_once.load(Ordering::Relaxed),
        1,
        "never came to its end"
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_runner_costs_nothing() {
    let probe = Probe::new(Duration::ZERO, |_, _| {
        Ok(Action::RequeueAfter(Duration::from_secs(86_400)))
    });
    let (queue, ..) = start(&probe, 1);
    queue.add(Key::cluster("a"));
    pass(30 * 86_400 - 1).await;
    assert_eq!(probe.keys().len(), 30);
}

#[rstest]
#[case(1, 0.0, 100)]
#[case(2, 0.0, 200)]
#[case(10, 0.0, 51_200)]
#[case(11, 0.0, 60_000)]
#[case(u32::MAX, 0.0, 60_000)]
#[case(2, 1.0, 150)]
fn backoff_doubles_to_the_maximum(#[case] failures: u32, #[case] unit: f64, #[case] millis: u64) {
    assert_eq!(
        RunnerOptions::default().backoff(failures, unit),
        Duration::from_millis(millis)
    );
}
