//! The filters and preemption against the real scheduler's: random clusters and pods from seeds, and for each the set of
//! nodes that the pod could go to and, where there is none, who would have to go from which node, as Kubernetes' own
//! plugins say (`local-control-plane judge-scheduling`). Their answers are recorded in
//! `judged.golden.txt`; where LOCAL_CONTROL_PLANE names the executable they are asked for again, and with
//! `UPDATE_GOLDENS=1` recorded anew.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use karpenter_runtime::RngTree;
use karpenter_runtime::rng::Rng;
use serde_json::{Map, json};

use super::*;

/// Clusters that are tried.
const CASES: u64 = 1000;
/// The case that is known to be judged otherwise: while the real scheduler tries victims it keeps the two least crowded
/// domains of a spread only, and with three zones loses sight of the least; we count them all.
const OTHERWISE: [usize; 1] = [602];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const ZONES: [&str; 3] = ["a", "b", "c"];
const APPS: [&str; 3] = ["web", "db", "cache"];
const EFFECTS: [&str; 3] = ["NoSchedule", "NoExecute", "PreferNoSchedule"];

/// Draws from one seed.
struct Draw(Rng);

impl Draw {
    fn of(case: u64) -> Self {
        Self(RngTree::new(case).child("scheduling", "case").rng())
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[usize::try_from(self.0.below(of.len() as u64)).unwrap()]
    }

    fn range(&mut self, from: u64, to: u64) -> u64 {
        from + self.0.below(to - from + 1)
    }

    fn often(&mut self, p: f64) -> bool {
        self.0.chance(p)
    }

    fn selector(&mut self) -> Value {
        match self.0.below(6) {
            0 => json!({"matchLabels": {"app": self.one(&APPS), "ver": self.one(&["1", "2"])}}),
            1 => {
                json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", self.one(&APPS)]}]})
            }
            2 => {
                json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": [self.one(&APPS)]}]})
            }
            3 => json!({"matchExpressions": [{"key": "ver", "operator": "Exists"}]}),
            _ => json!({"matchLabels": {"app": self.one(&APPS)}}),
        }
    }

    fn node(&mut self, name: &str) -> Value {
        let mut labels = json!({"kubernetes.io/hostname": name});
        if self.often(0.9) {
            labels["zone"] = self.one(&ZONES).into();
        }
        if self.often(0.6) {
            labels["disk"] = self.one(&["ssd", "hdd"]).into();
        }
        if self.often(0.6) {
            labels["cores"] = self.range(1, 5).to_string().into();
        }
        let mut allocatable = json!({
            "cpu": format!("{}m", self.range(4, 24) * 250), "memory": format!("{}Mi", self.range(1, 8) * 512),
            "pods": self.range(2, 8).to_string(), "ephemeral-storage": "10Gi",
        });
        if self.often(0.2) {
            allocatable["example.com/gpu"] = self.range(1, 3).to_string().into();
        }
        let mut spec = json!({});
        if self.often(0.35) {
            let taint = json!({"key": self.one(&["dedicated", "flaky"]), "value": self.one(&["", "x", "y"]), "effect": self.one(&EFFECTS)});
            spec["taints"] = json!([taint]);
        }
        if self.often(0.08) {
            spec["unschedulable"] = true.into();
        }
        json!({"metadata": {"name": name, "labels": labels}, "spec": spec, "status": {"allocatable": allocatable}})
    }

    fn container(&mut self, name: &str) -> Value {
        let mut requests = Map::new();
        if self.often(0.8) {
            requests.insert("cpu".into(), format!("{}m", self.range(1, 10) * 100).into());
        }
        if self.often(0.7) {
            requests.insert(
                "memory".into(),
                format!("{}Mi", self.range(1, 8) * 64).into(),
            );
        }
        if self.often(0.08) {
            requests.insert("example.com/gpu".into(), "1".into());
        }
        if self.often(0.05) {
            requests.insert("ephemeral-storage".into(), "3Gi".into());
        }
        let mut container =
            json!({"name": name, "image": "i", "resources": {"requests": requests}});
        if self.often(0.12) {
            let port = self.range(80, 82);
            let mut port = json!({"containerPort": port, "hostPort": port, "protocol": self.one(&["TCP", "UDP"])});
            if self.often(0.3) {
                port["hostIP"] = self.one(&["0.0.0.0", "10.0.0.1", "10.0.0.2"]).into();
            }
            container["ports"] = json!([port]);
        }
        container
    }

