//! Which columns each kind has.

use crate::crd::Column;
use crate::ops::Target;

/// Columns of a kind: headings, those that only `-o wide` shows after `|` or with a `+`.
fn headings(group: &str, plural: &str) -> Option<&'static str> {
    Some(match (group, plural) {
        ("", "pods") => "Name,Ready,Status,Restarts,Age|IP,Node,Nominated Node,Readiness Gates",
        ("", "nodes") => {
            "Name,Status,Roles,Age,Version|Internal-IP,External-IP,OS-Image,Kernel-Version,Container-Runtime"
        }
        ("", "namespaces") => "Name,Status,Age",
        ("", "services") => "Name,Type,Cluster-IP,External-IP,Port(s),Age|Selector",
        ("", "configmaps") => "Name,Data,Age",
        ("", "secrets") => "Name,Type,Data,Age",
        ("", "serviceaccounts") => "Name,Age",
        ("" | "events.k8s.io", "events") => {
            "Last Seen,Type,Reason,Object,+Subobject,+Source,Message|First Seen,Count,Name"
        }
        ("", "persistentvolumes") => {
            "Name,Capacity,Access Modes,Reclaim Policy,Status,Claim,StorageClass,VolumeAttributesClass,Reason,Age|VolumeMode"
        }
        ("", "persistentvolumeclaims") => {
            "Name,Status,Volume,Capacity,Access Modes,StorageClass,VolumeAttributesClass,Age|VolumeMode"
        }
        ("apps", "deployments") => "Name,Ready,Up-to-date,Available,Age|Containers,Images,Selector",
        ("apps", "replicasets") => "Name,Desired,Current,Ready,Age|Containers,Images,Selector",
        ("apps", "statefulsets") => "Name,Ready,Age|Containers,Images",
        ("apps", "daemonsets") => {
            "Name,Desired,Current,Ready,Up-to-date,Available,Node Selector,Age|Containers,Images,Selector"
        }
        ("batch", "jobs") => "Name,Status,Completions,Duration,Age|Containers,Images,Selector",
        ("batch", "cronjobs") => {
            "Name,Schedule,Timezone,Suspend,Active,Last Schedule,Age|Containers,Images,Selector"
        }
        ("policy", "poddisruptionbudgets") => {
            "Name,Min Available,Max Unavailable,Allowed Disruptions,Age"
        }
        ("storage.k8s.io", "storageclasses") => {
            "Name,Provisioner,ReclaimPolicy,VolumeBindingMode,AllowVolumeExpansion,Age"
        }
        ("storage.k8s.io", "csidrivers") => {
            "Name,AttachRequired,PodInfoOnMount,StorageCapacity,TokenRequests,RequiresRepublish,Modes,Age"
        }
        ("rbac.authorization.k8s.io", "roles" | "clusterroles") => "Name,Created At",
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            "Name,Role,Age|Users,Groups,ServiceAccounts"
        }
        ("", "resourcequotas") => "Name,Request,Limit,Age",
        ("", "limitranges") => "Name,Created At",
        ("", "endpoints") => "Name,Endpoints,Age",
        ("networking.k8s.io", "networkpolicies") => "Name,Pod-Selector,Age",
        ("discovery.k8s.io", "endpointslices") => "Name,AddressType,Ports,Endpoints,Age",
        ("apps", "controllerrevisions") => "Name,Controller,Revision,Age",
        ("storage.k8s.io", "csinodes") => "Name,Drivers,Age",
        ("storage.k8s.io", "volumeattachments") => "Name,Attacher,PV,Node,Attached,Age",
        ("coordination.k8s.io", "leases") => "Name,Holder,Age",
        ("scheduling.k8s.io", "priorityclasses") => {
            "Name,Value,Global-Default,Age,PreemptionPolicy"
        }
        ("apiextensions.k8s.io", "customresourcedefinitions") => "Name,Created At",
        _ => return None,
    })
}

/// Columns that hold numbers.
const INTEGERS: [&str; 8] = [
    "Desired",
    "Current",
    "Available",
    "Up-to-date",
    "Active",
    "Allowed Disruptions",
    "Drivers",
    "Count",
];

/// What the API says of the fields that every object's columns show. Of the others it is left out: nothing prints it.
fn description(column: &str) -> &'static str {
    match column {
        "Name" => {
            "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names"
        }
        "Age" => {
            "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"
        }
        _ => "",
    }
}

fn column(name: &str, priority: i64) -> Column {
    Column {
        name: name.to_owned(),
        kind: if INTEGERS.contains(&name) {
            "integer"
        } else {
            "string"
        }
        .to_owned(),
        format: if name == "Name" { "name" } else { "" }.to_owned(),
        description: description(name).to_owned(),
        priority,
        json_path: String::new(),
    }
}

/// Columns of a resource.
#[must_use]
pub fn of(target: &Target) -> Vec<Column> {
    if target.info.custom {
        let own = target
            .version_info()
            .map(|v| v.columns.as_slice())
            .unwrap_or_default();
        let mut columns = vec![column("Name", 0)];
        if own.is_empty() {
            let mut age = column("Age", 0);
            age.kind = "date".to_owned();
            age.json_path = ".metadata.creationTimestamp".to_owned();
            age.description = format!(
                "Custom resource definition column (in JSONPath format): {}",
                age.json_path
            );
            columns.push(age);
        }
        columns.extend(own.iter().cloned());
        return columns;
    }
    let headings = headings(&target.info.group, &target.info.plural).unwrap_or("Name,Age");
    let (narrow, wide) = headings.split_once('|').unwrap_or((headings, ""));
    let wide = wide.split(',').filter(|h| !h.is_empty());
    let narrow = narrow.split(',').map(|h| match h.strip_prefix('+') {
        Some(wide) => column(wide, 1),
        None => column(h, 0),
    });
    narrow.chain(wide.map(|h| column(h, 1))).collect()
}
