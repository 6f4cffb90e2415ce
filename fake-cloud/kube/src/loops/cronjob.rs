//! CronJobs: a Job for the newest time of the schedule that has come, if the policy on those still running allows it, and
//! as many ended ones kept as it says. Schedules are in UTC: `timeZone` is stored and not followed.

use std::cmp::Reverse;
use std::str::FromStr as _;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use karpenter_api::cron::Schedule;
use karpenter_runtime::Key;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::events::Events;
use super::feed::{Controller, Dirty, Mirror, gone_is_fine, parts};
use super::object::{self, at, int, text};
use super::pods;
use super::replicaset::{mark_owner, write_status};
use super::resource::{CRON_JOBS, JOBS};
use crate::meta;
use crate::server::{ApiError, ApiServer, Change, Gr};

const KIND: (&str, &str) = ("batch/v1", "CronJob");
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Times that are looked through for the newest that has come; a clock that stood still for long skips the rest.
const MISSED_MAX: usize = 100_000;
const SECONDS_A_MINUTE: i64 = 60;

/// What is to be done for a CronJob.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// The time for which a Job is made.
    pub(crate) start: Option<Timestamp>,
    /// Names of Jobs to delete: replaced ones, and ended ones past what is kept.
    pub(crate) delete: Vec<String>,
    /// When the schedule is next due.
    pub(crate) next: Option<Timestamp>,
}

fn ended(job: &Value) -> Option<&'static str> {
    ["Complete", "Failed"]
        .into_iter()
        .find(|kind| object::condition_status(job, kind) == "True")
}

/// Decides for a CronJob with the Jobs that it controls.
pub(crate) fn plan(cron: &Value, owned: &[&Arc<Value>], now: Timestamp) -> Plan {
    let mut plan = Plan {
        delete: history(cron, owned),
        ..Plan::default()
    };
    if object::deleting(cron) || object::flag(cron, &["spec", "suspend"]) {
        return plan;
    }
    // One that cannot be read was refused when it was written.
    let Ok(schedule) = Schedule::from_str(text(cron, &["spec", "schedule"])) else {
        return plan;
    };
    let deadline = int(cron, &["spec", "startingDeadlineSeconds"]);
    let since = object::time(cron, &["status", "lastScheduleTime"])
        .unwrap_or_else(|| object::created(cron));
    let earliest = deadline
        .and_then(|s| now.checked_sub(SignedDuration::from_secs(s)).ok())
        .map_or(since, |at| at.max(since));
    let times = std::iter::successors(schedule.next_after(earliest), |t| schedule.next_after(*t));
    let due = times.take(MISSED_MAX).take_while(|t| *t <= now).last();
    plan.next = schedule.next_after(now);
    let Some(due) = due else {
        return plan;
    };
    let name = job_name(cron, due);
    if owned.iter().any(|j| object::name(j) == name) {
        return plan;
    }
    let running = || owned.iter().filter(|j| ended(j).is_none());
    match text(cron, &["spec", "concurrencyPolicy"]) {
        // It is looked at again when the one that runs ends.
        "Forbid" if running().next().is_some() => return plan,
        "Replace" => plan
            .delete
            .extend(running().map(|j| object::name(j).to_owned())),
        _ => {}
    }
    plan.start = Some(due);
    plan
}

/// Names of ended Jobs that are more than is kept, the oldest first.
fn history(cron: &Value, owned: &[&Arc<Value>]) -> Vec<String> {
    let kept = |field: &str| int(cron, &["spec", field]).and_then(|n| usize::try_from(n).ok());
    let limits = [
        ("Complete", kept("successfulJobsHistoryLimit")),
        ("Failed", kept("failedJobsHistoryLimit")),
    ];
    let past = |(kind, limit): (&str, Option<usize>)| {
        let mut jobs: Vec<&Arc<Value>> = owned.to_vec();
        jobs.retain(|j| ended(j) == Some(kind));
        jobs.sort_by_key(|j| Reverse((object::created(j), object::name(j).to_owned())));
        let past = jobs.into_iter().skip(limit.unwrap_or(usize::MAX));
        past.map(|j| object::name(j).to_owned()).collect::<Vec<_>>()
    };
    limits.into_iter().flat_map(past).collect()
}

