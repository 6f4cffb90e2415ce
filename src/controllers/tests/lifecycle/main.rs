//! A claim's life on the embedded API server, in virtual time: launch to end, drains, time-outs, emptiness, crashes,
//! static NodePools, repair.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // Panicking is how a test fails.

mod answers;
mod birth;
mod death;
mod emptiness;
mod metrics;
mod odd;
mod repair;
mod replicas;
mod rollback;
mod stamps;
mod standalone;
mod world;
