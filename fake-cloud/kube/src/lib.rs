//! The embedded Kubernetes: an API server as a `tower` service, in memory or on a socket, and the control-plane
//! loops around it. A model with named limits, not a mock: objects behave as a real server makes them behave.

pub mod access;
pub mod admission;
pub mod apply;
pub mod crd;
pub mod defaults;
pub mod deletes;
pub mod error;
pub mod events;
pub mod flaky;
pub mod http;
pub mod loops;
pub mod managed;
pub mod meta;
pub mod ops;
pub mod patch;
pub mod registry;
pub mod selectors;
pub mod server;
pub mod store;
pub mod structure;
pub mod tokens;
pub mod validate;
pub mod wire;

pub use server::{ApiServer, ServerOptions};
