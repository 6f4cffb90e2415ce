//! The narrow AWS: the calls Karpenter makes, in types of our own. `karpenter-provider-ec2` speaks only this;
//! `fake-cloud/ec2` answers it in memory; an adapter on the AWS SDK will answer it for real.
//! A crate of its own so that the fake cloud does not depend on the provider it is faking for.
//!
//! Paging, request signing and the SDK's own retries are the implementor's business: every call here returns the
//! whole answer. Fields are those that the provider reads or sends, no more.

pub mod api;
pub mod error;
pub mod filter;
pub mod fleet;
pub mod image;
pub mod instance;
pub mod instance_type;
pub mod launch_template;
pub mod network;
pub mod price;
pub mod profile;
pub mod reservation;

pub use api::Ec2;
pub use error::{Ec2Error, ErrorClass, Result};
pub use filter::Filter;
pub use fleet::{
    AllocationStrategy, CreateFleetInput, CreateFleetOutput, FleetError, FleetInstance,
    FleetLaunchTemplateConfig, FleetOverride, FleetTarget,
};
pub use image::{DescribeImagesInput, Image};
pub use instance::{CapacityLifecycle, Instance, InstanceState, StateChange, live_states};
pub use instance_type::{
    Accelerator, Gpu, InstanceTypeInfo, NetworkCard, NeuronDevice, TypeOffering,
};
pub use launch_template::{
    BlockDevice, BlockDeviceMapping, LaunchTemplate, LaunchTemplateData, MetadataOptions,
    NetworkInterfaceSpec, TagSpecification,
};
pub use network::{SecurityGroup, Subnet};
pub use price::{OnDemandPrice, SpotPrice, Tenancy};
pub use profile::InstanceProfile;
pub use reservation::{CapacityReservation, ReservationUse};

/// Tags of a resource, by key.
pub type Tags = std::collections::BTreeMap<String, String>;
