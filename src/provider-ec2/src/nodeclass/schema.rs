//! The CustomResourceDefinition of EC2NodeClass. What objects pass is what passes with Karpenter v1.14, down to rules
//! that refuse only if every term breaks them: a manifest in use must stay usable.

use karpenter_api::crd::schema::{
    Names, age, at_most, boolean, bounded, column, condition_path, conditions, default, definition,
    doc, int32, int64, list, map, matching, object, one_of, rules, text, time, with,
};
use serde_json::{Value, json};

use super::kubelet_schema::kubelet;

const RESERVATION_ID: &str = "^cr-[0-9a-z]+$";
const ACCOUNT: &str = "^[0-9]{12}$";
const VOLUME_SIZE: &str = "^((?:[1-9][0-9]{0,3}|[1-4][0-9]{4}|[5][0-8][0-9]{3}|59000)Gi|(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|[6][0-3][0-9]{3}|64000)G|([1-9]||[1-5][0-7]|58)Ti|([1-9]||[1-5][0-9]|6[0-3]|64)T)$";
const MOST_TERMS: u32 = 30;
/// Families that have an alias, and the alias.
const ALIASES: [(&str, &str); 6] = [
    ("AL2", "al2"),
    ("AL2023", "al2023"),
    ("Bottlerocket", "bottlerocket"),
    ("Windows2019", "windows2019"),
    ("Windows2022", "windows2022"),
    ("Windows2025", "windows2025"),
];

/// The CustomResourceDefinition.
#[must_use]
pub fn crd() -> Value {
    let names = Names {
        group: crate::labels::GROUP,
        version: "v1",
        kind: "EC2NodeClass",
        plural: "ec2nodeclasses",
        singular: "ec2nodeclass",
        short: &["ec2nc", "ec2ncs"],
        category: "karpenter",
        namespaced: false,
        // Karpenter's own definition lets an object without a spec pass.
        spec_required: false,
    };
    let columns = vec![
        column("Ready", "string", &condition_path("Ready"), false),
        age(),
        column("Role", "string", ".spec.role", true),
    ];
    let about = "How the machines of a pool are launched on EC2.";
    definition(&names, about, columns, spec(), status(), None)
}

fn spec() -> Value {
    let fields = vec![
        ("subnetSelectorTerms", subnet_terms()),
        ("securityGroupSelectorTerms", security_group_terms()),
        ("capacityReservationSelectorTerms", reservation_terms()),
        ("placementGroupSelector", placement_group()),
        (
            "associatePublicIPAddress",
            doc(
                "Whether machines get a public address; unset = as the subnet says.",
                boolean(),
            ),
        ),
        (
            "ipPrefixCount",
            doc(
                "IP prefixes of the primary interface.",
                bounded(0, None, int32()),
            ),
        ),
        ("amiSelectorTerms", ami_terms()),
        (
            "amiFamily",
            doc(
                "How the images boot; needed where no alias says it.",
                ami_family(),
            ),
        ),
        (
            "userData",
            doc("User data to merge with Karpenter's own.", text()),
        ),
        (
            "role",
            doc(
                "IAM role to make an instance profile for.",
                not_empty("role"),
            ),
        ),
        (
            "instanceProfile",
            doc(
                "Instance profile to use as it is.",
                not_empty("instanceProfile"),
            ),
        ),
        ("tags", tags()),
        ("kubelet", kubelet()),
        ("blockDeviceMappings", volumes()),
        (
            "instanceStorePolicy",
            doc(
                "RAID0 makes local disks the pods' storage.",
                one_of(&["RAID0"]),
            ),
        ),
        ("networkInterfaces", network_interfaces()),
        (
            "detailedMonitoring",
            doc("Whether CloudWatch gets metrics every minute.", boolean()),
        ),
        ("metadataOptions", metadata_options()),
        ("connectionTracking", connection_tracking()),
        ("context", doc("Context of the fleet request.", text())),
        ("cpuOptions", cpu_options()),
    ];
    let required = [
        "amiSelectorTerms",
        "securityGroupSelectorTerms",
        "subnetSelectorTerms",
    ];
    let mut all = vec![(
        "(has(self.role) && !has(self.instanceProfile)) || (!has(self.role) && has(self.instanceProfile))".to_owned(),
        "exactly one of 'role' and 'instanceProfile' has to be set".to_owned(),
    )];
    all.extend(ALIASES.iter().map(|(family, alias)| (
        format!("!has(self.amiFamily) || (self.amiSelectorTerms.exists(x, has(x.alias) && x.alias.find('^[^@]+') == '{alias}') ? (self.amiFamily == 'Custom' || self.amiFamily == '{family}') : true)"),
        format!("beside an alias of {alias}, amiFamily can only be '{family}' or 'Custom'"),
    )));
    all.push((
        "self.amiSelectorTerms.exists(x, has(x.alias)) ? true : has(self.amiFamily)".to_owned(),
        "amiFamily has to be set unless a term has an alias".to_owned(),
    ));
    let all: Vec<(&str, &str)> = all.iter().map(|(r, m)| (r.as_str(), m.as_str())).collect();
    rules(&all, object(fields, &required))
}

