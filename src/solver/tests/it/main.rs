//! Tests of the solver: one binary. Every plan made here passes the independent checker and is a fixed point.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test may fail loudly.

mod constraints;
mod explain;
mod invariants;
mod limits;
mod machines;
mod nodes;
mod shared;
mod world;
