//! CustomResourceDefinitions: whether the cluster serves the kinds we need, and how to install them.

use std::time::Duration;

use karpenter_api::crd::LabelDomain;
use karpenter_cloud::{NodeClassKind, Provider};
use karpenter_runtime::settings::FeatureGates;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// Times an installed CRD is looked at until it is served.
const ESTABLISH_ATTEMPTS: u32 = 100;

/// Wait between looks.
const ESTABLISH_WAIT: Duration = Duration::from_millis(100);

/// Why a CRD could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum CrdError {
    /// Not a CRD at all.
    #[error("CRD {name:?} cannot be read: {source}")]
    Malformed {
        /// `metadata.name`, as far as there is one.
        name: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The API server refused it.
    #[error("CRD {name} cannot be installed")]
    Refused {
        /// `metadata.name`.
        name: String,
        /// Why.
        source: kube::Error,
    },
    /// The API server took it, but never served it.
    #[error("CRD {name} is not Established after {}", humantime(*.after))]
    NotEstablished {
        /// `metadata.name`.
        name: String,
        /// How long it was waited for.
        after: Duration,
    },
}

fn humantime(duration: Duration) -> String {
    karpenter_runtime::settings::format_duration(duration)
}

/// Creates `crds` (whole CustomResourceDefinition objects), or brings those that exist up to date, and waits until
/// they are served. For embedded worlds and try-outs; on a real cluster the chart does this.
///
/// # Errors
/// At the first CRD that is malformed, refused or never served.
pub async fn install_crds(client: Client, crds: &[Value]) -> Result<(), CrdError> {
    let kind = ApiResource {
        group: "apiextensions.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "apiextensions.k8s.io/v1".to_owned(),
        kind: "CustomResourceDefinition".to_owned(),
        plural: "customresourcedefinitions".to_owned(),
    };
    let api: Api<DynamicObject> = Api::all_with(client, &kind);
    for crd in crds {
        let name = crd
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let object: DynamicObject =
            serde_json::from_value(crd.clone()).map_err(|source| CrdError::Malformed {
                name: name.clone(),
                source,
            })?;
        let refused = |source| CrdError::Refused {
            name: name.clone(),
            source,
        };
        let mut held = match api.create(&PostParams::default(), &object).await {
            Ok(created) => created,
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let spec = json!({ "spec": crd.get("spec") });
                let patch = Patch::Merge(&spec);
                let patched = api.patch(&name, &PatchParams::default(), &patch).await;
                patched.map_err(refused)?
            }
            Err(source) => return Err(refused(source)),
        };
        let mut looks = 0;
        while !is_established(&held) {
            if looks == ESTABLISH_ATTEMPTS {
                return Err(CrdError::NotEstablished {
                    name,
                    after: ESTABLISH_WAIT * ESTABLISH_ATTEMPTS,
                });
            }
            looks += 1;
            tokio::time::sleep(ESTABLISH_WAIT).await;
            held = api.get(&name).await.map_err(refused)?;
        }
    }
    Ok(())
}

/// All definitions a cluster needs for this provider: the core's, with the label rules of the provider's `domains`,
/// and the provider's own.
#[must_use]
pub fn crds(provider: &Provider, domains: &[LabelDomain]) -> Vec<Value> {
    let mut all = karpenter_api::crd::core(domains);
    all.extend(provider.crds.iter().cloned());
    all
}

fn is_established(crd: &DynamicObject) -> bool {
    let conditions = crd.data.pointer("/status/conditions");
    conditions.and_then(Value::as_array).is_some_and(|all| {
        all.iter().any(|c| {
            c.get("type") == Some(&json!("Established")) && c.get("status") == Some(&json!("True"))
        })
    })
}

/// Kinds we cannot run without that the cluster does not serve, as `plural.group/version`.
pub(crate) async fn missing_kinds(
    client: &Client,
    node_class: &NodeClassKind,
    gates: &FeatureGates,
) -> Result<Vec<String>, kube::Error> {
    let mut needed = vec![
        ("karpenter.sh", "v1", "nodepools"),
        ("karpenter.sh", "v1", "nodeclaims"),
        (node_class.group, node_class.version, node_class.plural),
    ];
    if gates.capacity_buffer {
        needed.push(("autoscaling.x-k8s.io", "v1beta1", "capacitybuffers"));
    }
    if gates.node_overlay {
        needed.push(("karpenter.sh", "v1alpha1", "nodeoverlays"));
    }
    let mut missing = Vec::new();
    for (group, version, plural) in needed {
        let served = match client
            .list_api_group_resources(&format!("{group}/{version}"))
            .await
        {
            Ok(list) => list.resources.iter().any(|r| r.name == plural),
            // A group nobody serves is answered with a line of text, not with a Status: the code is all there is.
            Err(kube::Error::Api(status)) if status.code == 404 => false,
            Err(error) => return Err(error),
        };
        if !served {
            missing.push(format!("{plural}.{group}/{version}"));
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use kube::client::Body;

    use super::*;

    /// A real API server that lacks the whole group says so in plain text, without a Status.
    #[tokio::test]
    async fn a_group_that_is_not_served_is_missing_and_no_error() {
        let service = tower::service_fn(|_: http::Request<Body>| async {
            let mut answer = http::Response::new(Body::from(b"404 page not found\n".to_vec()));
            *answer.status_mut() = http::StatusCode::NOT_FOUND;
            Ok::<_, Infallible>(answer)
        });
        let client = Client::new(service, "default");
        let node_class = NodeClassKind {
            group: "example.com",
            version: "v1alpha1",
            kind: "ExampleNodeClass",
            plural: "examplenodeclasses",
        };
        let missing = missing_kinds(&client, &node_class, &FeatureGates::default()).await;
        assert_eq!(
            missing.expect("an answer"),
            [
                "nodepools.karpenter.sh/v1",
                "nodeclaims.karpenter.sh/v1",
                "examplenodeclasses.example.com/v1alpha1",
            ]
        );
    }
}
