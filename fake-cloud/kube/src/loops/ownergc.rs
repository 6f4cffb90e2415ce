//! The garbage collector: objects whose owners are gone go too, owners that are deleted in the foreground wait for
//! their dependents, and orphaned dependents are cut loose.

use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_runtime::Key;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::feed::{Dirty, Feed, gone_is_fine, parts};
use super::index::Index;
use super::kinds::{Kind, Kinds};
use super::object::{self, text};
use crate::server::{ApiError, ApiServer, Change, PatchKind};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// A reference to an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    uid: String,
    group: String,
    kind: String,
    name: String,
    blocks: bool,
}

/// What the collector knows of an object.
#[derive(Clone, Debug)]
struct Node {
    kind: usize,
    key: Key,
    owners: Vec<Owner>,
    deleting: bool,
    foreground: bool,
    orphan: bool,
}

fn read(kind: usize, object: &Value) -> Node {
    let owners = object::items(object, &["metadata", "ownerReferences"])
        .iter()
        .map(|r| Owner {
            uid: text(r, &["uid"]).to_owned(),
            group: text(r, &["apiVersion"])
                .rsplit_once('/')
                .map_or("", |(g, _)| g)
                .to_owned(),
            kind: text(r, &["kind"]).to_owned(),
            name: text(r, &["name"]).to_owned(),
            blocks: object::flag(r, &["blockOwnerDeletion"]),
        })
        .collect();
    let deleting = object::deleting(object);
    Node {
        kind,
        key: object::key(object),
        owners,
        deleting,
        foreground: deleting && object::has_finalizer(object, FOREGROUND),
        orphan: deleting && object::has_finalizer(object, ORPHAN),
    }
}

/// What is to be done about one object. Pure in the graph.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Nothing,
    /// Delete it, its own dependents first if `foreground`.
    Delete {
        foreground: bool,
    },
    /// Keep it, but only for these owners.
    KeepFor(Vec<String>),
    /// Take this finalizer away.
    Release(&'static str),
}

/// Objects by UID, and who depends on whom.
#[derive(Default)]
struct Graph {
    nodes: BTreeMap<String, Node>,
    dependents: Index<String, String>,
}

impl Graph {
    fn put(&mut self, uid: &str, node: Node) {
        self.unlink(uid);
        for owner in &node.owners {
            self.dependents.add(owner.uid.clone(), uid.to_owned());
        }
        self.nodes.insert(uid.to_owned(), node);
    }

    fn remove(&mut self, uid: &str) {
        self.unlink(uid);
        self.nodes.remove(uid);
    }

    fn unlink(&mut self, uid: &str) {
        let Some(node) = self.nodes.get(uid) else {
            return;
        };
        for owner in &node.owners {
            self.dependents.remove(&owner.uid, uid);
        }
    }

    fn dependents_of(&self, uid: &str) -> impl Iterator<Item = (&String, &Node)> {
        self.dependents
            .of(uid)
            .filter_map(|d| Some((d, self.nodes.get(d)?)))
    }

    /// `exists` tells whether an owner that is not in the graph may be there after all.
    fn judge(&self, uid: &str, exists: impl Fn(&Node, &Owner) -> bool) -> Verdict {
        let Some(node) = self.nodes.get(uid) else {
            return Verdict::Nothing;
        };
        if node.orphan {
            return if self.dependents_of(uid).next().is_some() {
                // They are cut loose one by one; the last one brings us back.
                Verdict::Nothing
            } else {
                Verdict::Release(ORPHAN)
            };
        }
        if node.foreground {
            let blocked = self
                .dependents_of(uid)
                .any(|(_, d)| d.owners.iter().any(|o| o.uid == uid && o.blocks));
            return if blocked {
                Verdict::Nothing
            } else {
                Verdict::Release(FOREGROUND)
            };
        }
        if node.owners.is_empty() {
            return Verdict::Nothing;
        }
        let (mut solid, mut waiting) = (Vec::new(), 0);
        for owner in &node.owners {
            match self.nodes.get(&owner.uid) {
                Some(o) if o.orphan => {}
                Some(o) if o.foreground => waiting += 1,
                Some(_) => solid.push(owner.uid.clone()),
                None if exists(node, owner) => solid.push(owner.uid.clone()),
                None => {}
            }
        }
        let orphaned = node
            .owners
            .iter()
            .any(|o| self.nodes.get(&o.uid).is_some_and(|n| n.orphan));
        if solid.len() == node.owners.len() {
            Verdict::Nothing
        } else if !solid.is_empty() || orphaned {
            Verdict::KeepFor(solid)
        } else if node.deleting {
            Verdict::Nothing
        } else {
            let has_own = self.dependents_of(uid).next().is_some();
            Verdict::Delete {
                foreground: waiting > 0 && has_own,
            }
        }
    }
}

