//! Conditions: who sums up whom, and one pure function through which every change goes, so that generations,
//! transition times, order and the root condition are right wherever a condition is set.

use jiff::Timestamp;

use crate::kinds::{Condition, ObjectMeta, Time};

/// Root condition of every kind.
pub const READY: &str = "Ready";
/// Reason of a condition that nobody has judged yet.
pub const AWAITING_RECONCILIATION: &str = "AwaitingReconciliation";
/// Reason of a root that is False.
pub const UNHEALTHY_DEPENDENTS: &str = "UnhealthyDependents";
/// Reason of a root that is Unknown.
pub const RECONCILING_DEPENDENTS: &str = "ReconcilingDependents";

/// Condition types and reasons of a NodeClaim.
pub mod node_claim {
    /// The machine was bought.
    pub const LAUNCHED: &str = "Launched";
    /// The Node of the machine joined and was synced.
    pub const REGISTERED: &str = "Registered";
    /// The Node can take pods.
    pub const INITIALIZED: &str = "Initialized";
    /// Quiet for as long as `consolidateAfter` asks.
    pub const CONSOLIDATABLE: &str = "Consolidatable";
    /// The machine is not what would be bought today.
    pub const DRIFTED: &str = "Drifted";
    /// A voluntary disruption has begun.
    pub const DISRUPTION_REASON: &str = "DisruptionReason";
    /// The Node is drained.
    pub const DRAINED: &str = "Drained";
    /// No volume is attached any more.
    pub const VOLUMES_DETACHED: &str = "VolumesDetached";
    /// The provider was told to delete the machine.
    pub const INSTANCE_TERMINATING: &str = "InstanceTerminating";
    /// The Node has what the claim was promised.
    pub const CONSISTENT_STATE_FOUND: &str = "ConsistentStateFound";

    /// Reasons.
    pub mod reason {
        /// The provider failed to launch; the message says how.
        pub const LAUNCH_FAILED: &str = "LaunchFailed";
        /// No Node carries the machine's providerID.
        pub const NODE_NOT_FOUND: &str = "NodeNotFound";
        /// More than one Node carries the machine's providerID.
        pub const MULTIPLE_NODES_FOUND: &str = "MultipleNodesFound";
        /// A registration hook of the provider is not through.
        pub const REGISTRATION_HOOK_PENDING: &str = "RegistrationHookPending";
        /// The Node's condition Ready is not True.
        pub const NODE_NOT_READY: &str = "NodeNotReady";
        /// A startup taint is still on.
        pub const STARTUP_TAINTS_EXIST: &str = "StartupTaintsExist";
        /// A taint of a starting node is still on.
        pub const KNOWN_EPHEMERAL_TAINTS_EXIST: &str = "KnownEphemeralTaintsExist";
        /// A requested resource is not in the Node's status.
        pub const RESOURCE_NOT_REGISTERED: &str = "ResourceNotRegistered";
        /// A DRA driver has not published its pools.
        pub const DRA_DRIVER_POOLS_NOT_PUBLISHED: &str = "DRADriverPoolsNotPublished";
        /// The drain is under way.
        pub const DRAINING: &str = "Draining";
        /// Volumes are still attached.
        pub const AWAITING_VOLUME_DETACHMENT: &str = "AwaitingVolumeDetachment";
        /// The grace period ended before volumes were detached.
        pub const TERMINATION_GRACE_PERIOD_ELAPSED: &str = "TerminationGracePeriodElapsed";
        /// The Node has less than was promised.
        pub const CONSISTENCY_CHECK_FAILED: &str = "ConsistencyCheckFailed";
        /// Drift: the template changed.
        pub const NODE_POOL_DRIFTED: &str = "NodePoolDrifted";
        /// Drift: the requirements no longer admit the machine.
        pub const REQUIREMENTS_DRIFTED: &str = "RequirementsDrifted";
        /// Drift: the instance type is not offered any more.
        pub const INSTANCE_TYPE_NOT_FOUND: &str = "InstanceTypeNotFound";
    }
}

/// Condition types and reasons of a NodePool.
pub mod node_pool {
    /// Nothing is wrong with the spec; also a condition of NodeOverlays and EC2NodeClasses.
    pub const VALIDATION_SUCCEEDED: &str = "ValidationSucceeded";
    /// The NodeClass exists and is Ready.
    pub const NODE_CLASS_READY: &str = "NodeClassReady";
    /// Recent launches came to be Nodes. Not summed up by Ready.
    pub const NODE_REGISTRATION_HEALTHY: &str = "NodeRegistrationHealthy";

    /// Reasons.
    pub mod reason {
        /// Something is wrong with the spec; the message says what.
        pub const VALIDATION_FAILED: &str = "NodePoolValidationFailed";
        /// There is no such NodeClass.
        pub const NODE_CLASS_NOT_FOUND: &str = "NodeClassNotFound";
        /// The NodeClass is being deleted.
        pub const NODE_CLASS_TERMINATING: &str = "NodeClassTerminating";
        /// Nobody has judged the NodeClass yet.
        pub const NODE_CLASS_READINESS_UNKNOWN: &str = "NodeClassReadinessUnknown";
        /// Machines were bought and never joined.
        pub const REGISTRATION_FAILED: &str = "RegistrationFailed";
    }
}

