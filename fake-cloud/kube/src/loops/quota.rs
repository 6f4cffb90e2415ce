//! The quota loop: what is used of every ResourceQuota, counted anew when something that it counts comes, goes or
//! ends. Kinds that only `count/...` names are counted when one of the others changes or the quota does.

use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_runtime::Key;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::feed::{Controller, Dirty, Mirror, gone_is_fine, parts};
use super::object;
use super::resource::{PODS, PVCS};
use crate::admission::amount::Amount;
use crate::admission::quota::{self, Usage};
use crate::server::{ApiError, ApiServer, Change, Gr, gr};

/// ResourceQuotas.
const QUOTAS: Gr<'static> = gr("", "resourcequotas");
/// What is watched, the quotas themselves first.
const COUNTED: [Gr<'static>; 7] = [
    QUOTAS,
    PODS,
    PVCS,
    gr("", "services"),
    gr("", "configmaps"),
    gr("", "secrets"),
    gr("apps", "deployments"),
];

/// The loop.
#[derive(Default)]
pub struct Quotas {
    quotas: Mirror,
}

impl Controller for Quotas {
    const NAME: &'static str = "resourcequota";
    const WATCHES: &'static [Gr<'static>] = &COUNTED;

    fn observe(&mut self, resource: usize, change: &Change, dirty: &mut Dirty) {
        let (object, there) = parts(change);
        if resource == 0 {
            self.quotas.apply(change);
            if there {
                dirty.add(object::key(object));
            }
            return;
        }
        for quota in self.quotas.in_namespace(object::namespace(object)) {
            dirty.add(object::key(quota));
        }
    }

    fn reconcile(&mut self, api: &ApiServer, key: &Key) -> Result<Option<Instant>, ApiError> {
        let Some(quota) = self.quotas.get(key).map(Arc::clone) else {
            return Ok(None);
        };
        let hard = quota
            .get("spec")
            .and_then(|s| s.get("hard"))
            .cloned()
            .unwrap_or_else(|| json!({}));
        let used = used(api, &quota, &hard);
        let status = json!({"hard": hard, "used": used});
        if quota.get("status") == Some(&status) {
            return Ok(None);
        }
        let mut new = Value::clone(&quota);
        crate::meta::as_map(&mut new).insert("status".into(), status);
        let namespace = object::namespace(&quota);
        gone_is_fine(api.update_status(QUOTAS, Some(namespace), new))?;
        Ok(None)
    }
}

/// What is used of everything that a quota bounds.
fn used(api: &ApiServer, quota: &Value, hard: &Value) -> BTreeMap<String, String> {
    let namespace = object::namespace(quota);
    let mut total = Usage::new();
    let named: Vec<&str> = hard
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, _)| k.as_str())
        .collect();
    let others: Vec<(&str, &str)> = named
        .iter()
        .filter_map(|key| key.strip_prefix("count/"))
        .map(|name| {
            name.split_once('.')
                .map_or(("", name), |(plural, group)| (group, plural))
        })
        .collect();
    let mut kinds: Vec<Gr<'_>> = COUNTED.to_vec();
    kinds.extend(others.iter().map(|(group, plural)| gr(group, plural)));
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        for item in api.list(kind, Some(namespace)) {
            if !quota::is_about(quota, kind.group, kind.resource, &item) {
                continue;
            }
            for (key, amount) in quota::usage_of(kind.group, kind.resource, &item) {
                let sum = total.entry(key).or_default();
                *sum = sum.plus(amount);
            }
        }
    }
    named
        .iter()
        .map(|key| {
            let amount: Amount = total.get(*key).copied().unwrap_or_default();
            ((*key).to_owned(), amount.to_string())
        })
        .collect()
}
