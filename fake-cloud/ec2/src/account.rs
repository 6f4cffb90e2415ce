//! The seeded account: a VPC with subnets and security groups as a cluster's set-up leaves them, the EKS-optimised
//! images behind their SSM parameters, roles and instance profiles.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use karpenter_ec2_api::{CapacityReservation, Image, InstanceProfile, SecurityGroup, Subnet, Tags};
use karpenter_runtime::RngTree;

use crate::region::Zone;

/// Tag key by which the tutorial's selectors find subnets and security groups.
pub const DISCOVERY_TAG: &str = "karpenter.sh/discovery";
/// Kubernetes minor versions (of 1.x) that images are made for.
pub const KUBERNETES_MINORS: std::ops::RangeInclusive<u32> = 26..=36;
/// Addresses of a subnet (a /19 minus the five that AWS keeps).
pub const SUBNET_ADDRESSES: u32 = 8187;
/// Days before the account's start at which the released images were made, oldest first.
const RELEASE_AGES_DAYS: [i64; 2] = [45, 12];

/// Everything in the account but what is launched.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Subnets; free addresses are computed, not stored.
    pub subnets: Vec<Subnet>,
    /// Security groups.
    pub security_groups: Vec<SecurityGroup>,
    /// Capacity reservations, each with all its machines as available: how many are left is computed, not stored.
    pub capacity_reservations: Vec<CapacityReservation>,
    /// Images by id.
    pub images: BTreeMap<String, Image>,
    /// SSM parameters.
    pub parameters: BTreeMap<String, String>,
    /// Roles that exist; none = any role does.
    pub roles: Option<BTreeSet<String>>,
    /// Instance profiles by name.
    pub profiles: BTreeMap<String, InstanceProfile>,
}

impl Account {
    /// The account of a cluster that was set up as the tutorial says.
    #[must_use]
    pub fn seeded(cluster: &str, zones: &[Zone], rng: &RngTree, now: Timestamp) -> Self {
        let rng = rng.child("account", cluster);
        let id = |kind: &str, name: &str| {
            format!("{kind}-{}", hex17(rng.child(kind, name).rng().next_u64()))
        };
        let mut account = Self::default();
        let discovery = (DISCOVERY_TAG.to_owned(), cluster.to_owned());
        for (kind, found) in [("private", true), ("public", false)] {
            for zone in zones {
                let name = format!("{cluster}-{kind}-{}", zone.name);
                let mut tags = Tags::from([("Name".to_owned(), name.clone())]);
                if found {
                    tags.extend([discovery.clone()]);
                } else {
                    tags.insert("kubernetes.io/role/elb".into(), "1".into());
                }
                account.subnets.push(Subnet {
                    id: id("subnet", &name),
                    zone: zone.name.clone(),
                    zone_id: zone.id.clone(),
                    available_ips: SUBNET_ADDRESSES,
                    tags,
                });
            }
        }
        for (name, found) in [("node", true), ("default", false)] {
            let name = format!("{cluster}-{name}");
            account.security_groups.push(SecurityGroup {
                id: id("sg", &name),
                tags: found.then(|| discovery.clone()).into_iter().collect(),
                name,
            });
        }
        for (release, age) in RELEASE_AGES_DAYS.iter().enumerate() {
            let made = now
                .checked_sub(SignedDuration::from_hours(age * 24))
                .unwrap_or(now);
            account.release_images(release, made, &rng);
        }
        let profile = format!("KarpenterNodeInstanceProfile-{cluster}");
        account.profiles.insert(
            profile.clone(),
            InstanceProfile {
                name: profile,
                path: "/".into(),
                roles: vec![format!("KarpenterNodeRole-{cluster}")],
            },
        );
        account
    }

    /// Adds the `release`th image of every family, version and variant; the parameters of the newest one move to it.
    pub fn release_images(&mut self, release: usize, made: Timestamp, rng: &RngTree) {
        for minor in KUBERNETES_MINORS {
            for line in lines(minor, release, made) {
                let image = Image {
                    id: format!(
                        "ami-{}",
                        hex17(rng.child("ami", &line.name).rng().next_u64())
                    ),
                    name: line.name,
                    architecture: line.architecture.to_owned(),
                    creation_date: made,
                    deprecation_time: made.checked_add(SignedDuration::from_hours(24 * 730)).ok(),
                    owner: "amazon".into(),
                    tags: Tags::new(),
                };
                for parameter in line.parameters {
                    self.parameters.insert(parameter, image.id.clone());
                }
                self.images.insert(image.id.clone(), image);
            }
        }
    }
}

