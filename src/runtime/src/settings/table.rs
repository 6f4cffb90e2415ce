//! The table of settings (`operations.md` §1), a row each.

use std::time::Duration;

use super::values::{LogLevel, ProviderKind, Refused, format_duration, parse_duration};
use super::{FeatureGates, Settings, scheduler};

/// What a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text, the empty one too.
    Text,
    /// An absolute URL, or nothing.
    Url,
    /// `true` or `false`.
    Bool,
    /// A whole number in this range.
    Integer(i64, i64),
    /// A number of at least 0.
    Ratio,
    /// A duration of at least this many seconds.
    Duration(u64),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Words separated by commas.
    List,
    /// `Name=true,Other=false`.
    Gates,
    /// The part of kube-scheduler's configuration that plans have to know, in YAML or JSON.
    SchedulerConfig,
}

impl Kind {
    /// In words.
    #[must_use]
    pub fn expected(self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Url => "an absolute URL such as https://host".to_owned(),
            Self::Bool => "true or false".to_owned(),
            Self::Integer(i64::MIN, i64::MAX) => "a whole number".to_owned(),
            Self::Integer(least, i64::MAX) => format!("a whole number of at least {least}"),
            Self::Integer(least, most) => format!("a whole number from {least} to {most}"),
            Self::Ratio => "a number of at least 0".to_owned(),
            Self::Duration(0) => "a duration such as 1s or 1m30s".to_owned(),
            Self::Duration(least) => format!(
                "a duration of at least {}",
                format_duration(Duration::from_secs(least))
            ),
            Self::OneOf(words) => {
                let words: Vec<_> = words
                    .iter()
                    .map(|w| if w.is_empty() { "\"\"" } else { w })
                    .collect();
                format!("one of {}", words.join(", "))
            }
            Self::List => "words separated by commas".to_owned(),
            Self::Gates => "NAME=true or NAME=false, separated by commas".to_owned(),
            Self::SchedulerConfig => {
                "YAML with podTopologySpread.defaultConstraints, each with maxSkew, topologyKey and whenUnsatisfiable".to_owned()
            }
        }
    }

    /// In words, and what is wrong with `value` where that takes more to say.
    pub(super) fn expected_of(self, value: &str) -> String {
        match self {
            Self::SchedulerConfig => match scheduler::default_constraints(value) {
                Err(why) => format!("{} ({why})", self.expected()),
                Ok(_) => self.expected(),
            },
            _ => self.expected(),
        }
    }

    /// Whether an empty value is a value, and not the same as none.
    pub(super) fn takes_empty(self) -> bool {
        match self {
            Self::Text | Self::Url => true,
            Self::OneOf(words) => words.contains(&""),
            _ => false,
        }
    }
}

/// A setting.
#[derive(Debug)]
pub struct Row {
    /// Flag, without dashes.
    pub flag: &'static str,
    /// Environment variable.
    pub env: &'static str,
    /// Name under the chart's `settings`; none where the chart sets it otherwise.
    pub chart: Option<&'static str>,
    /// What it takes.
    pub kind: Kind,
    /// One line on what it does.
    pub help: &'static str,
    /// Reads a value.
    pub(super) set: fn(&mut Settings, &str) -> Result<(), Refused>,
    /// Writes the value as text that `set` reads.
    pub show: fn(&Settings) -> String,
}

/// A feature gate.
#[derive(Debug)]
pub struct GateRow {
    /// Name in `--feature-gates`.
    pub name: &'static str,
    /// Name under the chart's `settings.featureGates`.
    pub chart: &'static str,
    /// One line on what it does.
    pub help: &'static str,
    pub(super) field: fn(&mut FeatureGates) -> &mut bool,
}

fn boolean(text: &str) -> Result<bool, Refused> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Refused),
    }
}

fn whole<T: TryFrom<i64>>(text: &str, least: i64) -> Result<T, Refused> {
    let number: i64 = text.parse().map_err(|_| Refused)?;
    if number < least {
        return Err(Refused);
    }
    T::try_from(number).map_err(|_| Refused)
}