struct Collector {
    api: ApiServer,
    kinds: Kinds,
    graph: Graph,
}

/// The work queue's key of a UID.
fn work(uid: &str) -> Key {
    Key::cluster(uid)
}

impl Collector {
    fn observe(&mut self, kind: usize, change: &Change, dirty: &mut Dirty) {
        let (object, there) = parts(change);
        let uid = object::uid(object);
        let before: Vec<String> = self
            .graph
            .nodes
            .get(uid)
            .map(|n| n.owners.iter().map(|o| o.uid.clone()).collect())
            .unwrap_or_default();
        if there {
            let node = read(kind, object);
            let matters = !node.owners.is_empty() || node.foreground || node.orphan;
            let held = node.foreground || node.orphan;
            self.graph.put(uid, node);
            if matters {
                dirty.add(work(uid));
            }
            if !held && before.is_empty() {
                return;
            }
        } else {
            self.graph.remove(uid);
        }
        for (dependent, _) in self.graph.dependents_of(uid) {
            dirty.add(work(dependent));
        }
        for owner in before {
            dirty.add(work(&owner));
        }
    }

    fn exists(&self, dependent: &Node, owner: &Owner) -> bool {
        let Some(kind) = self.kinds.find(&owner.group, &owner.kind) else {
            // A kind that we do not know cannot be said to be gone.
            return true;
        };
        let namespace = if kind.namespaced {
            dependent.key.namespace.as_deref()
        } else {
            None
        };
        self.api
            .get(kind.gr(), namespace, &owner.name)
            .is_ok_and(|o| object::uid(&o) == owner.uid)
    }

    fn reconcile(&self, uid: &str) -> Result<(), ApiError> {
        let Some(node) = self.graph.nodes.get(uid) else {
            return Ok(());
        };
        let Some(kind) = self.kinds.get(node.kind) else {
            return Ok(());
        };
        let (gr, ns, name) = (kind.gr(), node.key.namespace.as_deref(), &*node.key.name);
        let patch =
            |patch: Value| gone_is_fine(self.api.patch(gr, ns, name, "", PatchKind::Merge, patch));
        match self.graph.judge(uid, |n, o| self.exists(n, o)) {
            Verdict::Nothing => Ok(()),
            Verdict::Release(finalizer) => {
                let Some(object) = self.fresh(kind, node, uid) else {
                    return Ok(());
                };
                patch(
                    json!({"metadata": {"finalizers": object::finalizers_without(&object, finalizer)}}),
                )
            }
            Verdict::KeepFor(owners) => {
                let Some(object) = self.fresh(kind, node, uid) else {
                    return Ok(());
                };
                let kept: Vec<&Value> = object::items(&object, &["metadata", "ownerReferences"])
                    .iter()
                    .filter(|r| owners.iter().any(|o| o == text(r, &["uid"])))
                    .collect();
                patch(json!({"metadata": {"ownerReferences": kept}}))
            }
            Verdict::Delete { foreground } => {
                let Some(object) = self.fresh(kind, node, uid) else {
                    return Ok(());
                };
                if foreground && !object::has_finalizer(&object, FOREGROUND) {
                    let mut finalizers =
                        object::items(&object, &["metadata", "finalizers"]).to_vec();
                    finalizers.push(json!(FOREGROUND));
                    patch(json!({"metadata": {"finalizers": finalizers}}))?;
                }
                tracing::debug!(kind = kind.kind, key = %node.key, "owners gone, deleting");
                gone_is_fine(self.api.delete(gr, ns, name, None))
            }
        }
    }

    /// The object as it is now, if it is still the same one.
    fn fresh(&self, kind: &Kind, node: &Node, uid: &str) -> Option<Arc<Value>> {
        self.api
            .get(kind.gr(), node.key.namespace.as_deref(), &node.key.name)
            .ok()
            .filter(|o| object::uid(o) == uid)
    }
}

