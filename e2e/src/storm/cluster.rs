//! A random cluster: NodePools, their budgets and limits, and workloads with what they ask for. Whatever is drawn, the
//! pool `general` admits every pod, without a limit: what does not run in the end could have.

#![allow(clippy::indexing_slicing)] // JSON objects made here, under literal keys: no input reaches them.

use karpenter_runtime::RngTree;
use karpenter_runtime::rng::Rng;
use serde_json::{Value, json};

use super::{one, word};
use crate::scenario::schema::ProviderName;

/// Label of the team whose pool is tainted for everybody else.
const TEAM: &str = "example.com/team";

/// What was drawn.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// What machines come from.
    pub provider: ProviderName,
    /// Everything that is there at the start.
    pub objects: Vec<Value>,
    /// Names of the NodePools.
    pub pools: Vec<String>,
    /// The workloads.
    pub workloads: Vec<Workload>,
    /// Names of PodDisruptionBudgets.
    pub budgets: Vec<String>,
    /// Capacity types that are bought.
    pub capacity_types: Vec<&'static str>,
    /// Whether controllers hold a lease.
    pub elections: bool,
    /// Zones there are.
    pub zones: &'static [&'static str],
}

/// A Deployment or StatefulSet.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Kind.
    pub kind: &'static str,
    /// Name.
    pub name: String,
    /// Whether its pods are not to be disrupted.
    pub protected: bool,
}

/// How wild it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Nodes live for ever, and no budget or protection ever blocks: what the cluster does is about money only.
    Calm,
    /// Everything that users do.
    Stormy,
}

impl Cluster {
    /// Draws one.
    #[must_use]
    pub fn draw(tree: &RngTree, provider: ProviderName, weather: Weather) -> Self {
        let mut rng = tree.child("random-cluster", "").rng();
        let zones: &[&str] = match provider {
            ProviderName::Kwok => &["test-zone-a", "test-zone-b", "test-zone-c"],
            ProviderName::Ec2 => &["us-east-1a", "us-east-1b", "us-east-1c"],
        };
        let capacity_types = match rng.below(3) {
            0 => vec!["on-demand"],
            1 => vec!["spot"],
            _ => vec!["spot", "on-demand"],
        };
        let mut cluster = Self {
            provider,
            objects: vec![class(&mut rng, provider)],
            pools: Vec::new(),
            workloads: Vec::new(),
            budgets: Vec::new(),
            capacity_types,
            elections: weather == Weather::Stormy
                && tree.child("random-elections", "").rng().chance(0.5),
            zones,
        };
        cluster.pool(&mut rng, "general", weather);
        for index in 0..rng.below(3) {
            let name = format!("extra{index}");
            cluster.pool(&mut rng, &name, weather);
        }
        for index in 0..2 + rng.below(4) {
            cluster.workload(&mut rng, index, weather);
        }
        for index in 0..rng.below(3) {
            let cpu = format!("{}m", 50 * (1 + rng.below(4)));
            cluster.objects.push(daemon(&format!("agent{index}"), &cpu));
        }
        cluster
    }

