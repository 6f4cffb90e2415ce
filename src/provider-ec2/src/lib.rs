//! Karpenter's EC2 provider: EC2NodeClass and all EC2 logic, over the narrow trait of `karpenter-ec2-api`.

// The launch path is whole and tested, but nothing calls it until the provider bundle is put together here.
#![allow(dead_code)]

mod cache;
pub mod class;
mod image;
pub mod labels;
mod launch;
mod limits;
mod market;
pub mod nodeclass;
mod pricing;
mod resolve;
pub mod settings;
mod shape;
mod template;
pub mod types;
mod unavailable;
mod userdata;

pub use settings::Ec2Settings;