fn not_empty(field: &str) -> Value {
    let message = format!("'{field}' may not be empty");
    rules(&[("self != ''", &message)], text())
}

/// Tags of a selector term.
fn term_tags() -> Value {
    let schema = with(map(text()), json!({ "maxProperties": 20 }));
    let rule = (
        "self.all(k, k != '' && self[k] != '')",
        "tag keys and values may not be empty",
    );
    doc("Tags; value * = any.", rules(&[rule], schema))
}

/// A list of terms with its rules, the first of which says that a term may not be empty.
fn terms(about: &str, fields: Vec<(&str, Value)>, all: &[(&str, &str)]) -> Value {
    doc(
        about,
        rules(all, at_most(MOST_TERMS, list(object(fields, &[])))),
    )
}

fn subnet_terms() -> Value {
    terms(
        "Subnets to launch into; terms are ORed.",
        vec![("tags", term_tags()), ("id", matching("subnet-[0-9a-z]+"))],
        &[
            ("self.size() != 0", "subnetSelectorTerms may not be empty"),
            (
                "self.all(x, has(x.tags) || has(x.id))",
                "a term needs 'tags' or 'id'",
            ),
            (
                "!self.all(x, has(x.id) && has(x.tags))",
                "'id' stands alone in a term",
            ),
        ],
    )
}

fn security_group_terms() -> Value {
    terms(
        "Security groups of the machines; terms are ORed.",
        vec![
            ("tags", term_tags()),
            ("id", matching("sg-[0-9a-z]+")),
            ("name", text()),
        ],
        &[
            (
                "self.size() != 0",
                "securityGroupSelectorTerms may not be empty",
            ),
            (
                "self.all(x, has(x.tags) || has(x.id) || has(x.name))",
                "a term needs 'tags', 'id' or 'name'",
            ),
            (
                "!self.all(x, has(x.id) && (has(x.tags) || has(x.name)))",
                "'id' stands alone in a term",
            ),
            (
                "!self.all(x, has(x.name) && (has(x.tags) || has(x.id)))",
                "'name' stands alone in a term",
            ),
        ],
    )
}

fn reservation_terms() -> Value {
    terms(
        "Capacity reservations to use; terms are ORed.",
        vec![
            ("tags", term_tags()),
            ("id", matching(RESERVATION_ID)),
            ("ownerID", matching(ACCOUNT)),
            ("instanceMatchCriteria", one_of(&["open", "targeted"])),
        ],
        &[
            (
                "self.all(x, has(x.tags) || has(x.id) || has(x.instanceMatchCriteria))",
                "a term needs 'tags', 'id' or 'instanceMatchCriteria'",
            ),
            (
                "!self.all(x, has(x.id) && (has(x.tags) || has(x.ownerID) || has(x.instanceMatchCriteria)))",
                "'id' stands alone in a term",
            ),
        ],
    )
}

fn ami_terms() -> Value {
    let alias = rules(
        &[
            (
                "self.matches('^[a-zA-Z0-9]+@.+$')",
                "an alias has the form 'family@version'",
            ),
            (
                "self.split('@')[0] in ['al2','al2023','bottlerocket','windows2019','windows2022','windows2025']",
                "the family of an alias is al2, al2023, bottlerocket, windows2019, windows2022 or windows2025",
            ),
            (
                "self.split('@')[0] in ['windows2019','windows2022','windows2025'] ? self.split('@')[1] == 'latest' : true",
                "Windows has only version 'latest'",
            ),
        ],
        with(text(), json!({ "maxLength": 30 })),
    );
    let schema = terms(
        "Images; terms are ORed.",
        vec![
            (
                "alias",
                doc("Family and version of images that AWS publishes.", alias),
            ),
            ("tags", term_tags()),
            ("id", matching("ami-[0-9a-z]+")),
            ("name", text()),
            (
                "owner",
                doc("Account, or an alias such as self or amazon.", text()),
            ),
            (
                "ssmParameter",
                doc("Name or ARN of a parameter that holds an image id.", text()),
            ),
        ],
        &[
            (
                "self.all(x, has(x.tags) || has(x.id) || has(x.name) || has(x.alias) || has(x.ssmParameter))",
                "a term needs 'tags', 'id', 'name', 'alias' or 'ssmParameter'",
            ),
            (
                "!self.exists(x, has(x.id) && (has(x.alias) || has(x.tags) || has(x.name) || has(x.owner)))",
                "'id' stands alone in a term",
            ),
            (
                "!self.exists(x, has(x.alias) && (has(x.id) || has(x.tags) || has(x.name) || has(x.owner)))",
                "'alias' stands alone in a term",
            ),
            (
                "!(self.exists(x, has(x.alias)) && self.size() != 1)",
                "a term with 'alias' is the only term",
            ),
        ],
    );
    with(schema, json!({ "minItems": 1 }))
}

