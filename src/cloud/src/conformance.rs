//! What every [`CloudProvider`] has to keep, as checks that a provider's own tests run against it: types that make sense,
//! a launch that is what its claim asked for and is bought once, a machine that is found, listed and gone in the end.
//!
//! A provider's author makes a [`Subject`] of a world in which launches succeed and calls [`check`]; see the tests of
//! `karpenter-provider-kwok` and `karpenter-provider-ec2`. What is broken comes back in words, all of it at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use karpenter_api::{NodeClaim, NodePool, Quantity, labels};
use karpenter_model::resources::names::CPU;
use karpenter_model::{InstanceType, LabelRegistry, Requirements, Undefined};
use karpenter_runtime::Clock;

use crate::{CloudError, CloudProvider, Launched};

/// Longest that a deleted machine may still be found.
const GONE_LIMIT: Duration = Duration::from_secs(15 * 60);
/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A provider in a world where launches succeed.
#[async_trait]
pub trait Subject: Send + Sync {
    /// The provider.
    fn cloud(&self) -> Arc<dyn CloudProvider>;
    /// Keys with meaning.
    fn labels(&self) -> Arc<LabelRegistry>;
    /// Clock of the world.
    fn clock(&self) -> Clock;
    /// A pool that something can be bought for.
    fn pool(&self) -> NodePool;
    /// A new claim of that pool, in the API with a UID, that asks for one machine of the named types.
    async fn claim(&self, name: &str, instance_types: &[Arc<str>]) -> NodeClaim;
    /// Writes what a launch bought into the claim, as the lifecycle would.
    async fn record(&self, claim: &NodeClaim, launched: &Launched) -> NodeClaim;
}

/// Runs all checks; what is broken, in words. Empty = the provider keeps its contract.
pub async fn check(subject: &dyn Subject) -> Vec<String> {
    let mut broken = Vec::new();
    let cloud = subject.cloud();
    if cloud.name().is_empty() {
        broken.push("name(): expected a short name, got none".to_owned());
    }
    let types = match cloud.instance_types(&subject.pool()).await {
        Ok(types) => types,
        Err(e) => return vec![format!("instance_types(): {e}")],
    };
    judge_types(&types, &mut broken);
    match cloud.instance_types(&subject.pool()).await {
        Ok(again) if Arc::ptr_eq(&types, &again) => {}
        _ => broken.push(
            "instance_types(): expected the same Arc while nothing has changed, got another"
                .to_owned(),
        ),
    }
    let Some(wanted) = cheap_type(&types) else {
        broken.push("instance_types(): expected a type with an available offering".to_owned());
        return broken;
    };
    launches(subject, &wanted, &mut broken).await;
    unknown_machines(&*cloud, &mut broken).await;
    broken
}

fn judge_types(types: &[Arc<InstanceType>], broken: &mut Vec<String>) {
    let mut names = BTreeSet::new();
    for t in types {
        let name = &t.name;
        if !names.insert(name) {
            broken.push(format!("instance type {name}: is listed twice"));
        }
        if t.offerings.is_empty() {
            broken.push(format!("instance type {name}: has no offering"));
        }
        if t.allocatable.exceeding(&t.capacity).next().is_some() {
            broken.push(format!(
                "instance type {name}: allocatable exceeds capacity"
            ));
        }
        let named = t.requirements.get(labels::INSTANCE_TYPE);
        let named = named.and_then(|r| r.single());
        if named != Some(name) {
            broken.push(format!(
                "instance type {name}: requirement {} does not name it",
                labels::INSTANCE_TYPE
            ));
        }
        for o in &t.offerings {
            if !(o.price.is_finite() && o.price >= 0.0) {
                broken.push(format!("instance type {name}: price {} is none", o.price));
            }
            if o.zone().is_empty() || o.capacity_type().is_empty() {
                broken.push(format!(
                    "instance type {name}: an offering lacks zone or capacity type"
                ));
            }
        }
    }
}

/// The cheapest type that can be had and has more than one core for pods: a test's claim may well ask for one.
fn cheap_type(types: &[Arc<InstanceType>]) -> Option<Arc<str>> {
    let price = |t: &InstanceType| {
        let offers = t.offerings.iter().filter(|o| o.available);
        offers.map(|o| o.price).min_by(f64::total_cmp)
    };
    let roomy = |t: &&Arc<InstanceType>| t.allocatable.get(CPU) > Quantity::from_units(1);
    let priced = types
        .iter()
        .filter(roomy)
        .filter_map(|t| Some((price(t)?, &t.name)));
    priced
        .min_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(b.1)))
        .map(|(_, name)| name.clone())
}