/// Reasons of a NodeOverlay.
pub mod node_overlay {
    /// Something is wrong that the schema lets pass.
    pub const RUNTIME_VALIDATION: &str = "RuntimeValidation";
    /// An overlay of the same weight got there first.
    pub const CONFLICT: &str = "Conflict";
}

/// Condition types and reasons of a CapacityBuffer.
pub mod capacity_buffer {
    /// It is known what a chunk looks like and how many there are.
    pub const READY_FOR_PROVISIONING: &str = "ReadyForProvisioning";
    /// Whether there is room for the chunks.
    pub const PROVISIONING: &str = "Provisioning";
    /// Limits keep chunks out.
    pub const LIMITED_BY_QUOTAS: &str = "LimitedByQuotas";

    /// Reasons.
    pub mod reasons {
        /// It is known what a chunk looks like.
        pub const RESOLVED: &str = "Resolved";
        /// The workload is not there.
        pub const SCALABLE_REF_NOT_FOUND: &str = "ScalableRefNotFound";
        /// The PodTemplate is not there.
        pub const POD_TEMPLATE_NOT_FOUND: &str = "PodTemplateNotFound";
        /// What is referred to cannot be a buffer's.
        pub const RESOLUTION_FAILED: &str = "ResolutionFailed";
        /// Nodes that are there have room for every chunk.
        pub const FITS_EXISTING_CAPACITY: &str = "FitsExistingCapacity";
        /// Chunks wait for nodes.
        pub const REQUIRES_NEW_CAPACITY: &str = "RequiresNewCapacity";
        /// It is not known what a chunk looks like.
        pub const NOT_READY_FOR_PROVISIONING: &str = "NotReadyForProvisioning";
        /// There is no chunk to be had.
        pub const BUFFER_EMPTY: &str = "BufferEmpty";
    }
}

/// Which conditions a kind has for certain, and which of them sums up the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConditionSet {
    /// Sums up `dependents`.
    pub root: &'static str,
    /// Are summed up; there is always one of each.
    pub dependents: &'static [&'static str],
}

/// Conditions of a NodeClaim.
pub const NODE_CLAIM: ConditionSet = ConditionSet {
    root: READY,
    dependents: &[
        node_claim::LAUNCHED,
        node_claim::REGISTERED,
        node_claim::INITIALIZED,
    ],
};
/// Conditions of a NodePool.
pub const NODE_POOL: ConditionSet = ConditionSet {
    root: READY,
    dependents: &[node_pool::VALIDATION_SUCCEEDED, node_pool::NODE_CLASS_READY],
};
/// Conditions of a NodeOverlay.
pub const NODE_OVERLAY: ConditionSet = ConditionSet {
    root: READY,
    dependents: &[node_pool::VALIDATION_SUCCEEDED],
};

/// What conditions have to know of the object that they are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.creationTimestamp`; none for an object that is not in the API yet.
    pub created: Option<Timestamp>,
    /// Whether there is a `metadata.deletionTimestamp`.
    pub deleting: bool,
}

impl From<&ObjectMeta> for About {
    fn from(meta: &ObjectMeta) -> Self {
        Self {
            generation: meta.generation.unwrap_or_default(),
            created: meta.creation_timestamp.as_ref().map(|t| t.0),
            deleting: meta.deletion_timestamp.is_some(),
        }
    }
}

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// `True`.
    True,
    /// `False`.
    False,
    /// `Unknown`.
    Unknown,
}

impl Status {
    /// As the API spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// The condition of that type.
#[must_use]
pub fn get<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == kind)
}

/// Status of the condition of that type; a missing one, or one of no known status, is Unknown.
#[must_use]
pub fn status(conditions: &[Condition], kind: &str) -> Status {
    match get(conditions, kind).map(|c| c.status.as_str()) {
        Some("True") => Status::True,
        Some("False") => Status::False,
        _ => Status::Unknown,
    }
}

/// Whether the condition of that type is True.
#[must_use]
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    status(conditions, kind) == Status::True
}

/// Puts `wanted` in the place of the condition of its type and says whether that changed anything. The transition
/// time moves only with the status: it stays where the status does, and `wanted`'s counts otherwise.
pub fn merge(conditions: &mut Vec<Condition>, mut wanted: Condition) -> bool {
    match conditions.iter_mut().find(|c| c.type_ == wanted.type_) {
        Some(held) => {
            if held.status == wanted.status {
                wanted.last_transition_time = held.last_transition_time.clone();
            }
            let changed = *held != wanted;
            *held = wanted;
            changed
        }
        None => {
            conditions.push(wanted);
            true
        }
    }
}

