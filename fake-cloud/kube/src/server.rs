//! The API server's in-process face: what the control-plane loops, the kubelet model and the harness use, without
//! HTTP in between. The same store stands behind the `tower` service that `kube::Client` and sockets get.

use std::sync::Arc;

use karpenter_runtime::{Clock, RngTree};
use serde_json::Value;

/// Settings of a server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Its clock (creation timestamps are the server's own).
    pub clock: Clock,
    /// Its randomness (UIDs, `generateName`).
    pub rng: RngTree,
}

/// Group and plural of a resource, such as `("", "pods")` or `("karpenter.sh", "nodepools")`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gr<'a> {
    /// API group, empty for core.
    pub group: &'a str,
    /// Plural.
    pub resource: &'a str,
}

/// Shorthand for [`Gr`].
#[must_use]
pub const fn gr<'a>(group: &'a str, resource: &'a str) -> Gr<'a> {
    Gr { group, resource }
}

/// A refusal, as the API's `Status` body.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP code.
    pub code: u16,
    /// `NotFound`, `Conflict`, `Invalid`, ...
    pub reason: &'static str,
    /// Text.
    pub message: String,
    /// `details` of the Status, null when there are none.
    pub details: Value,
}

/// One change, in order of resourceVersion.
#[derive(Clone, Debug)]
pub enum Change {
    /// New, or newly selected.
    Added(Arc<Value>),
    /// Changed.
    Modified(Arc<Value>),
    /// Gone; the last state with the deletion's resourceVersion.
    Deleted(Arc<Value>),
}

/// Kind of patch for [`ApiServer::patch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 7396.
    Merge,
    /// RFC 6902.
    Json,
    /// Kubernetes' strategic merge.
    Strategic,
}

/// The embedded API server; cheap to clone, all clones are one server.
#[derive(Clone)]
pub struct ApiServer {
    // INTERFACE: the API server author fills this in.
}

/// Changes of one resource, all objects first as `Added`. Single consumer; unbounded, coalescing is the reader's.
pub struct Subscription {
    // INTERFACE
}

impl Subscription {
    /// The next change; none when the server is gone.
    pub async fn next(&mut self) -> Option<Change> {
        None
    }
    /// The next change if there is one already.
    pub fn try_next(&mut self) -> Option<Change> {
        None
    }
}

#[allow(clippy::unused_self, clippy::needless_pass_by_value, unused_variables)]
impl ApiServer {
    /// A new, empty cluster with the built-in kinds, namespaces `default`, `kube-system`, `kube-public`, `kube-node-lease`.
    #[must_use]
    pub fn new(options: ServerOptions) -> Self {
        Self {}
    }
    /// A client that talks to this server in memory, as cluster admin.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        unreachable!("INTERFACE")
    }
    /// Serves plain HTTP/1.1 and h2c on `listener` until `stop` is cancelled.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn serve(
        &self,
        listener: tokio::net::TcpListener,
        stop: tokio_util::sync::CancellationToken,
    ) -> std::io::Result<()> {
        Ok(())
    }
    /// One object.
    ///
    /// # Errors
    /// 404.
    pub fn get(
        &self,
        gr: Gr<'_>,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Arc<Value>, ApiError> {
        unreachable!("INTERFACE")
    }
    /// All objects of a resource in (namespace, name) order; of one namespace if given.
    #[must_use]
    pub fn list(&self, gr: Gr<'_>, namespace: Option<&str>) -> Vec<Arc<Value>> {
        Vec::new()
    }
    /// Creates an object (`metadata.name` or `generateName`), with everything a POST does: defaulting, validation...
    ///
    /// # Errors
    /// As the real server: 409, 422...
    pub fn create(
        &self,
        gr: Gr<'_>,
        namespace: Option<&str>,
        object: Value,
    ) -> Result<Arc<Value>, ApiError> {
        unreachable!("INTERFACE")
    }
    /// Replaces an object (PUT); checks resourceVersion when the object carries one.
    ///
    /// # Errors
    /// As the real server.
    pub fn update(
        &self,
        gr: Gr<'_>,
        namespace: Option<&str>,
        object: Value,
    ) -> Result<Arc<Value>, ApiError> {
        unreachable!("INTERFACE")
    }
    /// Replaces the status of an object (PUT .../status).
    ///
    /// # Errors
    /// As the real server.
    pub fn update_status(
        &self,
        gr: Gr<'_>,
        namespace: Option<&str>,
        object: Value,
    ) -> Result<Arc<Value>, ApiError> {
        unreachable!("INTERFACE")
    }
    /// Patches an object or a subresource (`status`, `scale`; empty = the object).
    ///
    /// # Errors
    /// As the real server.
    pub fn patch(
        &self,
        gr: Gr<'_>,
        namespace: Option<&str>,
        name: &str,
        subresource: &str,
        kind: PatchKind,
        patch: Value,
    ) -> Result<Arc<Value>, ApiError> {
        unreachable!("INTERFACE")
    }
    /// Server-side apply by `field_manager`.
    ///
    /// # Errors
    /// As the real server; 409 on a field conflict unless `force`.
    pub fn apply(
        &self,
        gr: Gr<'_>,
        namespace: Option<&str>,
        field_manager: &str,
        force: bool,
        object: Value,
    ) -> Result<Arc<Value>, ApiError> {
        unreachable!("INTERFACE")
    }
    /// Deletes an object: finalizers and pod grace periods hold it as they do in the real server.
    /// `grace_seconds` none = the object's own; 0 = at once.
    ///
    /// # Errors
    /// 404, 409.
    pub fn delete(
        &self,
        gr: Gr<'_>,
        namespace: Option<&str>,
        name: &str,
        grace_seconds: Option<i64>,
    ) -> Result<(), ApiError> {
        unreachable!("INTERFACE")
    }
    /// Binds a pod to a node (POST .../binding).
    ///
    /// # Errors
    /// 404, 409 when bound already.
    pub fn bind(&self, namespace: &str, pod: &str, node: &str) -> Result<(), ApiError> {
        unreachable!("INTERFACE")
    }
    /// Changes of a resource from now on, after all that is there.
    #[must_use]
    pub fn subscribe(&self, gr: Gr<'_>) -> Subscription {
        Subscription {}
    }
    /// The server's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        unreachable!("INTERFACE")
    }
}
