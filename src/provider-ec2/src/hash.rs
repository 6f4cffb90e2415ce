//! The drift hash of an EC2NodeClass, as `nodeclass.hash` (`aws-provider.md` §21) computes it: FNV-1 over the static
//! fields. The version below is ours until the value is proved bit-exact against upstream's vectors: with upstream's
//! version and another value every node of a migrated cluster would drift.

use serde_json::{Value, json};

use crate::class::NodeClass;
use crate::settings::Ec2Settings;
use crate::shape;
use crate::template::fnv1a;

/// Version of this algorithm.
pub(crate) const VERSION: &str = "rs1";

/// Hash of what a class' machines cannot be changed in.
pub(crate) fn hash(class: &NodeClass, settings: &Ec2Settings) -> String {
    let mut spec = serde_json::to_value(&class.spec).unwrap_or(Value::Null);
    if let Some(map) = spec.as_object_mut() {
        for dynamic in [
            "subnetSelectorTerms",
            "securityGroupSelectorTerms",
            "amiSelectorTerms",
            "capacityReservationSelectorTerms",
            "amiFamily",
            "ipPrefixCount",
        ] {
            map.remove(dynamic);
        }
    }
    // serde_json's maps are sorted: equal specs give equal texts.
    let content = json!([spec, shape::family_name(class), settings.cluster_ca_bundle]);
    fnv1a(content.to_string().as_bytes()).to_string()
}
