//! What can go wrong between a client and the API server, from a seed: requests that are delayed, refused, lost before
//! or after they took effect, and watches that break off or lag behind. Only the client that was made with it suffers.

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

use crate::error::ApiError;
use crate::http::Service;
use crate::http::body::{self, ResponseBody};
use crate::http::respond::refusal;

/// Longest that a delayed request waits (ms).
const DELAY_MAX_MILLIS: u64 = 2_000;
/// Life of a watch that breaks off (s), shortest and longest.
const WATCH_LIFE_SECONDS: (u64, u64) = (1, 60);
/// Longest that a watch lags behind (ms).
const LAG_MAX_MILLIS: u64 = 5_000;
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
}

/// What is to happen to one request.
#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    delay: Option<Duration>,
    refused: Option<Refusal>,
    lose_answer: bool,
    watch_life: Option<Duration>,
    watch_lag: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
enum Refusal {
    Conflict,
    Throttled,
    Failed,
}

impl Flaky {
    /// No faults yet.
    #[must_use]
    pub fn new(clock: Clock, rng: &RngTree) -> Self {
        let state = State {
            faults: ClientFaults::default(),
            rng: rng.child("flaky-client", "").rng(),
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

    fn draw(&self, method: &Method, watch: bool) -> Fate {
        let mut state = self.inner.state.lock();
        let State { faults, rng } = &mut *state;
        // Nothing is drawn where nothing can happen: a healed client costs no randomness.
        let mut hit = |rate: u32| rate > 0 && rng.below(1000) < u64::from(rate);
        let mut fate = Fate::default();
        if watch {
            let (dropped, late) = (hit(faults.watches_dropped), hit(faults.watches_late));
            let (shortest, longest) = WATCH_LIFE_SECONDS;
            if dropped {
                let life = shortest + rng.below(longest - shortest + 1);
                fate.watch_life = Some(Duration::from_secs(life));
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
        fate.lose_answer = write && fate.refused.is_none() && hit(faults.failed_after);
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

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let query = request.uri().query().unwrap_or_default();
        let watch = query
            .split('&')
            .any(|pair| matches!(pair, "watch=true" | "watch=1"));
        let fate = self.flaky.draw(request.method(), watch);
        let clock = self.flaky.inner.clock.clone();
        let mut inner = self.inner.clone();
        Box::pin(async move {
            if let Some(delay) = fate.delay {
                clock.sleep(delay).await;
            }
            if let Some(refused) = fate.refused {
                return Ok(refusal(&refused.error()));
            }
            let response = inner.call(request).await?;
            if fate.lose_answer {
                return Ok(refusal(&Refusal::Failed.error()));
            }
            Ok(match (fate.watch_life, fate.watch_lag) {
                (None, None) => response,
                (life, lag) => response.map(|body| troubled(body, clock, life, lag)),
            })
        })
    }
}

impl Refusal {
    fn error(self) -> ApiError {
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

/// A watch's body that lags behind and ends before its time.
fn troubled(
    inner: ResponseBody,
    clock: Clock,
    life: Option<Duration>,
    lag: Option<Duration>,
) -> ResponseBody {
    let frames = inner.into_data_stream().filter_map(|frame| async move {
        // The error type has no values: every frame is data.
        frame.ok()
    });
    let late = frames.then({
        let clock = clock.clone();
        move |frame| {
            let clock = clock.clone();
            async move {
                if let Some(lag) = lag {
                    clock.sleep(lag).await;
                }
                frame
            }
        }
    });
    let over = async move {
        match life {
            Some(life) => clock.sleep(life).await,
            None => std::future::pending().await,
        }
    };
    body::stream(late.take_until(Box::pin(over)))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{Api, ListParams, Patch, PatchParams, PostParams, WatchParams};

    use super::*;
    use crate::server::{ApiServer, ServerOptions};

    fn world() -> (ApiServer, Flaky, Clock) {
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let rng = RngTree::new(5);
        let server = ApiServer::new(ServerOptions {
            clock: clock.clone(),
            rng: rng.child("api", ""),
        });
        let flaky = Flaky::new(clock.clone(), &rng);
        (server, flaky, clock)
    }

    fn map(name: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_owned());
        map
    }

    fn code(error: &kube::Error) -> u16 {
        match error {
            kube::Error::Api(status) => status.code,
            other => panic!("{other}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_fault_does_what_it_says_and_ends_when_told() {
        let (server, flaky, clock) = world();
        let api: Api<ConfigMap> = Api::default_namespaced(server.flaky_client(&flaky));
        let create = |name: &str| {
            let (api, map) = (api.clone(), map(name));
            async move { api.create(&PostParams::default(), &map).await }
        };
        create("a").await.unwrap();

        flaky.set(ClientFaults {
            failed_after: 1000,
            ..ClientFaults::default()
        });
        assert_eq!(code(&create("b").await.unwrap_err()), 500);
        flaky.set(ClientFaults {
            failed_before: 1000,
            ..ClientFaults::default()
        });
        assert_eq!(code(&create("c").await.unwrap_err()), 500);
        flaky.set(ClientFaults {
            throttled: 1000,
            ..ClientFaults::default()
        });
        assert_eq!(code(&create("d").await.unwrap_err()), 429);
        flaky.set(ClientFaults {
            conflicts: 1000,
            ..ClientFaults::default()
        });
        let patch = Patch::Merge(json!({ "data": { "x": "y" } }));
        let patched = api.patch("a", &PatchParams::default(), &patch).await;
        assert_eq!(code(&patched.unwrap_err()), 409);
        create("e").await.unwrap();

        flaky.set(ClientFaults {
            delayed: 1000,
            ..ClientFaults::default()
        });
        let before = clock.now();
        create("f").await.unwrap();
        assert!(clock.now() > before);

        flaky.set(ClientFaults::default());
        let names: Vec<String> = api
            .list(&ListParams::default())
            .await
            .unwrap()
            .into_iter()
            .filter_map(|m| m.metadata.name)
            .collect();
        // What failed after the write is there, what failed before it is not.
        for (name, there) in [
            ("a", true),
            ("b", true),
            ("c", false),
            ("d", false),
            ("e", true),
            ("f", true),
        ] {
            assert_eq!(names.iter().any(|n| n == name), there, "{name}: {names:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn watches_break_off_and_lag() {
        let (server, flaky, clock) = world();
        let client = server.flaky_client(&flaky);
        let api: Api<ConfigMap> = Api::default_namespaced(client);
        flaky.set(ClientFaults {
            watches_dropped: 1000,
            watches_late: 1000,
            ..ClientFaults::default()
        });
        let mut watch = Box::pin(api.watch(&WatchParams::default(), "0").await.unwrap());
        let began = clock.now();
        flaky.set(ClientFaults::default());
        api.create(&PostParams::default(), &map("late"))
            .await
            .unwrap();
        let mut seen = 0;
        while let Some(event) = watch.next().await {
            event.unwrap();
            seen += 1;
            assert!(clock.now() > began);
        }
        assert!(seen <= 2);
        let lived = clock.now() - began;
        assert!(lived <= Duration::from_secs(70), "{lived:?}");
    }
}
