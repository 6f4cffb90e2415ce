//! Where objects live: one resourceVersion for all, a sorted table per resource, a bounded history of changes per
//! resource for watches that come back, and subscribers that are told each change once. Knows nothing of kinds.
//!
//! An object is written as text when it is stored, while it is at hand: lists and watches, however many, copy the text.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::tokens::Told;

/// Changes kept per resource for watches that resume; older resourceVersions get 410.
pub const HISTORY_CHANGES_MAX: usize = 4096;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// Created.
    Added,
    /// Updated.
    Modified,
    /// Removed.
    Deleted,
}

/// One change of one object.
#[derive(Clone, Debug)]
pub struct Event {
    /// The resourceVersion this change made.
    pub version: u64,
    /// What happened.
    pub kind: ChangeKind,
    /// The object after the change; for a deletion its last state with the deletion's resourceVersion.
    pub object: Arc<Value>,
    /// The object as text, without its kind and version.
    pub written: Bytes,
    /// The object before the change.
    pub previous: Option<Arc<Value>>,
}

/// An object and its text.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The object.
    pub object: Arc<Value>,
    /// Its JSON, without its kind and version: those depend on who asks.
    pub written: Bytes,
}

impl Kept {
    /// An object, written down.
    #[must_use]
    pub fn new(object: Arc<Value>) -> Self {
        let written = write(&object);
        Self { object, written }
    }
}

/// The JSON of an object without its kind and version.
#[must_use]
pub fn write(object: &Value) -> Bytes {
    let told = Told {
        object,
        typed: false,
    };
    // Writing to memory does not fail.
    let text = serde_json::to_vec(&told).unwrap_or_default();
    Bytes::from(text.into_boxed_slice())
}

/// Adds an object's text to a document, with its kind and version.
pub fn write_typed(out: &mut Vec<u8>, kind: &str, api_version: &str, written: &[u8]) {
    let head = format!(
        "{{\"kind\":{},\"apiVersion\":{}",
        Value::from(kind),
        Value::from(api_version)
    );
    out.extend_from_slice(head.as_bytes());
    match written.strip_prefix(b"{") {
        Some(b"}") => out.push(b'}'),
        Some(rest) => {
            out.push(b',');
            out.extend_from_slice(rest);
        }
        // An object is always a map.
        None => out.push(b'}'),
    }
}

/// Receiver of a resource's changes.
pub type EventReceiver = mpsc::UnboundedReceiver<Event>;

/// Objects of one namespace (or of the cluster, under the empty namespace) by name.
type Names = BTreeMap<String, Kept>;

/// Former states by (namespace, name).
pub type Undone = BTreeMap<(String, String), Option<Arc<Value>>>;

/// A resource's objects and what became of them.
#[derive(Default)]
struct Table {
    objects: BTreeMap<String, Names>,
    len: usize,
    history: VecDeque<Event>,
    /// Changes up to and including this resourceVersion are no longer in `history`.
    compacted: u64,
    subscribers: Vec<mpsc::UnboundedSender<Event>>,
}

/// The store. Resources are keyed by `plural.group` (`pods.` for core).
pub struct Store {
    version: u64,
    tables: BTreeMap<String, Table>,
}

/// The resourceVersion asked for is older than the history kept.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct TooOld {
    /// What was asked for.
    pub asked: u64,
    /// The oldest that can be served.
    pub oldest: u64,
}

impl Default for Store {
    fn default() -> Self {
        // A real cluster never shows resourceVersion 0 or 1: 0 means "any" in requests.
        Self {
            version: 1,
            tables: BTreeMap::new(),
        }
    }
}