/// A Job's name tells its minute, so that no minute has two.
fn job_name(cron: &Value, at: Timestamp) -> String {
    format!(
        "{}-{}",
        object::name(cron),
        at.as_second() / SECONDS_A_MINUTE
    )
}

fn job(cron: &Value, at_time: Timestamp) -> Value {
    let template = at(cron, &["spec", "jobTemplate"]);
    let mut job = json!({
        "metadata": {
            "name": job_name(cron, at_time),
            "labels": at(template, &["metadata", "labels"]),
            "annotations": at(template, &["metadata", "annotations"]),
            "ownerReferences": [object::owner_reference(KIND.0, KIND.1, cron)],
        },
        "spec": at(template, &["spec"]),
    });
    let annotations = meta::child(meta::child(&mut job, "metadata"), "annotations");
    meta::as_map(annotations).insert(SCHEDULED.to_owned(), object::stamp(at_time).into());
    if let Some(metadata) = job.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|_, value| !value.is_null());
    }
    job
}

/// The loop.
pub struct CronJobs {
    crons: Mirror,
    jobs: Mirror,
    events: Events,
}

impl Default for CronJobs {
    fn default() -> Self {
        Self {
            crons: Mirror::default(),
            jobs: Mirror::default(),
            events: Events::new("cronjob-controller"),
        }
    }
}

impl Controller for CronJobs {
    const NAME: &'static str = "cronjob";
    const WATCHES: &'static [Gr<'static>] = &[CRON_JOBS, JOBS];

    fn observe(&mut self, watch: usize, change: &Change, dirty: &mut Dirty) {
        let (object, _) = parts(change);
        if watch == 0 {
            self.crons.apply(change);
            dirty.add(object::key(object));
            return;
        }
        self.jobs.apply(change);
        mark_owner(object, "CronJob", dirty);
    }

    fn reconcile(&mut self, api: &ApiServer, key: &Key) -> Result<Option<Instant>, ApiError> {
        let Some(cron) = self.crons.get(key).map(Arc::clone) else {
            return Ok(None);
        };
        let owned = self.jobs.controlled_by(object::uid(&cron));
        let plan = plan(&cron, &owned, api.clock().wall());
        let namespace = Some(object::namespace(&cron));
        for name in &plan.delete {
            gone_is_fine(api.delete(JOBS, namespace, name, None))?;
        }
        let mut active: Vec<Arc<Value>> = owned
            .into_iter()
            .filter(|j| ended(j).is_none())
            .filter(|j| !plan.delete.iter().any(|n| n == object::name(j)))
            .cloned()
            .collect();
        if let Some(due) = plan.start {
            match api.create(JOBS, namespace, job(&cron, due)) {
                Ok(made) => {
                    let message = format!("Created job {}", object::name(&made));
                    let event = ("Normal", "SuccessfulCreate");
                    self.events.write(api, KIND, &cron, event, &message);
                    active.push(made);
                }
                // Made already; its change is still on its way.
                Err(error) if error.reason == "AlreadyExists" => {}
                Err(error) => return Err(error),
            }
        }
        self.write(api, &cron, &active, plan.start)?;
        Ok(pods::look_at(api, plan.next))
    }
}

