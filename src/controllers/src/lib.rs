//! The provider-neutral loops, one module each: a reconcile is thin I/O around a pure decision.

pub mod context;

pub use context::Context;
