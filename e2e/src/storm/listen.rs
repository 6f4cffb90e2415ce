//! Hears the controller say what it disrupts: the one thing that cannot be seen from outside is which machines were
//! bought in place of which. Everything else about a command is judged by what happens in the cluster.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Message of the line that is listened for.
const MESSAGE: &str = "disrupting node(s)";

/// A command as it was announced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// `Underutilized/...: delete: ...`
    pub text: String,
    /// Claims that go.
    pub candidates: Vec<String>,
    /// Claims that come in their place.
    pub replacements: Vec<String>,
}

impl Announced {
    /// Why: `Empty`, `Drifted`, `Underutilized`.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.text.split('/').next().unwrap_or_default()
    }
}

/// What was announced since it was last asked; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Ear(Arc<Mutex<Vec<Announced>>>);

impl Ear {
    /// What was announced since the last time.
    #[must_use]
    pub fn heard(&self) -> Vec<Announced> {
        std::mem::take(&mut *self.0.lock())
    }

    /// Listens on this thread until the guard is dropped.
    #[must_use]
    pub fn listen(&self) -> tracing::subscriber::DefaultGuard {
        tracing::subscriber::set_default(Listener(self.clone()))
    }
}

/// Keeps the one line, and nothing of spans.
struct Listener(Ear);

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.fields().field("disrupted-nodes").is_some()
    }
    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        // Never asked for: spans are not enabled. An id must not be zero.
        Id::from_u64(1)
    }
    fn record(&self, _span: &Id, _values: &Record<'_>) {}
    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        if line.message == MESSAGE {
            self.0.0.lock().push(line.announced);
        }
    }
    fn enter(&self, _span: &Id) {}
    fn exit(&self, _span: &Id) {}
}

/// One line as it is read.
#[derive(Default)]
struct Line {
    message: String,
    announced: Announced,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            "command" => self.announced.text = text,
            "disrupted-nodes" => self.announced.candidates = claims(&text),
            "replacement-nodes" => self.announced.replacements = claims(&text),
            _ => {}
        }
    }
}

/// Names of the claims in a list of nodes.
fn claims(list: &str) -> Vec<String> {
    let list: Value = serde_json::from_str(list).unwrap_or_default();
    let each = list.as_array().into_iter().flatten();
    each.map(|n| crate::json::text(n, "/NodeClaim/name").to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_heard_and_nothing_else() {
        let ear = Ear::default();
        {
            let _guard = ear.listen();
            let nodes = serde_json::json!([{"Node": {"name": "n"}, "NodeClaim": {"name": "a"}}]);
            tracing::info!(command = %"Drifted/1: replace", "disrupted-nodes" = %nodes, "replacement-nodes" = %"[]", "disrupting node(s)");
            tracing::info!("something else");
        }
        tracing::info!("disrupted-nodes" = %"[]", "disrupting node(s)");
        let heard = ear.heard();
        assert_eq!(heard.len(), 1);
        let command = &heard[0];
        assert_eq!(
            (command.reason(), command.candidates.as_slice()),
            ("Drifted", ["a".to_owned()].as_slice())
        );
        assert!(command.replacements.is_empty() && ear.heard().is_empty());
    }
}
