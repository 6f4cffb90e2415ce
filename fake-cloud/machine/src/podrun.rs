//! The life of one pod on a host, decided purely: what is due now, and when to look again.

use std::time::Duration;

use karpenter_fake_kube::loops::attach;
use karpenter_fake_kube::loops::object::{self, at, int, items, text};
use karpenter_runtime::RngTree;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::options::KubeletOptions;
use crate::outages::{Outage, Outages};
use crate::probes;

/// Annotation: the program ignores the stop signal and uses up its whole grace period.
pub const IGNORES_SIGTERM: &str = "karpenter-rs.test/ignores-sigterm";
/// Annotation: seconds after which the program ends by itself. Where the restart policy says so it is started again, after
/// waits that double.
pub const RUN_SECONDS: &str = "karpenter-rs.test/run-seconds";
/// Annotation: the code it ends with, 0 when not given.
pub const EXIT_CODE: &str = "karpenter-rs.test/exit-code";
/// Annotation: the readiness probe fails while this is `true`.
pub const UNREADY: &str = "karpenter-rs.test/unready";

/// Code of a program that was ended by the stop signal, and of one that had to be killed.
pub(crate) const SIGTERM_EXIT_CODE: i64 = 143;
const SIGKILL_EXIT_CODE: i64 = 137;

/// Wait before a program that ended is started again: the first, and the longest.
const RESTART_FIRST: Duration = Duration::from_secs(10);
const RESTART_MAX: Duration = Duration::from_secs(300);
/// A program that ran this long is forgiven what it did before.
const RESTART_FORGIVEN: Duration = Duration::from_secs(600);

/// What the host knows of a pod beyond its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) uid: String,
    /// Its volumes are attached, as far as it has any.
    pub(crate) attached: bool,
    pub(crate) start_at: Instant,
    /// From its volumes and images to running.
    start_after: Duration,
    /// Its images are on the host, or will be at a time that is known.
    pub(crate) pulls: bool,
    /// How often it was started again, and how often since it last ran for long.
    pub(crate) restarts: u32,
    failures: u32,
    /// Since when a probe fails that will have containers killed.
    failing_since: Option<Instant>,
    /// The time, planned or now, in which its programs are not well, and how many such times there were.
    outage: Option<Outage>,
    outages: u32,
    /// Containers that are started again; none are all of them.
    pub(crate) killed: Vec<String>,
    /// From running to ready.
    ready_after: Duration,
    /// How long it runs by itself; none: until it is stopped.
    run_for: Option<Duration>,
    /// From the stop signal to the end.
    exit_after: Duration,
    pub(crate) started: Option<Instant>,
    pub(crate) signalled: Option<Instant>,
    pub(crate) stopped: bool,
}

/// What is due for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    /// Whether its volumes are attached must be looked up.
    Attach,
    Start,
    Ready,
    Unready,
    /// It ended by itself with this code.
    Finish(i64),
    /// It ended by itself with this code, and is to be started again.
    Restart(i64),
    /// It was told to stop and has.
    Stop,
}

impl Run {
    /// Plans the run of a pod that the host sees for the first time now.
    pub(crate) fn new(pod: &Value, options: &KubeletOptions, rng: &RngTree, now: Instant) -> Self {
        let whom = format!("{}/{}", object::namespace(pod), object::name(pod));
        // A readiness probe begins where a startup probe has succeeded, and counts its delay from the start.
        let probes = items(pod, &["spec", "containers"]).iter().flat_map(|c| {
            ["startupProbe", "readinessProbe"].map(|p| int(c, &[p, "initialDelaySeconds"]))
        });
        let probes = probes.flatten();
        let pre_stop = items(pod, &["spec", "containers"])
            .iter()
            .filter_map(|c| int(c, &["lifecycle", "preStop", "sleep", "seconds"]));
        let seconds =
            |s: Option<i64>| Duration::from_secs(u64::try_from(s.unwrap_or(0)).unwrap_or(0));
        let by_job = object::controller(pod).is_some_and(|o| text(o, &["kind"]) == "Job");
        let given: Option<f64> = object::annotation(pod, RUN_SECONDS).parse().ok();
        let run_for = match given {
            Some(s) => Duration::try_from_secs_f64(s).ok(),
            None => by_job.then(|| options.job_run.draw(rng, "run", &whom)),
        };
        let start_after = options.start.draw(rng, "start", &whom);
        Self {
            uid: object::uid(pod).to_owned(),
            attached: attach::claims(pod).next().is_none(),
            start_at: now + start_after,
            start_after,
            pulls: false,
            restarts: 0,
            failures: 0,
            failing_since: None,
            outage: None,
            outages: 0,
            killed: Vec::new(),
            ready_after: seconds(probes.max()),
            run_for,
            exit_after: options.exit.draw(rng, "exit", &whom) + seconds(pre_stop.max()),
            started: None,
            signalled: None,
            stopped: false,
        }
    }