    /// Without `matchLabelKeys`: the API server turns those into a selector before any scheduler sees them.
    fn term(&mut self) -> Value {
        let mut term = json!({"labelSelector": self.selector(), "topologyKey": self.one(&["zone", "kubernetes.io/hostname", "disk"])});
        match self.0.below(8) {
            0 => term["namespaces"] = json!(["other"]),
            1 => term["namespaceSelector"] = json!({"matchLabels": {"team": "x"}}),
            2 => term["namespaceSelector"] = json!({}),
            _ => {}
        }
        term
    }

    fn requirement(&mut self) -> Value {
        match self.0.below(7) {
            0 => {
                json!({"key": "zone", "operator": "In", "values": [self.one(&ZONES), self.one(&ZONES)]})
            }
            1 => json!({"key": "zone", "operator": "NotIn", "values": [self.one(&ZONES)]}),
            2 => json!({"key": "disk", "operator": "Exists"}),
            3 => json!({"key": "disk", "operator": "DoesNotExist"}),
            4 => {
                json!({"key": "cores", "operator": "Gt", "values": [self.range(1, 4).to_string()]})
            }
            5 => {
                json!({"key": "cores", "operator": "Lt", "values": [self.range(2, 5).to_string()]})
            }
            _ => json!({"key": "disk", "operator": "In", "values": ["ssd"]}),
        }
    }

    fn affinity(&mut self) -> Value {
        let mut affinity = json!({});
        if self.often(0.3) {
            let mut terms = Vec::new();
            for _ in 0..self.range(1, 2) {
                let mut term = json!({"matchExpressions": [self.requirement()]});
                if self.often(0.3) {
                    term["matchExpressions"] = json!([self.requirement(), self.requirement()]);
                }
                if self.often(0.15) {
                    let node = format!("n{}", self.range(0, 5));
                    term["matchFields"] = json!([{"key": "metadata.name", "operator": self.one(&["In", "NotIn"]), "values": [node]}]);
                }
                terms.push(term);
            }
            affinity["nodeAffinity"] = json!({REQUIRED: {"nodeSelectorTerms": terms}});
        }
        if self.often(0.25) {
            affinity["podAffinity"] = json!({REQUIRED: [self.term()]});
        }
        if self.often(0.25) {
            let mut terms = vec![self.term()];
            if self.often(0.3) {
                terms.push(self.term());
            }
            affinity["podAntiAffinity"] = json!({REQUIRED: terms});
        }
        affinity
    }

    fn spread(&mut self) -> Value {
        let mut constraints = Vec::new();
        let mut keys = vec!["zone", "kubernetes.io/hostname", "disk"];
        for _ in 0..self.range(1, 2) {
            let key = keys.remove(usize::try_from(self.0.below(keys.len() as u64)).unwrap());
            let mut constraint = json!({"maxSkew": self.range(1, 2), "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": self.selector()});
            if self.often(0.2) {
                constraint["minDomains"] = self.range(1, 4).into();
            }
            if self.often(0.2) {
                constraint["nodeAffinityPolicy"] = self.one(&["Honor", "Ignore"]).into();
            }
            if self.often(0.3) {
                constraint["nodeTaintsPolicy"] = self.one(&["Honor", "Ignore"]).into();
            }
            if self.often(0.15) {
                constraint["matchLabelKeys"] = json!(["ver"]);
            }
            constraints.push(constraint);
        }
        constraints.into()
    }

    fn toleration(&mut self) -> Value {
        match self.0.below(5) {
            0 => json!({"operator": "Exists"}),
            1 => json!({"key": "dedicated", "operator": "Exists"}),
            2 => {
                json!({"key": "flaky", "operator": "Equal", "value": self.one(&["", "x", "y"]), "effect": self.one(&EFFECTS)})
            }
            3 => {
                json!({"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"})
            }
            _ => json!({"key": "dedicated", "value": self.one(&["x", "y"])}),
        }
    }

