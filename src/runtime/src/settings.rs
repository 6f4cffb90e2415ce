//! What an operator can set. One row of the [`table`] makes flag, environment variable, chart value, schema and docs
//! line; this file reads them: a flag wins over the environment, the environment over the default.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use serde_json::Value;

pub mod docs;
pub mod scheduler;
pub mod table;
mod values;

use table::{Kind, Row, TABLE};
pub use values::{LogLevel, ProviderKind, format_duration, parse_duration};

/// What an operator can set (`operations.md` §1).
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::struct_excessive_bools)] // A set of switches is what settings are.
pub struct Settings {
    /// Shortest quiet time that closes a batch of pending pods.
    pub batch_idle_duration: Duration,
    /// Longest a batch stays open.
    pub batch_max_duration: Duration,
    /// `Respect` (true) or `Ignore`.
    pub respect_preferences: bool,
    /// `BestEffort` (true) or `Strict`.
    pub best_effort_min_values: bool,
    /// Whether pods with resource claims are refused.
    pub ignore_dra_requests: bool,
    /// The topology spread that the cluster gives to pods without one of their own.
    pub spread_defaults: Vec<TopologySpreadConstraint>,
    /// Thousandths of a core the controller may use; scales concurrency.
    pub cpu_requests_millis: u32,
    /// Whether plans are checked by plan-check before they are carried out (findings are counted and logged).
    pub verify_plans: bool,
    /// What a node costs beyond its price when machines are compared, dollars per hour.
    pub node_cost: f64,
    /// Gates.
    pub feature_gates: FeatureGates,
    /// Which cloud.
    pub provider: ProviderKind,
    /// Service name; kept for old charts, unused.
    pub karpenter_service: String,
    /// Port of `/metrics`.
    pub metrics_port: u16,
    /// Port of `/healthz` and `/readyz`.
    pub health_probe_port: u16,
    /// Requests per second to the API server.
    pub kube_client_qps: u32,
    /// Requests that may be made at once before the rate counts.
    pub kube_client_burst: u32,
    /// Whether profiles can be taken on the metrics port.
    pub enable_profiling: bool,
    /// Whether watches start only once leadership is won.
    pub disable_controller_warmup: bool,
    /// Whether to run without a lease.
    pub disable_leader_election: bool,
    /// Whether to leave out the metrics about single pods, nodes and NodePools.
    pub disable_cluster_state_observability: bool,
    /// Name of the lease.
    pub leader_election_name: String,
    /// Namespace of the lease; empty = the one the controller runs in.
    pub leader_election_namespace: String,
    /// Memory the controller may use (bytes); negative = unknown.
    pub memory_limit_bytes: i64,
    /// Least important log lines that are written.
    pub log_level: LogLevel,
    /// Where log lines go: `stdout`, `stderr` or file paths.
    pub log_output_paths: Vec<String>,
    /// Where errors of the logger itself go.
    pub log_error_output_paths: Vec<String>,
    /// EC2's.
    pub ec2: Ec2Settings,
    /// KWOK's.
    pub kwok: KwokSettings,
}

/// Settings of the EC2 provider.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::struct_excessive_bools)] // A set of switches is what settings are.
pub struct Ec2Settings {
    /// Name of the EKS cluster; required.
    pub cluster_name: String,
    /// URL of the API server that nodes join; empty = ask EKS.
    pub cluster_endpoint: String,
    /// CA nodes trust (base64); empty = our own kube config's.
    pub cluster_ca_bundle: String,
    /// Whether pricing and IAM cannot be reached.
    pub isolated_vpc: bool,
    /// Whether version and service CIDR come from EKS.
    pub eks_control_plane: bool,
    /// Part of an instance's memory that is lost to the hypervisor until it is measured (0.075 = 7.5 %).
    pub vm_memory_overhead_percent: f64,
    /// Name of the SQS queue with interruption messages; empty = none.
    pub interruption_queue: String,
    /// Network interfaces that pods do not get.
    pub reserved_enis: u32,
    /// Whether NodeClasses are taken for authorised without a dry run.
    pub disable_dry_run: bool,
    /// Whether zones that ARC shifts away from are avoided.
    pub enable_zonal_shift: bool,
    /// How often images are looked up.
    pub ami_refresh_interval: Duration,
    /// How often subnets are looked up.
    pub subnet_refresh_interval: Duration,
}

