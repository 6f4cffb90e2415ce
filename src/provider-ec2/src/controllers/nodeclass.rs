//! The `nodeclass` controller (`aws-provider.md` §21): finds what a class selects, says whether it can be used, and
//! cleans up after it.
//!
//! Other than upstream, a class in which nothing changes is looked at less and less often, up to
//! [`LONGEST_INTERVAL`]: a launch, a change or a failure brings the first interval back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use karpenter_api::condition::{Edit, READY, Status, is_true, status as status_of};
use karpenter_api::kinds::Condition;
use karpenter_ec2_api::{Ec2Error, Filter};
use karpenter_runtime::events::{DEFAULT_DEDUPE_WINDOW, Event, EventType};
use karpenter_runtime::metrics::Metrics;
use karpenter_runtime::runner::ReconcileError;
use karpenter_runtime::{Action, EventRecorder, Key, Reconciler};
use kube::Resource as _;
use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use super::profile;
use crate::image::ImageError;
use crate::labels as l;
use crate::launch::forbidden_tag;
use crate::nodeclass::condition::{self as c, reason as r};
use crate::nodeclass::{
    AmiStatus, HASH_VERSION_VALUE, NodeClass, NodeClassStatus, conditions, drift_hash,
};
use crate::reservations;
use crate::resolve;
use crate::shape;
use crate::shared::Shared;
use crate::types::Family;

/// First interval between looks, and that after a failure.
const FIRST_INTERVAL: Duration = Duration::from_secs(60);
/// Longest interval between looks at a class that does not change.
pub(crate) const LONGEST_INTERVAL: Duration = Duration::from_secs(900);
/// How often a class waiting for its claims is looked at.
const DELETION_INTERVAL: Duration = Duration::from_secs(600);
/// Claims named in the event of a waiting class.
const CLAIMS_NAMED: usize = 5;

/// The controller.
pub(crate) struct NodeClassController {
    pub(crate) shared: Arc<Shared>,
    pub(crate) events: EventRecorder,
    pub(crate) metrics: Metrics,
    pub(crate) catalog_changed: Arc<Notify>,
    /// Interval in use, by class.
    pub(crate) intervals: Mutex<BTreeMap<String, Duration>>,
}

/// A failed step.
#[derive(Debug, thiserror::Error)]
#[error("EC2NodeClass {class}: {step}: {source}")]
struct StepError {
    class: String,
    step: &'static str,
    source: Ec2Error,
}

impl StepError {
    fn retry(self) -> ReconcileError {
        ReconcileError::Retry(Box::new(self))
    }
}

#[async_trait]
impl Reconciler for NodeClassController {
    fn name(&self) -> &'static str {
        "nodeclass"
    }

    fn group_kind(&self) -> (&'static str, &'static str) {
        (l::GROUP, "EC2NodeClass")
    }

    fn metrics(&self) -> Option<&Metrics> {
        Some(&self.metrics)
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let api = self.shared.class_api();
        let Some(class) = self.shared.classes.get(&api, &key.name).await? else {
            self.intervals.lock().remove(&*key.name);
            return Ok(Action::AwaitChange);
        };
        if shape::is_deleting(&class) {
            return self.finalize(&class).await;
        }
        if self.own(&class).await? {
            // The change comes back through the watch.
            return Ok(Action::AwaitChange);
        }
        self.observe(&class).await
    }
}

impl NodeClassController {
    /// Puts finalizer and hash on a class; says whether it had to.
    async fn own(&self, class: &NodeClass) -> Result<bool, ReconcileError> {
        let mut finalizers = class.metadata.finalizers.clone().unwrap_or_default();
        let annotations = class.metadata.annotations.clone().unwrap_or_default();
        let ca = &self.shared.settings.cluster_ca_bundle;
        let hash = drift_hash(&class.spec, &shape::family_name(class), ca);
        let has = |key: &str, value: &str| annotations.get(key).is_some_and(|v| v == value);
        let owned = finalizers.iter().any(|f| f == l::FINALIZER);
        if owned && has(l::HASH, &hash) && has(l::HASH_VERSION, HASH_VERSION_VALUE) {
            return Ok(false);
        }
        if !owned {
            finalizers.push(l::FINALIZER.to_owned());
        }
        let patch = json!({
            "metadata": {
                "resourceVersion": class.metadata.resource_version,
                "finalizers": finalizers,
                "annotations": { l::HASH: hash, l::HASH_VERSION: HASH_VERSION_VALUE },
            },
        });
        self.patch(class, &patch, false).await?;
        Ok(true)
    }

