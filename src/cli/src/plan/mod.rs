//! `plan -f FILE…`: one solve, no time. Where the pods of some manifests or of a cluster dump would go, what would be
//! bought for them, and why a pod goes nowhere. Exit 2 when an input was bad; the rest is planned all the same.

pub(crate) mod input;
mod volumes;
mod workloads;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use karpenter_api::convert::convert as to_v1;
use karpenter_e2e::{manifests, strict};
use karpenter_model::plan::{FunnelStep, PlannedNode, PoolFunnel};
use karpenter_model::{Plan, PodKey, ResourceList, SolveOptions};
use karpenter_runtime::Clock;
use serde::Serialize;

use crate::output::{self, Failure};
use crate::simulate::Format;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files with Kubernetes objects (YAML, JSON, Lists, gzip).
    #[arg(long = "filename", short = 'f', required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    /// What can be bought: `ec2` or `ec2:REGION`, what EC2 sells (us-east-1 unless told otherwise; spot prices are
    /// modelled); `kwok`, the KWOK provider's built-in types. None: what the NodeClasses speak of.
    #[arg(long, conflicts_with = "instance_types")]
    catalog: Option<String>,
    /// What can be bought: a file in the KWOK provider's JSON format (gzip or not).
    #[arg(long)]
    instance_types: Option<PathBuf>,
    /// File with the part of kube-scheduler's configuration that plans have to know (YAML with
    /// podTopologySpread.defaultConstraints): topology spread for pods without one of their own.
    #[arg(long, value_name = "FILE")]
    scheduler_config: Option<PathBuf>,
    /// Ignore preferred affinities and ScheduleAnyway spreads.
    #[arg(long)]
    ignore_preferences: bool,
    /// Lower minValues rather than leave pods out.
    #[arg(long)]
    best_effort_min_values: bool,
    /// What a node costs beyond its price when machines are compared, dollars per hour: more of it, fewer nodes.
    #[arg(long, value_name = "DOLLARS", value_parser = node_cost, default_value_t = SolveOptions::NODE_COST)]
    node_cost: f64,
    /// How to print.
    #[arg(long, short, value_enum, default_value = "json")]
    output: Format,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    new_nodes: Vec<NewNode>,
    existing_nodes: Vec<ExistingNode>,
    unschedulable: Vec<Unschedulable>,
    price_per_hour_usd: f64,
    solve_seconds: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NewNode {
    node_pool: String,
    instance_type: String,
    instance_types: Vec<String>,
    zone: String,
    capacity_type: String,
    price_per_hour: f64,
    requests: BTreeMap<String, String>,
    /// What would have been bought otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_best: Option<NextBest>,
    /// What each constraint left over of the pool's types.
    steps: Vec<Step>,
    pods: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NextBest {
    instance_type: String,
    zone: String,
    capacity_type: String,
    price_per_hour: f64,
    /// The same in the words of events.
    #[serde(skip)]
    text: String,
}

#[derive(Debug, Serialize)]
struct ExistingNode {
    name: String,
    pods: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Unschedulable {
    pod: String,
    reason: String,
    node_pools: Vec<Funnel>,
}

#[derive(Debug, Serialize)]
struct Funnel {
    name: String,
    steps: Vec<Step>,
}

#[derive(Debug, Serialize)]
struct Step {
    constraint: String,
    removed: usize,
    left: usize,
    /// The same in the words of events.
    #[serde(skip)]
    text: String,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let mut objects = Vec::new();
    for file in &args.files {
        objects.extend(manifests::read_objects(file)?);
    }
    // Manifests of before v1 are read as `convert` would rewrite them.
    let converted = to_v1(objects);
    let asked = input::Asked {
        catalog: args.catalog.as_deref(),
        instance_types: args.instance_types.as_deref(),
        best_effort_min_values: args.best_effort_min_values,
    };
    let offer = input::offer(&asked, &converted.docs)?;
    let mut errors = offer.errors.clone();
    errors.extend(converted.errors.iter().map(ToString::to_string));
    let objections: Vec<_> = converted.docs.iter().flat_map(strict::objections).collect();
    let spread = input::spread_defaults(args.scheduler_config.as_deref())?;
    let read = input::problem(converted.docs, &offer, (args, spread), &mut errors);
    for objection in objections {
        // What reading it has found is told in more words than a definition has.
        if !errors.iter().any(|told| objection.is_told_by(told)) {
            errors.push(objection.to_string());
        }
    }
    let warnings: Vec<String> = converted
        .warnings
        .iter()
        .map(|w| format!("{}: {}: {}", w.object, w.field, w.message))
        .collect();
    for warning in warnings.iter().chain(&offer.warnings).chain(&read.warnings) {
        output::note(&format!("warning: {warning}"));
    }
    let clock = Clock::real();
    let start = clock.now();
    let plan = karpenter_solver::solve(&read.problem);
    let took = clock.now().saturating_duration_since(start).as_secs_f64();
    errors.extend(
        plan.skipped_pools
            .iter()
            .map(|s| format!("NodePool {}: {}", s.pool, s.reason)),
    );
    errors.extend(
        karpenter_plan_check::check(&read.problem, &plan)
            .iter()
            .map(|f| format!("the plan is wrong, please report it: {f}")),
    );
    for error in &errors {
        output::note(&format!("error: {error}"));
    }
    let bad = !errors.is_empty();
    let document = document(&plan, took, errors);
    match args.output {
        Format::Json => output::json(&document)?,
        Format::Text => print(&document),
    }
    Ok(if bad {
        ExitCode::from(2)
    } else {
        ExitCode::SUCCESS
    })
}

fn keys(pods: &[PodKey]) -> Vec<String> {
    pods.iter().map(ToString::to_string).collect()
}

fn document(plan: &Plan, solve_seconds: f64, errors: Vec<String>) -> Document {
    Document {
        new_nodes: plan.new_nodes.iter().map(new_node).collect(),
        existing_nodes: plan
            .existing
            .iter()
            .map(|e| ExistingNode {
                name: e.node.to_string(),
                pods: keys(&e.pods),
            })
            .collect(),
        unschedulable: plan
            .unschedulable
            .iter()
            .map(|u| Unschedulable {
                pod: u.pod.to_string(),
                reason: u.reason.clone(),
                node_pools: u.pools.iter().map(funnel).collect(),
            })
            .collect(),
        // Adding zero turns the negative zero of an empty sum into a plain one.
        price_per_hour_usd: plan.new_nodes.iter().map(|n| n.cheapest.price).sum::<f64>() + 0.0,
        solve_seconds,
        errors,
    }
}

fn new_node(node: &PlannedNode) -> NewNode {
    NewNode {
        node_pool: node.pool.to_string(),
        instance_type: node.cheapest.instance_type.to_string(),
        instance_types: node
            .instance_types
            .iter()
            .map(ToString::to_string)
            .collect(),
        zone: node.cheapest.zone.to_string(),
        capacity_type: node.cheapest.capacity_type.to_string(),
        price_per_hour: node.cheapest.price,
        requests: texts(&node.requests),
        next_best: node.runner_up.as_ref().map(|o| NextBest {
            instance_type: o.instance_type.to_string(),
            zone: o.zone.to_string(),
            capacity_type: o.capacity_type.to_string(),
            price_per_hour: o.price,
            text: o.to_string(),
        }),
        steps: node.funnel.iter().map(step).collect(),
        pods: keys(&node.pods),
    }
}

fn texts(list: &ResourceList) -> BTreeMap<String, String> {
    list.to_raw()
        .into_iter()
        .map(|(name, quantity)| (name, quantity.0))
        .collect()
}

fn funnel(pool: &PoolFunnel) -> Funnel {
    Funnel {
        name: pool.pool.to_string(),
        steps: pool.steps.iter().map(step).collect(),
    }
}

fn step(step: &FunnelStep) -> Step {
    Step {
        constraint: step.constraint.clone(),
        removed: step.removed,
        left: step.left,
        text: step.to_string(),
    }
}

fn print(document: &Document) {
    for node in &document.new_nodes {
        output::line(&format!(
            "buy {} {} in {} for pool {} at ${:.4}/h ({} types fit): {} pods",
            node.instance_type,
            node.capacity_type,
            node.zone,
            node.node_pool,
            node.price_per_hour,
            node.instance_types.len(),
            node.pods.len()
        ));
        if let Some(next) = &node.next_best {
            output::line(&format!("    next best: {}", next.text));
        }
        for step in &node.steps {
            output::line(&format!("    {}", step.text));
        }
    }
    for node in &document.existing_nodes {
        output::line(&format!("use {}: {} pods", node.name, node.pods.len()));
    }
    // A thousand equal pods make one line.
    let mut by_reason: BTreeMap<&str, Vec<&Unschedulable>> = BTreeMap::new();
    for pod in &document.unschedulable {
        by_reason.entry(&pod.reason).or_default().push(pod);
    }
    for (reason, pods) in by_reason {
        let first = pods.first().map_or("", |p| p.pod.as_str());
        let more = if pods.len() > 1 {
            format!(" and {} more", pods.len() - 1)
        } else {
            String::new()
        };
        output::line(&format!("nowhere: {first}{more}: {reason}"));
        for pool in pods.first().into_iter().flat_map(|p| &p.node_pools) {
            for step in &pool.steps {
                output::line(&format!("    {}: {}", pool.name, step.text));
            }
        }
    }
    output::line(&format!(
        "${:.4}/h for {} new nodes, planned in {:.3} s",
        document.price_per_hour_usd,
        document.new_nodes.len(),
        document.solve_seconds
    ));
}

/// A number of dollars of at least 0.
fn node_cost(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok();
    number
        .filter(|n| n.is_finite() && *n >= 0.0)
        .ok_or_else(|| "expected a number of dollars of at least 0".to_owned())
}
