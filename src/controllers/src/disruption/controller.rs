//! The disruption loop (`lifecycle-and-disruption.md` §6.1): the methods in order, the first that finds something
//! begins it and ends the pass. Where upstream looks every ten seconds, this loop wakes when something changed or a
//! known obstacle ends.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use karpenter_runtime::runner::Rounds;
use karpenter_state::{Changed, Kind};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::balanced::Verdict;
use super::drift::Drift;
use super::emptiness::Emptiness;
use super::method::{Command, Method, Proposal, Reason, Rejection};
use super::moves::Moves;
use super::multi::{KIND as MULTI, MultiNode};
use super::orchestrate;
use super::single::{KIND as SINGLE, SingleNode};
use super::snapshot::{self, Snapshot};
use super::static_drift::StaticDrift;
use super::under_way::UnderWay;
use super::{allowance::Allowance, events};
use crate::Context;
use crate::lifecycle::objects::until;
use crate::provisioning::meter::Meter;

/// Name of the passes in logs and metrics.
const CONTROLLER: &str = "disruption";
/// Name of what carries commands out.
const QUEUE_CONTROLLER: &str = "disruption.queue";
/// How long a command is thought over before it is begun.
const VALIDATION_WAIT: Duration = Duration::from_secs(15);
/// Shortest time between two passes: a burst of changes is looked at once.
const PASS_INTERVAL: Duration = Duration::from_secs(1);
/// Wait after a pass that failed.
const RETRY_WAIT: Duration = Duration::from_secs(10);

/// Starts the loop.
pub(crate) fn start(ctx: &Context) -> Vec<JoinHandle<()>> {
    let changes = ctx.state.subscribe();
    let mut methods: Vec<Arc<dyn Method>> = vec![
        Arc::new(Emptiness),
        Arc::new(Drift),
        Arc::new(MultiNode::default()),
        Arc::new(SingleNode::default()),
    ];
    if ctx.settings.feature_gates.static_capacity {
        methods.insert(1, Arc::new(StaticDrift));
    }
    for kind in [MULTI, SINGLE] {
        // Searches are bounded by the nodes they look at, and what a pass has not reached is for the next one: no clock
        // ever cuts one off. The counter is there for the dashboards that ask for it.
        let labels = [("consolidation_type", kind)];
        let name = "karpenter_voluntary_disruption_consolidation_timeouts_total";
        ctx.metrics.add(name, &labels, 0.0);
    }
    let disruption = Disruption {
        ctx: ctx.clone(),
        methods,
        under_way: UnderWay::default(),
        rounds: Rounds::new(CONTROLLER, &ctx.rng),
        command_rounds: Rounds::new(QUEUE_CONTROLLER, &ctx.rng),
        commands: JoinSet::new(),
        moves: Moves::start(ctx),
        meter: Meter::new(CONTROLLER, ctx.clock.clone(), ctx.metrics.clone(), &ctx.rng),
    };
    vec![tokio::spawn(disruption.run(changes, ctx.stop.clone()))]
}

struct Disruption {
    ctx: Context,
    /// In the order they are asked.
    methods: Vec<Arc<dyn Method>>,
    under_way: UnderWay,
    /// One a pass.
    rounds: Rounds,
    /// One a command that is carried out.
    command_rounds: Rounds,
    commands: JoinSet<()>,
    moves: Moves,
    meter: Meter,
}

/// How a pass ended.
enum Pass {
    /// A command was begun: look again at once.
    Began,
    /// Nothing to do, before that time at least.
    Nothing(Option<Timestamp>),
}

impl Disruption {
    async fn run(mut self, mut changes: UnboundedReceiver<Changed>, stop: CancellationToken) {
        let end = stop.clone();
        tokio::select! {
            biased;
            () = end.cancelled() => {}
            () = self.passes(&mut changes) => {}
        }
        // Commands that have begun are cut off: the next start finds what they left.
        self.commands.shutdown().await;
    }

    async fn passes(&mut self, changes: &mut UnboundedReceiver<Changed>) {
        self.ctx.state.wait_synced().await;
        loop {
            while changes.try_recv().is_ok() {}
            let started = self.ctx.clock.now();
            let round = self.rounds.begin();
            match round.run(self.pass()).await {
                Pass::Began => {}
                Pass::Nothing(wake) => self.wait(changes, wake).await,
            }
            tokio::time::sleep_until(started + PASS_INTERVAL).await;
        }
    }