    fn pod(&mut self, name: &str) -> Value {
        let mut labels = json!({"app": self.one(&APPS)});
        if self.often(0.7) {
            labels["ver"] = self.one(&["1", "2"]).into();
        }
        let namespace = if self.often(0.8) { "default" } else { "other" };
        let mut spec = json!({"schedulerName": NAME, "containers": [self.container("c")]});
        if self.often(0.15) {
            spec["containers"] = json!([self.container("c"), self.container("d")]);
        }
        if self.often(0.15) {
            let mut init = self.container("i");
            if self.often(0.5) {
                init["restartPolicy"] = "Always".into();
            }
            spec["initContainers"] = json!([init]);
        }
        if self.often(0.08) {
            spec["overhead"] = json!({"cpu": "250m"});
        }
        json!({"metadata": {"name": name, "namespace": namespace, "uid": name, "labels": labels}, "spec": spec})
    }

    fn case(&mut self) -> Value {
        let count = self.range(2, 7);
        let nodes: Vec<Value> = (0..count).map(|i| self.node(&format!("n{i}"))).collect();
        let mut pods = Vec::new();
        for i in 0..self.range(0, 12) {
            let mut pod = self.pod(&format!("p{i}"));
            pod["spec"]["nodeName"] = format!("n{}", self.range(0, count - 1)).into();
            if self.often(0.25) {
                pod["spec"]["affinity"] = json!({"podAntiAffinity": {REQUIRED: [self.term()]}});
            }
            if self.often(0.07) {
                pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            }
            pods.push(pod);
        }
        let mut pod = self.pod("new");
        if self.often(0.2) {
            pod["spec"]["nodeSelector"] = json!({"disk": self.one(&["ssd", "hdd"])});
        }
        let affinity = self.affinity();
        if affinity != json!({}) {
            pod["spec"]["affinity"] = affinity;
        }
        if self.often(0.35) {
            pod["spec"]["topologySpreadConstraints"] = self.spread();
        }
        if self.often(0.4) {
            pod["spec"]["tolerations"] = json!([self.toleration(), self.toleration()]);
        }
        json!({"namespaces": {"default": {}, "other": {"team": "x"}}, "nodes": nodes, "pods": pods, "pod": pod})
    }
}

/// What is drawn on top: volumes, priorities and budgets.
struct More {
    draw: Draw,
    claims: Vec<Value>,
    volumes: Vec<Value>,
}

const DRIVER: &str = crate::loops::attach::EBS_DRIVER;
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

impl More {
    fn to(case: u64, document: &mut Value) {
        let rng = RngTree::new(case).child("scheduling", "more").rng();
        let mut more = Self {
            draw: Draw(rng),
            claims: Vec::new(),
            volumes: Vec::new(),
        };
        more.priorities(document);
        if more.draw.often(0.5) {
            more.storage(document);
        }
    }

