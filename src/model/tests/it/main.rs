//! Tests of the model: one binary, a module for each room of it.

mod algebra;
mod instance;
mod pod;
mod pod_requests;
mod requirement;
mod taints;
