//! The trait: one method per AWS call. IAM's instance profiles are here because launches need them; EKS, SQS and
//! zonal shift join as traits of their own when their features come.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::error::Result;
use crate::{
    CapacityReservation, CreateFleetInput, CreateFleetOutput, DescribeImagesInput, Filter, Image,
    Instance, InstanceProfile, InstanceTypeInfo, LaunchTemplate, LaunchTemplateData, OnDemandPrice,
    SecurityGroup, SpotPrice, StateChange, Subnet, Tags, Tenancy, TypeOffering,
};

/// AWS as Karpenter uses it. Every method fails with [`crate::Ec2Error`]; [`crate::Ec2Error::class`] says what
/// kind of failure it is.
#[async_trait]
pub trait Ec2: Send + Sync + 'static {
    /// `DescribeInstanceTypes`. The facts are shared: an unchanged type may come back as the same allocation.
    async fn describe_instance_types(
        &self,
        filters: &[Filter],
    ) -> Result<Vec<Arc<InstanceTypeInfo>>>;
    /// `DescribeInstanceTypeOfferings` with location type `availability-zone`.
    async fn describe_instance_type_offerings(&self) -> Result<Vec<TypeOffering>>;
    /// `DescribeSpotPriceHistory` from `start` for `product_descriptions`: one entry per type, zone and change.
    async fn describe_spot_price_history(
        &self,
        start: Timestamp,
        product_descriptions: &[&str],
    ) -> Result<Vec<SpotPrice>>;
    /// `GetProducts` of the price list service: Linux on-demand prices of `region` (no pre-installed software, used
    /// capacity), shared tenancy for virtual machines, dedicated for bare metal.
    async fn get_products(&self, region: &str, tenancy: Tenancy) -> Result<Vec<OnDemandPrice>>;
    /// `DescribeSubnets`. Filters are ANDed, values of one filter ORed.
    async fn describe_subnets(&self, filters: &[Filter]) -> Result<Vec<Subnet>>;
    /// `DescribeSecurityGroups`.
    async fn describe_security_groups(&self, filters: &[Filter]) -> Result<Vec<SecurityGroup>>;
    /// `DescribeCapacityReservations` by ids (all when empty) and filters. An unknown id is
    /// `InvalidCapacityReservationId.NotFound`.
    async fn describe_capacity_reservations(
        &self,
        ids: &[String],
        filters: &[Filter],
    ) -> Result<Vec<CapacityReservation>>;
    /// `DescribeImages`.
    async fn describe_images(&self, input: &DescribeImagesInput) -> Result<Vec<Image>>;
    /// SSM `GetParameter`: its value. `ParameterNotFound` when there is none.
    async fn get_parameter(&self, name: &str) -> Result<String>;
    /// `CreateLaunchTemplate`.
    async fn create_launch_template(
        &self,
        name: &str,
        data: &LaunchTemplateData,
        tags: &Tags,
    ) -> Result<LaunchTemplate>;
    /// `DescribeLaunchTemplates` by name: `InvalidLaunchTemplateName.NotFoundException` if one is missing.
    async fn describe_launch_templates_by_name(
        &self,
        names: &[String],
    ) -> Result<Vec<LaunchTemplate>>;
    /// `DescribeLaunchTemplates` by filters; empty is not an error.
    async fn describe_launch_templates(&self, filters: &[Filter]) -> Result<Vec<LaunchTemplate>>;
    /// `DeleteLaunchTemplate` by name.
    async fn delete_launch_template(&self, name: &str) -> Result<()>;
    /// `CreateFleet` of type `instant`. A partly or wholly failed launch is an `Ok` with errors in it.
    async fn create_fleet(&self, input: &CreateFleetInput) -> Result<CreateFleetOutput>;
    /// `DescribeInstances` by ids (all when empty) and filters. An unknown id is `InvalidInstanceID.NotFound`.
    async fn describe_instances(&self, ids: &[String], filters: &[Filter])
    -> Result<Vec<Instance>>;
    /// `TerminateInstances`.
    async fn terminate_instances(&self, ids: &[String]) -> Result<Vec<StateChange>>;
    /// `CreateTags` on resources of any kind; existing keys are overwritten.
    async fn create_tags(&self, resources: &[String], tags: &Tags) -> Result<()>;
    /// IAM `GetInstanceProfile`; `NoSuchEntity` when there is none.
    async fn get_instance_profile(&self, name: &str) -> Result<InstanceProfile>;
    /// IAM `CreateInstanceProfile`; `EntityAlreadyExists` when there is one.
    async fn create_instance_profile(
        &self,
        name: &str,
        path: &str,
        tags: &Tags,
    ) -> Result<InstanceProfile>;
    /// IAM `AddRoleToInstanceProfile`; `LimitExceeded` when it has one, `NoSuchEntity` when the role is missing.
    async fn add_role_to_instance_profile(&self, name: &str, role: &str) -> Result<()>;
    /// IAM `RemoveRoleFromInstanceProfile`.
    async fn remove_role_from_instance_profile(&self, name: &str, role: &str) -> Result<()>;
    /// IAM `DeleteInstanceProfile`; `DeleteConflict` while it has a role.
    async fn delete_instance_profile(&self, name: &str) -> Result<()>;
    /// IAM `ListInstanceProfiles` under a path prefix.
    async fn list_instance_profiles(&self, path_prefix: &str) -> Result<Vec<InstanceProfile>>;
}
