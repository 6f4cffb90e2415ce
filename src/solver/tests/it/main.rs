//! Tests of the solver: one binary. Every plan made here passes the independent checker and is a fixed point.

// A test may fail loudly, and says so when it skips.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

mod brute;
mod buffers;
mod cases;
mod claims_of_devices;
mod constraints;
mod daemons;
mod explain;
#[path = "../../benches/cases/files.rs"]
#[allow(dead_code)] // Benches use the rest.
mod files;
mod invariants;
mod labels;
mod limits;
mod machines;
mod nodes;
mod odd;
mod reserved;
mod rules;
mod shared;
mod volumes;
mod world;