    /// Plans when its programs will next not be well, where programs are so at all. What has begun comes to its end.
    pub(crate) fn plan_outage(
        &mut self,
        pod: &Value,
        outages: Option<Outages>,
        rng: &RngTree,
        now: Instant,
    ) {
        if self.started.is_none() || object::deleting(pod) {
            self.outage = None;
            return;
        }
        let stays = |o: &Outage| now < o.until && (outages.is_some() || now >= o.from);
        self.outage = self.outage.take().filter(stays);
        if let (None, Some(outages)) = (&self.outage, outages) {
            self.outages = self.outages.saturating_add(1);
            self.outage = Outage::plan(pod, &outages, rng, self.outages, now);
        }
    }

    /// Decides what is due for `pod` at `now`, and when to look again if nothing changes. Asked twice, it says the same.
    pub(crate) fn due(&mut self, pod: &Value, now: Instant) -> (Due, Option<Instant>) {
        if self.stopped {
            return (Due::Nothing, None);
        }
        if object::deleting(pod) {
            return self.stopping(pod, now);
        }
        if object::terminal(pod) {
            return (Due::Nothing, None);
        }
        let Some(started) = self.started else {
            if !self.attached {
                return (Due::Attach, None);
            }
            return if now >= self.start_at {
                (Due::Start, None)
            } else {
                (Due::Nothing, Some(self.start_at))
            };
        };
        let end = self.run_for.map(|d| started + d);
        if end.is_some_and(|e| now >= e) {
            let code = exit_code(pod);
            let again = match text(pod, &["spec", "restartPolicy"]) {
                "Never" => false,
                "OnFailure" => code != 0,
                _ => true,
            };
            self.killed.clear();
            if again {
                return (Due::Restart(code), None);
            }
            return (Due::Finish(code), None);
        }
        let kill = self.kill_at(pod, now, started);
        if let Some((_, containers)) = kill.as_ref().filter(|(at, _)| now >= *at) {
            self.killed.clone_from(containers);
            let code = if object::annotation(pod, IGNORES_SIGTERM).is_empty() {
                SIGTERM_EXIT_CODE
            } else {
                SIGKILL_EXIT_CODE
            };
            if text(pod, &["spec", "restartPolicy"]) == "Never" {
                return (Due::Finish(code), None);
            }
            return (Due::Restart(code), None);
        }
        let outage = self.outage.as_ref();
        let kill = kill.map(|(at, _)| at).into_iter();
        let look = outage.and_then(|o| o.changes_after(now)).into_iter();
        let end = end.into_iter().chain(kill).chain(look).min();
        let ready_at = started + self.ready_after;
        let fails = object::annotation(pod, UNREADY) == "true"
            || probes::is_unstarted(pod)
            || outage.is_some_and(|o| o.is_unready(now));
        let is_ready = object::pod_ready(pod);
        if is_ready && fails {
            return (Due::Unready, end);
        }
        if !is_ready && !fails {
            if now >= ready_at {
                return (Due::Ready, end);
            }
            return (
                Due::Nothing,
                Some(end.map_or(ready_at, |e| e.min(ready_at))),
            );
        }
        (Due::Nothing, end)
    }

