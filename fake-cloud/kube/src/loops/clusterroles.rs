//! Aggregated ClusterRoles: the rules of a role with an `aggregationRule` are those of the roles that it selects.

use std::collections::BTreeSet;
use std::sync::Arc;

use karpenter_runtime::Key;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::feed::{Controller, Dirty, Mirror, gone_is_fine};
use super::object::{self, at, items};
use super::resource::CLUSTER_ROLES;
use super::selector::{label_selector, selects};
use crate::server::{ApiError, ApiServer, Change, Gr, PatchKind};

/// The loop.
#[derive(Default)]
pub struct ClusterRoles {
    roles: Mirror,
    /// Roles whose rules come from others.
    aggregated: BTreeSet<Key>,
}

impl ClusterRoles {
    /// The rules of all roles that `role` selects, each once, in order of the roles' names.
    fn rules(&self, key: &Key, role: &Value) -> Vec<Value> {
        let mut rules: Vec<Value> = Vec::new();
        for selector in items(role, &["aggregationRule", "clusterRoleSelectors"]) {
            let Some(selector) = label_selector(selector) else {
                continue;
            };
            let selected = self
                .roles
                .iter()
                .filter(|(other, o)| *other != key && selects(&selector, &object::labels(o)));
            for rule in selected.flat_map(|(_, o)| items(o, &["rules"])) {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
        rules
    }
}

impl Controller for ClusterRoles {
    const NAME: &'static str = "clusterrole-aggregation";
    const WATCHES: &'static [Gr<'static>] = &[CLUSTER_ROLES];

    fn observe(&mut self, _: usize, change: &Change, dirty: &mut Dirty) {
        let (role, there) = super::feed::parts(change);
        self.roles.apply(change);
        let key = object::key(role);
        if there && at(role, &["aggregationRule"]).is_object() {
            self.aggregated.insert(key);
        } else {
            self.aggregated.remove(&key);
        }
        self.aggregated.iter().cloned().for_each(|k| dirty.add(k));
    }

    fn reconcile(&mut self, api: &ApiServer, key: &Key) -> Result<Option<Instant>, ApiError> {
        let Some(role) = self.roles.get(key).map(Arc::clone) else {
            return Ok(None);
        };
        let rules = self.rules(key, &role);
        if !self.aggregated.contains(key) || items(&role, &["rules"]) == rules {
            return Ok(None);
        }
        let patch = json!({ "rules": rules });
        let patched = api.patch(CLUSTER_ROLES, None, &key.name, "", PatchKind::Merge, patch);
        gone_is_fine(patched).map(|()| None)
    }
}
