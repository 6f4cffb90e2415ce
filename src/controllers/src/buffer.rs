//! `capacitybuffer`: says in a CapacityBuffer's status what it comes to and whether there is room for it
//! (`scheduling.md` §13). What it comes to is the state's to know, where its chunks find room is the provisioner's;
//! this loop has the one hand that writes, so that the two cannot overwrite each other's condition.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use karpenter_api::CapacityBuffer;
use karpenter_api::capacitybuffer::{ACTIVE_CAPACITY, LocalRef};
use karpenter_api::condition::capacity_buffer::{PROVISIONING, READY_FOR_PROVISIONING, reasons};
use karpenter_api::condition::{self, Status};
use karpenter_api::kinds::{Condition, Time};
use karpenter_model::PodKey;
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::runner::{self, ReconcileError, RunnerOptions};
use karpenter_runtime::{Action, Key, Queue, Reconciler};
use karpenter_state::{Changed, Chunks, Fit, Kind, Resolution};
use tokio::task::JoinHandle;

use crate::Context;
use crate::hearing::{Hearer, listen};
use crate::lifecycle::write;

/// Starts it.
pub(crate) fn start(ctx: &Context) -> Vec<JoinHandle<()>> {
    let changes = ctx.state.subscribe();
    let (queue, task) = runner::spawn(
        Arc::new(Buffer { ctx: ctx.clone() }),
        RunnerOptions::default(),
        ctx.clock.clone(),
        &ctx.rng,
        ctx.stop.clone(),
    );
    let feed = Feed {
        ctx: ctx.clone(),
        queue,
    };
    vec![task, tokio::spawn(listen(ctx.clone(), changes, feed))]
}

/// Everything that a status depends on is told as a change of its buffer.
struct Feed {
    ctx: Context,
    queue: Queue,
}

impl Hearer<Changed> for Feed {
    fn everything(&mut self) {
        for key in self.ctx.state.capacity_buffers() {
            self.queue.add(Key::namespaced(&key.namespace, &key.name));
        }
    }
    fn hear(&mut self, change: Changed) {
        if change.kind == Kind::CapacityBuffer && !change.deleted {
            self.queue
                .add(Key::namespaced(&change.namespace, &change.name));
        }
    }
}

struct Buffer {
    ctx: Context,
}

#[async_trait]
impl Reconciler for Buffer {
    fn name(&self) -> &'static str {
        "capacitybuffer"
    }
    fn group_kind(&self) -> (&'static str, &'static str) {
        ("autoscaling.x-k8s.io", "CapacityBuffer")
    }
    fn metrics(&self) -> Option<&Metrics> {
        Some(&self.ctx.metrics)
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let state = &self.ctx.state;
        let key = PodKey {
            namespace: key.namespace.clone().unwrap_or_default(),
            name: key.name.clone(),
        };
        let Some(buffer) = state.capacity_buffer(&key) else {
            return Ok(Action::AwaitChange);
        };
        let Some(resolution) = state.resolution(&key) else {
            return Ok(Action::AwaitChange);
        };
        let fit = state.buffer_fit(&key);
        let wanted = judged(&buffer, &resolution, fit.as_ref(), self.ctx.clock.wall());
        write::buffer_status(&self.ctx, &buffer, &wanted).await?;
        Ok(Action::AwaitChange)
    }
}

/// `buffer` with its status as it should be.
fn judged(
    buffer: &CapacityBuffer,
    resolution: &Resolution,
    fit: Option<&Fit>,
    now: Timestamp,
) -> CapacityBuffer {
    let mut wanted = buffer.clone();
    let status = &mut wanted.status;
    let strategy = buffer.spec.provisioning_strategy.clone();
    status.provisioning_strategy = Some(strategy.unwrap_or_else(|| ACTIVE_CAPACITY.to_owned()));
    let template = match resolution {
        Resolution::Ready(chunks) => chunks.template.as_ref(),
        Resolution::NotReady { .. } => None,
    };
    status.pod_template_ref = template.map(|(name, _)| LocalRef {
        name: name.to_string(),
    });
    status.pod_template_generation = template.and_then(|(_, generation)| *generation);
    status.replicas = match resolution {
        Resolution::Ready(chunks) => Some(i32::try_from(chunks.pods.len()).unwrap_or(i32::MAX)),
        Resolution::NotReady { .. } => None,
    };
    for (kind, verdict) in [
        (READY_FOR_PROVISIONING, Some(ready(resolution))),
        (PROVISIONING, provisioning(resolution, fit)),
    ] {
        // Nothing is known of it until a plan was made.
        let Some((verdict, reason, message)) = verdict else {
            continue;
        };
        let condition = Condition {
            type_: kind.to_owned(),
            status: verdict.as_str().to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: buffer.metadata.generation,
            last_transition_time: Time(now),
        };
        condition::merge(&mut status.conditions, condition);
    }
    wanted
}

