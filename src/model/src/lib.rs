//! What decisions are made of: requirements, resources, taints, pods as a scheduler sees them, instance types and
//! offerings, and the two sides of a solve: the [`problem::Problem`] and the [`plan::Plan`].
//!
//! `karpenter-solver` turns the one into the other; `karpenter-plan-check` judges the result without sharing a
//! line of logic with it; `karpenter-state` and the CLI build problems; `karpenter-controllers` carries plans out.

mod chunk;
pub mod disruption;
pub mod instance;
pub mod labels;
mod limit_range;
pub mod overlay;
pub mod plan;
pub mod pod;
mod pod_from;
pub mod pod_nodes;
mod pod_predicates;
mod pod_requests;
pub mod problem;
pub mod requirement;
mod requirements;
pub mod resources;
pub mod selector;
pub mod storage;
pub mod taints;

pub use instance::{InstanceType, Offering};
pub use labels::LabelRegistry;
pub use limit_range::ContainerDefaults;
pub use plan::Plan;
pub use pod::{Pod, PodKey};
pub use pod_from::BadPod;
pub use pod_nodes::{NodeDemands, PodRefusal};
pub use pod_predicates::DoNotDisrupt;
pub use problem::{Namespaces, NodeView, PoolView, Problem, SolveOptions};
pub use requirement::{Operator, Requirement, Requirements, Undefined};
pub use resources::ResourceList;
pub use selector::Selector;
pub use storage::{Storage, VolumeRoom};
