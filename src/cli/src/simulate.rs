//! `simulate PATH`: a scenario folder in virtual time. Exit 1 when an expectation fails, 2 on bad input.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use karpenter_e2e::{report, run as runner, scenario};

use crate::output::{self, Failure};

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Lines to read.
    Text,
    /// One document.
    Json,
}

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder with a scenario.yaml, or such a file.
    path: PathBuf,
    /// Seed, instead of the scenario's own.
    #[arg(long)]
    seed: Option<u64>,
    /// How to print.
    #[arg(long, short, value_enum, default_value = "json")]
    output: Format,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let loaded = scenario::load(&args.path)?;
    for warning in &loaded.warnings {
        output::note(&format!("warning: {warning}"));
    }
    for name in runner::settings(&loaded)?.without_effect() {
        output::note(&format!(
            "warning: settings: {name} has no effect here (docs/differences.md)"
        ));
    }
    let report = crate::runtime::virtual_time()?.block_on(runner::run(&loaded, args.seed))?;
    match args.output {
        Format::Text => output::line(report::text_of(&report).trim_end()),
        Format::Json => output::json(&report)?,
    }
    Ok(if report::passed(&report) {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}
