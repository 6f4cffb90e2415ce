//! The runner's queue: which keys are due, which wait for a deadline, which run, and which were added meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Key;
use crate::metrics::Metrics;

/// Handle to add keys to a runner; cheap to clone.
#[derive(Clone)]
pub struct Queue {
    shared: Arc<Shared>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("name", &self.shared.name)
            .finish_non_exhaustive()
    }
}

impl Queue {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Runs `key` as soon as a slot is free.
    pub fn add(&self, key: Key) {
        self.shared.add(key);
    }

    /// Runs `key` after `delay` at the latest.
    pub fn add_after(&self, key: Key, delay: Duration) {
        if delay.is_zero() {
            self.shared.add(key);
        } else {
            self.shared.add_at(key, Instant::now() + delay);
        }
    }

    /// Keys that are due and wait for a slot.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.shared.state.lock().depth()
    }
}

/// What the handles and the runner's task share.
pub(crate) struct Shared {
    name: &'static str,
    metrics: Metrics,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    /// Due, in the round that is being worked off.
    round: BTreeSet<Key>,
    /// Due, in the next round.
    next: BTreeSet<Key>,
    /// Since when a due key waits.
    due_since: BTreeMap<Key, Instant>,
    /// Deadline of each waiting key, both ways.
    deadline: BTreeMap<Key, Instant>,
    by_deadline: BTreeSet<(Instant, Key)>,
    /// Running: whether to run again, and since when.
    running: BTreeMap<Key, (bool, Instant)>,
    /// The runner is ending: nothing more is taken in.
    closed: bool,
}

impl State {
    fn depth(&self) -> usize {
        self.round.len() + self.next.len()
    }

    /// Makes `key` due; true if it was not.
    fn make_due(&mut self, key: Key, now: Instant) -> bool {
        if self.closed {
            return false;
        }
        if let Some((again, _)) = self.running.get_mut(&key) {
            return !std::mem::replace(again, true);
        }
        self.clear_deadline(&key);
        if self.round.contains(&key) || !self.next.insert(key.clone()) {
            return false;
        }
        self.due_since.insert(key, now);
        true
    }

    fn clear_deadline(&mut self, key: &Key) {
        if let Some(at) = self.deadline.remove(key) {
            self.by_deadline.remove(&(at, key.clone()));
        }
    }

    /// Sets a deadline unless the key is due already or has an earlier one; true if the earliest one moved.
    fn wait_until(&mut self, key: Key, at: Instant) -> bool {
        if self.closed || self.round.contains(&key) || self.next.contains(&key) {
            return false;
        }
        if self.deadline.get(&key).is_some_and(|held| *held <= at) {
            return false;
        }
        self.clear_deadline(&key);
        self.deadline.insert(key.clone(), at);
        self.by_deadline.insert((at, key.clone()));
        self.by_deadline.first() == Some(&(at, key))
    }
}

impl Shared {
    pub(crate) fn new(name: &'static str, metrics: Metrics) -> Self {
        Self {
            name,
            metrics,
            state: Mutex::default(),
            wake: Notify::new(),
        }
    }

    fn labels(&self) -> [(&'static str, &'static str); 2] {
        [("name", self.name), ("controller", self.name)]
    }

    fn report_depth(&self, depth: usize) {
        let depth = u32::try_from(depth).map_or(f64::MAX, f64::from);
        self.metrics.set("workqueue_depth", &self.labels(), depth);
    }

    fn add(&self, key: Key) {
        let mut state = self.state.lock();
        if !state.make_due(key, Instant::now()) {
            return;
        }
        let depth = state.depth();
        drop(state);
        self.metrics.inc("workqueue_adds_total", &self.labels());
        self.report_depth(depth);
        self.wake.notify_one();
    }

    fn add_at(&self, key: Key, at: Instant) {
        if self.state.lock().wait_until(key, at) {
            self.wake.notify_one();
        }
    }

    /// Waits until a key was added.
    pub(crate) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Makes keys due whose deadline has come; returns the next deadline.
    pub(crate) fn promote_due(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state.lock();
        let mut promoted = 0_u32;
        while let Some((at, key)) = state.by_deadline.first().cloned() {
            if at > now {
                break;
            }
            state.clear_deadline(&key);
            promoted += u32::from(state.make_due(key, now));
        }
        let next = state.by_deadline.first().map(|(at, _)| *at);
        let depth = state.depth();
        drop(state);
        if promoted > 0 {
            self.metrics
                .add("workqueue_adds_total", &self.labels(), f64::from(promoted));
            self.report_depth(depth);
        }
        next
    }

    /// The next key to run; it counts as running from now on.
    pub(crate) fn take(&self, now: Instant) -> Option<Key> {
        let mut state = self.state.lock();
        if state.round.is_empty() {
            state.round = std::mem::take(&mut state.next);
        }
        let key = state.round.pop_first()?;
        // Whatever it waited for is served by this run: what comes after is the run's own word.
        state.clear_deadline(&key);
        state.running.insert(key.clone(), (false, now));
        let waited = state
            .due_since
            .remove(&key)
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let depth = state.depth();
        drop(state);
        self.metrics.observe(
            "workqueue_queue_duration_seconds",
            &self.labels(),
            waited.as_secs_f64(),
        );
        self.report_depth(depth);
        Some(key)
    }

    /// Takes note that `key` no longer runs and wants to be run at `again` at the latest.
    pub(crate) fn done(&self, key: &Key, again: Option<Instant>) {
        let now = Instant::now();
        let mut state = self.state.lock();
        let added_meanwhile = state.running.remove(key).is_some_and(|(again, _)| again);
        if added_meanwhile || again.is_some_and(|at| at <= now) {
            state.make_due(key.clone(), now);
        } else if let Some(at) = again {
            state.wait_until(key.clone(), at);
        }
        let depth = state.depth();
        drop(state);
        self.report_depth(depth);
    }

    /// Sets the gauges on what runs now.
    pub(crate) fn report_running(&self, metrics: &Metrics) {
        let now = Instant::now();
        let state = self.state.lock();
        let ages = state.running.values();
        let ages = ages.map(|(_, since)| now.saturating_duration_since(*since).as_secs_f64());
        let (sum, longest) = ages.fold((0.0, 0.0_f64), |(sum, max), age| (sum + age, max.max(age)));
        drop(state);
        let labels = self.labels();
        metrics.set("workqueue_unfinished_work_seconds", &labels, sum);
        metrics.set(
            "workqueue_longest_running_processor_seconds",
            &labels,
            longest,
        );
    }

    pub(crate) fn worked(&self, took: Duration) {
        self.metrics.observe(
            "workqueue_work_duration_seconds",
            &self.labels(),
            took.as_secs_f64(),
        );
    }

    pub(crate) fn retried(&self) {
        self.metrics.inc("workqueue_retries_total", &self.labels());
    }

    /// Takes in nothing more and forgets what waits.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.round.clear();
        state.next.clear();
        state.due_since.clear();
        state.deadline.clear();
        state.by_deadline.clear();
        drop(state);
        self.report_depth(0);
    }
}
