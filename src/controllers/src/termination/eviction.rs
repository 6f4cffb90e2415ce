//! The eviction queue (`lifecycle-and-disruption.md` §4): takes pods off draining nodes, one request at a time per
//! pod, through the eviction API as long as there is time and by deletion when there is none left.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod as RawPod};
use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions};
use karpenter_model::{DoNotDisrupt, Pod, PodKey};
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::runner::{ReconcileError, RunnerOptions};
use karpenter_runtime::{Action, Key, Queue, Reconciler};
use kube::api::{DeleteParams, PostParams};
use kube::core::Status;
use kube::{Api, Client};
use parking_lot::Mutex;

use super::drain::{forced_grace, must_be_forced};
use super::events;
use crate::Context;
use crate::lifecycle::objects::{condition, conditions, until};

/// First wait after an eviction that was refused.
pub(crate) const BACKOFF_BASE: Duration = Duration::from_millis(100);
/// Longest wait after refused evictions.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How long an eviction that was granted is waited for to show in the watch before the pod may be evicted again.
const GRANTED_FOR: Duration = Duration::from_secs(30);

/// A pod that has to go.
#[derive(Clone, Debug)]
struct Entry {
    uid: Arc<str>,
    /// When its node must be empty.
    deadline: Option<Timestamp>,
    /// Refusals in a row.
    refused: u32,
    /// When its eviction was granted.
    granted: Option<Timestamp>,
}

/// The pods that have to go; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evictions {
    entries: Arc<Mutex<BTreeMap<PodKey, Entry>>>,
    queue: Arc<Mutex<Option<Queue>>>,
}

impl Evictions {
    /// Hands over the queue to feed, once it runs.
    pub(crate) fn connect(&self, queue: Queue) {
        *self.queue.lock() = Some(queue);
    }

    /// Has `pod` go; of two deadlines the earlier one holds.
    pub(crate) fn add(&self, pod: &Pod, deadline: Option<Timestamp>) {
        let mut entries = self.entries.lock();
        let entry = entries.entry(pod.key.clone()).or_insert_with(|| Entry {
            uid: pod.uid.clone(),
            deadline,
            refused: 0,
            granted: None,
        });
        if entry.uid != pod.uid {
            *entry = Entry {
                uid: pod.uid.clone(),
                deadline,
                refused: 0,
                granted: None,
            };
        }
        entry.deadline = match (entry.deadline, deadline) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        drop(entries);
        self.wake(&pod.key);
    }

    /// Tries the pods of a namespace again: a PodDisruptionBudget there has changed.
    pub(crate) fn retry_in(&self, namespace: &str) {
        let waiting: Vec<PodKey> = {
            let entries = self.entries.lock();
            let keys = entries.iter().filter(|(k, e)| {
                &*k.namespace == namespace && e.granted.is_none() && e.refused > 0
            });
            keys.map(|(k, _)| k.clone()).collect()
        };
        waiting.iter().for_each(|k| self.wake(k));
    }

    /// Takes note of what a pod is now: one that is going or gone needs no eviction any more.
    pub(crate) fn observe(&self, key: &PodKey, pod: Option<&Pod>) {
        let mut entries = self.entries.lock();
        let done = entries.get(key).is_some_and(|e| match pod {
            None => true,
            Some(pod) => pod.uid != e.uid || !pod.is_active(),
        });
        if done {
            entries.remove(key);
        } else if entries.contains_key(key) {
            drop(entries);
            self.wake(key);
        }
    }

    fn wake(&self, key: &PodKey) {
        if let Some(queue) = &*self.queue.lock() {
            queue.add(Key::namespaced(&key.namespace, &key.name));
        }
    }

    fn get(&self, key: &PodKey) -> Option<Entry> {
        self.entries.lock().get(key).cloned()
    }

    fn drop_entry(&self, key: &PodKey, uid: &str) {
        let mut entries = self.entries.lock();
        if entries.get(key).is_some_and(|e| &*e.uid == uid) {
            entries.remove(key);
        }
    }

    fn change(&self, key: &PodKey, uid: &str, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get_mut(key).filter(|e| &*e.uid == uid) {
            change(entry);
        }
    }
}

/// What to do about a pod in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing is left to do.
    Drop,
    /// Delete it with this grace (s).
    Force { grace: u32 },
    /// It is protected; until then if that is known.
    Hold { until: Option<Timestamp> },
    /// Ask for its eviction.
    Evict,
}

