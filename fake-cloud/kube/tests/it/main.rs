//! The server as its clients see it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)] // A test may fail loudly.

mod client;
mod kubectl;
mod loops;
mod watches;
mod writes;