fn duration(text: &str, least_secs: u64) -> Result<Duration, Refused> {
    parse_duration(text)
        .filter(|d| *d >= Duration::from_secs(least_secs))
        .ok_or(Refused)
}

fn words(text: &str) -> Vec<String> {
    text.split(',')
        .map(|word| word.trim().to_owned())
        .filter(|word| !word.is_empty())
        .collect()
}

/// Unknown names are let pass: charts of other versions carry gates that are gone or not there yet.
fn gates(settings: &mut Settings, text: &str) -> Result<(), Refused> {
    for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
        let (name, on) = pair.split_once('=').ok_or(Refused)?;
        let on = super::values::env_bool(on.trim()).ok_or(Refused)?;
        if let Some(row) = GATES.iter().find(|row| row.name == name.trim()) {
            *(row.field)(&mut settings.feature_gates) = on;
        }
    }
    Ok(())
}

fn show_gates(settings: &Settings) -> String {
    let mut gates = settings.feature_gates;
    let shown: Vec<String> = GATES
        .iter()
        .map(|row| format!("{}={}", row.name, (row.field)(&mut gates)))
        .collect();
    shown.join(",")
}

fn url(text: &str) -> Result<String, Refused> {
    let absolute = text.is_empty()
        || text
            .parse::<http::Uri>()
            .is_ok_and(|uri| uri.scheme().is_some() && uri.host().is_some_and(|h| !h.is_empty()));
    if absolute {
        Ok(text.to_owned())
    } else {
        Err(Refused)
    }
}

/// Zero and less mean "not known": one core.
fn cpu_requests(text: &str) -> Result<u32, Refused> {
    let millis: i64 = whole(text, i64::MIN)?;
    if millis <= 0 {
        return Ok(1000);
    }
    u32::try_from(millis).map_err(|_| Refused)
}

macro_rules! row {
    ($flag:literal, $env:literal, $chart:expr, $kind:expr, $help:literal, |$s:ident, $v:ident| $set:expr, |$g:ident| $show:expr) => {
        Row {
            flag: $flag,
            env: $env,
            chart: $chart,
            kind: $kind,
            help: $help,
            set: |$s, $v| {
                $set;
                Ok(())
            },
            show: |$g| $show,
        }
    };
}

/// Every gate there is. Drift is stable and has none.
#[rustfmt::skip] // One row a line.
pub const GATES: &[GateRow] = &[
    GateRow { name: "NodeRepair", chart: "nodeRepair", help: "Replaces nodes whose conditions stay bad.", field: |g| &mut g.node_repair },
    GateRow { name: "ReservedCapacity", chart: "reservedCapacity", help: "Uses capacity reservations.", field: |g| &mut g.reserved_capacity },
    GateRow { name: "SpotToSpotConsolidation", chart: "spotToSpotConsolidation", help: "Replaces spot nodes by cheaper spot nodes.", field: |g| &mut g.spot_to_spot_consolidation },
    GateRow { name: "NodeOverlay", chart: "nodeOverlay", help: "Lets NodeOverlay objects change instance types.", field: |g| &mut g.node_overlay },
    GateRow { name: "StaticCapacity", chart: "staticCapacity", help: "Lets NodePools hold a fixed number of nodes.", field: |g| &mut g.static_capacity },
    GateRow { name: "CapacityBuffer", chart: "capacityBuffer", help: "Lets CapacityBuffer objects hold room free.", field: |g| &mut g.capacity_buffer },
];

