//! core/v1 Events as the control plane's components write them: one object per (subject, reason, message), with a
//! count that goes up.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::object;
use crate::server::{ApiServer, Gr, PatchKind, gr};

/// The Events resource.
pub const EVENTS: Gr<'static> = gr("", "events");
/// Events that are remembered for counting, per source; the oldest are forgotten first.
const REMEMBERED_EVENTS: usize = 4096;

/// Subject's UID, reason and message.
type Seen = (String, String, String);

/// An event that was written.
struct Said {
    seen: Seen,
    namespace: String,
    name: String,
    count: u64,
}

/// Writes Events from one component.
pub struct Events {
    component: &'static str,
    /// What was said, by serial number.
    known: BTreeMap<u64, Said>,
    /// Serial number by subject's UID, reason and message.
    by_subject: BTreeMap<Seen, u64>,
    serial: u64,
}

impl Events {
    /// For `component`, such as `default-scheduler`.
    #[must_use]
    pub fn new(component: &'static str) -> Self {
        Self {
            component,
            known: BTreeMap::new(),
            by_subject: BTreeMap::new(),
            serial: 0,
        }
    }

    /// Says `message` about `subject` (an object with its `apiVersion` and `kind` given apart, as stored objects may
    /// lack them). `kind` is `Normal` or `Warning`. A refusal is logged: an event is never worth a retry.
    pub fn write(
        &mut self,
        api: &ApiServer,
        (api_version, subject_kind): (&str, &str),
        subject: &Value,
        (kind, reason): (&str, &str),
        message: &str,
    ) {
        let now = object::stamp(api.clock().wall());
        let seen = (
            object::uid(subject).to_owned(),
            reason.to_owned(),
            message.to_owned(),
        );
        let again = self
            .by_subject
            .get(&seen)
            .and_then(|serial| self.known.get_mut(serial));
        if let Some(said) = again {
            said.count += 1;
            let patch = json!({"count": said.count, "lastTimestamp": now});
            let namespace = Some(said.namespace.as_str());
            if api
                .patch(EVENTS, namespace, &said.name, "", PatchKind::Merge, patch)
                .is_ok()
            {
                return;
            }
        }
        let namespace = match object::namespace(subject) {
            "" => "default",
            ns => ns,
        };
        self.serial += 1;
        // The real name ends in the time in nanoseconds; this is as unique and does not collide between components.
        let suffix = object::template_hash(&json!([
            self.component,
            self.serial,
            api.clock().wall().as_millisecond()
        ]));
        let name = format!("{}.{suffix}", object::name(subject));
        let event = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "apiVersion": api_version,
                "kind": subject_kind,
                "name": object::name(subject),
                "namespace": object::namespace(subject),
                "uid": object::uid(subject),
                "resourceVersion": object::text(subject, &["metadata", "resourceVersion"]),
            },
            "type": kind,
            "reason": reason,
            "message": message,
            "source": {"component": self.component},
            "reportingComponent": self.component,
            "reportingInstance": "",
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
        });
        if let Err(error) = api.create(EVENTS, Some(namespace), event) {
            tracing::debug!(component = self.component, %error, "event refused");
            return;
        }
        self.by_subject.insert(seen.clone(), self.serial);
        self.known.insert(
            self.serial,
            Said {
                seen,
                namespace: namespace.to_owned(),
                name,
                count: 1,
            },
        );
        if self.known.len() > REMEMBERED_EVENTS
            && let Some((_, oldest)) = self.known.pop_first()
        {
            self.by_subject.remove(&oldest.seen);
        }
    }
}
