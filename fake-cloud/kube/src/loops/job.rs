//! Jobs: pods that run to an end, as many at a time as `parallelism` says, until enough of them succeeded or too
//! many failed. Each finished pod is counted once: a finalizer keeps it until it has been.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use karpenter_runtime::Key;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::events::Events;
use super::feed::{Controller, Dirty, Mirror, gone_is_fine, parts};
use super::object::{self, at, int, text};
use super::pods::{self, count, earlier};
use super::replicaset::{mark_owner, write_status};
use super::resource::{JOBS, PODS};
use crate::server::{ApiError, ApiServer, Change, Gr, PatchKind};

const KIND: (&str, &str) = ("batch/v1", "Job");
const TRACKING: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
/// Failures that a Job takes when it does not say.
const BACKOFF_LIMIT: i64 = 6;
/// First wait after a failure; it doubles up to the maximum.
const BACKOFF_FIRST_SECONDS: i64 = 10;
const BACKOFF_MAX_SECONDS: i64 = 600;

/// What is to be done for a Job.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Pods to make, each with its completion index if the Job is indexed.
    pub(crate) create: Vec<Option<i64>>,
    /// Names of pods to delete.
    pub(crate) delete: Vec<String>,
    /// Names of finished pods that are counted now and lose their finalizer.
    pub(crate) release: Vec<String>,
    pub(crate) status: Value,
    pub(crate) again: Option<Timestamp>,
    /// The Job itself has outlived its `ttlSecondsAfterFinished`.
    pub(crate) expired: bool,
}