fn ami_family() -> Value {
    let mut families: Vec<&str> = ALIASES.iter().map(|(family, _)| *family).collect();
    families.push("Custom");
    one_of(&families)
}

fn placement_group() -> Value {
    let schema = object(
        vec![
            ("name", with(text(), json!({ "minLength": 1 }))),
            ("id", matching("^pg-[0-9a-z]+$")),
        ],
        &[],
    );
    let all = [
        (
            "has(self.name) || has(self.id)",
            "'name' or 'id' has to be set",
        ),
        (
            "!(has(self.name) && has(self.id))",
            "'name' and 'id' exclude each other",
        ),
    ];
    doc("Placement group to launch into.", rules(&all, schema))
}

fn tags() -> Value {
    let reserved = [
        (
            "self.all(k, k !='eks:eks-cluster-name')",
            "eks:eks-cluster-name",
        ),
        (
            "self.all(k, !k.startsWith('kubernetes.io/cluster') )",
            "kubernetes.io/cluster/*",
        ),
        (
            "self.all(k, k != 'karpenter.sh/nodepool')",
            "karpenter.sh/nodepool",
        ),
        (
            "self.all(k, k !='karpenter.sh/nodeclaim')",
            "karpenter.sh/nodeclaim",
        ),
        (
            "self.all(k, k !='karpenter.k8s.aws/ec2nodeclass')",
            "karpenter.k8s.aws/ec2nodeclass",
        ),
    ];
    let messages: Vec<(&str, String)> = reserved
        .iter()
        .map(|(rule, tag)| (*rule, format!("tag {tag} is Karpenter's own")))
        .collect();
    let mut all = vec![("self.all(k, k != '')", "tag keys may not be empty")];
    all.extend(
        messages
            .iter()
            .map(|(rule, message)| (*rule, message.as_str())),
    );
    doc(
        "Tags of everything that is made for the machine.",
        rules(&all, map(text())),
    )
}

fn volumes() -> Value {
    let types = ["standard", "io1", "io2", "gp2", "sc1", "st1", "gp3"];
    let ebs = rules(
        &[
            (
                "has(self.snapshotID) || has(self.volumeSize)",
                "'snapshotID' or 'volumeSize' has to be set",
            ),
            (
                "!has(self.volumeInitializationRate) || (has(self.snapshotID) && self.snapshotID != '')",
                "'volumeInitializationRate' needs 'snapshotID'",
            ),
        ],
        object(
            vec![
                (
                    "deleteOnTermination",
                    doc("Whether it goes with the machine.", boolean()),
                ),
                ("encrypted", boolean()),
                ("iops", int64()),
                ("kmsKeyID", text()),
                ("snapshotID", text()),
                ("throughput", doc("In MiB/s.", int64())),
                (
                    "volumeInitializationRate",
                    doc(
                        "Speed in MiB/s at which the snapshot is loaded.",
                        bounded(100, Some(300), int32()),
                    ),
                ),
                ("volumeSize", matching(VOLUME_SIZE)),
                ("volumeType", one_of(&types)),
            ],
            &[],
        ),
    );
    let volume = object(
        vec![
            ("deviceName", doc("Such as /dev/xvda.", text())),
            (
                "rootVolume",
                doc("Whether pods' ephemeral storage is on it.", boolean()),
            ),
            ("ebs", ebs),
        ],
        &[],
    );
    let one_root = (
        "self.filter(x, has(x.rootVolume)?x.rootVolume==true:false).size() <= 1",
        "at most one volume is the root volume",
    );
    let schema = rules(&[one_root], at_most(50, list(volume)));
    doc("Volumes; unset = what the family has by default.", schema)
}

