//! List and watch: feeds every object of a kind, and each change of one, to a callback, for as long as it runs.
//!
//! Our own, because what comes with kube reads the wall clock, draws jitter from an unseeded generator and hides
//! deletions behind its store. One object that cannot be read is logged and left out; it does not blind us to the
//! others.

use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt as _;
use kube::Resource;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::core::ObjectList;
use kube::core::Request;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::rng::Rng;
use crate::{Clock, RngTree};

/// What a reflector tells.
#[derive(Clone, Debug, PartialEq)]
pub enum ReflectorEvent<K> {
    /// All there are; whatever is held and not among them is gone. First of all, and again after a gap.
    Init(Vec<K>),
    /// New or changed.
    Applied(K),
    /// Gone; as it was last.
    Deleted(K),
}

/// How a reflector lists and watches.
#[derive(Clone, Debug)]
pub struct ReflectorOptions {
    /// Objects a page of the list holds.
    pub page_size: u32,
    /// How long one watch may last before it is opened anew; a watch that is silent a little longer than this is
    /// taken for dead. None = for ever, for worlds without a network, where a quiet month must cost nothing.
    pub watch_timeout: Option<Duration>,
    /// First wait after an error.
    pub backoff_base: Duration,
    /// Longest wait after errors.
    pub backoff_max: Duration,
    /// Only objects with these labels.
    pub label_selector: Option<String>,
    /// Only objects with these fields.
    pub field_selector: Option<String>,
}

impl Default for ReflectorOptions {
    fn default() -> Self {
        Self {
            page_size: 500,
            watch_timeout: Some(Duration::from_secs(290)),
            backoff_base: Duration::from_millis(800),
            backoff_max: Duration::from_secs(30),
            label_selector: None,
            field_selector: None,
        }
    }
}

/// What is asked of the server where a watch may last for ever (s): ten years.
const FOREVER_SECS: u32 = 315_360_000;

/// Grace after the server should have closed a watch.
const DEAD_WATCH_GRACE: Duration = Duration::from_secs(5);

/// A watch that ends sooner than this without a word counts as failed, so that a server that closes them at once is
/// not asked in a loop.
const SHORT_WATCH: Duration = Duration::from_secs(1);

/// A running reflector.
#[derive(Debug)]
pub struct Reflection {
    /// Ends when the token is cancelled.
    pub task: JoinHandle<()>,
    /// Turns true once the first list was handed over.
    pub synced: watch::Receiver<bool>,
}

impl Reflection {
    /// Waits until the first list was handed over; false if the reflector ended before.
    pub async fn wait_synced(&mut self) -> bool {
        self.synced.wait_for(|synced| *synced).await.is_ok()
    }
}

/// Starts a task that lists and watches `api` and calls `on` with what it sees, until `stop` is cancelled.
pub fn reflect<K>(
    api: Api<K>,
    options: ReflectorOptions,
    mut on: impl FnMut(ReflectorEvent<K>) + Send + 'static,
    clock: Clock,
    rng: &RngTree,
    stop: CancellationToken,
) -> Reflection
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    reflect_versions(api, options, move |event, _| on(event), clock, rng, stop)
}

/// Like [`reflect`], with the resourceVersion of what `on` is told: the list's, or the object's.
pub fn reflect_versions<K>(
    api: Api<K>,
    options: ReflectorOptions,
    on: impl FnMut(ReflectorEvent<K>, &str) + Send + 'static,
    clock: Clock,
    rng: &RngTree,
    stop: CancellationToken,
) -> Reflection
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (tell, synced) = watch::channel(false);
    let jitter = rng.child("reflector", api.resource_url()).rng();
    let task = tokio::spawn(async move {
        let mut reflector = Reflector {
            url: api.resource_url().to_owned(),
            client: api.into_client(),
            options,
            clock,
            jitter,
            failures: 0,
            synced: tell,
            on,
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = reflector.run() => {}
        }
    });
    Reflection { task, synced }
}

/// An object of some version, or why it could not be read.
#[derive(Clone, Debug)]
struct Lenient<K> {
    version: Option<String>,
    read: Result<K, Unreadable>,
}

#[derive(Clone, Debug)]
struct Unreadable {
    object: String,
    error: String,
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Lenient<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let part = |name: &str| {
            let text = value.get("metadata").and_then(|meta| meta.get(name));
            text.and_then(|v| v.as_str()).map(ToOwned::to_owned)
        };
        let version = part("resourceVersion");
        let name = part("name").unwrap_or_default();
        let object = part("namespace").map_or(name.clone(), |ns| format!("{ns}/{name}"));
        let read = serde_json::from_value(value).map_err(|error| Unreadable {
            object,
            error: error.to_string(),
        });
        Ok(Self { version, read })
    }
}

/// How a watch ended.
enum Ended {
    /// In the ordinary way: open it again from where it was.
    Closed,
    /// What lies between is lost: list again.
    Gone,
}

struct Reflector<F> {
    client: kube::Client,
    url: String,
    options: ReflectorOptions,
    clock: Clock,
    jitter: Rng,
    failures: u32,
    synced: watch::Sender<bool>,
    on: F,
}

