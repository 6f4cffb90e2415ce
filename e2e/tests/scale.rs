//! Large clusters in virtual time: the performance cases of the catalogue (77 to 83) and a scale-in of 60 % of 2 000 nodes,
//! each within its time and its budgets. Minutes of computing, so only when asked for: `just test-tiers --test scale --
//! --ignored`.

#![allow(clippy::indexing_slicing, clippy::print_stderr)] // Objects made here, and a test may tell how long it took.

use karpenter_e2e::scenario::{Loaded, Scenario};
use karpenter_e2e::storm::tell::{Told, watched};
use karpenter_e2e::world::virtual_runtime;
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};

/// Makes a scenario.
type Story = fn() -> Value;

fn main() {
    let arguments = Arguments::from_args();
    let cases: [(&str, Story); 8] = [
        ("case_77_two_profiles_out_and_in", two_profiles),
        ("case_78_spread_over_hosts", spread_over_hosts),
        ("case_79_everything_drifts", everything_drifts),
        ("case_80_protected_nodes_survive", protected),
        ("case_81_one_pod_a_host", apart),
        ("case_82_thirty_deployments", thirty),
        ("case_83_all_methods_at_once", all_at_once),
        ("scale_in_by_60_percent_of_2000_nodes", scale_in),
    ];
    let trials = cases.into_iter().map(|(name, story)| {
        Trial::test(name, move || judge(name, story())).with_ignored_flag(true)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

fn judge(name: &str, story: Value) -> Result<(), Failed> {
    let scenario: Scenario = serde_json::from_value(story).map_err(|e| e.to_string())?;
    let loaded = Loaded::of(name, scenario);
    let runtime = virtual_runtime().map_err(|e| e.to_string())?;
    let told = runtime.block_on(watched(&loaded, 1));
    let Told {
        broken,
        moves,
        ended,
    } = told.map_err(|e| e.to_string())?;
    // How long each wait took is what these stories are about: shown with --nocapture.
    let told = ended.join("\n");
    if broken.is_empty() {
        eprintln!("{name}: {moves} commands\n{told}");
        return Ok(());
    }
    Err(format!("{}\n{told}", broken.join("\n")).into())
}

/// A pool of on-demand machines, four cores at most where `cpu` says so.
fn pool(disruption: Value, cpu: &[&str]) -> Value {
    let mut requirements = vec![
        json!({"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}),
        json!({"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}),
        json!({"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]}),
    ];
    if !cpu.is_empty() {
        requirements.push(
            json!({"key": "karpenter.kwok.sh/instance-cpu", "operator": "In", "values": cpu}),
        );
    }
    json!({"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "default"}, "spec": {
        "template": {"spec": {"requirements": requirements, "expireAfter": "720h",
            "nodeClassRef": {"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "default"}}},
        "disruption": disruption}})
}

fn class() -> Value {
    json!({"apiVersion": "karpenter.kwok.sh/v1alpha1", "kind": "KWOKNodeClass", "metadata": {"name": "default"},
        "spec": {"nodeRegistrationDelay": "20s"}})
}

fn deployment(name: &str, replicas: u32, cpu: &str, memory: &str, more: &Value) -> Value {
    let mut pod = json!({"containers": [{"name": "c", "image": "pause",
        "resources": {"requests": {"cpu": cpu, "memory": memory}}}]});
    for (key, value) in more.as_object().into_iter().flatten() {
        pod[key] = value.clone();
    }
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod}}})
}

fn story(objects: Vec<Value>, steps: Vec<Value>) -> Value {
    json!({"objects": objects, "steps": steps})
}

fn quick() -> Value {
    json!({"consolidationPolicy": "WhenEmptyOrUnderutilized", "consolidateAfter": "30s", "budgets": [{"nodes": "100%"}]})
}

fn running(pods: u32, timeout: &str) -> Value {
    json!({"wait": {"until": {"podsRunning": pods, "podsPending": 0}, "timeout": timeout}})
}

/// Waits until there are at most so many nodes, and no pod waits.
fn down_to(nodes: u32, timeout: &str) -> Value {
    json!({"wait": {"until": {"nodes": {"max": nodes}, "podsPending": 0}, "timeout": timeout}})
}

fn scale(name: &str, replicas: u32) -> Value {
    json!({"scale": {"name": name, "replicas": replicas}})
}

fn two_profiles() -> Value {
    story(
        vec![
            class(),
            pool(quick(), &["4", "8", "16"]),
            deployment("small", 500, "950m", "450Mi", &json!({})),
            deployment("large", 500, "1", "3900Mi", &json!({})),
        ],
        vec![
            running(1000, "2m"),
            scale("small", 350),
            scale("large", 350),
            down_to(50, "20m"),
            running(700, "1m"),
        ],
    )
}

fn spread_over_hosts() -> Value {
    let spread = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "spread"}}}]});
    story(
        vec![
            class(),
            pool(quick(), &["4", "8", "16"]),
            deployment("spread", 500, "500m", "500Mi", &spread),
            deployment("plain", 500, "500m", "500Mi", &json!({})),
        ],
        vec![
            running(1000, "5m"),
            scale("spread", 1000),
            scale("plain", 1000),
            running(2000, "35m"),
        ],
    )
}

fn everything_drifts() -> Value {
    let patch = json!({"spec": {"template": {"metadata": {"labels": {"team": "blue"}}}}});
    let blue = json!({"kind": "Node", "selector": "karpenter.sh/nodepool=default", "path": "/metadata/labels/team", "equals": "blue"});
    story(
        vec![
            class(),
            pool(
                json!({"consolidateAfter": "Never", "budgets": [{"nodes": "10%"}]}),
                &["4", "8"],
            ),
            deployment("small", 300, "950m", "450Mi", &json!({})),
            deployment("large", 300, "1", "3900Mi", &json!({})),
        ],
        vec![
            running(600, "3m"),
            json!({"patch": {"target": {"kind": "NodePool", "name": "default"}, "patch": patch}}),
            json!({"wait": {"until": {"podsPending": 0, "podsRunning": 600, "objects": [blue]}, "timeout": "50m"}}),
        ],
    )
}

/// Protected pods come first and fill nodes of their own; the others come and go around them.
fn protected() -> Value {
    let mut guarded = deployment("guarded", 100, "950m", "450Mi", &json!({}));
    guarded["spec"]["template"]["metadata"]["annotations"] =
        json!({"karpenter.sh/do-not-disrupt": "true"});
    let others = [
        deployment("small", 500, "950m", "450Mi", &json!({})),
        deployment("large", 500, "1", "3900Mi", &json!({})),
    ];
    // One that was moved would wait for its next node.
    let held = json!({"objects": [{"kind": "Pod", "selector": "app=guarded", "path": "/status/phase", "equals": "Running"}]});
    let mut scaled_in = down_to(45, "35m");
    scaled_in["wait"]["holding"] = held.clone();
    story(
        vec![class(), pool(quick(), &["4", "8", "16"]), guarded],
        vec![
            running(100, "2m"),
            json!({"apply": {"objects": others}}),
            running(1100, "3m"),
            json!({"expect": {"nodes": {"min": 70}}}),
            scale("small", 250),
            scale("large", 250),
            scaled_in,
            running(600, "1m"),
            json!({"wait": {"for": "10m", "holding": held}}),
            json!({"expect": {"events": [{"reason": "DisruptionBlocked", "contains": "Pod has \"karpenter.sh/do-not-disrupt\" annotation"}]}}),
        ],
    )
}

fn apart() -> Value {
    let apart = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        [{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "apart"}}}]}}});
    story(
        vec![
            class(),
            pool(quick(), &["1", "2", "4"]),
            deployment("apart", 500, "500m", "500Mi", &apart),
        ],
        vec![
            running(500, "5m"),
            scale("apart", 750),
            running(750, "10m"),
            scale("apart", 600),
            json!({"wait": {"until": {"nodes": 600, "podsRunning": 600}, "timeout": "25m"}}),
        ],
    )
}

