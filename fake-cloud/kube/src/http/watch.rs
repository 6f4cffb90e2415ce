//! Watches: the store's changes as a stream of events, through a client's selectors, in tokio time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http::Response;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::body::{ResponseBody, stream};
use super::list;
use super::query::Query;
use super::table::{self, Show};
use crate::error::{ApiError, FieldError, Result};
use crate::ops::{State, Target};
use crate::selectors::Selectors;
use crate::store::{self, ChangeKind, Event, EventReceiver, Kept};

/// How long a watch lasts whose client does not say; the real server draws from 30 to 60 minutes.
const WATCH_SECONDS_DEFAULT: u64 = 45 * 60;
/// How long after a change that the selectors hid a bookmark tells the version, in seconds.
const BOOKMARK_AFTER_SECONDS: u64 = 60;

/// One watch.
struct Watch {
    target: Target,
    selectors: Selectors,
    show: Show,
    /// Written but not sent.
    pending: VecDeque<Bytes>,
    changes: EventReceiver,
    deadline: Instant,
    bookmarks: bool,
    /// When to tell the version although nothing selected changed.
    bookmark_at: Option<Instant>,
    /// The newest version this watch has seen of its resource.
    version: u64,
    /// The newest version the client was told.
    told: u64,
    /// Whether the columns of a table went out.
    columns_told: bool,
    done: bool,
}

/// Opens a watch: what happened since the client's version, then changes as they come.
///
/// # Errors
/// 400 for malformed parameters. A version that is too old is told inside the stream, as the real server does.
pub fn open(
    state: &mut State,
    target: &Target,
    query: &Query,
    show: Show,
) -> Result<Response<ResponseBody>> {
    let selectors = list::selectors(target, query)?;
    let seconds = query
        .number("timeoutSeconds")?
        .and_then(|s| u64::try_from(s).ok())
        .filter(|s| *s > 0)
        .unwrap_or(WATCH_SECONDS_DEFAULT);
    query.number("limit")?;
    let bookmarks = query.flag("allowWatchBookmarks");
    let initial_events = query
        .get("sendInitialEvents")
        .map(|v| v == "true" || v == "1");
    let mut errors = Vec::new();
    let (field, not_older) = ("resourceVersionMatch", "NotOlderThan");
    let how = query.get(field);
    if initial_events.is_some() && how != Some(not_older) {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        errors.push(FieldError::forbidden(field, why));
        if let Some(how) = how {
            errors.push(FieldError::not_supported(field, how, &[not_older]));
        }
    } else if initial_events.is_none() && how.is_some() {
        let why =
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
        errors.push(FieldError::forbidden(field, why));
        if let Some(how) = how.filter(|how| *how != not_older) {
            errors.push(FieldError::not_supported(field, how, &[not_older]));
        }
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid_options("ListOptions", &errors));
    }
    let since = query
        .version("resourceVersion")
        .map_err(ApiError::bare)?
        .unwrap_or(0);
    let now = state.store.version();
    let mut watch = Watch {
        target: target.clone(),
        selectors,
        show,
        pending: VecDeque::new(),
        changes: state.store.subscribe(&target.key),
        deadline: Instant::now() + Duration::from_secs(seconds),
        bookmarks,
        bookmark_at: None,
        version: now,
        told: now,
        columns_told: false,
        done: false,
    };
    let list_first = initial_events.unwrap_or(since == 0);
    if list_first {
        let namespace = (!target.namespace.is_empty()).then_some(target.namespace.as_str());
        for kept in state.store.kept(&target.key, namespace, None) {
            if watch.selectors.matches(&kept.object) {
                watch.push("ADDED", &kept.object, &kept.written);
            }
        }
        if initial_events == Some(true) && bookmarks {
            watch.push_bookmark(true);
        }
    } else if since == 0 {
        // `sendInitialEvents=false` from any version: from now on.
    } else {
        match state.store.since(&target.key, since) {
            Ok(events) => {
                for event in &events {
                    watch.see(event);
                }
            }
            Err(too_old) => {
                watch.push_error(&ApiError::expired(too_old.to_string()));
            }
        }
    }
    let mut response = Response::new(stream(events(watch)));
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    Ok(response)
}

