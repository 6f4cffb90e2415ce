//! `demo --serve`: the world on a loopback port, with a kubeconfig, until it is interrupted.

use std::process::ExitCode;

use karpenter_runtime::Clock;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::demo::{self, Args};
use crate::output::{self, Failure};
use crate::view;
use crate::view::terminal::{self, Left};

/// Serves until Ctrl-C, with the live view where there is a terminal for it.
pub(crate) async fn run(args: &Args) -> Result<ExitCode, Failure> {
    let world = demo::begin(args, Clock::real()).await?;
    let (port, kubeconfig) = (args.port, args.kubeconfig.as_path());
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let server = format!("http://{}", listener.local_addr()?);
    std::fs::write(kubeconfig, kubeconfig_of(&server))?;
    output::line(&format!("serving on {server}; try in another terminal:"));
    let path = kubeconfig.display();
    for command in [
        "get nodepools",
        "scale deployment inflate --replicas 20",
        "get nodes -w",
        "get events",
    ] {
        output::line(&format!("  kubectl --kubeconfig {path} {command}"));
    }
    output::line("Ctrl-C ends it.");
    let stop = CancellationToken::new();
    let api = world.api.clone();
    let serving = tokio::spawn({
        let stop = stop.clone();
        async move { api.serve(listener, stop).await }
    });
    let left = if view::wanted(args.plain) {
        let note = format!("kubectl --kubeconfig {path} get nodes");
        terminal::follow(args.seed, &world, &note).await
    } else {
        tokio::signal::ctrl_c()
            .await
            .map(|()| Left::Done)
            .map_err(Failure::from)
    };
    stop.cancel();
    serving.await??;
    world.end().await;
    // It points to nothing any more.
    std::fs::remove_file(kubeconfig)?;
    Ok(match left? {
        Left::Done => ExitCode::SUCCESS,
        Left::Signal(code) => ExitCode::from(code),
    })
}

/// YAML is a superset of JSON, and kubectl reads either.
fn kubeconfig_of(server: &str) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "karpenter-demo",
        "clusters": [{ "name": "karpenter-demo", "cluster": { "server": server } }],
        "contexts": [{ "name": "karpenter-demo", "context": { "cluster": "karpenter-demo", "user": "admin" } }],
        "users": [{ "name": "admin", "user": {} }],
    });
    format!("{config:#}\n")
}
