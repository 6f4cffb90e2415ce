//! Launch templates (`aws-provider.md` §16): one per image and pod capacity of a launch, named by a hash of what is in
//! it, so that equal launches share one and nothing needs to be remembered.
//!
//! Other than upstream, a template is not deleted a minute after its last use: that makes an idle cluster create one
//! anew for each launch and lets a concurrent fleet meet a missing template. Templates go with their class.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use karpenter_api::NodeClaim;
use karpenter_api::quantity::Quantity;
use karpenter_ec2_api::{
    BlockDevice, BlockDeviceMapping, Ec2, Ec2Error, ErrorClass, LaunchTemplateData,
    MetadataOptions, NetworkInterfaceSpec, ReservationUse, TagSpecification, Tags,
};
use karpenter_model::resources::names;
use karpenter_model::{InstanceType, LabelRegistry, Requirements};
use karpenter_runtime::Clock;

use crate::cache::Cache;
use crate::image::ImageMap;
use crate::nodeclass::NodeClass;
use crate::reservations::Reserved;
use crate::settings::Ec2Settings;
use crate::shape;
use crate::types::Family;
use crate::userdata::{self, UserDataError};

/// How long a template is believed to exist.
const KNOWN_TTL: Duration = Duration::from_secs(600);
/// Regions whose metadata service does not know IPv6.
const REGIONS_WITHOUT_METADATA_IPV6: [&str; 6] = [
    "us-iso-east-1",
    "us-iso-west-1",
    "us-isob-east-1",
    "us-isob-west-1",
    "us-isof-south-1",
    "us-isof-east-1",
];

/// Types of a launch that share a template.
#[derive(Debug)]
pub(crate) struct Group {
    /// Template name.
    pub(crate) name: String,
    /// Image.
    pub(crate) image: Arc<str>,
    /// Types.
    pub(crate) types: Vec<Arc<InstanceType>>,
    /// The reservation that its machines come out of.
    pub(crate) reserved: Option<Reserved>,
    data: LaunchTemplateData,
}

/// What types have in common that share a template: image, pods, reservation.
type Content<'a> = (&'a str, i64, Option<Reserved>);

/// What a launch is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) class: &'a NodeClass,
    pub(crate) claim: &'a NodeClaim,
    pub(crate) capacity_type: &'static str,
    pub(crate) tenancy: &'static str,
    pub(crate) tags: &'a Tags,
}

/// Makes templates and remembers which are there.
#[derive(Debug)]
pub(crate) struct Templates {
    known: Cache<String, ()>,
    /// One creation at a time: two launches alike must not race.
    creation: tokio::sync::Mutex<()>,
}

impl Default for Templates {
    fn default() -> Self {
        Self {
            known: Cache::new(KNOWN_TTL),
            creation: tokio::sync::Mutex::new(()),
        }
    }
}

impl Templates {
    /// Makes sure that the template of a group is there.
    ///
    /// # Errors
    /// When AWS refuses.
    pub(crate) async fn ensure(
        &self,
        ec2: &dyn Ec2,
        clock: &Clock,
        group: &Group,
        tags: &Tags,
    ) -> Result<(), Ec2Error> {
        let _one = self.creation.lock().await;
        if self.known.get(&group.name, clock.now()).is_some() {
            return Ok(());
        }
        let names = std::slice::from_ref(&group.name);
        match ec2.describe_launch_templates_by_name(names).await {
            Ok(_) => {}
            Err(e) if e.is_not_found() => {
                match ec2
                    .create_launch_template(&group.name, &group.data, tags)
                    .await
                {
                    Ok(_) => {}
                    // Another replica was faster; its name says that it holds the same.
                    Err(e) if e.class() == ErrorClass::AlreadyExists => {}
                    Err(e) => return Err(e),
                }
            }
            Err(e) => return Err(e),
        }
        self.known.put(group.name.clone(), (), clock.now());
        Ok(())
    }

    /// Forgets a template that turned out to be gone.
    pub(crate) fn forget(&self, group: &Group) {
        self.known.remove(&group.name);
    }
}

