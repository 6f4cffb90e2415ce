//! `demo`: the whole machine in one process. Virtual time unless told otherwise; a live view
//! on a terminal, else plain lines or one JSON document.

use std::process::ExitCode;
use std::time::Duration;

use karpenter_e2e::observe::Entry;
use karpenter_e2e::report;
use karpenter_e2e::world::{self, CloudKind, Ec2Account, World, WorldOptions};
use karpenter_provider_kwok::catalog;
use karpenter_runtime::{Clock, Settings};
use serde::Serialize;

use crate::output::{self, Failure};
use crate::simulate::Format;
use crate::story::StoryCloud;
use crate::view::{self, frame::Recording, terminal::Left};
use crate::{serve, story};

/// How often a real-time demo prints what is new.
const PRINT_EVERY: Duration = Duration::from_millis(500);

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The only randomness: same seed, same bytes.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How to print.
    #[arg(long, short, value_enum, default_value = "text")]
    output: Format,
    /// What machines are bought from.
    #[arg(long, value_enum, default_value = "ec2")]
    cloud: StoryCloud,
    /// Region of --cloud ec2: prices and zones are its.
    #[arg(long, default_value = "us-east-1")]
    region: String,
    /// Plain lines on a terminal too, in place of the live view.
    #[arg(long)]
    pub(crate) plain: bool,
    /// Let the story take its half hour.
    #[arg(long)]
    real_time: bool,
    /// Keep the cluster up on a loopback port, for kubectl; nothing happens but what you do.
    #[arg(long, conflicts_with_all = ["real_time", "output"])]
    serve: bool,
    /// Port of --serve; 0 = any that is free.
    #[arg(long, default_value_t = 0)]
    pub(crate) port: u16,
    /// Where --serve writes the kubeconfig.
    #[arg(long, default_value = "karpenter-demo.kubeconfig")]
    pub(crate) kubeconfig: std::path::PathBuf,
}

/// What the demo did, as one document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    seed: u64,
    nodes_launched: u64,
    nodes_returned: u64,
    pods_running_peak: u64,
    pods_unschedulable: usize,
    cost_total_usd: f64,
    final_nodes: usize,
    virtual_seconds: f64,
    wall_seconds: f64,
    violations: Vec<String>,
    timeline: Vec<Entry>,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    if args.serve {
        return crate::runtime::real_time()?.block_on(serve::run(args));
    }
    let wall = Clock::real().wall();
    let viewed = args.output == Format::Text && view::wanted(args.plain);
    let mut recording = (viewed && !args.real_time).then(Recording::default);
    let (summary, mut left) = if args.real_time {
        crate::runtime::real_time()?.block_on(live(args, viewed))?
    } else {
        let told = crate::runtime::virtual_time()?.block_on(told(args, recording.as_mut()))?;
        (told, Left::Done)
    };
    let took = Clock::real().wall().duration_since(wall).as_secs_f64();
    let summary = Summary {
        wall_seconds: took,
        ..summary
    };
    if let Some(recording) = recording {
        left =
            crate::runtime::real_time()?.block_on(view::terminal::play(args.seed, &recording))?;
    }
    match args.output {
        // Wall time differs from run to run; everything else is the same bytes for the same seed.
        Format::Json => output::json(&summary)?,
        Format::Text => tail(&summary),
    }
    Ok(match left {
        Left::Signal(code) => ExitCode::from(code),
        Left::Done if summary.violations.is_empty() => ExitCode::SUCCESS,
        Left::Done => ExitCode::from(1),
    })
}

/// A new world with the story's objects and the controller running.
pub(crate) async fn begin(args: &Args, clock: Clock) -> Result<World, Failure> {
    let cloud = match args.cloud {
        StoryCloud::Kwok => CloudKind::Kwok {
            catalog: catalog::builtin(),
        },
        StoryCloud::Ec2 => CloudKind::Ec2(Ec2Account {
            region: args.region.clone(),
            ..Ec2Account::default()
        }),
    };
    let mut world = World::new(WorldOptions {
        seed: args.seed,
        clock,
        settings: Settings::default(),
        cloud,
    })?;
    story::begin(&mut world, args.cloud).await?;
    Ok(world)
}

