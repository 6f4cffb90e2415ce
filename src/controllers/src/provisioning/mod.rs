//! The provisioner: batches what happens, plans pods that fit nowhere, and makes the claims of the plan.

pub mod batch;
pub(crate) mod chunks;
pub mod claim;
mod contain;
mod events;
pub(crate) mod execute;
pub mod inflight;
pub mod limits;
pub(crate) mod meter;
pub mod pools;
pub(crate) mod problem;
mod report;
mod triggers;
mod zones;

use std::time::Duration;

use karpenter_model::{Plan, Problem};
use karpenter_plan_check::Severity;
use karpenter_runtime::runner::Rounds;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::batch::Lengths;
use self::meter::Meter;
use self::report::Reporter;
use self::triggers::{Feed, LastRun};
use crate::Context;

/// Name in logs and metrics.
const CONTROLLER: &str = "provisioner";

/// Findings of plan-check about our own plans, by rule and severity. A metric of ours: anything above zero is a bug.
const PLAN_FINDINGS: &str = "karpenter_scheduler_plan_findings_total";

/// When a run that failed in part is repeated although nothing changed.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Shortest time for which a node that pods are planned onto is kept from disruption.
const MIN_NOMINATION: Duration = Duration::from_secs(10);

/// Starts it.
pub(crate) fn start(ctx: &Context) -> Vec<JoinHandle<()>> {
    let (sender, catalog) = mpsc::unbounded_channel();
    let window = (ctx.settings.batch_max_duration * 2).max(MIN_NOMINATION);
    // Subscribes here, not in the task: what happens from now on is not missed.
    let feed = Feed::new(
        ctx.state.clone(),
        ctx.clock.clone(),
        catalog,
        ctx.stop.clone(),
        window,
    );
    let forward = forward(ctx.clone(), sender);
    let provisioner = Provisioner {
        ctx: ctx.clone(),
        reporter: Reporter::default(),
        meter: Meter::new(CONTROLLER, ctx.clock.clone(), ctx.metrics.clone(), &ctx.rng),
    };
    vec![tokio::spawn(forward), tokio::spawn(provisioner.run(feed))]
}

/// Turns notifications, which only a waiting task hears, into messages that wait for their reader.
/// Those who watch the state hear of it there.
async fn forward(ctx: Context, sender: mpsc::UnboundedSender<()>) {
    let (changed, stop) = (ctx.catalog_changed, ctx.stop);
    // Made before the wait, as a notification is heard by those that exist already.
    let mut next = Box::pin(changed.clone().notified_owned());
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = &mut next => {
                next.set(changed.clone().notified_owned());
                ctx.state.catalog_changed();
                if sender.send(()).is_err() {
                    return;
                }
            }
        }
    }
}

struct Provisioner {
    ctx: Context,
    reporter: Reporter,
    meter: Meter,
}

impl Provisioner {
    async fn run(mut self, mut feed: Feed) {
        let lengths = Lengths {
            idle: self.ctx.settings.batch_idle_duration,
            max: self.ctx.settings.batch_max_duration,
        };
        tokio::select! {
            biased;
            () = self.ctx.stop.cancelled() => return,
            () = self.ctx.state.wait_synced() => {}
        }
        let mut rounds = Rounds::new(CONTROLLER, &self.ctx.rng);
        while batch::collect(&mut feed, lengths).await.is_some() {
            let last = rounds.begin().run(self.provision(&mut feed)).await;
            feed.ran(last);
        }
    }

