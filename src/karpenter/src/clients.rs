//! Connections to the API server: which cluster, as whom, how fast.

use std::collections::BTreeMap;

use karpenter_runtime::api_client::{GateLayer, Throttle};
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::{Settings, build};
use kube::client::ClientBuilder;
use kube::config::KubeConfigOptions;
use kube::{Client, Config};

/// No way to the cluster.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// `KUBECONFIG` is set, but cannot be used. Falling back to another cluster would be worse than ending.
    #[error("the kubeconfig that KUBECONFIG names cannot be used")]
    Kubeconfig(#[source] kube::config::KubeconfigError),
    /// Neither in a cluster nor with a kubeconfig.
    #[error(
        "no cluster: KUBECONFIG is not set, this is not a pod ({in_cluster}), and there is no usable ~/.kube/config"
    )]
    NoCluster {
        in_cluster: kube::config::InClusterError,
        source: kube::config::KubeconfigError,
    },
    /// The configuration is there, but no client can be made of it.
    #[error("no client can be made for {url}")]
    Client {
        url: String,
        source: Box<kube::Error>,
    },
    /// The version is no header value.
    #[error("user agent {0:?} is not a header value")]
    UserAgent(String),
}

/// The clients of a process.
pub(crate) struct Clients {
    /// Retries.
    pub(crate) client: Client,
    /// Does not: evictions must hear a refusal at once.
    pub(crate) client_no_retry: Client,
    /// Neither retries nor waits its turn: a busy controller must not lose its lease.
    pub(crate) lease_client: Client,
}

/// The cluster that `KUBECONFIG` names, else the one we run in, else the user's.
pub(crate) async fn config() -> Result<Config, ConnectError> {
    let options = KubeConfigOptions::default();
    if std::env::var_os("KUBECONFIG").is_some_and(|path| !path.is_empty()) {
        let config = Config::from_kubeconfig(&options).await;
        return config.map_err(ConnectError::Kubeconfig);
    }
    match Config::incluster() {
        Ok(config) => Ok(config),
        Err(in_cluster) => Config::from_kubeconfig(&options)
            .await
            .map_err(|source| ConnectError::NoCluster { in_cluster, source }),
    }
}

/// Where the lease lives.
pub(crate) fn namespace(
    settings: &Settings,
    env: &BTreeMap<String, String>,
    config: &Config,
) -> String {
    let set = Some(&settings.leader_election_namespace).filter(|ns| !ns.is_empty());
    set.or_else(|| env.get("SYSTEM_NAMESPACE").filter(|ns| !ns.is_empty()))
        .unwrap_or(&config.default_namespace)
        .clone()
}

/// Makes the clients.
pub(crate) fn connect(
    mut config: Config,
    settings: &Settings,
    metrics: &Metrics,
) -> Result<Clients, ConnectError> {
    let agent = format!("karpenter/{}", build::VERSION);
    let value = agent
        .parse()
        .map_err(|_| ConnectError::UserAgent(agent.clone()))?;
    config.headers.push((http::header::USER_AGENT, value));
    let throttle = Throttle::new(settings.kube_client_qps, settings.kube_client_burst);
    let make = |retry: bool, throttle: Option<&Throttle>| -> Result<Client, ConnectError> {
        let mut config = config.clone();
        config.default_retry = retry;
        let url = config.cluster_url.to_string();
        let builder = ClientBuilder::try_from(config).map_err(|source| ConnectError::Client {
            url,
            source: Box::new(source),
        })?;
        let gate = GateLayer {
            throttle: throttle.cloned(),
            metrics: metrics.clone(),
        };
        // The stack kube builds can only be called by one; a buffer makes it cheap to clone.
        Ok(builder
            .with_layer(&tower::buffer::BufferLayer::new(1024))
            .with_layer(&gate)
            .build())
    };
    Ok(Clients {
        client: make(true, Some(&throttle))?,
        client_no_retry: make(false, Some(&throttle))?,
        lease_client: make(false, None)?,
    })
}
