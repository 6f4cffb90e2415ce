//! The provider on the embedded API server and the EC2 engine, in virtual time.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test may fail loudly.

mod conformance;
mod launch;
mod nodeclass;
mod reserved;
mod upkeep;
mod world;
