//! EC2NodeClass: every published vector of the drift hash, and objects that keep what they came with.

use karpenter_api::condition;
use rstest::rstest;
use serde_json::{Value, json};

use super::{NodeClass, NodeClassSpec, conditions, drift_hash};

fn base() -> Value {
    json!({
        "role": "role-1",
        "tags": { "keyTag-1": "valueTag-1", "keyTag-2": "valueTag-2" },
        "context": "fake-context",
        "detailedMonitoring": false,
        "associatePublicIPAddress": false,
        "metadataOptions": {
            "httpEndpoint": "disabled", "httpProtocolIPv6": "disabled",
            "httpPutResponseHopLimit": 1, "httpTokens": "optional",
        },
        "blockDeviceMappings": [
            { "deviceName": "map-device-1", "ebs": {
                "deleteOnTermination": false, "encrypted": false, "iops": 0, "kmsKeyID": "fakeKMSKeyID",
                "snapshotID": "fakeSnapshot", "throughput": 0, "volumeSize": "2G", "volumeType": "standard",
            } },
            { "deviceName": "map-device-2" },
        ],
        "userData": "userdata-test-1",
    })
}

fn hash(spec: Value) -> String {
    let spec: NodeClassSpec = serde_json::from_value(spec).unwrap();
    drift_hash(&spec, "Custom", "test-ca-bundle")
}

/// The base with one field set; null takes it out.
fn with(at: &str, value: Value) -> Value {
    let mut spec = base();
    let (parent, field) = at.rsplit_once('/').unwrap();
    let parent = spec.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if value.is_null() {
        parent.remove(field);
    } else {
        parent.insert(field.to_owned(), value);
    }
    spec
}

#[rstest]
#[case::base(base(), "2608468723537941485")]
#[case(with("/userData", json!("userdata-test-2")), "2153344579995979450")]
#[case(with("/instanceStorePolicy", json!("RAID0")), "6430637013089544585")]
#[case(with("/connectionTracking", json!({ "tcpEstablishedTimeout": 300 })), "12177489405137904098")]
#[case(with("/cpuOptions", json!({ "nestedVirtualization": "enabled" })), "17001101224536964682")]
#[case(with("/blockDeviceMappings/0/ebs/volumeSize", json!("10G")), "3564293065344858862")]
fn vectors(#[case] spec: Value, #[case] expected: &str) {
    assert_eq!(hash(spec), expected);
}

#[test]
fn vector_of_an_instance_profile_in_place_of_a_role() {
    let mut spec = with("/role", Value::Null);
    spec["instanceProfile"] = json!("test-instance-profile");
    assert_eq!(hash(spec), "3585768058063247698");
}

#[rstest]
#[case::selectors("/subnetSelectorTerms", json!([{ "id": "subnet-1" }]), false)]
#[case("/securityGroupSelectorTerms", json!([{ "name": "a" }]), false)]
#[case("/amiSelectorTerms", json!([{ "alias": "al2023@latest" }]), false)]
#[case("/capacityReservationSelectorTerms", json!([{ "id": "cr-1" }]), false)]
#[case("/amiFamily", json!("Custom"), false)]
#[case("/ipPrefixCount", json!(3), false)]
#[case::same_size("/blockDeviceMappings/0/ebs/volumeSize", json!("2000M"), false)]
#[case::other_notation("/blockDeviceMappings/0/ebs/volumeSize", json!("2Gi"), true)]
#[case::absent_is_not_empty("/tags", Value::Null, true)]
#[case::empty_counts("/networkInterfaces", json!([]), true)]
#[case("/networkInterfaces", json!([{ "networkCardIndex": 0, "deviceIndex": 0, "interfaceType": "interface" }]), true)]
#[case("/placementGroupSelector", json!({ "name": "a" }), true)]
#[case("/kubelet", json!({}), true)]
#[case("/kubelet", json!({ "maxPods": 0 }), true)]
#[case("/kubelet", json!({ "evictionSoftGracePeriod": { "memory.available": "1m" } }), true)]
#[case("/blockDeviceMappings/1/rootVolume", json!(true), true)]
#[case("/blockDeviceMappings/1/rootVolume", json!(false), false)]
fn what_counts(#[case] at: &str, #[case] value: Value, #[case] changes: bool) {
    assert_eq!(hash(with(at, value)) != hash(base()), changes);
}

