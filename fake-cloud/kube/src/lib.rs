//! The embedded Kubernetes: an API server as a `tower` service, in memory or on a socket, and the control-plane
//! loops around it. A model with named limits, not a mock: objects behave as a real server makes them behave.

pub mod server;

pub use server::{ApiServer, ServerOptions};