fn after(time: Timestamp, seconds: i64) -> Option<Timestamp> {
    time.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// Indexes in the API's compressed form, such as `0-2,5`.
fn parse_indexes(text: &str) -> BTreeSet<i64> {
    text.split(',')
        .filter_map(|part| {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            Some(low.parse::<i64>().ok()?..=high.parse::<i64>().ok()?)
        })
        .flatten()
        .collect()
}

fn print_indexes(indexes: &BTreeSet<i64>) -> String {
    let mut runs: Vec<(i64, i64)> = Vec::new();
    for i in indexes {
        match runs.last_mut() {
            Some((_, high)) if *high + 1 == *i => *high = *i,
            _ => runs.push((*i, *i)),
        }
    }
    let print = |(low, high): (i64, i64)| match high - low {
        0 => low.to_string(),
        1 => format!("{low},{high}"),
        _ => format!("{low}-{high}"),
    };
    runs.into_iter().map(print).collect::<Vec<_>>().join(",")
}

/// Decides for a Job with the pods that it controls.
pub(crate) fn plan(job: &Value, owned: &[&Arc<Value>], now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let ended = ["Complete", "Failed"]
        .iter()
        .find_map(|t| object::condition(job, t).filter(|c| text(c, &["status"]) == "True"));
    if let Some(ended) = ended {
        let since = object::time(ended, &["lastTransitionTime"]).unwrap_or(now);
        if let Some(due) =
            int(job, &["spec", "ttlSecondsAfterFinished"]).and_then(|s| after(since, s))
        {
            plan.expired = due <= now;
            plan.again = Some(due);
        }
        plan.release = with_finalizer(owned.iter().map(|p| p.as_ref()));
        return plan;
    }
    let indexed = text(job, &["spec", "completionMode"]) == "Indexed";
    let completions = int(job, &["spec", "completions"]);
    let parallelism = int(job, &["spec", "parallelism"]).unwrap_or(1);
    let index_of = |p: &Value| object::annotation(p, INDEX).parse::<i64>().ok();

    let mut succeeded = int(job, &["status", "succeeded"]).unwrap_or(0);
    let mut failed = int(job, &["status", "failed"]).unwrap_or(0);
    let mut done = parse_indexes(text(job, &["status", "completedIndexes"]));
    let mut active: Vec<&Value> = Vec::new();
    let mut last_failure: Option<Timestamp> = None;
    for pod in owned.iter().map(|p| p.as_ref()) {
        let uncounted = object::has_finalizer(pod, TRACKING);
        // A pod on its way out that will not finish any more counts as failed once it is only held by us.
        let phase = text(pod, &["status", "phase"]);
        if phase == "Succeeded" {
            if uncounted {
                let index = index_of(pod);
                let fresh = match index {
                    Some(i) if indexed => done.insert(i),
                    _ => true,
                };
                succeeded += i64::from(fresh);
            }
        } else if phase == "Failed" || object::deleting(pod) {
            failed += i64::from(uncounted && (phase == "Failed" || object::deleting(pod)));
            if phase == "Failed" {
                let ended = finished_at(pod).unwrap_or(now);
                last_failure = Some(last_failure.map_or(ended, |t| t.max(ended)));
            }
        } else {
            active.push(pod);
            continue;
        }
        if uncounted {
            plan.release.push(object::name(pod).to_owned());
        }
    }
    let limit = int(job, &["spec", "backoffLimit"]).unwrap_or(BACKOFF_LIMIT);
    let started = object::time(job, &["status", "startTime"]);
    let overdue_at =
        int(job, &["spec", "activeDeadlineSeconds"]).and_then(|s| after(started.unwrap_or(now), s));
    let suspended = object::flag(job, &["spec", "suspend"]);
    let enough = match completions {
        Some(wanted) => succeeded >= wanted,
        // Without a number one success is enough, and then the others are waited for.
        None => succeeded > 0 && active.is_empty(),
    };
    let verdict = if failed > limit {
        Some((
            "Failed",
            "BackoffLimitExceeded",
            "Job has reached the specified backoff limit",
        ))
    } else if !suspended && overdue_at.is_some_and(|t| t <= now) {
        Some((
            "Failed",
            "DeadlineExceeded",
            "Job was active longer than specified deadline",
        ))
    } else if enough {
        Some((
            "Complete",
            "CompletionsReached",
            "Reached expected number of succeeded pods",
        ))
    } else {
        None
    };
    let have = count(&active);
    if verdict.is_some() || suspended {
        plan.delete = active.iter().map(|p| object::name(p).to_owned()).collect();
    } else if !object::deleting(job) {
        let wanted = match completions {
            Some(total) => parallelism.min(total - succeeded),
            None if succeeded > 0 => have,
            None => parallelism,
        };
        let may_create_at = last_failure
            .filter(|_| failed > 0)
            .and_then(|t| after(t, backoff_seconds(failed)))
            .filter(|t| *t > now);
        if have > wanted {
            let surplus = usize::try_from(have - wanted).unwrap_or(0);
            plan.delete = active
                .iter()
                .rev()
                .take(surplus)
                .map(|p| object::name(p).to_owned())
                .collect();
        } else if have < wanted && may_create_at.is_some() {
            plan.again = may_create_at;
        } else if indexed {
            let taken: BTreeSet<i64> = active.iter().filter_map(|p| index_of(p)).collect();
            plan.create = (0..completions.unwrap_or(0))
                .filter(|i| !done.contains(i) && !taken.contains(i))
                .take(usize::try_from(wanted - have).unwrap_or(0))
                .map(Some)
                .collect();
        } else {
            plan.create = (have..wanted).map(|_| None).collect();
        }
        plan.again = earlier(plan.again, overdue_at);
    }
    let left = have - count(&plan.delete) + count(&plan.create);
    let ready = count(active.iter().filter(|p| object::pod_ready(p)));
    let mut status = json!({
        "active": left.max(0),
        "ready": ready,
        "succeeded": succeeded,
        "failed": failed,
        "terminating": count(owned.iter().filter(|p| object::deleting(p) && !object::terminal(p))),
        "uncountedTerminatedPods": {},
    });
    if let Some(map) = status.as_object_mut() {
        if indexed {
            map.insert("completedIndexes".to_owned(), json!(print_indexes(&done)));
        }
        if started.is_none() && !suspended {
            map.insert("startTime".to_owned(), json!(object::stamp(now)));
        }
        if let Some((kind, reason, message)) = verdict {
            let condition = json!({"type": kind, "status": "True", "reason": reason, "message": message,
                "lastProbeTime": object::stamp(now)});
            if let Some(list) = object::merge_condition(job, &condition, now) {
                map.insert("conditions".to_owned(), Value::Array(list));
            }
            if kind == "Complete" {
                map.insert("completionTime".to_owned(), json!(object::stamp(now)));
            }
        }
    }
    plan.status = status;
    plan
}

fn backoff_seconds(failures: i64) -> i64 {
    let doublings = u32::try_from(failures - 1).unwrap_or(0).min(10);
    (BACKOFF_FIRST_SECONDS << doublings).min(BACKOFF_MAX_SECONDS)
}

fn finished_at(pod: &Value) -> Option<Timestamp> {
    object::items(pod, &["status", "containerStatuses"])
        .iter()
        .filter_map(|c| object::time(c, &["state", "terminated", "finishedAt"]))
        .max()
}

fn with_finalizer<'a>(pods: impl Iterator<Item = &'a Value>) -> Vec<String> {
    pods.filter(|p| object::has_finalizer(p, TRACKING))
        .map(|p| object::name(p).to_owned())
        .collect()
}