/// Status, reason and message.
type Verdict = (Status, &'static str, String);

fn ready(resolution: &Resolution) -> Verdict {
    match resolution {
        Resolution::Ready(Chunks { asked, pods, .. }) => {
            let message = asked.map_or_else(String::new, |asked| {
                format!(
                    "{asked} chunks are more than there may be: {} are provided",
                    pods.len()
                )
            });
            (Status::True, reasons::RESOLVED, message)
        }
        Resolution::NotReady { reason, message } => (Status::False, reason, message.clone()),
    }
}

fn provisioning(resolution: &Resolution, fit: Option<&Fit>) -> Option<Verdict> {
    let no = |reason, message: String| Some((Status::False, reason, message));
    match resolution {
        Resolution::NotReady { .. } => no(
            reasons::NOT_READY_FOR_PROVISIONING,
            "it is not known what a chunk looks like".to_owned(),
        ),
        Resolution::Ready(chunks) if chunks.pods.is_empty() => {
            no(reasons::BUFFER_EMPTY, "there are no chunks".to_owned())
        }
        Resolution::Ready(_) => {
            let fit = fit?;
            let all = fit.there + fit.coming + fit.missing;
            if fit.coming == 0 && fit.missing == 0 {
                let message = format!("nodes have room for all {all} chunks");
                return Some((Status::True, reasons::FITS_EXISTING_CAPACITY, message));
            }
            let mut message = format!("nodes have room for {} of {all} chunks", fit.there);
            if fit.coming > 0 {
                message.push_str(&format!(", nodes for {} are on their way", fit.coming));
            }
            if let Some(why) = fit.why.as_ref().filter(|_| fit.missing > 0) {
                message.push_str(&format!(", {} have no place: {why}", fit.missing));
            }
            no(reasons::REQUIRES_NEW_CAPACITY, message)
        }
    }
}

#[cfg(test)]
mod tests {
    use karpenter_model::Pod;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn chunks(count: usize) -> Resolution {
        Resolution::Ready(Chunks {
            template: Some(("t".into(), Some(4))),
            pods: (0..count).map(|_| Arc::new(Pod::default())).collect(),
            asked: None,
        })
    }

    fn fit(there: usize, coming: usize, missing: usize) -> Option<Fit> {
        Some(Fit {
            there,
            coming,
            missing,
            why: (missing > 0).then(|| "too large".to_owned()),
        })
    }

    fn lost() -> Resolution {
        Resolution::NotReady {
            reason: reasons::POD_TEMPLATE_NOT_FOUND,
            message: "PodTemplate \"t\" not found".to_owned(),
        }
    }

    #[rstest]
    #[case::lost(
        lost(),
        None,
        "False PodTemplateNotFound PodTemplate \"t\" not found",
        "False NotReadyForProvisioning it is not known what a chunk looks like"
    )]
    #[case::none(
        chunks(0),
        None,
        "True Resolved ",
        "False BufferEmpty there are no chunks"
    )]
    #[case::unplanned(chunks(2), None, "True Resolved ", "")]
    #[case::fits(
        chunks(2),
        fit(2, 0, 0),
        "True Resolved ",
        "True FitsExistingCapacity nodes have room for all 2 chunks"
    )]
    #[case::waits(
        chunks(6),
        fit(1, 2, 3),
        "True Resolved ",
        "False RequiresNewCapacity nodes have room for 1 of 6 chunks, nodes for 2 are on their way, 3 have no place: too large"
    )]
    fn a_status_says_what_a_buffer_comes_to(
        #[case] resolution: Resolution,
        #[case] fit: Option<Fit>,
        #[case] ready: &str,
        #[case] provisioning: &str,
    ) {
        let buffer: CapacityBuffer = serde_json::from_value(json!({
            "metadata": {"name": "b", "generation": 3},
            "status": {"replicas": 9, "podTemplateRef": {"name": "old"}, "podTemplateGeneration": 1},
        }))
        .unwrap();
        let judged = judged(&buffer, &resolution, fit.as_ref(), Timestamp::UNIX_EPOCH);
        let of = |kind: &str| {
            let found = condition::get(&judged.status.conditions, kind);
            found.map_or(String::new(), |c| {
                assert_eq!(c.observed_generation, Some(3));
                format!("{} {} {}", c.status, c.reason, c.message)
            })
        };
        assert_eq!(of(READY_FOR_PROVISIONING), ready);
        assert_eq!(of(PROVISIONING), provisioning);
        let status = serde_json::to_value(&judged.status).unwrap();
        let known = !matches!(resolution, Resolution::NotReady { .. });
        assert_eq!(
            status.get("podTemplateGeneration"),
            known.then_some(&json!(4))
        );
        assert_eq!(judged.status.replicas.is_some(), known);
        assert_eq!(status["provisioningStrategy"], ACTIVE_CAPACITY);
        let again = super::judged(&judged, &resolution, fit.as_ref(), Timestamp::MAX);
        assert_eq!(again, judged, "judging again changes nothing");
    }

    #[test]
    fn a_cut_is_told() {
        let mut resolution = chunks(2);
        if let Resolution::Ready(chunks) = &mut resolution {
            chunks.asked = Some(70_000);
        }
        assert!(ready(&resolution).2.starts_with("70000 chunks are more"));
    }
}
