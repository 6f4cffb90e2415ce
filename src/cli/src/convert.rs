//! `convert -f FILE`: v1beta1 manifests to v1, with warnings on standard error.

use std::path::PathBuf;
use std::process::ExitCode;

use karpenter_api::convert::convert as to_v1;
use karpenter_e2e::{manifests, strict};

use crate::output::{self, Failure};

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files with manifests (YAML, JSON, Lists, gzip).
    #[arg(long = "filename", short = 'f', required = true, num_args = 1..)]
    files: Vec<PathBuf>,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let mut documents = Vec::new();
    for file in &args.files {
        documents.extend(manifests::read_objects(file)?);
    }
    let converted = to_v1(documents);
    for warning in &converted.warnings {
        output::note(&format!(
            "warning: {}: {}: {}",
            warning.object, warning.field, warning.message
        ));
    }
    for error in &converted.errors {
        output::note(&format!(
            "error: {}: {}: {}",
            error.object, error.field, error.message
        ));
    }
    let objections: Vec<_> = converted.docs.iter().flat_map(strict::objections).collect();
    for objection in &objections {
        output::note(&format!("error: {objection}"));
    }
    for (index, document) in converted.docs.iter().enumerate() {
        if index > 0 {
            output::line("---");
        }
        output::line(serde_saphyr::to_string(document)?.trim_end());
    }
    Ok(if converted.errors.is_empty() && objections.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(2)
    })
}
