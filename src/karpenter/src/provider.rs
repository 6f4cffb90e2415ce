//! The provider that the settings name.

use karpenter_cloud::Provider;
use karpenter_provider_kwok::{Market, catalog};
use karpenter_runtime::settings::ProviderKind;
use karpenter_runtime::{Clock, Settings};
use kube::Client;

/// A provider that cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProviderError {
    /// The SDK adapter is not linked in.
    #[error(
        "provider ec2 is not in this build, which lacks the AWS SDK adapter; set --provider=kwok (PROVIDER, settings.provider)"
    )]
    Ec2NotBuilt,
    /// The instance type file cannot be read.
    #[error("--instance-types-file-path {path} cannot be read")]
    InstanceTypesFile {
        path: String,
        source: std::io::Error,
    },
    /// The instance type file holds no catalogue.
    #[error(transparent)]
    Catalog(#[from] catalog::CatalogError),
}

/// Refuses a provider that cannot be built, before anything is connected to.
pub(crate) fn check(settings: &Settings) -> Result<(), ProviderError> {
    match settings.provider {
        ProviderKind::Ec2 => Err(ProviderError::Ec2NotBuilt),
        ProviderKind::Kwok => Ok(()),
    }
}

/// Builds it.
pub(crate) fn build(
    settings: &Settings,
    client: &Client,
    clock: &Clock,
) -> Result<Provider, ProviderError> {
    match settings.provider {
        ProviderKind::Ec2 => Err(ProviderError::Ec2NotBuilt),
        ProviderKind::Kwok => {
            let path = &settings.kwok.instance_types_file_path;
            let catalog = if path.is_empty() {
                catalog::builtin()
            } else {
                let bytes =
                    std::fs::read(path).map_err(|source| ProviderError::InstanceTypesFile {
                        path: path.clone(),
                        source,
                    })?;
                catalog::parse(&bytes, path)?
            };
            for bad in &catalog.rejected {
                tracing::error!(error = %bad, "ignoring instance type");
            }
            let market = Market::default();
            Ok(karpenter_provider_kwok::provider(
                client.clone(),
                clock.clone(),
                catalog,
                market,
            ))
        }
    }
}
