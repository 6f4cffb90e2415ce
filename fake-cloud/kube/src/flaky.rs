//! What can go wrong between a client and the API server, from a seed: requests that are delayed, refused, lost before
//! or after they took effect, lists that show the past, and watches that break off, lag behind or fall silent. Only the
//! client that was made with it suffers.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, Request, Response};
use http_body::Body;
use http_body_util::BodyExt as _;
use karpenter_runtime::rng::Rng;
use karpenter_runtime::{Clock, RngTree};
use parking_lot::Mutex;
use serde_json::json;

use crate::deletes::{self, PodDelete};
use crate::error::ApiError;
use crate::http::Service;
use crate::http::body::{self, ResponseBody};
use crate::http::path::Path;
use crate::http::respond::refusal;

/// Longest that a delayed request waits (ms).
const DELAY_MAX_MILLIS: u64 = 2_000;
/// Life of a watch that breaks off (s), shortest and longest.
const WATCH_LIFE_SECONDS: (u64, u64) = (1, 60);
/// Longest that a watch lags behind (ms).
const LAG_MAX_MILLIS: u64 = 5_000;
/// Most changes that are under way on a late watch: far more than any cluster has in that time.
const UNDER_WAY_MAX: usize = 10_000;
/// When a watch falls silent, and for how long until its connection is found dead (s), shortest and longest.
const STALL_AFTER_SECONDS: (u64, u64) = (1, 60);
const STALL_SECONDS: (u64, u64) = (10, 120);
/// How far back a list can be.
const STALE_MAX: Duration = Duration::from_secs(10);
/// What `Retry-After` says (s).
const RETRY_AFTER_SECONDS: u64 = 1;

/// How often things go wrong, each in a thousand requests of the kind that can suffer it; 0 = never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientFaults {
    /// Requests that take up to two seconds.
    pub delayed: u32,
    /// Updates and patches refused with 409, as if somebody else had written first.
    pub conflicts: u32,
    /// Requests refused with 429 and `Retry-After: 1`.
    pub throttled: u32,
    /// Requests answered with 500 that had no effect.
    pub failed_before: u32,
    /// Writes that took effect and are answered with 500 all the same.
    pub failed_after: u32,
    /// Watches that end within a minute.
    pub watches_dropped: u32,
    /// Watches whose events come up to five seconds late.
    pub watches_late: u32,
    /// Watches that fall silent within a minute, and break off up to two minutes later.
    pub watches_stalled: u32,
    /// Lists that show what was there up to ten seconds ago, as a server whose watch cache is behind shows it to those
    /// who do not insist on the newest. It happens to those who do, too: what they watch from there on catches up.
    pub lists_stale: u32,
}

/// The faults of a client, to be changed while it runs; clones share them.
#[derive(Clone, Debug)]
pub struct Flaky {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    faults: ClientFaults,
    rng: Rng,
    /// Versions that the server was seen at of late, and when.
    versions: VecDeque<(tokio::time::Instant, u64)>,
    deletes: Vec<PodDelete>,
}

/// What is to happen to one request.
#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    delay: Option<Duration>,
    refused: Option<Refusal>,
    lose_answer: bool,
    watch_life: Option<Duration>,
    watch_lag: Option<Duration>,
    /// When a watch falls silent.
    watch_stall: Option<Duration>,
    /// The version that a list shows.
    stale: Option<u64>,
}

/// How a request can be refused.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    Conflict,
    Throttled,
    Failed,
}

/// Whether something happens that does so `rate` times in a thousand. Nothing is drawn where nothing can happen: what is
/// healed costs no randomness.
pub(crate) fn hit(rng: &mut Rng, rate: u32) -> bool {
    rate > 0 && rng.below(1000) < u64::from(rate)
}

impl Flaky {
    /// No faults yet.
    #[must_use]
    pub fn new(clock: Clock, rng: &RngTree) -> Self {
        let state = State {
            faults: ClientFaults::default(),
            rng: rng.child("flaky-client", "").rng(),
            versions: VecDeque::new(),
            deletes: Vec::new(),
        };
        Self {
            inner: Arc::new(Inner {
                clock,
                state: Mutex::new(state),
            }),
        }
    }

