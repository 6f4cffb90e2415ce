//! KWOKNodeClass (`karpenter.kwok.sh/v1alpha1`): how nodes of the KWOK provider come up.

use std::time::Duration;

use karpenter_api::crd::schema::{
    Names, conditions, default, definition, doc, matching, object, pattern,
};
use karpenter_api::duration;
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
        let text = self.spec.node_registration_delay.as_deref();
        text.and_then(|t| duration::parse_hms(t).ok())
            .unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_delay_is_read_and_kept_as_text() {
        let object = json!({ "metadata": {}, "spec": { "nodeRegistrationDelay": "1m30s", "later": 1 }, "status": {} });
        let class: KwokNodeClass = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(class.registration_delay(), Duration::from_secs(90));
        assert_eq!(serde_json::to_value(&class).unwrap(), object);
        assert_eq!(
            KwokNodeClass::default().registration_delay(),
            Duration::ZERO
        );
    }
}