    async fn patch(
        &self,
        class: &NodeClass,
        patch: &Value,
        status: bool,
    ) -> kube::Result<NodeClass> {
        let name = class.metadata.name.as_deref().unwrap_or_default();
        let (api, params) = (self.shared.class_api(), PatchParams::default());
        if status {
            api.patch_status(name, &params, &Patch::Merge(patch)).await
        } else {
            api.patch(name, &params, &Patch::Merge(patch)).await
        }
    }

    async fn observe(&self, class: &NodeClass) -> Result<Action, ReconcileError> {
        let name = class.metadata.name.clone().unwrap_or_default();
        let mut status = class.status.clone();
        let mut look_again = None;
        let failure = self.steps(class, &mut status, &mut look_again).await;
        let changed = status != class.status;
        if changed {
            let patch = json!({
                "metadata": { "resourceVersion": class.metadata.resource_version },
                "status": merge_patch(&class.status, &status),
            });
            self.patch(class, &patch, true).await?;
            self.catalog_changed.notify_one();
        }
        if let Some(error) = failure {
            self.intervals.lock().remove(&name);
            return Err(error.retry());
        }
        let ready = is_true(&status.conditions, READY);
        let mut intervals = self.intervals.lock();
        let interval = match intervals.get(&name) {
            Some(last) if ready && !changed => (*last * 2).min(LONGEST_INTERVAL),
            _ => FIRST_INTERVAL,
        };
        intervals.insert(name, interval);
        let interval = look_again.map_or(interval, |soon: Duration| soon.min(interval));
        Ok(Action::RequeueAfter(interval))
    }

    /// Runs every step; the first failure is returned after all have run, and leaves its condition as it was.
    /// `look_again` is how soon something changes by itself.
    async fn steps(
        &self,
        class: &NodeClass,
        status: &mut NodeClassStatus,
        look_again: &mut Option<Duration>,
    ) -> Option<StepError> {
        let ec2 = &*self.shared.ec2;
        let spec = &class.spec;
        let mut failure: Option<StepError> = None;
        let mut failed = |step: &'static str, source: Ec2Error| {
            let class = class.metadata.name.clone().unwrap_or_default();
            failure.get_or_insert(StepError {
                class,
                step,
                source,
            });
        };
        let mut findings: Vec<(&str, Finding)> = Vec::new();

