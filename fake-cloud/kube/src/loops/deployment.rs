//! Deployments: a ReplicaSet per pod template, and a rollout from the old ones to the new one within
//! `maxSurge` and `maxUnavailable`. The arithmetic is that of the real controller.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use karpenter_runtime::Key;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::events::Events;
use super::feed::{Controller, Dirty, Mirror, gone_is_fine, parts};
use super::object::{self, at, int, text};
use super::pods;
use super::replicaset::{mark_owner, write_status};
use super::resource::{DEPLOYMENTS, REPLICA_SETS};
use super::rolling::{Bounds, Set, roll, scale_in_proportion};
use crate::server::{ApiError, ApiServer, Change, Gr, PatchKind};

const KIND: (&str, &str) = ("apps/v1", "Deployment");
const HASH_LABEL: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Old ReplicaSets kept when the Deployment does not say.
const REVISION_HISTORY_LIMIT: i64 = 10;
/// Seconds without progress until the rollout counts as stuck, when the Deployment does not say.
const PROGRESS_DEADLINE_SECONDS: i64 = 600;

/// The loop.
pub struct Deployments {
    deployments: Mirror,
    sets: Mirror,
    events: Events,
}

impl Default for Deployments {
    fn default() -> Self {
        Self {
            deployments: Mirror::default(),
            sets: Mirror::default(),
            events: Events::new("deployment-controller"),
        }
    }
}

fn revision(set: &Value) -> i64 {
    object::annotation(set, REVISION).parse().unwrap_or(0)
}

fn read_set(set: &Value) -> Set {
    Set {
        name: object::name(set).to_owned(),
        replicas: int(set, &["spec", "replicas"]).unwrap_or(1),
        available: int(set, &["status", "availableReplicas"]).unwrap_or(0),
        desired: object::annotation(set, DESIRED).parse().unwrap_or(-1),
    }
}

fn new_set(deployment: &Value, bounds: Bounds, hash: &str, revision: i64, replicas: i64) -> Value {
    let mut template = at(deployment, &["spec", "template"]).clone();
    pods::set_label(&mut template, HASH_LABEL, hash);
    let mut selector = at(deployment, &["spec", "selector"]).clone();
    if let Some(map) = selector.as_object_mut() {
        let labels = map.entry("matchLabels").or_insert_with(|| json!({}));
        if let Some(labels) = labels.as_object_mut() {
            labels.insert(HASH_LABEL.to_owned(), json!(hash));
        }
    }
    json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": format!("{}-{hash}", object::name(deployment)),
            "namespace": object::namespace(deployment),
            "labels": at(&template, &["metadata", "labels"]),
            "annotations": {
                REVISION: revision.to_string(),
                DESIRED: bounds.replicas.to_string(),
                MAX: (bounds.replicas + bounds.max_surge).to_string(),
            },
            "ownerReferences": [object::owner_reference(KIND.0, KIND.1, deployment)],
        },
        "spec": {
            "replicas": replicas,
            "minReadySeconds": int(deployment, &["spec", "minReadySeconds"]).unwrap_or(0),
            "selector": selector,
            "template": template,
        },
    })
}

