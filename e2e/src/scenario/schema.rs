//! The scenario file: its types are its documentation, its JSON schema (`fixtures/scenario.schema.json`) and its
//! parser. Unknown fields are refused.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::faults::{ApiFaults, CloudFault, MachineFault};

/// A story about a cluster, told in timed steps.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Scenario {
    /// What the story shows, in a sentence or two.
    #[serde(default)]
    pub description: String,
    /// The only randomness. Same seed, same bytes.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// What machines come from.
    #[serde(default)]
    pub cloud: Cloud,
    /// Controller settings by the names of the chart's `settings`.
    #[serde(default)]
    pub settings: BTreeMap<String, Value>,
    /// Whether a controller runs only while it holds a lease.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leader_election: bool,
    /// Kubernetes objects that are there at the start.
    #[serde(default)]
    pub objects: Vec<Value>,
    /// Files beside the scenario with more such objects (YAML, JSON, `List`s).
    #[serde(default)]
    pub files: Vec<String>,
    /// What happens, in order.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// Time that passes after the last step, so that the end is a settled one.
    #[serde(default = "default_settle")]
    #[schemars(with = "String")]
    pub settle: Span,
}

fn default_seed() -> u64 {
    1
}

fn default_settle() -> Span {
    Span::seconds(60)
}

/// What machines come from.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Cloud {
    /// The provider.
    #[serde(default)]
    pub provider: ProviderName,
    /// Region of the EC2 catalogue.
    #[serde(default = "default_region")]
    pub region: String,
    /// File beside the scenario with instance types in the KWOK provider's format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_types: Option<String>,
    /// Name of the cluster: owner tag of machines, discovery tag of subnets and security groups.
    #[serde(default = "default_cluster")]
    pub cluster_name: String,
    /// Capacity reservations of the EC2 account.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capacity_reservations: Vec<CapacityReservation>,
}

/// A capacity reservation of the EC2 account.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CapacityReservation {
    /// Id, `cr-...`.
    pub id: String,
    /// Instance type.
    pub instance_type: String,
    /// Zone.
    pub zone: String,
    /// Machines.
    pub count: u32,
    /// When it ends, counted from the start; none = never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub ends: Option<Span>,
    /// Whether it is a capacity block, whose machines end with it.
    #[serde(default)]
    pub capacity_block: bool,
    /// Tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// Region that is assumed when none is named.
#[must_use]
pub fn default_region() -> String {
    "us-east-1".to_owned()
}

/// Cluster name that is assumed when none is named.
#[must_use]
pub fn default_cluster() -> String {
    "demo".to_owned()
}

/// The provider a scenario runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProviderName {
    /// Nodes made straight in the cluster.
    #[default]
    Kwok,
    /// The EC2 provider on the in-memory EC2.
    Ec2,
}

/// One step: when, and exactly one thing to do.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Step {
    /// When, counted from the start; none = right after the step before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub at: Option<Span>,
    /// Why, for the reader.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Applies objects (server-side apply).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apply: Option<Apply>,
    /// Deletes an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete: Option<Target>,
    /// Patches an object (JSON merge patch).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<PatchStep>,
    /// Sets the replicas of a workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
    /// Restarts the pods of a workload, as `kubectl rollout restart` does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roll_out: Option<Target>,
    /// Makes a node unschedulable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cordon: Option<NodeSelector>,
    /// Makes a node unschedulable and evicts its pods, as `kubectl drain` does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<NodeSelector>,
    /// Kills or starts the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<ControllerAction>,
    /// A fault of the cloud, or its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud: Option<CloudFault>,
    /// A fault of machines, or its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineFault>,
    /// What goes wrong between the controller and the API server from now on; `{}` = nothing any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<ApiFaults>,
    /// Lets time pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Wait>,
    /// Must hold now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Expect>,
}

/// Objects to apply.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Apply {
    /// Inline.
    #[serde(default)]
    pub objects: Vec<Value>,
    /// Files beside the scenario.
    #[serde(default)]
    pub files: Vec<String>,
}

/// An object by kind and name.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Target {
    /// Kind, such as `Deployment`.
    pub kind: String,
    /// Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Label selector (`app=web,tier!=db`): all objects that match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Namespace; none = `default` for namespaced kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Only the first in name order.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub first: bool,
}

/// A merge patch.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PatchStep {
    /// What to patch.
    pub target: Target,
    /// JSON merge patch.
    pub patch: Value,
    /// `status` to patch that subresource.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subresource: String,
}