/// Runs the collector until `stop`.
pub async fn run(api: ApiServer, stop: CancellationToken) {
    let mut collector = Collector {
        kinds: Kinds::builtin(),
        graph: Graph::default(),
        api: api.clone(),
    };
    let resources: Vec<_> = collector.kinds.iter().map(Kind::gr).collect();
    let mut feed = Feed::new(&api, &resources);
    let mut dirty = Dirty::default();
    while let Some(changes) = feed.next(dirty.deadline(), &stop).await {
        for (kind, change) in &changes {
            if let Some(new) = collector.kinds.learn(*kind, change) {
                feed.add(&api, new.gr());
                // Whoever belongs to the new kind may have been waiting for it to be known.
                let owned = collector
                    .graph
                    .nodes
                    .iter()
                    .filter(|(_, n)| !n.owners.is_empty());
                for (uid, _) in owned {
                    dirty.add(work(uid));
                }
            }
            collector.observe(*kind, change, &mut dirty);
        }
        for key in dirty.take_due(Instant::now()) {
            match collector.reconcile(&key.name) {
                Ok(()) => dirty.succeeded(&key),
                Err(error) => {
                    tracing::debug!(uid = %key, %error, "collection refused, will retry");
                    dirty.failed(key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(graph: &mut Graph, uid: &str, owners: &[(&str, bool)], finalizer: Option<&str>) {
        let owners: Vec<Value> = owners
            .iter()
            .map(|(u, b)| json!({"uid": u, "apiVersion": "v1", "kind": "K", "name": u, "blockOwnerDeletion": b}))
            .collect();
        let mut o = json!({"metadata": {"uid": uid, "name": uid, "ownerReferences": owners}});
        if let Some(f) = finalizer {
            o["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            o["metadata"]["finalizers"] = json!([f]);
        }
        graph.put(uid, read(0, &o));
    }

    fn judge(graph: &Graph, uid: &str) -> Verdict {
        graph.judge(uid, |_, o| o.uid == "elsewhere")
    }

    #[test]
    fn background() {
        let mut g = Graph::default();
        put(&mut g, "pod", &[("set", true)], None);
        put(&mut g, "far", &[("elsewhere", true)], None);
        put(&mut g, "set", &[], None);
        assert_eq!(judge(&g, "pod"), Verdict::Nothing);
        g.remove("set");
        assert_eq!(judge(&g, "pod"), Verdict::Delete { foreground: false });
        assert_eq!(judge(&g, "far"), Verdict::Nothing);
    }

    #[test]
    fn one_owner_left_keeps_an_object() {
        let mut g = Graph::default();
        put(&mut g, "a", &[], None);
        put(&mut g, "x", &[("a", false), ("gone", false)], None);
        assert_eq!(judge(&g, "x"), Verdict::KeepFor(vec!["a".into()]));
    }

    #[test]
    fn foreground_goes_from_the_leaves_up() {
        let mut g = Graph::default();
        put(&mut g, "deployment", &[], Some(FOREGROUND));
        put(&mut g, "set", &[("deployment", true)], None);
        put(&mut g, "pod", &[("set", true)], None);
        assert_eq!(judge(&g, "deployment"), Verdict::Nothing);
        assert_eq!(judge(&g, "set"), Verdict::Delete { foreground: true });
        put(&mut g, "set", &[("deployment", true)], Some(FOREGROUND));
        assert_eq!(judge(&g, "pod"), Verdict::Delete { foreground: false });
        assert_eq!(judge(&g, "set"), Verdict::Nothing);
        g.remove("pod");
        assert_eq!(judge(&g, "set"), Verdict::Release(FOREGROUND));
        put(&mut g, "set", &[("deployment", false)], None);
        assert_eq!(judge(&g, "deployment"), Verdict::Release(FOREGROUND));
    }

    #[test]
    fn orphans_are_cut_loose_before_the_owner_goes() {
        let mut g = Graph::default();
        put(&mut g, "set", &[], Some(ORPHAN));
        put(&mut g, "pod", &[("set", true)], None);
        assert_eq!(judge(&g, "set"), Verdict::Nothing);
        assert_eq!(judge(&g, "pod"), Verdict::KeepFor(vec![]));
        put(&mut g, "pod", &[], None);
        assert_eq!(judge(&g, "set"), Verdict::Release(ORPHAN));
    }
}
