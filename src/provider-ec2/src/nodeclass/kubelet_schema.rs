//! Schema of an EC2NodeClass' kubelet settings: a closed set in v1.14.

use karpenter_api::crd::schema::{
    boolean, bounded, doc, int32, list, map, matching, object, pattern, rules, text,
};
use serde_json::Value;

const THRESHOLD: &str = r"^((\d{1,2}(\.\d{1,2})?|100(\.0{1,2})?)%||(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?)$";

pub(super) fn kubelet() -> Value {
    let all = [
        (
            "has(self.imageGCHighThresholdPercent) && has(self.imageGCLowThresholdPercent) ?  self.imageGCHighThresholdPercent > self.imageGCLowThresholdPercent  : true",
            "imageGCHighThresholdPercent has to be above imageGCLowThresholdPercent",
        ),
        (
            "has(self.evictionSoft) ? self.evictionSoft.all(e, (e in self.evictionSoftGracePeriod)):true",
            "every signal of evictionSoft needs one in evictionSoftGracePeriod",
        ),
        (
            "has(self.evictionSoftGracePeriod) ? self.evictionSoftGracePeriod.all(e, (e in self.evictionSoft)):true",
            "every signal of evictionSoftGracePeriod needs one in evictionSoft",
        ),
    ];
    let percent = || bounded(0, Some(100), int32());
    let schema = object(
        vec![
            ("clusterDNS", doc("Addresses of cluster DNS.", list(text()))),
            (
                "maxPods",
                doc("Most pods of a node.", bounded(0, None, int32())),
            ),
            (
                "podsPerCore",
                doc("Most pods per core.", bounded(0, None, int32())),
            ),
            ("systemReserved", doc("Kept for the system.", reserved())),
            ("kubeReserved", doc("Kept for the kubelet.", reserved())),
            (
                "evictionHard",
                doc(
                    "Signal to threshold of eviction at once.",
                    signals(matching(THRESHOLD)),
                ),
            ),
            (
                "evictionSoft",
                doc(
                    "Signal to threshold of eviction with grace.",
                    signals(matching(THRESHOLD)),
                ),
            ),
            (
                "evictionSoftGracePeriod",
                doc(
                    "Signal to how long a soft threshold has to be crossed.",
                    signals(text()),
                ),
            ),
            (
                "evictionMaxPodGracePeriod",
                doc("Most seconds of grace for pods in soft eviction.", int32()),
            ),
            (
                "imageGCHighThresholdPercent",
                doc("Disk use at which image collection starts.", percent()),
            ),
            (
                "imageGCLowThresholdPercent",
                doc("Disk use down to which images are collected.", percent()),
            ),
            (
                "cpuCFSQuota",
                doc("Whether CPU limits are enforced.", boolean()),
            ),
        ],
        &[],
    );
    doc("Kubelet settings.", rules(&all, schema))
}

fn reserved() -> Value {
    let all = [
        (
            "self.all(x, x=='cpu' || x=='memory' || x=='ephemeral-storage' || x=='pid')",
            "keys are cpu, memory, ephemeral-storage and pid",
        ),
        (
            "self.all(x, !self[x].startsWith('-'))",
            "quantities may not be negative",
        ),
    ];
    rules(&all, map(matching(pattern::QUANTITY)))
}

fn signals(values: Value) -> Value {
    let rule = (
        "self.all(x, x in ['memory.available','nodefs.available','nodefs.inodesFree','imagefs.available','imagefs.inodesFree','pid.available'])",
        "keys are memory.available, nodefs.available, nodefs.inodesFree, imagefs.available, imagefs.inodesFree and pid.available",
    );
    rules(&[rule], map(values))
}
