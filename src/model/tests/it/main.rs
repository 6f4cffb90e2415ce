//! Tests of the model: one binary, a module for each room of it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test may fail loudly.

mod algebra;
mod instance;
mod overlay;
mod pod;
mod pod_requests;
mod requirement;
mod taints;
mod validation;