impl Store {
    /// The newest resourceVersion.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    fn table(&mut self, resource: &str) -> &mut Table {
        if !self.tables.contains_key(resource) {
            self.tables.insert(resource.to_owned(), Table::default());
        }
        // The entry API would need an owned key on every look-up.
        self.tables.entry(resource.to_owned()).or_default()
    }

    /// One object.
    #[must_use]
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        let names = self.tables.get(resource)?.objects.get(namespace)?;
        names.get(name).map(|kept| &kept.object)
    }

    /// How many objects a resource has.
    #[must_use]
    pub fn len(&self, resource: &str) -> usize {
        self.tables.get(resource).map_or(0, |t| t.len)
    }

    /// Whether a resource has no objects.
    #[must_use]
    pub fn is_empty(&self, resource: &str) -> bool {
        self.len(resource) == 0
    }

    /// Objects in (namespace, name) order; of one namespace if given; after `(namespace, name)` if given.
    pub fn iter<'a>(
        &'a self,
        resource: &str,
        namespace: Option<&'a str>,
        after: Option<(&'a str, &'a str)>,
    ) -> impl Iterator<Item = &'a Arc<Value>> + 'a {
        self.kept(resource, namespace, after).map(|k| &k.object)
    }

    /// The same with their texts.
    pub fn kept<'a>(
        &'a self,
        resource: &str,
        namespace: Option<&'a str>,
        after: Option<(&'a str, &'a str)>,
    ) -> impl Iterator<Item = &'a Kept> + 'a {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let objects = self.tables.get(resource).map(|t| &t.objects);
        let low = match (namespace, after) {
            (Some(ns), _) | (None, Some((ns, _))) => Included(ns),
            (None, None) => Unbounded,
        };
        let high = namespace.map_or(Unbounded, Included);
        objects
            .into_iter()
            .flat_map(move |o| o.range::<str, _>((low, high)))
            .flat_map(move |(ns, names)| {
                let from = match after {
                    Some((after_ns, name)) if after_ns == ns => Excluded(name),
                    _ => Unbounded,
                };
                names.range::<str, _>((from, Unbounded)).map(|(_, o)| o)
            })
    }

    /// What has become of a resource since `version`, told backwards: for every object that changed, what it was at
    /// that version (none: it was not there).
    ///
    /// # Errors
    /// When some of the changes are no longer kept.
    pub fn undone(&self, resource: &str, version: u64) -> Result<Undone, TooOld> {
        let mut was = Undone::new();
        let Some(table) = self.tables.get(resource) else {
            return Ok(was);
        };
        if version < table.compacted {
            return Err(TooOld {
                asked: version,
                oldest: table.compacted,
            });
        }
        let start = table.history.partition_point(|e| e.version <= version);
        for event in table.history.range(start..).rev() {
            let key = (
                crate::meta::namespace(&event.object).to_owned(),
                crate::meta::name(&event.object).to_owned(),
            );
            was.insert(key, event.previous.clone());
        }
        Ok(was)
    }

    /// Writes an object: stamps the next resourceVersion on it and tells everyone.
    pub fn put(
        &mut self,
        resource: &str,
        namespace: &str,
        name: &str,
        mut object: Value,
    ) -> Arc<Value> {
        self.version += 1;
        let version = self.version;
        stamp(&mut object, version);
        let kept = Kept::new(Arc::new(object));
        let Kept { object, written } = kept.clone();
        let table = self.table(resource);
        let names = table.objects.entry(namespace.to_owned()).or_default();
        let previous = names.insert(name.to_owned(), kept).map(|k| k.object);
        if previous.is_none() {
            table.len += 1;
        }
        table.publish(Event {
            version,
            kind: if previous.is_some() {
                ChangeKind::Modified
            } else {
                ChangeKind::Added
            },
            object: Arc::clone(&object),
            written,
            previous,
        });
        object
    }

    /// Changes what is stored of a resource as no write does: without a new version, and nobody is told.
    pub fn reshape(&mut self, resource: &str, change: impl Fn(&mut Value)) {
        let Some(table) = self.tables.get_mut(resource) else {
            return;
        };
        for kept in table.objects.values_mut().flat_map(BTreeMap::values_mut) {
            change(Arc::make_mut(&mut kept.object));
            kept.written = write(&kept.object);
        }
    }

    /// Removes an object; its last state, stamped with the deletion's resourceVersion, is returned and told.
    /// `last` replaces the stored state as the last one (a deletion may set fields on the way out).
    pub fn remove(
        &mut self,
        resource: &str,
        namespace: &str,
        name: &str,
        last: Option<Value>,
    ) -> Option<Arc<Value>> {
        let table = self.tables.get_mut(resource)?;
        let names = table.objects.get_mut(namespace)?;
        let previous = names.remove(name)?.object;
        if names.is_empty() {
            table.objects.remove(namespace);
        }
        table.len -= 1;
        self.version += 1;
        let version = self.version;
        let mut object = last.unwrap_or_else(|| Value::clone(&previous));
        stamp(&mut object, version);
        let Kept { object, written } = Kept::new(Arc::new(object));
        table.publish(Event {
            version,
            kind: ChangeKind::Deleted,
            object: Arc::clone(&object),
            written,
            previous: Some(previous),
        });
        Some(object)
    }

    /// Changes of a resource from now on.
    pub fn subscribe(&mut self, resource: &str) -> EventReceiver {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.table(resource).subscribers.push(sender);
        receiver
    }

    /// Changes of a resource after `version`, oldest first.
    ///
    /// # Errors
    /// When some of them are no longer kept.
    pub fn since(&self, resource: &str, version: u64) -> Result<Vec<Event>, TooOld> {
        let Some(table) = self.tables.get(resource) else {
            return Ok(Vec::new());
        };
        if version < table.compacted {
            return Err(TooOld {
                asked: version,
                oldest: table.compacted,
            });
        }
        let start = table.history.partition_point(|e| e.version <= version);
        Ok(table.history.range(start..).cloned().collect())
    }

    /// Forgets the history of every resource, as a compaction does: resuming from before now gets 410.
    pub fn compact(&mut self) {
        let version = self.version;
        for table in self.tables.values_mut() {
            table.history.clear();
            table.compacted = version;
        }
    }

    /// Drops a resource whose definition is gone: its objects are removed one by one, then its subscribers' streams
    /// end.
    pub fn drop_resource(&mut self, resource: &str) {
        let names: Vec<(String, String)> = self
            .tables
            .get(resource)
            .into_iter()
            .flat_map(|t| &t.objects)
            .flat_map(|(ns, names)| names.keys().map(|name| (ns.clone(), name.clone())))
            .collect();
        for (namespace, name) in names {
            self.remove(resource, &namespace, &name, None);
        }
        self.tables.remove(resource);
    }
}

