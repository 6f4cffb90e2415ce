//! The harness: scenarios, the world they run in, what is observed of it, and the tiers.

mod cloud;
mod drain;
pub mod expect;
mod holding;
pub mod json;
pub mod kinds;
pub mod manifests;
mod mirror;
pub mod observe;
pub mod report;
pub mod run;
pub mod scenario;
pub mod shop;
pub mod storm;
pub mod strict;
pub mod world;
mod write;