/// Every setting there is, in the order of the docs page.
#[rustfmt::skip] // One row a line.
pub const TABLE: &[Row] = &[
    row!("provider", "PROVIDER", Some("provider"), Kind::OneOf(&["ec2", "kwok"]), "The cloud that nodes are bought from.",
        |s, v| s.provider = match v { "ec2" => ProviderKind::Ec2, "kwok" => ProviderKind::Kwok, _ => return Err(Refused) }, |s| s.provider.as_str().to_owned()),
    row!("karpenter-service", "KARPENTER_SERVICE", None, Kind::Text, "Name of the controller's service. Unused; kept for old charts.",
        |s, v| s.karpenter_service = v.to_owned(), |s| s.karpenter_service.clone()),
    row!("metrics-port", "METRICS_PORT", None, Kind::Integer(0, 65535), "Port of /metrics.",
        |s, v| s.metrics_port = whole(v, 0)?, |s| s.metrics_port.to_string()),
    row!("health-probe-port", "HEALTH_PROBE_PORT", None, Kind::Integer(0, 65535), "Port of /healthz and /readyz.",
        |s, v| s.health_probe_port = whole(v, 0)?, |s| s.health_probe_port.to_string()),
    row!("kube-client-qps", "KUBE_CLIENT_QPS", None, Kind::Integer(1, u32::MAX as i64), "Requests per second to the API server, leases apart.",
        |s, v| s.kube_client_qps = whole(v, 1)?, |s| s.kube_client_qps.to_string()),
    row!("kube-client-burst", "KUBE_CLIENT_BURST", None, Kind::Integer(1, u32::MAX as i64), "Requests that may be made at once before the rate counts.",
        |s, v| s.kube_client_burst = whole(v, 1)?, |s| s.kube_client_burst.to_string()),
    row!("enable-profiling", "ENABLE_PROFILING", None, Kind::Bool, "Serves profiles on the metrics port.",
        |s, v| s.enable_profiling = boolean(v)?, |s| s.enable_profiling.to_string()),
    row!("disable-controller-warmup", "DISABLE_CONTROLLER_WARMUP", None, Kind::Bool, "Starts watches only once leadership is won.",
        |s, v| s.disable_controller_warmup = boolean(v)?, |s| s.disable_controller_warmup.to_string()),
    row!("disable-leader-election", "DISABLE_LEADER_ELECTION", None, Kind::Bool, "Runs without a lease. Only for a single replica.",
        |s, v| s.disable_leader_election = boolean(v)?, |s| s.disable_leader_election.to_string()),
    row!("disable-cluster-state-observability", "DISABLE_CLUSTER_STATE_OBSERVABILITY", Some("disableClusterStateObservability"), Kind::Bool, "Leaves out the metrics about single pods, nodes and NodePools.",
        |s, v| s.disable_cluster_state_observability = boolean(v)?, |s| s.disable_cluster_state_observability.to_string()),
    row!("leader-election-name", "LEADER_ELECTION_NAME", None, Kind::Text, "Name of the lease.",
        |s, v| s.leader_election_name = v.to_owned(), |s| s.leader_election_name.clone()),
    row!("leader-election-namespace", "LEADER_ELECTION_NAMESPACE", None, Kind::Text, "Namespace of the lease; empty is the controller's own.",
        |s, v| s.leader_election_namespace = v.to_owned(), |s| s.leader_election_namespace.clone()),
    row!("memory-limit", "MEMORY_LIMIT", None, Kind::Integer(i64::MIN, i64::MAX), "Memory the controller may use, in bytes; -1 is unknown.",
        |s, v| s.memory_limit_bytes = whole(v, i64::MIN)?, |s| s.memory_limit_bytes.to_string()),
    row!("cpu-requests", "CPU_REQUESTS", None, Kind::Integer(i64::MIN, u32::MAX as i64), "Thousandths of a core the controller may use; scales concurrency.",
        |s, v| s.cpu_requests_millis = cpu_requests(v)?, |s| s.cpu_requests_millis.to_string()),
    row!("log-level", "LOG_LEVEL", None, Kind::OneOf(&["debug", "info", "error", ""]), "Least important log lines that are written.",
        |s, v| s.log_level = match v { "debug" => LogLevel::Debug, "info" | "" => LogLevel::Info, "error" => LogLevel::Error, _ => return Err(Refused) }, |s| s.log_level.as_str().to_owned()),
    row!("log-output-paths", "LOG_OUTPUT_PATHS", None, Kind::List, "Where log lines go: stdout, stderr or file paths.",
        |s, v| s.log_output_paths = words(v), |s| s.log_output_paths.join(",")),
    row!("log-error-output-paths", "LOG_ERROR_OUTPUT_PATHS", None, Kind::List, "Where errors of the logger itself go.",
        |s, v| s.log_error_output_paths = words(v), |s| s.log_error_output_paths.join(",")),
    row!("batch-max-duration", "BATCH_MAX_DURATION", Some("batchMaxDuration"), Kind::Duration(0), "Longest a batch of pending pods stays open.",
        |s, v| s.batch_max_duration = duration(v, 0)?, |s| format_duration(s.batch_max_duration)),
    row!("batch-idle-duration", "BATCH_IDLE_DURATION", Some("batchIdleDuration"), Kind::Duration(0), "Quiet time that closes a batch of pending pods.",
        |s, v| s.batch_idle_duration = duration(v, 0)?, |s| format_duration(s.batch_idle_duration)),
    row!("preference-policy", "PREFERENCE_POLICY", Some("preferencePolicy"), Kind::OneOf(&["Respect", "Ignore"]), "What becomes of preferred affinities and ScheduleAnyway spreads.",
        |s, v| s.respect_preferences = match v { "Respect" => true, "Ignore" => false, _ => return Err(Refused) }, |s| if s.respect_preferences { "Respect" } else { "Ignore" }.to_owned()),
    row!("min-values-policy", "MIN_VALUES_POLICY", Some("minValuesPolicy"), Kind::OneOf(&["Strict", "BestEffort"]), "What becomes of minValues that cannot be met.",
        |s, v| s.best_effort_min_values = match v { "Strict" => false, "BestEffort" => true, _ => return Err(Refused) }, |s| if s.best_effort_min_values { "BestEffort" } else { "Strict" }.to_owned()),
    row!("ignore-dra-requests", "IGNORE_DRA_REQUESTS", Some("ignoreDRARequests"), Kind::Bool, "Leaves pods with ResourceClaims alone.",
        |s, v| s.ignore_dra_requests = boolean(v)?, |s| s.ignore_dra_requests.to_string()),
    row!("scheduler-config", "SCHEDULER_CONFIG", Some("schedulerConfig"), Kind::SchedulerConfig, "Topology spread that kube-scheduler gives to pods without one of their own.",
        |s, v| s.spread_defaults = scheduler::default_constraints(v).map_err(|_| Refused)?, |s| scheduler::show(&s.spread_defaults)),
    row!("verify-plans", "VERIFY_PLANS", Some("verifyPlans"), Kind::Bool, "Has every plan checked by an independent judge before it is carried out.",
        |s, v| s.verify_plans = boolean(v)?, |s| s.verify_plans.to_string()),
    row!("node-cost", "NODE_COST", Some("nodeCost"), Kind::Ratio, "What a node costs beyond its price when machines are compared, dollars per hour.",
        |s, v| s.node_cost = v.parse::<f64>().ok().filter(|r| r.is_finite() && *r >= 0.0).ok_or(Refused)?, |s| s.node_cost.to_string()),
    row!("feature-gates", "FEATURE_GATES", None, Kind::Gates, "Features to turn on or off.",
        |s, v| gates(s, v)?, |s| show_gates(s)),
    row!("cluster-name", "CLUSTER_NAME", Some("clusterName"), Kind::Text, "EC2: name of the EKS cluster. Required with provider ec2.",
        |s, v| s.ec2.cluster_name = v.to_owned(), |s| s.ec2.cluster_name.clone()),
    row!("cluster-endpoint", "CLUSTER_ENDPOINT", Some("clusterEndpoint"), Kind::Url, "EC2: URL of the API server that nodes join; empty asks EKS.",
        |s, v| s.ec2.cluster_endpoint = url(v)?, |s| s.ec2.cluster_endpoint.clone()),
    row!("cluster-ca-bundle", "CLUSTER_CA_BUNDLE", Some("clusterCABundle"), Kind::Text, "EC2: CA that nodes trust, in base64; empty takes the controller's own.",
        |s, v| s.ec2.cluster_ca_bundle = v.to_owned(), |s| s.ec2.cluster_ca_bundle.clone()),
    row!("isolated-vpc", "ISOLATED_VPC", Some("isolatedVPC"), Kind::Bool, "EC2: makes no calls to pricing and IAM.",
        |s, v| s.ec2.isolated_vpc = boolean(v)?, |s| s.ec2.isolated_vpc.to_string()),
    row!("eks-control-plane", "EKS_CONTROL_PLANE", Some("eksControlPlane"), Kind::Bool, "EC2: takes version and service CIDR from EKS.",
        |s, v| s.ec2.eks_control_plane = boolean(v)?, |s| s.ec2.eks_control_plane.to_string()),
    row!("vm-memory-overhead-percent", "VM_MEMORY_OVERHEAD_PERCENT", Some("vmMemoryOverheadPercent"), Kind::Ratio, "EC2: part of memory lost to the hypervisor until it is measured.",
        |s, v| s.ec2.vm_memory_overhead_percent = v.parse::<f64>().ok().filter(|r| r.is_finite() && *r >= 0.0).ok_or(Refused)?, |s| s.ec2.vm_memory_overhead_percent.to_string()),
    row!("interruption-queue", "INTERRUPTION_QUEUE", Some("interruptionQueue"), Kind::Text, "EC2: name of the SQS queue with interruption messages; empty is none.",
        |s, v| s.ec2.interruption_queue = v.to_owned(), |s| s.ec2.interruption_queue.clone()),
    row!("reserved-enis", "RESERVED_ENIS", Some("reservedENIs"), Kind::Integer(0, u32::MAX as i64), "EC2: network interfaces that pods do not get.",
        |s, v| s.ec2.reserved_enis = whole(v, 0)?, |s| s.ec2.reserved_enis.to_string()),
    row!("disable-dry-run", "DISABLE_DRY_RUN", Some("disableDryRun"), Kind::Bool, "EC2: takes NodeClasses for authorised without a dry run.",
        |s, v| s.ec2.disable_dry_run = boolean(v)?, |s| s.ec2.disable_dry_run.to_string()),
    row!("enable-zonal-shift", "ENABLE_ZONAL_SHIFT", Some("enableZonalShift"), Kind::Bool, "EC2: avoids zones that ARC shifts away from.",
        |s, v| s.ec2.enable_zonal_shift = boolean(v)?, |s| s.ec2.enable_zonal_shift.to_string()),
    row!("ami-refresh-interval", "AMI_REFRESH_INTERVAL", Some("amiRefreshInterval"), Kind::Duration(60), "EC2: how often images are looked up.",
        |s, v| s.ec2.ami_refresh_interval = duration(v, 60)?, |s| format_duration(s.ec2.ami_refresh_interval)),
    row!("subnet-refresh-interval", "SUBNET_REFRESH_INTERVAL", Some("subnetRefreshInterval"), Kind::Duration(60), "EC2: how often subnets are looked up.",
        |s, v| s.ec2.subnet_refresh_interval = duration(v, 60)?, |s| format_duration(s.ec2.subnet_refresh_interval)),
    row!("instance-types-file-path", "INSTANCE_TYPES_FILE_PATH", Some("instanceTypesFilePath"), Kind::Text, "KWOK: file with instance types (JSON); empty is the built-in catalogue.",
        |s, v| s.kwok.instance_types_file_path = v.to_owned(), |s| s.kwok.instance_types_file_path.clone()),
];