impl Table {
    fn publish(&mut self, event: Event) {
        self.subscribers.retain(|s| s.send(event.clone()).is_ok());
        if self.history.len() == HISTORY_CHANGES_MAX
            && let Some(oldest) = self.history.pop_front()
        {
            self.compacted = oldest.version;
        }
        self.history.push_back(event);
    }
}

fn stamp(object: &mut Value, version: u64) {
    if let Some(meta) = object.as_object_mut().and_then(|o| {
        o.entry("metadata")
            .or_insert_with(|| Value::Object(serde_json::Map::new()))
            .as_object_mut()
    }) {
        meta.insert("resourceVersion".into(), version.to_string().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn put(store: &mut Store, ns: &str, name: &str, x: i64) -> Arc<Value> {
        store.put(
            "pods.",
            ns,
            name,
            json!({"metadata": {"name": name, "namespace": ns}, "x": x}),
        )
    }

    #[test]
    fn iterates_in_order_by_namespace_and_after_a_key() {
        let mut store = Store::default();
        for (ns, name) in [("b", "1"), ("a", "2"), ("a", "1"), ("b", "2"), ("c", "1")] {
            put(&mut store, ns, name, 0);
        }
        let names = |ns: Option<&str>, after: Option<(&str, &str)>| -> Vec<String> {
            store
                .iter("pods.", ns, after)
                .map(|o| {
                    format!(
                        "{}/{}",
                        o["metadata"]["namespace"].as_str().unwrap(),
                        o["metadata"]["name"].as_str().unwrap()
                    )
                })
                .collect()
        };
        assert_eq!(names(None, None), ["a/1", "a/2", "b/1", "b/2", "c/1"]);
        assert_eq!(names(Some("b"), None), ["b/1", "b/2"]);
        assert_eq!(names(None, Some(("a", "2"))), ["b/1", "b/2", "c/1"]);
        assert_eq!(names(Some("b"), Some(("b", "1"))), ["b/2"]);
        assert_eq!(names(Some("zz"), None), Vec::<String>::new());
        assert_eq!(store.len("pods."), 5);
    }

    #[test]
    fn every_change_has_a_version_of_its_own_and_reaches_subscribers_and_history() {
        let mut store = Store::default();
        let first = put(&mut store, "a", "1", 1);
        let mut receiver = store.subscribe("pods.");
        put(&mut store, "a", "1", 2);
        store.put("nodes.", "", "n", json!({"metadata": {"name": "n"}}));
        let gone = store.remove("pods.", "a", "1", None).unwrap();
        assert_eq!(gone["x"], 2);
        let version: u64 = first["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        let kinds: Vec<_> = store
            .since("pods.", version)
            .unwrap()
            .iter()
            .map(|e| (e.version, e.kind))
            .collect();
        assert_eq!(
            kinds,
            [
                (version + 1, ChangeKind::Modified),
                (version + 3, ChangeKind::Deleted)
            ]
        );
        let told: Vec<_> = std::iter::from_fn(|| receiver.try_recv().ok())
            .map(|e| e.version)
            .collect();
        assert_eq!(told, [version + 1, version + 3]);
        assert!(store.remove("pods.", "a", "1", None).is_none());
    }

    #[test]
    fn old_history_is_refused() {
        let mut store = Store::default();
        let mut last = 0;
        for i in 0..=HISTORY_CHANGES_MAX {
            last = i;
            put(&mut store, "a", "1", i64::try_from(i).unwrap());
        }
        assert_eq!(last, HISTORY_CHANGES_MAX);
        assert_eq!(
            store.since("pods.", 1).unwrap_err(),
            TooOld {
                asked: 1,
                oldest: 2
            }
        );
        assert_eq!(store.since("pods.", 2).unwrap().len(), HISTORY_CHANGES_MAX);
        let now = store.version();
        store.compact();
        assert!(store.since("pods.", now - 1).is_err());
        assert!(store.since("pods.", now).unwrap().is_empty());
    }
}