    /// When containers will be killed whose probes fail, and which.
    fn kill_at(
        &mut self,
        pod: &Value,
        now: Instant,
        started: Instant,
    ) -> Option<(Instant, Vec<String>)> {
        let Some(failing) = probes::failing(pod) else {
            self.failing_since = None;
            return self.outage.as_ref().and_then(Outage::kills);
        };
        let since = *self.failing_since.get_or_insert(now);
        let since = since.max(started + failing.delay);
        Some((since + failing.patience, failing.containers))
    }

    /// Its images will be there then.
    pub(crate) fn pulled(&mut self, at: Instant) {
        self.pulls = true;
        self.start_at = at + self.start_after;
    }

    /// The program has ended and waits for its next start; answers when that is.
    pub(crate) fn restarting(&mut self, now: Instant) -> Instant {
        let ran = self.started.take().map_or(Duration::ZERO, |s| now - s);
        if ran >= RESTART_FORGIVEN {
            self.failures = 0;
        }
        let wait = RESTART_FIRST.saturating_mul(1 << self.failures.min(8));
        self.failures = self.failures.saturating_add(1);
        self.failing_since = None;
        self.outage = None;
        self.restarts = self.restarts.saturating_add(1);
        self.start_at = now + wait.min(RESTART_MAX);
        self.start_at
    }

    fn stopping(&mut self, pod: &Value, now: Instant) -> (Due, Option<Instant>) {
        let signalled = *self.signalled.get_or_insert(now);
        let grace = int(pod, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0);
        let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        let exit = if self.started.is_none() {
            // Nothing runs yet that would take its time.
            Duration::ZERO
        } else if object::annotation(pod, IGNORES_SIGTERM).is_empty() {
            self.exit_after.min(grace)
        } else {
            grace
        };
        let when = signalled + exit;
        if now >= when {
            (Due::Stop, None)
        } else {
            (Due::Nothing, Some(when))
        }
    }
}

fn exit_code(pod: &Value) -> i64 {
    object::annotation(pod, EXIT_CODE).parse().unwrap_or(0)
}

/// Facts of the host that go into a pod's status.
pub(crate) struct Place<'a> {
    pub(crate) host_ip: &'a str,
    pub(crate) pod_ip: String,
}

/// Conditions of `pod` with those that the kubelet sets.
fn conditions(pod: &Value, ready: bool, reason: &str, now: jiff::Timestamp) -> Value {
    let mut changed = pod.clone();
    let ready_status = if ready { "True" } else { "False" };
    for (kind, status) in [
        ("PodReadyToStartContainers", "True"),
        ("Initialized", "True"),
        ("Ready", ready_status),
        ("ContainersReady", ready_status),
    ] {
        let mut wanted = json!({"type": kind, "status": status});
        if status == "False"
            && let Some(map) = wanted.as_object_mut()
        {
            map.insert("reason".to_owned(), json!(reason));
        }
        if let Some(list) = object::merge_condition(&changed, &wanted, now)
            && let Some(map) = changed.as_object_mut()
            && let Some(status) = map
                .entry("status")
                .or_insert_with(|| json!({}))
                .as_object_mut()
        {
            status.insert("conditions".to_owned(), Value::Array(list));
        }
    }
    at(&changed, &["status", "conditions"]).clone()
}

fn container_statuses(pod: &Value, list: &str, state: &Value, ready: bool) -> Vec<Value> {
    items(pod, &["spec", list])
        .iter()
        .map(|c| {
            let (name, image) = (text(c, &["name"]), text(c, &["image"]));
            json!({
                "name": name,
                "image": image,
                "imageID": image,
                "containerID": format!("containerd://{}-{name}", object::uid(pod)),
                "ready": ready,
                "started": ready,
                "restartCount": 0,
                "state": state,
                "lastState": {},
            })
        })
        .collect()
}

