//! Events as Karpenter writes them: core/v1, `source.component: karpenter`, with `count`, `firstTimestamp` and
//! `lastTimestamp`; equal events within a window become one.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;

/// `Normal` or `Warning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// Expected.
    Normal,
    /// Needs a look.
    Warning,
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

/// Publishes events; cheap to clone. Publishing never blocks and never fails the caller.
#[derive(Clone, Debug)]
pub struct EventRecorder {
    // INTERFACE: the runtime author fills this in.
}

impl EventRecorder {
    /// A recorder that writes through `client` in a task of its own.
    #[must_use]
    pub fn new(_client: kube::Client, _clock: crate::Clock, _rng: &crate::RngTree) -> Self {
        Self {}
    }
    /// A recorder that drops everything.
    #[must_use]
    pub fn discard() -> Self {
        Self {}
    }
    /// Publishes `event` unless an equal one was published within its window.
    pub fn publish(&self, _event: Event) {}
}
