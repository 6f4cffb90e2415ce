//! Events as Karpenter writes them: core/v1, `source.component: karpenter`, with `count`, `firstTimestamp` and
//! `lastTimestamp`; equal events within a window become one. This is the caller's side: what is worth writing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::event_writer::{self, Message, Record};
use crate::{Clock, RngTree};

/// `Normal` or `Warning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// Expected.
    Normal,
    /// Needs a look.
    Warning,
}

impl EventType {
    /// As written into the object.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// An event to publish. Controllers build these in functions that return a value, so that all words stand together.
#[derive(Clone, Debug)]
pub struct Event {
    /// Object it is about (`kube::Resource::object_ref`).
    pub about: ObjectReference,
    /// `Normal` or `Warning`.
    pub kind: EventType,
    /// Reason, such as `Nominated`.
    pub reason: &'static str,
    /// Text.
    pub message: String,
    /// What besides the reason makes two events the same; empty = object and message.
    pub dedupe: Vec<String>,
    /// Window in which equal events are dropped.
    pub window: Duration,
}

/// Default window in which equal events are dropped.
pub const DEFAULT_DEDUPE_WINDOW: Duration = Duration::from_secs(120);

/// Events that may wait for the writer; more are dropped, as callers never wait.
const QUEUE_CAPACITY_EVENTS: usize = 1000;

/// How often forgotten windows are swept out (`operations.md` §4).
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// A limit on how many events of one reason are written, as a token bucket.
struct RateLimit {
    reason: &'static str,
    per_second: f64,
    burst: f64,
}

/// Reasons with a limit of their own: a scale-up of thousands of pods must not flood the API server.
const RATE_LIMITS: &[RateLimit] = &[RateLimit {
    reason: "Nominated",
    per_second: 5.0,
    burst: 10.0,
}];

/// Publishes events; cheap to clone. Publishing never blocks and never fails the caller.
#[derive(Clone, Debug)]
pub struct EventRecorder {
    inner: Option<Arc<Inner>>,
}

#[derive(Debug)]
struct Inner {
    clock: Clock,
    filter: Mutex<Filter>,
    queue: mpsc::Sender<Message>,
    writer: AbortHandle,
}

impl EventRecorder {
    /// A recorder that writes through `client` in a task of its own; the task ends when the last clone is dropped.
    #[must_use]
    pub fn new(client: kube::Client, clock: Clock, rng: &RngTree) -> Self {
        let (queue, messages) = mpsc::channel(QUEUE_CAPACITY_EVENTS);
        let writer = tokio::spawn(event_writer::run(client, rng.child("events", ""), messages));
        Self {
            inner: Some(Arc::new(Inner {
                clock,
                filter: Mutex::default(),
                queue,
                writer: writer.abort_handle(),
            })),
        }
    }

    /// A recorder that drops everything.
    #[must_use]
    pub fn discard() -> Self {
        Self { inner: None }
    }

    /// Publishes `event` unless an equal one was published within its window.
    pub fn publish(&self, event: Event) {
        let Some(inner) = &self.inner else { return };
        if !inner.filter.lock().admit(&event, inner.clock.now()) {
            return;
        }
        let record = Record {
            about: event.about,
            kind: event.kind.as_str(),
            reason: event.reason,
            message: event.message,
            at: inner.clock.wall(),
        };
        if inner
            .queue
            .try_send(Message::Write(Box::new(record)))
            .is_err()
        {
            tracing::debug!(reason = event.reason, "dropped event, queue is full");
        }
    }

    /// Waits until everything published so far is written (or given up on). For shutdown and tests.
    pub async fn flush(&self) {
        let Some(inner) = &self.inner else { return };
        let (done, wait) = oneshot::channel();
        if inner.queue.send(Message::Flush(done)).await.is_ok() {
            // An error means the writer is gone: nothing is left to wait for.
            let _ = wait.await;
        }
    }

    /// Stops writing at once; what is queued is lost, as it would be in a crash.
    pub fn abort(&self) {
        if let Some(inner) = &self.inner {
            inner.writer.abort();
        }
    }
}

/// Decides which events are worth writing.
#[derive(Debug, Default)]
struct Filter {
    /// When the window of each event seen ends.
    open_until: BTreeMap<String, Instant>,
    swept: Option<Instant>,
    buckets: BTreeMap<&'static str, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Filter {
    fn admit(&mut self, event: &Event, now: Instant) -> bool {
        self.sweep(now);
        let key = dedupe_key(event);
        if self.open_until.get(&key).is_some_and(|end| *end > now) {
            return false;
        }
        // The window opens only for what is written: what the limit held back may be said again.
        if !self.take_token(event.reason, now) {
            return false;
        }
        self.open_until.insert(key, now + event.window);
        true
    }

    fn sweep(&mut self, now: Instant) {
        let due = self
            .swept
            .is_none_or(|at| now.saturating_duration_since(at) >= SWEEP_INTERVAL);
        if due {
            self.open_until.retain(|_, end| *end > now);
            self.swept = Some(now);
        }
    }

    fn take_token(&mut self, reason: &'static str, now: Instant) -> bool {
        let Some(limit) = RATE_LIMITS.iter().find(|l| l.reason == reason) else {
            return true;
        };
        let bucket = self.buckets.entry(reason).or_insert(Bucket {
            tokens: limit.burst,
            filled: now,
        });
        let elapsed = now.saturating_duration_since(bucket.filled).as_secs_f64();
        bucket.tokens = (bucket.tokens + elapsed * limit.per_second).min(limit.burst);
        bucket.filled = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

/// Reason and key values; without key values, object and message. The object is always part of it: one reason on a
/// Node and on its NodeClaim are two events.
fn dedupe_key(event: &Event) -> String {
    let about = &event.about;
    let mut key = event.reason.to_lowercase();
    for part in [&about.kind, &about.namespace, &about.name] {
        key.push('\u{1f}');
        key.push_str(part.as_deref().unwrap_or_default());
    }
    let message = std::slice::from_ref(&event.message);
    let values = if event.dedupe.is_empty() {
        message
    } else {
        &event.dedupe
    };
    for value in values {
        key.push('\u{1f}');
        key.push_str(value);
    }
    key
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
