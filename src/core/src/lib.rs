//! Puts a controller together: a provider, the loops, the watches that feed the state, leader election and an
//! orderly end. What the binary, the embedded worlds and other clouds' providers build on.
//!
//! [`run`] is for a process of its own; [`start`] returns a handle that a harness can stop, or kill as a crash would,
//! and start again. Installing CRDs is the chart's job on a real cluster; [`install_crds`] is for clusters without one.

mod controller;
mod crds;
mod metered;
mod scrape;
mod watches;

pub use controller::{Controller, Options, Parts, Phase, RunError, run, start};
pub use crds::{CrdError, crds, install_crds};
