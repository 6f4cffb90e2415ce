//! User data as the operating system image reads it: MIME parts, nodeadm's NodeConfig (AL2023), bootstrap.sh
//! (AL2), and the kubelet's flags. What the real set-up refuses is refused here, with the reason.

use std::collections::BTreeMap;

use karpenter_fake_kube::loops::object::{at, int, items, text, texts};
use serde_json::Value;

/// What user data says of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSetup {
    /// Cluster it joins.
    pub cluster: String,
    /// Labels it registers with.
    pub labels: BTreeMap<String, String>,
    /// Taints it registers with: key, value, effect.
    pub taints: Vec<(String, String, String)>,
    /// Most pods.
    pub max_pods: Option<u32>,
    /// Most pods for each core.
    pub pods_per_core: Option<u32>,
    /// Reserved for the kubelet and the container runtime, by resource.
    pub kube_reserved: BTreeMap<String, String>,
    /// Reserved for the system.
    pub system_reserved: BTreeMap<String, String>,
    /// Hard eviction thresholds by signal.
    pub eviction_hard: BTreeMap<String, String>,
}

/// Why a machine cannot make sense of its user data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserDataError {
    /// The MIME envelope is broken.
    #[error("user data: {what}")]
    Mime {
        /// What is wrong.
        what: &'static str,
    },
    /// A NodeConfig is no YAML, or not of the expected shape.
    #[error("user data: NodeConfig: {what}")]
    NodeConfig {
        /// What is wrong.
        what: String,
    },
    /// Something that the cluster needs to be joined is not said.
    #[error("user data: {field} is missing in the cluster configuration")]
    Missing {
        /// Path of the field.
        field: &'static str,
    },
    /// A value of a flag or field has the wrong form.
    #[error("user data: {field}: {value:?} is not {expected}")]
    Value {
        /// Flag or field.
        field: String,
        /// What was given.
        value: String,
        /// What was expected.
        expected: &'static str,
    },
    /// Nothing in it makes a node join.
    #[error("user data: neither a NodeConfig nor a call of bootstrap.sh: the machine never joins")]
    Nothing,
}

/// Reads user data. With `require_cluster`, a NodeConfig must name the cluster, its endpoint, certificate and
/// service range, as nodeadm demands.
///
/// # Errors
/// What keeps the machine from joining.
pub fn parse(user_data: &str, require_cluster: bool) -> Result<NodeSetup, UserDataError> {
    let mut setup = NodeSetup::default();
    let mut config = Value::Null;
    let mut bootstrapped = false;
    for (content_type, body) in parts(user_data)? {
        let is_yaml = content_type == "application/node.eks.aws"
            || (content_type.is_empty() && body.contains("node.eks.aws/"));
        if is_yaml {
            merge(&mut config, node_config(&body)?);
        } else if let Some(call) = bootstrap_call(&body) {
            bootstrapped = true;
            setup.cluster.clone_from(&call.0);
            read_flags(&mut setup, &call.1)?;
        }
    }
    if config.is_object() {
        read_config(&mut setup, &config, require_cluster)?;
    } else if !bootstrapped {
        return Err(UserDataError::Nothing);
    }
    Ok(setup)
}

/// Content type and body of each part; the whole as one part without a type when it is no MIME document.
fn parts(user_data: &str) -> Result<Vec<(String, String)>, UserDataError> {
    let text = user_data.replace('\r', "");
    let head = text.trim_start();
    if !(head.starts_with("MIME-Version:") || head.starts_with("Content-Type:")) {
        return Ok(vec![(String::new(), text)]);
    }
    let (headers, body) = head.split_once("\n\n").ok_or(UserDataError::Mime {
        what: "no empty line after the headers",
    })?;
    let content_type = header(headers, "content-type");
    let boundary = content_type
        .split(';')
        .find_map(|p| p.trim().strip_prefix("boundary="))
        .map(|b| b.trim_matches('"').to_owned())
        .filter(|b| !b.is_empty())
        .ok_or(UserDataError::Mime {
            what: "no boundary in the Content-Type header",
        })?;
    let delimiter = format!("--{boundary}");
    let mut found: Vec<(String, String)> = Vec::new();
    let mut current: Option<Vec<&str>> = None;
    let mut closed = false;
    for line in body.lines() {
        let trimmed = line.trim_end();
        let closes = trimmed
            .strip_prefix(&delimiter)
            .is_some_and(|rest| rest == "--");
        if closes || trimmed == delimiter {
            found.extend(current.take().map(|lines| part(&lines)));
            if closes {
                closed = true;
                break;
            }
            current = Some(Vec::new());
        } else if let Some(lines) = &mut current {
            lines.push(line);
        }
    }
    if closed {
        Ok(found)
    } else {
        Err(UserDataError::Mime {
            what: "the closing boundary is missing",
        })
    }
}

