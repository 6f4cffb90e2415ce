//! Tells a random story: the storm, watched at every second; then peace, in which everything must come to rest.

use std::time::Duration;

use karpenter_api::labels;
use karpenter_fake_kube::server::gr;
use karpenter_runtime::RngTree;

use super::cluster::{Cluster, Weather};
use super::listen::Ear;
use super::operator::{healing, storm};
use super::watch::Watch;
use crate::json::{condition, is_daemon, is_running, name, text};
use crate::observe::Entry;
use crate::report::{self, Expectation};
use crate::run::{self, RunError};
use crate::scenario::Loaded;
use crate::scenario::schema::{
    Cloud, ProviderName, Scenario, Span, Step, default_cluster, default_region,
};
use crate::world::World;

/// How often the watch looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Rest that counts as rest.
const QUIET_SECONDS: f64 = 30.0 * 60.0;
/// How long after the storm everything must have come to rest.
const PEACE_SECONDS: f64 = 4.0 * 3600.0;

/// A story of a seed.
#[derive(Clone, Debug)]
pub struct Story {
    /// The seed.
    pub seed: u64,
    /// The cluster.
    pub cluster: Cluster,
    /// What happens to it.
    pub steps: Vec<Step>,
}

/// How it went.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What was broken, with the second and the rule.
    pub broken: Vec<String>,
    /// Commands that were begun.
    pub moves: usize,
    /// Machines that joined.
    pub nodes: u64,
    /// Milestones.
    pub timeline: Vec<Entry>,
}

impl Story {
    /// That of `seed`: odd ones on EC2, even ones on KWOK.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let tree = RngTree::new(seed);
        let provider = if seed % 2 == 1 {
            ProviderName::Ec2
        } else {
            ProviderName::Kwok
        };
        let cluster = Cluster::draw(&tree, provider, Weather::Stormy);
        let steps = storm(&tree, &cluster);
        Self {
            seed,
            cluster,
            steps,
        }
    }

    /// The same cluster, with only some of the steps.
    #[must_use]
    pub fn with_steps(&self, keep: &[usize]) -> Self {
        let steps = keep.iter().filter_map(|i| self.steps.get(*i)).cloned();
        Self {
            steps: steps.collect(),
            ..self.clone()
        }
    }

    /// As a scenario.
    #[must_use]
    pub fn loaded(&self) -> Loaded {
        loaded(&self.cluster, self.seed, self.steps.clone())
    }
}

/// A scenario of a random cluster.
#[must_use]
pub fn loaded(cluster: &Cluster, seed: u64, steps: Vec<Step>) -> Loaded {
    let cloud = Cloud {
        provider: cluster.provider,
        region: default_region(),
        cluster_name: default_cluster(),
        instance_types: None,
        capacity_reservations: Vec::new(),
    };
    let repair = ("featureGates.nodeRepair".to_owned(), true.into());
    let scenario = Scenario {
        description: format!("The random story of seed {seed}."),
        seed,
        cloud,
        settings: [repair].into(),
        leader_election: cluster.elections,
        objects: cluster.objects.clone(),
        files: Vec::new(),
        steps,
        settle: Span::default(),
    };
    Loaded::of(format!("storm-{seed}"), scenario)
}

/// A story while it is told: its world, with the watch's eyes on it.
pub(super) struct Telling<'a> {
    loaded: &'a Loaded,
    look_every: Duration,
    pub(super) world: World,
    pub(super) watch: Watch,
    /// What steps expected, and what became of it.
    expectations: Vec<Expectation>,
    /// Its controller is heard as long as this is there.
    _listening: tracing::subscriber::DefaultGuard,
}

impl<'a> Telling<'a> {
    /// Makes the world of a story, and starts its controller.
    pub(super) async fn begin(
        loaded: &'a Loaded,
        seed: u64,
        look_every: Duration,
    ) -> Result<Self, RunError> {
        let ear = Ear::default();
        let listening = ear.listen();
        let mut world = run::world(loaded, seed)?;
        for object in &loaded.objects {
            world.apply(object)?;
        }
        let watch = Watch::new(&world, ear);
        world.start_controller().await?;
        Ok(Self {
            loaded,
            look_every,
            world,
            watch,
            expectations: Vec::new(),
            _listening: listening,
        })
    }

