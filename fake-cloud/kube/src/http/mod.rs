//! The server over HTTP: one `tower` service, in memory under `kube::Client` or behind a socket.

pub mod body;
pub mod discovery;
pub mod list;
pub mod openapi;
mod options;
pub mod path;
pub mod query;
pub mod respond;
pub mod reviews;
pub mod route;
pub mod serve;
pub mod strict;
mod subresources;
pub mod table;
pub mod typed;
pub mod watch;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;

use crate::access::User;
use crate::server::ApiServer;
use body::ResponseBody;

/// The server as a `tower::Service` for requests with any body.
#[derive(Clone)]
pub struct Service {
    server: ApiServer,
    user: Option<User>,
}

impl Service {
    /// A service on `server`.
    #[must_use]
    pub const fn new(server: ApiServer) -> Self {
        Self { server, user: None }
    }

    /// A service whose requests are all from one user.
    #[must_use]
    pub const fn of(server: ApiServer, user: User) -> Self {
        Self {
            server,
            user: Some(user),
        }
    }

    /// The newest resourceVersion.
    pub(crate) fn resource_version(&self) -> u64 {
        self.server.resource_version()
    }
}

impl<B> tower::Service<Request<B>> for Service
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
        let server = self.server.clone();
        let user = self.user.clone();
        Box::pin(async move { Ok(route::handle(&server, user, request).await) })
    }
}
