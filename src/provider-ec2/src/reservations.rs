//! Capacity reservations (`aws-provider.md` §18): what a class selects, how many machines each has left as far as that
//! can be told between two looks, and the offerings that they make of instance types.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use karpenter_api::kinds::Time;
use karpenter_api::labels::{CAPACITY_RESERVED, CAPACITY_TYPE, ZONE};
use karpenter_ec2_api::reservation::{CAPACITY_BLOCK, DEFAULT, MARKET_BLOCK, MARKET_INTERRUPTIBLE};
use karpenter_ec2_api::{CapacityReservation, Ec2, Ec2Error, Filter};
use karpenter_model::{InstanceType, Offering, Requirement, Requirements};
use parking_lot::Mutex;

use crate::labels as l;
use crate::nodeclass::{CapacityReservationStatus, CapacityReservationTerm};
use crate::resolve::tag_filters;

/// How long before its end a capacity block is `expiring`: ten minutes before EC2 ends its machines.
const EXPIRES_EARLY: SignedDuration = SignedDuration::from_mins(40);
/// State of a reservation that can be used.
const ACTIVE: &str = "active";
/// State of a capacity block that ends soon.
pub(crate) const EXPIRING: &str = "expiring";
/// What a reserved machine is said to cost, as a part of its on-demand price: it is paid for already, and among
/// reserved ones the larger still is the dearer.
const PRICE_SHARE: f64 = 1e-7;

/// Machines that reservations have left: as EC2 said last, less what was launched since.
#[derive(Debug, Default)]
pub(crate) struct Reservations {
    left: Mutex<BTreeMap<String, u32>>,
}

impl Reservations {
    /// Takes in what EC2 says; whether that is news.
    pub(crate) fn described(&self, found: &[CapacityReservation]) -> bool {
        let mut left = self.left.lock();
        let mut news = false;
        for reservation in found {
            let count = reservation.available_instance_count;
            news |= left.insert(reservation.id.clone(), count) != Some(count);
        }
        news
    }

    /// How many machines it has left; none if it is not known.
    pub(crate) fn left(&self, id: &str) -> u32 {
        self.left.lock().get(id).copied().unwrap_or(0)
    }

    /// A machine was launched out of it.
    pub(crate) fn launched(&self, id: &str) {
        self.change(id, |left| left.saturating_sub(1));
    }

    /// A machine out of it is gone.
    pub(crate) fn returned(&self, id: &str) {
        self.change(id, |left| left.saturating_add(1));
    }

    /// EC2 says that it has none.
    pub(crate) fn exhausted(&self, id: &str) {
        self.change(id, |_| 0);
    }

    fn change(&self, id: &str, to: impl FnOnce(u32) -> u32) {
        if let Some(left) = self.left.lock().get_mut(id) {
            *left = to(*left);
        }
    }
}

/// A reservation as a machine's labels tell of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reserved {
    pub(crate) id: String,
    /// `default` or `capacity-block`.
    pub(crate) kind: String,
    pub(crate) interruptible: bool,
}

impl Reserved {
    /// The reservation of an offering.
    pub(crate) fn of(offering: &Offering) -> Option<Self> {
        let value = |key| offering.requirements.get(key).and_then(Requirement::single);
        offering.is_reserved().then_some(())?;
        Some(Self {
            id: value(l::RESERVATION_ID)?.to_string(),
            kind: value(l::RESERVATION_TYPE)?.to_string(),
            interruptible: &**value(l::RESERVATION_INTERRUPTIBLE)? == "true",
        })
    }

    pub(crate) fn is_block(&self) -> bool {
        self.kind == CAPACITY_BLOCK
    }

    /// `MarketType` of machines out of it.
    pub(crate) fn market_type(&self) -> Option<&'static str> {
        match (self.is_block(), self.interruptible) {
            (true, _) => Some(MARKET_BLOCK),
            (false, true) => Some(MARKET_INTERRUPTIBLE),
            (false, false) => None,
        }
    }

    /// The labels of its machines.
    pub(crate) fn labels(&self) -> [(&'static str, String); 3] {
        [
            (l::RESERVATION_ID, self.id.clone()),
            (l::RESERVATION_TYPE, self.kind.clone()),
            (l::RESERVATION_INTERRUPTIBLE, self.interruptible.to_string()),
        ]
    }
}