    /// From now on these, instead of those before. Watches that are open keep what they drew.
    pub fn set(&self, faults: ClientFaults) {
        self.inner.state.lock().faults = faults;
    }

    /// Pods whose deletion was asked for since this was last asked.
    #[must_use]
    pub fn pod_deletes(&self) -> Vec<PodDelete> {
        std::mem::take(&mut self.inner.state.lock().deletes)
    }

    /// Notes what version the server is at, for lists to come.
    fn note(&self, version: u64) {
        let mut state = self.inner.state.lock();
        let now = self.inner.clock.now();
        while state
            .versions
            .front()
            .is_some_and(|(seen, _)| now.duration_since(*seen) > STALE_MAX)
        {
            state.versions.pop_front();
        }
        if state.versions.back().map(|(_, v)| *v) != Some(version) {
            state.versions.push_back((now, version));
        }
    }

    fn draw(&self, method: &Method, watch: bool, list: bool) -> Fate {
        let mut state = self.inner.state.lock();
        let State {
            faults,
            rng,
            versions,
            ..
        } = &mut *state;
        let mut hit = |rate| hit(rng, rate);
        let mut fate = Fate::default();
        if watch {
            let (dropped, late) = (hit(faults.watches_dropped), hit(faults.watches_late));
            let stalled = hit(faults.watches_stalled);
            let mut seconds = |(shortest, longest): (u64, u64)| {
                Duration::from_secs(shortest + rng.below(longest - shortest + 1))
            };
            if dropped {
                fate.watch_life = Some(seconds(WATCH_LIFE_SECONDS));
            }
            if stalled {
                let after = seconds(STALL_AFTER_SECONDS);
                let over = after + seconds(STALL_SECONDS);
                fate.watch_stall = Some(after);
                fate.watch_life = Some(fate.watch_life.map_or(over, |life| life.min(over)));
            }
            if late {
                fate.watch_lag = Some(Duration::from_millis(1 + rng.below(LAG_MAX_MILLIS)));
            }
            return fate;
        }
        let write = method != Method::GET;
        let update = method == Method::PUT || method == Method::PATCH;
        let delayed = hit(faults.delayed);
        fate.refused = if update && hit(faults.conflicts) {
            Some(Refusal::Conflict)
        } else if hit(faults.throttled) {
            Some(Refusal::Throttled)
        } else if hit(faults.failed_before) {
            Some(Refusal::Failed)
        } else {
            None
        };
        let stale = list && hit(faults.lists_stale);
        fate.lose_answer = write && fate.refused.is_none() && hit(faults.failed_after);
        if stale {
            let which = rng.below(versions.len().max(1) as u64);
            let which = usize::try_from(which).unwrap_or_default();
            fate.stale = versions.get(which).map(|(_, version)| *version);
        }
        if delayed {
            fate.delay = Some(Duration::from_millis(1 + rng.below(DELAY_MAX_MILLIS)));
        }
        fate
    }

    /// The service of one client.
    pub(crate) fn around(&self, inner: Service) -> FlakyService {
        FlakyService {
            inner,
            flaky: self.clone(),
        }
    }
}

/// A service whose answers suffer.
#[derive(Clone)]
pub(crate) struct FlakyService {
    inner: Service,
    flaky: Flaky,
}