fn step(pod: Option<&Pod>, uid: &str, deadline: Option<Timestamp>, now: Timestamp) -> Step {
    let Some(pod) = pod.filter(|p| &*p.uid == uid && !p.is_terminal()) else {
        return Step::Drop;
    };
    if let Some(deadline) = deadline
        && must_be_forced(pod, deadline, now)
    {
        return Step::Force {
            grace: forced_grace(deadline, now),
        };
    }
    if !pod.is_active() {
        return Step::Drop;
    }
    match pod.do_not_disrupt(now) {
        DoNotDisrupt::Always => Step::Hold { until: None },
        DoNotDisrupt::Until(end) => Step::Hold { until: Some(end) },
        _ => Step::Evict,
    }
}

/// How the API server answered an eviction.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    /// The pod goes.
    Granted,
    /// It was gone, or is another one.
    Gone,
    /// A PodDisruptionBudget is in the way; why, for the event.
    Refused(&'static str),
    /// Something else went wrong.
    Failed,
}

fn answer(error: Option<&kube::Error>) -> Answer {
    let Some(error) = error else {
        return Answer::Granted;
    };
    let kube::Error::Api(status) = error else {
        return Answer::Failed;
    };
    match status.code {
        404 | 409 => Answer::Gone,
        429 => Answer::Refused("evicting pod violates a PDB"),
        500 if status.message.contains("more than one PodDisruptionBudget") => {
            Answer::Refused("eviction does not support multiple PDBs")
        }
        _ => Answer::Failed,
    }
}

fn status_code(error: Option<&kube::Error>) -> Option<String> {
    match error {
        None => Some("200".to_owned()),
        Some(kube::Error::Api(status)) => Some(status.code.to_string()),
        Some(_) => None,
    }
}

/// The loop over the queue.
pub(crate) struct EvictionQueue {
    pub(crate) ctx: Context,
    pub(crate) evictions: Evictions,
}

#[async_trait]
impl Reconciler for EvictionQueue {
    fn name(&self) -> &'static str {
        "eviction-queue"
    }
    fn group_kind(&self) -> (&'static str, &'static str) {
        ("", "Pod")
    }
    fn metrics(&self) -> Option<&Metrics> {
        Some(&self.ctx.metrics)
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let key = PodKey {
            namespace: key.namespace.clone().unwrap_or_else(|| "".into()),
            name: key.name.clone(),
        };
        let Some(entry) = self.evictions.get(&key) else {
            return Ok(Action::AwaitChange);
        };
        let now = self.ctx.clock.wall();
        let pod = self.ctx.state.pod(&key);
        if let Some(event) = pod.as_deref().and_then(|p| events::protection(p, now)) {
            self.ctx.events.publish(event);
        }
        match step(pod.as_deref(), &entry.uid, entry.deadline, now) {
            Step::Drop => self.evictions.drop_entry(&key, &entry.uid),
            Step::Force { grace } => {
                if let (Some(pod), Some(deadline)) = (pod, entry.deadline) {
                    self.force(&pod, deadline, grace).await?;
                    self.evictions.drop_entry(&key, &entry.uid);
                }
            }
            // With no end known, whatever lifts the protection changes the pod.
            Step::Hold { until: None } => {}
            Step::Hold { until: Some(end) } => return Ok(Action::RequeueAfter(until(end, now))),
            Step::Evict => {
                if let Some(at) = entry.granted {
                    let left = until(crate::lifecycle::objects::later(at, GRANTED_FOR), now);
                    if !left.is_zero() {
                        return Ok(Action::RequeueAfter(left));
                    }
                }
                if let Some(pod) = pod {
                    return self.evict(&pod, &entry, now).await;
                }
            }
        }
        Ok(Action::AwaitChange)
    }
}

impl EvictionQueue {
    async fn evict(
        &self,
        pod: &Pod,
        entry: &Entry,
        now: Timestamp,
    ) -> Result<Action, ReconcileError> {
        // Through the client that does not retry: a 429 is an answer, not an accident.
        let client = self.ctx.client_no_retry.clone();
        let result = ask(client, &pod.key, &pod.uid).await;
        let error = result.as_ref().err();
        if let Some(code) = status_code(error) {
            let labels = [("code", code.as_str())];
            self.ctx
                .metrics
                .inc("karpenter_pods_eviction_requests_total", &labels);
        }
        match answer(error) {
            Answer::Granted => {
                let reason = self.reason(pod);
                self.ctx.events.publish(events::evicted(pod, &reason));
                self.drained(&reason);
                self.evictions.change(&pod.key, &entry.uid, |e| {
                    e.granted = Some(now);
                    e.refused = 0;
                });
                Ok(Action::RequeueAfter(GRANTED_FOR))
            }
            Answer::Gone => {
                self.evictions.drop_entry(&pod.key, &entry.uid);
                Ok(Action::AwaitChange)
            }
            Answer::Refused(why) => {
                if let Some(node) = self.node_of(pod) {
                    self.ctx
                        .events
                        .publish(events::eviction_refused(&node, pod, why));
                }
                let refused = entry.refused.saturating_add(1);
                self.evictions
                    .change(&pod.key, &entry.uid, |e| e.refused = refused);
                Ok(Action::RequeueAfter(self.backoff(&pod.key, refused)))
            }
            Answer::Failed => Err(result.err().map_or(ReconcileError::Conflict, Into::into)),
        }
    }