fn part(lines: &[&str]) -> (String, String) {
    let end = lines
        .iter()
        .position(|l| l.trim().is_empty())
        .unwrap_or(lines.len());
    let (headers, body) = lines.split_at(end);
    let content_type = header(&headers.join("\n"), "content-type");
    let kind = content_type.split(';').next().unwrap_or_default();
    let body = body.get(1..).unwrap_or_default().join("\n");
    (kind.trim().to_ascii_lowercase(), body)
}

fn header(headers: &str, name: &str) -> String {
    headers
        .lines()
        .filter_map(|l| l.split_once(':'))
        .find(|(k, _)| k.trim().eq_ignore_ascii_case(name))
        .map(|(_, v)| v.trim().to_owned())
        .unwrap_or_default()
}

fn node_config(body: &str) -> Result<Value, UserDataError> {
    let fail = |what: String| UserDataError::NodeConfig { what };
    let value: Value = serde_saphyr::from_str(body).map_err(|e| fail(e.to_string()))?;
    let api_version = text(&value, &["apiVersion"]);
    if !api_version.starts_with("node.eks.aws/") || text(&value, &["kind"]) != "NodeConfig" {
        return Err(fail(format!(
            "apiVersion {api_version:?} and kind {:?} are not node.eks.aws/v1alpha1 NodeConfig",
            text(&value, &["kind"])
        )));
    }
    Ok(value)
}

/// Later configs win, field by field; lists of flags add up.
fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                match base.get_mut(&key) {
                    Some(Value::Array(list)) if key == "flags" => {
                        list.extend(value.as_array().cloned().unwrap_or_default());
                    }
                    Some(slot) => merge(slot, value),
                    None => {
                        base.insert(key, value);
                    }
                }
            }
        }
        (base, over) => *base = over,
    }
}

fn read_config(
    setup: &mut NodeSetup,
    config: &Value,
    require_cluster: bool,
) -> Result<(), UserDataError> {
    let cluster = at(config, &["spec", "cluster"]);
    if require_cluster {
        for (key, field) in [
            ("name", "spec.cluster.name"),
            ("apiServerEndpoint", "spec.cluster.apiServerEndpoint"),
            ("certificateAuthority", "spec.cluster.certificateAuthority"),
            ("cidr", "spec.cluster.cidr"),
        ] {
            if text(cluster, &[key]).is_empty() {
                return Err(UserDataError::Missing { field });
            }
        }
    }
    text(cluster, &["name"]).clone_into(&mut setup.cluster);
    let kubelet = at(config, &["spec", "kubelet", "config"]);
    let number = |field: &str| int(kubelet, &[field]).and_then(|n| u32::try_from(n).ok());
    setup.max_pods = number("maxPods");
    setup.pods_per_core = number("podsPerCore").filter(|n| *n > 0);
    setup.kube_reserved = texts(kubelet, &["kubeReserved"]);
    setup.system_reserved = texts(kubelet, &["systemReserved"]);
    setup.eviction_hard = texts(kubelet, &["evictionHard"]);
    for taint in items(kubelet, &["registerWithTaints"]) {
        let field = |f: &str| text(taint, &[f]).to_owned();
        push_taint(setup, field("key"), field("value"), field("effect"))?;
    }
    let flags: Vec<&str> = items(config, &["spec", "kubelet", "flags"])
        .iter()
        .filter_map(Value::as_str)
        .collect();
    read_flags(setup, &flags.join(" "))
}