    /// Waits for a change that matters, a command's end or `wake`.
    async fn wait(&mut self, changes: &mut UnboundedReceiver<Changed>, wake: Option<Timestamp>) {
        let alarm = wake.map(|at| until(at, self.ctx.clock.wall()));
        let alarm = async {
            match alarm {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(alarm);
        loop {
            tokio::select! {
                biased;
                change = changes.recv() => match change {
                    Some(change) if matters(change.kind) => return,
                    Some(_) => {}
                    None => std::future::pending().await,
                },
                Some(_) = self.commands.join_next() => return,
                () = &mut alarm => return,
            }
        }
    }

    async fn pass(&mut self) -> Pass {
        if let Err(error) = orchestrate::heal_leftovers(&self.ctx, &self.under_way).await {
            tracing::debug!(error = %error, "failed removing leftover marks");
            return Pass::Nothing(Some(crate::lifecycle::objects::later(
                self.ctx.clock.wall(),
                RETRY_WAIT,
            )));
        }
        let mut wake: Option<Timestamp> = None;
        let snapshot = snapshot::take(&self.ctx, &self.meter, &self.under_way.now()).await;
        for method in self.methods.clone() {
            let began = self.ctx.clock.now();
            let now = self.ctx.clock.wall();
            let proposal = method.propose(&snapshot, now);
            self.report(&*method, &snapshot, &proposal, now);
            self.ctx.metrics.observe(
                "karpenter_voluntary_disruption_decision_evaluation_duration_seconds",
                &labels(&*method),
                self.ctx
                    .clock
                    .now()
                    .saturating_duration_since(began)
                    .as_secs_f64(),
            );
            wake = [wake, proposal.wake].into_iter().flatten().min();
            let commands = proposal.commands.into_iter();
            let most = if method.begins_all() { usize::MAX } else { 1 };
            let commands: Vec<_> = commands.take(most).collect();
            if !commands.is_empty() {
                for command in commands {
                    self.begin(&*method, command).await;
                }
                return Pass::Began;
            }
        }
        Pass::Nothing(wake)
    }

    async fn begin(&mut self, method: &dyn Method, command: Command) {
        let found = command.clone();
        let command = if method.waits() {
            self.ctx.clock.sleep(VALIDATION_WAIT).await;
            let snapshot = snapshot::take(&self.ctx, &self.meter, &self.under_way.now()).await;
            match method.revise(&command, &snapshot, self.ctx.clock.wall()) {
                Ok(command) => command,
                Err(why) => return self.rejected(method, &found, why),
            }
        } else {
            command
        };
        match orchestrate::begin(&self.ctx, &self.meter, &self.under_way, method, command).await {
            Ok(command) => {
                let (ctx, under_way) = (self.ctx.clone(), self.under_way.clone());
                let (round, moves) = (self.command_rounds.begin(), self.moves.clone());
                self.commands
                    .spawn(round.run(orchestrate::carry_out(ctx, under_way, moves, command)));
            }
            Err(why) => self.rejected(method, &found, why),
        }
    }

    fn rejected(&self, method: &dyn Method, command: &Command, why: Rejection) {
        tracing::debug!(
            reason = method.reason().as_str(),
            why = why.as_str(),
            "abandoning a command that is not valid any more"
        );
        if why.is_failed_validation() {
            self.ctx.metrics.add(
                "karpenter_voluntary_disruption_failed_validations_total",
                &[("consolidation_type", method.consolidation_type())],
                count(command.candidates.len()),
            );
        }
        if method.reason() == Reason::Underutilized {
            for event in events::rejected(command, why) {
                self.ctx.events.publish(event);
            }
        }
    }

    /// What pools made of moves that were found.
    fn judged(&self, method: &dyn Method, snapshot: &Snapshot, verdicts: &[Verdict]) {
        for verdict in verdicts {
            let labels = [
                (
                    "decision",
                    if verdict.approved {
                        "approved"
                    } else {
                        "rejected"
                    },
                ),
                ("nodepool", &*verdict.pool),
                ("policy", &*verdict.policy),
            ];
            let metrics = &self.ctx.metrics;
            metrics.inc("karpenter_consolidation_moves_total", &labels);
            if let Some(score) = verdict.score {
                metrics.observe("karpenter_consolidation_score", &labels, score.value);
            }
            let Some(words) = verdict.words().filter(|_| verdict.approved) else {
                continue;
            };
            for member in verdict.members.iter().filter_map(|n| snapshot.member(n)) {
                for event in events::approved(member, &words) {
                    self.ctx.events.publish(event);
                }
            }
            if method.consolidation_type() == MULTI
                && let Some(pool) = snapshot.pools.get(&verdict.pool)
            {
                self.ctx
                    .events
                    .publish(events::pool_approved(&pool.pool, &words));
            }
        }
    }

    /// Events and gauges of a proposal.
    fn report(
        &self,
        method: &dyn Method,
        snapshot: &Snapshot,
        proposal: &Proposal,
        now: Timestamp,
    ) {
        let reason = method.reason();
        for (name, refusal) in &proposal.refusals {
            if let Some(member) = snapshot.member(name) {
                events::refused(member, refusal)
                    .into_iter()
                    .for_each(|e| self.ctx.events.publish(e));
            }
        }
        for (name, savings) in &proposal.found {
            if let Some(member) = snapshot.member(name) {
                events::candidate(member, *savings)
                    .into_iter()
                    .for_each(|e| self.ctx.events.publish(e));
            }
        }
        self.judged(method, snapshot, &proposal.judged);
        for pool in &proposal.blocked_pools {
            if let Some(pool) = snapshot.pools.get(pool) {
                self.ctx
                    .events
                    .publish(events::budget_blocks(&pool.pool, reason));
            }
        }
        self.ctx.metrics.set(
            "karpenter_voluntary_disruption_eligible_nodes",
            &[("reason", reason.metric())],
            count(proposal.eligible),
        );
        for (pool, counts) in Allowance::new(snapshot, reason, now).iter() {
            let labels = [("nodepool", &**pool), ("reason", reason.as_str())];
            let metrics = &self.ctx.metrics;
            metrics.set(
                "karpenter_nodepools_allowed_disruptions",
                &labels,
                count(counts.allowed),
            );
            let name = "karpenter_nodepools_nodes_consuming_budgets";
            metrics.set(name, &labels, count(counts.disrupting));
        }
    }
}

fn labels(method: &dyn Method) -> [(&'static str, &'static str); 2] {
    [
        ("reason", method.reason().metric()),
        ("consolidation_type", method.consolidation_type()),
    ]
}

/// Whether a change of this kind can make a command possible that was not before.
fn matters(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Pod
            | Kind::Node
            | Kind::NodeClaim
            | Kind::NodePool
            | Kind::PodDisruptionBudget
            | Kind::CapacityBuffer
            | Kind::NodeOverlay
            | Kind::Catalog
    )
}

fn count(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::MAX, f64::from)
}
