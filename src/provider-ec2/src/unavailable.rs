//! What could not be had a moment ago (`aws-provider.md` §8): offerings, capacity types, subnets, three minutes each,
//! extended at every mark. Nothing of it survives a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a mark holds.
pub(crate) const UNAVAILABLE_TTL: Duration = Duration::from_secs(180);

/// What a mark is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    Offering {
        instance_type: Arc<str>,
        zone: Arc<str>,
        capacity_type: &'static str,
    },
    CapacityType(&'static str),
    Subnet(String),
}

/// The marks.
#[derive(Debug, Default)]
pub(crate) struct Unavailable {
    inner: Mutex<Inner>,
    /// Notified when a mark is new, so that somebody can wait for its end.
    pub(crate) marked: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    until: BTreeMap<Mark, Instant>,
    /// Grows with every change of availability.
    version: u64,
    /// Types touched since the version before, to rebuild only them; none = all.
    touched: Option<(u64, BTreeSet<Arc<str>>)>,
}

impl Inner {
    fn sweep(&mut self, now: Instant) {
        let ended: Vec<Mark> = self
            .until
            .iter()
            .filter(|(_, end)| **end <= now)
            .map(|(mark, _)| mark.clone())
            .collect();
        for mark in ended {
            self.until.remove(&mark);
            self.changed(&mark);
        }
    }

    fn changed(&mut self, mark: &Mark) {
        self.version += 1;
        match mark {
            Mark::Offering { instance_type, .. } => {
                if let Some((_, types)) = &mut self.touched {
                    types.insert(instance_type.clone());
                }
            }
            Mark::CapacityType(_) | Mark::Subnet(_) => self.touched = None,
        }
    }
}

impl Unavailable {
    fn mark(&self, mark: Mark, now: Instant) {
        let mut inner = self.inner.lock();
        inner.sweep(now);
        if inner
            .until
            .insert(mark.clone(), now + UNAVAILABLE_TTL)
            .is_none()
        {
            inner.changed(&mark);
        }
        drop(inner);
        self.marked.notify_one();
    }

    pub(crate) fn mark_offering(
        &self,
        instance_type: &Arc<str>,
        zone: &Arc<str>,
        capacity_type: &'static str,
        now: Instant,
    ) {
        self.mark(
            Mark::Offering {
                instance_type: instance_type.clone(),
                zone: zone.clone(),
                capacity_type,
            },
            now,
        );
    }

    pub(crate) fn mark_capacity_type(&self, capacity_type: &'static str, now: Instant) {
        self.mark(Mark::CapacityType(capacity_type), now);
    }

    pub(crate) fn mark_subnet(&self, subnet: &str, now: Instant) {
        self.mark(Mark::Subnet(subnet.to_owned()), now);
    }

    /// Grows whenever something becomes unavailable or available again.
    pub(crate) fn version(&self, now: Instant) -> u64 {
        let mut inner = self.inner.lock();
        inner.sweep(now);
        inner.version
    }

    /// Types whose availability differs from that at `since`; none = any may. Starts a new period.
    pub(crate) fn touched_since(&self, since: u64) -> Option<BTreeSet<Arc<str>>> {
        let mut inner = self.inner.lock();
        let touched = inner.touched.take();
        inner.touched = Some((inner.version, BTreeSet::new()));
        touched
            .filter(|(from, _)| *from == since)
            .map(|(_, types)| types)
    }

    /// When the next mark ends.
    pub(crate) fn next_end(&self) -> Option<Instant> {
        self.inner.lock().until.values().min().copied()
    }

    /// Whether an offering cannot be had; `subnets` are those that the class has in the zone.
    pub(crate) fn is_unavailable(
        &self,
        instance_type: &Arc<str>,
        zone: &Arc<str>,
        capacity_type: &'static str,
        subnets: &[String],
        now: Instant,
    ) -> bool {
        let inner = self.inner.lock();
        if inner.until.is_empty() {
            return false;
        }
        let marked = |mark: &Mark| inner.until.get(mark).is_some_and(|end| *end > now);
        marked(&Mark::CapacityType(capacity_type))
            || marked(&Mark::Offering {
                instance_type: instance_type.clone(),
                zone: zone.clone(),
                capacity_type,
            })
            || (!subnets.is_empty() && subnets.iter().all(|s| marked(&Mark::Subnet(s.clone()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn marks_hold_for_three_minutes_and_are_extended() {
        let marks = Unavailable::default();
        let (m5, zone): (Arc<str>, Arc<str>) = ("m5.large".into(), "us-east-1a".into());
        let out = || marks.is_unavailable(&m5, &zone, "spot", &[], Instant::now());
        let version = || marks.version(Instant::now());
        marks.mark_offering(&m5, &zone, "spot", Instant::now());
        let marked = version();
        assert!(out());
        assert!(!marks.is_unavailable(&m5, &zone, "on-demand", &[], Instant::now()));
        tokio::time::advance(Duration::from_secs(100)).await;
        marks.mark_offering(&m5, &zone, "spot", Instant::now());
        assert_eq!(version(), marked, "extending changes nothing");
        tokio::time::advance(Duration::from_secs(100)).await;
        assert!(out());
        tokio::time::advance(Duration::from_secs(80)).await;
        assert!(!out());
        assert!(version() > marked);
        assert_eq!(marks.next_end(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_zone_is_out_only_when_all_its_subnets_are() {
        let marks = Unavailable::default();
        let (m5, zone): (Arc<str>, Arc<str>) = ("m5.large".into(), "us-east-1a".into());
        let subnets = ["a".to_owned(), "b".to_owned()];
        let out = || marks.is_unavailable(&m5, &zone, "spot", &subnets, Instant::now());
        marks.mark_subnet("a", Instant::now());
        assert!(!out());
        marks.mark_subnet("b", Instant::now());
        assert!(out());
        assert!(!marks.is_unavailable(&m5, &zone, "spot", &[], Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn only_touched_types_need_a_new_look() {
        let marks = Unavailable::default();
        let now = Instant::now();
        let zone: Arc<str> = "z".into();
        assert_eq!(marks.touched_since(0), None, "the first look is at all");
        let seen = marks.version(now);
        marks.mark_offering(&"a".into(), &zone, "spot", now);
        assert_eq!(
            marks.touched_since(seen),
            Some(BTreeSet::from(["a".into()]))
        );
        let seen = marks.version(now);
        marks.mark_capacity_type("spot", now);
        assert_eq!(marks.touched_since(seen), None);
    }
}
