//! What decisions are made of: requirements, resources, taints, pods as a scheduler sees them, instance types and
//! offerings, and the two sides of a solve: the [`problem::Problem`] and the [`plan::Plan`].
//!
//! `karpenter-solver` turns the one into the other; `karpenter-plan-check` judges the result without sharing a
//! line of logic with it; `karpenter-state` and the CLI build problems; `karpenter-controllers` carries plans out.

pub mod instance;
pub mod labels;
pub mod plan;
pub mod pod;
pub mod problem;
pub mod requirement;
pub mod resources;
pub mod taints;

pub use instance::{InstanceType, Offering};
pub use labels::LabelRegistry;
pub use plan::Plan;
pub use pod::{Pod, PodKey};
pub use problem::{NodeView, PoolView, Problem, SolveOptions};
pub use requirement::{Requirement, Requirements};
pub use resources::ResourceList;