    async fn force(
        &self,
        pod: &Pod,
        deadline: Timestamp,
        grace: u32,
    ) -> Result<(), ReconcileError> {
        self.ctx
            .events
            .publish(events::force_deleted(pod, deadline, grace));
        let api: Api<RawPod> =
            Api::namespaced(self.ctx.client_no_retry.clone(), &pod.key.namespace);
        let params = DeleteParams {
            grace_period_seconds: Some(grace),
            preconditions: Some(kube::api::Preconditions {
                resource_version: None,
                uid: Some(pod.uid.to_string()),
            }),
            ..DeleteParams::default()
        };
        match api.delete(&pod.key.name, &params).await {
            Ok(_) => {
                self.drained(&self.reason(pod));
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(ReconcileError::Retry(Box::new(error))),
        }
    }

    fn drained(&self, reason: &str) {
        let labels = [("reason", reason)];
        self.ctx
            .metrics
            .inc("karpenter_pods_drained_total", &labels);
    }

    fn node_of(&self, pod: &Pod) -> Option<Arc<Node>> {
        self.ctx.state.node(pod.node_name.as_deref()?)
    }

    /// Why the pod's machine goes, as its claim says it; empty if there is nobody to ask.
    fn reason(&self, pod: &Pod) -> String {
        let claims = self.node_of(pod).map_or_else(Vec::new, |node| {
            let id = crate::lifecycle::objects::provider_id(&node);
            self.ctx.state.claims_by_provider_id(id)
        });
        let [claim] = claims.as_slice() else {
            return String::new();
        };
        condition(&claim.status.conditions, conditions::DISRUPTION_REASON)
            .filter(|c| c.status == "True")
            .map_or_else(|| "Forceful Termination".to_owned(), |c| c.reason.clone())
    }

    fn backoff(&self, key: &PodKey, refused: u32) -> Duration {
        let tree = self
            .ctx
            .rng
            .child("eviction-backoff", &format!("{key}#{refused}"));
        let options = RunnerOptions {
            concurrency: 1,
            backoff_base: BACKOFF_BASE,
            backoff_max: BACKOFF_MAX,
        };
        options.backoff(refused, tree.rng().unit())
    }
}

/// Asks for the eviction of this very pod, not of a later one of its name. (`Api::evict` sends the options of the deletion
/// under a name that API servers do not know, in kube 5.0 at least, and so without effect.)
async fn ask(client: Client, pod: &PodKey, uid: &str) -> Result<Status, kube::Error> {
    let eviction = Eviction {
        delete_options: Some(DeleteOptions {
            preconditions: Some(Preconditions {
                resource_version: None,
                uid: Some(uid.to_owned()),
            }),
            ..DeleteOptions::default()
        }),
        metadata: ObjectMeta {
            name: Some(pod.name.to_string()),
            ..ObjectMeta::default()
        },
    };
    let api: Api<RawPod> = Api::namespaced(client, &pod.namespace);
    let params = PostParams::default();
    api.create_subresource("eviction", &pod.name, &params, &eviction)
        .await
}

#[cfg(test)]
mod tests {
    use karpenter_fake_kube::ApiServer;
    use karpenter_fake_kube::server::{ServerOptions, gr};
    use karpenter_model::pod::Phase;
    use karpenter_runtime::{Clock, RngTree};
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("a time")
    }

    fn pod(change: impl FnOnce(&mut Pod)) -> Pod {
        let mut pod = Pod {
            uid: "u".into(),
            phase: Phase::Running,
            grace_seconds: 30,
            started: Some(at(900)),
            ..Pod::default()
        };
        change(&mut pod);
        pod
    }

    fn protect(text: &str) -> impl FnOnce(&mut Pod) {
        let text = text.to_owned();
        move |p| {
            p.annotations
                .insert("karpenter.sh/do-not-disrupt".into(), text);
        }
    }

