//! Objects of a kind as a watch keeps them; what is asked before the watch has begun is read from the API.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use karpenter_runtime::reflector::ReflectorEvent;
use kube::api::ListParams;
use kube::{Api, Resource};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;

/// Cluster-scoped objects by name.
#[derive(Debug)]
pub(crate) struct Store<K> {
    /// None until the first list is in.
    held: RwLock<Option<BTreeMap<String, Arc<K>>>>,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self {
            held: RwLock::default(),
        }
    }
}

impl<K> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    /// Takes over what a watch says; names of the objects it is about.
    pub(crate) fn apply(&self, event: ReflectorEvent<K>) -> Vec<String> {
        let name = |k: &K| k.meta().name.clone().unwrap_or_default();
        let mut held = self.held.write();
        match event {
            ReflectorEvent::Init(all) => {
                let fresh: BTreeMap<_, _> =
                    all.into_iter().map(|k| (name(&k), Arc::new(k))).collect();
                let mut touched: Vec<String> = fresh.keys().cloned().collect();
                touched.extend(held.take().unwrap_or_default().into_keys());
                touched.sort();
                touched.dedup();
                *held = Some(fresh);
                touched
            }
            ReflectorEvent::Applied(k) => {
                let name = name(&k);
                held.get_or_insert_default()
                    .insert(name.clone(), Arc::new(k));
                vec![name]
            }
            ReflectorEvent::Deleted(k) => {
                let name = name(&k);
                held.get_or_insert_default().remove(&name);
                vec![name]
            }
        }
    }

    /// Forgets all, as the watch has ended.
    pub(crate) fn clear(&self) {
        *self.held.write() = None;
    }

    /// One object.
    ///
    /// # Errors
    /// When the API must be asked and refuses.
    pub(crate) async fn get(&self, api: &Api<K>, name: &str) -> kube::Result<Option<Arc<K>>> {
        if let Some(held) = &*self.held.read() {
            return Ok(held.get(name).cloned());
        }
        Ok(api.get_opt(name).await?.map(Arc::new))
    }

    /// All objects in order of name.
    ///
    /// # Errors
    /// When the API must be asked and refuses.
    pub(crate) async fn all(&self, api: &Api<K>) -> kube::Result<Vec<Arc<K>>> {
        if let Some(held) = &*self.held.read() {
            return Ok(held.values().cloned().collect());
        }
        let listed = api.list(&ListParams::default()).await?;
        Ok(listed.items.into_iter().map(Arc::new).collect())
    }
}