impl Watch {
    /// Takes a change in, as the selectors show it.
    fn see(&mut self, event: &Event) {
        self.version = event.version;
        let namespace = &self.target.namespace;
        if !namespace.is_empty() && crate::meta::namespace(&event.object) != namespace {
            return self.hidden();
        }
        let before = event
            .previous
            .as_ref()
            .is_some_and(|o| self.selectors.matches(o));
        let now = event.kind != ChangeKind::Deleted && self.selectors.matches(&event.object);
        match (before, now) {
            (false, true) => self.push("ADDED", &event.object, &event.written),
            (true, true) => self.push("MODIFIED", &event.object, &event.written),
            (true, false) if event.kind == ChangeKind::Deleted => {
                self.push("DELETED", &event.object, &event.written)
            }
            (true, false) => {
                // The client sees the state it knew, at the version that took it out of its sight.
                let last = event.previous.as_ref().map(|previous| {
                    let mut last = Value::clone(previous);
                    crate::meta::metadata(&mut last)
                        .insert("resourceVersion".into(), event.version.to_string().into());
                    last
                });
                if let Some(last) = last {
                    let written = store::write(&last);
                    self.push("DELETED", &Arc::new(last), &written);
                }
            }
            (false, false) => return self.hidden(),
        }
        self.told = self.version;
        self.bookmark_at = None;
    }

    /// A change that the client is not told; a bookmark will tell its version some time later.
    fn hidden(&mut self) {
        if self.bookmarks && self.bookmark_at.is_none() {
            self.bookmark_at = Some(Instant::now() + Duration::from_secs(BOOKMARK_AFTER_SECONDS));
        }
    }

    fn push(&mut self, kind: &str, object: &Arc<Value>, written: &Bytes) {
        let mut kept = Kept {
            object: Arc::clone(object),
            written: written.clone(),
        };
        crate::crd::versions::show(&self.target, &mut kept);
        let Kept { object, written } = &kept;
        let mut line = format!("{{\"type\":\"{kind}\",\"object\":").into_bytes();
        match &self.show {
            Show::Object => {
                let version = self.target.api_version();
                store::write_typed(&mut line, &self.target.info.kind, &version, written);
            }
            show => {
                let mut row =
                    table::of_objects(&self.target, std::slice::from_ref(object), show, &json!({}));
                // The columns are told once.
                if std::mem::replace(&mut self.columns_told, true)
                    && let Some(columns) = row.get_mut("columnDefinitions")
                {
                    *columns = Value::Null;
                }
                // Writing to memory does not fail.
                line.extend(serde_json::to_vec(&row).unwrap_or_default());
            }
        }
        line.extend_from_slice(b"}\n");
        self.pending.push_back(line.into());
    }

    fn push_bookmark(&mut self, end_of_initial: bool) {
        let mut metadata = json!({"resourceVersion": self.version.to_string()});
        if end_of_initial && let Some(map) = metadata.as_object_mut() {
            map.insert(
                "annotations".into(),
                json!({"k8s.io/initial-events-end": "true"}),
            );
        }
        let (kind, version) = match self.show {
            Show::Metadata => ("PartialObjectMetadata", "meta.k8s.io/v1".to_owned()),
            _ => (&*self.target.info.kind, self.target.api_version()),
        };
        let object = json!({
            "kind": kind, "apiVersion": version, "metadata": metadata,
        });
        let event = json!({"type": "BOOKMARK", "object": object});
        self.pending.push_back(format!("{event}\n").into());
        self.told = self.version;
        self.bookmark_at = None;
    }

    fn push_error(&mut self, error: &ApiError) {
        let event = json!({"type": "ERROR", "object": error.to_status()});
        self.pending.push_back(format!("{event}\n").into());
        self.done = true;
    }
}

fn events(watch: Watch) -> impl Stream<Item = Bytes> + Send {
    futures::stream::unfold(watch, |mut watch| async move {
        loop {
            if let Some(line) = watch.pending.pop_front() {
                return Some((line, watch));
            }
            if watch.done {
                return None;
            }
            let wake = watch
                .bookmark_at
                .map_or(watch.deadline, |at| at.min(watch.deadline));
            tokio::select! {
                biased;
                change = watch.changes.recv() => match change {
                    Some(event) => watch.see(&event),
                    None => watch.done = true,
                },
                () = tokio::time::sleep_until(wake) => {
                    let over = Instant::now() >= watch.deadline;
                    if watch.bookmarks && watch.told < watch.version {
                        watch.push_bookmark(false);
                    }
                    watch.bookmark_at = None;
                    watch.done = over;
                }
            }
        }
    })
}
