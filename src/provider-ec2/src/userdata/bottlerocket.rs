//! Bottlerocket: TOML settings. A user's own TOML is not merged yet; a class that has some is told so.

use std::collections::BTreeMap;

use super::{Inputs, UserDataError};

/// What joins instance storage into one volume for pods.
const RAID_COMMANDS: &str = "commands = [[\"apiclient\", \"ephemeral-storage\", \"init\"], \
                             [\"apiclient\", \"ephemeral-storage\", \"bind\", \"--dirs\", \
                             \"/var/lib/containerd\", \"/var/lib/kubelet\", \"/var/log/pods\"]]";

pub(super) fn render(inputs: &Inputs<'_>) -> Result<String, UserDataError> {
    if inputs.custom.is_some_and(|c| !c.trim().is_empty()) {
        return Err(UserDataError::Custom(
            "merging TOML for Bottlerocket is not supported yet".to_owned(),
        ));
    }
    let (s, k) = (inputs.settings, &inputs.kubelet);
    let mut out = String::from("[settings]\n[settings.kubernetes]\n");
    let mut put = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            out.push_str(&format!("{key} = {value}\n"));
        }
    };
    put("api-server", Some(quote(&s.cluster_endpoint)));
    put("cluster-certificate", Some(quote(&s.cluster_ca_bundle)));
    put("cluster-name", Some(quote(&s.cluster_name)));
    put("cluster-dns-ip", k.cluster_dns.first().map(|ip| quote(ip)));
    put("max-pods", k.max_pods.map(|n| n.to_string()));
    put(
        "eviction-max-pod-grace-period",
        k.eviction_max_pod_grace_period.map(|n| n.to_string()),
    );
    put(
        "image-gc-high-threshold-percent",
        k.image_gc_high_threshold_percent
            .map(|n| quote(&n.to_string())),
    );
    put(
        "image-gc-low-threshold-percent",
        k.image_gc_low_threshold_percent
            .map(|n| quote(&n.to_string())),
    );
    put(
        "cpu-cfs-quota-enforced",
        k.cpu_cfs_quota.map(|b| b.to_string()),
    );
    let mut taints: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for taint in &inputs.taints {
        let value = taint.value.as_deref().unwrap_or_default();
        let text = quote(&format!("{value}:{}", taint.effect));
        taints.entry(&taint.key).or_default().push(text);
    }
    let texts = |map: &BTreeMap<String, String>| -> Vec<(String, String)> {
        map.iter().map(|(k, v)| (k.clone(), quote(v))).collect()
    };
    let taints = taints
        .into_iter()
        .map(|(key, values)| (key.to_owned(), format!("[{}]", values.join(", "))))
        .collect();
    for (table, entries) in [
        ("node-labels", texts(&inputs.labels)),
        ("node-taints", taints),
        ("system-reserved", texts(&k.system_reserved)),
        ("kube-reserved", texts(&k.kube_reserved)),
        ("eviction-hard", texts(&k.eviction_hard)),
        ("eviction-soft", texts(&k.eviction_soft)),
        (
            "eviction-soft-grace-period",
            texts(&k.eviction_soft_grace_period),
        ),
    ] {
        if entries.is_empty() {
            continue;
        }
        out.push_str(&format!("[settings.kubernetes.{table}]\n"));
        for (key, value) in entries {
            out.push_str(&format!("{} = {value}\n", quote(&key)));
        }
    }
    if inputs.raid0 {
        out.push_str("[settings.bootstrap-commands.000-mount-instance-storage]\n");
        out.push_str(&format!(
            "{RAID_COMMANDS}\nmode = \"always\"\nessential = true\n"
        ));
    }
    Ok(out)
}

/// A basic string: TOML's escapes are JSON's.
fn quote(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}
