//! The writer's side of events: a task that turns records into core/v1 Events and raises `count` on repeats.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use crate::RngTree;

/// `source.component` and `reportingComponent`; dashboards select events by it.
const COMPONENT: &str = "karpenter";

/// Namespace of events about cluster-scoped objects.
const CLUSTER_SCOPED_NAMESPACE: &str = "default";

/// Events remembered so that a repeat raises their count instead of making another object.
const REMEMBERED_EVENTS: usize = 4096;

/// Times an event is tried before it is given up on: events inform, they must not pile up behind a sick API server.
const WRITE_ATTEMPTS: u32 = 3;

/// Wait between attempts.
const RETRY_WAIT: Duration = Duration::from_secs(10);

/// Longest message the API takes, in bytes (`validation.EventMessageMaxLength` of Kubernetes).
const MESSAGE_BYTES: usize = 1024;

/// What the writer is asked for.
pub(crate) enum Message {
    /// Write this.
    Write(Box<Record>),
    /// Answer once everything before is written.
    Flush(oneshot::Sender<()>),
}

/// An event as published.
pub(crate) struct Record {
    pub(crate) about: ObjectReference,
    pub(crate) kind: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) at: Timestamp,
}

/// What makes a repeat: object, type, reason, message.
type Identity = (
    String,
    String,
    String,
    String,
    &'static str,
    &'static str,
    String,
);

struct Written {
    name: String,
    count: i32,
    /// Position in the order of use.
    used: u64,
}

struct Writer {
    client: kube::Client,
    rng: RngTree,
    written: BTreeMap<Identity, Written>,
    by_use: BTreeMap<u64, Identity>,
    sequence: u64,
}

pub(crate) async fn run(client: kube::Client, rng: RngTree, mut messages: mpsc::Receiver<Message>) {
    let mut writer = Writer {
        client,
        rng,
        written: BTreeMap::new(),
        by_use: BTreeMap::new(),
        sequence: 0,
    };
    while let Some(message) = messages.recv().await {
        match message {
            Message::Write(record) => writer.write(*record).await,
            // Nobody waiting any more is fine.
            Message::Flush(done) => drop(done.send(())),
        }
    }
}

impl Writer {
    async fn write(&mut self, mut record: Record) {
        truncate(&mut record.message, MESSAGE_BYTES);
        let mut last = None;
        for attempt in 0..WRITE_ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(RETRY_WAIT).await;
            }
            match self.try_write(&record).await {
                Ok(()) => return,
                // The object or its namespace is gone or forbidden: another try changes nothing.
                Err(kube::Error::Api(status))
                    if (400..500).contains(&status.code) && status.code != 429 =>
                {
                    last = Some(kube::Error::Api(status));
                    break;
                }
                Err(error) => last = Some(error),
            }
        }
        if let Some(error) = last {
            tracing::debug!(reason = record.reason, error = %error, "failed writing event");
        }
    }

    async fn try_write(&mut self, record: &Record) -> Result<(), kube::Error> {
        let namespace = record
            .about
            .namespace
            .clone()
            .filter(|n| !n.is_empty())
            .unwrap_or_else(|| CLUSTER_SCOPED_NAMESPACE.to_owned());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let identity = identity(record);
        if let Some((name, count)) = self.remembered(&identity) {
            let count = count.saturating_add(1);
            let patch = json!({
                "count": count,
                "lastTimestamp": Time(record.at),
            });
            let params = PatchParams::default();
            match api.patch(&name, &params, &Patch::Merge(patch)).await {
                Ok(_) => {
                    self.remember(identity, name, count);
                    return Ok(());
                }
                // Events are kept for an hour only: a later repeat starts anew.
                Err(kube::Error::Api(status)) if status.is_not_found() => self.forget(&identity),
                Err(error) => return Err(error),
            }
        }
        loop {
            let event = self.object(record, &namespace);
            let name = event.metadata.name.clone().unwrap_or_default();
            match api.create(&PostParams::default(), &event).await {
                Ok(_) => {
                    self.remember(identity, name, 1);
                    return Ok(());
                }
                // Two runs from one seed drew the same name in the same nanosecond: the next draw differs.
                Err(kube::Error::Api(status)) if status.is_already_exists() => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn object(&mut self, record: &Record, namespace: &str) -> Event {
        self.sequence += 1;
        let about = record.about.name.as_deref().unwrap_or_default();
        let salt = format!("{about}/{}/{}", record.at.as_nanosecond(), self.sequence);
        let hex = self.rng.child("event-name", &salt).rng().next_u64();
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{about}.{hex:016x}")),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: record.about.clone(),
            reason: Some(record.reason.to_owned()),
            message: Some(record.message.clone()),
            type_: Some(record.kind.to_owned()),
            source: Some(EventSource {
                component: Some(COMPONENT.to_owned()),
                host: None,
            }),
            reporting_component: Some(COMPONENT.to_owned()),
            reporting_instance: Some(String::new()),
            first_timestamp: Some(Time(record.at)),
            last_timestamp: Some(Time(record.at)),
            count: Some(1),
            ..Event::default()
        }
    }

    fn remembered(&self, identity: &Identity) -> Option<(String, i32)> {
        let written = self.written.get(identity)?;
        Some((written.name.clone(), written.count))
    }

    fn remember(&mut self, identity: Identity, name: String, count: i32) {
        self.sequence += 1;
        let used = self.sequence;
        let new = Written { name, count, used };
        if let Some(old) = self.written.insert(identity.clone(), new) {
            self.by_use.remove(&old.used);
        }
        self.by_use.insert(used, identity);
        while self.by_use.len() > REMEMBERED_EVENTS {
            if let Some((_, oldest)) = self.by_use.pop_first() {
                self.written.remove(&oldest);
            }
        }
    }

    fn forget(&mut self, identity: &Identity) {
        if let Some(old) = self.written.remove(identity) {
            self.by_use.remove(&old.used);
        }
    }
}

fn identity(record: &Record) -> Identity {
    let about = &record.about;
    let part = |p: &Option<String>| p.clone().unwrap_or_default();
    (
        part(&about.kind),
        part(&about.namespace),
        part(&about.name),
        part(&about.uid),
        record.kind,
        record.reason,
        record.message.clone(),
    )
}

/// Cuts `text` to at most `bytes` bytes, at a character's edge.
fn truncate(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        let mut end = bytes;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
}