    /// Takes steps, each at its time.
    pub(super) async fn take(
        &mut self,
        steps: impl IntoIterator<Item = &Step>,
    ) -> Result<(), RunError> {
        let (world, watch) = (&mut self.world, &mut self.watch);
        for (index, step) in steps.into_iter().enumerate() {
            let at = step.at.unwrap_or_default().0;
            while !world.until(at).is_zero() {
                world
                    .clock
                    .sleep(world.until(at).min(self.look_every))
                    .await;
                watch.look(world);
                world.mind_controller().await?;
            }
            if step.cloud.as_ref().is_some_and(|c| c.price.is_some()) {
                watch.prices_change(world);
            }
            let mut look = |world: &World| watch.look(world);
            let out = &mut self.expectations;
            run::take(world, self.loaded, index, step, out, Some(&mut look)).await?;
            watch.look(world);
        }
        Ok(())
    }
}

/// Tells it. Needs a paused single-threaded tokio runtime.
///
/// # Errors
/// When it cannot be told to its end.
pub async fn tell(story: &Story) -> Result<Outcome, RunError> {
    let loaded = story.loaded();
    let mut telling = Telling::begin(&loaded, story.seed, LOOK_EVERY).await?;
    let healing = healing(&story.cluster);
    telling.take(story.steps.iter().chain(&healing)).await?;
    let Telling {
        mut world,
        mut watch,
        ..
    } = telling;
    let storm_over = world.elapsed();
    watch.last_change = storm_over;
    loop {
        world.clock.sleep(LOOK_EVERY).await;
        watch.look(&world);
        world.mind_controller().await?;
        let quiet = world.elapsed() - watch.last_change.max(storm_over) >= QUIET_SECONDS;
        if quiet || world.elapsed() - storm_over >= PEACE_SECONDS {
            break;
        }
    }
    if world.elapsed() - watch.last_change < QUIET_SECONDS {
        let what =
            "everything comes to rest: NodeClaims still come and go four hours after the storm";
        watch.broken.push(what.to_owned());
    }
    watch.broken.extend(unsettled(&world));
    watch.broken.extend(report::violations(&world));
    let (nodes, timeline) = {
        let observed = world.observed.lock();
        (observed.nodes_launched, observed.entries().to_vec())
    };
    let outcome = Outcome {
        broken: watch.broken,
        moves: watch.moves.len(),
        nodes,
        timeline,
    };
    world.end().await;
    Ok(outcome)
}

/// What came of a story that somebody wrote, and that was watched.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// What was broken: rules, and expectations.
    pub broken: Vec<String>,
    /// Commands that were begun.
    pub moves: usize,
    /// When each expectation was met, in words.
    pub ended: Vec<String>,
}

/// Tells a scenario with the watch's eyes on it. Needs a paused single-threaded tokio runtime.
///
/// # Errors
/// When it cannot be told to its end.
pub async fn watched(loaded: &Loaded, seed: u64) -> Result<Told, RunError> {
    let mut telling = Telling::begin(loaded, seed, LOOK_EVERY).await?;
    telling.take(&loaded.scenario.steps).await?;
    let Telling {
        world,
        watch,
        expectations,
        ..
    } = telling;
    let mut told = Told {
        broken: watch.broken,
        moves: watch.moves.len(),
        ended: Vec::new(),
    };
    told.broken.extend(report::violations(&world));
    for e in &expectations {
        let line = format!("{:.0}s {}, saw {}", e.at, e.expect, e.saw);
        if e.ok {
            told.ended.push(line);
        } else {
            told.broken.push(line);
        }
    }
    world.end().await;
    Ok(told)
}

/// What is not as it should be in a cluster at rest.
fn unsettled(world: &World) -> Vec<String> {
    let mut out = Vec::new();
    for pod in world.api.list(gr("", "pods"), None) {
        if !is_running(&pod) && !is_daemon(&pod) {
            let why = report::why_pending(world, &pod);
            out.push(format!(
                "all that can run runs: pod {} does not: {why}",
                name(&pod)
            ));
        }
    }
    for node in world.api.list(gr("", "nodes"), None) {
        let taints = node.pointer("/spec/taints").and_then(|t| t.as_array());
        let marked = taints
            .into_iter()
            .flatten()
            .any(|t| text(t, "/key") == labels::DISRUPTED_TAINT);
        if marked && text(&node, "/metadata/deletionTimestamp").is_empty() {
            out.push(format!("a rollback leaves no taint: node {}", name(&node)));
        }
    }
    for claim in world.api.list(gr("karpenter.sh", "nodeclaims"), None) {
        if !text(&claim, "/metadata/deletionTimestamp").is_empty() {
            out.push(format!(
                "every NodeClaim has an end: {} is still going",
                name(&claim)
            ));
        } else if condition(&claim, "DisruptionReason") == "True" {
            out.push(format!("a rollback leaves no condition: {}", name(&claim)));
        }
    }
    out
}