#[test]
fn empty_lists_and_maps_are_not_absent_ones() {
    let kubelet = |k: Value| hash(with("/kubelet", k));
    for field in ["clusterDNS", "systemReserved", "evictionSoftGracePeriod"] {
        let empty = if field == "clusterDNS" {
            json!([])
        } else {
            json!({})
        };
        assert_ne!(
            kubelet(json!({ field: empty })),
            kubelet(json!({})),
            "{field}"
        );
        assert_eq!(
            kubelet(json!({ field: null })),
            kubelet(json!({})),
            "{field}"
        );
    }
    assert_ne!(
        hash(with("/tags", json!({}))),
        hash(with("/tags", Value::Null))
    );
}

#[test]
fn family_and_ca_bundle_count() {
    let spec: NodeClassSpec = serde_json::from_value(base()).unwrap();
    let hash = |family, ca| drift_hash(&spec, family, ca);
    assert_ne!(hash("AL2023", ""), hash("Custom", ""));
    assert_ne!(hash("AL2023", "a"), hash("AL2023", "b"));
}

#[test]
fn an_object_keeps_what_it_came_with() {
    let mut spec = base();
    spec["subnetSelectorTerms"] = json!([{ "tags": { "a": "*" } }]);
    spec["capacityReservationSelectorTerms"] =
        json!([{ "id": "cr-1", "ownerID": "123456789012", "instanceMatchCriteria": "open" }]);
    spec["networkInterfaces"] = json!([]);
    spec["kubelet"] = json!({ "clusterDNS": ["10.0.0.10"], "imageGCHighThresholdPercent": 80, "cpuCFSQuota": false, "maxPodsExpression": "1" });
    spec["fieldOfTomorrow"] = json!({ "x": 1 });
    let object = json!({
        "apiVersion": "karpenter.k8s.aws/v1",
        "kind": "EC2NodeClass",
        "metadata": { "name": "default" },
        "spec": spec,
        "status": {
            "subnets": [{ "id": "subnet-1", "zone": "us-east-1a", "zoneID": "use1-az1" }],
            "amis": [{ "id": "ami-1", "name": "n", "deprecated": true, "requirements": [{ "key": "k", "operator": "Exists" }] }],
            "capacityReservations": [{
                "id": "cr-1", "availabilityZone": "us-east-1a", "instanceMatchCriteria": "open", "instanceType": "m5.large",
                "ownerID": "123456789012", "endTime": "2025-01-01T00:00:00Z", "reservationType": "capacity-block", "state": "active",
            }],
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Ready", "message": "",
                "lastTransitionTime": "2025-01-01T00:00:00Z", "observedGeneration": 1,
            }],
            "ofTomorrow": true,
        },
    });
    let class: NodeClass = serde_json::from_value(object.clone()).unwrap();
    assert_eq!(serde_json::to_value(&class).unwrap(), object);
}

#[test]
fn reservations_count_for_readiness_only_where_the_feature_is_on() {
    assert_eq!(conditions(true).dependents.len(), 7);
    let without = conditions(false);
    assert!(!without.owns(super::condition::CAPACITY_RESERVATIONS_READY));
    let mut all = Vec::new();
    let about = condition::About {
        generation: 1,
        created: None,
        deleting: false,
    };
    let mut edit = without.edit(&mut all, about, jiff::Timestamp::UNIX_EPOCH);
    for kind in without.dependents {
        edit.set_true(kind);
    }
    assert!(condition::is_true(edit.all(), condition::READY));
}
