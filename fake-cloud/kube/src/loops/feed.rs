//! What every loop stands on: changes of several resources in batches, a mirror of what is there, and the set of
//! keys that wait for a look, now or at a deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use karpenter_runtime::Key;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::index::Index;
use super::object;
use crate::server::{ApiError, ApiServer, Change, Gr, Subscription};

/// First wait after a failed write.
const RETRY_FIRST_MILLIS: u64 = 100;
/// Longest wait after failed writes; the real work queues stop at the same.
const RETRY_MAX_MILLIS: u64 = 1_000_000;

/// Changes of several resources; the index of a change is the position of its resource.
pub struct Feed {
    subs: Vec<Subscription>,
}

impl Feed {
    /// Subscribes to `resources`.
    #[must_use]
    pub fn new(api: &ApiServer, resources: &[Gr<'_>]) -> Self {
        Self {
            subs: resources.iter().map(|r| api.subscribe(*r)).collect(),
        }
    }

    /// Adds a resource; its index is the number of resources before it.
    pub fn add(&mut self, api: &ApiServer, resource: Gr<'_>) {
        self.subs.push(api.subscribe(resource));
    }

    /// Everything that has changed since the last call, or nothing once `deadline` has come. Waits until there is
    /// something. None when the loop is to end.
    pub async fn next(
        &mut self,
        deadline: Option<Instant>,
        stop: &CancellationToken,
    ) -> Option<Vec<(usize, Change)>> {
        if stop.is_cancelled() {
            return None;
        }
        let batch = self.drain();
        if !batch.is_empty() {
            return Some(batch);
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            first = first_of(&mut self.subs) => {
                let mut batch = vec![first?];
                batch.extend(self.drain());
                Some(batch)
            }
            () = at(deadline) => Some(Vec::new()),
        }
    }

    fn drain(&mut self) -> Vec<(usize, Change)> {
        let mut batch = Vec::new();
        for (i, sub) in self.subs.iter_mut().enumerate() {
            while let Some(change) = sub.try_next() {
                batch.push((i, change));
            }
        }
        batch
    }
}

async fn first_of(subs: &mut [Subscription]) -> Option<(usize, Change)> {
    if subs.is_empty() {
        return std::future::pending().await;
    }
    // Polled in order of the resources: deterministic.
    let waits = subs
        .iter_mut()
        .enumerate()
        .map(|(i, sub)| Box::pin(async move { sub.next().await.map(|change| (i, change)) }));
    futures::future::select_all(waits).await.0
}

/// Waits until `deadline`; for ever when there is none.
pub async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The object of a change, and whether it is still there.
#[must_use]
pub fn parts(change: &Change) -> (&Arc<Value>, bool) {
    match change {
        Change::Added(o) | Change::Modified(o) => (o, true),
        Change::Deleted(o) => (o, false),
    }
}

/// All objects of a resource as last seen, with those of one controller at hand.
#[derive(Default)]
pub struct Mirror {
    objects: BTreeMap<Key, Arc<Value>>,
    by_controller: Index<String>,
}

impl Mirror {
    /// Takes in a change; returns what was there before.
    pub fn apply(&mut self, change: &Change) -> Option<Arc<Value>> {
        let (object, there) = parts(change);
        let key = object::key(object);
        let before = if there {
            self.objects.insert(key.clone(), Arc::clone(object))
        } else {
            self.objects.remove(&key)
        };
        let old = before.as_deref().map_or("", object::controller_uid);
        let new = if there {
            object::controller_uid(object)
        } else {
            ""
        };
        self.by_controller.moved(key, old, new);
        before
    }

    /// One object.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    /// All objects in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        self.objects.iter()
    }

    /// Number of objects.
    #[must_use]
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Objects of one namespace, in order of name.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<Value>> {
        let from = Key::namespaced(namespace, "");
        let of = from.namespace.clone();
        self.objects
            .range(from..)
            .take_while(move |(k, _)| k.namespace == of)
            .map(|(_, o)| o)
    }

    /// Objects that the owner with `uid` controls, in key order.
    #[must_use]
    pub fn controlled_by(&self, uid: &str) -> Vec<&Arc<Value>> {
        self.by_controller
            .of(uid)
            .filter_map(|k| self.objects.get(k))
            .collect()
    }
}

