//! Settings of the provider (`aws-provider.md` §1 of the compatibility notes; chart values `settings.*`).

use std::time::Duration;

/// What the provider needs to be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Ec2Settings {
    /// Cluster name: tag value, and part of names.
    pub cluster_name: String,
    /// URL of the API server, for user data.
    pub cluster_endpoint: String,
    /// CA of the API server, base64, for user data.
    pub cluster_ca_bundle: String,
    /// Service network, for AL2023's user data.
    pub cluster_cidr: String,
    /// Address of kube-dns, if known.
    pub kube_dns_ip: Option<String>,
    /// Region.
    pub region: String,
    /// Kubernetes version as `major.minor`; none = ask the API server.
    pub kubernetes_version: Option<String>,
    /// Whether the VPC has no way out: no price list, no IAM clean-up.
    pub isolated_vpc: bool,
    /// Part of a machine's memory that Karpenter expects to be missing, as a fraction.
    pub vm_memory_overhead_percent: f64,
    /// Network interfaces that pods cannot use.
    pub reserved_enis: u32,
    /// Whether NodeClass validation skips its dry runs.
    pub disable_dry_run: bool,
    /// How long found images are believed.
    pub ami_refresh_interval: Duration,
    /// How long found subnets are believed.
    pub subnet_refresh_interval: Duration,
    /// Whether capacity reservations are used (gate `ReservedCapacity`).
    pub reserved_capacity: bool,
    /// minValues that cannot be met at launch are ignored (`--min-values-policy=BestEffort`).
    pub best_effort_min_values: bool,
}

impl Ec2Settings {
    /// From what an operator set. What EKS would tell (service network, version, DNS) is left for its caller to add.
    #[must_use]
    pub fn of(settings: &karpenter_runtime::Settings) -> Self {
        let said = &settings.ec2;
        Self {
            cluster_name: said.cluster_name.clone(),
            cluster_endpoint: said.cluster_endpoint.clone(),
            cluster_ca_bundle: said.cluster_ca_bundle.clone(),
            isolated_vpc: said.isolated_vpc,
            vm_memory_overhead_percent: said.vm_memory_overhead_percent,
            reserved_enis: said.reserved_enis,
            disable_dry_run: said.disable_dry_run,
            ami_refresh_interval: said.ami_refresh_interval,
            subnet_refresh_interval: said.subnet_refresh_interval,
            reserved_capacity: settings.feature_gates.reserved_capacity,
            best_effort_min_values: settings.best_effort_min_values,
            ..Self::default()
        }
    }
}

impl Default for Ec2Settings {
    fn default() -> Self {
        Self {
            cluster_name: String::new(),
            cluster_endpoint: String::new(),
            cluster_ca_bundle: String::new(),
            cluster_cidr: String::new(),
            kube_dns_ip: None,
            region: "us-east-1".to_owned(),
            kubernetes_version: None,
            isolated_vpc: false,
            vm_memory_overhead_percent: 0.075,
            reserved_enis: 0,
            disable_dry_run: false,
            ami_refresh_interval: Duration::from_secs(60),
            subnet_refresh_interval: Duration::from_secs(60),
            reserved_capacity: true,
            best_effort_min_values: false,
        }
    }
}