fn push_taint(
    setup: &mut NodeSetup,
    key: String,
    value: String,
    effect: String,
) -> Result<(), UserDataError> {
    if key.is_empty()
        || !matches!(
            effect.as_str(),
            "NoSchedule" | "PreferNoSchedule" | "NoExecute"
        )
    {
        return Err(UserDataError::Value {
            field: "taint".to_owned(),
            value: format!("{key}={value}:{effect}"),
            expected: "key[=value]:NoSchedule|PreferNoSchedule|NoExecute",
        });
    }
    setup.taints.push((key, value, effect));
    Ok(())
}

/// Reads `--name=value` flags, values quoted or not; flags that say nothing of the Node object are passed over.
fn read_flags(setup: &mut NodeSetup, flags: &str) -> Result<(), UserDataError> {
    for word in words(flags) {
        let Some((name, value)) = word.strip_prefix("--").and_then(|w| w.split_once('=')) else {
            continue;
        };
        let bad = |expected| UserDataError::Value {
            field: format!("--{name}"),
            value: value.to_owned(),
            expected,
        };
        let pairs = |separator: char| -> Result<Vec<(String, String)>, UserDataError> {
            value
                .split(',')
                .filter(|p| !p.is_empty())
                .map(|p| {
                    let (k, v) = p
                        .split_once(separator)
                        .ok_or_else(|| bad("a list of pairs"))?;
                    Ok((k.to_owned(), v.to_owned()))
                })
                .collect()
        };
        match name {
            "node-labels" => setup.labels.extend(pairs('=')?),
            "kube-reserved" => setup.kube_reserved.extend(pairs('=')?),
            "system-reserved" => setup.system_reserved.extend(pairs('=')?),
            "eviction-hard" => setup.eviction_hard.extend(pairs('<')?),
            "max-pods" => setup.max_pods = Some(value.parse().map_err(|_| bad("a number"))?),
            "pods-per-core" => {
                let n: u32 = value.parse().map_err(|_| bad("a number"))?;
                setup.pods_per_core = (n > 0).then_some(n);
            }
            "register-with-taints" => {
                for taint in value.split(',').filter(|t| !t.is_empty()) {
                    let (pair, effect) = taint.rsplit_once(':').ok_or_else(|| bad("taints"))?;
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    push_taint(setup, key.to_owned(), value.to_owned(), effect.to_owned())?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Splits as a shell does: blanks part words, quotes hold them together and go away.
fn words(line: &str) -> Vec<String> {
    let (mut found, mut word, mut quote, mut any) = (Vec::new(), String::new(), None, false);
    for c in line.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                any = true;
            }
            (None, c) if c.is_whitespace() => {
                if any || !word.is_empty() {
                    found.push(std::mem::take(&mut word));
                }
                any = false;
            }
            (_, c) => word.push(c),
        }
    }
    if any || !word.is_empty() {
        found.push(word);
    }
    found
}

/// Cluster name and the kubelet's extra flags of a call of AL2's bootstrap.sh.
fn bootstrap_call(script: &str) -> Option<(String, String)> {
    let joined = script.replace("\\\n", " ");
    let line = joined.lines().find(|l| l.contains("bootstrap.sh"))?;
    let (_, arguments) = line.split_once("bootstrap.sh")?;
    // Quotes inside the extra flags are kept by cutting the outer pair only.
    let flags = arguments
        .split_once("--kubelet-extra-args '")
        .and_then(|(_, rest)| rest.split_once('\''))
        .map_or_else(String::new, |(flags, _)| flags.to_owned());
    let cluster = words(arguments).into_iter().next().unwrap_or_default();
    Some((cluster, flags))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const CONFIG: &str = "apiVersion: node.eks.aws/v1alpha1
kind: NodeConfig
metadata: {}
spec:
  cluster:
    apiServerEndpoint: https://10.0.0.1
    certificateAuthority: Y2E=
    cidr: 10.100.0.0/16
    name: demo
  kubelet:
    config:
      maxPods: 29
      evictionHard:
        memory.available: 5%
      registerWithTaints:
      - effect: NoExecute
        key: karpenter.sh/unregistered
    flags:
    - --node-labels=\"karpenter.sh/capacity-type=spot,karpenter.sh/nodepool=default\"
";

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn expected() -> NodeSetup {
        NodeSetup {
            cluster: "demo".into(),
            labels: labels(&[
                ("karpenter.sh/capacity-type", "spot"),
                ("karpenter.sh/nodepool", "default"),
            ]),
            taints: vec![(
                "karpenter.sh/unregistered".into(),
                String::new(),
                "NoExecute".into(),
            )],
            max_pods: Some(29),
            eviction_hard: labels(&[("memory.available", "5%")]),
            ..NodeSetup::default()
        }
    }

    #[test]
    fn a_plain_node_config() {
        assert_eq!(parse(CONFIG, true), Ok(expected()));
    }

    #[test]
    fn the_last_part_of_a_mime_document_wins_and_scripts_are_passed_over() {
        let custom = "apiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec:\n  kubelet:\n    config:\n      maxPods: 5\n      podsPerCore: 7\n";
        let mime = format!(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"//\"\n\n--//\nContent-Type: text/x-shellscript; charset=\"us-ascii\"\n\n#!/bin/bash\necho hi\n--//\nContent-Type: application/node.eks.aws\n\n{custom}\n--//\nContent-Type: application/node.eks.aws\n\n# ours\n{CONFIG}\n--//--\n"
        );
        let want = NodeSetup {
            pods_per_core: Some(7),
            ..expected()
        };
        assert_eq!(parse(&mime, true), Ok(want));
        assert_eq!(
            parse(&mime.replace("--//--", ""), true),
            Err(UserDataError::Mime {
                what: "the closing boundary is missing"
            })
        );
    }

    #[test]
    fn a_call_of_bootstrap_sh() {
        let script = "#!/bin/bash -xe\n/etc/eks/bootstrap.sh 'demo' --apiserver-endpoint 'https://x' --b64-cluster-ca 'Y2E=' \\\n--use-max-pods false \\\n--kubelet-extra-args '--node-labels=\"a=b,c=d\" --register-with-taints=\"k=v:NoSchedule,karpenter.sh/unregistered:NoExecute\" --max-pods=12 --kube-reserved=\"cpu=90m\" --eviction-hard=\"memory.available<1Gi\"'";
        let setup = parse(script, true).unwrap();
        assert_eq!(setup.cluster, "demo");
        assert_eq!(setup.labels, labels(&[("a", "b"), ("c", "d")]));
        assert_eq!(setup.max_pods, Some(12));
        assert_eq!(
            setup.taints[0],
            ("k".into(), "v".into(), "NoSchedule".into())
        );
        assert_eq!(setup.taints[1].0, "karpenter.sh/unregistered");
        assert_eq!(setup.kube_reserved, labels(&[("cpu", "90m")]));
        assert_eq!(setup.eviction_hard, labels(&[("memory.available", "1Gi")]));
    }

    #[rstest]
    #[case::no_name("    name: demo\n", "", "spec.cluster.name is missing")]
    #[case::no_ca(
        "    certificateAuthority: Y2E=\n",
        "",
        "spec.cluster.certificateAuthority is missing"
    )]
    #[case::bad_effect("NoExecute", "Never", "karpenter.sh/unregistered=:Never")]
    #[case::bad_labels("=spot", "", "--node-labels")]
    #[case::other_kind(
        "kind: NodeConfig",
        "kind: Pod",
        "not node.eks.aws/v1alpha1 NodeConfig"
    )]
    #[case::no_yaml("spec:", "spec: [", "NodeConfig")]
    fn refusals(#[case] from: &str, #[case] to: &str, #[case] want: &str) {
        let error = parse(&CONFIG.replace(from, to), true)
            .unwrap_err()
            .to_string();
        assert!(error.contains(want), "{error}");
    }

    #[test]
    fn nothing_to_join_with() {
        assert_eq!(parse("#!/bin/sh\ntrue", true), Err(UserDataError::Nothing));
        assert_eq!(parse("", true), Err(UserDataError::Nothing));
    }
}