/// Tells the story in virtual time and prints it, or records it for the view.
async fn told(args: &Args, recording: Option<&mut Recording>) -> Result<Summary, Failure> {
    let world = begin(args, world::virtual_clock()).await?;
    let recorded = recording.is_some();
    if let Some(recording) = recording {
        tokio::select! {
            biased;
            told = story::tell(&world) => told?,
            () = record(&world, recording) => {}
        }
        recording.record(&world);
        recording.entries = world.observed.lock().entries().to_vec();
    } else {
        story::tell(&world).await?;
    }
    let summary = summary(args.seed, &world);
    if args.output == Format::Text && !recorded {
        summary.timeline.iter().for_each(print);
    }
    world.end().await;
    Ok(summary)
}

async fn record(world: &World, recording: &mut Recording) {
    loop {
        recording.record(world);
        world.clock.sleep(view::RECORD_EVERY).await;
    }
}

/// Lets the story take its time, printed as it goes or shown.
async fn live(args: &Args, viewed: bool) -> Result<(Summary, Left), Failure> {
    let world = begin(args, Clock::real()).await?;
    if viewed {
        let left = tokio::select! {
            biased;
            left = view::terminal::follow(args.seed, &world, "") => left?,
            told = story::tell(&world) => {
                told?;
                Left::Done
            }
        };
        let summary = summary(args.seed, &world);
        world.end().await;
        return Ok((summary, left));
    }
    let observed = std::sync::Arc::clone(&world.observed);
    let text = args.output == Format::Text;
    let printer = tokio::spawn(async move {
        if !text {
            return;
        }
        let mut printed = 0;
        loop {
            tokio::time::sleep(PRINT_EVERY).await;
            let fresh: Vec<Entry> = observed
                .lock()
                .entries()
                .iter()
                .skip(printed)
                .cloned()
                .collect();
            printed += fresh.len();
            fresh.iter().for_each(print);
        }
    });
    story::tell(&world).await?;
    printer.abort();
    let summary = summary(args.seed, &world);
    world.end().await;
    Ok((summary, Left::Done))
}

fn summary(seed: u64, world: &World) -> Summary {
    let (cost, end) = report::end_state(world);
    let observed = world.observed.lock();
    Summary {
        seed,
        nodes_launched: observed.nodes_launched,
        nodes_returned: observed.nodes_returned,
        pods_running_peak: observed.pods_running_peak,
        pods_unschedulable: end.pods.pending.len(),
        cost_total_usd: cost.total_usd,
        final_nodes: end.nodes.len(),
        virtual_seconds: world.elapsed(),
        wall_seconds: 0.0,
        violations: report::violations(world),
        timeline: observed.entries().to_vec(),
    }
}

fn print(entry: &Entry) {
    let object = if entry.object.is_empty() {
        String::new()
    } else {
        format!(" {}", entry.object)
    };
    output::line(&format!(
        "{:>9.1}s  {}{object}: {}",
        entry.at, entry.kind, entry.message
    ));
}

fn tail(s: &Summary) {
    output::line("");
    output::line(&format!(
        "{} machines bought, {} given back, {} left; at most {} pods ran at once, {} could not be placed.",
        s.nodes_launched,
        s.nodes_returned,
        s.final_nodes,
        s.pods_running_peak,
        s.pods_unschedulable
    ));
    output::line(&format!(
        "${} for {:.0} minutes of cluster life, told in {:.1} s.",
        s.cost_total_usd,
        s.virtual_seconds / 60.0,
        s.wall_seconds
    ));
    for violation in &s.violations {
        output::line(&format!("VIOLATION: {violation}"));
    }
}