impl Deployments {
    fn bring(&mut self, api: &ApiServer, deployment: &Value) -> Result<Option<Instant>, ApiError> {
        let mut owned: Vec<Arc<Value>> = self
            .sets
            .controlled_by(object::uid(deployment))
            .into_iter()
            .map(Arc::clone)
            .collect();
        owned.sort_by_key(|s| (object::created(s), revision(s), object::name(s).to_owned()));
        if object::deleting(deployment) {
            return write_deployment_status(api, deployment, None, &owned);
        }
        let bounds = Bounds::read(deployment);
        let hash = object::template_hash(at(deployment, &["spec", "template"]));
        let position = owned
            .iter()
            .position(|s| object::label(s, HASH_LABEL) == hash);
        let paused = object::flag(deployment, &["spec", "paused"]);
        let latest = owned.iter().map(|s| revision(s)).max().unwrap_or(0);
        let recreate = text(deployment, &["spec", "strategy", "type"]) == "Recreate";

        let mut old: Vec<Set> = owned
            .iter()
            .enumerate()
            .filter(|(i, _)| Some(*i) != position)
            .map(|(_, s)| read_set(s))
            .collect();
        let mut current = position.and_then(|i| owned.get(i)).map(Arc::clone);
        if current.is_none() && !paused {
            // The fresh set starts with what surge allows, so that it is not written twice.
            let mut fresh = Set {
                name: String::new(),
                replicas: 0,
                available: 0,
                desired: bounds.replicas,
            };
            if !recreate {
                roll(bounds, &mut fresh, &mut old.clone());
            }
            let object = new_set(deployment, bounds, &hash, latest + 1, fresh.replicas);
            let made = match api.create(REPLICA_SETS, Some(object::namespace(deployment)), object) {
                Ok(made) => made,
                // Ours from before: its change will bring us back.
                Err(error) if error.code == 409 => return Ok(None),
                Err(error) => return Err(error),
            };
            if fresh.replicas > 0 {
                self.say_scaled(api, deployment, object::name(&made), 0, fresh.replicas);
            }
            owned.push(Arc::clone(&made));
            current = Some(made);
        }
        let mut new = current.as_deref().map(read_set);
        if let (Some(new), Some(current)) = (&mut new, &current) {
            let is_latest = revision(current) >= latest;
            let wanted = if is_latest {
                revision(current).max(1)
            } else {
                latest + 1
            };
            self.annotate_revision(api, deployment, current, wanted)?;
            let resized = old
                .iter()
                .chain([&*new])
                .any(|s| s.replicas > 0 && s.desired >= 0 && s.desired != bounds.replicas);
            if resized {
                self.resize(bounds, new, &mut old, recreate);
            } else if paused {
                // Stands still.
            } else if recreate {
                let drained = old.iter().all(|s| s.replicas == 0);
                for set in &mut old {
                    set.replicas = 0;
                }
                if drained && self.old_pods_are_gone(&owned, new) {
                    new.replicas = bounds.replicas;
                }
            } else {
                roll(bounds, new, &mut old);
            }
        }
        for set in old.iter().chain(new.as_ref()) {
            self.scale(api, deployment, bounds, &owned, set)?;
        }
        self.drop_history(api, deployment, &owned, new.as_ref())?;
        let name = new.as_ref().map(|n| n.name.as_str());
        write_deployment_status(api, deployment, name, &owned)
    }

    fn resize(&self, bounds: Bounds, new: &mut Set, old: &mut [Set], recreate: bool) {
        let active = old.iter().filter(|s| s.replicas > 0).count();
        if active == 0 || recreate {
            new.replicas = bounds.replicas;
            return;
        }
        if active == 1 && new.replicas == 0 {
            for set in old.iter_mut().filter(|s| s.replicas > 0) {
                set.replicas = bounds.replicas;
            }
            return;
        }
        let mut sets: Vec<&mut Set> = old
            .iter_mut()
            .chain([new])
            .filter(|s| s.replicas > 0)
            .collect();
        sets.sort_by_key(|s| std::cmp::Reverse(s.replicas));
        scale_in_proportion(bounds, &mut sets);
    }

    fn old_pods_are_gone(&self, owned: &[Arc<Value>], new: &Set) -> bool {
        owned
            .iter()
            .filter(|s| object::name(s) != new.name)
            .all(|s| int(s, &["status", "replicas"]).unwrap_or(0) == 0)
    }

    fn annotate_revision(
        &self,
        api: &ApiServer,
        deployment: &Value,
        set: &Value,
        wanted: i64,
    ) -> Result<(), ApiError> {
        let patch = json!({"metadata": {"annotations": {REVISION: wanted.to_string()}}});
        // With the status of the Deployment: what it is annotated with otherwise counts as a change of it.
        let places = [(REPLICA_SETS, "", set), (DEPLOYMENTS, "status", deployment)];
        for (resource, subresource, object) in places {
            if revision(object) != wanted {
                let (ns, name) = (object::namespace(object), object::name(object));
                gone_is_fine(api.patch(
                    resource,
                    Some(ns),
                    name,
                    subresource,
                    PatchKind::Merge,
                    patch.clone(),
                ))?;
            }
        }
        Ok(())
    }

    fn scale(
        &mut self,
        api: &ApiServer,
        deployment: &Value,
        bounds: Bounds,
        owned: &[Arc<Value>],
        set: &Set,
    ) -> Result<(), ApiError> {
        let Some(before) = owned.iter().find(|s| object::name(s) == set.name) else {
            return Ok(());
        };
        let had = read_set(before);
        let most = (bounds.replicas + bounds.max_surge).to_string();
        let annotated = had.desired == bounds.replicas && object::annotation(before, MAX) == most;
        if had.replicas == set.replicas && (annotated || set.replicas == 0) {
            return Ok(());
        }
        let patch = json!({
            "metadata": {"annotations": {DESIRED: bounds.replicas.to_string(), MAX: most}},
            "spec": {"replicas": set.replicas},
        });
        let ns = object::namespace(before);
        gone_is_fine(api.patch(
            REPLICA_SETS,
            Some(ns),
            &set.name,
            "",
            PatchKind::Merge,
            patch,
        ))?;
        if had.replicas != set.replicas {
            self.say_scaled(api, deployment, &set.name, had.replicas, set.replicas);
        }
        Ok(())
    }