/// Settings of the KWOK provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KwokSettings {
    /// File with instance types (JSON); empty = the built-in catalogue.
    pub instance_types_file_path: String,
}

/// Feature gates, with upstream's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // A set of switches is what feature gates are.
pub struct FeatureGates {
    /// Replace nodes whose conditions stay bad.
    pub node_repair: bool,
    /// Capacity reservations.
    pub reserved_capacity: bool,
    /// Replace spot by cheaper spot.
    pub spot_to_spot_consolidation: bool,
    /// NodeOverlay objects.
    pub node_overlay: bool,
    /// Static NodePools.
    pub static_capacity: bool,
    /// CapacityBuffer objects.
    pub capacity_buffer: bool,
}

impl Default for FeatureGates {
    fn default() -> Self {
        Self {
            node_repair: false,
            reserved_capacity: true,
            spot_to_spot_consolidation: false,
            node_overlay: false,
            static_capacity: false,
            capacity_buffer: false,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch_idle_duration: Duration::from_secs(1),
            batch_max_duration: Duration::from_secs(10),
            respect_preferences: true,
            best_effort_min_values: false,
            ignore_dra_requests: true,
            spread_defaults: Vec::new(),
            cpu_requests_millis: 1000,
            verify_plans: true,
            node_cost: 0.002,
            feature_gates: FeatureGates::default(),
            provider: ProviderKind::Ec2,
            karpenter_service: String::new(),
            metrics_port: 8080,
            health_probe_port: 8081,
            kube_client_qps: 200,
            kube_client_burst: 300,
            enable_profiling: false,
            disable_controller_warmup: true,
            disable_leader_election: false,
            disable_cluster_state_observability: false,
            leader_election_name: "karpenter-leader-election".to_owned(),
            leader_election_namespace: String::new(),
            memory_limit_bytes: -1,
            log_level: LogLevel::Info,
            log_output_paths: vec!["stdout".to_owned()],
            log_error_output_paths: vec!["stderr".to_owned()],
            ec2: Ec2Settings::default(),
            kwok: KwokSettings::default(),
        }
    }
}

impl Default for Ec2Settings {
    fn default() -> Self {
        Self {
            cluster_name: String::new(),
            cluster_endpoint: String::new(),
            cluster_ca_bundle: String::new(),
            isolated_vpc: false,
            eks_control_plane: false,
            vm_memory_overhead_percent: 0.075,
            interruption_queue: String::new(),
            reserved_enis: 0,
            disable_dry_run: false,
            enable_zonal_shift: false,
            ami_refresh_interval: Duration::from_secs(60),
            subnet_refresh_interval: Duration::from_secs(60),
        }
    }
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A value outside of what the setting takes. Upstream falls back to the default when the value comes from the
    /// environment; we do not, as nobody notices a misspelt value that is ignored.
    #[error("{setting} is {value:?}, expected {expected}")]
    Value {
        /// As the user spelt it: `--flag`, `VARIABLE` or `settings.chartName`.
        setting: String,
        /// What it was set to.
        value: String,
        /// What it takes.
        expected: String,
    },
    /// A flag without its value.
    #[error("{setting} needs a value, expected {expected}")]
    MissingValue {
        /// The flag.
        setting: String,
        /// What it takes.
        expected: String,
    },
    /// Nothing by that name.
    #[error("{setting} is not a setting{}", did_you_mean(.nearest))]
    Unknown {
        /// As the user spelt it.
        setting: String,
        /// What may have been meant.
        nearest: Option<String>,
    },
    /// Required, but not set.
    #[error("{setting} is required {why}")]
    Required {
        /// All names it can be set by.
        setting: String,
        /// In which case.
        why: &'static str,
    },
}

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest
        .as_ref()
        .map(|name| format!("; did you mean {name}?"))
        .unwrap_or_default()
}