/// A pod of the Job.
fn pod(job: &Value, index: Option<i64>) -> Value {
    let reference = object::owner_reference(KIND.0, KIND.1, job);
    let mut pod = pods::from_template(at(job, &["spec", "template"]), job, reference, None);
    for (key, value) in [
        (JOB_NAME, object::name(job)),
        ("job-name", object::name(job)),
        (CONTROLLER_UID, object::uid(job)),
        ("controller-uid", object::uid(job)),
    ] {
        pods::set_label(&mut pod, key, value);
    }
    if let Some(metadata) = pod.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("finalizers".to_owned(), json!([TRACKING]));
        if let Some(index) = index {
            let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
            if let Some(map) = annotations.as_object_mut() {
                map.insert(INDEX.to_owned(), json!(index.to_string()));
            }
        }
    }
    if let Some(index) = index {
        pods::set_label(&mut pod, INDEX, &index.to_string());
    }
    pod
}

/// The loop.
pub struct Jobs {
    jobs: Mirror,
    pods: Mirror,
    events: Events,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            jobs: Mirror::default(),
            pods: Mirror::default(),
            events: Events::new("job-controller"),
        }
    }
}

impl Controller for Jobs {
    const NAME: &'static str = "job";
    const WATCHES: &'static [Gr<'static>] = &[JOBS, PODS];

    fn observe(&mut self, watch: usize, change: &Change, dirty: &mut Dirty) {
        let (object, there) = parts(change);
        if watch == 0 {
            self.jobs.apply(change);
            dirty.add(object::key(object));
            // Whoever is left behind must not be held by a finalizer that nobody takes away.
            if !there {
                for pod in self.pods.controlled_by(object::uid(object)) {
                    dirty.add(object::key(pod));
                }
            }
            return;
        }
        self.pods.apply(change);
        mark_owner(object, "Job", dirty);
        if there && object::deleting(object) && object::has_finalizer(object, TRACKING) {
            dirty.add(object::key(object));
        }
    }

    fn reconcile(&mut self, api: &ApiServer, key: &Key) -> Result<Option<Instant>, ApiError> {
        let Some(job) = self.jobs.get(key) else {
            return self.release_orphan(api, key);
        };
        let owned = self.pods.controlled_by(object::uid(job));
        let plan = plan(job, &owned, api.clock().wall());
        if plan.expired {
            let (ns, name) = (object::namespace(job), object::name(job));
            return gone_is_fine(api.delete(JOBS, Some(ns), name, None)).map(|()| None);
        }
        if plan.status.is_object() {
            // Counted first, released after: a pod that is seen twice in between would be counted twice, but
            // nothing runs in between.
            write_status(api, JOBS, job, plan.status)?;
        }
        for pod in owned
            .iter()
            .filter(|p| plan.release.iter().any(|n| n == object::name(p)))
        {
            release(api, pod)?;
        }
        for pod in owned
            .iter()
            .filter(|p| plan.delete.iter().any(|n| n == object::name(p)))
        {
            pods::delete(api, &mut self.events, KIND, job, pod)?;
        }
        for index in plan.create {
            pods::create(api, &mut self.events, KIND, job, pod(job, index))?;
        }
        Ok(pods::look_at(api, plan.again))
    }
}

fn release(api: &ApiServer, pod: &Value) -> Result<(), ApiError> {
    let (ns, name) = (object::namespace(pod), object::name(pod));
    let left = object::finalizers_without(pod, TRACKING);
    let patch = json!({"metadata": {"finalizers": left}});
    gone_is_fine(api.patch(PODS, Some(ns), name, "", PatchKind::Merge, patch))
}