    #[rstest]
    #[case::gone(None, None, Step::Drop)]
    #[case::same_name_new_pod(Some(pod(|p| p.uid = "other".into())), None, Step::Drop)]
    #[case::ended(Some(pod(|p| p.phase = Phase::Succeeded)), Some(0), Step::Drop)]
    #[case::going_already(Some(pod(|p| p.deleted = Some(at(1010)))), None, Step::Drop)]
    #[case::plain(Some(pod(|_| ())), None, Step::Evict)]
    #[case::plain_with_time(Some(pod(|_| ())), Some(2000), Step::Evict)]
    #[case::out_of_time(Some(pod(|_| ())), Some(1020), Step::Force { grace: 20 })]
    #[case::long_out_of_time(Some(pod(|_| ())), Some(10), Step::Force { grace: 1 })]
    #[case::going_too_slowly(Some(pod(|p| p.deleted = Some(at(1500)))), Some(1100), Step::Force { grace: 100 })]
    #[case::protected(Some(pod(protect("true"))), None, Step::Hold { until: None })]
    #[case::protected_for_a_while(Some(pod(protect("5m"))), None, Step::Hold { until: Some(at(1200)) })]
    #[case::protection_is_over(Some(pod(protect("1m"))), None, Step::Evict)]
    #[case::protection_is_no_word(Some(pod(protect("please"))), None, Step::Evict)]
    #[case::no_time_for_protection(Some(pod(protect("true"))), Some(1000), Step::Force { grace: 1 })]
    fn a_pod_in_the_queue(
        #[case] pod: Option<Pod>,
        #[case] deadline: Option<i64>,
        #[case] expected: Step,
    ) {
        assert_eq!(
            step(pod.as_ref(), "u", deadline.map(at), at(1000)),
            expected
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_came_in_place_of_another_is_not_evicted_for_it() {
        let server = ApiServer::new(ServerOptions {
            clock: Clock::starting_at(at(1000)),
            rng: RngTree::new(1),
        });
        let pods = gr("", "pods");
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "db-0"},
            "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let made = server.create(pods, Some("default"), object);
        let made = made.expect("a pod");
        let uid = made.pointer("/metadata/uid").and_then(|u| u.as_str());
        let key = PodKey {
            namespace: "default".into(),
            name: "db-0".into(),
        };
        let refused = ask(server.client(), &key, "one that was there before").await;
        assert_eq!(answer(refused.as_ref().err()), Answer::Gone);
        assert!(server.get(pods, Some("default"), "db-0").is_ok());
        let granted = ask(server.client(), &key, uid.expect("a uid")).await;
        assert_eq!(answer(granted.as_ref().err()), Answer::Granted);
        assert!(server.get(pods, Some("default"), "db-0").is_err());
    }

    fn refusal(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Box::new(Status::failure(message, "").with_code(code)))
    }

    #[rstest]
    #[case::granted(None, Answer::Granted, Some("200"))]
    #[case::gone(Some(refusal(404, "no such pod")), Answer::Gone, Some("404"))]
    #[case::replaced(Some(refusal(409, "uid differs")), Answer::Gone, Some("409"))]
    #[case::budget(
        Some(refusal(429, "Cannot evict")),
        Answer::Refused("evicting pod violates a PDB"),
        Some("429")
    )]
    #[case::two_budgets(
        Some(refusal(
            500,
            "This pod has more than one PodDisruptionBudget, which is not supported"
        )),
        Answer::Refused("eviction does not support multiple PDBs"),
        Some("500")
    )]
    #[case::server_error(Some(refusal(500, "etcd")), Answer::Failed, Some("500"))]
    #[case::no_answer(
        Some(kube::Error::LinesCodecMaxLineLengthExceeded),
        Answer::Failed,
        None
    )]
    fn an_answer_is_understood(
        #[case] error: Option<kube::Error>,
        #[case] expected: Answer,
        #[case] code: Option<&str>,
    ) {
        assert_eq!(answer(error.as_ref()), expected);
        assert_eq!(status_code(error.as_ref()).as_deref(), code);
    }

    #[test]
    fn the_earlier_deadline_holds_and_a_new_pod_starts_anew() {
        let evictions = Evictions::default();
        let old = pod(|_| ());
        evictions.add(&old, Some(at(100)));
        evictions.add(&old, Some(at(200)));
        evictions.add(&old, None);
        assert_eq!(
            evictions.get(&old.key).and_then(|e| e.deadline),
            Some(at(100))
        );
        let new = pod(|p| p.uid = "new".into());
        evictions.add(&new, Some(at(200)));
        assert_eq!(
            evictions.get(&old.key).and_then(|e| e.deadline),
            Some(at(200))
        );
        evictions.observe(&old.key, None);
        assert!(evictions.get(&old.key).is_none());
    }
}
