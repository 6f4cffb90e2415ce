//! Milestones in the words an operator would use, few enough to be read as a golden file.

use std::collections::{BTreeMap, BTreeSet};

use karpenter_api::labels;
use karpenter_fake_kube::server::Change;
use serde::Serialize;
use serde_json::Value;

use super::{Ledger, PodCounts};
use crate::json::{condition, condition_field, label, name, text};

/// Most milestones that are kept; a story with more is cut off and says so.
pub(crate) const MAX_ENTRIES: usize = 100_000;

/// One milestone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// Seconds since the start.
    pub at: f64,
    /// Kind of object, `Pods` for a summary of pods, `Step` for what the story does.
    pub kind: String,
    /// Name of the object.
    pub object: String,
    /// What happened.
    pub message: String,
}

/// The milestones and what is needed to see the next one.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    entries: Vec<Entry>,
    claims: BTreeMap<String, BTreeSet<&'static str>>,
    nodes: BTreeMap<String, bool>,
    /// By kind and name.
    troubles: BTreeMap<(&'static str, String), Trouble>,
    last_counts: PodCounts,
    events: BTreeMap<String, u64>,
    pending: BTreeMap<(String, String, String), BTreeSet<String>>,
}

/// Why a NodePool or NodeOverlay is not ready; empty = it is, or nobody has looked yet.
#[derive(Debug, Default)]
struct Trouble {
    now: String,
    told: String,
}

impl Timeline {
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn push(&mut self, at: f64, kind: &str, object: &str, message: &str) {
        if self.entries.len() < MAX_ENTRIES {
            self.entries.push(Entry {
                at,
                kind: kind.to_owned(),
                object: object.to_owned(),
                message: message.to_owned(),
            });
        }
    }

