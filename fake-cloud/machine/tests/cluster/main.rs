//! Whole clusters: what the API server, the loops and the kubelets do together.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod faults;
mod machines;
mod outages;
mod placing;
mod storage;
mod support;
