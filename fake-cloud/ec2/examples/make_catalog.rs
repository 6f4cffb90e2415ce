//! How the files of `fixtures/catalog` are made. Three arguments: a JSON-lines file with one instance type a line,
//! a folder with on-demand price lists (one JSON a region), and the folder to write to.
//!
//! A line of the input holds what is published about a type: `labels` (the facts of `DescribeInstanceTypes` as
//! Karpenter's node labels), `capacity` (for device counts), `vpcLimits` (interfaces, addresses and network cards,
//! as the VPC CNI's table has them) and `bandwidthMbps`. A price list holds `region` and `prices`.
//!
//! What such a source does not say is filled in by rule, each rule a function below with its reason.

// A missing key of a `Value` reads as null.
#![allow(clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use flate2::{Compression, GzBuilder};
use karpenter_ec2_api::{Accelerator, Gpu, InstanceTypeInfo, NetworkCard, NeuronDevice};
use serde_json::Value;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [types, prices, out] = args.as_slice() else {
        return Err("usage: make_catalog TYPES.jsonl PRICES_DIR OUT_DIR".into());
    };
    let (types, prices, out) = (Path::new(types), Path::new(prices), Path::new(out));

    let mut facts = Vec::new();
    let mut limits: BTreeMap<String, Value> = BTreeMap::new();
    for line in std::fs::read_to_string(types)?.lines() {
        let row: Value = serde_json::from_str(line)?;
        let info = info(&row).ok_or_else(|| format!("incomplete row: {line}"))?;
        limits.insert(info.name.to_string(), limit(&row));
        facts.push(info);
    }
    facts.sort_by(|a, b| a.name.cmp(&b.name));

    let mut text = String::new();
    for info in &facts {
        text.push_str(&serde_json::to_string(info)?);
        text.push('\n');
    }
    write(&out.join("ec2-instance-types.jsonl.gz"), &text)?;
    write(
        &out.join("ec2-static-limits.json.gz"),
        &serde_json::to_string(&limits)?,
    )?;

    let mut lists: BTreeMap<String, Value> = BTreeMap::new();
    for entry in std::fs::read_dir(prices)? {
        let list: Value = serde_json::from_slice(&std::fs::read(entry?.path())?)?;
        let region = list["region"].as_str().ok_or("price list without region")?;
        lists.insert(region.to_owned(), list["prices"].clone());
    }
    write(
        &out.join("ec2-on-demand-prices.json.gz"),
        &serde_json::to_string(&lists)?,
    )
}

/// Gzip without a time or name in its header, so that the same input makes the same bytes.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let mut gz = GzBuilder::new()
        .mtime(0)
        .write(std::fs::File::create(path)?, Compression::best());
    gz.write_all(text.as_bytes())?;
    gz.finish()?;
    Ok(())
}

/// Network bandwidth and branch interfaces: not in any API, so the provider carries them as a table.
fn limit(row: &Value) -> Value {
    let limits = &row["vpcLimits"];
    let trunking = limits["trunkingCompatible"].as_bool().unwrap_or(false);
    let branch = limits["branchInterface"].as_u64().unwrap_or(0);
    serde_json::json!([
        row["labels"]["karpenter.k8s.aws/instance-network-bandwidth"]
            .as_str()
            .and_then(|t| t.parse::<u64>().ok()),
        if trunking { branch } else { 0 }
    ])
}

