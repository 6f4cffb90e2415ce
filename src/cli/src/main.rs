//! `kubectl-karpenter`: try Karpenter, prove a change and ask why, without a cloud account. No AWS SDK in it.

mod convert;
mod demo;
mod explain;
mod output;
mod plan;
mod runtime;
mod serve;
mod simulate;
mod story;
mod view;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Karpenter from the command line.
#[derive(Debug, Parser)]
#[command(name = "kubectl-karpenter", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows the whole machine in one process: pods come and go, machines are bought and given back.
    Demo(demo::Args),
    /// Runs a scenario folder in virtual time.
    Simulate(simulate::Args),
    /// Plans once, without time: where pods would go and what would be bought for them.
    Plan(plan::Args),
    /// Says what keeps or ends a node, where a pod goes, what a NodePool's budgets let go.
    Explain(explain::Args),
    /// Rewrites v1beta1 manifests to v1.
    Convert(convert::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Convert(args) => convert::run(&args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            ExitCode::from(2)
        }
    }
}