    fn say_scaled(&mut self, api: &ApiServer, deployment: &Value, set: &str, from: i64, to: i64) {
        let direction = if to > from { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {set} from {from} to {to}");
        let said = ("Normal", "ScalingReplicaSet");
        self.events.write(api, KIND, deployment, said, &message);
    }

    fn drop_history(
        &self,
        api: &ApiServer,
        deployment: &Value,
        owned: &[Arc<Value>],
        new: Option<&Set>,
    ) -> Result<(), ApiError> {
        let limit =
            int(deployment, &["spec", "revisionHistoryLimit"]).unwrap_or(REVISION_HISTORY_LIMIT);
        let mut idle: Vec<&Arc<Value>> = owned
            .iter()
            .filter(|s| new.is_none_or(|n| n.name != object::name(s)))
            .filter(|s| {
                let zero = |path: &[&str]| int(s, path).unwrap_or(0) == 0;
                zero(&["spec", "replicas"]) && zero(&["status", "replicas"]) && !object::deleting(s)
            })
            .collect();
        idle.sort_by_key(|s| revision(s));
        let surplus = idle
            .len()
            .saturating_sub(usize::try_from(limit).unwrap_or(0));
        for set in idle.into_iter().take(surplus) {
            let (ns, name) = (object::namespace(set), object::name(set));
            gone_is_fine(api.delete(REPLICA_SETS, Some(ns), name, None))?;
        }
        Ok(())
    }
}

fn write_deployment_status(
    api: &ApiServer,
    deployment: &Value,
    new: Option<&str>,
    owned: &[Arc<Value>],
) -> Result<Option<Instant>, ApiError> {
    let now = api.clock().wall();
    let (status, again) = status(deployment, new, owned, now);
    write_status(api, DEPLOYMENTS, deployment, status)?;
    Ok(pods::look_at(api, again))
}

/// The Deployment's status, and when the progress deadline would pass.
pub(crate) fn status(
    deployment: &Value,
    new: Option<&str>,
    owned: &[Arc<Value>],
    now: Timestamp,
) -> (Value, Option<Timestamp>) {
    let bounds = Bounds::read(deployment);
    let sum = |field: &str| -> i64 {
        owned
            .iter()
            .filter_map(|s| int(s, &["status", field]))
            .sum()
    };
    let (replicas, ready, available) = (
        sum("replicas"),
        sum("readyReplicas"),
        sum("availableReplicas"),
    );
    let current = new.and_then(|n| owned.iter().find(|s| object::name(s) == n));
    let updated = current.map_or(0, |s| int(s, &["status", "replicas"]).unwrap_or(0));
    let wanted_in_all: i64 = owned
        .iter()
        .map(|s| int(s, &["spec", "replicas"]).unwrap_or(0))
        .sum();
    let unavailable = (wanted_in_all - available).max(0);
    let minimum = bounds.replicas - bounds.max_unavailable;
    let is_available = if available >= minimum {
        json!({"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable",
            "message": "Deployment has minimum availability."})
    } else {
        json!({"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable",
            "message": "Deployment does not have minimum availability."})
    };
    let complete = updated == bounds.replicas
        && replicas == bounds.replicas
        && available == bounds.replicas
        && current.is_some();
    let before = |field: &str| int(deployment, &["status", field]).unwrap_or(0);
    let progressed = updated > before("updatedReplicas")
        || ready > before("readyReplicas")
        || available > before("availableReplicas")
        || replicas - updated < before("replicas") - before("updatedReplicas");
    let (progress, again) = progressing(deployment, new, complete, progressed, now);

    let mut merged = Value::clone(deployment);
    for condition in [Some(is_available), progress].into_iter().flatten() {
        let updated_at = condition.get("lastUpdateTime").cloned();
        let mut bare = condition.clone();
        if let Some(map) = bare.as_object_mut() {
            map.remove("lastUpdateTime");
        }
        if let Some(mut list) = object::merge_condition(&merged, &bare, now) {
            for item in list
                .iter_mut()
                .filter(|c| at(c, &["type"]) == at(&bare, &["type"]))
            {
                if let Some(map) = item.as_object_mut() {
                    let stamp = updated_at
                        .clone()
                        .unwrap_or_else(|| json!(object::stamp(now)));
                    map.insert("lastUpdateTime".to_owned(), stamp);
                }
            }
            set_conditions(&mut merged, list);
        } else if let Some(stamp) = updated_at {
            let mut list = object::items(&merged, &["status", "conditions"]).to_vec();
            for item in list
                .iter_mut()
                .filter(|c| at(c, &["type"]) == at(&bare, &["type"]))
            {
                if let Some(map) = item.as_object_mut() {
                    map.insert("lastUpdateTime".to_owned(), stamp.clone());
                }
            }
            set_conditions(&mut merged, list);
        }
    }
    let status = json!({
        "observedGeneration": at(deployment, &["metadata", "generation"]),
        "replicas": replicas,
        "updatedReplicas": updated,
        "readyReplicas": ready,
        "availableReplicas": available,
        "unavailableReplicas": unavailable,
        "conditions": object::items(&merged, &["status", "conditions"]),
    });
    (status, again)
}

fn set_conditions(object: &mut Value, list: Vec<Value>) {
    if let Some(map) = object.as_object_mut() {
        let status = map.entry("status").or_insert_with(|| json!({}));
        if let Some(status) = status.as_object_mut() {
            status.insert("conditions".to_owned(), Value::Array(list));
        }
    }
}

/// The Progressing condition, with `lastUpdateTime` where it must move, and when the deadline would pass.
fn progressing(
    deployment: &Value,
    new: Option<&str>,
    complete: bool,
    progressed: bool,
    now: Timestamp,
) -> (Option<Value>, Option<Timestamp>) {
    let Some(new) = new else {
        return (None, None);
    };
    let seconds =
        int(deployment, &["spec", "progressDeadlineSeconds"]).unwrap_or(PROGRESS_DEADLINE_SECONDS);
    let condition = |status: &str, reason: &str, message: String, touch: bool| {
        let mut c =
            json!({"type": "Progressing", "status": status, "reason": reason, "message": message});
        if let (true, Some(map)) = (touch, c.as_object_mut()) {
            map.insert("lastUpdateTime".to_owned(), json!(object::stamp(now)));
        }
        Some(c)
    };
    if complete {
        let message = format!("ReplicaSet \"{new}\" has successfully progressed.");
        return (
            condition("True", "NewReplicaSetAvailable", message, false),
            None,
        );
    }
    let before = object::condition(deployment, "Progressing");
    let reason = before.map_or("", |c| text(c, &["reason"]));
    let deadline = |since: Timestamp| since.checked_add(SignedDuration::from_secs(seconds)).ok();
    if before.is_none() {
        let message = format!("Created new replica set \"{new}\"");
        return (
            condition("True", "NewReplicaSetCreated", message, true),
            deadline(now),
        );
    }
    let other_set = before.is_some_and(|c| !text(c, &["message"]).contains(&format!("\"{new}\"")));
    if progressed || other_set || reason == "NewReplicaSetAvailable" {
        let message = format!("ReplicaSet \"{new}\" is progressing.");
        return (
            condition("True", "ReplicaSetUpdated", message, true),
            deadline(now),
        );
    }
    if reason == "ProgressDeadlineExceeded" {
        return (None, None);
    }
    let due = before
        .and_then(|c| object::time(c, &["lastUpdateTime"]))
        .and_then(deadline);
    match due {
        Some(due) if due <= now => {
            let message = format!("ReplicaSet \"{new}\" has timed out progressing.");
            (
                condition("False", "ProgressDeadlineExceeded", message, true),
                None,
            )
        }
        due => (None, due),
    }
}

impl Controller for Deployments {
    const NAME: &'static str = "deployment";
    const WATCHES: &'static [Gr<'static>] = &[DEPLOYMENTS, REPLICA_SETS];

    fn observe(&mut self, watch: usize, change: &Change, dirty: &mut Dirty) {
        let (object, _) = parts(change);
        if watch == 0 {
            self.deployments.apply(change);
            dirty.add(object::key(object));
            return;
        }
        self.sets.apply(change);
        mark_owner(object, "Deployment", dirty);
    }

    fn reconcile(&mut self, api: &ApiServer, key: &Key) -> Result<Option<Instant>, ApiError> {
        match self.deployments.get(key).map(Arc::clone) {
            Some(deployment) => self.bring(api, &deployment),
            None => Ok(None),
        }
    }
}
