//! Images of a class (`aws-provider.md` §14): from aliases through SSM parameters, or by id, name, owner and tags; and
//! which image a type gets.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use karpenter_api::kinds::RequirementSpec;
use karpenter_api::labels::ARCH;
use karpenter_ec2_api::{DescribeImagesInput, Ec2, Ec2Error, Filter, Image};
use karpenter_model::{InstanceType, LabelRegistry, Requirements};
use karpenter_runtime::Clock;

use crate::cache::Cache;
use crate::labels::{ACCELERATOR_COUNT, GPU_COUNT};
use crate::nodeclass::{AmiStatus, NodeClass};
use crate::resolve::tag_filters;
use crate::shape;
use crate::types::requirements::arch;

/// How long a parameter of an alias is believed: images of an alias move every few weeks.
const PARAMETER_TTL: Duration = Duration::from_secs(24 * 3600);
/// How long a parameter that a term names is believed.
const NAMED_PARAMETER_TTL: Duration = Duration::from_secs(300);
/// Last Kubernetes minor version with AL2 images.
const LAST_AL2_MINOR: u32 = 32;
/// First Kubernetes minor version with Windows Server 2025 images.
const FIRST_WINDOWS_2025_MINOR: u32 = 35;

/// Why a class has no images.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    /// The alias does not go with the Kubernetes version; only a change of either helps.
    #[error("alias {alias} has no images for Kubernetes {version}")]
    UnsupportedAlias {
        /// Alias.
        alias: String,
        /// Kubernetes version.
        version: String,
    },
    /// AWS refused.
    #[error(transparent)]
    Ec2(#[from] Ec2Error),
}

/// For which types an image is, by its accelerators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Variant {
    /// No accelerators.
    Standard,
    /// NVIDIA GPUs.
    Nvidia,
    /// Neuron devices.
    Neuron,
    /// Any: images found by anything but an alias.
    Any,
}

/// Finds images; remembers SSM parameters.
#[derive(Debug)]
pub(crate) struct Images {
    parameters: Cache<String, Option<String>>,
    named: Cache<String, Option<String>>,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            parameters: Cache::new(PARAMETER_TTL),
            named: Cache::new(NAMED_PARAMETER_TTL),
        }
    }
}

impl Images {
    /// Images of a class as its status shows them, newest first.
    pub(crate) async fn resolve(
        &self,
        ec2: &dyn Ec2,
        clock: &Clock,
        class: &NodeClass,
        kubernetes: &str,
    ) -> Result<Vec<AmiStatus>, ImageError> {
        let found = match shape::alias(class) {
            Some((family, version)) => {
                self.by_alias(ec2, clock, family, version, kubernetes)
                    .await?
            }
            None => self.by_terms(ec2, clock, class).await?,
        };
        Ok(status(found, clock.wall()))
    }

    async fn parameter(
        &self,
        ec2: &dyn Ec2,
        clock: &Clock,
        cache: &Cache<String, Option<String>>,
        name: &str,
    ) -> Result<Option<String>, Ec2Error> {
        if let Some(known) = cache.get(&name.to_owned(), clock.now()) {
            return Ok(known);
        }
        let value = match ec2.get_parameter(name).await {
            Ok(value) => Some(value),
            Err(e) if e.is_not_found() => None,
            Err(e) => return Err(e),
        };
        // What is missing may be published any time: not remembered.
        if value.is_some() {
            cache.put(name.to_owned(), value.clone(), clock.now());
        }
        Ok(value)
    }