        match self.images(class).await {
            Ok(amis) => {
                let finding = found(!amis.is_empty(), r::AMI_NOT_FOUND, "amiSelectorTerms");
                findings.push((c::AMIS_READY, finding));
                status.amis = amis;
            }
            Err(error @ ImageError::UnsupportedAlias { .. }) => {
                status.amis.clear();
                let finding = Finding::Bad(r::UNSUPPORTED_ALIAS, error.to_string());
                findings.push((c::AMIS_READY, finding));
            }
            Err(ImageError::Ec2(e)) => failed("images", e),
        }
        let with_reservations = self.shared.settings.reserved_capacity;
        if with_reservations {
            match self.reservations(class, status).await {
                Ok(soon) => {
                    *look_again = soon;
                    findings.push((c::CAPACITY_RESERVATIONS_READY, Finding::Good));
                }
                Err(e) => failed("capacity reservations", e),
            }
        }
        // Placement groups come with their own feature; a class that asks for one must not launch without it.
        let group = match &spec.placement_group_selector {
            None => Finding::Good,
            Some(_) => Finding::Bad(
                r::PLACEMENT_GROUP_RESOLUTION_FAILED,
                "placementGroupSelector is not supported yet".to_owned(),
            ),
        };
        findings.push((c::PLACEMENT_GROUP_READY, group));
        match resolve::subnets(ec2, &spec.subnet_selector_terms).await {
            Ok(subnets) => {
                self.shared.addresses.described(&subnets);
                let any = !subnets.is_empty();
                let finding = found(any, r::SUBNETS_NOT_FOUND, "subnetSelectorTerms");
                findings.push((c::SUBNETS_READY, finding));
                status.subnets = keep_order(&status.subnets, resolve::subnet_status(&subnets));
            }
            Err(e) => failed("subnets", e),
        }
        match resolve::security_groups(ec2, &spec.security_group_selector_terms).await {
            Ok(groups) => {
                let any = !groups.is_empty();
                let field = "securityGroupSelectorTerms";
                let finding = found(any, r::SECURITY_GROUPS_NOT_FOUND, field);
                findings.push((c::SECURITY_GROUPS_READY, finding));
                status.security_groups = groups;
            }
            Err(e) => failed("security groups", e),
        }
        match profile::ensure(ec2, &self.shared.settings, class).await {
            Ok(profile) => {
                status.instance_profile = profile;
                findings.push((c::INSTANCE_PROFILE_READY, Finding::Good));
            }
            Err(e) => failed("instance profile", e),
        }
        let mut all = std::mem::take(&mut status.conditions);
        let now = self.shared.clock.wall();
        let mut edit = conditions(with_reservations).edit(&mut all, &class.metadata, now);
        for (kind, finding) in &findings {
            finding.write(&mut edit, kind);
        }
        let validation = self.validate(class, edit.all());
        validation.write(&mut edit, c::VALIDATION_SUCCEEDED);
        status.conditions = all;
        failure
    }

    /// Finds the class' capacity reservations; how soon to look at them again.
    async fn reservations(
        &self,
        class: &NodeClass,
        status: &mut NodeClassStatus,
    ) -> Result<Option<Duration>, Ec2Error> {
        let terms = &class.spec.capacity_reservation_selector_terms;
        let now = self.shared.clock.wall();
        let found = reservations::resolve(&*self.shared.ec2, terms, now).await?;
        if self.shared.market.reservations.described(&found) {
            self.catalog_changed.notify_one();
        }
        status.capacity_reservations = reservations::status(&found, now);
        if terms.is_empty() {
            return Ok(None);
        }
        // What they have left changes by the hand of others, too.
        let next = reservations::next_change(&found, now).map(|at| at.duration_since(now));
        let next = next.and_then(|left| Duration::try_from(left).ok());
        Ok(Some(next.unwrap_or(FIRST_INTERVAL).min(FIRST_INTERVAL)))
    }

    async fn images(&self, class: &NodeClass) -> Result<Vec<AmiStatus>, ImageError> {
        let version = self.shared.kubernetes_version().await.map_err(|e| {
            Ec2Error::server(
                "VersionUnknown",
                format!("asking the API server's version: {e}"),
            )
        })?;
        let (ec2, clock) = (&*self.shared.ec2, &self.shared.clock);
        self.shared
            .images
            .resolve(ec2, clock, class, &version)
            .await
    }

    /// Whether launches can work, as far as that can be told without dry runs (those come with the SDK adapter: only
    /// the real EC2 knows what a role may do).
    fn validate(&self, class: &NodeClass, all: &[Condition]) -> Finding {
        if shape::family(class) == Family::Al2023 && self.shared.settings.cluster_cidr.is_empty() {
            return Finding::Bad(
                r::CLUSTER_CIDR_RESOLUTION_FAILED,
                "the cluster's service network is not known".to_owned(),
            );
        }
        let needed = [
            c::AMIS_READY,
            c::INSTANCE_PROFILE_READY,
            c::SECURITY_GROUPS_READY,
            c::SUBNETS_READY,
        ];
        let with = |wanted: Status| -> Vec<&str> {
            let has = |kind: &&&str| status_of(all, kind) == wanted;
            needed.iter().filter(has).copied().collect()
        };
        let (bad, unknown) = (with(Status::False), with(Status::Unknown));
        if !bad.is_empty() {
            let message = format!("waiting for {}", bad.join(", "));
            return Finding::Bad(r::DEPENDENCIES_NOT_READY, message);
        }
        if !unknown.is_empty() {
            let message = format!("waiting for {}", unknown.join(", "));
            return Finding::Unknown(r::DEPENDENCIES_NOT_READY, message);
        }
        match forbidden_tag(class) {
            Some(tag) => Finding::Bad(
                r::TAG_VALIDATION_FAILED,
                format!("spec.tags: {tag:?} is Karpenter's own"),
            ),
            None => Finding::Good,
        }
    }

    /// Waits for the class' claims, then removes what was made for it.
    async fn finalize(&self, class: &NodeClass) -> Result<Action, ReconcileError> {
        let name = class.metadata.name.clone().unwrap_or_default();
        let mut finalizers = class.metadata.finalizers.clone().unwrap_or_default();
        if !finalizers.iter().any(|f| f == l::FINALIZER) {
            return Ok(Action::AwaitChange);
        }
        let claims = self.shared.claims.all(&self.shared.claim_api()).await?;
        let waiting: Vec<&str> = claims
            .iter()
            .filter(|claim| claim.spec.node_class_ref.name == name)
            .filter_map(|claim| claim.metadata.name.as_deref())
            .collect();
        if !waiting.is_empty() {
            self.events.publish(waiting_event(class, &waiting));
            return Ok(Action::RequeueAfter(DELETION_INTERVAL));
        }
        let step = |step: &'static str| {
            let class = name.clone();
            move |source: Ec2Error| {
                StepError {
                    class,
                    step,
                    source,
                }
                .retry()
            }
        };
        let (ec2, settings) = (&*self.shared.ec2, &self.shared.settings);
        if !settings.isolated_vpc {
            let deleted = profile::delete_all(ec2, settings, class).await;
            deleted.map_err(step("deleting instance profiles"))?;
        }
        let filters = [
            Filter::new(format!("tag:{}", l::CLUSTER_TAG), [&*settings.cluster_name]),
            Filter::new(format!("tag:{}", l::NODE_CLASS), [&*name]),
        ];
        let templates = ec2.describe_launch_templates(&filters).await;
        for template in templates.map_err(step("listing launch templates"))? {
            match ec2.delete_launch_template(&template.name).await {
                Err(e) if !e.is_not_found() => {
                    return Err(step("deleting a launch template")(e));
                }
                _ => {}
            }
        }
        finalizers.retain(|f| f != l::FINALIZER);
        let patch = json!({
            "metadata": {
                "resourceVersion": class.metadata.resource_version,
                "finalizers": finalizers,
            },
        });
        match self.patch(class, &patch, false).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            result => {
                result?;
            }
        }
        Ok(Action::AwaitChange)
    }
}