impl ConditionSet {
    /// Opens an object's conditions for changes at `now`. Missing root and dependents are added as Unknown.
    pub fn edit<'a>(
        &self,
        conditions: &'a mut Vec<Condition>,
        about: impl Into<About>,
        now: Timestamp,
    ) -> Edit<'a> {
        let mut edit = Edit {
            set: *self,
            about: about.into(),
            now,
            conditions,
            changed: false,
        };
        for kind in self.dependents.iter().chain([&self.root]) {
            if get(edit.conditions, kind).is_none() {
                let text = "object is awaiting reconciliation";
                edit.set(kind, Status::Unknown, AWAITING_RECONCILIATION, text);
            }
        }
        edit
    }

    /// Whether the type is the root or one that the root sums up.
    #[must_use]
    pub fn owns(&self, kind: &str) -> bool {
        self.root == kind || self.dependents.contains(&kind)
    }
}

/// Conditions of one object, open for changes.
#[derive(Debug)]
pub struct Edit<'a> {
    set: ConditionSet,
    about: About,
    now: Timestamp,
    conditions: &'a mut Vec<Condition>,
    changed: bool,
}

impl Edit<'_> {
    /// Makes a condition True; the reason is its type. Says whether anything changed.
    pub fn set_true(&mut self, kind: &str) -> bool {
        self.set(kind, Status::True, kind, "")
    }
    /// Makes a condition True, for a reason worth telling. Says whether anything changed.
    pub fn set_true_because(&mut self, kind: &str, reason: &str, message: &str) -> bool {
        self.set(kind, Status::True, reason, message)
    }
    /// Makes a condition False. Says whether anything changed.
    pub fn set_false(&mut self, kind: &str, reason: &str, message: &str) -> bool {
        self.set(kind, Status::False, reason, message)
    }
    /// Makes a condition Unknown. Says whether anything changed.
    pub fn set_unknown(&mut self, kind: &str, reason: &str, message: &str) -> bool {
        self.set(kind, Status::Unknown, reason, message)
    }

    /// Takes a condition off and says whether it was there. Root and dependents stay: there is always one of each.
    pub fn clear(&mut self, kind: &str) -> bool {
        if self.set.owns(kind) {
            return false;
        }
        let before = self.conditions.len();
        self.conditions.retain(|c| c.type_ != kind);
        let cleared = self.conditions.len() != before;
        self.changed |= cleared;
        cleared
    }

    /// Sets a condition and says whether that changed anything; if so the root is summed up anew.
    pub fn set(&mut self, kind: &str, status: Status, reason: &str, message: &str) -> bool {
        let first_seen = match self.about.created {
            // A dependent that nobody has judged has waited since the beginning of the object.
            Some(created)
                if self.set.dependents.contains(&kind) && get(self.conditions, kind).is_none() =>
            {
                created
            }
            _ => self.now,
        };
        let wanted = Condition {
            type_: kind.to_owned(),
            status: status.as_str().to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: Time(first_seen),
            observed_generation: Some(self.about.generation),
        };
        if !merge(self.conditions, wanted) {
            return false;
        }
        self.changed = true;
        if self.about.deleting {
            // The deletion was a generation of its own, and what is known is known of it too.
            for condition in self.conditions.iter_mut() {
                condition.observed_generation = Some(self.about.generation);
            }
        }
        // Among conditions of one moment, what was set last comes last.
        if let Some(i) = self.conditions.iter().position(|c| c.type_ == kind) {
            let set = self.conditions.remove(i);
            self.conditions.push(set);
        }
        let root = self.set.root;
        self.conditions.sort_by(|a, b| {
            (a.type_ == root, &a.last_transition_time.0)
                .cmp(&(b.type_ == root, &b.last_transition_time.0))
        });
        if kind != root {
            self.sum_up();
        }
        true
    }

    /// Whether anything changed since the conditions were opened, the addition of missing ones included.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.changed
    }

    /// The conditions as they are now.
    #[must_use]
    pub fn all(&self) -> &[Condition] {
        self.conditions
    }

    fn sum_up(&mut self) {
        let generation = Some(self.about.generation);
        let current = |c: &Condition| c.observed_generation == generation;
        let mut unhealthy: Vec<&Condition> = self
            .set
            .dependents
            .iter()
            .filter_map(|kind| get(self.conditions, kind))
            .filter(|c| c.status != "True" || !current(c))
            .collect();
        unhealthy.sort_by_key(|c| std::cmp::Reverse(c.last_transition_time.0));
        let missing = self
            .set
            .dependents
            .iter()
            .any(|kind| get(self.conditions, kind).is_none());
        let message = unhealthy
            .iter()
            .map(|c| format!("{}={}", c.type_, c.status))
            .collect::<Vec<_>>()
            .join(", ");
        let root = self.set.root;
        if unhealthy.iter().any(|c| c.status == "False" && current(c)) {
            self.set_false(root, UNHEALTHY_DEPENDENTS, &message);
        } else if unhealthy.is_empty() && !missing {
            self.set_true(root);
        } else {
            self.set_unknown(root, RECONCILING_DEPENDENTS, &message);
        }
    }
}

#[cfg(test)]
#[path = "condition_tests.rs"]
mod tests;
