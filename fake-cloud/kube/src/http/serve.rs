//! The server on a socket: plain HTTP/1.1 and h2c on one listener.

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Service;
use crate::server::ApiServer;

/// Accepts connections until `stop` is cancelled; open connections end with it.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    server: ApiServer,
    listener: TcpListener,
    stop: CancellationToken,
) -> std::io::Result<()> {
    loop {
        let (stream, peer) = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                // One connection that broke before it was accepted does not end the server.
                Err(error) if is_of_connection(&error) => continue,
                Err(error) => return Err(error),
            },
        };
        let service = TowerToHyperService::new(Service::new(server.clone()));
        let stop = stop.clone();
        tokio::spawn(async move {
            let builder = Builder::new(TokioExecutor::new());
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                result = &mut connection => {
                    if let Err(error) = result {
                        tracing::debug!(%error, %peer, "connection ended");
                    }
                }
            }
        });
    }
}

fn is_of_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}
