//! Runs a scenario: makes its world, takes its steps, judges what it expects, and reports.

use std::path::Path;
use std::time::Duration;

use karpenter_fake_kube::server::ApiServer;
use karpenter_provider_kwok::catalog::{self, CatalogError};
use karpenter_runtime::Settings;
use serde_json::{Value, json};

use crate::expect::{judge, select};
use crate::holding::Holding;
use crate::json::{name, text};
use crate::kinds;
use crate::manifests::{ManifestError, read_objects, upgrade};
use crate::report::{self, Expectation, Report};
use crate::scenario::schema::{ControllerAction, NodeSelector, ProviderName, Span, Step, Target};
use crate::scenario::{self, Loaded};
use crate::strict::unfit;
use crate::world::{self, CloudKind, Ec2Account, LiveCluster, World, WorldError, WorldOptions};

/// How long `wait.until` waits when nothing else is said.
const DEFAULT_TIMEOUT: Span = Span::seconds(600);
/// How often `wait.until` looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long it may take until what was made on a running cluster is seen.
const SEEN_WITHIN: Duration = Duration::from_secs(5);

/// Why a scenario could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The world refused something.
    #[error(transparent)]
    World(#[from] WorldError),
    /// A file is missing or broken.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The catalogue is broken.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Types of the catalogue that cannot be used.
    #[error("{0}")]
    Types(String),
    /// A story about another cloud than the one a running cluster has.
    #[error("a running cluster has KWOK machines only")]
    OtherCloud,
    /// Settings that cannot be meant.
    #[error("settings: {0}")]
    Settings(String),
    /// A step that cannot be taken.
    #[error("steps[{step}]: {message}")]
    Step {
        /// Index from 0.
        step: usize,
        /// Why.
        message: String,
    },
}

/// Runs `loaded` in virtual time with `seed`, or its own. Needs a paused single-threaded tokio runtime.
///
/// # Errors
/// When it cannot be run to its end; failed expectations are in the report.
pub async fn run(loaded: &Loaded, seed: Option<u64>) -> Result<Report, RunError> {
    let scenario = &loaded.scenario;
    let seed = seed.unwrap_or(scenario.seed);
    tell(world(loaded, seed)?, loaded, seed).await
}

/// Reads the scenario at `path` (a folder or a file) and runs it with `seed`, or its own, in a runtime of its own.
///
/// # Errors
/// When it cannot be read or run to its end, in words; failed expectations are in the report.
pub fn run_at(path: &Path, seed: Option<u64>) -> Result<Report, String> {
    let loaded = scenario::load(path).map_err(|e| e.to_string())?;
    let runtime = world::virtual_runtime().map_err(|e| e.to_string())?;
    runtime
        .block_on(run(&loaded, seed))
        .map_err(|e| e.to_string())
}

/// The world of a scenario in virtual time, with nothing in it yet.
pub(crate) fn world(loaded: &Loaded, seed: u64) -> Result<World, RunError> {
    let mut world = World::new(WorldOptions {
        seed,
        clock: world::virtual_clock(),
        settings: settings(loaded)?,
        cloud: cloud(loaded)?,
    })?;
    if loaded.scenario.leader_election {
        world.hold_elections();
    }
    Ok(world)
}

/// Runs `loaded` on a running cluster, in real time: its waiting is cut short, what it waits for and expects may take its
/// time.
///
/// # Errors
/// When it cannot be run to its end; failed expectations are in the report.
pub async fn run_on(loaded: &Loaded, cluster: LiveCluster) -> Result<Report, RunError> {
    let seed = loaded.scenario.seed;
    let options = WorldOptions {
        seed,
        clock: karpenter_runtime::Clock::real(),
        settings: settings(loaded)?,
        cloud: cloud(loaded)?,
    };
    if !matches!(options.cloud, CloudKind::Kwok { .. }) {
        return Err(RunError::OtherCloud);
    }
    let world = World::on_cluster(options, cluster).await?;
    tell(world, loaded, seed).await
}

/// Takes the steps.
async fn tell(mut world: World, loaded: &Loaded, seed: u64) -> Result<Report, RunError> {
    let scenario = &loaded.scenario;
    for object in &loaded.objects {
        if world.is_live() {
            world.put(object).await.map_err(WorldError::Cluster)?;
        } else {
            world.apply(object)?;
        }
    }
    world.start_controller().await?;
    let mut expectations = Vec::new();
    for (index, step) in scenario.steps.iter().enumerate() {
        if let Some(at) = step.at {
            world.clock.sleep(world.pace(world.until(at.0))).await;
        }
        take(&mut world, loaded, index, step, &mut expectations, None).await?;
    }
    world.clock.sleep(world.pace(scenario.settle.0)).await;
    let (cost, end) = report::end_state(&world);
    let report = Report {
        scenario: loaded.name.clone(),
        seed,
        virtual_seconds: world.elapsed(),
        cost,
        timeline: world.observed.lock().entries().to_vec(),
        r#final: end,
        expectations,
        violations: report::violations(&world),
    };
    world.end().await;
    Ok(report)
}