impl CronJobs {
    fn write(
        &self,
        api: &ApiServer,
        cron: &Value,
        active: &[Arc<Value>],
        started: Option<Timestamp>,
    ) -> Result<(), ApiError> {
        let references: Vec<Value> = active
            .iter()
            .map(|j| {
                json!({
                    "apiVersion": "batch/v1", "kind": "Job", "namespace": object::namespace(j), "name": object::name(j),
                    "uid": object::uid(j), "resourceVersion": text(j, &["metadata", "resourceVersion"]),
                })
            })
            .collect();
        // Who is active is told by UID: versions of a Job that go on changing are no change of its CronJob.
        let who = |list: &[Value]| -> Vec<String> {
            list.iter().map(|r| text(r, &["uid"]).to_owned()).collect()
        };
        let mut status = serde_json::Map::new();
        if who(&references) != who(object::items(cron, &["status", "active"])) {
            let value = (!references.is_empty()).then(|| Value::from(references));
            status.insert("active".into(), value.unwrap_or(Value::Null));
        }
        if let Some(started) = started {
            status.insert("lastScheduleTime".into(), object::stamp(started).into());
        }
        let completed = self.jobs.controlled_by(object::uid(cron));
        let last = completed
            .iter()
            .filter_map(|j| object::time(j, &["status", "completionTime"]))
            .max();
        if let Some(last) = last.filter(|l| {
            object::time(cron, &["status", "lastSuccessfulTime"]).is_none_or(|known| known < *l)
        }) {
            status.insert("lastSuccessfulTime".into(), object::stamp(last).into());
        }
        if status.is_empty() {
            return Ok(());
        }
        write_status(api, CRON_JOBS, cron, Value::Object(status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn cron(spec: Value) -> Value {
        json!({
            "metadata": {"name": "c", "namespace": "default", "creationTimestamp": "2026-01-01T00:01:00Z"},
            "spec": spec, "status": {},
        })
    }

    fn owned(name: &str, end: &str) -> Arc<Value> {
        let conditions = if end.is_empty() {
            json!([])
        } else {
            json!([{"type": end, "status": "True"}])
        };
        Arc::new(json!({
            "metadata": {"name": name, "creationTimestamp": format!("2026-01-01T00:0{}:00Z", name.len())},
            "status": {"conditions": conditions},
        }))
    }

    fn step(cron: &Value, jobs: &[Arc<Value>], now: &str) -> Plan {
        plan(cron, &jobs.iter().collect::<Vec<_>>(), now.parse().unwrap())
    }

    fn time(text: &str) -> Option<Timestamp> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn the_newest_time_that_has_come_is_started_once() {
        let every_five = cron(json!({"schedule": "*/5 * * * *"}));
        let early = step(&every_five, &[], "2026-01-01T00:04:00Z");
        assert_eq!(
            (early.start, early.next),
            (None, time("2026-01-01T00:05:00Z"))
        );
        let late = step(&every_five, &[], "2026-01-01T00:17:00Z");
        assert_eq!(late.start, time("2026-01-01T00:15:00Z"));
        assert_eq!(late.next, time("2026-01-01T00:20:00Z"));
        let made = owned(&job_name(&every_five, late.start.unwrap()), "");
        assert_eq!(
            step(&every_five, &[made], "2026-01-01T00:17:00Z").start,
            None
        );
    }

    #[rstest]
    #[case(json!({"suspend": true}), false, &[])]
    #[case(json!({"startingDeadlineSeconds": 30}), false, &[])]
    #[case(json!({"startingDeadlineSeconds": 300}), true, &[])]
    #[case(json!({"concurrencyPolicy": "Forbid"}), false, &[])]
    #[case(json!({"concurrencyPolicy": "Replace"}), true, &["r"])]
    #[case(json!({"concurrencyPolicy": "Allow"}), true, &[])]
    fn what_may_start_beside_one_that_runs(
        #[case] more: Value,
        #[case] starts: bool,
        #[case] deleted: &[&str],
    ) {
        let mut spec = json!({"schedule": "*/5 * * * *"});
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let plan = step(&cron(spec), &[owned("r", "")], "2026-01-01T00:06:00Z");
        assert_eq!(plan.start.is_some(), starts);
        assert_eq!(plan.delete, deleted);
    }

    #[test]
    fn ended_ones_past_the_limits_go_the_oldest_first() {
        let spec = json!({"schedule": "@yearly", "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0});
        let jobs = [
            owned("a", "Complete"),
            owned("bb", "Complete"),
            owned("ccc", "Failed"),
            owned("dddd", ""),
        ];
        let plan = step(&cron(spec), &jobs, "2026-01-01T00:06:00Z");
        assert_eq!(plan.delete, ["a", "ccc"]);
    }
}