    fn priorities(&mut self, document: &mut Value) {
        let draw = &mut self.draw;
        for (n, pod) in document["pods"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .enumerate()
        {
            pod["spec"]["priority"] = [0, 0, 10, 100][draw.0.below(4) as usize].into();
            // No two begin at once: the real scheduler leaves their order to chance.
            let minute = (n as u64 * 7 + draw.range(0, 6)) % 60;
            let hour = (n as u64 * 7) / 60 % 24;
            pod["status"] = json!({"startTime": format!("2026-01-01T{hour:02}:{minute:02}:00Z")});
        }
        let pod = &mut document["pod"];
        pod["spec"]["priority"] = [0, 50, 1000, 1000][draw.0.below(4) as usize].into();
        if draw.often(0.05) {
            pod["spec"]["preemptionPolicy"] = "Never".into();
        }
        let budgets: Vec<Value> = (0..draw.range(0, 3))
            .map(|n| {
                json!({
                    "metadata": {"name": format!("b{n}"), "namespace": if draw.often(0.8) { "default" } else { "other" }},
                    "spec": {"selector": draw.selector()},
                    "status": {"disruptionsAllowed": draw.range(0, 2)},
                })
            })
            .collect();
        document["budgets"] = budgets.into();
    }

    fn storage(&mut self, document: &mut Value) {
        let namespace = document["pod"]["metadata"]["namespace"]
            .as_str()
            .unwrap()
            .to_owned();
        for node in document["nodes"].as_array_mut().unwrap() {
            if self.draw.often(0.85) {
                node["metadata"]["labels"][ZONE_LABEL] = self.draw.one(&ZONES).into();
            }
        }
        let mut topologies = json!([]);
        if self.draw.often(0.3) {
            let zones = [self.draw.one(&ZONES), self.draw.one(&ZONES)];
            topologies = json!([{"matchLabelExpressions": [{"key": ZONE_LABEL, "values": zones}]}]);
        }
        document["classes"] = json!([
            {"metadata": {"name": "cloud"}, "provisioner": DRIVER, "volumeBindingMode": "WaitForFirstConsumer", "allowedTopologies": topologies},
            {"metadata": {"name": "local"}, "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"},
            {"metadata": {"name": "now"}, "provisioner": DRIVER, "volumeBindingMode": "Immediate"},
        ]);
        let nodes: Vec<String> = document["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| object::name(n).to_owned())
            .collect();
        for n in 0..self.draw.range(1, 5) {
            let volume = self.volume(n, &nodes);
            self.volumes.push(volume);
        }
        for n in 0..self.draw.range(1, 6) {
            let claim = self.claim(n, &namespace, &nodes);
            self.claims.push(claim);
        }
        let mut limits = Vec::new();
        for name in &nodes {
            if self.draw.often(0.6) {
                let mut driver = json!({"name": DRIVER, "nodeID": name, "topologyKeys": null});
                if self.draw.often(0.85) {
                    driver["allocatable"] = json!({"count": self.draw.range(0, 3)});
                }
                limits.push(json!({"metadata": {"name": name}, "spec": {"drivers": [driver]}}));
            }
        }
        let mut taken = BTreeSet::new();
        for pod in document["pods"].as_array_mut().unwrap() {
            if pod["metadata"]["namespace"] == *namespace && self.draw.often(0.4) {
                let used = self.uses(1);
                let name = text_of(&used[0]["name"]);
                let claim = self.claims.iter().find(|c| c["metadata"]["name"] == *name);
                let alone =
                    claim.is_some_and(|c| c["spec"]["accessModes"][0] == "ReadWriteOncePod");
                // No scheduler lets two pods have such a claim, and what the real one counts then is of no interest.
                if !alone || taken.insert(name) {
                    pod["spec"]["volumes"] = used;
                }
            }
        }
        if self.draw.often(0.85) {
            let most = self.draw.range(1, 3);
            document["pod"]["spec"]["volumes"] = self.uses(most);
        }
        document["csiNodes"] = limits.into();
        document["claims"] = std::mem::take(&mut self.claims).into();
        document["volumes"] = std::mem::take(&mut self.volumes).into();
    }

    fn volume(&mut self, n: u64, nodes: &[String]) -> Value {
        let draw = &mut self.draw;
        let mut volume = json!({
            "metadata": {"name": format!("v{n}"), "labels": {}},
            "spec": {
                "capacity": {"storage": format!("{}Gi", draw.range(1, 4))},
                "accessModes": if draw.often(0.8) { json!(["ReadWriteOnce"]) } else { json!(["ReadWriteMany", "ReadWriteOnce"]) },
                "storageClassName": draw.one(&["local", "local", "cloud"]),
                "volumeMode": "Filesystem",
                "persistentVolumeReclaimPolicy": "Retain",
            },
            "status": {"phase": "Available"},
        });
        if draw.often(0.6) {
            volume["spec"]["csi"] = json!({"driver": DRIVER, "volumeHandle": format!("vol-{n}")});
        } else {
            volume["spec"]["hostPath"] = json!({"path": "/data"});
        }
        let terms = match draw.0.below(4) {
            0 => {
                json!([{"key": ZONE_LABEL, "operator": "In", "values": [draw.one(&ZONES), draw.one(&ZONES)]}])
            }
            1 => {
                let node = &nodes[draw.0.below(nodes.len() as u64) as usize];
                json!([{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}])
            }
            _ => Value::Null,
        };
        if !terms.is_null() {
            volume["spec"]["nodeAffinity"] =
                json!({"required": {"nodeSelectorTerms": [{"matchExpressions": terms}]}});
        }
        if draw.often(0.2) {
            let zones = format!("{}__{}", draw.one(&ZONES), draw.one(&ZONES));
            let zone = [draw.one(&ZONES).to_owned(), zones][draw.0.below(2) as usize].clone();
            volume["metadata"]["labels"][ZONE_LABEL] = zone.into();
        }
        volume
    }

    fn claim(&mut self, n: u64, namespace: &str, nodes: &[String]) -> Value {
        let draw = &mut self.draw;
        let name = format!("c{n}");
        let mut claim = json!({
            "metadata": {"name": name, "namespace": namespace, "uid": name, "annotations": {}},
            "spec": {
                "accessModes": [draw.one(&["ReadWriteOnce", "ReadWriteOnce", "ReadWriteOnce", "ReadWriteOncePod"])],
                "storageClassName": draw.one(&["local", "cloud", "cloud"]),
                "volumeMode": "Filesystem",
                "resources": {"requests": {"storage": format!("{}Gi", draw.range(1, 3))}},
            },
            "status": {"phase": "Pending"},
        });
        match draw.0.below(20) {
            0 => claim["spec"]["storageClassName"] = "now".into(),
            1 => {
                let node = &nodes[draw.0.below(nodes.len() as u64) as usize];
                claim["metadata"]["annotations"]["volume.kubernetes.io/selected-node"] =
                    node.as_str().into();
            }
            2..=9 => {
                // Bound, to a volume that is nobody else's yet.
                let free = self
                    .volumes
                    .iter_mut()
                    .find(|v| v["status"]["phase"] == "Available");
                if let Some(volume) = free {
                    volume["status"]["phase"] = "Bound".into();
                    volume["spec"]["claimRef"] =
                        json!({"namespace": namespace, "name": name, "uid": name});
                    claim["spec"]["volumeName"] = volume["metadata"]["name"].clone();
                    claim["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] =
                        "yes".into();
                    claim["status"]["phase"] = "Bound".into();
                }
            }
            _ => {}
        }
        claim
    }

    /// Volumes of a pod, of different claims; now and then one that is not there.
    fn uses(&mut self, most: u64) -> Value {
        let mut names = BTreeSet::new();
        for _ in 0..most {
            let count = self.claims.len() as u64;
            let beyond = u64::from(self.draw.often(0.02));
            names.insert(format!("c{}", self.draw.0.below(count) + beyond * count));
        }
        let volume =
            |name: String| json!({"name": name, "persistentVolumeClaim": {"claimName": name}});
        names.into_iter().map(volume).collect()
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn case(n: u64) -> Value {
    let mut document = Draw::of(n).case();
    More::to(n, &mut document);
    document
}

fn mirror(objects: &Value) -> Mirror {
    let mut mirror = Mirror::default();
    for object in objects.as_array().into_iter().flatten() {
        mirror.apply(&Change::Added(Arc::new(object.clone())));
    }
    mirror
}

/// What our filters say, and our preemption.
fn ours(case: &Value) -> Value {
    let mut cluster = Cluster::default();
    for (name, labels) in case["namespaces"].as_object().unwrap() {
        let namespace = json!({"metadata": {"name": name, "labels": labels}});
        cluster.set_namespace(name, Some(object::labels(&namespace)));
    }
    for node in case["nodes"].as_array().unwrap() {
        cluster.set_node(node);
    }
    for pod in case["pods"].as_array().unwrap() {
        cluster.place(Arc::new(Pod::read(pod)));
    }
    let volumes = Volumes {
        claims: mirror(&case["claims"]),
        volumes: mirror(&case["volumes"]),
        classes: mirror(&case["classes"]),
        csi_nodes: mirror(&case["csiNodes"]),
    };
    let pod = Pod::read(&case["pod"]);
    let Ok(demands) = volumes.of(&pod) else {
        return json!({"nodes": []});
    };
    let refusals = refused(&cluster, &volumes, &pod, &demands);
    let names: Vec<String> = cluster
        .nodes()
        .filter(|node| !refusals.contains_key(&node.name))
        .map(|node| node.name.clone())
        .collect();
    if !names.is_empty() || pod.never_preempts {
        return json!({ "nodes": names });
    }
    let started = |key: &Key| -> jiff::Timestamp {
        let pods = case["pods"].as_array().unwrap();
        let pod = pods.iter().find(|p| object::key(p) == *key).unwrap();
        object::time(pod, &["status", "startTime"]).unwrap()
    };
    let budgets = mirror(&case["budgets"]);
    let preemption = Preemption {
        volumes: &volumes,
        budgets: &budgets,
        started: &started,
    };
    let mut found = Map::new();
    for (node, refusal) in refusals.iter().filter(|(_, r)| !r.unresolvable) {
        let victims = preemption.on_node(&mut cluster, &pod, &demands, node);
        if let Ok(victims) = victims {
            let names: Vec<&str> = victims.pods.iter().map(|p| p.name.as_str()).collect();
            found.insert(
                node.clone(),
                json!({"pods": names, "violations": victims.violations}),
            );
        }
        // What was tried in thought has left no trace.
        assert_eq!(
            refused(&cluster, &volumes, &pod, &demands).get(node),
            Some(refusal)
        );
    }
    if found.is_empty() {
        return json!({ "nodes": [] });
    }
    json!({"nodes": [], "victims": found})
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/loops/scheduler/judged.golden.txt")
}

/// What the real scheduler's filters say, a line a case.
fn real(executable: &std::ffi::OsStr, cases: &[Value]) -> String {
    let input: String = cases.iter().map(|case| format!("{case}\n")).collect();
    // Through a file: both ends of a pipe at once would need a thread.
    let file = std::env::temp_dir().join(format!("scheduling-cases-{}", std::process::id()));
    std::fs::File::create(&file)
        .and_then(|mut f| f.write_all(input.as_bytes()))
        .unwrap();
    let output = Command::new(executable)
        .arg("judge-scheduling")
        .stdin(std::fs::File::open(&file).unwrap())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let _ = std::fs::remove_file(&file);
    assert!(output.status.success(), "judge-scheduling failed");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_real_scheduler_says_the_same_of_every_cluster() {
    let cases: Vec<Value> = (0..CASES).map(case).collect();
    let mut recorded = std::fs::read_to_string(golden()).unwrap_or_default();
    match std::env::var_os("LOCAL_CONTROL_PLANE") {
        Some(executable) => {
            let asked = real(&executable, &cases);
            if std::env::var_os("UPDATE_GOLDENS").is_some() {
                std::fs::write(golden(), &asked).unwrap();
                recorded.clone_from(&asked);
            }
            assert!(
                asked == recorded,
                "the real scheduler no longer says what is recorded"
            );
        }
        None => {
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: LOCAL_CONTROL_PLANE is not set: the real scheduler is not asked, only what it said is compared"
            );
        }
    }
    let recorded: Vec<Value> = recorded
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(recorded.len(), cases.len());
    let mut wrong = Vec::new();
    for (n, (case, wanted)) in cases.iter().zip(&recorded).enumerate() {
        let found = ours(case);
        if (found != *wanted) != OTHERWISE.contains(&n) {
            wrong.push(format!(
                "case {n}: real {wanted}, ours {found}\n  {}",
                case["pod"]["spec"]
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {CASES}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    // Of no use if every pod could go anywhere, or nowhere, or if no claim and no victim ever mattered.
    let len = |v: &Value| v.as_array().unwrap().len();
    let none = recorded.iter().filter(|v| len(&v["nodes"]) == 0).count();
    let some = recorded.iter().zip(&cases).filter(|(verdict, case)| {
        let nodes = len(&verdict["nodes"]);
        nodes > 0 && nodes < len(&case["nodes"])
    });
    assert!(none > 50 && some.count() > 150, "{none} fit nowhere");
    let make_room = recorded.iter().filter(|v| v["victims"].is_object()).count();
    let violating = recorded.iter().filter(|v| {
        let victims = v["victims"].as_object().into_iter().flatten();
        victims.into_iter().any(|(_, v)| v["violations"] != 0)
    });
    assert!(
        make_room > 50 && violating.count() > 5,
        "{make_room} make room"
    );
    let by_claims = cases.iter().filter(|case| {
        let mut free = (*case).clone();
        free["pod"]["spec"]["volumes"] = Value::Null;
        ours(&free)["nodes"] != ours(case)["nodes"]
    });
    assert!(by_claims.count() > 50);
}