/// Settings of the controller in a scenario.
///
/// # Errors
/// When some cannot be meant.
pub fn settings(loaded: &Loaded) -> Result<Settings, RunError> {
    let chart = json!(loaded.scenario.settings);
    Settings::from_chart(&chart).map_err(|errors| {
        RunError::Settings(
            errors
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; "),
        )
    })
}

fn cloud(loaded: &Loaded) -> Result<CloudKind, RunError> {
    let wanted = &loaded.scenario.cloud;
    if wanted.provider == ProviderName::Ec2 {
        return Ok(CloudKind::Ec2(Ec2Account {
            region: wanted.region.clone(),
            cluster_name: wanted.cluster_name.clone(),
            capacity_reservations: wanted.capacity_reservations.clone(),
        }));
    }
    if !wanted.capacity_reservations.is_empty() {
        let why = "cloud.capacityReservations: expected none, this world's cloud is kwok";
        return Err(RunError::Types(why.to_owned()));
    }
    let catalog = match &loaded.instance_types {
        Some(bytes) => catalog::parse(bytes, "cloud.instanceTypes")?,
        None => catalog::builtin(),
    };
    if let Some(bad) = catalog.rejected.first() {
        return Err(RunError::Types(bad.to_string()));
    }
    Ok(CloudKind::Kwok { catalog })
}

/// Takes one step; what it expects goes into `out`. While it waits, whoever wants to `look` does every [`LOOK_EVERY`].
pub(crate) async fn take(
    world: &mut World,
    loaded: &Loaded,
    index: usize,
    step: &Step,
    out: &mut Vec<Expectation>,
    mut look: Option<&mut dyn FnMut(&World)>,
) -> Result<(), RunError> {
    let bad = |message: String| RunError::Step {
        step: index,
        message,
    };
    let told = |kind: &str, message: String| {
        let at = world.elapsed();
        let note = if step.note.is_empty() {
            message
        } else {
            format!("{message} ({})", step.note)
        };
        world.observed.lock().note(at, "Step", kind, &note);
    };
    if let Some(apply) = &step.apply {
        let mut objects = apply.objects.clone();
        for file in &apply.files {
            objects.extend(read_objects(&loaded.folder.join(file))?);
        }
        let (objects, _) = upgrade(objects, &format!("steps[{index}].apply"))?;
        if let Some(objection) = objects.iter().find_map(unfit) {
            return Err(bad(format!("apply: {objection}")));
        }
        told(
            "apply",
            objects
                .iter()
                .map(|o| format!("{} {}", text(o, "/kind"), name(o)))
                .collect::<Vec<_>>()
                .join(", "),
        );
        for object in &objects {
            if world.is_live() {
                world.put(object).await.map_err(bad)?;
            } else {
                world.apply(object)?;
            }
        }
    } else if let Some(target) = &step.delete {
        for object in targets(world, target).await.map_err(bad)? {
            told("delete", format!("{} {}", target.kind, name(&object)));
            world.remove(&target.kind, &object).await.map_err(bad)?;
        }
    } else if let Some(patch) = &step.patch {
        for object in targets(world, &patch.target).await.map_err(bad)? {
            told("patch", format!("{} {}", patch.target.kind, name(&object)));
            let (kind, part) = (&patch.target.kind, &patch.subresource);
            let done = world.merge(kind, &object, part, patch.patch.clone());
            done.await.map_err(bad)?;
        }
    } else if let Some(scale) = &step.scale {
        told(
            "scale",
            format!("{} {} to {}", scale.kind, scale.name, scale.replicas),
        );
        let target = Target {
            kind: scale.kind.clone(),
            name: Some(scale.name.clone()),
            namespace: scale.namespace.clone(),
            selector: None,
            first: false,
        };
        // As `kubectl scale` does it; that NodePools can be scaled so is our definition's doing.
        let subresource = match scale.kind.as_str() {
            "NodePool" => "scale",
            _ => "",
        };
        for object in targets(world, &target).await.map_err(bad)? {
            let patch = json!({ "spec": { "replicas": scale.replicas } });
            let done = world.merge(&scale.kind, &object, subresource, patch);
            done.await.map_err(bad)?;
        }
    } else if let Some(target) = &step.roll_out {
        let stamp = world.clock.wall().to_string();
        for object in targets(world, target).await.map_err(bad)? {
            told("rollOut", format!("{} {}", target.kind, name(&object)));
            let patch = json!({ "spec": { "template": { "metadata": { "annotations": { "kubectl.kubernetes.io/restartedAt": stamp } } } } });
            let done = world.merge(&target.kind, &object, "", patch);
            done.await.map_err(bad)?;
        }
    } else if let Some(selector) = step.cordon.as_ref().or(step.drain.as_ref()) {
        for node in nodes(&world.api, selector) {
            told(
                if step.drain.is_some() {
                    "drain"
                } else {
                    "cordon"
                },
                name(&node).to_owned(),
            );
            let patch = json!({ "spec": { "unschedulable": true } });
            world.merge("Node", &node, "", patch).await.map_err(bad)?;
            if step.drain.is_some() {
                crate::drain::start(world, name(&node));
            }
        }
    } else if let Some(action) = step.controller {
        told("controller", format!("{action:?}").to_lowercase());
        if matches!(action, ControllerAction::Crash | ControllerAction::Restart) {
            world.crash_controller();
        }
        if action == ControllerAction::Stop {
            world.stop_controller().await;
        }
        if matches!(action, ControllerAction::Start | ControllerAction::Restart) {
            world.start_controller().await?;
        }
        if action == ControllerAction::Takeover {
            if !loaded.scenario.leader_election {
                return Err(bad(
                    "controller: takeover needs leaderElection: true".to_owned()
                ));
            }
            world.hand_over().await?;
        }
    } else if let Some(fault) = &step.cloud {
        told("cloud", serde_json::to_string(fault).unwrap_or_default());
        world.cloud_fault(fault).map_err(bad)?;
    } else if let Some(fault) = &step.machine {
        told("machine", serde_json::to_string(fault).unwrap_or_default());
        if world.is_live() {
            return Err(bad(
                "machine: faults are not for a running cluster".to_owned()
            ));
        }
        world.machine_fault(fault).await.map_err(bad)?;
    } else if let Some(faults) = &step.api {
        told("api", serde_json::to_string(faults).unwrap_or_default());
        if world.is_live() {
            return Err(bad("api: faults are not for a running cluster".to_owned()));
        }
        world.api_faults(faults);
    } else if let Some(wait) = &step.wait {
        let mut holding = Holding::new(world, wait.holding.as_ref());
        match &wait.until {
            None => {
                let duration = wait.duration.unwrap_or_default().0;
                let mut left = world.pace(duration);
                while !left.is_zero() {
                    let part = if look.is_some() {
                        left.min(LOOK_EVERY)
                    } else {
                        left
                    };
                    holding.sleep(world, part).await;
                    left -= part;
                    if let Some(look) = &mut look {
                        look(world);
                    }
                }
            }
            Some(expect) => {
                let timeout = wait.timeout.unwrap_or(DEFAULT_TIMEOUT).0;
                let deadline = world.clock.now() + world.patience(Some(timeout));
                while world.clock.now() < deadline && !judge(world, expect).iter().all(|v| v.ok) {
                    holding.sleep(world, LOOK_EVERY).await;
                    if let Some(look) = &mut look {
                        look(world);
                    }
                }
                record(world, expect, out);
            }
        }
        out.extend(holding.end(world));
    } else if let Some(expect) = &step.expect {
        let deadline = world.clock.now() + world.patience(None);
        while world.clock.now() < deadline && !judge(world, expect).iter().all(|v| v.ok) {
            world.clock.sleep(LOOK_EVERY).await;
        }
        record(world, expect, out);
    }
    Ok(())
}