    /// A change of a NodeClaim.
    pub(super) fn claim(&mut self, at: f64, change: &Change, ledger: &Ledger) {
        let (Change::Added(claim) | Change::Modified(claim) | Change::Deleted(claim)) = change;
        let claim_name = name(claim).to_owned();
        let mut news: Vec<(&'static str, String)> = Vec::new();
        if matches!(change, Change::Deleted(_)) {
            self.claims.remove(&claim_name);
            self.push(at, "NodeClaim", &claim_name, "gone");
            return;
        }
        news.push(("created", created(claim)));
        if condition(claim, "Launched") == "True" {
            let price = ledger
                .price_of(&claim_name)
                .map_or(String::new(), |p| format!(" at ${p:.4}/h"));
            news.push((
                "launched",
                format!(
                    "launched {} {} in {}{price}",
                    label(claim, labels::INSTANCE_TYPE),
                    label(claim, labels::CAPACITY_TYPE),
                    label(claim, labels::ZONE)
                ),
            ));
        } else if !matches!(
            condition_field(claim, "Launched", "reason"),
            "" | "AwaitingReconciliation"
        ) {
            news.push((
                "launch-failed",
                format!(
                    "not launched: {}: {}",
                    condition_field(claim, "Launched", "reason"),
                    condition_field(claim, "Launched", "message")
                ),
            ));
        }
        if condition(claim, "Registered") == "True" {
            news.push((
                "registered",
                format!("registered as node {}", text(claim, "/status/nodeName")),
            ));
        }
        if condition(claim, "Initialized") == "True" {
            news.push(("initialized", "initialized".to_owned()));
        }
        for (what, key) in [("drifted", "Drifted"), ("disrupted", "DisruptionReason")] {
            if condition(claim, key) == "True" {
                news.push((
                    what,
                    format!("{key}: {}", condition_field(claim, key, "reason")),
                ));
            }
        }
        if !text(claim, "/metadata/deletionTimestamp").is_empty() {
            news.push(("deleting", "deleting".to_owned()));
        }
        for (what, message) in news {
            if self
                .claims
                .entry(claim_name.clone())
                .or_default()
                .insert(what)
            {
                self.push(at, "NodeClaim", &claim_name, &message);
            }
        }
    }

    /// A change of a NodePool or NodeOverlay; whether something waits for [`Timeline::flush`].
    pub(super) fn readiness(&mut self, kind: &'static str, change: &Change) -> bool {
        let (Change::Added(object) | Change::Modified(object) | Change::Deleted(object)) = change;
        let key = (kind, name(object).to_owned());
        if matches!(change, Change::Deleted(_)) {
            self.troubles.remove(&key);
            return false;
        }
        let trouble = self.troubles.entry(key).or_default();
        trouble.now = not_ready(object);
        trouble.now != trouble.told
    }

    /// A change of a Node; whether it joined, whether it left.
    pub(super) fn node(&mut self, at: f64, change: &Change) -> (bool, bool) {
        let (Change::Added(node) | Change::Modified(node) | Change::Deleted(node)) = change;
        let node_name = name(node).to_owned();
        if matches!(change, Change::Deleted(_)) {
            self.nodes.remove(&node_name);
            self.push(at, "Node", &node_name, "gone");
            return (false, true);
        }
        let ready = condition(node, "Ready") == "True";
        match self.nodes.insert(node_name.clone(), ready) {
            None => {
                self.push(
                    at,
                    "Node",
                    &node_name,
                    if ready { "joined, ready" } else { "joined" },
                );
                return (true, false);
            }
            Some(was) if was != ready => {
                self.push(
                    at,
                    "Node",
                    &node_name,
                    if ready { "ready" } else { "not ready" },
                );
            }
            Some(_) => {}
        }
        (false, false)
    }

    /// An Event; whether something waits for [`Timeline::flush`].
    pub(super) fn event(&mut self, at: f64, change: &Change) -> bool {
        let (Change::Added(event) | Change::Modified(event)) = change else {
            return false;
        };
        if text(event, "/source/component") != "karpenter" {
            return false;
        }
        let reason = text(event, "/reason").to_owned();
        *self.events.entry(reason.clone()).or_default() += 1;
        let kind = text(event, "/involvedObject/kind").to_owned();
        let object = text(event, "/involvedObject/name").to_owned();
        let message = text(event, "/message").to_owned();
        if matches!(change, Change::Modified(_)) {
            return false;
        }
        if kind == "Pod" {
            self.pending
                .entry((kind, reason, message))
                .or_default()
                .insert(object);
            return true;
        }
        self.push(at, &kind, &object, &format!("{reason}: {message}"));
        false
    }

    /// Tells what was gathered about pods as few lines.
    pub(super) fn flush(&mut self, at: f64, counts: PodCounts) {
        for ((kind, reason, message), objects) in std::mem::take(&mut self.pending) {
            let object = match objects.first() {
                Some(only) if objects.len() == 1 => only.clone(),
                Some(first) => format!("{first} and {} more", objects.len() - 1),
                None => continue,
            };
            self.push(at, &kind, &object, &format!("{reason}: {message}"));
        }
        let mut news = Vec::new();
        for ((kind, object), trouble) in &mut self.troubles {
            if trouble.now == trouble.told {
                continue;
            }
            news.push(match trouble.now.as_str() {
                "" => (*kind, object.clone(), "ready".to_owned()),
                why => (*kind, object.clone(), format!("not ready: {why}")),
            });
            trouble.told.clone_from(&trouble.now);
        }
        for (kind, object, message) in news {
            self.push(at, kind, &object, &message);
        }
        if counts != self.last_counts {
            self.last_counts = counts;
            let PodCounts {
                pending,
                starting,
                running,
            } = counts;
            self.push(
                at,
                "Pods",
                "",
                &format!("{running} running, {starting} starting, {pending} pending"),
            );
        }
    }
}

/// What stands in the way of a NodePool or NodeOverlay, in the words of its conditions.
fn not_ready(pool: &Value) -> String {
    let mut why = Vec::new();
    for kind in ["ValidationSucceeded", "NodeClassReady"] {
        if condition(pool, kind) != "False" {
            continue;
        }
        let mut said = format!(
            "{}: {}",
            condition_field(pool, kind, "reason"),
            condition_field(pool, kind, "message")
        );
        if kind == "NodeClassReady" {
            let class = |field| text(pool, &format!("/spec/template/spec/nodeClassRef/{field}"));
            said.push_str(&format!(" ({} {})", class("kind"), class("name")));
        }
        why.push(said);
    }
    why.join("; ")
}

fn created(claim: &Value) -> String {
    let requests = claim
        .pointer("/spec/resources/requests")
        .and_then(Value::as_object)
        .map(|r| {
            r.iter()
                .map(|(k, v)| format!("{k} {}", v.as_str().unwrap_or_default()))
                .collect::<Vec<_>>()
                .join(", ")
        })
        .unwrap_or_default();
    let types = claim
        .pointer("/spec/requirements")
        .and_then(Value::as_array)
        .and_then(|all| {
            all.iter()
                .find(|r| r.get("key").and_then(Value::as_str) == Some(labels::INSTANCE_TYPE))
        })
        .and_then(|r| r.get("values"))
        .and_then(Value::as_array)
        .map_or(0, Vec::len);
    let requests = match requests.as_str() {
        "" => String::new(),
        requests => format!(" for {requests}"),
    };
    match label(claim, labels::NODEPOOL) {
        "" => format!("created{requests}, without a NodePool"),
        pool if requests.is_empty() => format!("created in pool {pool} from its template"),
        pool => format!("created in pool {pool}{requests}; {types} instance types fit"),
    }
}
