//! Namespace deletion: a namespace on its way out is emptied of every kind of object, and goes when nothing is left.

use std::collections::BTreeSet;
use std::time::Duration;

use karpenter_runtime::Key;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::events::EVENTS;
use super::feed::{Dirty, Feed, Mirror, gone_is_fine, parts};
use super::kinds::{Kind, Kinds};
use super::object;
use super::resource::{CRDS, NAMESPACES};
use crate::server::{ApiError, ApiServer, Gr, PatchKind};

/// The first look at what is left; then twice as long each time.
const LOOK_FIRST_MILLIS: u64 = 250;
/// Longest wait between looks, for objects that are held by finalizers.
const LOOK_MAX_MILLIS: u64 = 60_000;

/// Runs the loop until `stop`. While no namespace is on its way out it watches namespaces and definitions only.
pub async fn run(api: ApiServer, stop: CancellationToken) {
    let mut kinds = Kinds::builtin();
    let crds = kinds
        .iter()
        .position(|k| k.gr() == CRDS)
        .unwrap_or_default();
    let mut feed = Feed::new(&api, &[NAMESPACES, CRDS]);
    let mut namespaces = Mirror::default();
    let mut leaving: BTreeSet<Key> = BTreeSet::new();
    let mut dirty = Dirty::default();
    let mut looks: std::collections::BTreeMap<Key, u32> = std::collections::BTreeMap::new();
    while let Some(changes) = feed.next(dirty.deadline(), &stop).await {
        for (watch, change) in &changes {
            if *watch == 1 {
                kinds.learn(crds, change);
                continue;
            }
            namespaces.apply(change);
            let (namespace, there) = parts(change);
            let key = object::key(namespace);
            if there && object::deleting(namespace) {
                if leaving.insert(key.clone()) {
                    dirty.add(key);
                }
            } else {
                leaving.remove(&key);
                looks.remove(&key);
            }
        }
        for key in dirty.take_due(Instant::now()) {
            let Some(namespace) = namespaces.get(&key).filter(|n| object::deleting(n)) else {
                continue;
            };
            match empty(&api, &kinds, namespace) {
                Ok(true) => dirty.succeeded(&key),
                Ok(false) => {
                    let count = looks.entry(key.clone()).or_insert(0);
                    let millis = LOOK_FIRST_MILLIS
                        .checked_shl((*count).min(16))
                        .unwrap_or(LOOK_MAX_MILLIS)
                        .min(LOOK_MAX_MILLIS);
                    *count = count.saturating_add(1);
                    dirty.add_at(key, Instant::now() + Duration::from_millis(millis));
                }
                Err(error) => {
                    tracing::debug!(namespace = %key, %error, "namespace not emptied, will retry");
                    dirty.failed(key);
                }
            }
        }
    }
}

/// Deletes what is in the namespace; true when nothing was left and the namespace was let go.
fn empty(api: &ApiServer, kinds: &Kinds, namespace: &Value) -> Result<bool, ApiError> {
    let name = object::name(namespace);
    let mut left = 0_usize;
    let resources = kinds.iter().filter(|k| k.namespaced).map(Kind::gr);
    for resource in resources.chain([EVENTS]) {
        for item in api.list(resource, Some(name)) {
            if !object::deleting(&item) {
                gone_is_fine(api.delete(resource, Some(name), object::name(&item), None))?;
            }
        }
        left += remaining(api, resource, name);
    }
    if left > 0 {
        return Ok(false);
    }
    let finalizers: Vec<&Value> = object::items(namespace, &["spec", "finalizers"])
        .iter()
        .filter(|f| f.as_str() != Some("kubernetes"))
        .collect();
    let patch = json!({"spec": {"finalizers": finalizers}});
    gone_is_fine(api.patch(NAMESPACES, None, name, "finalize", PatchKind::Merge, patch))?;
    Ok(true)
}

fn remaining(api: &ApiServer, resource: Gr<'_>, namespace: &str) -> usize {
    api.list(resource, Some(namespace)).len()
}