/// What a step found out.
enum Finding {
    /// True.
    Good,
    /// False: reason, message.
    Bad(&'static str, String),
    /// Unknown: reason, message.
    Unknown(&'static str, String),
}

impl Finding {
    fn write(&self, edit: &mut Edit<'_>, kind: &str) {
        match self {
            Self::Good => edit.set_true(kind),
            Self::Bad(reason, message) => edit.set_false(kind, reason, message),
            Self::Unknown(reason, message) => edit.set_unknown(kind, reason, message),
        };
    }
}

/// The fields of `fresh`, and null for those that only `old` has: a merge patch must say what to remove.
fn merge_patch(old: &NodeClassStatus, fresh: &NodeClassStatus) -> Value {
    let json = |status| match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let mut patch = json(fresh);
    for key in json(old).into_iter().map(|(key, _)| key) {
        patch.entry(key).or_insert(Value::Null);
    }
    Value::Object(patch)
}

fn found(any: bool, reason: &'static str, field: &str) -> Finding {
    if any {
        Finding::Good
    } else {
        Finding::Bad(reason, format!("spec.{field} selects nothing"))
    }
}

/// The old order when the same subnets were found: it follows free addresses, which move with every launch and are not
/// worth a write.
fn keep_order<T: Clone + PartialEq>(old: &[T], fresh: Vec<T>) -> Vec<T> {
    let same = old.len() == fresh.len() && fresh.iter().all(|s| old.contains(s));
    if same { old.to_vec() } else { fresh }
}

fn waiting_event(class: &NodeClass, claims: &[&str]) -> Event {
    let named = claims
        .iter()
        .take(CLAIMS_NAMED)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    let more = claims.len().saturating_sub(CLAIMS_NAMED);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    Event {
        about: class.object_ref(&()),
        kind: EventType::Normal,
        reason: "WaitingOnNodeClaimTermination",
        message: format!("waiting for NodeClaims to terminate: {named}{more}"),
        dedupe: Vec::new(),
        window: DEFAULT_DEDUPE_WINDOW,
    }
}
