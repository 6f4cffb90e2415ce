//! Taking a machine away: draining its Node pod by pod, waiting for its volumes, ending the instance, and the
//! finalizers that keep Node and NodeClaim until that is done.

pub(crate) mod drain;
pub(crate) mod events;
pub(crate) mod eviction;
pub(crate) mod node;
pub(crate) mod volumes;

/// Why a termination cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TerminationError {
    /// The deadline on the claim is no time.
    #[error(
        "NodeClaim {claim}: annotation {annotation} is {text:?}, expected a time such as 2026-01-02T03:04:05Z",
        annotation = karpenter_api::labels::TERMINATION_TIMESTAMP
    )]
    BadDeadline {
        /// Claim's name.
        claim: String,
        /// The annotation's value.
        text: String,
        /// What is wrong with it.
        #[source]
        source: jiff::Error,
    },
    /// The cloud did not answer as it should.
    #[error("terminating the instance of NodeClaim {claim}: {source}")]
    Cloud {
        /// Claim's name.
        claim: String,
        /// What the cloud said.
        #[source]
        source: karpenter_cloud::CloudError,
    },
}

impl From<TerminationError> for karpenter_runtime::runner::ReconcileError {
    fn from(error: TerminationError) -> Self {
        Self::Retry(Box::new(error))
    }
}