fn network_interfaces() -> Value {
    let interface = object(
        vec![
            ("networkCardIndex", bounded(0, None, int32())),
            ("deviceIndex", bounded(0, None, int32())),
            ("interfaceType", one_of(&["interface", "efa-only"])),
        ],
        &["deviceIndex", "interfaceType", "networkCardIndex"],
    );
    let all = [
        (
            "self.size() == 0 || self.exists(x, x.deviceIndex == 0 && x.networkCardIndex == 0 && x.interfaceType == 'interface')",
            "card 0, device 0 has to be there, of type 'interface'",
        ),
        (
            "self.all(x, self.filter(y, x.networkCardIndex == y.networkCardIndex && x.deviceIndex == y.deviceIndex).size() == 1 && (x.interfaceType != 'efa-only' || self.filter(y, x.networkCardIndex == y.networkCardIndex && y.interfaceType == 'efa-only').size() == 1))",
            "card and device are there once, and a card has at most one 'efa-only' interface",
        ),
    ];
    let schema = rules(&all, at_most(150, list(interface)));
    doc("Interfaces; unset = one plain interface.", schema)
}

fn metadata_options() -> Value {
    let switch = |value: &str| default(&json!(value), one_of(&["enabled", "disabled"]));
    let schema = object(
        vec![
            ("httpEndpoint", switch("enabled")),
            ("httpProtocolIPv6", switch("disabled")),
            (
                "httpPutResponseHopLimit",
                default(&json!(1), bounded(1, Some(64), int64())),
            ),
            (
                "httpTokens",
                default(&json!("required"), one_of(&["required", "optional"])),
            ),
        ],
        &[],
    );
    let all = json!({
        "httpEndpoint": "enabled",
        "httpProtocolIPv6": "disabled",
        "httpPutResponseHopLimit": 1,
        "httpTokens": "required",
    });
    doc("Instance metadata service.", default(&all, schema))
}

fn connection_tracking() -> Value {
    let schema = object(
        vec![
            ("tcpEstablishedTimeout", bounded(60, Some(432_000), int32())),
            ("udpStreamTimeout", bounded(60, Some(180), int32())),
            ("udpTimeout", bounded(30, Some(60), int32())),
        ],
        &[],
    );
    let rule = (
        "has(self.tcpEstablishedTimeout) || has(self.udpStreamTimeout) || has(self.udpTimeout)",
        "at least one time-out has to be set",
    );
    doc(
        "Idle time-outs of tracked connections, in seconds.",
        rules(&[rule], schema),
    )
}

fn cpu_options() -> Value {
    let nested = one_of(&["enabled", "disabled"]);
    doc(
        "CPU options.",
        object(vec![("nestedVirtualization", nested)], &[]),
    )
}

fn status() -> Value {
    let subnet = object(
        vec![("id", text()), ("zone", text()), ("zoneID", text())],
        &["id", "zone"],
    );
    let group = object(vec![("id", text()), ("name", text())], &["id"]);
    let requirement = object(
        vec![
            ("key", text()),
            ("operator", text()),
            ("values", karpenter_api::crd::schema::atomic(text())),
        ],
        &["key", "operator"],
    );
    let ami = object(
        vec![
            ("id", text()),
            ("name", text()),
            ("deprecated", boolean()),
            ("requirements", list(requirement)),
        ],
        &["id", "requirements"],
    );
    let reservation = object(
        vec![
            ("id", matching(RESERVATION_ID)),
            ("availabilityZone", text()),
            ("instanceMatchCriteria", one_of(&["open", "targeted"])),
            ("instanceType", text()),
            ("ownerID", matching(ACCOUNT)),
            ("endTime", time()),
            (
                "reservationType",
                default(&json!("default"), one_of(&["default", "capacity-block"])),
            ),
            ("interruptible", boolean()),
            (
                "state",
                default(&json!("active"), one_of(&["active", "expiring"])),
            ),
        ],
        &[
            "availabilityZone",
            "id",
            "instanceMatchCriteria",
            "instanceType",
            "ownerID",
        ],
    );
    object(
        vec![
            ("subnets", doc("Subnets that were found.", list(subnet))),
            (
                "securityGroups",
                doc("Security groups that were found.", list(group)),
            ),
            (
                "capacityReservations",
                doc("Capacity reservations that were found.", list(reservation)),
            ),
            ("amis", doc("Images that were found.", list(ami))),
            ("instanceProfile", doc("Instance profile in use.", text())),
            ("conditions", conditions(false, false)),
        ],
        &[],
    )
}