/// New number of replicas.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Scale {
    /// What to scale; kind defaults to `Deployment`.
    #[serde(default = "default_scale_kind")]
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace; none = `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// How many.
    pub replicas: i64,
}

fn default_scale_kind() -> String {
    "Deployment".to_owned()
}

/// Nodes, all of them when nothing is said; `first` takes one, by name.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NodeSelector {
    /// By name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// By NodePool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_pool: Option<String>,
    /// By labels (`a=b,c=d`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Only the first in name order.
    #[serde(default)]
    pub first: bool,
}

/// What to do to the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ControllerAction {
    /// Kill it where it stands, mid-write if so.
    Crash,
    /// Ask it to end and wait for it.
    Stop,
    /// Start it (again).
    Start,
    /// Crash and start.
    Restart,
    /// Another controller, which has been waiting, gets the lease; needs `leaderElection`.
    Takeover,
}

/// Lets time pass.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Wait {
    /// This long.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub duration: Option<Span>,
    /// Until this holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Expect>,
    /// Must hold all the while: at the end of every moment of the wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holding: Option<Expect>,
    /// How long to wait for `until` at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub timeout: Option<Span>,
}

/// What must hold; every field that is set.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Expect {
    /// Nodes of NodePools, and those that registered for a NodeClaim of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Count>,
    /// Of those, Ready and initialized.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes_ready: Option<Count>,
    /// Nodes by NodePool.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes_by_pool: BTreeMap<String, Count>,
    /// NodeClaims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_claims: Option<Count>,
    /// Running machines at the cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<Count>,
    /// Pods that run and are Ready (DaemonSet pods not counted).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods_running: Option<Count>,
    /// Pods without a node (DaemonSet pods not counted).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods_pending: Option<Count>,
    /// Instance types of the nodes, each in this list (`m5.*` matches a prefix).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_types: Option<Vec<String>>,
    /// Events seen so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<EventExpect>,
    /// Objects and their fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<ObjectExpect>,
}

/// A number, or a range of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Count {
    /// Exactly.
    Exactly(u64),
    /// At least `min`, at most `max`.
    Range(Range),
}

/// A range of numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// Least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<u64>,
    /// Most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
}

impl Count {
    /// Whether `n` is as said.
    #[must_use]
    pub fn holds(self, n: u64) -> bool {
        match self {
            Self::Exactly(want) => n == want,
            Self::Range(r) => r.min.is_none_or(|min| n >= min) && r.max.is_none_or(|max| n <= max),
        }
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exactly(n) => write!(f, "{n}"),
            Self::Range(Range { min, max }) => match (min, max) {
                (Some(min), Some(max)) => write!(f, "{min}..={max}"),
                (Some(min), None) => write!(f, ">={min}"),
                (None, Some(max)) => write!(f, "<={max}"),
                (None, None) => f.write_str("any"),
            },
        }
    }
}

/// Events that must have been seen.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EventExpect {
    /// Reason.
    pub reason: String,
    /// Kind of the object it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Text its message contains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// How many (repeats counted); none = at least one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<Count>,
}

/// An object and one of its fields.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ObjectExpect {
    /// Kind.
    pub kind: String,
    /// Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Label selector: all objects that match must do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Namespace; none = `default` for namespaced kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Whether it is there at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exists: Option<bool>,
    /// JSON pointer (`/status/nodes`), or `condition:Ready` for a condition's status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What is there; none with a path = it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equals: Option<Value>,
}

/// Longest span: a timer waits for no longer than some thirty years, and says nothing when it gives up before.
const MAX_SPAN: std::time::Duration = std::time::Duration::from_secs(10 * 365 * 86_400);

/// A length of time as text: `90s`, `1h30m`, `30d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub std::time::Duration);

impl Span {
    /// Whole seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(std::time::Duration::from_secs(seconds))
    }
}

impl std::str::FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "{text:?} is not a length of time: expected digits with d, h, m, s or ms, such as 1h30m"
            )
        };
        let (mut total, mut digits, mut rest) = (std::time::Duration::ZERO, String::new(), text);
        while let Some(c) = rest.chars().next() {
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
            if c.is_ascii_digit() {
                digits.push(c);
                continue;
            }
            let n: u64 = digits.parse().map_err(|_| bad())?;
            digits.clear();
            let millis = match c {
                'd' => 86_400_000,
                'h' => 3_600_000,
                'm' if rest.starts_with('s') => {
                    rest = rest.get(1..).unwrap_or_default();
                    1
                }
                'm' => 60_000,
                's' => 1_000,
                _ => return Err(bad()),
            };
            let part = n.checked_mul(millis).ok_or_else(bad)?;
            total = total
                .checked_add(std::time::Duration::from_millis(part))
                .ok_or_else(bad)?;
        }
        if total > MAX_SPAN {
            let days = MAX_SPAN.as_secs() / 86_400;
            return Err(format!("{text:?} is too long: expected at most {days}d"));
        }
        if digits.is_empty() && !text.is_empty() {
            Ok(Self(total))
        } else {
            Err(bad())
        }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in [
            ("d", 86_400_000),
            ("h", 3_600_000),
            ("m", 60_000),
            ("s", 1_000),
            ("ms", 1),
        ] {
            if millis >= size {
                write!(f, "{}{unit}", millis / size)?;
                millis %= size;
            }
        }
        Ok(())
    }
}
