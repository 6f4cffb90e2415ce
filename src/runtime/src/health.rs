//! The endpoints an operator's tools ask: `/metrics` on one port, `/healthz` and `/readyz` on another.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Says why something is not ready; none = it is.
pub type ReadyCheck = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// Media type of `/metrics`.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a listener answers.
#[derive(Clone)]
pub enum Endpoints {
    /// `/metrics`.
    Metrics(Metrics),
    /// `/healthz` and `/readyz`.
    Probes(ReadyCheck),
}

/// A listener that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct ListenError {
    /// Address asked for.
    pub address: SocketAddr,
    /// Why.
    pub source: std::io::Error,
}

/// The answer to one request. Pure, so that worlds without sockets can ask too.
#[must_use]
pub fn answer(
    endpoints: &Endpoints,
    method: &Method,
    path: &str,
) -> (StatusCode, &'static str, String) {
    const TEXT: &str = "text/plain; charset=utf-8";
    let plain = |status: StatusCode, text: &str| (status, TEXT, text.to_owned());
    let known = matches!(
        (endpoints, path),
        (Endpoints::Metrics(_), "/metrics") | (Endpoints::Probes(_), "/healthz" | "/readyz")
    );
    if !known {
        return plain(StatusCode::NOT_FOUND, "404 page not found\n");
    }
    if method != Method::GET && method != Method::HEAD {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    }
    match endpoints {
        Endpoints::Metrics(metrics) => (StatusCode::OK, METRICS_TYPE, metrics.render()),
        Endpoints::Probes(_) if path == "/healthz" => plain(StatusCode::OK, "ok"),
        Endpoints::Probes(ready) => match ready() {
            None => plain(StatusCode::OK, "ok"),
            Some(why) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                TEXT,
                format!("not ready: {why}\n"),
            ),
        },
    }
}

/// Serves `endpoints` on `address` until `stop` is cancelled. Returns the address it got (port 0 picks one).
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve(
    address: SocketAddr,
    endpoints: Endpoints,
    stop: CancellationToken,
) -> Result<(SocketAddr, JoinHandle<()>), ListenError> {
    let failed = |source| ListenError { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let task = tokio::spawn(accept(listener, endpoints, stop));
    Ok((bound, task))
}

async fn accept(listener: TcpListener, endpoints: Endpoints, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let endpoints = endpoints.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let response = respond(&endpoints, &request);
                        async move { Ok::<_, Infallible>(response) }
                    });
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let connection = builder.serve_connection(TokioIo::new(stream), service);
                    if let Err(error) = connection.await {
                        tracing::debug!(error = %error, "connection to an endpoint failed");
                    }
                });
            }
            Err(error) => {
                tracing::debug!(error = %error, "accepting a connection failed");
                // Out of file descriptors, most likely: others must get a chance to close theirs.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
    // Dropping the set closes what is still open.
}

fn respond(endpoints: &Endpoints, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, media_type, body) = answer(endpoints, request.method(), request.uri().path());
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(media_type),
    );
    response
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
