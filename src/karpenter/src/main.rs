//! The controller binary: reads settings, connects to the cluster and runs the provider that the settings name.

mod app;
mod clients;
mod process;
mod provider;

use std::process::ExitCode;

fn main() -> ExitCode {
    app::main(
        std::env::args().skip(1).collect(),
        std::env::vars().collect(),
    )
}
