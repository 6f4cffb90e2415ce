//! The API server's in-process face: what the control-plane loops, the kubelet model and the harness use, without
//! HTTP in between. The same store stands behind the `tower` service that `kube::Client` and sockets get.

use std::collections::VecDeque;
use std::sync::Arc;

use karpenter_runtime::{Clock, RngTree};
use parking_lot::Mutex;
use serde_json::Value;

pub use crate::error::ApiError;
use crate::http;
use crate::ops::delete::DeleteOptions;
use crate::ops::{self, Part, State, WriteOptions};
pub use crate::patch::PatchKind;
use crate::registry::key_of;
use crate::store::{ChangeKind, Event, EventReceiver};

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

impl From<Event> for Change {
    fn from(event: Event) -> Self {
        match event.kind {
            ChangeKind::Added => Self::Added(event.object),
            ChangeKind::Modified => Self::Modified(event.object),
            ChangeKind::Deleted => Self::Deleted(event.object),
        }
    }
}

/// The embedded API server; cheap to clone, all clones are one server.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) inner: Arc<Inner>,
    /// Whether this is the face that the cluster's own components write through.
    inside: bool,
}

/// How often writes of the cluster's own components (loops, kubelets) go wrong, each in a thousand; 0 = never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InsideFaults {
    /// Writes refused with 500 that had no effect.
    pub failed_before: u32,
    /// Writes that took effect and are answered with 500 all the same.
    pub failed_after: u32,
    /// Updates and patches refused with 409, as if somebody else had written first.
    pub conflicts: u32,
}

/// What [`InsideFaults`] draw from.
pub(crate) struct Inside {
    faults: InsideFaults,
    rng: karpenter_runtime::rng::Rng,
}

/// What all clones of a server share.
pub(crate) struct Inner {
    pub(crate) state: Mutex<State>,
    pub(crate) clock: Clock,
    pub(crate) rng: RngTree,
    inside: Mutex<Inside>,
}

/// Changes of one resource, all objects first as `Added`. Single consumer; unbounded, coalescing is the reader's.
pub struct Subscription {
    initial: VecDeque<Arc<Value>>,
    changes: EventReceiver,
}

impl Subscription {
    /// The next change; none when the server is gone.
    pub async fn next(&mut self) -> Option<Change> {
        if let Some(object) = self.initial.pop_front() {
            return Some(Change::Added(object));
        }
        self.changes.recv().await.map(Change::from)
    }

    /// The next change if there is one already.
    pub fn try_next(&mut self) -> Option<Change> {
        if let Some(object) = self.initial.pop_front() {
            return Some(Change::Added(object));
        }
        self.changes.try_recv().ok().map(Change::from)
    }
}

/// Namespaces every cluster starts with.
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

const RBAC: &str = "rbac.authorization.k8s.io";

/// Priority classes every cluster starts with: name, value, description.
const PRIORITY_CLASSES: [(&str, i64, &str); 2] = [
    (
        "system-cluster-critical",
        2_000_000_000,
        "For pods the cluster cannot do without.",
    ),
    (
        "system-node-critical",
        2_000_001_000,
        "For pods their node cannot do without.",
    ),
];

