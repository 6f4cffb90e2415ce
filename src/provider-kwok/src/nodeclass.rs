//! KWOKNodeClass (`karpenter.kwok.sh/v1alpha1`): how nodes of the KWOK provider come up.

use std::time::Duration;

use karpenter_api::crd::schema::{
    Names, conditions, default, definition, doc, matching, object, pattern,
};
use karpenter_api::kinds::{Condition, ObjectMeta, Rest, TypeInfo};
use kube::core::ClusterResourceScope;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How nodes come up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KwokNodeClass {
    /// `apiVersion` and `kind`.
    #[serde(flatten)]
    pub types: TypeInfo,
    /// Standard metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is wanted.
    #[serde(default)]
    pub spec: KwokNodeClassSpec,
    /// What is.
    #[serde(default)]
    pub status: KwokNodeClassStatus,
}

/// Spec of a [`KwokNodeClass`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KwokNodeClassSpec {
    /// How long after a launch the Node appears (`30s`); none = at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_registration_delay: Option<String>,
    /// Fields this build does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Status of a [`KwokNodeClass`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KwokNodeClassStatus {
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Fields this build does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

karpenter_api::impl_kind!(
    KwokNodeClass,
    "karpenter.kwok.sh",
    "v1alpha1",
    "KWOKNodeClass",
    "kwoknodeclasses",
    ClusterResourceScope
);

impl KwokNodeClass {
    /// Status of condition Ready, if it is True or False.
    #[must_use]
    pub fn is_ready(&self) -> Option<bool> {
        let ready = self.status.conditions.iter().find(|c| c.type_ == "Ready")?;
        match ready.status.as_str() {
            "True" => Some(true),
            "False" => Some(false),
            _ => None,
        }
    }

    /// `nodeRegistrationDelay`; the CRD's pattern keeps out what is no duration, and such text counts as none.
    #[must_use]
    pub fn registration_delay(&self) -> Duration {
        let text = self
            .spec
            .node_registration_delay
            .as_deref()
            .unwrap_or_default();
        let (mut total, mut number) = (0_u64, 0_u64);
        for c in text.chars() {
            let unit = match c {
                'h' => 3600,
                'm' => 60,
                's' => 1,
                digit => {
                    number = number
                        .saturating_mul(10)
                        .saturating_add(u64::from(digit.to_digit(10).unwrap_or(0)));
                    continue;
                }
            };
            total = total.saturating_add(number.saturating_mul(unit));
            number = 0;
        }
        Duration::from_secs(total)
    }
}

/// The CustomResourceDefinition. No controller judges a class of this kind: it is born Ready.
#[must_use]
pub fn crd() -> Value {
    let names = Names {
        group: crate::GROUP,
        version: "v1alpha1",
        kind: "KWOKNodeClass",
        plural: "kwoknodeclasses",
        singular: "kwoknodeclass",
        short: &["kwoknc", "kwokncs"],
        category: "karpenter",
        namespaced: false,
        spec_required: false,
    };
    let delay = doc(
        "How long after a launch the Node appears.",
        matching(pattern::DURATION),
    );
    let spec = object(vec![("nodeRegistrationDelay", delay)], &[]);
    let born_ready = json!({ "conditions": [{
        "type": "Ready",
        "status": "True",
        "reason": "Ready",
        "message": "",
        "lastTransitionTime": "2024-01-01T01:01:01Z",
    }] });
    let status = default(
        &born_ready,
        object(vec![("conditions", conditions(false, false))], &[]),
    );
    definition(
        &names,
        "How nodes of the KWOK provider come up.",
        Vec::new(),
        spec,
        status,
        None,
    )
}