fn record(world: &World, expect: &crate::scenario::schema::Expect, out: &mut Vec<Expectation>) {
    let at = world.elapsed();
    out.extend(judge(world, expect).into_iter().map(|v| Expectation {
        at,
        expect: v.expect,
        ok: v.ok,
        saw: v.saw,
    }));
}

async fn targets(world: &World, target: &Target) -> Result<Vec<std::sync::Arc<Value>>, String> {
    if kinds::of(&target.kind).is_none() {
        return Err(format!("kind {} is not known here", target.kind));
    }
    let look = || {
        select(
            &world.api,
            &target.kind,
            target.namespace.as_deref(),
            target.name.as_deref(),
            target.selector.as_deref(),
        )
    };
    let mut found = look();
    // What was made just now is seen in the mirror of a running cluster some moments later.
    let deadline = world.clock.now() + SEEN_WITHIN;
    while world.is_live() && found.is_empty() && world.clock.now() < deadline {
        world.clock.sleep(LOOK_EVERY / 10).await;
        found = look();
    }
    if target.first {
        found.truncate(1);
    }
    if found.is_empty() && target.name.is_some() {
        return Err(format!(
            "{} {} does not exist",
            target.kind,
            target.name.as_deref().unwrap_or_default()
        ));
    }
    Ok(found)
}

/// The nodes that a selector means.
pub(crate) fn nodes(api: &ApiServer, s: &NodeSelector) -> Vec<std::sync::Arc<Value>> {
    let mut found = select(api, "Node", None, s.name.as_deref(), s.selector.as_deref());
    found.retain(|n| {
        s.node_pool
            .as_ref()
            .is_none_or(|p| crate::json::label(n, karpenter_api::labels::NODEPOOL) == p)
    });
    if s.first {
        found.truncate(1);
    }
    found
}
