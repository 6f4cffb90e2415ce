//! Which nodes a kubelet model runs pods on, and whether their kubelets are up: written by whoever makes the nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A shared set of hosts; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Node name to whether its kubelet is up.
    up: BTreeMap<String, bool>,
    changed: BTreeSet<String>,
}

impl Hosts {
    /// The kubelet of `node` is up, or is there but does nothing.
    pub fn set(&self, node: &str, up: bool) {
        let mut state = self.inner.state.lock();
        if state.up.insert(node.to_owned(), up) != Some(up) {
            state.changed.insert(node.to_owned());
            drop(state);
            self.inner.wake.notify_one();
        }
    }

    /// The host is gone.
    pub fn remove(&self, node: &str) {
        let mut state = self.inner.state.lock();
        if state.up.remove(node).is_some() {
            state.changed.insert(node.to_owned());
            drop(state);
            self.inner.wake.notify_one();
        }
    }

    /// Whether the kubelet of `node` is one of these and up.
    #[must_use]
    pub fn is_up(&self, node: &str) -> bool {
        self.inner
            .state
            .lock()
            .up
            .get(node)
            .copied()
            .unwrap_or(false)
    }

    /// Hosts that changed since the last call.
    pub(crate) fn take_changed(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.inner.state.lock().changed)
    }

    /// Waits until a host changed.
    pub(crate) async fn changed(&self) {
        self.inner.wake.notified().await;
    }
}