/// Groups types by what their machines are launched with. Types without an image are left out.
///
/// # Errors
/// When user data cannot be made.
pub(crate) fn groups(
    settings: &Ec2Settings,
    labels: &LabelRegistry,
    launch: Launch<'_>,
    types: &[Arc<InstanceType>],
    reqs: &Requirements,
) -> Result<Vec<Group>, UserDataError> {
    let images = ImageMap::new(&launch.class.status.amis, labels);
    let mut by_content: BTreeMap<Content<'_>, Vec<Arc<InstanceType>>> = BTreeMap::new();
    for held in types {
        let Some(image) = images.of(held) else {
            continue;
        };
        let pods = held.capacity.get(names::PODS).units();
        let of: BTreeSet<Option<Reserved>> = held.offers(reqs, labels).map(Reserved::of).collect();
        for reserved in of {
            by_content
                .entry((&image.id, pods, reserved))
                .or_default()
                .push(held.clone());
        }
    }
    by_content
        .into_iter()
        .map(|((image, pods, reserved), types)| {
            let data = data(settings, launch, image, pods, reserved.as_ref())?;
            Ok(Group {
                name: name(settings, launch, &data),
                image: Arc::from(image),
                types,
                reserved,
                data,
            })
        })
        .collect()
}

/// `karpenter.k8s.aws/<hash>` of everything that is in the template and of the tags it carries.
fn name(settings: &Ec2Settings, launch: Launch<'_>, data: &LaunchTemplateData) -> String {
    // The Debug text of the data is a whole and unambiguous rendering of it.
    let content = format!("{}\n{:?}\n{data:?}", settings.cluster_name, launch.tags);
    format!("{}/{}", crate::labels::GROUP, fnv1a(content.as_bytes()))
}

/// 64-bit FNV-1a: stable across processes and versions, unlike the standard library's hasher.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn data(
    settings: &Ec2Settings,
    launch: Launch<'_>,
    image: &str,
    pods: i64,
    reserved: Option<&Reserved>,
) -> Result<LaunchTemplateData, UserDataError> {
    let spec = &launch.class.spec;
    let claim = launch.claim;
    let family = shape::family(launch.class);
    let mut kubelet = spec.kubelet.clone().unwrap_or_default();
    kubelet.max_pods = i32::try_from(pods).ok();
    if let (true, Some(ip)) = (kubelet.cluster_dns.is_empty(), &settings.kube_dns_ip) {
        kubelet.cluster_dns = vec![ip.clone()].into();
    }
    let claim_labels = claim.metadata.labels.clone().unwrap_or_default();
    let user_data = userdata::render(&userdata::Inputs {
        settings,
        family,
        labels: userdata::labels(&claim_labels, launch.capacity_type, family),
        taints: userdata::taints(&claim.spec.taints, &claim.spec.startup_taints),
        kubelet,
        raid0: spec.instance_store_policy.as_deref() == Some("RAID0"),
        custom: spec.user_data.as_deref(),
    })?;
    let mut tag_specifications = vec![TagSpecification {
        resource_type: "network-interface".to_owned(),
        tags: launch.tags.clone(),
    }];
    if launch.capacity_type == karpenter_api::labels::CAPACITY_SPOT {
        tag_specifications.push(TagSpecification {
            resource_type: "spot-instances-request".to_owned(),
            tags: launch.tags.clone(),
        });
    }
    Ok(LaunchTemplateData {
        image_id: image.to_owned(),
        user_data,
        instance_profile: launch
            .class
            .status
            .instance_profile
            .clone()
            .unwrap_or_default(),
        detailed_monitoring: spec.detailed_monitoring.unwrap_or(false),
        block_device_mappings: volumes(launch.class, family),
        metadata_options: metadata_options(launch.class, settings),
        network_interfaces: interfaces(launch.class, settings),
        tenancy: launch.tenancy.to_owned(),
        nested_virtualization: spec
            .cpu_options
            .as_ref()
            .and_then(|c| c.nested_virtualization.clone()),
        capacity_reservation: match reserved {
            _ if !settings.reserved_capacity => ReservationUse::Unset,
            Some(reserved) => ReservationUse::Only(reserved.id.clone()),
            None => ReservationUse::Never,
        },
        market_type: reserved.and_then(Reserved::market_type).map(str::to_owned),
        tag_specifications,
    })
}