impl<B> tower::Service<Request<B>> for FlakyService
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let query = request.uri().query().unwrap_or_default();
        let watch = query
            .split('&')
            .any(|pair| matches!(pair, "watch=true" | "watch=1"));
        let list = !watch && request.method() == Method::GET && asks_for_a_list(request.uri());
        if list {
            self.flaky.note(self.inner.resource_version());
        }
        let fate = self.flaky.draw(request.method(), watch, list);
        if let Some(version) = fate.stale {
            at_version(&mut request, version);
        }
        let flaky = self.flaky.clone();
        let clock = flaky.inner.clock.clone();
        let mut inner = self.inner.clone();
        Box::pin(async move {
            if let Some(delay) = fate.delay {
                clock.sleep(delay).await;
            }
            if let Some(refused) = fate.refused {
                return Ok(refusal(&refused.error()));
            }
            let response = if deletes::is_one(&request) {
                let (delete, request) = deletes::read(request).await;
                flaky.inner.state.lock().deletes.push(delete);
                inner.call(request).await?
            } else {
                inner.call(request).await?
            };
            if fate.lose_answer {
                return Ok(refusal(&Refusal::Failed.error()));
            }
            Ok(match (fate.watch_life, fate.watch_lag) {
                (None, None) => response,
                (life, lag) => {
                    response.map(|body| troubled(body, clock, life, lag, fate.watch_stall))
                }
            })
        })
    }
}

/// Whether a GET is a list from its beginning, of no version in particular.
fn asks_for_a_list(uri: &http::Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    let free = query.split('&').all(|pair| {
        let key = pair.split('=').next().unwrap_or_default();
        !matches!(key, "continue" | "resourceVersionMatch" | "watch")
    });
    let collection = Path::parse(uri.path())
        .is_some_and(|path| matches!(path, Path::Objects(path) if path.name.is_none()));
    free && collection
}

/// Makes a list one of an exact version.
fn at_version<B>(request: &mut Request<B>, version: u64) {
    let uri = request.uri();
    let kept = uri.query().unwrap_or_default().split('&');
    let kept: String = kept
        .filter(|pair| !pair.is_empty() && !pair.starts_with("resourceVersion="))
        .flat_map(|pair| ["&", pair])
        .collect();
    let path = uri.path();
    let asked = format!("{path}?resourceVersion={version}&resourceVersionMatch=Exact{kept}");
    if let Ok(asked) = asked.parse() {
        *request.uri_mut() = asked;
    }
}

impl Refusal {
    /// The answer.
    pub(crate) fn error(self) -> ApiError {
        let (code, reason, message, details) = match self {
            Self::Conflict => (
                409,
                "Conflict",
                "the object has been modified; please apply your changes to the latest version and try again",
                json!({}),
            ),
            Self::Throttled => (
                429,
                "TooManyRequests",
                "the server has received too many requests and has asked us to try again later",
                json!({ "retryAfterSeconds": RETRY_AFTER_SECONDS }),
            ),
            Self::Failed => (
                500,
                "InternalError",
                "Internal error occurred: etcdserver: request timed out",
                json!({}),
            ),
        };
        ApiError {
            code,
            reason,
            message: message.to_owned(),
            details,
            next: None,
        }
    }
}

/// A watch's body that lags behind, falls silent and ends before its time.
fn troubled(
    inner: ResponseBody,
    clock: Clock,
    life: Option<Duration>,
    lag: Option<Duration>,
    stall: Option<Duration>,
) -> ResponseBody {
    let silent_from = stall.map(|after| clock.now() + after);
    let frames = inner.into_data_stream().filter_map(|frame| async move {
        // The error type has no values: every frame is data.
        frame.ok()
    });
    let late = frames.map({
        let clock = clock.clone();
        move |frame| {
            let clock = clock.clone();
            // Each change is so late, whatever else is under way: a watch that is late for long does not fall behind.
            let due = lag.map(|lag| clock.now() + lag);
            async move {
                if let Some(due) = due {
                    clock
                        .sleep(due.saturating_duration_since(clock.now()))
                        .await;
                }
                if silent_from.is_some_and(|from| clock.now() >= from) {
                    // Nothing comes any more, until the end of the connection's life.
                    std::future::pending::<()>().await;
                }
                frame
            }
        }
    });
    let late = late.buffered(UNDER_WAY_MAX);
    let over = async move {
        match life {
            Some(life) => clock.sleep(life).await,
            None => std::future::pending().await,
        }
    };
    body::stream(late.take_until(Box::pin(over)))
}

#[cfg(test)]
mod tests;