async fn launches(subject: &dyn Subject, wanted: &Arc<str>, broken: &mut Vec<String>) {
    let cloud = subject.cloud();
    let claim = subject
        .claim("conformance-a", std::slice::from_ref(wanted))
        .await;
    let launched = match cloud.create(&claim).await {
        Ok(launched) => launched,
        Err(e) => {
            broken.push(format!(
                "create(): expected a machine of type {wanted}, got {e}"
            ));
            return;
        }
    };
    judge_launch(subject, &claim, &launched, wanted, broken);
    let claim = subject.record(&claim, &launched).await;
    let other = subject
        .claim("conformance-b", std::slice::from_ref(wanted))
        .await;
    if let Ok(second) = cloud.create(&other).await {
        if second.provider_id == launched.provider_id {
            broken.push("create(): two claims were given one machine".to_owned());
        }
        let other = subject.record(&other, &second).await;
        gone(subject, &other, broken).await;
    }
    let listed = |machines: &[crate::Machine]| {
        machines
            .iter()
            .any(|m| m.provider_id == launched.provider_id && !m.terminating)
    };
    // A list may lag behind a launch, but not for long.
    subject.clock().sleep(Duration::from_secs(60)).await;
    match cloud.list().await {
        Ok(machines) if listed(&machines) => {}
        Ok(_) => broken.push("list(): the launched machine is not in it".to_owned()),
        Err(e) => broken.push(format!("list(): {e}")),
    }
    match cloud.get(&launched.provider_id).await {
        Ok(machine) if machine.provider_id == launched.provider_id => {}
        Ok(machine) => broken.push(format!("get(): answered with {}", machine.provider_id)),
        Err(e) => broken.push(format!("get(): {e}")),
    }
    gone(subject, &claim, broken).await;
}

fn judge_launch(
    subject: &dyn Subject,
    claim: &NodeClaim,
    launched: &Launched,
    wanted: &Arc<str>,
    broken: &mut Vec<String>,
) {
    if launched.provider_id.is_empty() {
        broken.push("create(): expected a provider id, got none".to_owned());
    }
    let bought = launched.labels.get(labels::INSTANCE_TYPE);
    if bought.map(String::as_str) != Some(&**wanted) {
        broken.push(format!(
            "create(): asked for {wanted}, label says {bought:?}"
        ));
    }
    for key in [
        labels::ZONE,
        labels::CAPACITY_TYPE,
        labels::ARCH,
        labels::OS,
    ] {
        if launched.labels.get(key).is_none_or(String::is_empty) {
            broken.push(format!("create(): label {key} is missing"));
        }
    }
    let registry = subject.labels();
    let asked = Requirements::from_specs(&claim.spec.requirements, &registry);
    let has = Requirements::from_labels(&launched.labels, &registry);
    if !asked.is_ok_and(|asked| has.is_compatible(&asked, Undefined::WellKnown(&registry))) {
        broken.push("create(): labels do not satisfy the claim's requirements".to_owned());
    }
    if launched.capacity.is_empty() || launched.allocatable.is_empty() {
        broken.push("create(): capacity or allocatable is missing".to_owned());
    }
}

/// Deletes a claim's machine, twice, and waits until it is gone.
async fn gone(subject: &dyn Subject, claim: &NodeClaim, broken: &mut Vec<String>) {
    let (cloud, clock) = (subject.cloud(), subject.clock());
    let deadline = clock.now() + GONE_LIMIT;
    loop {
        match cloud.delete(claim).await {
            Ok(()) => {}
            Err(CloudError::NotFound(_)) => break,
            Err(e) => {
                broken.push(format!("delete(): {e}"));
                return;
            }
        }
        if clock.now() > deadline {
            broken.push(format!(
                "delete(): expected NotFound in the end, the machine is still there after {GONE_LIMIT:?}"
            ));
            return;
        }
        clock.sleep(LOOK_EVERY).await;
    }
    match cloud.get(&claim.status.provider_id).await {
        Err(CloudError::NotFound(_)) => {}
        Err(e) => broken.push(format!("get(): expected NotFound after the end, got {e}")),
        Ok(_) => broken.push("get(): expected NotFound after the end, got a machine".to_owned()),
    }
}

/// Ids nobody has given out are an error, not a machine; and not one that would make a claim be taken for gone wrongly.
async fn unknown_machines(cloud: &dyn CloudProvider, broken: &mut Vec<String>) {
    if cloud.get("no-such-scheme://x").await.is_ok() {
        broken.push("get(): an id of another cloud was answered with a machine".to_owned());
    }
}