fn volumes(class: &NodeClass, family: Family) -> Vec<BlockDeviceMapping> {
    if class.spec.block_device_mappings.is_empty() {
        return family
            .default_volumes()
            .iter()
            .map(|(device, gib)| BlockDeviceMapping {
                device_name: (*device).to_owned(),
                ebs: Some(BlockDevice {
                    encrypted: Some(true),
                    volume_type: Some("gp3".to_owned()),
                    volume_size_gib: Some(*gib),
                    ..BlockDevice::default()
                }),
            })
            .collect();
    }
    class
        .spec
        .block_device_mappings
        .iter()
        .map(|m| BlockDeviceMapping {
            device_name: m.device_name.clone().unwrap_or_default(),
            ebs: m.ebs.as_ref().map(|e| BlockDevice {
                delete_on_termination: e.delete_on_termination,
                encrypted: e.encrypted,
                iops: e.iops.filter(|n| *n != 0),
                kms_key_id: e.kms_key_id.clone(),
                snapshot_id: e.snapshot_id.clone(),
                throughput: e.throughput.filter(|n| *n != 0),
                volume_initialization_rate: e.volume_initialization_rate,
                volume_size_gib: e
                    .volume_size
                    .as_ref()
                    .and_then(|s| s.parse::<Quantity>().ok())
                    .map(|q| q.units().saturating_add((1 << 30) - 1) >> 30),
                volume_type: e.volume_type.clone(),
            }),
        })
        .collect()
}

fn metadata_options(class: &NodeClass, settings: &Ec2Settings) -> MetadataOptions {
    let knows_ipv6 = !REGIONS_WITHOUT_METADATA_IPV6.contains(&settings.region.as_str());
    let ipv6_cluster = settings
        .kube_dns_ip
        .as_ref()
        .is_some_and(|ip| ip.contains(':'));
    let text = |t: &Option<String>, default: &str| t.clone().unwrap_or_else(|| default.to_owned());
    match &class.spec.metadata_options {
        Some(o) => MetadataOptions {
            http_endpoint: text(&o.http_endpoint, "enabled"),
            http_protocol_ipv6: knows_ipv6.then(|| text(&o.http_protocol_ipv6, "disabled")),
            http_put_response_hop_limit: o.http_put_response_hop_limit.unwrap_or(1),
            http_tokens: text(&o.http_tokens, "required"),
        },
        None => MetadataOptions {
            http_endpoint: "disabled".to_owned(),
            http_protocol_ipv6: knows_ipv6.then(|| {
                if ipv6_cluster {
                    "enabled".to_owned()
                } else {
                    "disabled".to_owned()
                }
            }),
            http_put_response_hop_limit: 2,
            http_tokens: "required".to_owned(),
        },
    }
}

fn interfaces(class: &NodeClass, settings: &Ec2Settings) -> Vec<NetworkInterfaceSpec> {
    let spec = &class.spec;
    let ipv6 = settings
        .kube_dns_ip
        .as_ref()
        .is_some_and(|ip| ip.contains(':'));
    let groups: Vec<String> = class
        .status
        .security_groups
        .iter()
        .map(|g| g.id.clone())
        .collect();
    let bare = NetworkInterfaceSpec {
        groups,
        ..NetworkInterfaceSpec::default()
    };
    let full = NetworkInterfaceSpec {
        associate_public_ip_address: spec.associate_public_ip_address,
        ipv4_prefix_count: spec.ip_prefix_count.filter(|_| !ipv6),
        ipv6_prefix_count: spec.ip_prefix_count.filter(|_| ipv6),
        primary_ipv6: ipv6.then_some(true),
        ipv6_address_count: ipv6.then_some(1),
        connection_tracking: spec.connection_tracking.as_ref().map(|c| {
            (
                c.tcp_established_timeout,
                c.udp_stream_timeout,
                c.udp_timeout,
            )
        }),
        ..bare.clone()
    };
    if spec.network_interfaces.is_empty() {
        return vec![full];
    }
    spec.network_interfaces
        .iter()
        .map(|n| {
            let base = if n.interface_type == "efa-only" {
                &bare
            } else {
                &full
            };
            NetworkInterfaceSpec {
                network_card_index: n.network_card_index,
                device_index: n.device_index,
                interface_type: Some(n.interface_type.clone()),
                ..base.clone()
            }
        })
        .collect()
}
