//! What stands between us and the API server: a limit on requests, and a count of them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use parking_lot::Mutex;
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::metrics::Metrics;

/// A token bucket whose takers wait their turn. Shared by all clones.
#[derive(Clone, Debug)]
pub struct Throttle {
    per_second: f64,
    burst: f64,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// What is left; below zero, as many takers wait.
    tokens: f64,
    filled: Instant,
}

impl Throttle {
    /// A full bucket of `burst` requests that is refilled at `per_second`.
    #[must_use]
    pub fn new(per_second: u32, burst: u32) -> Self {
        let burst = f64::from(burst.max(1));
        Self {
            per_second: f64::from(per_second.max(1)),
            burst,
            state: Arc::new(Mutex::new(State {
                tokens: burst,
                filled: Instant::now(),
            })),
        }
    }

    /// Takes a turn; returns how long to wait for it.
    fn take(&self) -> Duration {
        let now = Instant::now();
        let mut state = self.state.lock();
        let elapsed = now.saturating_duration_since(state.filled).as_secs_f64();
        state.tokens = (state.tokens + elapsed * self.per_second).min(self.burst) - 1.0;
        state.filled = now;
        if state.tokens >= 0.0 {
            Duration::ZERO
        } else {
            Duration::from_secs_f64(-state.tokens / self.per_second)
        }
    }
}

/// Puts [`Gate`] in front of a client's service.
#[derive(Clone, Debug)]
pub struct GateLayer {
    /// The limit; none = no limit.
    pub throttle: Option<Throttle>,
    /// Where `client_go_request_*` is counted.
    pub metrics: Metrics,
}

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;
    fn layer(&self, inner: S) -> Gate<S> {
        Gate {
            inner,
            settings: self.clone(),
        }
    }
}

/// A client's service with a limit and a count.
#[derive(Clone, Debug)]
pub struct Gate<S> {
    inner: S,
    settings: GateLayer,
}

impl<S, A, B> Service<Request<A>> for Gate<S>
where
    S: Service<Request<A>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send,
    A: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let wait = self
            .settings
            .throttle
            .as_ref()
            .map_or(Duration::ZERO, Throttle::take);
        let metrics = self.settings.metrics.clone();
        let method = request.method().as_str().to_owned();
        let target = Target::of(request.uri().path());
        // The clone that was polled ready must be the one that is called.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        Box::pin(async move {
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            let began = Instant::now();
            let result = inner.call(request).await;
            // Of a watch: until it has begun.
            let took = began.elapsed().as_secs_f64();
            let [group, version, kind, subresource] = target.labels();
            let labels = [("verb", method.as_str()), group, version, kind, subresource];
            metrics.observe("client_go_request_duration_seconds", &labels, took);
            let code = match &result {
                Ok(response) => response.status().as_u16().to_string(),
                Err(_) => "<error>".to_owned(),
            };
            let labels = [("code", code.as_str()), ("method", method.as_str())];
            metrics.inc("client_go_request_total", &labels);
            result
        })
    }
}

/// What a request is about, as its path says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Target {
    group: String,
    version: String,
    /// Plural name of the resource, as the reference has it under this label.
    kind: String,
    subresource: String,
}

impl Target {
    fn of(path: &str) -> Self {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        let group = match parts.next() {
            Some("api") => "",
            Some("apis") => parts.next().unwrap_or_default(),
            // Not about objects: versions, health.
            _ => return Self::default(),
        };
        let version = parts.next().unwrap_or_default();
        let mut rest: Vec<&str> = parts.collect();
        if let ["namespaces", _, _, ..] = rest.as_slice()
            && !matches!(rest.as_slice(), ["namespaces", _, "status" | "finalize"])
        {
            rest.drain(..2);
        }
        let at = |i: usize| rest.get(i).copied().unwrap_or_default().to_owned();
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: at(0),
            subresource: at(2),
        }
    }

    fn labels(&self) -> [(&'static str, &str); 4] {
        [
            ("group", &self.group),
            ("version", &self.version),
            ("kind", &self.kind),
            ("subresource", &self.subresource),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use rstest::rstest;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_the_rest_waits_its_turn() {
        let begun = Instant::now();
        let metrics = Metrics::default();
        let times = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&times);
        let inner = tower::service_fn(move |_: Request<()>| {
            log.lock().push(begun.elapsed().as_millis());
            async { Ok::<_, Infallible>(Response::builder().status(201).body(()).unwrap()) }
        });
        let layer = GateLayer {
            throttle: Some(Throttle::new(2, 3)),
            metrics: metrics.clone(),
        };
        let mut calls = tokio::task::JoinSet::new();
        let mut gate = layer.layer(inner);
        for _ in 0..6 {
            calls.spawn(gate.call(Request::post("/").body(()).unwrap()));
        }
        calls.join_all().await;
        assert_eq!(*times.lock(), [0, 0, 0, 500, 1000, 1500]);
        let labels = [("code", "201"), ("method", "POST")];
        assert_eq!(metrics.value("client_go_request_total", &labels), Some(6.0));
        let timed = metrics.value("client_go_request_duration_seconds", &[("verb", "POST")]);
        assert_eq!(timed, Some(6.0));
    }

    #[rstest]
    #[case::list("/api/v1/pods", ["", "v1", "pods", ""])]
    #[case::one("/api/v1/nodes/a", ["", "v1", "nodes", ""])]
    #[case::subresource("/api/v1/namespaces/a/pods/b/eviction", ["", "v1", "pods", "eviction"])]
    #[case::namespaces("/api/v1/namespaces", ["", "v1", "namespaces", ""])]
    #[case::a_namespace("/api/v1/namespaces/a", ["", "v1", "namespaces", ""])]
    #[case::its_end("/api/v1/namespaces/a/finalize", ["", "v1", "namespaces", "finalize"])]
    #[case::custom("/apis/karpenter.sh/v1/nodeclaims/a/status", ["karpenter.sh", "v1", "nodeclaims", "status"])]
    #[case::in_a_namespace("/apis/apps/v1/namespaces/a/deployments", ["apps", "v1", "deployments", ""])]
    #[case::discovery("/apis/apps/v1", ["apps", "v1", "", ""])]
    #[case::versions("/version", ["", "", "", ""])]
    fn a_path_names_what_it_is_about(#[case] path: &str, #[case] expected: [&str; 4]) {
        assert_eq!(Target::of(path).labels().map(|(_, value)| value), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_time_fills_the_bucket_but_not_beyond() {
        let throttle = Throttle::new(10, 3);
        for _ in 0..3 {
            assert_eq!(throttle.take(), Duration::ZERO);
        }
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let waits: Vec<_> = (0..5).map(|_| throttle.take().as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100, 200]);
    }
}