    async fn by_alias(
        &self,
        ec2: &dyn Ec2,
        clock: &Clock,
        family: &str,
        version: &str,
        kubernetes: &str,
    ) -> Result<Vec<(Image, Variant)>, ImageError> {
        let minor = kubernetes
            .split_once('.')
            .and_then(|(_, m)| m.parse::<u32>().ok());
        let unsupported = match family.to_lowercase().as_str() {
            "al2" => minor.is_some_and(|m| m > LAST_AL2_MINOR),
            "windows2025" => minor.is_some_and(|m| m < FIRST_WINDOWS_2025_MINOR),
            _ => false,
        };
        if unsupported {
            return Err(ImageError::UnsupportedAlias {
                alias: format!("{family}@{version}"),
                version: kubernetes.to_owned(),
            });
        }
        let mut variants: BTreeMap<String, Vec<Variant>> = BTreeMap::new();
        let mut failure = None;
        for (name, of) in alias_parameters(family, version, kubernetes) {
            match self.parameter(ec2, clock, &self.parameters, &name).await {
                Ok(Some(id)) => variants.entry(id).or_default().extend(of),
                Ok(None) => {}
                Err(e) => failure = Some(e),
            }
        }
        if variants.is_empty() {
            return match failure {
                Some(e) => Err(e.into()),
                None => Ok(Vec::new()),
            };
        }
        let images = describe_ids(ec2, variants.keys().cloned().collect()).await?;
        Ok(images
            .into_iter()
            .flat_map(|image| {
                let of = variants.get(&image.id).cloned().unwrap_or_default();
                of.into_iter().map(move |v| (image.clone(), v))
            })
            .collect())
    }

    async fn by_terms(
        &self,
        ec2: &dyn Ec2,
        clock: &Clock,
        class: &NodeClass,
    ) -> Result<Vec<(Image, Variant)>, ImageError> {
        let mut ids = Vec::new();
        let mut found: BTreeMap<String, Image> = BTreeMap::new();
        for term in &class.spec.ami_selector_terms {
            if let Some(id) = &term.id {
                ids.push(id.clone());
            } else if let Some(name) = &term.ssm_parameter {
                let value = self.parameter(ec2, clock, &self.named, name).await?;
                ids.extend(value.filter(|v| v.starts_with("ami-")));
            } else {
                let mut filters = tag_filters(&term.tags);
                filters.extend(term.name.as_ref().map(|n| Filter::new("name", [n.clone()])));
                let owners = match (&term.owner, &term.name) {
                    (Some(owner), _) => vec![owner.clone()],
                    (None, Some(_)) => vec!["self".to_owned(), "amazon".to_owned()],
                    (None, None) => Vec::new(),
                };
                let images = describe(ec2, filters, owners).await?;
                found.extend(images.into_iter().map(|i| (i.id.clone(), i)));
            }
        }
        if !ids.is_empty() {
            let images = describe_ids(ec2, ids).await?;
            found.extend(images.into_iter().map(|i| (i.id.clone(), i)));
        }
        Ok(found.into_values().map(|i| (i, Variant::Any)).collect())
    }
}

async fn describe_ids(ec2: &dyn Ec2, ids: Vec<String>) -> Result<Vec<Image>, Ec2Error> {
    describe(ec2, vec![Filter::new("image-id", ids)], Vec::new()).await
}

async fn describe(
    ec2: &dyn Ec2,
    mut filters: Vec<Filter>,
    owners: Vec<String>,
) -> Result<Vec<Image>, Ec2Error> {
    filters.push(Filter::new("state", ["available"]));
    ec2.describe_images(&DescribeImagesInput {
        filters,
        owners,
        include_deprecated: true,
    })
    .await
}

/// SSM parameters of an alias, each with the variants its image serves.
fn alias_parameters(family: &str, version: &str, kubernetes: &str) -> Vec<(String, Vec<Variant>)> {
    use Variant::{Neuron, Nvidia, Standard};
    let latest = version == "latest";
    let pick = |pinned: String| {
        if latest {
            "recommended".to_owned()
        } else {
            pinned
        }
    };
    match family.to_lowercase().as_str() {
        "al2023" => [
            ("x86_64", "standard", Standard),
            ("x86_64", "nvidia", Nvidia),
            ("x86_64", "neuron", Neuron),
            ("arm64", "standard", Standard),
            ("arm64", "nvidia", Nvidia),
        ]
        .into_iter()
        .map(|(arch, flavour, variant)| {
            let release = pick(format!(
                "amazon-eks-node-al2023-{arch}-{flavour}-{kubernetes}-{version}"
            ));
            let base = "/aws/service/eks/optimized-ami";
            (
                format!("{base}/{kubernetes}/amazon-linux-2023/{arch}/{flavour}/{release}/image_id"),
                vec![variant],
            )
        })
        .collect(),
        "al2" => [
            ("", vec![Standard]),
            ("-arm64", vec![Standard]),
            ("-gpu", vec![Neuron, Nvidia]),
        ]
        .into_iter()
        .map(|(suffix, variants)| {
            let infix = suffix.strip_prefix('-').map(|s| format!("{s}-")).unwrap_or_default();
            let release = pick(format!("amazon-eks-{infix}node-{kubernetes}-{version}"));
            let base = "/aws/service/eks/optimized-ami";
            (
                format!("{base}/{kubernetes}/amazon-linux-2{suffix}/{release}/image_id"),
                variants,
            )
        })
        .collect(),
        "bottlerocket" => [
            ("", "x86_64", vec![Standard, Neuron]),
            ("", "arm64", vec![Standard]),
            ("-nvidia", "x86_64", vec![Nvidia]),
            ("-nvidia", "arm64", vec![Nvidia]),
        ]
        .into_iter()
        .map(|(flavour, arch, variants)| {
            let release = version.strip_prefix('v').unwrap_or(version);
            (
                format!("/aws/service/bottlerocket/aws-k8s-{kubernetes}{flavour}/{arch}/{release}/image_id"),
                variants,
            )
        })
        .collect(),
        _ => Vec::new(),
    }
}