impl<F> Reflector<F> {
    async fn run<K>(&mut self)
    where
        K: Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        F: FnMut(ReflectorEvent<K>, &str),
    {
        loop {
            let (objects, mut version) = match self.list().await {
                Ok(listed) => listed,
                Err(error) => {
                    self.wait_after("listing failed", &error).await;
                    continue;
                }
            };
            (self.on)(ReflectorEvent::Init(objects), &version);
            self.synced.send_replace(true);
            loop {
                let opened = self.clock.now();
                let before = version.clone();
                match self.watch(&mut version).await {
                    Ok(Ended::Gone) => break,
                    Ok(Ended::Closed) => {
                        let lasted = self.clock.now().saturating_duration_since(opened);
                        if version == before && lasted < SHORT_WATCH {
                            self.wait().await;
                        } else {
                            self.failures = 0;
                        }
                    }
                    Err(error) => self.wait_after("watch failed", &error).await,
                }
            }
        }
    }

    async fn list<K>(&mut self) -> Result<(Vec<K>, String), kube::Error>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        let mut params = ListParams {
            label_selector: self.options.label_selector.clone(),
            field_selector: self.options.field_selector.clone(),
            limit: Some(self.options.page_size),
            ..ListParams::default()
        };
        let mut objects = Vec::new();
        loop {
            let request = Request::new(&self.url)
                .list(&params)
                .map_err(kube::Error::BuildRequest)?;
            let page: ObjectList<Lenient<K>> = match self.client.request(request).await {
                Ok(page) => page,
                Err(error) if is_gone(&error) && params.continue_token.is_some() => {
                    // The pages came too slowly: all in one then.
                    objects.clear();
                    params.continue_token = None;
                    params.limit = None;
                    continue;
                }
                Err(error) => return Err(error),
            };
            for item in page.items {
                match item.read {
                    Ok(object) => objects.push(object),
                    Err(unreadable) => self.warn_unreadable(&unreadable),
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => {
                    let version = page.metadata.resource_version.unwrap_or_default();
                    return Ok((objects, version));
                }
            }
        }
    }

    async fn watch<K>(&mut self, version: &mut String) -> Result<Ended, kube::Error>
    where
        K: Clone + DeserializeOwned + Debug,
        F: FnMut(ReflectorEvent<K>, &str),
    {
        let seconds = self.options.watch_timeout.map_or(FOREVER_SECS, |timeout| {
            u32::try_from(timeout.as_secs()).unwrap_or(FOREVER_SECS)
        });
        let params = WatchParams {
            label_selector: self.options.label_selector.clone(),
            field_selector: self.options.field_selector.clone(),
            timeout: Some(seconds),
            bookmarks: true,
            ..WatchParams::default()
        };
        let request = Request::new(&self.url)
            .watch(&params, version)
            .map_err(kube::Error::BuildRequest)?;
        let opening = self.client.request_events::<Lenient<K>>(request);
        let stream = match opening.await {
            Ok(stream) => stream,
            Err(error) if is_gone(&error) => return Ok(Ended::Gone),
            Err(error) => return Err(error),
        };
        let mut stream = std::pin::pin!(stream);
        let patience = self.options.watch_timeout.map(|t| t + DEAD_WATCH_GRACE);
        loop {
            let next = match patience {
                None => stream.next().await,
                // Silence beyond what the server was asked for: the connection is dead without knowing it.
                Some(patience) => tokio::time::timeout(patience, stream.next())
                    .await
                    .unwrap_or(None),
            };
            let event = match next {
                None => return Ok(Ended::Closed),
                Some(Err(error)) if is_gone(&error) => return Ok(Ended::Gone),
                Some(Err(error)) => return Err(error),
                Some(Ok(event)) => event,
            };
            let (item, deleted) = match event {
                WatchEvent::Bookmark(bookmark) => {
                    *version = bookmark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(status) if status.code == 410 => return Ok(Ended::Gone),
                WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
                WatchEvent::Added(item) | WatchEvent::Modified(item) => (item, false),
                WatchEvent::Deleted(item) => (item, true),
            };
            if let Some(seen) = item.version {
                *version = seen;
            }
            let told = match item.read {
                Ok(object) if deleted => ReflectorEvent::Deleted(object),
                Ok(object) => ReflectorEvent::Applied(object),
                // Whom to forget cannot be said: a list will show it.
                Err(_) if deleted => return Ok(Ended::Gone),
                Err(unreadable) => {
                    self.warn_unreadable(&unreadable);
                    continue;
                }
            };
            self.failures = 0;
            (self.on)(told, version);
        }
    }

    fn warn_unreadable(&self, unreadable: &Unreadable) {
        tracing::error!(
            resource = self.url,
            object = unreadable.object,
            error = unreadable.error,
            "ignoring unreadable object"
        );
    }

    async fn wait_after(&mut self, message: &'static str, error: &kube::Error) {
        tracing::debug!(resource = self.url, error = %error, "{message}");
        self.wait().await;
    }

    /// Waits longer after each failure in a row, with jitter, so that many reflectors do not come back at once.
    async fn wait(&mut self) {
        let doublings = self.failures.min(31);
        self.failures = self.failures.saturating_add(1);
        let full = self
            .options
            .backoff_base
            .saturating_mul(1_u32 << doublings)
            .min(self.options.backoff_max);
        let wait = full.mul_f64(0.5 + self.jitter.unit() / 2.0);
        self.clock.sleep(wait).await;
    }
}

/// Whether what was asked for is older than the server remembers.
fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 410)
}

#[cfg(test)]
#[path = "reflector_tests.rs"]
mod tests;