fn info(row: &Value) -> Option<InstanceTypeInfo> {
    let label = |key: &str| row["labels"][format!("karpenter.k8s.aws/instance-{key}")].as_str();
    let number = |key: &str| label(key).and_then(|t| t.parse::<u64>().ok());
    let count = |resource: &str| {
        row["capacity"][resource]
            .as_str()
            .and_then(|t| t.parse::<u32>().ok())
            .unwrap_or(0)
    };
    let name = row["name"].as_str()?;
    let family = name.split('.').next()?;
    let hypervisor = label("hypervisor")?.to_owned();
    let (cards, default_card, ipv4) = network(row);
    let neurons = count("aws.amazon.com/neuron");
    Some(InstanceTypeInfo {
        name: Arc::from(name),
        architectures: vec![match row["labels"]["kubernetes.io/arch"].as_str()? {
            "amd64" => "x86_64".to_owned(),
            other => other.to_owned(),
        }],
        usage_classes: usage_classes(family),
        bare_metal: name.contains(".metal"),
        ena: hypervisor != "xen",
        hypervisor,
        cpu_manufacturer: match label("cpu-manufacturer")? {
            "intel" => "Intel".to_owned(),
            other => other.to_uppercase(),
        },
        cpu_clock_mhz: u32::try_from(number("cpu-sustained-clock-speed-mhz")?).ok()?,
        nested_virtualization: false,
        vcpus: u32::try_from(number("cpu")?).ok()?,
        memory_mib: number("memory")?,
        local_nvme_gb: number("local-nvme"),
        ebs_bandwidth_mbps: number("ebs-bandwidth").and_then(|n| u32::try_from(n).ok()),
        network_cards: cards,
        default_network_card: default_card,
        ipv4_per_interface: ipv4,
        encryption_in_transit: label("encryption-in-transit-supported")? == "true",
        max_efa_interfaces: count("vpc.amazonaws.com/efa"),
        gpus: label("gpu-name")
            .map(|gpu| Gpu {
                name: gpu.to_owned(),
                manufacturer: label("gpu-manufacturer").unwrap_or("").to_uppercase(),
                count: number("gpu-count")
                    .and_then(|n| u32::try_from(n).ok())
                    .unwrap_or(0),
                memory_mib: number("gpu-memory").unwrap_or(0),
            })
            .into_iter()
            .collect(),
        accelerators: label("accelerator-name")
            .filter(|_| neurons == 0)
            .map(|accelerator| Accelerator {
                name: accelerator.to_owned(),
                manufacturer: label("accelerator-manufacturer").unwrap_or("").to_owned(),
                count: number("accelerator-count")
                    .and_then(|n| u32::try_from(n).ok())
                    .unwrap_or(0),
            })
            .into_iter()
            .collect(),
        neuron_devices: label("accelerator-name")
            .filter(|_| neurons > 0)
            .map(|device| NeuronDevice {
                name: device.to_owned(),
                count: neurons,
                cores: count("aws.amazon.com/neuroncore") / neurons.max(1),
            })
            .into_iter()
            .collect(),
        placement_strategies: Vec::new(),
    })
}

/// Network cards, the default one, and addresses per interface. A few types (`hpc*`, `trn2`) are missing from the
/// CNI's table; their published pod count gives the default card's interfaces, at the 50 addresses per interface
/// that all types of their size have: pods = interfaces · (50 − 1) + 2.
fn network(row: &Value) -> (Vec<NetworkCard>, u32, u32) {
    const ADDRESSES: u32 = 50;
    let small = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
    let limits = &row["vpcLimits"];
    if let Some(cards) = limits["networkCards"].as_array() {
        let cards = cards
            .iter()
            .filter_map(|c| {
                Some(NetworkCard {
                    index: small(&c["networkCardIndex"])?,
                    max_interfaces: small(&c["maximumNetworkInterfaces"])?,
                })
            })
            .collect();
        return (
            cards,
            small(&limits["defaultNetworkCardIndex"]).unwrap_or(0),
            small(&limits["ipv4PerInterface"]).unwrap_or(0),
        );
    }
    let pods: u32 = row["capacity"]["pods"]
        .as_str()
        .and_then(|t| t.parse().ok())
        .unwrap_or(2);
    let card = NetworkCard {
        index: 0,
        max_interfaces: pods.saturating_sub(2) / (ADDRESSES - 1),
    };
    (vec![card], 0, ADDRESSES)
}

/// How a family is sold. High-memory and HPC machines are not sold as spot; the largest accelerated ones are also
/// sold in capacity blocks. An assumption: the source does not say.
fn usage_classes(family: &str) -> Vec<String> {
    let mut classes = vec!["on-demand".to_owned()];
    if !["hpc", "u-", "u7"].iter().any(|p| family.starts_with(p)) {
        classes.push("spot".to_owned());
    }
    if ["p4d", "p5", "p6", "trn"]
        .iter()
        .any(|p| family.starts_with(p))
    {
        classes.push("capacity-block".to_owned());
    }
    classes
}