/// Flags of settings that are read, so that charts and command lines stay what they are, and change nothing here.
/// `docs/differences.md` says why.
const WITHOUT_EFFECT: &[&str] = &[
    "enable-profiling",
    "memory-limit",
    "eks-control-plane",
    "interruption-queue",
    "enable-zonal-shift",
    "ignore-dra-requests",
];

impl Settings {
    /// What was asked for and has no effect: to be said once, as nobody notices a wish that is passed over.
    #[must_use]
    pub fn without_effect(&self) -> Vec<&'static str> {
        let default = Self::default();
        let was_set = |row: &&table::Row| (row.show)(self) != (row.show)(&default);
        let rows = TABLE
            .iter()
            .filter(|row| WITHOUT_EFFECT.contains(&row.flag));
        rows.filter(was_set).map(|row| row.flag).collect()
    }

    /// Settings from a command line (without the program's name) and an environment.
    ///
    /// # Errors
    /// Every setting that cannot be used, not only the first.
    pub fn parse<A, S>(args: A, env: &BTreeMap<String, String>) -> Result<Self, Vec<SettingsError>>
    where
        A: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let mut settings = Self::default();
        let mut errors = Vec::new();
        for row in TABLE {
            match env.get(row.env) {
                // A chart renders what is not set as an empty value.
                Some(value) if !value.is_empty() || row.kind.takes_empty() => {
                    settings.apply(row, row.env.to_owned(), value, true, &mut errors);
                }
                _ => {}
            }
        }
        let mut args = args.into_iter().peekable();
        while let Some(arg) = args.next() {
            let arg = arg.as_ref();
            let Some(rest) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
                errors.push(SettingsError::Unknown {
                    setting: format!("{arg:?}"),
                    nearest: None,
                });
                continue;
            };
            let (name, mut value) = match rest.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (rest, None),
            };
            let Some(row) = TABLE.iter().find(|row| row.flag == name) else {
                errors.push(SettingsError::Unknown {
                    setting: arg.to_owned(),
                    nearest: nearest(name, TABLE.iter().map(|row| row.flag))
                        .map(|flag| format!("--{flag}")),
                });
                continue;
            };
            if value.is_none() {
                let is_switch = row.kind == Kind::Bool;
                let follows = args.peek().map(AsRef::as_ref);
                // A switch needs no value and takes only a clear one from the next argument.
                if !is_switch || matches!(follows, Some("true" | "false")) {
                    value = args.next().map(|next| next.as_ref().to_owned());
                } else {
                    value = Some("true".to_owned());
                }
            }
            match value {
                Some(value) => {
                    let setting = format!("--{}", row.flag);
                    settings.apply(row, setting, &value, false, &mut errors);
                }
                None => errors.push(SettingsError::MissingValue {
                    setting: format!("--{}", row.flag),
                    expected: row.kind.expected(),
                }),
            }
        }
        settings.check_required(&mut errors);
        if errors.is_empty() {
            Ok(settings)
        } else {
            Err(errors)
        }
    }

    /// Settings from the chart's `settings` values, as scenarios have them: `batchIdleDuration: 1s`,
    /// `featureGates.nodeRepair: true` or `featureGates: {nodeRepair: true}`. Null is an empty map.
    ///
    /// # Errors
    /// Every value that cannot be used, not only the first. What is required is not asked for: a world brings it.
    pub fn from_chart(values: &Value) -> Result<Self, Vec<SettingsError>> {
        let mut settings = Self::default();
        let mut errors = Vec::new();
        let empty = serde_json::Map::new();
        let map = match values {
            Value::Null => &empty,
            Value::Object(map) => map,
            other => {
                return Err(vec![SettingsError::Value {
                    setting: "settings".to_owned(),
                    value: other.to_string(),
                    expected: "a map of settings".to_owned(),
                }]);
            }
        };
        for (name, value) in map {
            match (name.as_str(), value) {
                ("featureGates", Value::Object(gates)) => {
                    for (gate, on) in gates {
                        settings.apply_gate(gate, on, &mut errors);
                    }
                }
                (name, value) => {
                    if let Some(gate) = name.strip_prefix("featureGates.") {
                        settings.apply_gate(gate, value, &mut errors);
                    } else {
                        settings.apply_chart(name, value, &mut errors);
                    }
                }
            }
        }
        if errors.is_empty() {
            Ok(settings)
        } else {
            Err(errors)
        }
    }

    /// Concurrency of a controller that runs `least` workers on one core and `most` on sixty, for the cores we may
    /// use (`operations.md` §5, L).
    #[must_use]
    pub fn concurrency(&self, least: u32, most: u32) -> usize {
        let cores = self.cpu_requests_millis.div_ceil(1000).max(1);
        let grown = u64::from(most.saturating_sub(least)) * u64::from(cores - 1) / 59;
        let workers = u64::from(least).saturating_add(grown).min(u64::from(most));
        usize::try_from(workers).unwrap_or(usize::MAX)
    }

    fn apply(
        &mut self,
        row: &Row,
        setting: String,
        value: &str,
        from_env: bool,
        errors: &mut Vec<SettingsError>,
    ) {
        let normal = if from_env && row.kind == Kind::Bool {
            values::env_bool(value).map_or(value, |on| if on { "true" } else { "false" })
        } else {
            value
        };
        if let Err(values::Refused) = (row.set)(self, normal) {
            errors.push(SettingsError::Value {
                setting,
                value: value.to_owned(),
                expected: row.kind.expected_of(value),
            });
        }
    }

    fn apply_chart(&mut self, name: &str, value: &Value, errors: &mut Vec<SettingsError>) {
        let setting = format!("settings.{name}");
        let Some(row) = TABLE.iter().find(|row| row.chart == Some(name)) else {
            let charted = TABLE.iter().filter_map(|row| row.chart);
            errors.push(SettingsError::Unknown {
                setting,
                nearest: nearest(name, charted).map(|name| format!("settings.{name}")),
            });
            return;
        };
        let text = match value {
            // What is YAML in a flag may be written out in a chart.
            Value::Object(_) if row.kind == Kind::SchedulerConfig => Some(value.to_string()),
            other => scalar(other),
        };
        match text {
            Some(text) => self.apply(row, setting, &text, false, errors),
            None => errors.push(SettingsError::Value {
                setting,
                value: value.to_string(),
                expected: row.kind.expected(),
            }),
        }
    }

    fn apply_gate(&mut self, gate: &str, on: &Value, errors: &mut Vec<SettingsError>) {
        let setting = format!("settings.featureGates.{gate}");
        let Some(row) = table::GATES.iter().find(|row| row.chart == gate) else {
            errors.push(SettingsError::Unknown {
                setting,
                nearest: nearest(gate, table::GATES.iter().map(|row| row.chart))
                    .map(|name| format!("settings.featureGates.{name}")),
            });
            return;
        };
        match scalar(on).as_deref() {
            Some("true") => *(row.field)(&mut self.feature_gates) = true,
            Some("false") => *(row.field)(&mut self.feature_gates) = false,
            _ => errors.push(SettingsError::Value {
                setting,
                value: on.to_string(),
                expected: Kind::Bool.expected(),
            }),
        }
    }

    fn check_required(&self, errors: &mut Vec<SettingsError>) {
        if self.provider == ProviderKind::Ec2 && self.ec2.cluster_name.is_empty() {
            errors.push(SettingsError::Required {
                setting: "--cluster-name (CLUSTER_NAME, settings.clusterName)".to_owned(),
                why: "with provider ec2",
            });
        }
    }
}

/// A chart value as text: YAML writes `0`, `"0"` and `1s` alike.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(on) => Some(on.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The name closest to `wrong`, if one is close.
fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    names
        .map(|name| (values::edit_distance(wrong, name), name))
        .min()
        .filter(|(distance, name)| *distance * 3 <= name.len())
        .map(|(_, name)| name.to_owned())
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