impl ApiServer {
    /// A new, empty cluster with the built-in kinds, namespaces `default`, `kube-system`, `kube-public`, `kube-node-lease`.
    #[must_use]
    pub fn new(options: ServerOptions) -> Self {
        let server = Self {
            inner: Arc::new(Inner {
                state: Mutex::new(State::new(options.clock.clone(), &options.rng)),
                clock: options.clock,
                inside: Mutex::new(Inside {
                    faults: InsideFaults::default(),
                    rng: options.rng.child("inside-faults", "").rng(),
                }),
                rng: options.rng,
            }),
            inside: false,
        };
        for name in NAMESPACES {
            let namespace = serde_json::json!({"metadata": {"name": name}});
            if let Err(error) = server.create(gr("", "namespaces"), None, namespace) {
                tracing::error!(%error, name, "could not create a namespace every cluster has");
            }
        }
        for (name, value, what) in PRIORITY_CLASSES {
            let class = serde_json::json!({"metadata": {"name": name}, "value": value, "description": what});
            let classes = gr("scheduling.k8s.io", "priorityclasses");
            if let Err(error) = server.create(classes, None, class) {
                tracing::error!(%error, name, "could not create a priority class every cluster has");
            }
        }
        let (roles, bindings) = (gr(RBAC, "clusterroles"), gr(RBAC, "clusterrolebindings"));
        for (name, rules, groups) in crate::access::bootstrap::roles() {
            let subjects: Vec<Value> = groups
                .iter()
                .map(|g| serde_json::json!({"kind": "Group", "apiGroup": RBAC, "name": g}))
                .collect();
            let role = serde_json::json!({"metadata": {"name": name}, "rules": rules});
            let binding = serde_json::json!({
                "metadata": {"name": name}, "subjects": subjects,
                "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": name},
            });
            for (kind, object) in [(roles, role), (bindings, binding)] {
                if let Err(error) = server.create(kind, None, object) {
                    tracing::error!(%error, name, "could not create a role every cluster has");
                }
            }
        }
        for role in crate::access::bootstrap::aggregated() {
            if let Err(error) = server.create(roles, None, role) {
                tracing::error!(%error, "could not create a role every cluster has");
            }
        }
        server
    }

    /// A client that talks to this server in memory as somebody who may do what the cluster's roles allow, and nothing
    /// else.
    #[must_use]
    pub fn client_of(&self, user: crate::access::User) -> kube::Client {
        kube::Client::new(http::Service::of(self.clone(), user), "default")
    }

    /// A client that talks to this server in memory, as cluster admin.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        kube::Client::new(http::Service::new(self.clone()), "default")
    }

    /// The same, of a client that suffers from faults.
    #[must_use]
    pub fn flaky_client(&self, faults: &crate::flaky::Flaky) -> kube::Client {
        kube::Client::new(faults.around(self.service()), "default")
    }

    /// The server as a `tower` service for any body, to be put behind a transport of one's own.
    #[must_use]
    pub fn service(&self) -> http::Service {
        http::Service::new(self.clone())
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
        http::serve::serve(self.clone(), listener, stop).await
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
        let state = self.inner.state.lock();
        let target = state.target(gr.group, gr.resource, namespace)?;
        state.require(&target, name)
    }

    /// All objects of a resource in (namespace, name) order; of one namespace if given.
    #[must_use]
    pub fn list(&self, gr: Gr<'_>, namespace: Option<&str>) -> Vec<Arc<Value>> {
        let state = self.inner.state.lock();
        state
            .store
            .iter(&key_of(gr.group, gr.resource), namespace, None)
            .cloned()
            .collect()
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
        self.write(false, || {
            let mut state = self.inner.state.lock();
            let target = state.target(gr.group, gr.resource, namespace)?;
            ops::create::create(&mut state, &target, object, &mut WriteOptions::default())
        })
    }

    /// The face that the cluster's own components write through: the same server, with its [`InsideFaults`].
    #[must_use]
    pub fn inside(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            inside: true,
        }
    }

    /// From now on the cluster's own components suffer from these, and from nothing else.
    pub fn set_inside_faults(&self, faults: InsideFaults) {
        self.inner.inside.lock().faults = faults;
    }

    /// Writes, or what goes wrong instead of it or after it. `changes` tells whether what is written is there already.
    fn write<T>(
        &self,
        changes: bool,
        write: impl FnOnce() -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        if !self.inside {
            return write();
        }
        let (conflict, before, after) = {
            let mut inside = self.inner.inside.lock();
            let Inside { faults, rng } = &mut *inside;
            let mut hit = |rate| crate::flaky::hit(rng, rate);
            (
                changes && hit(faults.conflicts),
                hit(faults.failed_before),
                hit(faults.failed_after),
            )
        };
        if conflict {
            return Err(crate::flaky::Refusal::Conflict.error());
        }
        let failed = || Err(crate::flaky::Refusal::Failed.error());
        if before {
            return failed();
        }
        let written = write()?;
        if after { failed() } else { Ok(written) }
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
        self.put(gr, namespace, Part::Main, object)
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
        self.put(gr, namespace, Part::Status, object)
    }

    fn put(
        &self,
        gr: Gr<'_>,
        namespace: Option<&str>,
        part: Part,
        object: Value,
    ) -> Result<Arc<Value>, ApiError> {
        self.write(true, || {
            let mut state = self.inner.state.lock();
            let target = state.target(gr.group, gr.resource, namespace)?;
            let name = crate::meta::name(&object).to_owned();
            let mut options = WriteOptions::default();
            ops::replace::update(&mut state, &target, &name, part, object, &mut options)
        })
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
        self.write(true, || {
            let mut state = self.inner.state.lock();
            let target = state.target(gr.group, gr.resource, namespace)?;
            let mut options = WriteOptions::default();
            ops::patch::patch(
                &mut state,
                &target,
                name,
                subresource,
                kind,
                &patch,
                &mut options,
            )
        })
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
        let mut state = self.inner.state.lock();
        let target = state.target(gr.group, gr.resource, namespace)?;
        let name = crate::meta::name(&object).to_owned();
        let mut options = WriteOptions {
            manager: Some(field_manager.to_owned()),
            ..WriteOptions::default()
        };
        ops::apply::apply(&mut state, &target, &name, "", force, object, &mut options)
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
        self.write(false, || {
            let mut state = self.inner.state.lock();
            let target = state.target(gr.group, gr.resource, namespace)?;
            let options = DeleteOptions {
                grace_seconds,
                ..DeleteOptions::default()
            };
            ops::delete::delete(&mut state, &target, name, &options).map(|_| ())
        })
    }

    /// Binds a pod to a node (POST .../binding).
    ///
    /// # Errors
    /// 404, 409 when bound already.
    pub fn bind(&self, namespace: &str, pod: &str, node: &str) -> Result<(), ApiError> {
        self.write(false, || {
            let mut state = self.inner.state.lock();
            let annotations = serde_json::Map::new();
            ops::binding::bind(&mut state, namespace, pod, node, &annotations, false).map(|_| ())
        })
    }

    /// Stores an object as another server has it: this server is then a mirror, and knows no better. It keeps no versions
    /// but its own, and tells of a change even if the object is what it was.
    pub fn show(&self, gr: Gr<'_>, object: Value) {
        let mut state = self.inner.state.lock();
        let key = key_of(gr.group, gr.resource);
        let (namespace, name) = (
            crate::meta::namespace(&object).to_owned(),
            crate::meta::name(&object).to_owned(),
        );
        state.store.put(&key, &namespace, &name, object);
    }

    /// Drops an object of a mirror, with whatever it was last.
    pub fn hide(&self, gr: Gr<'_>, namespace: &str, name: &str) {
        let mut state = self.inner.state.lock();
        let key = key_of(gr.group, gr.resource);
        state.store.remove(&key, namespace, name, None);
    }

    /// Changes of a resource from now on, after all that is there.
    #[must_use]
    pub fn subscribe(&self, gr: Gr<'_>) -> Subscription {
        let mut state = self.inner.state.lock();
        let key = key_of(gr.group, gr.resource);
        Subscription {
            initial: state.store.iter(&key, None, None).cloned().collect(),
            changes: state.store.subscribe(&key),
        }
    }

    /// The server's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// Where the loops draw their delays from.
    #[must_use]
    pub fn rng(&self) -> &RngTree {
        &self.inner.rng
    }

    /// The newest resourceVersion.
    #[must_use]
    pub fn resource_version(&self) -> u64 {
        self.inner.state.lock().store.version()
    }

    /// Forgets the history of changes, as etcd's compaction does: watches that resume from before now get 410.
    pub fn compact(&self) {
        self.inner.state.lock().store.compact();
    }
}
