//! Log lines: one JSON object each, keys in the order that Karpenter's tools match on (`level`, `time`, `logger`,
//! `message`, `commit`, the controller's context, then the line's own fields as the code gives them, `error` last).
//!
//! Field names follow the contract's: `instance_types` in code is `instance-types` in the line. Objects are given as
//! `NodePool = %name`, or as any value that displays as a JSON object, and come out as `{"name": ...}`.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::{LookupSpan, Registry};

use crate::settings::LogLevel;
use crate::{Clock, build};

mod fields;
mod sink;

use fields::{Collector, Field, push_pair, push_raw};
pub use sink::{MemorySink, OpenError, Sink};

/// Equal lines (level and message) a second that are written before sampling begins.
const SAMPLE_FIRST: u64 = 100;

/// Of equal lines beyond that, each so-manyth is written.
const SAMPLE_THEREAFTER: u64 = 100;

/// Length of the sampling window.
const SAMPLE_TICK: Duration = Duration::from_secs(1);

/// Different lines that are counted at once; beyond, all counts start anew.
const SAMPLED_LINES: usize = 4096;

/// Only our own crates are heard: what libraries say is not part of the contract.
const OWN_TARGETS: &str = "karpenter";

/// Where a log goes.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// Its lines: each to all of these.
    pub lines: Vec<Sink>,
    /// What goes wrong with writing them.
    pub complaints: Vec<Sink>,
}

impl From<Vec<Sink>> for Outputs {
    /// Lines alone; what cannot be written is lost.
    fn from(lines: Vec<Sink>) -> Self {
        Self {
            lines,
            complaints: Vec::new(),
        }
    }
}

/// Writes events as JSON lines.
pub struct JsonLines {
    level: LogLevel,
    clock: Clock,
    outputs: Outputs,
    sampler: Option<Mutex<Sampler>>,
}

/// A subscriber that writes JSON lines to `outputs`: for `set_global_default` in a process, for `set_default` in a
/// world that shares its process with others.
#[must_use]
pub fn subscriber(
    level: LogLevel,
    clock: Clock,
    outputs: impl Into<Outputs>,
) -> impl Subscriber + Send + Sync {
    Registry::default().with(JsonLines::new(level, clock, outputs))
}

impl JsonLines {
    /// A layer for a subscriber of one's own.
    #[must_use]
    pub fn new(level: LogLevel, clock: Clock, outputs: impl Into<Outputs>) -> Self {
        Self {
            level,
            clock,
            outputs: outputs.into(),
            sampler: Some(Mutex::default()),
        }
    }

    /// Writes every line, however often it repeats: for worlds in virtual time, where much happens in one second.
    #[must_use]
    pub fn unsampled(mut self) -> Self {
        self.sampler = None;
        self
    }

    fn hears(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with(OWN_TARGETS) && level_of(metadata.level()) >= self.level
    }

    fn time(&self) -> String {
        let now = self.clock.wall();
        now.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
    }

    fn line(
        &self,
        metadata: &Metadata<'_>,
        message: &str,
        context: &[Field],
        own: &[Field],
    ) -> String {
        let mut line = String::with_capacity(256);
        let level = match level_of(metadata.level()) {
            LogLevel::Debug => "DEBUG",
            LogLevel::Info => "INFO",
            LogLevel::Error => "ERROR",
        };
        line.push('{');
        push_pair(&mut line, "level", level);
        push_pair(&mut line, "time", &self.time());
        push_pair(&mut line, "logger", "controller");
        if self.level == LogLevel::Debug {
            let caller = format!(
                "{}:{}",
                metadata.file().unwrap_or_default(),
                metadata.line().unwrap_or_default()
            );
            push_pair(&mut line, "caller", &caller);
        }
        push_pair(&mut line, "message", message);
        push_pair(&mut line, "commit", build::COMMIT);
        for field in context {
            // What the line itself says of a key stands; said twice alike, it stands where the context has it.
            if own
                .iter()
                .all(|f| f.key != field.key || f.json == field.json)
            {
                push_raw(&mut line, &field.key, &field.json);
            }
        }
        let (errors, others): (Vec<_>, Vec<_>) = own.iter().partition(|f| f.key == "error");
        for field in others.into_iter().chain(errors) {
            if !context.contains(field) {
                push_raw(&mut line, &field.key, &field.json);
            }
        }
        line.push('}');
        line
    }
}

/// Levels as the contract has them: what is finer than debug is debug, and a warning is something that went wrong.
fn level_of(level: &Level) -> LogLevel {
    match *level {
        Level::ERROR | Level::WARN => LogLevel::Error,
        Level::INFO => LogLevel::Info,
        Level::DEBUG | Level::TRACE => LogLevel::Debug,
    }
}

/// Fields of a span, ready to be written.
struct SpanFields(Vec<Field>);

impl<S> Layer<S> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if !span.metadata().target().starts_with(OWN_TARGETS) {
            return;
        }
        let mut collector = Collector::default();
        attributes.record(&mut collector);
        span.extensions_mut()
            .insert(SpanFields(fields::with_object_key(collector.fields)));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut collector = Collector::default();
        values.record(&mut collector);
        if let Some(SpanFields(held)) = span.extensions_mut().get_mut() {
            held.retain(|field| collector.fields.iter().all(|f| f.key != field.key));
            held.extend(collector.fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        if !self.hears(metadata) {
            return;
        }
        let mut collector = Collector::default();
        event.record(&mut collector);
        let message = collector.message.unwrap_or_default();
        if let Some(sampler) = &self.sampler
            && !sampler
                .lock()
                .admit(metadata.level(), &message, self.clock.now())
        {
            return;
        }
        let mut inherited: Vec<Field> = Vec::new();
        for span in context
            .event_scope(event)
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            if let Some(SpanFields(fields)) = span.extensions().get() {
                inherited.retain(|field| fields.iter().all(|f| f.key != field.key));
                inherited.extend(fields.iter().cloned());
            }
        }
        let line = self.line(metadata, &message, &inherited, &collector.fields);
        for sink in &self.outputs.lines {
            let Err(error) = sink.write(&line) else {
                continue;
            };
            let complaint = format!("{} write error: {error}", self.time());
            for sink in &self.outputs.complaints {
                // The last place there is: what cannot be written here is lost.
                let _ = sink.write(&complaint);
            }
        }
    }
}

/// Thins out lines that repeat too often.
#[derive(Default)]
struct Sampler {
    counts: BTreeMap<(Level, String), (Instant, u64)>,
}

impl Sampler {
    fn admit(&mut self, level: &Level, message: &str, now: Instant) -> bool {
        if self.counts.len() >= SAMPLED_LINES {
            self.counts.clear();
        }
        let (since, count) = self
            .counts
            .entry((*level, message.to_owned()))
            .or_insert((now, 0));
        if now.saturating_duration_since(*since) >= SAMPLE_TICK {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= SAMPLE_FIRST || (*count - SAMPLE_FIRST).is_multiple_of(SAMPLE_THEREAFTER)
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