/// Active reservations that any of the terms selects, by id.
///
/// # Errors
/// When EC2 refuses; an id that it does not know selects nothing.
pub(crate) async fn resolve(
    ec2: &dyn Ec2,
    terms: &[CapacityReservationTerm],
    now: Timestamp,
) -> Result<Vec<CapacityReservation>, Ec2Error> {
    let mut found: BTreeMap<String, CapacityReservation> = BTreeMap::new();
    for term in terms {
        let active = Filter::new("state", [ACTIVE]);
        let answer = match &term.id {
            // Each by itself: one that is gone must not hide the others.
            Some(id) => {
                let ids = std::slice::from_ref(id);
                ec2.describe_capacity_reservations(ids, &[active]).await
            }
            None => {
                let mut filters = vec![active];
                let named = [
                    ("owner-id", &term.owner_id),
                    ("instance-match-criteria", &term.instance_match_criteria),
                ];
                for (name, value) in named {
                    filters.extend(value.as_ref().map(|v| Filter::new(name, [v.as_str()])));
                }
                filters.extend(tag_filters(&term.tags));
                ec2.describe_capacity_reservations(&[], &filters).await
            }
        };
        match answer {
            Ok(some) => found.extend(some.into_iter().map(|r| (r.id.clone(), r))),
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found
        .into_values()
        .filter(|r| r.end_date.is_none_or(|end| end > now))
        .filter(is_understood)
        .collect())
}

fn is_understood(reservation: &CapacityReservation) -> bool {
    let criteria = ["open", "targeted"].contains(&&*reservation.instance_match_criteria);
    let kind = ["", DEFAULT, CAPACITY_BLOCK].contains(&&*reservation.reservation_type);
    if !(criteria && kind) {
        tracing::warn!(
            reservation = reservation.id,
            "instance-match-criteria" = reservation.instance_match_criteria,
            "reservation-type" = reservation.reservation_type,
            "ignoring a capacity reservation of a kind that is not known"
        );
    }
    criteria && kind
}

/// As the status shows them.
pub(crate) fn status(
    found: &[CapacityReservation],
    now: Timestamp,
) -> Vec<CapacityReservationStatus> {
    let shown = |r: &CapacityReservation| {
        let block = r.reservation_type == CAPACITY_BLOCK;
        let expiring = block && expires_at(r).is_some_and(|at| at <= now);
        CapacityReservationStatus {
            id: r.id.clone(),
            availability_zone: r.zone.to_string(),
            instance_match_criteria: r.instance_match_criteria.clone(),
            instance_type: r.instance_type.to_string(),
            owner_id: r.owner_id.clone(),
            end_time: r.end_date.map(Time),
            reservation_type: Some(if block { CAPACITY_BLOCK } else { DEFAULT }.to_owned()),
            interruptible: Some(r.interruptible),
            state: Some(if expiring { EXPIRING } else { ACTIVE }.to_owned()),
        }
    };
    found.iter().map(shown).collect()
}

fn expires_at(reservation: &CapacityReservation) -> Option<Timestamp> {
    let end = reservation.end_date?;
    Some(end.checked_sub(EXPIRES_EARLY).unwrap_or(end))
}

/// When the status of one of them will be another without anybody having done anything.
pub(crate) fn next_change(found: &[CapacityReservation], now: Timestamp) -> Option<Timestamp> {
    let ends = found.iter().filter_map(|r| r.end_date);
    let expire = found
        .iter()
        .filter(|r| r.reservation_type == CAPACITY_BLOCK)
        .filter_map(expires_at);
    ends.chain(expire).filter(|at| *at > now).min()
}

/// What of a class' types reservations add to.
pub(crate) struct Sold<'a> {
    /// The class' reservations.
    pub(crate) found: &'a [CapacityReservationStatus],
    /// What each has left, in the same order.
    pub(crate) left: &'a [u32],
    /// Ids of the zones that the class has subnets in.
    pub(crate) zone_ids: &'a BTreeMap<Arc<str>, Arc<str>>,
}