impl Jobs {
    /// A pod whose Job is gone is let go.
    fn release_orphan(&self, api: &ApiServer, key: &Key) -> Result<Option<Instant>, ApiError> {
        if let Some(pod) = self.pods.get(key)
            && object::has_finalizer(pod, TRACKING)
        {
            let owner = object::controller(pod).map_or("", |o| text(o, &["name"]));
            let job = Key::namespaced(object::namespace(pod), owner);
            let alive = self
                .jobs
                .get(&job)
                .is_some_and(|j| object::uid(j) == object::controller_uid(pod));
            if !alive {
                release(api, pod)?;
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T01:00:00Z".parse().unwrap()
    }

    fn job(spec: Value, status: Value) -> Value {
        json!({"metadata": {"name": "j", "namespace": "default"}, "spec": spec, "status": status})
    }

    fn of(phase: &str, index: Option<i64>, ended: &str) -> Arc<Value> {
        let mut p = pod(&job(json!({}), json!({})), index);
        p["metadata"]["name"] = json!(format!("p-{phase}-{}", index.unwrap_or(0)));
        p["status"] = json!({"phase": phase,
            "containerStatuses": [{"state": {"terminated": {"finishedAt": ended}}}]});
        Arc::new(p)
    }

    fn step(job: &Value, pods: &[Arc<Value>]) -> Plan {
        plan(job, &pods.iter().collect::<Vec<_>>(), now())
    }

    #[test]
    fn counts_finished_pods_once_and_completes() {
        let spec = json!({"completions": 3, "parallelism": 2});
        let first = step(&job(spec.clone(), json!({})), &[]);
        assert_eq!(
            (first.create.len(), &first.status["active"]),
            (2, &json!(2))
        );
        let pods = [of("Succeeded", None, ""), of("Running", Some(1), "")];
        let second = step(&job(spec.clone(), first.status), &pods);
        assert_eq!(
            (second.release.as_slice(), second.create.len()),
            (&["p-Succeeded-0".to_owned()][..], 1)
        );
        assert_eq!(second.status["succeeded"], 1);
        let last = step(
            &job(spec, json!({"succeeded": 2})),
            &[of("Succeeded", None, "")],
        );
        assert_eq!(last.status["conditions"][0]["type"], "Complete");
    }

    #[test]
    fn waits_after_a_failure_and_gives_up_after_too_many() {
        let spec = json!({"completions": 1, "backoffLimit": 1});
        let failed = of("Failed", None, "2026-01-01T00:59:55Z");
        let one = step(&job(spec.clone(), json!({})), std::slice::from_ref(&failed));
        assert_eq!(
            (one.create.len(), one.again),
            (0, Some("2026-01-01T01:00:05Z".parse().unwrap()))
        );
        let two = step(&job(spec, json!({"failed": 1})), &[failed]);
        assert_eq!(
            two.status["conditions"][0]["reason"],
            "BackoffLimitExceeded"
        );
    }

    #[test]
    fn indexed_jobs_run_each_index() {
        let spec = json!({"completions": 5, "parallelism": 5, "completionMode": "Indexed"});
        let pods = [of("Succeeded", Some(1), ""), of("Running", Some(0), "")];
        let plan = step(
            &job(spec, json!({"succeeded": 1, "completedIndexes": "2"})),
            &pods,
        );
        assert_eq!(plan.create, [Some(3), Some(4)]);
        assert_eq!(plan.status["completedIndexes"], "1,2");
    }

    #[rstest]
    #[case("", "")]
    #[case("3", "3")]
    #[case("1,2", "1,2")]
    #[case("0,1,2,5,7,8", "0-2,5,7,8")]
    fn index_texts(#[case] text: &str, #[case] want: &str) {
        assert_eq!(print_indexes(&parse_indexes(text)), want);
        assert_eq!(parse_indexes(want), parse_indexes(text));
    }

    #[test]
    fn a_finished_job_expires() {
        let status = json!({"conditions": [{"type": "Complete", "status": "True",
            "lastTransitionTime": "2026-01-01T00:59:00Z"}]});
        let late = step(
            &job(json!({"ttlSecondsAfterFinished": 60}), status.clone()),
            &[],
        );
        assert!(late.expired);
        let early = step(&job(json!({"ttlSecondsAfterFinished": 61}), status), &[]);
        assert_eq!(
            (early.expired, early.again),
            (false, Some("2026-01-01T01:00:01Z".parse().unwrap()))
        );
    }
}