    /// One run: from what is, to claims created and nodes nominated.
    async fn provision(&mut self, feed: &mut Feed) -> LastRun {
        let ctx = self.ctx.clone();
        let started = ctx.clock.now();
        let registry = ctx.provider.labels.clone();
        let generation = ctx.state.planning_generation();
        let pods = problem::collect(&ctx.state, &registry, ctx.clock.wall());
        if pods.is_empty() {
            // Known before the provider is asked anything.
            self.reporter.refused(&ctx, &pods.refused);
            self.reporter.nothing_pending(&ctx);
            zones::tell(&ctx.metrics, CONTROLLER, &Problem::default(), &ctx.wares);
            ctx.state
                .set_buffer_fits(pods.chunks.fits(&[], &Plan::default()));
            return LastRun::about(generation, &pods);
        }
        let (stocked, mut failed) = problem::stock(&ctx).await;
        // Capacity before pods: what changes between the two reads then errs towards too little bought, which the
        // next run makes up for, and not towards too much.
        let generation = ctx.state.planning_generation();
        let marked = ctx.state.marked_nodes();
        let nodes = problem::nodes(&ctx.state, &stocked, &registry);
        let pods = problem::collect(&ctx.state, &registry, ctx.clock.wall());
        self.reporter.refused(&ctx, &pods.refused);
        let mut last = LastRun::about(generation, &pods);
        tracing::debug!(
            pending_pods = pods.pending.len(),
            deleting_pods = pods.leaving.len(),
            buffer_pods = pods.chunks.pods.len(),
            "computing scheduling decision for provisionable pod(s)"
        );
        let pools = problem::pool_views(&ctx.state, &nodes, &marked, &stocked, &registry);
        if pools.is_empty() {
            tracing::info!("no dynamic nodepools found");
        }
        let problem = problem::build(&ctx, &pods, nodes, pools);
        let solve = |problem: &Problem| karpenter_solver::solve_knowing(problem, &ctx.wares);
        let mut plan = (self.meter).solve(problem.pods.len(), || solve(&problem));
        let took = ctx.clock.now().duration_since(started);
        if ctx.settings.verify_plans && !is_sound(&ctx, &problem, &plan) {
            let planned = |part: &Problem| {
                let plan = solve(part);
                let findings = karpenter_plan_check::check(part, &plan);
                let sound = findings.iter().all(|f| f.severity != Severity::Error);
                sound.then_some(plan)
            };
            let part = contain::sound_part(&problem, planned);
            tracing::error!(
                pods = part.left_out.len(),
                "planning without pods for which a plan breaks a rule"
            );
            plan = part.told();
        }
        self.meter.took(took);
        zones::tell(&ctx.metrics, CONTROLLER, &problem, &ctx.wares);
        self.reporter.planned(&ctx, &problem, &plan, took);
        feed.decided(&ctx.metrics, pods.pending.iter(), &plan);
        ctx.state
            .set_buffer_fits(pods.chunks.fits(&problem.nodes, &plan));
        last.chunk_is_missing = plan.unschedulable.iter().any(|u| {
            let chunks = &pods.chunks.pods;
            chunks.iter().any(|p| p.key == u.pod)
        });

        let outcome = execute::carry_out(&ctx, &problem, &plan).await;
        feed.nominate(&outcome.nominated);
        last.nominated = outcome.nominated;
        failed |= outcome.failed;
        if failed || plan.cut_off {
            let wait = if plan.cut_off {
                Duration::ZERO
            } else {
                RETRY_AFTER
            };
            last.retry_at = Some(Instant::now() + wait);
        }
        last
    }
}

/// Has the plan judged; an error in it is logged, counted and makes it unfit to be carried out.
fn is_sound(ctx: &Context, problem: &Problem, plan: &Plan) -> bool {
    let mut sound = true;
    for finding in karpenter_plan_check::check(problem, plan) {
        let is_error = finding.severity == Severity::Error;
        let severity = if is_error { "error" } else { "odd" };
        let labels = [("rule", finding.rule), ("severity", severity)];
        ctx.metrics.inc(PLAN_FINDINGS, &labels);
        if is_error {
            sound = false;
            tracing::error!(
                rule = finding.rule,
                error = %finding.message,
                "refusing a plan that breaks a rule; please report this"
            );
        } else {
            tracing::debug!(rule = finding.rule, finding = %finding.message, "plan is odd");
        }
    }
    sound
}