fn thirty() -> Value {
    let mut objects = vec![class(), pool(quick(), &[])];
    let mut fewer = Vec::new();
    for n in 0..30_u32 {
        let (name, replicas) = (format!("web{n}"), 25 + n % 3 * 5 + n / 10);
        let cpu = format!("{}m", 100 + 150 * (n % 7));
        let memory = format!("{}Mi", 200 + 400 * (n % 5));
        objects.push(deployment(&name, replicas, &cpu, &memory, &json!({})));
        fewer.push(scale(&name, replicas * 7 / 10));
    }
    let settled = json!({"wait": {"until": {"podsPending": 0, "podsRunning": {"min": 600}}, "timeout": "40m"}});
    let all = json!({"wait": {"until": {"podsPending": 0, "podsRunning": {"min": 900}}, "timeout": "5m"}});
    let mut steps = vec![all];
    steps.extend(fewer);
    steps.push(json!({"wait": {"for": "5m"}}));
    steps.push(settled);
    story(objects, steps)
}

/// A pool whose nodes expire in the middle of drift and consolidation.
fn all_at_once() -> Value {
    let mut short = pool(quick(), &["4", "8", "16"]);
    short["spec"]["template"]["spec"]["expireAfter"] = "15m".into();
    let patch = json!({"spec": {"template": {"metadata": {"labels": {"team": "blue"}}, "spec": {"expireAfter": "Never"}}}});
    let blue = json!({"kind": "Node", "selector": "karpenter.sh/nodepool=default", "path": "/metadata/labels/team", "equals": "blue"});
    story(
        vec![
            class(),
            short,
            deployment("small", 500, "950m", "450Mi", &json!({})),
            deployment("large", 500, "1", "3900Mi", &json!({})),
        ],
        vec![
            running(1000, "3m"),
            json!({"at": "10m", "scale": {"name": "small", "replicas": 200}}),
            json!({"patch": {"target": {"kind": "NodePool", "name": "default"}, "patch": patch}}),
            json!({"wait": {"until": {"podsPending": 0, "podsRunning": 700, "objects": [blue]}, "timeout": "40m"}}),
            scale("large", 0),
            down_to(30, "15m"),
        ],
    )
}

fn scale_in() -> Value {
    let disruption = json!({"consolidationPolicy": "WhenEmptyOrUnderutilized", "consolidateAfter": "30s", "budgets": [{"nodes": "10%"}]});
    story(
        vec![
            class(),
            pool(disruption, &["4"]),
            // Four to a node: a machine of four cores leaves 3.9 to pods.
            deployment("web", 8000, "950m", "1Gi", &json!({})),
        ],
        vec![
            running(8000, "10m"),
            json!({"expect": {"nodes": {"min": 1950, "max": 2050}}}),
            json!({"wait": {"for": "5m"}}),
            scale("web", 3200),
            down_to(830, "30m"),
            running(3200, "2m"),
        ],
    )
}
