//! `explain node|pod|nodepool NAME`: what keeps or will end a node, where a pod goes, what a NodePool's budgets let go;
//! of the cluster that the kubeconfig names, or of files as `plan` reads them. Answers come from the functions by which
//! the controller decides. Exit 2 when an input was bad; what can be explained is explained all the same.

mod cluster;
mod print;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Subcommand;
use jiff::Timestamp;
use karpenter_model::PodKey;
use karpenter_runtime::Clock;

use crate::output::{self, Failure};
use crate::simulate::Format;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
    /// Files with the objects of a cluster (YAML, JSON, Lists, gzip); none: the cluster that the kubeconfig names.
    #[arg(long = "filename", short = 'f', num_args = 1, global = true)]
    files: Vec<PathBuf>,
    /// What can be bought: `ec2`, `ec2:REGION` or `kwok`; none: what the NodeClasses speak of.
    #[arg(long, conflicts_with = "instance_types", global = true)]
    catalog: Option<String>,
    /// What can be bought: a file in the KWOK provider's JSON format (gzip or not).
    #[arg(long, global = true)]
    instance_types: Option<PathBuf>,
    /// The time to explain for (RFC 3339); none: now.
    #[arg(long, global = true)]
    at: Option<Timestamp>,
    /// Gates that the controller runs with: `A=true,B=false`.
    #[arg(long, global = true)]
    feature_gates: Option<String>,
    /// File with the part of kube-scheduler's configuration that the controller knows: topology spread for pods without one
    /// of their own.
    #[arg(long, value_name = "FILE", global = true)]
    scheduler_config: Option<PathBuf>,
    /// How to print.
    #[arg(long, short, value_enum, default_value = "text", global = true)]
    output: Format,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A Node, or the NodeClaim behind one.
    Node {
        /// Its name.
        name: String,
    },
    /// A pod.
    Pod {
        /// Its name, or NAMESPACE/NAME.
        name: String,
        /// Its namespace.
        #[arg(long, short, default_value = "default")]
        namespace: String,
    },
    /// A NodePool.
    Nodepool {
        /// Its name.
        name: String,
    },
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let (objects, mut errors) = if args.files.is_empty() {
        let live = crate::runtime::real_time()?.block_on(cluster::live())?;
        (live, Vec::new())
    } else {
        cluster::of_files(&args.files)?
    };
    let now = args.at.unwrap_or_else(|| Clock::real().wall());
    let (found, more) = cluster::of_objects(args, objects, now)?;
    errors.extend(more);
    for error in &errors {
        output::note(&format!("error: {error}"));
    }
    let text = args.output == Format::Text;
    match &args.what {
        What::Node { name } => {
            let report = found.node(name)?;
            if text {
                print::node(&report);
            } else {
                output::json(&report)?;
            }
        }
        What::Pod { name, namespace } => {
            let (namespace, name) = name.split_once('/').unwrap_or((namespace, name));
            let key = PodKey {
                namespace: namespace.into(),
                name: Arc::from(name),
            };
            let report = found.pod(&key)?;
            if text {
                print::pod(&report);
            } else {
                output::json(&report)?;
            }
        }
        What::Nodepool { name } => {
            let report = found.pool(name)?;
            if text {
                print::pool(&report);
            } else {
                output::json(&report)?;
            }
        }
    }
    Ok(if errors.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(2)
    })
}