impl Sold<'_> {
    /// The type with the offerings of its reservations; none if it has none.
    pub(crate) fn add(
        &self,
        held: &InstanceType,
        compatible: bool,
        on_demand: Option<f64>,
    ) -> Option<InstanceType> {
        let own = self.found.iter().zip(self.left);
        let own: Vec<_> = own.filter(|(r, _)| r.instance_type == *held.name).collect();
        if own.is_empty() {
            return None;
        }
        let mut with = held.clone();
        let zones = held.requirements.effective(ZONE).into_owned();
        for (found, left) in &own {
            let expiring = found.state.as_deref() == Some(EXPIRING);
            with.offerings.push(Offering {
                requirements: self.requirements(found),
                price: on_demand.unwrap_or(0.0) * PRICE_SHARE,
                available: compatible
                    && **left > 0
                    && !expiring
                    && zones.has(&found.availability_zone),
                reservation_capacity: **left,
                overlaid: false,
            });
        }
        let mut kinds: Vec<Arc<str>> = held
            .requirements
            .get(CAPACITY_TYPE)
            .map(|r| r.values.iter().cloned().collect())
            .unwrap_or_default();
        kinds.push(CAPACITY_RESERVED.into());
        with.requirements
            .set(Requirement::is_in(CAPACITY_TYPE, kinds));
        let of = |value: fn(&CapacityReservationStatus) -> String| {
            let values: Vec<String> = own.iter().map(|(r, _)| value(r)).collect();
            values
        };
        for (key, values) in [
            (l::RESERVATION_ID, of(|r| r.id.clone())),
            (l::RESERVATION_TYPE, of(kind)),
            (l::RESERVATION_INTERRUPTIBLE, of(interruptible)),
        ] {
            with.requirements.set(Requirement::is_in(key, values));
        }
        Some(with)
    }

    fn requirements(&self, found: &CapacityReservationStatus) -> Requirements {
        let mut reqs = Requirements::new();
        let zone = found.availability_zone.as_str();
        reqs.set(Requirement::is_in(CAPACITY_TYPE, [CAPACITY_RESERVED]));
        reqs.set(Requirement::is_in(ZONE, [zone]));
        if let Some(id) = self.zone_ids.get(zone) {
            reqs.set(Requirement::is_in(l::ZONE_ID, [id]));
        }
        reqs.set(Requirement::is_in(l::RESERVATION_ID, [&found.id]));
        reqs.set(Requirement::is_in(l::RESERVATION_TYPE, [kind(found)]));
        let interruptible = interruptible(found);
        reqs.set(Requirement::is_in(
            l::RESERVATION_INTERRUPTIBLE,
            [interruptible],
        ));
        reqs
    }
}

fn kind(found: &CapacityReservationStatus) -> String {
    let kind = found.reservation_type.as_deref();
    kind.unwrap_or(DEFAULT).to_owned()
}

fn interruptible(found: &CapacityReservationStatus) -> String {
    found.interruptible.unwrap_or(false).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(end: &str) -> CapacityReservation {
        CapacityReservation {
            id: "cr-1".into(),
            instance_match_criteria: "targeted".into(),
            reservation_type: CAPACITY_BLOCK.into(),
            end_date: Some(end.parse().unwrap()),
            available_instance_count: 2,
            ..CapacityReservation::default()
        }
    }

    #[test]
    fn a_block_expires_forty_minutes_before_its_end() {
        let found = [block("2026-01-15T12:00:00Z")];
        let at = |time: &str| {
            let now = format!("2026-01-15T{time}Z").parse().unwrap();
            let state = status(&found, now)[0].state.clone().unwrap();
            (state, next_change(&found, now).map(|t| t.to_string()))
        };
        let expires = Some("2026-01-15T11:20:00Z".to_owned());
        let ends = Some("2026-01-15T12:00:00Z".to_owned());
        assert_eq!(at("11:19:59"), (ACTIVE.to_owned(), expires));
        assert_eq!(at("11:20:00"), (EXPIRING.to_owned(), ends));
        let lasting = CapacityReservation {
            reservation_type: String::new(),
            ..block("2026-01-15T12:00:00Z")
        };
        let shown = status(&[lasting], "2026-01-15T11:59:00Z".parse().unwrap());
        assert_eq!(shown[0].state.as_deref(), Some(ACTIVE), "others do not");
    }

    #[test]
    fn what_is_left_follows_launches_and_ends() {
        let counts = Reservations::default();
        let found = [block("2026-01-15T12:00:00Z")];
        assert!(counts.described(&found));
        assert!(!counts.described(&found), "the same is no news");
        for _ in 0..3 {
            counts.launched("cr-1");
        }
        assert_eq!(counts.left("cr-1"), 0, "never below none");
        counts.returned("cr-1");
        assert_eq!(counts.left("cr-1"), 1);
        counts.exhausted("cr-1");
        assert_eq!(counts.left("cr-1"), 0);
        counts.returned("cr-unknown");
        assert_eq!(counts.left("cr-unknown"), 0);
    }
}