    fn pool(&mut self, rng: &mut Rng, name: &str, weather: Weather) {
        let stormy = weather == Weather::Stormy;
        let general = name == "general";
        let mut requirements = vec![
            json!({"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}),
            json!({"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}),
            json!({"key": "karpenter.sh/capacity-type", "operator": "In", "values": self.capacity_types}),
        ];
        let (sizes, category) = match self.provider {
            ProviderName::Kwok => (
                "karpenter.kwok.sh/instance-cpu",
                "karpenter.kwok.sh/instance-family",
            ),
            ProviderName::Ec2 => (
                "karpenter.k8s.aws/instance-cpu",
                "karpenter.k8s.aws/instance-category",
            ),
        };
        if self.provider == ProviderName::Ec2 {
            requirements
                .push(json!({"key": category, "operator": "In", "values": ["c", "m", "r"]}));
            requirements.push(json!({"key": "karpenter.k8s.aws/instance-generation", "operator": "Gt", "values": ["4"]}));
        }
        let mut template = json!({"metadata": {"labels": {"example.com/pool": name}}, "spec": {}});
        let mut spec = json!({});
        if !general {
            if rng.chance(0.5) {
                requirements.push(json!({"key": sizes, "operator": "Lt", "values": [word(rng, &["9", "17", "33"])]}));
            }
            if rng.chance(0.3) {
                let zone = word(rng, self.zones);
                requirements.push(json!({"key": "topology.kubernetes.io/zone", "operator": "In", "values": [zone]}));
            }
            if rng.chance(0.3) {
                template["spec"]["taints"] =
                    json!([{"key": TEAM, "value": name, "effect": "NoSchedule"}]);
            }
            if rng.chance(0.4) {
                spec["limits"] = json!({"cpu": word(rng, &["16", "40", "100"])});
            }
            if rng.chance(0.5) {
                spec["weight"] = json!(1 + rng.below(100));
            }
        }
        template["spec"]["requirements"] = requirements.into();
        template["spec"]["nodeClassRef"] = match self.provider {
            ProviderName::Kwok => {
                json!({"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "default"})
            }
            ProviderName::Ec2 => {
                json!({"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"})
            }
        };
        template["spec"]["expireAfter"] = match rng.below(4) {
            0 if stormy => "20m".into(),
            1 => "720h".into(),
            _ => "Never".into(),
        };
        if stormy && rng.chance(0.3) {
            template["spec"]["terminationGracePeriod"] = word(rng, &["1m", "5m"]).into();
        }
        let policies = [
            "WhenEmptyOrUnderutilized",
            "WhenEmptyOrUnderutilized",
            "Balanced",
            "WhenEmpty",
        ];
        spec["disruption"] = json!({
            "consolidationPolicy": word(rng, &policies),
            "consolidateAfter": word(rng, &["0s", "30s", "2m"]),
            "budgets": budgets(rng, stormy),
        });
        spec["template"] = template;
        self.objects
            .push(json!({"apiVersion": "karpenter.sh/v1", "kind": "NodePool",
            "metadata": {"name": name}, "spec": spec}));
        self.pools.push(name.to_owned());
    }

    fn workload(&mut self, rng: &mut Rng, index: u64, weather: Weather) {
        let stormy = weather == Weather::Stormy;
        let name = format!("work{index}");
        let kind = if rng.chance(0.3) {
            "StatefulSet"
        } else {
            "Deployment"
        };
        let protected = stormy && rng.chance(0.15);
        let mut pod = json!({"containers": [{"name": "main", "image": "registry.k8s.io/pause:3.10",
        "resources": {"requests": {
            "cpu": word(rng, &["100m", "250m", "500m", "1", "1500m", "3"]),
            "memory": word(rng, &["128Mi", "512Mi", "1Gi", "3Gi", "7Gi"]),
        }}}]});
        let selector = json!({"matchLabels": {"app": name}});
        if rng.chance(0.25) {
            let when = word(rng, &["DoNotSchedule", "ScheduleAnyway"]);
            let key = word(
                rng,
                &["topology.kubernetes.io/zone", "kubernetes.io/hostname"],
            );
            pod["topologySpreadConstraints"] = json!([{"maxSkew": 1 + rng.below(2), "topologyKey": key,
                "whenUnsatisfiable": when, "labelSelector": selector}]);
        }
        if rng.chance(0.15) {
            pod["affinity"]["podAntiAffinity"] = json!({"requiredDuringSchedulingIgnoredDuringExecution":
                [{"topologyKey": "kubernetes.io/hostname", "labelSelector": selector}]});
        }
        if rng.chance(0.15) {
            pod["nodeSelector"]["topology.kubernetes.io/zone"] = word(rng, self.zones).into();
        }
        if rng.chance(0.15) {
            pod["nodeSelector"]["karpenter.sh/capacity-type"] =
                word(rng, &self.capacity_types).into();
        }
        if rng.chance(0.4) {
            pod["tolerations"] = json!([{"key": TEAM, "operator": "Exists"}]);
        }
        if rng.chance(0.2) {
            pod["terminationGracePeriodSeconds"] = json!(*one(rng, &[0, 5, 120]).unwrap_or(&5));
        }
        let mut meta = json!({"labels": {"app": name}});
        if protected {
            meta["annotations"]["karpenter.sh/do-not-disrupt"] = word(rng, &["true", "4m"]).into();
        }
        if rng.chance(0.1) {
            meta["annotations"]["controller.kubernetes.io/pod-deletion-cost"] =
                word(rng, &["-100", "1000", "2147483647"]).into();
        }
        let mut spec = json!({"replicas": 1 + rng.below(8), "selector": selector,
            "template": {"metadata": meta, "spec": pod}});
        if kind == "StatefulSet" {
            spec["serviceName"] = name.clone().into();
            spec["podManagementPolicy"] = word(rng, &["OrderedReady", "Parallel"]).into();
        }
        self.objects
            .push(json!({"apiVersion": "apps/v1", "kind": kind,
            "metadata": {"name": name, "namespace": "default"}, "spec": spec}));
        if rng.chance(0.35) {
            let mut budget = json!({"selector": {"matchLabels": {"app": name}}});
            match rng.below(3) {
                0 => budget["maxUnavailable"] = json!(1),
                1 if stormy => budget["minAvailable"] = "100%".into(),
                _ => budget["minAvailable"] = "50%".into(),
            }
            self.objects.push(
                json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
                "metadata": {"name": name, "namespace": "default"}, "spec": budget}),
            );
            self.budgets.push(name.clone());
        }
        self.workloads.push(Workload {
            kind,
            name,
            protected,
        });
    }
}

/// Budgets of a pool.
pub(super) fn budgets(rng: &mut Rng, may_block: bool) -> Value {
    match rng.below(if may_block { 7 } else { 5 }) {
        0 => json!([{"nodes": "100%"}]),
        1 => json!([{"nodes": "1"}]),
        2 => json!([{"nodes": "50%"}, {"nodes": "1", "reasons": ["Underutilized"]}]),
        3 => json!([{"nodes": "2", "reasons": ["Drifted"]}, {"nodes": "40%"}]),
        4 => json!([{"nodes": "10%"}]),
        5 => json!([{"nodes": "0", "reasons": ["Underutilized", "Empty"]}, {"nodes": "50%"}]),
        _ => {
            json!([{"nodes": "0", "schedule": "*/10 * * * *", "duration": "5m"}, {"nodes": "60%"}])
        }
    }
}

fn class(rng: &mut Rng, provider: ProviderName) -> Value {
    match provider {
        ProviderName::Kwok => {
            json!({"apiVersion": "karpenter.kwok.sh/v1alpha1", "kind": "KWOKNodeClass",
            "metadata": {"name": "default"},
            "spec": {"nodeRegistrationDelay": word(rng, &["0s", "15s", "45s"])}})
        }
        ProviderName::Ec2 => json!({"apiVersion": "karpenter.k8s.aws/v1", "kind": "EC2NodeClass",
            "metadata": {"name": "default"},
            "spec": {"role": "KarpenterNodeRole-demo", "amiSelectorTerms": [{"alias": "al2023@latest"}],
                "subnetSelectorTerms": [{"tags": {"karpenter.sh/discovery": "demo"}}],
                "securityGroupSelectorTerms": [{"tags": {"karpenter.sh/discovery": "demo"}}]}}),
    }
}

fn daemon(name: &str, cpu: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"tolerations": [{"operator": "Exists"}], "containers": [{"name": "main",
                "image": "registry.k8s.io/pause:3.10", "resources": {"requests": {"cpu": cpu}}}]}}}})
}