/// Keys that wait for a look.
#[derive(Default)]
pub struct Dirty {
    now: BTreeSet<Key>,
    later: BTreeMap<Key, Instant>,
    failures: BTreeMap<Key, u32>,
}

impl Dirty {
    /// Looks at `key` in the next round.
    pub fn add(&mut self, key: Key) {
        self.now.insert(key);
    }

    /// Looks at `key` at `when`, or earlier if it has an earlier deadline.
    pub fn add_at(&mut self, key: Key, when: Instant) {
        let slot = self.later.entry(key).or_insert(when);
        *slot = when.min(*slot);
    }

    /// Keys to look at now, in order.
    pub fn take_due(&mut self, now: Instant) -> Vec<Key> {
        let due: Vec<Key> = self
            .later
            .iter()
            .filter(|(_, t)| **t <= now)
            .map(|(k, _)| k.clone())
            .collect();
        let mut keys = std::mem::take(&mut self.now);
        keys.extend(due);
        for key in &keys {
            self.later.remove(key);
        }
        keys.into_iter().collect()
    }

    /// The earliest deadline; at once while keys wait.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.now.is_empty() {
            self.later.values().min().copied()
        } else {
            Some(Instant::now())
        }
    }

    /// `key` was looked at with success.
    pub fn succeeded(&mut self, key: &Key) {
        self.failures.remove(key);
    }

    /// `key` could not be dealt with: again after a wait that doubles.
    pub fn failed(&mut self, key: Key) {
        let count = self.failures.entry(key.clone()).or_insert(0);
        let millis = RETRY_FIRST_MILLIS
            .checked_shl((*count).min(20))
            .unwrap_or(RETRY_MAX_MILLIS)
            .min(RETRY_MAX_MILLIS);
        *count = count.saturating_add(1);
        self.add_at(key, Instant::now() + Duration::from_millis(millis));
    }
}

/// A loop that looks at one key at a time.
pub trait Controller: Send + 'static {
    /// Its name in logs.
    const NAME: &'static str;
    /// The resources it watches.
    const WATCHES: &'static [Gr<'static>];

    /// Takes in a change of the resource at `watch` and marks the keys that it touches.
    fn observe(&mut self, watch: usize, change: &Change, dirty: &mut Dirty);

    /// Brings `key` in order; returns when to look again if nothing changes.
    ///
    /// # Errors
    /// A write that the server refused; it is tried again later.
    fn reconcile(&mut self, api: &ApiServer, key: &Key) -> Result<Option<Instant>, ApiError>;
}

/// Runs a controller until `stop`.
pub async fn run<C: Controller>(mut controller: C, api: ApiServer, stop: CancellationToken) {
    let mut feed = Feed::new(&api, C::WATCHES);
    let mut dirty = Dirty::default();
    while let Some(changes) = feed.next(dirty.deadline(), &stop).await {
        for (watch, change) in &changes {
            controller.observe(*watch, change, &mut dirty);
        }
        for key in dirty.take_due(Instant::now()) {
            match controller.reconcile(&api, &key) {
                Ok(again) => {
                    dirty.succeeded(&key);
                    if let Some(when) = again {
                        dirty.add_at(key, when);
                    }
                }
                // Gone or changed under us: the change itself brings us back, at once or soon.
                Err(error) => {
                    tracing::debug!(controller = C::NAME, key = %key, %error, "write refused, will retry");
                    dirty.failed(key);
                }
            }
        }
    }
}

/// Not finding what was to be deleted or changed is as good as done.
///
/// # Errors
/// Every other refusal.
pub fn gone_is_fine<T>(result: Result<T, ApiError>) -> Result<(), ApiError> {
    match result {
        Err(error) if error.code != 404 => Err(error),
        _ => Ok(()),
    }
}

/// Finding that what was to be made is there is as good as done: an answer may have been lost.
///
/// # Errors
/// Every other refusal.
pub fn there_is_fine<T>(result: Result<T, ApiError>) -> Result<(), ApiError> {
    match result {
        Err(error) if error.code != 409 => Err(error),
        _ => Ok(()),
    }
}

/// The instant at which the server's clock reads `when`.
#[must_use]
pub fn instant_of(api: &ApiServer, when: jiff::Timestamp) -> Instant {
    let wait = when.duration_since(api.clock().wall());
    Instant::now() + Duration::try_from(wait).unwrap_or_default()
}
