//! A claim's life: launch, registration, initialization, the conditions that make it a candidate for disruption,
//! expiration and its end; and the start of all loops that deal with claims and Nodes.

pub(crate) mod consistency;
pub(crate) mod controller;
pub(crate) mod disruptable;
pub(crate) mod events;
pub(crate) mod expiration;
pub(crate) mod finalize;
pub(crate) mod health;
mod hooks;
pub(crate) mod hydration;
pub(crate) mod initialization;
pub(crate) mod launch;
pub(crate) mod liveness;
pub(crate) mod objects;
pub(crate) mod podevents;
pub(crate) mod pool_health;
pub(crate) mod registration;
pub(crate) mod reread;
mod start;
pub(crate) mod status;
pub(crate) mod write;

pub use start::start_lifecycle;