/// The best image of each set of requirements, newest first, then by id.
fn status(found: Vec<(Image, Variant)>, now: Timestamp) -> Vec<AmiStatus> {
    let deprecated = |i: &Image| i.deprecation_time.is_some_and(|at| at <= now);
    let rank = |i: &Image| (!deprecated(i), i.creation_date, i.name.clone());
    let mut best: BTreeMap<(&'static str, Variant), Image> = BTreeMap::new();
    for (image, variant) in found {
        let Some(arch) = arch(&image.architecture) else {
            continue;
        };
        match best.get(&(arch, variant)) {
            Some(held) if rank(held) >= rank(&image) => {}
            _ => {
                best.insert((arch, variant), image);
            }
        }
    }
    let mut best: Vec<_> = best.into_iter().collect();
    best.sort_by(|((_, a_variant), a), ((_, b_variant), b)| {
        b.creation_date
            .cmp(&a.creation_date)
            .then_with(|| a.id.cmp(&b.id))
            .then_with(|| a_variant.cmp(b_variant))
    });
    best.into_iter()
        .map(|((arch, variant), image)| AmiStatus {
            deprecated: deprecated(&image),
            requirements: requirements(arch, variant),
            id: image.id,
            name: image.name,
        })
        .collect()
}

/// By length of key, then key.
fn requirements(arch: &str, variant: Variant) -> Vec<RequirementSpec> {
    let spec = |key: &str, operator: &str, values: &[&str]| RequirementSpec {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values: values.iter().map(|v| (*v).to_owned()).collect(),
        min_values: None,
    };
    let mut specs = vec![spec(ARCH, "In", &[arch])];
    match variant {
        Variant::Standard => {
            specs.push(spec(GPU_COUNT, "DoesNotExist", &[]));
            specs.push(spec(ACCELERATOR_COUNT, "DoesNotExist", &[]));
        }
        Variant::Nvidia => specs.push(spec(GPU_COUNT, "Exists", &[])),
        Variant::Neuron => specs.push(spec(ACCELERATOR_COUNT, "Exists", &[])),
        Variant::Any => {}
    }
    specs.sort_by(|a, b| (a.key.len(), &a.key).cmp(&(b.key.len(), &b.key)));
    specs
}

/// Images of a status with their requirements parsed, to map many types.
pub(crate) struct ImageMap<'a> {
    images: Vec<(&'a AmiStatus, Requirements)>,
}

impl<'a> ImageMap<'a> {
    pub(crate) fn new(amis: &'a [AmiStatus], labels: &LabelRegistry) -> Self {
        let images = amis
            .iter()
            .filter_map(|a| Some((a, Requirements::from_specs(&a.requirements, labels).ok()?)))
            .collect();
        Self { images }
    }

    /// The first image that a type can run.
    pub(crate) fn of(&self, instance_type: &InstanceType) -> Option<&'a AmiStatus> {
        self.images
            .iter()
            .find(|(_, reqs)| {
                instance_type
                    .requirements
                    .is_compatible(reqs, karpenter_model::Undefined::Refused)
            })
            .map(|(ami, _)| *ami)
    }
}
