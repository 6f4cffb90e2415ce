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
    /// Where `client_go_request_total` is counted.
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
        // The clone that was polled ready must be the one that is called.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        Box::pin(async move {
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            let result = inner.call(request).await;
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

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