/// Status of a pod that runs now.
pub(crate) fn running(pod: &Value, place: &Place<'_>, ready: bool, now: jiff::Timestamp) -> Value {
    let stamp = object::stamp(now);
    let state = json!({"running": {"startedAt": stamp}});
    let done = json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": stamp, "finishedAt": stamp}});
    let mut init = container_statuses(pod, "initContainers", &done, true);
    for (status, spec) in init.iter_mut().zip(items(pod, &["spec", "initContainers"])) {
        let sidecar = text(spec, &["restartPolicy"]) == "Always";
        if let (true, Some(map)) = (sidecar, status.as_object_mut()) {
            map.insert("state".to_owned(), state.clone());
        }
    }
    let mut status = json!({
        "phase": "Running",
        "hostIP": place.host_ip,
        "hostIPs": [{"ip": place.host_ip}],
        "podIP": place.pod_ip,
        "podIPs": [{"ip": place.pod_ip}],
        "startTime": stamp,
        "observedGeneration": at(pod, &["metadata", "generation"]),
        "conditions": conditions(pod, ready, "ContainersNotReady", now),
        "containerStatuses": container_statuses(pod, "containers", &state, ready),
    });
    if let (false, Some(map)) = (init.is_empty(), status.as_object_mut()) {
        map.insert("initContainerStatuses".to_owned(), Value::Array(init));
    }
    status
}

/// Readiness of a pod that runs already.
pub(crate) fn readiness(pod: &Value, ready: bool, now: jiff::Timestamp) -> Value {
    json!({
        "conditions": conditions(pod, ready, "ContainersNotReady", now),
        "containerStatuses": with_containers(pod, &[], |c| {
            c.insert("ready".to_owned(), json!(ready));
            c.insert("started".to_owned(), json!(true));
        }),
    })
}

/// Status of a pod whose containers (those named; all where none are) have ended and will be started again.
pub(crate) fn backing_off(pod: &Value, whose: &[String], code: i64, now: jiff::Timestamp) -> Value {
    let reason = if code == 0 { "Completed" } else { "Error" };
    let state = json!({"waiting": {"reason": "CrashLoopBackOff",
        "message": "the container ended and waits to be started again"}});
    json!({
        "conditions": conditions(pod, false, "ContainersNotReady", now),
        "containerStatuses": with_containers(pod, whose, |c| {
            let started = c.get("state").and_then(|s| s.pointer("/running/startedAt")).cloned();
            let last = json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": started, "finishedAt": object::stamp(now)}});
            c.insert("ready".to_owned(), json!(false));
            c.insert("started".to_owned(), json!(false));
            c.insert("state".to_owned(), state.clone());
            c.insert("lastState".to_owned(), last);
        }),
    })
}

/// Status of a pod whose containers were started again.
pub(crate) fn restarted(pod: &Value, whose: &[String], ready: bool, now: jiff::Timestamp) -> Value {
    let state = json!({"running": {"startedAt": object::stamp(now)}});
    json!({
        "conditions": conditions(pod, ready, "ContainersNotReady", now),
        "containerStatuses": with_containers(pod, whose, |c| {
            let restarts = c.get("restartCount").and_then(Value::as_i64).unwrap_or(0);
            c.insert("ready".to_owned(), json!(ready));
            c.insert("started".to_owned(), json!(ready));
            c.insert("state".to_owned(), state.clone());
            c.insert("restartCount".to_owned(), json!(restarts.saturating_add(1)));
        }),
    })
}

fn with_containers(
    pod: &Value,
    whose: &[String],
    change: impl Fn(&mut serde_json::Map<String, Value>),
) -> Value {
    let mut containers = at(pod, &["status", "containerStatuses"]).clone();
    for container in containers.as_array_mut().into_iter().flatten() {
        let named = whose.is_empty() || whose.iter().any(|n| n == text(container, &["name"]));
        if let Some(map) = container.as_object_mut().filter(|_| named) {
            change(map);
        }
    }
    containers
}

/// Status of a pod that ended with `code`.
pub(crate) fn ended(pod: &Value, code: i64, now: jiff::Timestamp) -> Value {
    let (phase, reason) = if code == 0 {
        ("Succeeded", "Completed")
    } else {
        ("Failed", "Error")
    };
    let state = json!({"terminated": {"exitCode": code, "reason": reason,
        "startedAt": at(pod, &["status", "startTime"]), "finishedAt": object::stamp(now)}});
    let why = if code == 0 {
        "PodCompleted"
    } else {
        "PodFailed"
    };
    json!({
        "phase": phase,
        "conditions": conditions(pod, false, why, now),
        "containerStatuses": container_statuses(pod, "containers", &state, false),
    })
}

#[cfg(test)]
mod tests;