/// An image of a family: its name and the parameters that (also) point to it from its release on.
struct Line {
    name: String,
    architecture: &'static str,
    parameters: Vec<String>,
}

fn lines(minor: u32, release: usize, made: Timestamp) -> Vec<Line> {
    let date = made.strftime("%Y%m%d");
    let version = format!("1.{minor}");
    let mut lines = Vec::new();
    for (architecture, variant) in [
        ("x86_64", "standard"),
        ("x86_64", "nvidia"),
        ("x86_64", "neuron"),
        ("arm64", "standard"),
        ("arm64", "nvidia"),
    ] {
        let name = format!("amazon-eks-node-al2023-{architecture}-{variant}-{version}-v{date}");
        let base = format!(
            "/aws/service/eks/optimized-ami/{version}/amazon-linux-2023/{architecture}/{variant}"
        );
        lines.push(Line {
            architecture,
            parameters: vec![
                format!("{base}/recommended/image_id"),
                format!("{base}/{name}/image_id"),
            ],
            name,
        });
    }
    // AL2 images end with Kubernetes 1.32.
    for (architecture, suffix) in [("x86_64", ""), ("arm64", "-arm64"), ("x86_64", "-gpu")] {
        if minor > 32 {
            break;
        }
        let infix = suffix.trim_start_matches('-');
        let infix = if infix.is_empty() {
            String::new()
        } else {
            format!("{infix}-")
        };
        let name = format!("amazon-eks-{infix}node-{version}-v{date}");
        let base = format!("/aws/service/eks/optimized-ami/{version}/amazon-linux-2{suffix}");
        lines.push(Line {
            architecture,
            parameters: vec![
                format!("{base}/recommended/image_id"),
                format!("{base}/{name}/image_id"),
            ],
            name,
        });
    }
    let bottlerocket = format!("1.{}.0", 40 + release);
    for architecture in ["x86_64", "arm64"] {
        for flavour in ["", "-nvidia"] {
            let base =
                format!("/aws/service/bottlerocket/aws-k8s-{version}{flavour}/{architecture}");
            lines.push(Line {
                name: format!(
                    "bottlerocket-aws-k8s-{version}{flavour}-{architecture}-v{bottlerocket}"
                ),
                architecture,
                parameters: vec![
                    format!("{base}/latest/image_id"),
                    format!("{base}/{bottlerocket}/image_id"),
                ],
            });
        }
    }
    lines
}

/// The tail of an EC2 id.
pub(crate) fn hex17(random: u64) -> String {
    format!("0{random:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::zones;

    fn account() -> Account {
        let now = "2026-01-15T00:00:00Z".parse().unwrap();
        Account::seeded("demo", &zones("us-east-1", 3), &RngTree::new(1), now)
    }

    #[test]
    fn the_tutorials_selectors_find_a_subnet_per_zone_and_a_group() {
        let account = account();
        let found = |tags: &Tags| tags.get(DISCOVERY_TAG).is_some_and(|v| v == "demo");
        let zones: Vec<_> = account
            .subnets
            .iter()
            .filter(|s| found(&s.tags))
            .map(|s| s.zone.as_str())
            .collect();
        assert_eq!(zones, ["us-east-1a", "us-east-1b", "us-east-1c"]);
        let groups = account.security_groups.iter().filter(|g| found(&g.tags));
        assert_eq!(groups.count(), 1);
    }

    #[test]
    fn parameters_lead_to_the_newest_image_and_pinned_ones_stay() {
        let mut account = account();
        let base = "/aws/service/eks/optimized-ami/1.34/amazon-linux-2023/arm64/standard";
        let recommended = format!("{base}/recommended/image_id");
        let before = account.parameters[&recommended].clone();
        let image = account.images[&before].clone();
        assert_eq!(image.architecture, "arm64");
        let pinned = format!("{base}/{}/image_id", image.name);
        account.release_images(2, "2026-02-01T00:00:00Z".parse().unwrap(), &RngTree::new(1));
        assert_ne!(account.parameters[&recommended], before);
        assert_eq!(account.parameters[&pinned], before);
        assert!(!account.parameters.contains_key(
            "/aws/service/eks/optimized-ami/1.33/amazon-linux-2/recommended/image_id"
        ));
    }
}
