//! The order in which a process comes up, and the code it ends with.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use karpenter_core::{Options, Parts, RunError};
use karpenter_runtime::health::{self, Endpoints, ListenError};
use karpenter_runtime::leader::LeaderOptions;
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::settings::docs;
use karpenter_runtime::{Clock, RngTree, Settings, build, log};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::clients::{self, Clients, ConnectError};
use crate::process;
use crate::provider::{self, ProviderError};

/// Exit code for settings that cannot be used.
const BAD_SETTINGS: u8 = 2;

/// Exit code for anything else that ends the process.
const FAILED: u8 = 1;

/// Exit code when a second signal cuts an orderly end short (128 + SIGTERM).
const CUT_SHORT: u8 = 143;

/// Why the process ends other than by being asked to.
#[derive(Debug, thiserror::Error)]
enum AppError {
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error("cannot listen for signals")]
    Signals(#[source] std::io::Error),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Provider(#[from] ProviderError),
    #[error(transparent)]
    Run(#[from] RunError),
}

/// The whole life of the process.
pub(crate) fn main(args: Vec<String>, env: BTreeMap<String, String>) -> ExitCode {
    if args
        .iter()
        .any(|arg| matches!(arg.as_str(), "--version" | "-version"))
    {
        say(&format!("karpenter {} ({})", build::VERSION, build::COMMIT));
        return ExitCode::SUCCESS;
    }
    if args
        .iter()
        .any(|arg| matches!(arg.as_str(), "--help" | "-help" | "-h"))
    {
        say(&docs::help());
        return ExitCode::SUCCESS;
    }
    let settings = match Settings::parse(&args, &env) {
        Ok(settings) => settings,
        Err(errors) => {
            for error in errors {
                complain(&error);
            }
            return ExitCode::from(BAD_SETTINGS);
        }
    };
    let clock = Clock::real();
    let opened = log::Sink::open(&settings.log_output_paths).and_then(|lines| {
        let complaints = log::Sink::open(&settings.log_error_output_paths)?;
        Ok(log::Outputs { lines, complaints })
    });
    let outputs = match opened {
        Ok(outputs) => outputs,
        Err(error) => {
            complain(&error);
            return ExitCode::from(BAD_SETTINGS);
        }
    };
    let subscriber = log::subscriber(settings.log_level, clock.clone(), outputs);
    // Only this process's own main sets one, so that there is none yet.
    let _ = tracing::subscriber::set_global_default(subscriber);
    match run(settings, &env, clock) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "karpenter ends");
            ExitCode::from(FAILED)
        }
    }
}

fn run(
    settings: Settings,
    env: &BTreeMap<String, String>,
    clock: Clock,
) -> Result<ExitCode, AppError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(AppError::Runtime)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(AppError::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(AppError::Signals)?;
        let stop = CancellationToken::new();
        let work = work(settings, env, clock, stop.clone());
        let mut work = std::pin::pin!(work);
        let asked = async {
            tokio::select! {
                biased;
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        tokio::select! {
            biased;
            signal = asked => {
                tracing::info!(signal, "shutting down");
                stop.cancel();
            }
            ended = &mut work => return ended.map(|()| ExitCode::SUCCESS),
        }
        tokio::select! {
            biased;
            ended = &mut work => ended.map(|()| ExitCode::SUCCESS),
            _ = terminate.recv() => Ok(ExitCode::from(CUT_SHORT)),
            _ = interrupt.recv() => Ok(ExitCode::from(CUT_SHORT)),
        }
    })
}

/// From settings to running loops, until `stop`.
async fn work(
    settings: Settings,
    env: &BTreeMap<String, String>,
    clock: Clock,
    stop: CancellationToken,
) -> Result<(), AppError> {
    let rng = RngTree::new(entropy());
    let metrics = Metrics::default();
    process::register(&metrics);
    provider::check(&settings)?;
    let config = clients::config().await?;
    let namespace = clients::namespace(&settings, env, &config);
    let Clients {
        client,
        client_no_retry,
        lease_client,
    } = clients::connect(config, &settings, &metrics)?;
    let provider = provider::build(&settings, &client, &clock)?;
    let election = (!settings.disable_leader_election).then(|| {
        let host = env.get("HOSTNAME").map_or("karpenter", String::as_str);
        let identity = format!("{host}_{}", rng.child("leader-identity", host).rng().uuid());
        LeaderOptions::new(&settings.leader_election_name, &namespace, &identity)
    });
    tracing::info!(
        version = build::VERSION,
        provider = settings.provider.as_str(),
        "starting karpenter"
    );
    for name in settings.without_effect() {
        tracing::info!(setting = name, "setting has no effect here");
    }
    let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let (metrics_port, probe_port) = (settings.metrics_port, settings.health_probe_port);
    let endpoints = stop.child_token();
    // Probes and metrics stay until the very end, not only until the end begins.
    let served = CancellationToken::new();
    let _served = served.clone().drop_guard();
    let (at, _) = health::serve(
        any(metrics_port),
        Endpoints::Metrics(metrics.clone()),
        served.clone(),
    )
    .await?;
    tracing::debug!(address = %at, "serving metrics");
    let mut controller = karpenter_core::start(Parts {
        provider,
        client,
        client_no_retry,
        settings,
        clock,
        rng,
        options: Options {
            election,
            lease_client: Some(lease_client),
            metrics,
            ..Options::default()
        },
    });
    let probes = Endpoints::Probes(controller.ready_check());
    let (at, _) = health::serve(any(probe_port), probes, served).await?;
    tracing::debug!(address = %at, "serving probes");
    tokio::select! {
        biased;
        () = endpoints.cancelled() => controller.shutdown().await?,
        ended = controller.wait() => ended?,
    }
    Ok(())
}

/// A seed that no other process has: the standard library keys each process's hash maps from the system's random
/// source.
fn entropy() -> u64 {
    let state = std::collections::hash_map::RandomState::new();
    let mut hasher = state.build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish()
}

/// To standard output, whose reader may be gone.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// To standard error, for what is wrong before there is a log.
fn complain(error: &dyn std::error::Error) {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    let _ = writeln!(std::io::stderr().lock(), "karpenter: {text}");
}
